"""Timing of alternatives that are compared, and the limits of the machine that they are held against."""

import os
import platform
import statistics
import time

import torch

from ..kernels import _extension


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def interleaved(functions, device="cpu", seconds=2.0, fewest=5):
    """Seconds of each function, called in turn and in changing order, so that all see the same state of the machine.

    Args:
        functions: name -> function without arguments; each was called before, to warm up.
        seconds: about how long all of it may take.
        fewest: number of rounds that are made anyway.

    Returns:
        name -> (fastest, median) seconds of one call. What else runs on a machine only ever adds to a round, so the
        fastest says most about the function; the median says how quiet the machine was.
    """
    repeats, round_trip = {}, 0.0
    for name, function in functions.items():
        once = _timed(function, 1, device)
        # A measurement much longer than the clock's resolution; quick functions are called several times in a row.
        repeats[name] = max(1, min(1000, int(2e-3 / max(once, 1e-7))))
        round_trip += once * repeats[name]
    samples = {name: [] for name in functions}
    order = list(functions)
    for _ in range(max(fewest, min(200, int(seconds / max(round_trip, 1e-7))))):
        for name in order:
            samples[name].append(_timed(functions[name], repeats[name], device))
        order.append(order.pop(0))
    return {name: (min(values), statistics.median(values)) for name, values in samples.items()}


def _timed(function, repeats, device):
    synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    synchronize(device)
    return (time.perf_counter() - start) / repeats


def copy_bandwidth(device="cpu"):
    """Bytes read and written per second by a copy that no cache holds."""
    source = torch.rand(1 << 25, device=device)
    target = torch.empty_like(source)
    fastest, _ = interleaved({"copy": lambda: target.copy_(source)}, device, seconds=0.7)["copy"]
    return 2 * source.nbytes / fastest


def matrix_rate(device="cpu", dtype=torch.float32):
    """Floating point operations per second of a large matrix product."""
    size = 1024 if device == "cpu" else 8192
    a, b = (torch.rand(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    with torch.no_grad():
        fastest, _ = interleaved({"mm": lambda: torch.mm(a, b, out=out)}, device, seconds=0.7)["mm"]
    return 2 * size**3 / fastest


def machine(device="cpu"):
    """What the numbers depend on, as a dict of texts."""
    kernels = "not compiled"
    if _extension.errors["_C"] is None:
        kernels = ("baseline", "avx2", "avx512")[torch.ops.vitlite.isa_level(-1)]
    return {
        "processor": _processor() if device == "cpu" else torch.cuda.get_device_name(),
        "threads": str(torch.get_num_threads()),
        "kernels": kernels,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor():
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    except OSError:
        pass
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
