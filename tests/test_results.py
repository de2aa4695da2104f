"""results.json, results.csv, scores.csv: one form whoever made the maps, and the fields that the docs list."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitlite.data.map_files import MAPS_FOLDER
from vitlite.engine.calibrate import recalibrate
from vitlite.engine.detector import Detector
from vitlite.engine.evaluate import evaluate, evaluate_folder
from vitlite.engine.predict import predict
from vitlite.errors import UserError
from vitlite.files import write_csv
from vitlite.results import KEYS, PEAK, SCHEMA, peak_on_mask, read, table, write

PAGE = Path(__file__).parents[1] / "docs/result-files.md"


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_run, tiny_data):
    """A folder with the results of a detector, those of its maps in ``of_maps``, and predictions."""
    out = tmp_path_factory.mktemp("results")
    detector = Detector(tiny_run, "cpu")
    (own,) = evaluate(detector, data=tiny_data)["categories"].values()
    # One defective image is missed.
    limit = 1.0001 * min(image["score"] for image in own["images"] if image["label"])
    for entry in (detector.calibration, *detector.calibration["categories"].values()):
        entry["image_threshold"] = limit
    write(out, evaluate(detector, data=tiny_data, maps=out / MAPS_FOLDER, scores=True))
    write(out / "of_maps", evaluate_folder(out / MAPS_FOLDER, tiny_data))
    predict(detector, tiny_data / "weave/test", out, overlays=False, group_by=r"\d+")
    balanced = shutil.copytree(tiny_run, out / "balanced")
    recalibrate(Detector(balanced, "cpu"), balance=[tiny_data / "weave/test/spot"])
    apart, larger = shutil.copytree(tiny_run, out / "apart"), tmp_path_factory.mktemp("larger")
    for path in (tiny_data / "weave/test/good").iterdir():
        with Image.open(path) as image:
            image.resize((128, 128)).save(larger / path.name)
    recalibrate(Detector(apart, "cpu"), good=[larger])
    (out / "calibration.json").write_text(json.dumps(detector.calibration))
    return out


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def listed(name):
    """The fields or columns that the page lists for a file."""
    section = re.search(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.M | re.S)[1]
    cells = re.findall(r"^\| (`.*?`) \|", section, re.M)
    return [name for cell in cells for name in re.findall(r"`(.+?)`", cell)]


def fields(value, path=""):
    """Names of all fields below a value of a JSON file, as the page writes them."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {name for one in value for name in fields(one, path)}
    if not isinstance(value, dict):
        return {path}
    general = {"categories": "NAME", "defects": "KIND"}.get(path.rpartition(".")[2])
    return {name for key, one in value.items() for name in fields(one, f"{path}.{general or key}".lstrip("."))}


@pytest.mark.parametrize(("name", "count"), [("results.json", 2), ("calibration.json", 3)])
def test_the_page_lists_the_fields(made, name, count):
    files = [json.loads(path.read_text()) for path in made.rglob(name)]
    assert len(files) == count
    assert {file["schema"] for file in files} == {2}
    names = listed(name)
    assert len(set(names)) == len(names)
    assert set(names) == set.union(*map(fields, files))


def test_the_page_lists_the_facts_of_predictions(made):
    assert listed("predictions.json") == list(json.loads((made / "predictions.json").read_text()))


@pytest.mark.parametrize("name", ["results.csv", "scores.csv", "predictions.csv", "parts.csv"])
def test_the_page_lists_the_columns(made, name):
    for path in made.rglob(name):
        assert list(rows_of(path)[0]) == listed(name)


def test_results_of_maps_have_the_same_form(made):
    """But for the verdicts, which take a threshold, for other scores, and for what says how they were made."""
    own, of_maps = (read(folder) for folder in (made, made / "of_maps"))
    extra = fields(own) ^ fields(of_maps)
    assert extra
    assert all(name.startswith(("about.", "categories.NAME.scores.")) for name in extra)
    assert table(own).splitlines()[1] == table(of_maps).splitlines()[0]
    for key in KEYS[3:]:
        assert own["mean"][key] == pytest.approx(of_maps["mean"][key], abs=1e-6)


@pytest.mark.parametrize("folder", [".", "of_maps"])
def test_tables_repeat_the_json_file(made, folder):
    results = json.loads((made / folder / "results.json").read_text())
    ((name, own),) = results["categories"].items()
    rows = rows_of(made / folder / "results.csv")
    assert [row["defect"] for row in rows] == ["all", *own["defects"], "all"]
    assert [int(row["images"]) for row in rows] == [10, 2, 2, 2, 10]
    assert [row["category"] for row in rows] == [*[name] * 4, "mean"]
    for row, values in zip(rows, (own, *own["defects"].values(), results["mean"])):
        assert {key: float(row[key]) for key in KEYS} == {key: values[key] for key in KEYS}
    for key in ("threshold", "tp", "fp", "tn", "fn", "pixel_f1_threshold", PEAK):
        assert rows[0][key] == ("" if own[key] is None else str(own[key]))
    for key in ("tp", "fn"):
        kinds = [values[key] for values in own["defects"].values()]
        assert [row[key] for row in rows[1:4]] == ["" if count is None else str(count) for count in kinds]
        assert own[key] == (None if None in kinds else sum(kinds))
    scores = rows_of(made / folder / "scores.csv")
    assert all(row.pop("category") == name for row in scores)
    assert scores == [{key: "" if v is None else str(v) for key, v in image.items()} for image in own["images"]]


def test_the_table(made):
    results = read(made)
    own = results["categories"]["weave"]
    first, head, *lines, masks = table(results).splitlines()
    assert [line.split()[0] for line in lines] == ["weave", "missing", "scratch", "spot"]
    assert len({len(line) for line in (head, *lines)}) == 1
    assert lines[0].split()[1:] == ["10", *(f"{own[key]:.4f}" for key in (*KEYS, PEAK))]
    assert first.startswith(
        f"at the calibrated threshold: {own['fp']} of 4 good images called defective, "
        f"{own['fn']} of 6 defective images missed"
    )
    missed = {image["kind"] for image in own["images"] if (image["label"], image["verdict"]) == (1, "good")}
    assert [kind for kind in ("missing", "scratch", "spot") if f"{kind} 1 of 2" in first] == sorted(missed) != []
    assert masks == "masks: 0/255"
    several = {**results, "categories": {"a": own, "b": own | dict.fromkeys((*KEYS, PEAK))}}
    assert [line.split()[0] for line in table(several).splitlines()[8:13:4]] == ["b", "mean"]
    assert table(several).splitlines()[8].split()[2:] == ["-"] * 9
    several["categories"]["b"] |= {"mask_rule": "classes 1, 2", "without_mask": 2, "empty_masks": 1}
    assert table(several).splitlines()[-3:] == [
        "masks: 0/255 (a); classes 1, 2 (b)",
        "2 of 12 defective images have no mask that can be read; pixel metrics leave them out",
        "1 of 12 defective images have a mask that marks nothing",
    ]


def test_peaks():
    """On the mask, beside it, shared, and with maps that are coarser and finer than it."""
    mask = np.zeros((6, 9), np.uint8)
    mask[4, 7] = 1
    for factor, size in ((1, (6, 9)), (1 / 3, (2, 3)), (2, (12, 18))):
        values = np.zeros(size, np.float32)
        values[int(4 * factor), int(7 * factor)] = 2
        assert peak_on_mask(values, mask) == 1
        values[0, 0] = 2
        assert peak_on_mask(values, mask) == 0.5
        values[0, 0] = 3
        assert peak_on_mask(values, mask) == 0


def test_peaks_are_counted_over_defective_images_with_masks(tiny_run, tiny_data, made):
    """Streaming and by kinds; the mean over the kinds, which have two images each, is that of all."""
    own = read(made)["categories"]["weave"]
    assert own[PEAK] == pytest.approx(np.mean([kind[PEAK] for kind in own["defects"].values()]))
    assert own[PEAK] * own["defective"] == pytest.approx(round(own[PEAK] * own["defective"]))
    streamed = evaluate(Detector(tiny_run, "cpu"), data=tiny_data, streaming=True)
    assert streamed["mean"][PEAK] == streamed["categories"]["weave"][PEAK] == own[PEAK]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "cannot be read"),
        ("[" * 9**5, "cannot be read"),
        (None, "newer"),
    ],
)
def test_results_that_cannot_be_read(tmp_path, text, says):
    text = json.dumps({"schema": SCHEMA + 1, "categories": {}}) if text is None else text
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=rf"results\.json: .*{says}"):
        read(tmp_path)


def test_cells_with_commas_quotes_and_ends_of_lines(tmp_path):
    rows = [["a,b", 'say "x"'], ["one\ntwo", "three\rfour"], ["", 1.5]]
    write_csv(tmp_path / "a.csv", ("first", "second"), rows)
    text = (tmp_path / "a.csv").read_bytes().decode()
    assert text.startswith("first,second\n")
    assert "\r\n" not in text
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["first", "second"], *([str(cell) for cell in row] for row in rows)]
