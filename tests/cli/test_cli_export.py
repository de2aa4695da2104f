"""vitlite export as a person types it: what is written, what is refused, and that nothing is left behind then."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import refused, vitlite
from torch.nn.functional import normalize

from vitlite.data import read_image, resize_image
from vitlite.engine.detector import Detector
from vitlite.errors import UserError
from vitlite.export import export as exporting
from vitlite.export.program import trace
from vitlite.kernels import memory_read

OLD_RUNS = Path(__file__).parents[1] / "old_run"


@pytest.fixture(scope="module")
def program(tiny_run):
    return trace(Detector(tiny_run, "cpu").method, (64, 64))


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
    files = sum(len(list((tiny_data / "weave" / split).rglob("*.png"))) for split in ("train", "test"))
    assert f"checked on {min(32, files)} images" in said
    extra = {"vitlite.json": ""}
    model = torch.export.load(out, extra_files=extra).module()
    text = extra["vitlite.json"]
    metadata = json.loads(text.decode() if isinstance(text, bytes) else text)
    calibration = json.loads((tiny_run / "calibration.json").read_text())
    del calibration["good_images"], calibration["odd_images"], calibration["scored_by"]
    assert metadata["calibration"] == calibration
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
    refused(
        "export",
        tiny_run,
        "--format",
        "pt2",
        "--out",
        out,
        says="the map of the exported model differs from the run's by 9.99e-04 relative; at most 1.0",
    )
    assert out.read_bytes() == b"what was there before"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("gap", "allowed", "says"),
    [
        (1.0004e-4, 1e-4, "by 1.0004e-04 relative; at most 1.0000e-04 is allowed; give the run itself to predict"),
        (0.012345, 0.005, "by 1.23e-02 relative; at most 5.00e-03 is allowed; leave out `precision=int8`"),
    ],
)
def test_a_difference_is_shown_beyond_its_limit(gap, allowed, says):
    assert exporting.by_how_much(gap, allowed) == says


def test_what_rounding_changes_in_the_run_itself_is_allowed():
    """Maps that are divided by tiny deviations show the last digits of the network: no exported file agrees on them."""
    pixels = np.zeros((2, 4, 4, 3), np.uint8)

    def scored(by):
        return np.ones((2, 4, 4)) + by * np.eye(4), np.ones(2)

    def against(gap, *own):
        again = (lambda pixels: [scored(by) for by in (0, *own)]) if own else None
        found = exporting.compare(
            lambda pixels: scored(0), lambda pixels: scored(gap), [(["a", "b"], pixels)], "m.onnx", limits, None, again
        )
        return found[1]["map"]

    limits = exporting.TOLERANCES["float32"]
    assert against(6e-4, 1e-6, -3e-4) == pytest.approx(6e-4, rel=1e-3)
    for gap, own in ((6e-4, ()), (6e-4, (1e-6, 2e-4)), (2e-2, (0.1,))):
        with pytest.raises(UserError, match=r"^m.onnx: not written: for a the map .*; give the run itself to predict$"):
            against(gap, *own)


def test_rounding_otherwise_changes_the_last_digits_alone(tiny_run):
    detector = Detector(tiny_run, "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    maps, scores = detector.score_pixels(pixels)
    (same, _), *found = exporting.rounded_otherwise(detector, pixels)
    assert (same == maps).all()
    assert len(found) == exporting.ROUNDED
    assert all(0 < np.abs(other - maps).max() < 1e-4 * np.abs(maps).max() for other, _ in found)
    assert all(np.abs(other - scores).max() < 1e-4 * scores.max() for _, other in found)


def test_images_of_every_kind_are_compared(tiny_run, tiny_data):
    detector = Detector(tiny_run, "cpu")
    paths = exporting.images_of_run(detector)
    everything = [path for split in ("train", "test") for path in (tiny_data / "weave" / split).rglob("*.png")]
    assert len(paths) == len(set(paths)) == min(32, len(everything))
    assert {path.parent for path in paths} == {path.parent for path in everything}


def test_what_is_not_finite_is_refused(tiny_run, tmp_path, monkeypatch, traced):
    honest = exporting.read_pt2

    def spoiled(data):
        score_pixels, text = honest(data)

        def score(pixels):
            maps, scores = score_pixels(pixels)
            return maps, np.where(np.arange(len(scores)) == 1, np.nan, scores)

        return score, text

    monkeypatch.setattr(exporting, "read_pt2", spoiled)
    out = tmp_path / "model.pt2"
    refused("export", tiny_run, "--format", "pt2", "--out", out, says="the exported model gives a score with NaN")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_memory_that_fails_at_its_threshold_is_refused(tmp_path, monkeypatch):
    """As the papers' shrinkage does if the exporter drops its eps, though all images of the check go well."""
    run, images, out = OLD_RUNS / "runs/memca", OLD_RUNS / "data", tmp_path / "model.pt2"

    def papers(z, items, backend, **_):
        if backend != "eager":
            return memory_read(z, items)
        weights = torch.softmax(normalize(z) @ normalize(items).t(), 1)
        gap = weights - 1 / len(items)
        weights = normalize(torch.relu(gap) * weights / gap.abs(), p=1.0)
        return weights @ items, torch.special.entr(weights).sum(1)

    with monkeypatch.context() as patch:
        patch.setattr("vitlite.kernels.modules.memory_read", papers)
        says = "its memory at the threshold: not written: for a black image the exported model gives a map with NaN"
        refused("export", run, "--format", "pt2", "--out", out, "--check", images, says=says)
        assert not list(tmp_path.iterdir())
    vitlite("export", run, "--format", "pt2", "--out", out, "--check", images)
    assert out.is_file()


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages(tiny_run, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    refused("export", tiny_run, "--out", tmp_path / "m.onnx", says=f"pip install {package}")
    assert not list(tmp_path.iterdir())
