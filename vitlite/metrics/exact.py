"""The exact metrics: every distinct score is a threshold, and equal scores are one step.

A score at or above a threshold counts as found. Scores may be infinite, they rank first or last; +0.0 and -0.0 are
equal. All functions raise ``ValueError`` that names the argument for shapes that differ, empty input, NaN, masks or
labels with other values than 0 and 1, and if one of the two classes is missing.
"""

from numbers import Real

import numpy as np
from numpy.typing import ArrayLike

from vitlite.metrics.inputs import Block, Images, Ranking, rank_labels, rank_maps
from vitlite.metrics.summary import curve, summarise

FPR_LIMITS = {"aupro_30": 0.3, "aupro_05": 0.05}


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the receiver operating characteristic.

    Args:
        labels: (n,) of 0 (normal) and 1 (defective), any real dtype; or any shape, the same as ``scores``.
        scores: (n,) real numbers, higher is more defective.

    Returns:
        float in [0, 1]: the chance that a defective item scores above a normal one, ties counting half (Hanley and
        McNeil, "The Meaning and Use of the Area under a ROC Curve", Radiology 1982).

    Raises:
        ValueError: see the module.
    """
    return summarise(rank_labels(labels, scores)).auroc


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Average precision: the sum over thresholds n of (R_n - R_(n-1)) P_n, with recall R and precision P.

    Args and Raises as for ``auroc``. Returns a float in (0, 1]. There is no interpolation: the definition is that of
    scikit-learn's ``average_precision_score``.
    """
    return summarise(rank_labels(labels, scores)).average_precision


def f1_max(labels: ArrayLike, scores: ArrayLike) -> tuple[float, float]:
    """Best F1 = 2 TP / (2 TP + FP + FN) over all thresholds.

    Args and Raises as for ``auroc``.

    Returns:
        (f1, threshold): floats; ``scores >= threshold`` reaches ``f1``. The threshold is one of the scores, the highest
        of those that do equally well. Chosen on the labels that it is scored on, it is no operating point.
    """
    summary = summarise(rank_labels(labels, scores))
    return summary.f1, summary.threshold


def require_pixels(normals: int, positives: int) -> None:
    """ValueError unless there are pixels of both classes."""
    if positives == 0:
        raise ValueError("masks holds no defective pixel, so there is no region to overlap and no positive class")
    if normals == 0:
        raise ValueError("masks holds no normal pixel, so the false positive rate is undefined")


def _pixel_ranking(masks: Images, maps: Images) -> Ranking:
    ranking = rank_maps(masks, maps)
    require_pixels(ranking.normals, ranking.positives)
    return ranking


def pro_curve(masks: Images, maps: Images) -> tuple[np.ndarray, np.ndarray]:
    """Per-region overlap against the false positive rate.

    Args:
        masks: (B, H, W), or a list of B arrays (H, W) that may differ in size, of 0 and 1.
        maps: real numbers of the same shapes, higher is more defective.

    Returns:
        (fpr, pro): float64 arrays of one length, both rising from 0 to 1; the first point is (0, 0), then one for every
        distinct score from the highest down. ``pro`` is the mean over all 8-connected regions of the share of the
        region found, ``fpr`` the share of all normal pixels of all images (Bergmann et al., "The MVTec Anomaly
        Detection Dataset", IJCV 2021).

    Raises:
        ValueError: see the module.
    """
    return curve(_pixel_ranking(masks, maps))


def aupro(masks: Images, maps: Images, *, fpr_limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to a false positive rate, divided by that rate.

    Args:
        masks: as for ``pro_curve``.
        maps: as for ``pro_curve``.
        fpr_limit: in (0, 1]; the curve is interpolated linearly there, as in the official MVTec AD evaluation.

    Returns:
        float in [0, 1].

    Raises:
        ValueError: see the module; or ``fpr_limit`` outside (0, 1].
    """
    limit = check_limit(fpr_limit)
    return summarise(_pixel_ranking(masks, maps), (limit,)).aupro[0]


def check_limit(fpr_limit: float) -> float:
    if not isinstance(fpr_limit, Real) or not 0 < fpr_limit <= 1:
        raise ValueError(f"fpr_limit must lie in (0, 1], but is {fpr_limit!r}")
    return float(fpr_limit)


def evaluate_maps(
    masks: Images,
    maps: Images,
    *,
    image_labels: ArrayLike | None = None,
    image_scores: ArrayLike | None = None,
    fpr_limit: float = 0.3,
) -> dict[str, float]:
    """Every image and pixel metric of a set of anomaly maps, from one sort.

    Args:
        masks: as for ``pro_curve``.
        maps: as for ``pro_curve``.
        image_labels: (B,) of 0 and 1. Default: 1 if the mask has any pixel set. Labels touch only the image
            metrics: an image labelled 1 whose mask is empty adds normal pixels and no region.
        image_scores: (B,) real numbers. Default: the largest score of each map.
        fpr_limit: limit of the extra key ``aupro``, in (0, 1].

    Returns:
        dict of floats: ``image_auroc``, ``image_ap``, ``image_f1_max``, ``image_f1_threshold``, ``pixel_auroc``,
        ``pixel_ap``, ``pixel_f1_max``, ``pixel_f1_threshold``, ``aupro_30``, ``aupro_05`` (always at 0.3 and 0.05) and
        ``aupro`` (at ``fpr_limit``).

    Raises:
        ValueError: see the module. A missing class is named: good or defective images, normal or defective pixels.
    """
    limit = check_limit(fpr_limit)
    ranking = _pixel_ranking(masks, maps)
    labels, scores = image_arrays(ranking.blocks, image_labels, image_scores)
    return metrics(image_ranking(labels, scores), ranking, limit)


def image_arrays(
    blocks: list[Block], image_labels: ArrayLike | None, image_scores: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of the images in ``blocks``, from the caller's or by default, each (B,)."""
    counts = [len(b.maxima) for b in blocks]
    if image_labels is None:
        image_labels = np.concatenate([_marked(b) for b in blocks])
    if image_scores is None:
        image_scores = np.concatenate([b.maxima for b in blocks])
    named = {"image_labels": np.asarray(image_labels), "image_scores": np.asarray(image_scores)}
    for name, array in named.items():
        if array.shape != (sum(counts),):
            raise ValueError(f"{name} has shape {array.shape} but there are {sum(counts)} maps")
    return named["image_labels"], named["image_scores"]


def _marked(block: Block) -> np.ndarray:
    """Whether each image of the block has any positive pixel, (images,) bool."""
    pixels = block.scores[0].size
    return np.isin(np.arange(len(block.maxima)), block.start // pixels)


def image_ranking(labels: np.ndarray, scores: np.ndarray) -> Ranking:
    """``rank_labels`` for whole images, with messages in their terms."""
    values = set(np.unique(labels).tolist()) if labels.dtype.kind in "biuf" else set()
    if values == {0} or values == {1}:
        have, lack = ("good", "defective") if values == {0} else ("defective", "good")
        raise ValueError(f"image_labels: every image is {have}; at least one {lack} image is needed")
    try:
        return rank_labels(labels, scores)
    except ValueError as error:
        message = str(error)
        for name in ("labels", "scores"):
            if message.startswith(name):
                message = "image_" + message
                break
        raise ValueError(message) from None


def metrics(images: Ranking, pixels: Ranking, fpr_limit: float) -> dict[str, float]:
    """The dictionary of ``evaluate_maps`` from the two rankings."""
    image, pixel = summarise(images), summarise(pixels, (*FPR_LIMITS.values(), fpr_limit))
    out: dict[str, float] = {}
    for name, s in (("image", image), ("pixel", pixel)):
        out |= {f"{name}_auroc": s.auroc, f"{name}_ap": s.average_precision}
        out |= {f"{name}_f1_max": s.f1, f"{name}_f1_threshold": s.threshold}
    out |= dict(zip((*FPR_LIMITS, "aupro"), pixel.aupro))
    return out
