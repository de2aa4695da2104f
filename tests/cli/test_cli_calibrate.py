"""``vitlite calibrate``, and what predict and eval do with it and with --maps."""

import csv
import json
import shutil

import numpy as np
import pytest
from commands import vitlite
from PIL import Image

from vitlite.engine.results import KEYS
from vitlite.images.maps import read_map


def refused(*args):
    out, err = vitlite(*args, code=2)
    assert out == ""
    assert err.startswith("vitlite: ")
    assert err.count("\n") == 1, err
    return err


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def run(tiny_run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    return copy


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    from vitlite.data import synthesize

    folder = tmp_path_factory.mktemp("good") / "set"
    root = synthesize(folder, seed=5, size=64, categories=("weave",), train=19, good=1, defects=1)
    return root / "weave/train/good"


def test_calibrate_then_predict(run, good, tiny_data, tmp_path):
    out, err = vitlite("calibrate", run, "--target-fpr", "0.1", "--good", good, "--device", "cpu")
    assert "from 19 good images: expect 10 % false alarms (90 % interval " in out
    assert "written: " in out
    assert err == ""
    calibration = json.loads((run / "calibration.json").read_text())
    assert calibration["target_fpr"] == 0.1
    # Two of the 19 images are above the rank 20 - 2, one is at it: the verdict is the comparison that was promised.
    vitlite("predict", run, good, "--out", tmp_path / "p", "--no-overlays", "--device", "cpu")
    rows = rows_of(tmp_path / "p/predictions.csv")
    assert sum(row["verdict"] == "defect" for row in rows) == 1
    assert max(float(row["percentile"]) for row in rows) == pytest.approx(100 * 18 / 19, abs=0.1)
    vitlite("predict", run, good, "--out", tmp_path / "p", "--no-overlays", "--fail-on-defect", code=1)


def test_held_out_by_default_and_quiet(run):
    out, _ = vitlite("calibrate", run, "--device", "cpu")
    assert "too few for 1 %: with 1 the lowest rate that can be promised is 1/2; it takes 99 good images" in out
    assert vitlite("calibrate", run, "--quiet") == ("", "")


@pytest.mark.parametrize("target", ["0", "1", "-1", "1.5", "nan"])
def test_targets_outside(run, target):
    before = (run / "calibration.json").read_bytes()
    assert "--target-fpr" in refused("calibrate", run, "--target-fpr", target)
    assert (run / "calibration.json").read_bytes() == before


def test_mistakes_are_one_line(run, tiny_data, tmp_path):
    assert "--target-fpr" in refused("calibrate", run, "--target-fpr", "few")
    assert "/no/such" in refused("calibrate", "/no/such")
    assert "none.png" in refused("calibrate", run, "--good", tmp_path / "none.png")
    assert "MVTec layout" in refused("calibrate", run, "--good", tiny_data)
    (tmp_path / "empty").mkdir()
    assert "empty" in refused("calibrate", run, "--good", tmp_path / "empty")
    text = (run / "config.toml").read_text().replace(str(tiny_data), "/gone")
    (run / "config.toml").write_text(text)
    line = refused("calibrate", run)
    assert "/gone" in line
    assert "--good" in line


def test_a_damaged_calibration_is_mended(run, good):
    (run / "calibration.json").write_text("[]")
    assert "vitlite calibrate" in refused("predict", run, good, "--out", run / "p")
    vitlite("calibrate", run, "--good", good)
    vitlite("predict", run, good / "000.png", "--out", run / "p")


def test_help_is_quick_and_has_an_example():
    out, _ = vitlite("calibrate", "--help")
    assert "Example" in out
    assert "calibrate" in vitlite("--help")[0]


def test_predict_writes_maps_at_the_original_size(run, tmp_path):
    pictures = tmp_path / "in"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 90), np.uint8)).save(pictures / "a.b.png")
    Image.fromarray(rng.integers(0, 255, (70, 50, 3), np.uint8)).save(pictures / "ü.jpg")
    (pictures / "broken.png").write_bytes(b"")
    out = tmp_path / "out"
    vitlite("predict", run, pictures, "--out", out, "--maps", "--no-overlays", "--category", "weave")
    rows = {row["file"].rsplit("/", 1)[1]: row for row in rows_of(out / "predictions.csv")}
    assert rows["broken.png"]["map"] == ""
    assert rows["a.b.png"]["overlay"] == ""
    pixel = json.loads((run / "calibration.json").read_text())["categories"]["weave"]["pixel_threshold"]
    for name, shape in (("a.b.png", (40, 90)), ("ü.jpg", (70, 50))):
        with Image.open(out / rows[name]["map"]) as image:
            assert (image.mode, image.format) == ("F", "TIFF")
        values = read_map(out / rows[name]["map"])
        assert values.shape == shape
        assert int((values > pixel).sum()) == int(rows[name]["defect_pixels"])
    assert sorted(p.name for p in (out / "maps").iterdir()) == ["a.b.tiff", "ü.tiff"]


def test_predict_without_maps_makes_no_folder(run, good, tmp_path):
    vitlite("predict", run, good / "000.png", "--out", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000.png", "predictions.csv"]
    assert rows_of(tmp_path / "out/predictions.csv")[0]["map"] == ""


@pytest.mark.parametrize("resized", [False, True])
def test_maps_of_eval_score_the_same_in_eval_maps(run, tiny_data, tmp_path, resized):
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    if resized:  # no picture has the network's size
        for i, path in enumerate(sorted((data / "weave/test").rglob("*.png"))):
            size = (90 + i, 50 + 2 * i)
            mask = data / "weave/ground_truth" / path.parent.name / f"{path.stem}_mask.png"
            Image.open(path).resize(size).save(path)
            if mask.exists():
                Image.open(mask).resize(size, Image.Resampling.NEAREST).save(mask)
    out, _ = vitlite("eval", run, "--data", data, "--maps", "--device", "cpu")
    assert f"{run}/maps" in out
    own = json.loads((run / "results.json").read_text())
    vitlite("eval-maps", run / "maps", "--data", data, "--out", tmp_path / "scored")
    official = json.loads((tmp_path / "scored/results.json").read_text())
    for key in KEYS[3:]:
        assert official["mean"][key] == pytest.approx(own["mean"][key], abs=1e-6), key
        assert official["categories"]["weave"][key] == pytest.approx(own["categories"]["weave"][key], abs=1e-6), key
    assert len(list((run / "maps/weave/test").rglob("*.tiff"))) == 10


def test_categories_of_one_model(tmp_path):
    """Their images are told apart by folder; predict takes a category's limits, or those of all."""
    from tiny_settings import TINY_OPTIONS

    from vitlite.data import synthesize

    data = synthesize(tmp_path / "data", seed=1, size=64, categories="weave,wood", train=6, good=1, defects=1)
    more = synthesize(tmp_path / "more", seed=2, size=64, categories="weave,wood", train=9, good=1, defects=1)
    run = tmp_path / "run"
    vitlite("train", "--method", "sivt", "--data", data, "--category", "all", "--out", run, *TINY_OPTIONS)
    good = [part for name in ("weave", "wood") for part in ("--good", more / name / "train/good")]
    out, _ = vitlite("calibrate", run, "--target-fpr", "0.1", *good)
    lines = out.splitlines()
    assert "from 18 good images" in lines[0]
    assert lines[1].startswith("  weave: threshold ")
    assert "from 9: expect 10 % false alarms" in lines[2]
    calibration = json.loads((run / "calibration.json").read_text())
    for name in ("weave", "wood"):
        own = calibration["categories"][name]
        assert own["image_threshold"] == own["good_scores"][-1]
        vitlite(
            "predict", run, more / name / "train/good", "--out", tmp_path / name, "--category", name, "--no-overlays"
        )
        rows = rows_of(tmp_path / name / "predictions.csv")
        scores = [float(row["score"]) for row in rows]
        assert max(scores) == pytest.approx(own["image_threshold"], rel=1e-4)
        # Other batches may move a score by its last bit, and so one image past itself.
        ranks = sorted(float(row["percentile"]) * 9 / 100 for row in rows)
        assert ranks == pytest.approx(list(range(9)), abs=1.02)
    out, _ = vitlite("calibrate", run, "--good", more / "wood/train/good")
    assert out.count("too few") == 1
    assert "no threshold of its own: weave; give --good images of every category" in out
    assert "calibrated for wood" in refused("predict", run, data / "weave/test", "--out", run, "--category", "weave")


def test_pictures_that_would_share_a_map(run, tiny_data, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    Image.open(data / "weave/test/good/000.png").save(data / "weave/test/good/000.bmp")
    assert "000.bmp" in refused("eval", run, "--data", data, "--maps")
    assert not (run / "maps").exists()
    vitlite("eval", run, "--data", data)
