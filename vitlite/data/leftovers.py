"""What lies in the folders of a data set and is not used."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitlite.data.index import Dataset, few, masks_among
from vitlite.data.listing import is_hidden, is_image_name, walk
from vitlite.files import shown


@dataclass
class Leftovers:
    """A line for each folder, the number of files, and the images that somebody may miss."""

    notes: list[str] = field(default_factory=list)
    ignored: int = 0
    left_out: list[tuple[Path, int]] = field(default_factory=list)  # as in Dataset
    masks_beside: list[tuple[Path, int]] = field(default_factory=list)  # as in Dataset
    stray_masks: list[tuple[Path, int]] = field(default_factory=list)  # as in Dataset
    seem_good: list[tuple[Path, int]] = field(default_factory=list)  # as in Dataset

    @property
    def facts(self) -> dict[str, Any]:
        """What a Dataset says of it, by field."""
        return {name: own if isinstance(own, int) else tuple(own) for name, own in vars(self).items()}

    def take(self, part: Dataset) -> None:
        """Add what one of several data sets says."""
        for name, own in vars(self).items():
            setattr(self, name, own + type(own)(getattr(part, name)))

    def add(self, folder: Path, names: Iterable[str], files: int = 0, missed: Iterable[str] = ()) -> None:
        """Note ``names``, except hidden ones, and count ``files``.

        ``missed`` are those among ``names`` whose images somebody may miss: images, and folders that end with a slash.
        """
        names = [name for name in names if not is_hidden(name)]
        if names:
            self.notes.append(f"ignored in {shown(folder)}: {few(names)}")
        self.ignored += files
        missed = list(missed)
        counts = [(folder, sum(is_image_name(name) for name in missed))]
        counts += [(folder / name, len(walk(folder / name)[0])) for name in missed if name.endswith("/")]
        self.left_out += [(place, count) for place, count in counts if count]

    def without_masks(self, folder: Path, images: list[str]) -> tuple[list[str], dict[str, Path]]:
        """The images of a folder without those that are masks by name, which are counted, and the masks by stem."""
        of, strays = masks_among(images)
        if of:
            self.masks_beside.append((folder, len(of)))
        if strays:
            self.stray_masks.append((folder, len(strays)))
        masks = {own: folder / name for name, own in reversed(of.items())}
        return [name for name in images if name not in of and name not in strays], masks


def slashed(folders: Iterable[str]) -> list[str]:
    """Names of folders as a note shows them."""
    return [f"{name}/" for name in folders]
