"""Images and anomaly maps in other sizes. Never imports torch."""

import numpy as np
from PIL import Image


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a uint8 (H, W) or (H, W, 3) array to ``size`` = (height, width), antialiased; returns a new uint8 array.

    The filter is Pillow's bilinear: a triangle that grows with the reduction, so thin defects are averaged and not
    skipped. It never overshoots. Raises ValueError for another dtype or shape, or a size below 1.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"image must be uint8 of shape (H, W) or (H, W, 3), not {image.dtype} {image.shape}")
    height, width = (int(n) for n in size)
    if min(height, width, *image.shape[:2]) < 1:
        raise ValueError(f"cannot resize {image.shape[0]} x {image.shape[1]} to {height} x {width}: sizes start at 1")
    if image.shape[:2] == (height, width):
        return image.copy()
    whole = Image.fromarray(np.ascontiguousarray(image))
    return np.array(whole.resize((width, height), Image.Resampling.BILINEAR))


def map_at(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
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


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every new position along an axis: the old positions on both sides (int) and the weight of the second."""
    # The scale is rounded to float32 and the position once more, as torch does; in float64 throughout the weights
    # would differ from torch's in the fifth digit.
    scale = np.float64(np.float32(old) / np.float32(new))
    position = np.maximum(scale * (np.arange(new) + 0.5) - 0.5, 0).astype(np.float32)
    before = np.minimum(position.astype(np.intp), old - 1)
    after = np.minimum(before + 1, old - 1)
    return before, after, np.clip(position - before.astype(np.float32), 0, 1)
