"""Runs that look at a part of the images alone: nothing outside has any effect."""

import numpy as np
import pytest
from commands import refused
from PIL import Image

import vitlite
from vitlite.data import read_mask
from vitlite.engine.detector import Detector
from vitlite.engine.predict import predict
from vitlite.engine.settings import load_settings
from vitlite.errors import UserError
from vitlite.export.metadata import describe, dumps, known_regions, loads

SETTINGS = {"window": 16, "stride": 8, "latent": 5, "steps": 10, "sigma": 1, "batch_size": 4, "folds": 0}


@pytest.fixture(scope="module")
def half(tmp_path_factory, tiny_data):
    """A run on the left half of images of 64 x 64 pixels, in tiles of 32."""
    folder = tmp_path_factory.mktemp("half")
    marked = np.zeros((64, 64), np.uint8)
    marked[:, :32] = 255
    Image.fromarray(marked).save(folder / "left.png")
    run = folder / "run"
    return vitlite.train(tiny_data, run, method="l2cae", device="cpu", tile=32, roi=folder / "left.png", **SETTINGS)


def test_nothing_outside_has_an_effect(half, tiny_data):
    path = next((tiny_data / "weave/test").glob("good/*.png"))
    image = np.asarray(Image.open(path).convert("RGB"))
    other = image.copy()
    noise = np.random.default_rng(0).integers(0, 256, (64, 32, 3))
    other[:, 32:] = noise
    one, two = half.predict([image, other])
    assert one.score == two.score
    assert np.array_equal(one.map, two.map)
    assert one.map[:, 32:].max() == one.map[:, :32].min()
    other[:, :32] = noise
    found = half.predict(other)
    assert found.score > one.score
    assert found.map[:, :32].max() > one.map[:, :32].max()
    (row,) = predict(half, path, threshold=-9, pixel_threshold=-9)  # every pixel is above
    assert row["regions"] == ((0, 0, 32, 64),)
    assert row["defect_pixels"] == 32 * 64


def test_the_run_holds_its_region(half, tmp_path, tiny_data):
    (half.run.parent / "left.png").unlink(missing_ok=True)
    again = Detector(half.run, "cpu")
    assert again.digest() == half.digest()
    assert len(list((half.run / "roi/examples").glob("*.png"))) == 3
    path = next((tiny_data / "weave/test").glob("good/*.png"))
    Image.open(path).resize((60, 64)).save(tmp_path / "narrow.png")
    good, narrow = predict(again, [path, tmp_path / "narrow.png"], tmp_path / "out")
    assert "is 60x64, but its region (roi, ignore) is 64x64" in narrow["error"]
    drawn, image = (np.asarray(Image.open(one).convert("RGB")) for one in (tmp_path / "out" / good["overlay"], path))
    assert np.abs(drawn[:, 33:].astype(int) - image[:, 33:] // 2).max() <= 1
    written = loads(dumps(describe(load_settings(half.run), half.calibration, again.reading.regions)), "a.onnx")
    assert known_regions(written).digest() == again.reading.regions.digest()


def test_without_tiles_the_box_around_the_region_is_seen(tmp_path, tiny_data):
    """As if the images had been cut to it, with the map at its place in the whole image."""
    box = (slice(8, 40), slice(16, 48))
    marked = np.zeros((64, 64), np.uint8)
    marked[box] = 255
    Image.fromarray(marked).save(tmp_path / "roi.png")
    cut = tmp_path / "cut"
    for path in tiny_data.rglob("*.png"):
        place = cut / path.relative_to(tiny_data)
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(Image.open(path))[box]).save(place)
    settings = {**SETTINGS, "method": "l2cae", "device": "cpu", "image_size": 32}
    whole = vitlite.train(tiny_data, tmp_path / "whole", roi=tmp_path / "roi.png", **settings)
    small = vitlite.train(cut, tmp_path / "small", **settings)
    name = next((tiny_data / "weave/test").glob("[!g]*/*.png")).relative_to(tiny_data)
    one, two = whole.predict(tiny_data / name), small.predict(cut / name)
    assert one.score == two.score
    assert np.array_equal(one.map[box], two.map)
    assert one.map.max() == two.map.max()
    assert one.map[:8].max() == two.map.min()
    figures = [vitlite.evaluate(detector)["mean"]["image_auroc"] for detector in (whole, small)]
    assert figures[0] == figures[1]


def test_a_region_of_another_size_is_refused(tmp_path, tiny_data, put):
    marked = put(tmp_path / "roi.png", np.full((32, 64), 255, np.uint8))
    with pytest.raises(UserError, match=r"roi=.*roi\.png: is 64x32, but .*000\.png is 64x64; give a mask"):
        vitlite.train(tiny_data, tmp_path / "run", method="l2cae", device="cpu", image_size=32, roi=marked, **SETTINGS)
    assert not (tmp_path / "run").exists()


def test_masks_count_inside_alone(half, tiny_data):
    masks = [read_mask(path) for path in (tiny_data / "weave/ground_truth").rglob("*.png")]
    own = vitlite.evaluate(half)["categories"]["weave"]
    assert own["empty_masks"] == sum(not mask[:, :32].any() for mask in masks) > 0


def test_the_box_of_auto_stays_that_of_the_training(tmp_path, put, caplog):
    """An update does not move it, and without its file the run is refused: the network would see something else."""
    rng = np.random.default_rng(0)

    def part(name, top):
        image = np.full((64, 64, 3), 240, np.uint8)
        image[top : top + 24, 8:40] = rng.integers(40, 120, (24, 32, 3))
        return put(tmp_path / name, image)

    for number in range(8):
        part(f"good/{number}.png", 8 + number)
    settings = {**SETTINGS, "method": "l2cae", "device": "cpu", "image_size": 32}
    run = vitlite.train(tmp_path / "good", tmp_path / "run", roi="auto", **settings).run
    file = run / "roi/all.png"
    box = read_mask(file)
    assert not box[:4].any()
    assert box[8:39, 8:40].all()
    for number in range(4):
        part(f"new/{number}.png", 30)  # lies further down
    again = vitlite.train(tmp_path / "new", tmp_path / "next", init_from=run, **settings)
    assert np.array_equal(read_mask(again.run / "roi/all.png"), box)
    other = vitlite.train(tmp_path / "new", tmp_path / "other", init_from=run, roi="auto", **settings)
    assert not read_mask(other.run / "roi/all.png")[:20].any()  # given anew
    image = tmp_path / "new/0.png"
    caplog.clear()
    predict(Detector(run, "cpu"), image)
    assert "% of its part lies outside of the box that this run sees" in caplog.text
    predict(other, image)
    assert caplog.text.count("outside of the box") == 1
    kept = file.read_bytes()
    file.unlink()
    refused("predict", run, image, says="a mask is missing, or not the one that this run was trained with")
    refused("train", "--init-from", run, "--data", tmp_path / "new", "--out", tmp_path / "x", says="a mask is missing")
    put(file, 255 - box * 255)
    refused("predict", run, image, says="not the one that this run was trained with")
    file.write_bytes(kept)
    assert Detector(run, "cpu").reading.regions.auto
