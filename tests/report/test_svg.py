"""Axes, ticks and bars."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from vitlite.report.svg import Axis, chart, histogram, score_axis, ticks


@pytest.mark.parametrize(
    ("scores", "thresholds", "log"),
    [
        ([1, 2, 3], [2.5], False),
        ([0.5, 90], [12], True),
        ([-1, 90], [3], False),
        ([5, 5], [5], False),
        ([0], [0], False),
    ],
)
def test_axis_holds_everything(scores, thresholds, log):
    axis = score_axis(scores, thresholds)
    assert axis.log is log
    places = [axis.position(v) for v in (axis.low, *sorted([*scores, *thresholds]), axis.high)]
    assert places == sorted(places)
    assert places[0] == 0
    assert places[-1] == pytest.approx(1)
    assert 0 < places[1] <= places[-2] < 1
    assert axis.position(-1e9) == 0
    assert axis.position(1e9) == 1


@pytest.mark.parametrize("axis", [Axis(0, 1), Axis(-3.2e-5, 7e-5), Axis(8, 95, True), Axis(1e-6, 1e6, True)])
def test_ticks_are_few_and_inside(axis):
    found = ticks(axis)
    assert 2 <= len(found) <= 9
    assert all(axis.low <= t <= axis.high for t in found)


def test_histogram_counts_every_image():
    rng = np.random.default_rng(0)
    good, bad = rng.normal(size=30), rng.normal(size=20) + 2
    drawn = ElementTree.fromstring(histogram(good, bad, score_axis([*good, *bad], [1.0]), 1.0, "a < b", 0))
    for name, count in (("good", 30), ("defect", 20)):
        bars = [r for r in drawn.iter("rect") if r.get("class") == name]
        assert sum(int(bar.find("title").text.split()[0]) for bar in bars) == count
        assert max(float(bar.get("height")) for bar in bars) == 84
    assert drawn.get("aria-label") == "a < b"
    assert [line.get("class") for line in drawn.iter("line")][-2:] == ["calibrated", "line"]


def test_chart_hides_a_point_that_is_not_defined():
    line = ("image", [0.0, 1.0], [0.0, 1.0])
    shown = ElementTree.fromstring(chart("t", "x", "y", [line], point=("roc", 0.5, 0.25)))
    assert shown.find("circle").get("cx") == "176.0"
    hidden = ElementTree.fromstring(chart("t", "x", "y", [line], point=("pr", 0.0, None)))
    assert hidden.find("circle").get("visibility") == "hidden"
