"""Images that a person marked as good, in a folder that `vitlite calibrate RUN --good` takes."""

import hashlib
import re
from pathlib import Path

from vitlite.errors import UserError
from vitlite.files import atomic, make_folder, remove
from vitlite.serve.settings import folder_of

MOST = 10_000  # files that a server adds to: more would fill the disk of whoever left it open
_NAME = re.compile(r"[0-9a-f]{64}")


class Marked:
    """The folder, with one file for each different image, named by what it holds: no name comes from outside.

    The good images of a category lie in a folder of its name.
    """

    def __init__(self, folder: Path, categories: list[str]) -> None:
        self.folder = folder
        self.folders = [folder_of(folder, category) for category in (None, *categories)]

    def count(self) -> int:
        """How many images are marked."""
        return sum(_NAME.fullmatch(path.stem) is not None for folder in self.folders for path in folder.glob("*.*"))

    def add(self, body: bytes, ending: str, category: str | None) -> str:
        """Keep an image; its name. ``UserError`` if there are too many, or the folder cannot be written."""
        name = hashlib.sha256(body).hexdigest()
        if not self._files(name):
            if self.count() >= MOST:
                raise UserError(f"{self.folder}: holds {MOST} images; calibrate with them, then empty it")
            folder = make_folder(folder_of(self.folder, category))
            with atomic(folder / (name + ending), "wb") as file:
                file.write(body)
        return name

    def remove(self, name: str) -> bool:
        """Take back a mark; whether there was one. ``UserError`` if the file cannot be removed."""
        files = self._files(name)
        for path in files:
            remove(path)
        return bool(files)

    def _files(self, name: str) -> list[Path]:
        if not _NAME.fullmatch(name):
            return []
        return [path for folder in self.folders for path in folder.glob(f"{name}.*")]
