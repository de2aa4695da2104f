"""Images that keep coming: files that appear in a folder, or names on a stream."""

import contextlib
import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from vitlite.data.listing import is_hidden, is_image_name, is_not_read, natural_key
from vitlite.data.photographs import files_apart, folders_apart
from vitlite.errors import UserError
from vitlite.files import StrPath, shown

log = logging.getLogger(__name__)

SETTLE = 1.0  # seconds without a change after which a file is complete
PATIENCE = 10.0  # seconds for which a file that cannot be read may still be growing
PAUSE, SHORTEST = 0.25, 0.02  # seconds between two looks into the folder: at most, and at least
READ_AT_ONCE = 1 << 16  # bytes of names


class Coming(ABC):
    """Images that come one after another."""

    @abstractmethod
    def batches(self, done: Collection[str]) -> Iterator[list[Path]]:
        """Yield what has come, without the images that are named in ``done``."""

    def unreadable(self, path: Path) -> bool:
        """Whether a file that could not be read gets no row, because it is tried again or has gone."""
        return False

    def name(self, path: Path) -> str:
        """What rows call an image."""
        return str(path)


class Seen(NamedTuple):
    """A file that waits in the folder: what it was when it was seen, since when, and whether it could not be read."""

    identity: tuple[int, ...]
    since: float
    unreadable: bool = False


class NewFiles(Coming):
    """The images that are in a folder, or below it, and those that come into it, for ever.

    A file is complete if it has not changed for ``settle`` seconds. One that cannot be read may still be growing: it
    waits until it has not changed for ``PATIENCE``. A file that moves within the folder is the same file; one that
    gets other contents is new. Files that go away before their turn are passed over. Links to folders are not
    followed; names that are hidden or have no image's extension are left out, so a camera can write another name first
    and rename. So is what is no photograph by its name beside others, and what is below ``out``. ``settle=0`` takes
    files at once, for those that are renamed into the folder. ``UserError`` if there is no such folder at the start;
    later it may come and go.
    """

    def __init__(self, folder: StrPath, out: StrPath | None = None, *, settle: float = SETTLE) -> None:
        if not os.path.isdir(folder):
            raise UserError(f"`watch={shown(folder)}`: is no folder; make it first")
        if out is not None and Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(out)):
            raise UserError(f"`out={shown(out)}`: holds the images of `watch={shown(folder)}`; choose another folder")
        if not settle >= 0:
            raise UserError(f"`settle={settle}`: must be a number of seconds from 0")
        self.folder, self.settle = Path(folder), settle
        self.out = None if out is None else os.path.realpath(out)
        self._waiting: dict[str, Seen] = {}
        self._done: set[tuple[int, ...]] = set()  # identities
        self._unseen = False  # whether the folder could not be read
        self._told: set[str] = set()  # why something is left out that was named
        self._whole = True  # whether the last look saw all that is there

    def batches(self, done: Collection[str]) -> Iterator[list[Path]]:
        """Yield those that are complete, oldest first; at the first look files that are named in ``done`` are not new.

        The list is empty if there is none: whoever iterates decides whether to go on.
        """
        found = self._look()
        self._done |= {identity for file, identity in found.items() if shown(file) in done}
        while True:
            ready = self._ready(found)
            yield [Path(file) for file in ready]
            began = time.monotonic()
            found = self._look()
            # A folder that takes long to read is not read all the time.
            if not ready:
                time.sleep(max(min(PAUSE, self.settle / 2), time.monotonic() - began, SHORTEST))

    def unreadable(self, path: Path) -> bool:
        """True if the file may still be growing and is tried again, or has gone."""
        seen = self._waiting.get(str(path))
        if not os.path.lexists(path):
            log.info("gone before it was scored: %s", shown(path))
            return True
        if seen is None or time.monotonic() - seen.since >= PATIENCE:
            return False
        self._done.discard(seen.identity)
        self._waiting[str(path)] = seen._replace(unreadable=True)
        return True

    def _ready(self, found: dict[str, tuple[int, ...]]) -> list[str]:
        now = time.monotonic()
        if self._whole:  # otherwise what is not found may come back, and is not new then
            self._done &= set(found.values())
        self._waiting = {
            file: seen if (seen := self._waiting.get(file)) and seen.identity == identity else Seen(identity, now)
            for file, identity in found.items()
            if identity not in self._done
        }
        ready = [
            file
            for file, seen in self._waiting.items()
            if now - seen.since >= (PATIENCE if seen.unreadable else self.settle)
        ]
        self._done |= {self._waiting[file].identity for file in ready}
        return sorted(ready, key=lambda file: (self._waiting[file].identity[-1], natural_key(file)))

    def _look(self) -> dict[str, tuple[int, ...]]:
        """What is in the folder now: files and what tells one from another, its time of change at the end."""
        found: dict[str, tuple[int, ...]] = {}
        self._whole = True
        for parent, folders, names in os.walk(self.folder, onerror=self._cannot_read):
            if self.out is not None:
                folders[:] = [name for name in folders if os.path.realpath(os.path.join(parent, name)) != self.out]
            folders[:] = [name for name in folders if not is_hidden(name)]
            images = list(filter(is_image_name, names))
            others, apart = folders_apart(folders), files_apart(images)
            self._tell(parent, next(filter(is_not_read, names), None), "the format is not read")
            for name, what in (*others.items(), *apart.items()):
                self._tell(parent, name, f"by name {what} and no photographs")
            folders[:] = [name for name in folders if name not in others]
            for name in images:
                if name in apart:
                    continue
                file = os.path.join(parent, name)
                with contextlib.suppress(OSError):  # it has gone
                    status = os.stat(file)
                    found[file] = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if self._unseen and os.path.isdir(self.folder):
            self._unseen = False
            log.warning("%s is there again", shown(self.folder))
        return found

    def _tell(self, parent: str, name: str | None, why: str) -> None:
        if name is not None and why not in self._told:
            self._told.add(why)
            log.warning("%s: left out, as are all such files, because %s", shown(Path(parent, name)), why)

    def _cannot_read(self, error: OSError) -> None:
        self._whole = False
        if error.filename == str(self.folder) and not self._unseen:
            self._unseen = True
            log.warning("%s: the folder cannot be read (%s); waiting for it", shown(self.folder), error.strerror)


class Named(Coming):
    """The images whose names come from a stream, one path a line, until it ends. Names in ``done`` are passed over."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream

    def batches(self, done: Collection[str]) -> Iterator[list[Path]]:
        """Yield what has come at a time."""
        rest = b""
        while data := self.stream.read1(READ_AT_ONCE):  # type: ignore[attr-defined] # of buffered streams
            *lines, rest = (rest + data).split(b"\n")
            yield self._paths(lines, done)
        yield self._paths([rest], done)

    @staticmethod
    def _paths(lines: list[bytes], done: Collection[str]) -> list[Path]:
        names = (os.fsdecode(line.removesuffix(b"\r")) for line in lines)
        return [Path(name) for name in names if name and shown(name) not in done]


class Encoded(Coming):
    """One image, the contents of whose file are given; rows call it "-". ``folder`` takes the file meanwhile."""

    def __init__(self, data: bytes, folder: Path) -> None:
        self.path = folder / "stdin"
        self.path.write_bytes(data)

    def batches(self, done: Collection[str]) -> Iterator[list[Path]]:
        """Yield the image, unless it has a verdict."""
        if "-" not in done:
            yield [self.path]

    def name(self, path: Path) -> str:
        """A name that is no path."""
        return "-"
