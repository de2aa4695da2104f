"""Pictures and masks from files to 8-bit arrays, whatever mode they are stored in.

How a stored value becomes 8 bits (one rule for all files of a kind, so that pictures of one camera stay comparable):

- 8-bit modes are taken as they are; 1-bit is 0 and 255; palettes are looked up; 16-bit colour keeps its high byte.
- 16-bit grey: 0..65535 maps to 0..255, rounded. A 12-bit camera that fills only 0..4095 therefore comes out dark, which
  ``vitlite data check`` reports: rescaling each picture by its own range would hide differences between pictures.
- 32-bit and signed integers: the first of 0..65535, -32768..32767, 0..2^31-1, -2^31..2^31-1 that holds the picture's
  values maps to 0..255.
- Floats: the first of 0..1, 0..255, 0..65535 that reaches the largest value maps to 0..255, 5 % overshoot on both sides
  is clipped; anything else, and values that are not finite, is an ImageError.
- A transparent pixel is black, half transparent ones are blended with black. Colour profiles are not applied.
- The orientation in the EXIF data is applied. Of several frames the first is read.
"""

import contextlib
import ctypes
import logging
import os
import stat
import threading
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vitlite.errors import UserError
from vitlite.files import shown
from vitlite.images.archives import ArchiveError, read_entry, split_entry

# Below Pillow's own hard limit (twice Image.MAX_IMAGE_PIXELS), and enough for a 16k line-scan picture.
MAX_PIXELS = 150_000_000

# Only formats with a signature and without side effects: Pillow would hand an EPS file to Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM", "MPO", "JPEG2000", "AVIF")
_INTEGER_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
_INTEGER_RANGES = ((0, 65535), (-32768, 32767), (0, 2**31 - 1), (-(2**31), 2**31 - 1))
_FLOAT_SCALES = (1.0, 255.0, 65535.0)
_OVERSHOOT = 0.05
_ORIENTATION = 0x0112

# Without a handler of its own, Pillow's log records would reach the terminal through logging's last resort.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def _silence_libtiff():
    """Stop libtiff from printing about damaged files on stderr, past Python: the error says it with the file's name."""
    with contextlib.suppress(OSError, AttributeError, ImportError):  # where Pillow hides the library, it stays as it is
        ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


_silence_libtiff()  # at import, for whoever else of this package reads TIFF files with Pillow


class ImageError(UserError):
    """A picture that cannot be used: ``path`` names the file, ``reason`` says why."""

    def __init__(self, path, reason: str):
        super().__init__(f"{shown(path)}: {reason}")
        self.path = Path(path)
        self.reason = " ".join(str(reason).split())

    def __reduce__(self):
        # Crosses process boundaries (data loading workers), which the two arguments would not without this.
        return type(self), (self.path, self.reason)


def read_image(path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a picture as a uint8 (H, W, 3) RGB array, upright.

    The rules for modes other than 8-bit colour are at the top of this file. Raises ImageError, which names the file,
    for everything that cannot be read: missing, no permission, a folder, zero bytes, not an image, corrupt, cut short,
    or more than ``max_pixels`` pixels (Pillow's own limit, twice ``PIL.Image.MAX_IMAGE_PIXELS``, holds besides).
    A picture of an idx file or a CIFAR-10 batch is named ``FILE/NUMBER``, as ``vitlite.images.archives`` says.
    """
    return decode(path, _rgb8, max_pixels)[0]


def pixel_count(path) -> int:
    """How many pixels a picture has, by the header of its file alone; 0 for what ``read_image`` may refuse.

    Also 0 for a picture of an idx file or a CIFAR-10 batch, which is in memory already.
    """
    if split_entry(path) is not None:
        return 0
    try:
        _require_file(path)
        with _quiet, Image.open(path, formats=_formats()) as image:
            return image.width * image.height
    except Exception:  # nearly anything, as in decode, where the reason is given
        return 0


def convert_image(image: Image.Image, name: str = "image") -> np.ndarray:
    """A Pillow image as the array that ``read_image`` gives for its file. Raises ImageError about ``name``."""
    try:
        with _quiet:
            image.load()
            return _upright(_rgb8(image), _orientation(image))
    except Exception as error:  # as in decode: the picture may still have to be read from its file
        raise ImageError(name, _reason(error)) from error


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def decode_rgb(path) -> tuple[np.ndarray, str]:
    """``read_image`` and the mode that the file is stored in."""
    return decode(path, _rgb8, MAX_PIXELS)


def decode(path, convert, max_pixels: int) -> tuple[np.ndarray, str]:
    """Open, limit, load, convert and turn upright; every failure becomes an ImageError."""
    place = split_entry(path)
    if place is not None:
        return _decode_entry(path, place, convert, max_pixels)
    _require_file(path)
    try:
        with _quiet, Image.open(path, formats=_formats()) as image:
            if not 0 < image.width * image.height <= max_pixels:
                raise _Unusable(f"{image.width} x {image.height} pixels, over the limit of {max_pixels}")
            mode = image.mode
            image.load()
            return _upright(convert(image), _orientation(image)), mode
    except (
        Exception
    ) as error:  # Damaged files make Pillow raise nearly anything: struct.error, KeyError, SyntaxError ...
        raise ImageError(path, _reason(error)) from error


def _decode_entry(path, place, convert, max_pixels: int) -> tuple[np.ndarray, str]:
    try:
        array = read_entry(*place)
        if array.shape[0] * array.shape[1] > max_pixels:
            raise _Unusable(f"{_size(array)} pixels, over the limit of {max_pixels}")
        image = Image.fromarray(array)
        return convert(image), image.mode
    except (ArchiveError, _Unusable, MemoryError) as error:
        raise ImageError(path, _reason(error)) from error


class _Unusable(ValueError):
    """A readable file whose content cannot be used; the message is the reason."""


class _QuietPillow:
    """Ignores Pillow's Python warnings while any thread decodes.

    ``warnings.catch_warnings`` saves and restores a process-wide state, so threads that overlap would leave each
    other's filters behind. Counting the threads keeps one save and one restore.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._depth = 0

    def __enter__(self):
        with self._lock:
            if self._depth == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
            self._depth += 1

    def __exit__(self, *_):
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._saved.__exit__(None, None, None)


_quiet = _QuietPillow()


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    # An older Pillow lacks the newest plugins, and Image.open fails on a format that it does not know.
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _require_file(path):
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
    if isinstance(error, (_Unusable, ArchiveError)):
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
        return "does not fit into memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"cannot be decoded ({str(error) or type(error).__name__})"


def _rgb8(image: Image.Image) -> np.ndarray:
    if image.mode in _INTEGER_MODES or image.mode == "F":
        grey = _scaled(image)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.array(_without_alpha(image).convert("RGB"))


def _without_alpha(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    if image.mode == "La":  # premultiplied grey has no direct way to RGBA
        image = image.convert("LA")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")


def _scaled(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    return _float_to_8(values) if values.dtype.kind == "f" else _integer_to_8(values)


def _integer_to_8(values: np.ndarray) -> np.ndarray:
    lowest, highest = int(values.min()), int(values.max())
    low, high = next(r for r in _INTEGER_RANGES if r[0] <= lowest and highest <= r[1])
    # For 0..65535 this is (v + 128) // 257, so that 8-bit values stored as v * 257 come back exactly.
    return np.rint((values.astype(np.float64) - low) * (255.0 / (high - low))).astype(np.uint8)


def _float_to_8(values: np.ndarray) -> np.ndarray:
    lowest, highest = float(values.min()), float(values.max())
    if not np.isfinite((lowest, highest)).all():
        raise _Unusable("holds values that are not finite numbers")
    scale = next((scale for scale in _FLOAT_SCALES if highest <= (1 + _OVERSHOOT) * scale), None)
    if scale and lowest >= -_OVERSHOOT * scale:
        return np.rint(np.clip(values, 0, scale) * (255.0 / scale)).astype(np.uint8)
    raise _Unusable(f"float values from {lowest:g} to {highest:g}: rescale the files to 0..1, 0..255 or 0..65535")


def _orientation(image: Image.Image) -> int:
    # Read after loading: Pillow turns TIFF files itself while it loads them and then removes the tag.
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # The pixels are fine; a damaged EXIF block only loses the orientation.
        return 1


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (TIFF 6.0, tag 274) to a (H, W, ...) array."""
    if orientation in (5, 7):
        array = np.swapaxes(array, 0, 1)
    if orientation in (2, 4):
        array = np.flip(array, axis=0 if orientation == 4 else 1)
    turns = {3: 2, 6: -1, 7: 2, 8: 1}
    if orientation in turns:
        array = np.rot90(array, turns[orientation])
    return np.ascontiguousarray(array)
