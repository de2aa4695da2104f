"""int8 for OpenVINO: which products change and by how much, the thresholds that go with it, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import refused, vitlite

from vitlite import load
from vitlite.calibration import moved
from vitlite.errors import UserError
from vitlite.export.export import TOLERANCES, compare, export, held_out_of_run, with_drawn
from vitlite.export.int8 import GROUP, fitted, holds, lower, plain, rounded
from vitlite.export.lowered import Lowering, bank_of, parts_of
from vitlite.export.openvino_detector import OpenVinoDetector
from vitlite.export.program import OPSET, quiet
from vitlite.images.reading import read_image
from vitlite.kernels.nearest.reference import nearest_numpy
from vitlite.methods.sivt import SIVT, Config
from vitlite.nn.portable import ROWS, nearest_rows
from vitlite.nn.transformer import Block


def restored(whole, scales):
    """The weights (outputs, inputs) that the whole numbers stand for."""
    return (whole * scales).reshape(len(whole), -1)


def test_rounding_is_at_most_half_a_step():
    weights = np.random.default_rng(0).standard_normal((5, 3 * GROUP), np.float32)
    weights[2, GROUP : 2 * GROUP] = 0
    whole, scales = rounded(weights)
    assert whole.shape == (5, 3, GROUP)
    assert whole.dtype == np.int8
    assert scales.shape == (5, 3, 1)
    back = restored(whole, scales)
    assert (np.abs(back - weights) <= np.repeat(scales[..., 0], GROUP, axis=1) * 0.501).all()
    assert (back[2, GROUP : 2 * GROUP] == 0).all()
    assert np.abs(whole[:2]).max(axis=2).min() == 127
    assert rounded(weights[:, :48])[0].shape == (5, 1, 48)  # inputs that GROUP does not divide


def test_rounding_makes_up_for_its_errors_where_inputs_go_together():
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((20, 2 * GROUP), np.float32)
    inputs = rng.standard_normal((500, 4)) @ rng.standard_normal((4, 2 * GROUP)) + rng.standard_normal(2 * GROUP) / 10
    spread = np.cov(inputs.T, bias=True)
    errors = [
        ((inputs - inputs.mean(0)) @ (restored(*found) - weights).T).std()
        for found in (rounded(weights), rounded(weights, spread))
    ]
    assert errors[1] < errors[0] / 3
    whole, scales = rounded(weights, np.zeros((2 * GROUP, 2 * GROUP)))  # inputs that never change
    assert np.array_equal(restored(whole, scales), restored(*rounded(weights)))


def test_weights_are_found_in_the_layer_that_they_are_part_of():
    layer = np.random.default_rng(0).standard_normal((12, 8), np.float32)
    assert holds(layer, layer)
    assert holds(layer, layer[4:8])
    assert not holds(layer, layer[4:8] + 1)
    assert not holds(layer[:4], layer)
    assert not holds(layer, layer[:, :4])
    assert not holds(layer, layer[::2])


def written_onnx(module, example):
    """A module of one input as the bytes of an ONNX file."""
    with quiet():
        written = torch.onnx.export(module, (example,), dynamo=True, opset_version=OPSET, verbose=False)
    return written.model_proto.SerializeToString()


def test_a_product_is_fitted_to_what_comes_to_it():
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    layer = torch.nn.Linear(3, GROUP)
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))

    class Wide(torch.nn.Module):
        """Pixels of images (B, H, W, 3): far from 0, and mostly along one direction."""

        def __init__(self):
            super().__init__()
            self.layer, self.second = layer, torch.nn.Linear(GROUP, 2 * GROUP)

        def forward(self, images):
            return self.second(self.layer(images.float() / 255) + 5)

    module = Wide().eval()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    onnx = written_onnx(module, torch.from_numpy(images[:1]))
    weights = module.second.weight.detach().numpy()
    found = fitted(onnx, {"first": [], "second": [weights]}, [images[:2], images[2:]])
    assert found["first"] == {}
    ((name, product),) = found["second"].items()
    with torch.no_grad():
        came = module.layer(torch.from_numpy(images).float() / 255) + 5
        wanted = module(torch.from_numpy(images)).numpy()
    assert np.allclose(product.middle, came.mean((0, 1, 2)).numpy(), rtol=1e-4)
    assert np.allclose(product.constant, weights @ product.middle, rtol=1e-4, atol=1e-5)

    def error(changed):
        model = openvino.Core().read_model(onnx)
        lower(model, changed)
        compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return np.mean([np.square(compiled([image[None]])[0] - want).mean() for image, want in zip(images, wanted)])

    assert 0 < error({name: product}) < error(plain(onnx, [weights])) / 4
    with pytest.raises(ValueError, match="no product other"):
        error({"other": product})


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

    onnx = written_onnx(Search(), q)
    found = plain(onnx, [-bank.numpy()])
    assert len(found) == 3  # blocks of the bank
    model = openvino.Core().read_model(onnx)
    lower(model, found)
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


def test_the_steadiest_parts_alone_if_all_are_too_far(tiny_run, tmp_path, monkeypatch, caplog):
    for package in ("openvino", "onnxscript"):
        pytest.importorskip(package)
    tried, ordered = [], []

    def compared(run, exported, inputs, path, allowed, scales=None, again=None):
        if scales is None:
            tried.append(allowed)
            if len(tried) <= 2:
                raise UserError("a.xml: not written: too far")
        return compare(run, exported, inputs, path, allowed, scales, again)

    steadiest = Lowering.steadiest

    def seen(self, images):
        ordered.extend(steadiest(self, images))
        return list(ordered)

    monkeypatch.setattr("vitlite.export.export.compare", compared)
    monkeypatch.setattr(Lowering, "steadiest", seen)
    with caplog.at_level("INFO", "vitlite"):
        file = export(tiny_run, "openvino", tmp_path / "a.xml", precision="int8")
    assert tried == [{"score": 5e-3, "map": 5e-2}] * 3  # half of what is promised
    assert sorted(ordered) == sorted(parts_of(load(tiny_run, "cpu").method))
    assert "not with 6 of 6 parts in int8: too far" in caplog.text
    assert "not with 4 of 6 parts in int8: too far" in caplog.text
    assert f"in int8: 3 of the 6 parts of the blocks; in float32: {', '.join(sorted(ordered[3:]))}" in caplog.text
    # Two for each, three for the attention whose queries come from other tokens than its keys, and the bank.
    several = sum(part == "transformer.encoder.1.attn" for part in ordered[:3])
    assert file.read_text().count('element_type="i8"') == 2 * 3 + several + 1


def test_parts_are_ordered_by_what_they_change(tiny_run, tiny_data, tmp_path):
    for package in ("openvino", "onnxscript"):
        pytest.importorskip(package)
    detector = load(tiny_run, "cpu")
    images = np.stack([read_image(path) for path in sorted((tiny_data / "weave/train/good").glob("*.png"))])
    lowering = Lowering(detector, tmp_path / "a.xml", [images])
    exact = detector.score_pixels(images)[0]
    errors = []
    for part in lowering.steadiest(images):
        maps = OpenVinoDetector(tmp_path / "a.xml", data=lowering.contents([part])).score_pixels(images)[0]
        errors.append(np.square(maps - exact).mean())
    assert errors[0] > 0
    assert errors == sorted(errors)


def test_good_images_and_drawn_defects_are_checked(tiny_run, tiny_data):
    detector = load(tiny_run, "cpu")
    held = held_out_of_run(detector)
    assert {path.name for path in held} == {
        one["file"].split("/")[-1]
        for one in json.loads((tiny_run / "split.json").read_text())["images"]
        if one["part"] == "held out"
    }
    test = sorted((tiny_data / "weave/test").rglob("*.png"))
    names, pixels = zip(*((name, one) for batch in with_drawn(detector, test, held) for name, one in zip(*batch)))
    count = len(held)
    assert names == (*(f"{path} with a drawn defect" for path in held), *map(str, held), *map(str, test))
    for i in range(count):
        assert 0 < (pixels[i] != pixels[count + i]).any(axis=2).mean() < 0.5
    assert [len(names) for names, _ in with_drawn(detector, test[:2], [])] == [2, 2]


def test_backbones_have_no_part_in_int8():
    method = SIVT(Config(backbone="dinov2_vits14", image_size=56, feature_size=4, dim=8, heads=2), weights="none")
    assert any(isinstance(module, Block) for module in method.backbone.modules())
    assert {name.split(".")[0] for name in parts_of(method)} == {"transformer"}
    assert len(parts_of(method)) == 2 * (method.config.encoder_depth + method.config.decoder_depth)
