"""Forward and backward passes of the Triton launchers on tensors without numbers, whose launches can be recorded."""

from importlib import import_module

import torch

from vitlite.kernels import _triton

HALF, SINGLE, DOUBLE = torch.bfloat16, torch.float32, torch.float64


def empty(*shape, dtype=SINGLE):
    return torch.empty(shape, dtype=dtype, device="meta")


def launchers(room, module="triton"):
    return import_module(f"vitlite.kernels.{room}.{module}")


def attention(batch, heads, tokens, width, dtype):
    """Queries, keys and values out of one projection, as the blocks of the methods have them."""
    room = launchers("attention")
    q, k, v = empty(batch, tokens, 3, heads, width, dtype=dtype).permute(2, 0, 3, 1, 4)
    out, stats = room.attention_forward(q, k, v, width**-0.5)
    room.attention_backward(out, q, k, v, out, stats, width**-0.5, True, True, True)


def memory(rows, items, channels, dtype):
    room = launchers("memory")
    z, memory = empty(rows, channels, dtype=dtype), empty(items, channels, dtype=dtype)
    for save in (False, True):
        output, entropy, *kept = room.memory_read_forward(z, memory, None, 1.0, save)
        room.memory_read_backward(output, entropy, z, memory, *kept, None, 1.0, True, True)


def nearest(queries, rows, channels, k, dtype):
    room = launchers("nearest")
    q, bank = empty(queries, channels, dtype=dtype), empty(rows, channels, dtype=dtype)
    room.nearest_backward(empty(queries, k), q, bank, *room.nearest_forward(q, bank, k), k, True, True)


def ssim(batch, channels, side, window, same, dtype):
    room = launchers("ssim")
    x = empty(batch, channels, side, side, dtype=dtype)
    for reduction in (0, 1):
        value = room.ssim_forward(x, x, window, 1.5, 1.0, same, reduction)
        room.ssim_backward(value, x, x, window, 1.5, 1.0, same, reduction, True, reduction == 0)


def gmm(rows, components, dims, isotropic, dtype):
    room = launchers("gmm")
    y, logits, mean = (empty(*s, dtype=dtype) for s in ((rows, dims), (rows, components), (rows, components, dims)))
    std = mean[:, :, :1] if isotropic else mean
    value, shares = room.gmm_log_likelihood_forward(y, logits, mean, std)
    room.gmm_log_likelihood_backward(value, y, logits, mean, std, shares, True, True, True, True)


def linear(rows, components, dims, features, biases, dtype):
    room = launchers("gmm", "linear_triton")
    compute = _triton.compute_type(dtype)
    outputs = components * dims
    x, weight = empty(rows, features, dtype=dtype), empty(outputs, features, dtype=dtype)
    y, w_logits = empty(rows, dims, dtype=compute), empty(components, features, dtype=compute)
    bias = (empty(components, dtype=compute), *[empty(outputs, dtype=compute)] * 2) if biases else (None,) * 3
    tensors = (x, y, w_logits, weight, weight, *bias)
    value, shares, logits = room.linear_gmm_log_likelihood_forward(*tensors, 1e-3, 0)
    room.linear_gmm_log_likelihood_backward(value, *tensors, shares, logits, 1e-3, 0, *[True] * 5)
