"""Ground-truth masks from files to arrays of 0 and 1."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitlite.files import StrPath
from vitlite.images.mask_evidence import rule_of_file
from vitlite.images.mask_values import ANY_VALUE, MaskRule, defects
from vitlite.images.reading import MAX_PIXELS, ImageError, decode, size_text


@dataclass(frozen=True)
class MaskFiles:
    """The mask of one image, with the rule to read it; ``read_mask`` takes it in place of a path.

    A pixel is defective if it is in any of ``files``.
    """

    files: tuple[Path, ...]  # at least one
    rule: MaskRule = field(default=ANY_VALUE)

    def __fspath__(self) -> str:
        return os.fspath(self.files[0] if len(self.files) == 1 else self.files[0].parent)

    def __str__(self) -> str:
        return os.fspath(self)


def files_of(mask: Path | MaskFiles) -> tuple[Path, ...]:
    """The files that a mask is read from."""
    return mask.files if isinstance(mask, MaskFiles) else (mask,)


def read_mask(
    path: StrPath | MaskFiles,
    *,
    threshold: int | None = None,
    rule: MaskRule | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Read a ground-truth mask as a uint8 (H, W) array of 0 and 1.

    One file does not always say what its values mean: ``vitlite.data.with_mask_rules`` finds one rule from all masks of
    a category, and puts it into the ``MaskFiles`` of each sample.

    Args:
        path: a file, or the ``MaskFiles`` of a sample, which is one mask from all of its files, with their rule.
        threshold: a pixel is defective if its value is above it (0 to 65534; of up to 8 bits, or as stored if wider).
        rule: when a pixel is defective, if not by ``threshold``. Default: the rule of ``MaskFiles``; for a path, what
            the values of this file alone say.
        max_pixels: the largest mask that is read.

    Raises:
        ImageError: as ``read_image`` does; also for a path without rule if the values of the file fit none.
        UserError: the threshold is not 0 to 65534.
    """
    if threshold is not None:
        rule = MaskRule.above(threshold)
    if isinstance(path, MaskFiles):
        return _united(path, rule or path.rule, max_pixels)
    own = rule or rule_of_file(path, max_pixels)
    return decode(path, lambda image: defects(image, own), max_pixels)[0]


def _united(mask: MaskFiles, rule: MaskRule, max_pixels: int) -> np.ndarray:
    first, *others = mask.files
    united = read_mask(first, rule=rule, max_pixels=max_pixels)
    for path in others:
        part = read_mask(path, rule=rule, max_pixels=max_pixels)
        if part.shape != united.shape:
            raise ImageError(path, f"is {size_text(part)}, but {size_text(united)} in {first.name} of the same image")
        united |= part
    return united
