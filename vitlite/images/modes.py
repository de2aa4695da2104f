"""Pillow images of every mode to the numbers that their files store, all their bits, and these to 8 bits.

How a stored number becomes 8 bits (one rule for all files of a kind, so that images of one camera stay comparable):

- 8-bit modes are taken as they are; 1-bit is 0 and 255; palettes are looked up.
- Integers of more bits, grey or colour: from ``black`` to ``white`` of the scale that is given, which becomes 0 to 255,
  rounded; outside it is clipped. ``vitlite.images.scale`` has the rule by which training learns the scale. Without one
  it is the full range of the file's type, such as 0 to 65535: what one file holds decides nothing.
- Floats: the same; without a scale 0 to 1, with 5 % overshoot. Other floats without a scale, and values that are not
  finite, are refused.
- Signed 8-bit: -128 to 127 becomes 0 to 255. A TIFF whose white is zero is turned over.
- A transparent pixel is black, half transparent ones are blended with black. Colour profiles are not applied.
- The orientation in the EXIF data is applied. If there are several frames, the first is read.

Pillow keeps the high byte alone of 16-bit colour. Its decoders give either byte, by the order that they are told the
bytes are in: so such a file is decoded twice.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
from PIL import Image

from vitlite.images.pillow import open_image
from vitlite.images.scale import OVERSHOOT, Levels, Scale, extent, to_8bit
from vitlite.images.tiff import (
    BITS,
    PHOTOMETRIC,
    RGB,
    SAMPLE_FORMAT,
    SAMPLES,
    SIGNED,
    WHITE_IS_ZERO,
    PlainTiff,
    has_planes_apart,
)
from vitlite.images.unusable import Unusable

_ORIENTATION = 0x0112
INTEGER_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
EIGHT = "8 bits"  # what a channel holds
NOTHING_SEEN = "is transparent all over: save it without transparency"
_GIVE_A_SCALE = "rescale the files to 0..1, or give black and white"


class Stored(NamedTuple):
    """An image as its file has it."""

    values: np.ndarray  # (H, W) or (H, W, 3): uint8, or integers and floats of any width
    bottom: float = 0.0  # the range of the file's type
    top: float = 255.0
    opaque: np.ndarray | None = None  # (H, W) float32, 0 to 1: what is left of a pixel over black

    @property
    def wide(self) -> bool:
        """Whether a scale decides about it; 8-bit files keep 0 to 255."""
        return self.values.dtype != np.uint8

    @property
    def depth(self) -> str:
        """How much a channel holds, in words."""
        if not self.wide:
            return EIGHT
        return "floats" if self.values.dtype.kind == "f" else "more than 8 bits"

    @property
    def levels(self) -> Levels:
        """Which numbers it uses, without its few most extreme pixels."""
        bits = 0 if self.values.dtype.kind == "f" else max(8, int(self.top - self.bottom).bit_length())
        return Levels(*extent(self.values), self.bottom, self.top, bits)

    def rgb(self, scale: Scale | None = None) -> np.ndarray:
        """Colours, uint8 (H, W, 3), on a scale; without one on the range of the file's type.

        Raises Unusable for floats that lie outside 0 to 1 and have no scale.
        """
        grey = self.on_scale(scale)
        if self.opaque is not None:
            share = self.opaque if grey.ndim == 2 else self.opaque[:, :, None]
            grey = np.rint(grey * share).astype(np.uint8)
        return grey if grey.ndim == 3 else np.repeat(grey[:, :, None], 3, axis=2)

    def on_scale(self, scale: Scale | None) -> np.ndarray:
        """``values`` as uint8, of the same shape."""
        if not self.wide:
            return self.values
        if scale is None and self.values.dtype.kind == "f":
            low, high = extent(self.values)
            if low < -OVERSHOOT or high > 1 + OVERSHOOT:
                raise Unusable(f"float values from {low:g} to {high:g}: {_GIVE_A_SCALE}")
        return to_8bit(self.values, scale or Scale(self.bottom, self.top))


def stored(image: Image.Image | PlainTiff) -> Stored:
    """The numbers of an image that is open. Raises Unusable, and whatever Pillow raises for a damaged file."""
    # Pillow drops the channels of a colour beyond the fourth.
    many = _tag(image, PHOTOMETRIC) == RGB and (_tag(image, SAMPLES) or 3) > 4
    if not isinstance(image, PlainTiff) and (many or has_planes_apart(getattr(image, "tag_v2", {}))):
        image = PlainTiff(image.filename)  # type: ignore[attr-defined]
    if isinstance(image, PlainTiff):
        return _finite(_typed(image.values(), image))
    raw = _raw_mode(image)
    if raw.startswith(("RGB", "LA;16")) and ";16" in raw:
        return _wide_colour(image, *raw.split(";16"))
    if (white := _ppm_white(image)) > 255 and image.mode == "RGB":
        return _wide_ppm(image, white)
    image.load()
    if image.mode in INTEGER_MODES or image.mode == "F":
        return _finite(_with_key(_typed(np.asarray(image), image), image))
    if _tag(image, SAMPLE_FORMAT) == SIGNED and image.mode == "L":
        return _typed(np.asarray(image).view(np.int8), image)
    return Stored(eight_bits(image))


def as_pillow(values: np.ndarray) -> Image.Image:
    """Grey numbers as the Pillow image that holds most of each. Raises Unusable for colours."""
    if values.ndim != 2:
        raise Unusable(f"colours of {values.dtype}, which only images may have")
    if values.dtype.kind == "f":
        return Image.fromarray(values.astype(np.float32))
    return Image.fromarray(values if values.dtype in (np.uint8, np.uint16) else values.astype(np.int32))


def is_wide(image: Image.Image | PlainTiff) -> bool:
    """Whether an image that is not loaded yet may hold more than 8 bits a channel."""
    if isinstance(image, PlainTiff) or image.mode in INTEGER_MODES or image.mode == "F":
        return True
    return ";16" in _raw_mode(image) or _ppm_white(image) > 255


def orientation(image: Image.Image | PlainTiff) -> int:
    """The EXIF orientation of a loaded image: Pillow turns TIFF files itself while it loads them."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the pixels are fine; a damaged EXIF block only loses the orientation
        return 1


def eight_bits(image: Image.Image) -> np.ndarray:
    """Pillow's own 8-bit colours, uint8 (H, W, 3), over black if there is transparency; not all may be transparent."""
    if image.has_transparency_data:
        image = as_rgba(image)
        if not image.getchannel("A").getbbox():
            raise Unusable(NOTHING_SEEN)
    return np.array(without_alpha(image).convert("RGB"))


def without_alpha(image: Image.Image) -> Image.Image:
    """The image over black; itself if it has no transparency."""
    if not image.has_transparency_data:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), as_rgba(image)).convert("RGB")


def as_rgba(image: Image.Image) -> Image.Image:
    """The image in Pillow's mode RGBA."""
    # Premultiplied grey has no direct way there.
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def _finite(found: Stored) -> Stored:
    if found.values.dtype.kind == "f" and not np.isfinite((found.values.min(), found.values.max())).all():
        raise Unusable("holds values that are not finite numbers")
    return found


def _typed(values: np.ndarray, image: Image.Image | PlainTiff) -> Stored:
    """Grey or colour with the range of its type, which Pillow's modes do not tell apart."""
    if values.dtype.kind == "f":
        if _tag(image, PHOTOMETRIC) == WHITE_IS_ZERO:
            raise Unusable("floats with zero as white, whose black is not known: save them with zero as black")
        return Stored(values, 0.0, 1.0)
    bits, signed = _tag(image, BITS) or 16, _tag(image, SAMPLE_FORMAT) == SIGNED
    if image.format != "TIFF":  # 16 bits, unless it is an image in memory alone
        bits, signed = (32, True) if values.dtype.itemsize == 4 and image.format is None else (16, False)
    if bits == 8 and signed:
        return Stored((values.astype(np.int16) + 128).astype(np.uint8))
    if bits == 32 and not signed:
        values = values.view(np.uint32)
    elif bits <= 16 and values.dtype.itemsize == 4:
        values = values.astype(np.int16 if signed else np.uint16)
    bottom, top = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if _tag(image, PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow turns these over up to 8 bits
        values = (bottom + top - values.astype(np.int64)).astype(values.dtype)
    return Stored(values, float(bottom), float(top))


def _tag(image: Image.Image | PlainTiff, tag: int) -> int | None:
    """The first number of a TIFF's tag; None without it."""
    value = getattr(image, "tag_v2", {}).get(tag)
    return value[0] if isinstance(value, tuple) else value


def _arguments(image: Image.Image) -> tuple[Any, ...]:
    """What Pillow tells the decoder of a file; ("",) once the image is loaded."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    return arguments if isinstance(arguments, tuple) else (arguments,)


def _raw_mode(image: Image.Image) -> str:
    """How the file stores a pixel, in Pillow's words, such as ``RGB;16B``; "" once the image is loaded."""
    return str(_arguments(image)[0])


def _ppm_white(image: Image.Image) -> int:
    """The number that the header of a PPM file calls white; 0 for other files, and once it is loaded."""
    white = _arguments(image)[-1] if image.format == "PPM" else 0
    return white if isinstance(white, int) else 0


def _with_key(found: Stored, image: Image.Image) -> Stored:
    """Pixels of the colour that a PNG declares transparent are black."""
    key = image.info.get("transparency")
    if image.format != "PNG" or key is None or isinstance(key, bytes):
        return found
    same = found.values == np.asarray(key, dtype=found.values.dtype)
    shown = ~(same if same.ndim == 2 else same.all(axis=2))
    return found._replace(opaque=shown.astype(np.float32))


def _wide_colour(image: Image.Image, channels: str, order: str) -> Stored:
    if channels == "LA":  # two numbers of two bytes: Pillow takes four bytes as they are
        _decode_as(image, "RGBA")
        four = np.asarray(image).astype(np.uint16)
        values, alpha = four[:, :, 0] << 8 | four[:, :, 1], four[:, :, 2] << 8 | four[:, :, 3]
        return Stored(values, 0.0, 65535.0, (alpha / 65535).astype(np.float32))
    raw = "RGBA" if channels == "RGBa" else channels
    with _opened_again(image) as other:
        _decode_as(other, f"{raw};16L")
        second = np.array(other)
    _decode_as(image, f"{raw};16B")
    high, low = np.asarray(image), second
    if order == "L" or (order == "N" and sys.byteorder == "little"):
        high, low = low, high
    values = high.astype(np.uint16) << 8 | low
    # Premultiplied colours are over black already.
    opaque = (values[:, :, 3] / 65535).astype(np.float32) if channels == "RGBA" else None
    return _with_key(Stored(np.ascontiguousarray(values[:, :, :3]), 0.0, 65535.0, opaque), image)


def _decode_as(image: Image.Image, raw: str) -> None:
    """Load an image whose pixels are stored as ``raw`` says."""
    tiles = []
    for tile in image.tile:  # type: ignore[attr-defined]
        arguments = (raw, *tile[3][1:]) if isinstance(tile[3], tuple) else raw
        tiles.append(tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments))
    image.tile = tiles  # type: ignore[attr-defined]
    image.load()


@contextlib.contextmanager
def _opened_again(image: Image.Image) -> Iterator[Image.Image]:
    """The same file, not loaded yet."""
    source = getattr(image, "filename", None)
    if not source:
        source = image.fp  # type: ignore[attr-defined]
        source.seek(0)
    with open_image(source, formats=(str(image.format),)) as other:
        yield cast(Image.Image, other)


def _wide_ppm(image: Image.Image, highest: int) -> Stored:
    """A PPM's colours of two bytes, or as text; ``highest`` is the number that its header calls white."""
    decoder, _, start, _ = image.tile[0]  # type: ignore[attr-defined]
    file, count = image.fp, image.width * image.height * 3  # type: ignore[attr-defined]
    file.seek(start)
    values = np.array(file.read().split(), np.int64) if decoder == "ppm_plain" else np.frombuffer(file.read(), ">u2")
    if values.size < count:
        raise Unusable("is cut short")
    shape = (image.height, image.width, 3)
    values = np.rint(np.minimum(values[:count], highest).reshape(shape) * (65535 / highest))
    return Stored(values.astype(np.uint16), 0.0, 65535.0)
