"""Opening a data set in whichever layout it has. Each layout is a file beside this one and a line of ``LAYOUTS``."""

import importlib
import logging
from dataclasses import replace
from pathlib import Path

from vitlite.data.index import Dataset
from vitlite.data.layouts.base import Layout
from vitlite.data.layouts.categories import FolderOfCategories
from vitlite.data.layouts.folder import PlainFolder
from vitlite.data.listing import not_read
from vitlite.errors import UserError
from vitlite.files import shown

__all__ = ["LAYOUTS", "PLAIN", "Layout", "layout_of", "open_dataset", "survey"]

log = logging.getLogger(__name__)

# Asked in this order. The folders of LOCO and of MVTec AD 2 are MVTec's and more, so these come before it.
LAYOUTS: tuple[Layout, ...] = tuple(
    importlib.import_module(module).LAYOUT
    for module in (
        "vitlite.data.layouts.mnist",
        "vitlite.data.layouts.cifar10",
        "vitlite.data.layouts.classes",
        "vitlite.data.layouts.visa",
        "vitlite.data.layouts.ksdd2",
        "vitlite.data.layouts.loco",
        "vitlite.data.layouts.btad",
        "vitlite.data.layouts.mvtec2",
        "vitlite.data.layouts.mvtec",
    )
)
_CATEGORIES = FolderOfCategories(LAYOUTS)
_PLAIN = PlainFolder(LAYOUTS, _CATEGORIES)
PLAIN = _PLAIN.name  # of the layout of what is in none of the others


def layout_of(root: Path) -> Layout:
    """The layout of a folder; a plain folder of images if it has no other."""
    return next(layout for layout in (*LAYOUTS, _CATEGORIES, _PLAIN) if layout.matches(root))


def open_dataset(
    root: str | Path, category: str | None = None, *, need_train: bool = True, need_test: bool = False
) -> Dataset:
    """Find the images of a data set, in whichever of the known layouts it is; docs/data.md shows them.

    Reads folders and tables. It opens image files only for KolektorSDD2, whose masks say which images are good, and for
    MNIST and CIFAR-10, whose images lie in few files.

    Args:
        root: the folder of the data set, or of one of its categories, which is then called by the folder's name.
        category: a name, several with commas between, or ``all``. None is enough if there is only one. In a data set of
            labelled classes it is the class that is normal; the others are its kinds of defects.
        need_train: refuse a category without training images.
        need_test: refuse a category without test images.

    Returns:
        A :class:`~vitlite.data.index.Dataset`. Its order is natural (2 before 10) and the same everywhere. ``notes``
        names what is not used; a warning is logged about images that are left out. Defective images without a mask
        file have ``mask=None``.

    Raises:
        UserError: no such folder, no image, unknown category (with the nearest names), several categories and none
            chosen, a piece of the layout missing or damaged, an empty split that is needed.
    """
    root = _folder(root)
    layout = layout_of(root)
    return _checked(layout, root, layout.read(root, category), need_train, need_test)


def _checked(layout: Layout, root: Path, dataset: Dataset, need_train: bool, need_test: bool) -> Dataset:
    """What was read, after its warnings; ``UserError`` if a split that is needed is empty."""
    dataset = _with_not_read(dataset)
    for line in dataset.warnings:
        log.warning("%s: %s", shown(root), line)
    for split, needed, samples in (("train", need_train, dataset.train), ("test", need_test, dataset.test)):
        filled = {sample.category for sample in samples}
        for name in dataset.categories if needed else ():
            if name not in filled:
                raise UserError(layout.hint(dataset, name, split))
    return _filled(dataset)


def categories_apart(root: str | Path, category: str | None = None) -> tuple[str, ...]:
    """The names of the categories that ``category`` names, of which each is to be opened and trained on by itself.

    As ``open_dataset`` chooses them, but labelled classes may be several, or ``all``, too. ``UserError`` as there, and
    if one of them has no training images or no test images.
    """
    root = _folder(root)
    layout = layout_of(root)
    return tuple(
        name
        for dataset in layout.apart(root, category)
        for name in _checked(layout, root, dataset, need_train=True, need_test=True).categories
    )


def survey(root: str | Path, category: str | None = None) -> Dataset:
    """Like ``open_dataset``, but None stands for all categories or all classes, and any split may be empty."""
    root = _folder(root)
    layout = layout_of(root)
    dataset = _with_not_read(layout.survey(root, category))
    return _filled(dataset, layout.hint(dataset, dataset.categories[0], "train") if dataset.categories else "")


def _with_not_read(dataset: Dataset) -> Dataset:
    return replace(dataset, not_read=not_read({dataset.folder(name) for name in dataset.categories}))


def _folder(root: str | Path) -> Path:
    root = Path(root)
    if not root.exists():
        raise UserError(f"{shown(root)}: no such folder")
    if not root.is_dir():
        raise UserError(f"{shown(root)}: is a file; give the folder of the data set")
    return root


def _filled(dataset: Dataset, hint: str = "") -> Dataset:
    if not (dataset.train or dataset.test):
        more = f": {hint}" if hint else ""
        raise UserError(f"{shown(dataset.root)}: no images for training or testing ({dataset.title}){more}")
    return dataset
