"""Telling whether pictures are those that a run was trained on."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from vitlite.data.archives import split_entry


def fingerprint(root, paths):
    """Digest of the files that a run trains on: their names below ``root``, their contents and their order."""
    whole = hashlib.sha256()
    for path in paths:
        name = str(Path(path).relative_to(root)).encode("utf-8", "surrogateescape")
        whole.update(name + b"\0" + (digest(path) or b"") + b"\n")
    return whole.hexdigest()


def digest(path):
    """SHA-256 of a picture's bytes; of one in a file of many, that file's and its number. None where it can't be read,
    which equals nothing that was trained on."""
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
def _file_digest(file, _modified, _size):
    return hashlib.sha256(Path(file).read_bytes()).digest()
