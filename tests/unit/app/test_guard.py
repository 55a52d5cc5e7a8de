"""Whoever is not the one browser gets nothing, and nothing that is sent does harm."""

from __future__ import annotations

import io
import json
import logging
import re
import zipfile
import zlib
from pathlib import Path

import pytest

import torchxrayvision.app
from support import page as pages
from torchxrayvision.app import Access, is_loopback

pytest.importorskip("starlette")
STATIC = Path(torchxrayvision.app.__file__).parent / "static"
ASKED = (
    "/api/about", "/api/images", "/api/values", "/api/table.csv", "/api/table.json", "/api/read",
    "/api/images/0/facts", "/api/images/0/pixels",
)  # fmt: skip


@pytest.fixture(scope="module")
def nets():
    return pages.networks(segmenter=None)


def test_a_token_lets_in_one_browser_once(nets):
    access = Access("127.0.0.1", 8000)
    page = pages.client(nets, access, inside=False)
    assert page.get("/").status_code == 401
    token = access.new_address().partition("token=")[2]
    assert page.get("/?token=wrong").status_code == 401
    first = page.get(f"/?token={token}")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert page.get("/api/about").status_code == 200
    other = pages.client(nets, access, inside=False)
    assert other.get(f"/?token={token}").status_code == 401
    assert other.get("/api/about").status_code == 401


@pytest.mark.parametrize("path", ASKED)
def test_nothing_is_given_without_the_cookie(nets, path):
    page = pages.client(nets, inside=False)
    assert page.get(path).status_code == 401
    page.cookies.set("xrv-8000", "guess")
    assert page.get(path).status_code == 401


def test_a_closed_door_prints_a_new_address_but_shows_none(nets):
    asked = []
    page = pages.client(nets, inside=False, on_closed=lambda: asked.append(1))
    answer = page.get("/")
    assert asked == [1]
    assert "token" not in answer.text


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example:8000", "", "10.0.0.1:8000",
     "localhost.:8000"],
)  # fmt: skip
def test_another_name_of_the_host_is_refused(nets, host):
    page = pages.client(nets)
    for path in ("/", "/api/images", "/static/main.js"):
        assert page.get(path, headers={"host": host}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9000"},
        {"origin": "http://localhost:8000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_requests_of_other_pages_change_nothing(nets, headers):
    page = pages.client(nets)
    for method, path in (("POST", "/api/images"), ("DELETE", "/api/images"), ("POST", "/api/read"),
                         ("POST", "/api/examples"), ("POST", "/login")):  # fmt: skip
        answer = page.request(method, path, headers=headers, content=b"x")
        assert answer.status_code == 403, (method, path)
    if "sec-fetch-site" in headers:
        assert page.get("/api/table.csv", headers=headers).status_code == 403


def test_a_change_without_an_origin_is_refused(nets):
    page = pages.client(nets)
    del page.headers["origin"]
    assert page.post("/api/images", content=b"x").status_code == 403


@pytest.mark.parametrize(
    "path",
    ["/static/../server.py", "/static/%2e%2e/server.py", "/static/..%2fserver.py",
     "/static/%2fetc%2fpasswd", "/static/main.js/", "/static/main.js%00", "/static/",
     "/api/images/../../etc/passwd", "/api/images/%2e%2e%2fetc/pixels", "/api/table.exe"],
)  # fmt: skip
def test_paths_lead_nowhere_else(nets, path):
    answer = pages.client(nets).get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text
    assert "import" not in answer.text


def test_every_answer_has_the_headers(nets):
    page = pages.client(nets)
    for path in ("/", "/static/main.js", "/api/images", "/api/images/0/facts", "/nowhere"):
        headers = page.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        if path.startswith("/api"):
            assert headers["cache-control"] == "no-store"
    assert "set-cookie" not in page.get("/api/images").headers


def test_the_page_has_no_inline_code_and_names_no_other_host():
    for path in STATIC.iterdir():
        text = path.read_text("utf-8")
        found = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text)
        assert set(found) <= {"http://www.w3.org"}, (path.name, found)
        if path.suffix == ".html":
            assert not re.search(
                r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", text
            )
        if path.suffix == ".js":
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text
            )


def test_every_word_of_the_page_is_in_the_one_file():
    words = json.loads((STATIC / "words.json").read_text("utf-8"))

    def known(key):
        part = words
        for name in key.split("."):
            part = part.get(name) if isinstance(part, dict) else None
        return isinstance(part, str)

    used = set()
    for path in STATIC.iterdir():
        text = path.read_text("utf-8")
        used |= set(re.findall(r'data-(?:text|name|label|hint|tip)="([^"]+)"', text))
        used |= set(re.findall(r'\bsay\("([\w.-]+)"', text))
    assert len(used) > 100
    assert not {key for key in used if not known(key)}
    files = ("server.py", "answers.py", "guard.py")
    texts = "".join((STATIC.parent / name).read_text("utf-8") for name in files)
    codes = set(re.findall(r'refusal\(\d+, "([\w-]+)"', texts))
    codes |= set(re.findall(r'\b[45]\d\d, "([\w-]+)"', texts))
    assert codes >= {"too-large", "memory-full", "wrong-host", "no-access"}
    assert not {code for code in codes if not known(f"error.{code}")}


# ---- beyond loopback ----


def test_beyond_loopback_a_password_is_needed():
    for host in ("0.0.0.0", "192.168.1.7", "::", "reading-room"):
        assert not is_loopback(host)
        with pytest.raises(ValueError, match="password"):
            Access(host, 8000)
    assert Access("0.0.0.0", 8000, password="correct horse").has_password


def test_the_password_lets_in_and_guesses_are_slowed(nets):
    access = Access("192.168.1.7", 8000, password="correct horse")
    page = pages.client(nets, access, inside=False)
    page.headers |= {"host": "192.168.1.7:8000", "origin": "http://192.168.1.7:8000"}
    page.base_url = "http://192.168.1.7:8000"
    assert page.get("/login").json() == {"password": True}
    assert page.get("/api/images").status_code == 401
    for _ in range(6):
        assert page.post("/login", json={"password": "x"}).status_code == 401
    assert page.post("/login", json={"password": "correct horse"}).status_code == 401  # too soon
    access._next_try = 0.0
    assert page.post("/login", content=b"{" * 100_000).status_code == 401
    access._next_try = 0.0
    assert page.post("/login", json={"password": "correct horse"}).status_code == 200
    assert page.get("/api/images").status_code == 200
    assert page.get("/api/images", headers={"host": "rebound.example:8000"}).status_code == 421


# ---- limits ----


def test_a_file_above_the_limit_is_refused_before_and_while_it_comes(nets):
    page = pages.client(nets, largest=10_000)
    answer = page.post("/api/images", content=b"x" * 10_001, headers={"x-name": "a.png"})
    assert answer.status_code == 413

    answer = page.post("/api/images", content=_pieces(6, 4096), headers={"x-name": "a.png"})
    assert answer.status_code == 413
    assert page.get("/api/images").json()["used"] == 0


def _pieces(count, size):
    for _ in range(count):
        yield b"x" * size


def test_memory_is_counted_and_given_back(nets):
    data = pages.chest_png16(64)
    page = pages.client(nets, memory=3 * len(data))
    for number in range(3):
        pages.add(page, f"{number}.png", data)
    answer = page.post("/api/images", content=data, headers={"x-name": "4.png"})
    assert answer.status_code == 507
    assert "--memory" in answer.json()["error"]["detail"]
    assert page.get("/api/images").json()["used"] == 3 * len(data)


def test_a_zip_bomb_is_refused_within_the_memory(nets):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            archive.writestr(f"{number}.png", b"\x89PNG\r\n\x1a\n" + bytes(2**22))
    page = pages.client(nets, memory=2**25, largest=2**24)
    answer = page.post("/api/images", content=file.getvalue(), headers={"x-name": "b.zip"})
    assert answer.status_code == 507
    assert page.get("/api/images").json()["used"] <= 2**25
    large = io.BytesIO()
    with zipfile.ZipFile(large, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(2**25))
    answer = page.post("/api/images", content=large.getvalue(), headers={"x-name": "c.zip"})
    assert "above the limit" in answer.json()["images"][0]["message"]


def test_an_entry_that_lies_about_its_size_gives_no_more_than_it_says(nets):
    data = bytearray(pages.zipped(**{"a.png": bytes(10_000)}))
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = (100).to_bytes(4, "little")
    page = pages.client(nets)
    answer = page.post("/api/images", content=bytes(data), headers={"x-name": "l.zip"})
    assert answer.json()["images"][0]["state"] == "error"


def test_a_png_that_declares_too_much_is_refused(nets):
    head = b"\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x10\0\0\0\0"
    data = b"\x89PNG\r\n\x1a\n" + head + zlib.crc32(head[4:]).to_bytes(4, "big")
    page = pages.client(nets)
    (key,) = pages.add(page, "huge.png", data)
    answer = page.get(f"/api/images/{key}/facts")
    assert answer.status_code == 422
    assert "above the limit" in answer.json()["error"]["detail"]


def test_script_in_header_and_name_comes_out_as_text_only(nets):
    evil = "<script>alert(1)</script>"

    def change(dataset):
        dataset.PatientName = evil
        dataset.WindowCenterWidthExplanation = evil
        dataset.StudyDescription = evil

    page = pages.client(nets)
    (key,) = pages.add(page, f"{evil}.dcm", pages.chest_dicom(64, change=change))
    facts = page.get(f"/api/images/{key}/facts")
    assert facts.headers["content-type"] == "application/json"
    assert facts.json()["windows"][0]["name"] == evil  # as text; the page sets it as textContent
    assert facts.text.count("alert") == 1
    for path in ("/api/images", f"/api/images/{key}/findings", "/api/table.csv", "/api/table.json"):
        assert page.get(path).headers["content-type"].partition(";")[0] in (
            "application/json",
            "text/csv",
        )


def test_logs_and_addresses_name_no_patient(nets, caplog):
    secret = "Doe^Jane"

    def change(dataset):
        dataset.PatientName = secret

    page = pages.client(nets)
    with caplog.at_level(logging.DEBUG):
        (key,) = pages.add(page, f"{secret}.dcm", pages.chest_dicom(64, change=change))
        for what in ("facts", "pixels", "findings", "structures", "evidence?finding=Effusion"):
            answer = page.get(f"/api/images/{key}/{what}")
            assert secret not in str(answer.url)
        assert secret not in page.get(f"/api/images/{key}/facts").text
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
    assert not [text for text in ours if secret in text or "Jane" in text]


def test_fifty_clients_at_once_are_answered_or_told_to_wait(nets):
    from concurrent.futures import ThreadPoolExecutor

    page = pages.client(nets)
    (key,) = pages.add(page, "one.png", pages.chest_png16(256))

    def ask(number):
        what = ("facts", "pixels", "thumbnail", "findings", "evidence?finding=Effusion")[number % 5]
        return page.get(f"/api/images/{key}/{what}").status_code

    with ThreadPoolExecutor(50) as pool:
        codes = set(pool.map(ask, range(200)))
    assert codes <= {200, 503}
    assert 200 in codes
    assert page.get("/api/images").status_code == 200
