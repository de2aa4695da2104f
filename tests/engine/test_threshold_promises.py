"""The promise of a threshold: exact order statistics, against simulation and against scipy's distribution."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlite.errors import UserError
from vitlite.limits import check_target, false_alarms
from vitlite.metrics.thresholds import (
    MARGIN,
    balanced_threshold,
    grouped_rank,
    groups_above,
    images_needed,
    threshold_above,
    threshold_rank,
    upper_quantile,
)


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


@pytest.mark.parametrize(("count", "copies", "share"), [(5, 20, 0.05), (20, 10, 0.05), (40, 3, 0.2), (30, 1, 0.1)])
def test_groups_of_copies_promise_what_their_number_does(count, copies, share):
    """A new image is of another group: 100 copies of five images say as much as the five."""
    rng = np.random.default_rng(count)
    values = [rng.random(count) for _ in range(20_000)]
    sizes = [copies] * (count * copies)
    rank = grouped_rank(sizes, share)
    rates = np.array([1 - np.sort(np.repeat(own, copies))[rank - 1] for own in values])
    expected, (low, high) = false_alarms(count, share, above=groups_above(sizes)[rank - 1])
    assert expected <= max(share, 1 / (count + 1))
    assert rates.mean() == pytest.approx(expected, rel=0.03)
    assert np.mean((low <= rates) & (rates <= high)) == pytest.approx(0.9, abs=0.01)
    if copies == 1:
        assert (expected, (low, high)) == false_alarms(count, share)


@pytest.mark.parametrize("lean", [-0.3, 0.0, 0.3])  # how much higher the values of larger groups are
@pytest.mark.parametrize(("count", "share"), [(30, 0.1), (40, 0.2)])
def test_groups_of_any_size_keep_the_target(count, share, lean):
    """Among new groups neither the share of the images nor that of the groups above is larger than wanted."""
    rng = np.random.default_rng(count)
    promised, rates = [], []
    for _ in range(400):
        values, sizes = grouped_values(rng, count, lean)
        limit, rank = threshold_above(values, share, sizes), grouped_rank(sizes, share)
        promised.append(false_alarms(count, share, above=groups_above(sizes)[rank - 1])[0])
        new, new_sizes = grouped_values(rng, 200, lean)
        above = np.asarray(new) > limit
        rates.append((above.mean(), np.sum(above / new_sizes) / 200))
    assert max(promised) <= share + 1e-9
    assert np.max(np.mean(rates, axis=0)) <= share
    assert np.mean(promised) > 0.8 * share


def grouped_values(rng, count, lean):
    """Values, ascending, of groups of 1 to 9 that share a level, and the sizes of their groups."""
    each = rng.integers(1, 10, count)
    levels = rng.normal(size=count) + lean * each
    values = np.repeat(levels, each) + 0.3 * rng.normal(size=each.sum())
    order = np.argsort(values)
    return values[order].tolist(), np.repeat(each, each)[order].tolist()


def test_a_group_that_lies_above_in_part_counts_in_part():
    # Values 1 to 9 in the groups (1, 8), (2), (3), (7), (4, 5, 6, 9), and how many groups are above each.
    sizes = [2, 1, 1, 4, 4, 4, 1, 2, 4]
    by_images = 5 / 9 * np.arange(8, -1, -1)
    by_groups = [4.5, 3.5, 2.5, 2.25, 2.0, 1.75, 0.75, 0.25, 0.0]
    assert groups_above(sizes) == pytest.approx(np.maximum(by_groups, by_images))
    assert threshold_above(range(1, 10), 0.4, sizes) == pytest.approx(7.0, rel=3 * MARGIN)  # 2/6: two of nine images
    assert threshold_above(range(1, 10), 0.1, sizes) == pytest.approx(9.0, rel=3 * MARGIN)


@given(count=st.integers(1, 300), share=st.floats(1e-4, 0.9999))
@settings(max_examples=200, deadline=None)
def test_images_without_near_copies_are_groups_of_one(count, share):
    assert grouped_rank([1] * count, share) == threshold_rank(count, share)


@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=30), share=st.floats(0.01, 0.9), data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_threshold_of_groups_delivers_what_it_promises(sizes, share, data):
    """On the images that it comes from: of them, and of their groups, no larger share is above than wanted."""
    each = data.draw(st.permutations([size for size in sizes for _ in range(size)]))
    limit = threshold_above(range(len(each)), share, each)
    above = [size for place, size in enumerate(each) if place > limit]
    rank = grouped_rank(each, share)
    expected, _ = false_alarms(len(sizes), share, above=groups_above(each)[rank - 1])
    assert max(len(above) / len(each), sum(1 / size for size in above) / len(sizes)) <= share
    if len(sizes) >= images_needed(share):
        assert expected <= share + 1e-8
        lower = groups_above(each)[rank - 2] if rank > 1 else len(sizes)
        assert (lower + 1) / (len(sizes) + 1) > share
    else:
        assert expected == pytest.approx(1 / (len(sizes) + 1))


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
