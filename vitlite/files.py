"""Writing results: to a temporary name first, then renamed, so that a reader never sees half a file."""

import contextlib
import csv
import errno
import io
import itertools
import json
import os
import re
import secrets
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

from vitlite.errors import UserError

try:
    import fcntl
except ImportError:  # not a Unix: nothing notices another process in the folder there
    fcntl = None  # type: ignore[assignment]

MAX_MEGAPIXELS = 150.0  # of an image, unless a caller says more: enough for a 16k line-scan image
MAX_THREADS = 1024  # of the network; a machine starts them all, and far more never end
_LONGEST_NAME = 100
_LONGEST_STEM = 240  # bytes
# What reading a damaged JSON file raises, and taking values out of what it holds.
DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
StrPath = str | os.PathLike[str]  # what names a file


@contextlib.contextmanager
def atomic(path: StrPath, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path``; on success it takes the name, on any failure nothing changes.

    ``mode`` is "w" for UTF-8 text or "wb". Raises UserError if the folder cannot be written or the disk is full.
    """
    path = Path(path)
    # Short, because the file's own name may be as long as the file system takes.
    temporary = path.parent / f".{path.name[:16]}.{secrets.token_hex(4)}.tmp"
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with open(temporary, mode.replace("w", "x"), **text) as file:
            yield file
            _to_disk(file)
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # it is gone if all went well
            os.unlink(temporary)


def write_together(texts: Mapping[Path, str]) -> None:
    """Write several UTF-8 text files: all of them have their names only after the last one is whole on the disk.

    So a full disk leaves the earlier ones as they were. Raises UserError as :func:`atomic`.
    """
    with contextlib.ExitStack() as stack:
        for path, text in texts.items():
            file = stack.enter_context(atomic(path))
            file.write(text)
            _to_disk(file)


def _to_disk(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


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


def new_file(out: StrPath, suffix: str | None = None, name: str = "out") -> Path:
    """The path of a file to be written, checked before hours of computing rather than after them.

    UserError if it has another suffix than ``suffix``, is a folder, or has no folder that can be written. ``name`` is
    that of the argument.
    """
    path = Path(out)
    if suffix is not None and path.suffix.lower() != suffix:
        raise UserError(f"`{name}={path}`: the name has to end with {suffix}")
    if path.is_dir():
        raise UserError(f"`{name}={path}`: is a folder; name the file")
    if not path.parent.is_dir():
        raise UserError(f"`{name}={path}`: there is no folder {path.parent}; make it first")
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


def write_text(path: StrPath, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic(path) as file:
        file.write(text)


def write_json(path: StrPath, value: Any) -> None:
    """Write strict JSON atomically. ValueError for NaN, which no other reader would take."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Strict JSON as the text of a file. ValueError for NaN, which no other reader would take."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def write_csv(path: StrPath, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table with a head; None is an empty cell. Lines end in one newline."""
    with atomic(path) as file:
        for row in itertools.chain([columns], rows):
            file.write(csv_line(row))


def csv_line(cells: Iterable[object]) -> str:
    """A row of a CSV file, with the newline; None is an empty cell."""
    text = io.StringIO(newline="")
    # The writer quotes only what it takes for the end of a line, so it has to know both characters.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def make_folder(path: StrPath) -> Path:
    """Create a folder and its parents; UserError if that cannot be done."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot make this folder ({error.strerror or error}); choose another") from error
    return Path(path)


def refuse_unwritable(out: StrPath, name: str = "out") -> None:
    """``UserError``, before long work, if a folder for what is written can neither be there nor be made.

    It or a folder above it is a file, or nothing can be written there. ``name`` is that of the argument.
    """
    folder = Path(os.path.abspath(out))
    for place in (folder, *folder.parents):
        if os.path.isdir(place):
            return require_writable(place)
        if os.path.lexists(place):
            raise UserError(f"`{name}={shown(out)}`: {shown(place)} is a file, not a folder; choose another folder")


def shown(path: StrPath) -> str:
    """A path as text that can be printed, even if its bytes are not valid in the file system's encoding."""
    return os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def below(file: StrPath, folder: StrPath) -> str:
    """The name of a file below a folder; the file as it is if it lies elsewhere."""
    path, place = Path(os.path.abspath(file)), os.path.abspath(folder)
    return str(path.relative_to(place)) if path.is_relative_to(place) else os.fspath(file)


def counted(count: int, thing: str) -> str:
    """How many there are of something, such as "1 good image" and "2 good images"."""
    return f"{count} {thing}{'s' * (count != 1)}"


def is_folder_name(text: str) -> bool:
    """Whether a name that came out of a file can serve as the name of a folder, also of one that is written for it."""
    return 0 < len(text) <= _LONGEST_NAME and text.isprintable() and text[0] != "." and not set(text) & set("/\\")


def distinct_names(paths: Iterable[Path]) -> list[str]:
    """A name without an extension per file: its stem, after the parent's name and before a number if that repeats."""
    paths = list(paths)
    stems = Counter(path.stem for path in paths)
    names: dict[str, None] = {}
    for path in paths:
        base = name = shortened(path.stem if stems[path.stem] == 1 else f"{path.parent.name}_{path.stem}")
        number = 2
        while name in names:
            name, number = f"{base}_{number}", number + 1
        names[name] = None
    return list(names)


def distinct_candidates(path: Path) -> Iterator[str]:
    """Names without an extension for a file, without end: its stem, after the parent's name, before a number."""
    yield shortened(path.stem)
    base = shortened(f"{path.parent.name}_{path.stem}")
    yield base
    yield from (f"{base}_{number}" for number in itertools.count(2))


def shortened(name: str) -> str:
    """A name as valid text, with room for a number and a suffix in the 255 bytes that file systems take."""
    # A letter that the cut goes through is left out.
    return shown(name).encode()[:_LONGEST_STEM].decode("utf-8", errors="ignore")


class Claim:
    """A context manager: from ``take`` to its end the folder is this process's to work in.

    The system drops the claim when the process ends in any way, and nothing of it is left in the folder. ``doing`` says
    in one word what the process does there.
    """

    def __init__(self, folder: StrPath, doing: str) -> None:
        self.folder, self.doing = folder, doing
        self.handle: int | None = None

    def take(self) -> None:
        """Make the folder and claim it, once. ``UserError`` if another process has it or it cannot be made."""
        make_folder(self.folder)
        if self.handle is not None or fcntl is None:
            return
        try:
            self.handle = os.open(self.folder, os.O_RDONLY)
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.__exit__()
            raise UserError(
                f"{shown(self.folder)}: another process is {self.doing} there; wait for its end, or choose another "
                "`out`"
            ) from None
        except OSError:  # a file system without locks, or a folder that cannot be read: nobody is refused there
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


def is_claimed(folder: StrPath) -> bool:
    """Whether a process has the folder by a :class:`Claim`; not known, and so False, without locks."""
    if fcntl is None:
        return False
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def category_of(path: Path, categories: Sequence[str]) -> str:
    """The nearest folder of a category's name, in a run of several categories; "" if there is none."""
    if len(categories) == 1:
        return categories[0]
    folders = Path(os.path.abspath(path)).parts[-2::-1]
    return next((name for name in folders if name in categories), "")
