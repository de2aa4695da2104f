"""The streaming form against the exact one."""

import numpy as np
import pytest

from vitlite import metrics


def images(shape, rng, scores, count=10):
    masks, maps = np.zeros((count, *shape), np.uint8), np.empty((count, *shape), np.float32)
    for i in range(count):
        if i >= count // 4:
            y, x = rng.integers(0, shape[0] - 40), rng.integers(0, shape[1] - 40)
            masks[i, y : y + rng.integers(3, 40), x : x + rng.integers(3, 40)] = 1
        maps[i] = scores(rng.standard_normal(shape) + 2 * masks[i], i)
    return masks, maps


SCORES = {
    "normal": lambda v, i: v,
    "narrow": lambda v, i: 0.5 + v * 1e-3,
    "wide": lambda v, i: np.exp(4 * v),
    "half zero": lambda v, i: np.maximum(v, 0),
    "drifting": lambda v, i: v + 0.2 * i,
    "tied": lambda v, i: np.round(4 * v),
}


@pytest.mark.parametrize("scores", SCORES)
def test_the_bound_holds_and_is_small(scores):
    """Far more distinct scores than cells, so that cells have to be joined again and again."""
    masks, maps = images((300, 400), np.random.default_rng(1), SCORES[scores])
    stream = metrics.StreamingEvaluator(cells=1 << 16)
    for mask, map_ in zip(masks, maps):
        stream.update(mask, map_)
    exact, found = metrics.evaluate_maps(masks, maps, fpr_limit=0.1), stream.result(fpr_limit=0.1)
    assert found.keys() == {*exact, "error_bound", "error_bounds"}
    for key, bound in found["error_bounds"].items():
        assert abs(found[key] - exact[key]) <= bound + 1e-12, key
    for key in ("image_auroc", "image_ap", "image_f1_max", "image_f1_threshold"):
        assert found[key] == exact[key]
    assert found["error_bound"] == max(found["error_bounds"].values()) < 1e-4
    assert np.unique(maps).size < 100 or found["error_bound"] > 0  # it was not exact for want of scores
    found_at = maps >= found["pixel_f1_threshold"]
    reached = 2 * (found_at & (masks == 1)).sum() / (found_at.sum() + masks.sum())
    assert reached == pytest.approx(found["pixel_f1_max"], abs=1e-12)


def check_exact(masks, maps):
    stream = metrics.StreamingEvaluator()
    for mask, map_ in zip(masks, maps):
        stream.update(mask, map_)
    found = stream.result()
    assert found["error_bound"] == 0
    for key, value in metrics.evaluate_maps(masks, maps).items():
        assert found[key] == pytest.approx(value, abs=1e-12), key


def test_exact_while_the_distinct_scores_fit():
    check_exact(*images((100, 90), np.random.default_rng(2), SCORES["half zero"]))


def test_the_bound_is_honest_when_cells_are_scarce():
    masks, maps = images((80, 80), np.random.default_rng(3), SCORES["normal"])
    exact, bounds = metrics.evaluate_maps(masks, maps), []
    for cells in (16, 64, 512, 4096):
        stream = metrics.StreamingEvaluator(cells=cells)
        for mask, map_ in zip(masks, maps):
            stream.update(mask, map_)
        found = stream.result()
        bounds.append(found["error_bound"])
        for key, bound in found["error_bounds"].items():
            assert abs(found[key] - exact[key]) <= bound + 1e-12, key
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > 0.01  # with 16 cells nothing can be told precisely, and it says so


def test_memory_does_not_grow_with_images():
    rng = np.random.default_rng(4)
    stream = metrics.StreamingEvaluator(cells=2000)
    sizes = []
    for i in range(30):
        mask = np.zeros((50, 60), np.uint8)
        mask[5:9, 10:20] = i % 2
        stream.update(mask, rng.random((50, 60)))
        sizes.append(sum(field.nbytes for field in stream._cells))
    assert max(sizes) <= 40 * 2000
    assert max(sizes[10:]) < 1.5 * max(sizes[:10])


def test_images_of_different_sizes_and_dtypes_in_one_stream():
    rng = np.random.default_rng(5)
    maps = [rng.random((9, 7)).astype(np.float32), rng.random((5, 20)), rng.integers(0, 3, (8, 8))]
    masks = [np.zeros((9, 7), int), rng.random((5, 20)) < 0.3, rng.integers(0, 2, (8, 8)).astype(float)]
    stream = metrics.StreamingEvaluator()
    for mask, map_ in zip(masks, maps):
        stream.update(mask, map_, image_score=map_.mean())
    exact = metrics.evaluate_maps(masks, maps, image_scores=[m.mean() for m in maps])
    found = stream.result()
    for key, value in exact.items():
        assert found[key] == pytest.approx(value, abs=1e-12), key


@pytest.mark.parametrize("part", [1, 7, 60, 1000])
def test_an_image_may_be_counted_in_parts(monkeypatch, part):
    """Runs and regions that the parts cut count as whole ones."""
    monkeypatch.setattr("vitlite.metrics.streaming.PART", part)
    masks, maps = images((41, 44), np.random.default_rng(5), SCORES["half zero"], count=4)
    masks[0] = 1  # one run after the other, without a gap
    masks[3] = 0
    masks[1, ::2] = np.arange(44) % 3 > 0
    check_exact(masks, maps)
