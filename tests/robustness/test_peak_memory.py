"""What is held while scoring: nothing of the images and categories before."""

import weakref

import numpy as np
import pytest

from vitlite.engine import evaluate
from vitlite.engine import predict as predicting
from vitlite.engine.detector import Detector
from vitlite.images import loading


@pytest.fixture
def detector(tiny_run):
    return Detector(tiny_run, "cpu")


def test_predict_holds_no_image_or_map_of_the_past(detector, tiny_data, tmp_path, monkeypatch):
    """20 images in batches of 2: when the next map is made, at most those of its batch are alive."""
    alive, most, map_at = weakref.WeakSet(), [], loading.map_at

    class Values(np.ndarray):  # numpy's own arrays take no weak references in a set
        __hash__ = object.__hash__

    def watched(*args):
        values = map_at(*args).view(Values)
        alive.add(values)
        most.append(len(alive))
        return values

    monkeypatch.setattr(loading, "map_at", watched)
    rows = predicting.predict(detector, [tiny_data], tmp_path / "out", maps=True, batch_size=2)
    assert len(rows) == len(most) >= 20
    assert max(most) <= 2


@pytest.mark.parametrize("overlays", [True, False])
def test_predict_keeps_originals_for_overlays_alone(detector, tiny_data, tmp_path, monkeypatch, overlays):
    kept, score_files = set(), detector.score_files

    def watched(*args, **options):
        for found in score_files(*args, **options):
            loaded, *_ = found
            kept.add(loaded.original is not None)
            yield found

    monkeypatch.setattr(detector, "score_files", watched)
    predicting.predict(detector, [tiny_data / "weave/test"], tmp_path / "out", overlays=overlays)
    assert kept == {overlays}


def test_the_maps_of_a_category_are_gone_before_the_next(detector, tiny_data, tmp_path, monkeypatch):
    """Two categories; when the second is scored, nothing of the first is alive."""
    root = tmp_path / "set"
    root.mkdir()
    for name in ("first", "second"):
        (root / name).symlink_to(tiny_data / "weave")
    scored, score = [], evaluate.score_category

    def watched(*args, **options):
        assert not [one for one in scored if one() is not None]
        found = score(*args, **options)
        scored.append(weakref.ref(found))
        return found

    monkeypatch.setattr(evaluate, "score_category", watched)
    results = evaluate.evaluate(detector, data=root, category="all")
    assert list(results["categories"]) == ["first", "second"]
    assert len(scored) == 2


def test_the_mask_of_a_good_image_takes_no_memory():
    mask = evaluate.blank(30, 40)
    assert mask.strides == (0, 0)
    assert mask.shape == (30, 40)
    assert not mask.any()
    assert not mask.flags.writeable
