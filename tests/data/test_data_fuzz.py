"""Damaged files: an array or an ImageError, and nothing on the terminal."""

import io

import numpy as np
import pytest
from PIL import Image

from vitlite import data

FORMATS = {
    "png": {},
    "jpg": {"quality": 80},
    "bmp": {},
    "gif": {},
    "tif": {},
    "lzw.tif": {"compression": "tiff_lzw"},
    "jpeg.tif": {"compression": "jpeg"},
    "webp": {},
    "ppm": {},
    "jp2": {},
}


def encoded(name, options):
    y, x = np.mgrid[:40, :52]
    image = np.stack([x * 4, y * 6, (x * y) % 256], axis=-1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    if name in ("png", "jpg", "webp"):
        options = {**options, "exif": exif}
    extension = name.rsplit(".", 1)[-1]
    kind = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}.get(extension, extension.upper())
    buffer = io.BytesIO()
    try:
        Image.fromarray(image).save(buffer, kind, **options)
    except (OSError, KeyError) as error:
        pytest.skip(f"this Pillow cannot write {name}: {error}")
    return buffer.getvalue()


def damage(content, rng):
    """Cut short, overwrite some bytes (more often in the header), or remove a slice."""
    bytes_ = bytearray(content)
    choice = rng.integers(4)
    if choice == 0:
        return bytes(bytes_[: rng.integers(1, len(bytes_))])
    if choice == 1:
        start = int(rng.integers(len(bytes_)))
        del bytes_[start : start + int(rng.integers(1, 40))]
        return bytes(bytes_)
    limit = len(bytes_) if choice == 2 else min(len(bytes_), 200)
    for _ in range(rng.integers(1, 6)):
        bytes_[rng.integers(limit)] = rng.integers(256)
    return bytes(bytes_)


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(tmp_path, name, capfd, recwarn):
    content = encoded(name, FORMATS[name])
    rng = np.random.default_rng([7, *name.encode()])
    failed = 0
    for i in range(120):
        path = tmp_path / f"{i}.{name}"
        path.write_bytes(damage(content, rng))
        try:
            image = data.read_image(path, max_pixels=4_000_000)
        except data.ImageError as error:
            failed += str(path) in str(error)
        else:
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert image.shape[2] == 3
        try:
            mask = data.read_mask(path, max_pixels=4_000_000)
        except data.ImageError:
            pass
        else:
            assert set(np.unique(mask)) <= {0, 1}
    assert failed > 10
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
