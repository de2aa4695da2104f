"""The mixture density layer: the likelihood of its own mixture, its gradients, and its shapes."""

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.nn import functional as F

from vitlite.nn.mixture import MixtureDensity


def layer(features=5, dims=3, components=4, **options):
    torch.manual_seed(0)
    return MixtureDensity(features, dims, components, **options).double()


def mixture_of(mixture, x, dims):
    """The same mixture as torch.distributions has it."""
    shape = (len(x), -1, dims)
    std = F.softplus(mixture.std(x)).view(shape) + mixture.min_std
    parts = Independent(Normal(mixture.mean(x).view(shape), std), 1)
    return MixtureSameFamily(Categorical(logits=mixture.logits(x)), parts)


@pytest.mark.parametrize("components", [1, 4])
@pytest.mark.parametrize("min_std", [1e-3, 0.5])
def test_is_the_density_of_torch_distributions(components, min_std):
    mixture = layer(components=components, min_std=min_std)
    x, y = torch.randn(7, 5, dtype=torch.double), torch.randn(7, 3, dtype=torch.double)
    ours, expected = mixture(x, y), mixture_of(mixture, x, 3).log_prob(y)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)
    parameters = list(mixture.parameters())
    for a, b in zip(torch.autograd.grad(ours.sum(), parameters), torch.autograd.grad(expected.sum(), parameters)):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_density_integrates_to_one():
    mixture = layer(features=2, dims=1, components=3)
    grid = torch.linspace(-40, 40, 20001, dtype=torch.double)[:, None]
    x = torch.randn(1, 2, dtype=torch.double).expand(len(grid), -1)
    density = mixture(x, grid).exp()
    assert torch.trapezoid(density, grid[:, 0]).item() == pytest.approx(1, abs=1e-6)


def test_gradients_reach_the_condition_and_the_point():
    x, y = (torch.randn(6, n, dtype=torch.double, requires_grad=True) for n in (5, 3))
    layer()(x, y).sum().backward()
    assert x.grad.abs().min() > 0
    assert y.grad.abs().min() > 0


def test_fitting_finds_the_density():
    """Maximum likelihood on two clusters whose place depends on x: the entropy of the data is reached."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(512, 1, generator=generator)
    side = (torch.rand(512, 1, generator=generator) < 0.3).float() * 4 - 2
    y = side + x + 0.1 * torch.randn(512, 1, generator=generator)
    torch.manual_seed(1)
    mixture = MixtureDensity(1, 1, 4)
    optimizer = torch.optim.Adam(mixture.parameters(), lr=0.03)
    for _ in range(400):
        optimizer.zero_grad()
        loss = -mixture(x, y).mean()
        loss.backward()
        optimizer.step()
    # Entropy of a choice of 0.3 and 0.7 and of a Gaussian with deviation 0.1: 0.611 - 0.884.
    assert loss.item() == pytest.approx(-0.273, abs=0.15)
    with torch.no_grad():
        assert mixture(x, y).mean() > mixture(x, y + 1).mean() + 3


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="y"):
        layer()(torch.randn(4, 5, dtype=torch.double), torch.randn(3, 3, dtype=torch.double))


def test_empty_batch():
    assert layer()(torch.empty(0, 5).double(), torch.empty(0, 3).double()).shape == (0,)
