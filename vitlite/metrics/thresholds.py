"""Thresholds on scores, from the scores of good images alone (split conformal prediction)."""

import math
from collections.abc import Sequence

import numpy as np

MARGIN = 1e-5  # a threshold's least distance from the values that it comes from, relative: rounding moves no verdict
ROUNDING = 1e-9  # 30 * 0.1 must count as 3 whatever its last bit


def threshold_rank(count: int, share: float) -> int:
    """The rank k, from 1 to ``count``, whose value keeps the expected false-alarm rate at or below ``share``.

    If ``count`` is below :func:`images_needed`, no rank does, and the largest value is all that the data can say.
    """
    return min(count + 1 - math.floor((count + 1) * share + ROUNDING), count)


def images_needed(share: float) -> int:
    """The fewest good images with which the expected rate can be as low as ``share``: 1 / (n + 1) <= share."""
    return max(math.ceil(1 / share - ROUNDING / share) - 1, 1)


def upper_quantile(values: Sequence[float] | np.ndarray, share: float) -> float:
    """The value of rank :func:`threshold_rank` among n >= 1 good values (the conformal quantile)."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    index = threshold_rank(flat.size, share) - 1
    return float(np.partition(flat, index)[index])


def threshold_above(values: Sequence[float], share: float) -> float:
    """A threshold just above :func:`upper_quantile`, and not near any of the n >= 1 finite values.

    The last bits of a score depend on the batch size, the threads and the form of the model. So the threshold keeps at
    least :data:`MARGIN` from every value, relative to the larger of the two sizes, or to the median size of the values
    if that is larger. It is twice as far above the quantile, or in the middle of a gap that is too small for that. If a
    gap is too small for the margin on both sides, the threshold goes above it, and fewer values exceed it.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    usual = max(float(np.median(np.abs(ordered))), 1e-30)
    rest = ordered[threshold_rank(ordered.size, share) - 1 :].tolist()
    for below, above in zip(rest, [*rest[1:], math.inf]):
        limit = min(below + 2 * MARGIN * max(abs(below), usual), below + (above - below) / 2)
        room = MARGIN * max(abs(limit), usual)
        if limit - below >= max(room, MARGIN * abs(below)) and above - limit >= max(room, MARGIN * abs(above)):
            break
    return limit
