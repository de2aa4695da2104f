"""Thresholds from good images."""

import json

import numpy as np
import pytest

from vitlite.engine.calibrate import load_calibration, summarize, upper_quantile
from vitlite.errors import UserError


@pytest.mark.parametrize("n", [20, 99, 500])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_false_alarms_stay_at_the_target(n, share):
    """Over many samples a new good value exceeds the threshold at most as often as promised, and not far less."""
    rng = np.random.default_rng(0)
    rates = [1 - upper_quantile(rng.random(n), share) for _ in range(3000)]
    expected = max(share, 1 / (n + 1))
    assert np.mean(rates) <= expected * 1.1
    assert np.mean(rates) >= min(expected, share) * 0.5


def test_quantile_of_one_value():
    assert upper_quantile([3.0], 0.01) == 3.0


def test_summary():
    result = summarize([1.0, 2.0, 9.0], ["a", "a", "b"], [4.0, 5.0, 6.0], [1.0, 1.0, 2.0], 0.01, True)
    assert result["image_threshold"] == 9.0
    own = {name: (c["images"], c["image_threshold"]) for name, c in result["categories"].items()}
    assert own == {"a": (2, 2.0), "b": (1, 9.0)}
    assert result["display"]["low"] < result["pixel_threshold"] < result["display"]["high"]
    json.dumps(result, allow_nan=False)


def test_held_out_images_are_not_trained_on(tiny_run, tiny_data):
    from vitlite.data import open_dataset
    from vitlite.engine.split import hold_out

    calibration = load_calibration(tiny_run)
    train, held = hold_out(open_dataset(tiny_data).train, 0.1, 0)
    assert calibration["images"] == len(held) == 1
    assert not {s.path for s in train} & {s.path for s in held}
    assert calibration["held_out"]


@pytest.mark.parametrize("text", [None, "", "{}", "[]", "null"])
def test_damaged_calibration(tmp_path, text):
    if text is not None:
        (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(UserError, match=r"calibration\.json"):
        load_calibration(tmp_path)
