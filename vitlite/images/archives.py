"""Images that lie with many others in one file: MNIST's idx files and CIFAR-10's batches.

Such an image is named like a file in a folder, ``train-images-idx3-ubyte.gz/00123``: the file, then the image's number
in it, from 0. ``read_image`` takes these names, so whatever works with image files works with them.
"""

import os
import threading
from functools import lru_cache
from pathlib import Path

import numpy as np

from vitlite.files import StrPath
from vitlite.images.batches import read_batch
from vitlite.images.idx import read_idx
from vitlite.images.unusable import Unusable

# CIFAR-10 has six batches of 31 MB, which stay decoded while they are read in turn.
_KEPT = 6
_LONGEST_NUMBER = 10
_lock = threading.Lock()


def entry(file: Path, number: int) -> Path:
    """The name of an image in such a file."""
    return Path(file) / f"{number:05d}"


def split_entry(path: StrPath) -> tuple[str, int] | None:
    """``(file, number)`` if a path names an image in such a file; None for every other path."""
    folder, name = os.path.split(os.fspath(path))
    if not (name.isascii() and name.isdigit() and len(name) <= _LONGEST_NUMBER):
        return None
    try:
        return (folder, int(name)) if os.path.isfile(folder) else None
    except ValueError:  # a zero byte in the name
        return None


def read_entry(file: StrPath, number: int) -> np.ndarray:
    """An image of such a file, uint8 (H, W) or (H, W, 3). Raises Unusable with the reason."""
    images = read_archive(file)[0]
    if not number < len(images):
        raise Unusable(f"the file holds {len(images)} images, numbered from 0")
    return np.ascontiguousarray(images[number])


def read_archive(file: StrPath) -> tuple[np.ndarray, np.ndarray | None]:
    """``(images, labels)`` of a file: uint8 (N, H, W) or (N, H, W, 3), and int64 (N,), or None if it has no labels.

    The last few files stay in memory as long as they do not change. Raises Unusable with the reason.
    """
    try:
        status = os.stat(file)
        with _lock:  # threads that ask for the same file decode it once
            return _read(os.fspath(file), status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise Unusable((error.strerror or str(error)).lower()) from error


@lru_cache(maxsize=_KEPT)
def _read(file: str, _modified: int, _size: int) -> tuple[np.ndarray, np.ndarray | None]:
    with open(file, "rb") as opened:
        start = opened.read(2)
    if start in (b"\x1f\x8b", b"\0\0"):
        images = read_idx(file)
        if images.ndim != 3:
            raise Unusable("holds labels, not images")
        return images, None
    if start[:1] == b"\x80":
        return read_batch(file)
    raise Unusable("is neither an idx file nor a CIFAR-10 batch")
