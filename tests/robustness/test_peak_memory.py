"""Nothing accumulates that need not: what is held while scoring, and the benchmark that measures it."""

import argparse
import mmap
import weakref

import numpy as np
import pytest

from vitlite.bench import memory
from vitlite.engine import evaluate
from vitlite.engine import predict as predicting
from vitlite.engine.detector import Detector


@pytest.fixture
def detector(tiny_run):
    return Detector(tiny_run, "cpu")


def test_predict_holds_no_picture_or_map_of_the_past(detector, tiny_data, tmp_path, monkeypatch):
    """Of 20 pictures, in batches of 2, at most those of the batch at hand are alive when the next map is made."""
    alive, most, map_at = weakref.WeakSet(), [], predicting.map_at

    class Values(np.ndarray):  # numpy's own arrays take no weak references in a set
        __hash__ = object.__hash__

    def watched(*args):
        values = map_at(*args).view(Values)
        alive.add(values)
        most.append(len(alive))
        return values

    monkeypatch.setattr(predicting, "map_at", watched)
    rows = predicting.predict(detector, [tiny_data], tmp_path / "out", maps=True, batch_size=2)
    assert len(rows) == len(most) >= 20
    assert max(most) <= 2


@pytest.mark.parametrize("overlays", [True, False])
def test_predict_keeps_originals_for_overlays_alone(detector, tiny_data, tmp_path, monkeypatch, overlays):
    kept, score_files = set(), detector.score_files

    def watched(*args, **options):
        for found in score_files(*args, **options):
            loaded, *_ = found
            kept.add(loaded.original is not None)
            yield found

    monkeypatch.setattr(detector, "score_files", watched)
    predicting.predict(detector, [tiny_data / "weave/test"], tmp_path / "out", overlays=overlays)
    assert kept == {overlays}


def test_the_maps_of_a_category_are_gone_before_the_next(detector, tiny_data, tmp_path, monkeypatch):
    """Two categories; when the second is scored, nothing of the first is alive."""
    root = tmp_path / "set"
    root.mkdir()
    for name in ("first", "second"):
        (root / name).symlink_to(tiny_data / "weave")
    scored, score = [], evaluate.score_category

    def watched(*args, **options):
        assert not [one for one in scored if one() is not None]
        found = score(*args, **options)
        scored.append(weakref.ref(found))
        return found

    monkeypatch.setattr(evaluate, "score_category", watched)
    results = evaluate.evaluate(detector, data=root, category="all")
    assert list(results["categories"]) == ["first", "second"]
    assert len(scored) == 2


def test_the_mask_of_a_good_picture_takes_no_memory():
    mask = evaluate.blank(30, 40)
    assert mask.strides == (0, 0)
    assert mask.shape == (30, 40)
    assert not mask.any()
    assert not mask.flags.writeable


def options(**changed):
    values = {"images": 2000, "maps": 500, "side": 1000, "growth": 64.0, "bytes_per_pixel": 24.0}
    return argparse.Namespace(**{**values, **changed})


def test_the_benchmark_judges_by_its_bounds(capsys):
    assert memory.report_predict({"0": 300.0, "100": 400.0, "2000": 460.0}, options())
    assert not memory.report_predict({"0": 300.0, "100": 400.0, "2000": 470.0}, options())
    pixels = 250 * 1000**2 / memory.MIB
    assert memory.report_eval({"before": 300.0, "first": 300 + 20 * pixels, "second": 330 + 20 * pixels}, options())
    assert not memory.report_eval({"before": 300.0, "first": 300 + 25 * pixels, "second": 300.0}, options())
    assert not memory.report_eval({"before": 300.0, "first": 400.0, "second": 500.0}, options())
    assert "NOT MET" in capsys.readouterr().out


def test_the_watch_sees_a_peak_that_is_over():
    with memory.Watch() as watch:
        watch.mark("before")
        block = mmap.mmap(-1, 50 * memory.MIB)  # new pages, whatever earlier tests have left in the heap
        np.frombuffer(block, np.uint8)[:] = 1
        watch.mark("held")
    assert watch.marks["held"] - watch.marks["before"] > 40 * memory.MIB


@pytest.mark.slow
def test_the_benchmark(tiny_run, tmp_path, capsys):
    arguments = ["--images=150", "--maps=20", "--side=128", f"--run={tiny_run}", f"--scratch={tmp_path}"]
    assert memory.main([*arguments, "--bytes-per-pixel=1e6"]) == 0
    assert memory.main([*arguments, "--bytes-per-pixel=0.001"]) == 1
    said = capsys.readouterr().out
    assert "peak up to   150" in said
    assert "bytes for each pixel" in said
    assert not list(tmp_path.iterdir())
