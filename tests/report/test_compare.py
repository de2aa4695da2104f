"""Several runs side by side: the same images for all, chosen by name, with the figures and verdicts of each run."""

import re
from pathlib import Path

import pytest
from commands import refused, vitlite
from page_tree import read_page

from vitlite.data import open_dataset
from vitlite.engine.detector import Detector
from vitlite.engine.evaluate import evaluate
from vitlite.errors import UserError
from vitlite.report import compare as comparing
from vitlite.report.compare import choose_by_name, compare, render_comparison

OLD = Path(__file__).parents[1] / "old_run"  # trained runs, which need not be made
RUNS = [OLD / "runs/isstad", OLD / "runs/anovit"]


@pytest.fixture(scope="module")
def detectors():
    return [Detector(run, "cpu") for run in RUNS]


def test_each_run_has_its_figures_and_its_answer_on_each_image(detectors):
    found = compare(detectors, data=OLD / "data")
    page = read_page(render_comparison(found))
    metrics, *kinds = page.all("table")
    own = [evaluate(detector, data=OLD / "data")["categories"]["weave"] for detector in detectors]
    rows = [[cell.words() for cell in row.children] for row in metrics.all("tr")][1:]
    assert [row[3] for row in rows] == [f"{result['image_auroc']:.4f}" for result in own]
    assert [row[1:3] for row in rows] == [[str(result["fn"]), str(result["fp"])] for result in own]
    names = [name.words() for table in kinds for name in table.all("bdi")]
    assert len(names) == len(set(names)) == 5  # two good images, and one of each kind of defect
    answers = [cells for table in kinds for row in table.all("tr") if (cells := list(row.all("td")))]
    said = {image["file"]: image for image in own[0]["images"]}
    for name, row in zip(names, answers):
        assert len(row) == 2
        assert f"score {said[name]['score']:.4g}" in row[0].words()
        wrong = (said[name]["verdict"] == "defect") != bool(said[name]["label"])
        assert ("wrong" in row[0].attributes.get("class", "")) == wrong
    assert not re.search(r"<script|https?:", render_comparison(found))


def test_images_are_chosen_by_name_alone(tiny_data):
    dataset = open_dataset(tiny_data, need_train=False, need_test=True)
    chosen = choose_by_name(dataset)
    assert [kind for _, kind in chosen] == ["good", "missing", "scratch", "spot"]
    assert [sample.path.stem for sample in chosen["weave", "good"]] == ["001", "003"]
    assert [len(samples) for samples in chosen.values()] == [2, 2, 2, 2]


def test_runs_of_other_data_are_refused(detectors, tiny_data, tmp_path, monkeypatch):
    roots = iter([OLD / "data", tiny_data])
    with monkeypatch.context() as patch:
        patch.setattr(comparing, "open_test_data", lambda *_: open_dataset(next(roots), need_train=False))
        with pytest.raises(UserError, match=r"anovit: its test images are not those of .*isstad"):
            compare(detectors)
    refused("report", *RUNS, "--data", OLD / "data", says="--out: missing; name the page that compares these runs")
    vitlite("report", *RUNS, "--data", OLD / "data", "--out", tmp_path / "both.html", "--device", "cpu")
    assert "2 runs compared" in (tmp_path / "both.html").read_text()
