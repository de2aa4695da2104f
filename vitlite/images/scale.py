"""How numbers of more than 8 bits become 0 to 255: one scale for all images of a run, from black to white.

A file type says little about a camera: 10 bits in a 16-bit file use a 64th of its range. So training learns the scale
from its images, and whatever reads an image later uses the same one: what one file holds decides nothing. The rule, in
``choose``, with the levels that the training images use:

- Of each image the brightest pixel in 1000 and the darkest, at least one of each, do not count: hot and dead pixels.
  Of each category one image in 20 does not count at either end.
- Integers that are not negative: black is 0, and white the end of the smallest depth of a camera (8, 10, 12, 14, 16 ...
  bits) that holds the levels. Floats: black is 0, and white the first of 1, 255, 1023, 4095, 16383 and 65535.
- If the levels use less than a quarter of that, and integers of more than 8 bits also begin further from 0 than they
  extend, there is an offset or another unit; as there is if they are negative. Then black and white lie around the
  levels, half their extent further out on either side, but not below 0 for numbers that are not negative.
- If all images have the same level, nothing is learned: the full range of the files' type stays.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from vitlite.errors import UserError
from vitlite.files import MAX_MEGAPIXELS
from vitlite.images.regions import Regions

MAX_PIXELS = int(MAX_MEGAPIXELS * 1e6)
DEPTHS = range(8, 33, 2)  # bits
FLOAT_WHITES = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)
OVERSHOOT = 0.05  # of floats, beyond black and white: what filters and interpolation leave
_IGNORED_PIXELS = 1000  # one in so many
_IGNORED_IMAGES = 20
_LEAST_EXTENT = 128  # levels of integers: closer ones are not drawn apart further
_BLOCK = 1 << 20  # values that are converted at a time

EITHER = "say both, as in `white=1023` and `black=0`"


class Scale(NamedTuple):
    """The numbers that become 0 and 255."""

    black: float
    white: float

    def __str__(self) -> str:
        return f"{self.black:g} to {self.white:g}"


@dataclass(frozen=True)
class Reading:
    """How images are read: with which scale, and up to which size."""

    scale: Scale | None = None  # None: the full range of a file's type
    max_pixels: int = MAX_PIXELS
    regions: Regions | None = None  # where to look; None: everywhere

    def of(self, category: str | None) -> "Reading":
        """That of the images of one category, wherever these lie."""
        return self if self.regions is None else replace(self, regions=self.regions.of(category))


class Levels(NamedTuple):
    """Which numbers an image, or many of them, use."""

    low: float
    high: float
    bottom: float  # the range of the file's type
    top: float
    bits: int  # of the file's type; 0: floats

    @property
    def type(self) -> str:
        """The type of the files, in words."""
        return f"{self.bits}-bit" if self.bits else "float"

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


def as_scale(black: float | None, white: float | None) -> Scale | None:
    """The scale that two arguments stand for; without ``black`` it begins at 0. ``UserError`` if it is none."""
    if white is None:
        if black is not None:
            raise UserError(f"`black={black:g}`: needs `white` too, as in white=1023")
        return None
    low = 0.0 if black is None else black
    if not (math.isfinite(low) and math.isfinite(white) and low < white):
        raise UserError(f"`white={white:g}`: must be finite and above black={low:g}")
    return Scale(float(low), float(white))


def as_pixels(max_megapixels: float) -> int:
    """A limit in megapixels as a number of pixels. ``UserError`` unless it is above 0 and finite."""
    if not 0 < max_megapixels < math.inf:
        raise UserError(f"`max_megapixels={max_megapixels}`: must be above 0 and finite")
    return max(1, round(max_megapixels * 1e6))


def to_8bit(values: np.ndarray, scale: Scale) -> np.ndarray:
    """Numbers of any shape on a scale: 0 for black, 255 for white, rounded, and clipped outside."""
    if values.dtype.kind in "iu" and values.dtype.itemsize == 2:
        # Every number there is, in the order of its bits: for 0..65535 this is (v + 128) // 257, so that 8-bit values
        # stored as v * 257 come back exactly.
        every = np.arange(65536, dtype=np.uint16).view(values.dtype.newbyteorder("="))
        native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
        return _rounded(every, scale).take(native.view(np.uint16))
    flat, result = np.ascontiguousarray(values).reshape(-1), np.empty(values.size, np.uint8)
    for start in range(0, flat.size, _BLOCK):
        result[start : start + _BLOCK] = _rounded(flat[start : start + _BLOCK], scale)
    return result.reshape(values.shape)


def _rounded(values: np.ndarray, scale: Scale) -> np.ndarray:
    shares = (values.astype(np.float64) - scale.black) * (255.0 / (scale.white - scale.black))
    return np.rint(np.clip(shares, 0, 255)).astype(np.uint8)


def extent(values: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest number of an image (H, W) or (H, W, 3), without its few most extreme pixels."""
    darkest, brightest = (values, values) if values.ndim == 2 else (values.min(axis=2), values.max(axis=2))
    last = darkest.size - 1
    ignored = min(1 + darkest.size // _IGNORED_PIXELS, last // 2)
    low = np.partition(darkest, ignored, axis=None)[ignored]
    return float(low), float(np.partition(brightest, last - ignored, axis=None)[last - ignored])


def united(images: Sequence[Levels]) -> Levels:
    """What images of one category use together. ``UserError`` if some are floats and some integers."""
    kinds = {image.bits == 0: image for image in images}
    if len(kinds) > 1:
        raise UserError(
            f"16-bit and float images are mixed ({kinds[False]} and {kinds[True]}): save them as one type, or {EITHER}"
        )
    return _spanning(images, len(images) // _IGNORED_IMAGES)


def _spanning(images: Sequence[Levels], ignored: int = 0) -> Levels:
    """What some levels span, but for so many that are extreme at either end."""
    return Levels(
        sorted(image.low for image in images)[ignored],
        sorted(image.high for image in images)[-1 - ignored],
        min(image.bottom for image in images),
        max(image.top for image in images),
        max(image.bits for image in images),
    )


def learn(categories: Mapping[str, Sequence[Levels]]) -> tuple[Levels, Scale | None]:
    """What the images of all categories use, and the scale for them; None if it cannot be learned."""
    used = _spanning([united(images) for images in categories.values()])
    united([image for images in categories.values() for image in images])  # one type in all of them
    return used, choose(used)


def choose(used: Levels) -> Scale | None:
    """The scale for numbers from ``low`` to ``high``, by the rule above; None if they are all the same."""
    low, high, width = used.low, used.high, used.high - used.low
    if width <= 0:
        return None
    if used.bits:
        white = next((2.0**bits - 1 for bits in DEPTHS if high < 2.0**bits), math.inf)
        if 0 <= low <= width or (low >= 0 and (white == 255 or 4 * width >= white)):
            return Scale(0.0, white)
        around = max(width, _LEAST_EXTENT) / 2
        black, white = float(math.floor(low - around)), float(math.ceil(high + around))
    else:
        white = next((white for white in FLOAT_WHITES if high <= (1 + OVERSHOOT) * white), math.inf)
        if low >= -OVERSHOOT * white and 4 * width >= white:
            return Scale(0.0, white)
        black, white = low - width / 2, high + width / 2
    return Scale(max(black, 0.0) if low >= 0 else black, white)


def in_words(used: Levels, scale: Scale | None) -> str:
    """What the levels of images say about their scale, in a line."""
    if scale is None:
        return f"the {used.type} files have one level alone, {used.low:g}, so their full range stays"
    depth = next((f", {bits} bit" for bits in DEPTHS if used.bits and scale == (0, 2**bits - 1)), "")
    around = "" if (scale.black == 0 and scale.white >= used.top) or depth else ", with room around them"
    return f"the {used.type} files use levels {used}{depth}{around}"


def differing(categories: Mapping[str, Sequence[Levels]], scale: Scale) -> list[str]:
    """The categories of whose images a scale leaves less than a sixteenth, though their own would leave more."""
    used = {name: united(images) for name, images in categories.items()}
    return [f"{name} ({levels})" for name, levels in used.items() if fades(levels, scale)]


def fades(levels: Levels, scale: Scale) -> bool:
    """Whether a scale leaves less than a sixteenth of these levels, though one for them alone would leave more."""
    own = choose(levels)
    return own is not None and 16 * (own.white - own.black) < scale.white - scale.black
