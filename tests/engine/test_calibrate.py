"""Thresholds from good images: what they promise, which images may set them, and the file that holds them."""

import json
import math
import shutil
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlite.calibration import SCHEMA, summarize
from vitlite.data import open_dataset, synthesize
from vitlite.engine.calibrate import (
    calibrate,
    recalibrate,
    set_balanced,
    set_thresholds,
)
from vitlite.engine.detector import Detector, load_calibration
from vitlite.engine.settings import load_settings, save_settings
from vitlite.engine.split import training_split
from vitlite.errors import UserError
from vitlite.good_scores import Good
from vitlite.limits import category_of, check_target, false_alarms, in_words, limits_of
from vitlite.metrics.thresholds import (
    MARGIN,
    balanced_threshold,
    images_needed,
    threshold_above,
    threshold_rank,
    upper_quantile,
)
from vitlite.odd import find_odd

# The promise of a threshold: exact order statistics, against simulation and against scipy's distribution.


@pytest.mark.parametrize(
    ("count", "share"), [(4, 0.01), (20, 0.05), (20, 0.2), (50, 0.05), (99, 0.01), (400, 0.02), (500, 0.2)]
)
def test_against_simulation(count, share):
    """Thresholds from uniform values: the rate of each is known exactly, and its distribution is the one promised."""
    rng = np.random.default_rng(count)
    rates = np.array([1 - upper_quantile(rng.random(count), share) for _ in range(20_000)])
    expected, (low, high) = false_alarms(count, share)
    assert rates.mean() == pytest.approx(expected, rel=0.03)
    assert np.mean((low <= rates) & (rates <= high)) == pytest.approx(0.9, abs=0.01)
    assert np.mean(rates < low) == pytest.approx(0.05, abs=0.008)


def test_against_scipys_beta():
    from scipy.stats import beta

    expected, (low, high) = false_alarms(200, 0.02, confidence=0.8)
    distribution = beta(201 - threshold_rank(200, 0.02), threshold_rank(200, 0.02))
    assert expected == pytest.approx(distribution.mean())
    assert (low, high) == pytest.approx((distribution.ppf(0.1), distribution.ppf(0.9)))


@given(count=st.integers(1, 5000), share=st.floats(1e-4, 0.9999))
@settings(max_examples=300, deadline=None)
def test_the_rank_is_the_smallest_that_keeps_the_target(count, share):
    rank, needed = threshold_rank(count, share), images_needed(share)
    assert 1 <= rank <= count
    expected, (low, high) = false_alarms(count, share)
    assert 0 <= low <= high <= 1
    if count >= needed:
        assert expected <= share * (1 + 1e-6) + 1e-8
        assert rank == 1 or expected + 1 / (count + 1) > share - 1e-8
    else:
        assert rank == count
        assert expected == 1 / (count + 1) > share


@pytest.mark.parametrize(("share", "needed"), [(0.01, 99), (0.1, 9), (0.3, 3), (0.001, 999), (0.5, 1), (0.9, 1)])
def test_images_needed(share, needed):
    assert images_needed(share) == needed
    assert false_alarms(needed, share)[0] <= share + 1e-12
    if needed > 1:
        assert false_alarms(needed - 1, share)[0] > share


def test_whole_numbers_are_not_lost_to_rounding():
    """(n + 1) * share that is whole in decimal but not in binary: 0.29 * 100 is 28.999999999999996."""
    for percent in range(1, 100):
        assert threshold_rank(99, percent / 100) == min(100 - percent, 99), percent


def test_ties_and_shapes():
    assert upper_quantile([3.0], 0.01) == 3.0
    assert upper_quantile([[1.0, 1.0], [1.0, 2.0]], 0.4) == 1.0
    assert upper_quantile(np.arange(1000, dtype=np.float32).reshape(10, 100), 0.01) == 990.0


# The distance of a threshold from the scores that it comes from.

FAR, NEAR = (
    st.sampled_from([1e-4, 1e-3, 1.0]),
    st.sampled_from([0.0, 1e-9, 1e-7, 1e-6, 9e-6, 1.1e-5, 1.9e-5, 2.1e-5, 3e-5]),
)
VALUES = st.sampled_from([0.0, -1.0, 1.0, 3.5, -1e6, 2e-9, 1e6]) | st.floats(-1e9, 1e9, width=32)


@st.composite
def scores_with_clusters(draw):
    """Lists with ties and near ties: each next score is a little, or far, above the one before, or anywhere."""
    scores = [draw(VALUES)]
    for _ in range(draw(st.integers(0, 25))):
        step = draw(NEAR | FAR | st.none())
        scores.append(draw(VALUES) if step is None else scores[-1] + step * abs(scores[-1]))
    return draw(st.permutations(scores))


@given(scores=scores_with_clusters(), share=st.floats(0.01, 0.95))
@settings(max_examples=500, deadline=None)
def test_a_threshold_keeps_its_distance(scores, share):
    quantile, limit = upper_quantile(scores, share), threshold_above(scores, share)
    usual = max(np.median(np.abs(scores)), 1e-30)  # not 0, if all scores are
    for score in scores:
        assert abs(limit - score) >= MARGIN * max(abs(score), abs(limit), usual)
    above, promised = sum(s > limit for s in scores), sum(s > quantile for s in scores)
    assert limit > quantile
    assert above <= promised <= len(scores) - threshold_rank(len(scores), share)
    # Rounding in other batches moves no verdict.
    for factor in (1 - MARGIN / 2, 1 + MARGIN / 2):
        assert [s * factor > limit for s in scores] == [s > limit for s in scores]
    # Verdicts are those of the quantile, unless there is no room between it and the next score.
    passed = sorted(s for s in scores if quantile <= s < limit)
    for below, higher in zip(passed, passed[1:]):
        assert higher - below <= 2.001 * MARGIN * max(abs(below), abs(higher), usual)
    assert limit - passed[-1] <= 2.001 * MARGIN * max(abs(passed[-1]), usual)


@pytest.mark.parametrize(
    ("scores", "share", "expected"),
    [
        ([1.0, 2.0, 3.0], 0.5, 2.00004),
        ([1.0, 2.0, 3.0], 0.01, 3.00006),
        ([1.0, 1.0, 1.00003], 0.5, 1.000015),
        ([1.0, 2.0, 2.00001, 2.00003, 2.00005, 4.0], 0.6, 2.000090001),
        ([-3.0, -2.0, -1.0], 0.5, -1.99996),
        ([-3.0, -2.0, -1.0], 0.01, -0.99996),
        ([0.0, 0.0, 0.0, 5.0], 0.4, 2e-35),
        ([0.0, 1.0, 1.0, 5.0], 0.9, 2e-5),
        ([0.0] * 4, 0.1, 2e-35),
        ([7.0] * 4, 0.4, 7.00014),
    ],
)
def test_thresholds_worked_out_by_hand(scores, share, expected):
    assert threshold_above(scores, share) == pytest.approx(expected, rel=1e-9, abs=0)


@given(scores=scores_with_clusters(), data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_balanced_threshold_is_the_best_of_all(scores, data):
    """Against every place between two scores, and above all of them, that is well away from each score."""
    defective = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    good = [score for score, bad in zip(scores, defective) if not bad] or [scores[0]]
    bad = [score for score, bad in zip(scores, defective) if bad] or [scores[-1]]
    every = sorted(good + bad)
    usual = max(np.median(np.abs(every)), 1e-30)

    def mistakes(limit):
        alarms, missed = sum(score > limit for score in good), sum(score <= limit for score in bad)
        return Fraction(alarms, len(good)) + Fraction(missed, len(bad)), alarms

    def far(limit, margin):
        return all(abs(limit - s) >= margin * max(abs(s), abs(limit), usual) for s in every)

    found = balanced_threshold(good, bad)
    assert far(found, MARGIN)
    places = [(low + high) / 2 for low, high in zip(every, every[1:])]
    places += [every[0] - usual - abs(every[0]), every[-1] + usual + abs(every[-1])]
    assert mistakes(found) <= min(mistakes(limit) for limit in places if far(limit, 1.01 * MARGIN))


@pytest.mark.parametrize(
    ("good", "defects", "expected"),
    [
        ([1.0, 2.0], [4.0, 5.0], 3.0),
        ([1.0, 2.0, 3.0, 8.0], [4.0, 9.0], 3.5),  # 1/4 + 0, not 0 + 1/2
        ([1.0, 8.0], [4.0, 9.0], 8.5),  # 0 + 1/2 rather than 1/2 + 0: fewer false alarms
        ([5.0], [1.0], 5.0001),  # above all
        ([1.0, 2.0], [2.00001, 4.0], 3.000005),  # no room between 2 and 2.00001
    ],
)
def test_balanced_thresholds_worked_out_by_hand(good, defects, expected):
    assert balanced_threshold(good, defects) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("share", [0, 1, -0.1, 2, math.nan, math.inf])
def test_targets_outside_are_refused(share):
    with pytest.raises(UserError, match="target_fpr"):
        check_target(share)


# What calibration.json says.


def good_images(scores, categories, tails=None):
    return [Good(*row, 0.5) for row in zip(categories, scores, tails or scores)]


def test_categories_have_their_own_limits():
    result = summarize(good_images([1.0, 2.0, 3.0, 9.0], ["a", "a", "b", ""], [10.0, 20.0, 30.0, 90.0]), 0.5, True)
    assert set(result["categories"]) == {"a", "b"}
    limits = limits_of(result, "a")
    assert limits.good_scores.tolist() == [1.0, 2.0]
    assert (limits.image, limits.pixel) == (threshold_above([1.0, 2.0], 0.5), threshold_above([10.0, 20.0], 0.5))
    assert (limits.image, limits.pixel) == pytest.approx((2.0, 20.0), rel=3 * MARGIN)
    assert limits_of(result).image == threshold_above([1.0, 2.0, 3.0, 9.0], 0.5) == pytest.approx(3.0, rel=3 * MARGIN)
    assert limits_of(result).good_scores.size == 4
    assert result["display"]["low"] == 0.5 < result["pixel_threshold"] < result["display"]["high"]
    with pytest.raises(UserError, match="calibrated for a, b"):
        limits_of(result, "c")


def test_each_category_is_balanced_with_its_own_defects():
    """Those of no category count for the whole alone; one without defects keeps the threshold of its good images."""
    result = summarize(good_images([1.0, 2.0, 11.0, 12.0], ["a", "a", "b", "b"]), 0.5, True)
    kept = dict(result["categories"]["b"])
    set_balanced(result, good_images([1.5, 4.0, 14.0], ["a", "a", ""]))
    a, b = result["categories"].values()
    assert (a["image_threshold"], a["balance"]) == (3.0, {"defects": 2, "missed": 1, "false_alarms": 0})
    assert b == kept
    # 13: 0 + 2/3. The next best is 1.25: 3/4 + 0.
    assert (result["image_threshold"], result["balance"]["missed"]) == (13.0, 2)
    whole, *own, last = in_words(result)
    assert whole.endswith(
        "from 4 good images, balanced: misses 2 of 3 known defects, calls 0 of 4 good images defective"
    )
    assert (
        own[0] == "  a: threshold 3 from 2, balanced: misses 1 of 2 known defects, calls 0 of 2 good images defective"
    )
    assert own[1].startswith("  b: threshold 12.0002 from 2: expect 33.3 % false alarms")
    assert last.startswith("no known defects of b: the threshold stays that of the good images")


def test_no_odd_image_sets_a_threshold():
    """By the robust rule; all others count as ever. The exact rule takes them as they are."""
    scores = [*np.linspace(1.0, 2.0, 38).tolist(), 50.0, 60.0]
    images = [Good("a", score, 10 * score, 0.5, f"{i}.png") for i, score in enumerate(scores)]
    odd = find_odd(images)
    assert [image.score for image in odd] == [60.0, 50.0]
    exact, robust = (summarize(images, 0.03, True, None, given) for given in (None, odd))
    assert (exact["rule"], robust["rule"]) == ("exact", "robust")
    assert exact["image_threshold"] == threshold_above(scores, 0.03) > 50
    for result in (robust, robust["categories"]["a"]):
        assert result["images"] == 40
        assert result["image_threshold"] == pytest.approx(2.0, rel=3 * MARGIN)
        assert result["pixel_threshold"] == pytest.approx(20.0, rel=3 * MARGIN)
        assert limits_of(robust, sensitivity="low").image == result["image_threshold"]
        assert result["expected_fpr"] == exact["expected_fpr"]
    # At a rate at which the exact rule takes no odd image either, the two are the same.
    assert summarize(images, 0.1, True, None, odd)["image_threshold"] == threshold_above(scores, 0.1) < 2
    # Of few images one is passed over.
    few = images[25:-2] + images[-1:]
    assert summarize(few, 0.05, True, None, find_odd(few))["image_threshold"] == pytest.approx(2.0, rel=3 * MARGIN)


def test_images_that_were_trained_on_promise_nothing():
    result = summarize(good_images([1.0, 2.0], ["a", "a"]), 0.01, False)
    assert result["expected_fpr"] is None
    assert result["categories"]["a"]["expected_fpr_interval"] == [None, None]
    assert "it is too low" in in_words(result)[0]


def test_limits_of_a_calibration_from_before_categories_had_scores():
    old = {
        "image_threshold": 5.0,
        "pixel_threshold": 7.0,
        "good_scores": [1.0, 2.0],
        "categories": {"a": {"images": 2, "image_threshold": 4.0}},
    }
    limits = limits_of(old, "a")
    assert (limits.image, limits.pixel, limits.good_scores.tolist()) == (4.0, 7.0, [1.0, 2.0])


def test_the_schema_of_a_calibration(tiny_run, tmp_path):
    """That of version 0.1.0 has no number and loads; one of a later version is refused."""
    now = load_calibration(tiny_run)
    assert now.pop("schema") == SCHEMA
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(now))
    assert load_calibration(tmp_path) == now
    path.write_text(json.dumps({**now, "schema": SCHEMA + 1}))
    with pytest.raises(UserError, match=r"newer vitlite \(schema 3\)"):
        load_calibration(tmp_path)
    for area in (-1, 2.5, None, "3"):
        path.write_text(json.dumps({**now, "min_area": area}))
        with pytest.raises(UserError, match=r"damaged .*min_area"):
            load_calibration(tmp_path)


# Thresholds set anew on a finished run, and which images may set them.


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
        ({"good": [good]}, "some known defects are also among the good images .*000.png"),
        ({"balance": [shutil.copy(held[0].path, tmp_path)]}, "some known defects are also among"),
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
        limit = summarize(good_images(scores[order[:12]].tolist(), ["weave"] * 12), 0.2, True)["image_threshold"]
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
    found = calibrate(run, load_settings(run), good, source="made up", draw=lambda odd, _: {})
    assert len(found["odd_images"]) == 10
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in lines[:8]] == [f"{number}.png" for number in range(99, 91, -1)]
    assert lines[8:] == [f"2 more odd good images: {run / 'calibration.json'} lists them all"]
