"""memory_read against its numpy oracle, and under every option."""

import math

import pytest
import torch
from contract import assert_same_for_any_number_of_threads
from torch.nn.functional import normalize

from vitlite.kernels import memory_read
from vitlite.kernels.memory.reference import memory_read_grad_numpy, memory_read_numpy, memory_read_torch

# Rows, items, channels.
SHAPES = [(1, 1, 1), (3, 1, 30), (1, 7, 5), (5, 33, 17), (40, 100, 48), (9, 64, 32), (70, 20, 130)]
BACKENDS = ["cpp", "eager"]


def problem(rows, items, channels, dtype=torch.float32, scale=1.0, seed=0, margin=1e-3, temperature=1.0):
    """Queries and items whose softmax keeps clear of the threshold 1 / N, where the operator jumps; and gradients."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    memory = normal(items, channels).mul(scale).to(dtype)
    many = normal(40 * rows if margin else rows, channels).mul(scale).to(dtype)
    cosines = normalize(many.double()) @ normalize(memory.double()).t()
    clear = ((torch.softmax(temperature * cosines, 1) * items - 1).abs() >= margin).all(1)
    z = many[clear if items > 1 else slice(None)][:rows]
    assert len(z) == rows
    return z, memory, normal(rows, channels).to(dtype), normal(rows).to(dtype)


def run(z, items, grad_output, grad_entropy, **options):
    z, items = z.detach().requires_grad_(), items.detach().requires_grad_()
    output, entropy = memory_read(z, items, **options)
    grads = torch.autograd.grad((output, entropy), (z, items), (grad_output.to(output), grad_entropy.to(output)))
    return [output.detach(), entropy.detach(), *grads]


def oracle(z, items, grad_output, grad_entropy, **options):
    arrays = [a.detach().double().numpy() for a in (z, items, grad_output, grad_entropy)]
    grads = memory_read_grad_numpy(arrays[2], arrays[3], arrays[0], arrays[1], **options)
    return [torch.from_numpy(a) for a in (*memory_read_numpy(arrays[0], arrays[1], **options), *grads)]


def errors(found, expected):
    return [(f.double() - e).abs().max().item() for f, e in zip(found, expected)]


def assert_as_exact_as_eager(arguments, expected, dtype, **options):
    ours = errors(run(*arguments, **options), expected)
    eager = errors(run(*arguments, backend="eager", **options), expected)
    for name, our, other, right in zip(("output", "entropy", "grad z", "grad items"), ours, eager, expected):
        rounding = 20 * torch.finfo(dtype).eps * max(right.abs().max().item(), 1e-30)
        assert our <= 2 * other + rounding, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e-3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_and_gradients_are_as_exact_as_eager(level, shape, scale, dtype):
    arguments = problem(*shape, dtype, scale)
    assert_as_exact_as_eager(arguments, oracle(*arguments), dtype)


@pytest.mark.parametrize("options", [{"threshold": 0.0}, {"threshold": 0.004}, {"temperature": 4.0}])
def test_other_thresholds_and_temperatures(level, options):
    arguments = problem(12, 40, 16, temperature=options.get("temperature", 1.0))
    assert_as_exact_as_eager(arguments, oracle(*arguments, **options), torch.float32, **options)


def test_eager_gradients_agree_with_the_oracle():
    arguments = problem(8, 30, 10, torch.float64)
    z, items = (a.requires_grad_() for a in arguments[:2])
    grads = torch.autograd.grad(memory_read_torch(z, items), (z, items), arguments[2:])
    for found, expected in zip(grads, oracle(*arguments)[2:]):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_blocks_of_rows_and_a_softmax_that_is_not_kept(compiled, monkeypatch):
    """More rows than one block holds; and the backward pass without the weights gives the same gradients."""
    from vitlite.kernels.memory import op

    arguments = problem(150, 9000, 4, margin=0)
    kept = run(*arguments, threshold=0.0)
    for found, expected in zip(kept, oracle(*arguments, threshold=0.0)):
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    monkeypatch.setattr(op, "KEPT_WEIGHTS", 0)
    for found, expected in zip(run(*arguments, threshold=0.0), kept):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("shape", [(100, 450, 500), (15, 1000, 512), (430, 31, 33)], ids=str)
def test_matrix_products_of_all_sizes(level, shape, dtype):
    """More rows, columns and terms than a tile, a panel and a cut hold, and rows whose distance is a power of two."""
    arguments = problem(*shape, dtype, margin=0)
    for found, expected in zip(run(*arguments, threshold=0.0), oracle(*arguments, threshold=0.0)):
        atol = 1000 * torch.finfo(dtype).eps * expected.abs().max().item()
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=atol)


def test_same_result_for_any_number_of_threads(level):
    if level == "generic":
        pytest.skip("the matrix products of torch differ with the number of threads")
    arguments = problem(300, 70, 90, margin=0)
    assert_same_for_any_number_of_threads(lambda: run(*arguments))


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_item_is_at_its_threshold_and_gives_zeros(compiled, backend):
    for found in run(torch.randn(4, 3), torch.randn(1, 3), torch.ones(4, 3), torch.ones(4), backend=backend):
        assert (found == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_weight_shrunk_away_gives_zeros_and_no_gradient(compiled, backend):
    arguments = problem(5, 12, 8)
    for found in run(*arguments, threshold=1.0, backend=backend):
        assert (found == 0).all()
    for found in run(*arguments, threshold=3.5, backend=backend):
        assert (found == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_equal_cosines_are_all_at_the_threshold(level, dtype):
    """The softmax of N equal cosines is 1 / N within rounding, for every N: not above the threshold."""
    generator = torch.Generator().manual_seed(0)
    for count in range(1, 200):
        items = torch.randn(count, 6, generator=generator, dtype=dtype)
        item = torch.randn(1, 6, generator=generator, dtype=dtype)
        # Cosines of 0, and equal ones of rows that differ in length.
        alike = item * (1 + torch.arange(count)[:, None])
        for z, memory in ((torch.zeros(2, 6, dtype=dtype), items), (items[:2], alike)):
            output, entropy = memory_read(z, memory)
            assert (output == 0).all(), count
            assert (entropy == 0).all(), count


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_has_no_spike_next_to_the_threshold(compiled, backend):
    """The papers' shrinkage has derivative w / eps there, which makes the gradient of z 1.4 times as large here."""
    z, items, *grads = problem(1, 500, 64, margin=0)
    weights = torch.softmax(normalize(z.double()) @ normalize(items.double()).t(), 1)
    threshold = weights.median().item() * (1 - 20 * torch.finfo(torch.float32).eps)
    found = run(z, items, *grads, threshold=threshold, backend=backend)
    for f, e in zip(found, oracle(z, items, *grads, threshold=threshold)):
        torch.testing.assert_close(f.double(), e, rtol=0, atol=1e-5 * e.abs().max().item())


@pytest.mark.parametrize("temperature", [1e-3, 40.0, 1e3])
def test_high_and_low_temperatures_are_finite(level, temperature):
    arguments = problem(6, 30, 5, margin=0)
    arguments[0][1] = -arguments[1].mean(0)  # far from most
    found = run(*arguments, threshold=0.0, temperature=temperature)
    for f, e in zip(found, oracle(*arguments, threshold=0.0, temperature=temperature)):
        torch.testing.assert_close(f.double(), e, rtol=0, atol=2e-6 * (1 + temperature) * (1 + e.abs().max().item()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_zero_rows(level, dtype):
    z, items, grad_output, grad_entropy = problem(6, 25, 12, dtype)
    z[2] = 0
    items[3] = 0
    found = run(z, items, grad_output, grad_entropy, threshold=0.039)
    expected = oracle(z, items, grad_output, grad_entropy, threshold=0.039)
    for f, e in zip(found, expected):
        assert f.isfinite().all()
        torch.testing.assert_close(f.double(), e, rtol=0, atol=1e-4 * e.abs().max().item())
    all_zero = run(torch.zeros(2, 5), torch.zeros(3, 5), torch.ones(2, 5), torch.ones(2))
    assert all((a == 0).all() for a in all_zero)


def test_weights_of_one_item_have_no_entropy(level):
    items = torch.eye(8)
    output, entropy = memory_read(5 * items[:3], items, threshold=0.2)
    torch.testing.assert_close(output, items[:3])
    assert (entropy == 0).all()


def test_entropy_is_at_most_the_logarithm_of_the_number_of_items(level):
    z, items, *_ = problem(30, 90, 24)
    entropy = memory_read(z, items, threshold=0.0)[1]
    assert (entropy <= math.log(90) * (1 + 1e-6)).all()
    assert (entropy > 0.9 * math.log(90)).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_query_spoils_its_row_and_a_bad_item_all(level, value):
    z, items, *_ = problem(9, 37, 18)
    bad = z.clone()
    bad[4, 7] = value
    output, entropy = memory_read(bad, items)
    spoiled = torch.arange(9) == 4
    assert torch.equal(output.isnan().all(1), spoiled)
    assert torch.equal(output.isnan().any(1), spoiled)
    assert torch.equal(entropy.isnan(), spoiled)
    items[36, 2] = value
    output, entropy = memory_read(z, items)
    assert output.isnan().all()
    assert entropy.isnan().all()


def test_gradient_through_one_result_alone(level):
    z, items, grad_output, grad_entropy = problem(7, 22, 9)
    for used in (0, 1):
        grads = [grad_output, grad_entropy]
        grads[1 - used] = torch.zeros_like(grads[1 - used])
        expected = oracle(z, items, *grads)[2:]
        inputs = z.detach().requires_grad_(), items.detach().requires_grad_()
        found = torch.autograd.grad(memory_read(*inputs)[used], inputs, grads[used])
        for f, e in zip(found, expected):
            torch.testing.assert_close(f.double(), e, rtol=1e-4, atol=1e-5 * e.abs().max().item())


@pytest.mark.parametrize("options", [{}, {"threshold": 0.0}, {"temperature": 5.0}])
def test_gradcheck(compiled, options):
    z, items, *_ = problem(4, 6, 5, torch.float64, margin=1e-2, temperature=options.get("temperature", 1.0))
    z, items = z.requires_grad_(), items.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: memory_read(a, b, **options), (z, items))
