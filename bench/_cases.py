"""What the benchmark of the operators computes: every case, and who computes it.

A new operator needs one line in ``CASES``. Ours and eager torch come from the operator's name; a case names further
contenders if there are any.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, scaled_dot_product_attention

from .. import kernels
from ..kernels.attention.reference import attention_torch
from ..kernels.gmm.reference import gmm_log_likelihood_torch, linear_gmm_log_likelihood_torch
from ..kernels.memory.reference import memory_read_torch
from ..kernels.nearest.reference import nearest_torch
from ..kernels.ssim.reference import ssim_torch
from ._case import Case, Function
from ._contenders import (
    addmm_min,
    cdist,
    distances,
    distributions,
    eager_head,
    faiss_index,
    faiss_search,
    fused_ssim,
    kept,
    product_alone,
    products_alone,
    pytorch_msssim,
)


def normal(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Normal random tensors that require gradients."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def attention(batch: int, heads: int, tokens: int, width: int, size: str = "large", **more: Any) -> Case:
    shape = (batch, heads, tokens, width)
    numbers, products = batch * heads * tokens * width, 4 * batch * heads * tokens * tokens * width
    return Case(
        "attention",
        f"{batch}x{heads}x{tokens}x{width}",
        size,
        partial(normal, shape, shape, shape),
        (4 * numbers, 12 * numbers),
        # Two matrix products forward, and five backward, because the scores are computed again.
        (products, products + 5 * products // 2),
        {"sdpa": scaled_dot_product_attention},
        eager=attention_torch,
        **more,
    )


def clear_queries() -> list[Tensor]:
    """Queries whose weights are not close to the threshold, at which rounding moves a whole item and its gradient."""
    many, items = (t.detach() for t in normal((4000, 64), (60, 64)))
    weights = torch.softmax(normalize(many) @ normalize(items).t(), 1)
    z = many[((weights * 60 - 1).abs() > 1e-3).all(1)][:100]
    return [z.clone().requires_grad_(), items.requires_grad_()]


def memory(rows: int, items: int, channels: int, size: str = "large", **more: Any) -> Case:
    product = 2 * rows * items * channels
    return Case(
        "memory_read",
        f"{rows}x{channels} on {items} items",
        size,
        partial(normal, (rows, channels), (items, channels)),
        # Forward reads queries and items and writes the output. Backward reads both again and the gradient of the
        # output, and writes two gradients.
        ((2 * rows + items) * channels, (5 * rows + 3 * items) * channels),
        (2 * product, 6 * product),
        {"matrix products": products_alone},
        eager=memory_read_torch,
        partial_work=("matrix products",),
        check_inputs=clear_queries,
        **more,
    )


def neighbours(rows: int, count: int, channels: int, size: str = "large", **more: Any) -> Case:
    """Images are scored without gradients: there is no backward pass to time."""
    faiss: dict[str, Function] = {} if more.get("device") == "cuda" else {"faiss": kept(faiss_index, faiss_search)}
    return Case(
        "nearest",
        f"{rows}x{channels} in {count} rows",
        size,
        lambda: [t.detach() for t in normal((rows, channels), (count, channels))],
        ((rows + count) * channels, 0),
        (2 * rows * count * channels, 0),
        {
            "vitlite bank": kept(kernels.Bank, distances),
            "cdist": cdist,
            "addmm + min": addmm_min,
            **faiss,
            "product alone": product_alone,
        },
        ours=distances,
        eager=lambda q, bank: nearest_torch(q, bank)[0],
        partial_work=("product alone",),
        **more,
    )


def images(shape: tuple[int, ...]) -> list[Tensor]:
    """Two batches of images in 0 to 1; the first requires a gradient."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(shape, generator=generator).requires_grad_(i == 0) for i in range(2)]


def ssim(shape: tuple[int, ...], padding: str, size: str = "large", reduction: str = "mean", **more: Any) -> Case:
    same, mean = padding == "same", reduction == "mean"
    pixels = torch.Size(shape).numel()
    written = 0 if mean else pixels
    # Four moments, each with 11 multiply-adds along a row and 11 down a column, and about 20 operations for the value.
    # Backward does the same for three derivatives, and computes the moments again.
    forward, backward = 4 * 44 + 20, 4 * 44 + 40 + 3 * 44

    def eager(x: Tensor, y: Tensor) -> Tensor:
        found = ssim_torch(x, y, same=same)
        return found.mean() if mean else found

    libraries: dict[str, Function] = {} if same else {"pytorch-msssim": pytorch_msssim}
    if same and more.get("device") == "cuda":
        libraries["fused-ssim"] = fused_ssim
    return Case(
        "ssim",
        "x".join(map(str, shape)) + f" {padding}" + ("" if mean else " map"),
        size,
        partial(images, shape),
        (2 * pixels + written, 5 * pixels + 2 * written),
        (forward * pixels, (forward + backward) * pixels),
        libraries if mean else {},
        ours=partial(kernels.ssim, padding=padding, reduction=reduction),
        eager=eager,
        **more,
    )


def mixture_inputs(rows: int, components: int, dims: int, isotropic: bool) -> list[Tensor]:
    """Components so alike that none drops out of the gradient, which would be less work."""
    y, logits, mean, std = normal(
        (rows, dims), (rows, components), (rows, components, dims), (rows, components, 1 if isotropic else dims)
    )
    close, wide = 0.3 * mean.detach(), 1 + 0.1 * torch.sigmoid(std.detach())
    return [y, logits, close.requires_grad_(), wide.requires_grad_()]


def mixture(rows: int, components: int, dims: int, size: str = "large", isotropic: bool = False, **more: Any) -> Case:
    means = rows * components * dims
    read = means + (rows * components if isotropic else means)
    return Case(
        "gmm_log_likelihood",
        f"T={rows} K={components} D={dims}" + (" isotropic" if isotropic else ""),
        size,
        partial(mixture_inputs, rows, components, dims, isotropic),
        # Forward reads once. Backward reads again and writes the gradients.
        (read, 3 * read),
        (8 * means, 20 * means),
        {"distributions": distributions},
        eager=gmm_log_likelihood_torch,
        **more,
    )


def head_inputs(rows: int, components: int, dims: int, features: int) -> list[Tensor]:
    outputs = components * dims
    x, y, *weights = normal(
        (rows, features), (rows, dims), (components, features), (outputs, features), (outputs, features)
    )
    return [x, y, *((0.3 * features**-0.5 * w.detach()).requires_grad_() for w in weights)]


def head(rows: int, components: int, dims: int, features: int, size: str = "large", **more: Any) -> Case:
    weights = 2 * components * dims * features
    return Case(
        "linear_gmm_log_likelihood",
        f"T={rows} K={components} D={dims} F={features}",
        size,
        partial(head_inputs, rows, components, dims, features),
        (weights, 3 * weights),
        # Two products forward and four backward. Ours computes those of the forward pass again instead of keeping
        # their results; the number does not credit it.
        (2 * rows * weights, 6 * rows * weights),
        {"eager head": eager_head},
        eager=linear_gmm_log_likelihood_torch,
        # In float64 the reference takes a minute at full size.
        check_inputs=partial(head_inputs, min(rows, 40), min(components, 20), min(dims, 70), min(features, 50)),
        **more,
    )


def in_precisions(case: Case) -> list[Case]:
    """A case in float32, in tf32 and in bfloat16."""
    return [case, case.in_tf32(), case.in_half()]


def tiny() -> list[Case]:
    """From the least call up, on a CPU, in both precisions: no operator may lose to eager torch."""
    found: list[Case] = []
    for n in (1, 4, 16, 64):
        found += [
            ssim((1, 1 if n < 16 else 3, 8 + n, 8 + n), "same", "tiny"),
            attention(1, 1 if n == 1 else 4, n + 1, 8 + n // 2, "tiny"),
            memory(n, 5 + n, 8 + n, "tiny"),
            neighbours(n, 7 + 4 * n, 8 + n, "tiny"),
            mixture(n, 2 + n // 8, 8 + n, "tiny"),
            head(n, 2 + n // 8, 8, 8 + n, "tiny"),
        ]
    # Where nearest has no backward pass; and that of attention in bfloat16 is eager torch behind checks of arguments.
    cases = [replace(c, device="cpu", bars={"eager": (1, None if c.op == "nearest" else 1)}) for c in found]
    half = [replace(c.in_half(), bars={"eager": (1, None)} if c.op == "attention" else c.bars) for c in cases]
    return [*cases, *half]


LARGE_IMAGES = (32, 3, 512, 512)
NEAREST_ON_CPU: dict[str, Any] = {
    "device": "cpu",
    "bars": {"cdist": (1.1, None), "addmm + min": (1.1, None), "faiss": (1.1, None), "product alone": (1 / 1.1, None)},
}
NEAREST_ON_GPU = neighbours(3136, 20_000, 384, device="cuda", bars={"cdist": (1.3, None), "addmm + min": (1.3, None)})
MEMORY_ON_GPU = memory(4608, 2000, 768, device="cuda", bars={"torch.compile": (1.15, 1.15)})
HEAD_ON_GPU = head(2304, 150, 512, 512, device="cuda", bars={"torch.compile": (1.2, 1.2), "memory": (None, 0.15)})
FAST_ON_GPU: dict[str, Any] = {"device": "cuda", "bars": {"copy": (0.8, None), "eager": (5, None)}}

CASES = [
    ssim((8, 3, 256, 256), "valid", device="cpu", bars={"pytorch-msssim": (15, 20)}),
    ssim((8, 3, 256, 256), "same"),
    ssim((1, 3, 512, 512), "valid"),
    ssim((2, 3, 64, 64), "same", "small"),
    ssim((1, 3, 32, 32), "valid", "small"),
    ssim((1, 1, 4, 4), "same", "overhead"),
    ssim((8, 3, 256, 256), "valid", device="cuda"),
    ssim(LARGE_IMAGES, "same", **FAST_ON_GPU),
    ssim(LARGE_IMAGES, "same", reduction="none", **FAST_ON_GPU),
    ssim(LARGE_IMAGES, "same", device="cuda").in_half(),
    attention(8, 8, 256, 64, device="cpu", bars={"sdpa": (0.95, 0.95)}),
    attention(8, 8, 256, 24, device="cpu", bars={"sdpa": (0.95, 0.95)}),
    attention(1, 12, 197, 64, "small"),
    attention(1, 8, 256, 30, "small"),
    attention(4, 8, 49, 24, "small"),
    attention(1, 1, 4, 8, "overhead"),
    *(
        attention(*shape, device="cuda", bars={"sdpa": (0.9, 0.9)}).in_half()
        for shape in ((32, 12, 197, 64), (16, 12, 577, 64), (8, 12, 1025, 64), (16, 8, 577, 30))
    ),
    # At most 1.4 times the time of the matrix products.
    memory(4608, 2000, 768, device="cpu", bars={"eager": (2, 2), "matrix products": (1 / 1.4, 1 / 1.4)}),
    memory(576, 500, 768, "small"),
    memory(64, 100, 128, "small"),
    memory(4, 5, 8, "overhead"),
    *in_precisions(MEMORY_ON_GPU),
    neighbours(1024, 10_000, 272, **NEAREST_ON_CPU),
    neighbours(3136, 20_000, 384, **NEAREST_ON_CPU),
    neighbours(64, 1000, 128, "small"),
    neighbours(4, 7, 8, "overhead"),
    NEAREST_ON_GPU,
    NEAREST_ON_GPU.in_half(),
    mixture(256, 150, 512, device="cpu", bars={"eager": (10, 10)}),
    mixture(256, 150, 512, isotropic=True, device="cpu"),
    mixture(64, 16, 64, "small"),
    mixture(16, 5, 30, "small"),
    mixture(2, 3, 4, "overhead"),
    mixture(1024, 150, 512, **FAST_ON_GPU),
    mixture(1024, 150, 512, device="cuda").in_half(),
    mixture(1024, 150, 512, isotropic=True, device="cuda"),
    head(512, 150, 512, 512, device="cpu"),
    head(64, 16, 64, 128, "small"),
    head(2, 3, 4, 5, "overhead"),
    *in_precisions(HEAD_ON_GPU),
    *tiny(),
]


def cases(device: str, ops: list[str], sizes: list[str]) -> list[Case]:
    """The cases of these operators and sizes on a device, in order."""
    return [c for c in CASES if c.op in ops and c.size in sizes and c.device in (None, device)]
