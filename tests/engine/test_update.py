"""A run that takes new good images: what trains, what is held out, what sets the thresholds, and what is refused."""

import json
import shutil

import pytest
import torch
from commands import refused, vitlite
from tiny_settings import TINY, options_of

from vitlite.data import synthesize
from vitlite.engine import unseen
from vitlite.engine.calibrate import recalibrate
from vitlite.engine.checkpoint import load_checkpoint
from vitlite.engine.detector import Detector
from vitlite.engine.settings import apply_overrides, load_settings, preset_config
from vitlite.engine.split import good_split, read_split
from vitlite.engine.update import shortened, updated_settings


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """Six new good images of the tiny run's category."""
    data = synthesize(
        tmp_path_factory.mktemp("more"), seed=2, size=64, categories=("weave",), train=6, good=1, defects=1
    )
    return data / "weave/train/good"


def parts_of(run):
    """{the file's name below the data, or whole: its part} of a run's split.json."""
    return {image["file"]: image["part"] for image in read_split(run)["images"]}


def test_an_update(tiny_run, tiny_data, new, tmp_path, monkeypatch):
    """Once and again: the earlier run is as it was, and every image of the threshold is new to the network."""
    scored = []
    add = unseen.Measured.add

    def kept(measured, network, places, features):
        scored.extend((id(network), measured.samples[place].path) for place in places)
        return add(measured, network, places, features)

    monkeypatch.setattr(unseen.Measured, "add", kept)
    before = {path.name: path.read_bytes() for path in tiny_run.iterdir() if path.is_file()}
    out = tmp_path / "out"
    said = vitlite("update", tiny_run, "--good", new, "--out", out, "--set", "folds=2", "--device", "cpu")[0]
    assert f"next: vitlite predict {out}" in said
    assert {path.name: path.read_bytes() for path in tiny_run.iterdir() if path.is_file()} == before

    earlier, parts = parts_of(tiny_run), parts_of(out)
    assert {file: part for file, part in parts.items() if file in earlier} == earlier
    added = {file: part for file, part in parts.items() if file not in earlier}
    assert sorted(added) == sorted(map(str, new.iterdir()))
    assert sorted(added.values()) == ["fold 2"] * 3 + ["held out"] * 3
    held = {file for file, part in earlier.items() if part == "held out"}
    judged = [image["file"] for image in json.loads((out / "calibration.json").read_text())["good_images"]]
    assert sorted(judged) == sorted([*held, *added])
    # The final network scored what is held out alone, and a further one its fold.
    networks = {}
    for network, path in scored:
        networks.setdefault(network, set()).add(
            parts[str(path.relative_to(tiny_data) if path.is_relative_to(tiny_data) else path)]
        )
    assert sorted(map(sorted, networks.values())) == [["fold 2"], ["held out"]]

    settings = load_settings(out)
    assert (settings.init_from, settings.added, settings.config.epochs) == (str(tiny_run), (str(new),), 1)
    again = tmp_path / "again"
    vitlite("update", out, "--good", new.parents[1] / "test/good", "--out", again, "--device", "cpu")
    assert parts_of(again).items() >= {(f, "held out") for f, part in parts.items() if part == "held out"}
    assert load_settings(again).config.epochs == 1  # not a quarter of a quarter
    assert Detector(again, "cpu").predict(next(new.iterdir())).score > 0


def test_statistics_are_of_all_images(tiny_run, new, tmp_path):
    """The mean of the features, which training does not change, is that of the earlier and the new images."""
    out = tmp_path / "out"
    vitlite("update", tiny_run, "--good", new, "--out", out, "--set", "holdout=0", "--device", "cpu")
    detector = Detector(out, "cpu")
    _, trained, held = good_split(load_settings(out), out)
    assert len(trained) + len(held) == 16
    from vitlite.engine.features import to_images
    from vitlite.images.loading import pixel_batches

    (found,) = pixel_batches([sample.path for sample in trained], 64, 16)
    features = detector.method.frozen(to_images(found.pixels, torch.device("cpu")))
    torch.testing.assert_close(detector.method.feature_mean, features.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    before = load_checkpoint(tiny_run, "sivt")["model"]["feature_mean"]
    assert not torch.equal(detector.method.feature_mean, before)


def test_weights_go_on(tiny_run, new, tmp_path):
    """With a rate of nothing, the trained weights are those of the run."""
    out = tmp_path / "out"
    vitlite("update", tiny_run, "--good", new, "--out", out, "--set", "lr=1e-30", "--set", "weight_decay=0")
    own, before = (load_checkpoint(run, "sivt")["model"] for run in (out, tiny_run))
    name = "transformer.head.weight"
    torch.testing.assert_close(own[name], before[name])


def test_copies_and_near_copies(tiny_run, tiny_data, new, tmp_path):
    """A copy of an earlier image is left out; one that is nearly the same goes where that one is."""
    from PIL import Image

    folder, earlier = shutil.copytree(new, tmp_path / "good"), parts_of(tiny_run)
    held, trained = (next(file for file, part in earlier.items() if part == name) for name in ("held out", "train"))
    shutil.copy(tiny_data / held, folder / "copy.png")
    Image.open(tiny_data / held).save(folder / "near.bmp")
    Image.open(tiny_data / trained).save(folder / "trained.bmp")
    said = vitlite("update", tiny_run, "--good", folder, "--out", tmp_path / "out")[1]
    assert "1 image left out, which the run has already" in said
    parts = parts_of(tmp_path / "out")
    assert str(folder / "copy.png") not in parts
    assert parts[str(folder / "near.bmp")] == "held out"
    assert parts[str(folder / "trained.bmp")] == "train"
    setting = sum(parts[str(path)] != "train" for path in folder.iterdir() if path.name != "copy.png")
    assert f"new images: {setting} of 8 set the threshold; 1 only train" in said


def test_an_interrupted_update_goes_on(tiny_run, new, tmp_path):
    """Also if it was stopped before its first checkpoint: the new images are not dealt anew with the earlier ones."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    vitlite("update", tiny_run, "--good", new, "--out", whole)
    cut.mkdir()
    shutil.copy(whole / "config.toml", cut)
    vitlite("train", "--resume", "--out", cut)
    assert parts_of(cut) == parts_of(whole)
    own, other = (load_checkpoint(run, "sivt")["model"] for run in (cut, whole))
    assert all(torch.equal(own[name], other[name]) for name in own)


def test_several_categories(tmp_path):
    """New images belong to the category of their folder."""
    data = synthesize(tmp_path / "set", seed=3, size=64, categories=("weave", "wood"), train=6, good=1, defects=1)
    run = tmp_path / "run"
    vitlite("train", data, "--category", "all", "--out", run, *options_of(TINY))
    new = tmp_path / "new" / "wood"
    shutil.copytree(
        synthesize(tmp_path / "more", seed=4, size=64, categories=("wood",), train=4, good=1, defects=1)
        / "wood/train/good",
        new,
    )
    refused(
        "update",
        run,
        "--good",
        shutil.copytree(new, tmp_path / "oak"),
        "--out",
        tmp_path / "o",
        says="of no known category",
    )
    vitlite("update", run, "--good", new, "--out", tmp_path / "out")
    images = read_split(tmp_path / "out")["images"]
    assert {image["category"] for image in images if image["file"].startswith(str(new))} == {"wood"}


@pytest.mark.parametrize(
    ("good", "options", "says"),
    [
        ("{data}/weave/train/good", [], "the run has all of these images already"),
        ("{data}", [], "is a data set"),
        ("{data}/nowhere", [], "no image there"),
        ("{new}", ["--set", "dim=32"], "was trained with 16; give the same"),
        ("{new}", ["--set", "folds=x"], "--set folds=x: must be a whole number"),
        ("{new}", ["--data", "{data}/nowhere"], "no such folder"),
        ("{new}", ["--data", "{other}"], "a good image of this run, and not there any more"),
        ("{new}", ["--data", "{wood}"], "set: is not the data of the run (category='weave': not in"),
    ],
)
def test_refused(good, options, says, tiny_run, tiny_data, new, tmp_path):
    places = {"data": tiny_data, "new": new, "other": new.parents[2], "wood": tmp_path / "set"}
    shutil.copytree(new, tmp_path / "set" / "wood" / "train" / "good")
    options = [option.format(**places) for option in options]
    refused("update", tiny_run, "--good", good.format(**places), "--out", tmp_path / "o", *options, says=says)
    assert not (tmp_path / "o").exists()
    refused("update", tiny_run, "--good", new, "--out", tiny_run, says="already holds a run; choose another folder")


def test_the_calibrated_share_of_false_alarms_stays(tiny_run, new, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    recalibrate(Detector(run), target_fpr=0.2)
    assert updated_settings(run, [new], {}).config.target_fpr == 0.2
    assert updated_settings(run, [new], {"target_fpr": 0.1}).config.target_fpr == 0.1
    assert load_settings(run).config.target_fpr == 0.05


def test_an_update_says_how_many_networks_train(tiny_data, new, tmp_path):
    vitlite("train", tiny_data, "--out", tmp_path / "run", *options_of(TINY | {"folds": 3, "steps": 8}))
    err = vitlite("update", tmp_path / "run", "--good", new, "--out", tmp_path / "new")[1]
    assert "training: 3 networks, 2 steps each\n" in err


def test_a_quarter_of_the_steps():
    config = apply_overrides(preset_config("isstad", "quick"), ["steps=1600", "max_epochs=300"])
    short = shortened(config)
    assert (short.steps, short.epochs, short.mae_epochs, short.max_epochs) == (400, 19, 7, 75)
    assert short.warmup_epochs == config.warmup_epochs
