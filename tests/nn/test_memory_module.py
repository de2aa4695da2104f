"""The memory module between encoder and decoder."""

import numpy as np
import pytest
import torch

from vitlite.kernels.memory.reference import memory_read_numpy
from vitlite.nn.memory import MemoryModule


def test_reads_every_token():
    torch.manual_seed(0)
    module = MemoryModule(30, 8)
    tokens = torch.randn(3, 5, 8)
    output, entropy = module(tokens)
    assert output.shape == (3, 5, 8)
    assert entropy.shape == (3, 5)
    want_output, want_entropy = memory_read_numpy(tokens.flatten(0, 1).numpy(), module.items.detach().numpy())
    np.testing.assert_allclose(output.detach().flatten(0, 1).numpy(), want_output, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(entropy.detach().flatten().numpy(), want_entropy, rtol=1e-4)


def test_says_how_much_of_it_is_read():
    """Two tokens that each read one of three items alone, one of them twice as often."""
    module = MemoryModule(3, 2, temperature=1e3)
    with torch.no_grad():
        module.items.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]))
    use = {key: float(value) for key, value in module.use(torch.tensor([[[5.0, 0.1], [0.1, 3.0], [0.0, 9.0]]])).items()}
    entropy = -(np.log(1 / 3) / 3 + np.log(2 / 3) * 2 / 3)
    assert use == {"items_read": 1, "items_used": 2, "items_effective": pytest.approx(np.exp(entropy))}


def test_what_nothing_remembers_is_zero():
    """Equal similarity to every item: each weight is 1 / N, the threshold, and is shrunk away."""
    module = MemoryModule(7, 4)
    output, entropy = module(torch.zeros(1, 2, 4))
    assert torch.equal(output, torch.zeros(1, 2, 4))
    assert torch.equal(entropy, torch.zeros(1, 2))
    (output.sum() + entropy.sum()).backward()
    assert torch.equal(module.items.grad, torch.zeros(7, 4))


def test_items_are_trained():
    torch.manual_seed(0)
    module = MemoryModule(10, 4)
    output, entropy = module(torch.randn(2, 9, 4))
    (output.square().sum() + entropy.sum()).backward()
    assert (module.items.grad.abs().sum(1) > 0).all()
    assert sum(p.numel() for p in module.parameters()) == 40


def test_exported_graph_has_no_operator_of_ours():
    module = MemoryModule(10, 4)
    tokens = torch.randn(2, 9, 4)
    batch = torch.export.Dim("batch", min=1, max=64)
    with torch.no_grad():
        program = torch.export.export(module, (tokens,), dynamic_shapes={"tokens": {0: batch}}, strict=False)
        assert not [node for node in program.graph.nodes if "vitlite" in str(node.target)]
        more = torch.randn(5, 9, 4)
        torch.testing.assert_close(program.module()(more), module(more))
