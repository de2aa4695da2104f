"""The fused operators on a GPU against eager torch, torch.compile and SDPA; the last stage of bench/gpu.sh.

    python -m vitlite.bench.gpu_ops [--predict] [--refuse OPERATOR=WHY ...] [--seconds 200] [--csv FILE]

Every case is checked against float64 before it is timed, and an operator named by --refuse is not timed at all. Times
are of CUDA events around single calls, with the level-2 cache overwritten before each; alternatives take turns, and the
table gives medians. Beside them stands what the case must move and compute, as a part of what a large copy and a large
matrix product reach on the same card. --predict needs no GPU and prints what an H100's data sheet would allow.
"""

import argparse
import csv
import datetime
import math
import platform
import statistics
import subprocess
import time
from contextlib import contextmanager
from functools import partial

import torch

from . import _gpu_cases, ops

# An H100 (SXM) by its data sheet; copies reach nine tenths of the memory's bandwidth. Instructions are those of one
# thread: 132 multiprocessors, 128 a cycle, at 1.98 GHz.
CARD = {
    "name": "H100 SXM, data sheet",
    "copy": 0.9 * 3.35e12,
    "matrix": {"float32": 67e12, "tf32": 495e12, "bfloat16": 989e12, None: 67e12},
    "instructions": 132 * 128 * 1.98e9,
}
FLUSH_BYTES = 256 << 20
HEAD_START = 4_000_000  # cycles, about 2 ms: more than it takes to put a call into the queue
COPIED, SQUARE = 1 << 28, 8192  # float32 numbers of the large copy; rows of the large matrix products
SLACK = 12.0  # seconds that a case with torch.compile may take


def predicted(gpu_case, phase, card=CARD):
    """(seconds, what sets the pace) at the card's ceilings."""
    i = _gpu_cases.PHASES.index(phase)
    times = {"bytes": gpu_case.case.traffic[i] / card["copy"]}
    if gpu_case.precision is not None:
        times["matrix products"] = gpu_case.case.operations[i] / card["matrix"][gpu_case.precision]
    if gpu_case.instructions[i]:
        times["instructions"] = gpu_case.instructions[i] / card["instructions"]
    pace = max(times, key=times.get)
    return times[pace], pace


def print_predictions(cases):
    print(f"predicted, not measured: the ceilings of one {CARD['name']}")
    print(f"  copy {CARD['copy'] / 1e12:.2f} TB/s; matrix products, TFLOP/s: ", end="")
    print(", ".join(f"{k} {v / 1e12:.0f}" for k, v in CARD["matrix"].items() if k))
    print(f"{'operator and case':<76}{'forward ms':>12}{'+backward':>12}  set by")
    for gpu_case in cases:
        found = [predicted(gpu_case, phase) for phase in _gpu_cases.PHASES]
        name = f"{gpu_case.case.op}  {gpu_case.label}"
        times = "".join(f"{seconds * 1e3:12.3f}" for seconds, _ in found)
        print(f"{name:<76}{times}  {' / '.join(pace for _, pace in found)}  (predicted)")


class Clock:
    """Medians of event times of single calls."""

    def __init__(self):
        self.flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device="cuda")

    def once(self, function):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.flush.zero_()
        # The GPU waits until the whole call is in its queue: what is timed is its work and not Python's.
        torch.cuda._sleep(HEAD_START)
        start.record()
        function()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e-3

    def medians(self, functions, seconds=1.0, most=50):
        """name -> median seconds, the functions called in turn; each was called before."""
        for function in functions.values():
            for _ in range(3):
                function()
        torch.cuda.synchronize()
        began, samples, order = time.perf_counter(), {name: [] for name in functions}, list(functions)
        while len(samples[order[0]]) < 5 or (time.perf_counter() - began < seconds and len(samples[order[0]]) < most):
            for name in functions:
                samples[name].append(self.once(functions[name]))
        return {name: statistics.median(values) for name, values in samples.items()}

    def ceilings(self):
        """Bytes a second of a copy, and operations a second of matrix products by precision."""
        source = torch.rand(COPIED, device="cuda")
        target = torch.empty_like(source)
        seconds = self.medians({"copy": partial(target.copy_, source)})["copy"]
        found = {"copy": 2 * source.nbytes / seconds, "matrix": {}}
        for precision, dtype in (("float32", torch.float32), ("tf32", torch.float32), ("bfloat16", torch.bfloat16)):
            a, b = (torch.rand(SQUARE, SQUARE, device="cuda").to(dtype) for _ in range(2))
            with products_in(precision):
                found["matrix"][precision] = 2 * SQUARE**3 / self.medians({"mm": partial(torch.mm, a, b)})["mm"]
        return found


@contextmanager
def products_in(precision):
    """float32 matrix products in tf32 or not, for torch and for our kernels."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def peak_memory(call):
    """Bytes beyond what was allocated before."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def checked(gpu_case, contenders, device="cuda"):
    """The contenders that are timed, and their errors; the others are named, and why.

    Ours must be right. So must the others in float32; in half precision eager torch is often not, since it rounds
    every step, and is what people run all the same: it is timed, and its error stands beside it.
    """
    case, ours = gpu_case.case, next(iter(contenders))
    inputs, functions, errors = (case.check_inputs or case.inputs)(device), {}, {}
    for name, function in contenders.items():
        try:
            error = 0.0 if name in case.limits else ops.errors(case, function, inputs)
        except Exception as failure:  # whatever a contender dies of, the others can still be measured
            print(f"{case.op} {case.name}: {name} failed, {failed(failure)}")
            continue
        if error > case.tolerance:
            timed = name != ours and gpu_case.dtype.itemsize == 2 and math.isfinite(error)
            end = "timed all the same" if timed else "not timed"
            print(f"{case.op} {case.name}: {name} is off by {error:.2e}, {case.tolerance:.0e} is permitted; {end}")
            if not timed:
                continue
        functions[name], errors[name] = function, error
    return functions, errors


def failed(failure):
    """An exception in one line."""
    return f"{type(failure).__name__}: {str(failure).strip().splitlines()[:1]}"


def measured(gpu_case, clock):
    """Rows of one case, or None where ours is wrong; a contender that fails is named and left out."""
    case = gpu_case.case
    contenders = {name: f for name, f in case.contenders.items() if name not in ("distributions", "pytorch-msssim")}
    if gpu_case.compiled and "eager" in contenders:
        torch.compiler.reset()
        # The check has other shapes than the timing, after which torch.compile would make code for any shape.
        contenders["torch.compile"] = torch.compile(contenders["eager"], dynamic=False)
    ours = next(iter(contenders))
    with products_in(gpu_case.precision):
        contenders, errors = checked(gpu_case, contenders)
        if ours not in contenders:
            return None
        inputs = case.inputs("cuda")
        rows = {
            name: {"op": case.op, "case": gpu_case.label, "contender": name, "error": error}
            for name, error in errors.items()
        }
        for phase, make in zip(_gpu_cases.PHASES, (ops.forward_call, ops.backward_call)):
            calls = {}
            for name, function in contenders.items():
                try:
                    calls[name] = make(function, inputs)
                    rows[name][f"{phase}_bytes"] = peak_memory(calls[name])
                except Exception as failure:  # such as not enough memory
                    calls.pop(name, None)
                    print(f"{case.op} {gpu_case.label}: {name} failed, {failed(failure)}")
                    torch.cuda.empty_cache()
            if ours not in calls:
                return None
            for name, seconds in clock.medians(calls).items():
                rows[name][f"{phase}_seconds"] = seconds
    return list(rows.values())


def verdicts(gpu_case, rows, ceilings):
    """[(what is asked, what was reached, whether it passes)] for every bar; one that could not be taken is short."""
    ours, others = rows[0], {row["contender"]: row for row in rows}
    found = []
    for (phase, what), bar in gpu_case.bars.items():
        i = _gpu_cases.PHASES.index(phase)
        seconds, reached = ours.get(f"{phase}_seconds"), None
        if what == "copy" and seconds:
            reached = gpu_case.case.traffic[i] / seconds / ceilings["copy"]
        elif what == "matrix" and seconds:
            reached = gpu_case.case.operations[i] / seconds / ceilings["matrix"][gpu_case.precision]
        elif what == "memory" and f"{phase}_bytes" in others.get("eager", {}):
            reached = ours[f"{phase}_bytes"] / max(others["eager"][f"{phase}_bytes"], 1)
        elif seconds and f"{phase}_seconds" in others.get(what, {}):
            reached = others[what][f"{phase}_seconds"] / seconds
        passes = reached is not None and (reached <= bar if what == "memory" else reached >= bar)
        against = {"copy": "of a copy", "matrix": "of a matrix product", "memory": "of eager's memory at most"}
        found.append((f"{phase}: {bar:g} {against.get(what, f'times {what}')}", reached, passes))
    return found


def print_case(gpu_case, rows, ceilings):
    print(f"\n{gpu_case.case.op}  {gpu_case.label}")
    print(f"  {'':<18}{'forward ms':>12}{'MB':>9}{'+backward ms':>14}{'MB':>9}")
    for row in rows:
        line = f"  {row['contender']:<18}"
        for phase, width in zip(_gpu_cases.PHASES, (12, 14)):
            seconds, memory = row.get(f"{phase}_seconds"), row.get(f"{phase}_bytes")
            line += f"{seconds * 1e3:{width}.3f}" if seconds else " " * (width - 1) + "-"
            line += f"{memory / 1e6:9.0f}" if memory is not None else "        -"
        if row.get("error", 0) > gpu_case.case.tolerance:
            line += f"  off by {row['error']:.1e}"
        print(line)
    for i, phase in enumerate(_gpu_cases.PHASES):
        if seconds := rows[0].get(f"{phase}_seconds"):
            rate = gpu_case.case.traffic[i] / seconds
            line = f"  ours, {phase}: {rate / 1e9:.0f} GB/s, {rate / ceilings['copy']:.0%} of a copy"
            if gpu_case.precision:
                rate = gpu_case.case.operations[i] / seconds
                share = rate / ceilings["matrix"][gpu_case.precision]
                line += f"; {rate / 1e12:.1f} TFLOP/s, {share:.0%} of a matrix product"
            print(line + f"; predicted {predicted(gpu_case, phase)[0] * 1e3:.3f} ms on an {CARD['name']}")
    for asked, reached, passes in verdicts(gpu_case, rows, ceilings):
        print(f"  bar {asked}: {'not taken' if reached is None else f'{reached:.3g}'}: {'pass' if passes else 'SHORT'}")


def machine():
    """What the numbers depend on."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    import triton

    return {
        "date": datetime.date.today().isoformat(),
        "gpu": torch.cuda.get_device_name(),
        "driver": driver,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
    }


def csv_rows(gpu_case, rows, ceilings, about):
    for row in rows:
        line = {**row, **about, "copy_bandwidth": ceilings["copy"]}
        line["matrix_rate"] = ceilings["matrix"].get(gpu_case.precision)
        for i, phase in enumerate(_gpu_cases.PHASES):
            if seconds := row.get(f"{phase}_seconds"):
                line[f"{phase}_copy_fraction"] = gpu_case.case.traffic[i] / seconds / ceilings["copy"]
                if gpu_case.precision:
                    rate = gpu_case.case.operations[i] / seconds
                    line[f"{phase}_matrix_fraction"] = rate / ceilings["matrix"][gpu_case.precision]
            line[f"{phase}_predicted_seconds"] = predicted(gpu_case, phase)[0]
        if row is rows[0]:
            said = verdicts(gpu_case, rows, ceilings)
            line["bars"] = "; ".join(f"{asked}: {'pass' if ok else 'short'}" for asked, _, ok in said)
        yield line


COLUMNS = ["op", "case", "contender", "error"]
COLUMNS += [
    f"{phase}_{what}"
    for phase in _gpu_cases.PHASES
    for what in ("seconds", "bytes", "copy_fraction", "matrix_fraction", "predicted_seconds")
]
COLUMNS += ["bars", "copy_bandwidth", "matrix_rate"]
COLUMNS += ["date", "gpu", "driver", "cuda", "torch", "triton", "python"]


def parser():
    p = argparse.ArgumentParser(prog="gpu_ops", description=__doc__.splitlines()[0])
    p.add_argument("--op", action="append", choices=_gpu_cases.CASES, help="only this operator (may be repeated)")
    p.add_argument("--refuse", action="append", default=[], metavar="OP=WHY", help="an operator that is not timed")
    p.add_argument("--predict", action="store_true", help="print predicted times; needs no GPU")
    p.add_argument("--seconds", type=float, default=200.0, help="no case is begun after this (default 200)")
    p.add_argument("--csv", metavar="FILE", help="write the numbers, with card, driver and versions")
    return p


def main(argv=None):
    """Returns 0, 1 where an operator was refused or wrong, or 2 where there is no GPU."""
    options = parser().parse_args(argv)
    cases = _gpu_cases.in_turn(options.op or _gpu_cases.CASES)
    if options.predict:
        print_predictions(cases)
        return 0
    if not torch.cuda.is_available():
        print("no CUDA device: nothing was measured; --predict prints what an H100 would allow")
        return 2
    refused = dict(item.partition("=")[::2] for item in options.refuse)
    for op, why in refused.items():
        print(f"{op}: not timed, {why or 'its test failed'}")
    return run(cases, refused, options)


def run(cases, refused, options):
    began, clock, about, wrong = time.perf_counter(), Clock(), machine(), 0
    ceilings = clock.ceilings()
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    rates = ", ".join(f"{k} {v / 1e12:.0f}" for k, v in ceilings["matrix"].items())
    print(f"measured: copy {ceilings['copy'] / 1e12:.2f} TB/s; matrix products, TFLOP/s: {rates}")
    written = []
    for gpu_case in cases:
        if gpu_case.case.op in refused:
            continue
        if time.perf_counter() - began + SLACK > options.seconds:
            print(f"\n{gpu_case.case.op}  {gpu_case.label}: left out, the time is up")
            continue
        rows = measured(gpu_case, clock)
        torch.cuda.empty_cache()
        if rows is None:
            wrong += 1
            continue
        print_case(gpu_case, rows, ceilings)
        written += csv_rows(gpu_case, rows, ceilings, about)
        if options.csv:  # after every case: what was measured stays when the time is up
            write_csv(options.csv, written)
    return 1 if refused or wrong else 0


def write_csv(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    raise SystemExit(main())
