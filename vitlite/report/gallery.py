"""The pictures of the report: which test images it shows, and each as two small JPEGs inside the page."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from vitlite.data import read_image, resize_image
from vitlite.images.heatmap import overlay
from vitlite.images.resize import map_at

LIMIT = 60  # pictures in a report: about 2 MB
LEAST = 4  # pictures of a category, however many categories there are
SIDE = 256  # a picture is shown at about SIDE * SIDE pixels, whatever its shape
MARK = np.array([40, 255, 60], dtype=np.uint8)  # in no part of the heat map's scale, and not its outline


@dataclass(frozen=True)
class Card:
    """One picture of the gallery."""

    index: int  # of the image among all test images of the report
    file: str  # below the data set's folder
    marked: bool  # a defect is outlined
    size: tuple  # (width, height) of the two pictures
    picture: str  # data URIs
    heat: str


def share(categories):
    """Pictures that each of so many categories may show."""
    return max(LEAST, LIMIT // categories)


def choose(labels, scores, limit):
    """Places of at most ``limit`` images: the lowest-scoring defective and the highest-scoring good ones.

    Half of each, or more of one where there are few of the other. At every threshold the worst misses are the
    defective images with the lowest scores and the worst false alarms the good ones with the highest, so the choice
    needs no threshold.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    order = np.argsort(scores, kind="stable")
    defective, good = order[labels[order] == 1], order[labels[order] == 0][::-1]
    half = limit // 2
    from_good = min(good.size, max(half, limit - defective.size))
    return sorted([*defective[: limit - from_good].tolist(), *good[:from_good].tolist()])


def make_card(index, file, path, values, mask, calibration):
    """Read a picture again and draw it with its mask outlined, and with its map on the calibration's scale.

    Args:
        index, file: kept as they are.
        path: the picture; ``ImageError`` where it can no longer be read.
        values: float32 map, of the picture's size or any other.
        mask: (H, W) of 0 and 1, or None.
        calibration: the run's, for scale and pixel threshold.
    """
    image = read_image(path)
    height, width = thumbnail_size(*image.shape[:2])
    small = resize_image(image, (height, width))
    scale = calibration["display"]
    low, high, threshold = scale["low"], scale["high"], calibration["pixel_threshold"]
    heat = overlay(small, map_at(values, height, width), low=low, high=high, threshold=threshold)
    marked = mask is not None and bool(mask.any())
    picture = mark(small, shrink_mask(mask, height, width)) if marked else small
    return Card(index, file, marked, (width, height), jpeg_uri(picture), jpeg_uri(heat))


def thumbnail_size(height, width):
    """(height, width) of the same shape with about SIDE * SIDE pixels; small pictures stay as they are."""
    factor = min(1.0, SIDE / (height * width) ** 0.5)
    return max(1, round(height * factor)), max(1, round(width * factor))


def shrink_mask(mask, height, width):
    """The mask at another size, bool; a pixel that holds any part of a defect is set, so that thin ones stay."""
    picture = Image.fromarray(np.asarray(mask, np.uint8) * 255).convert("F")
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX)) > 0


def mark(image, region):
    """The picture (H, W, 3) with a line around the region: outside it, so that a thin defect stays visible."""
    width = max(1, round(min(image.shape[:2]) / 128))
    near, far = (ndimage.binary_dilation(region, iterations=n) for n in (1, 1 + width))
    result = image.copy()
    result[far & ~near] = MARK
    result[ndimage.binary_dilation(far) & ~far] = 0  # a dark edge, for bright surfaces
    return result


def jpeg_uri(picture):
    """A uint8 (H, W, 3) picture as a data URI; colour at full resolution, for the thin lines."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=82, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
