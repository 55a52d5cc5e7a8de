"""The Hub, played by a server of this machine: pinned hashes, the token, faults, and no network."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
import warnings
from dataclasses import replace

import pytest

from support.faults import FAILURE, SUCCESS
from support.file_server import CONTENT, FAST, OTHER, Server, Step, remote_file
from support.hub_server import Hub, Repo, serving
from torchxrayvision.errors import (
    ChecksumError,
    DownloadError,
    OfflineError,
    RemoteError,
    UnknownNameError,
    UnpinnedDownloadWarning,
)
from torchxrayvision.remote import hub as _hub
from torchxrayvision.remote.credentials import token_for
from torchxrayvision.remote.fetching import Fetch
from torchxrayvision.remote.hub import HubAddress, fetch_from_hub, look_up

FILE = "weights.pt"
CONFIG = b'{"library_name": "torchxrayvision"}\n'
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ADDRESS = HubAddress("org/net")
VARIABLES = ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH")


@pytest.fixture
def storage():
    with serving(Server()) as running:
        yield running
        running.closing.set()


@pytest.fixture
def hub(storage, tmp_path, monkeypatch):
    """The Hub with one model; the large file lies on the other server, which faults as told."""
    for name in (*VARIABLES, "XRV_MIRROR", "XRV_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(_hub, "Settings", lambda: FAST)
    monkeypatch.setattr(_hub, "_ASKING", replace(_hub._ASKING, read=0.3, connect=1.0, backoff=0.01))
    with serving(Hub(storage.url)) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        running.repos["org/net"] = Repo({FILE: CONTENT, "config.json": CONFIG})
        yield running


def bring(cache, *files, address=ADDRESS):
    return fetch_from_hub(address, files or (FILE, "config.json"), cache=cache, progress=False)


# ---- what the Hub states is pinned ------------------------------------------------------------


def test_files_of_a_commit_lie_under_its_name(hub, cache):
    folder = bring(cache)
    assert folder == cache / "hub" / "org--net" / ("a" * 40)
    assert (folder / FILE).read_bytes() == CONTENT
    assert (folder / "config.json").read_bytes() == CONFIG
    pins = json.loads((folder / "pins.json").read_text())["files"]
    assert pins[FILE]["sha256"] == SHA256
    # the commit is what is asked for, so that nobody can change it between two files
    asked = [path for path, _ in hub.requests]
    assert asked[0] == "/api/models/org/net/revision/main?blobs=true"
    assert all(f"/resolve/{'a' * 40}/" in path for path in asked[1:])


def test_a_commit_that_is_here_needs_no_network(hub, cache):
    bring(cache)
    hub.requests.clear()
    at_commit = HubAddress("org/net", "a" * 40)
    assert bring(cache, address=at_commit) == bring(cache, address=at_commit)
    assert hub.requests == []


def test_a_branch_is_followed_to_its_new_commit(hub, cache):
    bring(cache)
    hub.repos["org/net"] = Repo({FILE: CONTENT, "config.json": b"{}"}, commit="b" * 40)
    assert (bring(cache) / "config.json").read_bytes() == b"{}"
    assert (cache / "hub/org--net" / ("a" * 40) / "config.json").read_bytes() == CONFIG


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "XRV_OFFLINE"])
def test_offline_takes_the_commit_of_last_time_and_asks_nobody(hub, cache, monkeypatch, variable):
    folder = bring(cache)
    hub.requests.clear()
    monkeypatch.setenv(variable, "1")
    assert bring(cache) == folder
    with pytest.raises(OfflineError, match=r"config\.json beside it"):
        bring(cache, address=HubAddress("org/net", "v1"))
    assert hub.requests == []


def test_a_file_that_was_changed_here_is_not_used(hub, cache):
    folder = bring(cache)
    (folder / "config.json").write_bytes(b'{"library_name": "else"}')
    assert (bring(cache) / "config.json").read_bytes() == CONFIG
    (folder / FILE).write_bytes(OTHER)
    assert (bring(cache) / FILE).read_bytes() == CONTENT


def test_without_a_hash_the_first_copy_is_pinned_and_said(hub, cache):
    hub.repos["org/net"].states[FILE] = {"sha256": None}
    with pytest.warns(UnpinnedDownloadWarning, match=SHA256):
        folder = bring(cache)
    (folder / FILE).write_bytes(OTHER)
    with pytest.raises(ChecksumError, match="was trusted on"):
        bring(cache)


# ---- the same faults as of any other server ---------------------------------------------------


@pytest.mark.parametrize("script", SUCCESS.values(), ids=SUCCESS)
def test_passing_fault_of_the_storage_ends_in_the_right_file(hub, storage, cache, script):
    storage.script(*script)
    assert (bring(cache, FILE) / FILE).read_bytes() == CONTENT


@pytest.mark.parametrize(("script", "error", "word", "facts"), FAILURE.values(), ids=FAILURE)
def test_lasting_fault_of_the_storage_is_a_typed_error(
    hub, storage, cache, script, error, word, facts
):
    storage.script(*script)
    hub.repos["org/net"].states[FILE] = {"size": len(CONTENT)} | facts
    with pytest.raises(error, match=word) as caught:
        bring(cache, FILE)
    assert type(caught.value) is error
    folder = cache / "hub/org--net" / ("a" * 40)
    assert not (folder / FILE).exists()
    assert str(folder / FILE) in str(caught.value), "the error says what to place where"
    storage.script(Step())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnpinnedDownloadWarning)  # where the Hub states no hash
        assert (bring(cache, FILE) / FILE).read_bytes() == CONTENT


API = f"/api/models/org/net/revision/{ADDRESS.revision}"
PAGE = {"Content-Type": "text/html"}
ANSWERS = {
    "page": ((200, b"<html>log in</html>", PAGE), "web page"),
    "no_json": ((200, b"\x80\x02", {}), "no JSON"),
    "deep_json": ((200, b"[" * 100_000, {}), "no JSON"),
    "a_list": ((200, b"[]", {}), "commit and the files"),
    "no_commit": ((200, b'{"sha": "../../x", "siblings": []}', {}), "commit and the files"),
    "no_files": ((200, b'{"sha": "%s", "siblings": 3}' % (b"a" * 40), {}), "commit and the files"),
    "server_error": ((500, b"", {}), "500"),
    "too_many_requests": ((429, b"", {"Retry-After": "0"}), "429"),
    "huge": ((200, b" " * (9 << 20), {}), "at most 8,388,608 are taken"),
    "cut": ((200, b"{}", {"Content-Length": "200"}), r"broke \(IncompleteRead"),
    "to_file": ((302, b"", {"Location": "file:///etc/passwd"}), "to file"),
    "circle": ((302, b"", {"Location": API}), "circle"),
}


@pytest.mark.parametrize(("answer", "word"), ANSWERS.values(), ids=ANSWERS)
def test_wrong_answer_about_a_model_is_a_typed_error(hub, cache, answer, word):
    hub.answers[API] = answer
    with pytest.raises(DownloadError, match=word) as caught:
        bring(cache)
    assert "xrv weights add FILE --name NAME" in str(caught.value)
    del hub.answers[API]
    assert (bring(cache) / FILE).read_bytes() == CONTENT


def test_wrong_bytes_of_a_small_file_are_refused(hub, cache):
    hub.answers[f"/org/net/resolve/{'a' * 40}/config.json"] = (200, b'{"library_name": "x"}', {})
    with pytest.raises(ChecksumError, match="not those of Git's blob"):
        bring(cache, "config.json")
    assert not list(cache.rglob("config.json"))


@pytest.mark.parametrize("status", [401, 404])
def test_unknown_model_says_so(hub, cache, status):
    hub.answers["/api/models/org/none/revision/main"] = (
        status,
        b"",
        {"X-Error-Code": "RepoNotFound"},
    )
    with pytest.raises(DownloadError, match="no such model, or it is private"):
        bring(cache, address=HubAddress("org/none"))


def test_unknown_revision_and_file_say_so(hub, cache):
    with pytest.raises(DownloadError, match="no such revision"):
        bring(cache, address=HubAddress("org/net", "v9"))
    with pytest.raises(DownloadError, match=r"no file 'other.pt'; it has config.json, weights.pt"):
        bring(cache, "other.pt")


# ---- names of strangers -----------------------------------------------------------------------

EVIL = [
    "../../evil.pt", "/etc/evil.pt", "..\\evil.pt", "a/../../evil.pt", "C:\\evil.pt", "evil\n.pt",
    ".hidden", "a//b.pt", "con\x00.pt", "~/evil.pt", "x" * 300 + ".pt", "sub/../evil.pt", "-rf.pt",
]  # fmt: skip


@pytest.mark.parametrize("path", EVIL)
def test_a_path_that_leads_elsewhere_is_no_file(hub, cache, tmp_path, path):
    hub.repos["org/net"].lists.append({"rfilename": path, "size": 3})
    assert set(look_up(ADDRESS).files) == {FILE, "config.json"}
    with pytest.raises(DownloadError, match="no file"):
        bring(cache, path)
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    "text",
    ["hf://../x", "hf://org", "hf://org/..", "hf://org/net@../x", "hf://org/net/../x", "hf://a b/c",
     "hf://org/net@", "hf://org/net/.ssh/x", "hf://org/net?x=1", "https://host/x", "hf:///x/y"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UnknownNameError, match="hf://owner/name"):
        HubAddress.parse(text)


@pytest.mark.parametrize(
    "text", ["hf://org/net", "hf://org/net@v1", "hf://o/n@refs%2Fpr%2F1/a/b.pt", "hf://o/n/x.pt"]
)
def test_addresses_are_written_as_they_are_read(text):
    assert str(HubAddress.parse(text)) == text


def test_a_link_planted_in_the_cache_is_not_written_through(hub, cache, tmp_path):
    folder = cache / "hub/org--net" / ("a" * 40)
    folder.mkdir(parents=True)
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (folder / "config.json").symlink_to(mine)
    assert (bring(cache) / "config.json").read_bytes() == CONFIG
    assert mine.read_text() == "mine"


# ---- the token --------------------------------------------------------------------------------


def shown(requests):
    return [path for path, headers in requests if "Authorization" in headers]


def test_gated_model_without_a_token_says_how_to_get_in(hub, cache):
    hub.repos["org/net"].gated = True
    with pytest.raises(
        DownloadError, match=r"accept their terms: .* HF_TOKEN or run `hf auth login`"
    ):
        bring(cache)


def test_token_goes_to_the_hub_alone_and_only_when_asked(hub, storage, cache, monkeypatch):
    hub.repos["org/net"].gated = True
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert (bring(cache) / FILE).read_bytes() == CONTENT
    assert shown(hub.requests), "the Hub got it"
    assert not any("/api/" in path for path in shown(hub.requests)), "and only where it asked"
    assert storage.requests
    assert shown(storage.requests) == [], "the server of the large files never did"


def test_token_does_not_follow_a_redirect_of_the_hub_to_another_host(
    hub, storage, cache, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.answers[API] = (307, b"", {"Location": f"{storage.url}/steal"})
    storage.script(Step(status=401, body=b""))
    with pytest.raises(DownloadError, match="401"):
        bring(cache)
    assert [path for path, _ in storage.requests] == ["/steal"]
    assert shown(storage.requests) == []


def test_public_model_sees_no_token(hub, cache, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    bring(cache)
    assert shown(hub.requests) == []


def test_token_is_read_from_the_file_that_a_login_writes(hub, cache, tmp_path):
    hub.repos["org/net"].private = True
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text(f"{hub.token}\n")
    assert (bring(cache) / FILE).read_bytes() == CONTENT


def test_wrong_token_is_an_error_and_is_not_repeated(hub, cache, monkeypatch):
    hub.repos["org/net"].private = True
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(DownloadError) as caught:
        bring(cache)
    assert len(shown(hub.requests)) == 1
    assert "hf_wrong" not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "url", "given"),
    [
        (None, "https://huggingface.co/api/x", True),
        (None, "https://huggingface.co:443/api/x", True),
        (None, "https://huggingface.co.evil.example/x", False),
        (None, "https://evil.example/huggingface.co/x", False),
        (None, "https://huggingface.co@evil.example/x", False),
        (None, "https://huggingface.co:8443/x", False),
        (None, "http://huggingface.co/x", False),
        ("https://hub.hospital.example", "https://huggingface.co/x", False),
        ("https://hub.hospital.example", "https://hub.hospital.example/x", True),
        ("http://hub.hospital.example", "http://hub.hospital.example/x", False),
    ],
)
def test_who_may_see_the_token(monkeypatch, endpoint, url, given):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    if endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert token_for(url) == ("hf_secret" if given else None)


@pytest.mark.parametrize("text", ["hf x", "hf\nX-Evil: 1", "hf\u00e9", " "])
def test_what_is_no_token_is_not_sent(monkeypatch, text):
    monkeypatch.setenv("HF_TOKEN", text)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert token_for("https://huggingface.co/x") is None


# ---- a copy on the Hub as the second source ---------------------------------------------------

COPY = f"https://huggingface.co/org/net/resolve/main/{FILE}"


def fetch_with_copy(cache, **facts):
    return Fetch(remote_file(copies=(COPY,), **facts), cache, FAST, progress=False).run()


@pytest.mark.parametrize("certainty", ["certain", "reported"])
def test_copy_helps_where_the_first_source_fails(hub, cache, certainty):
    assert fetch_with_copy(cache, certainty=certainty).read_bytes() == CONTENT


@pytest.mark.parametrize("certainty", ["certain", "reported"])
def test_other_bytes_of_a_copy_are_refused_whoever_published_the_hash(
    hub, storage, cache, certainty
):
    storage.script(Step(body=OTHER))
    with pytest.raises(ChecksumError, match=r"its sha256 is|instead of"):
        fetch_with_copy(cache, certainty=certainty)
    assert not (cache / FILE).exists()


def test_copy_is_not_asked_where_no_hash_is_known(hub, cache):
    with pytest.raises(OfflineError):
        fetch_with_copy(cache, sha256=None)
    assert hub.requests == []


def test_hf_hub_offline_forbids_the_copy_only(hub, cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OfflineError, match=r"127\.0\.0\.1:1"):
        fetch_with_copy(cache)
    assert hub.requests == []


# ---- no network -------------------------------------------------------------------------------

NO_NETWORK = """
import sys, socket, time
import requests
def silent(*args, **kwargs):
    time.sleep(30)
socket.getaddrinfo = silent
from torchxrayvision.errors import OfflineError
from torchxrayvision.remote import HubAddress, fetch_from_hub
begun = time.monotonic()
try:
    fetch_from_hub(HubAddress.parse("hf://org/net"), ("model.safetensors",), cache=sys.argv[1])
except OfflineError as error:
    print(time.monotonic() - begun, error)
"""


def test_without_network_it_fails_within_a_second_with_what_to_place_where(tmp_path, monkeypatch):
    for name in (*VARIABLES, "XRV_MIRROR", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, _, text = done.stdout.partition(" ")
    assert float(seconds) < 1.2, "0.9 s of patience with the name server"
    assert "https://huggingface.co/org/net/resolve/main/model.safetensors" in text
    assert "xrv weights add FILE --name NAME" in text


def test_closed_port_fails_at_once(hub, cache, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    begun = time.monotonic()
    with pytest.raises(OfflineError, match="cannot be reached"):
        bring(cache)
    assert time.monotonic() - begun < 1.0


def test_every_error_is_a_remote_error(hub, cache):
    with pytest.raises(RemoteError):
        bring(cache, address=HubAddress("org/none"))
