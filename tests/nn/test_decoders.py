"""Decoders of transposed convolutions, the way from tokens to a map, coordinate attention, and windows."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vitlite.nn.augment import DEGREES, SCALE, SHIFT, affine, augment, flip
from vitlite.nn.coordinate_attention import CoordinateAttention
from vitlite.nn.decoders import TransposedDecoder, as_map, doublings
from vitlite.nn.windows import WindowGrid, random_windows


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize(("strides", "size"), [((1, 1, 2), 8), ((1, 2, 2), 16), ((2, 1, 2), 24)])
def test_decoder_reaches_the_size(norm, strides, size):
    decoder = TransposedDecoder((6, 5, 4, 3), strides, size, norm)
    image = decoder(torch.randn(2, 6, 4, 4))
    assert image.shape == (2, 3, size, size)
    assert image.dtype == torch.float32
    assert image.abs().max() < 1


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_decoder_is_the_plain_formula(norm):
    """Block by block in float64, in training mode: convolution, norm, ReLU; the last one bare; upsampling; tanh."""
    torch.manual_seed(0)
    decoder = TransposedDecoder((5, 4, 3, 2), (1, 2, 2), 20, norm).double()
    for p in decoder.parameters():
        p.data.normal_(0, 0.5)
    x = torch.randn(3, 5, 4, 4, dtype=torch.double)
    parameters = list(decoder.parameters())
    y = x
    for weight, scale, shift, stride in ((*parameters[:3], 1), (*parameters[3:6], 2)):
        y = F.conv_transpose2d(y, weight, stride=stride, padding=1)
        over = (2, 3) if norm == "instance" else (0, 2, 3)
        mean, variance = y.mean(over, keepdim=True), y.var(over, keepdim=True, correction=0)
        y = (y - mean) / (variance + 1e-5).sqrt() * scale[:, None, None] + shift[:, None, None]
        y = y.clamp_min(0)
    y = F.conv_transpose2d(y, *parameters[6:], stride=2, padding=1)
    y = F.interpolate(y, size=(20, 20), mode="bilinear", align_corners=False).tanh()
    torch.testing.assert_close(decoder(x).double(), y, rtol=1e-4, atol=1e-5)  # the decoder's tanh is in float32
    assert y.min() < -0.1  # dark pixels are possible


def test_decoder_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="norm=group"):
        TransposedDecoder((4, 3), (1,), 8, "group")
    with pytest.raises(ValueError, match="channels"):
        TransposedDecoder((4, 3), (1, 2), 8, "batch")


@pytest.mark.parametrize(
    ("args", "strides"),
    [
        ((6, 16), (1, 1, 2, 2, 2, 2)),
        ((6, 16, 3), (1, 1, 1, 2, 2, 2)),
        ((6, 4, 3), (1, 1, 1, 1, 2, 2)),
        ((2, 16), (2, 2)),
        ((2, 16, 3), (2, 2)),
        ((3, 1), (1, 1, 1)),
    ],
)
def test_doublings(args, strides):
    assert doublings(*args) == strides


def test_tokens_keep_their_places():
    tokens = torch.arange(2 * 10 * 4).view(2, 10, 4)
    features = as_map(tokens, (2, 5))
    assert features.shape == (2, 4, 2, 5)
    for row in range(2):
        for column in range(5):
            assert torch.equal(features[:, :, row, column], tokens[:, 5 * row + column])


def test_coordinate_attention_is_the_plain_formula():
    """Each value times the sigmoids of its row's and its column's mean, in float64, at inference."""
    torch.manual_seed(0)
    module = CoordinateAttention(6).double().eval()
    for p in module.parameters():
        p.data.normal_()
    conv, norm, _ = module.squeeze
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 6, 3, 5, dtype=torch.double)

    def weights(means, out):  # (B, C, n) to (B, C, n)
        hidden = torch.einsum("hc,bcn->bhn", conv.weight[:, :, 0, 0], means)
        hidden = (hidden - norm.running_mean[:, None]) / (norm.running_var[:, None] + norm.eps).sqrt()
        hidden = hidden * norm.weight[:, None] + norm.bias[:, None]
        hidden = hidden * (hidden + 3).clamp(0, 6) / 6
        return torch.sigmoid(torch.einsum("ch,bhn->bcn", out.weight[:, :, 0, 0], hidden) + out.bias[:, None])

    rows, columns = weights(x.mean(3), module.of_rows), weights(x.mean(2), module.of_columns)
    torch.testing.assert_close(module(x), x * rows[:, :, :, None] * columns[:, :, None, :])


def test_coordinate_attention_parameters():
    """768 channels: 24 hidden ones; one convolution in, batch norm, two convolutions with biases out."""
    count = sum(p.numel() for p in CoordinateAttention(768).parameters())
    assert count == 768 * 24 + 2 * 24 + 2 * (24 * 768 + 768)


def test_random_windows_are_parts_of_their_image():
    torch.manual_seed(0)
    images = torch.arange(2 * 3 * 6 * 10).view(2, 3, 6, 10)
    windows = random_windows(images, 4, 50)
    assert windows.shape == (100, 3, 4, 4)
    places = set()
    for i, window in enumerate(windows):
        top, left = divmod(int(window[0, 0, 0]) % 60, 10)
        assert torch.equal(window, images[i // 50, :, top : top + 4, left : left + 4])
        places.add((top, left))
    assert places == {(top, left) for top in range(3) for left in range(7)}


@pytest.mark.parametrize(
    ("size", "window", "stride"), [((12, 12), 4, 4), ((12, 19), 4, 3), ((15, 11), 5, 4), ((8, 8), 8, 3)]
)
def test_windows_are_put_together_again(size, window, stride):
    """The mean of the windows that cover a pixel; each pixel is covered."""
    grid = WindowGrid(size, window, stride)
    images = torch.randn(2, 3, *size)
    windows = grid.cut(images)
    torch.testing.assert_close(grid.merge(windows[:, 1]), images[:, 1])
    marked = torch.zeros(len(windows), window, window)
    marked[0] = 1  # the first window of the first image
    covering, (height, width) = np.zeros(size), grid.padded
    for top in range(0, height - window + 1, stride):
        for left in range(0, width - window + 1, stride):
            covering[top : top + window, left : left + window] += 1
    assert covering.min() >= 1
    expected = np.zeros((2, *size))
    expected[0, :window, :window] = 1 / covering[:window, :window]
    np.testing.assert_allclose(grid.merge(marked).numpy(), expected, rtol=1e-6)


def test_flips():
    torch.manual_seed(0)
    image = torch.arange(18.0).view(1, 2, 3, 3)
    variants = [image, image.flip(2), image.flip(3), image.flip(2, 3)]
    seen = [[torch.equal(flipped, v[0]) for v in variants] for flipped in flip(image.repeat(100, 1, 1, 1))]
    assert all(sum(row) == 1 for row in seen)
    assert {row.index(True) for row in seen} == {0, 1, 2, 3}


def test_affine_moves_the_image_within_its_limits():
    torch.manual_seed(0)
    size = 64
    image = torch.zeros(200, 1, size, size)
    image[:, :, 31:33, 31:33] = 1  # a dot in the middle goes where the shift takes it
    moved = affine(image)[:, 0]
    weight = moved.sum((1, 2))
    at = torch.arange(size) - (size - 1) / 2
    down, right = (moved.sum(2) * at).sum(1) / weight, (moved.sum(1) * at).sum(1) / weight
    farthest = SHIFT * size * 2**0.5 / (1 - SCALE) + 1
    assert torch.hypot(down, right).max() <= farthest
    for move in (down, right):
        assert move.max() > 0.6 * SHIFT * size
        assert move.min() < -0.6 * SHIFT * size
    flat = torch.full((4, 3, size, size), 0.7)
    torch.testing.assert_close(affine(flat), flat)  # mirrored borders: nothing comes in from outside
    line = torch.zeros(50, 1, size, size)
    line[:, :, size // 2 - 1 : size // 2 + 1] = 1
    rows = (affine(line)[:, 0] * at[:, None]).sum(1) / affine(line)[:, 0].sum(1).clamp_min(1e-6)
    slope = (rows[:, 40] - rows[:, 24]).abs() / 16
    assert slope.max() < 10 * np.tan(np.deg2rad(DEGREES))


@pytest.mark.parametrize("kind", ["none", "flip", "affine"])
def test_augmented_images_stay_images(kind):
    images = torch.rand(5, 3, 16, 16)
    torch.manual_seed(3)
    first = augment(images, kind)
    assert first.shape == images.shape
    assert first.min() >= 0
    assert first.max() <= 1
    torch.manual_seed(3)
    assert torch.equal(augment(images, kind), first)  # from torch's generator, which the checkpoint keeps
    assert torch.equal(first, images) == (kind == "none")
