"""Damaged images of every format and mode through all readers: an array or an ImageError, and a quiet terminal."""

import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("hypothesis")

from fuzzing import attempt, damaged, few_examples
from hypothesis import given, settings

from vitlite import images

Y, X = np.mgrid[:40, :52]
RGB = np.stack([X * 4, Y * 6, (X * Y) % 256], axis=-1).astype(np.uint8)
GREY = (X[:9, :14] * 18 + Y[:9, :14]).astype(np.uint8)


def encoded(kind, image, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def examples():
    """{name: (Pillow's format, image, options)}"""
    turned = Image.Exif()
    turned[0x0112] = 6
    large, grey = Image.fromarray(RGB), Image.fromarray(GREY)
    rgb = Image.merge("RGB", (grey, grey.rotate(180), grey))
    palette = rgb.quantize(16)
    return {
        "png": ("PNG", large, {"exif": turned}),
        "jpeg": ("JPEG", large, {"exif": turned, "quality": 80}),
        "webp": ("WEBP", large, {"exif": turned}),
        "bmp": ("BMP", large, {}),
        "gif": ("GIF", large, {}),
        "tiff": ("TIFF", large, {}),
        "lzw tiff": ("TIFF", large, {"compression": "tiff_lzw"}),
        "jpeg tiff": ("TIFF", large, {"compression": "jpeg"}),
        "ppm": ("PPM", large, {}),
        "jpeg 2000": ("JPEG2000", large, {}),
        "16-bit png": ("PNG", Image.fromarray(GREY.astype(np.uint16) * 257), {}),
        "16-bit tiff": ("TIFF", Image.fromarray(GREY.astype(np.uint16) * 257), {}),
        "float tiff": ("TIFF", Image.fromarray(GREY.astype(np.float32) / 255), {}),
        "32-bit tiff": ("TIFF", Image.fromarray(GREY.astype(np.int32)), {}),
        "palette png": ("PNG", palette, {"transparency": 3}),
        "palette bmp": ("BMP", palette, {}),
        "alpha png": ("PNG", rgb.convert("RGBA"), {}),
        "grey alpha png": ("PNG", grey.convert("LA"), {}),
        "one bit png": ("PNG", grey.convert("1"), {}),
        "one bit tiff": ("TIFF", grey.convert("1"), {"compression": "group4"}),
        "cmyk jpeg": ("JPEG", rgb.convert("CMYK"), {}),
        "pages tiff": ("TIFF", grey, {"save_all": True, "append_images": [rgb]}),
        "frames gif": ("GIF", palette, {"save_all": True, "append_images": [rgb.quantize(8)]}),
        "pgm": ("PPM", grey, {}),
    }


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_damaged_images(fuzz_folder, capfd, recwarn, name):
    kind, image, options = EXAMPLES[name]
    try:
        content = encoded(kind, image, **options)
    except (OSError, KeyError) as error:
        pytest.skip(f"this Pillow cannot write {name}: {error}")
    path = fuzz_folder / "image"
    failed = []

    @settings(few_examples, max_examples=few_examples.max_examples // 3)
    @given(content=damaged(content, header=160))
    def check(content):
        path.write_bytes(content)
        image, error = attempt(lambda: images.read_image(path, max_pixels=2_000_000), images.ImageError)
        if error is None:
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert image.shape[2] == 3
        else:
            assert str(path) in str(error)
        failed.append(error is not None)
        for mask in (path, images.MaskFiles((path,)), images.MaskFiles((path, path), images.MaskRule.above(127))):
            marked, error = attempt(lambda mask=mask: images.read_mask(mask, max_pixels=2_000_000), images.ImageError)
            assert error is not None or set(np.unique(marked)) <= {0, 1}

    check()
    assert any(failed)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


@pytest.mark.parametrize("name", ["png", "jpeg", "progressive jpeg", "jpeg with a thumbnail"])
def test_files_that_end_in_zeros(tmp_path, name):
    """A copy that was broken off has its whole size. Pillow takes the zeros for pixels."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    options = {"quality": 90, "progressive": "progressive" in name} if "jpeg" in name else {}
    content = encoded("JPEG" if "jpeg" in name else "PNG", noise, **options)
    if "thumbnail" in name:
        inner = encoded("JPEG", noise.resize((16, 12)))
        content = content[:2] + b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner + content[2:]
    path = tmp_path / "a"
    path.write_bytes(content + bytes(4096))  # padding after the end is no damage
    assert images.read_image(path).shape == (90, 120, 3)
    for share in (0.4, 0.7, 0.99):
        kept = int(share * len(content))
        path.write_bytes(content[:kept] + bytes(len(content) - kept))
        with pytest.raises(images.ImageError, match="ends in zeros in the place of pixels"):
            images.read_image(path)
