"""Drawn curves against the exact metrics."""

import numpy as np
import pytest
from scipy import ndimage

from vitlite.metrics import aupro, auroc, average_precision, evaluate_maps, pro_curve
from vitlite.report.curves import PRO_LIMIT, cut, image_curves, pixel_curves, thin


def area(x, y):
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


@pytest.mark.parametrize("digits", [1, 9])
def test_image_curves(digits):
    """With few distinct scores (ties) and with many."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 3000)
    scores = (rng.normal(size=3000) + labels).round(digits)
    curves = image_curves(labels, scores)
    assert area(*curves["roc"]) == pytest.approx(auroc(labels, scores), abs=5e-4)
    if digits == 9:
        assert area(*curves["pr"]) == pytest.approx(average_precision(labels, scores), abs=1e-3)
    for x, _ in curves.values():
        assert len(x) < 1000
        assert (np.diff(x) >= 0).all()


def test_perfect_and_smallest():
    curves = image_curves([0, 1], [0.0, 1.0])
    assert [list(map(list, c)) for c in curves.values()] == [[[0, 0, 1], [0, 1, 1]], [[0, 1, 1], [1, 1, 0.5]]]


@pytest.fixture(scope="module")
def surfaces():
    rng = np.random.default_rng(1)
    fields = [ndimage.gaussian_filter(rng.normal(size=(120, 90)), 5) for _ in range(6)]
    masks = [(f > 1.2 * f.std()).astype(np.uint8) for f in fields] + [np.zeros((40, 50), np.uint8)]
    noise = [ndimage.gaussian_filter(rng.normal(size=m.shape), 2) for m in masks]
    return masks, [(ndimage.gaussian_filter(m.astype(float), 5) + n).astype(np.float32) for m, n in zip(masks, noise)]


def test_pixel_curves_have_the_areas_of_the_metrics(surfaces):
    masks, maps = surfaces
    curves, exact = pixel_curves(masks, maps), evaluate_maps(masks, maps)
    assert area(*curves["roc"]) == pytest.approx(exact["pixel_auroc"], abs=1e-3)
    assert area(*curves["pr"]) == pytest.approx(exact["pixel_ap"], abs=2e-3)
    assert curves["pro"][0][-1] == PRO_LIMIT
    assert area(*curves["pro"]) / PRO_LIMIT == pytest.approx(exact["aupro_30"], abs=2e-3)
    low = cut(*curves["pro"], 0.05)
    assert area(*low) / 0.05 == pytest.approx(aupro(masks, maps, fpr_limit=0.05), abs=5e-3)
    assert all(len(x) < 600 for x, _ in curves.values())


def test_the_thinned_pro_curve_lies_on_the_full_one(surfaces):
    """Every point of the full curve is as good as on the drawn one, distances measured on the chart."""
    x, y = cut(*pro_curve(*surfaces), PRO_LIMIT)
    drawn = np.stack(pixel_curves(*surfaces)["pro"]) / [[PRO_LIMIT], [1]]
    full = np.stack([x / PRO_LIMIT, y])
    start, along = drawn[:, :-1, None], np.diff(drawn)[:, :, None]
    share = np.clip(((full[:, None] - start) * along).sum(0) / (along**2).sum(0), 0, 1)
    distance = np.hypot(*(full[:, None] - start - share * along)).min(axis=0)
    assert distance.max() < 0.004


def test_maps_of_one_value():
    masks = [np.eye(4, dtype=np.uint8)]
    curves = pixel_curves(masks, [np.ones((4, 4), np.float32)])
    assert area(*curves["roc"]) == pytest.approx(0.5)


def test_thin_keeps_ends_and_corners():
    x, y = thin(np.linspace(0, 1, 1001), np.minimum(1, 4 * np.linspace(0, 1, 1001)))
    assert list(x) == [0, 0.25, 1]
    assert list(y) == [0, 1, 1]
    assert [list(v) for v in thin(np.zeros(3), np.zeros(3))] == [[0, 0], [0, 0]]
    assert [list(v) for v in thin(np.zeros(1), np.ones(1))] == [[0], [1]]
