"""`vitlite serve` as a client sees it: answers, refusals, and what it keeps."""

import base64
import io
import os
import re
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from commands import refused, vitlite
from PIL import Image
from small_server import GOOD, THRESHOLD, image, serving, write_model

import vitlite as package
from vitlite.data import list_images
from vitlite.images.heatmap import overlay
from vitlite.images.known import ADVICE

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("onnxruntime")

TOKEN = "a-token-of-22-letters."
QUEUE = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "it's small.onnx")


@pytest.fixture(scope="module")
def server(model, kept):
    limits = ("--queue", QUEUE, "--max-megabytes", 0.5, "--max-megapixels", 1)
    with serving(model, "--good", kept, *limits) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(model):
    with serving(model, env={**os.environ, "VITLITE_SERVE_TOKEN": TOKEN}) as server:
        yield server


def png(data):
    return np.array(Image.open(io.BytesIO(data)))


def fill(server, count):
    """Threads with requests that are inside the stopped server, and the list of their answers."""
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(server.ask("/score", image()))) for _ in range(count)]
    for thread in threads:
        thread.start()
    while server.meter("inside") < count:
        time.sleep(0.02)
    return threads, answers


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_answer_is_that_of_predict(server, model, tmp_path, kind):
    body = image(spot=200, kind=kind)
    (tmp_path / "image").write_bytes(body)
    found = package.load(model).predict(tmp_path / "image")
    status, answer, _ = server.ask("/score", body)
    assert status == 200
    assert answer.pop("milliseconds") > 0
    assert answer == {
        **{key: getattr(found, key) for key in ("score", "verdict", "percentile", "defect_pixels")},
        "boxes": [list(box) for box in found.regions],
        "threshold": THRESHOLD,
        "width": 64,
        "height": 48,
        "notes": [],
        "category": None,
        "drift": None,
    }
    assert (answer["verdict"], len(answer["boxes"])) == ("defect", 1)
    _, drawn, headers = server.ask("/overlay", body)
    expected = overlay(np.array(Image.open(io.BytesIO(body))), found.map, low=0.0, high=1.0, marked=found.mask)
    np.testing.assert_array_equal(png(drawn), expected)
    assert float(headers["vitlite-score"]) == found.score
    assert headers["vitlite-verdict"] == "defect"


def test_what_a_page_draws(server):
    """A map of at most 1024 pixels without an outline, and the boxes that a lower threshold would give."""
    _, answer, _ = server.ask("/score?map=1", image(spot=120, size=(100, 2048)))
    drawn = png(base64.b64decode(answer["map"]))
    assert drawn.shape == (50, 1024, 3)
    assert not (drawn == [255, 0, 255]).all(axis=2).any()
    assert (answer["verdict"], answer["boxes"], len(answer["candidates"])) == ("good", [], 1)
    _, lower, _ = server.ask("/score?threshold=0.24", image(spot=120, size=(100, 2048)))
    assert (lower["verdict"], lower["boxes"], lower["threshold"]) == ("defect", answer["candidates"], 0.24)


# What is sent, and what comes back: status, and a part of what is said.
CUT = image(200)[:-30]
REFUSED = {
    "nothing": ("/score", b"", 422, "is empty"),
    "text": ("/overlay", b"GIF89a, but no image", 422, "the upload: "),
    "cut short": ("/score", CUT, 422, "the upload: "),
    "too many pixels": ("/score", image(size=(1001, 1000)), 422, "over the limit of 1000000"),
    "too many bytes": ("/score", b"x" * 500_001, 413, "larger than 0.5 MB"),
    "too many bytes in parts": ("/score", [b"x" * 100_000] * 6, 413, "larger than 0.5 MB"),
    "a category": ("/score?category=../etc", image(), 400, "unknown"),
    "a parameter": ("/score?treshold=1", image(), 400, "'treshold': no such parameter; there are category, map"),
    "no number": ("/score?threshold=nan", image(), 400, "must be a finite number"),
    "no flag": ("/score?map=yes", image(), 400, "map=yes: must be 0 or 1"),
    "no image to keep": ("/good", b"\x89PNG", 422, "the upload: "),
    "a path": ("/..%2fgood", image(), 404, "no such address; there are POST /score, POST /overlay"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_that_is_refused(server, kept, name):
    path, body, status, says = REFUSED[name]
    found, answer, _ = server.ask(path, body if isinstance(body, bytes) else iter(body))
    assert (found, says in answer["error"]) == (status, True), answer
    assert "vitlite-serve" not in answer["error"]  # the folder that the server puts uploads into
    assert not kept.exists()


def test_a_form_and_another_method(server):
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert server.ask("/score", b"--x--", **form)[:2] == (
        415,
        {"error": "send the image itself as the body: curl --data-binary @image.png"},
    )
    status, answer, *_ = server.ask("/score")
    assert (status, answer) == (405, {"error": "takes POST here, not GET"})


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"\x16\x03\x01 no HTTP\r\n\r\n", b"HTTP/1.1 400"),
        (b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Length: -3\r\n\r\n", b"HTTP/1.1 400"),
        (b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\ncut", b""),
    ],
)
def test_what_is_no_request(server, text, status):
    with socket.create_connection((server.host, server.port)) as raw:
        raw.sendall(text)
        raw.shutdown(socket.SHUT_WR)
        assert raw.recv(100).startswith(status)
    assert server.ask("/score", image())[0] == 200
    assert server.meter("inside") == 0


def test_marking_images_as_good(server, kept):
    body = image(GOOD + 3, kind="JPEG")
    first, again = server.ask("/good", body), server.ask("/good", body)
    assert first[:2] == again[:2] == (200, {"good": first[1]["good"], "marked": 1})
    (path,) = list_images(kept)
    assert (path.name, path.read_bytes()) == (first[1]["good"] + ".jpg", body)
    assert server.ask("/info")[1]["good"] == {"folder": str(kept), "marked": 1, "command": None}
    for name in ("..%2F..%2Fmodel", "*", first[1]["good"][:-1] + "?", "0" * 64):
        assert server.ask(f"/good/{name}", method="DELETE")[0] == 404
    assert server.ask(f"/good/{first[1]['good']}", method="DELETE")[:2] == (200, {"marked": 0})
    assert list(kept.iterdir()) == []


def test_the_category_of_the_server_is_that_of_what_it_keeps(tmp_path):
    """The next calibration finds the image in the folder of its category."""
    limits = {"image_threshold": THRESHOLD, "good_scores": [0.2, 0.3]}
    model = write_model(tmp_path / "two.onnx", categories={"bolt": limits, "nut": limits})
    with serving(model, "--good", tmp_path / "good", "--category", "nut") as server:
        for path in ("/good", "/good?category=bolt"):
            server.ask(path, image(GOOD + len(path)))
    assert [path.parent.name for path in list_images(tmp_path / "good")] == ["bolt", "nut"]


def test_a_full_queue_and_a_worker_that_is_killed(server):
    """One request too many is told to come again; the others get their answers, from the next worker."""
    (worker,) = server.workers()
    restarts = server.meter("worker_restarts_total")
    os.kill(worker, signal.SIGSTOP)
    threads, answers = fill(server, 1 + QUEUE)
    status, answer, headers = server.ask("/score", image())
    assert (status, "send the request again" in answer["error"], int(headers["retry-after"]) >= 1) == (503, True, True)
    os.kill(worker, signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert [status for status, _, _ in answers] == [200] * (1 + QUEUE)
    assert server.meter("worker_restarts_total") == restarts + 1
    assert server.workers() != [worker]
    assert server.ask("/health")[:2] == (200, {"status": "ok", "workers": 1})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "attacker.example"}, 421),
        ({"Host": "localhost.attacker.example:8000"}, 421),
        ({"Origin": "http://attacker.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "127.0.0.2:8000"}, 200),
        ({"Host": "[::1]:8000", "Origin": "http://[::1]:8000"}, 200),
    ],
)
def test_pages_of_other_servers_cannot_ask(server, headers, status):
    """Neither from another origin, nor under a name that leads to this machine."""
    for path, body in (("/score", image()), ("/info", None)):
        assert server.ask(path, body, **headers)[0] == status


def test_the_page_takes_nothing_from_elsewhere(server):
    for path in ("/", "/page.js", "/page.css"):
        status, text, headers = server.ask(path)
        assert status == 200
        assert set(re.findall(rb"https?://[^\"'`\s]+", text)) <= {b"http://www.w3.org/2000/svg"}
        assert not re.search(rb"innerHTML|\bstyle=|\bon\w+=|eval\(", text)
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert (policy["default-src"], policy["script-src"], policy["frame-ancestors"]) == (
            "'none'",
            "'self'",
            "'none'",
        )


def test_a_token(guarded):
    for path in ("/", "/page.js", "/health"):
        assert guarded.ask(path)[0] == 200
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": TOKEN}):
        for path, body in (("/score", image()), ("/good", image()), ("/info", None), ("/metrics", None), ("/x", None)):
            status, _, headers = guarded.ask(path, body, **given)
            assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="vitlite"')
    assert guarded.ask("/score", image(), Authorization=f"Bearer {TOKEN}", Host="parts.example")[0] == 200
    for process in (guarded.process.pid, *guarded.workers()):
        assert TOKEN not in Path(f"/proc/{process}/cmdline").read_text()


def test_images_unlike_those_of_training(tmp_path):
    """Each answer says so, and the log once for all uploads; nothing is said of the server's own first image."""
    one = {"width": [64, 64], "height": [48, 48], "shape": [0.75, 0.75], "colours": ["grey"], "depths": ["8 bits"]}
    line = f"is 32 x 24 pixels, those of training are 64 x 48 pixels: {ADVICE}"
    with serving(write_model(tmp_path / "a.onnx", known_images=one), "--workers", 2) as server:
        for size, notes in (((48, 64), []), ((24, 32), [line]), ((24, 32), [line]), ((24, 32), [line])):
            answer = server.ask("/score", image(size=size))[1]
            assert (answer["notes"], "strange" in answer) == (notes, False)
        _, err = server.end()
    assert err.count("those of training") == err.count(f"an upload {line}") == 1


def test_a_drift_is_said(guarded):
    """The scores stay below the threshold and are higher than those of the calibration."""
    access = {"Authorization": f"Bearer {TOKEN}"}
    for _ in range(30):
        _, answer, _ = guarded.ask("/score", image(115), **access)
    assert answer["verdict"] == "good"
    assert answer["drift"].startswith("scores of good images drift (all: 9")
    assert guarded.ask("/info", **access)[1]["drift"] == answer["drift"]
    assert b"\nvitlite_drift 1\n" in guarded.ask("/metrics", **access)[1]


def test_a_run_and_the_next_calibration(tiny_run, tiny_data, tmp_path):
    """A run is served as `predict` judges it, and its calibration takes what was marked."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    files = list_images(tiny_data / "weave/test")[:3]
    with serving(run) as server:
        for path, found in zip(files, package.load(run, "cpu").predict(files)):
            _, answer, _ = server.ask("/score", path.read_bytes())
            assert (answer["verdict"], answer["boxes"]) == (found.verdict, [list(box) for box in found.regions])
            assert answer["score"] == pytest.approx(found.score, rel=1e-5)  # batches of other sizes
            server.ask("/good", path.read_bytes())
        command = server.ask("/info")[1]["good"]["command"]
        code, err = server.end(signal.SIGINT)
    assert (code, err) == (130, "vitlite: stopped (SIGINT)\n")
    assert command == f"vitlite calibrate {run} --good {run}/marked_good"
    out, _ = vitlite(*command.split()[1:], "--target-fpr", 0.5)
    assert "from 3 good images" in out


def test_the_end(model, tmp_path):
    """A signal ends the server after the request that is under way; one that dies leaves neither worker nor upload."""
    env = os.environ | {"TMPDIR": str(tmp_path)}
    with serving(model, env=env) as server:
        assert len(list(tmp_path.glob("vitlite-serve-*"))) == 1
        (worker,) = server.workers()
        os.kill(worker, signal.SIGSTOP)
        threads, answers = fill(server, 1)
        server.process.send_signal(signal.SIGTERM)
        os.kill(worker, signal.SIGTERM)  # a service manager ends the workers too: they wait for the server
        os.kill(worker, signal.SIGCONT)
        threads[0].join()
        _, err = server.process.communicate()
        assert (answers[0][0], server.process.returncode, err) == (200, 143, "vitlite: stopped (SIGTERM)\n")
    assert list(tmp_path.glob("vitlite-serve-*")) == []
    with serving(model, env=env) as server:
        (worker,) = server.workers()
        server.process.kill()
        status = Path(f"/proc/{worker}/stat")
        while status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z":
            time.sleep(0.05)
    assert list(tmp_path.glob("vitlite-serve-*")) == []


@pytest.mark.slow  # the pool's own test is fast
def test_a_model_that_changes(tmp_path):
    """The server ends and says so, before another model or threshold judges an image."""
    model = write_model(tmp_path / "small.onnx")
    with serving(model) as server:
        write_model(model, image_threshold=0.9)
        (worker,) = server.workers()
        os.kill(worker, signal.SIGSTOP)
        threads, answers = fill(server, 1)
        os.kill(worker, signal.SIGKILL)
        threads[0].join()
        _, err = server.process.communicate()
    assert (answers[0][0], answers[0][1]) == (503, {"error": "the server ends; send the request again"})
    assert server.process.returncode == 2
    assert err.splitlines()[-1] == f"vitlite: {model}: has changed since the server started; start it again"


def test_wrong_use(model, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("short\n")
    token_is_short = f"--token-file {tmp_path}/token: the token must have at least 16 characters"
    for options, says in {
        ("--host", "0.0.0.0"): "--host 0.0.0.0: others can reach it, so requests need a token",
        ("--host", "no.such.host.invalid"): "--host no.such.host.invalid: is no address of this machine",
        ("--token-file", tmp_path / "token"): token_is_short,
        (
            "--token-file",
            tmp_path / "none",
        ): f"--token-file {tmp_path}/none: cannot be read (No such file or directory)",
        ("--threshold", "inf"): "--threshold inf: must be a finite number",
        ("--threshold", "9", "--sensitivity", "low"): "--sensitivity low: not together with --threshold 9",
        ("--good", tmp_path / "token"): f"--good {tmp_path}/token: is a file; give a folder",
        ("--timeout", "0"): "--timeout 0: must be above 0",
        ("--queue", "-1"): "--queue -1: must be a whole number from 0",
        ("--category", "screw"): "--category screw: unknown",
    }.items():
        refused("serve", model, "--port", 0, *options, says=says)
    monkeypatch.setenv("VITLITE_SERVE_TOKEN", "short")
    refused("serve", model, "--port", 0, says="VITLITE_SERVE_TOKEN: the token must have at least 16 characters")
    monkeypatch.delenv("VITLITE_SERVE_TOKEN")
    refused("serve", tmp_path / "none.onnx", "--port", 0, says="none.onnx: cannot be read")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused("serve", model, "--port", port, says=f"--port {port}: cannot be opened on 127.0.0.1")
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused("serve", model, says="this needs starlette and uvicorn: pip install starlette uvicorn")
