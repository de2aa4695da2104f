"""The benchmark of maps on drawn defects: every choice of a reconstruction method, and one line each of the others."""

import pytest

from vitlite.bench import drawn
from vitlite.engine.settings import RunSettings, apply_overrides, preset_config
from vitlite.engine.train import train
from vitlite.errors import UserError

SMALL = ("image_size=32", "patch=8", "dim=16", "depth=1", "heads=2", "channels=8,8", "steps=2", "holdout=0.4")


def test_every_choice_is_measured_with_the_same_weights(tmp_path, tiny_run, tiny_data, capsys):
    config = apply_overrides(preset_config("anovit", "quick"), SMALL)
    train(RunSettings("anovit", str(tiny_data), "weave", "quick", 0, config), tmp_path / "run", device="cpu")
    assert drawn.main(["--runs", str(tmp_path / "run")]) == 0
    _, head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == ["run", "images", "map", "sigma", "places"]
    choices = [tuple(line.split()[2:5]) for line in lines]
    assert len(set(choices)) == len(choices) == len(drawn.MAPS) * len(drawn.SIGMAS) * len(drawn.PLACES)
    assert all(0 <= float(figure) <= 1 for line in lines for figure in line.split()[5:])
    assert len({line.split()[6] for line in lines}) > 3


def test_what_cannot_be_measured_is_refused(tmp_path, tiny_run):
    with pytest.raises(SystemExit):
        drawn.main([])
    with pytest.raises(SystemExit):
        drawn.main(["--runs", str(tiny_run), "--images", "2"])
    with pytest.raises(SystemExit):
        drawn.main(["--runs", str(tiny_run), "--kinds", "tiny,dent"])
    with pytest.raises(UserError, match="none"):
        drawn.main(["--runs", str(tmp_path / "none")])


def test_all_runs_are_opened_before_the_work(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(drawn, "measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(UserError, match="no such folder"):
        drawn.main(["--runs", str(tiny_run), str(tmp_path / "none")])
