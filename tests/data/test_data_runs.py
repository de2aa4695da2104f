"""Training, evaluation and the report on layouts whose images are no files, or whose masks are no single ones."""

import numpy as np
import pytest
from archive_files import write_cifar, write_mnist
from tiny_settings import TINY

from vitlite import data

MARK = np.zeros((12, 16), np.uint8)
MARK[3:6, 4:9] = 255


@pytest.fixture
def trained(tmp_path):
    """trained(root, category) trains a tiny detector."""
    from vitlite.engine.detector import Detector
    from vitlite.engine.settings import RunSettings, apply_overrides, preset_config
    from vitlite.engine.train import train

    def run(root, category):
        changes = {**TINY, "epochs": 1, "steps": 1}
        config = apply_overrides(preset_config("sivt", "quick"), [f"{k}={v}" for k, v in changes.items()])
        train(RunSettings("sivt", str(root), category, "quick", 0, config), tmp_path / "run", device="cpu")
        return Detector(tmp_path / "run", "cpu")

    return run


@pytest.mark.parametrize("kind", ["mnist", "cifar10"])
def test_one_class_data(tmp_path, trained, kind):
    from vitlite.engine.evaluate import evaluate
    from vitlite.report.build import build_report
    from vitlite.report.page import render

    if kind == "mnist":
        write_mnist(tmp_path / kind, [1, 1, 2, 1, 1], [1, 1, 2, 0, 0])
        category, kinds = "1", {"0", "2"}
    else:
        write_cifar(tmp_path / kind, per_batch=4)
        category, kinds = "dog", {"frog", "horse", "ship"}
    detector = trained(tmp_path / kind, category)
    result = evaluate(detector, category=category)["categories"][category]
    assert result["good"] >= 1
    assert set(result["defects"]) == kinds
    assert 0 <= result["image_auroc"] <= 1
    assert result["pixel_auroc"] is result["aupro_30"] is None
    assert result["skipped"] == []
    page = render(build_report(detector, category=category))
    assert "00000" in page


def test_united_masks_and_label_maps_reach_the_metrics(tmp_path, put, trained):
    """The masks that are scored are the layout's: any value above 0, of all the files of an image."""
    from vitlite.engine import evaluate as module

    root = tmp_path / "pushpins"
    for name in ("train/good/000", "train/good/001", "test/good/000", "test/logical_anomalies/000"):
        put(root / f"{name}.png")
    put(root / "ground_truth" / "logical_anomalies" / "000" / "000.png", MARK // 255 * 7)
    put(root / "ground_truth" / "logical_anomalies" / "000" / "001.png", MARK.T.copy().reshape(12, 16) // 255)
    detector = trained(tmp_path, "pushpins")
    scored = module.score_category(detector, data.open_dataset(tmp_path), "pushpins")
    wanted = (MARK | MARK.T.copy().reshape(12, 16)) > 0
    assert wanted.sum() > (MARK > 0).sum()
    np.testing.assert_array_equal(scored.masks[1], wanted)
    assert module.summarize_category(scored)["pixel_auroc"] is not None
