"""Names, strides, shapes, freezing, normalisation, random weights and the state dict of the extractors."""

import pytest
import torch
from backbone_helpers import random_images

from vitlite import backbones
from vitlite.errors import UserError

# The table of the papers page and of the publications; B0 to B7 after rounding to multiples of eight.
CHANNELS = {
    "efficientnet_b0": (16, 24, 40, 112),
    "efficientnet_b1": (16, 24, 40, 112),
    "efficientnet_b2": (16, 24, 48, 120),
    "efficientnet_b3": (24, 32, 48, 136),
    "efficientnet_b4": (24, 32, 56, 160),
    "efficientnet_b5": (24, 40, 64, 176),
    "efficientnet_b6": (32, 40, 72, 200),
    "efficientnet_b7": (32, 48, 80, 224),
    "efficientnet_lite0": (16, 24, 40, 112),
    "efficientnet_lite1": (16, 24, 40, 112),
    "efficientnet_lite2": (16, 24, 48, 120),
    "efficientnet_lite3": (24, 32, 48, 136),
    "efficientnet_lite4": (24, 32, 56, 160),
    "resnet18": (64, 128, 256, 512),
    "resnet34": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
    "mobilenet_v2": (16, 24, 32, 96),
    "vgg19": (128, 256, 512, 512),
}


def test_every_network_of_convolutions_is_in_the_table():
    names = [name for name in backbones.available() if backbones.REGISTRY[name] != "vitlite.backbones.vit"]
    assert sorted(names) == sorted([*CHANNELS, "image"])


@pytest.mark.parametrize("name", CHANNELS)
def test_maps_have_the_published_channels_and_sizes(name):
    extractor = backbones.create(name, weights="none")
    strides = (4, 8, 16, 32) if name.startswith("resnet") else (2, 4, 8, 16)
    assert extractor.name == name
    assert extractor.strides == strides
    assert extractor.channels == CHANNELS[name]
    assert extractor.weights_source == "random (seed 0)"
    maps = extractor(random_images(64, 96, batch=1))
    assert [tuple(m.shape) for m in maps] == [(1, c, 64 // s, 96 // s) for c, s in zip(CHANNELS[name], strides)]
    assert all(0.05 < m.std() < 100 for m in maps)


def test_b4_gives_the_272_channels_of_the_paper():
    assert sum(backbones.create("efficientnet_b4", weights="none").channels) == 272


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_b0"])
def test_same_padding_rounds_sizes_up(name):
    maps = backbones.create(name, weights="none")(random_images(65, 71, batch=1))
    assert [tuple(m.shape[2:]) for m in maps] == [(33, 36), (17, 18), (9, 9), (5, 5)]


@pytest.mark.parametrize(
    ("name", "strides", "channels"),
    [
        ("efficientnet_lite0", (4,), (24,)),
        ("efficientnet_lite0", (2, 32), (16, 320)),
        ("resnet18", (2, 4), (64, 64)),
        ("vgg19", (1, 4), (64, 256)),
        ("mobilenet_v2", [8], (32,)),
    ],
)
def test_chosen_strides_are_the_same_maps(name, strides, channels):
    chosen = backbones.create(name, weights="none", strides=strides)
    assert chosen.strides == tuple(strides)
    assert chosen.channels == channels
    every = tuple(sorted({*strides, 2, 4, 8, 16}))
    full = backbones.create(name, weights="none", strides=every)
    full.load_state_dict({**full.state_dict(), **chosen.state_dict()})
    images = random_images(batch=1)
    for stride, got in zip(strides, chosen(images)):
        torch.testing.assert_close(got, full(images)[every.index(stride)])


def test_blocks_beyond_the_last_stride_are_not_built():
    sizes = [
        sum(p.numel() for p in backbones.create("resnet18", weights="none", strides=strides).parameters())
        for strides in ((2,), (2, 4), (2, 32), (32,))
    ]
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3]
    assert sizes[0] == 64 * 3 * 49 + 2 * 64


@pytest.mark.parametrize("strides", [(), (3,), (2, 64), (4, 2), (2, 2)])
def test_strides_that_do_not_exist_are_named(strides):
    with pytest.raises(UserError, match=r"strides=.*: efficientnet_lite0 has 2, 4, 8, 16, 32; give some, ascending"):
        backbones.create("efficientnet_lite0", weights="none", strides=strides)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match=r"backbone=resnet19: unknown; choose one of .*resnet18.*vgg19"):
        backbones.create("resnet19")


def test_frozen_and_in_evaluation_mode_whatever_the_model_around_it_does():
    extractor = backbones.create("resnet18", weights="none", strides=(2, 4))
    around = torch.nn.ModuleList([extractor]).train()
    assert around.training
    assert not any(module.training for module in extractor.modules())
    assert not any(p.requires_grad for p in extractor.parameters())
    images = random_images()
    before = extractor(images)
    extractor(random_images(seed=1))
    for a, b in zip(before, extractor(images)):
        assert torch.equal(a, b)


def test_gradients_reach_the_images():
    images = random_images().requires_grad_()
    backbones.create("efficientnet_b0", weights="none", strides=(2, 4))(images)[1].square().mean().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "images",
    [torch.zeros(3, 64, 64), torch.zeros(1, 1, 64, 64), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)],
)
def test_images_of_another_kind_are_refused(images):
    extractor = backbones.create("mobilenet_v2", weights="none", strides=(2,))
    with pytest.raises(ValueError, match=r"images must be floating point \(B, 3, H, W\)"):
        extractor(images)
    with pytest.raises(ValueError, match="images must be floating point"):
        extractor.fused()(images)


def test_each_backbone_knows_its_normalisation():
    lite = backbones.create("efficientnet_lite3", weights="none", strides=(2,))
    pixels = torch.tensor([0.0, 127.0, 255.0]).view(1, 1, 3, 1).expand(1, 3, 3, 1)
    got = (pixels / 255 - lite.mean) / lite.std
    torch.testing.assert_close(got, (pixels - 127) / 128)
    for name in ("efficientnet_b0", "resnet18", "mobilenet_v2", "vgg19"):
        other = backbones.create(name, weights="none", strides=(2,))
        torch.testing.assert_close(other.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
        torch.testing.assert_close(other.std.flatten(), torch.tensor([0.229, 0.224, 0.225]))


def test_normalisation_happens_inside():
    extractor = backbones.create("resnet18", weights="none", strides=(2,))
    images = random_images()
    expected = extractor(images)[0]
    normalised = (images - extractor.mean) / extractor.std
    extractor.mean.zero_()
    extractor.std.fill_(1)
    torch.testing.assert_close(extractor(normalised)[0], expected)


def test_random_weights_follow_the_seed_and_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    one, again, other = (backbones.create("mobilenet_v2", weights="none", seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["stages.0.0.conv.weight"], other["stages.0.0.conv.weight"])


@pytest.mark.parametrize("name", ["efficientnet_b1", "resnet50", "vgg19"])
def test_a_saved_state_dict_gives_the_same_maps(name, tmp_path):
    first = backbones.create(name, weights="none", seed=3, strides=(2, 8))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = backbones.create(name, weights="none", strides=(2, 8))
    images = random_images()
    assert not torch.equal(first(images)[1], second(images)[1])
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for a, b in zip(first(images), second(images)):
        assert torch.equal(a, b)


def test_the_extractor_moves_and_casts():
    extractor = backbones.create("efficientnet_lite0", weights="none").double()
    images = random_images().double()
    maps = extractor(images)
    assert all(m.dtype == torch.float64 for m in maps)
    single = backbones.create("efficientnet_lite0", weights="none")(images.float())
    for a, b in zip(maps, single):
        assert (a - b).abs().max() < 1e-4 * a.abs().max()
