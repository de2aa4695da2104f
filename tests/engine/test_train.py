"""The run directory, resuming, and what stays out of training."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_settings import METHODS, TINY

from vitlite.data import open_dataset
from vitlite.data.parting import hold_out
from vitlite.engine import features
from vitlite.engine import loop as training_loop
from vitlite.engine import train as training
from vitlite.engine.checkpoint import load_checkpoint, save_checkpoint, with_weights
from vitlite.engine.settings import load_settings, new_settings, preset_config
from vitlite.errors import UserError
from vitlite.methods.config import TrainingConfig, change


def weights(run):
    return load_checkpoint(run, "sivt")["model"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_run_directory(tiny_run):
    names = {p.name for p in tiny_run.iterdir()}
    assert {"config.toml", "checkpoint.pt", "log.jsonl", "calibration.json"} <= names
    assert not [n for n in names if n.endswith(".tmp")]
    log = [json.loads(line) for line in (tiny_run / "log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == [1, 2]
    assert all(entry["loss"] > 0 for entry in log)


def test_same_seed_same_weights(tiny_run, tmp_path):
    settings = load_settings(tiny_run)
    training.train(settings, tmp_path / "again", device="cpu")
    assert same(weights(tiny_run), weights(tmp_path / "again"))
    training.train(replace(settings, seed=1), tmp_path / "other", device="cpu")
    assert not same(weights(tiny_run), weights(tmp_path / "other"))


class Interrupted(Exception):
    pass


def test_resume_reaches_the_same_weights(tiny_run, tmp_path, monkeypatch):
    """Stopped in the middle of an epoch after 0, 1 or 2 checkpoints; bit for bit as if it had not been."""
    settings = load_settings(tiny_run)
    settings = replace(settings, config=replace(settings.config, epochs=4))
    monkeypatch.setattr(training_loop, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    training.train(settings, tmp_path / "whole", device="cpu")
    step = training_loop.Loop.train_step
    for epoch in range(3):
        run, coin = tmp_path / f"cut{epoch}", torch.Generator().manual_seed(epoch)

        def stop(self, *args, epoch=epoch, coin=coin):
            if self.epoch == epoch and torch.rand(1, generator=coin) < 0.7:
                raise Interrupted
            return step(self, *args)

        monkeypatch.setattr(training_loop.Loop, "train_step", stop)
        with pytest.raises(Interrupted):
            training.train(settings, run, device="cpu")
        monkeypatch.setattr(training_loop.Loop, "train_step", step)
        training.train(load_settings(run), run, device="cpu", resume=True)
        assert same(weights(tmp_path / "whole"), weights(run))
        whole, cut = (folder.joinpath("log.jsonl").read_text().splitlines() for folder in (tmp_path / "whole", run))
        assert [json.loads(line)["loss"] for line in whole] == [json.loads(line)["loss"] for line in cut]


def test_resume_takes_the_backbone_from_the_checkpoint(backbone_run, tmp_path):
    """Not from where the first start took it, which may be gone, nor at random."""
    settings = load_settings(backbone_run)
    run = tmp_path / "run"
    shutil.copytree(backbone_run, run)
    state = load_checkpoint(run, "sivt")
    for name, value in state["model"].items():
        if name.startswith("backbone.stages") and value.is_floating_point():
            value.mul_(1.01)
    state.update(stage=0, epoch=1, optimizer=None)
    save_checkpoint(run, state)
    training.train(settings, run, device="cpu", resume=True)
    before = {k: v for k, v in state["model"].items() if k.startswith("backbone")}
    after = {k: v for k, v in weights(run).items() if k.startswith("backbone")}
    assert same(before, after)
    expected = json.loads((backbone_run / "log.jsonl").read_text().splitlines()[1])["loss"]
    assert json.loads((run / "log.jsonl").read_text().splitlines()[1])["loss"] != expected


def test_resume_refuses_other_images(tiny_run, tiny_data, tmp_path):
    run, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(tiny_run, run)
    shutil.copytree(tiny_data, data)
    (run / "calibration.json").unlink()  # interrupted before the end
    changed = next((data / "weave/train/good").glob("*.png"))
    shutil.copy(next((data / "weave/test").glob("[!g]*/*.png")), changed)
    settings = replace(load_settings(run), data=str(data))
    with pytest.raises(UserError, match="not the training images"):
        training.train(settings, run, device="cpu", resume=True)
    changed.unlink()
    with pytest.raises(UserError, match=f"{changed}: a good image of this run, and not there any more; restore it"):
        training.train(settings, run, device="cpu", resume=True)


def test_the_largest_seed(tiny_run, tmp_path):
    settings = replace(load_settings(tiny_run), seed=2**63 - 1)
    training.train(settings, tmp_path / "run", device="cpu")
    assert load_settings(tmp_path / "run").seed == 2**63 - 1


def test_resuming_a_finished_run_changes_nothing(tiny_run, tmp_path):
    """Nor the thresholds, which may have been set anew since."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    calibration = json.loads((run / "calibration.json").read_text())
    (run / "calibration.json").write_text(json.dumps({**calibration, "image_threshold": 7.0}))
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    training.train(load_settings(run), run, device="cpu", resume=True)
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before


def test_unreadable_training_images_are_named_and_passed_over(tiny_run, tiny_data, tmp_path, caplog):
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    settings = replace(load_settings(tiny_run), data=str(data))
    samples, _ = hold_out(open_dataset(data).train, settings.config.holdout, settings.seed)
    samples[0].path.write_bytes(b"")
    samples[1].path.write_bytes(samples[1].path.read_bytes()[:300])
    training.train(settings, tmp_path / "run", device="cpu")
    skipped = [line for line in caplog.messages if line.startswith("skipped")]
    assert len(skipped) == 2
    assert samples[0].path.name in skipped[0]


def test_plain_folder_of_good_images(tiny_run, tiny_data, tmp_path):
    settings = replace(load_settings(tiny_run), data=str(tiny_data / "weave/train/good"), category="")
    calibration = training.train(settings, tmp_path / "run", device="cpu")
    assert calibration["images"] == 1
    assert calibration["held_out"]


def test_names_that_the_run_cannot_hold_are_refused(tiny_run, tmp_path):
    settings = load_settings(tiny_run)
    for name in ("set", "b\udcff"):
        shutil.copytree(Path(settings.data) / "weave", tmp_path / name / "caf\udce9")
        shutil.copytree(Path(settings.data) / "weave", tmp_path / name / "weave")
    cases = {
        "caf\ufffd": replace(settings, data=str(tmp_path / "set"), category="all"),
        "b\ufffd": replace(settings, data=str(tmp_path / "b\udcff")),
        "w\ufffd": replace(settings, config=replace(settings.config, weights="w\udce9")),
    }
    for name, changed in cases.items():
        with pytest.raises(
            UserError, match=rf"{name}: this name is not valid UTF-8, as config\.toml must be; rename it"
        ):
            training.train(changed, tmp_path / "run", device="cpu")
        assert not (tmp_path / "run").exists()


def test_a_method_finishes_once_after_its_training(tiny_run, tmp_path, monkeypatch):
    """With all training images, no dropout and no gradients; what it keeps is in the checkpoint."""
    from vitlite.methods.sivt import SIVT

    seen = []

    def finish(method, batches):
        seen.append((method.training, torch.is_grad_enabled(), sum(len(batch) for batch in batches)))
        method.transformer.head.bias.fill_(7.0)

    monkeypatch.setattr(SIVT, "finish", finish)
    settings, run = load_settings(tiny_run), tmp_path / "run"
    training.train(settings, run, device="cpu")
    assert seen == [(False, False, 9)]
    assert (load_checkpoint(run, "sivt")["model"]["transformer.head.bias"] == 7.0).all()
    training.train(settings, run, device="cpu", resume=True)
    assert len(seen) == 1


def test_training_says_how_few_images_it_takes(tiny_run, tmp_path, caplog):
    settings = load_settings(tiny_run)
    few = replace(settings, config=replace(settings.config, train_images=2))
    with caplog.at_level("INFO", "vitlite"):
        training.train(few, tmp_path / "run", device="cpu")
    assert any(line.startswith("data: 2 good images to train on, 1 held out") for line in caplog.messages)
    assert load_settings(tmp_path / "run").config.train_images == 2


@pytest.mark.parametrize(("folds", "line"), [(0, "1 network, 4 steps"), (3, "3 networks, 2 steps each")])
def test_training_says_how_much_there_is_to_train(tiny_run, tmp_path, caplog, folds, line):
    settings = load_settings(tiny_run)
    settings = replace(settings, config=replace(settings.config, folds=folds))
    with caplog.at_level("INFO", "vitlite"):
        training.train(settings, tmp_path / "run", device="cpu")
    assert [text for text in caplog.messages if text.startswith("training: ")] == [f"training: {line}"]


def test_a_run_that_was_stopped_may_begin_again_beside_images(tiny_run, tmp_path, put):
    """As after `predict --out`: only where no run was, images are in the way."""
    put(tmp_path / "run/0.png")
    settings = load_settings(tiny_run)
    with pytest.raises(UserError, match="run: holds images; choose another folder"):
        training.train(settings, tmp_path / "run", device="cpu")
    shutil.copy(tiny_run / "config.toml", tmp_path / "run")
    assert training.train(settings, tmp_path / "run", device="cpu")


RANDOM = {"embedding": "efficientnet_lite0", "weights": "none"}


@pytest.mark.parametrize(
    ("method", "changes", "warned"),
    [
        ("sivt", METHODS["sivt"], 1),
        ("knn", METHODS["knn"], 1),
        ("dinomaly", METHODS["dinomaly"], 1),
        *[(name, METHODS[name] | RANDOM, 1) for name in ("anovit", "memca", "vtadl")],
        ("sivt", TINY, 0),  # pixels have no weights
        ("memca", METHODS["memca"], 0),
        ("isstad", METHODS["isstad"] | {"weights": "none"}, 0),  # all weights are trained
    ],
)
def test_frozen_weights_that_are_random_are_warned_about(method, changes, warned, tmp_path, caplog):
    config = change(preset_config(method, "quick"), {key: str(value) for key, value in changes.items()}, idle=True)
    built, origin, weights = with_weights(new_settings(method, config), tmp_path, None)
    training.log_model(built, origin, weights, torch.device("cpu"))
    assert len(caplog.messages) == warned
    if warned:
        assert caplog.messages[0].startswith(f"weights of {built.backbone_name} are random, and no training changes")


def test_random_weights_of_another_run_are_warned_about(backbone_run, tmp_path, caplog):
    for settings, state in (
        (replace(load_settings(backbone_run), init_from=str(backbone_run)), None),
        (load_settings(backbone_run), load_checkpoint(backbone_run, "sivt")),
    ):
        built, origin, weights = with_weights(settings, backbone_run, state)
        caplog.clear()
        training.log_model(built, origin, weights, torch.device("cpu"))
        assert len(caplog.messages) == 1


def test_learning_rate():
    config = TrainingConfig(warmup_epochs=2, schedule="cosine")
    rates = [training_loop.learning_rate(config, step, 10, 100) for step in range(100)]
    assert rates[:20] == sorted(rates[:20])
    assert rates[20] == 1.0
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert 0 < rates[-1] < 1e-2
    again = [training_loop.learning_rate(config, step, 10, 100, 30) for step in range(20, 100)]
    assert again[:30] == pytest.approx(again[30:60])
    assert again[:16] == sorted(again[:16], reverse=True)
    assert again[15:31] == pytest.approx(again[15::-1])  # up as it went down, without a jump
    assert again[15] == pytest.approx(0)
    assert again[60] == 1.0
    assert training_loop.learning_rate(replace(config, schedule="constant"), 99, 10, 100) == 1.0
    last = replace(config, lr=1e-3, last_lr=1e-4, warmup_epochs=0, warmup_steps=4)
    rates = [training_loop.learning_rate(last, step, 10, 100) for step in range(101)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    assert rates[52] == pytest.approx(0.55)  # halfway
    assert rates[100] == pytest.approx(0.1)


def test_the_weights_at_the_end_are_an_average_of_all_steps(tiny_run, tmp_path, monkeypatch):
    steps, numbers, step = [], [], training_loop.Loop.train_step

    def recorded(self, *args):
        numbers.append(self.method.step)
        terms = step(self, *args)
        steps.append(self.method.transformer.embed.weight.detach().clone())
        return terms

    monkeypatch.setattr(training_loop.Loop, "train_step", recorded)
    settings = load_settings(tiny_run)
    settings = replace(settings, config=replace(settings.config, average=0.6, batch_size=2))
    training.train(settings, tmp_path / "run", device="cpu")
    expected = steps[0].double()
    for number, weight in enumerate(steps):
        expected = expected.lerp(weight.double(), 1 - min(0.6, (1 + number) / (10 + number)))
    assert len(steps) > 8
    assert numbers == list(range(len(steps)))
    torch.testing.assert_close(weights(tmp_path / "run")["transformer.embed.weight"].double(), expected)


def test_weight_decay_on_matrices_only(tiny_run):
    from vitlite.engine.settings import build_method

    settings = load_settings(tiny_run)
    method = build_method(settings)
    optimizer = training_loop.make_optimizer(method, method.stages()[0], settings.config)
    decayed, others = (
        {p for group in optimizer.param_groups if (group["weight_decay"] > 0) == decays for p in group["params"]}
        for decays in (True, False)
    )
    trained = {id(p) for p in method.parameters() if p.requires_grad}
    assert {id(p) for p in decayed | others} == trained
    assert method.transformer.positions in others
    assert method.transformer.induction in others
    assert method.transformer.embed.weight in decayed


def test_muon_orthogonalises_the_steps_of_matrices(tiny_run):
    """The first step of a matrix has singular values that are nearly the same."""
    from vitlite.engine.settings import build_method

    settings = load_settings(tiny_run)
    config = replace(settings.config, optimizer="muon", weight_decay=0.0)
    method = build_method(replace(settings, config=config))
    optimizer = training_loop.make_optimizer(method, method.stages()[0], config)
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    size, channels = config.feature_size, len(method.feature_mean)
    method.loss(torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0)))["loss"].backward()
    optimizer.step()
    for name in ("transformer.embed.weight", "transformer.encoder.0.attn.proj.weight"):
        step = method.get_parameter(name).detach() - before[name]
        values = torch.linalg.svdvals(step) / (0.2 * max(step.shape) ** 0.5 * config.lr)
        assert values.median() > 0.6, name  # those of a gradient spread over orders of magnitude
        assert values.max() < 1.4, name
    moved = method.transformer.positions.detach() - before["transformer.positions"]
    assert moved.abs().max() == pytest.approx(config.lr, rel=1e-3)  # AdamW's first step: the sign of the gradient


def test_a_loss_that_is_not_finite_stops_with_a_line(tiny_run, tmp_path, monkeypatch):
    from vitlite.methods.sivt import SIVT

    monkeypatch.setattr(SIVT, "fit", lambda self, batches: self.feature_std.fill_(float("nan")))
    with pytest.raises(UserError, match="a smaller lr than"):
        training.train(load_settings(tiny_run), tmp_path / "run", device="cpu")


def test_file_cache_trains_to_the_same_weights(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "MEMORY_LIMIT", 0)
    training.train(load_settings(tiny_run), tmp_path / "run", device="cpu")
    assert same(weights(tiny_run), weights(tmp_path / "run"))


@pytest.mark.parametrize("needs", ["network", "step"])
def test_what_does_not_fit_into_memory_is_refused_before_the_run_begins(tiny_run, tmp_path, monkeypatch, needs):
    monkeypatch.setattr("vitlite.methods.footprint.MEASURED_FROM", 0)
    monkeypatch.setattr("vitlite.methods.footprint.step_memory", lambda *_: 9e9)
    monkeypatch.setattr("vitlite.methods.footprint.machine_memory", lambda: (1e3 if needs == "network" else 8e9, 1e9))
    with pytest.raises(UserError, match=f"the {needs} takes|a training {needs} takes"):
        training.train(load_settings(tiny_run), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
