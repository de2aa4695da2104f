"""Labelled pictures of several classes as one-class data: one class is normal, and every other one is a defect.

The normal class's training pictures are the training set; all test pictures are the test set, each of the other
classes being a kind of defect called after the class. There are no masks. This is the protocol of the papers on
MNIST and CIFAR-10. Three kinds of sources, each as its owners distribute it:

- MNIST's idx files (and those of data sets that took over its names), plain or gzip; classes are the digits.
- CIFAR-10's batches for Python; classes are called as in batches.meta.
- Folders of classes, ``train/<class>/`` and ``test/<class>/``, with picture files in them.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vitlite.data.index import GOOD, Dataset, Sample, few, name_of, note
from vitlite.data.index import choose as choose_names
from vitlite.data.listing import entries, natural_key, sub_folders
from vitlite.errors import UserError
from vitlite.files import shown
from vitlite.images.archives import ArchiveError, entry, read_archive
from vitlite.images.batches import read_class_names
from vitlite.images.idx import read_idx

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_IDX_PLACES = ("", "raw", "MNIST/raw")
_CIFAR_PLACES = ("", "cifar-10-batches-py")
_OTHER_PLACES = ("", "cifar-10-batches-bin", "cifar-10-batches-mat")
_OTHER_VERSIONS = {"bin": "binary", "mat": "Matlab"}
_IDX_SPLITS = {"train": "train", "test": "t10k"}


class Item(NamedTuple):
    """A labelled picture: a file, or one of many in a file."""

    file: Path
    number: int | None  # in the file
    kind: str

    @property
    def path(self) -> Path:
        # Made on demand: 60,000 of them take a noticeable time, and training uses one class of ten.
        return self.file if self.number is None else entry(self.file, self.number)


@dataclass(frozen=True)
class Classes:
    """Labelled pictures in the order of the files."""

    root: Path
    layout: str
    names: tuple[str, ...]
    train: list[Item]
    test: list[Item]
    notes: tuple[str, ...] = ()
    ignored: int = 0


def find(root: Path) -> Classes | None:
    """The labelled pictures of a folder; None where it holds none of the three kinds."""
    source = next((read for is_here, read in _SOURCES if is_here(root)), None)
    if source is None:
        _refuse_other_cifar(root)
    return source(root) if source else None


def is_here(root: Path) -> bool:
    """Whether a folder holds any of the three kinds."""
    return any(is_here(root) for is_here, _ in _SOURCES)


def one_class(found: Classes, category: str | None) -> Dataset:
    """The one-class data set whose normal class is ``category``."""
    if category is None:
        raise UserError(
            f"{shown(found.root)} holds {len(found.names)} classes ({few(found.names)}): "
            f"say --category NAME, the one that is normal"
        )
    chosen = choose_names(found.root, list(found.names), category)
    if len(chosen) > 1:
        raise UserError(
            f"--category {category}: one class of {shown(found.root)} is normal and the others are its defects; "
            f"choose one of {few(found.names)}"
        )
    (name,) = chosen
    train = tuple(Sample(item.path, name, "train", GOOD, 0, None) for item in found.train if item.kind == name)
    test = tuple(
        Sample(item.path, name, "test", GOOD if item.kind == name else item.kind, int(item.kind != name), None)
        for item in found.test
    )
    return Dataset(found.root, (name,), train, test, found.layout, found.notes, found.ignored)


def all_classes(found: Classes) -> Dataset:
    """Everything at once, for a look at what is there: every class is a kind, none is normal or a defect."""
    name = name_of(found.root)
    splits = [
        tuple(Sample(item.path, name, split, item.kind, 0, None) for item in sorted(items, key=_by_class))
        for split, items in (("train", found.train), ("test", found.test))
    ]
    return Dataset(found.root, (name,), *splits, found.layout, found.notes, found.ignored)


def _by_class(item):
    return natural_key(item.kind)


# MNIST


def _idx_names(split: str, what: str) -> list[str]:
    """The names that a file may have; the dots are an old spelling."""
    stem, kind = f"{_IDX_SPLITS[split]}-{what}", "idx3-ubyte" if what == "images" else "idx1-ubyte"
    return [f"{stem}{joint}{kind}{end}" for joint in "-." for end in ("", ".gz")]


def _idx_file(folder: Path, split: str, what: str) -> Path | None:
    return next((folder / name for name in _idx_names(split, what) if (folder / name).is_file()), None)


def _idx_folder(root: Path) -> Path | None:
    kinds = [(split, what) for split in _IDX_SPLITS for what in ("images", "labels")]
    folders = [root / place for place in _IDX_PLACES]
    return next((folder for folder in folders if any(_idx_file(folder, *kind) for kind in kinds)), None)


def _read_mnist(root: Path) -> Classes:
    folder = _idx_folder(root)
    splits = {split: _read_idx_split(folder, split) for split in _IDX_SPLITS}
    names = sorted({item.kind for items in splits.values() for item in items}, key=natural_key)
    used = {name for split in _IDX_SPLITS for what in ("images", "labels") for name in _idx_names(split, what)}
    return _classes(root, folder, "mnist", names, splits, used)


def _read_idx_split(folder: Path, split: str) -> list[Item]:
    files = {what: _idx_file(folder, split, what) for what in ("images", "labels")}
    if not any(files.values()):
        return []
    for what, file in files.items():
        if file is None:
            name = _idx_names(split, what)[1]
            raise UserError(
                f"{shown(folder / name)}: no such file, with or without .gz; the others need it beside them"
            )
    pictures = _understood(files["images"], lambda file: read_archive(file)[0])
    labels = _understood(files["labels"], read_idx)
    if labels.ndim != 1:
        raise UserError(f"{shown(files['labels'])}: holds pictures, not labels; get it anew")
    if len(labels) != len(pictures):
        raise UserError(
            f"{shown(files['labels'])}: {len(labels)} labels for {len(pictures)} pictures; get both files anew"
        )
    return [Item(files["images"], i, str(label)) for i, label in enumerate(labels.tolist())]


# CIFAR-10


def _cifar_folder(root: Path) -> Path | None:
    folders = [root / place for place in _CIFAR_PLACES]
    return next((folder for folder in folders if any((folder / n).is_file() for n in (*BATCHES, "test_batch"))), None)


def _refuse_other_cifar(root: Path):
    """CIFAR-10 comes in three versions, and the wrong one is easily fetched."""
    for place, version in itertools.product(_OTHER_PLACES, _OTHER_VERSIONS):
        for batch in (*BATCHES, "test_batch"):
            file = root / place / f"{batch}.{version}"
            if file.is_file():
                raise UserError(
                    f"{shown(file)}: is of CIFAR-10's {_OTHER_VERSIONS[version]} version; "
                    f"get the Python version, cifar-10-python.tar.gz"
                )


def _read_cifar(root: Path) -> Classes:
    folder = _cifar_folder(root)
    present = [name for name in BATCHES if (folder / name).is_file()]
    missing = [name for name in BATCHES if name not in present]
    if present and missing:
        raise UserError(
            f"{shown(folder / missing[0])}: no such file, one of the five that training takes; get it again"
        )
    meta = folder / "batches.meta"
    names = tuple(_understood(meta, read_class_names)) if meta.is_file() else CIFAR10
    if len(set(names)) < len(names):
        raise UserError(f"{shown(meta)}: names two classes alike; get it again")
    train = [item for name in present for item in _read_batch(folder / name, names)]
    test = _read_batch(folder / "test_batch", names) if (folder / "test_batch").is_file() else []
    used = {*BATCHES, "test_batch", "batches.meta", "readme.html"}
    return _classes(root, folder, "cifar10", names, {"train": train, "test": test}, used)


def _read_batch(file: Path, names: tuple[str, ...]) -> list[Item]:
    _, labels = _understood(file, read_archive)
    if labels is None:
        raise UserError(f"{shown(file)}: is an idx file, not a CIFAR-10 batch; get it anew")
    if labels.max() >= len(names):
        raise UserError(f"{shown(file)}: has label {labels.max()}, but there are {len(names)} classes, from 0")
    return [Item(file, i, names[label]) for i, label in enumerate(labels.tolist())]


# Folders


def _has_class_folders(root: Path) -> bool:
    """With a single folder in train/ there is no telling a class from a mistake in MVTec's names."""
    train, test = root / "train", root / "test"
    if not (train.is_dir() and test.is_dir()) or (root / "ground_truth").is_dir():
        return False
    trained, tested = sub_folders(train), sub_folders(test)
    return len(trained) > 1 and bool(tested) and not {GOOD, "ok", "ko"} & {*trained, *tested}


def _read_folders(root: Path) -> Classes:
    folders, images, others = entries(root)
    notes = list(note(root, [f"{n}/" for n in folders if n not in ("train", "test")] + images + others))
    ignored, splits = len(images) + len(others), {}
    for split in ("train", "test"):
        kinds, images, others = entries(root / split)
        notes += note(root / split, images)
        ignored += len(images) + len(others)
        splits[split] = []
        for kind in kinds:
            inner, images, others = entries(root / split / kind)
            notes += note(root / split / kind, [f"{n}/" for n in inner])
            ignored += len(others)
            splits[split] += [Item(root / split / kind / image, None, kind) for image in images]
    names = tuple(sorted({item.kind for item in splits["train"] + splits["test"]}, key=natural_key))
    if not names:
        raise UserError(f"{shown(root)}: no images in the folders of train/ and test/")
    return Classes(root, "classes", names, splits["train"], splits["test"], tuple(notes), ignored)


def _classes(root, folder, layout, names, splits, used) -> Classes:
    folders, images, others = entries(folder)
    beside = [f"{n}/" for n in folders] + images + [name for name in others if name not in used]
    ignored = len(images) + sum(name not in used for name in others)
    return Classes(root, layout, tuple(names), splits["train"], splits["test"], note(folder, beside), ignored)


def _understood(file: Path, read):
    """What a reader makes of a file; what it cannot use becomes a UserError with the file's name."""
    try:
        return read(file)
    except ArchiveError as error:
        raise UserError(f"{shown(file)}: {error}") from error
    except MemoryError as error:
        raise UserError(f"{shown(file)}: does not fit into memory") from error


_SOURCES = (
    (lambda root: _idx_folder(root) is not None, _read_mnist),
    (lambda root: _cifar_folder(root) is not None, _read_cifar),
    (_has_class_folders, _read_folders),
)
