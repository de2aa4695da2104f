"""The benchmark of single images: what it compares, and what it refuses."""

import json

import numpy as np
import pytest

import vitlite
from vitlite.bench import predict as bench
from vitlite.errors import UserError


def test_a_worker_scores_what_the_run_scores(tiny_run, tiny_data, capsys):
    options = ["--run", str(tiny_run), "--exported", "none", "--images", "3", "--worker", "torch float32", "1"]
    assert bench.main(options) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["reading"] > 0
    assert found["network"] > 0
    assert found["processor"] > 0
    paths = sorted((tiny_data / "weave/test").rglob("*.png"))
    known = [one.score for one in vitlite.load(tiny_run, "cpu").predict(paths)]
    assert len(found["scores"]) == 3
    assert all(np.isclose(score, known, rtol=1e-5).any() for score in found["scores"])


def test_a_worker_times_overlays(tiny_run, capsys):
    assert bench.main(["--run", str(tiny_run), "--images", "2", "--worker", "overlays", "1"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["size"] == "64 x 64"
    assert isinstance(found["processor"], float)


def test_the_table_compares_with_the_first_way():
    rounds = {
        ("torch float32", 1): [
            {"reading": 0.01, "network": 0.03, "processor": 0.05, "scores": [1.0, 2.0], "limit": 2.1}
        ],
        ("ONNX Runtime", 1): [{"reading": 0.01, "network": 0.01, "processor": 0.02, "scores": [1.0, 2.2], "limit": 2.1}]
        * 3,
        ("OpenVINO int8", 1): [
            {"reading": 0.01, "network": 0.01, "processor": 0.02, "scores": [1.0, 2.2], "limit": 2.3}
        ],
    }
    head, first, second, third = bench.table(rounds)
    assert first == ("torch float32", "1", "10.0", "30.0", "40.0", "50.0", "1.00", "0.0e+00", "0")
    assert second == ("ONNX Runtime", "1", "10.0", "10.0", "20.0", "20.0", "0.50", "1.0e-01", "1")
    assert third[-1] == "0"  # its own threshold moves with its scores
    assert len(head) == len(first)


@pytest.mark.parametrize(
    "options", [["--threads", "0"], ["--threads", "9999"], ["--threads", "a"], ["--images", "0"], ["--rounds", "0"]]
)
def test_wrong_numbers_are_refused(options):
    with pytest.raises(UserError, match="whole numbers from 1"):
        bench.main(["--run", "none", *options])
