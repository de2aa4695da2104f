"""Thresholds hold for scores of the same settings and weights: a run whose files do not belong together is refused."""

import json
import shutil

import pytest
import torch

from vitlite.engine.calibrate import recalibrate
from vitlite.engine.checkpoint import CHECKPOINT_FILE
from vitlite.engine.detector import Detector
from vitlite.errors import UserError


@pytest.fixture
def run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "run")


def edit(run, name, value):
    lines = (run / "config.toml").read_text().splitlines(keepends=True)
    own = [f"{name} = {value}\n" if line.startswith(f"{name} = ") else line for line in lines]
    assert own != lines
    (run / "config.toml").write_text("".join(own))


def train_a_little(run):
    state = torch.load(run / CHECKPOINT_FILE, weights_only=True)
    state["model"]["transformer.head.bias"] += 0.01
    torch.save(state, run / CHECKPOINT_FILE)


@pytest.mark.parametrize(
    ("name", "value"), [("score", '"mean"'), ("sigma", "9.5"), ("edge", '"mirror"'), ("overlap", "0.5")]
)
def test_another_setting_of_scores_is_refused(run, name, value):
    edit(run, name, value)
    with pytest.raises(UserError, match=rf"made with {name}=.*config.toml has {name}=.*restore it"):
        Detector(run, "cpu")
    with pytest.raises(UserError, match=rf"good_scores.json: its scores were made with {name}="):
        recalibrate(Detector(run, "cpu", calibrated=False), target_fpr=0.3)


@pytest.mark.parametrize(("name", "value"), [("lr", "0.5"), ("target_fpr", "0.2"), ("weights", '"auto"')])
def test_other_settings_may_change(run, name, value):
    edit(run, name, value)
    Detector(run, "cpu")


def test_weights_of_another_run_are_refused(run):
    train_a_little(run)
    with pytest.raises(UserError, match=r"made with other weights than those of checkpoint.pt; copy the whole run"):
        Detector(run, "cpu")
    with pytest.raises(UserError, match=r"good_scores.json: its scores were made with other weights"):
        recalibrate(Detector(run, "cpu", calibrated=False), target_fpr=0.3)


def test_images_set_the_thresholds_anew(run, tiny_data):
    edit(run, "sigma", "9.5")
    recalibrate(Detector(run, "cpu", calibrated=False), target_fpr=0.3, good=[tiny_data / "weave/test/good"])
    Detector(run, "cpu")
    with pytest.raises(UserError, match=r"good_scores.json"):
        recalibrate(Detector(run, "cpu"), target_fpr=0.3)


def test_files_of_earlier_versions_say_nothing(run):
    for name in ("calibration.json", "good_scores.json"):
        found = json.loads((run / name).read_text())
        del found["scored_by"]
        (run / name).write_text(json.dumps(found))
    train_a_little(run)
    recalibrate(Detector(run, "cpu"), target_fpr=0.3)
