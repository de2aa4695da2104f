"""Scoring a folder of maps: pairing them with a data set, and saying what is wrong."""

import numpy as np
import pytest
from PIL import Image

from vitlite import metrics
from vitlite.engine.evaluate import evaluate_folder
from vitlite.errors import UserError
from vitlite.images.maps import read_map, write_map
from vitlite.results import KEYS, THRESHOLDS


@pytest.fixture
def folders(tmp_path):
    """A data set of two categories, images of different sizes, and a map for each; returns (maps, data, truth)."""
    rng = np.random.default_rng(0)
    truth = {}
    for category in ("bolt", "nut"):
        for defect in ("bent", "good"):
            for i in range(3):
                shape = (14 + i, 11)
                mask = np.zeros(shape, np.uint8)
                if defect != "good":
                    mask[2 : 5 + i, 3:6] = 1
                    save(tmp_path / "data" / category / "ground_truth" / defect / f"00{i}_mask.png", 255 * mask)
                save(tmp_path / "data" / category / "test" / defect / f"00{i}.png", rng.integers(0, 255, shape))
                path = tmp_path / "maps" / category / "test" / defect / f"00{i}.tiff"
                path.parent.mkdir(parents=True, exist_ok=True)
                values = (rng.random(shape) + 0.5 * mask).astype(np.float32)
                write_map(path, values)
                truth.setdefault(category, []).append((mask, values))
    return tmp_path / "maps", tmp_path / "data", truth


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def message(maps, data, category=None):
    with pytest.raises(UserError) as error:
        evaluate_folder(maps, data, category)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_scores_equal_those_of_the_arrays(folders):
    maps, data, truth = folders
    found = evaluate_folder(maps, data)
    assert list(found["categories"]) == ["bolt", "nut"]
    for category, pairs in truth.items():
        expected = metrics.evaluate_maps(*zip(*pairs))
        own = found["categories"][category]
        assert (own["good"], own["defective"]) == (3, 3)
        assert {key: own[key] for key in KEYS + THRESHOLDS} == {key: expected[key] for key in KEYS + THRESHOLDS}
        assert own["defects"]["bent"]["aupro_30"] == expected["aupro_30"]
        assert [image["score"] for image in own["images"]] == [values.max() for _, values in pairs]
    for key in KEYS:
        assert found["mean"][key] == pytest.approx(sum(own[key] for own in found["categories"].values()) / 2)
    assert found["about"]["mask_rule"] == found["categories"]["nut"]["mask_rule"] == "0/255"


def test_one_category_alone_from_the_root_or_its_own_folder(folders):
    maps, data, _ = folders
    expected = evaluate_folder(maps, data)["categories"]["nut"]
    assert evaluate_folder(maps, data, "nut")["categories"] == {"nut": expected}
    (alone,) = evaluate_folder(maps, data / "nut")["categories"].values()
    assert {key: alone[key] for key in KEYS} == {key: expected[key] for key in KEYS}


@pytest.mark.parametrize("form", ["tif", "npy", "TIFF", "float64 npy", "deflate", "lzw", "int npy", "16-bit"])
def test_other_forms_of_a_map(folders, form):
    maps, data, truth = folders
    path = maps / "nut" / "test" / "bent" / "001.tiff"
    values = read_map(path)
    path.unlink()
    if form in ("tif", "TIFF"):
        write_map(path.with_suffix(f".{form}"), values)
    elif form in ("deflate", "lzw"):
        Image.fromarray(values).save(path, compression=f"tiff_{'adobe_' * (form == 'deflate')}{form}")
    elif form == "16-bit":
        values = (values * 1000).astype(np.uint16)
        Image.fromarray(values).save(path)
    else:
        values = values.astype({"npy": "f4", "float64 npy": "f8", "int npy": "i4"}[form])
        np.save(path.with_suffix(".npy"), values)
    pairs = truth["nut"]
    pairs[1] = (pairs[1][0], values)
    found = evaluate_folder(maps, data, "nut")["categories"]["nut"]
    assert found["pixel_ap"] == metrics.evaluate_maps(*zip(*pairs))["pixel_ap"]


def test_every_wrong_name_is_named(folders):
    maps, data, _ = folders
    bent, good = maps / "nut" / "test" / "bent", maps / "nut" / "test" / "good"
    (bent / "000.tiff").unlink()
    (bent / "001.tiff").rename(bent / "001_map.tiff")
    (bent / "002.tiff").rename(bent / "002.png")
    (good / "002.tiff").rename(good / "2.tiff")
    write_map(bent / "extra one.tiff", np.zeros((2, 2)))
    (maps / "bolt" / "test" / "scratch").mkdir()
    write_map(maps / "bolt" / "test" / "scratch" / "7.tif", np.zeros((2, 2)))
    np.save(good / "000.npy", np.zeros((14, 11)))
    (good / "notes.txt").write_text("is no map and no mistake")
    text = message(maps, data)
    assert "missing: 1 (nut/test/bent/000.tiff)" in text
    misnamed = ("bent/001_map.tiff for 001.tiff", "bent/002.png for 002.tiff", "good/2.tiff for 002.tiff")
    assert f"misnamed: 3 ({', '.join(f'nut/test/{name}' for name in misnamed)})" in text
    assert "extra: 2 (bolt/test/scratch/7.tif, nut/test/bent/extra one.tiff)" in text
    assert "ambiguous: 1 (nut/test/good/000 is there as 000.npy and 000.tiff)" in text
    assert "notes.txt" not in text


def test_many_problems_are_counted_and_the_first_named(folders):
    maps, data, _ = folders
    for path in (maps / "nut").rglob("*.tiff"):
        path.unlink()
    text = message(maps, data)
    assert "missing: 6 (nut/test/bent/000.tiff, nut/test/bent/001.tiff, nut/test/bent/002.tiff and 3 more)" in text


def test_every_wrong_content_is_named(folders):
    maps, data, _ = folders
    bent = maps / "bolt" / "test" / "bent"
    values = np.ones((14, 11), np.float32)
    values[3, 3] = np.nan
    write_map(bent / "000.tiff", values)
    write_map(bent / "001.tiff", np.zeros((11, 15)))
    (bent / "002.tiff").write_bytes(b"II*\0 but then it ends")
    good = maps / "nut" / "test" / "good"
    Image.new("RGB", (11, 14)).save(good / "000.tiff")
    (good / "001.tiff").unlink()
    np.save(good / "001.npy", np.array([[None, "x"]]), allow_pickle=True)
    text = message(maps, data)
    assert "not finite: 1 (bolt/test/bent/000.tiff: " in text
    assert "wrong-sized: 2 (bolt/test/bent/001.tiff: is 11 x 15 but its image 15 x 11" in text
    assert "nut/test/good/000.tiff: has shape (14, 11, 3)" in text
    assert "unreadable: 2 (bolt/test/bent/002.tiff: cannot be read as a map" in text
    assert "nut/test/good/001.npy: cannot be read as a map" in text


def test_categories_without_maps_or_without_data(folders):
    maps, data, _ = folders
    (maps / "nut").rename(maps / "nuts")
    text = message(maps, data)
    assert "categories without maps: 1 (nut, is it 'nuts'?)" in text
    assert "extra categories: 1 (nuts with 6 maps)" in text
    assert list(evaluate_folder(maps, data, "bolt")["categories"]) == ["bolt"]
    assert "no such folder" in message(maps / "elsewhere", data)
    assert "is a file; give the folder" in message(next(maps.rglob("*.tiff")), data)
    assert "no such folder" in message(maps, data / "elsewhere")


def test_what_cannot_be_scored_is_named(folders):
    maps, data, _ = folders
    masks = data / "nut/ground_truth/bent"
    for mask in masks.iterdir():
        save(mask, np.zeros_like(Image.open(mask)))
    assert "no mask of category 'nut' has a defective pixel" in message(maps, data)
    (masks / "001_mask.png").unlink()
    assert "nut/test/bent/001.png: is defective but has no mask" in message(maps, data)
    for path in (data / "nut/test/good").iterdir():
        path.unlink()
    assert "nut: no good test images" in message(maps, data)
    for path in masks.iterdir():
        path.unlink()
    assert "category 'nut' has no masks, which maps are compared with" in message(maps, data)
