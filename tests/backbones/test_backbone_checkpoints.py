"""Checkpoints by path: the publishers' key names, what each takes for granted, wrappers, and files that do not fit."""

import contextlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from backbone_helpers import (
    IMAGENET,
    LITE,
    ROWS,
    TimmStyle,
    TorchvisionStyle,
    difference,
    exact,
    normalised,
    random_images,
    randomise,
    save,
)

from vitlite import backbones
from vitlite.backbones.checkpoint import read
from vitlite.errors import UserError

STRIDES = (2, 4, 8, 16, 32)
BOUND = 1e-9  # relative, in float64


def check(extractor, model, constants):
    exact(extractor, model)
    for size in ((64, 80), (75, 65)):
        images = random_images(*size, batch=1).double()
        with torch.no_grad():
            want = model.maps(normalised(images, constants))
        assert max(difference(extractor(images), want)) < BOUND


def timm_style(name, same, eps, seed=0):
    lite = "lite" in name
    model = TimmStyle(
        ROWS[name], same=same, eps=eps, activation=F.relu6 if lite or "mobile" in name else F.silu,
        gated=name.startswith("efficientnet_b"),
    )  # fmt: skip
    return randomise(model, seed)


@pytest.mark.parametrize(
    ("name", "file", "same", "eps", "constants"),
    [
        ("efficientnet_b0", "efficientnet_b0_ra-3dd342df.pth", False, 1e-5, IMAGENET),
        ("efficientnet_b1", "pytorch_model.bin", False, 1e-5, IMAGENET),
        ("efficientnet_b0", "tf_efficientnet_b0_ns-c0e6a31c.pth", True, 1e-3, IMAGENET),
        ("efficientnet_b0", "tf_efficientnet_b0.ns_jft_in1k/pytorch_model.bin", True, 1e-3, IMAGENET),
        ("efficientnet_b0", "tf_efficientnet_b0_ap-f262efe1.pth", True, 1e-3, ((0.5,) * 3, (0.5,) * 3)),
        ("efficientnet_lite0", "tf_efficientnet_lite0-0aa007d2.pth", True, 1e-3, LITE),
        ("efficientnet_lite0", "efficientnet_lite0_ra-37913777.pth", False, 1e-5, IMAGENET),
        ("mobilenet_v2", "mobilenetv2_100_ra-b33bc2c4.pth", False, 1e-5, IMAGENET),
    ],
)
def test_timm_names_and_conventions(name, file, same, eps, constants, tmp_path):
    model = timm_style(name, same, eps)
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    check(backbones.create(name, weights=save(model, path), strides=STRIDES), model, constants)


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_b1", "mobilenet_v2"])
def test_torchvision_names_and_conventions(name, tmp_path):
    model = randomise(TorchvisionStyle(ROWS[name], eps=1e-5, flat=name == "mobilenet_v2"))
    check(backbones.create(name, weights=save(model, tmp_path / "weights.pth"), strides=STRIDES), model, IMAGENET)


def test_the_helpers_carry_the_public_names():
    """Names as they stand in the published files, so that the two models above cannot drift from them unnoticed."""
    timm = timm_style("efficientnet_b0", False, 1e-5).state_dict()
    names = "conv_stem.weight bn1.running_var blocks.0.0.conv_dw.weight blocks.0.0.bn1.weight blocks.0.0.bn2.bias "
    names += "blocks.0.0.se.conv_reduce.bias blocks.0.0.conv_pw.weight blocks.1.1.conv_pw.weight conv_head.weight "
    names += "blocks.1.1.bn1.running_mean blocks.1.1.conv_dw.weight blocks.5.3.se.conv_expand.weight bn2.weight "
    names += "blocks.6.0.conv_pwl.weight blocks.6.0.bn3.num_batches_tracked classifier.bias"
    assert set(names.split()) <= set(timm)
    assert timm["blocks.1.0.conv_pw.weight"].shape == (96, 16, 1, 1)
    names = "features.0.0.weight features.0.1.running_mean features.1.0.block.0.0.weight features.8.0.weight "
    names += "features.1.0.block.1.fc1.weight features.1.0.block.2.1.bias features.2.1.block.0.0.weight "
    names += "features.6.3.block.2.fc2.bias features.7.0.block.3.1.running_var classifier.1.weight"
    assert set(names.split()) <= set(TorchvisionStyle(ROWS["efficientnet_b0"], eps=1e-5).state_dict())
    names = "features.0.1.bias features.1.conv.0.0.weight features.1.conv.1.weight features.1.conv.2.running_var "
    names += "features.2.conv.1.0.weight features.17.conv.3.weight features.18.0.weight"
    assert set(names.split()) <= set(TorchvisionStyle(ROWS["mobilenet_v2"], eps=1e-5, flat=True).state_dict())


@pytest.mark.parametrize(("version", "eps"), [(4, 1e-5), (5, 1e-3), (6, 1e-3), (7, 1e-3)])
def test_torchvision_epsilon_depends_on_the_variant(version, eps):
    from vitlite.backbones.efficientnet import convention

    found = convention(f"efficientnet_b{version}", "torchvision", "weights.pth")
    assert (found.same, found.eps) == (False, eps)


def test_the_convention_travels_with_the_state_dict(tmp_path):
    model = timm_style("efficientnet_lite0", False, 1e-5)
    loaded = backbones.create("efficientnet_lite0", weights=save(model, tmp_path / "efficientnet_lite0_ra.pth"))
    torch.save({"backbone": loaded.state_dict()}, tmp_path / "checkpoint.pt")
    # Random weights assume TensorFlow's convention; the state dict must bring the other one.
    other = backbones.create("efficientnet_lite0", weights="none")
    other.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["backbone"])
    images = random_images(75, 65)
    for a, b in zip(loaded(images), other(images)):
        assert torch.equal(a, b)


@pytest.mark.parametrize("wrap", ["state_dict", "model"])
def test_wrapped_and_parallel_checkpoints(wrap, tmp_path):
    model = timm_style("efficientnet_b0", False, 1e-5)
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({wrap: state, "epoch": 3}, tmp_path / "weights.pth")
    check(backbones.create("efficientnet_b0", weights=tmp_path / "weights.pth", strides=STRIDES), model, IMAGENET)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_safetensors(dtype, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    model = timm_style("efficientnet_b0", False, 1e-5)
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    safetensors.save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model.load_state_dict(state)
    check(backbones.create("efficientnet_b0", weights=str(tmp_path / "model.safetensors"), strides=STRIDES), model,
          IMAGENET)  # fmt: skip


@pytest.mark.parametrize(
    "head",
    [
        "[]",
        "[" * 9**5,
        '{"a": 3}',
        '{"a": {"dtype": []}}',
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": null}}',
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}}',
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
        '{"a": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}}',
        '{"a": {"dtype": "F32", "data_offsets": [0, 4]}}',
    ],
)
def test_a_damaged_head_of_a_safetensors_file(tmp_path, head):
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head.encode() + bytes(4))
    with pytest.raises(UserError, match=r"model\.safetensors.*: not a checkpoint of plain tensors"):
        backbones.create("efficientnet_b0", weights=path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_truncated_or_damaged_file_of_torch(tmp_path):
    """In the format that torch has now, and in the one before it, which most published files have."""
    path, rng = tmp_path / "model.pth", np.random.default_rng(0)
    for new in (True, False):
        torch.save({"conv_stem.weight": torch.zeros(2, 3)}, path, _use_new_zipfile_serialization=new)
        whole = path.read_bytes()
        for size in range(0, len(whole), 7):
            path.write_bytes(whole[:size])
            with pytest.raises(UserError, match=r"model\.pth: not a checkpoint of plain tensors"):
                read(path)
        for place in rng.integers(0, len(whole), 300):
            path.write_bytes(whole[:place] + rng.bytes(1) + whole[place + 1 :])
            with contextlib.suppress(UserError):  # a weight that has changed is not seen
                read(path)
    torch.save({0: torch.zeros(2, 3)}, path)
    with pytest.raises(UserError, match=r"model\.pth hold no tensors"):
        backbones.create("efficientnet_b0", weights=path)


def test_a_truncated_safetensors_file(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "model.safetensors"
    safetensors.save_file({"conv_stem.weight": torch.zeros(32, 3, 3, 3)}, path)
    whole = path.read_bytes()
    for size in (0, 4, 20, len(whole) - 10):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"model\.safetensors.*: not a checkpoint of plain tensors"):
            backbones.create("efficientnet_b0", weights=path)


def changed(name, **changes):
    return {**timm_style(name, False, 1e-5).state_dict(), **changes}


VGG = {"features.0.weight": torch.zeros(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}


@pytest.mark.parametrize(
    ("name", "state", "says"),
    [
        (
            "efficientnet_b0",
            lambda: changed("efficientnet_b1"),
            r"unknown \(blocks\.0\.1\.conv_dw\.weight",
        ),  # a deeper one
        (
            "efficientnet_b1",
            lambda: changed("efficientnet_b0"),
            r"\d+ missing \(blocks\.0\.1\.",
        ),
        (
            "efficientnet_b0",
            lambda: changed("efficientnet_b0", **{"conv_stem.weight": torch.zeros(40, 3, 3, 3)}),
            r"1 of another shape \(conv_stem.weight \(40, 3, 3, 3\) instead of \(32, 3, 3",
        ),
        (
            "efficientnet_b0",
            lambda: {"encoder.weight": torch.zeros(3)},
            r"keys \(encoder\.weight, \.\.\.\) are none .*timm: conv_stem\.weight",
        ),
        (
            "vgg19",
            lambda: {**VGG, "features.1.running_mean": torch.zeros(64)},  # with batch norm
            r"do not fit vgg19: .*unknown \(features\.1\.running_mean\)",
        ),
    ],
    ids=["deeper", "shallower", "wider", "foreign keys", "with batch norm"],
)
def test_files_that_do_not_fit(name, state, says, tmp_path):
    torch.save(state(), tmp_path / "x.pth")
    with pytest.raises(UserError, match=says) as error:
        backbones.create(name, weights=tmp_path / "x.pth", strides=(2,))
    assert "\n" not in str(error.value)
    assert f"weights {tmp_path / 'x.pth'} do not fit {name}" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"PK\x03\x04broken"])
def test_files_that_are_no_checkpoints(content, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pth.*: not a checkpoint of plain tensors"):
        backbones.create("resnet18", weights=tmp_path / "x.pth")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return open, (str(marker), "w")

    torch.save({"conv1.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="not a checkpoint of plain tensors"):
        backbones.create("resnet18", weights=tmp_path / "evil.pth")
    assert not marker.exists()


@pytest.mark.parametrize("content", [{}, [torch.zeros(2)], {"epoch": 3}])
def test_checkpoints_without_tensors(content, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth.*(hold no tensors|not a checkpoint)"):
        backbones.create("resnet18", weights=tmp_path / "x.pth")


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.pth: no such file; give 'auto', 'none' or the path"):
        backbones.create("resnet18", weights=tmp_path / "nothing.pth")
    with pytest.raises(UserError, match="a folder; give 'auto'"):
        backbones.create("resnet18", weights=tmp_path)


@pytest.mark.parametrize("weights", [None, "", 3])
def test_weights_of_another_kind(weights):
    with pytest.raises(UserError, match="give 'auto', 'none' or the path of a checkpoint file"):
        backbones.create("resnet18", weights=weights)
