"""A headless Chromium driven over its debugging pipe: no port, no driver, no package."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
# Puts the two pipes where the browser wants them, whatever their numbers, and becomes the browser.
BECOME = """
import os, sys
for given, high in zip(sys.argv[1:3], (103, 104)):
    os.dup2(int(given), high)
for high in (103, 104):
    os.dup2(high, high - 100)
    os.close(high)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium():
    """The program, or None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """``with Page(profile) as page: page.open(file)``; keeps console errors, exceptions and requests.

    Messages are JSON with a zero byte after each, to the browser's descriptor 3 and from its 4.
    """

    def __init__(self, profile):
        self.profile, self.number, self.buffer = profile, 0, b""
        self.problems, self.requests, self.loaded = [], [], set()

    def __enter__(self):
        (reads, self.to), (self.from_, writes) = os.pipe(), os.pipe()
        command = [sys.executable, "-c", BECOME, str(reads), str(writes), find_chromium(), *FLAGS]
        command += [f"--user-data-dir={self.profile}", "--remote-debugging-pipe", "about:blank"]
        self.process = subprocess.Popen(
            command, pass_fds=(reads, writes), stderr=subprocess.DEVNULL, start_new_session=True
        )
        os.close(reads)
        os.close(writes)
        self.session = None
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(t["targetId"] for t in targets if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)
        return self

    def __exit__(self, *_):
        os.close(self.to)  # the browser ends with its pipe
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self.from_)

    def call(self, method, **params):
        """Send a command and return its result; what happens meanwhile is noted."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def receive(self):
        while b"\0" not in self.buffer:
            data = os.read(self.from_, 1 << 20)
            assert data, "the browser ended"
            self.buffer += data
        text, _, self.buffer = self.buffer.partition(b"\0")
        event = json.loads(text)
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(params["exceptionDetails"])
        elif method == "Log.entryAdded":
            self.problems.append(params["entry"])
        elif method == "Page.javascriptDialogOpening":
            self.problems.append(params)
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Page.lifecycleEvent" and params["name"] == "load":
            self.loaded.add(params["loaderId"])
        return event

    def open(self, path, fragment="", *, width=1200, height=900, dark=False, scripts=True):
        """Load a file at a width, in light or dark, and wait until it stands."""
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        for url in ("about:blank", path.as_uri() + fragment):
            loader = self.call("Page.navigate", url=url)["loaderId"]
            while loader not in self.loaded:  # not just any load: an earlier one's event may come late
                self.receive()

    def run(self, expression):
        """The value of a JavaScript expression; of a promise, what it comes to."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def settle(self):
        """Wait for what the page draws on its next frame."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def wait_for(self, expression):
        while not self.run(expression):
            time.sleep(0.02)

    def screenshot(self, path, *, whole=True):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))
