"""Points of ROC, precision-recall and PRO curves, few enough to draw and faithful to the full ones."""

from collections.abc import Sequence

import numpy as np

from vitlite.metrics import pro_curve

Curve = tuple[np.ndarray, np.ndarray]  # x and y, (n,) each

TOLERANCE = 5e-4  # as a share of the axis: a fraction of a pixel in any chart
PRO_LIMIT = 0.3  # the end of the PRO curve: what AUPRO usually integrates to
SAMPLED_PIXELS = 1_000_000


def image_curves(labels: Sequence[int], scores: Sequence[float]) -> dict[str, Curve]:
    """Operating points of every distinct score, thinned; labels of 0 and 1, both present.

    ``roc`` is false against true positive rate from (0, 0) to (1, 1); ``pr`` recall against precision, drawn level from
    recall 0 to the first point.
    """
    defective = np.asarray(labels, bool)
    levels, index = np.unique(np.asarray(scores, np.float64), return_inverse=True)
    found, false = (np.bincount(index[own], minlength=levels.size) for own in (defective, ~defective))
    return rates(found[::-1].cumsum(), false[::-1].cumsum())


def rates(found: np.ndarray, false: np.ndarray) -> dict[str, Curve]:
    """ROC and PR points from true and false positives (t,), counted from the highest threshold down."""
    kept = found + false > 0
    found, false = found[kept], false[kept]
    recall, precision = found / found[-1], found / (found + false)
    roc = thin(np.r_[0.0, false / false[-1]], np.r_[0.0, recall])
    return {"roc": roc, "pr": thin(np.r_[0.0, recall], np.r_[precision[0], precision])}


def pixel_curves(masks: Sequence[np.ndarray], maps: Sequence[np.ndarray]) -> dict[str, Curve]:
    """The curves of all pixels of all images, and PRO.

    Every point is an exact operating point. The scores are first reduced to about a thousand levels, dense where either
    class changes, so that the full curves, a point for each of millions of scores, are never held. ``pro`` is the false
    positive rate up to ``PRO_LIMIT`` against the mean share of each defective region found
    (``vitlite.metrics.pro_curve``).
    """
    thresholds = level_edges(masks, maps)
    levels = [np.searchsorted(thresholds, pixels, side="right").astype(np.float32) for pixels in maps]
    found, false = np.zeros((2, thresholds.size + 1), np.int64)
    for mask, level in zip(masks, levels):
        index, defective = level.astype(np.intp), mask.astype(bool)
        found += np.bincount(index[defective], minlength=found.size)
        false += np.bincount(index[~defective], minlength=false.size)
    curves = rates(found[::-1].cumsum(), false[::-1].cumsum())
    fpr, pro = pro_curve(masks, levels)
    fpr, pro = cut(fpr, pro, PRO_LIMIT)
    fpr, pro = thin(fpr / PRO_LIMIT, pro)
    curves["pro"] = fpr * PRO_LIMIT, pro
    return curves


def level_edges(masks: Sequence[np.ndarray], maps: Sequence[np.ndarray]) -> np.ndarray:
    """Sorted thresholds at even steps of recall, and at even and at geometric steps of the false positive rate."""
    defective = np.concatenate([pixels[mask.astype(bool)] for mask, pixels in zip(masks, maps)])
    step = max(1, sum(pixels.size for pixels in maps) // SAMPLED_PIXELS) | 1
    normal = np.concatenate([pixels[mask == 0][::step] for mask, pixels in zip(masks, maps)])
    upper = np.r_[np.linspace(0, 1, 501), np.geomspace(1e-6, 1, 301)]
    edges = [np.quantile(defective, np.linspace(0, 1, 501)), np.quantile(normal, 1 - upper)]
    return np.unique(np.concatenate(edges).astype(np.float32))


def thin(x: np.ndarray, y: np.ndarray) -> Curve:
    """Leave out points of a polyline in [0, 1] that lie within ``TOLERANCE`` of what remains (Douglas and Peucker)."""
    kept = np.zeros(x.size, bool)
    kept[[0, -1]] = True
    spans = [(0, x.size - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        distance = distances(x[first : last + 1], y[first : last + 1])
        far = int(distance.argmax())
        if distance[far] > TOLERANCE:
            kept[first + far] = True
            spans += [(first, first + far), (first + far, last)]
    return x[kept], y[kept]


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance of every point from the straight piece between the first and the last, (n,)."""
    dx, dy = x[-1] - x[0], y[-1] - y[0]
    length = dx * dx + dy * dy
    along = np.clip(((x - x[0]) * dx + (y - y[0]) * dy) / length, 0, 1) if length else np.zeros_like(x)
    return np.hypot(x - x[0] - along * dx, y - y[0] - along * dy)


def cut(x: np.ndarray, y: np.ndarray, limit: float) -> Curve:
    """The part of a curve with ``x <= limit``, interpolated at the limit; ``x`` rises from 0 to at least the limit."""
    inside = x <= limit
    return np.r_[x[inside], limit], np.r_[y[inside], np.interp(limit, x, y)]
