"""What a data set holds and what is wrong with it, before an hour of training finds out."""

import contextlib
import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitlite.data.index import Dataset, Sample
from vitlite.data.layouts import FAMILIES, TITLES, survey
from vitlite.data.layouts.categories import family_of
from vitlite.data.listing import entries
from vitlite.errors import UserError
from vitlite.files import shown
from vitlite.images.archives import split_entry
from vitlite.images.loading import each
from vitlite.images.masks import MASK_THRESHOLD, MaskFiles, binarize, decode_grey, files_of
from vitlite.images.reading import ImageError, decode_rgb

# A 16-bit picture whose brightest value maps below this uses less than a quarter of its range, as 12-bit cameras do.
_DARK = 64
_SHOWN = 4  # how many files a warning names


@dataclass
class Report:
    """What ``check`` found. Paths start with ``root`` as it was given; every list is in the order of the data set."""

    root: Path
    layout: str
    categories: tuple[str, ...]
    counts: dict[str, dict[str, dict[str, int]]]  # category -> split -> defect -> pictures
    heights: dict[str, tuple[int, int]]  # category -> (smallest, largest) of the readable pictures
    widths: dict[str, tuple[int, int]]
    modes: dict[str, Counter]  # category -> Pillow's mode -> pictures
    unreadable: list[tuple[Path, str]] = field(default_factory=list)  # pictures and masks, with the reason
    missing_masks: list[Path] = field(default_factory=list)  # defective pictures without a mask file
    orphan_masks: list[Path] = field(default_factory=list)  # mask files without a picture
    empty_masks: list[Path] = field(default_factory=list)  # nothing above the threshold; the picture stays defective
    faint_masks: list[Path] = field(default_factory=list)  # those of the empty ones that are not all zero
    marked_good: list[Path] = field(default_factory=list)  # masks of good pictures that are not empty
    size_mismatches: list[tuple[Path, tuple[int, int], tuple[int, int]]] = field(
        default_factory=list
    )  # mask, (H, W) x 2
    grey_masks: list[Path] = field(default_factory=list)  # more values than zero and one other
    flat: list[Path] = field(default_factory=list)  # one colour all over
    dark: list[Path] = field(default_factory=list)  # 16-bit pictures that use less than a quarter of their range
    duplicates: list[tuple[Path, ...]] = field(default_factory=list)  # groups of files with the same bytes
    leaks: list[tuple[Path, ...]] = field(default_factory=list)  # those groups that lie in both train and test
    masks: int = 0  # mask files read
    threshold: int = MASK_THRESHOLD  # for the masks that are cut there: mask_rule says whether these are
    mask_rule: str | None = None  # when a pixel of a mask is defective, in words; None without masks
    nested: bool = False  # whether every category has a folder of its own below the root
    ignored: int = 0  # files that are hidden or not pictures
    notes: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether ``problems`` is empty."""
        return not self.problems()

    def problems(self) -> list[str]:
        """One line for each kind of problem, with how many and the first few files (below ``root``)."""
        limit = self.threshold
        lines = [f"unreadable, will be skipped: {self._name(path)} ({reason})" for path, reason in self.unreadable]
        for text, items in (
            ("defective pictures without a mask file, left out of pixel metrics", map(self._name, self.missing_masks)),
            ("mask files without a picture", map(self._name, self.orphan_masks)),
            ("defective pictures whose mask marks nothing", map(self._name, self.empty_masks)),
            (f"masks among those that are not zero, only at most {limit}", map(self._name, self.faint_masks)),
            ("masks of good pictures that mark something, not used", map(self._name, self.marked_good)),
            (f"masks that are not binary, cut at {limit} of 255", map(self._name, self.grey_masks)),
            ("masks of another size than their picture", map(self._mismatch, self.size_mismatches)),
            ("pictures of one flat colour", map(self._name, self.flat)),
            ("16-bit pictures that come out dark, rescale them to 0..65535", map(self._name, self.dark)),
            ("groups of identical files in both train and test", map(self._group, self.leaks)),
            ("groups of identical files", (self._group(g) for g in self.duplicates if g not in self.leaks)),
        ):
            names = list(items)
            if names:
                more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                lines.append(f"{len(names)} {text}: {', '.join(names[:_SHOWN])}{more}")
        return lines

    def text(self) -> str:
        """The whole report for a terminal."""
        single = "one category in " if self.layout in ("loco", "btad", "mvtec2") and not self.nested else ""
        lines = [f"{shown(self.root)}: {single}{TITLES[self.layout]}"]
        for name in self.categories:
            lines += ["", *self._category_lines(name)]
        if self.masks:
            lines += [
                "",
                f"masks: {self.masks} read; defective: {self.mask_rule or 'nothing, all are of good pictures'}",
            ]
        if self.ignored:
            lines.append(f"other files passed over: {self.ignored}")
        lines += [f"note: {note}" for note in self.notes]
        problems = self.problems()
        lines += ["", *(f"warning: {line}" for line in problems)] if problems else ["", "no problems found"]
        return "\n".join(lines)

    def _category_lines(self, name: str) -> list[str]:
        lines = [shown(name)]
        for split, kinds in self.counts[name].items():
            counts = ", ".join(f"{shown(kind)} {count}" for kind, count in kinds.items())
            lines.append(f"  {split:<10}{sum(kinds.values()):6}  {counts}".rstrip())
        if name in self.heights:
            lines.append(f"  {'size':<10}height {_span(self.heights[name])}, width {_span(self.widths[name])}")
            lines.append(f"  {'mode':<10}" + ", ".join(f"{mode} {n}" for mode, n in self.modes[name].most_common()))
        return lines

    def _name(self, path: Path) -> str:
        return shown(path.relative_to(self.root))

    def _mismatch(self, item) -> str:
        path, mask, image = item
        return f"{self._name(path)} ({mask[0]} x {mask[1]}, picture {image[0]} x {image[1]})"

    def _group(self, paths) -> str:
        return " = ".join(map(self._name, paths))


def check(root, category: str | None = None) -> Report:
    """Read every picture and mask of a data set (all its categories by default) and report what is in it.

    Decodes each file once, with the rules of ``read_image`` and ``read_mask``. Of labelled classes it reports every
    class, or the one-class data set that ``category`` makes of them. Raises UserError where there is nothing to use: no
    such folder, no known layout, a piece of the layout missing or damaged, no picture that can be read.
    """
    dataset = survey(root, category)
    samples = (*dataset.train, *dataset.validation, *dataset.test)
    report = Report(
        root=dataset.root,
        layout=dataset.layout,
        categories=dataset.categories,
        counts=_counts(dataset, samples),
        heights={},
        widths={},
        modes={name: Counter() for name in dataset.categories},
        mask_rule=dataset.mask_rule,
        nested=dataset.nested,
        ignored=dataset.ignored,
        notes=dataset.notes,
    )
    digests = defaultdict(list)
    for sample, finding in zip(samples, each(_examine, samples)):
        _add(report, sample, finding)
        if finding.digest:
            digests[finding.digest].append(sample)
    if not report.heights:
        path, reason = report.unreadable[0]
        raise UserError(
            f"{shown(dataset.root)}: none of {len(samples)} images can be read (first: {shown(path)}: {reason})"
        )
    for group in digests.values():
        if len(group) > 1:
            paths = tuple(sample.path for sample in group)
            report.duplicates.append(paths)
            if len({sample.split for sample in group}) > 1:
                report.leaks.append(paths)
    _check_mask_folders(report, dataset)
    return report


@dataclass
class _Finding:
    """What one picture and its mask turned out to be."""

    error: str | None = None
    digest: bytes | None = None
    size: tuple[int, int] | None = None
    mode: str = ""
    flat: bool = False
    dark: bool = False
    masks: int = 0  # mask files read
    mask_error: tuple[Path, str] | None = None
    mask_size: tuple[int, int] | None = None
    mask_values: int = 0  # distinct values other than zero; not counted where every one of them marks a defect
    mask_pixels: int = 0  # pixels above the threshold


def _examine(sample: Sample) -> _Finding:
    found = _Finding()
    try:
        image, found.mode = decode_rgb(sample.path)
    except ImageError as error:
        found.error = error.reason
    else:
        found.size = image.shape[:2]
        found.flat = bool((image == image[0, 0]).all())
        found.dark = found.mode.startswith("I") and int(image.max()) < _DARK
        if split_entry(sample.path):  # a part of a file: its pixels are all that it has of its own
            found.digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
    with contextlib.suppress(OSError, ValueError):  # the reader says why
        found.digest = found.digest or hashlib.sha256(sample.path.read_bytes()).digest()
    if sample.mask is not None:
        _examine_mask(sample.mask, found)
    return found


def _examine_mask(mask: Path | MaskFiles, found: _Finding):
    """All files of a mask as one; ``mask_error`` names the file where there are several."""
    cut = {"threshold": mask.threshold} if isinstance(mask, MaskFiles) else {}
    united = None
    for path in files_of(mask):
        try:
            values, _ = decode_grey(path)
        except ImageError as error:
            found.mask_error = (path, error.reason)
            return
        if united is not None and values.shape != united.shape:
            found.mask_error = (path, "is of another size than the picture's other masks")
            return
        found.masks += 1
        if not cut:  # label maps have many values by design
            found.mask_values = int(np.count_nonzero(np.bincount(values.ravel(), minlength=256)[1:]))
        marked = binarize(values, **cut)
        united = marked if united is None else united | marked
    found.mask_size = united.shape
    found.mask_pixels = int(united.sum())


def _add(report: Report, sample: Sample, found: _Finding):
    if found.error:
        report.unreadable.append((sample.path, found.error))
    else:
        name = sample.category
        report.heights[name] = _widen(report.heights.get(name), found.size[0])
        report.widths[name] = _widen(report.widths.get(name), found.size[1])
        report.modes[name][found.mode] += 1
        if found.flat:
            report.flat.append(sample.path)
        elif found.dark:
            report.dark.append(sample.path)
    if sample.label and sample.mask is None:
        report.missing_masks.append(sample.path)
    if found.mask_error:
        report.unreadable.append(found.mask_error)
    elif found.mask_size:
        report.masks += found.masks
        if not found.mask_pixels:
            report.empty_masks.append(Path(sample.mask))
            if found.mask_values:
                report.faint_masks.append(Path(sample.mask))
        if found.mask_values > 1:
            report.grey_masks.append(Path(sample.mask))
        if found.size and found.mask_size != found.size:
            report.size_mismatches.append((Path(sample.mask), found.mask_size, found.size))


def _check_mask_folders(report: Report, dataset: Dataset):
    """Masks that no picture claims, and masks of good pictures that mark something."""
    claimed = {sample.mask for sample in dataset.test}
    good = {(sample.category, sample.path.stem) for sample in dataset.test if not sample.label}
    for name in dataset.categories:
        folder = dataset.folder(name)
        family = family_of(folder, FAMILIES)
        if family is None or not (folder / family.truth).is_dir():
            continue
        for kind in entries(folder / family.truth)[0]:
            for stem, mask in family.masks(folder, kind).items():
                if kind == family.good and ((name, stem) in good or (name, stem.removesuffix("_mask")) in good):
                    _add_good_mask(report, mask)
                elif mask not in claimed:
                    report.orphan_masks.append(Path(mask))


def _add_good_mask(report: Report, mask: Path | MaskFiles):
    found = _Finding()
    _examine_mask(mask, found)
    if found.mask_error:
        report.unreadable.append(found.mask_error)
        return
    report.masks += found.masks
    if found.mask_pixels:
        report.marked_good.append(Path(mask))


def _counts(dataset: Dataset, samples) -> dict[str, dict[str, dict[str, int]]]:
    splits = ("train", "validation", "test") if dataset.validation else ("train", "test")
    counts = {name: {split: {} for split in splits} for name in dataset.categories}
    for sample in samples:
        kinds = counts[sample.category][sample.split]
        kinds[sample.defect] = kinds.get(sample.defect, 0) + 1
    return counts


def _widen(span: tuple[int, int] | None, value: int) -> tuple[int, int]:
    return (value, value) if span is None else (min(span[0], value), max(span[1], value))


def _span(span: tuple[int, int]) -> str:
    return str(span[0]) if span[0] == span[1] else f"{span[0]}..{span[1]}"
