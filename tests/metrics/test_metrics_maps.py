"""Maps on disk: reading them, pairing them with a data set, and saying what is wrong."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from vitlite import metrics
from vitlite.engine import results
from vitlite.engine.evaluate import evaluate_folder
from vitlite.errors import UserError
from vitlite.images import maps as maps_io
from vitlite.images import reading


@pytest.fixture
def folders(tmp_path):
    """A data set of two categories, pictures of different sizes, and a map for each; returns (maps, data, truth)."""
    rng = np.random.default_rng(0)
    truth = {}
    for category in ("bolt", "nut"):
        for defect in ("good", "bent"):
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
                maps_io.write_map(path, values)
                truth.setdefault(category, []).append((mask, values))
    return tmp_path / "maps", tmp_path / "data", truth


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def message(maps, data, category=None):
    with pytest.raises(UserError) as error:
        evaluate_folder(maps, data, category)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_scores_equal_those_of_the_arrays(folders):
    maps, data, truth = folders
    seen = []
    found = evaluate_folder(maps, data, on_category=lambda name, row: seen.append(name))
    assert seen == list(found["categories"]) == ["bolt", "nut"]
    for category, pairs in truth.items():
        expected = metrics.evaluate_maps(*zip(*pairs))
        row = found["categories"][category]
        assert (row["images"], row["defective"]) == (6, 3)
        for key in results.KEYS + results.THRESHOLDS:
            assert row[key] == expected[key], key
    for key in results.KEYS:
        both = [found["categories"][c][key] for c in truth]
        assert found["mean"][key] == pytest.approx(sum(both) / 2)
    assert found["mean"]["images"] == 12
    assert found["resolution"] == "original"
    assert "127" in found["mask_rule"]


def test_one_category_alone_from_the_root_or_its_own_folder(folders):
    maps, data, _ = folders
    expected = evaluate_folder(maps, data)["categories"]["nut"]
    assert evaluate_folder(maps, data, "nut")["categories"] == {"nut": expected}
    assert evaluate_folder(maps, data / "nut")["categories"] == {"nut": expected}


@pytest.mark.parametrize("form", ["tif", "npy", "TIFF", "float64 npy", "deflate", "lzw", "int npy", "16-bit"])
def test_other_forms_of_a_map(folders, form):
    maps, data, truth = folders
    path = maps / "nut" / "test" / "bent" / "001.tiff"
    values = maps_io.read_map(path)
    path.unlink()
    if form in ("tif", "TIFF"):
        maps_io.write_map(path.with_suffix(f".{form}"), values)
    elif form in ("deflate", "lzw"):
        Image.fromarray(values).save(path, compression=f"tiff_{'adobe_' * (form == 'deflate')}{form}")
    elif form == "16-bit":
        values = (values * 1000).astype(np.uint16)
        Image.fromarray(values).save(path)
    else:
        values = values.astype({"npy": "f4", "float64 npy": "f8", "int npy": "i4"}[form])
        np.save(path.with_suffix(".npy"), values)
    pairs = list(truth["nut"])
    pairs[4] = (pairs[4][0], values)
    found = evaluate_folder(maps, data, "nut")["categories"]["nut"]
    assert found["pixel_ap"] == metrics.evaluate_maps(*zip(*pairs))["pixel_ap"]


def test_a_written_map_comes_back(tmp_path):
    values = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    maps_io.write_map(tmp_path / "a.tiff", values.T)
    np.testing.assert_array_equal(maps_io.read_map(tmp_path / "a.tiff"), values.T)
    tifffile = pytest.importorskip("tifffile")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tiff"), values.T)
    tifffile.imwrite(tmp_path / "b.tiff", values)  # how the official scripts' users write theirs
    np.testing.assert_array_equal(maps_io.read_map(tmp_path / "b.tiff"), values)
    with pytest.raises(ValueError, match="a map is"):
        maps_io.write_map(tmp_path / "c.tiff", values[None])


def test_every_wrong_name_is_named(folders):
    maps, data, _ = folders
    bent, good = maps / "nut" / "test" / "bent", maps / "nut" / "test" / "good"
    (bent / "000.tiff").unlink()
    (bent / "001.tiff").rename(bent / "001_map.tiff")
    (good / "002.tiff").rename(good / "2.tiff")
    maps_io.write_map(bent / "extra one.tiff", np.zeros((2, 2)))
    (maps / "bolt" / "test" / "scratch").mkdir()
    maps_io.write_map(maps / "bolt" / "test" / "scratch" / "7.tif", np.zeros((2, 2)))
    np.save(good / "000.npy", np.zeros((14, 11)))
    (good / "notes.txt").write_text("is no map and no mistake")
    text = message(maps, data)
    assert "missing: 1 (nut/test/bent/000.tiff)" in text
    assert "misnamed: 2 (nut/test/bent/001_map.tiff for 001.tiff, nut/test/good/2.tiff for 002.tiff)" in text
    assert "extra: 2 (bolt/test/scratch/7.tif, nut/test/bent/extra one.tiff)" in text
    assert "ambiguous: 1 (nut/test/good/000 is there as 000.npy and 000.tiff)" in text
    assert "notes.txt" not in text


def test_a_map_under_a_wrong_extension_is_misnamed(folders):
    maps, data, _ = folders
    bent = maps / "nut" / "test" / "bent"
    (bent / "000.tiff").rename(bent / "000.png")
    assert "misnamed: 1 (nut/test/bent/000.png for 000.tiff)" in message(maps, data)


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
    maps_io.write_map(bent / "000.tiff", values)
    maps_io.write_map(bent / "001.tiff", np.zeros((11, 15)))
    (bent / "002.tiff").write_bytes(b"II*\0 but then it ends")
    good = maps / "nut" / "test" / "good"
    Image.new("RGB", (11, 14)).save(good / "000.tiff")
    (good / "001.tiff").unlink()
    np.save(good / "001.npy", np.array([[None, "x"]]), allow_pickle=True)
    text = message(maps, data)
    assert "not finite: 1 (bolt/test/bent/000.tiff: holds values that are not finite" in text
    assert "wrong-sized: 2 (bolt/test/bent/001.tiff: is 11 x 15 but its picture 15 x 11" in text
    assert "nut/test/good/000.tiff: has shape (14, 11, 3)" in text
    assert "unreadable: 2 (bolt/test/bent/002.tiff: cannot be read as a map" in text
    assert "nut/test/good/001.npy: cannot be read as a map" in text


@pytest.mark.parametrize(
    "case", ["infinite", "empty file", "folder", "npz", "complex", "float64 tiff", "pages", "palette"]
)
def test_files_that_hold_no_map(tmp_path, case):
    path = tmp_path / ("a.tiff" if case in ("float64 tiff", "pages", "palette", "empty file", "folder") else "a.npy")
    page = Image.fromarray(np.zeros((3, 4), np.float32))
    if case == "infinite":
        np.save(path, np.array([[0, np.inf]]))
    elif case == "empty file":
        path.touch()
    elif case == "folder":
        path.mkdir()
    elif case == "npz":
        np.savez(tmp_path / "b.npz", np.zeros((3, 4)))
        (tmp_path / "b.npz").rename(path)
    elif case == "complex":
        np.save(path, np.zeros((3, 4), complex))
    elif case == "float64 tiff":
        pytest.importorskip("tifffile").imwrite(path, np.zeros((3, 4)))
    elif case == "pages":
        page.save(path, save_all=True, append_images=[page])
    else:
        Image.new("P", (4, 3)).save(path)
    with pytest.raises(maps_io.MapError, match=path.name):
        maps_io.read_map(path)


def test_categories_without_maps_or_without_data(folders):
    maps, data, _ = folders
    (maps / "nut").rename(maps / "nuts")
    text = message(maps, data)
    assert "categories without maps: 1 (nut, is it 'nuts'?)" in text
    assert "extra categories: 1 (nuts with 6 maps)" in text
    assert evaluate_folder(maps, data, "bolt")["mean"]["images"] == 6
    assert "no such folder" in message(maps / "elsewhere", data)
    assert "no such folder" in message(maps, data / "elsewhere")


def test_a_category_that_lacks_a_class_is_named(folders):
    maps, data, _ = folders
    for root in (maps, data):
        for path in (root / "nut" / "test" / "good").iterdir():
            path.unlink()
    assert "category 'nut' cannot be scored: image_labels: every image is defective" in message(maps, data)


def test_a_defective_picture_without_a_mask_is_named(folders):
    maps, data, _ = folders
    (data / "nut" / "ground_truth" / "bent" / "001_mask.png").unlink()
    assert "nut/test/bent/001.png: is defective but has no mask" in message(maps, data)


def test_pictures_that_lie_on_their_side_are_measured_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert reading.image_size(tmp_path / "a.jpg") == (20, 10)
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(UserError, match=r"b\.png"):
        reading.image_size(tmp_path / "b.png")


def test_results_are_written_whole(folders, tmp_path):
    maps, data, _ = folders
    found = evaluate_folder(maps, data)
    results.write(tmp_path / "new" / "out", found)
    out = tmp_path / "new" / "out"
    assert sorted(p.name for p in out.iterdir()) == ["results.csv", "results.json"]
    assert json.loads((out / "results.json").read_text()) == found
    with open(out / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["category"] for row in rows] == ["bolt", "nut", "mean"]
    for row in rows:
        values = found["mean"] if row["category"] == "mean" else found["categories"][row["category"]]
        for key in results.KEYS:
            assert float(row[key]) == values[key]
    assert all(f"{100 * found['mean'][key]:.2f}" in results.table(found).splitlines()[-1] for key in results.KEYS)
