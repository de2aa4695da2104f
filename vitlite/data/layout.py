"""Data sets on disk: MVTec layout with many categories or one, or a plain folder of good pictures.

MVTec layout is ``CATEGORY/train/good``, ``CATEGORY/test/<defect>`` (``good`` among them) and
``CATEGORY/ground_truth/<defect>/<stem>_mask.png`` or ``<stem>.png`` (Bergmann et al., CVPR 2019).
"""

import difflib
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from vitlite.data.listing import entries, walk
from vitlite.data.reading import shown
from vitlite.errors import UserError

GOOD = "good"


@dataclass(frozen=True)
class Sample:
    """One picture of a data set."""

    path: Path
    category: str
    split: str  # "train" or "test"
    defect: str  # "good" or the kind of defect, the name of its folder
    label: int  # 0 good, 1 defective, whatever its mask says
    mask: Path | None  # None for good pictures, and for defective ones whose mask file is missing


@dataclass(frozen=True)
class Dataset:
    """What ``open_dataset`` found."""

    root: Path
    categories: tuple[str, ...]
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    layout: str  # "mvtec": a root of categories; "category": the root is one; "folder": a plain folder of good pictures
    notes: tuple[str, ...] = ()  # one line each: what was there and not used
    ignored: int = 0  # files beside the pictures that are hidden or not pictures

    def folder(self, category: str) -> Path:
        """Where a category lies."""
        return self.root / category if self.layout == "mvtec" else self.root


def open_dataset(root, category: str | None = None, *, need_train: bool = True, need_test: bool = False) -> Dataset:
    """Find the pictures of a data set; reads folders only, no picture.

    ``root`` holds categories in MVTec layout, or is one such category, or is a plain folder of good pictures (those
    directly inside, or everything below where there are none; category: the folder's name; no test split).
    ``category`` is a name, several with commas between, or ``all``; None is enough where there is only one.
    Order is natural (2 before 10) and the same everywhere. Folders of the root that are no category are passed over
    and named in ``notes``. Defective pictures without a mask file get ``mask=None``.

    Raises UserError in one line: no such folder, no picture, unknown category (with the nearest names), several
    categories and none chosen, an empty training split (``need_train``) or test split (``need_test``).
    """
    root = Path(root)
    if not root.exists():
        raise UserError(f"{shown(root)}: no such folder")
    if not root.is_dir():
        raise UserError(f"{shown(root)}: is a file; give the folder of the data set")
    if _is_category(root):
        dataset = _open_category(root, category)
    elif any(_is_category(root / name) for name in entries(root)[0]):
        dataset = _open_root(root, category)
    else:
        dataset = _open_folder(root, category)
    _require(dataset, need_train, need_test)
    return dataset


def _is_category(folder: Path) -> bool:
    """CIFAR-like trees have train/ and test/ too, so one of the names that only this layout has must be there."""
    test = folder / "test"
    return any(map(os.path.isdir, (folder / "train" / GOOD, test / GOOD))) or (
        os.path.isdir(test) and os.path.isdir(folder / "ground_truth")
    )


def _open_root(root: Path, category: str | None) -> Dataset:
    folders, images, others = entries(root)
    names = [name for name in folders if _is_category(root / name)]
    chosen = _choose(root, names, category)
    unused = [f"{name}/" for name in folders if name not in names]
    parts = [_read_category(root / name, name) for name in chosen]
    return Dataset(
        root=root,
        categories=tuple(chosen),
        train=tuple(sample for part in parts for sample in part.train),
        test=tuple(sample for part in parts for sample in part.test),
        layout="mvtec",
        notes=(*_note(root, unused + images + others), *(note for part in parts for note in part.notes)),
        ignored=len(images) + len(others) + sum(part.ignored for part in parts),
    )


def _open_category(root: Path, category: str | None) -> Dataset:
    (name,) = _choose(root, [_name(root)], category)
    return _read_category(root, name)


def _open_folder(root: Path, category: str | None) -> Dataset:
    folders, images, others = entries(root)
    if images:
        paths, ignored = [root / name for name in images], len(others)
        unused = [f"{name}/" for name in folders]
    else:
        _refuse_other_layouts(root, folders)
        (paths, ignored), unused = walk(root), []
    if not paths:
        extra = f" ({ignored} other files)" if ignored else ""
        raise UserError(f"{shown(root)}: no images{extra}; give a folder in MVTec layout or one of good images")
    (name,) = _choose(root, [_name(root)], category)
    train = tuple(Sample(path, name, "train", GOOD, 0, None) for path in paths)
    return Dataset(root, (name,), train, (), "folder", _note(root, unused), ignored)


def _refuse_other_layouts(root: Path, folders: list[str]):
    """Taking every sub-folder of these would quietly train on test pictures or on defects."""
    lower = {name.lower(): name for name in folders}
    split = next((lower[name] for name in ("train", "test") if name in lower), None)
    if split:
        raise UserError(
            f"{shown(root)}: has {split}/ but not MVTec's train/good and test/<defect>; "
            f"rename the folders, or give the one that holds the good images"
        )
    if GOOD in lower and len(folders) > 1:
        raise UserError(f"{shown(root)}: has {lower[GOOD]}/ beside other folders; give {shown(root / lower[GOOD])}")


def _read_category(folder: Path, name: str) -> Dataset:
    train, ignored, notes = [], 0, []
    folders, images, others = entries(folder)
    notes += _note(folder, [f"{n}/" for n in folders if n not in ("train", "test", "ground_truth")] + images + others)
    ignored += len(images) + len(others)
    good = folder / "train" / GOOD
    if good.is_dir():
        folders, images, others = entries(good)
        train = [Sample(good / image, name, "train", GOOD, 0, None) for image in images]
        ignored += len(others)
        notes += _note(good, [f"{n}/" for n in folders])
        beside = [f"{n}/" for n in entries(folder / "train")[0] if n != GOOD]
        notes += _note(folder / "train", beside)
    test = []
    if (folder / "test").is_dir():
        kinds, images, others = entries(folder / "test")
        ignored += len(images) + len(others)
        notes += _note(folder / "test", images)
        for kind in kinds:
            samples, passed, extra = _read_kind(folder, name, kind)
            test += samples
            ignored += passed
            notes += extra
    return Dataset(folder, (name,), tuple(train), tuple(test), "category", tuple(notes), ignored)


def _read_kind(folder: Path, name: str, kind: str) -> tuple[list[Sample], int, tuple[str, ...]]:
    here = folder / "test" / kind
    folders, images, others = entries(here)
    label = int(kind != GOOD)
    masks = mask_files(folder, kind) if label else {}
    samples = []
    for image in images:
        stem = os.path.splitext(image)[0]
        samples.append(Sample(here / image, name, "test", kind, label, masks.get(f"{stem}_mask") or masks.get(stem)))
    return samples, len(others), _note(here, [f"{n}/" for n in folders])


def mask_files(category_folder: Path, kind: str) -> dict[str, Path]:
    """The mask files of one kind of defect by stem."""
    folder = category_folder / "ground_truth" / kind
    found: dict[str, Path] = {}
    if folder.is_dir():
        for name in entries(folder)[1]:
            found.setdefault(os.path.splitext(name)[0], folder / name)
    return found


def _choose(root: Path, names: list[str], category: str | None) -> list[str]:
    if category is None:
        if len(names) > 1:
            raise UserError(f"{shown(root)} holds {len(names)} categories ({_few(names)}): say --category NAME or all")
        return names
    if category == "all":
        return names
    known = {unicodedata.normalize("NFC", name): name for name in names}
    wanted = unicodedata.normalize("NFC", category)
    asked = [wanted] if wanted in known else [part.strip() for part in wanted.split(",") if part.strip()]
    for part in asked or [""]:
        if part not in known:
            near = difflib.get_close_matches(part, known, n=3, cutoff=0.5)
            hint = f"nearest: {', '.join(near)}" if near else f"there are: {_few(names)}"
            raise UserError(f"--category {part!r}: not in {shown(root)}; {hint}")
    return [name for name in names if unicodedata.normalize("NFC", name) in asked]


def _require(dataset: Dataset, need_train: bool, need_test: bool):
    if need_test and dataset.layout == "folder":
        raise UserError(f"{shown(dataset.root)}: a plain folder of good images has no test/ folder to evaluate on")
    for needed, samples, where in ((need_train, dataset.train, "train/good"), (need_test, dataset.test, "test")):
        filled = {sample.category for sample in samples}
        for name in dataset.categories:
            if needed and name not in filled:
                raise UserError(f"{shown(dataset.folder(name) / where)}: no images there")
    if not dataset.train and not dataset.test:
        raise UserError(f"{shown(dataset.root)}: no images in train/good or test")


def _name(root: Path) -> str:
    return root.resolve().name or "root"


def _note(folder: Path, names: list[str]) -> tuple[str, ...]:
    names = [name for name in names if not name.startswith(".")]
    return (f"ignored in {shown(folder)}: {_few(names)}",) if names else ()


def _few(names, limit: int = 20) -> str:
    listed = ", ".join(shown(name) for name in list(names)[:limit])
    return listed if len(names) <= limit else f"{listed} and {len(names) - limit} more"
