"""Pillow as this package uses it: known formats only, and silent."""

import contextlib
import ctypes
import logging
import threading
import warnings
from collections.abc import Iterator
from functools import lru_cache

from PIL import Image

from vitlite.files import StrPath

# Only formats with a signature and without side effects: Pillow would hand an EPS file to Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM", "MPO", "JPEG2000", "AVIF")

# Without a handler of its own, Pillow's log records would reach the terminal through logging's last resort.
logging.getLogger("PIL").addHandler(logging.NullHandler())
# libtiff prints about damaged files on stderr, past Python; the error says it with the file's name.
with contextlib.suppress(OSError, AttributeError, ImportError):  # if Pillow hides the library, it stays as it is
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


@contextlib.contextmanager
def open_image(path: StrPath, formats: tuple[str, ...] | None = None) -> Iterator[Image.Image]:
    """``Image.open`` for the known formats (or those given). Inside the block Pillow's warnings are ignored."""
    with quiet, Image.open(path, formats=formats or _formats()) as image:
        yield image


class _QuietPillow:
    """Ignores Pillow's Python warnings while any thread decodes.

    ``warnings.catch_warnings`` saves and restores a process-wide state, so threads that overlap would leave each
    other's filters behind. Counting the threads keeps one save and one restore.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._saved = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._saved.__exit__(None, None, None)


quiet = _QuietPillow()


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    # An older Pillow lacks the newest plugins, and Image.open fails on a format that it does not know.
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)
