"""fused(): the same maps as the extractor, on every path it can take."""

import copy

import pytest
import torch
from backbone_helpers import difference, random_images

from vitlite import backbones
from vitlite.backbones import fused

NAMES = ["efficientnet_lite0", "efficientnet_b0", "resnet18", "resnet50", "mobilenet_v2", "vgg19"]


def random_norms(extractor):
    """Statistics unlike the neutral ones of random weights, so that folding them wrongly shows."""
    generator = torch.Generator().manual_seed(5)
    for module in extractor.modules():
        if hasattr(module, "running_var"):
            module.running_mean.normal_(std=0.2, generator=generator)
            module.running_var.mul_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
            module.weight.data.uniform_(0.5, 1.2, generator=generator)
            module.bias.data.normal_(std=0.2, generator=generator)
    return extractor


def exact(extractor, images):
    """The maps in float64."""
    return [m.float() for m in copy.deepcopy(extractor).double()(images.double())]


@pytest.fixture(params=["onednn", "torch"])
def path(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(fused, "onednn_works", lambda: False)
    elif not fused.onednn_works():
        pytest.skip("this build of torch has no working oneDNN convolution")
    return request.param


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(64, 64), (65, 71)])
def test_fused_is_as_exact_as_the_extractor(name, size, path):
    extractor = random_norms(backbones.create(name, weights="none"))
    images = random_images(*size, batch=3)
    want = exact(extractor, images)
    quick = extractor.fused()(images)
    own = difference([m.detach() for m in extractor(images)], want)
    for error, yardstick in zip(difference(quick, want), own):
        assert error < 4 * yardstick + 2e-6


@pytest.mark.parametrize("symmetric", [False, True])
def test_both_paddings(symmetric, path):
    from vitlite.backbones.architecture import Convention

    extractor = random_norms(backbones.create("efficientnet_b0", weights="none"))
    extractor.set_convention(Convention(same=not symmetric, eps=1e-2))
    images = random_images(75, 66, batch=1)
    assert max(difference(extractor.fused()(images), exact(extractor, images))) < 2e-5


def test_one_fused_extractor_takes_images_of_many_sizes(path):
    extractor = backbones.create("efficientnet_lite0", weights="none")
    quick = extractor.fused()
    for step in range(2):
        for size in (48, 49, 50, 63, 64, 80):
            images = random_images(size, size + step, batch=2)
            assert max(difference(quick(images), extractor(images))) < 2e-5


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_parts_of_a_batch_come_back_in_order(batch, threads):
    extractor = backbones.create("mobilenet_v2", weights="none")
    quick = extractor.fused()
    images = random_images(48, 48, batch=batch)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        maps = quick(images)
    finally:
        torch.set_num_threads(before)
    assert max(difference(maps, extractor(images))) < 2e-5
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)


def test_the_original_stays_as_it_was():
    extractor = backbones.create("efficientnet_b0", weights="none", seed=4)
    images = random_images()
    before, state = extractor(images), copy.deepcopy(extractor.state_dict())
    quick = extractor.fused()
    quick(images)
    after = extractor.state_dict()
    assert all(torch.equal(state[key], after[key]) for key in state)
    assert all(torch.equal(a, b) for a, b in zip(before, extractor(images)))
    assert (quick.name, quick.channels, quick.strides, quick.weights_source) == (
        extractor.name, extractor.channels, extractor.strides, extractor.weights_source)  # fmt: skip
    assert isinstance(quick, backbones.FeatureExtractor)
    assert quick.fused() is quick


def test_the_images_are_not_overwritten():
    images = random_images()
    kept = images.clone()
    backbones.create("resnet18", weights="none").fused()(images)
    assert torch.equal(images, kept)


def test_inference_only():
    maps = backbones.create("resnet18", weights="none", strides=(2,)).fused()(random_images().requires_grad_())
    assert not maps[0].requires_grad


def test_it_survives_copying_pickling_and_casting(tmp_path):
    extractor = backbones.create("efficientnet_b0", weights="none", strides=(2, 4))
    images = random_images()
    quick = extractor.fused()
    want = quick(images)
    torch.save(quick, tmp_path / "quick.pt")
    for other in (copy.deepcopy(quick), torch.load(tmp_path / "quick.pt", weights_only=False)):
        assert all(torch.equal(a, b) for a, b in zip(other(images), want))
    double = quick.double()(images.double())
    assert max(difference([m.float() for m in double], want)) < 1e-5
    assert max(difference(quick.float()(images), want)) < 1e-6


def test_changed_weights_are_noticed_after_a_cast():
    """Packed weights are a second copy; a move or cast must not leave the old one in use."""
    quick = backbones.create("resnet18", weights="none", strides=(2,)).fused()
    images = random_images()
    before = quick(images)[0]
    unit = quick.stages[0][0]
    unit.weight.mul_(2)
    unit.bias.mul_(2)
    torch.testing.assert_close(quick.to("cpu")(images)[0], 2 * before)


def test_exported_it_uses_ordinary_operators():
    quick = backbones.create("efficientnet_b0", weights="none", strides=(2,)).fused()
    images = random_images(32, 32, batch=1)
    want = quick(images)
    program = torch.export.export(quick, (images,))
    assert "mkldnn" not in str(program.graph)
    assert max(difference(program.module()(images), want)) < 1e-5


def test_the_probe_refuses_an_operator_that_computes_something_else(monkeypatch):
    fused.onednn_works.cache_clear()
    try:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        assert fused.onednn_works() is False
        fused.onednn_works.cache_clear()
        monkeypatch.undo()
        monkeypatch.setitem(fused._POST, "silu", ("relu", []))
        assert fused.onednn_works() is False
    finally:
        fused.onednn_works.cache_clear()


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_on_cuda(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    extractor = random_norms(backbones.create(name, weights="none"))
    images = random_images(65, 64, batch=3)
    want = exact(extractor, images)
    torch.backends.cudnn.allow_tf32 = False
    try:
        plain = extractor.cuda()(images.cuda())
        quick = extractor.fused()(images.cuda())
        moved = extractor.cpu().fused().cuda()(images.cuda())
    finally:
        torch.backends.cudnn.allow_tf32 = True
    for maps in (plain, quick, moved):
        assert all(m.is_cuda for m in maps)
        assert max(difference([m.cpu() for m in maps], want)) < 1e-4
