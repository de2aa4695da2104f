"""Image files with equal contents, and a digest of the files that a run trains on."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from vitlite.files import below
from vitlite.images.archives import split_entry

_LOOK = 4096  # bytes


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
    looks = {path: _look(path) for path in paths}
    known = set(looks.values())
    digests = {digest(path) for path in originals if _look(path) in known} - {None}
    return [path for path in paths if digests and digest(path) in digests]


def equal_files(paths: Sequence[Path]) -> list[int]:
    """A number for each file: that of the first file with the same bytes."""
    looks = [_look(path) for path in paths]
    often = Counter(looks)
    first: dict[object, int] = {}
    return [
        first.setdefault((digest(path) or path) if often[look] > 1 else path, place)
        for place, (path, look) in enumerate(zip(paths, looks))
    ]


def _look(path: Path) -> tuple[int, bytes]:
    """The size of a file and some bytes in its middle, which spare reading most files; (-1, b"") if it is missing."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(size // 2)
            return size, file.read(_LOOK)
    except OSError:
        return -1, b""


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
