"""Ground-truth masks from files to arrays of 0 and 1."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitlite.errors import UserError
from vitlite.files import StrPath
from vitlite.images.modes import grey8
from vitlite.images.reading import MAX_PIXELS, ImageError, decode, size_text

MASK_THRESHOLD = 127
MASK_RULE = f"8-bit mask value above {MASK_THRESHOLD}; above 0 if the largest value is 1"


@dataclass(frozen=True)
class MaskFiles:
    """The mask of one image, if a plain path would not say enough; ``read_mask`` takes it in place of a path.

    A pixel is defective if its 8-bit value in any of ``files`` is greater than ``threshold``.
    """

    files: tuple[Path, ...]  # at least one
    threshold: int = 0

    def __fspath__(self) -> str:
        return os.fspath(self.files[0] if len(self.files) == 1 else self.files[0].parent)

    def __str__(self) -> str:
        return os.fspath(self)

    @property
    def rule(self) -> str:
        """When a pixel is defective, in words."""
        return f"any mask value above {self.threshold}" + (", in any of the image's masks" * (len(self.files) > 1))


def files_of(mask: Path | MaskFiles) -> tuple[Path, ...]:
    """The files that a mask is read from."""
    return mask.files if isinstance(mask, MaskFiles) else (mask,)


def read_mask(
    path: StrPath | MaskFiles, *, threshold: int = MASK_THRESHOLD, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Read a ground-truth mask as a uint8 (H, W) array of 0 and 1.

    A pixel is defective if its 8-bit value is greater than ``threshold`` (0..254). If there are colours, also those of
    a palette, the largest channel counts: a pure red mark is a mark. There are two exceptions, because masks are often
    saved with small numbers. If the largest stored value is 1, every non-zero pixel is defective. Integers wider than 8
    bits that stay within 0..255 are taken as 8-bit values.

    A ``MaskFiles``, which some data sets have in place of a path, is one mask from all of its files, with its own
    threshold. Raises ImageError as ``read_image`` does.
    """
    if isinstance(path, MaskFiles):
        return _united(path, max_pixels)
    return binarize(decode(path, grey8, max_pixels)[0], threshold)


def _united(mask: MaskFiles, max_pixels: int) -> np.ndarray:
    first, *others = mask.files
    united = read_mask(first, threshold=mask.threshold, max_pixels=max_pixels)
    for path in others:
        part = read_mask(path, threshold=mask.threshold, max_pixels=max_pixels)
        if part.shape != united.shape:
            raise ImageError(path, f"is {size_text(part)}, but {size_text(united)} in {first.name} of the same image")
        united |= part
    return united


def binarize(values: np.ndarray, threshold: int = MASK_THRESHOLD) -> np.ndarray:
    """8-bit mask values (H, W) to 0 and 1, by the rule that ``read_mask`` states."""
    if not 0 <= threshold <= 254:
        raise UserError(f"`threshold={threshold}`: must be 0 to 254")
    if values.max() == 1:
        threshold = 0
    return (values > threshold).astype(np.uint8)


def decode_grey(path: StrPath) -> tuple[np.ndarray, str]:
    """The 8-bit values (H, W) that ``read_mask`` compares with its threshold, and the mode of the file."""
    return decode(path, grey8, MAX_PIXELS)
