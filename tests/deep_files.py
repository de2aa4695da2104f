"""PNG files of 16 bits, which Pillow writes in grey alone."""

import struct
import zlib

import numpy as np

# Adam7: (x0, y0, dx, dy) of every pass.
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values, interlaced=False, key=None):
    """A 16-bit PNG of 1 to 4 channels as bytes; ``key`` is the transparent colour."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    parts = [values[y::dy, x::dx] for x, y, dx, dy in PASSES] if interlaced else [values]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for part in parts if part.size for row in part)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, interlaced)
    middle = chunk(b"tRNS", np.asarray(key, ">u2").tobytes()) if key is not None else b""
    data = chunk(b"IHDR", head) + middle + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data
