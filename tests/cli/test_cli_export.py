"""vitlite export as a person types it: what is written, what is refused, and that nothing is left behind then."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from commands import refused, vitlite

from vitlite.data import read_image, resize_image
from vitlite.engine.detector import Detector
from vitlite.export import export as exporting
from vitlite.export.program import trace


@pytest.fixture(scope="module")
def program(tiny_run):
    return trace(Detector(tiny_run, "cpu").method, 64)


@pytest.fixture
def traced(program, monkeypatch):
    """The graph of the tiny run is made once for all tests: that takes ten times as long as all the rest."""
    monkeypatch.setattr(exporting, "trace", lambda method, size: program)


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of the tiny run whose training data are gone."""
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    config = copy / "config.toml"
    lines = ['data = "/nowhere"' if line.startswith("data =") else line for line in config.read_text().splitlines()]
    config.write_text("\n".join(lines) + "\n")
    return copy


def test_pt2(tiny_run, tiny_data, tmp_path, traced):
    out = tmp_path / "model.pt2"
    printed, said = vitlite("export", tiny_run, "--format", "pt2", "--out", out)
    assert str(out) in printed
    assert "checked on 5 images" in said
    extra = {"vitlite.json": ""}
    model = torch.export.load(out, extra_files=extra).module()
    text = extra["vitlite.json"]
    metadata = json.loads(text.decode() if isinstance(text, bytes) else text)
    assert metadata["calibration"] == json.loads((tiny_run / "calibration.json").read_text())
    paths = sorted((tiny_data / "weave/test").rglob("*.png"))[:8]
    pixels = np.stack([resize_image(read_image(path), (64, 64)) for path in paths])
    want_maps, want = Detector(tiny_run, "cpu").score_pixels(pixels)
    for batch in (1, 3, 8):
        maps, scores = (t.detach().numpy() for t in model(torch.from_numpy(pixels[:batch])))
        np.testing.assert_allclose(scores, want[:batch], rtol=1e-4)
        np.testing.assert_allclose(maps, want_maps[:batch], atol=1e-4 * want_maps.max())
    assert b"site-packages" not in out.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_beside_the_run_on_given_images(run, tiny_data, traced):
    before = set(run.iterdir())
    refused("export", run, "--format", "pt2", says="--check")
    refused("export", run, "--format", "pt2", "--check", run, says=str(run))
    assert set(run.iterdir()) == before
    printed, said = vitlite("export", run, "--format", "pt2", "--check", tiny_data / "weave/test/good")
    assert set(run.iterdir()) - before == {run / "model.pt2"}
    assert "model.pt2" in printed
    assert "checked on 4 images" in said


def test_a_model_that_scores_differently_is_refused(tiny_run, tmp_path, monkeypatch, traced):
    honest = Detector.score_pixels
    monkeypatch.setattr(Detector, "score_pixels", lambda *args: tuple(1.001 * part for part in honest(*args)))
    out = tmp_path / "model.pt2"
    out.write_bytes(b"what was there before")
    refused("export", tiny_run, "--format", "pt2", "--out", out, says="differ by more than 0.0001")
    assert out.read_bytes() == b"what was there before"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages(tiny_run, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    refused("export", tiny_run, "--out", tmp_path / "m.onnx", says="pip install 'vitlite[onnx]'")
    assert not list(tmp_path.iterdir())
