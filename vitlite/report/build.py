"""What a report holds: scores, metrics, curves and images of every category."""

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from vitlite.engine.detector import Detector
from vitlite.engine.evaluate import about, open_test_data, score_category
from vitlite.files import StrPath, counted, shown
from vitlite.limits import limits_of
from vitlite.report.curves import Curve, image_curves, pixel_curves
from vitlite.report.gallery import Card, card_of, choose, part_figures, share, small_overlay
from vitlite.report.rendering import renderer
from vitlite.report.svg import Axis, score_axis
from vitlite.results import Scored, mean_of, summarize_category

NAMED_FILES = 5  # in a note; the rest are counted
RENDERED = (
    "Features and their reconstruction are rendered by a small decoder that was trained on good images for this page. "
    "It shows what the features hold of an image, not what the score is made of."
)


class TestedImage(NamedTuple):
    """A test image with its score; ``label`` is 1 if it is defective.

    If all its regions are ``too_small``, smaller than the calibrated area, it is called good at any threshold.
    """

    kind: str
    label: int
    score: float
    too_small: bool = False

    @property
    def compared(self) -> float:
        """What a threshold is compared with."""
        return -math.inf if self.too_small else self.score


class Counts(NamedTuple):
    """Images called defective among the good and among the defective ones."""

    alarms: int
    good: int
    hits: int
    defective: int


def count(images: Sequence[TestedImage], threshold: float) -> Counts:
    """What a threshold makes of images: a score above it is called defective, unless its regions are too small."""
    above = [[image.compared > threshold for image in images if image.label == label] for label in (0, 1)]
    return Counts(sum(above[0]), len(above[0]), sum(above[1]), len(above[1]))


@dataclass(frozen=True)
class Part:
    """One category of a report."""

    name: str
    own: str | None  # its name as it is, if the run is of several categories and has a threshold for it
    threshold: float  # the category's own, or the run's if it has none
    result: dict[str, Any]  # as in results.json
    images: list[TestedImage]
    image_curves: dict[str, Curve]
    pixel_curves: dict[str, Curve] | None  # None without masks
    cards: list[Card]


@dataclass(frozen=True)
class OddImage:
    """A good image of the calibration whose score is far above the others."""

    file: str
    score: float
    deviations: float  # above the median
    overlay: tuple[str, tuple[int, int]] | None  # data URI and (width, height); None if there is none


def odd_images(run: Path, calibration: dict[str, Any]) -> list[OddImage]:
    """The odd good images of a run's calibration."""
    found = []
    for one in calibration.get("odd_images", ()):
        overlay = small_overlay(run / one["overlay"]) if one["overlay"] else None
        found.append(OddImage(shown(one["file"]), one["score"], one["deviations"], overlay))
    return found


@dataclass
class Report:
    """Everything that the page shows. ``images`` are those of all parts in order; cards point into this list."""

    name: str
    run: str  # the folder
    method: str
    data: str
    threshold: float
    calibrated: str  # a sentence about the origin of the threshold
    about: dict[str, Any]
    parts: list[Part]
    odd: list[OddImage]
    notes: list[str]
    images: list[TestedImage] = field(init=False)
    mean: dict[str, float | None] = field(init=False)
    axis: Axis = field(init=False)

    def __post_init__(self) -> None:
        self.images = [image for part in self.parts for image in part.images]
        self.mean = mean_of(part.result for part in self.parts)
        thresholds = [self.threshold, *(part.threshold for part in self.parts)]
        self.axis = score_axis([image.score for image in self.images], thresholds)

    def groups(self) -> list[tuple[int, str]]:
        """(place of the category, kind) of every kind of every category, the good images first."""
        kinds = {(k, image.label, image.kind) for k, part in enumerate(self.parts) for image in part.images}
        return [(k, kind) for k, _, kind in sorted(kinds)]


def build_report(
    detector: Detector,
    *,
    data: StrPath | None = None,
    category: str | None = None,
    mask_threshold: int | None = None,
    render: bool = False,
) -> Report:
    """Score the test images of ``data`` (default: the data of training), a category at a time.

    With ``render`` a decoder is trained that shows features and their reconstruction as images, and the report has a
    note that says so.

    Raises ``UserError`` as ``vitlite.engine.evaluate.evaluate`` does.
    """
    dataset = open_test_data(detector, data, category, mask_threshold)
    calibration = detector.calibration
    if render:
        detector.more_parts = renderer(detector)
    parts, notes, seen = [], [], 0
    for name in dataset.categories:
        scored = score_category(detector, dataset, name)
        parts.append(build_part(scored, detector, first=seen, limit=share(len(dataset.categories))))
        notes += part_notes(scored)
        seen += len(scored.samples)
    if render:
        notes.append(RENDERED)
    if not calibration.get("held_out", True):
        notes.append("The threshold comes from training images, so it is too low: expect more false alarms.")
    if (least := limits_of(calibration).min_area) > 1:
        notes.append(
            f"Regions of fewer than {least} pixels are no defect: an image that has no larger one is called good, "
            "whatever its score. The metrics and curves are those of the scores."
        )
    known = about(detector, dataset)
    # The threshold of one category is its own, if it has one.
    own = calibration.get("categories", {}).get(dataset.categories[0], {}) if len(parts) == 1 else {}
    return Report(
        name=shown(detector.run.resolve().name),
        run=str(detector.run),
        method=known["method"],
        data=shown(dataset.root),
        threshold=parts[0].threshold if len(parts) == 1 else calibration["image_threshold"],
        calibrated=calibration_sentence({**calibration, **own}),
        about=about_rows(known),
        parts=parts,
        odd=odd_images(detector.run, calibration),
        notes=notes,
    )


def build_part(scored: Scored, detector: Detector, *, first: int, limit: int) -> Part:
    """One category; ``first`` is the place of its first image in the report, ``limit`` the most images it shows."""
    labels = [sample.label for sample in scored.samples]
    result, known = summarize_category(scored), detector.calibration.get("categories", {})
    images = [
        TestedImage(shown(image["kind"]), image["label"], image["score"], too_small)
        for image, too_small in zip(result["images"], scored.too_small)
    ]
    cards = [
        card_of(first + i, result["images"][i]["file"], scored, i, detector)
        for i in choose(labels, [image.compared for image in images], limit)
    ]
    if not detector.without_parts:
        files = [scored.samples[card.index - first].path for card in cards]
        cards = [replace(card, parts=parts) for card, parts in zip(cards, part_figures(files, detector))]
    return Part(
        name=shown(scored.name),
        own=scored.name if scored.name in known and len(known) > 1 else None,
        threshold=result["threshold"],
        result={**result, "defects": {shown(kind): values for kind, values in result["defects"].items()}},
        images=images,
        image_curves=image_curves(labels, scored.scores),
        pixel_curves=masked_curves(scored),
        cards=cards,
    )


def masked_curves(scored: Scored) -> dict[str, Curve] | None:
    """The pixel curves over the images that have masks; None if no mask shows a defect."""
    known = {i: mask for i, mask in enumerate(scored.masks) if mask is not None}
    if not any(mask.any() for mask in known.values()):
        return None
    return pixel_curves(list(known.values()), [scored.maps[i] for i in known])


def part_notes(scored: Scored) -> list[str]:
    """What the reader must know about a category's files."""
    notes = []
    if scored.unread:
        listed = "; ".join(file.reason for file in scored.unread[:NAMED_FILES])
        more = len(scored.unread) - NAMED_FILES
        notes.append(f"Not read: {listed}" + (f"; and {more} more" if more > 0 else ""))
    missing = sum(mask is None for mask in scored.masks)
    if missing:
        notes.append(f"{shown(scored.name)}: {missing} defective images have no mask; pixel metrics leave them out.")
    return notes


def calibration_sentence(calibration: dict[str, Any]) -> str:
    """Where the threshold comes from."""
    if balance := calibration.get("balance"):
        good = counted(calibration["images"], "good image")
        defects = counted(balance["defects"], "known defect")
        return (
            f"It balances {good} kept out of training and {defects}: it calls {balance['false_alarms']} of these good "
            f"images defective and misses {balance['missed']} of these defects. New defects are missed more often. If "
            "these defects are among the test images, the figures here are too good."
        )
    if calibration.get("held_out", True) and calibration.get("expected_fpr", 0.0) is None:
        return "It was set by hand. No test image was used by vitlite."
    origin = "kept out of training" if calibration.get("held_out", True) else "of the training"
    images, target = len(calibration["good_scores"]), calibration.get("target_fpr")
    sentence = f"It was set on {counted(images, 'good image')} {origin}"
    if target is not None:
        sentence += f", for false alarms on at most {100 * target:.3g} % of good images"
        # The largest score of n groups is exceeded by that of the next one with probability 1 / (n + 1).
        groups = calibration.get("groups", images)
        if (groups + 1) * target < 1:
            what = "images" if groups == images else "groups of images"
            sentence += f" (so few {what} promise no better than {100 / (groups + 1):.3g} %)"
    return sentence + ". No test image was used."


def about_rows(known: dict[str, Any]) -> dict[str, str]:
    """The last lines of the page: how the numbers were made."""
    rows = {
        key.replace("_", " "): str(value) for key, value in known.items() if key != "versions" and value is not None
    }
    rows["versions"] = ", ".join(f"{name} {version}" for name, version in known["versions"].items())
    rows["data"] = shown(Path(known["data"]))
    rows["written"] = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return rows
