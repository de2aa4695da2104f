"""ssim under torch.compile, export, autocast and the checks of torch.library."""

import pytest
import torch

from vitlite.kernels import ssim

OPTIONS = (11, 1.5, 1.0, True)


@pytest.fixture(autouse=True)
def _needs_compiled(compiled):
    torch.compiler.reset()


def pair(*shape, dtype=torch.float32, requires_grad=False):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(shape, generator=generator, dtype=dtype).requires_grad_(requires_grad) for _ in range(2)]


@pytest.mark.parametrize("reduction", [0, 1])
def test_opcheck_of_the_forward_operator(reduction):
    x, y = pair(2, 2, 13, 17)
    torch.library.opcheck(torch.ops.vitlite.ssim_forward.default, (x, y, *OPTIONS, reduction))
    torch.library.opcheck(torch.ops.vitlite.ssim_forward.default, (x.half(), y.half(), 5, 0.0, 1.0, False, reduction))


@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True)])
def test_opcheck_of_the_backward_operator(needs):
    x, y = pair(2, 2, 13, 17)
    grad = torch.rand(2, 2, 13, 17)
    torch.library.opcheck(torch.ops.vitlite.ssim_backward.default, (grad, x, y, *OPTIONS, 0, *needs))
    torch.library.opcheck(torch.ops.vitlite.ssim_backward.default, (grad.sum(), x, y, *OPTIONS, 1, *needs))


def loss(x, y):
    return 1 - ssim(x * 2, y, data_range=2.0, reduction="mean")


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_to_one_graph_with_dynamic_shapes(backend):
    compiled_loss = torch.compile(loss, fullgraph=True, dynamic=True, backend=backend)
    for shape in ((2, 3, 20, 24), (3, 1, 12, 15), (1, 2, 33, 40)):
        x, y = pair(*shape, requires_grad=True)
        found, expected = compiled_loss(x, y), loss(x, y)
        torch.testing.assert_close(found, expected)
        for f, e in zip(torch.autograd.grad(found, (x, y)), torch.autograd.grad(expected, (x, y))):
            torch.testing.assert_close(f, e)
    with torch.no_grad():
        torch.testing.assert_close(compiled_loss(x, y), expected)


class Similarity(torch.nn.Module):
    def forward(self, x, y):
        return ssim(x, y, reduction="none", padding="valid", window_size=5)


def test_export_with_dynamic_shapes():
    batch, height = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("height", min=6, max=512)
    shapes = {name: {0: batch, 2: height} for name in "xy"}
    program = torch.export.export(Similarity(), tuple(pair(2, 3, 20, 24)), dynamic_shapes=shapes)
    assert any("vitlite.ssim_forward" in str(node.target) for node in program.graph.nodes)
    x, y = pair(5, 3, 31, 24)
    torch.testing.assert_close(program.module()(x, y), Similarity()(x, y))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("backend", ["cpp", "eager"])
def test_autocast_computes_and_returns_float32(backend, dtype):
    x, y = pair(1, 2, 18, 18, requires_grad=True)
    expected = ssim(x, y)
    with torch.autocast("cpu", dtype=dtype):
        value = ssim(x, y, backend=backend)
        narrow = ssim(x.to(dtype), y.to(dtype), backend=backend)
    assert value.dtype == narrow.dtype == torch.float32
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(narrow, expected, rtol=0, atol=0.02)
    narrow.backward()
    assert x.grad.dtype == torch.float32
    assert x.grad.isfinite().all()


def test_no_gradient_is_recorded_where_none_is_wanted():
    x, y = pair(1, 1, 12, 12)
    assert not ssim(x, y).requires_grad
    x.requires_grad_()
    with torch.no_grad():
        assert not ssim(x, y).requires_grad
    with torch.inference_mode():
        assert not ssim(x, y).requires_grad
    assert ssim(x, y).requires_grad


def test_training_on_the_loss_restores_an_image():
    target, start = pair(1, 1, 24, 24)
    image = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.05)
    before = ssim(image, target).item()
    for _ in range(150):
        optimizer.zero_grad()
        (1 - ssim(image, target)).backward()
        optimizer.step()
    assert before < 0.3
    assert ssim(image, target).item() > 0.99
