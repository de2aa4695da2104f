"""Files that were not written to their end, such as by a copy that was broken off: zeros stand in for what is missing.

Pillow finds a file that is too short. But many systems give a file its whole size before they fill it, and its decoders
take the zeros for pixels, grey or black. JPEG and PNG have a mark at their end, which is missing then.
"""

import os
from typing import BinaryIO

from vitlite.files import StrPath
from vitlite.images.png import SIGNATURE

_ZEROS = 32  # as many at the end of a file, at least, are not what an encoder writes
_JPEG, _SCAN, _JPEG_END = b"\xff\xd8", 0xDA, b"\xff\xd9"
_PNG_END = b"IEND"


def is_torn(path: StrPath) -> bool:
    """Whether a JPEG or PNG file ends in zeros and lacks its end. ``OSError`` if it cannot be read."""
    with open(path, "rb") as file:
        start = file.read(len(SIGNATURE))
        if start != SIGNATURE and start[:2] != _JPEG:
            return False
        file.seek(-min(_ZEROS, os.fstat(file.fileno()).st_size), os.SEEK_END)
        if any(file.read()):
            return False
        if start == SIGNATURE:
            file.seek(0)
            return _PNG_END not in file.read()
        return not _jpeg_ends(file)


def _jpeg_ends(file: BinaryIO) -> bool:
    """Whether the pixels of a JPEG have an end. A thumbnail in the segments before them has its own."""
    place = 2
    while True:
        file.seek(place)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF:
            return False
        if head[1] == _SCAN:
            return _JPEG_END in file.read()
        place += 1 if head[1] == 0xFF else 2 + int.from_bytes(head[2:], "big")  # 0xFF may fill
