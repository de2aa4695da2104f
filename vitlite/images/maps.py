"""Anomaly maps on disk, as the official MVTec AD evaluation scripts have them.

A file (``.tiff``, ``.tif`` or ``.npy``) holds the map of one test image: one channel, at the image's original
resolution.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from vitlite.errors import UserError
from vitlite.files import StrPath, atomic, shown
from vitlite.images.pillow import open_image
from vitlite.images.png import SOFTWARE
from vitlite.images.tiff import PlainTiff
from vitlite.images.unusable import Unusable

MAP_EXTENSIONS = (".tiff", ".tif", ".npy")
_SOFTWARE_TAG = 305  # of TIFF


class MapError(UserError):
    """A file that does not hold a usable map: ``kind`` for the list of problems, ``reason`` why."""

    def __init__(self, path: StrPath, kind: str, reason: str) -> None:
        super().__init__(f"{shown(path)}: {reason}")
        self.path, self.kind, self.reason = path, kind, reason

    def __reduce__(self) -> tuple:
        # Crosses process boundaries, as ImageError does.
        return type(self), (self.path, self.kind, self.reason)


def read_map(path: StrPath) -> np.ndarray:
    """Read one map: (H, W) of the file's own real dtype.

    Raises MapError for a file that cannot be read, holds more than one channel or anything but real finite numbers.
    Floats of 16 and 64 bits are read if the file is not compressed; save such maps as ``.npy`` otherwise.
    """
    path = Path(path)
    try:
        values = np.load(path, allow_pickle=False) if path.suffix.lower() == ".npy" else _read_tiff(path)
    except MapError:
        raise
    except Exception as error:  # a damaged file makes Pillow and numpy raise nearly anything
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise MapError(path, "unreadable", f"cannot be read as a map ({reason})") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        kind = getattr(values, "dtype", "an archive")
        raise MapError(path, "unreadable", f"holds {kind}, not real numbers")
    if values.ndim != 2 or values.size == 0:
        raise MapError(path, "wrong-sized", f"has shape {values.shape}; a map is one channel, (H, W)")
    if not np.isfinite(values).all():
        raise MapError(path, "not finite", "holds values that are not finite")
    return values


def _read_tiff(path: Path) -> np.ndarray:
    with open_image(path, formats=("TIFF",)) as image:
        frames = getattr(image, "n_frames", 1)
        if frames != 1:
            raise MapError(path, "wrong-sized", f"holds {frames} pages; a map is one")
        if isinstance(image, PlainTiff):
            try:
                return image.values()
            except Unusable as error:
                raise MapError(path, "unreadable", str(error)) from error
        if image.mode == "P":
            raise MapError(path, "unreadable", "is a palette image, not a map")
        return np.array(image)


def write_map(path: StrPath, values: np.ndarray) -> None:
    """Write one map (H, W) as a 32-bit float TIFF, atomically. The folder must exist.

    Raises UserError if it cannot be written, ValueError for another shape.
    """
    values = np.asarray(values)
    if values.ndim != 2:
        raise ValueError(f"values has shape {values.shape}; a map is (H, W)")
    with atomic(path, "wb") as file:
        Image.fromarray(np.ascontiguousarray(values, np.float32)).save(file, format="TIFF", software=SOFTWARE)


def is_own(path: StrPath) -> bool:
    """Whether ``write_map`` or ``write_png`` wrote a file; versions before 0.2.0 did not say so in theirs."""
    try:
        with open_image(path, formats=("PNG", "TIFF")) as image:
            tags = image.tag_v2 if isinstance(image, (TiffImageFile, PlainTiff)) else {}
            said = image.info if isinstance(image, Image.Image) else {}
            return SOFTWARE in (tags.get(_SOFTWARE_TAG), said.get("Software"))
    except Exception:  # a damaged file makes Pillow raise nearly anything
        return False
