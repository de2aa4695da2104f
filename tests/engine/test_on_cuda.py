"""``--device cuda`` for every command and method, on a GPU that is only pretended: no tensor is on the wrong device."""

import json

import numpy as np
import pytest
import torch
from commands import vitlite
from pretend_cuda import pretended_cuda
from rehearsal import REHEARSAL, rehearse
from tiny_settings import RECONSTRUCTION, SHARED, WITH_BACKBONE, options_of

from vitlite import kernels
from vitlite.engine import loop as training_loop

SMALL = {**SHARED, "epochs": 2, "steps": 0, "patch": 8, "dim": 16, "heads": 2}
METHODS = {
    "sivt": WITH_BACKBONE,
    **{name: {**settings, "epochs": 2} for name, settings in RECONSTRUCTION.items()},
    "vtadl": SMALL
    | {"image_size": 64, "patch": 16, "depth": 1, "vector": 64, "channels": "8,8,8,8", "gaussians": 3}
    | {"augment": "affine", "places": "scaled", "density_epochs": 2, "precision": "auto"},
    "isstad": SMALL | {"encoder_depth": 1, "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2, "mae_epochs": 2},
}
every_method = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(autouse=True)
def _ssim(monkeypatch):
    """Triton's interpreter takes minutes for the images of a batch."""
    if REHEARSAL:
        from vitlite.kernels import operator

        monkeypatch.setitem(operator("ssim").backends.choice, ("auto", "cuda"), "eager")


def train(name, data, run, *more, code=0):
    options = [*options_of(METHODS[name]), "--device", "cuda", *more]
    return vitlite("train", "--method", name, "--data", data, "--out", run, *options, code=code)


@every_method
def test_commands(name, tiny_data, tmp_path):
    run = tmp_path / "run"
    with pretended_cuda() as gpu:
        assert "on cuda" in "".join(train(name, tiny_data, run))
        vitlite("eval", run, "--device", "cuda", "--maps")
        vitlite("predict", run, tiny_data / "weave/test/missing", "--out", tmp_path / "p", "--device", "cuda")
        vitlite("calibrate", run, "--target-fpr", "0.2", "--device", "cuda")
        vitlite("report", run, "--device", "cuda")
        if name == "l2cae":  # on the processor, whatever the method
            vitlite("export", run, "--format", "pt2", "--out", tmp_path / "model.pt2")
        assert gpu.moved > 20
    results = json.loads((run / "results.json").read_text())
    assert results["about"]["device"].startswith("cuda")
    assert all(0 <= value <= 1 for value in results["mean"].values())
    # What a GPU's run leaves is read on a machine without one.
    vitlite("predict", run, tiny_data / "weave/test/missing", "--out", tmp_path / "q", "--device", "cpu")


@every_method
def test_resume(name, tiny_data, tmp_path, monkeypatch):
    """All of it with --deterministic, under which every method trains and scores on a GPU."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    monkeypatch.setattr(training_loop, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    step = training_loop.Loop.train_step

    def stop(self, *args):
        if self.epoch == 1:
            raise KeyboardInterrupt
        return step(self, *args)

    with pretended_cuda():
        train(name, tiny_data, whole, "--deterministic")
        with monkeypatch.context() as patch:
            patch.setattr(training_loop.Loop, "train_step", stop)
            train(name, tiny_data, run, "--deterministic", code=130)
        vitlite("train", "--resume", "--out", run, "--device", "cuda", "--deterministic")
        vitlite("eval", run, "--device", "cuda", "--deterministic")
    one, other = (
        torch.load(folder / "checkpoint.pt", weights_only=True, map_location="cpu")["model"] for folder in (run, whole)
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_doctor_names_the_device():
    with pretended_cuda():
        assert "device: cuda (pretended)" in vitlite("doctor")[0]


@pytest.mark.slow
def test_rehearsal():
    """The commands once more with the Triton kernels, in the interpreter, and under autocast to bfloat16."""
    pytest.importorskip("triton")
    if REHEARSAL:
        table = kernels.backends("memory_read")["auto"]
        assert table["cuda"] == "triton"
        return
    printed = rehearse("pretend_cuda", "-k", "commands or rehearsal", __file__)
    assert f"{len(METHODS) + 1} passed" in printed


def test_what_the_pretended_device_refuses():
    """The tests above can fail."""
    layer = torch.nn.Linear(4, 3)
    with pretended_cuda() as gpu:
        layer.to("cuda")
        x = torch.rand(2, 4, device="cuda")
        assert layer(x).device == torch.device("cuda", 0)
        assert layer(x).sum().backward() is None
        assert layer.weight.grad.is_cuda
        ones = torch.ones(2, 4)
        for wrong in (lambda: layer(ones), lambda: x + ones, lambda: torch.where(x > 0, x, x.cpu())):
            with pytest.raises(RuntimeError, match="same device"):
                wrong()
        for wrong in (lambda: x.numpy(), lambda: np.asarray(x)):
            with pytest.raises(TypeError, match=r"Tensor\.cpu"):
                wrong()
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, device="cuda", generator=torch.Generator())
        assert (x + torch.tensor(1.0)).is_cuda  # a number goes along
        assert not x.cpu().is_cuda
        assert gpu.moved >= 3
        gpu.waits.clear()
        started = gpu.started
        assert [float(x.sum()), x.sum().tolist(), x[x > 2].numel(), bool(x.sum() > 9), x.new_tensor(3).dim()]
        x.nonzero()
        x.to("cpu")
        ones.to("cuda", non_blocking=True)
        # In the order of the list; the sums, comparisons and what is waited for were started.
        scalar, index = "aten::_local_scalar_dense", "aten::index"
        assert gpu.waits == [scalar, "tolist", index, scalar, "new_tensor", "aten::nonzero", "to cpu"]
        assert gpu.started > started
    assert not x.is_cuda
