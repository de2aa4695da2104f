"""Argument checks shared by the operators: each failure is a ValueError in one line that names the argument."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_tensor(name: str, value: Any, *axes: str) -> None:
    """``value`` is a dense floating tensor with one dimension for each of the axes, such as "B", "C", "H", "W"."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name}: expected a torch tensor {_layout(axes)}, got {type(value).__name__}")
    if value.dim() != len(axes):
        raise ValueError(f"{name}: expected shape {_layout(axes)}, got {tuple(value.shape)}")
    if value.layout is not torch.strided:
        raise ValueError(f"{name}: expected a dense tensor, got {str(value.layout).removeprefix('torch.')}")
    if value.dtype not in FLOATS:
        raise ValueError(f"{name}: expected float32, float64, float16 or bfloat16, got {dtype_name(value.dtype)}")


def check_same_device(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    if value.device != other.device:
        raise ValueError(f"{name}: is on {value.device} but {other_name} is on {other.device}")


def check_same_dtype(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    if value.dtype != other.dtype:
        raise ValueError(f"{name}: is {dtype_name(value.dtype)} but {other_name} is {dtype_name(other.dtype)}")


def check_choice(name: str, value: Any, choices: Any) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(choices)}")


def check_positive(name: str, value: Any) -> None:
    """``value`` is a finite number above zero."""
    if not is_number(value) or not 0 < value < float("inf"):
        raise ValueError(f"{name}: expected a finite number above 0, got {value!r}")


def is_number(value: Any) -> bool:
    """Whether it is a number of Python or of numpy, or one that torch.export makes of a shape."""
    return isinstance(value, (int, float, np.number, torch.SymInt, torch.SymFloat))


def is_count(value: Any) -> bool:
    """Whether it is a whole number of at least 1, of Python or of numpy."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= 1)


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _layout(axes: tuple[str, ...]) -> str:
    return f"({axes[0]},)" if len(axes) == 1 else f"({', '.join(axes)})"
