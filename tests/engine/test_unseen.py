"""Good images scored without themselves, and the choice of a score with drawn defects."""

import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from measured_values import measured
from tiny_settings import METHODS, TINY

from vitlite import progress
from vitlite.data import synthesize
from vitlite.engine import loop as training_loop
from vitlite.engine import train as training
from vitlite.engine.checkpoint import load_checkpoint
from vitlite.engine.detector import Detector, load_calibration
from vitlite.engine.loop import Loop
from vitlite.engine.settings import RunSettings, apply_overrides, load_settings, preset_config
from vitlite.engine.unseen import DrawnTest, Measured, ranks_of
from vitlite.errors import UserError
from vitlite.methods.choice import FEWEST, aupro_of_drawn, choose_head, choose_maps, rank_by
from vitlite.methods.config import change
from vitlite.metrics import auroc
from vitlite.nn.score import PlaceStatistics, compare, score_of

RNG = np.random.default_rng(0)


def test_an_image_is_not_compared_with_itself():
    good = RNG.normal(3, 1, (10, 16, 16)).astype(np.float32)
    method, found = measured(good)
    method.set_head("top1", "scaled")
    scores = [image.score for image in found.good(method, itself=False)]
    for i in range(len(good)):
        others = PlaceStatistics((16, 16))
        others.add(torch.from_numpy(np.delete(good, i, axis=0)))
        expected = score_of(compare(torch.from_numpy(good[i : i + 1]), "scaled", *others.of_all()), "top1")
        assert scores[i] == pytest.approx(expected.item(), rel=1e-4)
        np.testing.assert_array_equal(found.maps(method, i, itself=False), good[i])  # the map stays as it is


def test_scores_without_themselves_are_those_of_new_images():
    """With itself among those that it is compared with, a good image seems better than a new one."""
    differences = {False: [], True: []}
    for _ in range(30):
        method, found = measured(RNG.normal(3, 1, (12, 16, 16)).astype(np.float32))
        method.set_head("max", "scaled")
        method.places.learn(found.statistics)
        new = torch.from_numpy(RNG.normal(3, 1, (12, 16, 16)).astype(np.float32))
        fresh = method.anomaly_from(new)[1].mean().item()
        for itself, part in differences.items():
            part.append(np.mean([image.score for image in found.good(method, itself=itself)]) - fresh)
    # Means with their standard errors.
    honest, biased = ((np.mean(part), np.std(part) / np.sqrt(30)) for part in differences.values())
    assert abs(honest[0]) < 3 * honest[1]
    assert biased[0] < -6 * biased[1]


def test_the_score_that_finds_drawn_defects():
    """The usual one stays unless another is clearly better."""
    good = RNG.normal(3, 1, (30, 16, 16)).astype(np.float32)
    speck = np.repeat(good, 2, axis=0)
    speck[:, 3, 3] += 6
    method, found = measured(good, speck)
    head = choose_head(method, found)
    assert (head.score, head.places) == ("max", "scaled")
    assert head.reason.endswith("; no other is clearly better")
    stain = np.repeat(good, 2, axis=0) + np.float32(0.4)
    method, found = measured(good, stain)
    head = choose_head(method, found)
    assert head.score in ("mean", "top10", "rms")
    assert "against 0." in head.reason
    assert head.reason.endswith("by max and places scaled")
    rank = rank_by(method, found, "none", ["mean"])["mean"]
    means, drawn = (values.mean((1, 2)) for values in (good, stain))
    np.testing.assert_allclose(rank, [(means < drawn[2 * i]).mean() for i in range(30)], atol=0.04)
    method.config = replace(method.config, score="max")  # given by the user
    assert choose_head(method, found).score == "max"


def with_masks(good, changes):
    """As ``measured``, with the masks of drawn defects that add ``changes`` (16, 16) to the values of an image."""
    method, found = measured(good, np.repeat(good, 2, axis=0) + changes)
    found.masks = np.stack([np.packbits(changes > 0)] * (2 * len(good)))
    method.config = replace(method.config, score="max", compare_maps="auto")
    return method, found


def test_maps_are_compared_unless_that_loses():
    change = np.zeros((16, 16), np.float32)
    change[2:6, 2:6] = 2
    noise = RNG.normal(3, 0.3, (30, 16, 16)).astype(np.float32)
    uneven = noise + 5 * np.linspace(0, 1, 16, dtype=np.float32)  # the defect lies where good images are low
    method, found = with_masks(uneven, change)
    assert choose_maps(method, found, "scaled")[0]
    assert choose_head(method, found).compare_maps is True
    holes = np.where(RNG.random(noise.shape) < 0.05, noise - 9, noise)  # low values at random places count as anomalous
    method, found = with_masks(holes, change)
    shown, reason = choose_maps(method, found, "absolute")
    assert not shown
    compared, plain = (aupro_of_drawn(method, found, how) for how in ("absolute", "none"))
    assert plain > compared + 0.02
    assert f"{compared:.3f} compared, {plain:.3f} as they are" in reason
    assert choose_maps(method, found, "none")[0] is False
    method.config = replace(method.config, places="absolute")
    assert choose_head(method, found).compare_maps is False
    method.config = replace(method.config, compare_maps=True)  # given by the user
    assert choose_head(method, found).compare_maps is True


def test_masks_of_drawn_defects_are_kept(tmp_path):
    change = np.zeros((16, 16), np.float32)
    change[2:6, 2:6] = 2
    good = RNG.normal(3, 1, (10, 16, 16)).astype(np.float32)
    method, found = with_masks(good, change)
    found.save(tmp_path / "kept", "key")
    again = measured(good)[1]
    assert not again.load(tmp_path / "kept", "another key")
    assert again.load(tmp_path / "kept", "key")
    assert aupro_of_drawn(method, again, "none") == aupro_of_drawn(method, found, "none")


def test_too_few_images_to_choose_with():
    good = RNG.normal(3, 1, (FEWEST - 1, 16, 16)).astype(np.float32)
    method, found = measured(good, np.repeat(good, 2, axis=0))
    assert choose_head(method, found)[:2] == ("max", "none")
    method.set_head("rms", "auto")  # which needs places that are compared
    assert choose_head(method, found)[:2] == ("max", "none")
    assert "too few good images" in choose_head(method, found).reason


# Training with folds.


@pytest.fixture(scope="module")
def folds_run(tmp_path_factory):
    """A run whose good images are scored by three networks, its own and two more, and its settings."""
    folder = tmp_path_factory.mktemp("folds")
    data = synthesize(folder / "set", seed=1, size=64, categories=("weave",), train=12, good=2, defects=1)
    changes = TINY | {"folds": 3, "score": "auto", "places": "auto", "compare_maps": "auto"}
    config = apply_overrides(preset_config("sivt", "quick"), [f"{key}={value}" for key, value in changes.items()])
    settings = RunSettings("sivt", str(data), "weave", "quick", 0, config)
    training.train(settings, folder / "run", device="cpu")
    return folder / "run", settings


def test_every_good_image_is_scored_by_a_network_without_it(folds_run, tmp_path, monkeypatch):
    run, settings = folds_run
    trained, scored = [], []
    step, add = Loop.train_step, Measured.add

    def watched_step(self, optimizer, indices, rate):
        if not trained or trained[-1][0] != self.fold:
            trained.append((self.fold, set(), []))
        trained[-1][1].update(self.features.rows[indices].tolist())
        trained[-1][2].append(rate)
        return step(self, optimizer, indices, rate)

    def watched_add(self, network, places, features):
        scored.append((list(places), network.training))
        add(self, network, places, features)

    monkeypatch.setattr(Loop, "train_step", watched_step)
    monkeypatch.setattr(Measured, "add", watched_add)
    training.train(settings, tmp_path / "run", device="cpu")
    assert [name for name, *_ in trained] == ["fold 2/3", "fold 3/3", ""]
    for (_, seen, _), (places, _) in zip(trained, scored, strict=False):
        assert seen == set(range(12)) - set(places)
    assert sorted(place for places, _ in scored for place in places) == list(range(12))
    assert len({len(rates) for _, _, rates in trained}) == 1
    kept = json.loads((run / "good_scores.json").read_text())
    assert kept["source"].startswith("all good images")
    split = json.loads((run / "split.json").read_text())["images"]
    assert {image["file"] for image in kept["images"]} == {image["file"] for image in split}
    assert {image["part"] for image in split} == {"held out", "fold 2", "fold 3"}
    assert (load_calibration(run)["images"], load_calibration(run)["held_out"]) == (12, True)
    assert not (run / "folds.pt").exists()
    known = load_settings(run)
    assert "auto" not in (known.config.score, known.config.places)
    assert known.config.compare_maps in (True, False)
    assert known.chosen.startswith("AUROC of drawn defects")
    assert "; maps " in known.chosen


def test_an_interrupted_training_keeps_its_folds(folds_run, tmp_path, monkeypatch):
    run, settings = folds_run
    folds = []
    run_stages = Loop.run_stages

    def watched(self):
        folds.append(self.fold)
        if not self.fold and len(folds) == 3:
            raise KeyboardInterrupt
        run_stages(self)

    monkeypatch.setattr(Loop, "run_stages", watched)
    again = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        training.train(settings, again, device="cpu")
    assert folds == ["fold 2/3", "fold 3/3", ""]
    assert (again / "folds.pt").exists()
    training.train(load_settings(again), again, device="cpu", resume=True)
    assert folds[3:] == [""]
    for name in ("good_scores.json", "calibration.json", "split.json", "config.toml"):
        assert (again / name).read_bytes() == (run / name).read_bytes()
    assert Detector(again, "cpu").digest() == Detector(run, "cpu").digest()


def test_a_longer_training_scores_good_images_anew(folds_run, tmp_path):
    run = shutil.copytree(folds_run[0], tmp_path / "run")
    settings = load_settings(run)
    before = json.loads((run / "good_scores.json").read_text())
    training.train(replace(settings, config=replace(settings.config, epochs=4)), run, device="cpu", resume=True)
    after = json.loads((run / "good_scores.json").read_text())
    assert [image["file"] for image in after["images"]] == [image["file"] for image in before["images"]]
    assert [image["score"] for image in after["images"]] != [image["score"] for image in before["images"]]
    assert load_settings(run).config.score == settings.config.score


def test_training_shows_what_it_finds(tiny_run, tiny_data, tmp_path, monkeypatch, caplog):
    """How well drawn defects on images held out are told apart; the weights are those without this test."""
    monkeypatch.setattr(training_loop, "LEAST_STEPS", 1)
    monkeypatch.setattr(progress, "FIRST_PLAIN", 0)
    monkeypatch.setattr(progress, "SECONDS_PLAIN", 0)
    with caplog.at_level(logging.INFO, "vitlite"):
        training.train(load_settings(tiny_run), tmp_path, device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [0 <= line["drawn_auroc"] <= 1 for line in lines] == [True] * 2
    shown = [text for text in caplog.messages if text.startswith("train 100 %")]
    assert shown[-1] == f"train 100 %  epoch 2/2  drawn defects {lines[0]['drawn_auroc']:.2f} AUROC  0:00 left"
    own, before = (load_checkpoint(run, "sivt")["model"] for run in (tmp_path, tiny_run))
    assert all(torch.equal(own[name], before[name]) for name in before)


def test_no_figure_of_a_stage_in_which_scores_say_nothing(tiny_data, tmp_path, monkeypatch):
    """VT-ADL's likelihood has no mixture yet while the reconstruction alone trains."""
    monkeypatch.setattr(training_loop, "LEAST_STEPS", 1)
    config = change(preset_config("vtadl", "quick"), METHODS["vtadl"] | {"epochs": 1, "density_epochs": 1})
    training.train(RunSettings("vtadl", str(tiny_data), "", "quick", 0, config), tmp_path, device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["stage"], "drawn_auroc" in line) for line in lines] == [("reconstruction", False), ("density", True)]


@pytest.mark.parametrize("folds", [0, 3])
def test_training_ends_by_itself(tiny_run, tmp_path, monkeypatch, caplog, folds):
    """Once a test finds drawn defects hardly better; the run has the steps it made, and a resumed one keeps them."""
    monkeypatch.setattr(DrawnTest, "__call__", lambda test, network: 0.6)
    settings = load_settings(tiny_run)
    config = replace(settings.config, epochs=50, patience=3, folds=folds, batch_size=100)
    settings = replace(settings, config=config)
    with caplog.at_level(logging.INFO, "vitlite"):
        training.train(settings, tmp_path, device="cpu")
    assert sum("drawn defects are found no better (AUROC 0.60, 0.60)" in text for text in caplog.messages) == 1
    known = load_settings(tmp_path).config
    assert known.steps == len((tmp_path / "log.jsonl").read_text().splitlines()) == 6  # a step an epoch, two tests
    before = Detector(tmp_path, "cpu").digest()
    with caplog.at_level(logging.INFO, "vitlite"):
        training.train(load_settings(tmp_path), tmp_path, device="cpu", resume=True)
    assert "nothing to do" in caplog.messages[-1]
    assert Detector(tmp_path, "cpu").digest() == before


def test_several_stages_do_not_end_by_themselves(tiny_data, tmp_path):
    config = change(preset_config("vtadl", "quick"), METHODS["vtadl"] | {"patience": 5})
    with pytest.raises(UserError, match="patience=5: vtadl trains in several stages"):
        training.train(RunSettings("vtadl", str(tiny_data), "", "quick", 0, config), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_training_goes_on_while_it_finds_more(tiny_run, tmp_path, monkeypatch):
    found = iter([0.5, 0.6, 0.7, 0.705, 1.0])
    monkeypatch.setattr(DrawnTest, "__call__", lambda test, network: next(found))
    settings = load_settings(tiny_run)
    training.train(replace(settings, config=replace(settings.config, epochs=50, patience=2)), tmp_path, device="cpu")
    figures = [json.loads(line).get("drawn_auroc") for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [figure for figure in figures if figure] == [0.5, 0.6, 0.7, 0.705]


def test_ranks_of_few_images():
    good, drawn = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([2.0, 3.0, 3.0, 3.0, 0.0, 3.0])
    ranks = ranks_of(good, drawn)
    assert ranks.tolist() == pytest.approx([5 / 6, 1, 1 / 2])
    assert float(ranks.mean()) == pytest.approx(auroc([0, 0, 0, *[1] * 6], [*good, *drawn]))
