"""The mixtures of VT-ADL, for graphs that are exported as well."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitlite.kernels import GaussianMixtureHead, gmm_log_likelihood
from vitlite.nn.portable import Portable, operator_backend

SPREAD = 0.5  # of the components' means about that of all, in deviations, before training


class MixtureDensity(Portable, GaussianMixtureHead):
    """:class:`vitlite.kernels.GaussianMixtureHead`, by torch's operators while a graph is exported."""


class PositionMixture(nn.Module):
    """log p(y) at every position of an image: each position has a mixture of its own, which depends on nothing else.

    Deviations are softplus of ``std`` plus ``min_std``. With ``full`` covariance they are those of each dimension given
    the dimensions before it, which predict it by the rows of ``lower``, below the diagonal: a unit lower triangle U
    and the deviations S give the inverse covariance U^T S^-2 U.
    """

    def __init__(self, positions: int, dims: int, components: int, min_std: float, full: bool = False) -> None:
        super().__init__()
        self.min_std = min_std
        self.logits = nn.Parameter(torch.zeros(positions, components))
        self.mean = nn.Parameter(torch.zeros(positions, components, dims))
        self.std = nn.Parameter(torch.ones(positions, components, dims))
        self.lower = nn.Parameter(torch.zeros(positions, components, dims, dims)) if full else None

    @torch.no_grad()
    def start(self, batches: Iterable[Tensor], noise: float = 0.0) -> None:
        """Take the mean and the covariance of embeddings (B, positions, dims), to which noise will be added.

        One component then is the likeliest Gaussian. Several begin ``SPREAD`` deviations from its mean, each in a
        random direction. A full covariance is drawn towards the diagonal, as if there were as many more images as
        dimensions: so few images suffice.
        """
        moments = Moments(self.lower is not None)
        for batch in batches:
            moments.add(batch.to(self.mean))
        mean, variance = moments.mean, moments.variance + noise**2 + self.min_std**2
        deviation = variance.sqrt()
        offsets = torch.randn(self.mean.shape).to(deviation) * SPREAD if self.mean.shape[1] > 1 else 0.0
        self.mean.copy_(mean[:, None] + offsets * deviation[:, None])
        if self.lower is not None:
            own = torch.diag_embed(variance)
            weight = moments.count / (moments.count + mean.shape[1])
            factor = torch.linalg.cholesky(own + weight * moments.products_beside_the_diagonal())
            deviation = factor.diagonal(dim1=1, dim2=2)
            unit = factor / deviation[:, None]
            self.lower.copy_(torch.linalg.solve_triangular(unit, torch.eye(len(own[0])).to(unit), upper=False)[:, None])
        rest = (deviation - self.min_std).clamp_min(self.min_std)
        self.std.copy_((rest + torch.log(-torch.expm1(-rest)))[:, None])  # softplus of it is ``rest``

    def forward(self, y: Tensor) -> Tensor:
        """Embeddings (B, positions, dims) to log-likelihoods (B, positions) in nats."""
        std = F.softplus(self.std) + self.min_std
        if self.lower is not None:
            return self._full(y, std)
        each = (part.expand(y.shape[0], *part.shape).flatten(0, 1) for part in (self.logits, self.mean, std))
        return gmm_log_likelihood(y.flatten(0, 1), *each, backend=operator_backend()).unflatten(0, (-1, y.shape[1]))

    def _full(self, y: Tensor, std: Tensor) -> Tensor:
        assert self.lower is not None
        away = y[:, :, None] - self.mean
        z = (away + torch.einsum("pkij,bpkj->bpki", self.lower.tril(-1), away)) / std
        level = self.logits.log_softmax(1) - std.log().sum(2) - 0.5 * math.log(2 * math.pi) * y.shape[2]
        return torch.logsumexp(level - 0.5 * z.square().sum(3), 2)


class Moments:
    """Mean, variance and, if asked for, covariance at every position of embeddings (B, positions, dims)."""

    def __init__(self, products: bool) -> None:
        self.count, self.wanted = 0, products
        self.shift = self.total = self.squares = self.products = torch.zeros(())

    def add(self, batch: Tensor) -> None:
        """Count a batch."""
        if not self.count:
            self.shift = batch.mean(0)  # sums about a point near the mean lose no digits
        near = batch - self.shift
        self.count += len(batch)
        self.total = self.total + near.sum(0)
        self.squares = self.squares + near.square().sum(0)
        if self.wanted:
            self.products = self.products + torch.einsum("bpi,bpj->pij", near, near)

    @property
    def mean(self) -> Tensor:
        return self.shift + self.total / self.count

    @property
    def variance(self) -> Tensor:
        return (self.squares / self.count - (self.total / self.count).square()).clamp_min(0)

    def products_beside_the_diagonal(self) -> Tensor:
        """Covariances (positions, dims, dims), 0 on the diagonal."""
        off = self.total / self.count
        covariance = self.products / self.count - off[:, :, None] * off[:, None]
        return covariance - torch.diag_embed(covariance.diagonal(dim1=1, dim2=2))
