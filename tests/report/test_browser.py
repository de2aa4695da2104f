"""The report in a headless Chromium: nothing fails, and the slider does what it says."""

import json
import shutil
import subprocess

import pytest
from chromium_pipe import FLAGS, Page, find_chromium
from page_tree import read_page

from vitlite.data import synthesize
from vitlite.engine.detector import Detector
from vitlite.files import write_text
from vitlite.report.build import build_report
from vitlite.report.html import render

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: apt-get install chromium")
EVIL = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def report(tiny_run, tmp_path_factory):
    root = tmp_path_factory.mktemp("browser") / "set"
    synthesize(root, seed=3, size=64, categories="weave,wood", train=1, good=4, defects=2)
    for folder, name in (("good", EVIL), ("spot", "x" * 150 + ".png")):
        next((root / "weave/test" / folder).glob("*.png")).rename(root / "weave/test" / folder / name)
    report = build_report(Detector(tiny_run, "cpu"), data=root, category="all", quiet=True)
    report.name = "</script><script>alert(1)</script>"
    return report


@pytest.fixture(scope="module")
def file(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "a report é#1.html"
    write_text(path, render(report))
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Page(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser, file):
    browser.open(file)
    yield browser
    assert browser.problems == []
    assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data", "about"}
    assert {url.partition("#")[0] for url in browser.requests if url.startswith("file")} == {file.as_uri()}


CARDS = """Array.from(document.querySelectorAll(".card"), card => ({index: Number(card.dataset.index),
  badge: card.querySelector(".badge").textContent, wrong: card.classList.contains("wrong"), hidden: card.hidden}))"""


def expected(report, threshold, categories=(0, 1)):
    """(misses, false alarms) among all images of the categories."""
    images = [image for k in categories for image in report.parts[k].images]
    return (
        sum(image.label and image.score <= threshold for image in images),
        sum(not image.label and image.score > threshold for image in images),
    )


def counted(page):
    return tuple(page.run("[counts.dataset.misses, counts.dataset.alarms].map(Number)"))


def check_gallery(page, report, threshold):
    """Verdicts and order at a threshold."""
    images, errors = report.images(), []
    for card in page.run(CARDS):
        image = images[card["index"]]
        flagged = image.score > threshold
        words = {(0, False): "Passed", (0, True): "False alarm", (1, False): "Missed", (1, True): "Found"}
        assert card["badge"] == words[image.label, flagged]
        assert card["wrong"] == (flagged != bool(image.label))
        errors.append(threshold - image.score if image.label else image.score - threshold)
    assert errors == sorted(errors, reverse=True)
    assert len(errors) == len(images)


def test_opens_at_the_calibrated_threshold(page, report):
    assert page.run("document.documentElement.dataset.ready") == "yes"
    assert page.run("document.querySelector('h1').textContent") == report.name
    assert counted(page) == expected(report, report.threshold)
    check_gallery(page, report, report.threshold)
    assert page.run("reset.disabled") is True
    assert page.run("Array.from(document.images).every(i => i.complete && i.naturalWidth > 0)")


@pytest.mark.parametrize("place", [0, 300, 640, 1000])
def test_the_slider(page, report, place):
    """Moves the line, counts anew over all images, gives every picture its verdict and sorts them."""
    page.run(f"slider.value = {place}; slider.dispatchEvent(new Event('input', {{bubbles: true}}))")
    page.settle()
    axis = report.axis
    line = page.run("parseFloat(document.querySelector('.hist:not([hidden]) .line').getAttribute('x1'))")
    assert line == pytest.approx(place / 10, abs=0.01)
    assert not axis.log or axis.low > 0
    threshold = axis.low * (axis.high / axis.low) ** (place / 1000) if axis.log else None
    threshold = threshold or axis.low + (axis.high - axis.low) * place / 1000
    assert page.run("Number(number.value)") == pytest.approx(threshold, rel=1e-4)
    assert counted(page) == expected(report, threshold)
    check_gallery(page, report, threshold)
    page.run("reset.click()")
    page.settle()
    assert counted(page) == expected(report, report.threshold)


def test_the_ends_of_the_slider_miss_all_and_alarm_at_all(page, report):
    good = sum(not image.label for image in report.images())
    for place, wanted in ((0, (0, good)), (1000, (len(report.images()) - good, 0))):
        page.run(f"slider.value = {place}; slider.dispatchEvent(new Event('input'))")
        page.settle()
        assert counted(page) == wanted


def test_real_keys_move_the_slider_and_the_address_keeps_it(page, report):
    page.run("slider.focus()")
    for kind in ("rawKeyDown", "keyUp") * 3:
        page.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39)
    page.settle()
    threshold = page.run("Number(new URLSearchParams(location.hash.slice(1)).get('threshold'))")
    assert threshold > report.threshold
    page.call("Page.reload")
    page.wait_for("document.documentElement?.dataset.ready === 'yes'")  # no element yet while it loads
    assert page.run("Number(number.value)") == pytest.approx(threshold, rel=1e-5)
    assert counted(page) == expected(report, threshold)


def test_a_number_typed_in(page, report):
    score = sorted(image.score for image in report.images())[5]
    for text, threshold in ((repr(score), score), ("", score), ("-1e3", -1e3)):
        page.run(f"number.value = '{text}'; number.dispatchEvent(new Event('input'))")
        page.settle()
        # An image that scores exactly the threshold is not called defective, as in predict.
        assert counted(page) == expected(report, threshold)
        check_gallery(page, report, threshold)


def test_one_category(page, report):
    page.run("category.value = '1'; category.dispatchEvent(new Event('change'))")
    page.settle()
    assert counted(page) == expected(report, report.parts[1].threshold, (1,))
    for query in ("svg.hist", "section[data-category]"):
        shown = f"Array.from(document.querySelectorAll('{query}:not([hidden])'), e => e.dataset.category)"
        assert page.run(shown) == ["1"]
    first = len(report.parts[0].images)
    assert all(card["hidden"] == (card["index"] < first) for card in page.run(CARDS))


def test_filters(page, report):
    for value in ("wrong", "missed", "alarm", "all"):
        page.run(f"show.value = '{value}'; show.dispatchEvent(new Event('change'))")
        page.settle()
        badges = {card["badge"] for card in page.run(CARDS) if not card["hidden"]}
        allowed = {"wrong": {"Missed", "False alarm"}, "missed": {"Missed"}, "alarm": {"False alarm"}}
        assert badges <= allowed.get(value, {"Missed", "False alarm", "Found", "Passed"})
        visible = sum(not card["hidden"] for card in page.run(CARDS))
        assert page.run("shown.textContent").startswith(f"{visible} of ")


def test_the_ring_moves_along_the_curves(page, report):
    score = sorted(image.score for image in report.parts[0].images if image.label)[3]
    page.run(f"location.hash = '#threshold={score!r}'")
    page.settle()
    part = report.parts[0]
    part_misses, part_alarms = expected(report, score, (0,))
    good, bad = part.counts(0)[1], part.counts(1)[1]
    ring = page.run(
        "(c => [c.getAttribute('cx'), c.getAttribute('cy')].map(Number))"
        "(document.querySelector('.point[data-kind=roc][data-category=\"0\"]'))"
    )
    assert ring == pytest.approx([44 + 264 * part_alarms / good, 10 + 246 * part_misses / bad], abs=0.06)


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone(browser, file, dark):
    """Nothing sticks out sideways at 390 and at 320 pixels, and what is touched is large enough."""
    for width in (390, 320):
        browser.open(file, width=width, height=800, dark=dark)
        assert browser.run("document.documentElement.scrollWidth") <= width
        boxes = "Array.from(document.querySelectorAll('.card, .bar, figure'))"
        assert browser.run(f"{boxes}.filter(e => e.scrollWidth > e.clientWidth + 1).length") == 0
        heights = (
            "Array.from(document.querySelectorAll('input, select, button'), e => e.getBoundingClientRect().height)"
        )
        assert min(browser.run(heights)) >= 24
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(15, 19, 24)") == dark


def test_without_scripts(browser, file, tmp_path, report):
    """The page still shows everything; what needs a script stays away, and a line says so."""
    browser.open(file, scripts=False)
    browser.screenshot(tmp_path / "page.png", whole=False)
    assert (tmp_path / "page.png").stat().st_size > 5000


def test_the_address_in_a_fresh_browser(file, report, tmp_path):
    """As a person who was sent a link, with the command line's own dump of the page."""
    threshold = sorted(image.score for image in report.images())[-4]
    command = [find_chromium(), *FLAGS, f"--user-data-dir={tmp_path}", "--dump-dom", "--virtual-time-budget=2000"]
    found = subprocess.run([*command, f"{file.as_uri()}#threshold={threshold!r}"], capture_output=True, text=True)
    page = read_page(found.stdout)
    output = page.one("output")
    assert (int(output.attributes["data-misses"]), int(output.attributes["data-alarms"])) == expected(report, threshold)
    assert json.loads(page.one("script", id="data").text)["threshold"] == report.threshold
    first = next(page.all("li", class_="card"))
    assert "wrong" in first.attributes["class"].split()
    shutil.rmtree(tmp_path, ignore_errors=True)
