"""What calibration.json says: thresholds from the scores of good images, and from known defects if they are wanted."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitlite.files import shown
from vitlite.good_scores import PIXEL_TARGET_FPR, Good
from vitlite.limits import CONFIDENCE, SIZES, false_alarms
from vitlite.metrics.thresholds import (
    balanced_threshold,
    grouped_rank,
    groups_above,
    threshold_above,
    upper_quantile,
)
from vitlite.odd import Odd

SCHEMA = 2  # of calibration.json; version 0.1.0 wrote the file without a number
HELD_OUT, TRAINED_ON = "held out of training", "training itself"  # where the images come from
ONE_ODD_IN = 20  # good images, at most, is taken for odd
NO_PROMISE: dict[str, Any] = {"expected_fpr": None, "expected_fpr_interval": [None, None]}


def good_image(
    category: str,
    score: float,
    values: np.ndarray,
    path: Path,
    inside: np.ndarray | None = None,
    group: int | None = None,
) -> Good:
    """A good image with its map (h, w), of which what lies ``inside`` counts, bool of the same size."""
    values = values if inside is None or not inside.any() else values[inside]
    tail = upper_quantile(values, PIXEL_TARGET_FPR)
    return Good(category, score, tail, float(np.median(values)), shown(path), group)


def summarize(
    good: Sequence[Good], target_fpr: float, held_out: bool, source: str | None = None, odd: Sequence[Odd] | None = ()
) -> dict[str, Any]:
    """The contents of calibration.json. ``odd`` images set no threshold (:func:`usual`); None: by the exact rule."""
    whole = thresholds(usual(good, odd or ()), target_fpr, held_out)
    names = sorted({image.category for image in good} - {""})
    parts = {name: [image for image in good if image.category == name] for name in names}
    low = float(np.median([image.median for image in good]))
    return {
        "schema": SCHEMA,
        "target_fpr": target_fpr,
        "pixel_share": PIXEL_TARGET_FPR,
        "held_out": held_out,
        "rule": "exact" if odd is None else "robust",
        "source": source or (HELD_OUT if held_out else TRAINED_ON),
        "interval_confidence": CONFIDENCE,
        **whole,
        # Heat maps run from a good image's usual value to as far above the pixel threshold again.
        "display": {"low": low, "high": low + 2 * max(whole["pixel_threshold"] - low, 1e-12)},
        "categories": {name: thresholds(usual(part, odd or ()), target_fpr, held_out) for name, part in parts.items()},
        "good_images": [
            {"file": image.file, "category": image.category, "score": image.score}
            for image in sorted(good, key=lambda image: -image.score)
        ],
    }


def usual(good: Sequence[Good], odd: Sequence[Odd]) -> list[Good]:
    """The good images, but the farthest odd ones count no more than the highest of the others.

    So they set no threshold, and all others count as without it. It is one image, or more: at most 1 in ONE_ODD_IN.
    """
    names = {image.file for image in good}
    far = [image.file for image in odd if image.file in names][: max(1, len(good) // ONE_ODD_IN)]
    others = [image for image in good if image.file not in far]
    if not others:
        return list(good)
    score, tail = (max(getattr(image, key) for image in others) for key in ("score", "pixel_tail"))
    limited = {"score": score, "pixel_tail": tail}
    return others + [
        image._replace(**{key: min(getattr(image, key), most) for key, most in limited.items()})
        for image in good
        if image.file in far
    ]


def thresholds(good: Sequence[Good], target_fpr: float, held_out: bool) -> dict[str, Any]:
    """Both thresholds of a set of good images, and the rate of false alarms that they promise.

    Images that were trained on promise nothing: their rate is None.
    """
    names = [("alone", place) if image.group is None else image.group for place, image in enumerate(good)]
    counts = Counter[object](names)
    sizes = [counts[name] for name in names]
    scores, score_sizes = (list(values) for values in zip(*sorted(zip((image.score for image in good), sizes))))
    tails, tail_sizes = (list(values) for values in zip(*sorted(zip((image.pixel_tail for image in good), sizes))))
    promised = NO_PROMISE
    if held_out:  # near-copies say as much as one image
        above = float(groups_above(score_sizes)[grouped_rank(score_sizes, target_fpr) - 1])
        expected, interval = false_alarms(len(counts), target_fpr, above=above)
        promised = {"expected_fpr": expected, "expected_fpr_interval": list(interval)}
    return {
        "images": len(good),
        "groups": len(counts),
        "image_threshold": threshold_above(scores, target_fpr, score_sizes),
        # A pixel counts as defective above what the worst pixels of nearly every good image reach.
        "pixel_threshold": threshold_above(tails, target_fpr, tail_sizes),
        **promised,
        "balance": None,
        "good_scores": scores,
        "good_pixels": tails,
        SIZES["good_scores"]: score_sizes,
        SIZES["good_pixels"]: tail_sizes,
    }


def set_balanced(calibration: dict[str, Any], defects: Sequence[Good]) -> None:
    """Balance missed defects and false alarms in the image thresholds of the whole and of each category with defects.

    These thresholds promise no rate of false alarms.
    """
    for name, own in [("", calibration), *calibration["categories"].items()]:
        bad = [image.score for image in defects if name in ("", image.category)]
        if bad:
            limit = balanced_threshold(own["good_scores"], bad)
            missed, alarms = sum(score <= limit for score in bad), sum(score > limit for score in own["good_scores"])
            balance = {"defects": len(bad), "missed": missed, "false_alarms": alarms}
            own |= {"image_threshold": limit, **NO_PROMISE, "balance": balance}


def moved(calibration: dict[str, Any], score: float, pixel: float) -> dict[str, Any]:
    """A calibration for scores that are ``score`` times as high and maps that are ``pixel`` times as high."""
    factors = {"image_threshold": score, "good_scores": score, "pixel_threshold": pixel, "good_pixels": pixel}

    def scaled(own: dict[str, Any]) -> dict[str, Any]:
        return own | {key: np.multiply(own[key], factor).tolist() for key, factor in factors.items() if key in own}

    display = {end: value * pixel for end, value in calibration["display"].items()}
    categories = {name: scaled(own) for name, own in calibration.get("categories", {}).items()}
    return scaled(calibration) | {"display": display, "categories": categories}
