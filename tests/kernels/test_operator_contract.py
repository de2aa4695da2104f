"""What every operator of the list promises, on a CPU: shapes, dtypes, strides, gradients, refusals, and what torch does
with functions: second derivatives, forward mode, torch.func, compile, autocast, export."""

import copy
import inspect
import warnings

import numpy as np
import pytest
import torch
from contract import (
    assert_close,
    assert_same,
    call,
    every_operator,
    larger,
    recorded,
    results_and_gradients,
    sample,
    sizes_of,
    weighted,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from vitlite import kernels
from vitlite.kernels import attention, linear_gmm_log_likelihood, memory_read, ssim

HALF = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(autouse=True)
def _needs_compiled(compiled):
    torch.compiler.reset()


@pytest.fixture(params=["auto", "eager"])
def backend(request):
    return request.param


def twice(op):
    """A backend whose gradients can be differentiated: torch's own attention, which "auto" takes, has none on a CPU."""
    return "eager" if op == "attention" else "auto"


@every_operator
def test_the_list_is_the_public_functions(op):
    function = getattr(kernels, op)
    assert op in dir(kernels)
    assert function.__name__ == kernels.operator(op).name == op
    assert "backend" in inspect.signature(function).parameters
    assert "Raises:" in function.__doc__


@every_operator
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_opcheck(op, dtype):
    """On the very calls that the public function makes, with all gradients and with every second one.

    How an operator is registered, and what becomes of it in a graph, does not depend on the dtype.
    """
    tensors = sample(op, dtype)
    checks = "test_schema", "test_faketensor"
    if dtype == torch.float32:
        checks += "test_autograd_registration", "test_aot_dispatch_dynamic"
    if op == "attention":
        assert recorded(op, tensors) == []  # torch's own serves
        return
    names = set()
    for wanted in ([True] * len(tensors), [i % 2 == 0 for i in range(len(tensors))], [False] * len(tensors)):
        leaves = [a.requires_grad_(want) for a, want in zip(copy.deepcopy(tensors), wanted)]
        for operator, arguments in recorded(op, leaves, backend="cpp"):
            names.add(operator._schema.name)
            torch.library.opcheck(operator, tuple(arguments), test_utils=checks)
    assert names == {f"vitlite::{op}_forward", f"vitlite::{op}_backward"}


@every_operator
def test_symbolic_sizes_change_neither_shapes_nor_strides(op):
    """torch then takes them from the decomposition for exporters, and compiled code relies on them."""
    made = recorded(op, sample(op), backend="auto" if op == "attention" else "cpp")
    if op == "attention":  # the one that a GPU's kernels serve
        made = [(torch.ops.vitlite.triton_attention_forward.default, (*sample(op, B=2), 0.5))]
    ((operator, arguments),) = made
    assert operator in torch._decomp.decomposition_table
    found = []
    for symbols in (None, ShapeEnv()):
        with FakeTensorMode(shape_env=symbols) as fake:
            given = [fake.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments]
            results = operator(*given)
        results = [results] if isinstance(results, torch.Tensor) else results
        found.append([(a.dtype, [*map(int, a.shape)], [*map(int, a.stride())]) for a in results])
    assert found[0] == found[1]


@every_operator
def test_inputs_that_are_copied_on_write_are_not_copied(op, backend):
    tensors = [torch._lazy_clone(a).requires_grad_() for a in sample(op)]
    results = [r for r in call(op, *tensors, backend=backend) if r.is_floating_point()]
    torch.autograd.grad(results, tensors, [torch.ones_like(r) for r in results])
    assert all(map(torch._C._is_cow_tensor, tensors))


@every_operator
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_to_one_graph_with_dynamic_shapes(op, backend, compiler):
    # Eager torch gets dynamic shapes when it sees the second size: from the start a deviation would be dynamic too, of
    # which the window of ssim cannot be made.
    dynamic = None if backend == "eager" else True
    function = torch.compile(
        lambda *a: [2 * r for r in call(op, *a, backend=backend)], fullgraph=True, dynamic=dynamic, backend=compiler
    )
    for sizes in ({}, larger(op, 3)):
        tensors = sample(op, requires_grad=True, **sizes)
        found = results_and_gradients(op, tensors, lambda _, *a: function(*a))
        right = results_and_gradients(op, tensors, lambda _, *a: [2 * r for r in call(op, *a)])
        assert_close(found, right)
    with torch.no_grad():
        assert_close(function(*tensors), right[: len(right) - len(tensors)])


class Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


@every_operator
def test_export_takes_other_sizes(op):
    """All of them; the graph holds our operator, if one of ours serves."""
    module, tensors = Module(lambda *a: call(op, *a)), tuple(sample(op, **larger(op, 1)))
    shapes = (tuple(dict.fromkeys(range(a.dim()), torch.export.Dim.AUTO) for a in tensors),)
    program = torch.export.export(module, tensors, dynamic_shapes=shapes)
    ours = any(f"vitlite.{op}_forward" in str(node.target) for node in program.graph.nodes)
    assert ours == (op != "attention")
    for by in (1, 3):
        tensors = sample(op, **larger(op, by))
        assert_same(program.module()(*tensors), module(*tensors))


@every_operator
@pytest.mark.slow
def test_export_to_onnx(op, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    tensors, path = tuple(sample(op)), str(tmp_path / "op.onnx")
    torch.onnx.export(Module(lambda *a: call(op, *a)), tensors, path, dynamo=True, verbose=False)
    session = runtime.InferenceSession(path)
    found = session.run(None, {a.name: t.numpy() for a, t in zip(session.get_inputs(), tensors)})
    assert_close([torch.from_numpy(a) for a in found], call(op, *tensors))


@every_operator
@HALF
def test_autocast(op, backend, dtype):
    """Computes and returns float32, also for tensors of half precision; attention returns what autocast asks for."""
    tensors = sample(op, requires_grad=True)
    expected = call(op, *tensors)
    with torch.autocast("cpu", dtype=dtype):
        plain = call(op, *tensors, backend=backend)
        narrow = call(op, *[a.to(dtype) for a in tensors], backend=backend)
        mixed = call(op, tensors[0].to(dtype), *tensors[1:], backend=backend)
    for results in (plain, narrow, mixed):
        assert {a.dtype for a in results} == {dtype if op == "attention" else torch.float32}
        assert_same([a.float() for a in results], expected, rtol=0.1, atol=0.1)
    if op != "attention":
        assert_same(plain, expected)
    for a in torch.autograd.grad(weighted(narrow), tensors):
        assert a.dtype == torch.float32
        assert a.isfinite().all()


@every_operator
@HALF
def test_half_precision_is_computed_in_float32(op, backend, dtype):
    tensors = sample(op, dtype, requires_grad=True)
    wide = [a.detach().float().requires_grad_() for a in tensors]
    results = call(op, *tensors, backend=backend)
    assert {a.dtype for a in results} == {dtype}
    found = results_and_gradients(op, tensors, backend=backend)
    expected = results_and_gradients(op, wide, backend=backend)
    assert {a.dtype for a in found} == {dtype}
    # Attention is torch's, or eager's, which round on the way.
    eps = torch.finfo(dtype).eps
    rounding = {"rtol": 16 * eps, "atol": 16 * eps} if op == "attention" else {"rtol": 2 * eps, "atol": 4 * eps}
    assert_same([a.float() for a in found], expected, **rounding)


@every_operator
def test_mixed_dtypes_meet_in_the_widest(op):
    narrow, *others = sample(op, torch.bfloat16, requires_grad=True)
    others = [a.detach().double().requires_grad_() for a in others]
    if op == "attention":
        with pytest.raises(ValueError, match=r"^k: is float64 but q is bfloat16"):
            call(op, narrow, *others)
        return
    results = call(op, narrow, *others)
    assert {a.dtype for a in results} == {torch.float64}
    assert_same(results, call(op, narrow.double(), *others))
    grads = torch.autograd.grad(weighted(results), [narrow, *others])
    assert [a.dtype for a in grads] == [torch.bfloat16] + [torch.float64] * len(others)


def views(a):
    """The same numbers in other places of memory: transposed, and with gaps."""
    turned = a.mT.contiguous().mT if a.dim() > 1 else a.flip(0).contiguous().flip(0)
    wide = torch.full([2 * n + 3 for n in a.shape], float("nan"), dtype=a.dtype)
    gaps = wide[tuple(slice(2, 2 + 2 * n, 2) for n in a.shape)]
    gaps.copy_(a)
    return turned, gaps, gaps.flip(0).flip(0)


@every_operator
def test_any_strides(op, backend):
    tensors = sample(op)
    right = results_and_gradients(op, [a.clone().requires_grad_() for a in tensors], backend=backend)
    for given in zip(*(views(a) for a in tensors)):
        found = results_and_gradients(op, [a.detach().requires_grad_() for a in given], backend=backend)
        assert_close(found, right)
    # The same row many times.
    once = tensors[0][:1].expand(tensors[0].shape)
    found, right = (call(op, a, *tensors[1:], backend=backend) for a in (once, once.contiguous()))
    assert_same(found, right)


@every_operator
def test_no_rows(op, backend):
    first = next(iter(sizes_of(op)))
    tensors = sample(op, requires_grad=True, **{first: 0})
    options = {"reduction": "sum"} if op == "ssim" else {}  # no mean of no images
    found = results_and_gradients(op, tensors, backend=backend, **options)
    expected = results_and_gradients(op, tensors, backend="eager", **options)
    assert_same(found, expected)
    for gradient in found[len(found) - len(tensors) :]:
        assert (gradient == 0).all()


@every_operator
def test_gradient_of_one_tensor_alone(op, level):
    together = sample(op, requires_grad=True)
    expected = torch.autograd.grad(weighted(call(op, *together)), together)
    for wanted, right in enumerate(expected):
        tensors = [a.requires_grad_(i == wanted) for i, a in enumerate(sample(op))]
        (alone,) = torch.autograd.grad(weighted(call(op, *tensors)), tensors[wanted])
        torch.testing.assert_close(alone, right)


@every_operator
def test_gradcheck(op, backend):
    tensors = sample(op, torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *a: tuple(call(op, *a, backend=backend)), tensors)


@every_operator
def test_second_derivatives(op):
    tensors = sample(op, torch.float64, requires_grad=True, **dict.fromkeys(sizes_of(op), 2))
    assert torch.autograd.gradgradcheck(lambda *a: tuple(call(op, *a, backend=twice(op))), tensors)


def chained(op, **options):
    """A function of the first tensor, on which all others depend, that gives the first result; and that tensor."""
    first, *others = sample(op, torch.float64)
    return lambda x: call(op, x, *(a * (1 + 0.1 * x.mean()) for a in others), **options)[0], first


@every_operator
def test_gradients_that_are_recorded_are_the_same(op):
    """A tensor made of another: its gradient reaches that one once."""
    function, x = chained(op, backend=twice(op))
    eager, _ = chained(op, backend="eager")
    x.requires_grad_()
    (plain,) = torch.autograd.grad(function(x).sum(), x)
    (recorded,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
    (right,) = torch.autograd.grad(eager(x).sum(), x, create_graph=True)
    assert_same([recorded, plain], [right, right], **EXACT)
    second, expected = (torch.autograd.grad(a.square().sum(), x)[0] for a in (recorded, right))
    torch.testing.assert_close(second, expected, **EXACT)


@every_operator
def test_torch_func(op):
    (function, x), (eager, _) = chained(op), chained(op, backend="eager")
    along = torch.randn(x.shape, generator=torch.Generator().manual_seed(7), dtype=x.dtype)
    found, expected = (torch.func.jvp(f, (x,), (along,)) for f in (function, eager))
    assert_same(found, expected, **EXACT)
    assert found[1].abs().max() > 1e-3
    leaf = x.clone().requires_grad_()
    right = torch.autograd.grad(function(leaf).sum(), leaf)[0]
    torch.testing.assert_close(torch.func.grad(lambda a: function(a).sum())(x), right, **EXACT)
    several = torch.stack([x, x.flip(0)])
    assert_same(torch.func.vmap(function)(several), [function(a) for a in several], **EXACT)


@every_operator
def test_a_plain_call_leaves_its_tensors_alone_and_warns_of_nothing(op):
    tensors = sample(op, requires_grad=True)
    copies = [a.detach().clone() for a in tensors]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results_and_gradients(op, tensors)
    assert all(torch.equal(a.detach(), b) for a, b in zip(tensors, copies))


@every_operator
def test_no_gradient_is_recorded_if_none_is_wanted(op):
    tensors = sample(op)
    assert not any(a.requires_grad for a in call(op, *tensors))
    tensors[-1].requires_grad_()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert not any(a.requires_grad for a in call(op, *tensors))
    assert all(a.requires_grad for a in call(op, *tensors))


@every_operator
def test_shapes_without_numbers(op):
    tensors = [a.to("meta") for a in sample(op)]
    assert [a.shape for a in call(op, *tensors)] == [a.shape for a in call(op, *sample(op))]
    assert {a.device.type for a in call(op, *tensors)} == {"meta"}


def refused(op, argument, tensors, options):
    with pytest.raises(ValueError, match=f"^{argument}: ") as caught:
        getattr(kernels, op)(*tensors, **options)
    assert "\n" not in str(caught.value)


@every_operator
def test_a_wrong_tensor_is_named_in_one_line(op):
    names = list(inspect.signature(getattr(kernels, op)).parameters)
    for i, right in enumerate(sample(op)):
        for wrong in (right.tolist(), right.numpy(), right.long(), right[None], right.to_sparse(), right.to("meta")):
            if i == 0 and isinstance(wrong, torch.Tensor) and wrong.is_meta:
                continue  # the others are then on another device than it
            tensors = sample(op)
            tensors[i] = wrong
            refused(op, names[i], tensors, {})
    for backend in ("fast", "triton", [], None):
        refused(op, "backend", sample(op), {"backend": backend})


# Operator, sizes of one tensor that do not go with the others (by its place), options, and what the message names.
SHAPES = [
    ("attention", {1: (1, 2, 6, 5)}, "k"),
    ("attention", {1: (1, 3, 6, 4), 2: (1, 3, 6, 3)}, "k"),
    ("attention", {1: (1, 2, 0, 4), 2: (1, 2, 0, 3)}, "k"),
    ("attention", {2: (1, 2, 5, 3)}, "v"),
    ("memory_read", {1: (7, 5)}, "items"),
    ("memory_read", {1: (0, 4)}, "items"),
    ("memory_read", {0: (6, 0), 1: (7, 0)}, "items"),
    ("nearest", {1: (7, 5)}, "bank"),
    ("nearest", {1: (0, 4)}, "bank"),
    ("nearest", {0: (6, 0), 1: (7, 0)}, "bank"),
    ("ssim", {1: (1, 2, 12, 14)}, "y"),
    ("ssim", {0: (1, 2, 12, 0), 1: (1, 2, 12, 0)}, "x"),
    ("gmm_log_likelihood", {0: (5, 0), 2: (5, 4, 0), 3: (5, 4, 1)}, "y"),
    ("gmm_log_likelihood", {1: (6, 4)}, "logits"),
    ("gmm_log_likelihood", {1: (5, 0)}, "logits"),
    ("gmm_log_likelihood", {2: (5, 3, 3)}, "mean"),
    ("gmm_log_likelihood", {3: (5, 4, 2)}, "std"),
    ("linear_gmm_log_likelihood", {0: (5, 0)}, "x"),
    ("linear_gmm_log_likelihood", {1: (6, 3)}, "y"),
    ("linear_gmm_log_likelihood", {1: (5, 0)}, "y"),
    ("linear_gmm_log_likelihood", {2: (4, 5)}, "w_logits"),
    ("linear_gmm_log_likelihood", {2: (0, 6)}, "w_logits"),
    ("linear_gmm_log_likelihood", {3: (4, 6)}, "w_mean"),
    ("linear_gmm_log_likelihood", {4: (12, 5)}, "w_std"),
    ("linear_gmm_log_likelihood", {5: (3,)}, "b_logits"),
    ("linear_gmm_log_likelihood", {6: (12, 1)}, "b_mean"),
    ("linear_gmm_log_likelihood", {7: (11,)}, "b_std"),
]
VALUES = [
    ("attention", "scale", [float("nan"), float("inf"), "a"]),
    ("memory_read", "threshold", [-0.1, float("nan"), "x"]),
    ("memory_read", "temperature", [0.0, -1.0, float("inf"), None]),
    ("nearest", "k", [0, 8, 1.0, True]),
    ("ssim", "window_size", [4, 11.0, True]),
    ("ssim", "window", ["box"]),
    ("ssim", "sigma", [0.0, float("nan"), "1", None]),
    ("ssim", "data_range", [-1]),
    ("ssim", "padding", ["reflect"]),
    ("ssim", "reduction", ["average", ["mean"]]),
    ("linear_gmm_log_likelihood", "min_std", [0.0]),
    ("linear_gmm_log_likelihood", "chunk", [0, 2.0]),
]


@pytest.mark.parametrize(("op", "shapes", "argument"), SHAPES, ids=str)
def test_shapes_that_do_not_go_together(op, shapes, argument):
    refused(op, argument, [torch.rand(shapes[i]) if i in shapes else a for i, a in enumerate(sample(op))], {})


@pytest.mark.parametrize(
    ("op", "option", "value"), [(op, option, value) for op, option, values in VALUES for value in values], ids=str
)
def test_wrong_options_are_named_in_one_line(op, option, value):
    refused(op, option, sample(op), {option: value})


def test_a_valid_window_must_fit():
    refused("ssim", "x", sample("ssim"), {"window_size": 13, "padding": "valid"})


def test_options_of_numpy_s_types():
    x, y = sample("ssim")
    assert torch.equal(ssim(x, y, window_size=np.int64(5), sigma=np.float32(1.5)), ssim(x, y, window_size=5))


def test_a_kernel_by_name_has_no_forward_mode():
    x = torch.rand(1, 1, 6, 6)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        with pytest.raises(ValueError, match=r"^backend: 'cpp' of ssim has no torch.func and no forward mode"):
            ssim(dual, x, backend="cpp")
        assert forward_ad.unpack_dual(ssim(dual, x)).tangent.abs() >= 0


def test_a_compiled_scale_may_change():
    compiled, q = (
        torch.compile(lambda q, scale: attention(q, q, q, scale=scale), fullgraph=True),
        torch.rand(1, 2, 5, 4),
    )
    for scale in (0.5, 0.25, 2.0):
        torch.testing.assert_close(compiled(q, scale), attention(q, q, q, scale=scale))


@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_memory_takes_any_number_of_rows_and_items(strict, backend):
    """Its threshold is that of the number of items."""
    rows, count = (torch.export.Dim(name, min=2, max=1 << 30) for name in ("rows", "count"))
    module = Module(lambda z, items: memory_read(z, items, backend=backend))
    example, shapes = (torch.randn(8, 4), torch.randn(10, 4)), (({0: rows}, {0: count}),)
    program = torch.export.export(module, example, dynamic_shapes=shapes, strict=strict)
    for sizes in ((5, 10), (8, 3), (2, 40)):
        tensors = [torch.randn(size, 4) for size in sizes]
        assert_same(program.module()(*tensors), module(*tensors))


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
    x, module = torch.randn(shape), Module(function)
    shapes = ((dict.fromkeys(range(len(shape)), torch.export.Dim.AUTO),),)
    torch.testing.assert_close(torch.export.export(module, (x,), dynamic_shapes=shapes).module()(x), module(x))


def test_attention_trained_in_float16_keeps_large_scores_finite():
    q, k, v = ((torch.randn(1, 1, 8, 64) * 200).half().requires_grad_() for _ in range(3))
    result = attention(q, k, v)
    assert result.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(result.float().sum(), (q, k, v)))


@pytest.mark.parametrize(("rows", "dims"), [(1, 1), (40, 2), (3, 6), (30, 7)])
@pytest.mark.parametrize("op", ["gmm_log_likelihood", "linear_gmm_log_likelihood"])
def test_few_dimensions_and_few_rows(op, rows, dims):
    """With these "auto" or the kernel itself takes another way."""
    tensors = sample(op, torch.float64, requires_grad=True, T=rows, D=dims)
    expected = results_and_gradients(op, tensors, backend="eager")
    for backend in ("auto", "cpp"):
        assert_same(results_and_gradients(op, tensors, backend=backend), expected, **EXACT)


def test_ssim_under_other_windows_on_a_gpu(monkeypatch):
    """The compiled kernels are for one window; Triton serves the others up to its widest, then eager torch."""
    from vitlite.kernels.ssim import op

    choice = kernels.operator("ssim").backends.choice
    for there, expected in (("triton", ["triton", "eager"]), (None, ["eager", "eager"])):
        with monkeypatch.context() as patch:
            patch.setitem(choice, ("triton", "cuda"), there) if there else patch.delitem(
                choice, ("triton", "cuda"), raising=False
            )
            assert [op._for_window(size, "cuda", "auto") for size in (7, 27)] == expected
    for backend in ("cuda", "triton"):
        with pytest.raises(ValueError, match=f"^window_size: 27 is .* of backend='{backend}'"):
            op._for_window(27, backend, backend)


def trained(parameters, loss, steps, rate):
    """The loss before and after training."""
    optimizer = torch.optim.Adam(parameters, lr=rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses[0], loss().item()


def test_training_on_ssim_restores_an_image():
    target, image = torch.rand(2, 1, 1, 24, 24, generator=torch.Generator().manual_seed(0)).unbind()
    image = image.clone().requires_grad_()
    first, last = trained([image], lambda: 1 - ssim(image, target), 150, 0.05)
    assert first > 0.7
    assert last < 0.01


def test_training_moves_items_to_the_queries():
    generator = torch.Generator().manual_seed(0)
    z, items = torch.randn(3, 8, generator=generator), torch.randn(12, 8, generator=generator).requires_grad_()
    z = z.repeat(20, 1) + 0.01 * torch.randn(60, 8, generator=generator)

    def loss():
        output, entropy = memory_read(z, items)
        return (output - z).square().mean() + 0.01 * entropy.mean()

    first, last = trained([items], loss, 150, 0.05)
    assert last < 0.5 * first


def test_training_a_head_finds_two_clusters():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 2, generator=generator)
    side = torch.rand(400, 1, generator=generator) < 0.5
    y = torch.where(side, 3.0, -3.0) + x[:, :1] + 0.1 * torch.randn(400, 1, generator=generator)
    shapes = (2, 2), (2, 2), (2, 2), (2,), (2,), (2,)
    parameters = [(0.3 * torch.randn(s, generator=generator)).requires_grad_() for s in shapes]
    _, last = trained(parameters, lambda: -linear_gmm_log_likelihood(x, y, *parameters).mean(), 400, 0.1)
    # The entropy of the noise and of the choice of a side.
    assert last == pytest.approx(0.5 * 2.837877 - 2.302585 + 0.693147, abs=0.1)
