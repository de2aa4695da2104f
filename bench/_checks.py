"""Which contenders of a case are timed: ours and the others have to be right, and the tests of an operator to pass."""

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from torch import Tensor

from vitlite.errors import first_line

from .. import kernels
from ._case import Case, Function


def placed(tensors: list[Tensor], device: str, dtype: torch.dtype) -> list[Tensor]:
    return [t.detach().to(device, dtype).requires_grad_(t.requires_grad) for t in tensors]


def results_of(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def gradients(function: Function, inputs: list[Tensor]) -> list[Tensor]:
    """Results and gradients of their weighted sum; the weights are fixed, so that all contenders get the same."""
    results = results_of(function(*inputs))
    if not any(t.requires_grad for t in inputs):
        return list(results)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.rand(r.shape, generator=generator, dtype=torch.float64).to(r) for r in results]
    leaves = [t for t in inputs if t.requires_grad]
    return [*(r.detach() for r in results), *torch.autograd.grad(results, leaves, weights)]


def error_of(case: Case, function: Function, inputs: list[Tensor]) -> float:
    """Largest error of the results and of the gradients, each relative to the largest value of its reference."""
    assert case.eager is not None
    wide = placed(inputs, str(inputs[0].device), torch.float64)
    worst = 0.0
    for ours, right in zip(gradients(function, inputs), gradients(case.eager, wide)):
        error = (ours.double() - right).abs().max() / right.abs().max().clamp_min(1e-30)
        worst = max(worst, math.inf if torch.isnan(error) else error.item())
    return worst


def contenders_of(case: Case, device: str, compiled: bool) -> dict[str, Function]:
    """name -> function of the tensors; ours is the first."""
    assert case.ours is not None
    assert case.eager is not None
    found = {"vitlite": case.ours}
    known = kernels.backends(case.op)
    if device == "cuda" and "triton" in known["available"] and known["auto"]["cuda"] != "triton":
        ours = case.ours
        found["vitlite triton"] = lambda *tensors: ours(*tensors, backend="triton")
    found |= {"eager": case.eager, **case.contenders}
    if compiled and case.size not in ("tiny", "overhead"):
        torch.compiler.reset()
        # The check has other shapes than the timing; without `dynamic` torch.compile would then make code for any.
        found["torch.compile"] = torch.compile(case.eager, dynamic=False)
    return found


def checked(case: Case, contenders: dict[str, Function], device: str) -> dict[str, float]:
    """The contenders that are timed, and their errors; the others are named with the reason.

    Ours must be right, and so must the others in float32. In half precision eager torch is often wrong, because it
    rounds every step, but people run it all the same: it is timed, and its error stands beside it.
    """
    inputs, found = placed((case.check_inputs or case.inputs)(), device, case.dtype), {}
    for name, function in contenders.items():
        try:
            error = 0.0 if name in case.partial_work else error_of(case, function, inputs)
        except Exception as failure:  # if one contender fails, the others can still be measured
            print(f"{case.op} {case.label}: {name} failed, {one_line(failure)}")
            continue
        half = case.dtype.itemsize == 2 and not name.startswith("vitlite") and math.isfinite(error)
        if error > case.tolerance:
            end = "timed all the same" if half else "not timed"
            print(f"{case.op} {case.label}: {name} is off by {error:.2e}, {case.tolerance:.0e} is permitted; {end}")
        if error <= case.tolerance or half:
            found[name] = error
    return found


def one_line(failure: Exception) -> str:
    said = first_line(failure)  # the kind of error, if it says nothing
    kind = type(failure).__name__
    return said if said == kind else f"{kind}: {said}"


def refusals(report: Path, ops: list[str]) -> dict[str, str]:
    """Why operators are not timed, from the JUnit report of their tests: operator -> reason.

    A test is about the operators whose room in kernels/ its name contains, and a test that names no room is about all.
    """
    if not report.exists():
        return dict.fromkeys(ops, "its tests did not run to the end")
    rooms = {op: module.split(".")[0] for op, module in kernels.OPERATORS.items()}
    passed: set[str] = set()
    failed: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').rsplit('.', 1)[-1]}::{case.get('name', '')}"
        # The name of the test says more than that of its file, which may hold several operators.
        texts = (case.get("name", ""), case.get("classname", ""))
        about = next((found for text in texts if (found := [op for op in ops if rooms[op] in text])), None)
        if case.find("failure") is not None or case.find("error") is not None:
            failed |= {op: f"{name} failed" for op in about or ops if op not in failed}
        elif case.find("skipped") is None:
            passed |= set(about or ())
    return {op: failed.get(op, "none of its tests passed") for op in ops if op in failed or op not in passed}
