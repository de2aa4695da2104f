"""Pillow images of every mode to 8-bit arrays.

How a stored value becomes 8 bits (one rule for all files of a kind, so that images of one camera stay comparable):

- 8-bit modes are taken as they are; 1-bit is 0 and 255; palettes are looked up; 16-bit colour keeps its high byte.
- 16-bit grey: 0..65535 maps to 0..255, rounded. A 12-bit camera that fills only 0..4095 therefore comes out dark, which
  ``vitlite data check`` reports: rescaling each image by its own range would hide differences between images.
- 32-bit and signed integers: the first of 0..65535, -32768..32767, 0..2^31-1, -2^31..2^31-1 that holds the image's
  values maps to 0..255.
- Floats: the first of 0..1, 0..255, 0..65535 that reaches the largest value maps to 0..255, 5 % overshoot on both sides
  is clipped; anything else, and values that are not finite, is refused.
- A transparent pixel is black, half transparent ones are blended with black. Colour profiles are not applied.
- The orientation in the EXIF data is applied. If there are several frames, the first is read.
"""

import numpy as np
from PIL import Image

_INTEGER_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
_INTEGER_RANGES = ((0, 65535), (-32768, 32767), (0, 2**31 - 1), (-(2**31), 2**31 - 1))
_FLOAT_SCALES = (1.0, 255.0, 65535.0)
_OVERSHOOT = 0.05
_ORIENTATION = 0x0112


class Unusable(ValueError):
    """A readable file whose content cannot be used; the message is the reason, without the file's name."""


def rgb8(image: Image.Image) -> np.ndarray:
    """Colours, uint8 (H, W, 3). Raises Unusable."""
    if image.mode in _INTEGER_MODES or image.mode == "F":
        return np.repeat(_scaled(image)[:, :, None], 3, axis=2)
    return np.array(_without_alpha(image).convert("RGB"))


def grey8(image: Image.Image) -> np.ndarray:
    """Mask values, uint8 (H, W): the largest channel; wide integers within 0..255 as they are. Raises Unusable."""
    if image.mode in _INTEGER_MODES:
        values = np.asarray(image)
        return values.astype(np.uint8) if values.min() >= 0 and values.max() <= 255 else _scaled(image)
    if image.mode == "F":
        return _scaled(image)
    image = _without_alpha(image)
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))
    return np.array(image.convert("RGB")).max(axis=2)


def _without_alpha(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    if image.mode == "La":  # premultiplied grey has no direct way to RGBA
        image = image.convert("LA")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")


def _scaled(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    return _float_to_8(values) if values.dtype.kind == "f" else _integer_to_8(values)


def _integer_to_8(values: np.ndarray) -> np.ndarray:
    lowest, highest = int(values.min()), int(values.max())
    low, high = next(r for r in _INTEGER_RANGES if r[0] <= lowest and highest <= r[1])
    # For 0..65535 this is (v + 128) // 257, so that 8-bit values stored as v * 257 come back exactly.
    return np.rint((values.astype(np.float64) - low) * (255.0 / (high - low))).astype(np.uint8)


def _float_to_8(values: np.ndarray) -> np.ndarray:
    lowest, highest = float(values.min()), float(values.max())
    if not np.isfinite((lowest, highest)).all():
        raise Unusable("holds values that are not finite numbers")
    scale = next((scale for scale in _FLOAT_SCALES if highest <= (1 + _OVERSHOOT) * scale), None)
    if scale and lowest >= -_OVERSHOOT * scale:
        return np.rint(np.clip(values, 0, scale) * (255.0 / scale)).astype(np.uint8)
    raise Unusable(f"float values from {lowest:g} to {highest:g}: rescale the files to 0..1, 0..255 or 0..65535")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of a loaded image: Pillow turns TIFF files itself while it loads them."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the pixels are fine; a damaged EXIF block only loses the orientation
        return 1


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (TIFF 6.0, tag 274) to a (H, W, ...) array."""
    if orientation in (5, 7):
        array = np.swapaxes(array, 0, 1)
    if orientation in (2, 4):
        array = np.flip(array, axis=0 if orientation == 4 else 1)
    turns = {3: 2, 6: -1, 7: 2, 8: 1}
    if orientation in turns:
        array = np.rot90(array, turns[orientation])
    return np.ascontiguousarray(array)
