"""Thresholds set anew on a finished run, and which images may set them."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vitlite.calibration import summarize
from vitlite.data import open_dataset, read_image, synthesize
from vitlite.engine.calibrate import (
    calibrate,
    recalibrate,
    set_thresholds,
)
from vitlite.engine.detector import Detector, load_calibration
from vitlite.engine.settings import load_settings, save_settings
from vitlite.engine.split import training_split
from vitlite.errors import UserError
from vitlite.good_scores import Good
from vitlite.limits import category_of, false_alarms, in_words
from vitlite.metrics.thresholds import (
    MARGIN,
    threshold_above,
    threshold_rank,
    upper_quantile,
)


@pytest.fixture
def data(tiny_data, tmp_path):
    """The training data, to be changed."""
    return shutil.copytree(tiny_data, tmp_path / "data")


@pytest.fixture
def run(tiny_run, data, tmp_path):
    """The tiny run, as if trained on ``data``."""
    copy = shutil.copytree(tiny_run, tmp_path / "run")
    save_settings(copy, replace(load_settings(copy), data=str(data)))
    return copy


@pytest.fixture(scope="module")
def more_good(tmp_path_factory):
    """Good images that the tiny run has not seen."""
    folder = tmp_path_factory.mktemp("more") / "set"
    root = synthesize(folder, seed=7, size=64, categories=("weave",), train=24, good=1, defects=1)
    return root / "weave/train/good"


def again(run, **options):
    return recalibrate(Detector(run, "cpu"), **options)


def fingerprint_of(run):
    return Detector(run, "cpu").fingerprint


def test_held_out_images_give_what_training_wrote(run, data):
    before = load_calibration(run)
    result = again(run)
    assert result == before == load_calibration(run)
    train, held = training_split(load_settings(run), run, fingerprint_of(run))
    assert result["images"] == len(held) == 1
    assert result["held_out"]
    paths = [{s.path for s in part} for part in (train, held)]
    assert set.union(*paths) == {s.path for s in open_dataset(data).train}
    assert not set.intersection(*paths)
    assert result["expected_fpr"] == pytest.approx(0.5)
    assert any("too few for 5 %" in line and "19 good images" in line for line in in_words(result))


def test_given_images(run, more_good):
    checkpoint = (run / "checkpoint.pt").read_bytes()
    result = again(run, target_fpr=0.1, good=[more_good])
    assert (run / "checkpoint.pt").read_bytes() == checkpoint
    scores = sorted(p.score for p in Detector(run, "cpu").predict([str(p) for p in more_good.iterdir()]))
    assert result["images"] == 24
    assert result["good_scores"] == pytest.approx(scores, rel=1e-5)
    assert upper_quantile(result["good_scores"], 0.1) == result["good_scores"][22]  # rank 25 - floor(2.5)
    assert result["good_scores"][22] < result["image_threshold"] < result["good_scores"][23]
    assert result["image_threshold"] == threshold_above(result["good_scores"], 0.1)
    expected, interval = false_alarms(24, 0.1)
    assert (result["expected_fpr"], result["expected_fpr_interval"]) == (expected, list(interval))
    assert expected == 2 / 25
    line, differ = in_words(result)
    assert "expect 8 % false alarms" in line
    assert line.endswith("by the robust rule")
    assert "light or position" in differ
    assert json.loads((run / "calibration.json").read_text()) == result
    assert not list(run.glob(".*"))


def test_known_defects_balance_the_threshold(run, data, more_good, caplog):
    good, detector = sorted(more_good.iterdir()), Detector(run, "cpu")
    defects = [path for kind in ("spot", "scratch") for path in sorted((data / "weave/test" / kind).iterdir())]
    plain = again(run, good=good)
    assert plain["balance"] is None
    result = recalibrate(detector, good=[more_good], balance=[data / "weave/test/spot", *defects[2:]])
    assert "new ones are missed more often" in caplog.text
    alarms, missed = (
        sum(p.verdict == verdict for p in detector.predict([str(path) for path in paths]))
        for paths, verdict in ((good, "defect"), (defects, "good"))
    )
    assert result["balance"] == {"defects": 4, "missed": missed, "false_alarms": alarms}
    assert alarms / 24 + missed / 4 <= 1
    assert result["categories"]["weave"]["balance"] == result["balance"]
    assert (result["expected_fpr"], result["expected_fpr_interval"]) == (None, [None, None])
    assert result["pixel_threshold"] == plain["pixel_threshold"]
    assert load_calibration(run) == result
    assert again(run, good=good) == plain


@pytest.mark.parametrize("name", ["weave", None])
def test_a_threshold_by_hand_is_not_balanced(run, data, name):
    again(run, balance=[data / "weave/test/spot"])
    set_thresholds(run, pixel=1.0)
    assert load_calibration(run)["balance"]["defects"] == 2
    set_thresholds(run, image=1.0, category=name)
    found = load_calibration(run)
    assert found["balance"] is found["categories"]["weave"]["balance"] is None
    assert in_words(found) == ["threshold 1 (pixels 1), set by hand"]


def test_an_image_is_good_or_a_known_defect(run, data, more_good, tmp_path):
    before, spots = (run / "calibration.json").read_bytes(), data / "weave/test/spot"
    good, held = tmp_path / "good", training_split(load_settings(run), run, fingerprint_of(run))[1]
    good.mkdir()
    copy = shutil.copy(next(spots.iterdir()), good / "copy.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    for options, line in (
        ({"good": [good]}, "000.png: given as known defects, and also among the good images"),
        ({"balance": [shutil.copy(held[0].path, tmp_path)]}, ".*: given as known defects, and also among the good"),
        ({"balance": [broken]}, "no known defect is readable, of 1 image"),
        ({"target_fpr": 0.1}, "not together with"),
    ):
        with pytest.raises(UserError, match=line):
            again(run, **{"balance": [spots], **options})
    assert (run / "calibration.json").read_bytes() == before
    for path in more_good.iterdir():
        shutil.copy(path, good)
    assert again(run, good=[good], without=[copy], balance=[spots])["balance"]["defects"] == 2


def test_verdicts_do_not_depend_on_batches_and_threads(run, more_good):
    """On the images that the thresholds come from: as many are above as the calibration counted."""
    import torch

    paths = sorted(map(str, more_good.iterdir()))[:9]
    result = again(run, target_fpr=0.3, good=paths)
    detector, before = Detector(run, "cpu"), torch.get_num_threads()
    found = set()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for size in (1, 3, 8):
                predictions = detector.predict(paths, batch_size=size)
                found.add(tuple(p.verdict for p in predictions))
                assert sorted(p.score for p in predictions) == pytest.approx(result["good_scores"], rel=MARGIN / 2)
                assert all(abs(p.score / result["image_threshold"] - 1) > MARGIN / 2 for p in predictions)
    finally:
        torch.set_num_threads(before)
    (verdicts,) = found
    counted = sum(score > result["image_threshold"] for score in result["good_scores"])
    assert verdicts.count("defect") == counted == 9 - threshold_rank(9, 0.3) == 2


def test_false_alarms_on_new_images_come_at_the_promised_rate(run, more_good):
    """Thresholds from random halves: the other half exceeds them as often as promised, on average."""
    scores = np.array([p.score for p in Detector(run, "cpu").predict(sorted(map(str, more_good.iterdir())))])
    rng, rates = np.random.default_rng(0), []
    for _ in range(2000):
        order = rng.permutation(24)
        limit = summarize([Good("weave", s, s, 0.5) for s in scores[order[:12]].tolist()], 0.2, True)["image_threshold"]
        rates.append(np.mean(scores[order[12:]] > limit))
    assert np.mean(rates) == pytest.approx(false_alarms(12, 0.2)[0], abs=0.01)


def test_folders_files_and_patterns_each_image_once(run, more_good):
    result = again(run, good=[more_good, more_good / "000.png", str(more_good / "*.png")])
    assert result["images"] == 24


def test_unreadable_images_are_named_and_left_out(run, more_good, tmp_path, caplog):
    good = shutil.copytree(more_good, tmp_path / "good")
    (good / "000.png").write_bytes(b"nothing")
    assert again(run, good=[good])["images"] == 23
    assert "000.png" in caplog.messages[0]
    for path in good.iterdir():
        path.write_bytes(b"nothing")
    before = (run / "calibration.json").read_bytes()
    with pytest.raises(UserError, match="none of the 24"):
        again(run, good=[good])
    assert (run / "calibration.json").read_bytes() == before


def test_images_that_were_trained_on_are_refused(run, data, more_good, tmp_path):
    """Copies included, and also if the data has changed since training."""
    with pytest.raises(UserError, match=r"trained on 9 of the 10 images"):
        again(run, good=[data / "weave/train/good"])
    trained, held = training_split(load_settings(run), run, Detector(run, "cpu").fingerprint)
    copy = shutil.copy(trained[0].path, tmp_path / "under another name.png")
    with pytest.raises(UserError, match="under another name"):
        again(run, good=[copy])
    assert again(run, good=[held[0].path])["images"] == 1
    shutil.copy(more_good / "000.png", data / "weave/train/good/zzz.png")
    with pytest.raises(UserError, match="trained on 1 of the 1"):
        again(run, good=[trained[0].path])
    assert again(run, good=[path for path in more_good.iterdir() if path.name != "000.png"])["images"] == 23


def test_copies_of_a_given_image_promise_nothing_more(run, more_good, tmp_path):
    (tmp_path / "again").mkdir()
    for number in range(20):
        shutil.copy(more_good / f"00{number % 2}.png", tmp_path / "again" / f"{number}.png")
    result = again(run, good=[tmp_path / "again"])
    assert (result["images"], result["groups"]) == (20, 2)
    assert result["expected_fpr"] == 1 / 3


def test_near_copies_of_a_given_image_promise_nothing_more(run, more_good, tmp_path):
    """As in training: photographs of one part, of which no two files are the same."""
    rng = np.random.default_rng(0)
    (tmp_path / "again").mkdir()
    for number in range(18):
        image = read_image(more_good / f"00{number % 6}.png")
        noisy = np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(tmp_path / "again" / f"{number:02}.png")
    result = again(run, good=[tmp_path / "again"])
    assert (result["images"], result["groups"]) == (18, 6)
    assert result["expected_fpr"] == pytest.approx(1 / 7)
    assert any("from 18 good images in 6 groups: expect 14.3 % false alarms" in line for line in in_words(result))
    settings = load_settings(run)
    save_settings(run, replace(settings, config=replace(settings.config, groups=r"(\d)\.png")))
    assert again(run, good=[tmp_path / "again"])["groups"] == 10


def test_data_sets_with_defects_are_refused(run, data):
    with pytest.raises(UserError, match="MVTec layout"):
        again(run, good=[data])
    with pytest.raises(UserError, match="good"):
        again(run, good=[data / "weave/test"])
    for part in ("weave/test/spot", "weave/ground_truth"):
        with pytest.raises(UserError, match="part of a data set and not its good images"):
            again(run, good=[data / part])


def test_thresholds_need_no_data(run, data):
    """Training keeps the scores of good images."""
    before = again(run)
    shutil.rmtree(data)
    assert again(run) == before
    assert again(run, target_fpr=0.4)["good_scores"] == before["good_scores"]
    (run / "good_scores.json").write_text("{}")
    with pytest.raises(UserError, match=r"good_scores.json: damaged .* restore it"):
        again(run)


def test_training_data_that_is_missing(run, data, more_good):
    (run / "good_scores.json").unlink()  # as in a run of 0.1.0
    shutil.rmtree(data)
    with pytest.raises(UserError, match="give good images") as error:
        again(run)
    assert str(data) in str(error.value)
    assert again(run, good=[more_good])["images"] == 24


def test_training_data_that_has_changed(run, data, more_good):
    """Without a split.json one image more shifts the split, and images that were trained on would pass for held out."""
    (run / "good_scores.json").unlink()
    shutil.copy(more_good / "000.png", data / "weave/train/good/zzz.png")
    assert again(run)["images"] == 1
    split = (run / "split.json").read_bytes()
    (run / "split.json").unlink()
    with pytest.raises(UserError, match="added, removed, renamed or changed"):
        again(run)
    (run / "split.json").write_bytes(split)
    shutil.copy(more_good / "000.png", training_split(load_settings(run), run, fingerprint_of(run))[0][0].path)
    with pytest.raises(UserError, match="added, removed, renamed or changed"):
        again(run)


def test_images_that_training_could_not_read_do_not_count_as_a_change(run, data, tmp_path):
    from vitlite.engine.train import train

    trained, _ = training_split(load_settings(run), run, fingerprint_of(run))
    trained[3].path.write_bytes(b"broken")
    train(load_settings(run), tmp_path / "with_broken", device="cpu")
    assert again(tmp_path / "with_broken")["images"] == 1


def test_nothing_held_out(run):
    known = load_settings(run)
    save_settings(run, replace(known, config=replace(known.config, holdout=0.0)))
    for name in ("split.json", "good_scores.json"):
        (run / name).unlink()
    with pytest.raises(UserError, match=r"held no good images out.*good"):
        again(run)


def test_a_run_that_is_not_finished(run, more_good):
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


def test_categories_by_folder(tmp_path):
    assert category_of(tmp_path / "x.png", ["nut"]) == "nut"
    assert category_of(tmp_path / "nut" / "good" / "x.png", ["nut", "cable"]) == "nut"
    assert category_of(tmp_path / "nut" / "cable" / "x.png", ["nut", "cable"]) == "cable"
    assert category_of(tmp_path / "cable.png", ["nut", "cable.png"]) == ""


def test_many_odd_images_do_not_fill_the_screen(tiny_run, tmp_path, caplog):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    scores = [*np.linspace(1, 2, 90), *range(10, 20)]
    good = [Good("weave", score, score, score, f"{number}.png") for number, score in enumerate(scores)]
    found = calibrate(run, load_settings(run), good, source="made up", made_by={}, draw=lambda odd, _: {})
    assert len(found["odd_images"]) == 10
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in lines[:8]] == [f"{number}.png" for number in range(99, 91, -1)]
    assert lines[8:] == [f"2 more odd good images: {run / 'calibration.json'} lists them all"]
