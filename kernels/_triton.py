"""What the Triton launchers share: whether Triton can serve here, block shapes, precisions, and the launch itself.

Importing this file does not import Triton: the files with the kernels do, and they are imported at the first call.
"""

import functools
import importlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import torch
from torch import Tensor

from . import _extension

OLDEST = (3, 6)

# How a float32 matrix product is computed, by the name that torch gives to the precision. "tf32x3" is three products on
# the tensor cores (high x high, high x low, low x high parts): the error of ordinary float32 products at several times
# the speed of the scalar units, which is what Triton's own "ieee" would use.
PRODUCTS = {"ieee": "tf32x3", "tf32": "tf32"}

NEEDS_INTERPRETER = "CPU tensors need Triton's interpreter; set TRITON_INTERPRET=1 before Python starts"


def interpreted() -> bool:
    """Whether Triton runs kernels in its interpreter, on tensors of any device. Settled when a kernel is defined."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


@functools.lru_cache(maxsize=1)
def _missing() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    try:
        version = metadata.version("triton")
    except metadata.PackageNotFoundError:
        version = "0"
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST:
        return f"triton {version} is older than {'.'.join(map(str, OLDEST))}"
    return None


def why_not(device: str) -> str | None:
    """None if Triton kernels can serve tensors of this device type, or else the reason in one line."""
    if _missing() is not None:
        return _missing()
    if device == "cpu":
        return None if interpreted() else NEEDS_INTERPRETER
    return None if torch.version.cuda else "this torch is built without CUDA"


def serve(operators: Sequence[tuple[str, Callable]], package: str, launchers: str = "triton") -> list[Callable]:
    """Defines the Triton twins of two operators and lets them serve the operators themselves if nothing else does.

    Args:
        operators: the schemas of forward and backward, and for each its function of empty results.
        package: name of the calling package, for the import of its launchers.
        launchers: module of the launchers inside the package; it has one function for each operator.

    Returns:
        The overloads ``triton_<op>`` of forward and backward.
    """
    twins = []
    for schema, fake in operators:
        op = schema[: schema.index("(")]
        _extension.define(f"triton_{schema}", fake)
        launcher = _Lazy(package, launchers, op)
        if why_not("cuda") is None:
            _extension.complete(f"triton_{op}", launcher, "CUDA")
            if _extension.registered_schema(op) is not None:
                _extension.complete(op, launcher, "CUDA")
        if why_not("cpu") is None:
            _extension.complete(f"triton_{op}", launcher, "CPU")
        twins.append(getattr(_extension.OPS, f"triton_{op}").default)
    return twins


class _Lazy:
    """A launcher whose file, and with it Triton, is imported at the first call.

    Autocast does not reach into it: the dtypes are settled, and what it computes with torch's own operators is to have
    them too.
    """

    def __init__(self, package: str, module: str, name: str) -> None:
        self.package, self.module, self.name = package, module, name
        self.launcher: Callable | None = None

    def __call__(self, *arguments: Any) -> Any:
        launcher = self.launcher
        if launcher is None:
            launcher = getattr(importlib.import_module(f".{self.module}", self.package), self.name)
            self.launcher = launcher
        device = arguments[0].device.type
        if not torch.is_autocast_enabled(device):
            return launcher(*arguments)
        with torch.autocast(device, enabled=False):
            return launcher(*arguments)


def compute_type(dtype: torch.dtype) -> torch.dtype:
    """torch dtype of the accumulators for tensors of this one."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def accumulator(dtype: torch.dtype) -> Any:
    """Triton's name of ``compute_type``."""
    import triton.language as tl

    return tl.float64 if dtype == torch.float64 else tl.float32


def product_precision(dtype: torch.dtype) -> str:
    """How tl.dot multiplies: what torch is set to for float32 products on CUDA, "ieee" (as "tf32x3") unless told."""
    if dtype == torch.float64:
        return "ieee"
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):
        return PRODUCTS["tf32" if matmul.fp32_precision == "tf32" else "ieee"]
    return PRODUCTS["tf32" if matmul.allow_tf32 else "ieee"]


def power_of_two(n: int, least: int = 1, most: int = 1 << 30) -> int:
    """The least power of two that is at least n, between ``least`` and ``most``."""
    return min(max(1 << max(n - 1, 0).bit_length(), least), most)


def pieces(n: int) -> tuple[int, int]:
    """Two powers of two from 16, or one and 0, that cover n columns and waste few: 30 is 32 + 0, 80 is 64 + 16."""
    whole = power_of_two(n, 16)
    half = whole // 2
    rest = power_of_two(n - half, 16) if half >= 16 else whole
    return (half, rest) if half + rest < whole else (whole, 0)


def reachable(a: Tensor, axis: int, rows: int) -> Tensor:
    """``a``, or a dense copy of it if the addresses of so many rows along an axis are further apart than 32 bits."""
    return a if abs(a.stride(axis)) * rows < 1 << 31 else a.contiguous()


def ceil_div(n: int, by: int) -> int:
    return -(-n // by)


def multiply(a: Tensor, b: Tensor, out: Tensor) -> None:
    """out = a b. Products of half precision are added up, and written, in float32."""
    if a.dtype == out.dtype:
        torch.mm(a, b, out=out)
    elif a.is_cuda:
        torch.mm(a, b, out.dtype, out=out)
    else:
        torch.mm(a.to(out.dtype), b.to(out.dtype), out=out)


def add_product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """out += a b, likewise."""
    if a.dtype == out.dtype:
        out.addmm_(a, b)
    else:
        part = torch.empty_like(out)
        multiply(a, b, part)
        out += part


def table(like: Tensor, rows: int, count: int, dtype: torch.dtype) -> Tensor:
    """Room for so many numbers of each of some rows; the rows are aligned."""
    return like.new_empty((rows, ceil_div(count, 16) * 16), dtype=dtype)


def even_share(n: int, most: int) -> int:
    """How many of n to take at a time, at most so many: shares of about one size, of whole blocks of 128."""
    shares = ceil_div(n, most)
    return n if shares <= 1 else min(most, ceil_div(ceil_div(n, shares), 128) * 128)


def slabs(n: int, most: int) -> list[slice]:
    """The shares of n, of so many each."""
    return [slice(start, min(start + most, n)) for start in range(0, n, max(1, most))]


@dataclass
class Launch:
    """One launch of a kernel: what the tests compile ahead of time."""

    kernel: object
    grid: tuple
    arguments: dict
    options: dict
    constants: dict = field(default_factory=dict)


_recorded: list[Launch] | None = None


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Inside, launches are collected in the list that this yields and none runs: meta tensors will do."""
    global _recorded
    before, _recorded = _recorded, []
    try:
        yield _recorded
    finally:
        _recorded = before


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: dict[str, Any],
    *,
    num_warps: int = 4,
    num_stages: int = 2,
    **constants: Any,
) -> None:
    """Runs a kernel on the current stream of the device of its tensors.

    Args:
        kernel: a function under ``triton.jit``.
        grid: programs along up to three axes; with none along one of them nothing is launched.
        arguments: dict of its arguments by name.
        constants: its ``tl.constexpr`` arguments.
    """
    if 0 in grid:
        return
    # Said outright, since the default changes with Triton 3.10 and 3.9 warns of it.
    options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True}
    if _recorded is not None:
        _recorded.append(Launch(kernel, grid, dict(arguments), options, constants))
        return
    device = next(a.device for a in arguments.values() if isinstance(a, Tensor))
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            kernel[grid](**arguments, **constants, **options)
    else:
        kernel[grid](**arguments, **constants, **options)
