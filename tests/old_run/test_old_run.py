"""Runs that vitlite 0.1.0 trained load, and say of every image what they said then.

``make.sh`` shows how they were made.
"""

import json
import tomllib
from pathlib import Path

import pytest

import vitlite
from vitlite.engine.settings import load_settings
from vitlite.errors import UserError

HERE = Path(__file__).parent
EXPECTED = json.loads((HERE / "expected.json").read_text())
CONFIGS = sorted(path.name for path in (HERE / "configs").iterdir())


def same_predictions(detector, method, tolerance):
    for name, then in EXPECTED[method]["images"].items():
        now = detector.predict(HERE / "data/weave/test" / name)
        assert now.score == pytest.approx(then["score"], rel=tolerance), name
        assert (now.verdict, now.percentile) == (then["verdict"], then["percentile"]), name
        if now.verdict == "good":  # 0.1.0 reported regions of good images too
            assert now.regions == (), name
        elif then["regions"]:  # and none of a defective image if no pixel was above the threshold
            assert abs(now.defect_pixels - then["defect_pixels"]) <= 1, name
            if now.defect_pixels == then["defect_pixels"]:
                assert [list(box) for box in now.regions] == then["regions"], name
        else:
            assert len(now.regions) == 1, name


@pytest.mark.parametrize("method", EXPECTED)
def test_scores_and_verdicts(method):
    assert {then["verdict"] for then in EXPECTED[method]["images"].values()} == {"good", "defect"}
    same_predictions(vitlite.load(HERE / "runs" / method, "cpu"), method, 1e-5)


@pytest.mark.parametrize("method", EXPECTED)
def test_metrics(method):
    now = vitlite.evaluate(HERE / "runs" / method, HERE / "data")["mean"]
    assert 0 <= now.pop("peak_on_mask") <= 1  # older versions did not count it
    assert now == {key: pytest.approx(then, rel=1e-4) for key, then in EXPECTED[method]["mean"].items()}


def test_an_exported_file():
    pytest.importorskip("onnxruntime")
    same_predictions(vitlite.load(HERE / "runs/anovit/model.onnx"), "anovit", 1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_settings_of_every_method(name):
    """A newer version may know more settings, and gives each of the old ones its value."""
    now = load_settings(HERE / "configs" / name)
    then = tomllib.loads((HERE / "configs" / name / "config.toml").read_text(encoding="utf-8"))
    del then["run"]["vitlite"]
    assert {key: getattr(now, key) for key in then["run"]} == then["run"]
    if "levels" in then["config"]:  # became ``places``, which all methods have
        then["config"]["places"] = {"none": "none", "position": "scaled"}[then["config"].pop("levels")]
    if now.method == "vtadl":  # was of the mean over three colours, and is of their sum
        then["config"]["mse_weight"] /= 3
    values = {key: getattr(now.config, key) for key in then["config"]}
    assert {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()} == then["config"]


def test_every_method_has_old_settings():
    assert {name.split("-")[0] for name in CONFIGS} == {"sivt", "anovit", "l2cae", "memca", "vtadl", "isstad"}


@pytest.mark.parametrize("value", ['"row"', "[1]"])
def test_a_value_that_an_old_setting_never_had_is_refused(tmp_path, value):
    text = (HERE / "configs/vtadl-quick/config.toml").read_text(encoding="utf-8")
    (tmp_path / "config.toml").write_text(text.replace('levels = "position"', f"levels = {value}"), encoding="utf-8")
    with pytest.raises(UserError, match="places="):
        load_settings(tmp_path)
