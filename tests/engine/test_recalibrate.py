"""Thresholds set anew on a finished run, and which images may set them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from vitlite.engine.calibrate import (
    category_of,
    false_alarms,
    in_words,
    load_calibration,
    recalibrate,
    summarize,
    training_split,
)
from vitlite.engine.detector import Detector
from vitlite.engine.predict import limits_of
from vitlite.engine.settings import load_settings, save_settings
from vitlite.errors import UserError


@pytest.fixture
def data(tiny_data, tmp_path):
    """The training data, to be changed."""
    copy = tmp_path / "data"
    shutil.copytree(tiny_data, copy)
    return copy


@pytest.fixture
def run(tiny_run, data, tmp_path):
    """The tiny run, as if trained on ``data``."""
    from dataclasses import replace

    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    save_settings(copy, replace(load_settings(copy), data=str(data)))
    return copy


@pytest.fixture(scope="module")
def more_good(tmp_path_factory):
    """Good images that the tiny run has not seen."""
    from vitlite.data import synthesize

    folder = tmp_path_factory.mktemp("more") / "set"
    root = synthesize(folder, seed=7, size=64, categories=("weave",), train=24, good=1, defects=1)
    return root / "weave/train/good"


def again(run, **options):
    result = recalibrate(Detector(run, "cpu"), **options)
    return result, in_words(result)


def test_held_out_images_give_what_training_wrote(run):
    before = load_calibration(run)
    result, lines = again(run)
    assert result == before == load_calibration(run)
    assert result["expected_fpr"] == pytest.approx(0.5)  # one image
    assert any("too few for 1 %" in line and "99 good images" in line for line in lines)


def test_given_images(run, more_good):
    checkpoint = (run / "checkpoint.pt").read_bytes()
    result, lines = again(run, target_fpr=0.1, good=[more_good])
    assert (run / "checkpoint.pt").read_bytes() == checkpoint
    scores = sorted(p.score for p in Detector(run, "cpu").predict([str(p) for p in more_good.iterdir()]))
    assert result["images"] == 24
    assert result["good_scores"] == pytest.approx(scores, rel=1e-5)
    assert result["image_threshold"] == result["good_scores"][22]  # rank 25 - floor(2.5)
    expected, interval = false_alarms(24, 0.1)
    assert (result["expected_fpr"], result["expected_fpr_interval"]) == (expected, list(interval))
    assert expected == 2 / 25
    assert "expect 8 % false alarms" in lines[0]
    assert not any("too few" in line for line in lines)
    assert json.loads((run / "calibration.json").read_text()) == result
    assert not list(run.glob(".*"))


def test_false_alarms_on_new_images_come_at_the_promised_rate(run, more_good):
    """Thresholds from random halves: the other half exceeds them as often as promised, on average."""
    scores = np.array([p.score for p in Detector(run, "cpu").predict(sorted(map(str, more_good.iterdir())))])
    rng, rates = np.random.default_rng(0), []
    for _ in range(2000):
        order = rng.permutation(24)
        own = scores[order[:12]]
        limit = summarize(own.tolist(), ["weave"] * 12, own.tolist(), own.tolist(), 0.2, True)["image_threshold"]
        rates.append(np.mean(scores[order[12:]] > limit))
    assert np.mean(rates) == pytest.approx(false_alarms(12, 0.2)[0], abs=0.01)


def test_a_lower_target_is_a_higher_threshold(run, more_good):
    limits = [again(run, target_fpr=t, good=[more_good])[0]["image_threshold"] for t in (0.5, 0.2, 0.04)]
    assert limits == sorted(limits)
    assert limits[0] < limits[-1]


def test_folders_files_and_patterns_each_image_once(run, more_good):
    result, _ = again(run, good=[more_good, more_good / "000.png", str(more_good / "*.png")])
    assert result["images"] == 24


def test_unreadable_images_are_said_and_left_out(run, more_good, tmp_path, caplog):
    good = tmp_path / "good"
    shutil.copytree(more_good, good)
    (good / "000.png").write_bytes(b"nothing")
    assert again(run, good=[good])[0]["images"] == 23
    assert "000.png" in caplog.messages[0]
    for path in good.iterdir():
        path.write_bytes(b"nothing")
    before = (run / "calibration.json").read_bytes()
    with pytest.raises(UserError, match="none of the 24"):
        again(run, good=[good])
    assert (run / "calibration.json").read_bytes() == before


def test_images_that_were_trained_on_are_refused(run, data, tmp_path):
    with pytest.raises(UserError, match=r"trained on 9 of the 10 images"):
        again(run, good=[data / "weave/train/good"])
    trained, held = training_split(Detector(run, "cpu"))
    copy = tmp_path / "under another name.png"
    shutil.copy(trained[0].path, copy)
    with pytest.raises(UserError, match="under another name"):
        again(run, good=[copy])
    assert again(run, good=[held[0].path])[0]["images"] == 1


def test_data_sets_with_defects_are_refused(run, data):
    with pytest.raises(UserError, match="MVTec layout"):
        again(run, good=[data])
    with pytest.raises(UserError, match="good"):
        again(run, good=[data / "weave/test"])
    for part in ("weave/test/spot", "weave/ground_truth"):
        with pytest.raises(UserError, match="part of a data set and not its good images"):
            again(run, good=[data / part])


def test_training_data_that_is_gone(run, data, more_good):
    shutil.rmtree(data)
    with pytest.raises(UserError, match=r"--good") as error:
        again(run)
    assert str(data) in str(error.value)
    assert again(run, good=[more_good])[0]["images"] == 24


def test_training_data_that_has_changed(run, data, more_good):
    """One image more shifts the split, and images that were trained on would pass for held out."""
    shutil.copy(more_good / "000.png", data / "weave/train/good/zzz.png")
    with pytest.raises(UserError, match="added, removed, renamed or changed"):
        again(run)


def test_images_that_were_trained_on_are_refused_after_a_change(run, data, more_good):
    trained, _ = training_split(Detector(run, "cpu"))
    shutil.copy(more_good / "000.png", data / "weave/train/good/zzz.png")
    with pytest.raises(UserError, match="trained on 1 of the 1"):
        again(run, good=[trained[0].path])
    others = [path for path in more_good.iterdir() if path.name != "000.png"]
    assert again(run, good=others)[0]["images"] == 23


def test_images_that_training_could_not_read_do_not_count_as_a_change(tiny_data, data, tmp_path):
    from tiny_settings import TINY

    from vitlite.engine.settings import RunSettings, apply_overrides, preset_config
    from vitlite.engine.train import train

    trained, _ = training_split_of(data)
    trained[3].path.write_bytes(b"broken")
    config = apply_overrides(preset_config("sivt", "quick"), [f"{k}={v}" for k, v in TINY.items()])
    run = tmp_path / "with_broken"
    train(RunSettings("sivt", str(data), "weave", "quick", 0, config), run, device="cpu")
    assert again(run)[0]["images"] == 1


def training_split_of(data):
    from vitlite.data import open_dataset
    from vitlite.engine.split import hold_out

    return hold_out(open_dataset(data).train, 0.1, 0)


def test_nothing_held_out(run):
    from dataclasses import replace

    settings = load_settings(run)
    save_settings(run, replace(settings, config=replace(settings.config, holdout=0.0)))
    with pytest.raises(UserError, match=r"held no good images out.*--good"):
        again(run)


def test_unfinished_and_damaged_runs(run, more_good):
    (run / "calibration.json").write_text("{")
    detector = Detector(run, "cpu", calibrated=False)
    recalibrate(detector, good=[more_good])
    assert load_calibration(run) == detector.calibration
    (run / "calibration.json").unlink()
    with pytest.raises(UserError, match="training did not finish"):
        recalibrate(Detector(run, "cpu", calibrated=False), good=[more_good])


def test_scores_that_are_not_numbers(run, more_good):
    detector = Detector(run, "cpu")
    detector.method.feature_mean.fill_(np.nan)
    before = (run / "calibration.json").read_bytes()
    with pytest.raises(UserError, match="not finite"):
        recalibrate(detector, good=[more_good])
    assert (run / "calibration.json").read_bytes() == before


def test_images_that_were_trained_on_promise_nothing():
    result = summarize([1.0, 2.0], ["a", "a"], [1.0, 2.0], [0.0, 0.0], 0.01, False)
    assert result["expected_fpr"] is None
    assert result["categories"]["a"]["expected_fpr_interval"] == [None, None]


def test_categories_have_their_own_limits():
    scores, tails = [1.0, 2.0, 3.0, 9.0], [10.0, 20.0, 30.0, 90.0]
    result = summarize(scores, ["a", "a", "b", ""], tails, [0.0] * 4, 0.5, True)
    assert set(result["categories"]) == {"a", "b"}
    limits = limits_of(result, "a")
    assert (limits.image, limits.pixel, limits.good_scores.tolist()) == (2.0, 20.0, [1.0, 2.0])
    assert limits_of(result).good_scores.size == 4
    with pytest.raises(UserError, match="calibrated for a, b"):
        limits_of(result, "c")


def test_limits_of_a_calibration_from_before_categories_had_scores():
    old = {
        "image_threshold": 5.0,
        "pixel_threshold": 7.0,
        "good_scores": [1.0, 2.0],
        "categories": {"a": {"images": 2, "image_threshold": 4.0}},
    }
    limits = limits_of(old, "a")
    assert (limits.image, limits.pixel, limits.good_scores.tolist()) == (4.0, 7.0, [1.0, 2.0])


def test_categories_by_folder(tmp_path):
    assert category_of(tmp_path / "x.png", ["nut"]) == "nut"
    assert category_of(tmp_path / "nut" / "good" / "x.png", ["nut", "cable"]) == "nut"
    assert category_of(tmp_path / "nut" / "cable" / "x.png", ["nut", "cable"]) == "cable"
    assert category_of(tmp_path / "cable.png", ["nut", "cable.png"]) == ""


def test_pictures_of_any_size_and_kind(run, tmp_path):
    good = tmp_path / "odd"
    good.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 90), np.uint8)).save(good / "grey.png")
    Image.fromarray(rng.integers(0, 255, (70, 50, 3), np.uint8)).save(good / "colour.jpg")
    assert again(run, good=[good])[0]["images"] == 2
