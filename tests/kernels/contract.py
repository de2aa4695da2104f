"""What the tests of all operators go by: the list of operators, small calls of each, and what a call asks of torch."""

import inspect

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vitlite import kernels

# Away from the jump of the hard shrinkage.
OPTIONS = {"memory_read": {"threshold": 0.0}}

every_operator = pytest.mark.parametrize("op", kernels.OPERATORS)


def sample(op, dtype=torch.float32, requires_grad=False, device="cpu", **sizes):
    return [a.requires_grad_(requires_grad) for a in kernels.operator(op).sample(dtype, device, **sizes)]


def sizes_of(op):
    """The names of the sizes of an operator's tensors, and their defaults."""
    return {name: p.default for name, p in inspect.signature(kernels.operator(op).shapes).parameters.items()}


def larger(op, by):
    return {name: size + by for name, size in sizes_of(op).items()}


def call(op, *tensors, **options):
    """All results of the public function that have gradients, as a list: not the indices of ``nearest``."""
    results = getattr(kernels, op)(*tensors, **{**OPTIONS.get(op, {}), **options})
    return [results] if isinstance(results, torch.Tensor) else [a for a in results if a.is_floating_point()]


def weighted(results):
    """One number of all results, in which every element has another weight."""
    return sum((a.double() * torch.linspace(0.5, 1.5, a.numel(), device=a.device).view(a.shape)).sum() for a in results)


def results_and_gradients(op, tensors, function=call, **options):
    results = function(op, *tensors, **options)
    leaves = [a for a in tensors if a.requires_grad]
    return [*(a.detach() for a in results), *torch.autograd.grad(weighted(results), leaves)]


def assert_same(found, expected, **tolerance):
    assert len(found) == len(expected)
    for f, e in zip(found, expected):
        torch.testing.assert_close(f, e, **tolerance)


def assert_close(found, expected, tolerance=1e-5):
    """Up to an error relative to the largest number of a result, or to one."""
    assert len(found) == len(expected)
    for f, e in zip(found, expected):
        largest = max(1.0, e.abs().max().item()) if e.numel() else 1.0
        torch.testing.assert_close(f, e, rtol=0, atol=tolerance * largest)


def assert_ssim_is_bounded(backend, device="cpu"):
    """Of nearly equal images, and of nearly opposite ones: rounding alone gives 1.0002, whose distance has no root."""
    noise = torch.rand((1, 1, 16, 40), generator=torch.Generator().manual_seed(0)).sub(0.5).to(device)
    flat = torch.full_like(noise, 0.6)
    pairs = [(flat, flat + 1e-7), (flat, flat + 2e-7 * noise), (flat + 1e-2 * noise, flat + 1.00001e-2 * noise)]
    for x, y in [*pairs, (300 * flat, 300 * flat + noise), (noise, -noise)]:
        values = kernels.ssim(x, y, reduction="none", backend=backend)
        assert values.abs().max() <= 1
        for reduction in ("none", "mean"):
            assert (1 - kernels.ssim(x, y, reduction=reduction, backend=backend)).sqrt().isfinite().all()


class Recorder(TorchDispatchMode):
    """The calls of operators of vitlite in a block: ``made`` holds (operator, arguments)."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "vitlite":
            self.made.append((function, [a.detach() if isinstance(a, torch.Tensor) else a for a in args]))
        return function(*args, **(kwargs or {}))


def recorded(op, tensors, **options):
    """The operators of vitlite that a call and its backward pass make, with their arguments."""
    with Recorder() as recorder:
        results = call(op, *tensors, **options)
        if any(a.requires_grad for a in tensors):
            torch.autograd.grad(weighted(results), [a for a in tensors if a.requires_grad])
    return recorder.made


def assert_same_for_any_number_of_threads(function):
    """To the last bit; the function returns tensors."""
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        results.append(function())
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))
