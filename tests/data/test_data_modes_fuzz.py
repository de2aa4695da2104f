"""Damaged pictures of the rarer modes (16 bits, floats, palettes, one bit, several frames) through all readers."""

import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("hypothesis")

from fuzzing import attempt, damaged, few_examples
from hypothesis import given
from hypothesis import strategies as st

from vitlite import data

Y, X = np.mgrid[:9, :14]
GREY = (X * 18 + Y).astype(np.uint8)


def encoded(kind, picture, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def examples():
    grey = Image.fromarray(GREY)
    wide = Image.fromarray(GREY.astype(np.uint16) * 257)
    rgb = Image.merge("RGB", (grey, grey.rotate(180), grey))
    palette = rgb.quantize(16)
    found = {
        "16-bit png": encoded("PNG", wide),
        "16-bit tiff": encoded("TIFF", wide),
        "float tiff": encoded("TIFF", Image.fromarray(GREY.astype(np.float32) / 255)),
        "32-bit tiff": encoded("TIFF", Image.fromarray(GREY.astype(np.int32))),
        "palette png": encoded("PNG", palette, transparency=3),
        "alpha png": encoded("PNG", rgb.convert("RGBA")),
        "grey alpha png": encoded("PNG", grey.convert("LA")),
        "one bit png": encoded("PNG", grey.convert("1")),
        "one bit tiff": encoded("TIFF", grey.convert("1"), compression="group4"),
        "cmyk jpeg": encoded("JPEG", rgb.convert("CMYK")),
        "palette bmp": encoded("BMP", palette),
        "pages tiff": encoded("TIFF", grey, save_all=True, append_images=[rgb]),
        "frames gif": encoded("GIF", palette, save_all=True, append_images=[rgb.quantize(8)]),
        "pgm": encoded("PPM", grey),
    }
    return [found[name] for name in sorted(found)]


@few_examples
@given(content=st.sampled_from(examples()).flatmap(lambda content: damaged(content, header=120)))
def test_damaged_pictures(fuzz_folder, capfd, recwarn, content):
    path = fuzz_folder / "picture"
    path.write_bytes(content)
    image, error = attempt(lambda: data.read_image(path, max_pixels=2_000_000), data.ImageError)
    if error is None:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
    else:
        assert str(path) in str(error)
    for mask in (path, data.MaskFiles((path,)), data.MaskFiles((path, path), 127)):
        marked, error = attempt(lambda mask=mask: data.read_mask(mask, max_pixels=2_000_000), data.ImageError)
        assert error is not None or set(np.unique(marked)) <= {0, 1}
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
