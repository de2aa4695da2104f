"""Writing results: to a temporary name first, then renamed, so that a reader never sees half a file."""

import contextlib
import errno
import json
import os
import re
import tempfile
from pathlib import Path

from vitlite.errors import UserError


@contextlib.contextmanager
def atomic(path, mode="w"):
    """Open a temporary file beside ``path``; on success it takes the name, on any failure nothing changes.

    Raises ``UserError`` where the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        # A short name: the file's own may be as long as the file system takes.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:16]}.", suffix=".tmp")
        os.chmod(temporary, 0o666 & ~_umask())
        text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
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


def unwritable(path, error):
    """The ``UserError`` for an ``OSError`` that writing ``path`` raised."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    mend = "make room there, or choose another folder" if full else "choose a folder that can be written"
    return UserError(f"{path}: cannot be written ({error.strerror or error}); {mend}")


def require_writable(folder):
    """``UserError`` unless files can be made in a folder: better said before an hour of computing than after it."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise unwritable(folder, error) from error


def new_file(out: str | Path, suffix: str | None = None) -> Path:
    """The path of a file to be written, checked before hours of computing rather than after them.

    ``UserError`` if it has another suffix than ``suffix``, is a folder, or has no folder that can be written.
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


def append_line(path, line):
    """Add a line to a text file; ``UserError`` where it cannot be written."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise unwritable(path, error) from error


def remove(path):
    """Delete a file, if it is there; ``UserError`` where that cannot be done."""
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be removed ({error.strerror or error})") from error


def remove_leftovers(folder):
    """Remove the temporary files of processes that were killed while they wrote into a folder."""
    for path in Path(folder).glob(".*.tmp"):
        if re.fullmatch(r"\..+\.[a-z0-9_]{8}\.tmp", path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path, text):
    with atomic(path) as file:
        file.write(text)


def write_json(path, value):
    """Strict JSON: not-a-number is refused rather than written as something no other reader takes."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def make_folder(path):
    """Create a folder and its parents; ``UserError`` if that cannot be done."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot make this folder ({error.strerror or error})") from error
    return Path(path)


def shown(path) -> str:
    """A path as text that can be printed, also when its bytes are not valid in the file system's encoding."""
    return os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def is_folder_name(text: str) -> bool:
    """Whether a name that came out of a file can serve as one of a folder, here and in what is written for it."""
    return 0 < len(text) <= _LONGEST_NAME and text.isprintable() and text[0] != "." and not set(text) & set("/\\")


_LONGEST_NAME = 100
