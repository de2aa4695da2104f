"""OpenVINO's two files: written by the command, scored as the run scores, refused if they are not what they were."""

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from commands import refused, vitlite

from vitlite import load
from vitlite.errors import UserError
from vitlite.export.export import difference
from vitlite.export.metadata import dumps
from vitlite.export.onnx_detector import OnnxDetector

RUN = Path(__file__).parents[1] / "old_run/runs/anovit"

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The .xml file of an earlier version's ONNX file."""
    from vitlite.export.openvino_detector import to_openvino, weights_file

    onnx = OnnxDetector(RUN / "model.onnx")
    graph, weights = to_openvino((RUN / "model.onnx").read_bytes(), dumps(onnx.metadata))
    path = tmp_path_factory.mktemp("openvino") / "model.xml"
    path.write_bytes(graph)
    weights_file(path).write_bytes(weights)
    return path


def test_exported_and_scored_by_the_commands(tmp_path, tiny_data):
    pytest.importorskip("onnxscript")
    images = tiny_data / "weave/test/scratch"
    file = tmp_path / "parts.xml"
    printed, said = vitlite("export", RUN, "--format", "openvino", "--out", file, "--check", images)
    assert str(file) in printed
    assert "scores differ by at most" in said
    assert {path.name for path in tmp_path.iterdir()} == {"parts.xml", "parts.bin"}
    run, exported = load(RUN, "cpu"), load(file, threads=1)
    assert exported.calibration["good_scores"] == run.calibration["good_scores"]
    paths = sorted(images.glob("*.png"))
    for one, other in zip(run.predict(paths), exported.predict(paths, batch_size=3)):
        assert one.score == pytest.approx(other.score, rel=1e-4)
        assert difference(other.map, one.map) < 1e-4
    out, _ = vitlite("predict", file, paths[0], "--threads", 1)
    assert "score" in out
    refused("report", file, says="an exported file can be given to predict and serve")
    refused("report", tmp_path / "gone.xml", says="no such file; give the folder that `vitlite train` wrote")


def test_a_copy_and_other_threads_of_python(model):
    detector = load(model)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 1, *detector.view.sides, 3), dtype=np.uint8)
    copy = pickle.loads(pickle.dumps(detector))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: detector.score_pixels(one)[1][0], pixels))
    assert found == [copy.score_pixels(one)[1][0] for one in pixels]
    assert len(set(found)) == len(pixels)
    assert copy.digest() == detector.digest()


def test_other_weights_and_what_is_missing(model, tmp_path, monkeypatch):
    file = tmp_path / "model.xml"
    file.write_bytes(model.read_bytes())
    with pytest.raises(UserError, match=r"model.bin: cannot be read"):
        load(file)
    weights = bytearray(model.with_suffix(".bin").read_bytes())
    weights[-1] ^= 1
    file.with_suffix(".bin").write_bytes(weights)
    with pytest.raises(UserError, match=r"its \.bin file belongs to another \.xml file"):
        load(file)
    file.write_text("<net/>")
    with pytest.raises(UserError, match="damaged, or not an OpenVINO model"):
        load(file)
    with pytest.raises(UserError, match=r"device=cuda: an OpenVINO model is scored on the CPU"):
        load(model, "cuda")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"needs openvino .*: pip install openvino"):
        load(model)
