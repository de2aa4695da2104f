"""VT-ADL against the paper: settings, parameters, Equation 9, map and score, memory."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from method_checks import count, losses_of, tiny
from torch import nn
from torch.distributions import MultivariateNormal
from torch.nn import functional as F

from vitlite.kernels import ssim
from vitlite.kernels.gmm.reference import linear_gmm_log_likelihood_torch
from vitlite.methods.vtadl import PAPER, VTADL
from vitlite.nn.batch_norm import BatchNorm2d
from vitlite.nn.decoders import decoder_strides
from vitlite.nn.score import PlaceStatistics


def make(**changes):
    plain = {"density": "linear", "density_epochs": 0, "projection": "shared", "places": "none", "augment": "none"}
    plain |= {"sigma": 0, "depth": 2}
    return tiny("vtadl", **{**plain, **changes})


def likelihood(method, given, target):
    """The mixture's log-likelihood from its layers, in eager torch."""
    layers = (method.mixture.logits, method.mixture.mean, method.mixture.std)
    weights, biases = [a.weight for a in layers], [a.bias for a in layers]
    return linear_gmm_log_likelihood_torch(given, target, *weights, *biases, method.config.min_std)


def test_paper_config():
    assert (PAPER.image_size, PAPER.patch, PAPER.vector, PAPER.gaussians) == (512, 64, 512, 150)
    assert (PAPER.lr, PAPER.weight_decay, PAPER.batch_size, PAPER.epochs) == (1e-4, 1e-4, 8, 400)
    assert (PAPER.mse_weight, PAPER.ssim_weight, PAPER.noise, PAPER.optimizer) == (5.0, 0.5, 0.2, "adam")
    assert PAPER.sigma == 0


def test_paper_parameters():
    """By hand: the mixture is 150 x (512 + 512 + 1) outputs, each of 512 weights and a bias."""
    with torch.device("meta"):
        method = VTADL(PAPER)
    counts = {name: count(child) for name, child in method.named_children()}
    assert counts["mixture"] == 150 * (2 * 512 + 1) * 513 == 78_873_750
    block = 4 * 512 * 513 + 2 * 512 * 1024 + 1024 + 512 + 4 * 512
    assert counts["encoder"] == (64 * 64 * 3 + 1) * 512 + 64 * 512 + 6 * block + 2 * 512
    assert counts["project"] == 512 * 513
    assert sum(counts.values()) == 98_155_393


def test_decoder_is_the_papers():
    """Five transposed convolutions, batch norm and ReLU between them, tanh last; 512 numbers to 512 x 512 pixels."""
    kinds = [type(layer) for layer in VTADL(replace(PAPER, gaussians=1, depth=1)).decoder.layers]
    inner = [nn.ConvTranspose2d, BatchNorm2d, nn.ReLU]
    assert kinds == inner * 4 + [nn.ConvTranspose2d, nn.Tanh]


@pytest.mark.parametrize("size", [8, 16, 64, 128, 512, 1024])
def test_decoder_reaches_every_size(size):
    method = make(image_size=size, patch=size // 4 if size > 8 else 4)
    images = method.reconstruct(torch.randn(2, np.prod(method.config.grid), 16))
    assert images.shape == (2, 3, size, size)
    assert images.abs().max() <= 1
    assert np.prod(decoder_strides(method.config.doublings)) * 8 == size


def test_the_vector_is_the_sum_of_projected_patches():
    for projection in ("shared", "position"):
        method = make(projection=projection).eval()
        patches = torch.randn(2, 16, 16)
        weight = method.project.weight.view(64, -1, 16).expand(-1, 16, -1)
        vector = torch.einsum("bld,vld->bv", patches, weight) + method.project.bias
        torch.testing.assert_close(method.reconstruct(patches), method.decoder(vector), rtol=1e-4, atol=1e-5)


def test_loss_is_equation_9():
    method = make(noise=0.0)
    images = torch.rand(3, 3, 64, 64)
    terms = method.loss(images)
    torch.testing.assert_close(terms["loss"], terms["nll"] + 5 * terms["mse"] + 0.5 * terms["dssim"])
    patches = method.encoder(2 * images - 1)
    output = method.reconstruct(patches)
    squares = (output - (2 * images - 1)).square()
    torch.testing.assert_close(terms["mse"], squares.sum((1, 2, 3)).mean() / 64**2)  # the Frobenius norm over W H
    torch.testing.assert_close(terms["dssim"], 1 - ssim(images, (output + 1) / 2))
    flat = patches.flatten(0, 1)
    torch.testing.assert_close(terms["nll"], -likelihood(method, flat, flat).mean())


def test_noise_is_on_the_condition_alone_and_only_in_training():
    method = make(noise=0.2)
    images = torch.rand(2, 3, 64, 64)
    torch.manual_seed(5)
    found = method.loss(images)["nll"]
    flat = method.encoder(2 * images - 1).flatten(0, 1)
    torch.manual_seed(5)
    noisy = flat + 0.2 * torch.randn_like(flat)
    torch.testing.assert_close(found, -likelihood(method, noisy, flat).mean())
    method.eval()
    assert torch.equal(method.anomaly(images)[0], method.anomaly(images)[0])


@pytest.mark.parametrize("trains", ["mixture", "all"])
def test_what_the_likelihood_trains(trains):
    method = make(likelihood_trains=trains)
    method.loss(torch.rand(2, 3, 64, 64))["nll"].backward()
    reached = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None}
    assert reached == ({"mixture"} if trains == "mixture" else {"mixture", "encoder"})


def test_likelihoods_are_compared_with_those_of_the_same_place():
    method = make(places="scaled", compare_maps=True, score="nll").eval()
    good, images = torch.rand(6, 3, 64, 64), torch.rand(2, 3, 64, 64)
    plain = make(score="nll").eval()
    plain.load_state_dict(method.state_dict())
    with torch.no_grad():
        statistics = PlaceStatistics(method.places_shape, method.least_deviation)
        statistics.add(method.values(good))
        method.places.learn(statistics)
        every, these = (plain.unlikelihood(plain.encoder(2 * x - 1)) for x in (good, images))
    expected = (these - every.mean(0)) / (every.var(0, correction=0).sqrt() + 1)
    maps, scores = method.anomaly(images)
    torch.testing.assert_close(scores, expected.amax((1, 2)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(maps, method.to_map(expected), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(maps, plain.anomaly(images)[0])


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_a_mixture_of_positions_starts_from_the_embeddings(covariance):
    """One Gaussian for each place, by its mean and covariance; Eq. 8 is the likelihood of the noisy embeddings."""
    method = make(density="position", gaussians=1, covariance=covariance, noise=0.1, score="nll", sigma=0).eval()
    images = torch.rand(30, 3, 64, 64)
    method.begin(method.stages()[0])
    with torch.no_grad():
        method.prepare(images.split(7))
        patches = method.encoder(2 * images - 1)
        maps = method.anomaly(images)[0]
    for place in (0, 9):
        y = patches[:, place].double()
        own = y.T.cov(correction=0)
        away = torch.diag(own.diagonal())
        whole = away + (own - away) * 30 / 46 if covariance == "full" else away  # 16 dimensions
        normal = MultivariateNormal(y.mean(0), whole + (0.1**2 + method.config.min_std**2) * torch.eye(16).double())
        found = method.unlikelihood(patches).flatten(1)[:, place].double()
        torch.testing.assert_close(found, -normal.log_prob(y), rtol=1e-4, atol=1e-3)
    assert maps.shape == (30, 64, 64)
    torch.manual_seed(3)
    loss = method.density_loss(patches)
    torch.manual_seed(3)
    noisy = patches + 0.1 * torch.randn_like(patches)
    torch.testing.assert_close(loss, method.unlikelihood(noisy).mean())


def test_a_crop_is_the_middle_of_a_larger_image():
    """Beyond it the map has its lowest value, and the rest is that of the middle alone."""
    whole, middle = make(crop=71).eval(), make().eval()
    middle.load_state_dict(whole.state_dict())
    assert whole.config.view.size == 71
    images = torch.rand(2, 3, 71, 71)
    maps, scores = whole.anomaly(images)
    expected, same = middle.anomaly(images[:, :, 3:67, 3:67])
    assert torch.equal(scores, same)
    assert maps.shape == (2, 71, 71)
    torch.testing.assert_close(maps[:, 3:67, 3:67], expected)
    lowest = expected.amin((1, 2))[:, None, None]
    torch.testing.assert_close(maps[:, :3], lowest.expand(2, 3, 71))
    torch.testing.assert_close(maps[:, :, 67:], lowest.expand(2, 71, 4))


def test_a_density_stage_of_its_own():
    """Each stage trains its part, by its part of the loss; together they train all."""
    method = make(density_epochs=3, epochs=5)
    stages = method.stages()
    assert [(s.name, s.epochs) for s in stages] == [("reconstruction", 5), ("density", 3)]
    reached, terms = [], []
    for stage in stages:
        method.begin(stage)
        method.zero_grad()
        found = method.loss(torch.rand(2, 3, 64, 64))
        found["loss"].backward()
        terms.append(set(found))
        reached.append({n for n, p in method.named_parameters() if p.grad is not None and p.grad.any()})
    assert terms == [{"loss", "mse", "dssim"}, {"loss", "nll"}]
    assert reached[1] == {n for n, _ in method.named_parameters() if n.startswith("mixture.")}
    assert reached[0] == {n for n, _ in method.named_parameters()} - reached[1]


@pytest.mark.parametrize("density", [{}, {"density": "position"}, {"density": "position", "covariance": "full"}])
def test_the_likelihood_is_exact_in_any_precision(density):
    """A small deviation of one number given the others enlarges what bfloat16 rounds."""
    method = make(noise=0, gaussians=1, **density)
    torch.manual_seed(0)
    common = torch.randn(200, 16, 1) @ torch.randn(1, method.config.dim)
    patches = common + 0.01 * torch.randn_like(common)
    if density:
        method.mixture.start([patches])
    exact = method.density_loss(patches)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(method.density_loss(patches), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("score", ["combined", "reconstruction", "nll"])
def test_map_and_score(score):
    method = make(score=score, edge="mirror").eval()
    images = torch.rand(3, 3, 64, 64)
    maps, scores = method.anomaly(images)
    with torch.no_grad():
        patches = method.encoder(2 * images - 1)
        flat = patches.flatten(0, 1)
        nll = -likelihood(method, flat, flat).view(3, 4, 4)
        output = method.reconstruct(patches)
    expected = F.interpolate(nll[:, None], size=(64, 64), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-3)
    for i in range(3):
        mse = 3 * F.mse_loss(output[i], 2 * images[i] - 1)
        reconstruction = 5 * mse + 0.5 * (1 - ssim(images[i : i + 1], (output[i : i + 1] + 1) / 2))
        parts = {"nll": nll[i].max(), "reconstruction": reconstruction, "combined": nll[i].max() + reconstruction}
        torch.testing.assert_close(scores[i], parts[score], rtol=1e-4, atol=1e-3)
    assert ("log-likelihood" in method.image_score) == (score != "reconstruction")
    assert ("MSE" in method.image_score) == (score != "nll")


def test_learns():
    method = make()
    losses = losses_of(method, torch.rand(4, 3, 64, 64), steps=30, lr=1e-3)
    assert losses[-1] < losses[0] - 1


# A model, and `loss()`, come in between.
MEASURED = """
import torch
import vitlite.engine.train, vitlite.methods.vtadl, vitlite.nn.mixture  # what they take is not counted

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024

torch.set_num_threads(2)
before = peak()
{}
for _ in range(2):
    optimizer.zero_grad(set_to_none=True)
    value = loss()
    value.backward()
    optimizer.step()
assert torch.isfinite(value)
print(before, peak())
"""

TRAINING = """
from vitlite.methods.schedule import make_optimizer
from vitlite.methods.vtadl import PAPER, VTADL
method = VTADL(PAPER)
stage = method.stages()[0]
method.begin(stage)
optimizer = make_optimizer(method, stage, PAPER)
images = torch.rand(PAPER.batch_size, 3, PAPER.image_size, PAPER.image_size)
loss = lambda: method.loss(images)["loss"]
"""

MIXTURE = """
from vitlite.nn.mixture import MixtureDensity
mixture = MixtureDensity(512, 512, 150)
optimizer = torch.optim.Adam(mixture.parameters(), fused=True)
patches = torch.randn(8 * 64, 512)
loss = lambda: -mixture(patches + 0.2 * torch.randn_like(patches), patches).mean()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize(("script", "limit"), [(MIXTURE, 2e9), (TRAINING, 2.6e9)], ids=["mixture", "whole network"])
def test_the_papers_network_trains_in_little_memory(script, limit):
    """150 Gaussians over 512 dimensions, 8 images of 64 patches a step, parameters, gradients and Adam's moments
    included, beside what importing torch takes. The means and deviations alone would be 0.6 GiB for each copy."""
    from vitlite.kernels import backends

    if backends("linear_gmm_log_likelihood")["auto"]["cpu"] != "cpp":
        pytest.skip("the compiled operators are not built")
    command = [sys.executable, "-c", MEASURED.format(script)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    before, after = map(int, output.split())
    assert after - before < limit, f"{(after - before) / 1e9:.3f} GB"
