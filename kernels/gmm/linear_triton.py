"""A mixture density head and its likelihood on a GPU, the launchers: torch multiplies, Triton does what lies between.

Rows and components are taken a block at a time, so that the tables of means and of raw deviations, those before the
softplus, stay small. The backward pass multiplies again. Sums are in float32 or wider, and in a fixed order.
"""

from typing import Any

import torch
from torch import Tensor

from .._triton import (
    accumulator,
    add_product,
    ceil_div,
    compute_type,
    even_share,
    launch,
    multiply,
    power_of_two,
    product_precision,
    slabs,
    table,
)
from .linear_triton_kernels import (
    linear_gmm_densities_kernel,
    linear_gmm_gradients_kernel,
    linear_gmm_likelihood_kernel,
)
from .triton import logit_gradients
from .triton import tiles as mixture_tiles

# These three are estimates that have not been timed yet.
#
# Numbers of the table of means of a block, and of that of raw deviations, whatever the number of rows and components.
# In float32 each is 32 MiB: the one that is written last is still in the cache of an H200, of 50 MB, if a kernel reads
# both. Half of it would fit as a whole, but a call would then issue blocks more slowly than they are computed.
ROOM = 1 << 23
# Rows of a block. With so many, reading the weights again for each block costs little beside the products; with all
# components at a time, a block would have some 100 rows. More rows would leave so few components that the gradients of
# the weights are small products.
MOST_ROWS = 4096
# Numbers in a tile of the forward pass, 16 a thread: more warps at a time than with the 32 of the mixture alone.
TILE = 2048


def linear_gmm_log_likelihood_forward(
    x: Tensor, y: Tensor, w_logits: Tensor, w_mean: Tensor, w_std: Tensor,
    b_logits: Tensor | None, b_mean: Tensor | None, b_std: Tensor | None, min_std: float, chunk: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Log-likelihood (T,), the logarithm of each component's share of it and the logits, both (T, K), in the type of
    the computation."""
    blocks = _Blocks(x, y, w_logits, w_mean, w_std, b_mean, b_std, min_std, chunk)
    logits = torch.nn.functional.linear(blocks.x.to(blocks.compute), w_logits, b_logits)
    log_shares, likelihood = torch.empty_like(logits), logits.new_empty(logits.shape[:1])
    for these in blocks.components:
        weights = blocks.weights(these, blocks.kind)
        for own in blocks.rows:
            tensors = blocks.projected(own, these, weights)
            count, parts = own.stop - own.start, these.stop - these.start
            shapes = mixture_tiles(count, parts, blocks.dims, blocks.compute, TILE)
            grid = ceil_div(count, shapes["BT"]), ceil_div(parts, shapes["BK"])
            arguments = {**tensors, "densities": log_shares[own, these]}
            launch(linear_gmm_densities_kernel, grid, arguments, FAST=blocks.fast, **shapes)
    count, components = logits.shape
    arguments = {"logits": logits, "log_shares": log_shares, "likelihood": likelihood}
    arguments |= {"count": count, "components": components, "dims": blocks.dims}
    shapes = {"BT": 4, "BK": power_of_two(components, 16, 256), "ACC": accumulator(blocks.compute)}
    launch(linear_gmm_likelihood_kernel, (ceil_div(count, 4),), arguments, **shapes)
    return likelihood, log_shares, logits


def linear_gmm_log_likelihood_backward(
    grad: Tensor, x: Tensor, y: Tensor, w_logits: Tensor, w_mean: Tensor, w_std: Tensor,
    b_logits: Tensor | None, b_mean: Tensor | None, b_std: Tensor | None, log_shares: Tensor, logits: Tensor,
    min_std: float, chunk: int,
    need_x: bool, need_y: bool, need_w_logits: bool, need_w_mean: bool, need_w_std: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients for x, y, the weights and the biases; an empty tensor if one is not wanted or there is no bias."""
    blocks = _Blocks(x, y, w_logits, w_mean, w_std, b_mean, b_std, min_std, chunk)
    compute, dims, grad, log_shares = blocks.compute, blocks.dims, grad.contiguous(), log_shares.contiguous()
    grad_logits = torch.empty_like(log_shares)
    logit_gradients(grad, logits, log_shares, grad_logits)
    grad_x = grad_logits @ w_logits if need_x else None
    grad_y = torch.zeros_like(blocks.y) if need_y else None
    grad_w = [w.new_empty(w.shape) if need else None for w, need in ((w_mean, need_w_mean), (w_std, need_w_std))]
    biased = b_mean is not None or b_std is not None
    grad_b = logits.new_empty((2, w_mean.shape[0] if biased else 0))
    # In float16 a gradient may be too large or too small; float32 it is then.
    work = compute if blocks.kind == torch.float16 else blocks.kind
    features = blocks.x.to(work)
    slopes = blocks.tables if work == compute else [torch.empty_like(a, dtype=work) for a in blocks.tables]
    for these in blocks.components:
        weights = blocks.weights(these, blocks.kind)
        factors = weights if work == blocks.kind else blocks.weights(these, work)
        outputs, parts = blocks.outputs(these), these.stop - these.start
        # Of half precision, the sums over all rows are rounded once.
        whole = [a if a is None else a[outputs] for a in grad_w]
        sums = [a if a is None or a.dtype == compute else torch.empty_like(a, dtype=compute) for a in whole]
        for own in blocks.rows:
            arguments = blocks.projected(own, these, weights)
            count, width = own.stop - own.start, arguments["width"]
            shapes = gradient_tiles(count, dims, compute)
            # One program adds up what all components give to the gradient of a point.
            each = parts if need_y else ceil_div(parts, 256)
            grid = ceil_div(count, shapes["BT"]), ceil_div(dims, shapes["BD"]), ceil_div(parts, each)
            of_rows = grad_b.new_empty((2, grid[0], width))
            arguments |= {"grad": grad[own], "log_shares": log_shares[own, these], "each": each}
            arguments |= {"grad_mean": slopes[0], "grad_raw": slopes[1], "sums": of_rows if biased else None}
            arguments |= {"grad_y": None if grad_y is None else grad_y[own]}
            launch(linear_gmm_gradients_kernel, grid, arguments, FAST=blocks.fast, **shapes)
            add = add_product if own.start else multiply
            for slope, factor, found in zip(slopes, factors, sums):
                slope = slope[:count, : parts * dims]
                if grad_x is not None:
                    add_product(slope, factor, grad_x[own])
                if found is not None:
                    add(slope.t(), features[own], found)
            if biased and own.start:
                grad_b[:, outputs] += of_rows[:, :, : parts * dims].sum(1)
            elif biased:
                torch.sum(of_rows[:, :, : parts * dims], 1, out=grad_b[:, outputs])
        for a, found in zip(whole, sums):
            if a is not None and found is not None and found is not a:
                a.copy_(found)
    nothing = x.new_empty((0,))
    return (
        nothing if grad_x is None else grad_x.to(x.dtype),
        y.new_empty((0,)) if grad_y is None else grad_y,
        grad_logits.t() @ blocks.x.to(compute) if need_w_logits else w_logits.new_empty((0,)),
        *[w.new_empty((0,)) if a is None else a for a, w in zip(grad_w, (w_mean, w_std))],
        nothing if b_logits is None else grad_logits.sum(0),
        *[nothing if b is None else grad_b[i].clone() for i, b in enumerate((b_mean, b_std))],
    )


class _Blocks:
    """Means and raw deviations, but for the biases, of some rows and components at a time, in tables that are used
    again. ``kind`` is the dtype of the factors: that of x if both are one, or else that of the computation."""

    def __init__(
        self, x: Tensor, y: Tensor, w_logits: Tensor, w_mean: Tensor, w_std: Tensor,
        b_mean: Tensor | None, b_std: Tensor | None, min_std: float, chunk: int,
    ) -> None:  # fmt: skip
        (count, self.dims), components = y.shape, w_logits.shape[0]
        self.compute = compute_type(x.dtype)
        self.kind = x.dtype if x.dtype == w_mean.dtype else self.compute
        self.x, self.y, self.biases = x.to(self.kind).contiguous(), y.contiguous(), (b_mean, b_std)
        self.matrices, self.min_std, self.all = (w_mean, w_std), min_std, components
        most, parts = block_of(count, components, self.dims, x.shape[1], chunk)
        # An empty block if there are no rows, so that sums over them are made.
        self.rows, self.components = slabs(count, most) or [slice(0, 0)], slabs(components, parts)
        self.tables = [table(x, most, parts * self.dims, self.compute) for _ in range(2)]
        # Where products are rounded to tf32 or less, the instructions that are good to 1e-6 lose nothing.
        self.fast = self.kind.itemsize == 2 or product_precision(self.kind) == "tf32"

    def outputs(self, these: slice) -> slice:
        """The outputs of the head that belong to some components."""
        return slice(these.start * self.dims, these.stop * self.dims)

    def weights(self, these: slice, dtype: torch.dtype) -> list[Tensor]:
        """Those of some components: a view, if they have the dtype."""
        return [w[self.outputs(these)].to(dtype) for w in self.matrices]

    def projected(self, own: slice, these: slice, weights: list[Tensor]) -> dict[str, Any]:
        """Multiplies; the arguments that the kernels share."""
        count, parts = own.stop - own.start, these.stop - these.start
        for weight, products in zip(weights, self.tables):
            multiply(self.x[own], weight.t(), products[:count, : parts * self.dims])
        biases = (b if b is None else b[self.outputs(these)].contiguous() for b in self.biases)
        tensors = dict(zip(("y", "means", "raws", "b_mean", "b_std"), (self.y[own], *self.tables, *biases)))
        sizes = {"count": count, "parts": parts, "dims": self.dims, "components": self.all}
        return {**tensors, **sizes, "width": self.tables[0].shape[1], "min_std": self.min_std}


def block_of(count: int, components: int, dims: int, features: int, chunk: int) -> tuple[int, int]:
    """How many rows and components to take at a time, the latter as ``chunk`` says unless it is 0.

    As many components as there is room for beside many rows, and for the weights of which there is room as well: the
    gradients of half-precision ones are added up in float32.
    """
    rows = even_share(count, MOST_ROWS)
    if not chunk:
        most = max(1, min(ROOM // max(1, rows) // 16 * 16, ROOM // features) // dims)
        chunk = ceil_div(components, ceil_div(components, most))
    parts = min(chunk, components)
    fit = max(16, ROOM // (ceil_div(parts * dims, 16) * 16) // 16 * 16)
    return even_share(count, min(fit, MOST_ROWS)), parts


def gradient_tiles(count: int, dims: int, dtype: torch.dtype) -> dict[str, Any]:
    """Rows and dimensions of a program, 8 numbers a thread."""
    columns = power_of_two(dims, 16, 64)
    return {"BT": power_of_two(count, 16, 1024 // columns), "BD": columns, "ACC": accumulator(dtype)}
