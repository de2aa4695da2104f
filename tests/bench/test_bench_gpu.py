"""bench/gpu.sh without a GPU: what it says, what it refuses to time, and a run on a pretended GPU."""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pretend_cuda import pretended_cuda

from vitlite import kernels
from vitlite.bench import _cases, ops
from vitlite.bench._checks import refusals

CLONE = Path(__file__).parents[2]
OPS = list(kernels.OPERATORS)
RIGHT = [
    ("test_cuda_ops", "test_ssim_under_other_windows[same]"),
    ("test_triton_gpu", "test_gmm[1-2-3]"),
    ("test_triton_memory", "test_values"),
    ("test_cuda_runtime", "test_streams[attention]"),
    ("test_triton_gpu", "test_nearest_under_every_circumstance"),
]
BOTH_MIXTURES = {"gmm_log_likelihood", "linear_gmm_log_likelihood"}


@pytest.fixture
def judged(tmp_path):
    """Refusals from the report of tests (file, name, kind): kind is "failure", "error", "skipped" or None."""

    def judged(*tests):
        cases = (
            f'<testcase classname="tests.kernels.{file}" name="{name}">{f"<{kind[0]}/>" if kind else ""}</testcase>'
            for file, name, *kind in tests
        )
        report = tmp_path / "report.xml"
        report.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
        return refusals(report, OPS)

    return judged


def test_without_a_gpu_it_says_so(tmp_path):
    if not (CLONE / "bench" / "gpu.sh").exists():
        pytest.skip("not a clone")
    variables = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "OUT": str(tmp_path / "out")}
    done = subprocess.run(["sh", CLONE / "bench" / "gpu.sh"], capture_output=True, text=True, env=variables)
    assert done.returncode == 2
    assert done.stdout.startswith("no CUDA device")
    assert not (tmp_path / "out").exists()
    assert ops.main(["--device", "cuda"]) == 2


def test_the_times_stage_gets_the_report_of_the_tests(tmp_path):
    """With an interpreter that only writes down its arguments, and that says that the tests fail."""
    if not (CLONE / "bench" / "gpu.sh").exists():
        pytest.skip("not a clone")
    stub, log = tmp_path / "python", tmp_path / "log"
    stub.write_text(f"""#!/bin/sh
echo "$@" >> {log}
case "$*" in *get_device_capability*) echo 90 ;; *pytest*) exit 1 ;; esac
""")
    stub.chmod(0o755)
    variables = {**os.environ, "PYTHON": str(stub), "OUT": str(tmp_path)}
    assert subprocess.run(["sh", CLONE / "bench" / "gpu.sh"], env=variables).returncode == 1
    tests, times = log.read_text().splitlines()[-2:]
    assert "-m gpu" in tests
    report = next(part for part in tests.split() if part.startswith("--junitxml=")).removeprefix("--junitxml=")
    assert f"ops --device cuda --tests {report} --csv {tmp_path}/" in times


def test_operators_whose_tests_pass_are_timed(judged):
    assert judged(*RIGHT) == {}


@pytest.mark.parametrize(
    ("file", "name", "refused"),
    [
        ("test_cuda_ops", "test_ssim_of_no_images", {"ssim"}),
        ("test_cuda_ops", "test_gmm_in_other_dtypes[7]", BOTH_MIXTURES),
        ("test_triton_gmm_linear", "test_gradients", BOTH_MIXTURES),
        ("test_cuda_runtime", "test_graphs[memory_read]", {"memory_read"}),
        ("test_triton_attention", "test_values", {"attention"}),
        ("test_infrastructure", "test_everything", set(OPS)),
    ],
)
@pytest.mark.parametrize("kind", ["failure", "error"])
def test_an_operator_whose_test_failed_is_refused(judged, file, name, refused, kind):
    found = judged(*RIGHT, (file, name, kind))
    assert set(found) == refused
    assert set(found.values()) == {f"{file}::{name} failed"}


def test_operators_without_tests_are_refused(judged, tmp_path):
    assert set(judged(*RIGHT[:2], (*RIGHT[2], "skipped"), *RIGHT[3:])) == {"memory_read"}
    assert set(refusals(tmp_path / "none.xml", OPS)) == set(OPS)


class WallClockEvent:
    """In the place of an event of the pretended GPU."""

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.at = time.perf_counter()

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return (end.at - self.at) * 1e3


def test_a_whole_measurement_on_a_pretended_gpu(judged, monkeypatch, tmp_path):
    """Every operator but a refused one, in the dtypes and with the bars of its cases, but small."""
    bars = {"eager": (5, 5), "copy": (0.8, None), "matrix": (0.5, None), "memory": (None, 0.1)}
    small = [
        _cases.ssim((1, 1, 16, 16), "same", bars=bars),
        _cases.mixture(6, 5, 8, bars=bars),
        *_cases.in_precisions(_cases.memory(12, 20, 16, bars=bars)),
        _cases.attention(1, 2, 9, 8, bars=bars).in_half(),
    ]
    for name, value in {
        "Event": WallClockEvent,
        "memory_allocated": lambda: 100,
        "max_memory_allocated": lambda: 1100,
        "reset_peak_memory_stats": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    for name, value in {"FLUSH_BYTES": 1 << 10, "COPIED": {"cuda": 1 << 12}, "SQUARE": {"cuda": 32}}.items():
        monkeypatch.setattr(ops._measure, name, value)
    monkeypatch.setattr(_cases, "CASES", small)
    judged(*RIGHT, ("test_cuda_ops", "test_ssim", "failure"))
    file = tmp_path / "out.csv"
    options = ["--device", "cuda", "--no-compile", "--seconds", "0.01", "--csv", str(file)]
    with pretended_cuda() as gpu:
        assert ops.main([*options, "--tests", str(tmp_path / "report.xml")]) == 1
    assert gpu.moved > 20
    rows = [row for row in csv.DictReader(file.open()) if row["contender"] == "vitlite"]
    assert [row["op"] for row in rows] == ["gmm_log_likelihood", *["memory_read"] * 3, "attention"]
    for row in rows:
        assert row["gpu"] == "pretended"
        assert float(row["forward_ms"]) > 0
        assert float(row["both_bytes"]) == 1000
        assert row["bars"].count("met") + row["bars"].count("NOT MET") == 5
        assert "not taken" not in row["bars"]
