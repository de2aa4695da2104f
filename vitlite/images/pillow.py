"""Pillow as this package uses it: known formats only, and silent."""

import contextlib
import ctypes
import logging
import threading
import warnings
from collections.abc import Iterator
from functools import lru_cache

from PIL import Image, UnidentifiedImageError

from vitlite.files import StrPath
from vitlite.images.tiff import PlainTiff, has_planes_apart, is_tiff

# Only formats with a signature and without side effects: Pillow would hand an EPS file to Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM", "MPO", "JPEG2000", "AVIF")

# Without a handler of its own, Pillow's log records would reach the terminal through logging's last resort.
logging.getLogger("PIL").addHandler(logging.NullHandler())
# libtiff prints about damaged files on stderr, past Python; the error says it with the file's name.
with contextlib.suppress(OSError, AttributeError, ImportError):  # if Pillow hides the library, it stays as it is
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


@contextlib.contextmanager
def open_image(
    path: StrPath, formats: tuple[str, ...] | None = None, *, max_pixels: int = 0
) -> Iterator[Image.Image | PlainTiff]:
    """``Image.open`` for the known formats (or those given). Inside the block Pillow's warnings are ignored.

    Pillow's own limit on pixels rises to ``max_pixels``. A TIFF file that Pillow does not read rightly is a PlainTiff.
    """
    with quiet, contextlib.ExitStack() as stack:
        if max_pixels > unlimited.limit:
            stack.enter_context(unlimited)
        opened: Image.Image | PlainTiff
        try:
            opened = stack.enter_context(Image.open(path, formats=formats or _formats()))
            if opened.format == "TIFF" and has_planes_apart(opened.tag_v2):  # type: ignore[attr-defined]
                opened = PlainTiff(path)
        except UnidentifiedImageError:
            if not is_tiff(path):
                raise
            opened = PlainTiff(path)
        yield opened


class _Unlimited:
    """Takes Pillow's limit on pixels away while any thread opens an image for which a higher one is asked."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a collector may end an abandoned block here, within another
        self._depth = 0
        self._saved: int | None = None

    @property
    def limit(self) -> float:
        """The number of pixels above which ``Image.open`` refuses a file otherwise."""
        with self._lock:
            usual = self._saved if self._depth else Image.MAX_IMAGE_PIXELS
        return 2 * usual if usual else float("inf")

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                Image.MAX_IMAGE_PIXELS = self._saved


unlimited = _Unlimited()


class _QuietPillow:
    """Ignores Pillow's Python warnings while any thread decodes.

    ``warnings.catch_warnings`` saves and restores a process-wide state, so threads that overlap would leave each
    other's filters behind. Counting the threads keeps one save and one restore.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a collector may end an abandoned block here, within another
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
