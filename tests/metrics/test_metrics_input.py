"""Bad input is a ValueError that names the argument, never a number."""

import numpy as np
import pytest

from vitlite import metrics

SCALAR = [metrics.auroc, metrics.average_precision, metrics.f1_max]
PIXEL = [metrics.pro_curve, metrics.aupro, metrics.evaluate_maps]


def good():
    rng = np.random.default_rng(0)
    masks = np.zeros((3, 4, 5), np.uint8)
    masks[1, 1:3, 2] = masks[2, 0, 0] = 1
    return masks, rng.random((3, 4, 5)).astype(np.float32)


@pytest.mark.parametrize("function", SCALAR)
@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([], [], "empty"),
        ([0, 1], [0.5], r"labels has shape \(2,\) but scores has shape \(1,\)"),
        ([0, 1, 1], [0.5, np.nan, 1], "scores holds NaN"),
        ([0, 1, 1], np.array([0.5, np.nan, 1], np.float32), "scores holds NaN"),
        ([0, 1, 1], np.array([0.5, np.nan, 1], np.longdouble), "scores holds NaN"),
        ([0, 0], [0.5, 1], "labels holds only 0"),
        ([1, 1], [0.5, 1], "labels holds only 1"),
        ([-1, 1], [0.5, 1], "labels must hold only 0 and 1"),
        ([0, 2], [0.5, 1], "labels must hold only 0 and 1"),
        ([0, 256, 1], [0.5, 1, 2], "labels must hold only 0 and 1"),
        ([0, 0.5], [0.5, 1], "labels must hold only 0 and 1"),
        ([0, np.nan], [0.5, 1], "labels must hold only 0 and 1"),
        (["good", "bad"], [0.5, 1], "labels must hold real numbers"),
        ([0, 1], ["a", "b"], "scores must hold real numbers"),
        ([0, 1], [1j, 1], "scores must hold real numbers"),
        ([0, 1], [None, 1], "scores must hold real numbers"),
        ([0, 1], np.array([2**60, 2**60 + 1]), "cannot be held in float64 exactly"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_labels_and_scores(function, labels, scores, message):
    with pytest.raises(ValueError, match=message):
        function(labels, scores)


def change(which, index, value):
    def apply():
        masks, maps = good()
        (masks, maps)[which][index] = value
        return masks, maps

    return apply


BAD_MAPS = {
    "not-a-number": (change(1, (2, 0, 0), np.nan), r"maps\[2\] holds NaN"),
    "mask of 255": (change(0, (1, 1, 1), 255), r"masks.* must hold only 0 and 1"),
    "no defect": (lambda: (np.zeros((3, 4, 5), int), good()[1]), "no defective pixel"),
    "no normal": (lambda: (np.ones((3, 4, 5), int), good()[1]), "no normal pixel"),
    "no image": (lambda: (np.zeros((0, 4, 5)), np.zeros((0, 4, 5))), "maps is empty"),
    "no image in a list": (lambda: ([], []), "maps is empty"),
    "no pixel": (lambda: ([np.zeros((0, 4))], [np.zeros((0, 4))]), r"maps\[0\] is empty"),
    "one map": (lambda: (good()[0][0], good()[1][0]), r"maps has shape \(4, 5\)"),
    "channels": (lambda: (good()[0][:, None], good()[1][:, None]), r"maps has shape \(3, 1, 4, 5\)"),
    "other size": (
        lambda: (good()[0][:, :3], good()[1]),
        r"masks has shape \(3, 3, 5\) but maps has shape \(3, 4, 5\)",
    ),
    "other size in a list": (lambda: (list(good()[0][:, :3]), list(good()[1])), r"masks\[0\] has shape \(3, 5\)"),
    "other number": (lambda: (list(good()[0]), list(good()[1][:2])), "masks has 3 images but maps has 2"),
    "rows": (lambda: (list(good()[0][0]), list(good()[1][0])), r"maps\[0\] has shape \(5,\)"),
    "words": (lambda: (good()[0], good()[1].astype(str)), "maps must hold real numbers"),
    "a number": (lambda: (good()[0], 3.0), "maps must be a"),
    "nothing": (lambda: (None, good()[1]), "masks must be a"),
}


@pytest.mark.parametrize("function", PIXEL)
@pytest.mark.parametrize("case", BAD_MAPS)
def test_masks_and_maps(function, case):
    make, message = BAD_MAPS[case]
    with pytest.raises(ValueError, match=message):
        function(*make())


@pytest.mark.parametrize("limit", [0, -0.1, 1.01, 30, np.nan, np.inf, None, "0.3"])
def test_fpr_limit(limit):
    for function in (metrics.aupro, metrics.evaluate_maps):
        with pytest.raises(ValueError, match="fpr_limit must lie in"):
            function(*good(), fpr_limit=limit)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image_labels": [0, 1]}, r"image_labels has shape \(2,\) but there are 3 maps"),
        ({"image_scores": [[0, 1, 2]]}, r"image_scores has shape \(1, 3\)"),
        ({"image_labels": [0, 1, 2]}, "image_labels must hold only 0 and 1"),
        ({"image_labels": [0, 0, 0]}, "image_labels: every image is good"),
        ({"image_labels": [1, 1, 1]}, "image_labels: every image is defective"),
        ({"image_labels": ["a", "b", "c"]}, "image_labels must hold real numbers"),
        ({"image_scores": [0, np.nan, 1]}, "image_scores holds NaN"),
        ({"image_scores": ["a", "b", "c"]}, "image_scores must hold real numbers"),
    ],
)
def test_image_labels_and_scores(given, message):
    with pytest.raises(ValueError, match=message):
        metrics.evaluate_maps(*good(), **given)


def test_sets_without_a_good_or_a_defective_image():
    masks, maps = good()
    with pytest.raises(ValueError, match="every image is defective"):
        metrics.evaluate_maps(masks[1:], maps[1:])
    with pytest.raises(ValueError, match="no defective pixel"):
        metrics.evaluate_maps(masks * 0, maps, image_labels=[0, 1, 1])


def test_a_bad_image_leaves_the_stream_as_it_was():
    masks, maps = good()
    stream = metrics.StreamingEvaluator()
    with pytest.raises(ValueError, match="no image was counted"):
        stream.result()
    stream.update(masks[0], maps[0])
    with pytest.raises(ValueError, match="no defective pixel"):
        stream.result()
    stream.update(masks[1], maps[1])
    before = stream.result()
    broken = maps[2].copy()
    broken[0, 0] = np.nan
    for mask, map_, given, message in (
        (masks[2], broken, {}, "map holds NaN"),
        (masks[2] * 9, maps[2], {}, "mask must hold only 0 and 1"),
        (masks[2][:2], maps[2], {}, r"mask has shape \(2, 5\) but map has shape \(4, 5\)"),
        (masks, maps, {}, r"map has shape \(3, 4, 5\)"),
        (masks[2], maps[2], {"image_label": 2}, "image_label must be 0 or 1"),
        (masks[2], maps[2], {"image_label": "bad"}, "image_label must be 0 or 1"),
        (masks[2], maps[2], {"image_score": np.nan}, "image_score must be a real number"),
        (masks[2], maps[2], {"image_score": "bad"}, "image_score must be a real number"),
    ):
        with pytest.raises(ValueError, match=message):
            stream.update(mask, map_, **given)
    assert stream.result() == before
    with pytest.raises(ValueError, match="cells must be at least 16"):
        metrics.StreamingEvaluator(cells=3)
    with pytest.raises(ValueError, match="fpr_limit"):
        stream.result(fpr_limit=2)
