"""Heat maps drawn over the original image, on a scale that the caller fixes."""

import numpy as np
from scipy import ndimage

# Dark blue, cyan, green, yellow, red: 0 to 1 in equal steps; brightness grows towards yellow, hue tells the rest.
ANCHORS = np.array([[30, 20, 90], [20, 120, 200], [40, 190, 120], [250, 210, 40], [220, 20, 20]], dtype=np.float32)
OUTLINE = np.array([255, 0, 255], dtype=np.uint8)  # found in no part of the scale


def scale_map(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map values to [0, 1] between ``low`` and ``high``, clipped; float32."""
    return np.clip((values - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)


def colorize(level: np.ndarray) -> np.ndarray:
    """Levels (H, W) in [0, 1] to colours (H, W, 3) float32 in 0..255."""
    position = level * (len(ANCHORS) - 1)
    lower = np.minimum(position.astype(np.intp), len(ANCHORS) - 2)
    share = (position - lower)[..., None]
    return ANCHORS[lower] * (1 - share) + ANCHORS[lower + 1] * share


def overlay(image: np.ndarray, values: np.ndarray, *, low: float, high: float, threshold: float) -> np.ndarray:
    """The image with its anomaly map over it.

    Args:
        image: uint8 (H, W, 3).
        values: float (H, W), the map at the image's size.
        low: the beginning of the scale; below it the image shows through unchanged.
        high: the end of the scale.
        threshold: pixels above it are outlined.

    Returns:
        uint8 (H, W, 3).
    """
    level = scale_map(values, low, high)
    opacity = (0.75 * level)[..., None]
    blended = image * (1 - opacity) + colorize(level) * opacity
    result = np.clip(blended + 0.5, 0, 255).astype(np.uint8)
    width = max(1, round(min(image.shape[:2]) / 300))
    result[outline(values > threshold, width)] = OUTLINE
    return result


def outline(region: np.ndarray, width: int) -> np.ndarray:
    """The inner border, ``width`` pixels thick, of the true pixels (H, W)."""
    if not region.any():
        return region
    return region & ~ndimage.binary_erosion(region, iterations=width, border_value=1)
