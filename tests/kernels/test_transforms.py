"""The operators under what torch does with functions: second derivatives, forward mode, torch.func, compile, export."""

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from vitlite.kernels import attention, gmm_log_likelihood, linear_gmm_log_likelihood, memory_read, ssim


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MEAN, STD = numbers(5, 3, 4, seed=1), numbers(5, 3, 4, seed=2).exp()
WEIGHTS = [numbers(rows, 4, seed=rows) for rows in (3, 12, 13)]
WEIGHTS[2] = WEIGHTS[2][:12]

# Functions of one tensor whose arguments to the operator depend on one another.
OPERATORS = {
    "attention": (lambda x, **b: attention(x, x.sin(), x.cos(), **b), (1, 2, 5, 4)),
    "memory_read": (lambda x, **b: memory_read(x, x[:3] * 2 + 0.1, threshold=0.0, **b)[0], (6, 4)),
    "ssim": (lambda x, **b: ssim(x, 0.5 * x + 0.1 * x.flip(-1), window_size=5, **b), (1, 1, 9, 8)),
    "gmm_log_likelihood": (
        lambda x, **b: gmm_log_likelihood(x, x[:, :3], MEAN + x[:, None].sin(), STD, **b),
        (5, 4),
    ),
    "linear_gmm_log_likelihood": (lambda x, **b: linear_gmm_log_likelihood(x, x.tanh(), *WEIGHTS, **b), (5, 4)),
}
each = pytest.mark.parametrize(("function", "shape"), OPERATORS.values(), ids=OPERATORS)
# torch's own attention, which "auto" takes, has no second derivatives on a CPU.
each_of_ours = pytest.mark.parametrize(("function", "shape"), list(OPERATORS.values())[1:], ids=list(OPERATORS)[1:])


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@each_of_ours
def test_gradients_that_are_recorded_are_the_same(function, shape):
    """One argument made of another: its gradient reaches that one once."""
    x = numbers(*shape).requires_grad_()
    (plain,) = torch.autograd.grad(function(x).sum(), x)
    (recorded,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
    close(recorded, plain)
    close(torch.autograd.grad(recorded.square().sum(), x)[0], second_derivative(function, x))


def second_derivative(function, x):
    (grad,) = torch.autograd.grad(function(x, backend="eager").sum(), x, create_graph=True)
    return torch.autograd.grad(grad.square().sum(), x)[0]


@each
def test_torch_func(function, shape):
    x, along = numbers(*shape), numbers(*shape, seed=7)
    value, change = torch.func.jvp(function, (x,), (along,))
    close((value, change), torch.func.jvp(lambda a: function(a, backend="eager"), (x,), (along,)))
    assert change.abs().max() > 1e-3
    leaf = x.clone().requires_grad_()
    close(torch.func.grad(lambda a: function(a).sum())(x), torch.autograd.grad(function(leaf).sum(), leaf)[0])
    several = torch.stack([x, along])
    close(torch.func.vmap(function)(several), torch.stack([function(x), function(along)]))


def test_a_kernel_by_name_has_no_forward_mode():
    x = torch.rand(1, 1, 6, 6)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        with pytest.raises(ValueError, match=r"^backend: 'cpp' of ssim has no forward-mode derivatives; use 'auto'"):
            ssim(dual, x, backend="cpp")
        assert forward_ad.unpack_dual(ssim(dual, x)).tangent.abs() >= 0


@each
def test_eager_torch_compiles_to_one_graph(function, shape):
    """What serves where nothing was compiled."""
    torch._dynamo.reset()
    x = numbers(*shape).requires_grad_()
    compiled = torch.compile(lambda a: function(a, backend="eager"), fullgraph=True)
    close(compiled(x), function(x))


@pytest.mark.parametrize("op", ["ssim", "memory_read"])
def test_shapes_without_numbers(op):
    function, shape = OPERATORS[op]
    assert function(torch.empty(shape, device="meta")).device.type == "meta"


def test_a_compiled_scale_may_change():
    torch._dynamo.reset()
    compiled, q = torch.compile(lambda q, scale: attention(q, q, q, scale=scale), fullgraph=True), numbers(1, 2, 5, 4)
    for scale in (0.5, 0.25, 2.0):
        close(compiled(q, scale), attention(q, q, q, scale=scale))


class Memory(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.items = torch.nn.Parameter(torch.randn(10, 4))

    def forward(self, z):
        return memory_read(z, self.items)[0]


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_memory_takes_any_number_of_rows(strict):
    module, rows = Memory(), torch.export.Dim("rows", min=2, max=1 << 30)
    program = torch.export.export(module, (torch.randn(8, 4),), dynamic_shapes=({0: rows},), strict=strict)
    z = torch.randn(5, 4)
    torch.testing.assert_close(program.module()(z), module(z))


class Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_mixture_takes_any_number_of_dimensions(strict):
    rows, components, dims = (torch.export.Dim(name) for name in ("rows", "components", "dims"))
    shapes = {0: rows, 1: dims}, {0: rows, 1: components}, *[{0: rows, 1: components, 2: dims}] * 2

    def tensors(t, k, d):
        return numbers(t, d), numbers(t, k), numbers(t, k, d), numbers(t, k, d).exp()

    module = Module(lambda *a: gmm_log_likelihood(*a))
    program = torch.export.export(module, tensors(5, 3, 8), dynamic_shapes=(shapes,), strict=strict)
    for sizes in ((5, 3, 8), (4, 5, 2)):
        close(program.module()(*tensors(*sizes)), module(*tensors(*sizes)))


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda q: attention(q, q, q, scale=q.shape[2] ** -0.5), (1, 2, 5, 4)),
        (lambda z: memory_read(z, z, threshold=0.5 / z.shape[0])[0], (6, 4)),
    ],
    ids=["attention", "memory_read"],
)
def test_an_exported_option_may_come_from_a_shape(function, shape):
    """torch then takes the shape to be fixed."""
    x, module = numbers(*shape), Module(function)
    shapes = ((dict.fromkeys(range(len(shape)), torch.export.Dim.AUTO),),)
    close(torch.export.export(module, (x,), dynamic_shapes=shapes).module()(x), module(x))


def test_attention_trained_in_float16_keeps_large_scores_finite():
    q, k, v = (numbers(1, 1, 8, 64, seed=s).mul(200).half().requires_grad_() for s in range(3))
    result = attention(q, k, v)
    assert result.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(result.float().sum(), (q, k, v)))


@pytest.mark.parametrize(("rows", "dims"), [(1, 1), (40, 2), (3, 6), (30, 7)])
def test_few_dimensions_and_few_rows(rows, dims):
    """Where "auto" or the kernel itself takes another way."""
    y, mean, std = numbers(rows, dims), numbers(rows, 3, dims, seed=1), numbers(rows, 3, dims, seed=2).exp()
    logits, x = numbers(rows, 3, seed=3), numbers(rows, 5, seed=4)
    weights = [numbers(n, 5, seed=5) for n in (3, 3 * dims, 3 * dims)]
    for backend in ("auto", "cpp"):
        expected = gmm_log_likelihood(y, logits, mean, std, backend="eager")
        close(gmm_log_likelihood(y, logits, mean, std, backend=backend), expected)
        found = [w.clone().requires_grad_() for w in (x, y, *weights)]
        right = [w.clone().requires_grad_() for w in (x, y, *weights)]
        likelihood = linear_gmm_log_likelihood(*found, backend=backend)
        close(likelihood, linear_gmm_log_likelihood(*right, backend="eager"))
        likelihood.sum().backward()
        linear_gmm_log_likelihood(*right, backend="eager").sum().backward()
        for a, b in zip(found, right):
            close(a.grad, b.grad)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sigma": "1"}, "sigma: expected a finite number above 0, got '1'"),
        ({"sigma": None}, "sigma: expected a finite number above 0, got None"),
        ({"reduction": ["mean"]}, "reduction: "),
        ({"backend": []}, "backend: "),
        ({"window_size": True}, "window_size: expected an odd number of pixels, got True"),
        ({"window_size": 5.0}, "window_size: "),
    ],
    ids=str,
)
def test_options_of_another_type(options, says):
    x = torch.rand(1, 1, 8, 8)
    with pytest.raises(ValueError, match=f"^{says}".replace("[", r"\[")):
        ssim(x, x, **options)


def test_options_of_numpy_s_types():
    x, y = torch.rand(2, 1, 1, 12, 12).unbind()
    assert torch.equal(ssim(x, y, window_size=np.int64(5), sigma=np.float32(1.5)), ssim(x, y, window_size=5))
    with pytest.raises(ValueError, match=r"^scale: expected a finite number, got 'a'"):
        attention(x, x, x, scale="a")
    for wrong in ({"eps": None}, {"threshold": "x"}, {"eps": 1e-46}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
            memory_read(x[0, 0], y[0, 0], **wrong)
