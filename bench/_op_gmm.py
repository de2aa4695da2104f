"""Cases of ``gmm_log_likelihood`` and ``linear_gmm_log_likelihood``."""

from functools import partial

import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.nn.functional import linear, softplus

from ..kernels import gmm_log_likelihood, linear_gmm_log_likelihood
from ..kernels.gmm.reference import gmm_log_likelihood_torch, linear_gmm_log_likelihood_torch
from .ops import Case


def _mixture(rows, components, dims, isotropic, device):
    """Components alike enough that none drops out of the gradient, which would be less work."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    std = 1 + 0.1 * torch.rand((rows, components, 1 if isotropic else dims), generator=generator)
    tensors = normal(rows, dims), normal(rows, components), 0.3 * normal(rows, components, dims), std
    return [t.to(device).requires_grad_() for t in tensors]


def _distributions(y, logits, mean, std):
    components = Independent(Normal(mean, std.expand_as(mean), validate_args=False), 1, validate_args=False)
    return MixtureSameFamily(Categorical(logits=logits), components, validate_args=False).log_prob(y)


def _mixture_case(rows, components, dims, size, isotropic=False, bars=None):
    means = rows * components * dims
    deviations = rows * components if isotropic else means
    return Case(
        op="gmm_log_likelihood",
        name=f"T={rows} K={components} D={dims}" + (" isotropic" if isotropic else ""),
        size=size,
        inputs=partial(_mixture, rows, components, dims, isotropic),
        contenders={
            "vitlite": gmm_log_likelihood,
            "eager": gmm_log_likelihood_torch,
            "distributions": _distributions,
        },
        reference=gmm_log_likelihood_torch,
        # Read once forward; backward read again, and the gradients written.
        traffic=(4 * (means + deviations), 12 * (means + deviations)),
        operations=(8 * means, 20 * means),
        bars=bars or {},
    )


def _head(rows, components, dims, features, device):
    generator = torch.Generator().manual_seed(0)
    outputs = components * dims
    shapes = (rows, features), (rows, dims), (components, features), (outputs, features), (outputs, features)
    tensors = [torch.randn(s, generator=generator) for s in shapes]
    for weight in tensors[2:]:
        weight *= 0.3 * features**-0.5
    return [t.to(device).requires_grad_() for t in tensors]


def _parts(x, y, w_logits, w_mean, w_std):
    """The head by torch, the likelihood by us: what is used where the means are wanted as well."""
    shape = (x.shape[0], w_logits.shape[0], y.shape[1])
    std = softplus(linear(x, w_std)).view(shape) + 1e-3
    return gmm_log_likelihood(y, linear(x, w_logits), linear(x, w_mean).view(shape), std)


def _head_case(rows, components, dims, features, size):
    product = 2 * rows * components * dims * features
    weights = 2 * components * dims * features
    return Case(
        op="linear_gmm_log_likelihood",
        name=f"T={rows} K={components} D={dims} F={features}",
        size=size,
        inputs=partial(_head, rows, components, dims, features),
        contenders={
            "vitlite": linear_gmm_log_likelihood,
            "eager": linear_gmm_log_likelihood_torch,
            "eager head": _parts,
        },
        reference=linear_gmm_log_likelihood_torch,
        traffic=(4 * weights, 12 * weights),
        # Two products forward and four backward; ours computes the two of the forward pass again instead of keeping
        # their results, which the numbers do not credit.
        operations=(2 * product, 6 * product),
        # The reference in float64 takes a minute at full size.
        check_inputs=partial(_head, min(rows, 40), min(components, 20), min(dims, 70), min(features, 50)),
    )


def cases():
    overhead = _mixture_case(2, 3, 4, "overhead")
    head_overhead = _head_case(2, 3, 4, 5, "overhead")
    overhead.limit_us = head_overhead.limit_us = 40.0
    return [
        _mixture_case(256, 150, 512, "large", bars={"eager": (10, 10)}),
        _mixture_case(256, 150, 512, "large", isotropic=True),
        _mixture_case(64, 16, 64, "small"),
        _mixture_case(16, 5, 30, "small"),
        overhead,
        _head_case(512, 150, 512, 512, "large"),
        _head_case(64, 16, 64, 128, "small"),
        head_overhead,
    ]
