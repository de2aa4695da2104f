"""Thresholds on scores: from good images alone (split conformal prediction), or from known defects too."""

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


def groups_above(sizes: Sequence[int]) -> np.ndarray:
    """How many groups of values lie above each of n >= 1 values that ascend: float64 (n,).

    ``sizes`` says how many of the values are in the group of each one, itself included. A group of which a part lies
    above counts in part. If that is a smaller share of the groups than of the values, as it is if larger groups have
    higher values, the share of the values counts. Equal values count as above each other.
    """
    weights, after = 1 / np.asarray(sizes, dtype=np.float64), np.arange(len(sizes))[::-1]
    groups = np.append(np.cumsum(weights[:0:-1])[::-1], 0.0)
    return np.maximum(groups, after * (weights.sum() / len(sizes)))


def grouped_rank(sizes: Sequence[int], share: float) -> int:
    """The rank of :func:`threshold_rank` if values may be in groups, and a new value is of none of them.

    That is the smallest rank with (a + 1) / (n + 1) <= ``share``, for n groups with a of them above
    (:func:`groups_above`); the largest rank if there is none.
    """
    count = sum(1 / size for size in sizes)
    enough = np.flatnonzero(groups_above(sizes) + 1 <= share * (count + 1) + ROUNDING)
    return int(enough[0]) + 1 if enough.size else len(sizes)


def threshold_above(values: Sequence[float], share: float, sizes: Sequence[int] | None = None) -> float:
    """A threshold just above the value of rank :func:`grouped_rank`, and not near any of the n >= 1 finite values.

    ``sizes`` says how many of the values are in the group of each one; None: each is alone.

    The last bits of a score depend on the batch size, the threads and the form of the model. So the threshold keeps at
    least :data:`MARGIN` from every value, relative to the larger of the two sizes, or to the median size of the values
    if that is larger. It is twice as far above the quantile, or in the middle of a gap that is too small for that. If a
    gap is too small for the margin on both sides, the threshold goes above it, and fewer values exceed it.
    """
    order = np.argsort(np.asarray(values, dtype=np.float64), kind="stable")
    ordered = np.asarray(values, dtype=np.float64)[order]
    usual = _usual(ordered)
    rank = threshold_rank(ordered.size, share) if sizes is None else grouped_rank([sizes[i] for i in order], share)
    rest = ordered[rank - 1 :].tolist()
    for below, above in zip(rest, [*rest[1:], math.inf]):
        limit = min(below + 2 * MARGIN * max(abs(below), usual), below + (above - below) / 2)
        if _keeps_margin(limit, below, above, usual):
            break
    return limit


def balanced_threshold(good: Sequence[float], defects: Sequence[float]) -> float:
    """The threshold with the least sum of the share of good values above it and the share of defects at or below it.

    If several have it, the one with the fewest good values above it. It is in the middle between two of the finite
    values, of which there are n >= 1 of each kind, or above all of them. It keeps the margin of
    :func:`threshold_above` from every value: a gap that is too small for it holds no threshold.
    """
    ordered = np.sort(np.asarray([*good, *defects], dtype=np.float64))
    usual = _usual(ordered)
    values, top = ordered.tolist(), float(ordered[-1])
    middles = [(below + (above - below) / 2, below, above) for below, above in zip(values, values[1:])]
    limits = np.array(
        [limit for limit, below, above in middles if _keeps_margin(limit, below, above, usual)]
        + [top + 2 * MARGIN * max(abs(top), usual)]
    )
    alarms = len(good) - np.searchsorted(np.sort(good), limits, side="right")
    missed = np.searchsorted(np.sort(defects), limits, side="right")
    # Whole numbers, so that equal sums are equal.
    return float(limits[np.lexsort((alarms, alarms * len(defects) + missed * len(good)))[0]])


def _usual(values: np.ndarray) -> float:
    """The median size of values, which the margin is relative to near 0."""
    return max(float(np.median(np.abs(values))), 1e-30)


def _keeps_margin(limit: float, below: float, above: float, usual: float) -> bool:
    """Whether a threshold is far enough from the nearest values on both sides."""
    room = MARGIN * max(abs(limit), usual)
    return limit - below >= max(room, MARGIN * abs(below)) and above - limit >= max(room, MARGIN * abs(above))
