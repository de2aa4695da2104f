"""``vitlite calibrate``, what predict does with the thresholds, and its maps."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from commands import vitlite
from PIL import Image
from scipy import ndimage
from tiny_settings import TINY_OPTIONS

from vitlite.data import synthesize
from vitlite.engine.detector import Detector
from vitlite.images.maps import read_map


def refused(*args):
    out, err = vitlite(*args, code=2)
    assert (out, err.count("\n"), err[:9]) == ("", 1, "vitlite: ")
    return err


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good") / "set"
    root = synthesize(folder, seed=5, size=64, categories=("weave",), train=19, good=1, defects=1)
    return root / "weave/train/good"


def test_calibrate_then_predict(run, good, tmp_path):
    out, err = vitlite("calibrate", run, "--target-fpr", "0.1", "--good", good, "--device", "cpu")
    assert "from 19 good images: expect 10 % false alarms (90 % interval " in out
    assert "written: " in out
    assert err == ""
    assert json.loads((run / "calibration.json").read_text())["target_fpr"] == 0.1
    # Two of the 19 images are above the rank 20 - 2, one is at it: the verdict is the comparison that was promised.
    vitlite("predict", run, good, "--out", tmp_path / "p", "--no-overlays", "--device", "cpu")
    rows = rows_of(tmp_path / "p/predictions.csv")
    assert sum(row["verdict"] == "defect" for row in rows) == 1
    assert max(float(row["percentile"]) for row in rows) == pytest.approx(100 * 18 / 19, abs=0.1)
    vitlite("predict", run, good, "--out", tmp_path / "q", "--no-overlays", "--fail-on-defect", code=1)


def test_thresholds_by_hand(run, good, tmp_path):
    before = json.loads((run / "calibration.json").read_text())
    out, _ = vitlite("calibrate", run, "--threshold", "0", "--defects", good)
    assert "threshold 0 (pixels " in out
    assert "known defects: 0 of 19 missed at the threshold" in out
    after = json.loads((run / "calibration.json").read_text())
    assert (after["image_threshold"], after["expected_fpr"]) == (0, None)
    assert after["categories"]["weave"]["image_threshold"] == 0
    assert after["pixel_threshold"] == before["pixel_threshold"]
    out, _ = vitlite("calibrate", run, "--pixel-threshold", "1e9", "--threshold", "1e9", "--defects", good)
    assert "known defects: 19 of 19 missed" in out
    assert out.count("  missed: ") == 5
    # Another one for one call; and a sensitivity, which the thresholds by hand do not change.
    options = ("--no-overlays", "--device", "cpu", "--fail-on-defect")
    vitlite("predict", run, good, "--out", tmp_path / "p", *options)
    vitlite("predict", run, good, "--out", tmp_path / "q", *options, "--threshold", "0", code=1)
    vitlite("predict", run, good, "--out", tmp_path / "r", *options[:3], "--sensitivity", "high")
    assert json.loads((tmp_path / "r/predictions.json").read_text())["sensitivity"] == "high"
    vitlite("calibrate", run, "--good", good, "--sensitivity", "high")
    assert json.loads((run / "calibration.json").read_text())["target_fpr"] == 0.15
    vitlite("predict", run, good, "--out", tmp_path / "s", *options, code=1)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ("--threshold", "1", "--good", "x"),
            "--threshold, --pixel-threshold: not together with what sets a threshold",
        ),
        (("--threshold", "nan"), "--threshold nan: must be a finite number"),
        (("--threshold", "1", "--category", "bolt"), "--category bolt: unknown"),
        (("--category", "weave"), "--category weave: only together with --threshold or --pixel-threshold"),
        (("--sensitivity", "high", "--target-fpr", "0.1"), "--sensitivity: not together with --target-fpr"),
        (("--sensitivity", "full"), "--sensitivity full: choose low, normal, high"),
        (("--balance",), "--balance: takes known defective images; give --defects"),
        (("--balance", "--defects", ".", "--threshold", "1"), "--balance: not together with --threshold, "),
        (("--balance", "--defects", ".", "--pixel-threshold", "1"), "--balance: not together with --threshold, "),
        (("--balance", "--defects", ".", "--sensitivity", "low"), "--balance: not together with --threshold, "),
        (("--balance", "--defects", ".", "--target-fpr", "0.1"), "--balance: not together with --threshold, "),
        (("--without", "x.png"), "--without x.png: not one of the "),
        (("--min-area", "-1"), "--min-area -1: must be a whole number from 0"),
        (("--min-area", "2.5"), "--min-area 2.5: must be a whole number from 0"),
        (("--min-area", "5", "--threshold", "1", "--category", "weave"), "--min-area: one value for the whole run"),
    ],
)
def test_options_that_contradict(run, options, line):
    before = (run / "calibration.json").read_bytes()
    assert line in refused("calibrate", run, *options)
    assert (run / "calibration.json").read_bytes() == before


def spread_of(calibration):
    scores = np.array(calibration["good_scores"])
    return pytest.approx(1.4826 * np.median(np.abs(scores - np.median(scores))))


def test_an_odd_good_image_is_named_and_can_be_left_out(run, good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "good")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "odd.png")
    _, err = vitlite("calibrate", run, "--good", folder)
    line = next(line for line in err.splitlines() if "odd good image" in line)
    assert f"{folder / 'odd.png'}: an odd good image: its score " in line
    assert "calibrate without it" in line
    overlay = run / "odd" / "1_weave_odd.png"
    assert line.endswith(f"; overlay: {overlay}")
    assert Image.open(overlay).size == (64, 64)
    found = json.loads((run / "calibration.json").read_text())
    assert found["good_images"][0]["file"].endswith("odd.png")
    (odd,) = found["odd_images"]
    assert (odd["file"], odd["overlay"]) == (str(folder / "odd.png"), "odd/1_weave_odd.png")
    assert odd["score"] == found["good_images"][0]["score"] > found["good_scores"][-1]  # it sets no threshold
    assert (odd["score"] - odd["median"]) / odd["deviations"] == spread_of(found)
    vitlite("report", run)
    page = (run / "report.html").read_text()
    assert f"{odd['deviations']:.1f} deviations above the median" in page
    assert f'alt="Heat map of {folder / "odd.png"}"' in page
    (run / "odd" / "notes.txt").touch()  # somebody else's file stays
    _, err = vitlite("calibrate", run, "--good", folder, "--without", folder / "odd.png")
    assert "odd good image" not in err
    assert [path.name for path in (run / "odd").iterdir()] == ["notes.txt"]
    vitlite("report", run)
    assert "Odd good images" not in (run / "report.html").read_text()
    (run / "odd" / "notes.txt").unlink()
    vitlite("calibrate", run, "--good", folder, "--without", folder / "odd.png")
    assert not (run / "odd").exists()
    again = json.loads((run / "calibration.json").read_text())
    assert (again["images"], len(again["good_images"])) == (19, 19)
    assert again["good_scores"] == found["good_scores"][:19]
    out, _ = vitlite("calibrate", run, "--good", folder, "--exact")
    assert "by the exact rule" in out
    assert json.loads((run / "calibration.json").read_text())["good_scores"][-1] == odd["score"]


def test_known_defects_change_nothing(run, good):
    vitlite("calibrate", run, "--threshold", "0.5", "--category", "weave")
    before = (run / "calibration.json").read_bytes()
    refused("calibrate", run, "--defects", "typo/")
    out, _ = vitlite("calibrate", run, "--defects", good, "--device", "cpu")
    assert out.startswith("known defects: ")
    assert "written" not in out
    assert (run / "calibration.json").read_bytes() == before
    # A typo does not set a threshold either.
    refused("calibrate", run, "--threshold", "7", "--defects", "typo/")
    assert (run / "calibration.json").read_bytes() == before


def test_an_image_is_good_or_defective(run, good, tmp_path):
    before = (run / "calibration.json").read_bytes()
    one = sorted(good.iterdir())[0]
    copy = shutil.copy(one, tmp_path / "copy.png")
    for defect in (one, copy):
        says = f"{defect}: given as known defects, and also among the good images for the threshold"
        assert says in refused("calibrate", run, "--good", good, "--defects", defect)
    assert (run / "calibration.json").read_bytes() == before
    # The good images are listed once, by the rules of training: what these leave out may be a defect.
    out, _ = vitlite("calibrate", run, "--good", good, "--without", one, "--defects", one, "--device", "cpu")
    assert "from 18 good images" in out
    assert "known defects: " in out
    folder = shutil.copytree(good, tmp_path / "good")
    (folder / "later").mkdir()
    below = shutil.move(folder / one.name, folder / "later")
    out, err = vitlite("calibrate", run, "--good", folder, "--defects", below, "--device", "cpu")
    assert "from 18 good images" in out
    assert "known defects: " in out
    assert "later/" in err


def test_balance(run, good, tiny_data):
    defects = tiny_data / "weave/test/spot"
    out, err = vitlite("calibrate", run, "--good", good, "--defects", defects, "--balance", "--device", "cpu")
    first, written, known, *missed = out.splitlines()
    balance = json.loads((run / "calibration.json").read_text())["balance"]
    assert first.endswith(
        f" from 19 good images, balanced: misses {balance['missed']} of 2 known defects, "
        f"calls {balance['false_alarms']} of 19 good images defective"
    )
    assert written.startswith("written: ")
    assert known == f"known defects: {balance['missed']} of 2 missed at the threshold"
    assert len(missed) == balance["missed"]
    assert "new ones are missed more often" in err
    vitlite("report", run)
    assert "It balances 19 good images kept out of training and 2 known defects: " in (run / "report.html").read_text()


def area_in(run):
    return json.loads((run / "calibration.json").read_text())["min_area"]


def test_a_smallest_area_stays_until_it_is_given_again(run, good):
    before = json.loads((run / "calibration.json").read_text())
    assert before["min_area"] == 0
    out, err = vitlite("calibrate", run, "--min-area", "20")
    assert (out.splitlines()[0], err) == ("regions of fewer than 20 pixels are no defect", "")
    assert json.loads((run / "calibration.json").read_text()) == before | {"min_area": 20}
    out, _ = vitlite("calibrate", run, "--good", good)
    assert "regions of fewer than 20 pixels are no defect" in out
    vitlite("calibrate", run, "--threshold", "1")
    assert area_in(run) == 20
    vitlite("calibrate", run, "--good", good, "--min-area", "30")
    assert area_in(run) == 30
    vitlite("calibrate", run, "--min-area", "0", "--threshold", "1")
    assert area_in(run) == 0
    (run / "calibration.json").write_text("{")
    _, err = vitlite("calibrate", run, "--good", good)
    assert "what it holds of a smallest area of defects and of training's images is not kept" in err
    assert area_in(run) == 0


def test_all_commands_judge_by_the_smallest_area(run, tiny_data, tmp_path):
    """Predict, eval, the report and the known defects that are missed; at the size of the images, not of the maps."""
    data = shutil.copytree(tiny_data, tmp_path / "set")
    for path in (*data.glob("weave/test/*/*.png"), *data.glob("weave/ground_truth/*/*.png")):
        Image.open(path).resize((150, 100), Image.Resampling.NEAREST).save(path)
    plain = "--device", "cpu", "--quiet"
    vitlite("calibrate", run, "--threshold", "0")
    vitlite("predict", run, data / "weave/test", "--out", tmp_path / "all", *plain, "--no-overlays")
    areas = []
    for image in Detector(run, "cpu").predict(sorted(data.glob("weave/test/*/*.png"))):
        labels, _ = ndimage.label(image.mask, np.ones((3, 3)))
        areas.append(np.bincount(labels[labels > 0]).max())
    least = int(sorted(areas)[5])
    vitlite("calibrate", run, "--min-area", least)
    vitlite("predict", run, data / "weave/test", "--out", tmp_path / "some", *plain, "--no-overlays")
    vitlite("eval", run, "--data", data, *plain)
    vitlite("report", run, "--data", data, *plain)
    expected = ["defect" if area >= least else "good" for area in areas]
    assert 0 < expected.count("good") < 10
    assert {row["verdict"] for row in rows_of(tmp_path / "all/predictions.csv")} == {"defect"}
    assert [row["verdict"] for row in rows_of(tmp_path / "some/predictions.csv")] == expected
    rows = rows_of(run / "scores.csv")
    verdicts = {row["file"]: row["verdict"] for row in rows}
    assert [verdicts[file] for file in sorted(verdicts)] == expected
    own = json.loads((run / "results.json").read_text())["categories"]["weave"]
    assert own["tp"] + own["fp"] == expected.count("defect")
    page = (run / "report.html").read_text()
    numbers = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    assert [score is not None for score in numbers["scores"]] == [row["verdict"] == "defect" for row in rows]
    assert f"{own['fn']} of 6 defective test images are missed and {own['fp']} of" in " ".join(page.split())
    assert page.count(", small regions alone</span>") == expected.count("good")
    assert f"Regions of fewer than {least} pixels are no defect" in page
    spots = data / "weave/test/spot"
    out, _ = vitlite("calibrate", run, "--defects", spots, "--device", "cpu")
    assert f"known defects: {own['defects']['spot']['fn']} of 2 missed" in out


def test_the_only_category_of_a_run_is_the_run(run):
    out, _ = vitlite("calibrate", run, "--threshold", "0.125", "--category", "weave")
    assert "threshold of weave 0.125 (pixels " in out
    found = json.loads((run / "calibration.json").read_text())
    assert found["image_threshold"] == found["categories"]["weave"]["image_threshold"] == 0.125


def test_an_image_to_leave_out_may_be_named_by_its_end(run, good):
    for name in ("003.png", "good/003.png", good / "003.png"):
        vitlite("calibrate", run, "--good", good, "--without", name)
        assert json.loads((run / "calibration.json").read_text())["images"] == 18
    assert "not one of the 19 good images for the threshold (" in refused(
        "calibrate", run, "--good", good, "--without", "3.png"
    )


def test_a_sensitivity_that_few_images_cannot_give_is_said(run, good, tmp_path):
    options = ("--out", tmp_path / "p", "--no-overlays", "--device", "cpu", "--sensitivity", "low")
    _, err = vitlite("predict", run, good, *options)
    assert "sensitivity low takes 99 good images; with 1, the threshold is their highest score" in err


def test_the_rate_of_training_stays(good, tmp_path):
    options = ("--method", "sivt", "--data", good, "--out", tmp_path / "run", *TINY_OPTIONS, "--device", "cpu")
    line = refused("train", *options, "--target-fpr", "2")
    assert "--target-fpr 2" in line
    assert "must be above 0 and below 1" in line
    vitlite("train", *options, "--target-fpr", "0.4")
    assert "target_fpr = 0.4\n" in (tmp_path / "run/config.toml").read_text()
    before = json.loads((tmp_path / "run/calibration.json").read_text())
    assert before["target_fpr"] == 0.4
    vitlite("calibrate", tmp_path / "run", "--device", "cpu")
    assert json.loads((tmp_path / "run/calibration.json").read_text()) == before


def test_held_out_by_default_and_quiet(run):
    out, _ = vitlite("calibrate", run, "--device", "cpu")
    assert "too few for 5 %: with 1 the lowest rate that can be promised is 1/2; it takes 19 good images" in out
    assert vitlite("calibrate", run, "--quiet") == ("", "")


def test_mistakes_are_one_line(run, tiny_data, tmp_path):
    before = (run / "calibration.json").read_bytes()
    assert f"--good {tiny_data}: is a data set" in refused("calibrate", run, "--good", tiny_data)
    assert "--exact: not together with" in refused("calibrate", run, "--exact", "--threshold", 1)
    (run / "good_scores.json").unlink()
    text = (run / "config.toml").read_text().replace(str(tiny_data), "/gone")
    (run / "config.toml").write_text(text)
    line = refused("calibrate", run)
    assert "/gone" in line
    assert "give --good images that it has not seen" in line
    assert (run / "calibration.json").read_bytes() == before


def test_predict_writes_maps_at_the_original_size(run, tmp_path):
    images, out = tmp_path / "in", tmp_path / "out"
    images.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 90), np.uint8)).save(images / "a.b.png")
    Image.fromarray(rng.integers(0, 255, (70, 50, 3), np.uint8)).save(images / "ü.jpg")
    (images / "broken.png").write_bytes(b"")
    options = ("--maps", "--no-overlays", "--category", "weave", "--threshold", "0")  # every image is defective
    vitlite("predict", run, images, "--out", out, *options, code=3)
    rows = {row["file"].rsplit("/", 1)[1]: row for row in rows_of(out / "predictions.csv")}
    assert rows["broken.png"]["map"] == ""
    assert rows["a.b.png"]["overlay"] == ""
    pixel = json.loads((run / "calibration.json").read_text())["categories"]["weave"]["pixel_threshold"]
    for name, shape in (("a.b.png", (40, 90)), ("ü.jpg", (70, 50))):
        with Image.open(out / rows[name]["map"]) as image:
            assert (image.mode, image.format) == ("F", "TIFF")
        values = read_map(out / rows[name]["map"])
        assert values.shape == shape
        assert int((values > pixel).sum()) == int(rows[name]["defect_pixels"])
    assert sorted(p.name for p in (out / "maps").iterdir()) == ["a.b.tiff", "ü.tiff"]


def test_predict_without_maps_makes_no_folder(run, good, tmp_path):
    vitlite("predict", run, good / "000.png", "--out", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000.png", "predictions.csv", "predictions.json"]
    assert rows_of(tmp_path / "out/predictions.csv")[0]["map"] == ""


def test_categories_of_one_model(tmp_path):
    """Their images are told apart by folder; predict takes a category's limits, or those of all."""
    data = synthesize(tmp_path / "data", seed=1, size=64, categories="weave,wood", train=6, good=1, defects=1)
    more = synthesize(tmp_path / "more", seed=2, size=64, categories="weave,wood", train=9, good=1, defects=1)
    run = tmp_path / "run"
    vitlite("train", "--method", "sivt", "--data", data, "--category", "all", "--out", run, *TINY_OPTIONS)
    good = [part for name in ("weave", "wood") for part in ("--good", more / name / "train/good")]
    out, _ = vitlite("calibrate", run, "--target-fpr", "0.1", *good)
    lines = out.splitlines()
    assert "from 18 good images" in lines[0]
    assert lines[1].startswith("  weave: threshold ")
    assert "from 9: expect 10 % false alarms" in lines[2]
    calibration = json.loads((run / "calibration.json").read_text())
    for name in ("weave", "wood"):
        own = calibration["categories"][name]
        assert own["good_scores"][-1] * (1 + 1e-5) < own["image_threshold"] < own["good_scores"][-1] * (1 + 3e-5)
        images = more / name / "train/good"
        vitlite("predict", run, images, "--out", tmp_path / name, "--category", name, "--no-overlays")
        rows = rows_of(tmp_path / name / "predictions.csv")
        assert {row["verdict"] for row in rows} == {"good"}
        scores = [float(row["score"]) for row in rows]
        assert max(scores) == pytest.approx(own["image_threshold"], rel=1e-4)
        # Other batches may move a score by its last bit, and so one image past itself.
        ranks = sorted(float(row["percentile"]) * 9 / 100 for row in rows)
        assert ranks == pytest.approx(list(range(9)), abs=1.02)
    out, _ = vitlite("calibrate", run, "--good", more / "wood/train/good")
    assert out.count("too few") == 1
    assert "no threshold of its own: weave; give good images of every category" in out
    assert "calibrated for wood" in refused("predict", run, data / "weave/test", "--out", run, "--category", "weave")
