"""Cases of ``memory_read``."""

from functools import partial

import torch
from torch.nn.functional import normalize

from ..kernels import memory_read
from ..kernels.memory.reference import memory_read_torch
from .ops import Case


def _inputs(rows, items, channels, device):
    generator = torch.Generator().manual_seed(0)
    shapes = (rows, channels), (items, channels)
    return [torch.randn(s, generator=generator).to(device).requires_grad_() for s in shapes]


def _clear_inputs(device):
    """Queries whose weights keep clear of the threshold, where rounding moves a whole item and its gradient."""
    many, items = (t.detach() for t in _inputs(4000, 60, 64, device))
    weights = torch.softmax(normalize(many) @ normalize(items).t(), 1)
    z = many[((weights * 60 - 1).abs() > 1e-3).all(1)][:100]
    return [z.clone().requires_grad_(), items.requires_grad_()]


def _products(z, items):
    """The matrix products alone: two forward, and autograd makes four of them backward."""
    return (z @ items.t()) @ items


def _case(rows, items, channels, size, bars=None):
    product = 2 * rows * items * channels
    # Forward reads queries and items and writes the output; backward reads both again and the output's gradient, and
    # writes two gradients.
    numbers = (2 * rows + items) * channels, (5 * rows + 3 * items) * channels
    return Case(
        op="memory_read",
        name=f"{rows}x{channels} on {items} items",
        size=size,
        inputs=partial(_inputs, rows, items, channels),
        contenders={
            "vitlite": memory_read,
            "eager": memory_read_torch,
            "matrix products": _products,
        },
        reference=memory_read_torch,
        traffic=tuple(4 * count for count in numbers),
        operations=(2 * product, 6 * product),
        bars=bars or {},
        check_inputs=_clear_inputs,
        limits=("matrix products",),
    )


def cases():
    # At most 1.4 times the matrix products.
    large = _case(4608, 2000, 768, "large", {"eager": (2, 2), "matrix products": (1 / 1.4, 1 / 1.4)})
    overhead = _case(4, 5, 8, "overhead")
    overhead.limit_us = 40.0
    return [large, _case(576, 500, 768, "small"), _case(64, 100, 128, "small"), overhead]
