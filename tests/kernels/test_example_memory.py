"""The example of ``memory_read`` in a foreign training loop runs, learns, and finds the stain."""

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "memory_bottleneck.py"


@pytest.mark.skipif(not EXAMPLE.exists(), reason="the examples are in the clone only")
def test_an_autoencoder_learns_with_a_memory_and_finds_a_stain():
    first, last, inside, outside = runpy.run_path(str(EXAMPLE))["main"](["--steps", "150"])
    # Grey everywhere would be 0.0625 off, and four times as far from the stain.
    assert last < 0.03 < first
    assert inside > 3 * outside
