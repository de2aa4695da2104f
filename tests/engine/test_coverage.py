"""The promise of a threshold: exact order statistics, against simulation and against scipy's distribution."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlite.engine.calibrate import check_target, false_alarms, images_needed, threshold_rank, upper_quantile
from vitlite.errors import UserError


@pytest.mark.parametrize(("count", "share"), [(4, 0.01), (50, 0.05), (99, 0.01), (400, 0.02)])
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
    assert upper_quantile([[1.0, 1.0], [1.0, 2.0]], 0.4) == 1.0
    assert upper_quantile(np.arange(1000, dtype=np.float32).reshape(10, 100), 0.01) == 990.0


@pytest.mark.parametrize("share", [0, 1, -0.1, 2, math.nan, math.inf])
def test_targets_outside_are_refused(share):
    with pytest.raises(UserError, match="--target-fpr"):
        check_target(share)
