"""What every data set on disk becomes, whatever its layout: samples by split."""

import difflib
import os
import re
import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vitlite.errors import UserError
from vitlite.files import counted, shown
from vitlite.images.mask_values import MaskRule
from vitlite.images.masks import MaskFiles

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

GOOD = "good"
GOOD_NAMES = frozenset((GOOD, "ok", "okay", "pass", "normal"))
"""Names, in lower case, that people give to folders of good images."""

# fmt: off
DEFECTS = frozenset((
    "abnormal", "anomalies", "anomalous", "anomaly", "bad", "broken", "damaged", "defect", "defective", "defects",
    "fault", "faults", "faulty", "ko", "logical_anomalies", "ng", "nio", "nok", "not_good", "not_ok", "reject",
    "rejected", "rejects", "scrap", "structural_anomalies",
))
# fmt: on
_NOT = frozenset(("free", "no", "non", "none", "not", "without", "zero"))  # with one of them a name says the opposite

MASK_NAME = re.compile(r"(.+)[_-](?:gt|label|mask)", re.IGNORECASE | re.DOTALL)
"""The stem of a mask's file that lies beside its image, whose stem is the first group."""


@dataclass(frozen=True)
class Sample:
    """One image of a data set."""

    path: Path  # its file; for an image inside an idx file or a CIFAR-10 batch: FILE/NUMBER
    category: str
    split: str  # "train", "validation" or "test"
    defect: str  # "good" or the kind of defect: the name of its folder or of its class
    label: int  # 0 good, 1 defective, whatever its mask says
    mask: Path | MaskFiles | None  # None for good images, and for defective ones that have none


@dataclass(frozen=True)
class Dataset:
    """What ``open_dataset`` found."""

    root: Path
    categories: tuple[str, ...]
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    layout: str  # the layout's name, such as "mvtec"
    title: str  # the layout in words
    notes: tuple[str, ...] = ()  # one line each: what is there and not used
    ignored: int = 0  # files beside the images that are hidden or not images
    validation: tuple[Sample, ...] = ()  # good images that the data set itself holds out of training
    nested: bool = False  # whether every category has a folder of its own below the root
    kinds_of_mean: tuple[str, ...] = ()  # kinds of defects; the data set's own image AUROC is the mean over these
    left_out: tuple[tuple[Path, int], ...] = ()  # folders with images that somebody may miss, and how many of them
    unlisted: tuple[tuple[Path, int], ...] = ()  # folders with images that the data set's table has no row for
    masks_beside: tuple[tuple[Path, int], ...] = ()  # folders with masks beside their images, and how many of them
    stray_masks: tuple[tuple[Path, int], ...] = ()  # folders with files that are masks by name, of images not there
    seem_good: tuple[tuple[Path, int], ...] = ()  # folders of defects, by name good images, and how many they hold
    not_read: str = ""  # what to say of images whose formats are not read

    def folder(self, category: str) -> Path:
        """The folder of a category."""
        return self.root / category if self.nested else self.root

    @property
    def mask_rules(self) -> dict[str, MaskRule]:
        """When a pixel of a mask is defective, for each category whose rule is known and that has masks."""
        return {s.category: s.mask.rule for s in reversed(self.test) if isinstance(s.mask, MaskFiles)}

    @property
    def warnings(self) -> list[str]:
        """A line about the images that are left out, if there are any, and about masks beside images or of several."""
        lines = [self.not_read] if self.not_read else []
        if twins := self._twins():
            have = "has" if len(twins) == 1 else "have"
            lines.append(
                f"{counted(len(twins), 'image')} {have} the name of another but for its extension: {few(twins, 4)}; "
                "both count, and a mask is used for both; remove copies, and rename other images"
            )
        for places, text in (
            (self.masks_beside, "a defective image without a mask elsewhere has the one beside it"),
            (
                self.stray_masks,
                "left out, because there is no image with the rest of the name; rename what is an image",
            ),
        ):
            if places:
                total = sum(count for _, count in places)
                masks = "1 file is a mask" if total == 1 else f"{total} files are masks"
                lines.append(f"{masks} by name and no image: {self._places(places)}; {text}")
        if self.seem_good:
            total = sum(count for _, count in self.seem_good)
            count, they, them = (
                ("1 test image counts", "it is", "it")
                if total == 1
                else (f"{total} test images count", "they are", "them")
            )
            where = self._places(self.seem_good)
            lines.append(
                f"{count} as defective in a folder with a name of good images: {where}; if {they} good, move {them} "
                "into the folder of the good test images"
            )
        for places, why, way in (
            (self.left_out, "because none are read there", f"move {{}} into a folder that is read ({self.title})"),
            (self.unlisted, "because the data set's table has no row for {}", "add rows to the table"),
        ):
            if places:
                total = sum(count for _, count in places)
                images, them = ("1 image is", "it") if total == 1 else (f"{total} images are", "them")
                left_out = f"{images} left out, {why.format(them)}: {self._places(places)}"
                lines.append(f"{left_out}; to use {them}, {way.format(them)}")
        return lines

    def _twins(self) -> list[str]:
        """The images whose names differ from an earlier one of their folder in the extension alone."""
        seen: set[str] = set()
        found = []
        for sample in (*self.train, *self.validation, *self.test):
            own = stem(os.fspath(sample.path))
            if own in seen:
                found.append(shown(sample.path.relative_to(self.root)))
            seen.add(own)
        return found

    def _places(self, counts: Sequence[tuple[Path, int]]) -> str:
        return few([f"{place.relative_to(self.root)}/ ({count})" for place, count in counts], 6)


def choose(root: Path, names: Sequence[str], category: str | None) -> list[str]:
    """The names that ``category`` stands for, in the order of ``names``.

    ``category`` is a name, several with commas between, or ``all``. Raises UserError for an unknown name, with the
    nearest ones, and for None if there are several names.
    """
    if category is None:
        if len(names) > 1:
            raise UserError(
                f"{shown(root)} holds {len(names)} categories ({few(names)}): choose with `category=NAME`, or "
                f"`category=all`"
            )
        return list(names)
    if category == "all":
        return list(names)
    known = {unicodedata.normalize("NFC", name): name for name in names}
    wanted = unicodedata.normalize("NFC", category)
    asked = [wanted] if wanted in known else [part.strip() for part in wanted.split(",") if part.strip()]
    for part in asked or [""]:
        if part not in known:
            near = difflib.get_close_matches(part, known, n=3, cutoff=0.5)
            hint = f"nearest: {', '.join(near)}" if near else f"there are: {few(names)}"
            raise UserError(f"`category={part!r}`: not in {shown(root)}; {hint}")
    return [name for name in names if unicodedata.normalize("NFC", name) in asked]


def name_of(root: Path) -> str:
    """The name of a folder's only category."""
    return root.resolve().name or "root"


def stem(name: str) -> str:
    """A file's name without its extension."""
    return os.path.splitext(name)[0]


def without_mark(stem: str) -> str:
    """The stem of the image whose mask is called so."""
    match = MASK_NAME.fullmatch(stem)
    return match[1] if match else stem


def masks_among(images: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Those names of a folder that are masks of images there, such as ``000_mask.png``: {mask: stem}, and of none."""
    stems = {stem(name) for name in images}
    masks = {name: match[1] for name in images if (match := MASK_NAME.fullmatch(stem(name)))}
    return {n: own for n, own in masks.items() if own in stems}, [n for n, own in masks.items() if own not in stems]


def grouped(pairs: Iterable[tuple[K, T]]) -> dict[K, list[T]]:
    """The second of each pair by the first, in order."""
    found: dict[K, list[T]] = {}
    for key, item in pairs:
        found.setdefault(key, []).append(item)
    return found


def few(names: Sequence[str], limit: int = 20) -> str:
    """The first names of a list, and how many more there are."""
    listed = ", ".join(shown(name) for name in names[:limit])
    return listed if len(names) <= limit else f"{listed} and {len(names) - limit} more"


def says_defects(name: str) -> bool:
    """Whether a folder's name, or a word of it as in ``NG_parts``, is one that people give to defects."""
    words = _words(name)
    return name.lower() in DEFECTS or not (words.isdisjoint(DEFECTS) or words & _NOT)


def says_good(name: str) -> bool:
    """Whether a folder's name, or a word of it as in ``good_02``, is one that people give to good images."""
    words = _words(name)
    if words & _NOT:
        return not (words.isdisjoint(DEFECTS) or name.lower() in DEFECTS)  # such as no_defect
    return not words.isdisjoint(GOOD_NAMES) and words.isdisjoint(DEFECTS)


def _words(name: str) -> set[str]:
    return set(re.split("[^a-z]+", name.lower()))
