"""linear_gmm_log_likelihood against its numpy oracle, its parts, and under every option; and its peak memory."""

import subprocess
import sys

import pytest
import torch

from vitlite.kernels import gmm_log_likelihood, linear_gmm_log_likelihood
from vitlite.kernels.gmm.reference import (
    linear_gmm_log_likelihood_grad_numpy,
    linear_gmm_log_likelihood_numpy,
    linear_gmm_log_likelihood_torch,
)

# Rows, components, dimensions, features.
SHAPES = [(1, 1, 1, 1), (3, 1, 30, 5), (1, 7, 5, 3), (6, 33, 17, 8), (9, 20, 48, 16)]
BACKENDS = ["cpp", "eager"]
NAMES = ("x", "y", "w_logits", "w_mean", "w_std", "b_logits", "b_mean", "b_std")


def problem(rows, components, dims, features, dtype=torch.float32, scale=1.0, biases=True, seed=0):
    """The tensors in the order of the arguments, and a gradient of the result."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, by=1.0):
        return (torch.randn(shape, generator=generator, dtype=torch.float64) * by).to(dtype)

    outputs, spread = components * dims, features**-0.5
    weights = [normal(n, features, by=spread) for n in (components, outputs, outputs)]
    weights[1] *= scale
    bias = [normal(components), normal(outputs, by=scale), normal(outputs) + 1] if biases else [None] * 3
    return [normal(rows, features), normal(rows, dims, by=scale), *weights, *bias], normal(rows)


def run(tensors, grad, **options):
    tensors = [a if a is None else a.detach().requires_grad_() for a in tensors]
    result = linear_gmm_log_likelihood(*tensors, **options)
    leaves = [a for a in tensors if a is not None]
    return [result.detach(), *torch.autograd.grad(result, leaves, grad.to(result))]


def oracle(tensors, grad, min_std=1e-3):
    arrays = [a if a is None else a.detach().double().numpy() for a in tensors]
    gradients = linear_gmm_log_likelihood_grad_numpy(grad.double().numpy(), *arrays, min_std=min_std)
    found = [linear_gmm_log_likelihood_numpy(*arrays, min_std=min_std)]
    return [torch.from_numpy(a) for a in (*found, *(g for g, a in zip(gradients, arrays) if a is not None))]


def errors(found, expected):
    return [(f.double() - e).abs().max().item() for f, e in zip(found, expected)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("biases", [True, False], ids=["biases", "no biases"])
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_and_gradients_are_as_exact_as_eager(level, shape, scale, biases, dtype):
    tensors, grad = problem(*shape, dtype, scale, biases)
    expected = oracle(tensors, grad)
    ours, eager = errors(run(tensors, grad), expected), errors(run(tensors, grad, backend="eager"), expected)
    # Rounded means make rounded deviations from them, and shares are exponentials of the sum of their squares.
    condition = max(1.0, expected[0].abs().max().item())
    for name, our, other, right in zip(("likelihood", *NAMES), ours, eager, expected):
        rounding = torch.finfo(dtype).eps * (20 + condition) * max(right.abs().max().item(), 1e-30)
        assert our <= 2 * other + rounding, name


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 100])
def test_any_chunk_gives_the_same(level, chunk):
    tensors, grad = problem(10, 7, 12, 6)
    for found, expected in zip(run(tensors, grad, chunk=chunk), run(tensors, grad)):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("shape", [(1200, 3, 4, 5), (70, 3, 200, 512)], ids=str)
def test_more_than_a_block_of_rows_and_than_a_panel_of_columns(level, shape):
    tensors, grad = problem(*shape)
    for found, expected in zip(run(tensors, grad, chunk=2), oracle(tensors, grad)):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_components_without_a_share_have_no_gradient(level, chunk):
    """One component is out of reach for all rows, and every row is out of reach of another."""
    tensors, grad = problem(40, 4, 30, 6)
    tensors[6] = tensors[6].view(4, 30) * torch.tensor([1.0, 300.0, 1.0, 1.0])[:, None]
    tensors[6][0] += 40
    tensors[6] = tensors[6].flatten()
    tensors[1][::2] += 40
    found, expected = run(tensors, grad, chunk=chunk), oracle(tensors, grad)
    for f, e in zip(found, expected):
        torch.testing.assert_close(f.double(), e, rtol=0, atol=2e-5 * e.abs().max().item())
    for gradient in (found[4], found[5], found[7], found[8]):
        assert (gradient.view(4, 30, -1)[1] == 0).all()


def test_is_the_head_and_the_likelihood_after_each_other(compiled):
    (x, y, w_logits, w_mean, w_std, b_logits, b_mean, b_std), _ = problem(6, 5, 8, 4)
    mean = (x @ w_mean.t() + b_mean).view(6, 5, 8)
    std = torch.nn.functional.softplus(x @ w_std.t() + b_std).view(6, 5, 8) + 0.1
    expected = gmm_log_likelihood(y, x @ w_logits.t() + b_logits, mean, std)
    found = linear_gmm_log_likelihood(x, y, w_logits, w_mean, w_std, b_logits, b_mean, b_std, min_std=0.1)
    torch.testing.assert_close(found, expected)


def test_eager_gradients_agree_with_the_oracle():
    tensors, grad = problem(5, 4, 6, 3, torch.float64)
    tensors = [a.requires_grad_() for a in tensors]
    found = torch.autograd.grad(linear_gmm_log_likelihood_torch(*tensors), tensors, grad)
    for f, e in zip(found, oracle(tensors, grad)[1:]):
        torch.testing.assert_close(f, e, rtol=1e-10, atol=1e-12)


def test_deviations_at_their_least_and_very_large(level):
    tensors, grad = problem(4, 3, 20, 5)
    tensors[7] = torch.linspace(-200, 200, 60)  # softplus gives 0 and its argument at the ends
    for f, e in zip(run(tensors, grad, min_std=0.5), oracle(tensors, grad, min_std=0.5)):
        assert f.isfinite().all()
        torch.testing.assert_close(f.double(), e, rtol=1e-3, atol=1e-5 * e.abs().max().item())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 1])
def test_a_bad_value_spoils_its_row_and_no_other(level, place, value):
    tensors, grad = problem(6, 4, 18, 5)
    tensors[place][2, 3] = value
    found = run(tensors, grad)
    spoiled = torch.arange(6) == 2
    assert torch.equal(~found[0].isfinite(), spoiled)
    for gradient in found[1:3]:
        assert torch.equal((~gradient.isfinite()).any(1), spoiled)


def test_half_weights_beside_wider_features(compiled):
    tensors, grad = problem(5, 4, 6, 3)
    for i in (3, 4):
        tensors[i] = tensors[i].bfloat16()
    result = run(tensors, grad)
    assert result[0].dtype == torch.float32
    assert [g.dtype for g in result[4:6]] == [torch.bfloat16] * 2
    for f, e in zip(result, run([a.float() for a in tensors], grad)):
        torch.testing.assert_close(f.float(), e, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("biases", [True, False])
def test_gradcheck(compiled, biases):
    tensors, _ = problem(3, 4, 2, 3, torch.float64, biases=biases)
    leaves = [a.requires_grad_() for a in tensors if a is not None]
    assert torch.autograd.gradcheck(lambda *a: linear_gmm_log_likelihood(*a, min_std=0.2, chunk=3), leaves)


MEMORY = """
import sys, torch
from vitlite.kernels import linear_gmm_log_likelihood

def peak():
    # High-water mark of the resident memory in bytes; the mark is lowered to what is held now before each measurement.
    return 1024 * int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])

def measure(function):
    open("/proc/self/clear_refs", "w").write("5")
    before = peak()
    function()
    return peak() - before

torch.set_num_threads(1)
rows, components, dims, features = (int(a) for a in sys.argv[2:])
x, y = torch.randn(rows, features), torch.randn(rows, dims)
weights = [torch.randn(n, features).mul_(0.05) for n in (components, components * dims, components * dims)]
x.requires_grad_()
linear_gmm_log_likelihood(x[:2, :3], y[:2, :1], *(w[:2, :3] for w in weights), backend=sys.argv[1]).sum().backward()

def forward():
    with torch.no_grad():
        linear_gmm_log_likelihood(x, y, *weights, backend=sys.argv[1])

def both():
    leaves = [x, *(w.requires_grad_() for w in weights)]
    kept = torch.autograd.grad(linear_gmm_log_likelihood(x, y, *weights, backend=sys.argv[1]).sum(), leaves)

print(measure(forward), measure(both))
"""


def peak_memory(backend, *shape):
    """Bytes that the process grows by, forward and forward with backward, measured in a process of its own."""
    command = [sys.executable, "-c", MEMORY, backend, *map(str, shape)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(number) for number in result.stdout.split()]


def clear_refs_works():
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


@pytest.mark.skipif(not clear_refs_works(), reason="no /proc/self/clear_refs to measure peak memory with")
def test_means_and_deviations_are_never_held(compiled):
    rows, components, dims, features = shape = (256, 60, 256, 64)
    table = 4 * rows * components * dims
    weights = 4 * features * components * (2 * dims + 1)
    forward, both = peak_memory("cpp", *shape)
    eager_forward, eager_both = peak_memory("eager", *shape)
    # One chunk of means and one of deviations, a million numbers each; the gradients of the weights; small change,
    # which includes the rounding of large tensors to pages of 2 MiB.
    assert forward < 2 * 4 * 2**20 + 2**22 < table
    assert both < weights + 2 * 4 * 2**20 + 2**23
    # Eager torch holds both tables and several more.
    assert eager_forward > 2 * table
    assert eager_both > 3 * table + weights


@pytest.mark.slow
@pytest.mark.skipif(not clear_refs_works(), reason="no /proc/self/clear_refs to measure peak memory with")
def test_peak_memory_of_a_large_head(compiled):
    rows, components, dims, features = shape = (512, 150, 512, 512)
    weights = 4 * features * components * (2 * dims + 1)
    # The least of several: two gradients of 150 MiB are rounded to pages by up to 25 MiB more or less.
    forward, both = (min(peaks) for peaks in zip(*(peak_memory("cpp", *shape) for _ in range(4))))
    table = 4 * rows * components * dims
    # Measured: 17 and 7 to 33 MiB beside the gradients of the weights, against 606 and 1052 MiB.
    assert forward < table / 6
    assert both < weights + table / 5
    assert peak_memory("eager", *shape)[1] > weights + 4 * table
