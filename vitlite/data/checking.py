"""What a data set holds and what is wrong with it, before an hour of training finds out."""

import contextlib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from vitlite.data.colours import SeenColours, colour_in
from vitlite.data.index import Dataset, Sample
from vitlite.data.layouts import layout_of, survey
from vitlite.data.levels import SeenLevels
from vitlite.data.mask_rules import find_rule
from vitlite.data.shapes import in_words as shapes_in_words
from vitlite.data.small import Defects, Region, largest_region
from vitlite.errors import UserError
from vitlite.files import MAX_MEGAPIXELS, counted, shown
from vitlite.images.archives import split_entry
from vitlite.images.loading import LeftOut, each
from vitlite.images.mask_values import COLOUR, MaskRule, defects, values
from vitlite.images.masks import MaskFiles, files_of
from vitlite.images.reading import ImageError, decode, frame_count, read_stored
from vitlite.images.scale import Levels, as_pixels

UNREADABLE = "unreadable"  # in the place of a kind of defect
_SHOWN = 4  # how many files a warning names

Size = tuple[int, int]


@dataclass
class Report:
    """What ``check`` found. Paths start with ``root`` as it was given; every list is in the order of the data set."""

    root: Path
    layout: str
    title: str  # the layout in words
    categories: tuple[str, ...]
    counts: dict[str, dict[str, dict[str, int]]]  # category -> split -> defect or UNREADABLE -> images
    modes: dict[str, Counter[str]]  # category -> Pillow's mode -> images
    heights: dict[str, Size] = field(default_factory=dict)  # category -> (smallest, largest) of the readable images
    widths: dict[str, Size] = field(default_factory=dict)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)  # images and masks, with the reason
    missing_masks: list[Path] = field(default_factory=list)  # defective images without a mask file
    orphan_masks: list[Path] = field(default_factory=list)  # mask files that no image has
    empty_masks: list[Path] = field(default_factory=list)  # mark nothing; the image stays defective
    faint_masks: list[Path] = field(default_factory=list)  # those of the empty ones that are not all zero
    marked_good: list[Path] = field(default_factory=list)  # masks of good images that are not empty
    size_mismatches: list[tuple[Path, Size, Size]] = field(default_factory=list)  # mask, (H, W) of it and of its image
    grey_masks: list[Path] = field(default_factory=list)  # cut at a threshold, with more values than zero and another
    levels: SeenLevels = field(default_factory=SeenLevels)
    colours: SeenColours = field(default_factory=SeenColours)
    frames: list[tuple[Path, int]] = field(default_factory=list)  # files of several images
    flat: list[Path] = field(default_factory=list)  # one colour all over
    duplicates: list[tuple[Path, ...]] = field(default_factory=list)  # groups of files with the same bytes
    leaks: list[tuple[Path, ...]] = field(default_factory=list)  # those groups that lie in both train and test
    defects: Defects = field(default_factory=Defects)  # their sizes
    masks: int = 0  # mask files read
    mask_rules: dict[str, MaskRule] = field(default_factory=dict)  # category -> when a pixel of a mask is defective
    mask_doubts: list[str] = field(default_factory=list)  # lines about what masks mean; backticks as in UserError
    ignored: int = 0  # files that are hidden or not images
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()  # a line about the images that are not used; Dataset.warnings

    @property
    def clean(self) -> bool:
        """Whether ``problems`` is empty."""
        return not self.problems()

    def problems(self) -> list[str]:
        """One line for each kind of problem, with how many and the first few files (below ``root``)."""
        lines: list[str] = []
        unreadable = ((self._name(path), reason) for path, reason in self.unreadable)
        skipped = LeftOut(lines.append, "unreadable, will be skipped:")
        skipped.all((Path(name), f"{name} ({reason})") for name, reason in unreadable)
        kinds: Sequence[tuple[str, str, list[Path]]] = (
            ("defective image", "without a mask file, left out of pixel metrics", self.missing_masks),
            ("mask file", "not used, of no image or of one that has another mask", self.orphan_masks),
            ("defective image", "with a mask that marks nothing", self.empty_masks),
            ("mask", "among those, not zero, but nowhere above the threshold", self.faint_masks),
            ("mask", "of good images with a mark, not used", self.marked_good),
            ("mask", "with grey values, cut at the threshold", self.grey_masks),
            ("image", "of one flat colour", self.flat),
            ("image", "outside the scale of the training images, cut off", list(self.levels.outside())),
            ("image", "of which the scale of the training images leaves next to nothing", list(self.levels.faded())),
            *self.colours.problems(),
        )
        only = [group for group in self.duplicates if group not in self.leaks]
        found = [(one, text, [self._name(path) for path in files]) for one, text, files in kinds]
        sizes = [self._mismatch(*mismatch) for mismatch in self.size_mismatches]
        found.insert(6, ("mask", "of another size than the image", sizes))
        frames = [f"{self._name(path)} ({count})" for path, count in self.frames]
        found.append(("file", "of several images, of which the first is taken", frames))
        found.append(("group", "of identical files in both train and test", [self._group(g) for g in self.leaks]))
        found.append(("group", "of identical files", [self._group(g) for g in only]))
        lines += [*self.left_out, *self.mask_doubts, *self.levels.lines()]
        for one, text, names in found:
            if names:
                more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                lines.append(f"{counted(len(names), one)} {text}: {', '.join(names[:_SHOWN])}{more}")
        return lines

    def text(self) -> str:
        """The whole report for a terminal."""
        lines = [f"{shown(self.root)}: {self.title}"]
        for name in self.categories:
            lines += ["", *self._category_lines(name)]
        if self.masks:
            rules = dict.fromkeys(map(str, self.mask_rules.values()))
            if len(rules) > 1:
                rules = dict.fromkeys(f"{shown(name)} {rule}" for name, rule in self.mask_rules.items())
            lines += ["", f"masks: {self.masks} read; {'; '.join(rules) or 'no rule'}"]
        largest = {name: (self.heights[name][1], self.widths[name][1]) for name in self.heights}
        lines += [*self.defects.lines([*largest.values()]), *shapes_in_words(largest)]
        if self.ignored:
            lines.append(f"other files, not used: {self.ignored}")
        lines += [f"note: {note}" for note in self.notes]
        lines += ["", *([f"warning: {line}" for line in self.problems()] or ["no problems found"])]
        return "\n".join(lines)

    def _category_lines(self, name: str) -> list[str]:
        lines = [shown(name)]
        for split, kinds in self.counts[name].items():
            counts = ", ".join(f"{shown(kind)} {count}" for kind, count in kinds.items())
            lines.append(f"  {split:<10}{sum(kinds.values()):6}  {counts}".rstrip())
        if name in self.heights:
            lines.append(f"  {'size':<10}height {_span(self.heights[name])}, width {_span(self.widths[name])}")
            lines.append(f"  {'mode':<10}" + ", ".join(f"{mode} {n}" for mode, n in self.modes[name].most_common()))
            lines.append(f"  {'levels':<10}{self.levels.of(name)}")
        return lines

    def _name(self, path: Path) -> str:
        return shown(path.relative_to(self.root))

    def _mismatch(self, path: Path, mask: Size, image: Size) -> str:
        return f"{self._name(path)} ({mask[0]} x {mask[1]}, image {image[0]} x {image[1]})"

    def _group(self, paths: Iterable[Path]) -> str:
        return " = ".join(map(self._name, paths))


def check(
    root: str | Path,
    category: str | None = None,
    *,
    mask_threshold: int | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> Report:
    """Read every image and mask of a data set and report what is in it.

    Args:
        root: the folder of the data set.
        category: a name, several with commas, or ``all``, which is the default. For a data set of labelled classes, the
            normal one of the one-class data set that is reported; every class by default.
        mask_threshold: a pixel of a mask above it (0 to 65534) is a defect; None: what each category's masks say.
        max_megapixels: larger images and masks count as unreadable.

    Returns:
        Report: ``problems()`` and ``text()`` say what was found.

    Raises:
        UserError: there is nothing to use: no such folder, no known layout, a piece of the layout missing or damaged,
            no image that can be read.
    """
    max_pixels = as_pixels(max_megapixels)
    dataset = survey(root, category)
    samples = (*dataset.train, *dataset.validation, *dataset.test)
    spare = list(layout_of(dataset.root).spare_masks(dataset))
    report = Report(
        root=dataset.root,
        layout=dataset.layout,
        title=dataset.title,
        categories=dataset.categories,
        counts=_counts(dataset),
        modes={name: Counter() for name in dataset.categories},
        ignored=dataset.ignored,
        notes=dataset.notes,
        left_out=tuple(dataset.warnings),
    )
    _find_rules(report, dataset, [mask for mask, of_good in spare if of_good], mask_threshold, max_pixels)
    digests = defaultdict(list)
    looks = each(lambda sample: _examine(sample, report.mask_rules.get(sample.category), max_pixels), samples)
    for sample, (image, mask) in zip(samples, looks):
        _add_image(report, sample, image)
        if sample.label and sample.mask is None:
            report.missing_masks.append(sample.path)
        if sample.mask is not None and mask is not None:
            _add_mask(report, Path(sample.mask), mask, image.size)
        if image.digest:
            digests[image.digest].append(sample)
    if not report.heights:
        path, reason = report.unreadable[0]
        raise UserError(
            f"{shown(dataset.root)}: none of {counted(len(samples), 'image')} can be read ({shown(path)}: {reason})"
        )
    for group in digests.values():
        if len(group) > 1:
            paths = tuple(sample.path for sample in group)
            report.duplicates.append(paths)
            if len({sample.split for sample in group}) > 1:
                report.leaks.append(paths)
    for left, of_good_image in spare:
        if of_good_image:
            _add_good_mask(report, left, max_pixels)
        else:
            report.orphan_masks.append(Path(left))
    return report


def _find_rules(
    report: Report, dataset: Dataset, of_good: Sequence[Path | MaskFiles], mask_threshold: int | None, max_pixels: int
) -> None:
    for name in dataset.categories:
        if mask_threshold is not None:
            report.mask_rules[name] = MaskRule.above(mask_threshold, "mask_threshold")
            continue
        try:
            rule = find_rule(dataset, name, of_good, max_pixels)
        except UserError as error:
            report.mask_doubts.append(error.marked)
        else:
            if rule:
                report.mask_rules[name] = rule


@dataclass
class _Image:
    """What is known of one image."""

    error: str | None = None
    digest: bytes | None = None
    size: Size | None = None
    mode: str = ""
    flat: bool = False
    colour: str = ""
    levels: Levels | None = None
    frames: int = 1


@dataclass
class _Mask:
    """What is known of one mask, all its files together."""

    error: tuple[Path, str] | None = None  # the file and the reason
    files: int = 0  # files read
    size: Size = (0, 0)
    values: int = 0  # distinct grey values other than zero; not counted if every one of them marks a defect
    pixels: int | None = None  # that are marked; None without a rule
    largest: Region | None = None


def _examine(sample: Sample, rule: MaskRule | None, max_pixels: int) -> tuple[_Image, _Mask | None]:
    found = _Image()
    try:
        stored, found.mode = read_stored(sample.path, max_pixels)
        image = stored.values
    except ImageError as error:
        found.error = error.reason
    else:
        found.size = (image.shape[0], image.shape[1])
        found.flat = bool((image == image[0, 0]).all())
        found.levels, found.frames, found.colour = stored.levels, frame_count(sample.path), colour_in(stored)
        if split_entry(sample.path):  # a part of a file: its pixels are all that it has of its own
            found.digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
    with contextlib.suppress(OSError, ValueError):  # the reader says why
        found.digest = found.digest or hashlib.sha256(sample.path.read_bytes()).digest()
    return found, None if sample.mask is None else _examine_mask(sample.mask, rule, max_pixels)


def _examine_mask(mask: Path | MaskFiles, rule: MaskRule | None, max_pixels: int) -> _Mask:
    """All files of a mask as one."""
    found = _Mask()
    united = None

    def look(image: Image.Image) -> np.ndarray:
        if rule is None:
            return values(image, COLOUR)[1]
        if rule.threshold:  # label maps have many values by design
            grey = values(image, rule.plane)[1]
            found.values = int(np.count_nonzero(np.bincount(grey.ravel(), minlength=256)[1:]))
        return defects(image, rule)

    for path in files_of(mask):
        try:
            marked = decode(path, look, max_pixels)[0]
        except ImageError as error:
            return _Mask((path, error.reason))
        if united is not None and marked.shape != united.shape:
            return _Mask((path, "is of another size than the image's other masks"))
        found.files += 1
        united = marked if united is None else united | marked
        found.size = (marked.shape[0], marked.shape[1])
    if rule is not None and united is not None:
        found.pixels, found.largest = int(united.sum()), largest_region(united)
    return found


def _add_image(report: Report, sample: Sample, found: _Image) -> None:
    kinds = report.counts[sample.category][sample.split]
    kind = sample.defect if found.size else UNREADABLE
    kinds[kind] = kinds.get(kind, 0) + 1
    if found.size is None:
        report.unreadable.append((sample.path, found.error or ""))
        return
    for spans, value in zip((report.heights, report.widths), found.size):
        low, high = spans.get(sample.category, (value, value))
        spans[sample.category] = (min(low, value), max(high, value))
    report.modes[sample.category][found.mode] += 1
    report.colours.add(sample, found.colour)
    if found.levels is not None:
        report.levels.images.append((sample, found.levels))
    if found.frames > 1:
        report.frames.append((sample.path, found.frames))
    if found.flat:
        report.flat.append(sample.path)


def _add_mask(report: Report, path: Path, found: _Mask, image: Size | None) -> None:
    if found.error:
        report.unreadable.append(found.error)
        return
    report.masks += found.files
    report.defects.add(found.largest, found.size)
    if found.pixels == 0:
        report.empty_masks.append(path)
        if found.values:
            report.faint_masks.append(path)
    if found.values > 1:
        report.grey_masks.append(path)
    if image and found.size != image:
        report.size_mismatches.append((path, found.size, image))


def _add_good_mask(report: Report, mask: Path | MaskFiles, max_pixels: int) -> None:
    folder = Path(mask).relative_to(report.root).parts[0]
    rule = report.mask_rules.get(folder, next(iter(report.mask_rules.values()), MaskRule.above(0)))
    found = _examine_mask(mask, rule, max_pixels)
    if found.error:
        report.unreadable.append(found.error)
        return
    report.masks += found.files
    if found.pixels:
        report.marked_good.append(Path(mask))


def _counts(dataset: Dataset) -> dict[str, dict[str, dict[str, int]]]:
    splits = ("train", "validation", "test") if dataset.validation else ("train", "test")
    return {name: {split: {} for split in splits} for name in dataset.categories}


def _span(span: Size) -> str:
    return str(span[0]) if span[0] == span[1] else f"{span[0]}..{span[1]}"
