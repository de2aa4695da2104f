"""The benchmark of the operators: it refuses wrong results, and what it prints and writes can be read."""

import csv
import importlib

import pytest
import torch

from vitlite.bench import ops


def case(function, size="small", **more):
    return ops.Case(
        op="double",
        name="3",
        size=size,
        inputs=lambda device: [torch.arange(3.0, device=device).requires_grad_()],
        contenders={"vitlite": function, "eager": lambda x: x + x},
        reference=lambda x: 2 * x,
        traffic=(24, 48),
        operations=(3, 6),
        **more,
    )


@pytest.fixture
def known_limits(monkeypatch):
    """Takes the place of measuring the machine, which takes seconds."""
    monkeypatch.setattr(ops._measure, "copy_bandwidth", lambda device: 1e10)
    monkeypatch.setattr(ops._measure, "matrix_rate", lambda device: 1e11)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the benchmark with the given cases as its only operator; returns exit code and written rows."""
    module = type("Cases", (), {})

    def run(*cases):
        module.cases = staticmethod(lambda: list(cases))
        monkeypatch.setattr(ops, "OPERATORS", {"double": "_op_double"})
        monkeypatch.setattr(importlib, "import_module", lambda *_: module)
        file = tmp_path / "out.csv"
        code = ops.main(["--no-compile", "--seconds", "0.01", "--csv", str(file)])
        return code, list(csv.DictReader(file.open()))

    return run


def test_a_right_operator_is_timed_and_written(run, capsys):
    code, rows = run(case(lambda x: x * 2, bars={"eager": (1e-6, 1e9)}))
    printed = capsys.readouterr().out
    assert code == 0
    assert [row["contender"] for row in rows] == ["vitlite", "eager"]
    assert all(float(row["forward_ms"]) > 0 and float(row["backward_ms"]) > 0 for row in rows)
    assert rows[0]["torch"] == torch.__version__
    assert "bar 1e-06x / 1e+09x: NOT MET" in printed
    assert "of a copy" in printed
    assert "of a matrix product" in printed


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2.01 * grad


@pytest.mark.parametrize("function", [lambda x: 2.01 * x, WrongGradient.apply, lambda x: 2 * x / (x - 1) * (x - 1)])
def test_a_wrong_operator_is_not_reported(run, known_limits, capsys, function):
    code, rows = run(case(function))
    assert code == 1
    assert rows == []
    assert "not timed" in capsys.readouterr().out


def test_a_wrong_contender_is_left_out(run, known_limits, capsys):
    wrong = case(lambda x: x * 2)
    wrong.contenders["library"] = lambda x: x * 3
    code, rows = run(wrong)
    assert code == 0
    assert [row["contender"] for row in rows] == ["vitlite", "eager"]
    assert "library is off by" in capsys.readouterr().out


def test_overhead_is_held_against_its_limit(run, known_limits, capsys):
    code, rows = run(case(lambda x: x * 2, "overhead", limit_us=1e9))
    assert code == 0
    assert "limit 1e+09: met" in capsys.readouterr().out
    assert rows[0]["backward_ms"] == ""


@pytest.mark.parametrize("op", ops.OPERATORS)
def test_cases_of_every_operator_pass_their_check(op):
    found = ops.collect([op], ("small", "overhead"))
    assert found
    for small in found:
        assert ops.checked(small, small.contenders, "cpu") == small.contenders, small.name
