"""`vitlite data`: what it prints and how it ends."""

import numpy as np
import pytest
from PIL import Image

from vitlite.cli import main

SMALL = ["--size", "32", "--train", "2", "--good", "1", "--defects", "1"]


@pytest.fixture
def run(capsys):
    def call(*args):
        with pytest.raises(SystemExit) as ended:
            main(["data", *map(str, args)])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return call


def test_synth_then_check(run, tmp_path):
    code, out, err = run("synth", "--out", tmp_path / "set", "--categories", "tiles,metal", "--seed", 3, *SMALL)
    assert (code, err) == (0, "")
    assert out == f"{tmp_path / 'set'}: metal, tiles; 4 training and 8 test images\n"
    code, out, err = run("check", tmp_path / "set")
    assert (code, err) == (0, "")
    assert "metal" in out
    assert "no problems found" in out
    code, out, _ = run("check", tmp_path / "set", "--category", "tiles")
    assert code == 0
    assert "metal\n" not in out


def test_warnings_do_not_fail(run, tmp_path):
    run("synth", "--out", tmp_path, "--categories", "wood", *SMALL)
    (tmp_path / "wood" / "train" / "good" / "000.png").write_bytes(b"")
    code, out, err = run("check", tmp_path)
    assert (code, err) == (0, "")
    assert "warning: unreadable, will be skipped: wood/train/good/000.png (is empty (0 bytes))" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["check", "nothing"], "nothing: no such folder"),
        (["check", "full", "--category", "nut"], "--category 'nut'"),
        (["check"], "Missing argument"),
        (["synth"], "--out"),
        (["synth", "--out", "full"], "not empty"),
        (["synth", "--out", "new", "--size", "x"], "--size"),
        (["synth", "--out", "new", "--size", "7"], "--size 7"),
        (["synth", "--out", "new", "--categories", "silk"], "silk"),
        (["polish"], "polish"),
    ],
)
def test_mistakes_end_with_one_line_and_code_2(run, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "full" / "a.png")
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert err.startswith("vitlite: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize("args", [[], ["check"], ["synth"]])
def test_help_has_an_example(run, args):
    code, out, _ = run(*args, "--help")
    assert code == 0
    assert "Example: vitlite data" in out
