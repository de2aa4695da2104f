"""Labelled images of several classes as one-class data: one class is normal, and every other one is a defect.

The normal class's training images are the training set. All test images are the test set, and each of the other
classes is a kind of defect with the class's name. There are no masks. This is the protocol of the papers on MNIST and
CIFAR-10.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from vitlite.data.index import GOOD, Dataset, Sample, choose, few, name_of
from vitlite.data.layouts.base import Layout
from vitlite.data.leftovers import Leftovers, slashed
from vitlite.data.listing import entries, natural_key
from vitlite.errors import UserError
from vitlite.files import shown
from vitlite.images.archives import entry
from vitlite.images.unusable import Unusable

T = TypeVar("T")


class Item(NamedTuple):
    """A labelled image: a file, or one of many in a file."""

    file: Path
    number: int | None  # in the file
    kind: str

    @property
    def path(self) -> Path:
        # Made on demand: 60,000 of them take a noticeable time, and training uses one class of ten.
        return self.file if self.number is None else entry(self.file, self.number)


@dataclass(frozen=True)
class Classes:
    """Labelled images in the order of the files."""

    names: Sequence[str]
    train: list[Item]
    test: list[Item]
    left: Leftovers


class OneClassLayout(Layout):
    """A layout of labelled images: ``classes`` reads them, and the user names the normal one."""

    @abstractmethod
    def classes(self, root: Path) -> Classes:
        """The labelled images in ``root``."""

    def read(self, root: Path, category: str | None) -> Dataset:
        """The one-class data set whose normal class is ``category``."""
        found = self.classes(root)
        if category is None:
            raise UserError(
                f"{shown(root)} holds {len(found.names)} classes ({few(found.names)}): "
                f"name the normal one with `category=NAME`"
            )
        chosen = choose(root, found.names, category)
        if len(chosen) > 1:
            raise UserError(
                f"`category={category}`: one class of {shown(root)} is normal and the others are its defects; "
                f"choose one of {few(found.names)}, or train one model for each with `separate`"
            )
        return self._of_class(root, chosen[0], found)

    def _of_class(self, root: Path, name: str, found: Classes) -> Dataset:
        """The data set whose normal class is ``name``."""
        train = [Sample(item.path, name, "train", GOOD, 0, None) for item in found.train if item.kind == name]
        test = [
            Sample(item.path, name, "test", GOOD if item.kind == name else item.kind, int(item.kind != name), None)
            for item in found.test
        ]
        return self._dataset(root, name, train, test, found)

    def apart(self, root: Path, category: str | None) -> Iterable[Dataset]:
        """One for each class that ``category`` names, ``all`` or several with commas too, as the normal one."""
        found = self.classes(root)
        return (self._of_class(root, name, found) for name in choose(root, found.names, category or "all"))

    def survey(self, root: Path, category: str | None) -> Dataset:
        """For None all classes at once, for a look at them: every class is a kind, none is normal or a defect."""
        if category is not None:
            return self.read(root, category)
        found, name = self.classes(root), name_of(root)
        train, test = (
            [Sample(own.path, name, split, own.kind, 0, None) for own in sorted(items, key=_by_class)]
            for split, items in (("train", found.train), ("test", found.test))
        )
        return self._dataset(root, name, train, test, found)

    def _dataset(self, root: Path, name: str, train: list[Sample], test: list[Sample], found: Classes) -> Dataset:
        return Dataset(root, (name,), tuple(train), tuple(test), self.name, self.title, **found.left.facts)

    def hint(self, dataset: Dataset, category: str, split: str) -> str:
        missing = f"no training images of class {shown(category)}" if split == "train" else "no test images"
        return f"{shown(dataset.root)}: {missing} ({self.title})"


def _by_class(item: Item) -> tuple:
    return natural_key(item.kind)


def beside(folder: Path, used: set[str]) -> Leftovers:
    """What lies in a folder besides the files that were read."""
    left = Leftovers()
    folders, images, others = entries(folder)
    others = [name for name in others if name not in used]
    left.add(folder, [*slashed(folders), *images, *others], len(images) + len(others))
    return left


def understood(file: Path, read: Callable[[Path], T]) -> T:
    """What a reader makes of a file; what it cannot use becomes a UserError with the file's name."""
    try:
        return read(file)
    except Unusable as error:
        raise UserError(f"{shown(file)}: {error}") from error
    except MemoryError as error:
        raise UserError(f"{shown(file)}: does not fit into memory") from error
