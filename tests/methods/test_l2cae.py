"""L2-CAE against Table 1 of Bergmann et al.: layers, parameters, windows, map."""

import numpy as np
import pytest
import torch
from method_checks import count, tiny
from scipy.ndimage import gaussian_filter
from torch import nn

from vitlite.methods.l2cae import L2CAE, LAYERS, PAPER, ConvAutoencoder, table_layers


def make(**changes):
    windows = {"window": 16, "windows": 3, "stride": 12} if changes.get("window", 16) else {}
    return tiny("l2cae", **{"image_size": 40, **windows, "augment": "none", **changes})


def test_paper_config():
    assert (PAPER.image_size, PAPER.latent, PAPER.window, PAPER.stride) == (384, 100, 0, 30)
    assert (PAPER.epochs, PAPER.lr, PAPER.weight_decay, PAPER.optimizer) == (200, 2e-4, 1e-5, "adam")


def test_table_1():
    """The sizes of every layer for 128 pixels, down to 1x1 and up again."""
    network, sizes = ConvAutoencoder(128, 100), []
    for layer in (*network.encoder, *network.decoder):
        if not isinstance(layer, nn.LeakyReLU):
            layer.register_forward_hook(lambda _, __, out: sizes.append((out.shape[1], out.shape[2])))
    network(torch.rand(1, 3, 128, 128))
    down = [(32, 64), (32, 32), (32, 32), (64, 16), (64, 16), (128, 8), (64, 8), (32, 8), (100, 1)]
    assert sizes == [*down, *down[-2::-1], (3, 128)]


def by_hand(layers, latent, rest):
    """Weights and biases of the encoder and of the decoder, its mirror."""
    channels = [3, *(c for c, _ in layers)]
    taps = [16 if stride == 2 else 9 for _, stride in layers]
    weights = sum(a * b * n for a, b, n in zip(channels, channels[1:], taps)) + channels[-1] * latent * rest**2
    return 2 * weights + sum(channels[1:]) + latent + sum(channels)


@pytest.mark.parametrize(("size", "layers", "rest"), [(128, LAYERS, 8), (384, ((32, 2), *LAYERS), 12), (32, LAYERS, 2)])
def test_parameters(size, layers, rest):
    assert count(ConvAutoencoder(size, 100)) == by_hand(layers, 100, rest)


def test_paper_parameters():
    assert count(L2CAE(PAPER)) == by_hand(((32, 2), *LAYERS), 100, 12) == 1_595_431


def test_layers_for_other_sizes():
    assert table_layers(128) == table_layers(64) == table_layers(224) == LAYERS
    assert len(table_layers(256)) == len(table_layers(384)) == len(LAYERS) + 1
    assert len(table_layers(512)) == len(LAYERS) + 2


def test_everything_goes_through_the_latent_vector():
    network = ConvAutoencoder(32, 7)
    latent = network.encoder(torch.rand(3, 3, 32, 32))
    assert latent.shape == (3, 7, 1, 1)
    torch.testing.assert_close(network.decoder(latent).shape, torch.Size((3, 3, 32, 32)))


def test_slopes():
    """0.2 after every layer but the latent one and the output, which are linear."""
    network = ConvAutoencoder(32, 7)
    for part in (network.encoder, network.decoder):
        assert not isinstance(part[-1], nn.LeakyReLU)
        slopes = [layer.negative_slope for layer in part if isinstance(layer, nn.LeakyReLU)]
        assert slopes == [0.2] * len(LAYERS)


@pytest.mark.parametrize("size", [32, 128])
def test_the_signal_neither_fades_nor_grows(size):
    torch.manual_seed(0)
    x = torch.randn(4, 3, size, size)
    for layer in (*(network := ConvAutoencoder(size, 100)).encoder, *network.decoder):
        x = layer(x)
        assert 0.05 < x.std() < 4


def test_loss_of_whole_images():
    method = make(window=0, image_size=32, ssim_weight=0.0)
    images = torch.rand(3, 3, 32, 32)
    target = images.double().numpy() * 2 - 1
    output = method.reconstruct(images * 2 - 1).detach().double().numpy()
    np.testing.assert_allclose(float(method.loss(images)["loss"].detach()), ((target - output) ** 2).mean(), rtol=1e-5)


def test_loss_of_windows(monkeypatch):
    method, seen = make(ssim_weight=0.0), []
    monkeypatch.setattr(method, "reconstruct", lambda target: seen.append(target) or torch.zeros_like(target))
    images = torch.rand(2, 3, 40, 40)
    loss = method.loss(images)["loss"]
    assert seen[0].shape == (6, 3, 16, 16)
    np.testing.assert_allclose(float(loss), (seen[0].double().numpy() ** 2).mean(), rtol=1e-5)


def test_map_of_whole_images(monkeypatch):
    method = make(window=0, image_size=32, edge="mirror")
    images, output = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    monkeypatch.setattr(method, "reconstruct", lambda target: output)
    maps, scores = method.anomaly(images)
    distance = np.sqrt(((images.double().numpy() * 2 - 1 - output.double().numpy()) ** 2).sum(1))
    expected = np.stack([gaussian_filter(d, 1.0, mode="reflect") for d in distance])
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(scores.numpy(), expected.max((1, 2)), rtol=1e-5)


def test_map_of_windows():
    """The mean distance over the windows that hold a pixel, window by window in a loop."""
    method = make(sigma=0.0, image_size=40).eval()
    images = torch.rand(2, 3, 40, 40)
    maps, _ = method.anomaly(images)
    total, covered = np.zeros((2, 40, 40)), np.zeros((40, 40))
    for top in (0, 12, 24):
        for left in (0, 12, 24):
            window = images[:, :, top : top + 16, left : left + 16] * 2 - 1
            with torch.no_grad():
                distance = (window - method.network(window)).double().square().sum(1).sqrt().numpy()
            total[:, top : top + 16, left : left + 16] += distance
            covered[top : top + 16, left : left + 16] += 1
    np.testing.assert_allclose(maps.numpy(), total / covered, rtol=1e-4)


@pytest.mark.parametrize("window", [0, 16])
@torch.no_grad()
def test_both_terms_of_a_map_add_up_to_it(window):
    """Of a linear output that leaves the range of images, and of windows, whose errors are joined."""
    method = make(map="loss", ssim_weight=0.5, window=window, image_size=48).eval()
    method.network.decoder[-1].bias += 1.5
    images = torch.rand(2, 3, 48, 48)
    parts = method.parts(images)
    assert parts["reconstruction"].max() == 1
    torch.testing.assert_close(parts["squared error"] + 0.5 * parts["1 - SSIM"], method.values(images))
