"""Take the picture of `xrv app` that README and docs/app.md show, in Debian's chromium.

python tools/page_picture.py            # docs/images/app.jpg

Three simulated radiographs, the demonstration networks, the heat map of an effusion.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser.conftest import OPENED, Browser, Served  # noqa: E402
from support import page as pages  # noqa: E402

# The last one that is given is the one that is shown.
FILMS = {
    "simulated-without-finding.dcm": {},
    "simulated-pneumothorax.dcm": {"Pneumothorax": 0.6},
    "simulated-effusion.dcm": {"Effusion": 0.8, "Cardiomegaly": 0.5},
}


def main(arguments: list[str] | None = None) -> int:
    """Open the page, give it the films, show the heat map, take the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images/app.jpg")
    options = parser.parse_args(arguments)
    if shutil.which("chromedriver") is None:
        print("no chromedriver: apt install chromium-driver")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        served, browser = Served(), Browser(Path(folder))
        try:
            browser.open(served)
            browser.size(1280, 800, dark=True)
            for index, (name, findings) in enumerate(FILMS.items()):
                browser.add(name, pages.chest_dicom(640, index=index, **findings))
            browser.wait(OPENED)
            browser.click("button.map[data-finding=Effusion]")
            browser.wait("xrv.state.pane.viewer.heat?.prepared")
            # What the page just said ("... opened") fades out at its bottom.
            browser.wait("getComputedStyle(document.getElementById('status')).opacity === '0'")
            browser.settle()
            shot = browser.driver.get_screenshot_as_png()
        finally:
            browser.driver.quit()
            served.close()
    Image.open(io.BytesIO(shot)).convert("RGB").save(options.out, quality=88, optimize=True)
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
