"""What a layout of data sets is: how it is recognised, how it is read, and what to say if a split is empty."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

from vitlite.data.index import Dataset
from vitlite.files import shown
from vitlite.images.masks import MaskFiles


class Layout(ABC):
    """One way in which data sets lie on disk. A file of this folder defines one, and calls an object of it ``LAYOUT``.

    ``open_dataset`` asks the layouts of ``vitlite.data.layouts.LAYOUTS`` in their order, and the first one that matches
    reads the data set.
    """

    name: str  # Dataset.layout
    title: str  # in words, for messages and reports; Dataset.title

    @abstractmethod
    def matches(self, root: Path) -> bool:
        """Whether the folder ``root`` is a data set in this layout. Looks at names only, because it is asked often."""

    @abstractmethod
    def read(self, root: Path, category: str | None) -> Dataset:
        """The data set in ``root``, whose folder ``matches``.

        ``category`` is what the user asked for; ``vitlite.data.index.choose`` turns it into names. Raises UserError if
        a piece of the layout is missing or damaged.
        """

    def survey(self, root: Path, category: str | None) -> Dataset:
        """Like ``read``, but None stands for everything that is there."""
        return self.read(root, category or "all")

    def apart(self, root: Path, category: str | None) -> Iterable[Dataset]:
        """Data sets that hold what ``category`` names, if each of these categories is to have a model of its own."""
        return [self.read(root, category)]

    def hint(self, dataset: Dataset, category: str, split: str) -> str:
        """The line that tells the user which folder or file holds no images of ``category`` for ``split``.

        ``split`` is "train" or "test".
        """
        return f"{shown(dataset.folder(category) / split)}: no images there"

    def spare_masks(self, dataset: Dataset) -> Iterable[tuple[Path | MaskFiles, bool]]:
        """The masks that no defective image claims, and whether each of them belongs to a good image."""
        return ()
