"""The definitions written out: one threshold after the other, nothing clever. The oracle of these tests."""

import numpy as np
from scipy.ndimage import label


def area(y, x):
    return np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2)


def thresholds(scores):
    return np.unique(scores)[::-1]


def counts(labels, scores):
    """(tp, fp) at every threshold, from the highest down."""
    labels, scores = np.asarray(labels, bool), np.asarray(scores)
    found = [scores >= t for t in thresholds(scores)]
    return np.array([(f & labels).sum() for f in found]), np.array([(f & ~labels).sum() for f in found])


def auroc(labels, scores):
    tp, fp = counts(labels, scores)
    return area(np.r_[0, tp / tp[-1]], np.r_[0, fp / fp[-1]])


def average_precision(labels, scores):
    tp, fp = counts(labels, scores)
    return np.sum(np.diff(np.r_[0, tp / tp[-1]]) * tp / (tp + fp))


def f1_max(labels, scores):
    tp, fp = counts(labels, scores)
    f1 = 2 * tp / (tp + fp + tp[-1])
    return f1.max(), thresholds(scores)[np.argmax(f1)]


def pro_curve(masks, maps):
    regions = []
    for mask, map_ in zip(masks, maps):
        marked, number = label(mask, np.ones((3, 3)))
        regions += [np.asarray(map_)[marked == k + 1] for k in range(number)]
    normal = np.concatenate([np.asarray(m)[np.asarray(k) == 0] for k, m in zip(masks, maps)])
    fpr, pro = [0.0], [0.0]
    for t in thresholds(np.concatenate([np.ravel(m) for m in maps])):
        fpr.append(np.mean(normal >= t))
        pro.append(np.mean([np.mean(r >= t) for r in regions]))
    return np.array(fpr), np.array(pro)


def aupro(masks, maps, limit):
    fpr, pro = pro_curve(masks, maps)
    inside = fpr <= limit
    x, y = fpr[inside], pro[inside]
    if x[-1] < limit:
        after = len(x)
        share = (limit - x[-1]) / (fpr[after] - x[-1])
        x, y = np.r_[x, limit], np.r_[y, y[-1] + share * (pro[after] - y[-1])]
    return area(y, x) / limit


def flat(masks, maps):
    return np.concatenate([np.ravel(m) for m in masks]), np.concatenate([np.ravel(m) for m in maps])


def evaluate(masks, maps):
    labels, scores = flat(masks, maps)
    out = {}
    for name, a, b in (
        ("image", [int(np.any(m)) for m in masks], [np.max(m) for m in maps]),
        ("pixel", labels, scores),
    ):
        out[f"{name}_auroc"], out[f"{name}_ap"] = auroc(a, b), average_precision(a, b)
        out[f"{name}_f1_max"], out[f"{name}_f1_threshold"] = f1_max(a, b)
    return out | {"aupro_30": aupro(masks, maps, 0.3), "aupro_05": aupro(masks, maps, 0.05)}
