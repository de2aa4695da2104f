"""Folders of classes, ``train/<class>/`` and ``test/<class>/``, with image files in them."""

from pathlib import Path

from vitlite.data.index import GOOD
from vitlite.data.layouts.oneclass import Classes, Item, OneClassLayout
from vitlite.data.leftovers import Leftovers, slashed
from vitlite.data.listing import entries, natural_key, sub_folders
from vitlite.errors import UserError
from vitlite.files import shown


class FoldersOfClasses(OneClassLayout):
    name = "classes"
    title = "folders of classes, for one-class data"

    def matches(self, root: Path) -> bool:
        """A single folder in train/ might also be a mistake in MVTec's names, so there must be several."""
        train, test = root / "train", root / "test"
        if not (train.is_dir() and test.is_dir()) or (root / "ground_truth").is_dir():
            return False
        trained, tested = sub_folders(train), sub_folders(test)
        return len(trained) > 1 and bool(tested) and not {GOOD, "ok", "ko"} & {*trained, *tested}

    def classes(self, root: Path) -> Classes:
        left = Leftovers()
        folders, images, others = entries(root)
        unused = [*slashed(n for n in folders if n not in ("train", "test")), *images]
        left.add(root, [*unused, *others], len(images) + len(others), unused)
        train, test = (_read_split(root / split, left) for split in ("train", "test"))
        names = sorted({item.kind for item in [*train, *test]}, key=natural_key)
        if not names:
            raise UserError(f"{shown(root)}: no images in the folders of train/ and test/")
        return Classes(names, train, test, left)


LAYOUT = FoldersOfClasses()


def _read_split(folder: Path, left: Leftovers) -> list[Item]:
    kinds, images, others = entries(folder)
    left.add(folder, images, len(images) + len(others), images)
    items = []
    for kind in kinds:
        inner, images, others = entries(folder / kind)
        left.add(folder / kind, slashed(inner), len(others), slashed(inner))
        items += [Item(folder / kind / image, None, kind) for image in images]
    return items
