"""bench/gpu.sh without a GPU: what it says, what it refuses to time, its bars and its predictions."""

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretend_cuda import pretended_cuda

from vitlite.bench import _gpu_cases, _gpu_small, gpu_ops, gpu_run

CLONE = Path(__file__).parents[2]
RIGHT = "".join(
    f'<testcase classname="tests.kernels.{file}" name="{name}"/>'
    for file, name in [
        ("test_cuda_ops", "test_ssim_under_other_windows[same]"),
        ("test_cuda_ops", "test_gmm[1-2-3]"),
        ("test_triton_gmm_linear", "test_values"),
        ("test_triton_memory", "test_values"),
        ("test_cuda_runtime", "test_streams[attention]"),
    ]
)


def report(*cases):
    return f"<testsuites><testsuite>{RIGHT}{''.join(cases)}</testsuite></testsuites>"


def failing(file, name, kind="failure"):
    return f'<testcase classname="tests.kernels.{file}" name="{name}"><{kind} message="off"/></testcase>'


def script(*options, **environment):
    if not (CLONE / "bench" / "gpu.sh").exists():
        pytest.skip("not a clone")
    variables = {**os.environ, "PYTHON": sys.executable, **environment}
    command = [str(CLONE / "bench" / "gpu.sh"), *options]
    return subprocess.run(command, capture_output=True, text=True, env=variables)


def test_without_a_gpu_it_says_so(tmp_path):
    done = script(CUDA_VISIBLE_DEVICES="", OUT=str(tmp_path))
    assert done.returncode == 2
    assert done.stdout.strip() == gpu_run.NO_GPU
    assert not list(tmp_path.iterdir())


def test_predictions_are_marked_as_such():
    done = script("--predict")
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert head.startswith("predicted, not measured")
    rows = [line for line in lines if "(predicted)" in line]
    assert len(rows) == sum(len(cases()) for cases in _gpu_cases.CASES.values())
    for op in _gpu_cases.CASES:
        assert any(row.startswith(op) for row in rows)


def test_predictions_that_were_stopped_are_a_failure(monkeypatch):
    monkeypatch.setattr(gpu_run.Run, "command", lambda *_, **__: (None, ""))
    assert gpu_run.main(["--predict"]) == 1


def test_operators_whose_tests_pass_are_timed():
    assert gpu_run.judge(report()) == {}


@pytest.mark.parametrize(
    ("file", "name", "op"),
    [
        ("test_cuda_ops", "test_ssim_of_no_images", "ssim"),
        ("test_cuda_ops", "test_gmm_in_other_dtypes[7]", "gmm_log_likelihood"),
        ("test_triton_gmm_linear", "test_gradients", "linear_gmm_log_likelihood"),
        ("test_cuda_runtime", "test_graphs[linear_gmm_log_likelihood]", "linear_gmm_log_likelihood"),
        ("test_cuda_runtime", "test_graphs[memory_read]", "memory_read"),
        ("test_triton_attention", "test_values", "attention"),
        ("test_triton_gpu", "test_memory[(5, 33)-1.0-torch.float64]", "memory_read"),
    ],
)
@pytest.mark.parametrize("kind", ["failure", "error"])
def test_an_operator_whose_test_failed_is_refused(file, name, op, kind):
    refused = gpu_run.judge(report(failing(file, name, kind)))
    assert list(refused) == [op]
    assert refused[op] == f"{file}::{name} failed"


def test_a_failure_that_names_no_operator_counts_against_all():
    refused = gpu_run.judge(report(failing("test_infrastructure", "test_everything")))
    assert set(refused) == set(gpu_run.NAMES)


def test_operators_without_tests_are_refused():
    skipped = report().replace('name="test_values"/>', 'name="test_values"><skipped/></testcase>')
    refused = gpu_run.judge(skipped)
    assert set(refused) == {"linear_gmm_log_likelihood", "memory_read"}
    assert set(refused.values()) == {"none of its tests ran"}
    assert set(gpu_run.judge(None)) == set(gpu_run.NAMES)


def test_what_the_sanitizer_finds_is_refused():
    hazard = "========= Error: Race reported between Write access at ssim_forward_kernel+0x80"
    assert list(gpu_run.sanitized(hazard, 9)) == ["ssim"]
    assert set(gpu_run.sanitized("========= ERROR SUMMARY: 1 error", 9)) == set(gpu_run.NAMES)
    assert gpu_run.sanitized("========= ERROR SUMMARY: 0 errors", 0) == {}


def test_a_stage_that_outruns_its_time_is_stopped():
    """What would not end in days does."""
    run = gpu_run.Run(minutes=1)
    code, text = run.command([sys.executable, "-uc", "import time; print('on'); time.sleep(1e6)"], 2, quiet=True)
    assert code is None
    assert text.strip() in ("on", "")
    assert gpu_run.Run().left() <= 9 * 60


def test_tests_that_outrun_their_time_write_what_passed(tmp_path, monkeypatch):
    """Their time is up once the second has begun, however slow the machine; also in the background of a shell."""
    slow, begun = tmp_path / "test_ssim.py", tmp_path / "begun"
    slow.write_text(f"""
import pathlib, time
def test_one(): pass
def test_two():
    pathlib.Path({str(begun)!r}).touch()
    time.sleep(1e6)
""")

    class UntilBegun(subprocess.Popen):
        def communicate(self, input=None, timeout=None):
            if timeout is None:
                return super().communicate(input)
            while not begun.exists() and self.poll() is None:
                time.sleep(0.05)
            raise subprocess.TimeoutExpired(self.args, timeout)

    monkeypatch.setattr(subprocess, "Popen", UntilBegun)
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", str(slow)]
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert gpu_run.Run(minutes=1).command(command, 30, quiet=True, gently=600)[0] is None
    finally:
        signal.signal(signal.SIGINT, heard)
    assert "ssim" not in gpu_run.judge(report.read_text())


def test_every_operator_has_names_cases_and_small_calls():
    assert set(gpu_run.NAMES) == set(_gpu_cases.CASES)
    for op in gpu_run.NAMES:
        assert gpu_run.operator_of(f"test_values[{op}]") == op
    first = [gpu_case.case.op for gpu_case in _gpu_cases.in_turn()]
    assert set(first[: len(_gpu_cases.CASES)]) == set(_gpu_cases.CASES)
    # What compute-sanitizer watches there runs here with the reference.
    small = _gpu_small.functions("cpu")
    assert set(small) == set(gpu_run.NAMES)
    for function in small.values():
        for result in function("eager"):
            result.backward()


def test_the_bars_are_those_that_were_agreed():
    bars = {}
    for gpu_case in _gpu_cases.in_turn():
        for key, bar in gpu_case.bars.items():
            bars.setdefault(gpu_case.case.op, {})[key] = bar
    likelihood = {("forward", "copy"): 0.8, ("forward", "eager"): 5}
    both = [("forward", name) for name in ("eager", "torch.compile")] + [
        ("both", n) for n in ("eager", "torch.compile")
    ]
    assert bars["ssim"] == bars["gmm_log_likelihood"] == likelihood
    assert bars["linear_gmm_log_likelihood"] == {("forward", "matrix"): 0.5, ("both", "memory"): 0.1}
    assert bars["memory_read"] == {key: 3 if key[1] == "eager" else 1 for key in both}
    assert bars["attention"] == {("forward", "sdpa"): 0.9, ("both", "sdpa"): 0.9}


@pytest.fixture
def one_case():
    case = _gpu_cases.mixture_cases()[0]
    bars = {("forward", "copy"): 0.8, ("forward", "eager"): 5, ("both", "memory"): 0.1, ("both", "sdpa"): 1}
    return _gpu_cases.GpuCase(case.case, bars=bars)


def test_bars_are_judged(one_case):
    ceilings = {"copy": 3e12, "matrix": {"float32": 5e13}}
    seconds = one_case.case.traffic[0] / 3e12 / 0.85
    ours = {"op": "x", "case": "y", "contender": "vitlite", "forward_seconds": seconds, "both_bytes": 10}
    eager = {**ours, "contender": "eager", "forward_seconds": 4 * seconds, "both_bytes": 100}
    found = gpu_ops.verdicts(one_case, [ours, eager], ceilings)
    reached = [(None if value is None else round(value, 3), passes) for _, value, passes in found]
    assert reached == [(0.85, True), (4.0, False), (0.1, True), (None, False)]
    (line, _) = gpu_ops.csv_rows(one_case, [ours, eager], ceilings, {"gpu": "card"})
    assert "eager: short" in line["bars"]
    assert line["gpu"] == "card"


def test_predictions_take_the_slowest_ceiling():
    for gpu_case in _gpu_cases.in_turn():
        for phase in _gpu_cases.PHASES:
            seconds, pace = gpu_ops.predicted(gpu_case, phase)
            moved = gpu_case.case.traffic[_gpu_cases.PHASES.index(phase)]
            assert seconds >= moved / gpu_ops.CARD["copy"] > 0
            assert pace in ("bytes", "matrix products", "instructions")


def test_what_a_memory_must_move():
    """Of 2 queries and 3 items with 4 channels; backward reads both and a gradient, and writes two."""
    queries, items = 4 * 2 * 4, 4 * 3 * 4
    forward, backward = queries + items + queries, (queries + items + queries) + (queries + items)
    assert _gpu_cases._op_memory._case(2, 3, 4, "small").traffic == (forward, forward + backward)


def small_ssim(dtype=torch.float32, **contenders):
    """A small case whose first contender, "vitlite", is right."""
    case = _gpu_cases._op_ssim._case((1, 1, 16, 16), "same", "small")
    eager = case.contenders["eager"]
    case = replace(case, contenders={"vitlite": eager, **{name: make(eager) for name, make in contenders.items()}})
    return _gpu_cases.GpuCase(_gpu_cases.cast(case, dtype), dtype, compiled=False)


def twice(eager):
    return lambda x, y: 2 * eager(x, y)


def broken(eager):
    def fail(x, y):
        raise RuntimeError("out of luck")

    return fail


def test_contenders_that_are_wrong_or_fail_are_left_out(capsys):
    gpu_case = small_ssim(twice=twice, broken=broken)
    functions, errors = gpu_ops.checked(gpu_case, gpu_case.case.contenders, "cpu")
    assert list(functions) == list(errors) == ["vitlite"]
    printed = capsys.readouterr().out
    assert "twice is off by" in printed
    assert "broken failed, RuntimeError: ['out of luck']" in printed
    ours_is_wrong = {"vitlite": gpu_case.case.contenders["twice"]}
    for case in (gpu_case, replace(gpu_case, dtype=torch.bfloat16)):
        assert gpu_ops.checked(case, ours_is_wrong, "cpu") == ({}, {})


def test_what_eager_torch_loses_in_half_precision_is_said(capsys):
    """It is what people run, and so it is timed, its error beside it."""
    gpu_case = small_ssim(torch.bfloat16, twice=twice, broken=broken)
    functions, errors = gpu_ops.checked(gpu_case, gpu_case.case.contenders, "cpu")
    assert list(functions) == ["vitlite", "twice"]
    assert errors["vitlite"] < 4e-2 < errors["twice"]
    assert "timed all the same" in capsys.readouterr().out
    rows = [{"contender": name, "error": error} for name, error in errors.items()]
    gpu_ops.print_case(gpu_case, rows, {"copy": 1e12, "matrix": {}})
    assert [("off by" in line) for line in capsys.readouterr().out.splitlines()[3:5]] == [False, True]


class FakeClock:
    def ceilings(self):
        return {"copy": 1e12, "matrix": {"float32": 1e13, "tf32": 1e13, "bfloat16": 1e13}}


def test_refused_and_wrong_operators_print_no_speed(monkeypatch, tmp_path, capsys):
    cases = _gpu_cases.in_turn(["ssim", "gmm_log_likelihood"])[:2]
    timed = []

    def measured(gpu_case, clock):
        timed.append(gpu_case.case.op)
        return None if len(timed) > 1 else [{"op": gpu_case.case.op, "case": "c", "contender": "vitlite"}]

    monkeypatch.setattr(gpu_ops, "Clock", FakeClock)
    monkeypatch.setattr(gpu_ops, "machine", lambda: {"gpu": "card"})
    monkeypatch.setattr(gpu_ops, "measured", measured)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    file = tmp_path / "out.csv"
    options = gpu_ops.parser().parse_args(["--csv", str(file)])
    assert gpu_ops.run(cases, {"ssim": "wrong"}, options) == 1
    assert timed == ["gmm_log_likelihood"]
    assert [row["op"] for row in csv.DictReader(file.open())] == ["gmm_log_likelihood"]
    assert gpu_ops.run(cases[:1], {}, options) == 1  # its results were wrong
    options.seconds = 0
    assert gpu_ops.run(cases, {}, options) == 0
    assert "left out, the time is up" in capsys.readouterr().out


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


def test_a_whole_measurement_on_a_pretended_gpu(monkeypatch, tmp_path, capsys):
    """Every operator, in the dtypes and with the bars of its first case, but small; the numbers mean nothing."""
    small = [
        _gpu_cases._op_ssim._case((1, 1, 16, 16), "same", "large"),
        _gpu_cases._op_gmm._mixture_case(6, 5, 8, "large"),
        _gpu_cases._op_memory._case(12, 20, 16, "large"),
        _gpu_cases._op_gmm._head_case(6, 5, 8, 8, "large"),
        _gpu_cases._op_attention._case((1, 2, 9, 8), "large"),
    ]
    cases = []
    for case, first in zip(small, _gpu_cases.in_turn()):
        assert case.op == first.case.op
        cases.append(replace(first, case=_gpu_cases.cast(case, first.dtype), compiled=False))
    for name, value in {
        "Event": WallClockEvent,
        "memory_allocated": lambda: 100,
        "max_memory_allocated": lambda: 1100,
        "reset_peak_memory_stats": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    for name, value in {"FLUSH_BYTES": 1 << 10, "COPIED": 1 << 12, "SQUARE": 32}.items():
        monkeypatch.setattr(gpu_ops, name, value)
    monkeypatch.setattr(gpu_ops.Clock.medians, "__defaults__", (0.05, 5))
    file = tmp_path / "out.csv"
    with pretended_cuda() as gpu:
        code = gpu_ops.run(cases, {}, gpu_ops.parser().parse_args(["--csv", str(file)]))
    assert code == 0
    assert gpu.moved > 20
    rows = list(csv.DictReader(file.open()))
    assert {row["op"] for row in rows} == set(_gpu_cases.CASES)
    ours = [row for row in rows if row["contender"] == "vitlite"]
    assert len(ours) == len(cases)
    for row in ours:
        assert row["gpu"] == "pretended"
        assert float(row["forward_seconds"]) > 0
        assert float(row["both_bytes"]) == 1000
        assert "pass" in row["bars"] or "short" in row["bars"]
    printed = capsys.readouterr().out
    assert "not taken" not in printed.replace("torch.compile: not taken", "")


def test_half_precision_cases_keep_their_gradients():
    gpu_case = next(c for c in _gpu_cases.ssim_cases() if c.dtype == torch.bfloat16)
    small = _gpu_cases.cast(_gpu_cases._op_ssim._case((1, 1, 16, 16), "same", "small"), torch.bfloat16)
    x, y = small.inputs("cpu")
    assert (x.dtype, x.requires_grad, y.requires_grad) == (torch.bfloat16, True, False)
    assert gpu_case.case.traffic[0] == 4 * 32 * 3 * 512 * 512
