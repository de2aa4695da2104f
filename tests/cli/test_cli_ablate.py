"""vitlite ablate as a person types it."""

import pytest
from commands import outcome as vitlite
from tiny_settings import TINY_OPTIONS


def test_a_table(tiny_data, tmp_path):
    command = ["ablate", "--method", "sivt", "--table", "induction", "--data", tiny_data, "--out", tmp_path / "a"]
    command += ["--device", "cpu", *TINY_OPTIONS]
    code, out, err = vitlite(*command, "--quiet")
    assert code == 0, err
    lines = out.splitlines()
    assert "84.4" in lines[1]
    assert "90.1" in lines[1]
    assert "Fig. 6" in lines[-1]
    code, again, err = vitlite(*command)
    assert code == 0
    assert err.count("already done") == 2
    assert again.splitlines()[:3] == lines[:3]
    assert "ablation.csv" in again


@pytest.mark.parametrize(
    ("plot", "says"),
    [
        ("file/it.svg", "--plot {0}/file: {0}/file is a file, not a folder"),
        ("folder.svg", "is a folder; name the file"),
    ],
)
def test_a_plot_that_cannot_be_written_is_refused_before_the_training(tmp_path, plot, says):
    pytest.importorskip("matplotlib")
    (tmp_path / "file").touch()
    (tmp_path / "folder.svg").mkdir()
    command = ["ablate", "--method", "sivt", "--table", "induction", "--out", tmp_path / "out"]
    code, out, err = vitlite(*command, "--plot", tmp_path / plot)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says.format(tmp_path) in err
    assert not (tmp_path / "out").exists()


def test_a_table_that_cannot_be_written_is_refused_before_the_training(tmp_path):
    (tmp_path / "ablation.csv").mkdir()
    code, _, err = vitlite("ablate", "--method", "sivt", "--table", "induction", "--out", tmp_path)
    assert code == 2
    assert err == f"vitlite: --out {tmp_path}/ablation.csv: is a folder; name the file\n"


@pytest.mark.slow
def test_synthetic_data_are_made_once(tmp_path):
    options = ["--table", "induction", "--rows", "1", "--category", "weave", "--out", tmp_path / "out", "--quiet"]
    code, out, err = vitlite("ablate", "--method", "sivt", *options, "--device", "cpu", *TINY_OPTIONS)
    assert code == 0, err
    assert "synthetic" in out
    assert (tmp_path / "out/synthetic/weave/test/good").is_dir()
    assert not (tmp_path / "out/induction/vanilla-transformer/synthetic").exists()
