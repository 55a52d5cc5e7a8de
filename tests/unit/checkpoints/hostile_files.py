"""Crafted containers: damaged, ambiguous or absurd files around an honest or hostile object."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from functools import partial

from .hostile import (
    CANARY,
    HARMLESS,
    HONEST,
    MAGIC,
    REFUSED,
    Case,
    call,
    dict_of,
    integer,
    legacy,
    proto,
    scripted,
    storage,
    tensor,
    text,
    with_honest,
    zipped,
)

HONEST_STREAM = proto() + dict_of(("w", tensor())) + b"."


def _legacy_files():
    good = legacy(HONEST_STREAM)
    yield "honest", good, HARMLESS
    for offset in (1, 2, 5, 13, 14, 20, 40, 60, 90, 150, 200, len(good) - 20, len(good) - 1):
        yield f"cut-at-{offset}", good[:offset], REFUSED
    yield "garbage-behind", good + b"\0", REFUSED
    yield "pickle-behind", good + pickle.dumps({"a": 1}), REFUSED
    yield "wrong-magic", b"\x80\x02" + integer(MAGIC + 1) + b"." + good, REFUSED
    yield "magic-is-a-call", proto() + call("os", "mkdir", text(CANARY)) + b"." + good, REFUSED
    yield "plain-pickle", pickle.dumps({"w": [1.0, 2.0]}), REFUSED
    head = proto() + integer(MAGIC) + b"."
    yield "magic-only", head, REFUSED
    yield "unknown-version", legacy(b"", head=head + proto() + integer(1002) + b"."), REFUSED
    hostile_system = head + proto() + integer(1001) + b"." + proto()
    hostile_system += call("os", "mkdir", text(CANARY)) + b"."
    yield "system-is-a-call", legacy(HONEST_STREAM, head=hostile_system), REFUSED
    yield "keys-unknown", legacy(HONEST_STREAM, keys=["1"]), REFUSED
    yield "keys-twice", legacy(HONEST_STREAM, keys=["0", "0"]), REFUSED
    yield "keys-missing", legacy(HONEST_STREAM, storages=()), REFUSED
    yield "keys-hostile", legacy(HONEST_STREAM, keys=["../../etc/passwd"]), REFUSED
    yield "numel-differs", legacy(HONEST_STREAM, storages=(("0", 5, HONEST),)), REFUSED
    yield "numel-negative", legacy(HONEST_STREAM, storages=(("0", -4, HONEST),)), REFUSED
    giant = proto() + dict_of(("w", tensor(source=storage(numel=2**40)))) + b"."
    yield "giant-storage", legacy(giant, storages=(("0", 2**40, HONEST),)), REFUSED
    many = b"".join(storage(key=str(i), numel=0) for i in range(60_000))
    yield "many-storages", legacy(with_honest(b"](" + many + b"e")), REFUSED
    lots = b"](" + tensor() + b"q\1" + b"h\1" * 60_000 + b"e"
    yield "many-tensors", legacy(with_honest(lots)), REFUSED
    yield "no-tensors", legacy(proto() + b"}.", storages=()), REFUSED
    quantised = call("torch._utils", "_rebuild_qtensor", storage(kind=("torch", "QInt8Storage")))
    yield "only-quantised", legacy(proto() + dict_of(("w", quantised)) + b"."), REFUSED


def _other_files():
    yield "empty", b"", REFUSED
    yield "one-byte", b"\x80", REFUSED
    yield "zeros", bytes(4096), REFUSED
    yield "web-page", b"<!DOCTYPE html><html><body>Not found</body></html>", REFUSED
    yield "gzip", b"\x1f\x8b\x08" + bytes(64), REFUSED
    yield "lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", REFUSED
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member in ("sys_info", "pickle", "tensors", "storages"):
            entry = tarfile.TarInfo(member)
            payload = proto() + call("os", "mkdir", text(CANARY)) + b"."
            entry.size = len(payload)
            archive.addfile(entry, io.BytesIO(payload))
    yield "tar-of-torch-0.1", buffer.getvalue(), REFUSED


def _zip_files():
    good = zipped(HONEST_STREAM)
    yield "honest", good, HARMLESS
    for part in range(1, 12):
        yield f"cut-at-{part}-twelfths", good[: len(good) * part // 12], REFUSED
    yield "last-byte-missing", good[:-1], REFUSED
    yield "garbage-behind", good + b"\0" * 10, REFUSED
    yield "script-honest", scripted(HONEST_STREAM), HARMLESS
    yield "honest-zip64", _with_zip64(), HARMLESS
    names = {
        "parent": "../../evil", "inner-parent": "archive/../../evil", "absolute": "/tmp/evil",
        "backslash": "archive\\..\\..\\evil", "drive": "C:/evil", "control": "archive/\x1b[2J",
    }  # fmt: skip
    for label, member in names.items():
        yield f"slip-{label}", zipped(HONEST_STREAM, extra=((member, b"x"),)), REFUSED
    hostile = with_honest(call("os", "mkdir", text(CANARY)))
    yield "duplicate-object", _duplicated("archive/data.pkl", hostile), REFUSED
    yield "duplicate-storage", _duplicated("archive/data/0", HONEST), REFUSED
    yield "two-roots", zipped(HONEST_STREAM, extra=(("other/data.pkl", hostile),)), REFUSED
    yield "no-object", zipped(HONEST_STREAM).replace(b"data.pkl", b"data.pkk"), REFUSED
    yield "nested-archive", zipped(good, root="outer"), REFUSED
    yield "storage-missing", zipped(HONEST_STREAM, storages=()), REFUSED
    yield "storage-short", zipped(HONEST_STREAM, storages=(("0", HONEST[:-1]),)), REFUSED
    yield "storage-long", zipped(HONEST_STREAM, storages=(("0", HONEST + b"\0"),)), REFUSED
    yield "object-and-more", zipped(HONEST_STREAM + b"N."), REFUSED
    damaged = good.replace(HONEST, HONEST[:-1] + b"\x41")
    yield "checksum-differs", damaged, REFUSED
    yield "unknown-byte-order", good.replace(b"little", b"middle"), REFUSED
    yield "deflated-honest", zipped(HONEST_STREAM, compress=("archive/data/0",)), HARMLESS
    zeros = proto() + dict_of(("w", tensor((2**27,), source=storage(numel=2**27)))) + b"."
    yield "inflating-storage", partial(_bomb, zeros, ("0", 2**29)), REFUSED
    yield "inflating-object", partial(_bomb, b"", ("0", 2**20), stream_bytes=2**27), REFUSED
    yield "many-members", partial(_many_members, 120_000), REFUSED
    yield "comment", _with_comment(good, b"x" * 70), HARMLESS
    yield "comment-hides-end", _with_comment(good, zipped(hostile)), REFUSED


def _patched_zip_files():
    good = zipped(HONEST_STREAM)
    end = good.rfind(b"PK\5\6")
    directory = good.find(b"PK\1\2")
    entry = good.find(b"PK\1\2", good.find(b"data/0", directory) - 60)
    patches = {
        "encrypted": (entry + 8, b"\x01\0"),
        "unknown-method": (entry + 10, b"\x0c\0"),
        "declared-larger": (entry + 20, struct.pack("<2L", 2**31, 2**31)),
        "declared-sizes-differ": (entry + 24, struct.pack("<L", 2**31)),
        "zip64-without-field": (entry + 24, struct.pack("<L", 0xFFFFFFFF)),
        "header-outside": (entry + 42, struct.pack("<L", 2**31)),
        "header-of-another": (entry + 42, struct.pack("<L", 0)),
        "entry-damaged": (entry, b"PK\1\3"),
        "entry-name-long": (entry + 28, b"\xff\xff"),
        "entry-on-disk-two": (entry + 34, b"\x02\0"),
        "two-disks": (end + 4, b"\1\0"),
        "count-larger": (end + 8, b"\xf0\0\xf0\0"),
        "count-smaller": (end + 8, b"\1\0\1\0"),
        "count-zip64-missing": (end + 8, b"\xff\xff\xff\xff"),
        "directory-outside": (end + 16, struct.pack("<L", 2**31)),
        "directory-negative": (end + 12, struct.pack("<2L", 2**31, 0)),
        "local-name-differs": (good.find(b"archive/data/0"), b"archive/data/1"),
        "local-magic-damaged": (good.find(b"archive/data/0") - 30, b"PK\3\5"),
        "local-extra-long": (good.find(b"archive/data/0") - 2, b"\xff\xff"),
        "local-encrypted": (good.find(b"archive/data/0") - 24, b"\x01\0"),
    }
    for label, (offset, patch) in patches.items():
        yield label, good[:offset] + patch + good[offset + len(patch) :], REFUSED


def _safetensors_files():
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    good = _safetensors({"w": entry})
    yield "honest", good, HARMLESS
    yield "cut", good[:-1], REFUSED
    yield "garbage-behind", good + b"\0", REFUSED
    yield "header-beyond-file", struct.pack("<Q", 2**62) + good[8:], REFUSED
    yield "header-no-json", _safetensors(b"{" + b"x" * 63), REFUSED
    yield "header-nested", _safetensors(b'{"a":' + b"[" * 100_000), REFUSED
    yield "header-twice", _safetensors(b'{"w":1,"w":2}'), REFUSED
    yield "metadata-no-words", _safetensors({"__metadata__": {"a": 1}, "w": entry}), REFUSED
    for label, change in {
        "shape-differs": {"shape": [5]}, "shape-negative": {"shape": [-4]},
        "shape-absurd": {"shape": [2**40, 2**40]}, "shape-word": {"shape": ["4"]},
        "shape-missing": {"shape": None}, "offsets-reversed": {"data_offsets": [16, 0]},
        "offsets-beyond": {"data_offsets": [0, 2**40]}, "offsets-gap": {"data_offsets": [4, 20]},
        "offsets-float": {"data_offsets": [0.0, 16.0]}, "dtype-unknown": {"dtype": "os.system"},
        "dtype-list": {"dtype": ["F32"]},
    }.items():  # fmt: skip
        yield label, _safetensors({"w": {**entry, **change}}), REFUSED
    yield "overlap", _safetensors({"w": entry, "v": entry}), REFUSED
    yield "entry-is-a-list", _safetensors({"w": [1, 2, 3]}), REFUSED


def file_cases():
    families = {
        "legacy": _legacy_files, "file": _other_files, "zip": _zip_files,
        "zip-patched": _patched_zip_files, "safetensors": _safetensors_files,
    }  # fmt: skip
    for family, build in families.items():
        for label, data, outcome in build():
            yield Case(
                f"{family}-{label}", data if callable(data) else partial(bytes, data), outcome
            )


def _safetensors(header):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + HONEST


def _duplicated(member, raw):
    buffer = io.BytesIO(zipped(HONEST_STREAM))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.infolist()  # a second entry of the same name, as a confused reader would meet it
        archive.NameToInfo.clear()
        archive.writestr(zipfile.ZipInfo(member), raw)
    return buffer.getvalue()


def _with_zip64():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, raw in (("a/data.pkl", HONEST_STREAM), ("a/data/0", HONEST)):
            with archive.open(zipfile.ZipInfo(member), "w", force_zip64=True) as file:
                file.write(raw)
    return buffer.getvalue()


def _with_comment(data, comment):
    end = data.rfind(b"PK\5\6")
    return data[: end + 20] + struct.pack("<H", len(comment)) + comment


def _many_members(count):
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", *[0] * 9, 1, *[0] * 6) + b"a"
    directory = entry * count
    head = b"PK\3\4" + bytes(60)
    end64 = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), len(head)
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(head) + len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return head + directory + end64 + locator + end


def _bomb(stream, declared, stream_bytes=0):
    """An archive whose deflated storage (or object) inflates to what it declares."""
    key, size = declared
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(stream) + packer.flush()
    members = [
        ("a/data.pkl", _zeros(stream_bytes), stream_bytes)
        if stream_bytes
        else ("a/data.pkl", packed, len(stream)),
        (f"a/data/{key}", _zeros(size), size),
    ]
    body, directory = b"", b""
    for member, packed, inflated in members:
        encoded = member.encode()
        sizes = (0, len(packed), inflated)
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 0, *sizes, len(encoded), 0, 0, 0, 0, 0,
            len(body),
        ) + encoded  # fmt: skip
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, *sizes, len(encoded), 0)
        body += encoded + packed
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, len(directory), len(body), 0)
    return body + directory + end


def _zeros(size):
    """Deflated zeros; a block after a full flush stands alone, so one is written many times."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (size >> 20) + packer.flush()
