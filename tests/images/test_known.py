"""What images are known by, and when others are clearly different."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitlite.images.known import ADVICE, KEY, Known, Strange, colour_of
from vitlite.images.loading import load_ahead
from vitlite.images.scale import Reading, Scale

SQUARES = Known((512, 512), (512, 512), (1, 1), ("colour",), ("8 bits",))
MANY = Known((100, 600), (200, 400), (0.4, 2.5), ("faint", "grey"), ("8 bits", "more than 8 bits"))


def image(width, height, colours="colour", depth="8 bits"):
    return Known((width, width), (height, height), (height / width,) * 2, (colours,), (depth,))


@pytest.mark.parametrize(
    ("known", "one", "kinds"),
    [
        (SQUARES, image(512, 512), []),
        (SQUARES, image(342, 342), []),
        (SQUARES, image(341, 341), ["size"]),
        (SQUARES, image(768, 768), []),
        (SQUARES, image(512, 769), ["size"]),
        (SQUARES, image(512, 410), []),
        (SQUARES, image(512, 409), ["shape"]),
        (SQUARES, image(409, 512), ["shape"]),
        (SQUARES, image(512, 512, "grey"), ["colour"]),
        (SQUARES, image(512, 512, "faint"), []),
        (SQUARES, image(128, 128, "grey", "floats"), ["size", "colour"]),
        (replace(SQUARES, depths=("more than 8 bits",)), image(128, 128, "grey"), ["size", "colour", "depth"]),
        (replace(SQUARES, colours=("grey",)), image(512, 512), ["colour"]),
        (replace(SQUARES, colours=("faint",)), image(512, 512, "grey"), []),
        (MANY, image(1000, 400), []),  # not farther out than training's are from each other
        (MANY, image(3601, 400), ["size"]),
        (MANY, image(300, 300, "colour", "more than 8 bits"), []),
        (MANY, image(300, 300, "grey", "floats"), ["depth"]),
    ],
)
def test_what_is_clearly_different(known, one, kinds):
    assert list(known.differing(one, squeezed=True)) == kinds
    assert list(known.differing(one, squeezed=False)) == [kind for kind in kinds if kind != "shape"]


def test_grey_and_colour_by_the_pixels(tmp_path, put):
    """Whatever the file: grey as RGB is grey, a small part in colour is colour, and noise is neither."""
    grey = np.random.default_rng(0).integers(0, 256, (70, 90), np.uint8)
    same = np.repeat(grey[..., None], 3, axis=2)
    coloured, noisy = same.copy(), same.clip(4, 250)
    coloured[33:35, 41:43, 0] ^= 128
    noisy[..., 1] += 3
    assert [colour_of(one) for one in (same, noisy, coloured)] == ["grey", "faint", "colour"]
    assert colour_of(np.repeat(same, 40, axis=0)) == "grey"
    paths = [put(tmp_path / "l.png", grey), put(tmp_path / "rgb.png", same), put(tmp_path / "c.png", coloured)]
    paths += [put(tmp_path / "j.jpg", same), put(tmp_path / "deep.png", grey.astype(np.uint16) * 4)]
    paths += [put(tmp_path / "turned.jpg", same, exif=turned()), put(tmp_path / "f.tif", grey.astype(np.float32) / 255)]
    found = [Known.of(loaded) for loaded in load_ahead(paths, 64, reading=Reading(Scale(0, 1023)))]
    assert [one.colours[0] for one in found] == ["grey", "grey", "colour", *["grey"] * 4]
    assert [one.depths[0] for one in found] == [*["8 bits"] * 4, "more than 8 bits", "8 bits", "floats"]
    assert [one.width for one in found] == [(90, 90)] * 5 + [(70, 70), (90, 90)]


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_together_and_in_a_file():
    both = SQUARES | MANY
    assert both == MANY | SQUARES
    assert (both.width, both.height, both.shape) == ((100, 600), (200, 512), (0.4, 2.5))
    assert (both.colours, both.depths) == (("colour", "faint", "grey"), ("8 bits", "more than 8 bits"))
    assert Known.in_calibration({KEY: both.as_json()}) == both
    assert Known.in_calibration({}) is Known.in_calibration(None) is None
    for name, value in {"width": [5], "height": [4, 3], "shape": ["1", "1"], "colours": [], "depths": 8}.items():
        with pytest.raises((ValueError, TypeError)):
            Known.in_calibration({KEY: both.as_json() | {name: value}})


def test_one_line_of_each_kind(caplog):
    strange = Strange(SQUARES, squeezed=True)
    for number, one in enumerate([image(512, 512), image(128, 128), image(64, 128, "grey"), image(512, 400)]):
        strange.add(one, Path(f"new/{number}.png"))
    strange.say()
    size, colour, shape = caplog.messages
    first = "2 of 4 images are 64 to 128 x 128 pixels (first: new/1.png), those of training are 512 x 512 pixels"
    assert size == f"{first}: {ADVICE}"
    assert colour == f"1 of 4 images is grey (new/2.png), those of training are in colour: {ADVICE}"
    assert shape.startswith(
        "1 of 4 images is 0.78 times as high as wide (new/3.png), those of training are 1 times as "
    )


def test_images_that_keep_coming_are_named_when_they_come(caplog):
    strange = Strange(SQUARES, squeezed=True, named=lambda path: path.name)
    for number, one in enumerate([image(512, 512), image(128, 128), image(64, 64, "grey"), image(64, 64)]):
        strange.add(one, Path(f"new/{number}.png"))
        assert len(caplog.messages) == (0, 1, 2, 2)[number]
    strange.say()
    size, colour = caplog.messages
    assert size.startswith("1.png: is 128 x 128 pixels, those of training are 512 x 512 pixels: ")
    assert colour.startswith("2.png: is grey, those of training are in colour: ")


def test_without_knowledge_nothing_is_said(caplog):
    strange = Strange(None, squeezed=True)
    strange.add(image(1, 1, "grey", "floats"), Path("a.png"))
    strange.say()
    assert (caplog.messages, strange.lines(), strange.together) == ([], {}, None)
