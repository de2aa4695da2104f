"""Float files in another unit than the scale of the run, such as 0 to 1 on 0 to 255, are named."""

import numpy as np
import pytest
from PIL import Image

from vitlite.images.reading import read_noted
from vitlite.images.scale import Reading, Scale

WIDE = Scale(0, 255)


@pytest.fixture
def notes(tmp_path):
    def notes(values, scale):
        Image.fromarray(np.asarray(values, np.float32)).save(tmp_path / "0.tif")
        return [note.text for note in read_noted(tmp_path / "0.tif", Reading(scale)).notes]

    return notes


@pytest.fixture
def picture():
    return np.random.default_rng(0).uniform(0.2, 0.8, (64, 64))


def test_another_unit_is_named(notes, picture):
    (line,) = notes(picture, WIDE)
    assert "0.tif: levels 0.2" in line
    assert "are a small part of the scale of this run, 0 to 255; give or learn another scale" in line


def test_the_unit_of_the_run_is_not(notes, picture):
    assert notes(255 * picture, WIDE) == []
    assert notes(picture, Scale(0, 1)) == []


def test_without_a_scale_floats_are_from_0_to_1(notes, picture):
    assert notes(0.5 + 0.1 * picture, None) == []


@pytest.mark.parametrize("values", [np.full((64, 64), 0.5), np.arange(64 * 64).reshape(64, 64) % 5 / 10])
def test_an_image_of_few_levels_is_not(notes, values):
    assert notes(values, WIDE) == []
