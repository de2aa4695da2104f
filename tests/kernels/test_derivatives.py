"""Derivatives that torch makes of functions, eager and compiled, and those of the registered operators themselves: they
are right or an error, never zeros."""

import pytest
import torch
from contract import assert_same, call, every_operator, recorded, sample, sizes_of, weighted
from torch.autograd import forward_ad

from vitlite import kernels

EXACT = {"rtol": 1e-9, "atol": 1e-9}
# Each makes a function of x of a function that returns one number.
TRANSFORMS = {
    "grad": torch.func.grad,
    "vjp": lambda f: lambda x: torch.func.vjp(f, x)[1](torch.ones((), dtype=x.dtype))[0],
    "jvp": lambda f: lambda x: torch.func.jvp(f, (x,), (x.cos(),))[1],
    "vmap": lambda f: lambda x: torch.func.vmap(f)(torch.stack([x, x.flip(0)])),
    "hessian": torch.func.hessian,
}
# attention is torch's own on a CPU.
every_fused = pytest.mark.parametrize("op", [op for op in kernels.OPERATORS if op != "attention"])


@pytest.fixture(autouse=True)
def _needs_compiled(compiled):
    torch.compiler.reset()


def function_of(op, **options):
    """A function of the first tensor, on which all others depend, that gives one number; and a small first tensor."""
    sizes = {"B": 1, "C": 1, "H": 3, "W": 4} if op == "ssim" else dict.fromkeys(sizes_of(op), 3)
    x, *others = sample(op, torch.float64, **sizes)
    return lambda x: weighted(call(op, x, *(a * (1 + 0.1 * x.mean()) for a in others), **options)), x


def slow_but(op, transform):
    """A compilation takes a second or two."""
    fast = (op, transform) in (("ssim", "grad"), ("memory_read", "jvp"))
    return pytest.param(op, transform, marks=[] if fast else pytest.mark.slow)


@every_operator
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms(op, transform):
    (function, x), (eager, _) = function_of(op), function_of(op, backend="eager")
    right = TRANSFORMS[transform](eager)(x)
    assert right.abs().max() > 1e-4
    torch.testing.assert_close(TRANSFORMS[transform](function)(x), right, **EXACT)


@pytest.mark.parametrize(("op", "transform"), [slow_but(op, name) for op in kernels.OPERATORS for name in TRANSFORMS])
def test_compiled_transforms(op, transform):
    (function, x), (eager, _) = function_of(op), function_of(op, backend="eager")
    right = TRANSFORMS[transform](eager)(x)
    found = torch.compile(TRANSFORMS[transform](function), backend="aot_eager")(x)
    torch.testing.assert_close(found, right, **EXACT)


@every_fused
@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_second_derivatives_of_compiled_code_are_refused(op, compiler):
    function, x = function_of(op)
    x.requires_grad_()
    gradient = torch.autograd.grad(torch.compile(function, backend=compiler)(x), x, create_graph=True)[0]
    torch.testing.assert_close(gradient, torch.autograd.grad(function(x), x)[0], **EXACT)
    with pytest.raises(RuntimeError, match=r"double backward|does not require grad"):
        torch.autograd.grad(gradient.square().sum(), x)


def test_a_compiled_function_under_forward_mode_is_refused():
    """torch.compile does not see it, and calls what it compiled without it."""
    function, x = function_of("memory_read")
    compiled = torch.compile(function, backend="aot_eager")
    compiled(x)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match=r"^vitlite::memory_read_forward has no torch.func"):
        compiled(forward_ad.make_dual(x, x.cos()))


@every_fused
def test_a_kernel_by_name_has_no_transforms(op):
    function, x = function_of(op, backend="cpp")
    said = f"^backend: 'cpp' of {op} has no torch.func and no forward mode; use 'auto'$"
    for transform in TRANSFORMS.values():
        with pytest.raises(ValueError, match=said):
            transform(function)(x)


def registered(op):
    """The registered operators that a call makes, forward and backward, each as (function of tensors, tensors)."""
    made = []
    for operator, arguments in recorded(op, sample(op, torch.float64, requires_grad=True)):
        tensors = [a for a in arguments if isinstance(a, torch.Tensor)]
        options = arguments[len(tensors) :]
        made.append((lambda *own, operator=operator, options=options: operator(*own, *options), tensors))
    return made


@every_fused
@pytest.mark.parametrize("compiled_graph", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_registered_operator_has_its_gradient(op, compiled_graph):
    (forward, tensors), _ = registered(op)
    leaves = [a.clone().requires_grad_() for a in tensors]
    results = (torch.compile(forward, backend="aot_eager") if compiled_graph else forward)(*leaves)
    results = [results] if isinstance(results, torch.Tensor) else results
    public = call(op, *leaves)
    assert [a.requires_grad for a in results] == [i < len(public) for i in range(len(results))]
    found = torch.autograd.grad(weighted(results[: len(public)]), leaves)
    assert_same(found, torch.autograd.grad(weighted(public), leaves), **EXACT)


@every_fused
def test_a_registered_operator_refuses_what_it_has_no_rule_for(op):
    (forward, tensors), (backward, grads) = registered(op)
    tangents = tuple(torch.ones_like(a) for a in tensors)
    several = [torch.stack([a, a.flip(0)]) for a in tensors]
    floats = [a for a in grads if a.is_floating_point()]  # the indices of nearest have no tangent

    def backward_of(*own):
        own = iter(own)
        return backward(*[next(own) if a.is_floating_point() else a for a in grads])

    for transform in (
        lambda: torch.func.grad(lambda *own: weighted([first(forward(*own))]))(*tensors),
        lambda: torch.func.jvp(forward, tuple(tensors), tangents),
        lambda: torch.func.jvp(backward_of, tuple(floats), tuple(torch.ones_like(a) for a in floats)),
    ):
        with pytest.raises(RuntimeError, match=f"vitlite::{op}_.*ward has no torch.func and no forward mode"):
            transform()
    found = torch.func.vmap(lambda *own: first(forward(*own)))(*several)
    assert_same(found, [first(forward(*own)) for own in zip(*several)], **EXACT)
    gradients = backward_of(*[a.clone().requires_grad_() for a in floats])
    with pytest.raises(RuntimeError, match=f"the backward pass of {op} has no derivative of its own; call {op} itself"):
        gradients[0].sum().backward()


def first(results):
    return results if isinstance(results, torch.Tensor) else results[0]
