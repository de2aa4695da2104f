"""Every metric of a ranking, read off its sorted buckets from the highest score down.

Recall and region overlap change only at scores that a positive pixel has, so normal scores matter only through how many
lie above each positive score and how many equal it. A bucket without positive scores is therefore never sorted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitlite.metrics import compiled
from vitlite.metrics.inputs import Ranking
from vitlite.metrics.jit import run_all
from vitlite.metrics.ranking import deal, sort_all, value_of


@dataclass(frozen=True)
class Summary:
    """What one sort tells."""

    auroc: float
    average_precision: float
    f1: float
    threshold: float
    aupro: tuple[float, ...]  # one per limit


def summarise(ranking: Ranking, fpr_limits: Sequence[float] = ()) -> Summary:
    """All metrics of a ranking that holds both classes; one area under the overlap curve per limit."""
    buckets = deal(ranking)
    count = buckets.normal_at.size - 1
    limits = np.array([limit * ranking.normals for limit in fpr_limits])
    pairs, keys = np.zeros(count, np.int64), np.zeros(count, np.uint64)
    floats = np.zeros((count, 3))  # precision, best F1, overlap gained
    areas = np.zeros((count, limits.size))
    weights = 1.0 / ranking.area

    def task(span: tuple[int, int]) -> None:
        compiled.scan_buckets(buckets.arrays, weights, limits, *span, pairs, floats, keys, areas)

    run_all(task, buckets.spans(8 * ranking.threads if ranking.threads > 1 else 1), ranking.threads)
    best = count - 1 - int(np.argmax(floats[::-1, 1]))  # of equal bests the highest threshold
    return Summary(
        auroc=sum(pairs.tolist()) / (2 * ranking.normals * ranking.positives),
        average_precision=math.fsum(floats[:, 0]) / ranking.positives,
        f1=float(floats[best, 1]),
        threshold=value_of(int(keys[best]), ranking.precision),
        aupro=_aupro(buckets.normal_at, floats[:, 2], areas, limits, ranking.area.size),
    )


def _aupro(
    normal_at: np.ndarray, gains: np.ndarray, areas: np.ndarray, limits: np.ndarray, regions: int
) -> tuple[float, ...]:
    """Put the areas of buckets, each counted from its own floor, on top of the overlap gained above them."""
    floor = gains[::-1].cumsum()[::-1] - gains
    fp_before, fp_after = normal_at[-1] - normal_at[1:], normal_at[-1] - normal_at[:-1]
    out = []
    for k, limit in enumerate(limits):
        width = np.clip(np.minimum(fp_after, limit) - fp_before, 0, None)
        out.append(math.fsum(floor * width + areas[:, k]) / (limit * regions))
    return tuple(min(1.0, value) for value in out)


def curve(ranking: Ranking) -> tuple[np.ndarray, np.ndarray]:
    """(fpr, pro) with a point for every distinct score, from (0, 0) to (1, 1)."""
    buckets = deal(ranking)
    sort_all(buckets, ranking.threads)
    steps = compiled.distinct(buckets.normals, buckets.positives)
    fpr, pro = np.zeros(steps + 1), np.zeros(steps + 1)
    compiled.walk(buckets.normals, buckets.positives, buckets.regions, 1.0 / ranking.area, fpr, pro)
    pro /= ranking.area.size
    np.minimum(pro, 1.0, out=pro)
    pro[-1] = 1.0  # every pixel of every region is covered; the sum of fractions says so only to rounding
    return fpr, pro
