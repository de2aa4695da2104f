"""The scale of a run: which numbers become 0 and 255, and what training learns from its images."""

import numpy as np
import pytest

from vitlite import images
from vitlite.errors import UserError
from vitlite.images.reading import convert_image, read_levels, read_noted
from vitlite.images.scale import Levels, Reading, Scale, as_scale, choose, differing, extent, fades, learn, to_8bit

PLAIN = np.random.default_rng(0).integers(20, 240, (40, 50, 3), dtype=np.uint8)


def integers(low, high, bits=16):
    return Levels(low, high, 0, 2**bits - 1, bits)


def floats(low, high):
    return Levels(low, high, 0, 1, 0)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (integers(3, 200), (0, 255)),
        (integers(0, 12), (0, 255)),  # 8 bits lose nothing
        (integers(3, 256), (0, 1023)),
        (integers(1080, 1920), (660, 2340)),
        (integers(3, 1019), (0, 1023)),
        (integers(64, 4095), (0, 4095)),
        (integers(900, 9000), (0, 16383)),
        (integers(0, 65535), (0, 65535)),
        (integers(30080, 30920), (29660, 31340)),  # an offset: as much room again around
        (integers(1000, 1020), (936, 1084)),  # neighbours are drawn apart no further than one level each
        (integers(5, 2**20 - 1, 32), (0, 2**20 - 1)),
        (Levels(-900, 3000, -32768, 32767, 16), (-2850, 4950)),
        (Levels(100, 3000, -32768, 32767, 16), (0, 4095)),
        (floats(0.1, 0.9), (0, 1)),
        (floats(-0.01, 1.02), (0, 1)),
        (floats(2.0, 251.0), (0, 255)),
        (floats(100.0, 60000.0), (0, 65535)),
        (floats(0.0, 3.0), (0, 4.5)),
        (floats(290.0, 310.0), (280, 320)),  # degrees
        (floats(-1.0, 1.0), (-2, 2)),
        (integers(700, 700), None),
        (integers(0, 0), None),
    ],
)
def test_the_rule(levels, expected):
    assert choose(levels) == expected


def test_images_that_say_nothing_about_the_camera_do_not_count():
    usual = [integers(10, 1000) for _ in range(39)]
    assert learn({"a": [*usual, integers(10, 65535)]})[1] == (0, 1023)
    assert learn({"a": usual, "b": [integers(0, 4000)]})[1] == (0, 4095)  # another category does
    assert differing({"a": usual, "b": [integers(0, 60000)]}, Scale(0, 65535)) == ["a (10 to 1000)"]
    assert differing({"a": usual, "b": [integers(0, 4000)]}, Scale(0, 4095)) == []
    assert [fades(integers(7, high), Scale(0, 65535)) for high in (4000, 5000, 7)] == [True, False, False]


def test_integers_and_floats_have_no_common_scale():
    with pytest.raises(UserError, match=r"float images are mixed.*white=1023"):
        learn({"a": [integers(0, 1000)], "b": [floats(0, 1)]})


@pytest.mark.parametrize("dtype", ["uint16", ">u2", "float32"])
def test_one_hot_and_one_dead_pixel_change_nothing_else(dtype):
    values = (PLAIN.astype(dtype) * 4 + 8)[..., 0]
    spoiled = values.copy()
    spoiled[3, 4], spoiled[20, 30] = 65535, 0
    assert extent(spoiled)[0] <= 8 + 4 * 21
    scales = [choose(Levels(*extent(v), 0, 65535, 16)) for v in (values, spoiled)]
    assert scales[0] == scales[1] == (0, 1023)
    different = to_8bit(values, scales[0]) != to_8bit(spoiled, scales[1])
    assert sorted(zip(*np.nonzero(different))) == [(3, 4), (20, 30)]


@pytest.mark.parametrize("dtype", ["uint16", ">u2", "int16", "int32", "uint32", "float32", "float64"])
def test_every_number_goes_where_the_formula_says(dtype):
    kind = np.dtype(dtype)
    low, high = (-500, 3000) if kind.kind in "if" else (0, 3000)
    values = np.arange(low, high).astype(kind).reshape(-1, 2)
    expected = np.clip(np.rint((values.astype(float) - 100) * 255 / 900), 0, 255)
    np.testing.assert_array_equal(to_8bit(values, Scale(100, 1000)), expected)


def test_read_image_takes_the_scale(tmp_path, put):
    wide = put(tmp_path / "wide.png", PLAIN[..., 0].astype(np.uint16) * 4)
    eight = put(tmp_path / "eight.png", PLAIN)
    close = np.abs(images.read_image(wide, white=1020).astype(int) - PLAIN[..., :1])
    assert close.max() == 0
    assert np.ptp(images.read_image(wide)) <= 4  # the full range of 16 bits
    np.testing.assert_array_equal(images.read_image(eight, black=3, white=1023), PLAIN)  # 8-bit files keep theirs


@pytest.mark.parametrize(
    ("black", "white", "message"),
    [(5, 5, "above black=5"), (0, float("nan"), "above black"), (None, -1, "above black=0"), (7, None, "needs white")],
)
def test_no_scale(black, white, message):
    with pytest.raises(UserError, match=message):
        as_scale(black, white)


def test_what_is_odd_is_noted(tmp_path, put):
    full = put(tmp_path / "full.png", PLAIN[..., 0].astype(np.uint16) * 257)
    ten = put(tmp_path / "ten.png", PLAIN[..., 0].astype(np.uint16) * 4)
    flat = put(tmp_path / "flat.png", np.full((40, 50), 3, np.uint16))

    def kinds(path, scale):
        return [note.kind for note in read_noted(path, Reading(scale))[1]]

    assert kinds(full, Scale(0, 1023)) == ["cut"]
    assert kinds(full, None) == kinds(ten, Scale(0, 1023)) == kinds(flat, None) == []
    assert kinds(ten, None) == kinds(ten, Scale(0, 65535)) == ["few"]
    twelve = put(tmp_path / "twelve.png", PLAIN[..., 0].astype(np.uint16) * 16)
    assert kinds(twelve, None) == ["few"]  # a 16th of the type, beside 8-bit files that use all of theirs
    eight = put(tmp_path / "eight.png", PLAIN)
    assert kinds(eight, Scale(30000, 31000)) == ["eight"]
    assert kinds(eight, Scale(0, 1023)) == kinds(eight, None) == []
    text = read_noted(full, Reading(Scale(0, 1023)))[1][0].text
    assert text.startswith(f"{full}: ")
    assert "0 to 1023" in text


def test_levels_of_8_bit_files_are_not_looked_for(tmp_path, put):
    assert read_levels(put(tmp_path / "a.png", PLAIN)) is None
    assert read_levels(tmp_path / "missing.png") is None
    levels = read_levels(put(tmp_path / "b.png", PLAIN[..., 0].astype(np.uint16) * 4))
    assert (levels.bottom, levels.top, levels.bits) == (0, 65535, 16)


def test_pillow_images_have_the_same_scale(tmp_path, put):
    from PIL import Image

    path = put(tmp_path / "a.png", PLAIN[..., 0].astype(np.uint16) * 4)
    with Image.open(path) as image:
        np.testing.assert_array_equal(
            convert_image(image, scale=Scale(0, 1023))[0], images.read_image(path, white=1023)
        )
