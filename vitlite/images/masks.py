"""Ground-truth masks from files to arrays of 0 and 1."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vitlite.errors import UserError
from vitlite.images.reading import _INTEGER_MODES, MAX_PIXELS, ImageError, _scaled, _size, _without_alpha, decode


@dataclass(frozen=True)
class MaskFiles:
    """The mask of one picture where a plain path would not say enough; ``read_mask`` takes it in place of a path.

    A pixel is defective where the 8-bit value of any of ``files`` is greater than ``threshold``.
    """

    files: tuple[Path, ...]  # at least one
    threshold: int = 0

    def __fspath__(self):
        return os.fspath(self.files[0] if len(self.files) == 1 else self.files[0].parent)

    def __str__(self):
        return os.fspath(self)

    @property
    def rule(self) -> str:
        """When a pixel is defective, in words."""
        return f"any mask value above {self.threshold}" + (", in any of the picture's masks" * (len(self.files) > 1))


def files_of(mask: Path | MaskFiles) -> tuple[Path, ...]:
    """The files that a mask is read from."""
    return mask.files if isinstance(mask, MaskFiles) else (mask,)


MASK_THRESHOLD = 127


MASK_RULE = f"8-bit mask value above {MASK_THRESHOLD}; above 0 where the largest value is 1"


def read_mask(path, *, threshold: int = MASK_THRESHOLD, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a ground-truth mask as a uint8 (H, W) array of 0 and 1.

    A pixel is defective where its 8-bit value is greater than ``threshold`` (0..254). Of colours, also from a palette,
    the largest channel counts: a pure red mark is a mark. Two exceptions, because masks are often saved with small
    numbers: where the largest stored value is 1, every non-zero pixel is defective; integers wider than 8 bits that
    stay within 0..255 are taken as 8-bit values. A ``MaskFiles``, as some data sets have them in place of a path, is
    one mask from all of its files, by its own threshold. Raises ImageError as ``read_image`` does.
    """
    if isinstance(path, MaskFiles):
        return _united(path, max_pixels)
    return binarize(decode(path, _grey8, max_pixels)[0], threshold)


def _united(mask: MaskFiles, max_pixels: int) -> np.ndarray:
    united = None
    for path in mask.files:
        part = read_mask(path, threshold=mask.threshold, max_pixels=max_pixels)
        if united is not None and part.shape != united.shape:
            raise ImageError(path, f"is {_size(part)}, but {_size(united)} in {mask.files[0].name} of the same picture")
        united = part if united is None else united | part
    return united


def binarize(values: np.ndarray, threshold: int = MASK_THRESHOLD) -> np.ndarray:
    """8-bit mask values (H, W) to 0 and 1, by the rule that ``read_mask`` states."""
    if not 0 <= threshold <= 254:
        raise UserError(f"mask threshold {threshold} is out of range: choose 0 to 254")
    if values.max() == 1:
        threshold = 0
    return (values > threshold).astype(np.uint8)


def decode_grey(path) -> tuple[np.ndarray, str]:
    """The 8-bit values (H, W) that ``read_mask`` compares with its threshold, and the mode of the file."""
    return decode(path, _grey8, MAX_PIXELS)


def _grey8(image: Image.Image) -> np.ndarray:
    if image.mode in _INTEGER_MODES:
        values = np.asarray(image)
        return values.astype(np.uint8) if values.min() >= 0 and values.max() <= 255 else _scaled(image)
    if image.mode == "F":
        return _scaled(image)
    image = _without_alpha(image)
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))
    return np.array(image.convert("RGB")).max(axis=2)
