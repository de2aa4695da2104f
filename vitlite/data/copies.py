"""Image files with equal contents, and a digest of the files that a run trains on."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from vitlite.files import below
from vitlite.images.archives import split_entry


def fingerprint(root: Path, paths: Iterable[Path]) -> str:
    """Digest of the files that a run trains on: their names below ``root``, their contents and their order.

    A file elsewhere has its whole name.
    """
    whole = hashlib.sha256()
    for path in paths:
        name = below(path, root).encode("utf-8", "surrogateescape")
        whole.update(name + b"\0" + (digest(path) or b"") + b"\n")
    return whole.hexdigest()


def copies(paths: Sequence[Path], originals: Sequence[Path]) -> list[Path]:
    """Those of ``paths`` that hold the same bytes as one of ``originals``, whatever their names."""
    # Only files of equal size can be equal, which spares reading most of them.
    sizes = {_size(path) for path in paths}
    digests = {digest(path) for path in originals if _size(path) in sizes} - {None}
    return [path for path in paths if digests and digest(path) in digests]


def _size(path: Path) -> int:
    """The size of a file in bytes; -1 for a missing file."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def digest(path: Path) -> bytes | None:
    """SHA-256 of an image's bytes; for an image inside an archive file, that file's digest and the image's number.

    None if it cannot be read: that equals nothing that was trained on.
    """
    entry = split_entry(path)
    try:
        if entry is None:
            return hashlib.sha256(Path(path).read_bytes()).digest()
        file, number = entry
        status = os.stat(file)
        return _file_digest(file, status.st_mtime_ns, status.st_size) + str(number).encode()
    except OSError:
        return None


@lru_cache(maxsize=16)
def _file_digest(file: Path, _modified: int, _size: int) -> bytes:
    return hashlib.sha256(Path(file).read_bytes()).digest()
