"""The ONNX file: its interface, its metadata, its numbers, and what is refused as one."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import vitlite
from vitlite.api import load
from vitlite.engine.detector import Detector
from vitlite.errors import UserError
from vitlite.export.export import export
from vitlite.export.metadata import FORMAT
from vitlite.export.onnx_detector import OnnxDetector
from vitlite.images.reading import read_image
from vitlite.images.resize import resize_image

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]
SIZE = 64


@pytest.fixture(scope="module")
def tiny_onnx(tmp_path_factory, backbone_run):
    """A tiny run as an ONNX file. Exporting takes long: tests of using such a file take that of an old run."""
    pytest.importorskip("onnxscript")
    return export(backbone_run, out=tmp_path_factory.mktemp("exported") / "tiny.onnx")


@pytest.fixture(scope="module")
def detector(tiny_onnx):
    return OnnxDetector(tiny_onnx)


@pytest.fixture(scope="module")
def trained(backbone_run):
    return Detector(backbone_run, "cpu")


@pytest.fixture(scope="module")
def pixels(tiny_data):
    paths = sorted((tiny_data / "weave/test").rglob("*.png"))[:8]
    return np.stack([resize_image(read_image(path), (SIZE, SIZE)) for path in paths])


def test_checker_and_interface(tiny_onnx):
    model = onnx.load(tiny_onnx)
    onnx.checker.check_model(model, full_check=True)
    (images,), outputs = model.graph.input, {o.name: o for o in model.graph.output}
    dims = images.type.tensor_type.shape.dim
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", SIZE, SIZE, 3]
    assert set(outputs) == {"maps", "scores"}
    assert all(o.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for o in outputs.values())
    assert {o.domain for o in model.opset_import} <= {"", "ai.onnx"}
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def test_metadata(detector, backbone_run, tiny_onnx):
    found = detector.metadata
    assert found["format"] == FORMAT
    assert found["vitlite"] == vitlite.__version__
    assert found["image_size"] == SIZE
    assert found["categories"] == ["weave"]
    calibration = json.loads((backbone_run / "calibration.json").read_text())
    calibration.pop("odd_images")
    assert calibration.pop("good_images")  # the names of files are nobody else's business
    assert calibration.pop("scored_by")  # the file holds the weights themselves
    assert found["calibration"] == calibration
    assert found["config"]["dim"] == 16
    assert "BILINEAR" in found["input"]["resize_filter"]
    for path_of_this_machine in (str(ROOT).encode(), b"site-packages"):
        assert path_of_this_machine not in tiny_onnx.read_bytes()


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_any_batch_size_gives_the_numbers_of_the_run(detector, trained, pixels, batch):
    want_maps, want = trained.score_pixels(pixels[:batch])
    maps, scores = detector.score_pixels(pixels[:batch])
    assert maps.shape == (batch, SIZE, SIZE)
    assert maps.dtype == scores.dtype == np.float32
    np.testing.assert_allclose(scores, want, rtol=1e-4)
    np.testing.assert_allclose(maps, want_maps, atol=1e-4 * np.abs(want_maps).max())
    alone = [detector.score_pixels(one[None])[1][0] for one in pixels[:batch]]
    np.testing.assert_allclose(scores, alone, rtol=1e-5)
    assert len(set(scores.tolist())) == batch  # and they depend on the image


def test_predicts_as_the_run_does(detector, trained, tiny_data):
    paths = sorted((tiny_data / "weave/test").rglob("*.png"))
    for got, want in zip(detector.predict(paths, batch_size=3), trained.predict(paths)):
        assert got.score == pytest.approx(want.score, rel=1e-4)
        assert got.is_defect == want.is_defect
        assert got.map.shape == want.map.shape
        np.testing.assert_allclose(got.map, want.map, atol=1e-4 * want.map.max())


def test_several_threads(detector, pixels):
    want = [detector.score_pixels(one[None])[1][0] for one in pixels]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda one: detector.score_pixels(one[None])[1][0], list(pixels) * 5))
    np.testing.assert_allclose(got, want * 5, rtol=1e-6)


def test_opened_by_its_name(tiny_onnx, tiny_run, tmp_path):
    assert isinstance(load(tiny_onnx), OnnxDetector)
    assert isinstance(load(str(tiny_onnx), "cpu"), OnnxDetector)
    assert isinstance(load(tiny_run), Detector)
    (tmp_path / "a.pt2").write_bytes(b"x")
    with pytest.raises(UserError, match=r"a\.pt2"):
        load(tmp_path / "a.pt2")


def test_what_onnxruntime_refuses_or_lacks(tiny_onnx, monkeypatch):
    with pytest.raises(UserError, match="onnxruntime cannot run it"):
        OnnxDetector(tiny_onnx).score_pixels(np.zeros((1, 32, 32, 3), np.uint8))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnxruntime"):
        OnnxDetector(tiny_onnx)


def test_its_threads_do_not_spin(detector):
    options = detector.open()._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
