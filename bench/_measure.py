"""Timing of alternatives that are compared, and the limits of the machine that they are held against."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

Call = Callable[[], object]

COPIED = {"cpu": 1 << 25, "cuda": 1 << 28}  # float32 numbers of the large copy
SQUARE = {"cpu": 1024, "cuda": 8192}  # rows of the large matrix products
FLUSH_BYTES = 256 << 20  # more than the level-2 cache of a GPU
HEAD_START = 4_000_000  # cycles, about 2 ms: more than it takes to put a call into the queue


def interleaved(
    functions: Mapping[str, Call], device: str = "cpu", seconds: float = 2.0, fewest: int = 5
) -> dict[str, tuple[float, float]]:
    """Seconds of each function, called in turn and in changing order, so that all see the same state of the machine.

    Args:
        functions: name -> function without arguments; each was called before, to warm up.
        device: "cpu", by the wall clock, or "cuda", by events around single calls with an overwritten level-2 cache.
        seconds: about how long all of it may take.
        fewest: number of rounds at least.

    Returns:
        name -> (fastest, median) seconds of one call. Other work on a machine only adds to a round, so the fastest says
        most about a function on a CPU. The median says how quiet the machine was.
    """
    once = _Events() if device == "cuda" else _wall_clock
    repeats, round_trip = {}, 0.0
    for name, function in functions.items():
        first = once(function, 1)
        # A measurement much longer than the resolution of the clock: quick functions are called several times in a row.
        repeats[name] = 1 if device == "cuda" else max(1, min(1000, int(2e-3 / max(first, 1e-7))))
        round_trip += first * repeats[name]
    samples: dict[str, list[float]] = {name: [] for name in functions}
    order = list(functions)
    for _ in range(max(fewest, min(200, int(seconds / max(round_trip, 1e-7))))):
        for name in order:
            samples[name].append(once(functions[name], repeats[name]))
        order.append(order.pop(0))
    return {name: (min(values), statistics.median(values)) for name, values in samples.items()}


def _wall_clock(function: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats


class _Events:
    """Times one call on a GPU by events."""

    def __init__(self) -> None:
        self.flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device="cuda")

    def __call__(self, function: Call, repeats: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.flush.zero_()
        # The GPU waits until the whole call is in its queue, so that the time is that of its work and not of Python.
        torch.cuda._sleep(HEAD_START)
        start.record()
        function()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e-3


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """float32 matrix products on a GPU in tf32 or not, for torch and for our kernels."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def copy_bandwidth(device: str = "cpu") -> float:
    """Bytes read and written per second by a copy that no cache holds."""
    source = torch.rand(COPIED[device], device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _typical(lambda: target.copy_(source), device)


def matrix_rate(device: str = "cpu", dtype: torch.dtype = torch.float32, precision: str = "float32") -> float:
    """Floating point operations per second of a large matrix product."""
    size = SQUARE[device]
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    with torch.no_grad(), products_in(precision):
        return 2 * size**3 / _typical(lambda: torch.mm(a, b, out=out), device)


def _typical(function: Call, device: str) -> float:
    function()
    return interleaved({"": function}, device, seconds=0.7)[""][device == "cuda"]


def peak_memory(call: Call) -> int:
    """Bytes that a call allocates on a GPU at its worst."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
