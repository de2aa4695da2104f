"""Writing results: to a temporary name first, then renamed, so that a reader never sees half a file."""

import contextlib
import csv
import errno
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from vitlite.errors import UserError

StrPath = str | os.PathLike[str]  # what names a file


@contextlib.contextmanager
def atomic(path: StrPath, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path``; on success it takes the name, on any failure nothing changes.

    ``mode`` is "w" for UTF-8 text or "wb". Raises UserError if the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        # A short name: the file's own may be as long as the file system takes.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:16]}.", suffix=".tmp")
        os.chmod(temporary, 0o666 & ~_umask())
        text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
        with os.fdopen(handle, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def unwritable(path: StrPath, error: OSError) -> UserError:
    """The UserError for an ``OSError`` that writing ``path`` raised."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "make room there, or choose another folder" if full else "choose a folder that can be written"
    return UserError(f"{path}: cannot be written ({error.strerror or error}); {advice}")


def require_writable(folder: StrPath) -> None:
    """UserError unless files can be made in a folder: better said before an hour of computing than after it."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise unwritable(folder, error) from error


def new_file(out: StrPath, suffix: str | None = None) -> Path:
    """The path of a file to be written, checked before hours of computing rather than after them.

    UserError if it has another suffix than ``suffix``, is a folder, or has no folder that can be written.
    """
    path = Path(out)
    if suffix is not None and path.suffix.lower() != suffix:
        raise UserError(f"`out={path}`: the name has to end with {suffix}")
    if path.is_dir():
        raise UserError(f"`out={path}`: is a folder; name the file")
    if not path.parent.is_dir():
        raise UserError(f"`out={path}`: there is no folder {path.parent}; make it first")
    require_writable(path.parent)
    return path


def append_line(path: StrPath, line: str) -> None:
    """Add a line to a text file; UserError if it cannot be written."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise unwritable(path, error) from error


def remove(path: StrPath) -> None:
    """Delete a file, if it is there; UserError if that cannot be done."""
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be removed ({error.strerror or error})") from error


def remove_leftovers(folder: StrPath) -> None:
    """Remove the temporary files of processes that were killed while they wrote into a folder."""
    for path in Path(folder).glob(".*.tmp"):
        if re.fullmatch(r"\..+\.[a-z0-9_]{8}\.tmp", path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: StrPath, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic(path) as file:
        file.write(text)


def write_json(path: StrPath, value: Any) -> None:
    """Write strict JSON atomically. ValueError for NaN, which no other reader would take."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: StrPath, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table with a head; None is an empty cell. Lines end in one newline."""
    with atomic(path) as file:
        # The writer quotes only what it takes for the end of a line, so it has to know both characters.
        lines = SimpleNamespace(write=lambda line: file.write(line.removesuffix("\r\n") + "\n"))
        writer = csv.writer(lines)
        writer.writerow(columns)
        writer.writerows(rows)


def make_folder(path: StrPath) -> Path:
    """Create a folder and its parents; UserError if that cannot be done."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot make this folder ({error.strerror or error}); choose another") from error
    return Path(path)


def shown(path: StrPath) -> str:
    """A path as text that can be printed, even if its bytes are not valid in the file system's encoding."""
    return os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def is_folder_name(text: str) -> bool:
    """Whether a name that came out of a file can serve as the name of a folder, also of one that is written for it."""
    return 0 < len(text) <= _LONGEST_NAME and text.isprintable() and text[0] != "." and not set(text) & set("/\\")


_LONGEST_NAME = 100
