"""StableAdamW against a plain reading, and in the trainer's hands."""

import numpy as np
import torch

from vitlite.nn.stable_adamw import StableAdamW


def plain(weights, gradients, lr, betas, eps, decay):
    """The steps in float64, and how often one was shortened."""
    m = v = most = np.zeros_like(weights)
    shortened = 0
    for t, g in enumerate(gradients, 1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        most = np.maximum(most, v)
        root = np.sqrt(most) / np.sqrt(1 - betas[1] ** t) + eps
        rms = np.sqrt(np.mean((g / root) ** 2))
        shortened += rms > 1 + 1e-9
        weights = weights * (1 - lr * decay) - lr / max(1, rms) * (m / (1 - betas[0] ** t)) / root
    return weights, shortened


def test_against_a_plain_reading():
    """Gradients that grow, so that the second moment lags behind, and then become small, which AMSGrad remembers."""
    rng = np.random.default_rng(0)
    start = [rng.standard_normal((4, 3)), rng.standard_normal(5)]
    sizes = [0.1, 0.1, 5.0, 5.0, 0.01, 0.0, 0.01]
    settings = {"lr": 0.05, "betas": (0.9, 0.95), "eps": 1e-10}
    parameters = [torch.nn.Parameter(torch.from_numpy(one.copy())) for one in start]
    optimizer = StableAdamW(
        [{"params": parameters[:1], "weight_decay": 0.3}, {"params": parameters[1:], "weight_decay": 0.0}], **settings
    )
    gradients = [[size * rng.standard_normal(one.shape) for size in sizes] for one in start]
    for both in zip(*gradients):
        for parameter, gradient in zip(parameters, both):
            parameter.grad = torch.from_numpy(gradient)
        optimizer.step()
    for parameter, one, own, decay in zip(parameters, start, gradients, (0.3, 0.0)):
        expected, shortened = plain(one, own, *settings.values(), decay)
        assert 0 < shortened < len(sizes)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12)
