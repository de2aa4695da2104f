"""The operators as modules hand their settings on, and own what is trained."""

import pytest
import torch

from vitlite.kernels import SSIM, GaussianMixtureHead, MemoryRead, linear_gmm_log_likelihood, memory_read, ssim


def test_ssim_hands_its_settings_on():
    x, y = torch.rand(2, 2, 3, 20, 24).unbind()
    settings = {"window_size": 7, "window": "uniform", "data_range": 2.0, "padding": "valid", "reduction": "none"}
    assert torch.equal(SSIM(**settings)(x, y), ssim(x, y, **settings))
    assert torch.equal(SSIM(sigma=0.8, backend="eager")(x, y), ssim(x, y, sigma=0.8, backend="eager"))
    assert not list(SSIM().parameters())
    with pytest.raises(ValueError, match="reduction"):
        SSIM(reduction="max")(x, y)


@pytest.mark.parametrize("shape", [(8,), (5, 8), (2, 3, 5, 8), (0, 8)])
def test_memory_reads_tokens_of_any_shape(shape):
    memory = MemoryRead(6, 8, threshold=0.1, temperature=0.3)
    tokens = torch.randn(shape)
    output, entropy = memory(tokens)
    assert (output.shape, entropy.shape) == (shape, shape[:-1])
    expected = memory_read(tokens.reshape(-1, 8), memory.items, threshold=0.1, temperature=0.3)
    assert torch.equal(output.reshape(-1, 8), expected[0])
    assert torch.equal(entropy.reshape(-1), expected[1])
    assert "temperature=0.3" in repr(memory)


def test_a_mixture_head_is_trained():
    head = GaussianMixtureHead(4, 3, 5, min_std=0.1)
    x, y = torch.randn(7, 4), torch.randn(7, 3)
    found = head(x, y)
    layers = head.logits, head.mean, head.std
    weights, biases = [a.weight for a in layers], [a.bias for a in layers]
    assert torch.equal(found, linear_gmm_log_likelihood(x, y, *weights, *biases, min_std=0.1))
    (-found.mean()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.parameters())
