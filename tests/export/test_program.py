"""The traced graph: every variant of a method gives the method's own numbers, and the method stays as it was."""

import logging
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from vitlite.engine.settings import load_settings
from vitlite.export.program import exportable, quiet, trace
from vitlite.kernels import memory_read
from vitlite.kernels.gmm.reference import linear_gmm_log_likelihood_torch
from vitlite.kernels.ssim.reference import ssim_torch
from vitlite.methods.sivt import SIVT

VARIANTS = {
    "vanilla transformer, max score": {"induction": False, "score": "max", "map": "l2"},
    "areas that do not divide": {"feature_size": 12, "subsets": 5, "map": "cosine"},
    "pixels": {"backbone": "image", "subsets": 3},
    "gated backbone, padded unevenly": {"backbone": "efficientnet_b0", "resize": "bilinear", "image_size": (72, 104)},
    "plain convolutions with biases": {"backbone": "vgg19", "strides": (4, 8)},
    "residual, one block": {"backbone": "resnet18", "encoder_depth": 1},
}


def method_of(run, changes):
    """A method with random weights and the config of ``run``, changed."""
    torch.manual_seed(0)
    method = SIVT(replace(load_settings(run).config, **changes)).eval()
    method.feature_std.uniform_(0.5, 2)
    return method


def random_images(count, size):
    return torch.randint(0, 256, (count, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_copy_scores_as_the_method(backbone_run, name):
    method = method_of(backbone_run, VARIANTS[name])
    pixels = random_images(3, method.config.image_shape)
    want_maps, want = method.anomaly(pixels.permute(0, 3, 1, 2).float() / 255)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    maps, scores = exportable(method)(pixels)
    torch.testing.assert_close(scores, want, rtol=1e-4, atol=0)
    torch.testing.assert_close(maps, want_maps, rtol=0, atol=1e-4 * float(want_maps.max()))
    after = method.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_as_onnx(backbone_run, name):
    """Operators that only some variants use: each must have its ONNX form, for any batch."""
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    onnxruntime = pytest.importorskip("onnxruntime")
    from vitlite.export.program import to_onnx

    method = method_of(backbone_run, VARIANTS[name])
    size = method.config.image_shape
    data = to_onnx(trace(method, size), {"vitlite": "0"})
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for batch in (1, 3, 8):
        pixels = random_images(batch, size)
        want_maps, want = method.anomaly(pixels.permute(0, 3, 1, 2).float() / 255)
        maps, scores = session.run(["maps", "scores"], {"images": pixels.numpy()})
        np.testing.assert_allclose(scores, want.numpy(), rtol=1e-4)
        np.testing.assert_allclose(maps, want_maps.numpy(), atol=1e-4 * float(want_maps.max()))


def as_onnx(function, names, sizes, *example):
    """A function of tensors, exported and run by onnxruntime; ``sizes`` are the dynamic dimensions of each."""
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")

    class Module(torch.nn.Module):
        def forward(self, *tensors):
            return function(*tensors)

    with quiet():
        program = torch.export.export(Module(), example, dynamic_shapes=(tuple(sizes),), strict=False)
        written = torch.onnx.export(program, dynamo=True, input_names=names, verbose=False)
    session = onnxruntime.InferenceSession(written.model_proto.SerializeToString())
    return lambda *tensors: session.run(None, {name: a.numpy() for name, a in zip(names, tensors)})


def test_a_memory_at_its_threshold_as_onnx():
    """The exporter drops what is added if it is 1e-8 or less: the papers' shrinkage then is 0 / 0 here."""
    sizes = [{0: torch.export.Dim(name)} for name in ("rows", "count")]
    read = partial(memory_read, backend="eager")
    exported = as_onnx(read, ["z", "items"], sizes, torch.rand(3, 4), torch.rand(5, 4))
    torch.manual_seed(0)
    for count in (1, 2, 7, 49, 500):
        z, items = torch.randn(2, 4), torch.randn(count, 4)
        z[1] = 0  # as near to every item
        output, entropy = (torch.from_numpy(a) for a in exported(z, items))
        assert (output[1] == 0).all()
        assert entropy[1] == 0
        for found, expected in zip((output, entropy), memory_read(z, items)):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", ["ssim", "mixture"])
def test_small_constants_survive_as_onnx(op):
    """Without them the similarity of two black images is 0 / 0, and a density without a deviation infinite."""
    if op == "ssim":
        run = partial(ssim_torch, data_range=1e-3)
        tensors = torch.zeros(2, 1, 1, 16, 16).unbind()
    else:
        run = partial(linear_gmm_log_likelihood_torch, min_std=1e-9)
        x = torch.rand(3, 4)
        tensors = (x, 1e-9 * torch.rand(3, 2), torch.rand(5, 4), torch.zeros(10, 4), torch.full((10, 4), -1e4))
    (found,) = as_onnx(run, ["x", "y", "a", "b", "c"][: len(tensors)], [{}] * len(tensors), *tensors)(*tensors)
    expected = run(*tensors)
    assert expected.isfinite().all()
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)


def test_quiet_puts_logging_and_warnings_back():
    before = list(warnings.filters), logging.root.manager.disable
    with pytest.raises(RuntimeError), quiet():
        raise RuntimeError
    assert (list(warnings.filters), logging.root.manager.disable) == before
