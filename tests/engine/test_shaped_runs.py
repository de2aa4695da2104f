"""Runs whose images are no squares: their shape is kept, stored, and followed by every command."""

import logging

import numpy as np
import pytest
from PIL import Image
from tiny_settings import TINY

import vitlite
from vitlite.data.shapes import ratio
from vitlite.engine.detector import Detector
from vitlite.engine.settings import load_settings
from vitlite.errors import UserError
from vitlite.images import region_files
from vitlite.images.masks import read_mask
from vitlite.images.tiles import fitted

SHAPE = (60, 150)
KEPT = TINY | {"image_size": "keep,64", "steps": 20}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Stripes that run down, and some with a dark bar, in MVTec's layout."""
    root, rng = tmp_path_factory.mktemp("bars") / "set", np.random.default_rng(0)
    for number in range(16):
        image = np.full((*SHAPE, 3), 120, np.uint8) + rng.integers(0, 20, (*SHAPE, 1), dtype=np.uint8)
        image[:, ::10] += 60
        bad = number >= 13
        name = "train/good" if number < 10 else "test/bar" if bad else "test/good"
        mask = np.zeros(SHAPE, np.uint8)
        mask[20:36, 100:140] = 255
        if bad:
            image[mask > 0] = 20
            (root / "bar/ground_truth/bar").mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(root / f"bar/ground_truth/bar/{number}_mask.png")
        (root / "bar" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / f"bar/{name}/{number}.png")
    return root


@pytest.fixture(scope="module")
def kept(tmp_path_factory, data):
    return vitlite.train(data, tmp_path_factory.mktemp("runs") / "kept", device="cpu", **KEPT)


def test_the_run_stores_the_shape_and_follows_it(kept, data):
    config = load_settings(kept.run).config
    assert (config.image_size, config.feature_size, config.tokens) == ((48, 96), (6, 12), (3, 6))
    assert kept.image_size == (48, 96)
    found = kept.predict(data / "bar/test/bar/13.png")
    assert found.map.shape == SHAPE
    row, column = np.unravel_index(found.map.argmax(), SHAPE)
    assert 12 <= row < 44
    assert 92 <= column < 148
    assert vitlite.evaluate(Detector(kept.run, "cpu"))["mean"]["pixel_auroc"] > 0.9
    assert kept.method.image_score.endswith("at 96 x 48 pixels")


def test_keep_has_the_pixels_of_the_preset_and_one_size_for_several_categories(tmp_path, data, caplog):
    for name, shape in (("tall", (80, 20)), ("wide", (20, 80))):
        (tmp_path / name / "train/good").mkdir(parents=True)
        for number in range(4):
            Image.fromarray(np.full((*shape, 3), 10 * number, np.uint8)).save(
                tmp_path / name / f"train/good/{number}.png"
            )
    with caplog.at_level(logging.INFO):
        run = vitlite.train(tmp_path, tmp_path / "run", device="cpu", category="all", **KEPT | {"steps": 1}).run
    assert load_settings(run).config.image_size == 64
    assert "64 x 64 pixels, between the shapes of 2 categories" in caplog.text
    assert ratio({"tall": [(80, 20)], "wide": [(20, 80)] * 5}) == pytest.approx(1)
    assert ratio({"tall": [(80, 20), (40, 20), (81, 20)]}) == pytest.approx(4)


def test_a_region_has_its_own_shape(tmp_path, data):
    mask = np.zeros(SHAPE, np.uint8)
    mask[10:50, 90:130] = 255
    Image.fromarray(mask).save(tmp_path / "roi.png")
    detector = vitlite.train(data, tmp_path / "run", device="cpu", roi=tmp_path / "roi.png", **KEPT)
    assert detector.image_size == 64
    assert detector.predict(data / "bar/test/bar/13.png").map.shape == SHAPE


@pytest.mark.parametrize("depth", [8, 16])
def test_the_box_around_all_parts_is_found_once_and_has_the_shape_that_is_kept(tmp_path, put, monkeypatch, depth):
    """Also of parts that are darker than a level of 8 bits in files of 16, before the run has its scale."""
    rng, calls = np.random.default_rng(0), []
    for number in range(8):
        image = np.full(SHAPE, 40) + rng.integers(0, 4, SHAPE)
        image[5:55, 60:80] = rng.integers(80, 120, (50, 20))
        put(tmp_path / f"parts/{number}.png", image.astype(np.uint8 if depth == 8 else np.uint16))
    find = region_files.region_of_part
    monkeypatch.setattr(region_files, "region_of_part", lambda image: calls.append(1) or find(image))
    run = vitlite.train(tmp_path / "parts", tmp_path / "run", device="cpu", roi="auto", **KEPT | {"steps": 1}).run
    mask = read_mask(run / "roi/all.png")
    height, width = mask.any(1).sum(), mask.any(0).sum()
    assert (height, width) == (56, 22)
    assert load_settings(run).config.image_size == fitted(64, height / width, 16)
    assert len(calls) == 8


def test_tiles_have_the_shape_of_two_numbers(tmp_path, data):
    detector = vitlite.train(
        data, tmp_path / "run", device="cpu", **TINY | {"image_size": "32,64", "tile": 32, "feature_size": "4,8"}
    )
    assert detector.view.places(*SHAPE)[:2] == [(0, 0), (0, 43)]
    assert detector.predict(data / "bar/test/good/10.png").map.shape == SHAPE
    with pytest.raises(UserError, match="image_size=keep,64: tiles have no shape to keep"):
        vitlite.train(data, tmp_path / "kept", device="cpu", **KEPT | {"tile": 32})
