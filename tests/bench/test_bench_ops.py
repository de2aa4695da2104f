"""The benchmark of the operators: it refuses wrong results, and what it prints and writes can be read."""

import csv
from dataclasses import replace

import pytest
import torch

from vitlite import kernels
from vitlite.bench import _case, _cases, _checks, ops


def double(x):
    return 2 * x


def case(ours=double, size="small", **more):
    return _case.Case(
        op="ssim",
        name="3",
        size=size,
        inputs=lambda: [torch.arange(3.0).requires_grad_()],
        numbers=(6, 12),
        operations=(3, 6),
        ours=ours,
        eager=double,
        **more,
    )


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the benchmark with the given cases alone; returns exit code and written rows."""
    monkeypatch.setattr(ops._measure, "COPIED", {"cpu": 1 << 12})
    monkeypatch.setattr(ops._measure, "SQUARE", {"cpu": 32})

    def run(*cases, options=()):
        monkeypatch.setattr(_cases, "CASES", cases)
        file = tmp_path / "out.csv"
        code = ops.main(["--no-compile", "--seconds", "0.01", "--csv", str(file), *options])
        return code, list(csv.DictReader(file.open())) if file.exists() else []

    return run


def test_a_right_operator_is_timed_and_written(run, capsys):
    code, rows = run(case(bars={"eager": (1e-6, 1e9), "copy": (None, 1e-9)}))
    printed = capsys.readouterr().out
    assert code == 0
    assert [row["contender"] for row in rows] == ["vitlite", "eager"]
    assert all(float(row["forward_ms"]) > 0 and float(row["both_ms"]) > 0 for row in rows)
    assert rows[0]["torch"] == torch.__version__
    assert rows[0]["processor"]
    said = rows[0]["bars"].split("; ")
    assert [bar.rsplit(", ")[-1] for bar in said] == ["met", "NOT MET", "met"]
    assert all(bar in printed for bar in said)
    share = 24 / float(rows[0]["forward_ms"]) * 1e3 / float(rows[0]["copy_bandwidth"])
    assert float(rows[0]["forward_copy_share"]) == pytest.approx(share)


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2.01 * grad


@pytest.mark.parametrize("function", [lambda x: 2.01 * x, WrongGradient.apply, lambda x: 2 * x / (x - 1) * (x - 1)])
@pytest.mark.parametrize("options", [(), ("--check",)])
def test_a_wrong_operator_is_not_reported(run, capsys, function, options):
    assert run(case(function), options=options) == (1, [])
    assert "vitlite is off by" in capsys.readouterr().out


def test_contenders_that_are_wrong_or_fail_are_left_out(run, capsys):
    def broken(x):
        raise RuntimeError("out of luck\nand more")

    def silent(x):
        raise ValueError

    code, rows = run(case(contenders={"library": lambda x: x * 3, "broken": broken, "silent": silent}))
    assert code == 0
    assert [row["contender"] for row in rows] == ["vitlite", "eager"]
    printed = capsys.readouterr().out
    assert "library is off by" in printed
    assert "broken failed, RuntimeError: out of luck\n" in printed
    assert "silent failed, ValueError\n" in printed


def test_what_others_lose_in_half_precision_is_timed_with_its_error(run, capsys):
    code, rows = run(case(contenders={"library": lambda x: x * 3}).in_half())
    assert code == 0
    assert [row["contender"] for row in rows] == ["vitlite", "eager", "library"]
    assert [float(row["error"]) > 4e-2 for row in rows] == [False, False, True]
    assert "timed all the same" in capsys.readouterr().out
    assert run(case(lambda x: x * 3).in_half())[0] == 1


def test_the_bare_call_is_held_against_its_limit(run, monkeypatch):
    monkeypatch.setattr(ops, "OVERHEAD_US", 1e9)
    code, rows = run(case(size="overhead"))
    assert code == 0
    assert rows[0]["bars"].endswith("met")
    assert rows[0]["both_ms"] == ""


def test_a_bar_that_cannot_be_taken_is_not_met(run):
    _, rows = run(case(bars={"sdpa": (1, None), "memory": (None, 0.1)}))
    assert [bar.split(": ")[1] for bar in rows[0]["bars"].split("; ")] == ["not taken, NOT MET"] * 2


@pytest.mark.parametrize("op", kernels.OPERATORS)
def test_cases_of_every_operator_pass_their_check(op):
    found = _cases.cases("cpu", [op], ["small", "overhead"])
    assert {one.size for one in found} == {"small", "overhead"}
    for small in found:
        contenders = _checks.contenders_of(small, "cpu", False)
        assert list(_checks.checked(small, contenders, "cpu")) == list(contenders), small.name


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("op", kernels.OPERATORS)
def test_every_operator_has_cases_with_bars(op, device):
    large = _cases.cases(device, [op], ["large"])
    assert op == "linear_gmm_log_likelihood" or any(one.bars for one in large)
    assert all(one.numbers[0] > 0 and one.operations[0] > 0 for one in large)


def test_what_a_memory_must_move():
    """2 queries and 3 items with 4 channels; backward reads both and a gradient, and writes two."""
    queries, items = 2 * 4, 3 * 4
    forward, backward = queries + items + queries, (queries + items + queries) + (queries + items)
    assert _cases.memory(2, 3, 4).numbers == (forward, forward + backward)
    assert _cases.memory(2, 3, 4).in_half().bytes() == (2 * forward, 2 * (forward + backward))


def test_half_precision_keeps_who_needs_a_gradient():
    small = _cases.ssim((1, 1, 16, 16), "same", "small").in_half()
    x, y = _checks.placed(small.inputs(), "cpu", small.dtype)
    assert (x.dtype, x.requires_grad, y.requires_grad) == (torch.bfloat16, True, False)
    assert replace(small, precision="tf32").label == "1x1x16x16 same bfloat16 tf32"
