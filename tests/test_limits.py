"""Limits: a calibration's, a category's, by sensitivity, by hand, and of every image of several categories."""

import math

import pytest

from vitlite.errors import UserError
from vitlite.limits import SENSITIVITY, limits_for, limits_of, rate_of
from vitlite.metrics.thresholds import threshold_above

SCORES, PIXELS = [float(i) for i in range(100)], [i / 10 for i in range(100)]
OWN = {"image_threshold": 5.0, "pixel_threshold": 0.5, "good_scores": SCORES, "good_pixels": PIXELS}
OTHER = {"image_threshold": 7.0, "pixel_threshold": 0.7, "good_scores": [1.0, 2.0], "good_pixels": [0.1, 0.2]}
CALIBRATION = OWN | {"categories": {"nut": OWN, "cable": OTHER}}


@pytest.mark.parametrize("name", SENSITIVITY)
def test_a_sensitivity_is_a_rate(name):
    found = limits_of(CALIBRATION, sensitivity=name)
    above = sum(score > found.image for score in SCORES)
    assert above == int(101 * SENSITIVITY[name]) - 1  # and with the next good image, the rate is at most this
    assert found.pixel == threshold_above(PIXELS, SENSITIVITY[name])


def test_thresholds_by_hand_win():
    found = limits_of(CALIBRATION, "cable", threshold=3.5)
    assert (found.image, found.pixel) == (3.5, 0.7)
    assert limits_of(CALIBRATION, pixel_threshold=-1.0).pixel == -1.0
    assert limits_of(CALIBRATION, pixel_threshold=-1.0).image == 5.0


def test_the_smallest_area_is_one_for_all_categories():
    assert limits_of(CALIBRATION).min_area == 0
    kept = CALIBRATION | {"min_area": 7}
    assert [limits_of(kept, name).min_area for name in (None, "nut", "cable")] == [7, 7, 7]
    assert limits_of(kept, "nut", min_area=0).min_area == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sensitivity": "full"}, "sensitivity=full: choose low, normal, high"),
        ({"threshold": math.nan}, "threshold=nan: must be a finite number"),
        ({"pixel_threshold": math.inf}, "pixel_threshold=inf: must be a finite number"),
        ({"sensitivity": "low", "threshold": 3.5}, "sensitivity=low: not together with threshold=3.5; give one"),
        ({"sensitivity": "low", "pixel_threshold": 0.0}, "sensitivity=low: not together with pixel_threshold=0; give"),
        ({"category": "bolt"}, "category=bolt: unknown"),
        ({"min_area": -1}, "min_area=-1: must be a whole number of pixels, 0 or more"),
        ({"min_area": 2.5}, "min_area=2.5: must be a whole number"),
        ({"min_area": True}, "min_area=True: must be a whole number"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(UserError, match=f"^{message}"):
        limits_of(CALIBRATION, **changes)


def test_a_calibration_without_the_scores_of_pixels():
    old = {key: value for key, value in CALIBRATION.items() if key != "good_pixels"}
    with pytest.raises(UserError, match="calibrate it again"):
        limits_of(old, sensitivity="low")
    assert rate_of("low") == 0.01


def test_an_image_has_the_limits_of_its_folder(tmp_path, caplog):
    paths = [tmp_path / "cable/a.png", tmp_path / "nut/new/a.png", tmp_path / "a.png"]
    found = limits_for(paths[:2], CALIBRATION, None)
    assert [own.image for own in found] == [7.0, 5.0]
    assert caplog.text == ""
    every = limits_for(paths, CALIBRATION | {"image_threshold": 6.0}, None)
    assert [own.image for own in every] == [7.0, 5.0, 6.0]
    assert "1 of 3 images lie in no folder with the name of a category (nut, cable)" in caplog.text
    assert [own.image for own in limits_for(paths, CALIBRATION, "cable", threshold=1.0)] == [1.0] * 3


def test_a_model_of_one_category_looks_at_no_folder(tmp_path, caplog):
    one = OWN | {"categories": {"nut": OTHER}}
    assert limits_for([tmp_path / "nut/a.png"], one, None)[0].image == 5.0
    assert caplog.text == ""
