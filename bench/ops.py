"""The fused operators against eager torch, torch.compile of it, and the library that a user would pick.

    python -m vitlite.bench ops [--op NAME ...] [--size large|small|overhead|tiny] [--device cuda] [--csv FILE]

Every case is checked against float64 before it is timed. If a result or a gradient of ours is off, the case is not
reported and the exit code is 1. Alternatives take turns. On a CPU the table gives the fastest round of each, on a GPU
the median of event times. Beside them stands what the case must at least move and compute, as a share of what a large
copy and a large matrix product reach on the same machine. ``bench/gpu.sh`` is the whole run on a GPU.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitlite.files import new_file

from .. import kernels
from . import _cases, _measure
from ._case import Case, Function
from ._checks import checked, contenders_of, one_line, placed, refusals, results_of
from ._machine import described, judged, machine, parser_of, write_csv

Row = dict[str, Any]
PHASES = ("forward", "both")  # "both" is forward and backward
SIZES = ("large", "small", "overhead", "tiny")
LIMITS = {"copy": "a copy", "matrix": "a matrix product"}
OVERHEAD_US = 40.0  # microseconds that the bare call of ours may take on a CPU
TIMES = ("ms", "median_ms", "ratio", "bytes", "copy_share", "matrix_share")
COLUMNS = (
    *("op", "case", "contender", "error"),
    *(f"{phase}_{what}" for phase in PHASES for what in TIMES),
    *("bars", "copy_bandwidth", "matrix_rate"),
)


def forward_call(function: Function, inputs: list[Tensor]) -> Callable[[], None]:
    plain = [t.detach() for t in inputs]

    def call() -> None:
        with torch.no_grad():
            function(*plain)

    return call


def backward_call(function: Function, inputs: list[Tensor]) -> Callable[[], None]:
    leaves = [t for t in inputs if t.requires_grad]
    seeds = [torch.ones_like(r) for r in results_of(function(*inputs))]

    def call() -> None:
        torch.autograd.grad(results_of(function(*inputs)), leaves, seeds)

    return call


def bare_call(function: Function, inputs: list[Tensor]) -> Callable[[], None]:
    """A call that records a gradient, without running it backwards."""
    return lambda: function(*inputs)


def run_case(case: Case, device: str, compiled: bool, seconds: float, limits: dict[str, float]) -> list[Row]:
    """Checks and times one case: a row for each contender, ours first; no row if ours is wrong."""
    functions = contenders_of(case, device, compiled)
    with _measure.products_in(case.precision):
        errors = checked(case, functions, device)
        if "vitlite" not in errors:
            return []
        inputs = placed(case.inputs(), device, case.dtype)
        rows: dict[str, Row] = {
            name: {"op": case.op, "case": case.label, "contender": name, "error": error, **limits_of(case, limits)}
            for name, error in errors.items()
        }
        makers = (bare_call,) if case.size == "overhead" else (forward_call, backward_call)
        makers = makers if any(t.requires_grad for t in inputs) else makers[:1]
        for i, (phase, make) in enumerate(zip(PHASES, makers)):
            calls = {}
            for name in errors:
                try:
                    call = make(functions[name], inputs)
                    if device == "cuda":
                        rows[name][f"{phase}_bytes"] = _measure.peak_memory(call)
                    for _ in range(3 if device == "cuda" else 1):
                        call()
                    calls[name] = call
                except Exception as failure:  # such as not enough memory
                    print(f"{case.op} {case.label}: {name} failed, {one_line(failure)}")
            if "vitlite" not in calls:
                return []
            fewest = 60 if case.size == "tiny" else 5
            for name, times in _measure.interleaved(calls, device, seconds, fewest).items():
                add_times(rows[name], case, i, times[device == "cuda"], times[1])
            for row in rows.values():
                if f"{phase}_ms" in row:
                    row[f"{phase}_ratio"] = row[f"{phase}_ms"] / rows["vitlite"][f"{phase}_ms"]
    found = list(rows.values())
    found[0]["bars"] = "; ".join(bars_of(case, rows, device))
    return found


def limits_of(case: Case, limits: dict[str, float]) -> dict[str, float]:
    """What the machine reaches, for this case."""
    kind = "bfloat16" if case.dtype == torch.bfloat16 else case.precision
    return {"copy_bandwidth": limits["copy"], "matrix_rate": limits[kind]}


def add_times(row: Row, case: Case, i: int, seconds: float, median: float) -> None:
    phase = PHASES[i]
    row[f"{phase}_ms"], row[f"{phase}_median_ms"] = seconds * 1e3, median * 1e3
    if case.numbers[i]:
        row[f"{phase}_copy_share"] = case.bytes()[i] / seconds / row["copy_bandwidth"]
    if case.operations[i]:
        row[f"{phase}_matrix_share"] = case.operations[i] / seconds / row["matrix_rate"]


def bars_of(case: Case, rows: dict[str, Row], device: str) -> list[str]:
    """A text for every bar, with what was reached and whether it is met."""
    found, ours, eager = [], rows["vitlite"], rows.get("eager", {})
    for what, pair in case.bars.items():
        for phase, bar in zip(PHASES, pair):
            if bar is None:
                continue
            if what in LIMITS:
                reached, asked = ours.get(f"{phase}_{what}_share"), f"{bar:g} of {LIMITS[what]}"
            elif what == "memory":
                taken, most = ours.get(f"{phase}_bytes"), eager.get(f"{phase}_bytes")
                reached = taken / max(most, 1) if taken is not None and most is not None else None
                asked = f"at most {bar:g} of eager's memory"
            else:
                reached, asked = rows.get(what, {}).get(f"{phase}_ratio"), f"{bar:.3g} times {what}"
            met = reached is not None and (reached <= bar if what == "memory" else reached >= bar)
            value = "not taken" if reached is None else f"{reached:.3g}"
            found.append(f"{phase}, {asked}: {value}, {judged(met)}")
    if case.size == "overhead" and device == "cpu":
        taken = ours["forward_ms"] * 1e3
        found.append(f"at most {OVERHEAD_US:g} us a call: {taken:.1f}, {judged(taken <= OVERHEAD_US)}")
    return found


def print_rows(case: Case, rows: list[Row]) -> None:
    print(f"\n{case.op}  {case.label}")
    print(f"  {'':<18}" + "".join(f"{phase + ' ms':>14}{'ratio':>8}{'MB':>8}" for phase in PHASES))
    for row in rows:
        line = f"  {row['contender']:<18}"
        for phase in PHASES:
            for key, width, form, unit in (("ms", 14, ".4f", 1), ("ratio", 8, ".2f", 1), ("bytes", 8, ".0f", 1e6)):
                value = row.get(f"{phase}_{key}")
                line += f"{'-':>{width}}" if value is None else f"{value / unit:{width}{form}}"
        print(line + (f"  off by {row['error']:.1e}" if row["error"] > case.tolerance else ""))
    for i, phase in enumerate(PHASES):
        for what, amounts, rate_unit in (("copy", case.bytes(), "GB/s"), ("matrix", case.operations, "GFLOP/s")):
            share = rows[0].get(f"{phase}_{what}_share")
            if share is not None and case.size not in ("tiny", "overhead"):
                rate = amounts[i] / rows[0][f"{phase}_ms"] * 1e-6
                print(f"  ours, {phase}: {rate:.1f} {rate_unit}, {share:.0%} of {LIMITS[what]}")
    if rows[0]["bars"]:
        print("  bar " + "\n  bar ".join(rows[0]["bars"].split("; ")))


def parser() -> argparse.ArgumentParser:
    p = parser_of("ops", __doc__)
    p.add_argument("--op", action="append", choices=kernels.OPERATORS, help="only this operator; repeatable")
    p.add_argument("--size", action="append", choices=SIZES, help="only these cases; repeatable (default all but tiny)")
    p.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    p.add_argument("--threads", type=int, help="number of threads of the CPU")
    p.add_argument("--seconds", type=float, default=2.0, help="about how long to time one case and pass (default 2)")
    p.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes a while to compile")
    p.add_argument("--check", action="store_true", help="check every case, and time nothing")
    p.add_argument("--tests", type=Path, metavar="FILE", help="JUnit report: do not time an operator whose test failed")
    p.add_argument("--csv", metavar="FILE", help="also write the numbers, with machine and versions")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code: 1 if a check failed or a test refuses an operator, 2 without a GPU."""
    options = parser().parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: nothing was measured")
        return 2
    if options.csv:
        new_file(options.csv, name="csv")
    if options.threads:
        torch.set_num_threads(options.threads)
    ops = options.op or list(kernels.OPERATORS)
    refused = refusals(options.tests, ops) if options.tests else {}
    for op, why in refused.items():
        print(f"{op}: not timed, {why}")
    cases = _cases.cases(options.device, [op for op in ops if op not in refused], options.size or list(SIZES[:3]))
    if options.check:
        wrong = [
            c for c in cases if "vitlite" not in checked(c, contenders_of(c, options.device, False), options.device)
        ]
        print(f"{len(cases) - len(wrong)} of {len(cases)} cases are right")
        return 1 if wrong or refused else 0
    about = machine(options.device, ("torch", "triton"))
    limits = {"copy": _measure.copy_bandwidth(options.device)}
    kinds = {c.precision if c.dtype == torch.float32 else "bfloat16" for c in cases}
    for kind in sorted(kinds):
        dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
        limits[kind] = _measure.matrix_rate(options.device, dtype, kind)
    print(described(about))
    rates = ", ".join(f"{kind} {limits[kind] / 1e9:.0f}" for kind in sorted(kinds))
    print(f"measured limits: copy {limits['copy'] / 1e9:.1f} GB/s; matrix products, GFLOP/s: {rates}")
    print("ratio: time of the contender over ours, more than 1 if ours is faster")
    written, failed = [], 0
    for case in cases:
        rows = run_case(case, options.device, not options.no_compile, options.seconds, limits)
        failed += not rows
        if rows:
            print_rows(case, rows)
        written += rows
        if options.csv:  # after every case: what was measured stays if the run is stopped
            write_csv(options.csv, COLUMNS, written, about)
    if failed:
        print(f"\n{failed} of {len(cases)} cases failed their check and are not reported")
    return 1 if failed or refused else 0
