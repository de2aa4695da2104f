"""MNIST's idx files, plain or gzip: a header with type and sizes, then the bytes (LeCun et al., yann.lecun.com).

Bytes 0 and 1 are zero, byte 2 is the type (8: unsigned bytes, the only one read here), byte 3 the number of
dimensions; then a big-endian 32-bit size for each, and the values, last dimension fastest.
"""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from vitlite.errors import ArchiveError

MAX_BYTES = 2**30  # a header may promise anything; MNIST's largest file holds 47 MB
_UNSIGNED_BYTES = 8
_CHUNK = 2**20


def read_idx(path: Path) -> np.ndarray:
    """The array in an idx file, uint8: pictures (N, H, W) or labels (N,).

    Raises ArchiveError with the reason: not such a file, other values than bytes, other than one or three dimensions,
    nothing in it, cut short, longer than its header says, over ``MAX_BYTES``, damaged compression.
    """
    try:
        with open(path, "rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if compressed else open(path, "rb") as file:
            shape = _shape(file)
            content = _exactly(file, int(np.prod(shape, dtype=object)))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ArchiveError(f"its gzip compression is damaged or cut short ({error})") from error
    except OSError as error:
        raise ArchiveError((error.strerror or str(error)).lower()) from error
    return np.frombuffer(content, np.uint8).reshape(shape)


def _shape(file) -> tuple[int, ...]:
    header = file.read(4)
    if len(header) < 4 or header[:2] != b"\0\0":
        raise ArchiveError("is not an idx file: it does not begin with two zero bytes, a type and a number of sizes")
    kind, dimensions = header[2:]
    if kind != _UNSIGNED_BYTES:
        raise ArchiveError(f"holds values of idx type 0x{kind:02x}; only unsigned bytes, 0x08, are pictures or labels")
    if dimensions not in (1, 3):
        raise ArchiveError(f"has {dimensions} dimensions; pictures have 3 (number, height, width) and labels 1")
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise ArchiveError("is cut short within its header")
    shape = struct.unpack(f">{dimensions}I", sizes)
    if not all(shape):
        raise ArchiveError(f"holds nothing: its sizes are {' x '.join(map(str, shape))}")
    return shape


def _exactly(file, count: int) -> bytearray:
    """``count`` bytes and the end of the file; grows with what is there, not with what the header promises."""
    if count > MAX_BYTES:
        raise ArchiveError(f"promises {count} bytes, over the limit of {MAX_BYTES}")
    content = bytearray()
    while len(content) < count:
        part = file.read(min(_CHUNK, count - len(content)))
        if not part:
            raise ArchiveError(f"is cut short: {len(content)} of the {count} bytes that its header promises")
        content += part
    if file.read(1):
        raise ArchiveError(f"goes on after the {count} bytes that its header promises")
    return content
