"""The architectures against independent implementations on the same random weights and statistics."""

import pytest
import torch
from backbone_helpers import IMAGENET, difference, exact, normalised, random_images, randomise, save
from torch import nn

from vitlite import backbones

# Largest deviation relative to the largest value of a map, in float64.
BOUND = 1e-9


@pytest.mark.parametrize("version", [*range(5), *(pytest.param(v, marks=pytest.mark.slow) for v in (5, 6, 7))])
def test_efficientnet_b_agrees_with_efficientnet_pytorch(version, tmp_path):
    reference = pytest.importorskip("efficientnet_pytorch")
    # image_size=None: padding for the size at hand, as TensorFlow's SAME, not for the size of training
    model = reference.EfficientNet.from_name(f"efficientnet-b{version}", image_size=None, num_classes=10)
    randomise(model, version)
    path = save(model, tmp_path / "weights.pth")
    extractor = backbones.create(f"efficientnet_b{version}", weights=path, strides=(2, 4, 8, 16, 32))
    assert extractor.weights_source == f"file {path}"
    exact(extractor, model)
    for size in ((75, 65),) if version > 4 else ((64, 80), (75, 65)):
        images = random_images(*size, batch=1).double()
        with torch.no_grad():
            want = model.extract_endpoints(normalised(images, IMAGENET))
        want = [want[f"reduction_{level}"] for level in range(1, 6)]
        assert max(difference(extractor(images), want)) < BOUND


def _renamed(state, rules):
    """Rename keys by (beginning, replacement) pairs; parts of a unit: convolution and normalization."""
    renamed = {}
    for key, value in state.items():
        for old, new in rules:
            if key.startswith(old):
                renamed[key.replace(old, new, 1)] = value
                break
    return renamed


def _resnet_rules(depths, bottleneck):
    """Names of transformers -> names of timm and torchvision."""
    rules = [
        ("embedder.embedder.convolution", "conv1"),
        ("embedder.embedder.normalization", "bn1"),
    ]
    for stage, count in enumerate(depths):
        for place in range(count):
            old, new = f"encoder.stages.{stage}.layers.{place}.", f"layer{stage + 1}.{place}."
            rules += [
                (f"{old}shortcut.convolution", f"{new}downsample.0"),
                (f"{old}shortcut.normalization", f"{new}downsample.1"),
            ]
            for index in range(3 if bottleneck else 2):
                rules += [
                    (f"{old}layer.{index}.convolution", f"{new}conv{index + 1}"),
                    (f"{old}layer.{index}.normalization", f"{new}bn{index + 1}"),
                ]
    return rules


@pytest.mark.parametrize(
    ("name", "kind", "depths", "widths"),
    [
        ("resnet18", "basic", [2, 2, 2, 2], [64, 128, 256, 512]),
        ("resnet34", "basic", [3, 4, 6, 3], [64, 128, 256, 512]),
        ("resnet50", "bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]),
    ],
)
def test_resnet_agrees_with_transformers(name, kind, depths, widths, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(layer_type=kind, depths=depths, hidden_sizes=widths, embedding_size=64)
    model = randomise(transformers.ResNetModel(config))
    path = tmp_path / "weights.pth"
    torch.save(_renamed(model.state_dict(), _resnet_rules(depths, kind == "bottleneck")), path)
    extractor = backbones.create(name, weights=path, strides=(2, 4, 8, 16, 32))
    exact(extractor, model)
    for size in ((64, 96), (71, 65)):
        images = random_images(*size, batch=1).double()
        pixels = normalised(images, IMAGENET)
        with torch.no_grad():
            stem = model.embedder.embedder(pixels)
            want = [stem, *model(pixels, output_hidden_states=True).hidden_states[1:]]
        assert max(difference(extractor(images), want)) < BOUND


def _mobilenet_rules():
    """Names of transformers -> names of torchvision."""
    rules = []
    for old, new in (("first_conv", "0."), ("conv_3x3", "1.conv.0."), ("reduce_1x1", "1.conv.")):
        conv, norm = ("1", "2") if old == "reduce_1x1" else ("0", "1")
        rules += [
            (f"conv_stem.{old}.convolution", f"features.{new}{conv}"),
            (f"conv_stem.{old}.normalization", f"features.{new}{norm}"),
        ]
    for layer in range(16):
        new = f"features.{layer + 2}.conv."
        for old, conv, norm in (("expand_1x1", "0.0", "0.1"), ("conv_3x3", "1.0", "1.1"), ("reduce_1x1", "2", "3")):
            rules += [
                (f"layer.{layer}.{old}.convolution", new + conv),
                (f"layer.{layer}.{old}.normalization", new + norm),
            ]
    return rules


def test_mobilenet_agrees_with_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.MobileNetV2Config(tf_padding=False, layer_norm_eps=1e-5, hidden_act="relu6")
    model = randomise(transformers.MobileNetV2Model(config))
    path = tmp_path / "weights.pth"
    torch.save(_renamed(model.state_dict(), _mobilenet_rules()), path)
    extractor = backbones.create("mobilenet_v2", weights=path, strides=(2, 4, 8, 16, 32))
    exact(extractor, model)
    for size in ((64, 96), (71, 65)):
        images = random_images(*size, batch=1).double()
        with torch.no_grad():
            x = model.conv_stem(normalised(images, IMAGENET))
            want = [x]
            for index, layer in enumerate(model.layer):
                x = layer(x)
                if index in (1, 4, 11, 15):  # 24, 32, 96 and 320 channels
                    want.append(x)
        assert max(difference(extractor(images), want)) < BOUND


def test_vgg19_agrees_with_a_plain_sequence(tmp_path):
    layers, inputs = [], 3
    for width in (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"):
        if width == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
    model = randomise(nn.ModuleDict({"features": nn.Sequential(*layers), "classifier": nn.Linear(2, 2)}))
    extractor = backbones.create("vgg19", weights=save(model, tmp_path / "weights.pth"), strides=(1, 2, 4, 8, 16))
    exact(extractor, model)
    for size in ((64, 48), (50, 67)):
        images = random_images(*size, batch=1).double()
        x, want = normalised(images, IMAGENET), []
        with torch.no_grad():
            for layer in model["features"]:
                if isinstance(layer, nn.MaxPool2d):
                    want.append(x)
                x = layer(x)
        assert max(difference(extractor(images), want)) < BOUND
