"""The exact metrics against the written-out definitions, and against scikit-learn where it is installed."""

import numpy as np
import plain_metrics as plain
import pytest

from vitlite import metrics

CLOSE = {"rtol": 0, "atol": 1e-9}


@pytest.fixture
def small_pieces(monkeypatch):
    """Blocks, buckets and threads as for a large set of images, on a small one."""
    monkeypatch.setattr("vitlite.metrics.inputs.BLOCK", 1 << 13)
    monkeypatch.setattr("vitlite.metrics.ranking.BUCKET", 1 << 9)
    monkeypatch.setattr("vitlite.metrics.jit.SMALL", 1 << 10)


def make(shapes, rng, dtype=np.float32, density=0.15, scores="normal"):
    """Masks with clumps, the first image without any, and maps that know a little about them."""
    masks, maps = [], []
    for i, (h, w) in enumerate(shapes):
        mask = np.zeros((h, w), np.uint8)
        while i and mask.mean() < density:
            y, x, size = rng.integers(h), rng.integers(w), rng.integers(1, 2 + min(h, w) // 4)
            mask[y : y + size, x : x + size] = 1
        values = rng.standard_normal((h, w)) + mask
        masks.append(mask)
        maps.append(SCORES[scores](values).astype(dtype))
    return masks, maps


SCORES = {
    "normal": lambda v: v,
    "tied": lambda v: np.round(v * 2),
    "constant": lambda v: np.full_like(v, 0.25),
    "narrow": lambda v: 0.5 + v * 1e-6,
    "wide": lambda v: np.exp(15 * v),
    "tiny": lambda v: v * 1e-40,
    "huge": lambda v: v * 1e37,
    "negative": lambda v: v - 100,
    "half zero": lambda v: np.maximum(v, 0),
    "signed zero": lambda v: np.where(v > 0.5, v, np.copysign(0.0, v)),
    "outlier": lambda v: np.where(v == v.max(), 1e30, 0.5 + v * 1e-4),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scores", SCORES)
def test_everything_equals_the_definition(scores, dtype):
    masks, maps = make([(7, 9), (12, 5), (20, 31), (1, 1)], np.random.default_rng(1), dtype, scores=scores)
    found, expected = metrics.evaluate_maps(masks, maps), plain.evaluate(masks, maps)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, **CLOSE, err_msg=key)


def three(own, labels, scores):
    return own.auroc(labels, scores), own.average_precision(labels, scores), own.f1_max(labels, scores)[0]


def scikit_learns(labels, scores):
    sk = pytest.importorskip("sklearn.metrics")
    precision, recall, _ = sk.precision_recall_curve(labels, scores)
    f1 = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-30))
    return sk.roc_auc_score(labels, scores), sk.average_precision_score(labels, scores), f1


def test_the_definition_of_the_tests_is_scikit_learns():
    rng = np.random.default_rng(2)
    for scores in (rng.random(300), rng.integers(0, 6, 300).astype(float), np.ones(300)):
        labels = rng.integers(0, 2, 300)
        np.testing.assert_allclose(three(plain, labels, scores), scikit_learns(labels, scores), **CLOSE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scores", ["normal", "tied", "narrow", "half zero", "outlier"])
@pytest.mark.usefixtures("small_pieces")
def test_many_scores_equal_scikit_learn(scores, dtype):
    values = np.random.default_rng(3).standard_normal(60_000)
    labels = values + np.random.default_rng(4).standard_normal(values.size) > 2
    values = SCORES[scores](values).astype(dtype)
    np.testing.assert_allclose(three(metrics, labels, values), scikit_learns(labels, values), **CLOSE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scores", ["normal", "tied", "half zero"])
@pytest.mark.usefixtures("small_pieces")
def test_many_pixels_equal_the_official_evaluation(scores, dtype):
    from vitlite.bench.metrics import plain_aupro

    masks, maps = make([(120, 90)] * 6, np.random.default_rng(5), dtype, 0.03, scores)
    for limit in (0.3, 0.05, 1.0):
        found = metrics.aupro(masks, maps, fpr_limit=limit)
        np.testing.assert_allclose(found, plain_aupro(masks, maps, limit), **CLOSE)
    np.testing.assert_allclose(metrics.aupro(np.array(masks), np.array(maps)), metrics.aupro(masks, maps), **CLOSE)


def test_the_benchmarks_yardstick_is_the_definition():
    from vitlite.bench.metrics import plain_aupro

    for scores in SCORES:
        masks, maps = make([(15, 9), (12, 25)], np.random.default_rng(6), np.float64, scores=scores)
        for limit in (0.3, 0.01, 1.0):
            np.testing.assert_allclose(plain_aupro(masks, maps, limit), plain.aupro(masks, maps, limit), **CLOSE)


@pytest.mark.parametrize("scores", ["normal", "tied", "constant"])
def test_pro_curve_has_a_point_for_every_distinct_score(scores):
    masks, maps = make([(17, 9), (12, 25)], np.random.default_rng(7), scores=scores)
    fpr, pro = metrics.pro_curve(masks, maps)
    expected_fpr, expected_pro = plain.pro_curve(masks, maps)
    np.testing.assert_allclose(fpr, expected_fpr, **CLOSE)
    np.testing.assert_allclose(pro, expected_pro, **CLOSE)
    assert (fpr[0], pro[0], fpr[-1], pro[-1]) == (0, 0, 1, 1)


@pytest.mark.parametrize("limit", [1e-6, 0.013, 0.05, 0.3, 0.999, 1.0, 1])
def test_aupro_is_cut_and_interpolated_at_the_limit(limit):
    for scores in ("normal", "tied", "constant"):
        masks, maps = make([(17, 9), (12, 25)], np.random.default_rng(8), scores=scores)
        expected = plain.aupro(masks, maps, limit)
        np.testing.assert_allclose(metrics.aupro(masks, maps, fpr_limit=limit), expected, **CLOSE)
        np.testing.assert_allclose(metrics.evaluate_maps(masks, maps, fpr_limit=limit)["aupro"], expected, **CLOSE)


def test_regions_that_touch_at_a_corner_are_one():
    mask = np.zeros((1, 6, 6), int)
    mask[0, 1, 1] = mask[0, 2, 2] = mask[0, 3, 1] = mask[0, 5, 5] = 1
    maps = np.zeros((1, 6, 6))
    maps[0, 5, 5] = 1  # of two regions the small one is found at no cost, of four regions it would be a quarter
    fpr, pro = metrics.pro_curve(mask, maps)
    np.testing.assert_allclose((fpr[1], pro[1]), (0, 0.5))


def test_regions_at_the_border_do_not_reach_into_the_next_row_or_image():
    masks = np.zeros((2, 3, 4), np.uint8)
    masks[0, 0, 3] = masks[0, 2, 0] = 1  # last column and first column
    masks[0, 2, 3] = masks[1, 0, 3] = 1  # last row of one image and first row of the next
    maps = np.zeros((2, 3, 4), np.float32)
    maps[0, 0, 3] = 1
    np.testing.assert_allclose(metrics.pro_curve(masks, maps)[1][1], 1 / 4)


def test_a_threshold_reaches_the_best_f1_and_is_the_highest_that_does():
    rng = np.random.default_rng(9)
    labels, scores = rng.integers(0, 2, 400), rng.integers(0, 40, 400).astype(np.float32) / 7
    f1, threshold = metrics.f1_max(labels, scores)
    assert (f1, threshold) == plain.f1_max(labels, scores)
    found = scores >= threshold
    assert f1 == 2 * (found & (labels == 1)).sum() / (found.sum() + labels.sum())
    assert metrics.f1_max([1, 0, 0, 0, 1], [5, 4, 3, 2.5, 2]) == (2 / 3, 5.0)  # 2 does no better than 5


def test_values_that_differ_only_as_float64_are_different():
    scores = 1 + np.arange(6) * np.finfo(np.float64).eps
    assert metrics.auroc([0, 0, 0, 1, 1, 1], scores) == 1
    assert metrics.f1_max([0, 0, 0, 1, 1, 1], scores) == (1.0, scores[3])
    assert metrics.auroc([0, 1], np.array([2**53, 2**53 + 2])) == 1


def test_infinite_scores_rank_first_and_last_and_zeros_are_equal():
    assert metrics.auroc([0, 0, 1], [-np.inf, 0, np.inf]) == 1
    assert metrics.auroc([0, 1], [-0.0, 0.0]) == 0.5
    assert metrics.auroc([0, 1], np.array([0.0, -0.0], np.float32)) == 0.5


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.uint16, np.int32, np.int64, ">f4", ">f8", bool])
def test_any_real_dtype_is_ranked_by_its_values(dtype):
    rng = np.random.default_rng(10)
    labels, scores = rng.integers(0, 2, 60), rng.integers(0, 100, 60).astype(dtype)
    np.testing.assert_allclose(metrics.auroc(labels, scores), plain.auroc(labels, scores), **CLOSE)


def test_labels_may_be_of_any_dtype_and_inputs_in_any_layout():
    rng = np.random.default_rng(11)
    masks, maps = make([(24, 18)] * 3, rng)
    masks, maps = np.array(masks), np.array(maps)
    expected = metrics.evaluate_maps(masks, maps)
    frozen = maps.copy()
    frozen.flags.writeable = False
    for same_masks, same_maps in (
        (masks.astype(bool), np.asfortranarray(maps)),
        (masks.astype(float), np.repeat(maps, 2, axis=2)[:, :, ::2]),
        (masks.astype(np.int64), frozen),
        (list(masks), maps),
        (masks, tuple(maps.tolist())),
        (masks[:, ::-1], maps[:, ::-1]),
        (np.asfortranarray(masks), maps.astype(np.float64)),
    ):
        assert metrics.evaluate_maps(same_masks, same_maps) == pytest.approx(expected, abs=1e-12)
    before = maps.copy()
    metrics.aupro(masks, maps)
    np.testing.assert_array_equal(maps, before)


def test_image_labels_and_scores_replace_the_defaults():
    masks, maps = make([(9, 9)] * 5, np.random.default_rng(12))
    labels, scores = np.array([0, 1, 0, 1, 1]), np.array([0.1, 0.9, 0.3, 0.2, 0.8])
    plainly = metrics.evaluate_maps(masks, maps)
    found = metrics.evaluate_maps(masks, maps, image_labels=labels, image_scores=list(scores))
    assert found["image_auroc"] == metrics.auroc(labels, scores)
    assert (found["image_f1_max"], found["image_f1_threshold"]) == metrics.f1_max(labels, scores)
    assert {k: v for k, v in found.items() if not k.startswith("image")} == {
        k: v for k, v in plainly.items() if not k.startswith("image")
    }


def test_a_defective_image_with_an_empty_mask_adds_normal_pixels_and_no_region():
    masks, maps = make([(9, 9)] * 4, np.random.default_rng(13))
    found = metrics.evaluate_maps(masks, maps, image_labels=[1, 1, 0, 1])
    assert found["image_auroc"] == plain.auroc([1, 1, 0, 1], [m.max() for m in maps])
    np.testing.assert_allclose(found["aupro_30"], plain.aupro(masks, maps, 0.3), **CLOSE)
    np.testing.assert_allclose(found["pixel_ap"], plain.average_precision(*plain.flat(masks, maps)), **CLOSE)
