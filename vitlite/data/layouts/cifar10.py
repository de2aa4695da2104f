"""CIFAR-10's batches for Python (Krizhevsky, 2009); the classes have the names in batches.meta.

``data_batch_1`` to ``data_batch_5``, ``test_batch`` and ``batches.meta``, in the folder itself or in
cifar-10-batches-py/ below it.
"""

import itertools
from pathlib import Path

from vitlite.data.layouts.oneclass import Classes, Item, OneClassLayout, beside, understood
from vitlite.errors import UserError
from vitlite.files import shown
from vitlite.images.archives import read_archive
from vitlite.images.batches import read_class_names

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = "test_batch"
_PLACES = ("", "cifar-10-batches-py")
_OTHER_PLACES = ("", "cifar-10-batches-bin", "cifar-10-batches-mat")
_OTHER_VERSIONS = {"bin": "binary", "mat": "Matlab"}


class CIFAR10(OneClassLayout):
    name = "cifar10"
    title = "CIFAR-10's batches, for one-class data"

    def matches(self, root: Path) -> bool:
        """True also for the binary and the Matlab version, so that they can be refused by name."""
        return _folder(root) is not None or _other_version(root) is not None

    def classes(self, root: Path) -> Classes:
        folder = _folder(root)
        if folder is None:
            file = _other_version(root)
            assert file is not None
            raise UserError(
                f"{shown(file)}: is of CIFAR-10's {_OTHER_VERSIONS[file.suffix[1:]]} version; "
                f"get the Python version, cifar-10-python.tar.gz"
            )
        present = [name for name in _TRAIN if (folder / name).is_file()]
        missing = [name for name in _TRAIN if name not in present]
        if present and missing:
            raise UserError(
                f"{shown(folder / missing[0])}: no such file, one of the five that hold the training images; "
                f"download it again"
            )
        meta = folder / "batches.meta"
        names = understood(meta, read_class_names) if meta.is_file() else NAMES
        if len(set(names)) < len(names):
            raise UserError(f"{shown(meta)}: names two classes alike; download it again")
        train = [item for name in present for item in _read(folder / name, names)]
        test = _read(folder / _TEST, names) if (folder / _TEST).is_file() else []
        return Classes(names, train, test, beside(folder, {*_TRAIN, _TEST, "batches.meta", "readme.html"}))


LAYOUT = CIFAR10()


def _folder(root: Path) -> Path | None:
    """The folder that holds any of the batches."""
    folders = [root / place for place in _PLACES]
    return next((folder for folder in folders if any((folder / n).is_file() for n in (*_TRAIN, _TEST))), None)


def _other_version(root: Path) -> Path | None:
    """A batch of a version that is not read: CIFAR-10 comes in three, and the wrong one is easily downloaded."""
    places = itertools.product(_OTHER_PLACES, (*_TRAIN, _TEST), _OTHER_VERSIONS)
    files = (root / place / f"{batch}.{version}" for place, batch, version in places)
    return next((file for file in files if file.is_file()), None)


def _read(file: Path, names: tuple[str, ...] | list[str]) -> list[Item]:
    _, labels = understood(file, read_archive)
    if labels is None:
        raise UserError(f"{shown(file)}: is an idx file, not a CIFAR-10 batch; download it again")
    if labels.max() >= len(names):
        raise UserError(f"{shown(file)}: has label {labels.max()}, but there are {len(names)} classes, from 0")
    return [Item(file, i, names[label]) for i, label in enumerate(labels.tolist())]
