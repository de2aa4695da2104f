"""MemCA against the paper: parameters, Equations 7 to 15, the four variants of Table 6."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from method_checks import count, tiny, tiny_config
from scipy.ndimage import gaussian_filter

from vitlite.errors import UserError
from vitlite.kernels.memory.reference import memory_read_numpy
from vitlite.kernels.ssim.reference import ssim_numpy
from vitlite.methods.memca import PAPER, MemCA
from vitlite.methods.schedule import refuse_average
from vitlite.nn.coordinate_attention import CoordinateAttention

VARIANTS = {
    "base": {"memory": False, "coordinate_attention": False},
    "memory": {"memory": True, "coordinate_attention": False},
    "coordinate attention": {"memory": False, "coordinate_attention": True},
    "both": {"memory": True, "coordinate_attention": True},
}


def make(**changes):
    return tiny("memca", idle=True, **{"depth": 2, "augment": "none", "sigma": 2.0, **changes})


def test_paper_config():
    assert (PAPER.image_size, PAPER.patch, PAPER.dim, PAPER.heads) == (384, 16, 768, 8)
    assert (PAPER.epochs, PAPER.batch_size, PAPER.lr, PAPER.optimizer) == (200, 8, 2e-4, "adam")
    assert (PAPER.entropy_weight, PAPER.ssim_window, PAPER.memory, PAPER.coordinate_attention) == (
        0.001,
        11,
        True,
        True,
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_paper_parameters(name):
    """ViT-B/16 at 384, 500 items, coordinate attention over 768 channels, six transposed convolutions."""
    with torch.device("meta"):
        method = MemCA(replace(PAPER, **VARIANTS[name]))
    normed = ((768, 256, 9), (256, 128, 9), (128, 64, 16), (64, 32, 16), (32, 16, 16))
    decoder = sum(i * o * taps + 2 * o for i, o, taps in normed) + 16 * 3 * 16 + 3
    expected = 86_090_496 + decoder
    expected += VARIANTS[name]["memory"] * 500 * 768
    expected += VARIANTS[name]["coordinate_attention"] * (768 * 24 + 48 + 2 * (24 * 768 + 768))
    assert count(method) == expected


@pytest.mark.parametrize("name", VARIANTS)
def test_loss_is_equation_15(name):
    """From the network's own output in float64: mean squares, mean 1 - SSIM on [0, 1], mean entropy of the weights."""
    method = make(**VARIANTS[name], ssim_weight=0.7, entropy_weight=0.3, temperature=4.0).eval()
    images = torch.rand(3, 3, 32, 32)
    terms = {key: float(value.detach()) for key, value in method.loss(images).items()}
    target = images * 2 - 1
    output = method.reconstruct(target).detach().double().numpy()
    l2 = ((target.double().numpy() - output) ** 2).mean()
    structure = 1 - ssim_numpy(images.numpy(), (output + 1) / 2).mean()
    expected = {"loss": l2 + 0.7 * structure, "l2": l2, "ssim": structure}
    if method.memory is not None:
        tokens = method.encoder(target).detach().flatten(0, 1).numpy()
        read = memory_read_numpy(tokens, method.memory.items.detach().numpy(), temperature=4.0)
        expected["entropy"] = read[1].mean()
        expected["loss"] += 0.3 * expected["entropy"]
    use = {key for key in terms if key.startswith("items_")}  # no part of the loss
    assert len(use) == (0 if method.memory is None else 3)
    assert terms.keys() - use == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(terms[key], value, rtol=1e-4, err_msg=key)


def test_the_decoder_sees_the_memory_alone():
    """Tokens that nothing in the memory resembles give the image of an empty map, whatever they are."""
    method = make(coordinate_attention=False).eval()
    with torch.no_grad():
        method.memory.items.zero_()
    one, other = method.reconstruct(torch.rand(2, 3, 32, 32)), method.reconstruct(torch.rand(2, 3, 32, 32))
    assert torch.isfinite(one).all()
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("memory", ["encoder", "memory", "attention", "decoder"]),
        ("encoder", ["encoder", "attention", "memory", "decoder"]),
        ("decoder", ["encoder", "memory", "block", "attention", "decoder"]),
    ],
)
def test_where_the_coordinate_attention_is(after, expected):
    method, order = make(attention_after=after), []
    parts = {name: getattr(method, name) for name in ("encoder", "memory", "decoder")}
    parts["attention"] = next(part for part in method.modules() if isinstance(part, CoordinateAttention))
    if after == "decoder":
        parts["block"] = method.decoder.layers[2]
    for name, part in parts.items():
        part.register_forward_hook(lambda *_, name=name: order.append(name))
    output = method.reconstruct(torch.rand(1, 3, 32, 32))
    assert output.shape == (1, 3, 32, 32)
    assert order == expected


@pytest.mark.parametrize(("edge", "low", "high"), [("mirror", 0.9, 1.1), ("zero", 0.0, 0.6)])
def test_unrelated_images_differ_at_the_edge_too(edge, low, high, monkeypatch):
    """Zeros beyond the edge are the same in both images, so that windows over the edge look alike."""
    method = make(map="ssim", sigma=0, ssim_edge=edge, edge="mirror").eval()
    images, output = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32) * 2 - 1
    monkeypatch.setattr(method, "reconstruct", lambda target: output)
    values = method.anomaly(images)[0].numpy()
    border = np.concatenate([values[:, 0], values[:, -1], values[:, :, 0], values[:, :, -1]]).mean()
    assert low < border / values[:, 8:24, 8:24].mean() < high


@pytest.mark.parametrize("kind", ["l2", "ssim", "loss"])
def test_map_and_score(kind, monkeypatch):
    method = make(map=kind, sigma=1.5, ssim_weight=0.5, edge="mirror").eval()
    images, output = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32) * 2 - 1
    monkeypatch.setattr(method, "reconstruct", lambda target: output)
    maps, scores = method.anomaly(images)
    squares = (images.double().numpy() * 2 - 1 - output.double().numpy()) ** 2
    pad = [(0, 0), (0, 0), (5, 5), (5, 5)]  # half of a window
    mirrored = (np.pad(part, pad, mode="reflect") for part in (images.numpy(), (output.numpy() + 1) / 2))
    structure = (1 - ssim_numpy(*mirrored, same=False)).mean(1)
    values = {"l2": np.sqrt(squares.sum(1)), "ssim": structure, "loss": squares.mean(1) + 0.5 * structure}[kind]
    expected = np.stack([gaussian_filter(v, 1.5, mode="reflect") for v in values])
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores.numpy(), expected.max((1, 2)), rtol=1e-4)


@pytest.mark.parametrize("changes", [{"norm": "batch", **VARIANTS["base"]}, {"norm": "instance", **VARIANTS["both"]}])
def test_averaged_weights_need_a_network_without_batch_norm(changes):
    """The running statistics would be those of the weights before they are averaged."""
    method = make(average=0.9, **changes)
    with pytest.raises(UserError, match=r"^average=0\.9: not with batch norm, .*; give 0$"):
        refuse_average(method, method.config)
    refuse_average(method, tiny_config("memca", idle=True, **changes))


def test_the_preset_with_averaged_weights_has_no_batch_norm():
    method = tiny("sivt")
    assert method.config.average
    refuse_average(method, method.config)
