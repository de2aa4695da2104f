"""AnoViT against the paper: parameters, loss, map and score, ablations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from method_checks import count, losses_of, tiny
from scipy.ndimage import gaussian_filter

from vitlite.methods import anovit
from vitlite.methods.anovit import PAPER, AnoViT


def make(**changes):
    return tiny("anovit", **{"depth": 2, "sigma": 1.5, "augment": "none", **changes})


def test_paper_config():
    assert (PAPER.image_size, PAPER.patch, PAPER.dim, PAPER.depth, PAPER.heads) == (384, 16, 768, 12, 12)
    assert (PAPER.pretrained, PAPER.score, PAPER.augment, PAPER.precision) == (True, "max", "affine", "float32")


def test_paper_parameters():
    """ViT-B/16 at 384 without its classifier, and six transposed convolutions with five norms."""
    with torch.device("meta"):
        method = AnoViT(PAPER, weights="none")
    block = 4 * 768**2 + 4 * 768 + 8 * 768**2 + 5 * 768 + 4 * 768
    encoder = 3 * 256 * 768 + 768 + 768 + 577 * 768 + 12 * block + 2 * 768
    assert encoder == 86_090_496
    normed = ((768, 256, 9), (256, 128, 9), (128, 64, 9), (64, 32, 16), (32, 16, 16))
    decoder = sum(i * o * taps + 2 * o for i, o, taps in normed) + 16 * 3 * 16 + 3
    assert count(method.encoder) == encoder
    assert count(method) == encoder + decoder == 88_271_331


def test_pretrained_weights_are_asked_for(monkeypatch):
    calls = []
    monkeypatch.setattr(anovit, "load_vit", lambda module, name, weights: calls.append((module, name, weights)))
    with torch.device("meta"):
        method = AnoViT(PAPER)
        assert calls == [(method.encoder, "vit_base_patch16_384", "auto")]
        AnoViT(replace(PAPER, weights="some.safetensors"))
        assert calls[1][2] == "some.safetensors"
        AnoViT(PAPER, weights="none")  # a checkpoint will fill it in
        AnoViT(replace(PAPER, pretrained=False, heads=8))
    assert len(calls) == 2


def test_images_come_as_the_weights_expect_them():
    from vitlite.backbones.transformer_weights import NORMALIZATION
    from vitlite.methods.reconstruction import to_network

    mean, std = (torch.tensor(v) for v in NORMALIZATION[anovit.ENCODER])
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(to_network(images), (images - mean[:, None, None]) / std[:, None, None])


def test_loss_is_the_plain_mean_of_squares():
    method = make(augment="none", ssim_weight=0.0).eval()
    images = torch.rand(3, 3, 32, 32)
    terms = method.loss(images)
    target = images.double().numpy() * 2 - 1
    output = method.reconstruct(images * 2 - 1).detach().double().numpy()
    assert set(terms) == {"loss"}
    np.testing.assert_allclose(float(terms["loss"].detach()), np.mean((target - output) ** 2), rtol=1e-5)


@pytest.mark.parametrize("score", ["max", "mean", "std"])
def test_map_and_score(score, monkeypatch):
    """Equation 6 per pixel, then scipy's Gaussian filter; equation 7."""
    method = make(score=score, edge="mirror").eval()
    images = torch.rand(2, 3, 32, 32)
    output = torch.rand(2, 3, 32, 32) * 2 - 1
    monkeypatch.setattr(method, "reconstruct", lambda target: output)
    maps, scores = method.anomaly(images)
    distance = np.sqrt(((images.double().numpy() * 2 - 1 - output.double().numpy()) ** 2).sum(1))
    expected = np.stack([gaussian_filter(d, 1.5, mode="reflect") for d in distance])
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(scores.numpy(), getattr(expected, score)((1, 2)), rtol=1e-4)


def test_the_class_token_takes_part_and_is_dropped():
    method = make()
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    assert method.encoder(images).shape == (1, 16, 16)
    before = method.reconstruct(images)
    with torch.no_grad():
        method.encoder.cls_token += 1
    assert not torch.equal(method.reconstruct(images), before)


def test_learns_an_image():
    """A few steps bring the loss of one image well down, dark and light pixels both."""
    method = make(augment="none")
    image = torch.rand(1, 3, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    losses = losses_of(method, image, steps=60, lr=3e-3)
    assert losses[-1] < 0.5 * losses[0]


def test_augmentation_in_training_alone():
    method = make(augment="affine").eval()
    images = torch.rand(2, 3, 32, 32)
    assert method.loss(images)["loss"] != method.loss(images)["loss"]
    assert torch.equal(method.anomaly(images)[0], method.anomaly(images)[0])
    assert torch.equal(method.frozen(images), images)
