"""A server with faults: never a bad file at the final name, a typed error or success, recovery."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.faults import FAILURE, HALF, SUCCESS
from support.file_server import CONTENT, NAME, OTHER, UNKNOWN, Step, fetch, remote_file
from torchxrayvision.errors import (
    ChecksumError,
    DownloadError,
    RemoteError,
    UnpinnedDownloadWarning,
)
from torchxrayvision.remote.fetching import Partial


def leftovers(cache):
    return sorted(p.name for p in cache.iterdir() if ".part" in p.name)


def assert_clean_success(path, cache):
    assert path == cache / NAME
    assert path.read_bytes() == CONTENT
    assert leftovers(cache) == []


@pytest.mark.parametrize("script", SUCCESS.values(), ids=SUCCESS)
def test_passing_fault_ends_in_the_right_file(server, cache, script):
    server.script(*script)
    assert_clean_success(fetch(cache), cache)


@pytest.mark.parametrize("offset", [0, 1, 4095, 65_536, HALF, len(CONTENT) - 1])
def test_truncation_is_resumed_at_the_byte(server, cache, offset):
    server.script(Step(cut=offset), Step())
    assert_clean_success(fetch(cache), cache)
    asked = [headers.get("Range") for _, headers in server.requests]
    assert asked == [None, f"bytes={offset}-" if offset else None]
    if offset:
        assert server.requests[1][1]["If-Range"] == '"v1"'


@pytest.mark.parametrize(
    "step",
    [Step(cut=HALF, etag=None), Step(cut=HALF, etag='W/"v1"')],
    ids=["no_validator", "weak_etag"],
)
def test_object_without_strong_validator_starts_again(server, cache, step):
    server.script(step, Step())
    fetch(cache)
    assert [headers.get("Range") for _, headers in server.requests] == [None, None]


@pytest.mark.parametrize(("script", "error", "word", "facts"), FAILURE.values(), ids=FAILURE)
def test_lasting_fault_is_a_typed_error_and_the_next_call_recovers(
    server, cache, script, error, word, facts
):
    server.script(*script)
    with pytest.raises(error, match=word) as caught:
        fetch(cache, remote_file(**facts))
    assert type(caught.value) is error
    assert not (cache / NAME).exists()
    assert str(cache / NAME) in str(caught.value), "the error says what to place where"
    server.script(Step())
    assert_clean_success(fetch(cache), cache)


@pytest.mark.parametrize("status", [404, 403, 410])
def test_client_error_is_not_tried_again(server, cache, status):
    server.script(Step(status=status))
    with pytest.raises(DownloadError):
        fetch(cache)
    assert len(server.requests) == 1


def test_slow_drip_is_broken_off(server, cache):
    server.script(Step(cut=100, drip=1))
    start = time.monotonic()
    with pytest.raises(DownloadError, match="bytes per second"):
        fetch(cache, window=0.15, slowest=5000.0, attempts=2)
    assert time.monotonic() - start < 5
    server.script(Step())
    assert_clean_success(fetch(cache), cache)


def test_spliced_file_under_one_etag_is_fetched_once_more_in_one_piece(server, cache):
    """A cut answer, then a continuation of other bytes: again and again under the same ETag."""
    server.script(*[Step(cut=HALF), Step(body=OTHER)] * 50)
    with pytest.raises(ChecksumError, match="its sha256 is"):
        fetch(cache)
    assert len(server.requests) == 4
    assert [h.get("Range") for _, h in server.requests] == [None, f"bytes={HALF}-", None, None]


ENDLESS = {
    "informational answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 9),
    "letters of the status": (b"HTTP/1.1 200 ", b"O"),
    "letters of a header": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "letters of the length of a chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0",
    ),
    "letters of the trailer": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbytes\r\n0\r\n",
        b"x",
    ),
    "letters of an extension of a chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;",
        b"x",
    ),
}


@pytest.mark.parametrize(("start", "more"), ENDLESS.values(), ids=ENDLESS)
def test_answer_that_never_ends_is_broken_off(raw_server, cache, start, more):
    raw_server(start, more)
    begun = time.monotonic()
    with pytest.raises(DownloadError, match=r"did not end within|next to nothing|bytes per second"):
        fetch(cache, read=2.0, answer=0.4, window=0.3, attempts=1)
    assert time.monotonic() - begun < 10
    wait_until(lambda: not any(isinstance(t, threading.Timer) for t in threading.enumerate()))


@pytest.mark.parametrize(
    "name", ["the file", "pins.json", "a partial file", "its record", "a file of a mirror"]
)
def test_pipe_in_the_cache_makes_nobody_wait(server, cache, monkeypatch, name):
    cache.mkdir()
    partial = Partial(cache, NAME, f"{server.url}/{NAME}")
    mirror = cache / "mirror"
    mirror.mkdir()
    place = {
        "the file": cache / NAME,
        "pins.json": cache / "pins.json",
        "a partial file": partial.path,
        "its record": partial.record,
        "a file of a mirror": mirror / NAME,
    }[name]
    os.mkfifo(place)
    if name == "a file of a mirror":
        monkeypatch.setenv("XRV_MIRROR", str(mirror))
    start = time.monotonic()
    with contextlib.suppress(RemoteError):
        fetch(cache)
        assert (cache / NAME).read_bytes() == CONTENT
    assert time.monotonic() - start < 5


HOSTILE_HEADERS = {
    "length_of_5000_digits": {"Content-Length": "9" * 5000},
    "negative_length": {"Content-Length": "-1"},
    "host_label_of_70_letters": {"Location": "http://" + "a" * 70 + ".x/"},
    "half_an_ipv6_address": {"Location": "http://[::1/x"},
    "bytes_in_the_address": {"Location": "http://127.0.0.1/\xff"},
    "port_of_6_digits": {"Location": "http://127.0.0.1:999999/"},
    "port_of_letters": {"Location": "http://127.0.0.1:port/"},
    "no_host": {"Location": "http:///x"},
    "dots_for_a_host": {"Location": "http://..../x"},
    "pause_of_5000_digits": {"Retry-After": "9" * 5000},
    "range_of_5000_digits": {"Content-Range": f"bytes {'9' * 5000}-{'9' * 5000}/*"},
    "many_headers": {f"X-{n}": "x" for n in range(150)},
    "long_header": {"X": "x" * 100_000},
    "escapes": {"Content-Encoding": "\x1b]0;title\x07"},
}


@pytest.mark.parametrize("status", [200, 302, 503])
@pytest.mark.parametrize("headers", HOSTILE_HEADERS.values(), ids=HOSTILE_HEADERS)
def test_hostile_header_is_a_typed_error(server, cache, status, headers):
    server.script(Step(status=status, headers=headers, etag=None, framed="close"))
    with pytest.raises(RemoteError) as caught:
        fetch(cache, remote_file(**UNKNOWN))
    assert str(caught.value).isprintable()


def test_empty_answer_is_not_trusted(server, cache):
    server.script(Step(body=b""))
    with pytest.raises(DownloadError, match="it is empty"):
        fetch(cache, remote_file(**UNKNOWN))
    assert not (cache / NAME).exists()


def test_deadline_ends_the_call_and_keeps_the_bytes(server, cache):
    server.script(Step(cut=10_000, drip=50))
    with pytest.raises(DownloadError, match="took too long"):
        fetch(cache, deadline=0.2)
    assert len(leftovers(cache)) == 2
    server.script(Step())
    assert_clean_success(fetch(cache), cache)
    offset = int(server.requests[0][1]["Range"].removeprefix("bytes=").rstrip("-"))
    assert 10_000 <= offset < len(CONTENT)


def test_next_call_goes_on_where_the_last_one_stopped(server, cache):
    server.script(Step(cut=HALF), Step(status=500))
    with pytest.raises(DownloadError):
        fetch(cache)
    server.script(Step())
    assert_clean_success(fetch(cache), cache)
    assert server.requests[0][1]["Range"] == f"bytes={HALF}-"


def test_whole_partial_file_needs_no_request(server, cache):
    server.script(Step())
    url = f"{server.url}/{NAME}"
    cache.mkdir()
    partial = Partial(cache, NAME, url)
    partial.restart({"etag": '"v1"', "last_modified": None}, len(CONTENT))
    partial.path.write_bytes(CONTENT)
    assert_clean_success(fetch(cache), cache)
    assert server.requests == []


def stale_other_object(cache, url):
    """Bytes and record of an object that the server has replaced since."""
    partial = Partial(cache, NAME, url)
    partial.restart({"etag": '"old"', "last_modified": None}, len(OTHER))
    partial.path.write_bytes(OTHER[:HALF])


def stale_without_record(cache, url):
    Partial(cache, NAME, url).path.write_bytes(OTHER[:HALF])


def stale_longer_than_the_object(cache, url):
    partial = Partial(cache, NAME, url)
    partial.restart({"etag": '"v1"', "last_modified": None}, 100)
    partial.path.write_bytes(OTHER[:HALF])


def stale_with_damaged_record(cache, url):
    partial = Partial(cache, NAME, url)
    partial.path.write_bytes(OTHER[:HALF])
    partial.record.write_text('{"url": ')


def stale_with_odd_record(cache, url):
    partial = Partial(cache, NAME, url)
    partial.path.write_bytes(OTHER[:HALF])
    partial.record.write_text(json.dumps({"url": url, "etag": 7, "length": "many"}))


def stale_same_etag_wrong_bytes(cache, url):
    partial = Partial(cache, NAME, url)
    partial.restart({"etag": '"v1"', "last_modified": None}, len(CONTENT))
    partial.path.write_bytes(OTHER[:HALF])


def stale_whole_but_wrong(cache, url):
    partial = Partial(cache, NAME, url)
    partial.restart({"etag": '"v1"', "last_modified": None}, len(OTHER))
    partial.path.write_bytes(OTHER)


def stale_part_of_1_5_7(cache, url):
    (cache / f"{NAME}.part").write_bytes(OTHER[:HALF])


def stale_folder_of_another_address(cache, url):
    stale_other_object(cache, "http://127.0.0.1/other/" + NAME)


@pytest.mark.parametrize(
    "plant",
    [
        stale_other_object,
        stale_without_record,
        stale_longer_than_the_object,
        stale_with_damaged_record,
        stale_with_odd_record,
        stale_same_etag_wrong_bytes,
        stale_whole_but_wrong,
        stale_part_of_1_5_7,
        stale_folder_of_another_address,
    ],
)
def test_stale_partial_is_never_spliced(server, cache, plant):
    cache.mkdir()
    plant(cache, f"{server.url}/{NAME}")
    path = fetch(cache)
    assert path.read_bytes() == CONTENT
    assert not Partial(cache, NAME, f"{server.url}/{NAME}").path.exists()


def test_stale_partial_is_not_spliced_into_a_file_without_checksum(server, cache):
    cache.mkdir()
    stale_other_object(cache, f"{server.url}/{NAME}")
    with pytest.warns(UnpinnedDownloadWarning):
        path = fetch(cache, remote_file(**UNKNOWN))
    assert path.read_bytes() == CONTENT


CHILD = """
import sys, logging
from pathlib import Path
from torchxrayvision.facts import RemoteFile
from torchxrayvision.remote import fetching as _config
from torchxrayvision.remote.fetching import Fetch
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
url, name, digest, folder = sys.argv[1:]
file = RemoteFile(url=url, filename=name, sha256=digest)
print(Fetch(file, Path(folder), _config.Settings(), progress=True).run(), flush=True)
"""


def child(cache):
    file = remote_file()
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, file.url, file.filename, file.sha256, str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def test_two_processes_at_once_make_one_download(server, cache):
    server.script(Step(cut=HALF, stall=1.0), Step())
    first = child(cache)
    wait_until(lambda: server.requests)
    second = child(cache)
    outputs = [process.communicate(timeout=30) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    assert [errors for _, errors in outputs] == ["", ""], "no bar without a terminal"
    assert all(out.rstrip().endswith(str(cache / NAME)) for out, _ in outputs)
    assert len(server.requests) == 1
    assert_clean_success(cache / NAME, cache)


def test_threads_at_once_make_one_download(server, cache):
    from concurrent.futures import ThreadPoolExecutor

    server.script(Step(cut=HALF, stall=0.2), Step())
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(cache), range(4)))
    assert set(paths) == {cache / NAME}
    assert len(server.requests) == 1
    assert_clean_success(cache / NAME, cache)


def test_waiting_process_says_what_it_waits_for(server, cache, caplog):
    server.script(Step(cut=HALF, stall=0.7), Step())
    other = child(cache)
    wait_until(lambda: server.requests)
    with caplog.at_level(logging.WARNING):
        fetch(cache)
    assert "another process fetches weights.pt" in caplog.text
    assert other.wait(30) == 0
    other.communicate()


def test_killed_process_is_resumed_by_the_next(server, cache):
    server.script(Step(cut=HALF, stall=30.0))
    process = child(cache)
    partial = Partial(cache, NAME, f"{server.url}/{NAME}")
    wait_until(lambda: partial.resume() is not None)
    process.kill()
    process.communicate()
    assert not (cache / NAME).exists()
    kept = partial.size()
    assert kept > 0
    server.script(Step())
    assert_clean_success(fetch(cache), cache)
    assert server.requests[0][1]["Range"] == f"bytes={kept}-"


def test_lock_held_too_long_is_a_download_error(server, cache):
    import filelock

    cache.mkdir()
    with (
        filelock.FileLock(str(cache / f".{NAME}.lock")),
        pytest.raises(DownloadError, match=r"another process has held .* more than 0.05 s"),
    ):
        fetch(cache, lock=0.05)
    assert_clean_success(fetch(cache), cache)


# --- what others may have planted in the cache


PLANTED_LINKS = ["part", "part.json", "pins", "temporary"]


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
@pytest.mark.parametrize("name", PLANTED_LINKS)
def test_planted_link_writes_nowhere_else(server, cache, tmp_path, name, link):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    cache.mkdir()
    partial = Partial(cache, NAME, f"{server.url}/{NAME}")
    if name == "part":  # with a record that makes the transfer go on after what is there
        partial.restart({"etag": '"v1"', "last_modified": None}, len(CONTENT))
        partial.path.unlink()
    place = {
        "part": partial.path,
        "part.json": partial.record,
        "pins": cache / "pins.json",
        "temporary": cache / f"pins.json.{os.getpid()}.tmp",
    }[name]
    link(victim, place)
    with contextlib.suppress(RemoteError):
        fetch(cache)
    assert victim.read_bytes() == b"precious"


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_folders_of_the_cache_are_private(server, tmp_path):
    (tmp_path / "shared").mkdir(mode=0o755)
    fetch(tmp_path / "shared" / "new" / "cache")
    modes = [(tmp_path / "shared" / p).stat().st_mode & 0o777 for p in ("", "new", "new/cache")]
    assert modes == [0o755, 0o700, 0o700]


needs_posix = pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")


@needs_posix
def test_read_only_cache_is_a_download_error_with_advice(server, read_only):
    with read_only, pytest.raises(DownloadError, match=r"cannot write in .*XRV_CACHE_DIR"):
        fetch(read_only.path)
    assert list(read_only.path.iterdir()) == []
    assert_clean_success(fetch(read_only.path), read_only.path)


@needs_posix
def test_read_only_cache_that_holds_the_file_is_enough(read_only):
    (read_only.path / NAME).write_bytes(CONTENT)
    with read_only:
        assert fetch(read_only.path).read_bytes() == CONTENT


@needs_posix
def test_read_only_cache_says_that_a_pin_could_not_be_recorded(read_only):
    (read_only.path / NAME).write_bytes(CONTENT)
    with read_only, pytest.warns(UnpinnedDownloadWarning, match="not recorded"):
        fetch(read_only.path, remote_file(**UNKNOWN))


@needs_posix
def test_unreadable_file_in_the_cache_is_a_download_error(read_only):
    (read_only.path / NAME).write_bytes(CONTENT)
    (read_only.path / NAME).chmod(0)
    with read_only, pytest.raises(DownloadError, match=r"cannot read .*weights.pt \(Permission"):
        fetch(read_only.path)


@needs_posix
def test_unreadable_cache_is_a_download_error(read_only):
    hidden = read_only.path / "hidden"
    hidden.mkdir()
    hidden.chmod(0)
    with read_only, pytest.raises(DownloadError, match=r"cannot read .*\(Permission"):
        fetch(hidden)


def test_file_system_without_locks_is_a_download_error(server, cache, monkeypatch):
    import filelock

    def acquire(self, **options):
        raise NotImplementedError

    with monkeypatch.context() as patch:
        patch.setattr(filelock.FileLock, "acquire", acquire)
        with pytest.raises(DownloadError, match="has no locks; set XRV_CACHE_DIR"):
            fetch(cache)
    assert_clean_success(fetch(cache), cache)


def test_cache_below_a_file_is_a_download_error(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="XRV_CACHE_DIR"):
        fetch(tmp_path / "file" / "cache")


def test_folder_at_the_final_name_is_a_download_error(server, cache):
    (cache / NAME).mkdir(parents=True)
    with pytest.raises(DownloadError, match="not a regular file"):
        fetch(cache)


def test_full_disk_is_seen_before_the_transfer(server, cache, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(DownloadError, match=r"300,002 bytes are needed and 1,000 are free"):
            fetch(cache)
    assert_clean_success(fetch(cache), cache)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_disk_that_fills_up_is_a_download_error(server, cache, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            "torchxrayvision.remote.fetching.open_to_write",
            lambda path, append: (Path("/dev/full") if append else path).open("wb"),
        )
        with pytest.raises(DownloadError, match="no space left"):
            fetch(cache)
    assert_clean_success(fetch(cache), cache)


def test_file_size_limit_of_the_system_is_a_download_error(server, cache):
    """The kernel refuses the write itself: RLIMIT_FSIZE in a process of its own."""
    pytest.importorskip("resource")
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))\n{CHILD}"
    file = remote_file()
    done = subprocess.run(
        [sys.executable, "-c", code, file.url, NAME, file.sha256, str(cache)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "DownloadError: no space left" in done.stderr
    assert not (cache / NAME).exists()
    assert_clean_success(fetch(cache), cache)
    assert server.requests[-1][1]["Range"] == "bytes=100000-"


def test_every_typed_error_is_a_remote_error_and_pickles(server, cache):
    import pickle

    server.script(Step(status=404))
    with pytest.raises(RemoteError) as caught:
        fetch(cache)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (type(caught.value), str(caught.value))


def test_request_asks_for_the_bytes_as_they_are(server, cache):
    fetch(cache)
    assert server.requests[0][0] == f"/{NAME}"
    assert server.requests[0][1]["Accept-Encoding"] == "identity"


def test_the_server_fixture_serves_what_the_tests_take_for_right(server):
    import requests

    assert requests.get(f"{server.url}/{NAME}", timeout=5).content == CONTENT
    assert hashlib.sha256(CONTENT).hexdigest() == remote_file().sha256
