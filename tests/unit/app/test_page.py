"""Images in, the gate, the folder, similar images, DICOM objects."""

from __future__ import annotations

import io
import time
import zipfile

import pydicom
import pytest

from support import page as pages

pytest.importorskip("starlette")


@pytest.fixture(scope="module")
def nets():
    return pages.networks()


@pytest.fixture
def page(nets):
    return pages.client(nets)


def test_the_page_and_its_parts_are_there(page):
    index = page.get("/")
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    for name in ("main.js", "app.css", "icons.svg"):
        media = kinds[name.partition(".")[2]]
        answer = page.get(f"/static/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(media)


def test_a_photograph_is_shown_with_the_reason_and_read_when_asked(page):
    (key,) = pages.add(page, "holiday.jpg", pages.photograph())
    answer = page.get(f"/api/images/{key}/findings").json()
    assert answer["refused"]
    assert answer["findings"] is None
    assert "holiday.jpg" in page.get("/api/table.csv").text
    assert "refused: " in page.get("/api/table.csv").text
    (item,) = page.get("/api/images").json()["images"]
    assert item["state"] == "refused"
    assert item["message"] == answer["refused"]
    assert page.get("/api/values").json()["values"] == {}
    again = page.get(f"/api/images/{key}/findings", params={"anyway": 1}).json()
    assert again["forced"]
    assert len(again["findings"]) == 16
    assert page.get("/api/table.csv").text.splitlines()[1].endswith(",yes")


def test_a_zip_gives_its_images_and_says_what_is_broken(page):
    good = pages.chest_png16(64)
    data = pages.zipped(
        **{"a/1.png": good, "a/2.png": good[:200], "notes.txt": b"x", ".hid.png": good}
    )
    answer = page.post("/api/images", content=data, headers={"x-name": "all.zip"})
    names = [item["name"] for item in answer.json()["images"]]
    assert names == ["all.zip/a/1.png", "all.zip/a/2.png"]
    answer = page.post("/api/images", content=pages.zipped(a=b"x"), headers={"x-name": "none.zip"})
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "cannot-read"


def test_a_broken_file_says_why_everywhere(page):
    (key,) = pages.add(page, "cut.png", pages.chest_png16(64)[:300])
    for what in ("facts", "pixels", "thumbnail", "evidence?finding=Effusion"):
        answer = page.get(f"/api/images/{key}/{what}")
        assert answer.status_code == 422, what
        assert answer.json()["error"]["detail"]
    assert page.get(f"/api/images/{key}/findings").json()["error"]
    assert page.get(f"/api/images/{key}/structures").json()["error"]


def test_a_name_is_shown_as_text_and_without_folders(page):
    (key,) = pages.add(
        page, "../../etc/<img src=x onerror=alert(1)>\x1b.png", pages.chest_png16(64)
    )
    (item,) = page.get("/api/images").json()["images"]
    assert item["name"] == "<img src=x onerror=alert(1)>\\x1b.png"
    assert item["key"] == key


def test_removed_images_are_gone_and_give_their_memory_back(page):
    first, second = (pages.add(page, f"{n}.png", pages.chest_png16(64))[0] for n in range(2))
    used = page.get("/api/images").json()["used"]
    page.delete(f"/api/images/{first}")
    assert page.get(f"/api/images/{first}/facts").status_code == 404
    assert page.get("/api/images").json()["used"] == used // 2
    page.delete("/api/images")
    assert page.get("/api/images").json()["used"] == 0
    assert page.get(f"/api/images/{second}/facts").status_code == 404


def test_a_folder_is_listed_read_sorted_and_compared(nets, tmp_path):
    for index in range(5):
        (tmp_path / f"{index}.png").write_bytes(pages.chest_png16(128, index=7 * index))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "same.png").write_bytes((tmp_path / "0.png").read_bytes())
    page = pages.client(nets, folder=tmp_path, batch_size=4)
    listed = wait(lambda: page.get("/api/images").json(), lambda found: not found["listing"])
    names = {item["name"]: item["key"] for item in listed["images"]}
    assert list(names) == ["0.png", "1.png", "2.png", "3.png", "4.png", "broken.png", "same.png"]
    assert listed["used"] == 0
    assert page.get("/api/images", params={"since": listed["changes"]}).json().get("images") is None
    page.post("/api/read")
    done = wait(lambda: page.get("/api/read").json(), lambda found: not found["running"])
    assert done["done"] == done["total"] == 7
    states = {item["name"]: item["state"] for item in page.get("/api/images").json()["images"]}
    assert states["broken.png"] == "error"
    assert states["0.png"] == "read"
    values = page.get("/api/values").json()
    assert len(values["values"]) == 6
    alike = page.get(f"/api/images/{names['0.png']}/similar").json()
    assert alike["read"] == 5
    assert alike["images"][0] == {"key": names["same.png"], "cosine": pytest.approx(1)}
    cosines = [image["cosine"] for image in alike["images"]]
    assert cosines == sorted(cosines, reverse=True)
    small = page.get(f"/api/images/{names['1.png']}/thumbnail")
    assert small.headers["content-type"] == "image/jpeg"


def wait(ask, enough):
    for _ in range(600):
        found = ask()
        if enough(found):
            return found
        time.sleep(0.05)
    raise AssertionError(found)


def test_dicom_objects_belong_to_the_study(page):
    pytest.importorskip("highdicom")
    data = pages.chest_dicom(256, Effusion=0.8)
    source = pydicom.dcmread(io.BytesIO(data))
    (key,) = pages.add(page, "one.dcm", data)
    one = page.get(f"/api/images/{key}/dicom", params={"kinds": "sr"})
    assert one.headers["content-type"] == "application/dicom"
    made = pydicom.dcmread(io.BytesIO(one.content))
    assert made.Modality == "SR"
    assert made.StudyInstanceUID == source.StudyInstanceUID
    several = page.get(f"/api/images/{key}/dicom", params={"kinds": "sr,sc,seg,nonsense"})
    with zipfile.ZipFile(io.BytesIO(several.content)) as archive:
        kinds = {name.partition("-")[0] for name in archive.namelist()}
    assert kinds == {"sr", "sc", "seg"}
    assert page.post(f"/api/images/{key}/dicom", params={"kinds": "sr"}).status_code == 404
    (other,) = pages.add(page, "one.png", pages.chest_png16(64))
    assert page.get(f"/api/images/{other}/dicom", params={"kinds": "sr"}).status_code == 422


def test_simulated_examples_are_read(page):
    keys = [item["key"] for item in page.post("/api/examples").json()["images"]]
    answer = page.get(f"/api/images/{keys[0]}/findings").json()
    assert answer["check"] == "ok"
    assert page.get(f"/api/images/{keys[1]}/facts").json()["inverted"]


def test_upright_measures_put_the_lines_back_into_the_rotated_image(nets):
    import numpy as np
    from PIL import Image

    image = pages.chest(256).image[0]
    lines = []
    for turns in range(4):
        turned = np.rot90(image, turns)
        file = io.BytesIO()
        Image.fromarray(np.rint((turned + 1024) / 8.04).astype(np.uint8)).save(file, "PNG")
        page = pages.client(nets)
        (key,) = pages.add(page, "turned.png", file.getvalue())
        told = page.get(f"/api/images/{key}/structures", params={"upright": 1}).json()
        assert told["turned"] == (-90 * turns) % 360
        (x, y), _ = told["lines"]["thorax"]
        for _ in range(turns):  # back from the turned image to the upright one
            x, y = 256 - y, x
        lines.append((x, y))
    assert np.ptp(np.array(lines), axis=0).max() <= 2


@pytest.mark.parametrize("name", ["densenet", "model=-1", "model=9", "model=%00"])
def test_a_wrong_network_is_named(page, name):
    query = name if "=" in name else f"model={name}"
    answer = page.get(f"/api/values?{query}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown-name"
