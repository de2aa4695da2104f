"""The metrics of data that does not fit in memory, with a bound on their error.

Scores are counted in cells: disjoint intervals of score in float order. A cell starts as one single score, which is
exact. When there are more cells than allowed, neighbours are joined so that every cell ends up with a similar, tiny
share of the defective pixels, of the region overlap, and of the false positives counted so far. What happens inside a
joined cell is unknown, and it is just this that the error bound adds up.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vitlite.metrics.exact import FPR_LIMITS, check_limit, image_arrays, image_ranking, require_pixels
from vitlite.metrics.inputs import Block, Ranking, rank_image
from vitlite.metrics.jit import jit
from vitlite.metrics.ranking import deal, sort_all, value_of
from vitlite.metrics.summary import summarise

Array = np.ndarray

PART = 1 << 22  # pixels of an image that are ranked at a time

FIELDS = {"low": np.uint64, "high": np.uint64, "normal": np.int64, "positive": np.int64, "overlap": np.float64}


@jit
def _merge(
    low: Array,
    high: Array,
    normal: Array,
    positive: Array,
    overlap: Array,
    normals: Array,
    positives: Array,
    regions: Array,
    weights: Array,
    to: tuple[Array, ...],
) -> int:
    """Count one image's sorted scores into sorted cells; ``to`` receives the cells, return how many there are."""
    to_low, to_high, to_normal, to_positive, to_overlap = to
    c, i, j, out = 0, 0, 0, 0
    while c < low.size or i < positives.size or j < normals.size:
        key, found = np.uint64(0), False
        if i < positives.size:
            key, found = positives[i], True
        if j < normals.size and (not found or normals[j] < key):
            key, found = normals[j], True
        if c < low.size and (not found or low[c] <= key):
            to_low[out], to_high[out] = low[c], high[c]
            to_normal[out], to_positive[out], to_overlap[out] = normal[c], positive[c], overlap[c]
            c += 1
        else:
            to_low[out] = to_high[out] = key
            to_normal[out], to_positive[out], to_overlap[out] = 0, 0, 0.0
        while i < positives.size and positives[i] <= to_high[out]:
            to_positive[out] += 1
            to_overlap[out] += weights[regions[i]]
            i += 1
        while j < normals.size and normals[j] <= to_high[out]:
            to_normal[out] += 1
            j += 1
        out += 1
    return out


@jit
def _share(normal: int, positive: int, overlap: float, fp: int, positives: int, regions: int) -> float:
    """A cell's weight in the metrics: precision and F1 feel a normal score by its share of those ranked above it."""
    return positive / positives + overlap / regions + normal / (fp + positives)


@jit
def _join(
    low: Array, high: Array, normal: Array, positive: Array, overlap: Array, count: int, capacity: int, regions: int
) -> int:
    """Join neighbours among the first ``count`` cells, in place, down to ``capacity`` or fewer; return how many."""
    positives = max(1, positive[:count].sum())
    regions = max(1, regions)
    total, fp = 0.0, 0
    for c in range(count - 1, -1, -1):
        fp += normal[c]
        total += _share(normal[c], positive[c], overlap[c], fp, positives, regions)
    # Any two neighbours that stay apart weigh more than ``most`` together, so fewer than ``capacity`` remain.
    most = 2.0 * total / (capacity - 1)
    to, held, fp = count, 2.0 * most, 0
    for c in range(count - 1, -1, -1):
        fp += normal[c]
        share = _share(normal[c], positive[c], overlap[c], fp, positives, regions)
        if held + share > most:
            to -= 1
            low[to], high[to] = low[c], high[c]
            normal[to], positive[to], overlap[to] = normal[c], positive[c], overlap[c]
            held = share
        else:
            low[to] = low[c]
            normal[to] += normal[c]
            positive[to] += positive[c]
            overlap[to] += overlap[c]
            held += share
    return count - to


@jit
def _read(
    low: Array, high: Array, normal: Array, positive: Array, overlap: Array, limits: Array, values: Array, bounds: Array
) -> Any:
    """Fill ``values`` and ``bounds`` (AUROC, AP, F1, an area per limit, none normalised); return the key of best F1."""
    all_normal, all_positive = normal.sum(), positive.sum()
    best_key, best_possible = np.uint64(0), -1.0
    values[:] = 0
    bounds[:] = 0
    values[2] = -1.0
    fp, tp, pro = 0, 0, 0.0
    for c in range(low.size - 1, -1, -1):
        n, p, rise = normal[c], positive[c], overlap[c]
        exact = low[c] == high[c] or n == 0 or p == 0
        values[0] += p * (all_normal - fp - 0.5 * n)
        if p:
            f1 = 2 * (tp + p) / (tp + p + fp + n + all_positive)
            if f1 > values[2]:
                values[2], best_key = f1, low[c]
        single = low[c] == high[c]
        if p and single:
            values[1] += p * ((tp + p) / (tp + p + fp + n))
        elif p:
            # All positives first or all normals first, and a positive's precision rises with its rank: concave, so the
            # mean over ranks is at least that of the two ends.
            most = p * ((tp + p) / (tp + p + fp))
            least = 0.5 * p * ((tp + 1) / (tp + 1 + fp + n) + (tp + p) / (tp + p + fp + n))
            values[1] += 0.5 * (most + least)
            bounds[1] += 0.5 * (most - least)
            best_possible = max(best_possible, 2 * (tp + p) / (tp + p + fp + all_positive))
        if not exact:
            bounds[0] += 0.5 * n * p
        for k in range(limits.size):
            width = min(float(n), limits[k] - fp)
            if width <= 0:
                continue
            area = width * (pro + 0.5 * rise * (width / n))
            values[3 + k] += area
            if not exact:
                bounds[3 + k] += max(area - width * pro, width * (pro + rise) - area)
        fp += n
        tp += p
        pro += rise
    bounds[2] = max(0.0, best_possible - values[2])
    return best_key


class StreamingEvaluator:
    """``evaluate_maps`` one image at a time, in memory that does not grow with the number of images.

    As long as the scores of all pixels take at most ``cells`` distinct values the result is exact. Beyond that every
    metric comes with a bound that its error cannot exceed (up to float64 rounding). With the default number of cells
    the bounds stay well below 1e-4 on data whose images resemble each other. They can grow when late images crowd
    their scores into a range that early ones hardly touched; the reported bounds hold in any case.

    Memory: 40 bytes per cell, 21 MB by default; and 9 bytes per image for the image metrics, which are exact. While an
    image is counted, as much again, some 60 bytes for each of at most 4 million pixels at a time, and a few bytes per
    pixel of the image.

    Args:
        cells: how many cells to keep, at least 16.

    Raises:
        ValueError: fewer cells than that.
    """

    def __init__(self, *, cells: int = 1 << 19) -> None:
        if cells < 16:
            raise ValueError(f"cells must be at least 16, but is {cells}")
        self._capacity = int(cells)
        self._cells = tuple(np.empty(0, dtype) for dtype in FIELDS.values())
        self._regions = 0
        self._labels, self._scores = array("b"), array("d")

    def update(
        self, mask: ArrayLike, map: ArrayLike, *, image_label: int | None = None, image_score: float | None = None
    ) -> None:
        """Count one image.

        Args:
            mask: (H, W) of 0 and 1; sizes may differ from image to image.
            map: (H, W) real numbers, higher is more defective.
            image_label: 0 or 1. Default: 1 if the mask has any pixel set.
            image_score: a real number. Default: the map's largest score.

        Raises:
            ValueError: shapes differ, empty, NaN, or a mask or label other than 0 and 1. Nothing is counted.
        """
        update_all([self], mask, map, image_label=image_label, image_score=image_score)

    def _count(self, part: Sequence[Array], weights: Array) -> None:
        """Count sorted scores: of normal pixels, of positive ones, and the regions of these."""
        normals, positives, regions = part
        size = self._cells[0].size + normals.size + positives.size
        to = tuple(np.empty(size, dtype) for dtype in FIELDS.values())
        count = _merge(*self._cells, normals, positives, regions, weights, to)
        first = 0
        if count > self._capacity:
            first = count - _join(*to, count, self._capacity, self._regions)
        self._cells = tuple(field[first:count].copy() for field in to)

    def result(self, *, fpr_limit: float = 0.3) -> dict[str, Any]:
        """The metrics of everything counted so far.

        Args:
            fpr_limit: limit of the key ``aupro``, in (0, 1].

        Returns:
            dict with the keys of ``evaluate_maps``, ``error_bounds``, a dict with a bound for each metric that was
            read off the cells, and ``error_bound``, the largest of them. ``pixel_f1_max`` is what
            ``pixel_f1_threshold`` reaches exactly; its bound is how much a threshold inside a cell might add.

        Raises:
            ValueError: no image yet, or a missing class, as in ``evaluate_maps``.
        """
        limit = check_limit(fpr_limit)
        normals, positives = int(self._cells[2].sum()), int(self._cells[3].sum())
        if normals + positives == 0:
            raise ValueError("no image was counted yet")
        require_pixels(normals, positives)
        image = summarise(image_ranking(np.array(self._labels), np.array(self._scores)))
        names = ("pixel_auroc", "pixel_ap", "pixel_f1_max", *FPR_LIMITS, "aupro")
        limits = np.array([*FPR_LIMITS.values(), limit]) * normals
        values, bounds = np.empty(len(names)), np.empty(len(names))
        key = _read(*self._cells, limits, values, bounds)
        scale = np.r_[float(normals) * positives, positives, 1.0, limits * self._regions]
        errors = dict(zip(names, (bounds / scale).tolist()))
        found = dict(zip(names, np.minimum(values / scale, 1.0).tolist()))
        return {
            "image_auroc": image.auroc,
            "image_ap": image.average_precision,
            "image_f1_max": image.f1,
            "image_f1_threshold": image.threshold,
            **found,
            "pixel_f1_threshold": value_of(int(key), np.float64),
            "error_bound": max(errors.values()),
            "error_bounds": errors,
        }


def update_all(
    evaluators: Iterable[StreamingEvaluator],
    mask: ArrayLike,
    map: ArrayLike,
    *,
    image_label: int | None = None,
    image_score: float | None = None,
) -> None:
    """``StreamingEvaluator.update`` of several evaluators by the same image, which is ranked once."""
    evaluators = list(evaluators)
    ranking = rank_image(mask, map)
    label, score = _image(ranking, image_label, image_score)
    for evaluator in evaluators:
        evaluator._regions += ranking.area.size
        evaluator._labels.append(label)
        evaluator._scores.append(score)
    weights = 1.0 / ranking.area
    for part in _parts(ranking):
        buckets = deal(part)
        sort_all(buckets, part.threads)
        for evaluator in evaluators:
            evaluator._count((buckets.normals, buckets.positives, buckets.regions), weights)


def _parts(ranking: Ranking) -> Iterator[Ranking]:
    """The ranking of an image in pieces of at most ``PART`` pixels, in float64: one order for all images."""
    (whole,) = ranking.blocks
    scores = whole.scores.reshape(-1)
    for first in range(0, scores.size, PART):
        last = min(first + PART, scores.size)
        # The runs that reach into the piece, cut at its ends.
        here = slice(np.searchsorted(whole.stop, first, side="right"), np.searchsorted(whole.start, last))
        start, stop = (np.clip(runs[here], first, last) - first for runs in (whole.start, whole.stop))
        piece = Block(scores[first:last], None, None)
        piece.start, piece.stop, piece.region = start, stop, whole.region[here]
        positives = int((stop - start).sum())
        yield Ranking([piece], np.float64, last - first, positives, ranking.area, ranking.threads)


def _image(ranking: Ranking, label: int | None, score: float | None) -> tuple[int, float]:
    labels, scores = image_arrays(
        ranking.blocks, None if label is None else [label], None if score is None else [score]
    )
    if labels[0] not in (0, 1):
        raise ValueError(f"image_label must be 0 or 1, but is {label!r}")
    if scores.dtype.kind not in "biuf" or np.isnan(scores[0]):
        raise ValueError(f"image_score must be a real number, but is {score!r}")
    return int(labels[0]), float(scores[0])
