"""int8 for OpenVINO: which products change and by how much, the thresholds that go with it, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import refused, vitlite

from vitlite import load
from vitlite.calibration import moved
from vitlite.errors import UserError
from vitlite.export.export import TOLERANCES, compare, export
from vitlite.export.int8 import GROUP, holds, lower, rounded
from vitlite.export.lowered import bank_of
from vitlite.export.program import OPSET, quiet
from vitlite.kernels.nearest.reference import nearest_numpy
from vitlite.methods.sivt import SIVT, Config
from vitlite.nn.portable import ROWS, nearest_rows


def test_rounding_is_at_most_half_a_step():
    weights = np.random.default_rng(0).standard_normal((5, 3 * GROUP), np.float32)
    weights[2, GROUP : 2 * GROUP] = 0
    whole, scales = rounded(weights)
    assert whole.shape == (5, 3, GROUP)
    assert whole.dtype == np.int8
    assert scales.shape == (5, 3, 1)
    back = (whole * scales).reshape(weights.shape)
    assert (np.abs(back - weights) <= np.repeat(scales[..., 0], GROUP, axis=1) * 0.501).all()
    assert (back[2, GROUP : 2 * GROUP] == 0).all()
    assert np.abs(whole[:2]).max(axis=2).min() == 127
    assert rounded(weights[:, :48])[0].shape == (5, 1, 48)  # inputs that GROUP does not divide


def test_weights_are_found_in_the_layer_that_they_are_part_of():
    layer = np.random.default_rng(0).standard_normal((12, 8), np.float32)
    assert holds(layer, layer)
    assert holds(layer, layer[4:8])
    assert not holds(layer, layer[4:8] + 1)
    assert not holds(layer[:4], layer)
    assert not holds(layer, layer[:, :4])
    assert not holds(layer, layer[::2])


def test_a_search_is_in_int8_and_its_distances_are_those_to_rows_of_the_bank():
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    generator = torch.Generator().manual_seed(0)
    bank, q = torch.randn(2 * ROWS + 100, 48, generator=generator), torch.randn(300, 48, generator=generator)

    class Search(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bank = torch.nn.Parameter(bank, requires_grad=False)

        def forward(self, q):
            return nearest_rows(q, self.bank, 1)[0][:, 0]

    with quiet():
        written = torch.onnx.export(Search(), (q,), dynamo=True, opset_version=OPSET, verbose=False)
    model = openvino.Core().read_model(written.model_proto.SerializeToString())
    assert lower(model, [-bank.numpy()]) == 3  # blocks of the bank
    assert {str(node.get_element_type()) for node in model.get_ops() if node.get_type_name() == "Constant"} >= {
        "<Type: 'int8_t'>"
    }
    found = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([q.numpy()])[0]
    exact = nearest_numpy(q.numpy(), bank.numpy())[0][:, 0]
    assert (found > exact * (1 - 1e-5)).all()
    assert (found < exact * 1.01).all()
    assert (found < exact * (1 + 1e-5)).mean() > 0.98


def test_the_bank_of_a_method_is_what_its_graph_multiplies_with():
    method = SIVT(Config(backbone="image", image_size=32, feature_size=4, dim=8, heads=2, bank=5))
    method.keep(torch.randn(5, method.rows.shape[1]))
    assert np.array_equal(bank_of(method)[0], -method.rows.detach().numpy())
    assert bank_of(SIVT(replace(method.config, bank=0))) == []
    assert bank_of(torch.nn.Identity()) == []


def test_thresholds_move_with_their_scores():
    own = {"image_threshold": 2.0, "good_scores": [1.0, 2.0], "pixel_threshold": 10.0, "good_pixels": [5.0]}
    rest = {"images": 2, "target_fpr": 0.1}
    found = moved(own | rest | {"display": {"low": 1.0, "high": 20.0}, "categories": {"a": own}}, 1.5, 0.5)
    changed = {"image_threshold": 3.0, "good_scores": [1.5, 3.0], "pixel_threshold": 5.0, "good_pixels": [2.5]}
    assert found == changed | rest | {"display": {"low": 0.5, "high": 10.0}, "categories": {"a": changed}}
    assert own["good_scores"] == [1.0, 2.0]


def test_written_and_scored_by_the_commands(tiny_run, tiny_data, tmp_path):
    for package in ("openvino", "onnxscript"):
        pytest.importorskip(package)
    file = tmp_path / "parts.xml"
    _, said = vitlite("export", tiny_run, "--format", "openvino", "--precision", "int8", "--out", file)
    assert "thresholds moved by" in said
    # Two blocks of an encoder and one of a decoder, four layers each; the last block of the encoder has its queries,
    # and its keys with its values, from one of them. And the bank, of fewer rows than a block has.
    assert file.read_text().count('element_type="i8"') == 14
    run, exported = load(tiny_run, "cpu"), load(file, threads=1)
    assert exported.metadata["precision"] == "int8"
    images = sorted((tiny_data / "weave/test").rglob("*.png"))
    ours, theirs = (np.array([one.score for one in found.predict(images)]) for found in (run, exported))
    assert 1e-6 < np.abs(theirs / ours - 1).max() < 1e-2
    ratio = exported.calibration["image_threshold"] / run.calibration["image_threshold"]
    good = sorted((tiny_data / "weave/train").rglob("*.png"))
    before, after = (np.array([one.score for one in found.predict(good)]) for found in (run, exported))
    assert ratio == pytest.approx(np.median(after / before), rel=1e-6)
    assert ratio != 1
    assert np.allclose(exported.calibration["good_scores"], np.array(run.calibration["good_scores"]) * ratio, rtol=1e-6)


def test_refused_with_another_format_method_or_name(tiny_run, tmp_path):
    refused("export", tiny_run, "--precision", "int8", says="--precision int8: goes with --format openvino alone")
    with pytest.raises(UserError, match="precision=int4: not one of float32, int8"):
        export(tiny_run, "openvino", tmp_path / "a.xml", precision="int4")
    for package in ("openvino", "onnxscript"):
        pytest.importorskip(package)
    anovit = Path(__file__).parents[1] / "old_run/runs/anovit"
    with pytest.raises(UserError, match="precision=int8: anovit is exported in float32"):
        export(anovit, "openvino", tmp_path / "a.xml", precision="int8")
    assert not list(tmp_path.iterdir())


def test_refused_if_scores_are_too_far(tiny_run, tmp_path, monkeypatch):
    for package in ("openvino", "onnxscript"):
        pytest.importorskip(package)
    monkeypatch.setitem(TOLERANCES, "int8", {"score": 1e-7, "map": 1e-1})
    with pytest.raises(UserError, match=r"not written: .* the score of the exported model differs from the run's"):
        export(tiny_run, "openvino", tmp_path / "a.xml", precision="int8")
    assert not list(tmp_path.iterdir())


def test_fewer_layers_if_all_are_too_far(tiny_run, tmp_path, monkeypatch, caplog):
    for package in ("openvino", "onnxscript"):
        pytest.importorskip(package)
    calls = []

    def compared(*args):
        calls.append(args)
        if len(calls) == 1:
            raise UserError("a.xml: not written: too far")
        return compare(*args)

    monkeypatch.setattr("vitlite.export.export.compare", compared)
    with caplog.at_level("INFO", "vitlite"):
        file = export(tiny_run, "openvino", tmp_path / "a.xml", precision="int8")
    assert "not the blocks in int8: too far" in caplog.text
    assert "in int8: linear layers of their MLPs" in caplog.text
    assert file.read_text().count('element_type="i8"') == 7  # two for each of three blocks, and the bank
