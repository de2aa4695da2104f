"""TIFF files that Pillow does not open: what they hold, and the plain ones among them.

Pillow lacks floats of 16 and 64 bits, colour of floats, and colour of 16 bits whose planes lie apart. If such a file is
neither compressed nor in tiles, it is read here: its strips are the numbers one after another. For every other file
there is the reason, from its tags (TIFF 6.0; the sample format is in section 19).
"""

import os
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from vitlite.files import StrPath
from vitlite.images.unusable import Unusable

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIPS, ORIENTATION, SAMPLES = 256, 257, 258, 259, 262, 273, 274, 277
LENGTHS, PLANES, SAMPLE_FORMAT = 279, 284, 339
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
_KINDS = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}
_NAMES = {UNSIGNED: "integers", SIGNED: "signed integers", FLOAT: "floats", 5: "complex integers", 6: "complex numbers"}
_READ = {"u": (8, 16, 32), "i": (8, 16, 32), "f": (16, 32, 64)}  # bits
_MOST_FRAMES = 100_000  # that are counted
_BIG = 43  # in the header of a BigTIFF


class PlainTiff:
    """The first image of a TIFF file. ``width`` and ``height`` are those of the upright image, as Pillow has them."""

    format = "TIFF"

    def __init__(self, path: StrPath) -> None:
        """Read the tags. Raises Unusable if the file is no TIFF, or its tags are damaged."""
        self.path = path
        with open(path, "rb") as file:
            self.tag_v2 = tags = directories(file)[0]
            file.seek(0)
            self.order = "<" if file.read(2) == b"II" else ">"
        try:
            self.size = int(tags[WIDTH]), int(tags[HEIGHT])
            self.samples = int(tags.get(SAMPLES, 1))
            self.bits = _same(tags.get(BITS, 1))
            self.sample_format = _same(tags.get(SAMPLE_FORMAT, UNSIGNED))
            self.orientation = int(tags.get(ORIENTATION, 1))
            self.planes = int(tags.get(PLANES, 1))
        except (KeyError, TypeError, ValueError) as error:
            raise Unusable("is a TIFF file whose tags are damaged") from error
        turned = 5 <= self.orientation <= 8
        self.width, self.height = self.size[::-1] if turned else self.size

    @property
    def mode(self) -> str:
        """What it holds, in the place of Pillow's mode."""
        return f"{'RGB' if self.samples == 3 else 'grey'} {_KINDS.get(self.sample_format, '?')}{self.bits}"

    @property
    def n_frames(self) -> int:
        """How many images the file holds."""
        return frame_count(self.path)

    def getexif(self) -> dict[int, int]:
        """Nothing: the orientation is in ``values`` already."""
        return {}

    def values(self) -> np.ndarray:
        """The numbers, (H, W) or (H, W, 3). Raises Unusable with the reason if they are not to be read."""
        self._refuse()
        columns, rows = self.size
        kind = np.dtype(f"{self.order}{_KINDS[self.sample_format]}{self.bits // 8}")
        data = self._strips(rows * columns * self.samples * kind.itemsize)
        flat = np.frombuffer(data, kind).astype(kind.newbyteorder("="))
        if self.samples == 1:
            values: np.ndarray = flat.reshape(rows, columns)
        elif self.planes == 2:
            values = flat.reshape(self.samples, rows, columns).transpose(1, 2, 0)
        else:
            values = flat.reshape(rows, columns, self.samples)
        return upright(values, self.orientation)

    def _refuse(self) -> None:
        """Raises Unusable, which says what the file holds, if it is not to be read here."""
        tags = self.tag_v2
        what = f"{self.bits}-bit {_NAMES.get(self.sample_format, 'numbers of an unknown kind')}"
        if self.samples not in (1, 3):
            raise Unusable(f"{self.samples} channels of {what}: save grey, RGB or 8-bit RGBA")
        if self.bits not in _READ.get(_KINDS.get(self.sample_format, ""), ()):
            raise Unusable(f"{what}, which are not read: save 8 or 16 bits, or 32-bit floats")
        if tags.get(PHOTOMETRIC) not in ((WHITE_IS_ZERO, BLACK_IS_ZERO) if self.samples == 1 else (RGB,)):
            raise Unusable(
                f"{self.samples} channels of {what} that are neither grey nor RGB "
                f"(photometric interpretation {tags.get(PHOTOMETRIC)})"
            )
        compressed = tags.get(COMPRESSION, 1) != 1
        if compressed or STRIPS not in tags:
            colour = "grey" if self.samples == 1 else "RGB with its planes apart" if self.planes == 2 else "RGB"
            raise Unusable(
                f"{colour} of {what}, {'compressed' if compressed else 'in tiles'}: these are read from uncompressed "
                "strips alone; save them so, or as 8 or 16 bits"
            )

    def _strips(self, size: int) -> bytes:
        starts, lengths = _several(self.tag_v2[STRIPS]), _several(self.tag_v2.get(LENGTHS, size))
        if len(starts) != len(lengths) or sum(lengths) < size or min(lengths) < 0:
            raise Unusable("is a TIFF file whose strips are damaged")
        with open(self.path, "rb") as file:
            if max(start + length for start, length in zip(starts, lengths)) > os.fstat(file.fileno()).st_size:
                raise Unusable("is cut short")
            parts = []
            for start, length in zip(starts, lengths):
                file.seek(start)
                parts.append(file.read(length))
        return b"".join(parts)[:size]


def is_tiff(path: StrPath) -> bool:
    """Whether a file begins as TIFF files do."""
    with open(path, "rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0")


def has_planes_apart(tags: Mapping[int, object]) -> bool:
    """Whether colours of 16 bits lie in a plane each, of which Pillow reads the high bytes alone, or worse."""
    return tags.get(PLANES) == 2 and max(_several(tags.get(BITS, 1))) > 8


def frame_count(path: StrPath) -> int:
    """How many images a TIFF file holds. Raises Unusable if its tags are damaged."""
    with open(path, "rb") as file:
        return len(directories(file, _MOST_FRAMES))


def directories(file: BinaryIO, most: int = 1) -> list[ImageFileDirectory_v2]:
    """The tags of the first ``most`` images of a TIFF file. Raises Unusable if there are none."""
    found: list[ImageFileDirectory_v2] = []
    try:
        head = file.read(8)
        head += file.read(8) if head[2] == _BIG else b""
        following, seen = ImageFileDirectory_v2(head).next, set[int]()
        while following and following not in seen and len(found) < most:
            seen.add(following)
            directory = ImageFileDirectory_v2(head)
            file.seek(following)
            directory.load(file)
            found.append(directory)
            following = directory.next
    except Exception as error:  # as with every damaged file, nearly anything
        if not found:
            raise Unusable("is a TIFF file whose tags are damaged") from error
    if not found:
        raise Unusable("is a TIFF file without an image")
    return found


def _same(value: object) -> int:
    """The one number that a tag has for every channel. ValueError if they differ."""
    (number,) = set(_several(value))
    return number


def _several(value: object) -> tuple[int, ...]:
    return tuple(map(int, value if isinstance(value, tuple) else (value,)))  # type: ignore[call-overload]


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (TIFF 6.0, tag 274) to a (H, W, ...) array."""
    if orientation in (5, 7):
        array = np.swapaxes(array, 0, 1)
    if orientation in (2, 4):
        array = np.flip(array, axis=0 if orientation == 4 else 1)
    turns = {3: 2, 6: -1, 7: 2, 8: 1}
    if orientation in turns:
        array = np.rot90(array, turns[orientation])
    return np.ascontiguousarray(array)
