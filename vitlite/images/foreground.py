"""Where the part is on an image with a plain background."""

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from vitlite.images.resize import map_at, resize_image

PLAIN = 30  # a plain background varies by fewer levels than this


def estimate_part(image: np.ndarray) -> np.ndarray:
    """Where the part is, bool (H, W): what differs from a plain background, or everywhere if there is none.

    Args:
        image: uint8 (H, W, 3).
    """
    height, width = image.shape[:2]
    step = max(1, min(height, width) // 128)
    small = resize_image(image, (height // step, width // step)).astype(np.float32)
    small = ndimage.gaussian_filter(np.sqrt(255 * small), (1, 1, 0))  # differences of dark colours count more
    away = np.abs(small - np.median(_rim(small), axis=0)).max(axis=2)
    far = away > max(3 + 1.5 * float(np.quantile(_rim(away), 0.9)), _otsu(away))  # farther than shadows are
    if np.quantile(_rim(away), 0.95) > PLAIN or _rim(far).mean() > 0.03:
        return np.ones((height, width), bool)
    part = ndimage.binary_closing(np.pad(far, 3), iterations=3)[3:-3, 3:-3]
    part = ndimage.binary_opening(ndimage.binary_fill_holes(part))
    if not 0.03 < part.mean() < 0.9:
        return np.ones((height, width), bool)
    return map_at(part, height, width) > 0.5


def region_of_part(image: np.ndarray) -> np.ndarray:
    """Where to look for defects in an image (H, W, 3), uint8: the convex hull of the part, or everywhere; bool (H, W).

    The hull, because some of a part may look as the background does: dark rubber before black.
    """
    part = estimate_part(image)
    if part.all():
        return part
    rows = np.flatnonzero(part.any(1))
    first, last = part[rows].argmax(1), part.shape[1] - 1 - part[rows, ::-1].argmax(1)
    ends = np.concatenate([np.stack([first, rows], 1), np.stack([last, rows], 1)])
    try:
        corners = ends[ConvexHull(ends).vertices]
    except QhullError:  # all in a line
        return part
    hull = Image.new("1", part.shape[::-1])
    ImageDraw.Draw(hull).polygon([(int(x), int(y)) for x, y in corners], fill=1, outline=1)
    return np.asarray(hull) | part


def _rim(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])


def _otsu(values: np.ndarray) -> float:
    """The threshold of 0 to 255 that splits values into the two groups that vary least (Otsu, 1979)."""
    counts, edges = np.histogram(values, 64, (0, 256))
    below, total = np.cumsum(counts), np.cumsum(counts * edges[:-1])
    share = below / below[-1]
    between = (total[-1] / below[-1] * share - total / below[-1]) ** 2 / np.maximum(share * (1 - share), 1e-6)
    return float(edges[1:][np.argmax(between)])
