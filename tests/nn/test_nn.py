"""Blocks and map filters against plain implementations."""

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.nn import functional as F

from vitlite.nn.maps import SmoothUpsample, gaussian_matrix, upsample_matrix
from vitlite.nn.transformer import Attention, Block, sincos_positions


def test_block_is_the_textbook_one():
    """Against torch's own encoder layer with the same weights."""
    block = Block(24, 3, 2.0).double()
    for p in block.parameters():
        nn.init.normal_(p, std=0.3)
    layer = nn.TransformerEncoderLayer(24, 3, 48, 0.0, F.gelu, batch_first=True, norm_first=True).double()
    layer.load_state_dict(
        {
            "self_attn.in_proj_weight": block.attn.qkv.weight,
            "self_attn.in_proj_bias": block.attn.qkv.bias,
            "self_attn.out_proj.weight": block.attn.proj.weight,
            "self_attn.out_proj.bias": block.attn.proj.bias,
            "linear1.weight": block.mlp.fc1.weight,
            "linear1.bias": block.mlp.fc1.bias,
            "linear2.weight": block.mlp.fc2.weight,
            "linear2.bias": block.mlp.fc2.bias,
            **{f"norm{i}.{n}": getattr(getattr(block, f"norm{i}"), n) for i in (1, 2) for n in ("weight", "bias")},
        }
    )
    x = torch.randn(2, 7, 24, dtype=torch.double)
    torch.testing.assert_close(block(x), layer(x))


def test_kept_positions_alone():
    block = Block(16, 2).double()
    x = torch.randn(3, 9, 16, dtype=torch.double)
    keep = lambda t: t[:, [5, 1]]  # noqa: E731
    torch.testing.assert_close(block.forward_kept(x, keep), keep(block(x)))


def test_heads_must_divide():
    with pytest.raises(ValueError, match="heads"):
        Attention(10, 3)


@pytest.mark.parametrize("size", [3, 8, 33])
@pytest.mark.parametrize("sigma", [0.0, 0.7, 4.0])
def test_gaussian_is_scipys(size, sigma):
    x = torch.randn(size, size, dtype=torch.double)
    matrix = gaussian_matrix(size, sigma)
    expected = gaussian_filter(x.numpy(), sigma) if sigma else x.numpy()
    torch.testing.assert_close((matrix @ x @ matrix.T).numpy(), expected, rtol=1e-10, atol=1e-12)


def test_upsampling_is_torchs():
    x = torch.randn(1, 5, 5, dtype=torch.double)
    matrix = upsample_matrix(5, 13)
    expected = F.interpolate(x[None], size=(13, 13), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(matrix @ x @ matrix.T, expected)


@pytest.mark.parametrize("edge", ["mirror", "even"])
def test_a_constant_stays_constant(edge):
    values = torch.full((1, 8, 8), 3.0)
    torch.testing.assert_close(SmoothUpsample(8, 64, 4.0, edge)(values), torch.full((1, 64, 64), 3.0))


@pytest.mark.parametrize(("coarse", "size", "sigma"), [(8, 64, 4.0), (40, 40, 2.0), (10, 37, 1.5), (8, 64, 0.0)])
def test_an_even_edge_has_the_noise_of_the_inside(coarse, size, sigma):
    def noise(
        coarse, size, edge
    ):  # the variance that white noise has in each row, where all of its level is drawn away
        return SmoothUpsample(coarse, size, sigma, edge).rows.square().sum(1)

    inside = noise(3 * coarse, 3 * size, "mirror")[size : 2 * size]
    even, mirror = noise(coarse, size, "even"), noise(coarse, size, "mirror")
    torch.testing.assert_close(even, inside)
    assert min(mirror[0], mirror[-1]) > 1.5 * inside[0]
    torch.testing.assert_close(even[size // 2], mirror[size // 2])


def test_positions_are_distinct():
    table = sincos_positions(6, 5, 30)
    assert table.shape == (30, 30)
    assert torch.cdist(table, table).add(torch.eye(30) * 9).min() > 0.1
