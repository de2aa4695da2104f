"""The warning that scores of good images drift away from the calibration."""

import numpy as np
import pytest

from vitlite.engine.watch import Drift
from vitlite.limits import Limits


def limits(count, threshold=2.0):
    scores = np.sort(np.random.default_rng(0).normal(size=count))
    return Limits(image=threshold, pixel=1.0, good_scores=scores)


def said(drift, scores):
    return [line for line in map(drift.add, scores) if line]


def test_no_warning_while_images_are_like_those_of_the_calibration():
    lines = [said(Drift(limits(100)), np.random.default_rng(seed).normal(size=3000)) for seed in range(1, 9)]
    assert lines == [[]] * 8


def test_a_shift_is_said_once_and_again_after_it_was_over():
    random, drift = np.random.default_rng(1), Drift(limits(200))
    (line,) = said(drift, random.normal(0.8, 1, 1500))
    assert "images judged good are above" in line
    assert drift.share > 0.2
    assert said(drift, random.normal(0, 1, 1500)) == []
    assert drift.share < 0.15
    assert len(said(drift, random.normal(0.8, 1, 1500))) == 1


@pytest.mark.parametrize(("share", "count"), [(0.17, 0), (0.25, 1)])
def test_twice_the_usual_share_is_a_drift(share, count):
    drift = Drift(limits(1000))
    scores = np.where(np.arange(800) % 100 < 100 * share, drift.level + 0.01, drift.level - 0.01)
    assert len(said(drift, np.random.default_rng(2).permutation(scores))) == count


def test_few_images_in_the_calibration_need_a_clearer_drift():
    few, many = Drift(limits(12)), Drift(limits(500))
    for drift in (few, many):
        scores = [drift.level + (0.01 if i % 10 < 3 else -0.01) for i in range(400)]
        assert len(said(drift, scores)) == (drift is many)


def test_scores_above_the_threshold_do_not_count():
    drift = Drift(limits(200))
    assert said(drift, [5.0] * 300 + [float("nan")] * 300) == []
    assert not drift.above


def test_the_level_comes_from_scores_that_the_threshold_calls_good():
    drift = Drift(limits(1000, threshold=0.0))  # half of them
    assert np.mean(drift.usual > drift.level) == pytest.approx(0.1, abs=0.01)
    assert said(Drift(limits(100, threshold=-9.0)), [-10.0] * 100) == []
