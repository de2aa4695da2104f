"""Finding out how a data set lies on disk, and its pictures. Each layout has a file of its own beside this one.

MVTec AD and MPDD: mvtec.py. MVTec AD 2: mvtec2.py. MVTec LOCO AD: loco.py. BTAD: btad.py. VisA: visa.py.
KolektorSDD2: ksdd2.py. MNIST, CIFAR-10 and folders of classes, one class normal: oneclass.py. A plain folder of good
pictures: folder.py.
"""

import contextlib
from pathlib import Path

from vitlite.data.index import GOOD, Dataset, Sample
from vitlite.data.layouts import categories, folder, ksdd2, oneclass, visa
from vitlite.data.layouts.btad import BTAD
from vitlite.data.layouts.loco import LOCO
from vitlite.data.layouts.mvtec import MVTEC
from vitlite.data.layouts.mvtec2 import MVTEC2
from vitlite.data.listing import entries, sub_folders
from vitlite.errors import UserError
from vitlite.files import shown

__all__ = ["FAMILIES", "GOOD", "TITLES", "Dataset", "Sample", "open_dataset", "survey"]

# The folders of LOCO and of MVTec AD 2 are MVTec's and more, so these are asked first.
FAMILIES = (LOCO, BTAD, MVTEC2, MVTEC)
TITLES = {
    "mvtec": "MVTec layout",
    "category": "one category in MVTec layout",
    "mvtec2": "MVTec AD 2 layout",
    "loco": "MVTec LOCO layout",
    "btad": "BTAD layout",
    "mixed": "categories in several layouts",
    "visa": "VisA layout",
    "ksdd2": "KolektorSDD2 layout",
    "mnist": "MNIST's idx files, for one-class data",
    "cifar10": "CIFAR-10's batches, for one-class data",
    "classes": "folders of classes, for one-class data",
    "folder": "plain folder of images",
}
_NOT_GOOD = folder.TESTS | folder.MASKS | folder.DEFECTS
_DEEPEST_PART = 4  # folders between a data set's root and its pictures, VisA's being the deepest


def open_dataset(root, category: str | None = None, *, need_train: bool = True, need_test: bool = False) -> Dataset:
    """Find the pictures of a data set, in whichever of the known layouts it is; docs/data.md shows them.

    Reads folders and tables, and of the pictures only what it must: KolektorSDD2's masks, which say what is good, and
    the files that MNIST and CIFAR-10 come in.

    ``category`` is a name, several with commas between, or ``all``; None is enough where there is only one. A folder
    that is itself a category is called by its name. With labelled classes it is the normal one, the others being its
    kinds of defects. Order is natural (2 before 10) and the same everywhere. What is passed over is named in
    ``notes``. Defective pictures without a mask file get ``mask=None``.

    Raises UserError in one line: no such folder, no picture, unknown category (with the nearest names), several
    categories and none chosen, a piece of the layout missing or damaged, an empty training split (``need_train``) or
    test split (``need_test``).
    """
    root = _folder(root)
    found = oneclass.find(root)
    dataset = oneclass.one_class(found, category) if found else _open(root, category)
    _require(dataset, need_train, need_test)
    return dataset


def survey(root, category: str | None = None) -> Dataset:
    """Everything in a folder, for a look at it: as ``open_dataset``, but all categories, or all classes, by default."""
    root = _folder(root)
    found = oneclass.find(root)
    if found and category is None:
        dataset = oneclass.all_classes(found)
    else:
        dataset = oneclass.one_class(found, category) if found else _open(root, category or "all")
    _require(dataset, need_train=False, need_test=False)
    return dataset


def _folder(root) -> Path:
    root = Path(root)
    if not root.exists():
        raise UserError(f"{shown(root)}: no such folder")
    if not root.is_dir():
        raise UserError(f"{shown(root)}: is a file; give the folder of the data set")
    return root


def _open(root: Path, category: str | None) -> Dataset:
    for layout in (visa, ksdd2):
        if layout.is_here(root):
            return layout.read(root, category)
    family = categories.family_of(root, FAMILIES)
    if family:
        return categories.read_only(root, category, family)
    if categories.has_categories(root, FAMILIES):
        return categories.read_root(root, category, FAMILIES)
    _refuse_data_sets_within(root)
    _refuse_parts(root)
    dataset = folder.read(root, category)
    _refuse_doubtful(root, [sample.path for sample in dataset.train])
    return dataset


def _refuse_data_sets_within(root: Path):
    """A plain folder takes all that is below it, which must not be some data set's defects."""
    folders, images, _ = entries(root)
    for name in folders if not images else ():
        inner = root / name
        if _is_data_set(inner) or categories.has_categories(inner, FAMILIES):
            raise UserError(f"{shown(root)}: has no images, but a data set in {shown(name)}/; give {shown(inner)}")


def _refuse_parts(root: Path):
    """Folders of a data set that hold something else than its good pictures."""
    whole = _data_set_around(root)
    if whole is None:
        return
    names = [part.lower() for part in root.resolve().relative_to(whole).parts]
    if oneclass.is_here(whole):
        wrong = names in (["train"], ["test"])  # all classes at once, whichever is normal
    else:
        wrong = names[-1] not in folder.GOOD_NAMES and not {*names}.isdisjoint(_NOT_GOOD)
    # Where good pictures lie beside others, the folder's own reading names those too.
    if wrong and not any(name.lower() in folder.GOOD_NAMES for name in sub_folders(root)):
        raise UserError(f"{shown(root)}: is part of a data set and not its good images; give {shown(whole)}")


def _refuse_doubtful(root: Path, paths: list[Path]):
    """Pictures that cannot all be good ones; the line says which folder to give instead, as far as that is known."""
    found = folder.doubt(root, paths)
    if found is None:
        return
    within, whole, mend = _data_set_within(root, found.place), _data_set_around(root), found.mend
    if within:
        raise UserError(
            f"{shown(root)}: has {shown(found.place)}/, part of a data set; give that data set, {shown(within)}"
        )
    if whole:
        alone = f", or {shown(root / found.good)} for good images alone" if found.good else ""
        mend = f"give {shown(whole)}, the data set that it is part of{alone}"
    raise UserError(f"{shown(root)}: {found.reason}; {mend}")


def _is_data_set(place: Path) -> bool:
    """Whether a folder is in any of the known layouts but that of a folder of categories."""
    known = any(layout.is_here(place) for layout in (oneclass, visa, ksdd2))
    return known or categories.family_of(place, FAMILIES) is not None


def _data_set_within(root: Path, place: Path) -> Path | None:
    """The outermost data set on the way from ``root`` down to ``place``; None where there is none."""
    ways = [root.joinpath(*place.parts[:depth]) for depth in range(1, len(place.parts) + 1)]
    return next((way for way in ways if _is_data_set(way) or categories.has_categories(way, FAMILIES)), None)


def _data_set_around(root: Path) -> Path | None:
    """The data set that a folder is a part of, such as ``candle/Data/Images/Anomaly`` of VisA; None for others."""
    for parent in list(root.resolve().parents)[:_DEEPEST_PART]:
        with contextlib.suppress(UserError):  # a folder that may not be listed
            if _is_data_set(parent):
                return parent
    return None


def _require(dataset: Dataset, need_train: bool, need_test: bool):
    if need_test and dataset.layout == "folder":
        raise UserError(f"{shown(dataset.root)}: a plain folder of good images has no test/ folder to evaluate on")
    for split, needed, samples in (("train", need_train, dataset.train), ("test", need_test, dataset.test)):
        filled = {sample.category for sample in samples}
        for name in dataset.categories:
            if needed and name not in filled:
                raise UserError(_empty(dataset, name, split))
    if not (dataset.train or dataset.test):
        raise UserError(f"{shown(dataset.root)}: no images for training or testing ({TITLES[dataset.layout]})")


def _empty(dataset: Dataset, name: str, split: str) -> str:
    """What to say where a split has no pictures of a category."""
    if dataset.layout == "visa":
        return f"{shown(dataset.root / visa.SPLIT)}: lists no pictures of {shown(name)} to {split} on"
    if dataset.layout in ("mnist", "cifar10", "classes"):
        where = {"train": f"no training images of class {shown(name)}", "test": "no test images"}[split]
        return f"{shown(dataset.root)}: {where} ({TITLES[dataset.layout]})"
    if dataset.layout == "ksdd2":
        return f"{shown(dataset.root / split)}: no {'good ' * (split == 'train')}images there"
    folder_of = dataset.folder(name)
    family = categories.family_of(folder_of, FAMILIES)
    good, test = (family.good, family.test) if family else (GOOD, "test")
    return f"{shown(folder_of / 'train' / good if split == 'train' else folder_of / test)}: no images there"
