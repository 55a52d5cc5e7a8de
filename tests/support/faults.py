"""What a server may do with a file: scripts that end in the right one, and those that never do."""

from __future__ import annotations

from support.file_server import CONTENT, OTHER, UNKNOWN, Step
from torchxrayvision.errors import ChecksumError, DownloadError, OfflineError

HALF = len(CONTENT) // 2
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"

# Each script ends in the right file, in one call.
SUCCESS = {
    "plain": [Step()],
    "chunked": [Step(framed="chunked")],
    "close_delimited": [Step(framed="close")],
    "error_500_then_success": [Step(status=500), Step()],
    "error_503_with_retry_after_then_success": [
        Step(status=503, headers={"Retry-After": "0"}),
        Step(),
    ],
    "error_429_twice_then_success": [Step(status=429), Step(status=429), Step()],
    "reset_then_success": [Step(cut=HALF, reset=True), Step()],
    "reset_before_the_body_then_success": [Step(cut=0, reset=True), Step()],
    "stall_then_success": [Step(cut=HALF, stall=2.0), Step()],
    "stall_before_the_body_then_success": [Step(cut=0, stall=2.0), Step()],
    "chunked_truncated_then_success": [Step(cut=HALF, framed="chunked"), Step()],
    "range_ignored": [Step(cut=HALF), Step(ranges=False)],
    "range_refused_416": [Step(cut=HALF), Step(status=416), Step()],
    "no_validator": [Step(cut=HALF, etag=None), Step(etag=None)],
    "weak_etag": [Step(cut=HALF, etag='W/"v1"'), Step(etag='W/"v1"')],
    "date_as_validator": [
        Step(cut=HALF, etag=None, modified="Sun, 01 Nov 2020 00:00:00 GMT"),
        Step(etag=None, modified="Sun, 01 Nov 2020 00:00:00 GMT"),
    ],
    "etag_changed_midway": [Step(cut=HALF, body=OTHER, etag='"v0"'), Step()],
    "etag_changed_and_if_range_ignored": [
        Step(cut=HALF, body=OTHER, etag='"v0"'),
        Step(if_range=False),
        Step(),
    ],
    "length_changed_and_if_range_ignored": [
        Step(cut=HALF, body=OTHER[:-7], etag='"v1"', declare=len(OTHER)),
        Step(if_range=False),
    ],
    "same_etag_other_bytes": [Step(cut=HALF, body=OTHER), Step(), Step()],
    "redirect": [Step(status=302, body=b"", headers={"Location": "/elsewhere"}), Step()],
    "redirect_308_then_cut": [
        Step(status=308, body=b"", headers={"Location": "/elsewhere"}),
        Step(cut=HALF),
        Step(status=308, body=b"", headers={"Location": "/elsewhere"}),
        Step(),
    ],
    "slow_but_steady": [Step(cut=len(CONTENT) - 200, drip=20)],
    "closed_without_answer_then_success": [Step(drop=True), Step()],
    "answers_to_range_hold_less_than_the_rest": [Step(cut=HALF), Step(span=60_000)],
    "ten_cuts_that_each_gain_something": [*(Step(cut=29_000) for _ in range(10)), Step()],
}

# Each script never gives the file: the error, a word of its message, and the facts of the file.
FAILURE = {
    "not_found": ([Step(status=404)], DownloadError, "404", {}),
    "gone": ([Step(status=410)], DownloadError, "410", {}),
    "forbidden": ([Step(status=403)], DownloadError, "403", {}),
    "unasked_206": ([Step(status=206)], DownloadError, "206", {}),
    "unasked_416": ([Step(status=416)], DownloadError, "416", {}),
    "no_content_204": ([Step(status=204, body=b"")], DownloadError, "204", {}),
    "unknown_status": ([Step(status=799)], DownloadError, "799", {}),
    "error_500_for_ever": ([Step(status=500)], DownloadError, "500", {}),
    "html_with_200": (
        [Step(status=200, body=PAGE, headers={"Content-Type": "text/html; charset=utf-8"})],
        DownloadError,
        "web page",
        {},
    ),
    "html_disguised": ([Step(body=b"\n " + PAGE)], DownloadError, "web page", UNKNOWN),
    "lfs_pointer": (
        [Step(body=b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")],
        DownloadError,
        "LFS",
        UNKNOWN,
    ),
    "compressed": ([Step(headers={"Content-Encoding": "gzip"})], DownloadError, "gzip", {}),
    "wrong_bytes": ([Step(body=OTHER)], ChecksumError, "sha256", {}),
    "one_bit_flipped": (
        [Step(body=CONTENT[:HALF] + bytes([CONTENT[HALF] ^ 1]) + CONTENT[HALF + 1 :])],
        ChecksumError,
        "sha256",
        {},
    ),
    "wrong_bytes_chunked": ([Step(body=OTHER, framed="chunked")], ChecksumError, "sha256", {}),
    "declared_too_short": (
        [Step(declare=HALF)],
        ChecksumError,
        "declares 150,001 bytes instead of 300,002",
        {},
    ),
    "declared_too_short_unknown_size": (
        [Step(declare=HALF)],
        ChecksumError,
        "sha256",
        {"size": None},
    ),
    "declared_too_long": (
        [Step(declare=len(CONTENT) + 9)],
        DownloadError,
        "closed after|refuses to resume",
        UNKNOWN,
    ),
    "endless": ([Step(body=CONTENT * 3, framed="chunked")], DownloadError, "more than", {}),
    "length_unknown_and_no_checksum": (
        [Step(framed="close", cut=HALF)],
        DownloadError,
        "does not say how long",
        UNKNOWN,
    ),
    "truncated_for_ever": (
        [Step(cut=HALF, ranges=False)],
        DownloadError,
        "3 attempts gained nothing",
        {},
    ),
    "chunked_truncated_for_ever": (
        [Step(cut=HALF, framed="chunked", ranges=False)],
        DownloadError,
        r"broke \(IncompleteRead.*; 3 attempts gained nothing",
        UNKNOWN,
    ),
    "stall_for_ever": ([Step(cut=HALF, stall=3.0, ranges=False)], DownloadError, "silent", {}),
    "closed_without_answer_for_ever": (
        [Step(drop=True)],
        DownloadError,
        r"broke \(Remote end closed",
        {},
    ),
    "reset_for_ever": ([Step(cut=0, reset=True)], DownloadError, "connection", {}),
    "redirect_loop": (
        [Step(status=302, body=b"", headers={"Location": "/round"})],
        DownloadError,
        "circle",
        {},
    ),
    "redirect_to_nowhere": ([Step(status=302, body=b"")], DownloadError, "without saying", {}),
    "redirect_to_file": (
        [Step(status=302, body=b"", headers={"Location": "file:///etc/passwd"})],
        DownloadError,
        "to file",
        {},
    ),
    "redirect_to_closed_port": (
        [Step(status=302, body=b"", headers={"Location": "http://127.0.0.1:1/x"})],
        OfflineError,
        "cannot be reached",
        {},
    ),
}
