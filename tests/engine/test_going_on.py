"""Training that goes on: for longer, on data that moved, from another run's weights, in the place of a failed run."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from commands import refused, vitlite
from tiny_settings import METHODS, options_of

from vitlite.engine import loop as training_loop
from vitlite.engine import train as training
from vitlite.engine.checkpoint import load_checkpoint
from vitlite.engine.detector import Detector
from vitlite.engine.settings import load_settings, resumed_settings, settings_from
from vitlite.errors import UserError
from vitlite.methods.schedule import learning_rate


class Interrupted(Exception):
    pass


@pytest.fixture
def run(tiny_run, tmp_path):
    """A finished run of two epochs."""
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.fixture
def stop(monkeypatch):
    """stop(epoch) makes training stop in an epoch, stop(None) lets it train; every epoch has a checkpoint."""
    monkeypatch.setattr(training_loop, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    step = training_loop.Loop.train_step

    def stop(epoch):
        def train_step(self, *args):
            if self.epoch == epoch:
                raise Interrupted
            return step(self, *args)

        monkeypatch.setattr(training_loop.Loop, "train_step", train_step)

    return stop


def longer(run, data=None, **changes):
    training.train(resumed_settings(run, changes, data), run, device="cpu", resume=True)


def weights(run):
    return load_checkpoint(run, "sivt")["model"]


def same(run, other):
    own, others = weights(run), weights(other)
    return all(torch.equal(own[name], others[name]) for name in own)


def log(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_an_interrupted_run_goes_on_for_longer(tiny_run, tmp_path, stop):
    """As if it had had the larger number from the start, if the rate does not depend on the end."""
    settings = load_settings(tiny_run)
    settings = replace(settings, config=replace(settings.config, epochs=4, schedule="constant"))
    training.train(settings, tmp_path / "whole", device="cpu")
    stop(2)
    with pytest.raises(Interrupted):
        training.train(replace(settings, config=replace(settings.config, epochs=3)), tmp_path / "cut", device="cpu")
    stop(None)
    longer(tmp_path / "cut", epochs=4)
    assert same(tmp_path / "whole", tmp_path / "cut")
    for name in ("config.toml", "calibration.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


def test_a_finished_run_goes_on_with_the_schedule_of_its_new_end(tiny_run, tmp_path, caplog):
    """With a calibration of its own; what other commands made of the old weights is named."""
    settings, run = load_settings(tiny_run), tmp_path / "cosine"
    training.train(replace(settings, config=replace(settings.config, schedule="cosine")), run, device="cpu")
    before, calibration = weights(run), (run / "calibration.json").read_text()
    config = load_settings(run).config
    (run / "results.json").write_text("{}")
    with caplog.at_level("INFO", "vitlite"):
        longer(run, epochs=5)
    assert "random (seed 0)" not in caplog.text
    assert "goes on with epoch 3 of 5" in caplog.text
    assert "results.json: is of the weights before" in caplog.text
    assert [entry["epoch"] for entry in log(run)] == [1, 2, 3, 4, 5]
    rates = [config.lr * learning_rate(config, steps * 2 - 1, 2, 10) for steps in (3, 4, 5)]
    assert [entry["lr"] for entry in log(run)[2:]] == pytest.approx(rates)
    assert load_settings(run).config == replace(config, epochs=5)
    assert any(not torch.equal(before[name], value) for name, value in weights(run).items())
    assert (run / "calibration.json").read_text() != calibration
    longer(run, steps=14)
    assert len(log(run)) == 7
    assert load_settings(run).config.steps == 14


def test_a_longer_training_can_be_interrupted_too(run, tmp_path, stop):
    """At no moment are there old thresholds beside new weights."""
    other = shutil.copytree(run, tmp_path / "other")
    longer(other, epochs=5)
    stop(3)
    with pytest.raises(Interrupted):
        longer(run, epochs=5)
    with pytest.raises(UserError, match=r"calibration\.json: not there; training did not finish"):
        Detector(run, "cpu")
    stop(None)
    longer(run)
    assert same(run, other)
    assert (run / "calibration.json").read_bytes() == (other / "calibration.json").read_bytes()


def test_stopped_before_the_larger_number_is_recorded(run, tiny_run, monkeypatch):
    """The run is then as it was, but for its calibration, which is made anew from the same weights."""

    def fail(*args):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(training_loop, "save_settings", fail)
        with pytest.raises(Interrupted):
            longer(run, epochs=5)
    assert not (run / "calibration.json").exists()
    longer(run)
    assert same(run, tiny_run)
    assert (run / "calibration.json").read_bytes() == (tiny_run / "calibration.json").read_bytes()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"epochs": 1}, "epochs=1: makes 1 epoch; the run has had 2; give more"),
        ({"steps": 4}, "steps=4: makes 2 epochs; the run has had 2"),
        ({"lr": 1.0}, "lr: not together with resume=True, with which only steps or epochs can change"),
        ({"epochs": 5, "steps": 20}, "steps: not together with epochs"),
        ({"epochs": 0}, "epochs=0: must be at least 1"),
    ],
)
def test_what_a_longer_training_refuses(run, changes, says):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(UserError, match=says):
        longer(run, **changes)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vtadl", "isstad", "l2cae"])
def test_every_kind_of_method_goes_on(method, tiny_data, tmp_path):
    """One of two stages goes on with that which is longer now, and trains those after it again."""
    run = tmp_path / "run"
    options = (*options_of(METHODS[method]), "--device", "cpu")
    vitlite("train", "--method", method, "--data", tiny_data, "--out", run, *options)
    stages = [(entry["stage"], entry["epoch"]) for entry in log(run)]
    vitlite("train", "--resume", "--out", run, "--set", "epochs=5")
    longer = stages[0 if method == "vtadl" else -1][0]
    done = max(i for i, (name, _) in enumerate(stages) if name == longer) + 1
    added = [(longer, epoch) for epoch in range(stages[done - 1][1] + 1, 6)]
    assert [(entry["stage"], entry["epoch"]) for entry in log(run)] == [*stages[:done], *added, *stages[done:]]
    vitlite("predict", run, tiny_data / "weave/test", "--out", tmp_path / "out")


def test_data_that_moved(run, tiny_data, tmp_path):
    """The new place is recorded, if the images are the same; thresholds that were set since stay."""
    calibration = json.loads((run / "calibration.json").read_text())
    (run / "calibration.json").write_text(json.dumps({**calibration, "image_threshold": 7.0}))
    moved = shutil.copytree(tiny_data, tmp_path / "moved")
    longer(run, moved)
    assert load_settings(run).data == str(moved)
    assert json.loads((run / "calibration.json").read_text())["image_threshold"] == 7.0
    other = shutil.copytree(tiny_data, tmp_path / "other")
    next((other / "weave/train/good").iterdir()).unlink()
    for changes in ({}, {"epochs": 3}):
        with pytest.raises(UserError, match=f"{other}(: images were|.*restore)"):
            longer(run, other, **changes)
    assert load_settings(run).data == str(moved)
    assert json.loads((run / "calibration.json").read_text())["image_threshold"] == 7.0


def test_weights_of_another_run(backbone_run, tiny_data, tmp_path, caplog, monkeypatch):
    """Training begins with them, the frozen part included; resuming needs the other run no more."""
    origin = shutil.copytree(backbone_run, tmp_path / "origin")
    run, good = tmp_path / "run", tiny_data / "weave/train/good"
    begun = []
    run_stages = training_loop.Loop.run_stages
    monkeypatch.setattr(
        training_loop.Loop,
        "run_stages",
        lambda self: begun.append({n: v.clone() for n, v in self.method.state_dict().items()}) or run_stages(self),
    )
    settings = settings_from(origin, None, good, None, None, 3, {"epochs": 3, "places": "scaled"})
    with caplog.at_level("INFO", "vitlite"):
        training.train(settings, run, device="cpu")
    assert f"features from efficientnet_lite0 ({origin})" in caplog.text
    changed = {name for name, value in weights(origin).items() if not torch.equal(begun[0][name], value)}
    # Statistics of the images trained on, and of places, which are learnt anew, and the bank.
    assert changed == {"bank", "feature_mean", "feature_std", "places.level", "places.scale"}
    found = load_settings(run)
    assert (found.init_from, found.seed, found.category) == (str(origin), 3, "good")
    assert found.config == replace(load_settings(origin).config, epochs=3, places="scaled")
    assert Detector(run, "cpu").weights_source == Detector(origin, "cpu").weights_source
    shutil.rmtree(origin)
    longer(run, epochs=4)


def test_a_run_that_failed_is_replaced(run, tiny_data, monkeypatch):
    """Also one whose first epochs went well. Before, nothing of it is good; after, nothing of it is left."""
    monkeypatch.setattr(training_loop, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    step = training_loop.Loop.train_step

    def spoil(self, *args):
        terms = step(self, *args)
        return {**terms, "loss": torch.tensor(float("nan"))} if self.epoch == 1 else terms

    begin = ("train", "--method", "sivt", "--data", tiny_data, "--out", run, *options_of(METHODS["sivt"]))
    again = (*begin, "--set", "lr=0.0005", "--device", "cpu")
    refused(*again, says=f"{run}: already holds a run; use --resume")
    shutil.rmtree(run)
    monkeypatch.setattr(training_loop.Loop, "train_step", spoil)
    for arguments in (begin, ("train", "--resume", "--out", run)):
        _, said = vitlite(*arguments, "--device", "cpu", code=2)
        line = said.splitlines()[-1]
        assert line == (
            f"vitlite: the loss became nan; train again with a smaller --set lr than 0.001; --out {run} may be the same"
        )
        assert load_checkpoint(run, "sivt")["epoch"] == 1
        assert (run / "failed.txt").read_text() == "the loss became nan\n"
        refused("eval", run, says=r"calibration.json: not there; training failed (the loss became nan); train again")
    monkeypatch.setattr(training_loop.Loop, "train_step", step)
    _, said = vitlite(*again)
    assert said.splitlines()[0] == f"{run}: replaces a run that failed"
    assert [entry["epoch"] for entry in log(run)] == [1, 2]
    assert {path.name for path in run.iterdir()} == {
        *("config.toml", "checkpoint.pt", "log.jsonl", "split.json", "good_scores.json", "calibration.json")
    }
    assert load_settings(run).config.lr == 0.0005


def test_a_run_without_a_checkpoint_is_replaced(tiny_run, tmp_path, stop, caplog):
    settings, run = load_settings(tiny_run), tmp_path / "run"
    stop(0)
    with pytest.raises(Interrupted):
        training.train(settings, run, device="cpu")
    stop(1)
    with pytest.raises(Interrupted):
        training.train(settings, run, device="cpu")
    assert f"{run}: replaces a run that was stopped before its first checkpoint" in caplog.text
    with pytest.raises(UserError, match="already holds a run"):  # which has a checkpoint now
        training.train(settings, run, device="cpu")
    stop(None)
    longer(run)
    assert same(run, tiny_run)


def test_a_finished_run_that_fails_later_is_not_given_up(run, monkeypatch):
    before = (run / "checkpoint.pt").stat().st_size
    monkeypatch.setattr(training_loop.Loop, "train_step", lambda self, *args: {"loss": torch.tensor(float("inf"))})
    with pytest.raises(UserError, match=r"the loss became inf; train again with a smaller lr than 0\.001$"):
        longer(run, epochs=5)
    assert not (run / "failed.txt").exists()
    assert (run / "checkpoint.pt").stat().st_size == pytest.approx(before, rel=0.1)
    monkeypatch.undo()
    longer(run, epochs=2)  # as it was
    assert Detector(run, "cpu").settings.config.epochs == 2
