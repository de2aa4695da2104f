"""``eval --maps`` into a folder that already holds maps: those of one evaluation alone lie there afterwards."""

import shutil

import numpy as np
import pytest

from vitlite.cli import main
from vitlite.images.maps import read_map


def command(*args):
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in args])
    return end.value.code or 0


@pytest.fixture
def data(tiny_data, tmp_path):
    return shutil.copytree(tiny_data, tmp_path / "set")


@pytest.fixture
def run(tiny_run, data, tmp_path):
    """A run with the maps of an evaluation."""
    run = shutil.copytree(tiny_run, tmp_path / "run")
    assert command("eval", run, "--data", data, "--maps", "--quiet", "--device", "cpu") == 0
    return run


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.tiff")}


def test_maps_are_replaced(run, data):
    before = contents(run / "maps")
    assert len(before) == 10
    for path in (run / "maps").rglob("*.tiff"):
        path.write_bytes(b"stale")
    assert command("eval", run, "--data", data, "--maps", "--quiet", "--device", "cpu") == 0
    assert contents(run / "maps") == before
    assert command("eval-maps", run / "maps", "--data", data, "--out", run / "scores") == 0


def test_a_picture_that_is_broken_now_keeps_no_map(run, data):
    (data / "weave/test/spot/000.png").write_bytes(b"x")
    assert command("eval", run, "--data", data, "--maps", "--quiet", "--device", "cpu") == 0
    assert not (run / "maps/weave/test/spot/000.tiff").exists()
    assert np.isfinite(read_map(run / "maps/weave/test/spot/001.tiff")).all()


def test_maps_of_pictures_that_are_gone_are_refused_and_kept(run, data, capsys):
    (data / "weave/test/spot/000.png").unlink()
    before = contents(run / "maps")
    assert command("eval", run, "--data", data, "--maps", "--quiet", "--device", "cpu") == 2
    assert "holds 1 maps of other pictures (weave/test/spot/000.tiff)" in capsys.readouterr().err
    assert contents(run / "maps") == before


def test_an_evaluation_that_fails_keeps_the_earlier_maps(run, data):
    before = contents(run / "maps")
    for path in (data / "weave/test").rglob("*.png"):
        path.write_bytes(b"x")
    assert command("eval", run, "--data", data, "--maps", "--quiet", "--device", "cpu") == 2
    assert contents(run / "maps") == before


def test_maps_of_other_categories_stay(run, data):
    other = run / "maps/wood/test/good/000.tiff"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"of another evaluation")
    assert command("eval", run, "--data", data, "--maps", "--quiet", "--device", "cpu") == 0
    assert other.read_bytes() == b"of another evaluation"
