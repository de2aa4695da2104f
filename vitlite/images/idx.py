"""MNIST's idx files, plain or gzip: a header with type and sizes, then the bytes (LeCun et al., yann.lecun.com).

Bytes 0 and 1 are zero, byte 2 is the type (8: unsigned bytes, the only one read here), byte 3 the number of
dimensions; then a big-endian 32-bit size for each, and the values, last dimension fastest.
"""

import gzip
import struct
import zlib
from typing import BinaryIO, cast

import numpy as np

from vitlite.files import StrPath
from vitlite.images.unusable import Unusable

MAX_BYTES = 2**30  # a header may promise anything; MNIST's largest file holds 47 MB
_UNSIGNED_BYTES = 8
_CHUNK = 2**20


def read_idx(path: StrPath) -> np.ndarray:
    """The array in an idx file, uint8: images (N, H, W) or labels (N,).

    Raises Unusable with the reason: no idx file, other values than bytes, neither one nor three dimensions, nothing
    in it, cut short, longer than its header says, over ``MAX_BYTES``, damaged compression.
    """
    try:
        with open(path, "rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
        with cast(BinaryIO, gzip.open(path) if compressed else open(path, "rb")) as file:
            shape = _shape(file)
            content = _exactly(file, int(np.prod(shape, dtype=object)))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise Unusable(f"its gzip compression is damaged or cut short ({error})") from error
    except OSError as error:
        raise Unusable((error.strerror or str(error)).lower()) from error
    return np.frombuffer(content, np.uint8).reshape(shape)


def _shape(file: BinaryIO) -> tuple[int, ...]:
    header = file.read(4)
    if len(header) < 4 or header[:2] != b"\0\0":
        raise Unusable("is not an idx file: it does not begin with two zero bytes, a type and a number of sizes")
    kind, dimensions = header[2:]
    if kind != _UNSIGNED_BYTES:
        raise Unusable(f"holds values of idx type 0x{kind:02x}; only unsigned bytes, 0x08, are images or labels")
    if dimensions not in (1, 3):
        raise Unusable(f"has {dimensions} dimensions; images have 3 (number, height, width) and labels 1")
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise Unusable("is cut short within its header")
    shape = struct.unpack(f">{dimensions}I", sizes)
    if not all(shape):
        raise Unusable(f"holds nothing: its sizes are {' x '.join(map(str, shape))}")
    return shape


def _exactly(file: BinaryIO, count: int) -> bytearray:
    """``count`` bytes and the end of the file; grows with what is there, not with what the header promises."""
    if count > MAX_BYTES:
        raise Unusable(f"promises {count} bytes, over the limit of {MAX_BYTES}")
    content = bytearray()
    while len(content) < count:
        part = file.read(min(_CHUNK, count - len(content)))
        if not part:
            raise Unusable(f"is cut short: {len(content)} of the {count} bytes that its header promises")
        content += part
    if file.read(1):
        raise Unusable(f"goes on after the {count} bytes that its header promises")
    return content
