"""Heat maps drawn over the original image, on a scale that the caller fixes."""

import numpy as np
from scipy import ndimage

# Dark blue, cyan, green, yellow, red: 0 to 1 in equal steps; brightness grows towards yellow, hue tells the rest.
ANCHORS = np.array([[30, 20, 90], [20, 120, 200], [40, 190, 120], [250, 210, 40], [220, 20, 20]], dtype=np.float32)
STEPS = np.diff(ANCHORS, axis=0)
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
    """Levels (H, W) float32 in [0, 1] over an image (H, W, 3) uint8, in colours that cover more as they grow; uint8."""
    # As colorize, one channel after another and in place: it is the traffic of temporaries that takes the time.
    position = level * (len(ANCHORS) - 1)
    lower = np.minimum(position.astype(np.intp), len(ANCHORS) - 2)
    position -= lower
    opacity = 0.75 * level
    shows = 1 - opacity
    result = np.empty_like(image)
    for channel in range(3):
        colour = STEPS[:, channel].take(lower)
        colour *= position
        colour += ANCHORS[:, channel].take(lower)
        colour *= opacity
        plane = image[..., channel] * shows
        plane += colour
        plane += 0.5
        result[..., channel] = np.clip(plane, 0, 255, out=plane)
    return result


def outline(region: np.ndarray, width: int) -> np.ndarray:
    """The inner border, ``width`` pixels thick, of the true pixels (H, W)."""
    if not region.any():
        return region
    inside = ndimage.binary_erosion(region, iterations=width, border_value=1)
    return np.greater(region, inside, out=inside)
