"""The page, driven as a person would: files in, looking, reading, taking away."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest

import torchxrayvision as xrv
from browser.conftest import Served
from support import page as pages

KINDS = ["chest.dcm", "chest16.png", "chest.jpg"]


@pytest.fixture(scope="module")
def predicted(files, tmp_path_factory):
    """What `xrv predict` says of the same files."""
    folder = tmp_path_factory.mktemp("files")
    for name in KINDS:
        (folder / name).write_bytes(files[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = xrv.inference.predict([folder / name for name in KINDS], "demo", batch_size=1)
    return {Path(row["path"]).name: row for row in table.to_dict("records")}


# ---- images in ----


@pytest.mark.parametrize(
    ("name", "how"), [("chest.dcm", "drop"), ("chest16.png", "paste"), ("chest.jpg", "drop")]
)
def test_a_file_is_opened_and_read_in_words(page, files, predicted, name, how):
    page.add(name, files[name], how)
    row = predicted[name]
    outputs = {k: v for k, v in row.items() if isinstance(v, float)}
    above = [
        k.replace("_", " ") for k, v in sorted(outputs.items(), key=lambda i: -i[1]) if v >= 0.5
    ]
    shown = [e.text for e in page.all("#findings-body > ul .name")]
    assert shown == above
    words = [e.text for e in page.all("#findings-body > ul .words")]
    assert set(words) <= {"above the operating point", "just above the operating point"}
    folded = page.find("details.rest")
    assert folded.get_attribute("open") is None
    assert f"{16 - len(above)} findings below" in folded.text
    assert not [e for e in page.all("dd[data-fact=output]") if e.is_displayed()]
    # One click away: the numbers, to the last digit that is shown.
    page.click("details.rest > summary")
    for item in page.all("ul.findings li"):
        item.find_element("css selector", ".more > summary").click()
        finding = item.get_attribute("data-finding")
        shown = item.find_element("css selector", "dd[data-fact=output]").text
        assert shown == f"{row[finding]:.3f}"


def test_files_are_chosen_many_at_once(page, files, tmp_path):
    for name in KINDS:
        (tmp_path / name).write_bytes(files[name])
    page.find("#chooser").send_keys("\n".join(str(tmp_path / name) for name in KINDS))
    page.wait("xrv.state.list.items.size === 3")
    names = [e.text for e in page.all("#images .name")]
    assert names == KINDS
    page.wait("document.getElementById('status').textContent === '3 images were added'")


def test_a_zip_is_opened(page, files):
    page.give("drop", ("all.zip", pages.zipped(**{k: files[k] for k in KINDS[:2]})))
    page.wait("xrv.state.list.items.size === 2")
    page.wait("xrv.state.pane.plane && xrv.state.pane.findings")
    assert [e.text for e in page.all("#images .name")] == [
        "all.zip/chest.dcm",
        "all.zip/chest16.png",
    ]


def test_a_broken_file_says_what_to_do(page, files):
    page.add("broken.png", files["broken.png"])
    gate = page.text("#gate")
    assert "cannot be read" in gate
    assert "Export it again" in gate
    assert page.text("#findings-body") == ""


def test_a_photograph_is_shown_with_the_reason_and_read_only_when_asked(page, files):
    page.add("photograph.jpg", files["photograph.jpg"])
    assert "does not look like a frontal chest radiograph" in page.text("#gate")
    assert "The screening says: " in page.text("#gate")
    assert page.value("xrv.state.pane.plane.width") == 400
    assert page.all("ul.findings li") == []
    page.click("#anyway")
    page.wait("document.querySelectorAll('ul.findings li').length === 16")
    assert page.text(".mark-anyway") == "Read although the screening refuses it"
    assert "These outputs may mean nothing" in page.text("#gate")


def test_script_in_names_and_headers_is_text(page):
    evil = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"

    def change(dataset):
        dataset.WindowCenterWidthExplanation = evil[:60]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no valid value, which is the point
            dataset.ViewPosition = "<b>PA</b>"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pages.chest_dicom(128, change=change)
    page.add(f"{evil}.dcm".replace("/", "|"), data)
    for name in ("#anatomy", "#header", "#take"):
        page.click(f"{name} > summary")
    page.wait("document.querySelector('#header dd')")
    assert page.value("window.hacked") is None
    assert page.all("#header b, #images img, #preset img") == []
    assert "onerror" in page.text("#images")


def test_the_simulated_examples_need_no_file(page):
    page.click("#empty-example")
    page.wait("xrv.state.list.items.size === 3 && xrv.state.pane.plane && xrv.state.pane.findings")
    assert "Effusion" in page.text("#findings-body")


# ---- looking ----


def view(page):
    return page.value("xrv.state.pane.viewer.view")


def test_dragging_and_keys_do_what_pacs_viewers_do(page, files):
    page.add("chest.dcm", files["chest.dcm"])
    first = view(page)
    page.drag((80, 0))
    wider = view(page)
    assert wider["high"] - wider["low"] > first["high"] - first["low"]
    assert page.value("document.getElementById('preset').value") == "own"
    page.drag((0, 60))
    assert view(page)["high"] != wider["high"]
    page.keys("i")
    assert view(page)["invert"]
    assert page.find("#invert").get_attribute("aria-pressed") == "true"
    page.keys("r")
    assert view(page)["turns"] == 1
    page.keys("R")
    assert view(page)["turns"] == 0
    page.keys("+", "+")
    zoomed = view(page)["zoom"]
    assert zoomed == pytest.approx(1.25**2)
    page.keys("p")
    page.drag((50, 30))
    assert view(page)["x"] < 0.5
    page.keys("z")
    page.drag((0, -60))
    assert view(page)["zoom"] > zoomed
    page.keys("1")
    assert page.value("xrv.state.pane.viewer.scale") == pytest.approx(1)
    page.keys("0")
    assert view(page) == first
    page.run(
        "document.querySelector('.pane canvas').dispatchEvent(new WheelEvent('wheel',"
        " {deltaY: -400, clientX: 500, clientY: 400, bubbles: true, cancelable: true}))"
    )
    assert view(page)["zoom"] > 1.5
    page.keys("f")
    assert view(page)["zoom"] == 1


def test_presets_come_from_the_header(page):
    def change(dataset):
        dataset.WindowCenter, dataset.WindowWidth = [1000, 2600], [801, 1001]
        dataset.WindowCenterWidthExplanation = ["LUNGS", "BONES"]

    page.add("windows.dcm", pages.chest_dicom(256, change=change))
    options = [o.text for o in page.all("#preset option")]
    assert options[1:5] == ["LUNGS", "BONES", "Automatic", "Full range"]
    assert page.value("document.getElementById('preset').selectedOptions[0].text") == "LUNGS"
    assert page.text("[data-hud=window]").split() == ["W", "800", "L", "1000"]
    page.find("#preset").send_keys("BONES")
    assert page.text("[data-hud=window]").split() == ["W", "1000", "L", "2600"]


def test_the_ruler_measures_millimetres(page):
    def change(dataset):
        dataset.PixelSpacing = dataset.ImagerPixelSpacing = [0.5, 0.5]

    page.add("chest.dcm", pages.chest_dicom(512, change=change))
    page.keys("m")
    page.drag((120, 90), start=(-60, -40))
    (ruler,) = page.value("xrv.state.pane.viewer.rulers")
    scale = page.value("xrv.state.pane.viewer.scale")
    length = page.value("xrv.state.pane.viewer.lengthOf(arguments[0], arguments[1])",
                        ruler["from"], ruler["to"])  # fmt: skip
    assert float(length.removesuffix(" mm")) == pytest.approx(150 / scale * 0.5, abs=1)
    page.add("chest.jpg", pages.chest_jpeg(256))
    page.keys("m")
    page.drag((100, 0))
    (ruler,) = page.value("xrv.state.pane.viewer.rulers")
    assert page.value(
        "xrv.state.pane.viewer.lengthOf(arguments[0], arguments[1])", ruler["from"], ruler["to"]
    ).endswith(" pixels")


def test_two_images_zoom_together_and_apart(page, files):
    for name in KINDS[:2]:
        page.add(name, files[name])
    page.keys("d")
    page.wait("xrv.state.panes[1]?.plane")
    page.keys("+", "+", "+")
    zooms = page.value("xrv.state.panes.map(p => p.viewer.view.zoom)")
    assert zooms[0] == zooms[1] > 1
    page.click("#link")
    page.keys("+")
    zooms = page.value("xrv.state.panes.map(p => p.viewer.view.zoom)")
    assert zooms[0] != zooms[1]
    page.drag((5, 0), pane=1)
    assert page.value("xrv.state.active") == 1
    page.wait("document.querySelector('ul.findings li')")
    page.keys("d")
    assert page.value("xrv.state.active") == 0


def test_the_magnifier_shows_more_of_less(page, files):
    page.add("chest.dcm", files["chest.dcm"])
    before = grey_at(page, 0.42, 0.42)
    page.keys("g")
    page.drag((4, 4), up=False)
    assert page.value("xrv.state.pane.viewer.lens !== null")
    assert grey_at(page, 0.42, 0.42) is not before
    page.driver.execute_cdp_cmd(
        "Input.dispatchMouseEvent", {"type": "mouseReleased", "x": 500, "y": 400, "button": "left"}
    )


def grey_at(page, x, y):
    """The colour on the canvas of a place of the image, as shares of its width and height."""
    return page.value(
        "(() => { const v = xrv.state.pane.viewer; v.draw();"
        " const p = v.matrix().transformPoint({x: arguments[0] * v.plane.width,"
        " y: arguments[1] * v.plane.height});"
        " return [...v.context.getImageData(Math.floor(p.x), Math.floor(p.y), 1, 1).data]; })()"
        .replace("arguments[0]", str(x)).replace("arguments[1]", str(y))
    )  # fmt: skip


# ---- pixels of the canvas ----


def flat_dicom(rows=300, columns=200, aspect=None, inverted=True):
    """Four quarters of known values, stored with white as 0 if inverted."""
    levels = np.zeros((rows, columns), np.uint16)
    levels[: rows // 2, : columns // 2] = 400
    levels[: rows // 2, columns // 2 :] = 1400
    levels[rows // 2 :, : columns // 2] = 2400
    levels[rows // 2 :, columns // 2 :] = 3400

    def change(dataset):
        dataset.Rows, dataset.Columns = rows, columns
        dataset.PixelData = levels.tobytes()
        dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
        if aspect:
            dataset.PixelSpacing = dataset.ImagerPixelSpacing = [0.2 * aspect, 0.2]

    return pages.chest_dicom(64, inverted=inverted, change=change)


@pytest.mark.parametrize("inverted", [True, False])
@pytest.mark.parametrize("aspect", [None, 2.0])
def test_greys_lie_where_the_stored_values_are(page, inverted, aspect):
    page.add("flat.dcm", flat_dicom(aspect=aspect, inverted=inverted))
    for turns in range(4):
        for invert in (False, True):
            page.run("xrv.state.pane.viewer.change({turns: arguments[0], invert: arguments[1]})",
                     turns, invert)  # fmt: skip
            for (x, y), level in {(0.25, 0.25): 400, (0.75, 0.25): 1400, (0.25, 0.75): 2400,
                                  (0.75, 0.75): 3400}.items():  # fmt: skip
                grey = round(255 * level / 4095)
                grey = 255 - grey if inverted != invert else grey
                assert grey_at(page, x, y)[0] == pytest.approx(grey, abs=1)
    page.run("xrv.state.pane.viewer.change({turns: 0})")
    low = page.value("xrv.state.pane.viewer.matrix()")
    assert low["d"] / low["a"] == pytest.approx(aspect or 1)
    assert page.value("xrv.state.pane.plane.valueAt(150, 200)") == 3400


def shifted_chest(shape):
    """A chest that is no square: bands of air at its sides, of which the network sees none."""
    image = pages.chest(320, Effusion=0.8).image[0]
    rows, columns = shape
    wide = np.full(shape, -1024.0, np.float32)
    top, left = (rows - 320) // 2, (columns - 320) // 2
    wide[top : top + 320, left : left + 320] = image
    return wide


def png(image):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.rint((image + 1024) * (65535 / 2048)).astype(np.uint16)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("shape", [(320, 480), (520, 320), (320, 320)])
@pytest.mark.parametrize("turns", [0, 1, 3])
def test_heat_and_outlines_lie_where_they_belong(page, shape, turns, tmp_path):
    data = png(shifted_chest(shape))
    page.add("shape.png", data)
    path = tmp_path / "shape.png"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = xrv.models.get_model("demo")
        found = xrv.explain.explain_file(path, model, "Effusion")
        net = xrv.segmentation.get_segmenter("demo-anatomy")
        (masks,) = xrv.segmentation.segment([path], net)
    page.run("document.getElementById('opacity').value = 100; "
             "document.getElementById('contour').checked = false;"
             "document.querySelector('[data-finding=Effusion] button.map').click()")  # fmt: skip
    page.wait("xrv.state.pane.viewer.heat?.prepared")
    page.run("xrv.state.pane.viewer.change({turns: arguments[0]})", turns)
    page.run("document.getElementById('opacity').dispatchEvent(new Event('input'))")
    page.settle()
    page.run("document.querySelector('.pane canvas').blur()")
    limit = found.limit
    heat = found.heat
    checked = 0
    for y, x in np.argwhere(np.ones((9, 9))):
        row, column = ((np.array([y, x]) + 0.5) / 9 * heat.shape).astype(int)
        red, green, blue, _ = grey_at(page, (column + 0.5) / shape[1], (row + 0.5) / shape[0])
        coloured = max(red, green, blue) - min(red, green, blue) > 8
        near = heat[max(0, row - 4) : row + 5, max(0, column - 4) : column + 5]
        if np.isnan(near).all() or np.nanmax(near) < 0.08 * limit:
            assert not coloured, (row, column)
            checked += 1
        elif not np.isnan(near).any() and np.nanmin(near) > 0.15 * limit:
            assert coloured, (row, column)
            checked += 1
    assert checked > 30
    row, column = found.peak
    assert page.value("xrv.state.pane.viewer.heat.facts.peak") == [column, row]
    page.click("#evidence-off")
    page.keys("a")
    page.wait("xrv.state.pane.viewer.structures")
    inside = page.value(
        "(() => { const s = xrv.state.pane.viewer.structures, c = new OffscreenCanvas(1, 1)"
        ".getContext('2d'); const out = {}; for (const p of s.parts) { out[p.name] = [];"
        f" for (let y = 0; y < {shape[0]}; y += 7) for (let x = 0; x < {shape[1]}; x += 7)"
        " out[p.name].push(c.isPointInPath(p.path, x + .5, y + .5, 'evenodd')); } return out; })()"
    )
    for name, points in inside.items():
        mask = masks.masks[name][::7, ::7].ravel()
        assert np.mean(mask != np.array(points)) < 0.004, name
        assert mask.any()


def test_the_numbers_of_measures_and_maps_are_those_of_the_commands(page, files, tmp_path):
    page.add("chest.dcm", files["chest.dcm"])
    path = tmp_path / "chest.dcm"
    path.write_bytes(files["chest.dcm"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (found,) = xrv.segmentation.segment([path], "demo-anatomy")
        full = xrv.explain.evidence_scale(xrv.models.get_model("demo"), "Effusion")
    page.click("#anatomy > summary")
    page.wait("document.querySelector('[data-measure=ratio]')")
    measured = found.measures()
    shown = {e.get_attribute("data-measure"): e.text for e in page.all("[data-measure]")}
    across = found.pixel_spacing[1]
    assert shown["ratio"] == f"{measured['cardiothoracic_ratio']:.2f}"
    for name in ("heart_width", "thorax_width", "spine_heart_distance"):
        assert shown[name] == f"{measured[name] * across:.1f} mm"
    areas = dict(row.text.rsplit(" ", 2)[:2] for row in page.all("#anatomy tbody tr"))
    for name, mask in found.masks.items():
        assert areas[name] == f"{xrv.measures.area(mask, found.pixel_spacing) / 100:.1f}"
    page.click("button.map[data-finding=Effusion]")
    page.wait("xrv.state.pane.viewer.heat")
    page.wait("document.getElementById('legend-top').textContent")
    assert page.text("#legend-top").startswith(f"{full:.3g}")
    assert page.find("#evidence-title").text == "Heat map: Effusion"


def test_weak_evidence_gets_no_colour(page, files):
    page.add("chest.dcm", files["chest.dcm"])
    page.click("button.map[data-finding=Effusion]")
    page.wait("xrv.state.pane.viewer.heat?.prepared")
    column, row = page.value("xrv.state.pane.viewer.heat.facts.peak")
    strong = grey_at(page, (column + 0.5) / 640, (row + 0.5) / 640)
    assert max(strong[:3]) - min(strong[:3]) > 8
    # As where the server says that a map is too weak: its limit is 0.
    page.run("const h = xrv.state.pane.viewer.heat; h.prepare(xrv.state.about.colours, 0)")
    none = grey_at(page, (column + 0.5) / 640, (row + 0.5) / 640)
    assert max(none[:3]) == min(none[:3])


# ---- taking away ----


def test_tables_pictures_and_objects_are_saved(page, files, predicted):
    page.add("chest.dcm", files["chest.dcm"])
    page.click("#take > summary")
    page.click("#take-csv")
    text = saved(page, "findings.csv").decode()
    assert "chest.dcm" in text
    assert f",{np.float32(predicted['chest.dcm']['Effusion'])!s}," in text
    page.click("#take-json")
    told = json.loads(saved(page, "findings.json"))
    assert told["models"][0]["images"][0]["path"] == "chest.dcm"
    page.click("#take-png")
    assert saved(page, "chest.view.png").startswith(b"\x89PNG")
    page.click("#take-objects")
    name = page.wait(
        "(document.getElementById('take-note').textContent.match(/sr-\\S+dcm/) || [])[0]"
    )
    made = pydicom.dcmread(io.BytesIO(saved(page, name)))
    assert made.Modality == "SR"


def saved(page, name):
    import time

    for _ in range(400):
        path = page.downloads / name
        if path.exists():
            data = path.read_bytes()
            path.unlink()
            return data
        time.sleep(0.05)
    raise AssertionError(f"{name} was not saved: {list(page.downloads.iterdir())}")


def test_the_report_is_one_page(page, files):
    page.add("chest.dcm", files["chest.dcm"])
    page.keys("a")
    page.wait("xrv.state.pane.viewer.structures")
    page.run("window.print = () => { window.printed = true; }")
    page.click("#take > summary")
    page.click("#take-report")
    assert page.value("window.printed")
    printed = page.driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    import base64

    pdf = base64.b64decode(printed["data"])
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") <= 1
    report = page.value("document.getElementById('report').textContent")
    for words in ("Not a medical device", "resnet18-res144-demo", "Effusion",
                  "Cardiothoracic ratio", "Not signed by a physician"):  # fmt: skip
        assert words in report


# ---- for everyone ----


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_axe_finds_nothing_serious(page, files, dark, width, height):
    phone = width < 500
    page.size(width, height, dark=dark, mobile=phone)
    assert page.axe() == []
    page.add("chest.dcm", files["chest.dcm"])
    page.run("for (const d of document.querySelectorAll('aside details')) d.open = true")
    page.wait("document.querySelector('[data-measure=ratio]')")
    page.run("document.querySelector('button.map').click()")
    page.wait("xrv.state.pane.viewer.heat?.prepared")
    for tab in ("list", "view", "read") if phone else ("view",):
        page.run("document.body.dataset.tab = arguments[0]", tab)
        page.settle()
        assert page.axe() == []
        assert page.value("document.documentElement.scrollWidth <= innerWidth")
    page.add("photograph.jpg", files["photograph.jpg"])
    for name in () if phone else ("about", "keys"):
        page.run("document.getElementById(arguments[0]).showModal()", name)
        assert page.axe() == []
        page.run("document.getElementById(arguments[0]).close()", name)


def test_everything_is_reached_with_the_keyboard(page, files):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    for name in KINDS:
        page.add(name, files[name])
    page.run("document.activeElement.blur()")
    reached = set()
    for _ in range(80):
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        reached.add(page.run(
            "const e = document.activeElement;"
            "return e.id || e.className || e.dataset.tool || e.tagName"))  # fmt: skip
    expected = {"add", "theme", "about-button", "search", "sort", "filter", "images", "invert",
                "rotate", "fit", "preset", "layout", "remove", "CANVAS", "small map"}  # fmt: skip
    assert expected <= reached
    page.run("document.getElementById('images').focus()")
    ActionChains(page.driver).send_keys(Keys.HOME).perform()
    page.wait("xrv.state.pane.name === 'chest.dcm'")
    ActionChains(page.driver).send_keys(Keys.ARROW_DOWN).perform()
    page.wait("xrv.state.pane.name === 'chest16.png'")
    current = page.value("document.getElementById('images').getAttribute('aria-activedescendant')")
    assert page.find(f"#{current}").get_attribute("aria-selected") == "true"
    page.keys(Keys.PAGE_DOWN)
    page.wait("xrv.state.pane.name === 'chest.jpg' && xrv.state.pane.plane")
    page.run("document.querySelector('.pane canvas').focus()")
    before = view(page)
    shift = ActionChains(page.driver).key_down(Keys.SHIFT)
    shift.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_UP).key_up(Keys.SHIFT).perform()
    assert view(page)["high"] != before["high"]
    page.keys("h")
    page.wait("xrv.state.pane.viewer.heat?.prepared")
    page.keys("?")
    assert page.value("document.getElementById('keys').open")
    ActionChains(page.driver).send_keys(Keys.ESCAPE).perform()
    page.keys(Keys.DELETE)
    page.wait("xrv.state.list.items.size === 2")


def test_the_page_says_who_made_the_numbers(page):
    page.click("#about-button")
    text = page.text("#about-body")
    for words in ("Not a medical device", "resnet18-res144-demo", "SHA-256", "nih", "Apache-2.0"):
        assert words in text
    page.click("#about [data-close]")
    assert "Not a medical device" in page.text(".caution-long")


def test_the_theme_is_chosen_and_kept(page):
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.value(paper)
    page.click("#theme")
    dark = page.value(paper)
    assert dark != light
    page.driver.refresh()
    page.wait("document.body.dataset.ready === 'yes'")
    assert page.value(paper) == dark
    page.click("#theme")
    assert page.value(paper) == light
    page.run("localStorage.clear()")


def test_a_server_that_ended_is_said(chromium):
    served = Served()
    chromium.open(served)
    served.close()
    chromium.give("drop", ("a.png", pages.chest_png16(64)))
    chromium.wait("document.querySelector('.alert')")
    assert "start it again" in chromium.text("#alerts")
    chromium.complaints()
    chromium.driver.get("about:blank")


def test_a_folder_is_browsed_read_sorted_and_filtered(chromium, tmp_path):
    for index in range(6):
        data = pages.chest_png16(128, index=7 * index, Effusion=0.9 if index % 2 else 0.0)
        (tmp_path / f"{index}.png").write_bytes(data)
    served = Served(str(tmp_path))
    chromium.strangers("")  # those of the page before
    try:
        chromium.open(served)
        chromium.size(1280, 800)
        chromium.wait("xrv.state.list.items.size === 6")
        chromium.wait(OPENED_FIRST)
        chromium.wait("document.getElementById('read-all-button').textContent.includes('5 unread')")
        chromium.click("#read-all-button")
        chromium.wait("[...xrv.state.list.items.values()].every(i => i.state === 'read')", 60)
        chromium.run("const s = document.getElementById('sort'); s.value = 'Effusion';"
                     "s.dispatchEvent(new Event('change'))")  # fmt: skip
        chromium.wait("document.querySelector('#images .state').textContent.startsWith('Effusion')")
        shown = [float(e.text.split()[-1]) for e in in_order(chromium, ".state")]
        assert shown == sorted(shown, reverse=True)
        chromium.run("const f = document.getElementById('filter'); f.value = '=Effusion';"
                     "f.dispatchEvent(new Event('change'))")  # fmt: skip
        chromium.settle()
        chromium.wait("xrv.state.list.shown.length < 6")
        assert all(float(e.text.split()[-1]) >= 0.5 for e in in_order(chromium, ".state"))
        chromium.run("const f = document.getElementById('filter'); f.value = 'all';"
                     "f.dispatchEvent(new Event('change'))")  # fmt: skip
        chromium.find("#search").send_keys("3")
        chromium.wait("xrv.state.list.shown.length === 1")
        chromium.click("#similar > summary")
        chromium.wait("document.querySelectorAll('.alike li').length === 5")
        assert chromium.complaints() == []
        assert chromium.strangers(served.origin) == []
    finally:
        served.close()
        chromium.driver.get("about:blank")


OPENED_FIRST = "xrv.state.pane.plane && xrv.state.pane.findings"


def in_order(page, selector):
    rows = sorted(page.all("#images [role=option]"), key=lambda row: row.location["y"])
    return [row.find_element("css selector", selector) for row in rows]
