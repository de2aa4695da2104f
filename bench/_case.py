"""One case of the benchmark of the operators."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import kernels

Function = Callable[..., Any]  # of the tensors; gives one tensor or a tuple of them
Pair = tuple[float | None, float | None]  # for the forward pass, and for forward and backward together

HALF_TOLERANCE, TF32_TOLERANCE = 4e-2, 5e-3


@dataclass
class Case:
    """One comparison.

    Args:
        op: name of the operator.
        name: what distinguishes the case, such as its shape.
        size: "large" if the work counts, "small" if the cost of a call counts, "tiny" if that is all, "overhead" for
            the bare call.
        inputs: makes the tensors in float32 on the CPU; those that require a gradient get one.
        numbers: how many numbers must be read and written, (forward, forward and backward).
        operations: how many floating point operations must be done, (forward, forward and backward).
        contenders: name -> function of the inputs, beside ours and eager torch.
        ours: our function; None for the public function of the operator.
        eager: the same in eager torch; in float64 it is the reference. None for the public function with
            ``backend="eager"``, which converts half precision to float32.
        partial_work: contenders that do only a part of the work, such as its matrix products; they are not checked.
        bars: what -> (forward, forward and backward), the least that passes. The name of a contender asks for its time
            over ours, "copy" and "matrix" for a share of the rate of a copy and of a matrix product on the same
            machine, "memory" for our share of the peak memory of eager torch, which is the most that passes.
        device: "cpu" or "cuda", or None for both.
        dtype: of the tensors.
        precision: of float32 matrix products on a GPU, "float32" or "tf32".
        tolerance: permitted error against the reference, relative to its largest value.
        check_inputs: makes other tensors for the check, if those that are timed are too close to a jump of the
            operator, or too large for float64.
    """

    op: str
    name: str
    size: str
    inputs: Callable[[], list[Tensor]]
    numbers: tuple[int, int] = (0, 0)
    operations: tuple[int, int] = (0, 0)
    contenders: dict[str, Function] = field(default_factory=dict)
    ours: Function | None = None
    eager: Function | None = None
    partial_work: tuple[str, ...] = ()
    bars: dict[str, Pair] = field(default_factory=dict)
    device: str | None = None
    dtype: torch.dtype = torch.float32
    precision: str = "float32"
    tolerance: float = 1e-4
    check_inputs: Callable[[], list[Tensor]] | None = None

    def __post_init__(self) -> None:
        self.ours = self.ours or getattr(kernels, self.op)
        self.eager = self.eager or partial(self.ours, backend="eager")

    @property
    def label(self) -> str:
        dtype = "" if self.dtype == torch.float32 else f" {self.dtype}".replace("torch.", "")
        return self.name + dtype + (" tf32" if self.precision == "tf32" else "")

    def bytes(self) -> tuple[int, int]:
        """Bytes that must be moved, (forward, forward and backward)."""
        return self.numbers[0] * self.dtype.itemsize, self.numbers[1] * self.dtype.itemsize

    def in_half(self) -> "Case":
        return replace(self, dtype=torch.bfloat16, tolerance=HALF_TOLERANCE)

    def in_tf32(self) -> "Case":
        return replace(self, precision="tf32", tolerance=TF32_TOLERANCE)
