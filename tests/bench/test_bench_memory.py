"""The benchmark of memory: what it sees, and by what it judges."""

import argparse
import mmap

import numpy as np
import pytest

from vitlite.bench import memory


def limits(**changed):
    values = {"images": 2000, "maps": 500, "side": 1000, "growth": 64.0, "bytes_per_pixel": 24.0}
    return argparse.Namespace(**{**values, **changed})


def test_it_judges_by_its_bounds(capsys):
    assert memory.report_predict({"0": 300.0, "100": 400.0, "2000": 460.0}, limits())
    assert not memory.report_predict({"0": 300.0, "100": 400.0, "2000": 470.0}, limits())
    pixels = 250 * 1000**2 / memory.MIB
    assert memory.report_eval({"before": 300.0, "first": 300 + 20 * pixels, "second": 330 + 20 * pixels}, limits())
    assert not memory.report_eval({"before": 300.0, "first": 300 + 25 * pixels, "second": 300.0}, limits())
    assert not memory.report_eval({"before": 300.0, "first": 400.0, "second": 500.0}, limits())
    assert "NOT MET" in capsys.readouterr().out


def test_the_watch_sees_a_peak_that_is_over():
    with memory.Watch() as watch:
        watch.mark("before")
        block = mmap.mmap(-1, 50 * memory.MIB)  # new pages, whatever earlier tests have left in the heap
        np.frombuffer(block, np.uint8)[:] = 1
        watch.mark("held")
    assert watch.marks["held"] - watch.marks["before"] > 40 * memory.MIB


@pytest.mark.parametrize("option", ["--images=100", "--maps=7", "--side=15"])
def test_sizes_that_are_too_small_end_with_2(option):
    with pytest.raises(SystemExit) as end:
        memory.main([option])
    assert end.value.code == 2


@pytest.mark.slow
def test_both_parts(tiny_run, tmp_path, capsys):
    arguments = ["--images=150", "--maps=20", "--side=128", f"--run={tiny_run}", f"--scratch={tmp_path}"]
    assert memory.main([*arguments, "--bytes-per-pixel=1e6"]) == 0
    assert memory.main([*arguments, "--bytes-per-pixel=0.001"]) == 1
    said = capsys.readouterr().out
    assert "peak up to   150" in said
    assert "bytes for each pixel" in said
    assert not list(tmp_path.iterdir())
