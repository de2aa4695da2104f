"""From a score and a map to the verdict on an image: whether it is defective, and where."""

import math
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from vitlite.errors import UserError
from vitlite.images.resize import map_at
from vitlite.limits import Limits

CONNECTED = np.ones((3, 3), int)  # pixels that touch at a corner belong together


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer for one image of H x W pixels.

    score: float, larger is more anomalous.
    is_defect: whether the score is above the calibrated threshold, and a region has ``min_area`` pixels or more.
    percentile: 0 to 100, the share of the calibration's good images that score lower.
    regions: boxes (x0, y0, x1, y1) in pixels, x1 and y1 past the end, of the connected parts of ``mask``: at least one
        if the image is defective, none if it is good.
    defect_pixels: how many pixels are set in ``mask``.
    map: (H, W) float32 at the image's own size.
    mask: (H, W) bool, where the defects of a defective image are: the pixels above the pixel threshold, or, if there
        are none, the part around the highest value; in both without the regions that are smaller than ``min_area``.
        Nothing is set in a good image.
    """

    score: float
    is_defect: bool
    percentile: float
    regions: tuple[tuple[int, int, int, int], ...]
    defect_pixels: int
    map: np.ndarray = field(repr=False)
    mask: np.ndarray = field(repr=False)

    @property
    def verdict(self) -> str:
        """``"defect"`` or ``"good"``."""
        return "defect" if self.is_defect else "good"


class NoVerdict(UserError):
    """An image whose score or map is not finite: it is neither good nor defective."""


def judge(
    values: np.ndarray, score: float, limits: Limits, name: object = "image", inside: np.ndarray | None = None
) -> Prediction:
    """The :class:`Prediction` for a map (H, W) float32 at the original size and its image score.

    Defects lie ``inside`` alone, bool (H, W); None: anywhere.
    ``NoVerdict``, about ``name``, if the score or the map holds NaN or an infinite number.
    """
    extremes = float(values.min()), float(values.max())
    for what, number in (("score", score), *(("map", number) for number in extremes)):
        if not math.isfinite(number):
            raise NoVerdict(f"{name}: its {what} holds {number}, so it has no verdict; train or export again")
    mask = defects_in(values, limits, inside) if score > limits.image else np.zeros(values.shape, bool)
    labels, _ = ndimage.label(mask, structure=CONNECTED)
    return Prediction(
        score=score,
        is_defect=bool(mask.any()),
        percentile=100.0 * float(np.searchsorted(limits.good_scores, score)) / limits.good_scores.size,
        regions=tuple((x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels)),
        defect_pixels=int(np.count_nonzero(mask)),
        map=values,
        mask=mask,
    )


def defects_in(values: np.ndarray, limits: Limits, inside: np.ndarray | None = None) -> np.ndarray:
    """Where a map (H, W) at the image's own size shows defects, bool, if the score is above the threshold.

    Pixels that are not ``inside``, bool (H, W), count for nothing.

    These are the connected regions of the pixels above ``limits.pixel`` or, if there are none, the one around the
    highest value that is above the middle between it and the median. A region of fewer than ``limits.min_area`` pixels
    is no defect: if all are smaller, nothing is set, and the image is good whatever its score.
    """
    counted = values.ravel() if inside is None else values[inside]
    values = values if inside is None else np.where(inside, values, -np.inf)
    mask = values > np.float64(limits.pixel)
    if not mask.any():
        highest = int(values.argmax())
        labels, _ = ndimage.label(values >= (np.median(counted) + values.flat[highest]) / 2, structure=CONNECTED)
        mask = labels == labels.flat[highest]
    if limits.min_area > 1:
        labels, _ = ndimage.label(mask, structure=CONNECTED)
        mask &= (np.bincount(labels.ravel()) >= limits.min_area)[labels]
    return mask


def all_small(pixels: np.ndarray, height: int, width: int, limits: Limits, inside: np.ndarray | None = None) -> bool:
    """Whether an image (height, width) is good whatever its score: all its regions are below ``limits.min_area``.

    ``pixels`` is its map, float32 of any size, of which what is ``inside`` counts.
    """
    return limits.min_area > 1 and not defects_in(map_at(pixels, height, width), limits, inside).any()
