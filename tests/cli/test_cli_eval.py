"""``vitlite eval`` and ``vitlite eval-maps`` as a person types them."""

import json
import shutil

import pytest
from commands import vitlite
from PIL import Image

from vitlite.results import KEYS


@pytest.fixture
def run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "run")


def written(folder, *others):
    names = ("results.json", "results.csv", "scores.csv", *others)
    return f"written: {', '.join(f'{folder}/{name}' for name in names)}"


@pytest.mark.parametrize("resized", [False, True])
def test_maps_of_eval_score_the_same_in_eval_maps(run, tiny_data, tmp_path, resized):
    data = shutil.copytree(tiny_data, tmp_path / "data")
    if resized:  # no image has the network's size
        for i, path in enumerate(sorted((data / "weave/test").rglob("*.png"))):
            size = (90 + i, 50 + 2 * i)
            mask = data / "weave/ground_truth" / path.parent.name / f"{path.stem}_mask.png"
            Image.open(path).resize(size).save(path)
            if mask.exists():
                Image.open(mask).resize(size, Image.Resampling.NEAREST).save(mask)
    out, _ = vitlite("eval", run, "--data", data, "--maps", "--device", "cpu")
    assert out.splitlines()[-1] == written(run, "maps")
    assert len(list((run / "maps/weave/test").rglob("*.tiff"))) == 10
    own = json.loads((run / "results.json").read_text())
    for folder, options in ((tmp_path / "out", ["--out", tmp_path / "out"]), (run / "maps", ["--category", "weave"])):
        again, _ = vitlite("eval-maps", run / "maps", "--data", data, *options)
        assert again.splitlines()[0] == out.splitlines()[1]  # the first line is about the threshold
        assert again.splitlines()[-1] == written(folder)
        official = json.loads((folder / "results.json").read_text())
        for key in KEYS[3:]:
            assert official["mean"][key] == pytest.approx(own["mean"][key], abs=1e-6), key
    vitlite("eval-maps", run / "maps", "--data", data)  # its own files are no maps


def test_results_on_other_data(run, tiny_data, tmp_path):
    """They replace earlier ones with a warning that says how to keep those, or go elsewhere."""
    other, out = shutil.copytree(tiny_data, tmp_path / "other"), tmp_path / "new/out"
    for _ in range(2):  # the same data again: nothing is lost
        assert "replaced" not in vitlite("eval", run)[1]
    before = (run / "results.json").read_bytes()
    said, err = vitlite("eval", run, "--data", other, "--out", out, "--maps")
    assert said.splitlines()[-1] == written(out, "maps")
    assert "replaced" not in err
    assert ((run / "results.json").read_bytes(), (run / "maps").exists()) == (before, False)
    assert json.loads((out / "results.json").read_text())["about"]["data"] == str(other)
    line = f"{run}/results.json: the results on {tiny_data} are replaced; to keep them, stop here and choose another"
    assert line in vitlite("eval", run, "--data", other)[1]
    assert json.loads((run / "results.json").read_text())["about"]["data"] == str(other)


def test_results_of_maps_on_other_data(run, tiny_data, tmp_path):
    """As those of a run."""
    vitlite("eval", run, "--maps")
    maps, other, out = run / "maps", shutil.copytree(tiny_data, tmp_path / "other"), tmp_path / "out"
    for options in ((), ("--out", out)):
        place = out if options else maps
        for _ in range(2):
            assert "replaced" not in vitlite("eval-maps", maps, "--data", tiny_data, *options)[1]
        line = f"{place}/results.json: the results on {tiny_data} are replaced; to keep them, stop here and choose"
        assert line in vitlite("eval-maps", maps, "--data", other, *options)[1]


def test_quiet_prints_the_table_alone(run, tiny_data):
    out, err = vitlite("eval", run, "--maps", "--quiet")
    assert (out.splitlines()[1].split()[0], err, "written" in out) == ("images", "", False)
    again, err = vitlite("eval-maps", run / "maps", "--data", tiny_data, "-q")
    assert (again.splitlines()[0], err, "written" in again) == (out.splitlines()[1], "", False)


def refused(*args):
    out, err = vitlite(*args, code=2)
    assert (out, err.count("\n")) == ("", 1)
    return err


def test_mistakes_are_one_line_and_leave_no_result(run, tiny_data, tmp_path):
    vitlite("eval", run, "--maps")
    maps, out = run / "maps", tmp_path / "out"
    assert "weave" in refused("eval-maps", maps, "--data", tiny_data, "--category", "weav", "--out", out)
    assert "nowhere" in refused("eval-maps", tmp_path / "nowhere", "--data", tiny_data, "--out", out)
    next(maps.rglob("*.tiff")).unlink()
    assert "missing: 1 (weave/test/" in refused("eval-maps", maps, "--data", tiny_data, "--out", out)
    assert not out.exists()
    (tmp_path / "file").touch()
    for what in (("eval", run), ("eval-maps", maps, "--data", tiny_data)):  # also if maps are missing: before the work
        assert "file is a file, not a folder; choose another folder" in refused(*what, "--out", tmp_path / "file/out")
    vitlite("eval", run, "--maps")
    assert "file/out" in refused("eval-maps", maps, "--data", tiny_data, "--out", tmp_path / "file/out")
    (maps / "weave/test/good/more.tiff").touch()
    assert refused("eval", run, "--maps").startswith(f"vitlite: --maps: {maps} holds 1 map of other images")


def test_help_shows_the_layout_of_maps():
    assert "MAPS/<category>/test/<defect>/<stem>.tiff" in vitlite("eval-maps", "--help")[0]
