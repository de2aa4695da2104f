"""ISSTAD: stages, losses and map as the paper has them and the eight variants."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from method_checks import count, enter, tiny, tiny_config
from scipy.ndimage import gaussian_filter

from vitlite.engine import loop as training_loop
from vitlite.engine import train as training
from vitlite.engine.settings import RunSettings
from vitlite.errors import UserError
from vitlite.kernels import ssim
from vitlite.methods import method_class
from vitlite.methods.isstad import ISSTAD, PAPER, VARIANTS, Config
from vitlite.methods.schedule import learning_rate
from vitlite.nn.mae import patchify
from vitlite.nn.score import PlaceStatistics


def make(seed=0, **changes):
    return tiny("isstad", seed, **{"freeze_encoder": True, "augment": "none", **changes})


IMAGES = torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0)).float() / 255


def test_optimiser_of_the_paper():
    """Section 4.1.3: momentum 0.9 and 0.95, weight decay 0.05."""
    from vitlite.engine.loop import make_optimizer

    method = make()
    assert (PAPER.beta1, PAPER.beta2, PAPER.weight_decay) == (0.9, 0.95, 0.05)
    method.begin(method.stages()[0])
    optimizer = make_optimizer(method, method.stages()[0], PAPER)
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.95)}


def test_paper_preset():
    """4.1.3: ViT-L/16 at 224, decoder of 8 blocks of 512; MAE ViT-L has 329.5 M weights with its decoder."""
    assert method_class("isstad") is ISSTAD
    assert Config() == PAPER
    with torch.device("meta"):
        parts = ISSTAD(PAPER, weights="none")
    encoder, decoder = (count(part) for part in (parts.mae.encoder, parts.mae.decoder))
    assert (encoder, decoder) == (303_301_632, 26_240_256)
    assert count(parts.classifiers) == 8 * (512 * 256 + 256)
    mae, pixel = parts.stages()
    assert (mae.name, mae.epochs, mae.lr, mae.batch_size) == ("mae", 120, 1e-3 * 20 / 256, 20)
    assert (pixel.name, pixel.epochs, pixel.lr or PAPER.lr, pixel.batch_size) == ("pixel", 200, 1e-3, 0)
    assert (mae.steps_per_epoch(209, PAPER), pixel.steps_per_epoch(209, PAPER)) == (11, 14)


def gradients(method, images):
    method.zero_grad(set_to_none=True)
    method.loss(images)["loss"].backward()
    return {name for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}


def test_gradients_flow_to_the_stage_alone():
    method, images = make(), IMAGES
    first = gradients(enter(method, "mae"), images)
    assert {n for n in first if n.startswith("classifiers")} == set()
    assert any(n.startswith("mae.encoder.blocks") for n in first)
    assert "mae.decoder.mask_token" in first
    second = gradients(enter(method, "pixel"), images)
    assert second
    assert all(n.startswith(("mae.decoder.", "classifiers.")) for n in second)
    assert {f"classifiers.{i}.weight" for i in range(2)} < second
    assert "mae.decoder.pred.weight" in second
    assert "mae.decoder.pos_embed" not in first | second
    assert "mae.encoder.pos_embed" not in first | second


def test_an_encoder_that_is_trained_on():
    second = gradients(enter(make(freeze_encoder=False), "pixel"), IMAGES)
    assert any(n.startswith("mae.encoder.blocks") for n in second)
    assert "mae.decoder.pred.weight" in second


@pytest.mark.parametrize("stage", ["mae", "pixel"])
def test_training_images_are_augmented_before_anything_else(stage, monkeypatch):
    """What the loss sees is what the augmentation gave, in both stages."""
    changed = []

    def mirror(images, kind):
        changed.append(kind)
        return images.flip(3)

    images, plain = IMAGES, enter(make(corrupt_share=1e-9), stage)
    method = enter(make(augment="flip", corrupt_share=1e-9), stage)
    torch.manual_seed(3)
    expected = plain.loss(images.flip(3))["loss"]
    monkeypatch.setattr("vitlite.methods.isstad.augment", mirror)
    torch.manual_seed(3)
    assert torch.equal(method.loss(images)["loss"], expected)
    assert changed == ["flip"]


@pytest.mark.parametrize("name", list(VARIANTS))
def test_variants(name):
    """Table 3: which stages, whether the input is corrupted, which losses, whether the encoder learns."""
    method, images = make(variant=name), IMAGES
    number = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "ours").index(name)
    stages = [stage.name for stage in method.stages()]
    assert stages == ([["mae"]] + 4 * [["pixel"]] + 4 * [["mae", "pixel"]])[number]
    if number:
        enter(method, "pixel")
        torch.manual_seed(0)
        terms = method.loss(images)
        repair, pixel = {"loss", "mse", "ssim"}, {"loss", "pixel"}
        assert set(terms) == (repair, repair, pixel, repair | pixel)[(number - 1) % 4]
        learns = any(n.startswith("mae.encoder") for n in gradients(method, images))
        assert learns == (number < 5)
        with torch.no_grad():  # whether the state of the random numbers moves tells whether anything is drawn
            before = torch.get_rng_state()
            method.loss(images)
            assert torch.equal(before, torch.get_rng_state()) == (name in ("II", "VI"))
    maps, scores = method.anomaly(images)
    assert maps.shape == (4, 32, 32)
    assert maps.dtype == scores.dtype == torch.float32
    assert (maps > 0).all()
    torch.testing.assert_close(scores, maps.amax((1, 2)))
    assert PAPER.score == "mean"
    with_mean = make(variant=name, score="mean").eval()
    with_mean.load_state_dict(method.state_dict())
    torch.testing.assert_close(with_mean.anomaly(images)[1], maps.mean((1, 2)))
    torch.testing.assert_close(method.anomaly(images[1:2])[0], maps[1:2], rtol=1e-3, atol=1e-7)


def smooth(values, sigma):
    return np.stack([gaussian_filter(v.double().numpy(), sigma, mode="reflect", truncate=4) for v in values])


def test_map_of_the_paper():
    """Equations 15 to 22, step by step, with scipy's filter."""
    method, images = make(sigma=2.0, edge="mirror"), IMAGES
    for p in method.parameters():
        p.data += 0.05 * torch.randn_like(p)
    maps, _ = method.anomaly(images)
    with torch.no_grad():
        levels = method.mae.levels((images - method.mean) / method.std)
        patches = method.mae.decoder.pred(method.mae.decoder.norm(levels[-1]))[:, 1:]
        error = (patches.double() * method.std.view(3).repeat(64) + method.mean.view(3).repeat(64)) - patchify(
            images, 8
        )
        error = error.square().unflatten(2, (64, 3)).mean(3)
        chance = torch.stack([head(x[:, 1:]).sigmoid() for head, x in zip(method.classifiers, levels)]).mean(0)
        error, chance = (x.view(4, 4, 4, 8, 8).transpose(2, 3).reshape(4, 32, 32) for x in (error, chance))
    want = smooth(torch.from_numpy(smooth(error, 2) * smooth(chance, 2)), 2)
    np.testing.assert_allclose(maps.numpy(), want, rtol=1e-4)
    alone = ISSTAD(replace(method.config, variant="VIII"))
    alone.load_state_dict({key: value for key, value in method.state_dict().items() if not key.startswith("places.")})
    np.testing.assert_allclose(
        alone.anomaly(images)[0].numpy(), smooth(torch.from_numpy(smooth(chance, 2)), 2), rtol=1e-4
    )


def test_each_factor_is_compared_with_that_of_good_images():
    """Error and probability have scales of their own; what is unusually low counts too."""
    method = make(sigma=0.0, edge="mirror", places="auto", compare_maps=True).eval()
    assert (method.places_name, method.places.how) == ("none", "absolute")
    statistics = PlaceStatistics(method.places_shape)
    good = torch.rand(5, 2, 32, 32) * torch.tensor([1.0, 0.01]).view(2, 1, 1)
    statistics.add(good)
    method.places.learn(statistics)
    mean, deviation = good.mean(0), good.std(0, correction=0)
    values = good.roll(1, 0) - torch.tensor([0.0, 0.5]).view(2, 1, 1)
    scaled = ((values - mean) / (deviation + deviation.mean((1, 2), keepdim=True))).abs()
    torch.testing.assert_close(method.maps(method.places(values)), scaled[:, 0] * scaled[:, 1], rtol=1e-3, atol=1e-5)


def test_loss_of_the_paper():
    """Equations 8 to 14 written out, with the original image as the target of a corrupted one."""
    method = enter(make(positive_weight=3.0, mse_weight=0.3, ssim_weight=0.2, pixel_weight=0.7), "pixel")
    images = IMAGES
    torch.manual_seed(7)
    terms = method.loss(images)
    torch.manual_seed(7)
    inputs, labels = method.corrupted(images)
    assert labels.any()
    levels = method.mae.levels(method.normalized(inputs))
    output = method.repaired(levels)
    torch.testing.assert_close(terms["mse"], (output - method.normalized(images)).square().mean())
    torch.testing.assert_close(terms["ssim"], 1 - ssim(output * method.std + method.mean, images, backend="eager"))
    p = method.logits(levels).double().sigmoid()
    entropy = -(3.0 * labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    torch.testing.assert_close(terms["pixel"].double(), entropy)
    total = 0.3 * terms["mse"] + 0.2 * terms["ssim"] + 0.7 * terms["pixel"]
    torch.testing.assert_close(terms["loss"], total)
    method.config = replace(method.config, positive_weight=0.0)
    balanced = method.pixel_loss(levels, labels)
    omega = (labels == 0).sum() / labels.sum()
    entropy = -(omega * labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    torch.testing.assert_close(balanced.double(), entropy)


def test_the_second_stage_has_a_cosine_with_a_period():
    """A cosine of 60 epochs is lowest after 30, and 200 epochs end a third of a period after its top (4.1.3)."""
    rates = [PAPER.lr * learning_rate(PAPER, epoch, 1, 200, PAPER.period) for epoch in range(201)]
    assert [rates[epoch] for epoch in (0, 30, 60, 90, 120)] == pytest.approx([1e-3, 1e-9, 1e-3, 1e-9, 1e-3])
    assert rates[200] == pytest.approx(0.25e-3, rel=1e-5)
    stages = {stage.name: stage for stage in make(period=3).stages()}
    assert (stages["mae"].period, stages["pixel"].period) == (0, 3)
    assert (PAPER.period, PAPER.last_lr, PAPER.lr) == (60, 1e-9, 1e-3)  # 4.1.3


def test_mae_stage_is_the_masked_autoencoder():
    method, images = enter(make(), "mae"), IMAGES
    torch.manual_seed(3)
    loss = method.loss(images)["loss"]
    torch.manual_seed(3)
    torch.testing.assert_close(loss, method.mae.loss(method.normalized(images), 0.75))


def test_variant_one_scores_only_what_it_did_not_see():
    """Every patch is hidden in all masks but one at most, and a fixed seed makes the score repeatable."""
    method, images = make(variant="I"), IMAGES
    maps = method.hidden_error(images)
    assert torch.equal(maps, method.hidden_error(images))
    assert not torch.equal(maps, make(variant="I", mask_seed=1).hidden_error(images))
    want = torch.zeros(4, 16, 64)
    count = torch.zeros(16)
    for k in range(4):
        order = method.mask_order.roll(-4 * k)
        output = method.mae.reconstruct_hidden(method.normalized(images), order.expand(4, -1), 4)
        plain = patchify(method.mae.to_images(output) * method.std + method.mean - images, 8)
        error = plain.square().unflatten(2, (64, 3)).mean(3)
        want[:, order[4:]] += error[:, order[4:]].detach()
        count[order[4:]] += 1
    assert count.tolist() == [3] * 16
    torch.testing.assert_close(patchify(maps[:, None], 8), want / 3)


def test_a_model_that_learned_finds_what_is_drawn():
    """A few steps on one striped image: pixels that differ from it score higher than those that do not."""
    torch.manual_seed(0)
    stripes = (0.3 + 0.4 * ((torch.arange(32) // 2) % 2)).expand(3, 32, 32)
    method = make(mae_epochs=1, corrupt_blocks=8, corrupt_size=0.5)
    batch = (stripes + 0.02 * torch.randn(16, 3, 32, 32)).clamp(0, 1)
    for name, steps in (("mae", 30), ("pixel", 120)):
        enter(method, name)
        optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=5e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            method.loss(batch)["loss"].backward()
            optimizer.step()
    damaged = batch[:8].clone()
    damaged[:, :, 10:18, 12:20] = damaged[:, :, 10:18, 12:20].flip(1) * 0.4
    maps, scores = method.anomaly(torch.cat([batch[8:], damaged]))
    assert scores[8:].min() > scores[:8].max()
    inside = maps[8:, 11:17, 13:19].mean()
    assert inside > 5 * maps[8:, :4].mean()


def test_weights_that_do_not_fit(tmp_path):
    torch.save({"model": make(dim=32).mae.encoder.state_dict()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"do not fit mae_vit_large_patch16: .* of another shape"):
        ISSTAD(tiny_config("isstad", weights=str(tmp_path / "w.pth")))


def test_weights_go_in(tmp_path):
    """At another image size: the table is interpolated, and the run says where the weights came from."""
    source = make(seed=5)
    torch.save({"model": source.mae.encoder.state_dict()}, tmp_path / "w.pth")
    method = ISSTAD(tiny_config("isstad", weights=str(tmp_path / "w.pth"), image_size=48))
    assert torch.equal(method.mae.encoder.blocks[1].attn.qkv.weight, source.mae.encoder.blocks[1].attn.qkv.weight)
    assert method.mae.encoder.pos_embed.shape == (1, 37, 16)
    assert method.mae.weights_source == f"file {tmp_path / 'w.pth'}, without decoder"


def test_each_stage_has_its_own_batch_and_rate(tiny_data, tmp_path, monkeypatch):
    config = tiny_config("isstad", epochs=1, mae_epochs=1, mae_batch_size=3)
    settings = RunSettings("isstad", str(tiny_data), "weave", "quick", 0, config)
    step, seen = training_loop.Loop.train_step, []

    def watched(self, optimizer, indices, rate):
        seen.append((self.method.stage, len(indices)))
        return step(self, optimizer, indices, rate)

    monkeypatch.setattr(training_loop.Loop, "train_step", watched)
    training.train(settings, tmp_path / "run", device="cpu")
    batch = settings.config.batch_size
    assert {stage: max(n for s, n in seen if s == stage) for stage, _ in seen} == {"mae": 3, "pixel": min(batch, 9)}

    monkeypatch.setattr(training_loop.Loop, "train_step", lambda *arguments: {"loss": torch.tensor(float("nan"))})
    with pytest.raises(UserError, match=f"mae_lr than {settings.config.mae_lr}"):
        training.train(settings, tmp_path / "other", device="cpu")
