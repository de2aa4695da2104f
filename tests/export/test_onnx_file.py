"""The ONNX file: its interface, its metadata, its numbers, and what is refused as one."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import vitlite
from vitlite.api import open_detector
from vitlite.data import read_image, resize_image
from vitlite.engine.detector import Detector
from vitlite.errors import UserError
from vitlite.export.metadata import FORMAT, KEY
from vitlite.export.onnx_detector import OnnxDetector

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]
SIZE = 64


@pytest.fixture(scope="module")
def detector(tiny_onnx):
    return OnnxDetector(tiny_onnx)


@pytest.fixture(scope="module")
def trained(tiny_run):
    return Detector(tiny_run, "cpu")


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


def test_metadata(detector, tiny_run):
    found = detector.metadata
    assert found["format"] == FORMAT
    assert found["vitlite"] == vitlite.__version__
    assert found["image_size"] == SIZE
    assert found["categories"] == ["weave"]
    assert found["calibration"] == json.loads((tiny_run / "calibration.json").read_text())
    assert found["config"]["dim"] == 16
    assert "BILINEAR" in found["input"]["resize_filter"]


def test_nothing_of_this_machine_is_in_the_file(tiny_onnx):
    data = tiny_onnx.read_bytes()
    assert str(ROOT).encode() not in data
    assert b"site-packages" not in data


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
    assert len(set(scores.tolist())) == batch  # and they depend on the picture


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
    assert isinstance(open_detector(tiny_onnx), OnnxDetector)
    assert isinstance(open_detector(str(tiny_onnx), "cpu"), OnnxDetector)
    assert isinstance(open_detector(tiny_run), Detector)
    (tmp_path / "a.pt2").write_bytes(b"x")
    with pytest.raises(UserError, match=r"a\.pt2"):
        open_detector(tmp_path / "a.pt2")


def with_metadata(path, change, tmp_path):
    """A copy of the file whose metadata text went through ``change``; None removes it."""
    model = onnx.load(path)
    text = next(p.value for p in model.metadata_props if p.key == KEY)
    del model.metadata_props[:]
    changed = change(text)
    if changed is not None:
        onnx.helper.set_model_props(model, {KEY: changed})
    onnx.save(model, tmp_path / "changed.onnx")
    return tmp_path / "changed.onnx"


def changed_json(**changes):
    return lambda text: json.dumps({**json.loads(text), **changes})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: None, "not exported by vitlite"),
        (lambda text: text[:50], "damaged"),
        (lambda text: "[]", "damaged"),
        (lambda text: "[" * 100_000, "damaged"),
        (lambda text: "{}", "damaged"),
        (changed_json(format=FORMAT + 1), "newer"),
        (changed_json(format="x"), "damaged"),
        (changed_json(image_size=0), "damaged"),
        (changed_json(image_size=128), "inputs and outputs"),
        (changed_json(calibration={}), "damaged"),
        (changed_json(calibration=None), "damaged"),
        (lambda text: text.replace('"image_threshold": ', '"image_threshold": 1e999, "x": '), "damaged"),
    ],
)
def test_metadata_that_cannot_be_used(tiny_onnx, tmp_path, change, says):
    path = with_metadata(tiny_onnx, change, tmp_path)
    with pytest.raises(UserError, match=says) as error:
        OnnxDetector(path)
    assert "changed.onnx" in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"",
        lambda b: b[: len(b) // 2],
        lambda b: b[:-1],
        lambda b: b"\x00" * 100,
        lambda b: b"PK\x03\x04 a zip file",
        lambda b: b"hello",
    ],
)
def test_damaged_files(tiny_onnx, tmp_path, damage):
    path = tmp_path / "bad.onnx"
    path.write_bytes(damage(tiny_onnx.read_bytes()))
    with pytest.raises(UserError, match=r"bad\.onnx"):
        OnnxDetector(path)


def test_somebody_elses_model(tmp_path):
    make = onnx.helper
    value = [make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    graph = make.make_graph([make.make_node("Relu", ["x"], ["y"])], "other", value[:1], value[1:])
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=8), tmp_path / "o.onnx")
    with pytest.raises(UserError, match=r"o\.onnx: not exported by vitlite"):
        OnnxDetector(tmp_path / "o.onnx")


def test_wrong_use(tiny_onnx, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"none\.onnx"):
        OnnxDetector(tmp_path / "none.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(UserError, match=r"folder\.onnx"):
        OnnxDetector(tmp_path / "folder.onnx")
    with pytest.raises(UserError, match="--device cuda"):
        OnnxDetector(tiny_onnx, "cuda")
    with pytest.raises(UserError, match="onnxruntime cannot run it"):
        OnnxDetector(tiny_onnx).score_pixels(np.zeros((1, 32, 32, 3), np.uint8))
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'vitlite\[onnx\]'"):
        OnnxDetector(tiny_onnx)
