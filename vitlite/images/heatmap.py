"""Heat maps drawn over the original image, on a scale that the caller fixes."""

from functools import cache

import numpy as np
from scipy import ndimage

# Dark blue, cyan, green, yellow, red: 0 to 1 in equal steps; brightness grows towards yellow, hue tells the rest.
ANCHORS = np.array([[30, 20, 90], [20, 120, 200], [40, 190, 120], [250, 210, 40], [220, 20, 20]], dtype=np.float32)
LEVELS = 1024  # steps of the scale that are told apart in an overlay
OUTLINE = np.array([255, 0, 255], dtype=np.uint8)  # found in no part of the scale
BAND = 1 << 15  # pixels that are blended at a time: what this takes stays in the processor's cache


def scale_map(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map values to [0, 1] between ``low`` and ``high``, clipped; float32."""
    return np.clip((values - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)


def colorize(level: np.ndarray) -> np.ndarray:
    """Levels (H, W) in [0, 1] to colours (H, W, 3) float32 in 0..255."""
    position = level * (len(ANCHORS) - 1)
    lower = np.minimum(position.astype(np.intp), len(ANCHORS) - 2)
    share = (position - lower.astype(np.float32))[..., None]
    return ANCHORS[lower] * (1 - share) + ANCHORS[lower + 1] * share


def overlay(image: np.ndarray, values: np.ndarray, *, low: float, high: float, marked: np.ndarray) -> np.ndarray:
    """The image with its anomaly map over it.

    Args:
        image: uint8 (H, W, 3), RGB.
        values: float (H, W), the map at the image's size.
        low: the beginning of the scale; below it the image shows through unchanged.
        high: the end of the scale.
        marked: bool (H, W); these pixels are outlined.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    result = np.empty_like(image)
    rows = max(1, BAND // image.shape[1])
    for start in range(0, image.shape[0], rows):
        band = slice(start, start + rows)
        result[band] = blend(image[band], scale_map(values[band], low, high))
    width = max(1, round(min(image.shape[:2]) / 300))
    np.copyto(result, OUTLINE, where=outline(marked, width)[..., None])
    return result


def blend(image: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Levels (H, W) float32 in [0, 1] over an image (H, W, 3) uint8, in colours that cover more as they grow; uint8.

    At most 1 of 255 away from the exact mixture.
    """
    # Tables and whole numbers, one channel after another: it is the traffic of temporaries that takes the time.
    shows, colours = tables()
    index = np.rint(level * np.float32(LEVELS - 1)).astype(np.intp)
    share = shows.take(index)
    result = np.empty_like(image)
    for channel in range(3):
        plane = image[..., channel] * share
        plane += colours[channel].take(index)
        plane >>= 8
        result[..., channel] = plane
    return result


@cache
def tables() -> tuple[np.ndarray, np.ndarray]:
    """By level, uint16, in 256ths: what is left of the image (LEVELS,), and the colour that is added (3, LEVELS)."""
    level = np.linspace(0, 1, LEVELS)
    opacity = 0.75 * level
    half = 128  # rounds
    return (
        np.rint(256 * (1 - opacity)).astype(np.uint16),
        np.ascontiguousarray(np.rint(256 * colorize(level) * opacity[:, None] + half).astype(np.uint16).T),
    )


def outline(region: np.ndarray, width: int) -> np.ndarray:
    """The inner border, ``width`` pixels thick, of the true pixels (H, W)."""
    edge = np.zeros_like(region)
    places = [np.flatnonzero(region.any(axis)) for axis in (1, 0)]
    if not len(places[0]):
        return edge
    # Only around what is true: the rest takes as long, and has no border.
    box = tuple(slice(max(0, at[0] - width), at[-1] + 1 + width) for at in places)
    inside = ndimage.binary_erosion(region[box], iterations=width, border_value=1)
    edge[box] = region[box] > inside
    return edge
