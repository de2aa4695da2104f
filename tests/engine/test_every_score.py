"""``eval --scores``: what every score with every places would give on test images, from one forward pass an image."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import vitlite

from vitlite.engine.detector import Detector
from vitlite.engine.evaluate import evaluate
from vitlite.images.loading import pixel_batches
from vitlite.nn.score import score_of
from vitlite.score_table import entries, score_table

OLD = Path(__file__).parents[1] / "old_run"
PLACES = ("none", "mean", "scaled", "absolute")
MAPS = ("max", "top1", "top10", "mean", "std", "rms")


@pytest.fixture
def detector(tiny_run, tiny_data):
    """The tiny run, but with places that differ by more than images do."""
    detector = Detector(tiny_run, "cpu")
    _, values, _ = measured(detector, tiny_data / "weave")
    places = detector.method.places
    places.level.copy_(values[-1])
    places.scale.copy_(torch.linspace(0.02, 1, values[0].numel()).view_as(values[0]) ** 2)
    return detector


def measured(detector, folder):
    """(labels, what the method measures) of a category's test images."""
    paths = sorted((folder / "test").rglob("*.png"))
    pixels = np.concatenate([found.pixels for found in pixel_batches(paths, detector.image_size, len(paths))])
    method = detector.method
    with torch.no_grad():
        found = method.measure(method.frozen(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255))
    return np.array([path.parent.name != "good" for path in paths]), *found


def auroc(labels, scores):
    """The share of pairs of a defective and a good image that are in order."""
    more = scores.numpy()[labels][:, None] - scores.numpy()[~labels]
    return np.mean((more > 0) + 0.5 * (more == 0))


def by_places(values, places):
    level, scale = places.level, places.scale
    scaled = (values - level) / scale
    return {"none": values, "mean": values - level, "scaled": scaled, "absolute": abs(scaled)}


def figures(own):
    return {(entry["score"], entry["places"]): entry["image_auroc"] for entry in own["scores"]}


def used(own):
    return [(entry["score"], entry["places"]) for entry in own["scores"] if entry["used"]]


def without_scores(results):
    return {
        **results,
        "categories": {
            name: {key: value for key, value in own.items() if key != "scores"}
            for name, own in results["categories"].items()
        },
    }


def test_against_scores_by_hand(detector, tiny_data):
    labels, values, _ = measured(detector, tiny_data / "weave")
    expected = {
        (score, places): auroc(labels, score_of(compared, score))
        for places, compared in by_places(values, detector.method.places).items()
        for score in MAPS
    }
    assert len({tuple(expected[score, places] for score in MAPS) for places in PLACES}) == 4
    (own,) = evaluate(detector, data=tiny_data, scores=True)["categories"].values()
    assert figures(own) == pytest.approx(expected, abs=1e-9)


def test_of_a_method_with_scores_of_its_own():
    """They are compared before the map is made; a method may need a number of the image beside the map."""
    detector = Detector(OLD / "runs/vtadl", "cpu")
    method = detector.method
    labels, values, errors = measured(detector, OLD / "data/weave")
    expected = {}
    for places, compared in by_places(values, method.places).items():
        worst = compared.flatten(1).amax(1)
        scores = {"combined": worst + errors, "reconstruction": errors, "nll": worst}
        scores |= {score: score_of(method.to_map(compared), score) for score in MAPS}
        expected |= {(score, places): found for score, found in scores.items()}
    every = method.every_score(values, errors)
    assert every.keys() == expected.keys()
    for settings, found in every.items():
        torch.testing.assert_close(found, expected[settings])
    (own,) = evaluate(detector, data=OLD / "data", scores=True)["categories"].values()
    assert figures(own) == pytest.approx({settings: auroc(labels, found) for settings, found in expected.items()})
    assert used(own) == [("combined", "scaled")]
    assert figures(own)["combined", "scaled"] == own["image_auroc"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("settings", [("std", "none"), ("top10", "scaled"), ("auto", "auto")])
def test_the_results_stay_the_same(detector, tiny_data, monkeypatch, settings, streaming):
    """From as many forward passes; the settings of the run are marked, and have its own figure."""
    detector.method.set_head(*settings)
    images = []
    measure = detector.method.measure
    monkeypatch.setattr(detector.method, "measure", lambda features: images.append(len(features)) or measure(features))
    results = evaluate(detector, data=tiny_data, streaming=streaming, scores=True)
    assert sum(images) == 10
    assert without_scores(results) == evaluate(detector, data=tiny_data, streaming=streaming)
    (own,) = results["categories"].values()
    assert used(own) == [(detector.method.score_name, "scaled") if settings[0] == "auto" else settings]
    assert figures(own)[used(own)[0]] == own["image_auroc"]


def test_a_run_that_never_learned_its_places(tmp_path):
    """The table and results.json of the command; results.csv and scores.csv are as without the option."""
    run = shutil.copytree(OLD / "runs/sivt", tmp_path / "run")
    before, _ = vitlite("eval", run, "--data", OLD / "data", "--device", "cpu", "--quiet")
    kept = [(run / name).read_bytes() for name in ("results.csv", "scores.csv")]
    results = json.loads((run / "results.json").read_text())
    out, _ = vitlite("eval", run, "--data", OLD / "data", "--device", "cpu", "--quiet", "--scores")
    assert [(run / name).read_bytes() for name in ("results.csv", "scores.csv")] == kept
    again = json.loads((run / "results.json").read_text())
    assert without_scores(again) == results
    own = again["categories"]["weave"]
    auroc_of_run = f"{own['image_auroc']:.4f}"
    assert list(figures(own)) == [(score, "none") for score in MAPS]
    assert used(own) == [("std", "none")]
    assert out == f"{before}\n{score_table(again['categories'])}\n"
    _, head, row, never, note = score_table(again["categories"]).splitlines()
    assert head.split() == ["places", *MAPS]
    marked = {("std", "none"): f"{auroc_of_run}*"}
    assert row.split() == ["none", *(marked.get(key, f"{value:.4f}") for key, value in figures(own).items())]
    assert "never learned its places" in never
    assert "nothing is ever chosen" in note


def test_the_table_of_several_categories():
    """A value that does not exist is in no mean."""
    labels = [0, 1, 1]
    found = {("max", "none"): [1.0, 2.0, 0.5], ("std", "none"): [1.0, 2.0, 3.0], ("max", "mean"): [0.0, 1.0, np.nan]}
    found["std", "mean"] = [2.0, 1.0, 0.0]
    first = {"scores": entries(labels, found, ("std", "mean"))}
    second = {"scores": entries(labels, {key: [0.0, 1.0, 1.0] for key in found}, ("std", "mean"))}
    assert first["scores"][2] == {"score": "max", "places": "mean", "image_auroc": None, "used": False}
    assert score_table({"nut": first, "bolt": second}).splitlines()[1:-1] == [
        "places                   max      std",
        "nut",
        "  none                0.5000   1.0000",
        "  mean                     -   0.0000*",
        "bolt",
        "  none                1.0000   1.0000",
        "  mean                1.0000   1.0000*",
        "mean over categories",
        "  none                0.7500   1.0000",
        "  mean                     -   0.5000*",
    ]
