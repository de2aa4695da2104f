"""Image files to 8-bit arrays; modes.py has the rules for what is not stored as 8-bit colour."""

import contextlib
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from vitlite.errors import UserError
from vitlite.files import StrPath, shown
from vitlite.images import tiff
from vitlite.images.archives import read_entry, split_entry
from vitlite.images.modes import EIGHT, NOTHING_SEEN, Stored, as_pillow, is_wide, orientation, stored
from vitlite.images.pillow import open_image, quiet
from vitlite.images.scale import MAX_PIXELS, Levels, Reading, Scale, as_scale, to_8bit
from vitlite.images.tiff import PlainTiff, is_tiff, upright
from vitlite.images.torn import is_torn
from vitlite.images.unusable import Unusable

NO_ROOM = "does not fit into memory"
FULL_RANGE = Reading()
_FEW = 8  # of 256 levels are left, or less, of an image whose scale is another camera's
_FEW_OF_FULL_RANGE = 64  # the same without a scale
_MANY = 64  # or more levels that it has itself
_ENOUGH = 65536  # floats, about, show whether there are so many

Convert = Callable[[Image.Image], np.ndarray]

log = logging.getLogger(__name__)


class ImageError(UserError):
    """An image that cannot be used: ``path`` names the file, ``reason`` says why."""

    def __init__(self, path: StrPath, reason: str) -> None:
        super().__init__(f"{shown(path)}: {reason}")
        self.path = Path(path)
        self.reason = " ".join(str(reason).split())

    def __reduce__(self) -> tuple:
        # Crosses process boundaries (data loading workers), which the two arguments would not without this.
        return type(self), (self.path, self.reason)


class Note(NamedTuple):
    """What is odd about an image that can be read; ``kind`` is the same for all images with the same oddity."""

    kind: str
    text: str  # one line that names the file


class Decoded(NamedTuple):
    """An image that was read."""

    pixels: np.ndarray  # (H, W, 3) uint8, RGB
    notes: list[Note]  # what is odd about it
    depth: str = EIGHT  # what a channel of the file holds, as ``Stored.depth`` says


class Notices:
    """Warns of the first image of each kind of note."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, notes: Iterable[Note]) -> None:
        """Log the notes of an image whose kinds are new."""
        for kind, text in notes:
            if kind not in self._said:
                self._said.add(kind)
                log.warning(text)


def read_image(
    path: StrPath, *, black: float | None = None, white: float | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Read an image as a uint8 (H, W, 3) RGB array, upright.

    ``vitlite.images.modes`` states the rules for modes other than 8-bit colour. An image inside an idx file or a
    CIFAR-10 batch is named ``FILE/NUMBER``, as ``vitlite.images.archives`` says.

    Args:
        path: the file.
        black: the stored number that becomes 0, in a file of more than 8 bits or of floats; default: 0 if ``white`` is
            given, and the lowest number of the file's type if it is not.
        white: the stored number that becomes 255, such as 1023 for a camera of 10 bits; default: the highest number of
            the file's type; 1 for floats. 8-bit files keep 0 to 255 in any case.
        max_pixels: the most pixels that an image may have.

    Raises:
        ImageError: names the file and says why it cannot be read: missing, no permission, a folder, zero bytes, not an
            image, damaged, cut short, of a kind that is not read, or more than ``max_pixels`` pixels.
        UserError: ``black`` is not below ``white``, or is given alone.
    """
    return read_noted(path, Reading(as_scale(black, white), max_pixels)).pixels


def read_noted(path: StrPath, reading: Reading) -> Decoded:
    """``read_image`` as ``reading`` says, and what is odd about the image."""
    found = read_stored(path, reading.max_pixels)[0]
    try:
        pixels = found.rgb(reading.scale)
    except Unusable as error:
        raise ImageError(path, str(error)) from error
    notes = scale_notes(found, reading.scale, shown(path))
    frames = frame_count(path)
    if frames > 1:
        notes.append(Note("frames", f"{shown(path)}: the first of {frames} images in the file is taken"))
    return Decoded(pixels, notes, found.depth)


def read_stored(path: StrPath, max_pixels: int = MAX_PIXELS) -> tuple[Stored, str]:
    """The numbers of an image, upright, and the mode of its file. Raises ImageError as ``read_image`` does."""
    with _opened(path, max_pixels) as image:
        mode = image.mode
        return _upright(image), mode


def scale_notes(found: Stored, scale: Scale | None, name: str) -> list[Note]:
    """What is odd about an image of more than 8 bits on a scale: cut off, or nearly nothing left of it."""
    if not found.wide:
        if scale is None or not scale.black:
            return []
        text = (
            f"has 8 bits and keeps its levels, but this run has the scale {scale} for its files; give files of one kind"
        )
        return [Note("eight", f"{name}: {text}")]
    levels = found.levels
    used = scale or Scale(levels.bottom, levels.top)
    which = f"the scale of this run, {used}" if scale else f"the full range of {levels.type} files, {used}"
    outside = np.count_nonzero((found.values < used.black) | (found.values > used.white))
    if 100 * outside > found.values.size:
        share = 100 * outside / found.values.size
        return [Note("cut", f"{name}: levels {levels} lie outside {which}; {share:.0f} % of its pixels are cut off")]
    # A run without a scale learned from 8-bit images, so that a camera may fill any part of a wider file.
    few = _FEW if scale else _FEW_OF_FULL_RANGE
    low, high = (int(v) for v in to_8bit(np.array([levels.low, levels.high]), used))
    if high - low < few and (levels.bits or scale) and _has_many(found.values, levels):
        return [Note("few", f"{name}: levels {levels} are a small part of {which}; give or learn another scale")]
    return []


def _has_many(values: np.ndarray, levels: Levels) -> bool:
    """Whether an image has many levels itself: if it has few, no scale shows more of them."""
    if levels.bits:
        return levels.high - levels.low >= _MANY
    inner = values[(values >= levels.low) & (values <= levels.high)]
    return len(np.unique(inner[:: max(1, inner.size // _ENOUGH)])) >= _MANY


def frame_count(path: StrPath) -> int:
    """How many images a file holds: pages of a TIFF, frames of an animation. 1 for what cannot be read."""
    if split_entry(path) is not None:
        return 1
    try:
        if is_tiff(path):  # Pillow would have to load the first one anew
            with quiet:
                return tiff.frame_count(path)
        with open_image(path) as image:
            return getattr(image, "n_frames", 1)
    except Exception:  # nearly anything, as in decode, which gives the reason
        return 1


def read_levels(path: StrPath, max_pixels: int = MAX_PIXELS) -> Levels | None:
    """Which numbers an image of more than 8 bits uses; None for 8-bit files, by their header, and unreadable ones."""
    if split_entry(path) is not None:
        return None
    try:
        _require_file(path)
        with open_image(path, max_pixels=max_pixels) as image:
            if not is_wide(image):
                return None
        found = read_stored(path, max_pixels)[0]
    except Exception:  # nearly anything, as in decode, which gives the reason when the image is used
        return None
    return found.levels if found.wide else None


def pixel_count(path: StrPath) -> int:
    """The number of an image's pixels, by the header of its file alone; 0 for what ``read_image`` may refuse.

    Also 0 for an image inside an idx file or a CIFAR-10 batch, which is in memory already.
    """
    if split_entry(path) is not None:
        return 0
    try:
        _require_file(path)
        with open_image(path) as image:
            return image.width * image.height
    except Exception:  # nearly anything, as in decode, which gives the reason
        return 0


def image_size(path: StrPath) -> tuple[int, int]:
    """(height, width) of an upright image. Decodes pixels only to find EXIF data after them. Raises ImageError."""
    try:
        if (place := split_entry(path)) is not None:
            return read_entry(*place).shape[:2]
        with open_image(path) as image:
            turned = orientation(image) >= 5
            if (
                turned and isinstance(image, Image.Image) and image.format == "TIFF"
            ):  # Pillow itself turns these, at the latest while it loads them
                image.load()
                turned = False
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception as error:  # as in decode
        raise ImageError(path, _reason(error)) from error


def convert_image(image: Image.Image, name: str = "image", scale: Scale | None = None) -> Decoded:
    """A Pillow image as what ``read_noted`` gives for its file. Raises ImageError about ``name``.

    Pillow itself keeps 8 bits of 16-bit colour: give such an image before it is loaded, or its path.
    """
    try:
        with quiet:
            found = _upright(image)
            return Decoded(found.rgb(scale), scale_notes(found, scale, name), found.depth)
    except Exception as error:  # as in decode: the image may still have to be read from its file
        raise ImageError(name, _reason(error)) from error


def as_rgb(image: object, name: str, reading: Reading = FULL_RANGE) -> Decoded:
    """A path, a Pillow image or an array as a uint8 array (H, W, 3), RGB, with its notes.

    An array is uint8, or uint16 on the scale of ``reading``, (H, W, 3) RGB or (H, W) grey.

    Raises ImageError, or UserError for what is none of these, about ``name`` if the image has no path.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_noted(image, reading)
    if isinstance(image, Image.Image):
        return convert_image(image, name, reading.scale)
    if not isinstance(image, np.ndarray):
        raise UserError(f"{name}: has the type {type(image).__name__}; give a path, a uint8 array or a PIL image")
    shaped = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    if image.dtype not in (np.uint8, np.uint16) or not shaped or not image.size:
        raise UserError(
            f"{name}: is {image.dtype} of shape {image.shape}; give uint8 or uint16, (H, W, 3) RGB or (H, W) grey"
        )
    found = Stored(image, 0.0, float(np.iinfo(image.dtype).max))
    return Decoded(found.rgb(reading.scale), scale_notes(found, reading.scale, name), found.depth)


def size_text(array: np.ndarray) -> str:
    """Width and height of an array (H, W, ...) for a message."""
    return f"{array.shape[1]}x{array.shape[0]}"


def decode(path: StrPath, convert: Convert, max_pixels: int) -> tuple[np.ndarray, str]:
    """Open, limit, load, convert and turn upright a mask: the array and the file's mode.

    Of colours of more than 8 bits it gives ``convert`` the largest channel. Raises ImageError for any failure, and for
    a file of several images: which of them is the mask, nobody knows.
    """
    if (count := frame_count(path)) > 1:
        raise ImageError(path, f"holds {count} images; save the mask as one")
    with _opened(path, max_pixels) as opened:
        mode = opened.mode
        return upright(convert(_mask(opened)), orientation(opened)), mode


def _mask(opened: Image.Image | PlainTiff) -> Image.Image:
    """What the file of a mask holds, all its bits. Transparency has 8."""
    if isinstance(opened, Image.Image) and (opened.mode in ("RGBA", "RGBa", "LA") or not is_wide(opened)):
        opened.load()
        return opened
    found = stored(opened).values
    return as_pillow(found if found.ndim == 2 else found.max(axis=2))


@contextlib.contextmanager
def _opened(path: StrPath, max_pixels: int) -> Iterator[Image.Image | PlainTiff]:
    """An image that is not too large, not loaded yet. Whatever fails inside becomes an ImageError."""
    place = split_entry(path)
    try:
        if place is not None:
            entry = Image.fromarray(read_entry(*place))
            _limit(entry, max_pixels)
            yield entry
            return
        _require_file(path)
        if is_torn(path):
            raise Unusable(
                "ends in zeros in the place of pixels: it was not written or copied to its end; copy it again"
            )
        with open_image(path, max_pixels=max_pixels) as image:
            _limit(image, max_pixels)
            yield image
    except ImageError:
        raise
    except Exception as error:  # damaged files make Pillow raise nearly anything: struct.error, KeyError, SyntaxError
        raise ImageError(path, _reason(error)) from error


def _upright(image: Image.Image | PlainTiff) -> Stored:
    found = stored(image)
    if found.opaque is not None and not found.opaque.any():
        raise Unusable(NOTHING_SEEN)
    turn = orientation(image)
    opaque = None if found.opaque is None else upright(found.opaque, turn)
    return found._replace(values=upright(found.values, turn), opaque=opaque)


def _limit(image: Image.Image | PlainTiff, max_pixels: int) -> None:
    if not 0 < image.width * image.height <= max_pixels:
        megapixels = f"max_megapixels={max_pixels / 1e6:g}"
        raise Unusable(f"{image.width} x {image.height} pixels, over the limit of {max_pixels} ({megapixels})")


def _require_file(path: StrPath) -> None:
    """Only regular files: opening a named pipe would wait for ever."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise ImageError(path, _reason(error)) from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(path, "is a folder, not an image")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(path, "is not a regular file")
    if status.st_size == 0:
        raise ImageError(path, "is empty (0 bytes)")


def _reason(error: Exception) -> str:
    if isinstance(error, Unusable):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, UnidentifiedImageError):
        return "is not an image, or its header is damaged"
    if isinstance(error, Image.DecompressionBombError):
        return "has too many pixels to be read without a higher limit (max_megapixels)"
    if isinstance(error, MemoryError):
        return NO_ROOM
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"cannot be decoded ({str(error) or type(error).__name__})"
