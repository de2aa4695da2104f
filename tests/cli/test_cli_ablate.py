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


@pytest.mark.slow
def test_synthetic_data_are_made_once(tmp_path):
    options = ["--table", "induction", "--rows", "1", "--category", "weave", "--out", tmp_path / "out", "--quiet"]
    code, out, err = vitlite("ablate", "--method", "sivt", *options, "--device", "cpu", *TINY_OPTIONS)
    assert code == 0, err
    assert "synthetic" in out
    assert (tmp_path / "out/synthetic/weave/test/good").is_dir()
    assert not (tmp_path / "out/induction/vanilla-transformer/synthetic").exists()
