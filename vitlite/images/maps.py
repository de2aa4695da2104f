"""Anomaly maps on disk, in the layout of the official MVTec AD evaluation scripts, checked and scored.

``MAPS/<category>/test/<defect>/<stem>.tiff`` (or ``.tif``, ``.npy``): one map for each test picture of the data set,
one channel, at the picture's original resolution. Needs no torch.
"""

from pathlib import Path

import numpy as np
from PIL import Image

import vitlite.images.reading  # noqa: F401 - keeps libtiff from printing
from vitlite.errors import UserError
from vitlite.files import atomic, shown

MAP_EXTENSIONS = (".tiff", ".tif", ".npy")
_BITS, _ORIENTATION = 258, 274  # TIFF tags


class MapError(UserError):
    """A file that does not hold a usable map: ``kind`` for the list of problems, ``reason`` why."""

    def __init__(self, path, kind: str, reason: str):
        super().__init__(f"{shown(path)}: {reason}")
        self.kind, self.reason = kind, reason


def read_map(path) -> np.ndarray:
    """Read one map: (H, W) of the file's own real dtype.

    Raises MapError for a file that cannot be read, holds more than one channel or anything but real finite numbers.
    A 64-bit TIFF is refused, because Pillow would round it; save such maps as ``.npy``.
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
        raise MapError(path, "not-a-number", "holds not-a-number or infinite values")
    return values


def _read_tiff(path):
    with Image.open(path, formats=("TIFF",)) as image:
        if getattr(image, "n_frames", 1) != 1:
            raise MapError(path, "wrong-sized", f"holds {image.n_frames} pages; a map is one")
        if max(np.atleast_1d(image.tag_v2.get(_BITS, 1))) > 32:
            raise MapError(path, "unreadable", "is a 64-bit TIFF; save it as 32-bit float, or as .npy")
        if image.mode == "P":
            raise MapError(path, "unreadable", "is a palette picture, not a map")
        return np.array(image)


def write_map(path, values):
    """Write one map (H, W) as a 32-bit float TIFF, atomically. The folder must exist.

    Raises UserError where it cannot be written.
    """
    values = np.asarray(values)
    if values.ndim != 2:
        raise ValueError(f"values has shape {values.shape}; a map is (H, W)")
    with atomic(path, "wb") as file:
        Image.fromarray(np.ascontiguousarray(values, np.float32)).save(file, format="TIFF")


def picture_size(path) -> tuple[int, int]:
    """(height, width) of a picture, upright, from its header alone."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
    except Exception as error:  # as for reading maps
        raise UserError(f"{shown(path)}: is not a picture that can be read ({error})") from error
    return (width, height) if turned else (height, width)
