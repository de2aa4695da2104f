"""What scores and pixels are compared with: from a calibration, or as the user wants it for once; and its promise."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import betaincinv

from vitlite.errors import UserError
from vitlite.files import category_of, counted, shown
from vitlite.metrics.thresholds import ROUNDING, images_needed, threshold_above, threshold_rank

log = logging.getLogger(__name__)

CONFIDENCE = 0.9  # of the interval that is reported
# The lists of a calibration that thresholds come from, and those of the sizes of their groups; older files lack these.
SIZES = {"good_scores": "good_score_groups", "good_pixels": "good_pixel_groups"}


@dataclass(frozen=True)
class Limits:
    """What scores and pixels are compared with."""

    image: float
    pixel: float
    good_scores: np.ndarray  # ascending
    min_area: int = 0  # connected regions of fewer pixels, at the image's own size, are no defect


# The share of good images that may be called defective, by name.
SENSITIVITY = {"low": 0.01, "normal": 0.05, "high": 0.15}


def rate_of(sensitivity: str) -> float:
    """The rate of false alarms that a sensitivity stands for. ``UserError`` if there is none of that name."""
    if sensitivity not in SENSITIVITY:
        raise UserError(f"`sensitivity={sensitivity}`: choose {', '.join(SENSITIVITY)}")
    return SENSITIVITY[sensitivity]


def check_limits(sensitivity: str | None, threshold: float | None, pixel_threshold: float | None) -> None:
    """``UserError`` for a threshold that is not finite, and for a sensitivity beside one: it sets both by itself."""
    for name, value in (("threshold", threshold), ("pixel_threshold", pixel_threshold)):
        if value is None:
            continue
        if not math.isfinite(value):
            raise UserError(f"`{name}={value}`: must be a finite number")
        if sensitivity is not None:
            raise UserError(f"`sensitivity={sensitivity}`: not together with `{name}={value:g}`; give one of them")


def limits_of(
    calibration: dict[str, Any],
    category: str | None = None,
    *,
    sensitivity: str | None = None,
    threshold: float | None = None,
    pixel_threshold: float | None = None,
    min_area: int | None = None,
) -> Limits:
    """The limits of the whole model, or of one ``category``, from the contents of calibration.json.

    A ``sensitivity``, a key of :data:`SENSITIVITY`, has another rate of false alarms than the calibrated one; the other
    arguments take the place of a limit. ``UserError`` for an unknown category or sensitivity, a threshold that is not
    finite, or beside a sensitivity, and an area that is none.
    """
    check_limits(sensitivity, threshold, pixel_threshold)
    own = values_of(calibration, category)
    image, pixel = own["image_threshold"], own["pixel_threshold"]
    if sensitivity is not None:
        share = rate_of(sensitivity)
        if "good_pixels" not in own:
            raise UserError(f"`sensitivity={sensitivity}`: an older vitlite calibrated this model; calibrate it again")
        image, pixel = (threshold_above(own[key], share, own.get(sizes)) for key, sizes in SIZES.items())
    image = image if threshold is None else threshold
    pixel = pixel if pixel_threshold is None else pixel_threshold
    area = calibration.get("min_area", 0) if min_area is None else check_area(min_area)
    return Limits(image, pixel, np.asarray(own["good_scores"], dtype=np.float64), area)


def values_of(calibration: dict[str, Any], category: str | None) -> dict[str, Any]:
    """What a calibration says of the whole model, or of one of its categories; ``UserError`` if that is unknown."""
    if category is None:
        return calibration
    known = calibration.get("categories", {})
    if not isinstance(category, str):
        raise UserError(f"`category={category!r}`: must be the name of one category")
    if category not in known:
        names = ", ".join(known) or "no category by itself"
        raise UserError(f"`category={category}`: unknown; the run is calibrated for {names}")
    # A calibration by an older version has one pixel threshold, and one list of scores, for all categories.
    return {**calibration, **known[category]}


class ByCategory:
    """The limits of images: of ``category``, or else of the category that a folder above the image is named after.

    Those of the whole model for an image without such a folder. ``changes`` as for :func:`limits_of`, whose
    ``UserError`` it raises.
    """

    def __init__(self, calibration: dict[str, Any], category: str | None, **changes: Any) -> None:
        known = list(calibration.get("categories", {}))
        self.names = known if category is None and len(known) > 1 else []
        self._limits = {"": limits_of(calibration, category, **changes)}
        self._limits |= {name: limits_of(calibration, name, **changes) for name in self.names}

    def name(self, path: Path) -> str:
        """The category that an image's folder names; "" if there is none, or it does not matter."""
        return category_of(path, self.names) if self.names else ""

    def __getitem__(self, name: str) -> Limits:
        return self._limits[name]


def limits_for(
    paths: Sequence[Path], calibration: dict[str, Any], category: str | None, **changes: Any
) -> list[Limits]:
    """The limits of every image, as :class:`ByCategory` says. A warning counts images that lie in no such folder."""
    limits = ByCategory(calibration, category, **changes)
    names = [limits.name(path) for path in paths]
    if own := {name: names.count(name) for name in limits.names if name in names}:
        log.info(
            "thresholds by the names of folders: %s",
            ", ".join(f"{counted(count, 'image')} as {shown(name)}" for name, count in own.items()),
        )
    if limits.names and (count := names.count("")):
        log.warning(
            "%d of %d images lie in no folder with the name of a category (%s); the threshold of all is used for them; "
            "name the folder, or give a category",
            count,
            len(names),
            ", ".join(limits.names),
        )
    return [limits[name] for name in names]


def in_words(result: dict[str, Any]) -> list[str]:
    """What a calibration says to a person, as lines."""
    count, target, categories = group_count(result), result["target_fpr"], result["categories"]
    images = in_groups(result, counted(result["images"], "good image"))
    line = f"threshold {result['image_threshold']:.6g} (pixels {result['pixel_threshold']:.6g})"
    if not result["held_out"]:
        advice = "hold images out of training, with holdout=0.1" if result["images"] > 1 else "give more good images"
        too_low = f"that {'were' if result['images'] > 1 else 'was'} also trained on: it is too low; {advice}"
        return [f"{line} from {images} {too_low}"]
    lines = [line + promise(result, images)]
    if result["expected_fpr"] is not None:
        lines[0] += f", by the {result.get('rule', 'exact')} rule"
    if too_few(result, target):
        grouped = count < result["images"]
        known = counted(count, "group") if grouped else str(count)
        lines.append(
            f"too few for {percent(target)}: with {known} the lowest rate that can be promised is 1/{count + 1}; it "
            f"takes {counted(images_needed(target), 'good image')}{', each of another group' * grouped}"
        )
    if len(categories) > 1:
        for name, own in categories.items():
            few = "; too few" if too_few(own, target) else ""
            promised = promise(own, in_groups(own, str(own["images"])))
            lines.append(f"  {name}: threshold {own['image_threshold']:.6g}{promised}{few}")
    kept = [shown(name) for name, own in categories.items() if result.get("balance") and not own.get("balance")]
    if kept:
        lines.append(
            f"no known defects of {', '.join(kept)}: the threshold stays that of the good images; "
            "give defects of every category in a folder with its name"
        )
    if result["expected_fpr"] is not None:
        lines.append("good images that differ from these, in light or position, are called defective more often")
    return lines


def check_calibration(found: dict[str, Any]) -> None:
    """ValueError, KeyError or TypeError unless images can be judged by the contents of calibration.json."""
    if not is_area(found.get("min_area", 0)):
        raise ValueError(f"min_area {found['min_area']!r}")
    numbers = [found["pixel_threshold"], *(found["display"][end] for end in ("low", "high"))]
    for own in (found, *found.get("categories", {}).values()):
        numbers += [own["image_threshold"], own.get("pixel_threshold", 0.0), *own.get("good_scores", ())]
        _check_groups(own)
    if not found["good_scores"] or not all(map(math.isfinite, numbers)):
        raise ValueError("expected finite numbers")


def _check_groups(values: dict[str, Any]) -> None:
    for key, name in SIZES.items():
        sizes = values.get(name)
        if sizes is None:
            continue
        if len(sizes) != len(values[key]) or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError(f"{name}: expected a whole number above 0 for each of {key}")


def too_few(values: dict[str, Any], target: float) -> bool:
    """Whether a rate of false alarms was wanted that so few good images cannot promise."""
    return values["expected_fpr"] is not None and group_count(values) < images_needed(target)


def group_count(values: dict[str, Any]) -> int:
    """How many groups the good images are; in files of earlier versions each is its own."""
    return int(values["groups"] if "groups" in values else len(values["good_scores"]))


def in_groups(values: dict[str, Any], images: str) -> str:
    """``images``, and in how many groups they are if some are in one."""
    groups = group_count(values)
    return images if groups == values["images"] else f"{images} in {counted(groups, 'group')}"


def promise(values: dict[str, Any], images: str) -> str:
    """Where a threshold comes from and what it promises, as text; ``images`` names the good images, or counts them."""
    if balance := values.get("balance"):
        return (
            f" from {images}, balanced: misses {balance['missed']} of {counted(balance['defects'], 'known defect')}, "
            f"calls {balance['false_alarms']} of {counted(values['images'], 'good image')} defective"
        )
    if values["expected_fpr"] is None:
        return ", set by hand"
    low, high = values["expected_fpr_interval"]
    return (
        f" from {images}: expect {percent(values['expected_fpr'])} false alarms "
        f"({percent(CONFIDENCE)} interval {percent(low)} to {percent(high)})"
    )


def percent(share: float) -> str:
    """A share as text, in percent."""
    return f"{100 * share:.3g} %"


def check_target(share: float) -> None:
    """Refuse a false-alarm rate outside (0, 1), NaN, and one that is lost in rounding."""
    if not ROUNDING <= share < 1:
        bound = f"at least {ROUNDING:g}" if 0 < share < 1 else "above 0"
        raise UserError(f"`target_fpr={share}`: must be {bound} and below 1, such as 0.01 for one false alarm in 100")


def is_area(value: object) -> bool:
    """Whether it is a whole number of pixels, 0 or more."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def check_area(min_area: int) -> int:
    """The smallest area of a defect as an int. ``UserError`` if it is no whole number of pixels."""
    if not is_area(min_area):
        raise UserError(f"`min_area={min_area!r}`: must be a whole number of pixels, 0 or more")
    return int(min_area)


def false_alarms(
    count: int, share: float, confidence: float = CONFIDENCE, *, above: float | None = None
) -> tuple[float, tuple[float, float]]:
    """The most that a threshold from ``count`` values leads to: ``(expected, (low, high))``.

    ``expected`` is (a + 1) / (n + 1) if a of n values lie ``above`` it: n - k, with the rank k of the threshold, unless
    given. The rate of one particular calibration follows a beta distribution: it lies between ``low`` and ``high`` with
    the probability ``confidence``, and is as often below as above.
    """
    above = count - threshold_rank(count, share) if above is None else above
    tail = (1 - confidence) / 2
    low, high = (float(betaincinv(above + 1, count - above, p)) for p in (tail, 1 - tail))
    return (above + 1) / (count + 1), (low, high)
