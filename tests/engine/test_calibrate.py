"""What calibration.json says of good images, of each category and of known defects."""

import json

import numpy as np
import pytest

from vitlite.answers import Wanted
from vitlite.calibration import SCHEMA, summarize
from vitlite.engine.calibrate import (
    set_balanced,
)
from vitlite.engine.detector import load_calibration
from vitlite.errors import UserError
from vitlite.good_scores import Good
from vitlite.images.known import KEY
from vitlite.limits import SENSITIVITY, Limits, in_words, limits_of
from vitlite.metrics.thresholds import (
    MARGIN,
    threshold_above,
)
from vitlite.odd import find_odd


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


def test_near_copies_promise_as_much_as_one_image():
    images = [image._replace(group=i // 10) for i, image in enumerate(good_images([1.0] * 20 + [2.0] * 20, ["a"] * 40))]
    result = summarize(images, 0.05, True)
    assert (result["images"], result["groups"], result["categories"]["a"]["groups"]) == (40, 4, 4)
    assert result["expected_fpr"] == 1 / 5
    line, few, _ = in_words(result)
    assert " from 40 good images in 4 groups: expect 20 % false alarms" in line
    assert few.startswith(
        "too few for 5 %: with 4 groups the lowest rate that can be promised is 1/5; it takes 19 good"
    )
    alone = summarize([image._replace(group=None) for image in images], 0.05, True)
    assert (alone["groups"], alone["image_threshold"]) == (40, result["image_threshold"])
    assert alone["expected_fpr"] < 0.05


def test_the_threshold_counts_groups_as_its_promise_does():
    """It once had 10 % of the images above it, and promised more, because these are more of the groups."""
    sizes = [8] * 6 + [1] * 12  # the images alone score highest
    numbers = [group for group, size in enumerate(sizes) for _ in range(size)]
    images = [Good("a", float(i + 1), float(i + 1), 0.5, group=group) for i, group in enumerate(numbers)]
    for share in (0.1, 0.2, 0.3):
        result = summarize(images, share, True)
        for found in (result, limits_of(result, "a"), limits_of(result)):
            limit = found.image if isinstance(found, Limits) else found["image_threshold"]
            above = {image.group for image in images if image.score > limit}
            assert result["expected_fpr"] == pytest.approx((len(above) + 1) / 19)
            assert result["expected_fpr"] <= share
    for name, share in SENSITIVITY.items():
        again = summarize(images, share, True)
        for category in (None, "a"):
            limits = limits_of(result, category, sensitivity=name)
            assert (limits.image, limits.pixel) == (again["image_threshold"], again["pixel_threshold"])


def test_images_that_were_trained_on_promise_nothing():
    result = summarize(good_images([1.0, 2.0], ["a", "a"]), 0.01, False)
    assert result["expected_fpr"] is None
    assert result["categories"]["a"]["expected_fpr_interval"] == [None, None]
    assert in_words(result)[0].endswith("it is too low; hold images out of training, with holdout=0.1")
    one = in_words(summarize(good_images([1.0], ["a"]), 0.01, False))[0]
    assert one.endswith("from 1 good image that was also trained on: it is too low; give more good images")


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
    for sizes in ([], [0] * len(now["good_scores"]), [1.5] * len(now["good_scores"])):
        path.write_text(json.dumps({**now, "good_score_groups": sizes}))
        with pytest.raises(UserError, match=r"damaged .*good_score_groups: expected a whole number above 0 for each"):
            load_calibration(tmp_path)
    for images in ([], {}, now[KEY] | {"width": [0, 5]}, now[KEY] | {"shape": ["1", "1"]}):
        path.write_text(json.dumps({**now, KEY: images}))
        with pytest.raises(UserError, match="damaged"):
            load_calibration(tmp_path)


def test_a_sensitivity_that_few_groups_cannot_give_is_said(caplog):
    images = [Good("a", float(i), float(i), 0.5, group=i // 10) for i in range(200)]
    calibration = summarize(images, 0.05, True)
    Wanted(sensitivity="normal", category="a").check(calibration, "")
    assert not caplog.messages
    Wanted(sensitivity="low").check(calibration, "")
    (line,) = caplog.messages
    assert line.startswith("sensitivity low takes 99 good images, each of another group; with 20 groups, the threshold")
