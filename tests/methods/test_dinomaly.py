"""Dinomaly against a plain reading of the paper: tokens, decoder, loss, gradient mining, map."""

import numpy as np
import pytest
import torch
from method_checks import count, images_for, tiny
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from vitlite.errors import UserError
from vitlite.methods.dinomaly import PAPER, Config, CornerMap, Dinomaly
from vitlite.nn.transformer import LinearAttention


def make(**changes):
    """One of four patches and four registers, whose weights are large enough to count."""
    method = tiny("dinomaly", backbone="dinov2_vits14_reg", layers="1,2,3,4", depth=4, **changes).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for part in (method.bottleneck, method.decoder):
            for parameter in part.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return method


def plain_maps(method, images):
    """All tokens of each encoder map, and of the decoder's answers to them, by the text."""
    encoder = method.backbone.tokens(images)
    x = method.bottleneck(sum(encoder) / len(encoder))
    outputs = []
    for block in method.decoder:
        x = block(x)
        outputs.append(x)
    return encoder, outputs[::-1]


def plain_groups(maps, first):
    """Two groups of patch tokens (B, N, dim)."""
    half = len(maps) // 2
    return [(sum(group) / half)[:, first:] for group in (maps[:half], maps[half:])]


def plain_cosine(a, b):
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def test_paper_preset():
    """ViT-B: the bottleneck, and eight blocks that are as those of the encoder."""
    assert Config() == PAPER
    assert PAPER.blocks == (3, 4, 5, 6, 7, 8, 9, 10)  # 2 to 9 from 0 on
    assert Config(backbone="dinov2_vitl14_reg").blocks == (5, 7, 9, 11, 13, 15, 17, 19)  # 4, 6, ..., 18
    with torch.device("meta"):
        method = Dinomaly(PAPER, weights="none")
    assert count(method.bottleneck) == 2 * 768 * 3072 + 768 + 3072
    assert count(method.decoder) == 8 * 7_087_872  # a block of ViT-B
    assert {name.split(".")[0] for name, p in method.named_parameters() if p.requires_grad} == {"bottleneck", "decoder"}


def test_linear_layers_start_small():
    method = tiny("dinomaly")
    for layer in (method.bottleneck.fc1, method.decoder[1].attn.qkv, method.decoder[0].mlp.fc2):
        assert layer.weight.abs().max() <= 0.03
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)
        assert not layer.bias.any()
    assert {block.norm2.eps for block in method.decoder} == {1e-8}


def test_attention_weighs_by_elu_and_has_no_softmax():
    method = make()
    attention = method.decoder[0].attn
    x = torch.randn(2, 9, 32)
    q, k, v = (part.detach().numpy().reshape(2, 9, 2, 16) for part in attention.qkv(x).chunk(3, -1))
    q, k = (np.where(part > 0, part, np.exp(part) - 1) + 1 for part in (q, k))
    expected = np.zeros((2, 9, 2, 16))
    for image in range(2):
        for head in range(2):
            weights = q[image, :, head] @ k[image, :, head].T
            expected[image, :, head] = weights / weights.sum(1, keepdims=True) @ v[image, :, head]
    expected = attention.proj(torch.from_numpy(expected.reshape(2, 9, 32)).float())
    torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-5)


def test_attention_in_bfloat16_stands_queries_far_below_0():
    torch.manual_seed(0)
    attention = LinearAttention(32, 2)
    with torch.no_grad():
        attention.qkv.bias[:64] -= 9  # of queries and keys
        tokens = torch.randn(2, 20, 32)
        expected = attention(tokens)
        with torch.autocast("cpu", torch.bfloat16):
            found = attention(tokens)
    assert (found.float() - expected).norm() < 0.05 * expected.norm()


def test_loss_is_one_cosine_of_all_tokens_of_an_image():
    method = make(dropout=0.0).train()
    images = images_for(method)
    encoder, decoder = (plain_groups(maps, 5) for maps in plain_maps(method, images))
    expected = [
        1 - plain_cosine(a.detach().numpy().ravel(), b.detach().numpy().ravel())
        for pair in zip(encoder, decoder)
        for a, b in zip(*pair)
    ]
    terms = method.loss(method.frozen(images))
    assert terms["loss"].item() == pytest.approx(np.mean(expected), rel=1e-5)
    assert terms["deep"].item() == pytest.approx(np.mean(expected[3:]), rel=1e-5)


def test_the_bottleneck_drops_thrice():
    method = make(dropout=0.2).train()
    found = []
    layers = (method.bottleneck.fc1, method.bottleneck.fc2)
    hooks = [layer.register_forward_hook(lambda _, given, output: found.append((given[0], output))) for layer in layers]
    x = torch.randn(4, 50, 32)
    output = method.bottleneck(x)
    for hook in hooks:
        hook.remove()
    (first, hidden), (second, last) = found
    for whole, dropped in ((x, first), (F.gelu(hidden), second), (last, output)):
        kept = dropped != 0
        assert kept.double().mean().item() == pytest.approx(0.8, abs=0.03)
        torch.testing.assert_close(dropped[kept], whole[kept] / 0.8)


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (50, 0.45), (100, 0.9), (700, 0.9)])
def test_the_gradient_of_well_reconstructed_places_shrinks(step, share, monkeypatch):
    """Against the gradient of the plain loss, in each group multiplied where it is below the quantile."""
    method = make(mining_steps=100, mining_factor=0.1)
    generator = torch.Generator().manual_seed(step)
    encoded = torch.randn(3, 2, 20, 8, generator=generator, dtype=torch.double)
    decoded = (encoded + torch.randn(3, 2, 20, 8, generator=generator, dtype=torch.double)).requires_grad_()
    plain = (1 - F.cosine_similarity(encoded.flatten(2), decoded.flatten(2), dim=2)).mean()
    (expected,) = torch.autograd.grad(plain, decoded)
    for group in range(2):
        distances = 1 - F.cosine_similarity(encoded[:, group], decoded[:, group], dim=-1).detach()
        kept = int(60 * (1 - share))  # places of the batch
        least = np.sort(distances.numpy().ravel())[::-1][kept - 1]
        easy = distances.numpy() < least
        assert easy.sum() == 60 - kept
        expected[:, group][easy] *= 0.1
    monkeypatch.setattr(method, "pairs", lambda features: (encoded, decoded))
    method.step = step
    loss = method.loss(encoded)["loss"]
    assert loss.item() == pytest.approx(plain.item(), rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(loss, decoded)[0], expected)


def test_the_paper_s_map():
    """Bilinear with aligned corners, to 256, then a Gaussian of 5x5; our size is 256 here, so nothing follows."""
    values = torch.rand(2, 28, 28, dtype=torch.double)
    fine = F.interpolate(values[:, None], size=392, mode="bilinear", align_corners=True)
    expected = F.interpolate(fine, size=256, mode="bilinear", align_corners=False)[:, 0].numpy()
    expected = np.stack([gaussian_filter(one, 4.0, radius=2, mode="reflect") for one in expected])
    to_map = CornerMap(28, 392, 4.0).double()(values)
    back = F.interpolate(torch.from_numpy(expected)[:, None], size=392, mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(to_map, back, rtol=1e-5, atol=1e-6)


def test_values_are_distances_of_places():
    method = make(sigma=0, image_size=28)
    images = images_for(method)
    encoder, decoder = (plain_groups(maps, 5) for maps in plain_maps(method, images))
    distances = np.zeros((3, 4))
    for image in range(3):
        for place in range(4):
            each = [
                1 - plain_cosine(a[image, place].detach().numpy(), b[image, place].detach().numpy())
                for a, b in zip(encoder, decoder)
            ]
            distances[image, place] = np.mean(each)
    expected = method.smooth(torch.from_numpy(distances.reshape(3, 2, 2)).float())
    torch.testing.assert_close(method.values(method.frozen(images)), expected, rtol=1e-5, atol=1e-5)


def test_a_crop_is_all_that_is_seen():
    method = tiny("dinomaly", image_size=28, crop=56).eval()
    images = images_for(method)
    maps, scores = method.anomaly(images)
    assert maps.shape == (3, 56, 56)
    inside = maps[:, 14:42, 14:42]
    outside = torch.ones(56, 56, dtype=torch.bool)
    outside[14:42, 14:42] = False
    assert torch.equal(maps[:, outside], inside.amin((1, 2))[:, None].expand(-1, int(outside.sum())))
    images[:, :, outside] = 0
    assert torch.equal(method.anomaly(images)[1], scores)


@pytest.mark.parametrize("score", ["top10", "mean", "std"])
@torch.no_grad()
def test_the_score_of_a_crop_is_that_of_the_middle(score):
    """A share of the pixels is one of those that are seen; what lies beyond them lowers no mean."""
    method, alone = (tiny("dinomaly", image_size=28, crop=crop, score=score, places="none").eval() for crop in (56, 0))
    images = images_for(method)
    maps, scores = method.anomaly(images)
    expected_maps, expected = alone.anomaly(images[:, :, 14:42, 14:42])
    torch.testing.assert_close(maps[:, 14:42, 14:42], expected_maps)
    torch.testing.assert_close(scores, expected)


def test_the_earlier_meaning_of_a_crop_is_translated():
    """A run of an earlier development version has image_size, of which crop is seen."""
    config = Dinomaly.config_class()
    assert config.upgraded({"image_size": 448, "crop": 392}) == {"image_size": 392, "crop": 448}
    for values in ({"image_size": 392, "crop": 448}, {"image_size": 392, "crop": 0}, {"image_size": 392}):
        assert config.upgraded(values) == values


@pytest.mark.usefixtures("real_transformers")
def test_weights_are_never_random_unasked(monkeypatch, tmp_path):
    """One line says which file is missing, where it can be had, and where it goes."""
    monkeypatch.setenv("VITLITE_CACHE", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **options: (_ for _ in ()).throw(OSError("no way out")))
    with pytest.raises(UserError) as error:
        Dinomaly(Dinomaly.presets["quick"])
    for part in ("no weights for dinov2_vits14", "get dinov2_vits14_pretrain.pth", str(tmp_path), "path as weights"):
        assert part in str(error.value)
