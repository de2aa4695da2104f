"""The server's page in a headless Chromium: images come in, the threshold moves, good ones are kept."""

import os
import re

import numpy as np
import pytest
from browsing import needs_chromium, open_browser
from small_server import GOOD, THRESHOLD, image, serving, write_model

from vitlite.images.regions import Regions

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("onnxruntime")
pytestmark = needs_chromium

TOKEN = "a-token-of-22-letters."
EVIL = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def server(model, kept):
    with serving(model, "--good", kept, "--min-area", 10) as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    camera = ("use-fake-device-for-media-stream=fps=5", "use-fake-ui-for-media-stream")
    with open_browser(tmp_path_factory.mktemp("profile"), *camera) as page:
        yield page


@pytest.fixture
def page(browser, server):
    browser.open(server.url)
    browser.wait("document.documentElement.dataset.ready")
    yield browser
    assert [entry for entry in browser.driver.get_log("browser") if entry["source"] != "network"] == []
    own = (server.url, f"blob:{server.url}", "data:", "about:", "chrome:")
    assert [url for url in browser.requests() if not url.startswith(own)] == []


@pytest.fixture
def files(tmp_path):
    """Three images, whose scores are about 0.24, 0.6 and 0.9."""
    for name, body in {"a.png": image(GOOD), "b.png": image(spot=153), EVIL: image(spot=230)}.items():
        (tmp_path / name).write_bytes(body)
    return tmp_path


def choose(page, *paths):
    """Gives files to the page, and waits until it has their answers."""
    before = page.run("document.querySelectorAll('#history li').length")
    page.driver.find_element("id", "files").send_keys("\n".join(map(str, paths)))
    page.wait(f"document.querySelectorAll('#history li').length === {before + len(paths)}")


def history(page):
    """(name, verdict) of the images, from the last to the first."""
    rows = (
        "Array.from(document.querySelectorAll('#history li'), r => [r.querySelector('p'), r.querySelector('.badge')])"
    )
    return [tuple(row) for row in page.run(f"{rows}.map(pair => pair.map(e => e.textContent))")]


def test_images_and_the_threshold(page, files):
    choose(page, *(files / name for name in ("a.png", "b.png", EVIL)))
    assert history(page) == [(EVIL, "Defect"), ("b.png", "Defect"), ("a.png", "Good")]
    assert page.run("badge.textContent + ' ' + file.textContent") == f"Defect {EVIL}"
    page.wait("map.complete && map.naturalWidth === 64")
    assert page.run("Array.from(boxes.children, r => ['x', 'y', 'width', 'height'].map(k => r.getAttribute(k)))") == [
        ["16", "8", "16", "16"]
    ]
    assert page.run("counts.textContent") == "2 of 3 images defective"
    page.change("number", 0.7, "input")
    assert history(page) == [(EVIL, "Defect"), ("b.png", "Good"), ("a.png", "Good")]
    assert page.run("command.textContent").endswith("small.onnx --threshold 0.7")
    page.change("slider", 0, "input")  # every image is defective: also that without a pixel above the pixel threshold
    assert [verdict for _, verdict in history(page)] == ["Defect"] * 3
    page.driver.find_element("css selector", "#history li:last-child button").click()
    assert page.run("badge.textContent + ' ' + file.textContent") == "Defect a.png"
    page.run("reset.click()")
    assert page.run("[badge.textContent, boxes.children.length, number.value]") == ["Good", 0, "0.5"]


def test_small_regions_and_what_is_no_image(page, tmp_path):
    (tmp_path / "dust.png").write_bytes(image(size=(4, 2), spot=None, level=250))
    (tmp_path / "text.png").write_bytes(b"no image")
    choose(page, tmp_path / "dust.png")
    assert page.run("badge.textContent") == "Good"
    assert "all its regions are too small" in page.run("facts.textContent")
    page.driver.find_element("id", "files").send_keys(str(tmp_path / "text.png"))
    page.wait("!problem.hidden")
    assert page.run("problem.textContent") == "text.png: the upload: is not an image, or its header is damaged"


def test_a_problem_stays_until_other_images_come(page, files):
    """Though images after it have a verdict: of a few that came together, one may not go by unseen."""
    (files / "text.png").write_bytes(b"no image")
    (files / "empty.png").write_bytes(b"")
    names = ("a.png", "text.png", "empty.png", "b.png")
    page.driver.find_element("id", "files").send_keys("\n".join(str(files / name) for name in names))
    page.wait("document.querySelectorAll('#history li').length === 2")
    lines = page.run("problem.innerText").splitlines()
    assert [line.split(":")[0] for line in lines] == ["text.png", "empty.png"]
    choose(page, files / "a.png")
    assert page.run("problem.hidden") is True


def test_regions_of_categories(browser, tmp_path):
    """An image needs a category first; a spot counts inside the region of its category alone."""
    left = np.zeros((32, 64), bool)
    left[:, :32] = True
    limits = {"image_threshold": THRESHOLD, "good_scores": [0.2, 0.3]}
    regions = Regions({"bolt": left, "nut": ~left})
    model = write_model(tmp_path / "two.onnx", regions, categories={"bolt": limits, "nut": limits})
    for name, body in {"a.png": image(spot=230, size=(32, 64)), "other.png": image(spot=230)}.items():
        (tmp_path / name).write_bytes(body)
    with serving(model) as server:
        browser.open(server.url)
        browser.wait("document.documentElement.dataset.ready")
        browser.driver.find_element("id", "files").send_keys(str(tmp_path / "a.png"))
        browser.wait("!problem.hidden")
        assert browser.run("problem.textContent") == "Choose the category first: each has a region of its own"
        for category, verdict, boxes in (("bolt", "Defect", [["16", "8", "16", "16"]]), ("nut", "Good", [])):
            browser.change("category", category)
            assert browser.run("problem.hidden") is True
            choose(browser, tmp_path / "a.png")
            found = "Array.from(boxes.children, r => ['x', 'y', 'width', 'height'].map(k => r.getAttribute(k)))"
            assert browser.run(f"[badge.textContent, {found}]") == [verdict, boxes]
            says = "The dark part, 50.0 % of the image, is outside the region and does not count"
            assert browser.run("notes.textContent") == says
        browser.driver.find_element("id", "files").send_keys(str(tmp_path / "other.png"))
        browser.wait("!problem.hidden")
        assert "is 64x48, but its region (roi, ignore) is 64x32" in browser.run("problem.textContent")
        browser.driver.get_log("browser")
        browser.requests()


def test_a_dropped_image(page):
    body = list(image(spot=230))
    page.run(
        "(() => { const data = new DataTransfer();"
        f"data.items.add(new File([Uint8Array.from({body})], 'dropped.png'));"
        "drop.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})); })()"
    )
    page.wait("document.querySelector('#history li')")
    assert history(page) == [("dropped.png", "Defect")]


def test_marking_an_image_as_good(page, files, kept):
    choose(page, files / "a.png", files / "b.png")
    page.run("mark.click()")
    page.wait("mark.getAttribute('aria-pressed') === 'true'")
    (path,) = kept.iterdir()
    assert path.read_bytes() == (files / "b.png").read_bytes()
    assert page.run("kept.textContent") == f"1 marked as good, in {kept}."
    page.run("mark.click()")
    page.wait("mark.getAttribute('aria-pressed') === 'false'")
    assert list(kept.iterdir()) == []


def test_the_camera(page):
    """A frame, then others by themselves."""
    page.run("camera.click()")
    page.wait("video.videoWidth > 0")
    page.run("shot.click()")
    page.wait("document.querySelectorAll('#history li').length === 1")
    assert re.match(r"camera \d", history(page)[0][0])
    assert page.run("facts.textContent.includes(`${video.videoWidth} × ${video.videoHeight} pixels`)")
    page.change("pace", "1")
    page.wait("document.querySelectorAll('#history li').length >= 2")
    page.run("camera.click()")
    assert page.run("[video.srcObject, shot.hidden]") == [None, True]


def test_a_phone(browser, server, files):
    browser.open(server.url, width=320, height=700, dark=True)
    browser.wait("document.documentElement.dataset.ready")
    choose(browser, files / EVIL)
    assert browser.run("document.documentElement.scrollWidth") <= 320
    heights = "Array.from(document.querySelectorAll('input:not(#files), select, button'), e => e.offsetHeight)"
    assert min(height for height in browser.run(heights) if height) >= 24
    browser.driver.get_log("browser")
    browser.requests()  # leaves none to the next test


def test_a_token(browser, model):
    with serving(model, env={**os.environ, "VITLITE_SERVE_TOKEN": TOKEN}) as server:
        browser.open(server.url)
        browser.wait("!access.hidden")
        assert browser.run("main.hidden") is True
        for word, state in (("wrong", "!problem.hidden && !access.hidden"), (TOKEN, "!main.hidden && access.hidden")):
            browser.run("(problem.hidden = true)")
            browser.driver.find_element("id", "token").send_keys(word + "\n")
            browser.wait(state)
        browser.driver.refresh()
        browser.wait("document.documentElement.dataset.ready")
        assert browser.run("[document.title, keeping.hidden]") == ["small.onnx", True]
        browser.driver.get_log("browser")
        browser.requests()
