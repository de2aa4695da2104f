"""MNIST's idx files, plain or gzip, and those of data sets that took over its names; the classes are the digits.

``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, in
the folder itself or in raw/ or MNIST/raw/ below it.
"""

from pathlib import Path

from vitlite.data.layouts.oneclass import Classes, Item, OneClassLayout, beside, understood
from vitlite.data.listing import natural_key
from vitlite.errors import UserError
from vitlite.files import shown
from vitlite.images.archives import read_archive
from vitlite.images.idx import read_idx

_PLACES = ("", "raw", "MNIST/raw")
_SPLITS = {"train": "train", "test": "t10k"}
_CONTENTS = ("images", "labels")


class MNIST(OneClassLayout):
    name = "mnist"
    title = "MNIST's idx files, for one-class data"

    def matches(self, root: Path) -> bool:
        return _folder(root) is not None

    def classes(self, root: Path) -> Classes:
        folder = _folder(root)
        assert folder is not None
        train, test = (_read_split(folder, split) for split in _SPLITS)
        names = sorted({item.kind for item in [*train, *test]}, key=natural_key)
        used = {name for split in _SPLITS for content in _CONTENTS for name in _names(split, content)}
        return Classes(names, train, test, beside(folder, used))


LAYOUT = MNIST()


def _names(split: str, content: str) -> list[str]:
    """The names that a file may have; the dots are an old spelling."""
    stem, kind = f"{_SPLITS[split]}-{content}", "idx3-ubyte" if content == "images" else "idx1-ubyte"
    return [f"{stem}{joint}{kind}{end}" for joint in "-." for end in ("", ".gz")]


def _file(folder: Path, split: str, content: str) -> Path | None:
    return next((folder / name for name in _names(split, content) if (folder / name).is_file()), None)


def _folder(root: Path) -> Path | None:
    """The folder that holds any of the files."""
    kinds = [(split, content) for split in _SPLITS for content in _CONTENTS]
    folders = [root / place for place in _PLACES]
    return next((folder for folder in folders if any(_file(folder, *kind) for kind in kinds)), None)


def _read_split(folder: Path, split: str) -> list[Item]:
    image_file, label_file = (_file(folder, split, content) for content in _CONTENTS)
    if image_file is None and label_file is None:
        return []
    if image_file is None or label_file is None:
        name = _names(split, "images" if image_file is None else "labels")[1]
        raise UserError(f"{shown(folder / name)}: no such file, with or without .gz; the others need it beside them")
    images = understood(image_file, lambda file: read_archive(file)[0])
    labels = understood(label_file, read_idx)
    if labels.ndim != 1:
        raise UserError(f"{shown(label_file)}: holds images, not labels; download it again")
    if len(labels) != len(images):
        raise UserError(
            f"{shown(label_file)}: {len(labels)} labels for {len(images)} images; download both files again"
        )
    return [Item(image_file, i, str(label)) for i, label in enumerate(labels.tolist())]
