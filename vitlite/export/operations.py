"""How many operations a method computes for one image."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from vitlite.export.program import exportable
from vitlite.methods.base import Method

COUNTED = (
    "Operations: of matrix products, convolutions, attention and our operators for one image, without decoding and "
    "resizing; a multiplication and an addition are two"
)
Shape = Sequence[int]


def size_of(method: Method) -> dict[str, int]:
    """Numbers of all and of trained parameters, and of operations for one image."""
    return {
        "parameters": sum(p.numel() for p in method.parameters()),
        "trained_parameters": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "operations": operations_of(method),
    }


def operations_of(method: Method) -> int:
    """Operations for one image, as ``COUNTED`` says; without oneDNN's fused convolutions, which torch does not count.

    The method is copied as an exporter copies it, so what is counted is what scoring computes.
    """
    twin, image = exportable(method), torch.zeros(1, *method.config.view.sides, 3, dtype=torch.uint8)
    counter = FlopCounterMode(display=False, custom_mapping=own_operators())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32 acceleration")  # of GPUs that this torch does not know
        with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False), counter:
            twin(image)
    return counter.get_total_flops()


def own_operators() -> dict[Any, Callable[..., int]]:
    """What FlopCounterMode does not know: the matrix products of our operators, and attention on a CPU."""
    ops = torch.ops

    def mixture(x: Shape, y: Shape, w_logits: Shape, w_mean: Shape, w_std: Shape, *rest: Any, **options: Any) -> int:
        return 2 * x[0] * x[1] * (w_logits[0] + w_mean[0] + w_std[0])

    def memory(z: Shape, items: Shape, *rest: Any, **options: Any) -> int:
        return 2 * 2 * z[0] * items[0] * items[1]  # similarities, and the weighted sum

    def search(q: Shape, rows: Shape, *rest: Any, **options: Any) -> int:
        return 2 * q[0] * rows[0] * rows[1]

    def attention(query: Shape, key: Shape, value: Shape, *rest: Any, **options: Any) -> int:
        batch, heads, length, width = query
        return 2 * batch * heads * length * key[2] * (width + value[3])

    return {
        ops.vitlite.linear_gmm_log_likelihood_forward: mixture,
        ops.vitlite.memory_read_forward: memory,
        ops.vitlite.nearest_forward: search,
        ops.vitlite.nearest_packed: search,
        ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
    }
