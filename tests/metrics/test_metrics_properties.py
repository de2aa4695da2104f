"""What must hold for any input: hypothesis looks for one where it does not."""

import numpy as np
import pytest

pytest.importorskip("hypothesis")

import plain_metrics as plain
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitlite import metrics

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SCORES = {
    "tied": st.integers(-3, 3).map(float),
    "float32": st.floats(-(2.0**100), 2.0**100, width=32),
    "float64": st.floats(allow_nan=False, allow_infinity=False),
}


@st.composite
def image_sets(draw, least=1):
    """(masks, maps) with both pixel classes, of different sizes."""
    shapes = draw(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=least, max_size=4))
    values = SCORES[draw(st.sampled_from(sorted(SCORES)))]
    masks = [draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 1))) for shape in shapes]
    maps = [draw(hnp.arrays(np.float64, shape, elements=values)) for shape in shapes]
    labels = np.concatenate([m.ravel() for m in masks])
    assume(0 < labels.sum() < labels.size)
    return masks, maps


def pixel(masks, maps):
    labels, scores = plain.flat(masks, maps)
    return np.array(
        [
            metrics.auroc(labels, scores),
            metrics.average_precision(labels, scores),
            metrics.f1_max(labels, scores)[0],
            metrics.aupro(masks, maps),
            metrics.aupro(masks, maps, fpr_limit=0.05),
        ]
    )


@quick
@given(image_sets())
def test_equal_to_the_definition(images):
    masks, maps = images
    labels, scores = plain.flat(masks, maps)
    expected = [
        plain.auroc(labels, scores),
        plain.average_precision(labels, scores),
        plain.f1_max(labels, scores)[0],
        plain.aupro(masks, maps, 0.3),
        plain.aupro(masks, maps, 0.05),
    ]
    np.testing.assert_allclose(pixel(masks, maps), expected, rtol=0, atol=1e-9)


@quick
@given(image_sets(), st.sampled_from(["rank", "scale", "shift exponent", "negated reversal"]))
def test_only_the_order_of_scores_matters(images, how):
    masks, maps = images
    values, ranks = np.unique(np.concatenate([m.ravel() for m in maps]), return_inverse=True)
    new = {
        "rank": np.arange(values.size, dtype=np.float64),
        "scale": np.arange(values.size) * 1e-300,
        "shift exponent": np.logspace(-200, 200, values.size) if values.size > 1 else np.array([3.0]),
        "negated reversal": -np.exp(-np.arange(values.size) / 9.0),
    }[how]
    pieces = np.split(new[ranks.ravel()], np.cumsum([m.size for m in maps])[:-1])
    moved = [piece.reshape(m.shape) for piece, m in zip(pieces, maps)]
    np.testing.assert_allclose(pixel(masks, moved), pixel(masks, maps), rtol=0, atol=1e-12)


@quick
@given(image_sets(least=2), st.randoms())
def test_the_order_of_images_does_not_matter(images, random):
    order = list(range(len(images[0])))
    random.shuffle(order)
    shuffled = [[part[i] for i in order] for part in images]
    np.testing.assert_allclose(pixel(*shuffled), pixel(*images), rtol=0, atol=1e-12)


@quick
@given(image_sets(), st.randoms())
def test_the_way_pixels_are_split_into_arrays_does_not_matter(images, random):
    """A map cut along a row that no region crosses or touches on both sides is the same set of pixels and regions."""
    cut_masks, cut_maps = [], []
    for mask, map_ in zip(*images):
        free = [r for r in range(1, len(mask)) if not mask[r - 1 : r + 1].any()]
        at = [random.choice(free)] if free else []
        cut_masks += np.split(mask, at)
        cut_maps += np.split(map_, at)
    np.testing.assert_allclose(pixel(cut_masks, cut_maps), pixel(*images), rtol=0, atol=1e-12)


@quick
@given(image_sets())
def test_turning_an_image_does_not_matter(images):
    turned = [[np.rot90(a) for a in part] for part in images]
    np.testing.assert_allclose(pixel(*turned), pixel(*images), rtol=0, atol=1e-12)


@quick
@given(image_sets())
def test_negated_scores_give_the_complement(images):
    labels, scores = plain.flat(*images)
    np.testing.assert_allclose(metrics.auroc(labels, scores) + metrics.auroc(labels, -scores), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(metrics.auroc(labels, scores), metrics.auroc(1 - labels, -scores), rtol=0, atol=1e-12)


@quick
@given(image_sets(), st.integers(16, 40))
def test_the_streaming_form_keeps_its_bound(images, cells):
    masks, maps = images
    stream = metrics.StreamingEvaluator(cells=cells)
    for i, (mask, map_) in enumerate(zip(masks, maps)):
        stream.update(mask, map_, image_label=i % 2)
    stream.update(np.zeros((1, 1)), np.array([[maps[0].flat[0]]]), image_label=1)
    labels = [i % 2 for i in range(len(masks))] + [1]
    masks, maps = [*masks, np.zeros((1, 1))], [*maps, np.array([[maps[0].flat[0]]])]
    exact, found = metrics.evaluate_maps(masks, maps, image_labels=labels), stream.result()
    for key, bound in found["error_bounds"].items():
        assert abs(found[key] - exact[key]) <= bound + 1e-12, key
    assert found["error_bound"] == max(found["error_bounds"].values())
