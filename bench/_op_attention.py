"""Cases of ``attention``: on the CPU ours is torch's fused attention, so these show what the public function costs."""

from functools import partial

import torch
from torch.nn.functional import scaled_dot_product_attention

from ..kernels import attention
from ..kernels.attention.reference import attention_torch
from .ops import Case


def _inputs(shape, device):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(device).requires_grad_() for _ in range(3)]


def _case(shape, size):
    batch, heads, tokens, width = shape
    numbers = torch.Size(shape).numel()
    products = 4 * batch * heads * tokens * tokens * width
    return Case(
        op="attention",
        name="x".join(map(str, shape)),
        size=size,
        inputs=partial(_inputs, shape),
        contenders={"vitlite": attention, "eager": attention_torch, "sdpa": scaled_dot_product_attention},
        reference=attention_torch,
        traffic=(16 * numbers, 16 * numbers + 32 * numbers),
        # Two matrix products forward, five backward (the scores are computed again).
        operations=(products, products + 5 * products // 2),
        bars={"sdpa": (0.95, 0.95)} if size == "large" else {},
    )


def cases():
    overhead = _case((1, 1, 4, 8), "overhead")
    overhead.limit_us = 40.0
    return [
        _case((8, 8, 256, 64), "large"),
        _case((8, 8, 256, 24), "large"),
        _case((1, 12, 197, 64), "small"),
        _case((1, 8, 256, 30), "small"),
        _case((4, 8, 49, 24), "small"),
        overhead,
    ]
