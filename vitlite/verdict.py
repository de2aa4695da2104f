"""From a score and a map to the verdict on an image: whether it is defective, and where."""

import math
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from vitlite.errors import UserError
from vitlite.limits import Limits

CONNECTED = np.ones((3, 3), int)  # pixels that touch at a corner belong together


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer for one image of H x W pixels.

    score: float, larger is more anomalous.
    is_defect: whether the score is above the calibrated threshold.
    percentile: 0 to 100, the share of the calibration's good images that score lower.
    regions: boxes (x0, y0, x1, y1) in pixels, x1 and y1 past the end, of the connected parts of ``mask``: at least one
        if the image is defective, none if it is good.
    defect_pixels: how many pixels are set in ``mask``.
    map: (H, W) float32 at the image's own size.
    mask: (H, W) bool, where the defects of a defective image are: the pixels above the pixel threshold, or, if there
        are none, the part around the highest value. Nothing is set in a good image.
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


def judge(values: np.ndarray, score: float, limits: Limits, name: object = "image") -> Prediction:
    """The :class:`Prediction` for a map (H, W) float32 at the original size and its image score.

    ``NoVerdict``, about ``name``, if the score or the map holds NaN or an infinite number.
    """
    extremes = float(values.min()), float(values.max())
    for what, number in (("score", score), *(("map", number) for number in extremes)):
        if not math.isfinite(number):
            raise NoVerdict(f"{name}: its {what} holds {number}, so it has no verdict; train or export again")
    is_defect = score > limits.image
    mask = defects_in(values, limits.pixel) if is_defect else np.zeros(values.shape, bool)
    labels, _ = ndimage.label(mask, structure=CONNECTED)
    return Prediction(
        score=score,
        is_defect=is_defect,
        percentile=100.0 * float(np.searchsorted(limits.good_scores, score)) / limits.good_scores.size,
        regions=tuple((x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels)),
        defect_pixels=int(np.count_nonzero(mask)),
        map=values,
        mask=mask,
    )


def defects_in(values: np.ndarray, limit: float) -> np.ndarray:
    """Where a defective image's map (H, W) shows the defect, bool: the pixels above ``limit``, if there are any.

    Otherwise the connected part around the highest value that is above the middle between it and the median.
    """
    above = values > np.float64(limit)
    if above.any():
        return above
    highest = int(values.argmax())
    labels, _ = ndimage.label(values >= (np.median(values) + values.flat[highest]) / 2, structure=CONNECTED)
    return labels == labels.flat[highest]
