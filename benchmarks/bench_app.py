"""How fast is the page of `xrv app`, in a real browser on this machine?

Debian's chromium is driven by chromedriver against `xrv app --weights demo` in a process of its
own. Times are taken inside the page: from the drop of a file to the drawn image and the list of
findings, from the click on a map to its colours, between frames while a pointer drags the window
of an image of 2500 x 2048 in 16 bits, and between frames while a list of 5,000 images scrolls from
its first to its last one.

    python benchmarks/bench_app.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from browser.conftest import Browser, Served
from support import page as pages

ROUNDS = 5
SHAPE = (2500, 2048)
IMAGES = 5000
FRAMES = """
const done = arguments[arguments.length - 1], viewer = xrv.state.pane.viewer, gaps = [];
let last = performance.now(), left = 90;
viewer.dragging = true;
function frame() {
  const now = performance.now();
  gaps.push(now - last);
  last = now;
  if (!left--) { viewer.dragging = false; return done(gaps.slice(2)); }
  viewer.windowBy(left % 2 ? 6 : -5, left % 3 ? 4 : -7);
  requestAnimationFrame(frame);
}
requestAnimationFrame(frame);
"""
DRAW = """
const viewer = xrv.state.pane.viewer, times = [];
for (let i = 0; i < 30; i++) {
  const start = performance.now();
  viewer.view.high += 3;
  viewer.draw();
  times.push(performance.now() - start);
}
return times;
"""
SCROLL = """
const done = arguments[arguments.length - 1], box = document.getElementById("images"), gaps = [];
let last = performance.now(), step = 0;
const most = box.scrollHeight - box.clientHeight, steps = 240;
function frame() {
  const now = performance.now();
  gaps.push(now - last);
  last = now;
  if (step++ > steps) return done(gaps.slice(1));
  box.scrollTop = most * Math.min(1, step / steps);
  requestAnimationFrame(frame);
}
requestAnimationFrame(frame);
"""
WATCH = """
window.timed = {};
const look = () => {
  const {pane} = xrv.state, now = performance.now() - window.given;
  if (pane.key !== arguments[0] && pane.key) {
    if (pane.plane) timed.image ??= now;
    if (pane.findings && document.querySelector("#findings-body li")) timed.findings ??= now;
  }
  if (!timed.image || !timed.findings) requestAnimationFrame(look);
};
look();
"""


def large() -> bytes:
    """A simulated chest of 2500 x 2048 in 12 bits, as MONOCHROME1."""
    import numpy as np

    image = pages.chest(1024, Effusion=0.8).image[0]
    rows, columns = (np.arange(n) * 1024 // n for n in SHAPE)
    levels = np.rint((image[rows][:, columns] + 1024) * (4095 / 2048)).astype(np.uint16)

    def change(dataset: object) -> None:
        dataset.Rows, dataset.Columns = SHAPE
        dataset.PixelData = (4095 - levels).tobytes()

    return pages.chest_dicom(64, change=change)


def figures(values: list[float]) -> tuple[float, float]:
    return statistics.median(values), max(values)


def one_image(browser: Browser, served: Served, rows: list[tuple[str, str, str]]) -> None:
    interactive = []
    started = time.perf_counter()
    browser.driver.get(served.address)
    browser.wait("document.body.dataset.ready === 'yes'")
    interactive.append(time.perf_counter() - started)
    for _ in range(ROUNDS - 1):
        started = time.perf_counter()
        browser.driver.get(served.origin)
        browser.wait("document.body.dataset.ready === 'yes'")
        interactive.append(time.perf_counter() - started)
    rows.append(row("page interactive after its address was printed", interactive, "s", 1.0))
    browser.size(1280, 800)
    data, seen, found = large(), [], []
    for number in range(ROUNDS):
        browser.run(WATCH, browser.value("xrv.state.pane.key"))
        browser.give("drop", (f"{number}.dcm", data))
        browser.wait("window.timed.image && window.timed.findings")
        timed = browser.value("window.timed")
        seen.append(timed["image"] / 1000)
        found.append(timed["findings"] / 1000)
    rows.append(row("image of 2500 x 2048 drawn after its drop", seen, "s", None))
    rows.append(row("its findings listed after its drop", found, "s", 1.5))
    gaps = browser.driver.execute_async_script(FRAMES)
    rates = f"{1000 / statistics.median(gaps):.0f}, {1000 / max(gaps):.0f}"
    rows.append(("window and level, frames per second (median, slowest)", rates, "30"))
    rows.append(row("one frame drawn", [t / 1000 for t in browser.run(DRAW)], "s", None))
    heats = []
    for finding in ("Effusion", "Cardiomegaly", "Mass", "Nodule", "Edema"):
        started = time.perf_counter()
        browser.run("document.querySelector(`button.map[data-finding=${arguments[0]}]`).click()",
                    finding)  # fmt: skip
        browser.wait(f"xrv.state.pane.viewer.heat?.facts.finding === '{finding}'"
                     " && xrv.state.pane.viewer.heat.prepared !== undefined")  # fmt: skip
        heats.append(time.perf_counter() - started)
    rows.append(row("heat map", heats, "s", 1.0))


def folder_of_many(browser: Browser, folder: Path, rows: list[tuple[str, str, str]]) -> None:
    for number in range(8):
        (folder / f"{number:05d}.png").write_bytes(pages.chest_png16(512, index=7 * number))
    for number in range(8, IMAGES):
        os.link(folder / f"{number % 8:05d}.png", folder / f"{number:05d}.png")
    served = Served(str(folder))
    try:
        browser.open(served)
        browser.size(1280, 800)
        browser.wait(f"xrv.state.list.items.size === {IMAGES} && !xrv.state.list.listing")
        browser.wait("xrv.state.pane.plane && xrv.state.pane.findings")
        for name in ("longest pause while 5,000 images scroll by in 4 seconds", "the same again"):
            gaps = browser.driver.execute_async_script(SCROLL)
            rows.append((name, f"{max(gaps):.0f} ms", "100 ms"))
    finally:
        served.close()


def row(name: str, values: list[float], unit: str, target: float | None) -> tuple[str, str, str]:
    middle, most = figures(values)
    shown = f"{middle:.2f} {unit}, {most:.2f} {unit}"
    if most < 1:
        shown = f"{1000 * middle:.0f} ms, {1000 * most:.0f} ms"
    return f"{name} (median, slowest)", shown, "" if target is None else f"{target:g} {unit}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--baseline-python", help="Not used: 1.5.7 has no page.")
    parser.parse_known_args()
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as place:
        browser = Browser(Path(place))
        served = Served()
        try:
            one_image(browser, served, rows)
            served.close()
            folder = Path(place, "images")
            folder.mkdir()
            folder_of_many(browser, folder, rows)
        finally:
            browser.driver.quit()
    print("| what | measured | target |\n| --- | ---: | ---: |")
    for what, measured, target in rows:
        print(f"| {what} | {measured} | {target} |")


if __name__ == "__main__":
    main()
