"""A page as `xrv app` opens it, in Debian's chromium; whoever lacks that skips these tests."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from selenium.common.exceptions import StaleElementReferenceException

from support import page as pages

DRIVER = shutil.which("chromedriver")
AXE = Path(__file__).parents[1] / "vendor" / "axe.min.js"


def pytest_collection_modifyitems(items):
    for item in items:
        if "/browser/" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)
            if DRIVER is None:
                item.add_marker(pytest.mark.skip(reason="no chromedriver: apt install it"))


class Served:
    """`xrv app` in a process of its own."""

    def __init__(self, *arguments):
        command = [sys.executable, "-W", "ignore", "-m", "torchxrayvision", "app", *arguments]
        command += ["--weights", "demo", "--no-browser"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self.address = re.search(r"http://\S+", self.process.stdout.readline())[0]
        self.origin = self.address.partition("/?")[0]

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        self.process.stdout.close()


class Browser:
    """Chromium, driven as a person would, and what it complains of."""

    def __init__(self, downloads):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                         "--disable-dev-shm-usage", "--window-size=1280,800"):  # fmt: skip
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.driver.set_script_timeout(60)
        self.downloads = downloads
        where = {"behavior": "allow", "downloadPath": str(downloads)}
        self.driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)

    # ---- asking ----

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def value(self, expression, *arguments):
        return self.run(f"return {expression}", *arguments)

    def wait(self, expression, seconds=90):  # other work may keep the machine busy
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            # An element may have been replaced by the time it arrives here.
            with contextlib.suppress(StaleElementReferenceException):
                found = self.run(
                    f"const found = {expression};"
                    "return typeof found === 'object' ? Boolean(found) : found"
                )
                if found:
                    return found
            time.sleep(0.03)
        raise AssertionError(f"{expression} did not come true: {self.text('body')[:600]}")

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def text(self, selector):
        return self.find(selector).text

    # ---- doing ----

    def open(self, served):
        self.driver.get(served.address)
        self.wait("document.body.dataset.ready === 'yes'")

    def click(self, selector):
        self.find(selector).click()

    def keys(self, *keys):
        from selenium.webdriver import ActionChains

        self.run("if (document.activeElement !== document.body) document.activeElement.blur()")
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()
        self.settle()

    def drag(self, by, *, start=(0, 0), pane=0, up=True):
        from selenium.webdriver import ActionChains

        canvas = self.all(".pane canvas")[pane]
        chain = ActionChains(self.driver, duration=20)
        chain.move_to_element_with_offset(canvas, *start).click_and_hold()
        chain.move_by_offset(by[0] // 2, by[1] // 2).move_by_offset(
            by[0] - by[0] // 2, by[1] - by[1] // 2
        )
        (chain.release() if up else chain).perform()
        self.settle()

    def settle(self):
        """Until what was asked for is drawn."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"
        )

    def give(self, how, *files):
        """Drop or paste files, each name and bytes."""
        given = [[name, base64.b64encode(data).decode()] for name, data in files]
        self.run(GIVE, how, given)

    def add(self, name, data, how="drop"):
        """Give a file and wait until it is open; then its key."""
        before = self.value("xrv.state.list.items.size")
        self.give(how, (name, data))
        self.wait(f"xrv.state.list.items.size > {before}")
        self.wait(OPENED)
        self.settle()
        return self.value("xrv.state.pane.key")

    # ---- what must never be ----

    def complaints(self):
        """Errors of the console."""
        found = [e for e in self.driver.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]
        return [e["message"] for e in found if not EXPECTED.search(e["message"])]

    def strangers(self, origin):
        """Requests to other hosts, by the log of the browser."""
        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                address = message["params"]["request"]["url"]
                if not address.startswith((origin, "blob:", "data:", "about:")):
                    found.append(address)
        return found

    def axe(self):
        """Violations of accessibility that are serious or critical."""
        self.run(AXE.read_text("utf-8"))
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']})"
            ".then(r => done(r.violations.map(v => [v.impact, v.id, v.nodes.map(n => n.html + ' ' "
            "+ n.failureSummary)])))"
        )
        return [each for each in found if each[0] in ("serious", "critical")]

    def size(self, width, height, *, dark=False, mobile=False):
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 2 if mobile else 1,
             "mobile": mobile},
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.settle()


# What the server answers to a broken file is in the console of the browser too; that pixels are
# read back is the doing of these tests.
EXPECTED = re.compile(r"the server responded with a status of 422|willReadFrequently")
OPENED = (
    "xrv.state.pane.key && ((xrv.state.pane.plane && xrv.state.pane.findings)"
    " || !document.getElementById('gate').hidden)"
)
GIVE = """
const [how, files] = arguments, transfer = new DataTransfer();
for (const [name, text] of files) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  transfer.items.add(new File([bytes], name));
}
window.given = performance.now();
if (how === "paste") {
  dispatchEvent(new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true}));
} else {
  for (const type of ["dragover", "drop"])
    document.querySelector(".view").dispatchEvent(
      new DragEvent(type, {dataTransfer: transfer, bubbles: true, cancelable: true}));
}
"""


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("downloads"))
    yield browser
    browser.driver.quit()


@pytest.fixture(scope="module")
def files():
    """Every kind of file that a person may bring."""
    return {
        "chest.dcm": pages.chest_dicom(640, Effusion=0.8, Cardiomegaly=0.5),
        "chest16.png": pages.chest_png16(512, index=7, Pneumothorax=0.8),
        "chest.jpg": pages.chest_jpeg(512, index=14),
        "photograph.jpg": pages.photograph(),
        "broken.png": pages.chest_png16(64)[:300],
    }


@pytest.fixture(scope="module")
def served():
    made = Served()
    yield made
    made.close()


@pytest.fixture
def page(chromium, served):
    """A page without images; afterwards without complaints and without other hosts."""
    if chromium.driver.current_url.startswith(served.origin):
        chromium.driver.get(served.origin)
        chromium.wait("document.body.dataset.ready === 'yes'")
        chromium.run("return fetch('/api/images', {method: 'DELETE'})")
        chromium.driver.refresh()
        chromium.wait("document.body.dataset.ready === 'yes'")
    else:
        chromium.open(served)
    chromium.size(1280, 800)
    chromium.complaints()  # thumbnails that were asked for while images were removed
    yield chromium
    assert chromium.complaints() == []
    assert chromium.strangers(served.origin) == []
