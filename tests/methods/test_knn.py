"""knn: which vectors it compares, which of them it keeps, and that good images are scored without their own."""

import json

import numpy as np
import pytest
import torch
from commands import vitlite
from method_checks import images_for, tiny
from tiny_settings import METHODS, options_of

from vitlite.engine.detector import Detector
from vitlite.kernels.nearest.reference import nearest_numpy
from vitlite.methods import bank
from vitlite.methods.bank import RandomRows, coreset, rows_of
from vitlite.nn import portable


def test_a_vector_is_the_mean_of_its_neighbourhood():
    """Beyond an edge, its values go on."""
    method = tiny("knn", strides="4", feature_size=16, normalize="none")
    images = images_for(method, 2)
    (plain,) = method.backbone(images)
    padded = np.pad(plain.detach().numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    expected = np.mean([padded[:, :, y : y + 16, x : x + 16] for y in range(3) for x in range(3)], axis=0)
    np.testing.assert_allclose(method.frozen(images), expected, atol=1e-5 * np.abs(expected).max())


def test_the_anomaly_is_the_distance_to_the_nearest_vector_and_the_score_is_weighted():
    """By a plain reading of equations 6 and 7."""
    method = tiny("knn", neighbours=4, score="weighted", sigma=0, feature_size=8, normalize="none")
    features = torch.randn(3, sum(method.backbone.channels), 8, 8, generator=torch.Generator().manual_seed(0))
    method.fit([features[:2]])
    bank, q = method.bank.numpy(), rows_of(features[2:]).numpy()
    assert bank.shape == (50, features.shape[1])
    distances, indices = nearest_numpy(q, bank)
    values, weight = method.measure(features[2:])
    np.testing.assert_allclose(values, method.smooth(torch.from_numpy(distances).float().view(1, 8, 8)), rtol=1e-4)
    furthest = distances[:, 0].argmax()
    around = nearest_numpy(bank[indices[furthest]], bank, 4)[1][0]
    apart = np.linalg.norm(q[furthest] - bank[around], axis=1)
    apart = np.exp(apart - apart.max())
    assert weight.item() == pytest.approx(1 - apart[0] / apart.sum(), rel=1e-4)
    assert method.anomaly_from(features[2:])[1].item() == pytest.approx(values.max().item() * weight.item(), rel=1e-5)


def test_an_exported_search_goes_by_blocks(monkeypatch):
    monkeypatch.setattr(portable, "ROWS", 7)
    rng = np.random.default_rng(0)
    q, bank = rng.standard_normal((20, 4)), rng.standard_normal((30, 4))
    for k in (1, 3, 9):
        distances, indices = portable.nearest_rows(torch.from_numpy(q), torch.from_numpy(bank), k)
        expected = nearest_numpy(q, bank, k)
        np.testing.assert_allclose(distances, expected[0], rtol=1e-10)
        np.testing.assert_array_equal(indices, expected[1])


def test_rows_are_drawn_from_all_batches_alike():
    torch.manual_seed(0)
    found = np.zeros(60)
    for _ in range(300):
        sample = RandomRows(20)
        for first in (0, 10, 40):
            sample.add(torch.arange(first, {0: 10, 10: 40, 40: 60}[first]).float()[:, None])
        rows = sample.rows[:, 0].long().numpy()
        assert len(set(rows)) == 20
        found[rows] += 1
    assert found.min() > 60  # of 100 expected
    assert found.max() < 140


@pytest.mark.parametrize("pool", [7, 1024])
def test_a_coreset_takes_the_furthest_row_each_time(monkeypatch, pool):
    monkeypatch.setattr(bank, "POOL", pool)
    rows = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(3)
    found = coreset(rows, 10)
    chosen = [next(i for i, row in enumerate(rows) if torch.equal(row, found[0]))]
    while len(chosen) < 10:
        chosen.append(int(torch.cdist(rows, rows[chosen]).amin(1).argmax()))
    assert torch.equal(found, rows[chosen])


def test_good_images_are_scored_without_their_own_vectors(tiny_data, tmp_path):
    """The bank holds every vector of the images that it was made of: for these every distance is 0."""
    run, options = tmp_path / "run", {**METHODS["knn"], "folds": 3, "bank": 100_000}
    vitlite("train", "--method", "knn", "--data", tiny_data, "--out", run, *options_of(options), "--device", "cpu")
    vitlite("train", "--resume", "--out", run)
    scores = json.loads((run / "calibration.json").read_text())["good_scores"]
    detector = Detector(run, "cpu")
    paths = sorted((tiny_data / "weave/train/good").glob("*.png"))
    assert len(scores) == len(paths)
    assert min(scores) > 1e-2
    assert sum(detector.predict(path).score < 1e-4 for path in paths) >= len(paths) // 2
