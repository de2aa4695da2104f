"""The fused operators against eager torch, torch.compile of it, and the library a user would pick.

    python -m vitlite.bench ops [--op NAME ...] [--size small|large] [--no-compile] [--csv FILE]

Every case is checked before it is timed: where a result or a gradient of ours is off, the case is not reported and the
exit code is 1. Alternatives take turns within one run, and the table gives the fastest round of each (the CSV also the
median). Beside them stands what the case must at least move and compute, as a part of what a copy and a matrix product
reach on the same machine.
"""

import argparse
import csv
import datetime
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from . import _measure

# Operator -> the file with its cases.
OPERATORS = {"ssim": "_op_ssim", "attention": "_op_attention", "memory_read": "_op_memory", "gmm": "_op_gmm"}


@dataclass
class Case:
    """One comparison.

    Args:
        op: name of the operator.
        name: what distinguishes the case, such as its shape.
        size: "large", where the work counts; "small", where the cost of a call counts; "overhead" for the bare call.
        inputs: makes the tensors, each either a leaf that requires a gradient or one that does not.
        contenders: name -> function of the inputs; the first is ours. ``torch.compile`` is added for "eager".
        reference: function of the inputs in float64 that gives the right result.
        traffic: bytes that must be read and written, (forward, forward and backward).
        operations: floating point operations that must be done, (forward, forward and backward).
        bars: contender -> (forward, forward and backward): how many times as fast as it we have to be.
        limit_us: for "overhead", the microseconds that one call of ours may take.
        tolerance: permitted error against the reference, relative to its largest value.
        check_inputs: makes other tensors for the check, where those that are timed are too close to a jump of the
            operator to tell anything.
        limits: contenders that are only a part of the work, such as its matrix products, and are not checked.
    """

    op: str
    name: str
    size: str
    inputs: Callable
    contenders: dict
    reference: Callable
    traffic: tuple = (0, 0)
    operations: tuple = (0, 0)
    bars: dict = field(default_factory=dict)
    limit_us: float | None = None
    tolerance: float = 1e-4
    check_inputs: Callable | None = None
    limits: tuple = ()


def tensors_of(result):
    return (result,) if isinstance(result, torch.Tensor) else tuple(result)


def gradients(function, inputs):
    """Results and gradients of their weighted sum; the weights are fixed, so that all contenders get the same."""
    results = tensors_of(function(*inputs))
    generator = torch.Generator().manual_seed(1)
    weights = [torch.rand(r.shape, generator=generator, dtype=torch.float64).to(r) for r in results]
    leaves = [t for t in inputs if t.requires_grad]
    return [*(r.detach() for r in results), *torch.autograd.grad(results, leaves, weights)]


def errors(case, function, inputs):
    """Largest error of the result and of the gradients, each relative to the largest value of its reference."""
    wide = [t.detach().double().requires_grad_(t.requires_grad) for t in inputs]
    found, right = gradients(function, inputs), gradients(case.reference, wide)
    worst = 0.0
    for ours, reference in zip(found, right):
        error = (ours.double() - reference).abs().max() / reference.abs().max().clamp_min(1e-30)
        worst = max(worst, math.inf if torch.isnan(error) else error.item())
    return worst


def forward_call(function, inputs):
    plain = [t.detach() for t in inputs]

    def call():
        with torch.no_grad():
            function(*plain)

    return call


def backward_call(function, inputs):
    leaves = [t for t in inputs if t.requires_grad]
    seeds = [torch.ones_like(r) for r in tensors_of(function(*inputs))]

    def call():
        torch.autograd.grad(tensors_of(function(*inputs)), leaves, seeds)

    return call


def checked(case, contenders, device):
    """The contenders whose results and gradients are right; the others are named, and why."""
    inputs = (case.check_inputs or case.inputs)(device)
    right = {}
    for name, function in contenders.items():
        error = 0.0 if name in case.limits else errors(case, function, inputs)
        if error <= case.tolerance:
            right[name] = function
        else:
            print(f"{case.op} {case.name}: {name} is off by {error:.2e}, {case.tolerance:.0e} is permitted; not timed")
    return right


def run_case(case, device, compiled, seconds):
    """Checks and times one case: rows of dicts, or None where ours failed the check."""
    contenders = dict(case.contenders)
    if compiled and case.size != "overhead" and "eager" in contenders:
        torch.compiler.reset()
        contenders["torch.compile"] = torch.compile(contenders["eager"])
    ours = next(iter(contenders))
    contenders = checked(case, contenders, device)
    if ours not in contenders:
        return None
    inputs = case.inputs(device)
    if case.size == "overhead":
        return overhead_rows(case, contenders, inputs, device, seconds)
    results = {}
    for phase, make in (("forward", forward_call), ("backward", backward_call)):
        calls = {name: make(function, inputs) for name, function in contenders.items()}
        for call in calls.values():
            call()
        results[phase] = _measure.interleaved(calls, device, seconds)
    rows = []
    for name in contenders:
        row = {"op": case.op, "case": case.name, "contender": name}
        for i, phase in enumerate(("forward", "backward")):
            (fastest, median), base = results[phase][name], results[phase][ours][0]
            row[f"{phase}_ms"], row[f"{phase}_ratio"] = fastest * 1e3, fastest / base
            row[f"{phase}_median_ms"] = median * 1e3
            if name in case.bars and case.bars[name][i]:
                row[f"{phase}_bar"] = case.bars[name][i]
        rows.append(row)
    return rows


def overhead_rows(case, contenders, inputs, device, seconds):
    """The cost of a call that records a gradient, without running it backwards."""
    calls = {name: lambda f=function: f(*inputs) for name, function in contenders.items()}
    results = _measure.interleaved(calls, device, seconds)
    base = results[next(iter(contenders))][0]
    rows = []
    for name, (fastest, median) in results.items():
        row = {"op": case.op, "case": case.name, "contender": name}
        rows.append({**row, "forward_ms": fastest * 1e3, "forward_ratio": fastest / base})
        rows[-1]["forward_median_ms"] = median * 1e3
    rows[0]["limit_us"] = case.limit_us
    return rows


def print_rows(case, rows, limits):
    print(f"\n{case.op}  {case.name}")
    if case.size == "overhead":
        for row in rows:
            limit = row.get("limit_us")
            verdict = "" if limit is None else f"   limit {limit:g}: {judged(row['forward_ms'] * 1e3 <= limit)}"
            print(f"  {row['contender']:<18}{row['forward_ms'] * 1e3:10.1f} us a call{verdict}")
        return
    print(f"  {'':<18}{'forward ms':>11}{'ratio':>8}{'+backward ms':>14}{'ratio':>8}")
    for row in rows:
        line = f"  {row['contender']:<18}{row['forward_ms']:11.3f}{row['forward_ratio']:8.2f}"
        line += f"{row['backward_ms']:14.3f}{row['backward_ratio']:8.2f}"
        bars = [(p, row[f"{p}_bar"]) for p in ("forward", "backward") if f"{p}_bar" in row]
        if bars:
            met = all(row[f"{phase}_ratio"] >= bar for phase, bar in bars)
            line += "   bar " + " / ".join(f"{bar:g}x" for _, bar in bars) + ": " + judged(met)
        print(line)
    for i, phase in enumerate(("forward", "backward")):
        seconds = rows[0][f"{phase}_ms"] * 1e-3
        parts = []
        if case.traffic[i]:
            rate = case.traffic[i] / seconds
            parts.append(f"{case.traffic[i] / 1e6:.1f} MB, {rate / 1e9:.1f} GB/s, {rate / limits[0]:.0%} of a copy")
        if case.operations[i]:
            rate = case.operations[i] / seconds
            share = f"{rate / limits[1]:.0%} of a matrix product"
            parts.append(f"{case.operations[i] / 1e6:.0f} MFLOP, {rate / 1e9:.1f} GFLOP/s, {share}")
        if parts:
            print(f"  ours, {'forward' if i == 0 else 'forward and backward'}: {'; '.join(parts)}")


def judged(met):
    return "met" if met else "NOT MET"


def write_csv(path, rows, about):
    """All rows, with the machine and the versions in every one."""
    columns = ["op", "case", "contender"]
    columns += [f"{phase}_{value}" for phase in ("forward", "backward") for value in ("ms", "median_ms", "ratio")]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [*columns, *about], extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**row, **about} for row in rows)


def collect(names, sizes):
    """The cases of the named operators, in order."""
    cases = []
    for name in names:
        module = importlib.import_module(f".{OPERATORS[name]}", __package__)
        cases += [case for case in module.cases() if case.size in sizes]
    return cases


def parser():
    p = argparse.ArgumentParser(prog="vitlite bench ops", description=__doc__.splitlines()[0])
    p.add_argument("--op", action="append", choices=OPERATORS, help="only this operator (may be repeated)")
    p.add_argument("--size", action="append", choices=("large", "small", "overhead"), help="only these cases")
    p.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    p.add_argument("--threads", type=int, help="number of threads of the CPU")
    p.add_argument("--seconds", type=float, default=2.0, help="about how long to time one case and pass (default 2)")
    p.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes a while to compile")
    p.add_argument("--csv", metavar="FILE", help="also write the numbers, with machine and versions")
    return p


def main(argv=None):
    """Runs the benchmark; returns the exit code, 1 where a check failed."""
    options = parser().parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    cases = collect(options.op or OPERATORS, options.size or ("large", "small", "overhead"))
    about = {"date": datetime.date.today().isoformat(), **_measure.machine(options.device)}
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    limits = _measure.copy_bandwidth(options.device), _measure.matrix_rate(options.device)
    print(f"measured limits: copy {limits[0] / 1e9:.1f} GB/s, float32 matrix product {limits[1] / 1e9:.0f} GFLOP/s")
    print("ratio: time of the contender over ours, more than 1 where ours is faster")
    written, failed = [], 0
    for case in cases:
        rows = run_case(case, options.device, not options.no_compile, options.seconds)
        if rows is None:
            failed += 1
            continue
        print_rows(case, rows, limits)
        written += rows
    if options.csv:
        write_csv(options.csv, written, about)
    if failed:
        print(f"\n{failed} of {len(cases)} cases failed their check and are not reported")
    return 1 if failed else 0
