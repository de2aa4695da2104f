"""A headless Chromium for the tests of pages. They skip where there is none."""

import contextlib
import json
import shutil
import time

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser: pip install selenium")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
DRIVER = shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium and chromedriver here: apt-get install chromium chromium-driver"
)
FLAGS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
    *("disable-component-update", "disable-sync", "disable-dev-shm-usage", "hide-scrollbars"),
)


class Page:
    """A browser's one window."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path, fragment="", *, width=1200, height=900, dark=False, scripts=True):
        """Loads a file or an address at a width, in light or dark, and waits until it stands."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get("about:blank")
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        self.driver.get((path if isinstance(path, str) else path.as_uri()) + fragment)
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

    def run(self, expression):
        """The value of a JavaScript expression."""
        return self.driver.execute_script(f"return {expression}")

    def wait(self, expression):
        """Waits until a JavaScript expression is true."""
        while not self.run(f"Boolean({expression})"):
            time.sleep(0.03)

    def settle(self):
        """Waits for what the page draws on its next frame."""
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def change(self, element, value, event="change"):
        """Gives a control a value, as a person does, and waits for what the page makes of it."""
        self.run(f"({element}.value = {value!r}, {element}.dispatchEvent(new Event({event!r}, {{bubbles: true}})))")
        self.settle()

    def requests(self):
        """The addresses that the browser requested since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}


@contextlib.contextmanager
def open_browser(profile, *flags):
    """A browser with a folder for its files, as a Page."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, *flags, f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(DRIVER)) as driver:
        yield Page(driver)
