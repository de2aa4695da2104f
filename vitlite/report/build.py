"""What a report is made of: scores, metrics, curves and pictures of every category, from a trained run."""

import datetime
from dataclasses import dataclass, field
from pathlib import Path

from vitlite.engine.evaluate import about, mean_of, open_test_data, score_category, summarize_category
from vitlite.files import shown
from vitlite.report.curves import image_curves, pixel_curves
from vitlite.report.gallery import choose, make_card, share
from vitlite.report.svg import Axis, score_axis

NAMED_FILES = 5  # in a note; the rest are counted


@dataclass(frozen=True)
class TestImage:
    """A scored test image."""

    __test__ = False  # no class of tests, whatever pytest thinks of its name

    defect: str
    label: int
    score: float


@dataclass
class Part:
    """One category of a report."""

    name: str
    threshold: float  # the category's own, or the run's where it has none
    shown_threshold: float  # the run's: what the page opens with
    result: dict  # as in results.json
    images: list  # TestImage
    image_curves: dict
    pixel_curves: dict | None  # None without masks
    cards: list  # vitlite.report.gallery.Card

    def counts(self, label):
        """(called defective, all) among the images with this label."""
        own = [image.score > self.shown_threshold for image in self.images if image.label == label]
        return sum(own), len(own)


@dataclass
class Report:
    """Everything that the page shows."""

    name: str
    method: str
    data: str
    threshold: float
    calibrated: str  # a sentence on where the threshold comes from
    about: dict
    parts: list
    notes: list = field(default_factory=list)
    mean: dict = field(init=False)
    axis: Axis = field(init=False)

    def __post_init__(self):
        self.mean = mean_of(part.result for part in self.parts)
        thresholds = [self.threshold, *(part.threshold for part in self.parts)]
        self.axis = score_axis([image.score for image in self.images()], thresholds)

    def images(self):
        """All test images, category by category; cards point into this list."""
        return [image for part in self.parts for image in part.images]

    def groups(self):
        """(place of the category, kind) of every category, the good images first."""
        found = []
        for k, part in enumerate(self.parts):
            kinds = {image.defect: image.label for image in part.images}
            found += [(k, kind) for kind in sorted(kinds, key=lambda kind: (kinds[kind], kind))]
        return found


def build_report(detector, *, data=None, category=None, quiet=False, say=lambda line: None):
    """Score the test images of ``data`` (default: the data of training), a category at a time.

    Raises ``UserError`` as ``vitlite.engine.evaluate.evaluate`` does.
    """
    dataset = open_test_data(detector, data, category)
    calibration = detector.calibration
    parts, notes, seen = [], [], 0
    for name in dataset.categories:
        scored = score_category(detector, dataset, name, quiet=quiet, say=say)
        parts.append(build_part(scored, dataset, calibration, first=seen, limit=share(len(dataset.categories))))
        notes += part_notes(scored)
        seen += len(scored.samples)
    if not calibration.get("held_out", True):
        notes.append(
            "The threshold comes from images that were also trained on, so it is too low: expect more false alarms."
        )
    known = about(detector, dataset)
    return Report(
        name=shown(detector.run.resolve().name),
        method=known["method"],
        data=shown(dataset.root),
        threshold=calibration["image_threshold"],
        calibrated=calibration_sentence(calibration),
        about=about_rows(known),
        parts=parts,
        notes=notes,
    )


def build_part(scored, dataset, calibration, *, first, limit):
    """One category; ``first`` is the place of its first image in the report, ``limit`` how many pictures it shows."""
    labels = [sample.label for sample in scored.samples]
    result = summarize_category(scored)
    threshold = calibration["image_threshold"]
    own = calibration.get("categories", {}).get(scored.name, {})
    cards = []
    for i in choose(labels, scored.scores, limit):
        path = scored.samples[i].path
        file = shown(path.relative_to(dataset.folder(scored.name).parent))
        cards.append(make_card(first + i, file, path, scored.maps[i], scored.masks[i], calibration))
    return Part(
        name=shown(scored.name),
        threshold=own.get("image_threshold", threshold),
        shown_threshold=threshold,
        result={**result, "defects": {shown(kind): values for kind, values in result["defects"].items()}},
        images=[TestImage(shown(s.defect), s.label, score) for s, score in zip(scored.samples, scored.scores)],
        image_curves=image_curves(labels, scored.scores),
        pixel_curves=masked_curves(scored),
        cards=cards,
    )


def masked_curves(scored):
    """The pixel curves over the images that have masks; None where no mask shows a defect."""
    known = [i for i, mask in enumerate(scored.masks) if mask is not None]
    if not any(scored.masks[i].any() for i in known):
        return None
    return pixel_curves([scored.masks[i] for i in known], [scored.maps[i] for i in known])


def part_notes(scored):
    """What the reader must know of a category's files."""
    notes = []
    if scored.unread:
        listed = "; ".join(file.reason for file in scored.unread[:NAMED_FILES])
        more = len(scored.unread) - NAMED_FILES
        notes.append(f"Not read: {listed}" + (f"; and {more} more" if more > 0 else ""))
    missing = sum(mask is None for mask in scored.masks)
    if missing:
        notes.append(f"{shown(scored.name)}: {missing} defective images have no mask; pixel metrics leave them out.")
    return notes


def calibration_sentence(calibration):
    """Where the threshold comes from."""
    origin = "kept out of training" if calibration.get("held_out", True) else "of the training"
    count, target = len(calibration["good_scores"]), calibration.get("target_fpr")
    sentence = f"It was set on {count} good images {origin}"
    if target is not None:
        sentence += f", for false alarms on at most {100 * target:.3g} % of good images"
        # The largest of n scores is exceeded by the next one with probability 1 / (n + 1).
        if (count + 1) * target < 1:
            sentence += f" (so few can promise no better than {100 / (count + 1):.3g} %)"
    return sentence + "; no test image was looked at."


def about_rows(known):
    """The last lines of the page: how the numbers were made."""
    rows = {key.replace("_", " "): value for key, value in known.items() if key != "versions" and value is not None}
    rows["versions"] = ", ".join(f"{name} {version}" for name, version in known["versions"].items())
    rows["data"] = shown(Path(known["data"]))
    rows["written"] = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return rows
