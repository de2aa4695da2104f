"""Building blocks that the methods share: transformer blocks, losses, map filters."""
