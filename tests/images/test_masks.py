"""Masks from every kind of file to 0 and 1."""

import deep_files
import numpy as np
import pytest
from PIL import Image

from vitlite import images
from vitlite.errors import UserError

MARKED = np.zeros((6, 7), bool)
MARKED[2:4, 3:6] = True


def palette(colour):
    image = Image.fromarray(MARKED.astype(np.uint8), "P")
    image.putpalette([0, 0, 0, *colour])
    return image


KINDS = {
    "bilevel": Image.fromarray(MARKED),
    "palette": palette((128, 0, 0)),  # the colour of the first class in PASCAL VOC
    "indices": palette((1, 1, 1)),
    "16bit": MARKED.astype(np.uint16) * 65535,
    "red": MARKED[..., None] * np.array([255, 0, 0], np.uint8),
    "alpha": np.dstack([np.full((6, 7, 3), 255, np.uint8), MARKED.astype(np.uint8) * 255]),
    "true": MARKED.astype(np.uint8),
    "float": MARKED.astype(np.float32),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_masks(tmp_path, put, kind):
    path = put(tmp_path / f"a.{'tif' if kind == 'float' else 'png'}", KINDS[kind])
    assert (images.read_mask(path) == MARKED).all()


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ([[0, 255]], [[0, 1]]),
        ([[127, 128]], [[0, 1]]),
        ([[0, 1]], [[0, 1]]),  # saved as 0 and 1
        ([[0, 2]], [[0, 1]]),  # a class number
        ([[0, 0]], [[0, 0]]),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_mask_values(tmp_path, put, stored, expected, dtype):
    mask = images.read_mask(put(tmp_path / "a.tif", np.array(stored, dtype)))
    assert mask.dtype == np.uint8
    assert mask.tolist() == expected


def test_mask_threshold(tmp_path, put):
    path = put(tmp_path / "a.png", np.array([[0, 40, 41, 255]], np.uint8))
    assert images.read_mask(path, threshold=40).tolist() == [[0, 0, 1, 1]]
    for wrong in (-1, 65535, 40.0):
        with pytest.raises(UserError, match="threshold"):
            images.read_mask(path, threshold=wrong)


def test_mask_files_are_values(tmp_path, put):
    values = np.array([[0, 127, 128], [255, 0, 0]], np.uint8)
    first, second = put(tmp_path / "m" / "0.png", values), put(tmp_path / "m" / "1.png", values[::-1])
    rule = images.MaskRule.above(127)
    mask = images.MaskFiles((first, second), rule)
    assert hash(mask) == hash(images.MaskFiles((first, second), images.MaskRule.above(127)))
    assert mask != images.MaskFiles((first,), rule)
    assert str(mask) == str(tmp_path / "m")
    assert str(images.MaskFiles((first,))) == str(first)
    np.testing.assert_array_equal(images.read_mask(mask), [[1, 0, 1], [1, 0, 1]])
    put(second, values[:1])
    with pytest.raises(images.ImageError, match=r"1\.png: is 3x1, but 3x2 in 0\.png"):
        images.read_mask(mask)


@pytest.mark.parametrize("number", [1, 300])
def test_colours_of_16_bits_keep_their_low_byte(tmp_path, number):
    path = tmp_path / "a.png"
    path.write_bytes(deep_files.png(np.repeat(MARKED[..., None] * np.uint16(number), 3, axis=2)))
    np.testing.assert_array_equal(images.read_mask(path), MARKED)


def test_masks_whose_white_is_zero(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for kind in ("uint8", "uint16"):
        tifffile.imwrite(tmp_path / "a.tif", (~MARKED).astype(kind) * np.iinfo(kind).max, photometric="miniswhite")
        np.testing.assert_array_equal(images.read_mask(tmp_path / "a.tif"), MARKED)


@pytest.mark.parametrize(
    ("threshold", "marked"), [(0, 3), (19, 3), (20, 2), (300, 1), (6999, 1), (7000, 0), (65534, 0)]
)
def test_a_threshold_for_wide_masks_is_compared_with_what_is_stored(tmp_path, threshold, marked):
    Image.fromarray(np.array([[0, 20], [300, 7000]], np.uint16)).save(tmp_path / "a.png")
    assert images.read_mask(tmp_path / "a.png", threshold=threshold).sum() == marked


def test_a_file_of_several_images_is_no_mask(tmp_path):
    """Which of them is the mask, nobody knows; the first one alone would leave defects out."""
    pages = [Image.fromarray(MARKED), Image.fromarray(MARKED[::-1])]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(images.ImageError, match="holds 2 images; save the mask as one"):
        images.read_mask(tmp_path / "a.tif", rule=images.MaskRule.above(0))
