"""What is in the cache: environment, pins, trust on first use, verification, offline work."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from support.file_server import (
    CONTENT,
    NAME,
    OTHER,
    UNKNOWN,
    UNREACHABLE,
    Step,
    fetch,
    remote_file,
)
from torchxrayvision import remote
from torchxrayvision.errors import (
    ChecksumError,
    ChecksumWarning,
    DownloadError,
    OfflineError,
    UnpinnedDownloadWarning,
)
from torchxrayvision.remote.transfer import (
    SourceFailure,
    failure_of_error,
    failure_of_status,
    next_address,
)

PAGE = b"<html><body>404</body></html>"
REPORTED = {"certainty": "reported"}


def place(cache, content, name=NAME):
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / name
    path.write_bytes(content)
    return path


def pins(cache):
    return json.loads((cache / "pins.json").read_text())["files"]


# --- environment


def test_cache_folder_is_that_of_1_5_7_by_default(monkeypatch):
    monkeypatch.delenv("XRV_CACHE_DIR")
    assert remote.cache_dir() == Path.home() / ".torchxrayvision" / "models_data"


def test_cache_folder_is_read_from_the_environment_at_each_call(monkeypatch, tmp_path):
    for name in ("one", "two"):
        monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / name))
        assert remote.cache_dir() == tmp_path / name
    monkeypatch.setenv("XRV_CACHE_DIR", "~/weights")
    assert remote.cache_dir() == Path.home() / "weights"


@pytest.mark.parametrize(
    ("value", "offline"),
    [("1", True), ("true", True), (" YES ", True), ("on", True), ("0", False), ("", False)],
)
def test_offline_switch(monkeypatch, value, offline):
    monkeypatch.setenv("XRV_OFFLINE", value)
    assert remote.is_offline() is offline


def test_public_fetch_uses_the_cache_of_the_environment(server):
    path = remote.fetch(remote_file())
    assert path == remote.cache_dir() / NAME
    assert remote.locate(remote_file()) == path
    assert remote.verify(path, remote_file()).status == "published"


def test_public_fetch_takes_a_cache_folder(server, tmp_path):
    assert remote.fetch(remote_file(), cache=str(tmp_path / "a")).parent == tmp_path / "a"
    assert remote.locate(remote_file(), cache=tmp_path / "b") is None


# --- mirrors


def test_folder_mirror_needs_no_network(monkeypatch, tmp_path, cache):
    place(tmp_path / "my mirror", CONTENT)
    monkeypatch.setenv("XRV_OFFLINE", "1")
    for value in (str(tmp_path / "my mirror"), (tmp_path / "my mirror").as_uri()):
        monkeypatch.setenv("XRV_MIRROR", value)
        assert fetch(cache).read_bytes() == CONTENT
        (cache / NAME).unlink()


def test_mirrors_are_tried_in_their_order(server, monkeypatch, tmp_path, cache):
    place(tmp_path / "wrong", OTHER)
    monkeypatch.setenv("XRV_MIRROR", f"{tmp_path / 'absent'}; {tmp_path / 'wrong'};{server.url}/m/")
    assert fetch(cache).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == [f"/m/{NAME}"]


def test_error_names_every_source_and_its_reason(server, monkeypatch, tmp_path, cache):
    place(tmp_path / "wrong", OTHER)
    server.script(Step(status=404))
    monkeypatch.setenv("XRV_MIRROR", f"{tmp_path / 'absent'};{server.url};{tmp_path / 'wrong'}")
    with pytest.raises(ChecksumError) as caught:
        fetch(cache)
    text = str(caught.value)
    for part in ("absent", "No such file", server.url, "404", "wrong", "sha256", UNREACHABLE):
        assert part in text


def test_name_is_quoted_in_a_mirror_url(server, cache):
    fetch(cache, remote_file(filename="a b%.pt"))
    assert server.requests[0][0] == "/a%20b%25.pt"


def test_published_address_is_used_without_a_mirror(server, cache, monkeypatch):
    monkeypatch.delenv("XRV_MIRROR")
    seen = []

    def get(self, url, **options):
        seen.append(url)
        return original(self, f"{server.url}/{NAME}", **options)

    import requests

    original = requests.Session.get
    monkeypatch.setattr(requests.Session, "get", get)
    assert fetch(cache).read_bytes() == CONTENT
    assert seen == [UNREACHABLE]


# --- offline


def test_offline_error_says_what_to_place_where(monkeypatch, server, cache):
    monkeypatch.setenv("XRV_OFFLINE", "1")
    with pytest.raises(OfflineError) as caught:
        fetch(cache)
    text = str(caught.value)
    digest = hashlib.sha256(CONTENT).hexdigest()
    for part in ("XRV_OFFLINE", "XRV_MIRROR", UNREACHABLE, str(cache / NAME), "300,002", digest):
        assert part in text
    assert server.requests == [], "not even a mirror on the network is asked"


def test_offline_with_the_file_works(monkeypatch, cache):
    monkeypatch.setenv("XRV_OFFLINE", "1")
    place(cache, CONTENT)
    assert fetch(cache) == cache / NAME


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("127.0.0.1:1", r"cannot be reached \(.*refused\)"),
        ("unknown.invalid", r"cannot be reached \(Failed to resolve 'unknown.invalid' \(.*\)\)"),
    ],
)
def test_unreachable_host_is_not_waited_for(cache, host, why):
    start = time.monotonic()
    with pytest.raises(OfflineError, match=why):
        remote.fetch(remote_file(url=f"https://{host}/{NAME}"), cache=cache)
    assert time.monotonic() - start < 5  # a tenth of a second on an idle machine


def test_name_server_that_never_answers_is_given_up(cache, monkeypatch):
    release = threading.Event()

    def silent(*args, **kwargs):
        release.wait(10)
        raise socket.gaierror("given up")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    start = time.monotonic()
    with pytest.raises(OfflineError, match=r"no name server answered within 0\.2 s"):
        fetch(cache, remote_file(url=f"https://host.example/{NAME}"), resolve=0.2)
    release.set()
    assert time.monotonic() - start < 2


def test_proxy_that_is_absent_is_named(cache, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(OfflineError, match="proxy cannot be reached"):
        fetch(cache, remote_file(url=f"https://host.example/{NAME}"))


# --- a file that is already there


def test_file_of_1_5_7_is_hashed_once_per_process(cache, monkeypatch):
    place(cache, CONTENT)
    calls = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *a: calls.append(a) or digest(*a))
    for _ in range(3):
        assert fetch(cache) == cache / NAME
    assert len(calls) == 1
    place(cache, CONTENT)  # another time of change: hashed again
    fetch(cache)
    assert len(calls) == 2


FORGE = """
import hashlib, json, os, sys
from pathlib import Path
from torchxrayvision import remote
from torchxrayvision.facts import RemoteFile
name, digest, folder = sys.argv[1:]
if digest:
    file = RemoteFile(url="https://127.0.0.1:1/", filename=name, sha256=digest)
else:
    file = RemoteFile(url="https://127.0.0.1:1/", filename=name)
print(remote.fetch(file, cache=folder, progress=False))
"""


@pytest.mark.parametrize("known", [True, False], ids=["published", "pinned"])
def test_size_time_and_record_do_not_vouch_for_a_file(cache, known):
    """Another process swaps the bytes, keeps size and time, and leaves or forges the record."""
    path = place(cache, CONTENT)
    with contextlib.nullcontext() if known else pytest.warns(UnpinnedDownloadWarning):
        fetch(cache, remote_file(**({} if known else UNKNOWN)))
    before = path.stat()
    path.write_bytes(OTHER)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    if known:
        record = cache / "pins.json"
        wrong = hashlib.sha256(OTHER).hexdigest()
        record.write_text(record.read_text().replace(pins(cache)[NAME]["sha256"], wrong))
    digest = hashlib.sha256(CONTENT).hexdigest() if known else ""
    done = subprocess.run(
        [sys.executable, "-c", FORGE, NAME, digest, str(cache)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert ("OfflineError" if known else "ChecksumError") in done.stderr


def test_second_start_opens_no_lock_and_imports_no_http_client(cache):
    place(cache, CONTENT)
    fetch(cache)
    code = (
        "import sys; from pathlib import Path\n"
        "from torchxrayvision import remote; from torchxrayvision.facts import RemoteFile\n"
        "url, name, digest, folder = sys.argv[1:]\n"
        "file = RemoteFile(url=url, filename=name, sha256=digest)\n"
        "assert remote.fetch(file, cache=folder).name == name\n"
        "heavy = {'requests', 'urllib3', 'rich', 'filelock', 'pooch', 'torch'}\n"
        "loaded = heavy & set(sys.modules)\n"
        "sys.exit(f'loaded {loaded}' if loaded else 0)"
    )
    file = remote_file()
    arguments = [file.url, file.filename, file.sha256, str(cache)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("content", [OTHER, CONTENT[:-1], b"", PAGE], ids=len)
def test_wrong_file_at_the_final_name_is_set_aside_and_replaced(server, cache, content):
    place(cache, content)
    assert fetch(cache).read_bytes() == CONTENT
    assert (cache / f"{NAME}.rejected").read_bytes() == content


def test_wrong_file_at_the_final_name_is_not_returned_offline(cache, monkeypatch):
    monkeypatch.setenv("XRV_OFFLINE", "1")
    place(cache, OTHER)
    for _ in range(2):  # the second time only the name tells that something was there
        with pytest.raises(OfflineError, match=f"another file, now .*{NAME}.rejected"):
            fetch(cache)
    assert not (cache / NAME).exists()


def test_web_page_that_1_5_7_took_for_weights_is_replaced(server, cache):
    place(cache, PAGE)
    with pytest.warns(UnpinnedDownloadWarning):
        assert fetch(cache, remote_file(**UNKNOWN)).read_bytes() == CONTENT


def test_checksum_published_later_overrules_the_pin(server, cache):
    place(cache, OTHER)
    with pytest.warns(UnpinnedDownloadWarning):
        fetch(cache, remote_file(**UNKNOWN))
    assert fetch(cache).read_bytes() == CONTENT
    assert pins(cache)[NAME]["status"] == "published"


# --- trust on first use


def test_first_download_without_checksum_is_said_and_recorded(server, cache):
    with pytest.warns(UnpinnedDownloadWarning, match="nobody has published") as caught:
        fetch(cache, remote_file(**UNKNOWN))
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert digest in str(caught[0].message)
    pin = pins(cache)[NAME]
    assert pin["sha256"] == digest
    assert pin["size"] == len(CONTENT)
    assert pin["url"] == UNREACHABLE
    assert pin["status"] == "unknown"
    assert pin["date"].endswith("Z")
    fetch(cache, remote_file(**UNKNOWN))  # a second warning would be an error here


def test_warning_points_at_the_caller(server, cache):
    with pytest.warns(UnpinnedDownloadWarning) as caught:
        remote.fetch(remote_file(**UNKNOWN), cache=cache)
    assert caught[0].filename == __file__


def test_file_found_without_checksum_is_said_and_recorded(cache):
    place(cache, CONTENT)
    with pytest.warns(UnpinnedDownloadWarning, match="the copy found in"):
        fetch(cache, remote_file(**UNKNOWN))
    assert pins(cache)[NAME]["sha256"] == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_record_that_everybody_may_write_is_said(cache, caplog):
    place(cache, CONTENT)
    with pytest.warns(UnpinnedDownloadWarning):
        fetch(cache, remote_file(**UNKNOWN))
    fetch(cache, remote_file(**UNKNOWN))
    assert caplog.text == ""
    cache.chmod(0o777)
    fetch(cache, remote_file())
    assert caplog.text == "", "a published checksum needs no record"
    fetch(cache, remote_file(**UNKNOWN))
    assert "everybody can write" in caplog.text


def test_windows_where_every_folder_has_that_bit_says_nothing(cache, caplog, monkeypatch):
    windows = types.SimpleNamespace(**{**vars(os), "name": "nt"})
    monkeypatch.setattr("torchxrayvision.remote.fetching.os", windows)
    place(cache, CONTENT)
    with pytest.warns(UnpinnedDownloadWarning):
        fetch(cache, remote_file(**UNKNOWN))
    cache.chmod(0o777)
    fetch(cache, remote_file(**UNKNOWN))
    assert caplog.text == ""


def test_touched_file_keeps_the_day_of_first_trust(cache):
    place(cache, CONTENT)
    with pytest.warns(UnpinnedDownloadWarning):
        fetch(cache, remote_file(**UNKNOWN))
    record = cache / "pins.json"
    record.write_text(record.read_text().replace(pins(cache)[NAME]["date"], "2020-01-01T00:00:00Z"))
    place(cache, CONTENT)
    fetch(cache, remote_file(**UNKNOWN))
    pin = pins(cache)[NAME]
    assert (pin["date"], pin["status"]) == ("2020-01-01T00:00:00Z", "unknown")


@pytest.mark.parametrize("facts", [UNKNOWN, {"sha256": "0" * 64, **REPORTED}], ids=["none", "one"])
def test_changed_file_is_refused_until_it_is_accepted(server, cache, facts):
    file = remote_file(**facts)
    place(cache, CONTENT)
    with pytest.warns((UnpinnedDownloadWarning, ChecksumWarning)):
        fetch(cache, file)
    place(cache, OTHER)
    for _ in range(2):
        with pytest.raises(ChecksumError, match=r"forget\('weights.pt'\) accepts"):
            fetch(cache, file)
    assert remote.verify(cache / NAME, file).status == "changed"
    remote.forget(file, cache)
    with pytest.warns((UnpinnedDownloadWarning, ChecksumWarning)):
        assert fetch(cache, file).read_bytes() == OTHER


def test_changed_download_is_refused_until_it_is_accepted(server, cache):
    file = remote_file(**UNKNOWN)
    with pytest.warns(UnpinnedDownloadWarning):
        fetch(cache, file)
    (cache / NAME).unlink()
    server.script(Step(body=OTHER, etag='"v2"'))
    with pytest.raises(ChecksumError, match=r"which was trusted on .*forget"):
        fetch(cache, file)
    assert not (cache / NAME).exists()
    remote.forget(NAME, cache)
    with pytest.warns(UnpinnedDownloadWarning):
        assert fetch(cache, file).read_bytes() == OTHER


def test_lock_that_fails_leaves_the_file_usable_and_says_so(cache, monkeypatch):
    import filelock

    def enter(self):
        raise NotImplementedError("no locks here")

    place(cache, CONTENT)
    monkeypatch.setattr(filelock.FileLock, "__enter__", enter)
    with pytest.warns(UnpinnedDownloadWarning, match="not recorded"):
        fetch(cache, remote_file(**UNKNOWN))


def test_forget_without_a_record_does_nothing(cache):
    remote.forget(NAME, cache)
    assert not cache.exists()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"files": 3}',
        '{"files": {"weights.pt": 3}}',
        '{"files": {"weights.pt": {"sha256": "0"}}}',
        '{"files": {"weights.pt": {"url": 1, "sha256": "", "size": 1, "status": "", "date": ""}}}',
        '{"files": {"weights.pt": {"url": "", "sha256": "", "size": 1, "status": "", "date": ""}}}',
        '{"a":' * 100_000,
        "\x00\xff",
    ],
)
def test_damaged_record_is_an_error_where_it_is_all_there_is(cache, text):
    place(cache, CONTENT)
    (cache / "pins.json").write_text(text, encoding="latin-1")
    with pytest.raises(ChecksumError, match=r"pins\.json cannot be read .* delete it to trust"):
        fetch(cache, remote_file(**UNKNOWN))
    assert fetch(cache) == cache / NAME, "a certain checksum needs no record"


# --- a checksum that one source reports


def test_reported_checksum_that_fits_is_silent(server, cache):
    assert fetch(cache, remote_file(**REPORTED)).read_bytes() == CONTENT
    assert pins(cache)[NAME]["status"] == "reported"


@pytest.mark.parametrize(
    "facts", [{"sha256": "0" * 64}, {"size": 17}, {"size": 17, "sha256": None}]
)
def test_reported_fact_that_does_not_fit_is_a_warning_and_a_pin(server, cache, facts):
    file = remote_file(**REPORTED | facts)
    with pytest.warns(ChecksumWarning, match="unconfirmed source reports"):
        assert fetch(cache, file).read_bytes() == CONTENT
    assert pins(cache)[NAME]["status"] == "contradicted"
    fetch(cache, file)
    assert remote.verify(cache / NAME, file).status == "pinned"


def test_reported_checksum_overrules_an_older_pin(server, cache):
    place(cache, OTHER)
    file = remote_file(**REPORTED)
    with pytest.warns(ChecksumWarning):
        fetch(cache, file)
    place(cache, CONTENT)
    assert fetch(cache, file).read_bytes() == CONTENT


# --- verification


@pytest.mark.parametrize(
    ("content", "facts", "status", "ok"),
    [
        (CONTENT, {}, "published", True),
        (CONTENT, REPORTED, "reported", True),
        (CONTENT, UNKNOWN, "unknown", True),
        (CONTENT, REPORTED | {"sha256": "0" * 64}, "contradicted", True),
        (CONTENT, {"sha256": "0" * 64}, "different", False),
        (CONTENT, {"size": 17}, "different", False),
        (CONTENT, {"size": 17, "sha256": None}, "different", False),
        (PAGE, UNKNOWN, "page", False),
        (b"\xef\xbb\xbf<?xml version='1.0'?><Error/>", UNKNOWN, "page", False),
        (PAGE, UNKNOWN | {"filename": "index.html"}, "unknown", True),
        (b"", UNKNOWN, "page", False),
        (None, {}, "missing", False),
    ],
)
def test_verification_says_what_is_known(tmp_path, content, facts, status, ok):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    found = remote.verify(path, remote_file(**facts))
    assert (found.status, found.ok) == (status, ok)
    assert str(found) == f"{status}: {found.reason}"
    assert found.reason
    assert found.sha256 == (None if content is None else hashlib.sha256(content).hexdigest())
    assert found.size == (None if content is None else len(content))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.status = "published"


def test_published_page_is_not_refused_for_its_look(tmp_path):
    (tmp_path / NAME).write_bytes(PAGE)
    assert remote.verify(tmp_path / NAME, remote_file(PAGE)).status == "published"


# --- rules without a server


@pytest.mark.parametrize(
    ("url", "location", "allow_http", "address"),
    [
        ("https://a.example/x", "https://b.example/y", False, "https://b.example/y"),
        ("https://a.example/x/z", "../y?q=1", False, "https://a.example/y?q=1"),
        ("https://a.example/x", "//b.example/y", False, "https://b.example/y"),
        ("http://a.example/x", "http://b.example/y", True, "http://b.example/y"),
        ("http://a.example/x", "https://b.example/y", True, "https://b.example/y"),
    ],
)
def test_redirect_is_followed(url, location, allow_http, address):
    assert next_address(url, location, allow_http=allow_http) == address


@pytest.mark.parametrize(
    ("location", "word"),
    [
        ("http://a.example/x", "from https to http"),
        ("HTTP://a.example/x", "from https to http"),
        ("ftp://a.example/x", "to ftp"),
        ("file:///etc/passwd", "to file"),
        ("https://[::1/x", "no address"),
        ("", "without saying where"),
        (None, "without saying where"),
    ],
)
def test_redirect_is_refused(location, word):
    with pytest.raises(SourceFailure, match=word):
        next_address("https://a.example/x", location, allow_http=False)


@pytest.mark.parametrize(
    ("status", "retry"), [(400, False), (401, False), (408, True), (429, True), (502, True)]
)
def test_status_says_whether_to_try_again(status, retry):
    assert failure_of_status(status, {}).retry is retry


@pytest.mark.parametrize(
    ("value", "pause"), [("7", 7.0), (None, None), ("Sun, 01 Nov 2020 00:00:00 GMT", None)]
)
def test_pause_that_the_server_asks_for(value, pause):
    assert failure_of_status(503, {} if value is None else {"Retry-After": value}).pause == pause


def test_errors_of_the_client_are_told_apart():
    import requests

    certificate = failure_of_error(requests.exceptions.SSLError("certificate verify failed"))
    assert (certificate.retry, certificate.kind) == (False, DownloadError)
    assert "REQUESTS_CA_BUNDLE" in certificate.reason
    connect = failure_of_error(requests.exceptions.ConnectTimeout())
    assert (connect.retry, connect.kind) == (False, OfflineError)
    silent = failure_of_error(requests.exceptions.ReadTimeout())
    assert silent.retry
    assert not failure_of_error(requests.exceptions.InvalidURL("no host")).retry


def test_progress_bar_is_drawn_on_a_terminal_only(server, cache, monkeypatch, capsys):
    from torchxrayvision.remote.transfer import progress_bar

    with progress_bar("a.pt", show=True) as report:
        report(1, 2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("a.pt", show=True) as report:
        report(1, 2)
        report(2, 2)
    assert "a.pt" in capsys.readouterr().err
    with progress_bar("a.pt", show=False) as report:
        report(1, None)
    assert capsys.readouterr().err == ""
