"""The reconstruction methods through the commands: train, resume, eval, predict, calibrate, export."""

import json
import shutil

import numpy as np
import pytest
import torch
from commands import vitlite
from tiny_settings import RECONSTRUCTION, options_of

from vitlite.engine import train as training
from vitlite.engine.checkpoint import load_checkpoint
from vitlite.engine.detector import Detector
from vitlite.engine.settings import load_settings
from vitlite.images.loading import readable_batches

METHODS = list(RECONSTRUCTION)


@pytest.fixture(scope="module")
def runs(tiny_data, tmp_path_factory):
    """A finished run of every method, trained by the command."""
    folder = tmp_path_factory.mktemp("reconstruction")
    for name, settings in RECONSTRUCTION.items():
        options = options_of(settings)
        vitlite("train", "--method", name, "--data", tiny_data, "--out", folder / name, *options, "--device", "cpu")
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_commands(runs, tiny_data, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(runs / name, run)
    vitlite("eval", run)
    results = json.loads((run / "results.json").read_text())
    assert results["about"]["method"] == name
    assert results["about"]["image_score"] == "max of the map at 32 pixels"
    assert all(0 <= value <= 1 for value in results["mean"].values())
    vitlite("calibrate", run, "--target-fpr", "0.2")
    vitlite("predict", run, tiny_data / "weave/test/missing", "--out", tmp_path / "p")
    assert (tmp_path / "p/predictions.csv").read_text().count("\n") == 3
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert len(log) == 3
    assert all(np.isfinite(entry["loss"]) for entry in log)
    assert ("entropy" in log[0]) == (name == "memca")


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("name", METHODS)
def test_resume_reaches_the_same_weights(runs, tmp_path, monkeypatch, name):
    """Stopped within the third epoch, after a checkpoint; bit for bit as if it had not been."""
    settings, run = load_settings(runs / name), tmp_path / "cut"
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    step = training.Loop.train_step

    def stop(self, *args):
        if self.epoch == 2:
            raise Interrupted
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(training.Loop, "train_step", stop)
        with pytest.raises(Interrupted):
            training.train(settings, run, device="cpu")
    training.train(load_settings(run), run, device="cpu", resume=True)
    whole, cut = (load_checkpoint(folder, name)["model"] for folder in (runs / name, run))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


@pytest.mark.parametrize("name", METHODS)
def test_pictures_are_kept_as_bytes_without_loss(runs, tiny_data, name):
    method = Detector(runs / name, "cpu").method
    paths = sorted((tiny_data / "weave/train/good").glob("*.png"))[:3]
    cache, _ = training.cache_features(method, paths, runs, torch.device("cpu"))
    assert cache.values.dtype == torch.uint8
    pixels = np.concatenate([batch.pixels for batch in readable_batches(paths, 32, 2)])
    assert np.array_equal(cache.values.numpy(), pixels.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("name", METHODS)
def test_export_needs_no_operator_of_ours(runs, tmp_path, name):
    """The command compares the scores of the file with those of the run."""
    from vitlite.export.program import trace

    vitlite("export", runs / name, "--format", "pt2", "--out", tmp_path / "model.pt2")
    program = trace(Detector(runs / name, "cpu").method, 32)
    assert not [node for node in program.graph.nodes if "vitlite" in str(node.target)]


@pytest.mark.parametrize("name", METHODS)
def test_export_to_onnx(runs, tiny_data, tmp_path, name):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    out = tmp_path / "model.onnx"
    vitlite("export", runs / name, "--out", out)
    vitlite("predict", out, tiny_data / "weave/test/missing", "--out", tmp_path / "p")
    assert (tmp_path / "p/predictions.csv").is_file()
