"""What every data set on disk becomes, whatever its layout: samples by split, and what was passed over."""

import difflib
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from vitlite.errors import UserError
from vitlite.files import shown
from vitlite.images.masks import MASK_RULE, MaskFiles

GOOD = "good"


@dataclass(frozen=True)
class Sample:
    """One picture of a data set."""

    path: Path  # of its file; of one in an idx file or a CIFAR-10 batch: the file's path / the number in it
    category: str
    split: str  # "train", "validation" or "test"
    defect: str  # "good" or the kind of defect: the name of its folder, or of its class
    label: int  # 0 good, 1 defective, whatever its mask says
    mask: Path | MaskFiles | None  # None for good pictures, and for defective ones that have none


@dataclass(frozen=True)
class Dataset:
    """What ``open_dataset`` found."""

    root: Path
    categories: tuple[str, ...]
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    layout: str  # a key of vitlite.data.layouts.TITLES, which says what it is
    notes: tuple[str, ...] = ()  # one line each: what was there and not used
    ignored: int = 0  # files beside the pictures that are hidden or not pictures
    validation: tuple[Sample, ...] = ()  # good pictures that the data set itself holds out of training
    nested: bool = False  # whether every category has a folder of its own below the root
    kinds_of_mean: tuple[str, ...] = ()  # kinds of defects; the data set's own image AUROC is the mean over these

    def folder(self, category: str) -> Path:
        """Where a category lies."""
        return self.root / category if self.nested else self.root

    @property
    def mask_rule(self) -> str | None:
        """When a pixel of a mask is defective, in words; None where there are no masks."""
        rules = {s.mask.rule if isinstance(s.mask, MaskFiles) else MASK_RULE for s in self.test if s.mask is not None}
        return "; or ".join(sorted(rules, key=lambda rule: (len(rule), rule))) or None


def choose(root: Path, names: list[str], category: str | None) -> list[str]:
    """The names that ``--category`` stands for, in the order of ``names``; UserError with the nearest ones."""
    if category is None:
        if len(names) > 1:
            raise UserError(f"{shown(root)} holds {len(names)} categories ({few(names)}): say --category NAME or all")
        return names
    if category == "all":
        return names
    known = {unicodedata.normalize("NFC", name): name for name in names}
    wanted = unicodedata.normalize("NFC", category)
    asked = [wanted] if wanted in known else [part.strip() for part in wanted.split(",") if part.strip()]
    for part in asked or [""]:
        if part not in known:
            near = difflib.get_close_matches(part, known, n=3, cutoff=0.5)
            hint = f"nearest: {', '.join(near)}" if near else f"there are: {few(names)}"
            raise UserError(f"--category {part!r}: not in {shown(root)}; {hint}")
    return [name for name in names if unicodedata.normalize("NFC", name) in asked]


def name_of(root: Path) -> str:
    """What the only category of a folder is called."""
    return root.resolve().name or "root"


def note(folder: Path, names: list[str]) -> tuple[str, ...]:
    """A line, or none, about what lies in a folder and is not used; hidden files are not worth one."""
    names = [name for name in names if not name.startswith(".")]
    return (f"ignored in {shown(folder)}: {few(names)}",) if names else ()


def few(names, limit: int = 20) -> str:
    """The first names of a list, and how many more there are."""
    listed = ", ".join(shown(name) for name in list(names)[:limit])
    return listed if len(names) <= limit else f"{listed} and {len(names) - limit} more"
