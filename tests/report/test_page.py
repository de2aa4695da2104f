"""The report page: what it says, that nothing from outside can act in it, and data sets of every shape."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from commands import vitlite
from page_tree import read_page
from PIL import Image

from vitlite.data import synthesize
from vitlite.engine.detector import Detector
from vitlite.engine.evaluate import evaluate
from vitlite.errors import UserError
from vitlite.report import gallery
from vitlite.report.build import build_report, calibration_sentence, count
from vitlite.report.page import VERDICTS, asset, quoted, render

EVIL = "<img src=x onerror=alert(1)>.png"
ENDING = "</script><script>alert(2)</script>"


@pytest.fixture(scope="module")
def detector(tiny_run):
    return Detector(tiny_run, "cpu")


@pytest.fixture(scope="module")
def report(detector, tiny_data):
    return build_report(detector, data=tiny_data)


@pytest.fixture(scope="module")
def page(report):
    return read_page(render(report))


@pytest.fixture(scope="module")
def two(detector, tmp_path_factory):
    """A report on two categories."""
    root = tmp_path_factory.mktemp("two") / "set"
    synthesize(root, seed=2, size=64, categories="weave,wood", train=1, good=2, defects=1)
    return build_report(detector, data=root, category="all")


@pytest.fixture
def data(tiny_data, tmp_path):
    return shutil.copytree(tiny_data, tmp_path / "set")


def data_of(page):
    return json.loads(page.one("script", id="data").text)


def test_metrics_are_those_of_eval(detector, tiny_data, page):
    own = evaluate(detector, data=tiny_data)["categories"]["weave"]
    rows = [[cell.words() for cell in row.children] for row in next(page.all("table")).all("tr")]
    assert [row[0] for row in rows[1:]] == ["weave", "missing", "scratch", "spot"]
    assert rows[1][1:4] == ["10", f"{own['image_auroc']:.4f}", f"{own['image_ap']:.4f}"]
    assert rows[2][9] == f"{own['defects']['missing']['aupro_05']:.4f}"


def test_the_numbers_for_the_script(report, page):
    found = data_of(page)
    assert found["threshold"] == report.threshold
    assert sum(found["defective"]) == 6
    assert len(found["scores"]) == len(found["group"]) == len(found["category"]) == 10
    assert found["axis"]["low"] < min(found["scores"]) < max(found["scores"]) < found["axis"]["high"]


def test_sections_links_and_labels(page):
    ids = [e.attributes["id"] for e in page.all() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link.attributes["href"][1:] in ids
    labels = {label.attributes["for"] for label in page.all("label")}
    assert labels == {e.attributes["id"] for e in page.all() if e.name in ("input", "select")}
    assert all(image.attributes["alt"] for image in page.all("img"))
    assert all(svg.attributes["aria-label"] for svg in page.all("svg"))
    assert page.one("html").attributes["lang"] == "en"


def test_nothing_is_fetched_and_nothing_foreign_runs(page, report):
    text = render(report)
    assert not re.search(r"(?i)\b(?:https?|ftp|file|ws):|@import|url\(|//[a-z]", re.sub(r"data:image[^\"]*", "", text))
    assert all(image.attributes["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert not list(page.all("link"))
    policy = page.one("meta", http_equiv="Content-Security-Policy").attributes["content"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    for element in page.all():
        assert not [name for name in element.attributes if name.startswith("on") or name == "style"]


def test_charts_are_well_formed_and_inside_their_box(page, report):
    drawings = re.findall(r"<svg .*?</svg>", render(report))
    assert len(drawings) == 4  # a histogram; ROC, PR and PRO
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    for path in page.all("path"):
        points = np.array([p.split() for p in path.attributes["d"][1:].split("L")], float)
        assert 2 <= len(points) < 1000
        assert points.min(axis=0)[0] >= 44
        assert points.max(axis=0)[0] <= 308.1
        assert points.min() >= 9.9
    kinds = [p.attributes["class"] for p in page.all("path")]
    assert kinds == ["curve image", "curve pixel", "curve image", "curve pixel", "curve pro"]


def test_the_gallery_begins_with_the_worst(report, page):
    numbers = data_of(page)
    errors = []
    for card in page.all("li", class_="card"):
        index = int(card.attributes["data-index"])
        score, label = numbers["scores"][index], numbers["defective"][index]
        errors.append(report.threshold - score if label else score - report.threshold)
        assert card.one(class_="badge").text == VERDICTS[label][score > report.threshold]
        assert ("wrong" in card.attributes["class"].split()) == ((score > report.threshold) != bool(label))
    assert len(errors) == 10
    assert errors == sorted(errors, reverse=True)


def test_header_and_breakdown_count_mistakes(report, page):
    alarms, good, hits, defective = count(report.images, report.threshold)
    missed = defective - hits
    assert (good, defective) == (4, 6)
    said = " ".join(page.one("header").words().split())
    assert f"{missed} of 6 defective test images are missed and {alarms} of 4 good ones are false alarms" in said
    rows = [[cell.words() for cell in row.children] for row in page.all("tr") if "data-group" in row.attributes]
    assert [row[0] for row in rows] == ["good", "missing", "scratch", "spot"]
    assert rows[0][1].split()[0] == str(alarms)
    assert sum(int(row[1].split()[0]) for row in rows[1:]) == missed


def test_names_cannot_act(detector, data):
    folder = data / "weave/test"
    next((folder / "good").glob("*.png")).rename(folder / "good" / EVIL)
    (folder / "spot").rename(folder / "<b onclick=x>&amp;")
    (folder / "scratch").rename(folder / "< !--<script>")
    odd = folder / "missing" / 'quote" onload="x\udcff\u202e.png'
    next((folder / "missing").glob("*.png")).rename(odd)
    report = build_report(detector, data=data)
    report.name = report.data = ENDING
    report.parts[0] = replace(report.parts[0], name=ENDING)
    page = read_page(render(report).encode().decode())
    assert page.one("h1").text == ENDING
    assert any(EVIL in e.text for e in page.all("bdi"))
    assert any(EVIL in i.attributes["alt"] for i in page.all("img"))
    assert any('quote" onload="x\ufffd' in e.text for e in page.all("bdi"))
    rows = [row.children[0].text for row in page.all("tr") if "data-group" in row.attributes]
    assert {"<b onclick=x>&amp;", "< !--<script>"} < set(rows)
    assert len(list(page.all("script"))) == 2
    assert not list(page.all("b"))
    for element in page.all():
        assert not [name for name in element.attributes if name.startswith("on")]


def test_several_categories(two):
    page = read_page(render(two))
    assert [o.text for o in page.one("select", id="category").children] == ["all, one threshold", "weave", "wood"]
    histograms = list(page.all("svg", class_="hist"))
    assert [h.attributes["data-category"] for h in histograms] == ["-1", "0", "1"]
    assert ["hidden" in h.attributes for h in histograms] == [False, True, True]
    assert [s.one("h3").text for s in page.all("section")] == ["weave", "wood"]
    found = data_of(page)
    assert found["category"] == [0] * 5 + [1] * 5
    assert sorted(set(found["group"])) == list(range(8))
    rows = [row.children[0].words() for row in next(page.all("table")).all("tr")]
    assert rows[-1] == "mean of categories"
    files = [e.text for e in page.all("bdi")]
    assert sum(f.startswith("wood/test/") for f in files) == 5


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
@pytest.mark.parametrize("name", ["a run", "it's", "$x `y` \\", "bytes\udcff'\\ é", "line\nend\t", "é"])
def test_a_shell_reads_names_as_they_are(name):
    done = subprocess.run(["bash", "-c", f"printf %s {quoted(name)}"], capture_output=True, check=True)
    assert os.fsdecode(done.stdout) == name


def test_a_report_on_one_of_several_categories(detector, data, monkeypatch):
    """Has the category's own threshold, and the command sets that one alone."""
    own = detector.calibration["categories"]["weave"] | {"image_threshold": 123.0}
    monkeypatch.setitem(detector.calibration, "categories", {"weave": own, "wood": own})
    report = build_report(detector, data=data)
    assert report.threshold == 123
    (option,) = (span for span in read_page(render(report)).one("code").all("span") if "data-own" in span.attributes)
    assert (option.text, option.attributes["data-own"]) == (" --category weave", "-1")


def test_without_masks(detector, data):
    shutil.rmtree(data / "weave/ground_truth")
    page = read_page(render(build_report(detector, data=data)))
    assert len(list(page.all("svg"))) == 3
    assert not list(page.all("path", class_="pixel"))
    assert any("6 defective images have no mask" in note.text for note in page.all("p", class_="note"))
    row = next(r for r in next(page.all("table")).all("tr") if r.children[0].words() == "weave")
    assert row.children[-1].text == "–"


def test_files_that_cannot_be_read_are_named(detector, data):
    next((data / "weave/test/good").glob("*.png")).write_bytes(b"x")
    next((data / "weave/test/spot").glob("*.png")).write_bytes(b"")
    page = read_page(render(build_report(detector, data=data)))
    (note,) = (note for note in page.all("p", class_="note") if note.text.startswith("Not read: "))
    assert "weave/test/good/" in note.text
    assert len(data_of(page)["scores"]) == 8


def test_a_threshold_from_training_images_is_said_to_be_too_low(detector, data, monkeypatch):
    for held_out in (True, False):
        monkeypatch.setitem(detector.calibration, "held_out", held_out)
        page = read_page(render(build_report(detector, data=data)))
        assert any("too low" in note.text for note in page.all("p", class_="note")) is not held_out
        assert ("kept out of training" in page.one("header").words()) is held_out


@pytest.mark.parametrize(("images", "said"), [(3, "no better than 25 %"), (98, "no better than 1.01 %"), (99, None)])
def test_few_images_promise_little(images, said):
    calibration = {"good_scores": [0.0] * images, "images": images, "target_fpr": 0.01, "held_out": True}
    sentence = calibration_sentence(calibration)
    assert f"{images} good images kept out of training" in sentence
    assert ("no better than" in sentence) is (said is not None)
    assert (said or "") in sentence


def test_a_threshold_by_hand_promises_nothing():
    calibration = {"good_scores": [0.0], "target_fpr": 0.01, "held_out": True, "expected_fpr": None}
    assert calibration_sentence(calibration).startswith("It was set by hand.")


def test_a_balanced_threshold_is_said_to_be_one():
    balance = {"defects": 6, "missed": 1, "false_alarms": 2}
    calibration = {"images": 24, "held_out": True, "expected_fpr": None, "balance": balance}
    sentence = calibration_sentence(calibration)
    assert sentence.startswith("It balances 24 good images kept out of training and 6 known defects: it calls 2 of ")
    assert "misses 1 of these defects" in sentence
    assert "No test image" not in sentence


def test_scores_that_are_no_numbers(detector, data, monkeypatch):
    whole = detector.score_files
    broken = lambda *a, **k: ((one, pixels, float("inf")) for one, pixels, _ in whole(*a, **k))  # noqa: E731
    monkeypatch.setattr(detector, "score_files", broken)
    with pytest.raises(UserError, match="not finite"):
        build_report(detector, data=data)


def test_the_limit_of_the_gallery_is_said(detector, tiny_data, monkeypatch):
    monkeypatch.setattr(gallery, "LIMIT", 6)
    report = build_report(detector, data=tiny_data)
    assert len(report.parts[0].cards) == 6
    page = read_page(render(report))
    assert "Only 6 of 10 test images are in this file" in page.words()


def test_chosen_images_hold_the_worst_at_every_threshold():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 200), rng.normal(size=200)
    chosen = gallery.choose(labels, scores, 40)
    assert len(chosen) == len(set(chosen)) == 40
    for threshold in scores:
        errors = np.where(labels == 1, threshold - scores, scores - threshold)
        for label in (0, 1):
            own = np.flatnonzero(labels == label)
            assert set(own[np.argsort(-errors[own])][:20]) <= set(chosen)
    assert len(gallery.choose([1] * 50 + [0] * 3, range(53), 20)) == 20
    assert gallery.choose([0, 1], [0.5, 0.5], 20) == [0, 1]


def test_thin_defects_stay_in_small_masks():
    mask = np.zeros((1260, 500), np.uint8)
    mask[:, 250] = 1
    height, width = gallery.thumbnail_size(*mask.shape)
    assert abs(height / width - 2.52) < 0.02
    small = gallery.shrink(mask, (height, width))
    assert small.any(axis=1).all()
    assert 1 <= small.sum(axis=1).max() <= 2
    image = np.full((height, width, 3), 90, np.uint8)
    marked = gallery.mark(image, small)
    assert (marked[small] == 90).all()
    assert (marked == gallery.MARK).all(axis=2).any()


def test_images_decode_at_the_size_they_are_given(page):
    for image in page.all("img"):
        raw = base64.b64decode(image.attributes["src"].partition(",")[2])
        found = Image.open(io.BytesIO(raw))
        assert (str(found.width), str(found.height)) == (image.attributes["width"], image.attributes["height"])


def test_parts_of_maps_stand_below_each_pair(report, page, detector, data, monkeypatch):
    cards = {int(card.attributes["data-index"]): card for card in page.all("li", class_="card")}
    assert len(cards) == 10
    said = [[figure.words() for figure in card.one(class_="parts").all("figcaption")] for card in cards.values()]
    assert all(words == said[0] for words in said)  # one range for all
    names = ("squared distance", "cosine distance", "distance from good features")
    for name, words in zip(names, said[0], strict=True):
        assert re.fullmatch(rf"{name}, \S+ to \S+", words)
    monkeypatch.setattr(detector, "without_parts", "none here")
    plain = render(build_report(detector, data=data))
    assert 'class="parts"' not in plain
    assert "made of" not in plain


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1])
def test_contrast(theme):
    """WCAG 2.2 AA: 4.5 for text, 3 for lines and bars; in light and dark."""
    light, dark = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", part)) for part in asset("css").split("@media")[:2])
    colours = {**light, **dark} if theme else light
    assert len(dark) >= 13
    text = [(f, b) for f in ("text", "soft", "good") for b in ("bg", "panel")] + [("bad", "bad-bg"), ("ok", "ok-bg")]
    lines = [(f, "bg") for f in ("good", "defect", "third", "line", "focus")]
    for pairs, least in ((text, 4.5), (lines, 3.0)):
        for front, back in pairs:
            one, two = sorted((luminance(colours[front]), luminance(colours[back])))
            assert (two + 0.05) / (one + 0.05) >= least, (front, back)


def test_command(tiny_run, tiny_data, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    assert vitlite("report", run, "--quiet")[0] == ""
    assert read_page((run / "report.html").read_text(encoding="utf-8")).one("h1").text == "run"
    out, _ = vitlite("report", run, "--data", tiny_data / "weave", "--out", tmp_path / "elsewhere.html")
    assert "elsewhere.html" in out
    assert not list(tmp_path.glob(".*"))
