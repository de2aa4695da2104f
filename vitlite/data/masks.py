"""Masks that are more than one file, or whose values follow a rule of their own."""

import os
from dataclasses import dataclass
from pathlib import Path


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
