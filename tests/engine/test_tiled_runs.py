"""Runs whose network sees tiles: what is small on a large image is found, and every command follows the run."""

import logging

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import vitlite
from vitlite.data import open_dataset
from vitlite.data.index import Sample
from vitlite.engine.calibrate import recalibrate
from vitlite.engine.detector import Detector
from vitlite.engine.features import log_size
from vitlite.engine.predict import predict
from vitlite.engine.settings import RunSettings, preset_config
from vitlite.errors import UserError
from vitlite.images.tiles import Blend
from vitlite.methods.config import TrainingConfig, change

SETTINGS = {"window": 16, "stride": 8, "latent": 5, "steps": 30, "sigma": 1, "batch_size": 4, "folds": 0}
SHAPE = (112, 160)


def run_of(config, method="sivt", preset="quick"):
    return RunSettings(method, "", "", preset, 0, config)


def good_image(rng):
    fine = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2) * 30
    return np.repeat(np.clip(130 + fine, 0, 255).astype(np.uint8)[..., None], 3, 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Good images, and some with a scratch of 2 x 14 pixels, in MVTec's layout."""
    root, rng = tmp_path_factory.mktemp("scratches") / "set", np.random.default_rng(0)

    def save(name, image):
        (root / "plate" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / "plate" / name)

    for i in range(10):
        save(f"train/good/{i}.png", good_image(rng))
    for i in range(6):
        save(f"test/good/{i}.png", good_image(rng))
        image, mask = good_image(rng), np.zeros(SHAPE, np.uint8)
        top, left = rng.integers(5, 100), rng.integers(5, 140)
        mask[top : top + 2, left : left + 14] = 255
        image[mask > 0] -= 30
        save(f"test/scratch/{i}.png", image)
        save(f"ground_truth/scratch/{i}_mask.png", mask)
    return root


@pytest.fixture(scope="module")
def tiled(tmp_path_factory, data):
    run = tmp_path_factory.mktemp("runs") / "tiled"
    return vitlite.train(data, run, method="l2cae", device="cpu", tile=32, **SETTINGS)


def test_a_scratch_is_found_with_tiles_alone(tiled, tmp_path, data):
    whole = vitlite.train(data, tmp_path / "whole", method="l2cae", device="cpu", image_size=32, **SETTINGS)
    without, with_tiles = (vitlite.evaluate(one)["mean"] for one in (whole, tiled))
    assert without["image_auroc"] < 0.8 < 0.95 < with_tiles["image_auroc"]
    assert with_tiles["pixel_ap"] > 0.3 + without["pixel_ap"]


def test_the_map_and_score_come_from_the_tiles(tiled, data):
    path = data / "plate/test/scratch/0.png"
    found, image = tiled.predict(path), np.asarray(Image.open(path))
    assert tiled.image_size == 32
    assert found.map.shape == SHAPE
    places = tiled.view.places(*SHAPE)
    maps, scores = tiled.score_pixels(np.stack([tiled.view.cut(image, place) for place in places]))
    blend = Blend(tiled.view, *SHAPE, places)
    for values in maps:
        blend.add(values)
    assert found.score == pytest.approx(scores.max(), rel=1e-4)
    assert np.allclose(found.map, blend.map, rtol=1e-3, atol=1e-5)
    several = tiled.predict([path, image[:70], path], batch_size=2)
    assert [one.map.shape for one in several] == [SHAPE, (70, 160), SHAPE]
    assert several[0].score == several[2].score == pytest.approx(found.score, rel=1e-4)


def test_the_parts_are_those_of_the_tiles(tiled, data):
    path = data / "plate/test/good/0.png"
    (loaded, *_), *_ = tiled.score_files([path])
    (reconstruction,) = tiled.parts_of(loaded).values()
    assert reconstruction.shape == (3, *SHAPE)
    assert np.abs(reconstruction - loaded.original.transpose(2, 0, 1) / 255).mean() < 0.2


def test_the_parts_too_come_from_no_more_tiles_at_a_time_than_asked_for(tiled, data, tmp_path, monkeypatch):
    sizes, own = [], tiled._part_pixels
    monkeypatch.setattr(tiled, "_part_pixels", lambda pixels: sizes.append(len(pixels)) or own(pixels))
    predict(tiled, data / "plate/test/good/0.png", tmp_path, parts=True, batch_size=2)
    assert max(sizes) == 2


def test_calibration_scores_good_images_as_prediction_does(tiled, data):
    held = [image["file"] for image in tiled.calibration["good_images"]]
    files = [data / file for file in held]
    assert tiled.calibration["good_scores"] == pytest.approx(
        sorted(tiled.predict(path).score for path in files), rel=1e-3
    )
    again = recalibrate(Detector(tiled.run, "cpu"), good=files)
    assert again["image_threshold"] == pytest.approx(tiled.calibration["image_threshold"], rel=1e-3)


def test_training_says_how_small_a_defect_can_be(caplog, data):
    samples = open_dataset(data).train
    with caplog.at_level(logging.INFO, "vitlite"):
        log_size(run_of(TrainingConfig(image_size=32)), samples)
        log_size(run_of(TrainingConfig(image_size=32, tile=64)), samples)
    whole, tiles = caplog.messages
    assert (
        "160 x 112 pixels come to the network as 32 x 32: a defect smaller than 20 x 14 pixels is hardly seen" in whole
    )
    assert "tile=32 sees smaller ones" in whole
    assert "tiles of 64 pixels: a defect smaller than 8 x 8 pixels is hardly seen" in tiles


def test_a_tile_that_training_names_suits_the_network(caplog, tmp_path, put):
    put(tmp_path / "wide.png", np.zeros((450, 800, 3), np.uint8))
    config = preset_config("sivt", "quick").shaped(450 / 800)
    with caplog.at_level(logging.INFO, "vitlite"):
        log_size(run_of(config), [Sample(tmp_path / "wide.png", "parts", "train", "good", 0, None)])
    assert config.image_shape == (192, 336)
    finer = "preset=quick512 sees half of that in twice the time"
    assert f"as 336 x 192: a defect smaller than 19 x 19 pixels is hardly seen; {finer}; tile=256 sees" in caplog.text


@pytest.mark.parametrize(
    ("method", "preset", "side", "says"),
    [
        ("sivt", "quick", 512, "; preset=quick512 sees half of that in twice the time; tile=256 sees smaller ones"),
        ("sivt", "long", 384, "; preset=quick512 sees half of that; tile=256 sees smaller ones"),
        ("knn", "quick", 384, "; preset=quick512 sees half of that in twice the time; tile=256 sees smaller ones"),
        ("sivt", "quick", 383, None),
        ("sivt", "quick512", 800, None),
        ("sivt", "quick512", 1024, "; tile=512 sees smaller ones"),
        ("dinomaly", "paper", 1024, "; tile=392 sees smaller ones"),
    ],
)
def test_a_finer_preset_is_named_before_tiles(caplog, monkeypatch, method, preset, side, says):
    config = preset_config(method, preset)
    config = config.shaped(1) if config.keeps else config
    monkeypatch.setattr("vitlite.engine.features.shapes", lambda *_: {"parts": [(side, side)]})
    log_size(run_of(config, method, preset), [])
    assert [text.partition(" is hardly seen")[2] for text in caplog.messages] == ([] if says is None else [says])


def test_what_is_seen_of_images_of_several_sizes(caplog, monkeypatch):
    sizes = [(1000, 300), (400, 900), (64, 64)]
    monkeypatch.setattr("vitlite.engine.features.shapes", lambda *_: {"tall": sizes[:2], "small": sizes[2:]})
    log_size(run_of(TrainingConfig(image_size=64)), [])
    assert caplog.messages[0].startswith(
        "size: images that are 64 to 900 pixels wide and 64 to 1000 high come to the network as 64 x 64: "
        "a defect smaller than 4 to 56 x 4 to 62 pixels is hardly seen; "
    )


def test_images_of_every_shape_are_large_if_one_side_is(caplog, monkeypatch):
    """The one with more pixels is not."""
    monkeypatch.setattr("vitlite.engine.features.shapes", lambda *_: {"parts": [(120, 120), (20, 200)]})
    log_size(run_of(TrainingConfig(image_size=64)), [])
    assert "a defect smaller than 8 to 12 x 1 to 8 pixels" in caplog.text


def test_no_defect_is_smaller_than_a_pixel(caplog, data):
    with caplog.at_level(logging.INFO, "vitlite"):
        log_size(run_of(change(preset_config("sivt", "quick"), {"tile": 8})), open_dataset(data).train)
    assert "smaller than 1 x 1 pixels" in caplog.text


@pytest.mark.parametrize("values", [{"tile": 4}, {"tile": -1}, {"tile": 64, "overlap": 0.8}])
def test_tiles_that_cannot_be(values):
    with pytest.raises(UserError, match=next(reversed(values))):
        TrainingConfig(**values)


def test_a_tile_is_named_and_not_the_image_size_that_follows_it():
    with pytest.raises(UserError, match="tile=-5: must be 0, for no tiles, or at least 8"):
        change(TrainingConfig(), {"tile": -5})
