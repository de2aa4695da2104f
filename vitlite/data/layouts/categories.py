"""Categories with train/ and test/ folders of their own: what MVTec AD, MPDD, LOCO AD, AD 2 and BTAD share.

``CATEGORY/train/<good>``, ``CATEGORY/validation/<good>`` (where there is one), ``CATEGORY/test/<kind>`` with the good
ones among them, and masks below ``CATEGORY/ground_truth/<kind>``.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vitlite.data.index import GOOD, Dataset, Sample, choose, name_of, note
from vitlite.data.listing import entries, sub_folders
from vitlite.images.masks import MaskFiles


@dataclass(frozen=True)
class Family:
    """One of the layouts, where it differs from the others."""

    layout: str
    good: str  # what the folders of good pictures are called
    is_category: Callable[[Path], bool]
    masks: Callable[[Path, str], dict[str, Path | MaskFiles]]  # (category, kind) -> masks by stem
    test: str = "test"  # the folder of test pictures
    truth: str = "ground_truth"  # that of their masks, from the category's
    kinds_of_mean: tuple[str, ...] = ()  # as in Dataset

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders of a category."""
        return ("train", "validation", self.test, *([] if "/" in self.truth else [self.truth]))


def mask_files(category_folder: Path, kind: str, truth: str = "ground_truth") -> dict[str, Path]:
    """The mask files of one kind of defect by stem."""
    folder = category_folder / truth / kind
    found: dict[str, Path] = {}
    if folder.is_dir():
        for name in entries(folder)[1]:
            found.setdefault(os.path.splitext(name)[0], folder / name)
    return found


def family_of(folder: Path, families: tuple[Family, ...]) -> Family | None:
    """Which of the layouts a category is in; None where it is no category."""
    return next((family for family in families if family.is_category(folder)), None)


def has_categories(root: Path, families: tuple[Family, ...]) -> bool:
    """Whether any folder below ``root`` is a category."""
    return any(family_of(root / name, families) for name in sub_folders(root))


def read_root(root: Path, category: str | None, families: tuple[Family, ...]) -> Dataset:
    """A folder of categories."""
    folders, images, others = entries(root)
    found = {name: family_of(root / name, families) for name in folders}
    names = [name for name in folders if found[name]]
    chosen = choose(root, names, category)
    unused = [f"{name}/" for name in folders if not found[name]]
    parts = [read_category(root / name, name, found[name]) for name in chosen]
    layouts = {found[name].layout for name in chosen}
    return Dataset(
        root=root,
        categories=tuple(chosen),
        train=tuple(sample for part in parts for sample in part.train),
        test=tuple(sample for part in parts for sample in part.test),
        layout=layouts.pop() if len(layouts) == 1 else "mixed",
        notes=(*note(root, unused + images + others), *(line for part in parts for line in part.notes)),
        ignored=len(images) + len(others) + sum(part.ignored for part in parts),
        validation=tuple(sample for part in parts for sample in part.validation),
        nested=True,
        kinds_of_mean=tuple(dict.fromkeys(kind for part in parts for kind in part.kinds_of_mean)),
    )


def read_only(root: Path, category: str | None, family: Family) -> Dataset:
    """A folder that is a category itself."""
    (name,) = choose(root, [name_of(root)], category)
    return read_category(root, name, family)


def read_category(folder: Path, name: str, family: Family) -> Dataset:
    """One category."""
    folders, images, others = entries(folder)
    used = [part for part in family.parts if part != "validation" or (folder / part / family.good).is_dir()]
    notes = list(note(folder, [f"{n}/" for n in folders if n not in used] + images + others))
    ignored = len(images) + len(others)
    good = {}
    for split in ("train", "validation"):
        good[split], passed, extra = _read_good(folder, name, split, family)
        ignored += passed
        notes += extra
    test = []
    if (folder / family.test).is_dir():
        kinds, images, others = entries(folder / family.test)
        ignored += len(images) + len(others)
        notes += note(folder / family.test, images)
        for kind in kinds:
            if f"{family.test}/{kind}" == family.truth:
                continue
            samples, passed, extra = _read_kind(folder, name, kind, family)
            test += samples
            ignored += passed
            notes += extra
    layout = "category" if family.layout == "mvtec" else family.layout
    train, validation = good["train"], good["validation"]
    return Dataset(
        folder,
        (name,),
        train,
        tuple(test),
        layout,
        tuple(notes),
        ignored,
        validation,
        kinds_of_mean=family.kinds_of_mean,
    )


def _read_good(folder: Path, name: str, split: str, family: Family):
    """``(samples, files passed over, notes)`` of the good pictures of train/ or validation/."""
    here = folder / split / family.good
    if not here.is_dir():
        return (), 0, ()
    folders, images, others = entries(here)
    beside = [f"{n}/" for n in sub_folders(folder / split) if n != family.good]
    samples = tuple(Sample(here / image, name, split, GOOD, 0, None) for image in images)
    return samples, len(others), (*note(here, [f"{n}/" for n in folders]), *note(folder / split, beside))


def _read_kind(folder: Path, name: str, kind: str, family: Family):
    """``(samples, files passed over, notes)`` of one kind of test pictures."""
    here = folder / family.test / kind
    folders, images, others = entries(here)
    label = int(kind != family.good)
    masks = family.masks(folder, kind) if label else {}
    samples = []
    for image in images:
        stem = os.path.splitext(image)[0]
        mask = masks.get(f"{stem}_mask") or masks.get(stem)
        samples.append(Sample(here / image, name, "test", kind if label else GOOD, label, mask))
    return samples, len(others), note(here, [f"{n}/" for n in folders])
