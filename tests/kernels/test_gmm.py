"""gmm_log_likelihood against its numpy oracle, torch.distributions, and under every option."""

import math

import numpy as np
import pytest
import torch
from contract import assert_same_for_any_number_of_threads

from vitlite.kernels import gmm_log_likelihood
from vitlite.kernels.gmm.reference import (
    gmm_log_likelihood_grad_numpy,
    gmm_log_likelihood_numpy,
    gmm_log_likelihood_torch,
)

# Rows, components, dimensions.
SHAPES = [(1, 1, 1), (3, 1, 30), (1, 7, 5), (5, 33, 17), (9, 20, 64), (2, 3, 2100)]
BACKENDS = ["cpp", "eager"]
NAMES = ("likelihood", "grad y", "grad logits", "grad mean", "grad std")


def problem(rows, components, dims, dtype=torch.float32, scale=1.0, isotropic=False, least=0.05, seed=0):
    """y, logits, mean, std, and a gradient of the result."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    std = normal(rows, components, 1 if isotropic else dims).abs() * scale + least
    values = normal(rows, dims) * scale, normal(rows, components), normal(rows, components, dims) * scale, std
    return [a.to(dtype) for a in (*values, normal(rows))]


def run(y, logits, mean, std, grad, **options):
    inputs = [a.detach().requires_grad_() for a in (y, logits, mean, std)]
    result = gmm_log_likelihood(*inputs, **options)
    return [result.detach(), *torch.autograd.grad(result, inputs, grad.to(result))]


def oracle(y, logits, mean, std, grad):
    arrays = [a.detach().double().numpy() for a in (y, logits, mean, std)]
    gradients = gmm_log_likelihood_grad_numpy(grad.detach().double().numpy(), *arrays)
    return [torch.from_numpy(a) for a in (gmm_log_likelihood_numpy(*arrays), *gradients)]


def errors(found, expected):
    return [(f.double() - e).abs().max().item() for f, e in zip(found, expected)]


def assert_as_exact_as_eager(arguments, dtype):
    expected = oracle(*arguments)
    ours, eager = errors(run(*arguments), expected), errors(run(*arguments, backend="eager"), expected)
    # Beside float64 the oracle is not exact: shares are exponentials of differences of numbers as large as this.
    condition = max(1.0, expected[0].abs().max().item()) if dtype == torch.float64 else 1.0
    for name, our, other, right in zip(NAMES, ours, eager, expected):
        rounding = 20 * torch.finfo(dtype).eps * condition * max(right.abs().max().item(), 1e-30)
        assert our <= 2 * other + rounding, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("isotropic", [False, True], ids=["diagonal", "isotropic"])
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e-3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_and_gradients_are_as_exact_as_eager(level, shape, scale, isotropic, dtype):
    assert_as_exact_as_eager(problem(*shape, dtype, scale, isotropic), dtype)


@pytest.mark.parametrize("isotropic", [False, True], ids=["diagonal", "isotropic"])
@pytest.mark.parametrize("least", [1e-3, 1e-6])
def test_deviations_near_zero(level, least, isotropic):
    y, logits, mean, std, grad = problem(4, 5, 33, isotropic=isotropic)
    std[:, ::2] = least
    mean[:, ::2] = y[:, None] + 0.5 * least * mean[:, ::2]
    assert_as_exact_as_eager((y, logits, mean, std, grad), torch.float32)


def test_deviations_far_from_one_do_not_overflow_their_product(level):
    for deviation in (1e-38, 1e-30, 1e30, 3e38):
        std = torch.full((2, 3, 700), deviation)
        arguments = torch.zeros(2, 700), torch.zeros(2, 3), torch.zeros(2, 3, 700), std
        expected = gmm_log_likelihood_numpy(*arguments)
        np.testing.assert_allclose(gmm_log_likelihood(*arguments), expected, rtol=1e-6)


def test_eager_gradients_agree_with_the_oracle():
    *inputs, grad = problem(6, 5, 7, torch.float64)
    inputs = [a.requires_grad_() for a in inputs]
    found = torch.autograd.grad(gmm_log_likelihood_torch(*inputs), inputs, grad)
    for f, e in zip(found, oracle(*inputs, grad)[1:]):
        torch.testing.assert_close(f, e, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("isotropic", [False, True], ids=["diagonal", "isotropic"])
def test_agrees_with_torch_distributions(compiled, isotropic):
    from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

    y, logits, mean, std, _ = problem(11, 8, 19, isotropic=isotropic)
    components = Independent(Normal(mean, std.expand_as(mean)), 1)
    expected = MixtureSameFamily(Categorical(logits=logits), components).log_prob(y)
    torch.testing.assert_close(gmm_log_likelihood(y, logits, mean, std), expected, rtol=1e-5, atol=1e-5)


def test_the_constant_of_a_standard_normal(level):
    value = gmm_log_likelihood(torch.zeros(1, 4), torch.zeros(1, 1), torch.zeros(1, 1, 4), torch.ones(1, 1, 4))
    assert value.item() == pytest.approx(-2 * math.log(2 * math.pi), abs=1e-6)


def test_density_integrates_to_one(compiled):
    y = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
    logits, mean, std = torch.randn(1, 3), torch.tensor([[[-3.0], [0.0], [4.0]]]), torch.tensor([[[0.5], [1.0], [1.5]]])
    tables = (a.double().expand(4001, *a.shape[1:]) for a in (logits, mean, std))
    density = gmm_log_likelihood(y, *tables).exp()
    assert torch.trapezoid(density, y[:, 0]).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_component_that_is_switched_off(compiled, backend):
    y, logits, mean, std, grad = problem(5, 4, 6)
    without = run(y, logits[:, :3], mean[:, :3], std[:, :3], grad, backend=backend)
    logits[:, 3] = -math.inf
    found = run(y, logits, mean, std, grad, backend=backend)
    torch.testing.assert_close(found[0], without[0])
    torch.testing.assert_close(found[2][:, :3], without[2])
    for gradient in found[2:]:
        assert (gradient[:, 3] == 0).all()


def test_a_component_that_is_too_far_away(level):
    y, logits, mean, std, grad = problem(5, 4, 40)
    mean[:, 1] += 1e3
    found, expected = run(y, logits, mean, std, grad), oracle(y, logits, mean, std, grad)
    assert (found[3][:, 1] == 0).all()
    assert (found[4][:, 1] == 0).all()
    for f, e in zip(found, expected):
        torch.testing.assert_close(f.double(), e, rtol=0, atol=2e-5 * e.abs().max().item())


@pytest.mark.parametrize("place", ["y", "mean", "std"])
@pytest.mark.parametrize("at", [0, 16, 32])
def test_not_a_number_spoils_its_row_and_no_other(level, place, at):
    arguments = problem(6, 5, 33)
    tensor = dict(zip(("y", "logits", "mean", "std"), arguments))[place]
    tensor[(2, at) if place == "y" else (2, 3, at)] = math.nan
    spoiled = torch.arange(6) == 2
    for found in run(*arguments):
        found = found.reshape(6, -1)
        assert torch.equal(found.isnan().any(1), spoiled)
    assert torch.equal(gmm_log_likelihood(*arguments[:4]).isnan(), spoiled)


@pytest.mark.parametrize("backend", BACKENDS)
def test_infinite_values(compiled, backend):
    y, logits, mean, std, _ = problem(3, 4, 20)
    mean[0, 1, 7] = math.inf  # one component without density
    mean[1, :, 7] = math.inf  # all of them
    std[2, 0, 3] = math.inf
    found = gmm_log_likelihood(y, logits, mean, std, backend=backend)
    with np.errstate(all="ignore"):
        expected = gmm_log_likelihood_numpy(y, logits, mean, std)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[0].isfinite()
    assert found[1] == -math.inf


@pytest.mark.parametrize("value", [0.0, -1.0])
@pytest.mark.parametrize("isotropic", [False, True], ids=["diagonal", "isotropic"])
def test_impossible_deviations_give_what_eager_gives(level, value, isotropic):
    y, logits, mean, std, _ = problem(2, 3, 20, isotropic=isotropic)
    std[0, 1, 0] = value
    found = gmm_log_likelihood(y, logits, mean, std)
    expected = gmm_log_likelihood(y, logits, mean, std, backend="eager")
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert found[0].isnan()


@pytest.mark.parametrize("isotropic", [False, True], ids=["diagonal", "isotropic"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_half_precision_is_computed_in_float32(level, dtype, isotropic):
    arguments = problem(6, 9, 35, dtype, isotropic=isotropic, least=0.2)
    wide = run(*(a.float() for a in arguments))
    for backend in BACKENDS:
        for name, f, w in zip(NAMES, run(*arguments, backend=backend), wide):
            assert f.dtype == dtype
            # Half a unit in the last place of the result, and float32's rounding on the way.
            torch.testing.assert_close(f, w.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-5, msg=name)


@pytest.mark.parametrize("isotropic", [False, True], ids=["diagonal", "isotropic"])
def test_one_mixture_for_all_rows(level, isotropic):
    y, *_, grad = problem(7, 4, 18)
    _, logits, mean, std, _ = problem(1, 4, 18, isotropic=isotropic)
    shared = [a.requires_grad_() for a in (logits, mean, std)]
    tables = [a.expand(7, *a.shape[1:]) for a in shared]
    found = gmm_log_likelihood(y, *tables)
    grads = torch.autograd.grad(found, shared, grad)
    expected = oracle(y, *(t.contiguous() for t in tables), grad)
    torch.testing.assert_close(found.detach().double(), expected[0], rtol=1e-5, atol=1e-5)
    for f, e in zip(grads, expected[2:]):
        torch.testing.assert_close(f.double(), e.sum(0, keepdim=True), rtol=1e-4, atol=1e-5 * e.abs().max().item())


@pytest.mark.parametrize("isotropic", [False, True], ids=["diagonal", "isotropic"])
def test_gradcheck(compiled, isotropic):
    inputs = [a.requires_grad_() for a in problem(3, 4, 5, torch.float64, isotropic=isotropic, least=0.5)[:4]]
    assert torch.autograd.gradcheck(gmm_log_likelihood, inputs)


def test_same_result_for_any_number_of_threads(compiled):
    arguments = problem(30, 40, 60)
    assert_same_for_any_number_of_threads(lambda: run(*arguments))
