"""The report in a headless Chromium: nothing fails, and the slider does what it says."""

import json
import shlex
from dataclasses import replace

import pytest
from browsing import needs_chromium, open_browser
from page_tree import read_page

from vitlite.data import synthesize
from vitlite.engine.detector import Detector
from vitlite.files import write_text
from vitlite.report.build import build_report, count
from vitlite.report.page import VERDICTS, render

pytestmark = needs_chromium
RUN, OWN = "-it's a <b>run</b> $HOME/é", "two  words & `a`\\"
EVIL = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def report(tiny_run, tmp_path_factory):
    root = tmp_path_factory.mktemp("browser") / "set"
    synthesize(root, seed=3, size=64, categories="weave,wood", train=1, good=4, defects=2)
    for folder, name in (("good", EVIL), ("spot", "x" * 150 + ".png")):
        next((root / "weave/test" / folder).glob("*.png")).rename(root / "weave/test" / folder / name)
    report = build_report(Detector(tiny_run, "cpu"), data=root, category="all")
    report.name = "</script><script>alert(1)</script>"
    report.run = RUN
    report.parts[1] = replace(report.parts[1], own=OWN)
    return report


@pytest.fixture(scope="module")
def file(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "a report é#1.html"
    write_text(path, render(report))
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser, file):
    browser.open(file)
    yield browser
    assert browser.driver.get_log("browser") == []
    requests = browser.requests()
    assert {url.partition(":")[0] for url in requests} <= {"file", "data", "about", "chrome"}  # the browser's own pages
    assert {url.partition("#")[0] for url in requests if url.startswith("file")} == {file.as_uri()}


CARDS = """Array.from(document.querySelectorAll(".card"), card => ({index: Number(card.dataset.index),
  badge: card.querySelector(".badge").textContent, wrong: card.classList.contains("wrong"), hidden: card.hidden}))"""


def expected(report, threshold, categories=(0, 1)):
    """(misses, false alarms) among all images of the categories."""
    alarms, _, hits, defective = count([image for k in categories for image in report.parts[k].images], threshold)
    return defective - hits, alarms


def counted(page):
    return tuple(page.run("[counts.dataset.misses, counts.dataset.alarms].map(Number)"))


def check_gallery(page, report, threshold):
    """Verdicts and order at a threshold."""
    images, errors = report.images, []
    for card in page.run(CARDS):
        image = images[card["index"]]
        flagged = image.compared > threshold
        assert card["badge"] == VERDICTS[image.label][flagged]
        assert card["wrong"] == (flagged != bool(image.label))
        errors.append(threshold - image.compared if image.label else image.compared - threshold)
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
    """Moves the line, counts anew over all images, gives every image its verdict and sorts them."""
    page.change("slider", place, "input")
    axis = report.axis
    line = page.run("parseFloat(document.querySelector('.hist:not([hidden]) .line').getAttribute('x1'))")
    assert line == pytest.approx(place / 10, abs=0.01)
    assert not axis.log or axis.low > 0
    threshold = axis.low * (axis.high / axis.low) ** (place / 1000) if axis.log else None
    threshold = threshold or axis.low + (axis.high - axis.low) * place / 1000
    assert page.run("Number(number.value)") == pytest.approx(threshold, rel=1e-4)
    _, good, _, defective = count(report.images, 0)
    at_the_ends = {0: (0, good), 1000: (defective, 0)}
    assert counted(page) == expected(report, threshold) == at_the_ends.get(place, expected(report, threshold))
    check_gallery(page, report, threshold)
    page.run("reset.click()")
    page.settle()
    assert counted(page) == expected(report, report.threshold)


def test_images_whose_regions_are_too_small(browser, report, tmp_path):
    """They are called good at every threshold: the defective ones are the worst mistakes, the good ones last."""
    small = [image._replace(too_small=i % 2 == 0) for i, image in enumerate(report.parts[0].images)]
    report = replace(report, parts=[replace(report.parts[0], images=small), report.parts[1]])
    path = tmp_path / "small.html"
    write_text(path, render(report))
    browser.open(path)
    for place in (0, 500):
        browser.change("slider", place, "input")
        threshold = browser.run("Number(number.value)")
        misses, alarms = expected(report, threshold)
        assert counted(browser) == (misses, alarms)
        assert misses >= sum(image.label for image in small[::2]) > 0
        check_gallery(browser, report, threshold)
    assert browser.driver.get_log("browser") == []
    browser.requests()  # leaves none to the next test


def test_real_keys_move_the_slider_and_the_address_keeps_it(page, report):
    page.driver.find_element("id", "slider").send_keys("\ue014" * 3)  # the right arrow, in WebDriver's code
    page.settle()
    threshold = page.run("Number(new URLSearchParams(location.hash.slice(1)).get('threshold'))")
    assert threshold > report.threshold
    page.driver.refresh()
    assert page.run("Number(number.value)") == pytest.approx(threshold, rel=1e-5)
    assert counted(page) == expected(report, threshold)


def test_a_number_typed_in(page, report):
    score = sorted(image.score for image in report.images)[5]
    for text, threshold in ((repr(score), score), ("", score), ("-1e3", -1e3)):
        page.change("number", text, "input")
        # An image that scores exactly the threshold is not called defective, as in predict.
        assert counted(page) == expected(report, threshold)
        check_gallery(page, report, threshold)


def test_one_category(page, report):
    page.change("category", "1")
    assert counted(page) == expected(report, report.parts[1].threshold, (1,))
    for query in ("svg.hist", "section[data-category]"):
        shown = f"Array.from(document.querySelectorAll('{query}:not([hidden])'), e => e.dataset.category)"
        assert page.run(shown) == ["1"]
    first = len(report.parts[0].images)
    assert all(card["hidden"] == (card["index"] < first) for card in page.run(CARDS))


def test_the_command_to_paste(page, report):
    """A shell reads the folder, the category and a number with the same verdicts as those that the page shows."""
    page.run("location.hash = '#threshold=0.123456789'")
    score = sorted(image.score for image in report.images)[5]
    for place, category, threshold in (("slider", "-1", 500), ("number", "1", repr(score)), ("number", "1", "0.25")):
        page.change("category", category)
        page.change(place, threshold, "input")
        words = shlex.split(page.run("command.innerText"))
        assert words[:4] == ["vitlite", "calibrate", f"./{RUN}", "--threshold"]
        assert words[5:] == (["--category", OWN] if category == "1" else [])
        shown_as = page.run("Number(number.value)")
        assert float(words[4]) == pytest.approx(shown_as, rel=1e-5)
        assert expected(report, float(words[4]), (0, 1) if category == "-1" else (1,)) == counted(page)
    assert words[4] == "0.25"
    page.run("copy.click()")
    page.settle()
    assert page.run("getSelection().toString()") == page.run("command.innerText")
    assert page.run("copied.textContent").split()[0] in ("Copied", "Selected:")


def test_filters(page, report):
    for value in ("wrong", "missed", "alarm", "all"):
        page.change("show", value)
        badges = {card["badge"] for card in page.run(CARDS) if not card["hidden"]}
        allowed = {"wrong": {"Missed", "False alarm"}, "missed": {"Missed"}, "alarm": {"False alarm"}}
        assert badges <= allowed.get(value, {"Missed", "False alarm", "Found", "Passed"})
        visible = sum(not card["hidden"] for card in page.run(CARDS))
        assert page.run("shown.textContent").startswith(f"{visible} of ")


def test_the_ring_moves_along_the_curves(page, report):
    score = sorted(image.score for image in report.parts[0].images if image.label)[3]
    page.run(f"location.hash = '#threshold={score!r}'")
    page.settle()
    alarms, good, hits, defective = count(report.parts[0].images, score)
    ring = page.run(
        "(c => [c.getAttribute('cx'), c.getAttribute('cy')].map(Number))"
        "(document.querySelector('.point[data-kind=roc][data-category=\"0\"]'))"
    )
    assert ring == pytest.approx([44 + 264 * alarms / good, 10 + 246 * (1 - hits / defective)], abs=0.06)


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


def test_without_scripts(browser, file, report):
    """The page still shows every image; what needs a script stays away, and a line says so."""
    browser.open(file, scripts=False)
    shown = browser.driver.find_element("tag name", "main").text
    assert "Scripts are off" in shown
    assert shown.count("heat map") >= len(report.images)
    assert not browser.driver.find_element("id", "slider").is_displayed()
    assert browser.run("document.documentElement.dataset.ready") is None


def test_the_address_of_a_person_who_was_sent_a_link(browser, file, report):
    threshold = sorted(image.score for image in report.images)[-4]
    browser.open(file, f"#threshold={threshold!r}")
    page = read_page("<!DOCTYPE html>" + browser.driver.page_source)
    output = page.one("output")
    assert (int(output.attributes["data-misses"]), int(output.attributes["data-alarms"])) == expected(report, threshold)
    assert json.loads(page.one("script", id="data").text)["threshold"] == report.threshold
    first = next(page.all("li", class_="card"))
    assert "wrong" in first.attributes["class"].split()
