"""The public ``nearest``, which checks its arguments and hands them to a backend, and the ``Bank`` that is kept."""

from typing import Any

import torch
from torch import Tensor

from .. import _extension
from .._autograd import below_autograd, recording, without_derivative
from .._checks import check_same_device, check_tensor, is_count
from .._operator import Operator
from .._triton import compute_type
from .reference import nearest_torch


def _fake_forward(q: Tensor, bank: Tensor, k: int) -> Any:
    shape = (q.shape[0], k)
    return q.new_empty(shape, dtype=compute_type(q.dtype)), q.new_empty(shape, dtype=torch.int64)


# Distances and indices are kept for the backward pass as well.
OPERATOR = Operator(
    "nearest",
    forward="(Tensor q, Tensor bank, int k) -> (Tensor, Tensor)",
    backward="(Tensor grad, Tensor q, Tensor bank, Tensor distances, Tensor indices, int k, bool need_q,"
    " bool need_bank) -> (Tensor, Tensor)",
    results=2,
    fake_forward=_fake_forward,
    eager=nearest_torch,
    package=__package__,
    half=("triton",),
    shapes=lambda T=6, N=7, C=4: ((T, C), (N, C)),
)
_extension.define(
    "nearest_packed(Tensor q, Tensor bank, Tensor packed, int k) -> (Tensor, Tensor)",
    lambda q, bank, packed, k: _fake_forward(q, bank, k),
)
_packed = _extension.OPS.nearest_packed.default
_extension.complete(
    "nearest_packed", recording(_packed, without_derivative(below_autograd(_packed), "nearest")), "Autograd"
)


class Bank:
    """Rows that many calls of ``nearest`` compare with, laid out for the processor once.

    It pays if calls have few queries. If the processor multiplies 8-bit integers, a search for one neighbour in float32
    begins with those; what it finds is the same.

    Args:
        rows: (N, C), float32, float64, float16 or bfloat16. They are copied, without a gradient, in the dtype that they
            are compared in: half precision is widened on a CPU.

    Raises:
        ValueError: a wrong shape or dtype, or no rows.
    """

    def __init__(self, rows: Tensor) -> None:
        check_tensor("rows", rows, "N", "C")
        if 0 in rows.shape:
            raise ValueError(f"rows: shape {tuple(rows.shape)} holds nothing to compare with")
        on_cpu = rows.device.type == "cpu"
        self.rows = rows.detach().to(compute_type(rows.dtype) if on_cpu else rows.dtype, copy=True).contiguous()
        compiled = on_cpu and OPERATOR.backends.choice.get(("auto", "cpu")) == "cpp"
        self.packed = _extension.OPS.nearest_pack(self.rows) if compiled else None

    def serves(self, q: Tensor, backend: str) -> bool:
        """Whether the layout serves this call; one that wants a gradient, or another dtype, takes the rows."""
        wanted = q.requires_grad and torch.is_grad_enabled()
        return backend == "cpp" and self.packed is not None and not wanted and compute_type(q.dtype) == self.rows.dtype


def nearest(q: Tensor, bank: Tensor | Bank, *, k: int = 1, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """The k rows of a bank that are nearest to each query, and how far away they are.

    Distances are Euclidean and ascend along k. Of equal ones the row with the lower index comes first, and one that is
    not a number last. Rows are compared by matrix products, |b|^2 / 2 - q b, in float32 or float64: which of two rows
    is nearer is open if their squared distances differ by less than the rounding of |q|^2 + |b|^2. So data far from the
    origin should be centred. The distances themselves come from the differences and lose nothing.

    Args:
        q: queries (T, C), float32, float64, float16 or bfloat16, of any strides.
        bank: rows (N, C), a tensor of any floating dtype or a ``Bank``, which is laid out once.
        k: how many rows, 1 to N.
        backend: "auto", "cpp" (compiled, CPU; holds tiles of the (T, N) scores), "triton" (CUDA; likewise for k = 1,
            2^23 scores for more) or "eager" (2^22 scores).

    Returns:
        distances (T, k) in the wider dtype of the arguments, computed in float32 for half precision and returned so
        under autocast, and indices (T, k) in int64. The distances are differentiable in q and in a bank that is a
        tensor; the gradient of a distance 0 is 0.

    Raises:
        ValueError: a wrong shape, dtype, device, k or backend; the message names the argument.
    """
    rows = bank.rows if isinstance(bank, Bank) else bank
    _check(q, rows, k)
    chosen = OPERATOR.backends.pick(backend, q.device.type)
    if not isinstance(bank, Bank) or not bank.serves(q, chosen):
        return OPERATOR(chosen, (q, rows), int(k))
    distances, indices = _packed(q.to(rows.dtype), rows, bank.packed, int(k))
    return distances.to(torch.promote_types(q.dtype, rows.dtype)), indices


def _check(q: Tensor, rows: Tensor, k: int) -> None:
    check_tensor("q", q, "T", "C")
    check_tensor("bank", rows, "N", "C")
    if rows.shape[1] != q.shape[1]:
        raise ValueError(f"bank: shape {tuple(rows.shape)} does not go with q of {tuple(q.shape)}; C must be equal")
    if rows.shape[0] == 0 or rows.shape[1] == 0:
        raise ValueError(f"bank: shape {tuple(rows.shape)} holds nothing to compare with")
    check_same_device("bank", rows, "q", q)
    if not is_count(k) or k > rows.shape[0]:
        raise ValueError(f"k: expected a whole number from 1 to the {rows.shape[0]} rows of bank, got {k!r}")
