"""Ablation tables: every row can be built, results lie beside the paper's figures, and finished rows stay."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from archive_files import write_mnist
from tiny_settings import TINY

from vitlite.data import synthesize
from vitlite.engine import ablate as engine
from vitlite.engine.ablate import Plan, ablate, row_config, select_rows, slug, slugs
from vitlite.engine.settings import RunSettings, build_method, preset_config
from vitlite.errors import UserError
from vitlite.methods import REGISTRY, method_class
from vitlite.methods.ablations import Row, Table, tables
from vitlite.report.ablation import table_text
from vitlite.results import KEYS

OVERRIDES = tuple(f"{key}={value}" for key, value in TINY.items())
TABLE = Table(
    "induction",
    "Fig. 0",
    "made up",
    ("image_auroc", "aupro_30"),
    (
        Row("plain", ("induction=false",), {"image_auroc": 50.0}),
        Row("N = 2", ("subsets=2",)),
        Row("N = 3", ("subsets=3",)),
    ),
)
KNOWN = [(method, name) for method in REGISTRY for name in method_class(method).ablations]


def plan_for(data, **changes):
    return replace(Plan("sivt", str(data), overrides=OVERRIDES, device="cpu"), **changes)


def rows_of(out):
    with open(out / "ablation.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_data):
    """A table of which the first two rows are done, and their outcomes."""
    out = tmp_path_factory.mktemp("ablation") / "out"
    outcomes = ablate(plan_for(tiny_data), TABLE, out, name="made", rows=["1", "N = 2"])
    return out, outcomes


@pytest.mark.parametrize(("method", "name"), KNOWN)
def test_every_row_names_settings_that_exist(method, name):
    """In both presets: keys and values are valid, no two rows are alike, and figures are percent of known metrics."""
    table = tables(method)[name]
    for preset in method_class(method).presets:
        assert len({row_config(Plan(method, preset=preset), row) for row in table.rows}) == len(table.rows)
    for row in table.rows:
        assert set(row.paper) <= set(KEYS)
        assert all(1 < figure <= 100 for figure in row.paper.values())
    assert set(table.columns) <= set(KEYS)
    assert len({slug(row.label) for row in table.rows}) == len(table.rows)


@pytest.mark.parametrize("name", tables("vtadl"))
def test_rows_of_vtadl_can_be_built(name):
    for row in tables("vtadl")[name].rows:
        build_method(RunSettings("vtadl", "", "", "quick", 0, row_config(Plan("vtadl"), row)))


def test_rows_are_measured(finished):
    out, outcomes = finished
    assert [o.row.label for o in outcomes] == ["plain", "N = 2"]
    rows = rows_of(out)
    assert [r["row"] for r in rows] == ["plain", "N = 2"]
    assert rows[0]["paper_image_auroc"] == "50.0"
    assert rows[1]["paper_image_auroc"] == ""
    for row, outcome in zip(rows, outcomes):
        results = json.loads((out / "made" / slug(row["row"]) / "results.json").read_text())
        assert float(row["image_auroc"]) == pytest.approx(results["mean"]["image_auroc"], abs=1e-6)
        assert outcome.mean["aupro_30"] == results["mean"]["aupro_30"]
        assert float(row["training_seconds"]) > 0
    assert rows[0]["settings"].endswith("induction=false")


def test_table_stands_beside_the_papers(finished, tiny_data):
    text = table_text(TABLE, finished[1], plan_for(tiny_data)).splitlines()
    assert text[0].split() == ["induction", "image", "AUROC", "paper", "AUPRO@0.3"]
    assert text[1].split()[-2] == "50.0"
    assert text[1].split()[-3] == f"{100 * finished[1][0].mean['image_auroc']:.1f}"
    assert text[2].split()[-2] == "-"
    assert "Fig. 0" in text[-1]
    plan = replace(plan_for(tiny_data), overrides=("steps=7", "lr=0.5"))
    assert ", preset quick with steps=7 lr=0.5, seed" in table_text(TABLE, finished[1], plan)


def test_finished_rows_are_not_trained_again(finished, tiny_data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    trained = []
    train = engine.train
    monkeypatch.setattr(
        engine, "train", lambda settings, run, **o: trained.append(run.name) or train(settings, run, **o)
    )
    before = (out / "made/plain/checkpoint.pt").stat().st_mtime_ns
    outcomes = ablate(plan_for(tiny_data), TABLE, out, name="made")
    assert trained == ["n-3"]
    assert (out / "made/plain/checkpoint.pt").stat().st_mtime_ns == before
    assert [o.mean for o in outcomes[:2]] == [o.mean for o in finished[1]]
    assert [r["row"] for r in rows_of(out)] == ["plain", "N = 2", "N = 3"]


def test_a_row_cut_short_goes_on(finished, tiny_data, tmp_path, monkeypatch):
    """Trained but not yet evaluated: the weights stay."""
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    (out / "made/n-2/results.json").unlink()
    before = (out / "made/n-2/checkpoint.pt").read_bytes()
    outcomes = ablate(plan_for(tiny_data), TABLE, out, name="made", rows=["2"])
    assert (out / "made/n-2/checkpoint.pt").read_bytes() == before
    assert outcomes[0].mean == finished[1][1].mean
    assert outcomes[0].seconds is None


def test_other_settings_in_the_same_folder_are_refused(finished, tiny_data):
    changed = plan_for(tiny_data, overrides=(*OVERRIDES, "lr=0.5"))
    with pytest.raises(UserError, match="another lr"):
        ablate(changed, TABLE, finished[0], name="made", rows=["1"])
    with pytest.raises(UserError, match="another seed"):
        ablate(plan_for(tiny_data, seed=3), TABLE, finished[0], name="made", rows=["1"])


def test_a_row_that_failed_is_trained_again(finished, tiny_data, tmp_path):
    """Also with other settings, which may be why."""
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    (out / "made/plain/results.json").unlink()
    (out / "made/plain/failed.txt").write_text("the loss became nan\n")
    changed = plan_for(tiny_data, overrides=(*OVERRIDES, "lr=0.0005"))
    ablate(changed, TABLE, out, name="made", rows=["1"])
    assert "lr = 0.0005" in (out / "made/plain/config.toml").read_text()
    assert (out / "made/plain/results.json").exists()


def test_a_wrong_setting_is_found_before_anything_is_trained(tiny_data, tmp_path):
    table = replace(TABLE, rows=(TABLE.rows[0], Row("wrong", ("subset=2",))))
    with pytest.raises(UserError, match="subset"):
        ablate(plan_for(tiny_data), table, tmp_path / "out", name="made")
    assert not (tmp_path / "out/made").exists()


def test_one_model_for_each_category(tmp_path):
    from vitlite.data import synthesize

    root = synthesize(tmp_path / "two", seed=2, size=64, categories=("weave", "wood"), train=6, good=3, defects=1)
    plan = plan_for(root, separate=True)
    (outcome,) = ablate(plan, TABLE, tmp_path / "out", name="made", rows=["1"])
    found = [json.loads((tmp_path / f"out/made/plain/{c}/results.json").read_text()) for c in ("weave", "wood")]
    assert [list(r["categories"]) for r in found] == [["weave"], ["wood"]]
    values = [r["mean"]["image_auroc"] for r in found]
    assert outcome.mean["image_auroc"] == pytest.approx(sum(values) / 2)
    assert rows_of(tmp_path / "out")[0]["models"] == "one for each category"


def test_folders_are_called_after_labels():
    plain = {"bottle": "bottle", "magnetic_tile": "magnetic-tile", "N = 2": "n-2", "VT-ADL, K=150": "vt-adl-k-150"}
    assert slugs(plain) == plain
    assert slugs(["瓶", "管", "Größe 2"]) == {"瓶": "瓶", "管": "管", "Größe 2": "größe-2"}
    assert slugs(["e\u0301"]) == {"e\u0301": "é"}


@pytest.mark.parametrize("labels", [["A b", "a-b", "a_b"], ["!", "?", "row"], ["\udcff", "\udcfe"], ["c", "C", "c++"]])
def test_no_two_labels_share_a_folder(labels):
    found = slugs(labels)
    assert list(found) == labels
    assert len(set(found.values())) == len(labels)
    assert all(found[label] == label for label in labels if label == slug(label))
    assert found == slugs(reversed(labels))


def test_selecting_rows():
    assert [r.label for r in select_rows(TABLE, ["3", "plain", "1"])] == ["N = 3", "plain"]
    assert len(select_rows(TABLE, None)) == 3
    with pytest.raises(UserError, match="1 \\(plain\\)"):
        select_rows(TABLE, ["4"])


def test_a_method_without_a_table(monkeypatch):
    monkeypatch.setitem(REGISTRY, "bare", ("vitlite.methods.base", "Method"))
    with pytest.raises(UserError, match="bare"):
        tables("bare")


def test_each_model_has_its_own_region_and_the_same_limit(tmp_path, monkeypatch, put):
    """With a folder of regions the file of the category alone; images above the limit are left out."""
    data = synthesize(tmp_path / "data", size=64, categories=("weave", "gear"), train=2, good=1, defects=1)
    for name in ("weave", "all"):
        put(tmp_path / "roi" / f"{name}.png", np.pad(np.full((20, 20), 255, np.uint8), 22))
    asked = []

    def run_part(settings, folder, device, max_megapixels):
        asked.append((settings.category, Path(settings.roi).name, settings.ignore, folder.name, max_megapixels))
        return {"categories": {settings.category: {}}}

    monkeypatch.setattr(engine, "run_part", run_part)
    settings = RunSettings(
        "sivt", str(data), "all", "quick", 0, preset_config("sivt", "quick"), roi=str(tmp_path / "roi")
    )
    engine.train_separate(settings, tmp_path / "out", "cpu", max_megapixels=0.5)
    assert asked == [("gear", "all.png", "", "gear", 0.5), ("weave", "weave.png", "", "weave", 0.5)]
    (tmp_path / "roi/all.png").unlink()
    with pytest.raises(UserError, match="has no file for gear"):  # before any is trained
        engine.train_separate(settings, tmp_path / "out", "cpu")
    assert len(asked) == 2


def test_a_table_of_classes_trains_each_class_with_the_method_of_each_row(tmp_path, monkeypatch):
    write_mnist(tmp_path / "digits", [3, 1, 1, 0, 3], [1, 3, 0, 0])
    asked = []

    def run_part(settings, folder, device):
        asked.append((settings.method, settings.category, folder.relative_to(tmp_path).as_posix()))
        return {"categories": {settings.category: dict.fromkeys(KEYS)}, "training_seconds": 1.0}

    monkeypatch.setattr(engine, "run_part", run_part)
    rows = (Row("first", method="l2cae"), Row("second"))
    table = Table("class", "Table 0", "digits", ("image_auroc",), rows, by_class=True, baseline="first")
    plan = Plan("anovit", str(tmp_path / "digits"), "3,1", preset="small")
    outcomes = ablate(plan, table, tmp_path / "out", name="one")
    assert asked == [
        *(("l2cae", digit, f"out/one/first/{digit}") for digit in "13"),
        *(("anovit", digit, f"out/one/second/{digit}") for digit in "13"),
    ]
    assert [list(outcome.categories) for outcome in outcomes] == [["1", "3"]] * 2
    assert [row["method"] for row in rows_of(tmp_path / "out")] == ["l2cae", "anovit"]
