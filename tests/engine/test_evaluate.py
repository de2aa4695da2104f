"""Evaluation: resolution, masks, missing and broken files."""

import shutil

import numpy as np
import pytest
from PIL import Image

from vitlite.cli.eval import table
from vitlite.data import open_dataset
from vitlite.engine.detector import Detector
from vitlite.engine.evaluate import (
    KEYS,
    MEAN_OF_KINDS,
    evaluate,
    mean_of,
    results_csv,
    score_category,
    summarize_category,
)
from vitlite.engine.results import COUNTS, THRESHOLDS, collect, write
from vitlite.engine.results import table as maps_table
from vitlite.errors import UserError
from vitlite.images.resize import map_at
from vitlite.metrics import aupro, auroc, average_precision
from vitlite.report.build import build_report


@pytest.fixture
def detector(tiny_run):
    return Detector(tiny_run, "cpu")


@pytest.fixture
def data(tiny_data, tmp_path):
    copy = tmp_path / "set"
    shutil.copytree(tiny_data, copy)
    return copy


def test_against_the_metrics_by_hand(detector, tiny_data):
    """Maps at the original size against masks as they are; scores are not the maps' maxima."""
    results = evaluate(detector, data=tiny_data)
    paths = sorted((tiny_data / "weave/test").rglob("*.png"))
    labels, scores, maps, masks = [], [], [], []
    for loaded, pixels, score in detector.score_files(paths):
        kind = loaded.path.parent.name
        labels.append(int(kind != "good"))
        scores.append(score)
        maps.append(map_at(pixels, loaded.height, loaded.width))
        mask = tiny_data / "weave/ground_truth" / kind / f"{loaded.path.stem}_mask.png"
        masks.append(np.asarray(Image.open(mask)) > 127 if labels[-1] else np.zeros_like(maps[-1], bool))
    own = results["categories"]["weave"]
    assert own["image_auroc"] == pytest.approx(auroc(np.array(labels), np.array(scores)), abs=1e-12)
    flat = np.concatenate([m.ravel() for m in maps]), np.concatenate([m.ravel() for m in masks])
    assert own["pixel_ap"] == pytest.approx(average_precision(flat[1].astype(int), flat[0]), abs=1e-9)
    expected = aupro([m.astype(np.uint8) for m in masks], maps, fpr_limit=0.3)
    assert own["aupro_30"] == pytest.approx(expected, abs=1e-9)


def test_pictures_of_another_size(detector, data):
    """Each picture is scored at its own size, whatever the network's."""
    folder = data / "weave"
    for mask in (folder / "ground_truth").rglob("*.png"):
        Image.open(mask).resize((90, 50), Image.NEAREST).save(mask)
    for picture in (folder / "test").rglob("*.png"):
        Image.open(picture).resize((90, 50)).save(picture)
    results = evaluate(detector, data=data)
    assert results["categories"]["weave"]["pixel_auroc"] is not None


def test_a_mask_of_another_size_is_refused(detector, data):
    mask = next((data / "weave/ground_truth/spot").glob("*.png"))
    Image.open(mask).resize((10, 10)).save(mask)
    with pytest.raises(UserError, match=mask.name):
        evaluate(detector, data=data)


def test_missing_masks_leave_image_metrics(detector, data):
    shutil.rmtree(data / "weave/ground_truth")
    results = evaluate(detector, data=data)
    own = results["categories"]["weave"]
    assert own["without_mask"] == 6
    assert own["pixel_auroc"] is None
    assert own["image_auroc"] is not None
    assert "weave,all,10" in results_csv(results)


def enlarge(folder, size):
    for path in folder.rglob("*.png"):
        Image.open(path).resize(size, Image.NEAREST).save(path)


def sizes_of_maps(scored):
    return {values.shape for values in scored.maps}


def test_without_masks_no_map_is_kept_at_original_size(detector, data, tmp_path, monkeypatch):
    """Not in a category without masks; with them, the metrics need every map of a picture that has one."""
    enlarge(data / "weave/test", (160, 120))
    enlarge(data / "weave/ground_truth", (160, 120))
    masked = score_category(detector, open_dataset(data, "weave"), "weave")
    assert sizes_of_maps(masked) == {(120, 160)}
    with_masks = summarize_category(masked)
    shutil.rmtree(data / "weave/ground_truth")
    dataset, side = open_dataset(data, "weave"), detector.image_size
    asked = score_category(detector, dataset, "weave", full_maps=True)
    for values, wanted in zip(asked.maps, masked.maps, strict=True):
        np.testing.assert_array_equal(values, wanted)
    evaluate(detector, data=data, maps=tmp_path / "maps")
    with Image.open(next((tmp_path / "maps").rglob("*.tiff"))) as image:
        assert image.size == (160, 120)

    monkeypatch.setattr("vitlite.engine.evaluate.map_at", None)  # nothing is resized from here on
    scored = score_category(detector, dataset, "weave")
    assert sizes_of_maps(scored) == {(side, side)}
    result = summarize_category(scored)
    assert result["pixel_auroc"] is None
    assert all(result[key] == with_masks[key] for key in KEYS[:3])
    (part,) = build_report(detector, data=data).parts
    assert {card.size for card in part.cards} == {(160, 120)}


def test_a_picture_whose_mask_is_missing_keeps_a_small_map(detector, data):
    enlarge(data / "weave/test", (160, 120))
    enlarge(data / "weave/ground_truth", (160, 120))
    for mask in (data / "weave/ground_truth/spot").glob("*.png"):
        mask.unlink()
    scored = score_category(detector, open_dataset(data, "weave"), "weave")
    for values, mask in zip(scored.maps, scored.masks, strict=True):
        assert values.shape == ((detector.image_size,) * 2 if mask is None else mask.shape)
    assert summarize_category(scored)["pixel_auroc"] is not None


def test_of_pictures_smaller_than_the_network_the_small_map_is_kept(detector, data):
    enlarge(data / "weave/test", (20, 16))
    shutil.rmtree(data / "weave/ground_truth")
    scored = score_category(detector, open_dataset(data, "weave"), "weave")
    assert sizes_of_maps(scored) == {(16, 20)}


def test_empty_mask_still_counts_as_a_defective_image(detector, data):
    for mask in (data / "weave/ground_truth/spot").glob("*.png"):
        Image.new("L", (64, 64)).save(mask)
    own = evaluate(detector, data=data)["categories"]["weave"]
    assert own["defective"] == 6
    assert own["defects"]["spot"]["pixel_auroc"] is None
    assert own["defects"]["spot"]["image_auroc"] is not None


def test_broken_files_are_named(detector, data, caplog):
    broken = next((data / "weave/test/good").glob("*.png"))
    broken.write_bytes(b"x")
    own = evaluate(detector, data=data)["categories"]["weave"]
    assert own["good"] == 3
    assert own["skipped"] == [str(broken)]
    assert any(broken.name in line for line in caplog.messages)


def test_both_kinds_are_needed(detector, data):
    shutil.rmtree(data / "weave/test/good")
    with pytest.raises(UserError, match="good"):
        evaluate(detector, data=data)


def test_names_that_are_no_text_are_written_and_printed(detector, data, tmp_path):
    """Names of folders that are not valid UTF-8 show a replacement character, as everywhere else."""
    (data / "weave/test/spot").rename(data / "weave/test/sp\udcf6t")
    (data / "weave").rename(data / "w\udce4")
    results = evaluate(detector, data=data, category="all")
    assert "\nw\ufffd,sp\ufffdt,2," in results_csv(results)
    assert all(name in table(results) for name in ("w\ufffd ", "sp\ufffdt"))
    own = {"w\udce4": dict.fromkeys((*COUNTS, *KEYS, *THRESHOLDS), 1)}
    write(tmp_path / "out", collect(own))
    assert "w\ufffd," in (tmp_path / "out/results.csv").read_text(encoding="utf-8")
    assert "w\ufffd" in maps_table(collect(own))


def test_loco_has_an_image_auroc_of_its_own(detector, data):
    """The mean of the two kinds', and of the categories' for the data set; in other layouts there is no such figure."""
    plain = evaluate(detector, data=data)
    assert MEAN_OF_KINDS not in plain["categories"]["weave"]
    assert MEAN_OF_KINDS not in plain["mean"]
    assert "LOCO" not in table(plain)
    for part in ("test", "ground_truth"):
        shutil.rmtree(data / "weave" / part / "missing")
        for old, new in (("scratch", "logical_anomalies"), ("spot", "structural_anomalies")):
            (data / "weave" / part / old).rename(data / "weave" / part / new)
    shutil.copytree(data / "weave", data / "wood")
    results = evaluate(detector, data=data, category="all")
    for name in ("weave", "wood"):
        own = results["categories"][name]
        kinds = [own["defects"][kind]["image_auroc"] for kind in ("logical_anomalies", "structural_anomalies")]
        assert own[MEAN_OF_KINDS] == pytest.approx(sum(kinds) / 2, abs=1e-12)
    assert results["mean"][MEAN_OF_KINDS] == pytest.approx(own[MEAN_OF_KINDS], abs=1e-12)
    text = f"{own[MEAN_OF_KINDS]:.4f}"
    assert table(results).endswith(f"mean of its two kinds: weave {text}, wood {text}, mean {text}")


def test_mean_is_over_categories():
    one, two = dict.fromkeys(KEYS, 0.5), dict.fromkeys(KEYS, 1.0)
    two["pixel_ap"] = None
    mean = mean_of([one, two])
    assert mean["image_auroc"] == 0.75
    assert mean["pixel_ap"] == 0.5
