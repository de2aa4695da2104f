"""What is said of one picture: score, verdict, percentile, map and regions. Needs no torch."""

import os
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from scipy import ndimage

from vitlite.data.reading import convert_picture, read_image
from vitlite.errors import UserError


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer for one picture of H x W pixels.

    score: float, larger is more anomalous.
    is_defect: whether the score is above the calibrated threshold.
    percentile: 0 to 100, the share of the calibration's good images that score lower.
    regions: boxes (x0, y0, x1, y1) in pixels, x1 and y1 past the end, of the connected parts of the map that are above
        the pixel threshold; empty where there are none.
    defect_pixels: how many pixels are above it.
    map: (H, W) float32 at the picture's own size.
    """

    score: float
    is_defect: bool
    percentile: float
    regions: tuple
    defect_pixels: int
    map: np.ndarray = field(repr=False)

    @property
    def verdict(self):
        """``"defect"`` or ``"good"``."""
        return "defect" if self.is_defect else "good"


@dataclass(frozen=True)
class Limits:
    """What scores and pixels are compared with."""

    image: float
    pixel: float
    good_scores: np.ndarray  # ascending


def limits_of(calibration, category=None):
    """The limits of the whole model, or of one of its categories. ``UserError`` names the categories there are."""
    if category is None:
        own = calibration
    else:
        known = calibration.get("categories", {})
        if not isinstance(category, str):
            raise UserError(f"category={category!r}: must be the name of one category")
        if category not in known:
            raise UserError(f"--category {category}: calibrated for {', '.join(known) or 'no category by itself'}")
        # A calibration by an older version has one pixel threshold, and one list of scores, for all categories.
        own = {**calibration, **known[category]}
    return Limits(own["image_threshold"], own["pixel_threshold"], np.asarray(own["good_scores"], dtype=np.float64))


def judge(values, score, limits):
    """The :class:`Prediction` for a map (H, W) float32 at the original size and its image score."""
    above = values > limits.pixel
    labels, _ = ndimage.label(above, structure=np.ones((3, 3)))
    boxes = tuple((s[1].start, s[0].start, s[1].stop, s[0].stop) for s in ndimage.find_objects(labels))
    return Prediction(
        score=score,
        is_defect=score > limits.image,
        percentile=100.0 * float(np.searchsorted(limits.good_scores, score)) / limits.good_scores.size,
        regions=boxes,
        defect_pixels=int(above.sum()),
        map=values,
    )


def as_list(images):
    """``(list of pictures, whether one was given)``: lists, tuples and arrays (B, H, W, 3) hold several."""
    if isinstance(images, (list, tuple)) or (isinstance(images, np.ndarray) and images.ndim == 4):
        return list(images), False
    return [images], True


def as_rgb(image, name):
    """A path, a Pillow picture or a uint8 array (H, W, 3) or (H, W) as a uint8 array (H, W, 3).

    ``name`` stands for what has no path of its own in the ``UserError`` about what is none of these.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return convert_picture(image, name)
    if not isinstance(image, np.ndarray):
        raise UserError(f"{name}: is a {type(image).__name__}; give a path, a uint8 array or a PIL image")
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)) or not image.size:
        raise UserError(f"{name}: is {image.dtype} of shape {image.shape}; give uint8 (H, W, 3) RGB or (H, W) grey")
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
