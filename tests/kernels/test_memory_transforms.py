"""memory_read under torch.compile, export, autocast and the checks of torch.library."""

import pytest
import torch

from vitlite.kernels import memory_read


@pytest.fixture(autouse=True)
def _needs_compiled(compiled):
    torch.compiler.reset()


def pair(rows, items, channels, dtype=torch.float32, requires_grad=False):
    generator = torch.Generator().manual_seed(0)
    shapes = (rows, channels), (items, channels)
    return [torch.randn(s, generator=generator, dtype=dtype).requires_grad_(requires_grad) for s in shapes]


@pytest.mark.parametrize("save", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_opcheck_of_the_forward_operator(dtype, save):
    torch.library.opcheck(torch.ops.vitlite.memory_read_forward.default, (*pair(6, 9, 5, dtype), 0.05, 1e-12, save))


@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("save", [True, False])
def test_opcheck_of_the_backward_operator(save, needs):
    z, items = pair(6, 9, 5)
    output, entropy, *kept = torch.ops.vitlite.memory_read_forward(z, items, 0.05, 1e-12, save)
    arguments = torch.rand_like(output), torch.rand_like(entropy), z, items, *kept, 0.05, 1e-12, *needs
    torch.library.opcheck(torch.ops.vitlite.memory_read_backward.default, arguments)


def loss(z, items):
    output, entropy = memory_read(z * 2, items, threshold=0.01)
    return (output - z).square().mean() + 1e-3 * entropy.mean()


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_to_one_graph_with_dynamic_shapes(backend):
    compiled_loss = torch.compile(loss, fullgraph=True, dynamic=True, backend=backend)
    for shape in ((20, 24, 8), (7, 12, 15), (33, 50, 4)):
        z, items = pair(*shape, requires_grad=True)
        found, expected = compiled_loss(z, items), loss(z, items)
        torch.testing.assert_close(found, expected)
        for f, e in zip(torch.autograd.grad(found, (z, items)), torch.autograd.grad(expected, (z, items))):
            torch.testing.assert_close(f, e)
    with torch.no_grad():
        torch.testing.assert_close(compiled_loss(z, items), expected)


class Memory(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.items = torch.nn.Parameter(torch.randn(30, 8))

    def forward(self, z):
        return memory_read(z, self.items)


def test_export_with_dynamic_shapes():
    module = Memory()
    rows = torch.export.Dim("rows", min=1, max=512)
    program = torch.export.export(module, (torch.randn(20, 8),), dynamic_shapes={"z": {0: rows}})
    assert any("vitlite.memory_read_forward" in str(node.target) for node in program.graph.nodes)
    z = torch.randn(31, 8)
    torch.testing.assert_close(program.module()(z), module(z))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("backend", ["cpp", "eager"])
def test_autocast_computes_and_returns_float32(backend, dtype):
    z, items = pair(9, 16, 12, requires_grad=True)
    expected = memory_read(z, items, threshold=0.0)
    with torch.autocast("cpu", dtype=dtype):
        found = memory_read(z, items, threshold=0.0, backend=backend)
        narrow = memory_read(z.to(dtype), items.to(dtype), threshold=0.0, backend=backend)
        mixed = memory_read(z.to(dtype), items, threshold=0.0, backend=backend)
    for f, n, m, e in zip(found, narrow, mixed, expected):
        assert f.dtype == n.dtype == m.dtype == torch.float32
        torch.testing.assert_close(f, e)
        torch.testing.assert_close(n, e, rtol=0, atol=0.02)
        torch.testing.assert_close(m, e, rtol=0, atol=0.02)
    narrow[0].sum().backward()
    assert z.grad.dtype == items.grad.dtype == torch.float32
    assert z.grad.isfinite().all()


def test_no_gradient_is_recorded_where_none_is_wanted():
    z, items = pair(4, 5, 6)
    assert not memory_read(z, items)[0].requires_grad
    items.requires_grad_()
    with torch.no_grad():
        assert not memory_read(z, items)[0].requires_grad
    with torch.inference_mode():
        assert not memory_read(z, items)[0].requires_grad
    assert all(result.requires_grad for result in memory_read(z, items))


def test_training_moves_items_to_the_queries():
    z, items = pair(3, 12, 8)
    z = z.repeat(20, 1) + 0.01 * torch.randn(60, 8)
    items.requires_grad_()
    optimizer = torch.optim.Adam([items], lr=0.05)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        output, entropy = memory_read(z, items)
        value = (output - z).square().mean() + 0.01 * entropy.mean()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < 0.5 * losses[0]
