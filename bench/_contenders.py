"""What the benchmark of the operators measures beside ours and eager torch: libraries, and what one writes by hand."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, softplus

from .. import kernels
from ._case import Function


def products_alone(z: Tensor, items: Tensor) -> Tensor:
    """The matrix products of ``memory_read``: two forward, and autograd makes four of them backward."""
    return (z @ items.t()) @ items


def distances(q: Tensor, bank: Tensor | kernels.Bank, backend: str = "auto") -> Tensor:
    return kernels.nearest(q, bank, backend=backend)[0]


def kept(prepare: Callable[[Tensor], Any], search: Callable[[Tensor, Any], Tensor]) -> Function:
    """A search in what was prepared of a bank at the first call with it, as for many images."""
    held: list[Any] = [None, None]

    def function(q: Tensor, bank: Tensor) -> Tensor:
        if held[0] is not bank:
            held[:] = bank, prepare(bank)
        return search(q, held[1])

    return function


def cdist(q: Tensor, bank: Tensor) -> Tensor:
    return torch.cdist(q, bank).min(1, keepdim=True).values


def addmm_min(q: Tensor, bank: Tensor) -> Tensor:
    """What one writes by hand: squared distances but for |q|^2 from one product, the least of them, and its root."""
    scores, _ = torch.addmm(bank.square().sum(1), q, bank.t(), alpha=-2).min(1, keepdim=True)
    return (scores + q.square().sum(1, keepdim=True)).clamp_min(0).sqrt()


def faiss_index(bank: Tensor) -> Any:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank.numpy())
    return index


def faiss_search(q: Tensor, index: Any) -> Tensor:
    return torch.from_numpy(index.search(q.numpy(), 1)[0]).sqrt()


def product_alone(q: Tensor, bank: Tensor) -> Tensor:
    return q @ bank.t()


def pytorch_msssim(x: Tensor, y: Tensor) -> Tensor:
    import pytorch_msssim

    return pytorch_msssim.ssim(x, y, data_range=1.0)


def fused_ssim(x: Tensor, y: Tensor) -> Tensor:
    from fused_ssim import fused_ssim

    return fused_ssim(x, y)


def distributions(y: Tensor, logits: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

    components = Independent(Normal(mean, std.expand_as(mean), validate_args=False), 1, validate_args=False)
    return MixtureSameFamily(Categorical(logits=logits), components, validate_args=False).log_prob(y)


def eager_head(x: Tensor, y: Tensor, w_logits: Tensor, w_mean: Tensor, w_std: Tensor) -> Tensor:
    """The head by torch and the likelihood by us: what one uses if the means are wanted as well."""
    shape = (x.shape[0], w_logits.shape[0], y.shape[1])
    std = softplus(linear(x, w_std)).view(shape) + 1e-3
    return kernels.gmm_log_likelihood(y, linear(x, w_logits), linear(x, w_mean).view(shape), std)
