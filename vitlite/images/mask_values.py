"""What a stored mask holds, and the rule that makes 0 and 1 of it."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vitlite.errors import UserError
from vitlite.images.modes import INTEGER_MODES, as_rgba, without_alpha
from vitlite.images.unusable import Unusable

MIDDLE = 127  # grey masks are cut above it
COLOUR, ALPHA, INDEX = "colour", "alpha", "index"  # the planes of a file that can hold the mask
PACKED = 1 << 24  # added to a colour, red first, that is packed into one number
HIGHEST = 65534  # the largest threshold: above it is 65535 alone
_FLOAT_SLACK = 1.05  # floats up to this are of 0 to 1


@dataclass(frozen=True)
class MaskRule:
    """When a pixel of a mask is defective. ``str`` of it says so in words.

    A value is compared in 8 bits: the largest channel of a colour; integers up to 255 as they are, wider ones with
    65535 as 255; floats up to 1 with 1 as 255. With ``threshold`` 0 every stored value but 0 is above it.
    """

    text: str  # such as "0/255" or "classes 1, 2, 3"
    threshold: int = 0  # a value above it is defective
    plane: str = COLOUR  # which part of the file: COLOUR, ALPHA or INDEX, which is that of a palette
    inverted: bool = False  # a value that is not above the threshold is defective instead
    exact: bool = False  # integers of more than 8 bits are compared as they are

    def __str__(self) -> str:
        return self.text

    @classmethod
    def above(cls, threshold: int, name: str = "threshold") -> "MaskRule":
        """The rule that a user or a layout gives. ``UserError`` about ``name`` unless the threshold is 0 to 65534."""
        if not isinstance(threshold, int) or not 0 <= threshold <= HIGHEST:
            raise UserError(f"`{name}={threshold}`: must be 0 to {HIGHEST}")
        return cls(f"above {threshold}", threshold, exact=True)


ANY_VALUE = MaskRule.above(0)


def defects(image: Image.Image, rule: MaskRule) -> np.ndarray:
    """A loaded mask, whatever its mode, as uint8 (H, W) of 0 and 1. Raises Unusable, also without the rule's plane."""
    stored, grey = values(image, rule.plane)
    values_as_stored = rule.exact and image.mode in INTEGER_MODES
    marked = (stored if values_as_stored else grey) > rule.threshold if rule.threshold else stored != 0
    return (marked != rule.inverted).astype(np.uint8)


def values(image: Image.Image, plane: str) -> tuple[np.ndarray, np.ndarray]:
    """(stored, grey) of a plane of a loaded mask, both (H, W): the integers that tell values apart, and uint8."""
    if plane == INDEX:
        if image.mode != "P":
            raise Unusable("has no palette as the other masks do")
        return (indices := np.array(image)), indices
    if plane == ALPHA:
        if not image.has_transparency_data:
            raise Unusable("has no transparency as the other masks do")
        return (alpha := np.array(as_rgba(image).getchannel("A"))), alpha
    if image.mode in INTEGER_MODES or image.mode == "F":
        return _of_numbers(np.asarray(image))
    image = without_alpha(image)
    if image.mode in ("1", "L"):
        return (grey := np.array(image.convert("L"))), grey
    colour = np.array(image.convert("RGB"))
    grey = colour.max(axis=2)
    plain = (colour == grey[:, :, None]).all(axis=2)
    if plain.all():
        return grey, grey
    packed = np.full(grey.shape, PACKED >> 24, np.uint32)
    for channel in range(3):  # in place: masks may be large
        packed <<= 8
        packed |= colour[:, :, channel]
    packed[plain] = grey[plain]
    return packed, grey


def _of_numbers(stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``values`` of wide integers and floats."""
    if not np.isfinite(stored).all():
        raise Unusable("holds values that are not finite numbers")
    lowest, highest = stored.min(), stored.max()
    if lowest < 0:
        raise Unusable(f"mask values from {lowest:g} to {highest:g}: 0 must be the least, and mean good")
    if stored.dtype.kind == "f":
        stored = np.rint(stored * 255.0 if highest <= _FLOAT_SLACK else stored).astype(np.int64)
        highest = stored.max()
    if highest <= 255:
        return stored, stored.astype(np.uint8)
    full = 65535 if highest <= 65535 else 2**31 - 1
    return stored, np.rint(stored * (255.0 / full)).astype(np.uint8)
