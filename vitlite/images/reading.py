"""Image files to 8-bit arrays; modes.py has the rules for what is not stored as 8-bit colour."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vitlite.errors import UserError
from vitlite.files import StrPath, shown
from vitlite.images.archives import read_entry, split_entry
from vitlite.images.modes import Unusable, orientation, rgb8, upright
from vitlite.images.pillow import open_image, quiet

# Below Pillow's own hard limit (twice Image.MAX_IMAGE_PIXELS), and enough for a 16k line-scan image.
MAX_PIXELS = 150_000_000

NO_ROOM = "does not fit into memory"

Convert = Callable[[Image.Image], np.ndarray]


class ImageError(UserError):
    """An image that cannot be used: ``path`` names the file, ``reason`` says why."""

    def __init__(self, path: StrPath, reason: str) -> None:
        super().__init__(f"{shown(path)}: {reason}")
        self.path = Path(path)
        self.reason = " ".join(str(reason).split())

    def __reduce__(self) -> tuple:
        # Crosses process boundaries (data loading workers), which the two arguments would not without this.
        return type(self), (self.path, self.reason)


def read_image(path: StrPath, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an image as a uint8 (H, W, 3) RGB array, upright.

    ``vitlite.images.modes`` states the rules for modes other than 8-bit colour. An image inside an idx file or a
    CIFAR-10 batch is named ``FILE/NUMBER``, as ``vitlite.images.archives`` says.

    Raises:
        ImageError: names the file and says why it cannot be read: missing, no permission, a folder, zero bytes, not an
            image, damaged, cut short, or more than ``max_pixels`` pixels. Pillow's own limit, twice
            ``PIL.Image.MAX_IMAGE_PIXELS``, also holds.
    """
    return decode(path, rgb8, max_pixels)[0]


def decode_rgb(path: StrPath) -> tuple[np.ndarray, str]:
    """``read_image``, and the Pillow mode that the file is stored in."""
    return decode(path, rgb8, MAX_PIXELS)


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
        with open_image(path) as image:
            turned = orientation(image) >= 5
            if turned and image.format == "TIFF":  # Pillow itself turns these, at the latest while it loads them
                image.load()
                turned = False
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception as error:  # as in decode
        raise ImageError(path, _reason(error)) from error


def convert_image(image: Image.Image, name: str = "image") -> np.ndarray:
    """A Pillow image as the array that ``read_image`` gives for its file. Raises ImageError about ``name``."""
    try:
        with quiet:
            image.load()
            return upright(rgb8(image), orientation(image))
    except Exception as error:  # as in decode: the image may still have to be read from its file
        raise ImageError(name, _reason(error)) from error


def as_rgb(image: object, name: str) -> np.ndarray:
    """A path, a Pillow image or a uint8 array (H, W, 3) or (H, W) as a uint8 array (H, W, 3).

    Raises ImageError, or UserError for what is none of these, about ``name`` if the image has no path.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return convert_image(image, name)
    if not isinstance(image, np.ndarray):
        raise UserError(f"{name}: has the type {type(image).__name__}; give a path, a uint8 array or a PIL image")
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)) or not image.size:
        raise UserError(f"{name}: is {image.dtype} of shape {image.shape}; give uint8 (H, W, 3) RGB or (H, W) grey")
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


def size_text(array: np.ndarray) -> str:
    """Width and height of an array (H, W, ...) for a message."""
    return f"{array.shape[1]}x{array.shape[0]}"


def decode(path: StrPath, convert: Convert, max_pixels: int) -> tuple[np.ndarray, str]:
    """Open, limit, load, convert and turn upright: the array and the file's mode. Raises ImageError for any failure."""
    place = split_entry(path)
    try:
        if place is not None:
            image = Image.fromarray(read_entry(*place))
            _limit(image, max_pixels)
            return convert(image), image.mode
        _require_file(path)
        with open_image(path) as image:
            _limit(image, max_pixels)
            mode = image.mode
            image.load()
            return upright(convert(image), orientation(image)), mode
    except ImageError:
        raise
    except Exception as error:  # damaged files make Pillow raise nearly anything: struct.error, KeyError, SyntaxError
        raise ImageError(path, _reason(error)) from error


def _limit(image: Image.Image, max_pixels: int) -> None:
    if not 0 < image.width * image.height <= max_pixels:
        raise Unusable(f"{image.width} x {image.height} pixels, over the limit of {max_pixels}")


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
        return "has too many pixels to be read safely"
    if isinstance(error, MemoryError):
        return NO_ROOM
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"cannot be decoded ({str(error) or type(error).__name__})"
