"""Pictures that lie with many others in one file: MNIST's idx files and CIFAR-10's batches.

Such a picture is named like a file in a folder, ``train-images-idx3-ubyte.gz/00123``: the file, then the picture's
number in it from 0. ``read_image`` takes these names, so whatever works with picture files works with them.
"""

import os
import threading
from functools import lru_cache
from pathlib import Path

import numpy as np

from vitlite.errors import ArchiveError
from vitlite.images.batches import read_batch
from vitlite.images.idx import read_idx

# CIFAR-10 has six batches of 31 MB, which stay decoded while they are read in turn.
_KEPT = 6
_LONGEST_NUMBER = 10
_lock = threading.Lock()


def entry(file: Path, number: int) -> Path:
    """The name of a picture in such a file."""
    return Path(file) / f"{number:05d}"


def split_entry(path) -> tuple[str, int] | None:
    """``(file, number)`` where a path names a picture in such a file; None for every other path."""
    folder, name = os.path.split(os.fspath(path))
    if not (name.isascii() and name.isdigit() and len(name) <= _LONGEST_NUMBER):
        return None
    try:
        return (folder, int(name)) if os.path.isfile(folder) else None
    except ValueError:  # a zero byte in the name
        return None


def read_entry(file, number: int) -> np.ndarray:
    """A picture of such a file, uint8 (H, W) or (H, W, 3). Raises ArchiveError with the reason."""
    pictures = read_archive(file)[0]
    if not number < len(pictures):
        raise ArchiveError(f"the file holds {len(pictures)} pictures, numbered from 0")
    return np.ascontiguousarray(pictures[number])


def read_archive(file) -> tuple[np.ndarray, np.ndarray | None]:
    """``(pictures, labels)`` of a file: uint8 (N, H, W) or (N, H, W, 3), and (N,), or None where it has none.

    The last few files stay in memory as long as they do not change. Raises ArchiveError with the reason.
    """
    try:
        status = os.stat(file)
        with _lock:  # threads that ask for the same file decode it once
            return _read(os.fspath(file), status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise ArchiveError((error.strerror or str(error)).lower()) from error


@lru_cache(maxsize=_KEPT)
def _read(file: str, _modified: int, _size: int) -> tuple[np.ndarray, np.ndarray | None]:
    with open(file, "rb") as opened:
        start = opened.read(2)
    if start in (b"\x1f\x8b", b"\0\0"):
        pictures = read_idx(Path(file))
        if pictures.ndim != 3:
            raise ArchiveError("holds labels, not pictures")
        return pictures, None
    if start[:1] == b"\x80":
        return read_batch(Path(file))
    raise ArchiveError("is neither an idx file nor a CIFAR-10 batch")
