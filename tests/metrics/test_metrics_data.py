"""Real masks: grey, empty, hair-thin, every file another size."""

import os
from pathlib import Path

import numpy as np
import pytest

from vitlite import metrics
from vitlite.data import open_dataset
from vitlite.data.map_files import truth

DATA = os.environ.get("VITLITE_TEST_DATA")
pytestmark = pytest.mark.skipif(not DATA, reason="VITLITE_TEST_DATA does not name the folder of real test data")


@pytest.mark.parametrize(("name", "each"), [("bottle", 20), ("magnetic_tile", 12), ("commutator", 40)])
def test_real_masks_equal_the_official_evaluation(name, each):
    from vitlite.bench.metrics import plain_aupro

    dataset = open_dataset(Path(DATA, name), need_train=False, need_test=True)
    samples = dataset.test[::each]
    masks = [truth(sample) for sample in samples]
    rng = np.random.default_rng(0)
    maps = [np.round(rng.random(mask.shape) + 0.2 * mask, 3).astype(np.float32) for mask in masks]
    found = metrics.evaluate_maps(masks, maps, image_labels=[sample.label for sample in samples])
    for key, limit in (("aupro_30", 0.3), ("aupro_05", 0.05)):
        assert found[key] == pytest.approx(plain_aupro(masks, maps, limit), abs=1e-9)
    stream = metrics.StreamingEvaluator()
    for sample, mask, map_ in zip(samples, masks, maps):
        stream.update(mask, map_, image_label=sample.label)
    streamed = stream.result()
    for key, value in found.items():
        assert streamed[key] == pytest.approx(value, abs=1e-9), key


def test_a_defective_image_whose_mask_is_empty():
    dataset = open_dataset(Path(DATA, "magnetic_tile"), need_train=False, need_test=True)
    empty = next(s for s in dataset.test if s.defect == "uneven" and not truth(s).any())
    other = next(s for s in dataset.test if s.defect == "break")
    good = next(s for s in dataset.test if not s.label)
    masks = [truth(s) for s in (empty, other, good)]
    maps = [np.random.default_rng(i).random(m.shape) for i, m in enumerate(masks)]
    found = metrics.evaluate_maps(masks, maps, image_labels=[1, 1, 0], image_scores=[3, 1, 2])
    assert found["image_auroc"] == 0.5
    assert found["aupro_30"] == metrics.aupro(masks, maps)
