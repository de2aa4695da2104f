"""The mixture operators under torch.compile, export, autocast and the checks of torch.library."""

import pytest
import torch
from torch.nn.functional import linear, softplus

from vitlite.kernels import gmm_log_likelihood, linear_gmm_log_likelihood


@pytest.fixture(autouse=True)
def _needs_compiled(compiled):
    torch.compiler.reset()


def mixture(rows, components, dims, dtype=torch.float32, requires_grad=False):
    generator = torch.Generator().manual_seed(0)
    shapes = (rows, dims), (rows, components), (rows, components, dims), (rows, components, dims)
    tensors = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    tensors[3] = tensors[3].abs() + 0.1
    return [a.to(dtype).requires_grad_(requires_grad) for a in tensors]


def head(rows, components, dims, features, dtype=torch.float32, requires_grad=False):
    generator = torch.Generator().manual_seed(0)
    outputs = components * dims
    shapes = (rows, features), (rows, dims), (components, features), (outputs, features), (outputs, features)
    shapes = (*shapes, (components,), (outputs,), (outputs,))
    tensors = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    return [a.to(dtype).requires_grad_(requires_grad) for a in tensors]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_opcheck_of_the_mixture(dtype):
    tensors = mixture(3, 4, 5, dtype)
    ops = torch.ops.vitlite
    torch.library.opcheck(ops.gmm_log_likelihood_forward.default, tensors)
    likelihood, log_shares = ops.gmm_log_likelihood_forward(*tensors)
    for needs in ((True, True, True, True), (False, True, False, True), (True, False, True, False)):
        arguments = (torch.rand_like(likelihood), *tensors, log_shares, *needs)
        torch.library.opcheck(ops.gmm_log_likelihood_backward.default, arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("biases", [True, False], ids=["biases", "no biases"])
def test_opcheck_of_the_head(dtype, biases):
    tensors = head(3, 4, 5, 2, dtype)
    if not biases:
        tensors[5:] = [None] * 3
    ops = torch.ops.vitlite
    torch.library.opcheck(ops.linear_gmm_log_likelihood_forward.default, (*tensors, 1e-3, 0))
    likelihood, *saved = ops.linear_gmm_log_likelihood_forward(*tensors, 1e-3, 0)
    for needs in ((True,) * 5, (False, True, False, True, False), (True, False, True, False, True)):
        arguments = (torch.rand_like(likelihood), *tensors, *saved, 1e-3, 2, *needs)
        torch.library.opcheck(ops.linear_gmm_log_likelihood_backward.default, arguments)


def mixture_loss(y, logits, mean, std):
    return -gmm_log_likelihood(y, 2 * logits, mean, std + 0.1).mean()


def head_loss(*tensors):
    return -linear_gmm_log_likelihood(*tensors, min_std=0.1).mean()


def assert_same(function, compiled_function, tensors):
    found, expected = compiled_function(*tensors), function(*tensors)
    torch.testing.assert_close(found, expected)
    for f, e in zip(torch.autograd.grad(found, tensors), torch.autograd.grad(expected, tensors)):
        torch.testing.assert_close(f, e)
    with torch.no_grad():
        torch.testing.assert_close(compiled_function(*tensors), expected)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_the_mixture_compiles_to_one_graph_with_dynamic_shapes(backend):
    compiled_loss = torch.compile(mixture_loss, fullgraph=True, dynamic=True, backend=backend)
    for shape in ((6, 5, 9), (4, 3, 12), (7, 2, 4)):
        assert_same(mixture_loss, compiled_loss, mixture(*shape, requires_grad=True))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_the_head_compiles_to_one_graph_with_dynamic_shapes(backend):
    compiled_loss = torch.compile(head_loss, fullgraph=True, dynamic=True, backend=backend)
    for shape in ((6, 5, 9, 3), (4, 3, 12, 8), (7, 2, 4, 5)):
        assert_same(head_loss, compiled_loss, head(*shape, requires_grad=True))


class Head(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.tensors = torch.nn.ParameterList(head(1, 4, 6, 3)[2:])

    def forward(self, x, y):
        return linear_gmm_log_likelihood(x, y, *self.tensors)


class Mixture(torch.nn.Module):
    def forward(self, y, logits, mean, std):
        return gmm_log_likelihood(y, logits, mean, std)


def test_export_with_dynamic_shapes():
    rows = torch.export.Dim("rows", min=1, max=512)
    dynamic = {name: {0: rows} for name in ("y", "logits", "mean", "std")}
    program = torch.export.export(Mixture(), tuple(mixture(5, 4, 6)), dynamic_shapes=dynamic)
    assert any("vitlite.gmm_log_likelihood_forward" in str(node.target) for node in program.graph.nodes)
    tensors = mixture(9, 4, 6)
    torch.testing.assert_close(program.module()(*tensors), Mixture()(*tensors))

    module, tensors = Head(), head(5, 4, 6, 3)[:2]
    program = torch.export.export(module, tuple(tensors), dynamic_shapes={"x": {0: rows}, "y": {0: rows}})
    assert any("vitlite.linear_gmm_log_likelihood_forward" in str(node.target) for node in program.graph.nodes)
    tensors = head(8, 4, 6, 3)[:2]
    torch.testing.assert_close(program.module()(*tensors), module(*tensors))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("backend", ["cpp", "eager"])
def test_autocast_computes_and_returns_float32(backend, dtype):
    """What a head under autocast gives: half precision from its linear layers beside float32."""
    x, y, w_logits, w_mean, w_std, *biases = tensors = head(6, 5, 4, 7, requires_grad=True)
    expected = linear_gmm_log_likelihood(*tensors, min_std=0.3)
    with torch.autocast("cpu", dtype=dtype):
        logits, mean = linear(x, w_logits, biases[0]), linear(x, w_mean, biases[1]).view(6, 5, 4)
        std = softplus(linear(x, w_std, biases[2])).view(6, 5, 4) + 0.3
        assert mean.dtype == dtype
        found = gmm_log_likelihood(y, logits, mean, std, backend=backend)
        narrow = gmm_log_likelihood(y.to(dtype), logits, mean, std.to(dtype), backend=backend)
        whole = linear_gmm_log_likelihood(*tensors, min_std=0.3, backend=backend)
        narrow_whole = linear_gmm_log_likelihood(x.to(dtype), *tensors[1:], min_std=0.3, backend=backend)
    assert found.dtype == narrow.dtype == whole.dtype == narrow_whole.dtype == torch.float32
    torch.testing.assert_close(whole, expected)
    for value in (found, narrow, narrow_whole):
        torch.testing.assert_close(value, expected, rtol=0.1, atol=0.5)
    (narrow.sum() + narrow_whole.sum()).backward()
    assert all(a.grad.dtype == torch.float32 and a.grad.isfinite().all() for a in tensors)


def test_no_gradient_is_recorded_where_none_is_wanted():
    tensors, whole = mixture(3, 4, 5), head(3, 4, 5, 2)
    assert not gmm_log_likelihood(*tensors).requires_grad
    assert not linear_gmm_log_likelihood(*whole).requires_grad
    tensors[2].requires_grad_()
    whole[7].requires_grad_()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert not gmm_log_likelihood(*tensors).requires_grad
            assert not linear_gmm_log_likelihood(*whole).requires_grad
    assert gmm_log_likelihood(*tensors).requires_grad
    assert linear_gmm_log_likelihood(*whole).requires_grad


def test_training_a_head_finds_two_clusters():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 2, generator=generator)
    side = torch.rand(400, 1, generator=generator) < 0.5
    y = torch.where(side, 3.0, -3.0) + x[:, :1] + 0.1 * torch.randn(400, 1, generator=generator)
    parameters = [p.mul(0.3).requires_grad_() for p in head(1, 2, 1, 2)[2:]]
    optimizer = torch.optim.Adam(parameters, lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        loss = -linear_gmm_log_likelihood(x, y, *parameters).mean()
        loss.backward()
        optimizer.step()
    # The entropy of the noise and of the choice of a side.
    assert loss.item() == pytest.approx(0.5 * 2.837877 - 2.302585 + 0.693147, abs=0.1)
