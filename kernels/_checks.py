"""Argument checks shared by the operators: each failure is a ValueError in one line that names the argument."""

import numpy as np
import torch

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_tensor(name, value, layout):
    """``value`` is a floating tensor with one dimension per letter group of ``layout``, such as "(B, C, H, W)"."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{name}: expected a torch tensor {layout}, got {type(value).__name__}")
    if value.dim() != layout.count(",") + (layout[-2] != ","):
        raise ValueError(f"{name}: expected shape {layout}, got {tuple(value.shape)}")
    if value.layout is not torch.strided:
        raise ValueError(f"{name}: expected a dense tensor, got {str(value.layout).removeprefix('torch.')}")
    if value.dtype not in FLOATS:
        raise ValueError(f"{name}: expected float32, float64, float16 or bfloat16, got {dtype_name(value.dtype)}")


def check_same_device(name, value, other_name, other):
    if value.device != other.device:
        raise ValueError(f"{name}: is on {value.device} but {other_name} is on {other.device}")


def check_same_dtype(name, value, other_name, other):
    if value.dtype != other.dtype:
        raise ValueError(f"{name}: is {dtype_name(value.dtype)} but {other_name} is {dtype_name(other.dtype)}")


def check_choice(name, value, choices):
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(choices)}")


def check_positive(name, value):
    """``value`` is a finite number above zero."""
    if not is_number(value) or not 0 < value < float("inf"):
        raise ValueError(f"{name}: expected a finite number above 0, got {value!r}")


def is_number(value):
    """Whether it is a number of Python or of numpy, or one that torch.export makes of a shape."""
    return isinstance(value, (int, float, np.number, torch.SymInt, torch.SymFloat))


def is_count(value):
    """Whether it is a whole number of at least 1, of Python or of numpy."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 1


def dtype_name(dtype):
    return str(dtype).removeprefix("torch.")
