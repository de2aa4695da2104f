"""An anomaly map at the size of the picture it belongs to. Never imports torch."""

import numpy as np


def map_at(pixels, height, width):
    """A map (h, w), float32, bilinearly resized to (height, width), float32; half-pixel centres, edges repeated.

    The same as ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`` up to rounding.
    """
    pixels = np.asarray(pixels, dtype=np.float32)
    if pixels.shape == (height, width):
        return pixels.copy()
    left, right, share = _neighbours(pixels.shape[1], width)
    rows = pixels[:, left] * (1 - share) + pixels[:, right] * share
    above, below, share = _neighbours(pixels.shape[0], height)
    share = share[:, None]
    # In place: at the size of a photograph the temporaries cost more than the arithmetic.
    result = rows.take(above, axis=0)
    result *= 1 - share
    other = rows.take(below, axis=0)
    other *= share
    result += other
    return result


def _neighbours(old, new):
    """For every new position along an axis: the old positions on both sides (int) and the weight of the second."""
    # The scale is rounded to float32 and the position once more, as torch does; in float64 throughout the weights
    # would differ from torch's in the fifth digit.
    scale = np.float64(np.float32(old) / np.float32(new))
    position = np.maximum(scale * (np.arange(new) + 0.5) - 0.5, 0).astype(np.float32)
    before = np.minimum(position.astype(np.intp), old - 1)
    after = np.minimum(before + 1, old - 1)
    return before, after, np.clip(position - before.astype(np.float32), 0, 1)
