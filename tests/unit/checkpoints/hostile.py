"""Builders of crafted checkpoints: an assembler for object streams, and the two containers.

Bytes only: nothing here can run what it writes. A case is a name, the file's bytes, and what
must come of it: ``REFUSED`` (a CheckpointError), or ``HARMLESS`` (the one honest tensor ``w``
is read, and nothing else).
"""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSED, HARMLESS = "refused", "harmless"
MAGIC = 0x1950A86A20F9469CFC6C
CANARY = "canary"  # every payload tries to make or write this, in its working folder


@dataclass(frozen=True)
class Case:
    name: str
    build: Callable[[], bytes]
    outcome: str

    @property
    def file(self):
        return f"{self.name}.pt"


# Pieces of an object stream


def proto(version=2):
    return b"\x80" + bytes([version])


def text(value):
    raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value):
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def stack_name(module, attribute):
    return text(module) + text(attribute) + b"\x93"


def tuple_of(*parts):
    return b"(" + b"".join(parts) + b"t"


def list_of(*parts):
    return b"](" + b"".join(parts) + b"e"


def dict_of(*pairs):
    return b"}(" + b"".join(text(key) + value for key, value in pairs) + b"u"


def call(module, attribute, *args):
    return name(module, attribute) + tuple_of(*args) + b"R"


def storage(key="0", kind=("torch", "FloatStorage"), numel=4, location="cpu", extra=b""):
    raw_key = text(key) if isinstance(key, str) else key
    raw_numel = integer(numel) if type(numel) is int else numel
    kind_bytes = kind if isinstance(kind, bytes) else name(*kind)
    return tuple_of(text("storage"), kind_bytes, raw_key, text(location), raw_numel, extra) + b"Q"


def shape(values):
    return tuple_of(*(integer(v) if type(v) is int else v for v in values))


def tensor(size=(4,), stride=(1,), offset=0, source=None, tail=b""):
    raw_offset = integer(offset) if type(offset) is int else offset
    return call(
        "torch._utils", "_rebuild_tensor_v2", storage() if source is None else source, raw_offset,
        shape(size), shape(stride), b"\x89", name("collections", "OrderedDict") + b")R", tail,
    )  # fmt: skip


HONEST = struct.pack("<4f", 1, 2, 3, 4)


def with_honest(payload):
    """An object with the honest tensor ``w`` and a payload (large ones are functions) beside it."""
    payload = payload() if callable(payload) else payload
    return proto() + dict_of(("w", tensor()), ("x", payload)) + b"."


# Containers


def legacy(stream, storages=(("0", 4, HONEST),), keys=None, head=None):
    listed = [key for key, _, _ in storages] if keys is None else keys
    if head is None:
        head = proto() + integer(MAGIC) + b"." + proto() + integer(1001) + b"."
        head += proto() + dict_of(("little_endian", b"\x88")) + b"."
    body = proto() + list_of(*(text(key) for key in listed)) + b"."
    data = b"".join(struct.pack("<q", numel) + raw for _, numel, raw in storages)
    return head + stream + body + data


def zipped(stream, storages=(("0", HONEST),), extra=(), compress=(), root="archive"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, raw in (
            (f"{root}/data.pkl", stream),
            (f"{root}/byteorder", b"little"),
            *((f"{root}/data/{key}", raw) for key, raw in storages),
            *extra,
            (f"{root}/version", b"3\n"),
        ):
            method = zipfile.ZIP_DEFLATED if member in compress else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(member), raw, method)
    return buffer.getvalue()


def scripted(stream, **kwargs):
    code = b"import os\nos.mkdir('canary')\n"
    extra = (("archive/constants.pkl", proto() + call("os", "mkdir", text(CANARY)) + b"."),
             ("archive/code/__torch__.py", code),
             ("archive/code/__torch__.py.debug_pkl", proto() + b"cos\nabort\n)R."))  # fmt: skip
    return zipped(stream, extra=extra, **kwargs)


# Payloads: what an attacker puts beside the honest tensor


def _calls():
    """Calls of dangerous functions by every opcode that can name or call one."""
    path = text(CANARY)
    command = text(f"touch {CANARY}")
    code = text(f"open({CANARY!r}, 'w')")
    yield "reduce-os-system", call("os", "system", command), HARMLESS
    yield "reduce-posix-system", call("posix", "system", command), HARMLESS
    yield "reduce-os-mkdir", call("os", "mkdir", path), HARMLESS
    yield "reduce-popen", call("subprocess", "Popen", list_of(text("touch"), path)), HARMLESS
    yield "reduce-eval", call("builtins", "eval", code), HARMLESS
    yield "reduce-exec", call("builtins", "exec", code), HARMLESS
    yield "reduce-python2-exec", call("__builtin__", "exec", code), HARMLESS
    yield "reduce-open", call("builtins", "open", path, text("w")), HARMLESS
    yield "reduce-import", call("builtins", "__import__", text("antigravity")), HARMLESS
    yield "reduce-import-module", call("importlib", "import_module", text("this")), HARMLESS
    yield (
        "reduce-getattr",
        call("builtins", "getattr", name("os", "path"), text("os")),
        HARMLESS,
    )
    getter = call("operator", "attrgetter", text("system"))
    chain = getter + tuple_of(name("torch", "os")) + b"R" + tuple_of(command) + b"R"
    yield "call-of-a-call", chain, HARMLESS
    yield "methodcaller", call("operator", "methodcaller", text("system"), command), HARMLESS
    yield "partial", call("functools", "partial", name("os", "system"), command), HARMLESS
    yield "nested-pickle", call("pickle", "loads", b"C\x04cos\n"), HARMLESS
    yield "nested-torch-load", call("torch", "load", path), HARMLESS
    yield "load-from-bytes", call("torch.storage", "_load_from_bytes", b"C\x02N."), HARMLESS
    yield "jit-load", call("torch.jit", "load", path), HARMLESS
    yield "hub-load", call("torch.hub", "load", text("a/b"), text("c")), HARMLESS
    yield "marshal", call("marshal", "loads", b"C\x01N"), HARMLESS
    yield "ctypes", call("ctypes", "CDLL", text("libc.so.6")), HARMLESS
    yield "webbrowser", call("webbrowser", "open", text("http://127.0.0.1:9")), HARMLESS
    yield "code-object", call("types", "CodeType", integer(0)), HARMLESS
    yield "codecs-encode", call("_codecs", "encode", text("x"), text("latin1")), HARMLESS
    yield (
        "reconstructor",
        call("copyreg", "_reconstructor", name("os", "_Environ"), name("builtins", "object"), b"N"),
        HARMLESS,
    )
    yield (
        "numpy-reconstruct",
        call("numpy.core.multiarray", "_reconstruct", name("numpy", "ndarray"), b"K\0\x85C\1b")
        + tuple_of(integer(1), shape((2**40,)), call("numpy", "dtype", text("O8")), b"\x89N")
        + b"b",
        HARMLESS,
    )
    yield "device-from-numpy", call(
        "torch._utils", "_rebuild_device_tensor_from_numpy", call("os", "mkdir", path),
        name("torch", "float32"), text("cpu"), b"\x89",
    ), HARMLESS  # fmt: skip
    yield "subclass-of-system", call(
        "torch._tensor", "_rebuild_from_type_v2", name("os", "system"), name("torch", "Tensor"),
        tuple_of(command), b"}",
    ), HARMLESS  # fmt: skip
    yield "newobj", name("os", "system") + tuple_of(command) + b"\x81", HARMLESS
    keywords = dict_of(("args", text(f"touch {CANARY}")), ("shell", b"\x88"))
    yield "newobj-ex", name("subprocess", "Popen") + b")" + keywords + b"\x92", HARMLESS
    yield "inst", b"(" + path + b"ios\nmkdir\n", REFUSED
    yield "obj", b"(" + name("os", "mkdir") + path + b"o", REFUSED
    yield "ext1", b"\x82\x01", REFUSED
    yield "ext2", b"\x83\x01\x00", REFUSED
    yield "ext4", b"\x84\x01\x00\x00\x00", REFUSED
    dotted = stack_name("torch.serialization", "os.mkdir") + tuple_of(path) + b"R"
    yield "stack-global-dotted", dotted, HARMLESS
    yield "global-into-torch", call("torch._utils", "sys.modules.clear"), HARMLESS
    yield "stack-global-no-string", b"K\1K\2\x93", REFUSED
    yield "name-without-end", b"cos", REFUSED
    yield "name-of-a-megabyte", b"c" + b"o" * (1 << 20) + b"\nx\n", REFUSED
    yield "name-not-utf8", b"c\xff\xfe\nx\n", REFUSED
    yield "call-of-a-string", text("os.system") + tuple_of(command) + b"R", REFUSED
    yield "call-of-a-tensor", tensor() + b")R", REFUSED
    yield "call-without-tuple", name("os", "system") + command + b"R", REFUSED
    yield "next-buffer", b"\x97", REFUSED
    yield "read-only-buffer", b"N\x98", REFUSED


def _states():
    """BUILD, which in a real unpickler sets attributes or calls ``__setstate__``."""
    code = dict_of(("__code__", call("os", "system", text(f"touch {CANARY}"))))
    yield "build-on-rebuilder", name("torch._utils", "_rebuild_tensor_v2") + code + b"b", REFUSED
    yield "build-on-name", name("builtins", "print") + code + b"b", REFUSED
    yield "build-on-tensor", tensor() + code + b"b", REFUSED
    yield "build-on-storage", storage() + code + b"b", REFUSED
    yield "build-on-list", b"]" + code + b"b", REFUSED
    instance = name("torch.nn", "Module") + b")\x81"
    setstate = dict_of(("__setstate__", name("os", "mkdir")), ("__class__", name("os", "system")))
    yield "build-setstate", instance + setstate + b"b" + tuple_of(text(CANARY)) + b"b", HARMLESS
    slots = tuple_of(b"N", dict_of(("__reduce__", name("os", "mkdir"))))
    yield "build-slots", instance + slots + b"b", HARMLESS
    reduce = dict_of(("__getattr__", name("os", "mkdir")), ("__hash__", name("os", "mkdir")))
    key = instance + reduce + b"b"
    yield "hostile-dict-key", b"}" + key + b"Ns", HARMLESS
    ordered = name("collections", "OrderedDict") + b")R"
    yield (
        "build-on-ordered-dict",
        ordered + dict_of(("update", name("os", "mkdir"))) + b"b",
        HARMLESS,
    )
    yield "append-on-tuple", b")Na", REFUSED
    yield "set-item-on-tensor", tensor() + b"NNs", REFUSED
    yield "set-item-on-name", name("os", "environ") + text("PATH") + text("/") + b"s", REFUSED
    yield "odd-items", b"}(Nu", REFUSED
    yield "add-items-to-name", name("sys", "path") + b"(" + text("/tmp") + b"\x90", REFUSED


def _memo():
    swap = name("torch._utils", "_rebuild_tensor_v2") + b"q\0" + b"0" + name("os", "mkdir") + b"q\0"
    yield "memo-overwritten", swap + b"0h\0" + tuple_of(text(CANARY)) + b"R", HARMLESS
    yield "memo-huge-index", b"Nr\xff\xff\xff\xff", HARMLESS
    yield "memo-missing", b"h\x63", REFUSED
    yield "memo-missing-long", b"j\xff\xff\xff\xff", REFUSED
    yield "memo-of-nothing", b"00000q\0", REFUSED
    yield "text-put", b"Np0\n", REFUSED
    yield "text-get", b"g0\n", REFUSED
    yield "text-string", b"S'os.system'\n", REFUSED
    yield "text-integer", b"I1\n", REFUSED
    yield "text-persistent-id", b"P0\n", REFUSED
    yield "dup", b"N2", REFUSED


def _storages():
    yield "persistent-word", text("0") + b"Q", REFUSED
    yield "persistent-call", call("os", "mkdir", text(CANARY)) + b"Q", REFUSED
    yield "persistent-empty", b")Q", REFUSED
    yield "persistent-kind", tuple_of(text("file"), text(CANARY)) + b"Q", REFUSED
    module = tuple_of(text("module"), call("os", "mkdir", text(CANARY)), text("a"), text("b"))
    yield "persistent-module-call", module + b"Q", REFUSED
    module = tuple_of(text("module"), name("os", "system"), text("/etc/passwd"), text("import os"))
    yield "persistent-module", module + b"Q", HARMLESS
    for label, kind in (
        ("name", ("os", "system")),
        ("word", text("FloatStorage")),
        ("instance", call("torch", "FloatStorage")),
        ("dotted", ("torch.nn", "FloatStorage")),
    ):
        yield f"storage-kind-{label}", storage(key="1", kind=kind), REFUSED
    for label, key in (
        ("parent", "../../../../etc/passwd"),
        ("absolute", "/etc/passwd"),
        ("empty", ""),
        ("long", "9" * 1000),
        ("number", integer(0)),
        ("tuple", tuple_of(text("0"))),
    ):
        yield f"storage-key-{label}", storage(key=key), REFUSED
    for label, numel in (
        ("negative", -4),
        ("huge", 2**62),
        ("giant", 2**400),
        ("bool", b"\x88"),
        ("float", b"G" + struct.pack(">d", 4.0)),
    ):
        yield f"storage-numel-{label}", storage(key="1", numel=numel), REFUSED
    yield "storage-declared-twice", storage(numel=8), REFUSED
    yield "storage-other-dtype", storage(kind=("torch", "HalfStorage")), REFUSED
    yield "storage-view", storage(extra=tuple_of(text("v"), integer(0), integer(2))), REFUSED
    yield "storage-location-call", tuple_of(
        text("storage"), name("torch", "FloatStorage"), text("0"), call("os", "getcwd"), integer(4)
    ) + b"Q", REFUSED  # fmt: skip


def _tensors():
    for label, kwargs in (
        ("out-of-bounds", {"size": (5,)}),
        ("offset-out-of-bounds", {"offset": 1}),
        ("stride-out-of-bounds", {"size": (2, 2), "stride": (3, 2)}),
        ("negative-size", {"size": (-4,)}),
        ("negative-stride", {"stride": (-1,)}),
        ("negative-offset", {"offset": -1}),
        ("expanded", {"size": (2**40,), "stride": (0,)}),
        ("expanded-twice", {"size": (2**20, 2**20), "stride": (0, 0)}),
        ("size-overflow", {"size": (2**32, 2**32), "stride": (0, 0)}),
        ("size-huge", {"size": (2**62,), "stride": (0,)}),
        ("size-word", {"size": (text("4"),)}),
        ("size-bool", {"size": (b"\x88",)}),
        ("many-dimensions", {"size": (1,) * 1000, "stride": (1,) * 1000}),
        ("ranks-differ", {"size": (2, 2), "stride": (1,)}),
        ("offset-word", {"offset": text("0")}),
        ("no-storage", {"source": b"N"}),
        ("storage-is-a-call", {"source": call("os", "mkdir", text(CANARY))}),
        ("storage-is-a-tensor", {"source": tensor()}),
    ):
        yield f"tensor-{label}", tensor(**kwargs), REFUSED
    yield "tensor-too-few-arguments", call("torch._utils", "_rebuild_tensor_v2", storage()), REFUSED
    v3 = (storage(), integer(0), shape((4,)), shape((1,)), b"\x89", b"}")
    hostile_dtype = call("os", "mkdir", text(CANARY))
    yield (
        "tensor-dtype-call",
        call("torch._utils", "_rebuild_tensor_v3", *v3, hostile_dtype),
        REFUSED,
    )
    yield (
        "tensor-dtype-wider",
        call("torch._utils", "_rebuild_tensor_v3", *v3, name("torch", "float64")),
        REFUSED,
    )
    copies = b"".join(tensor((2**21,), (0,), offset=i % 4) for i in range(60))
    yield "expanded-forty-times", b"](" + copies + b"e", HARMLESS  # one layout for each offset
    layouts = [tensor((2**21 + i,), (0,)) for i in range(60)]
    yield "copies-beyond-the-limit", list_of(*layouts), REFUSED
    wide = [tensor((1, 2**22 + i), (1, 0)) for i in range(60)]
    yield "broadcast-rows", list_of(*wide), REFUSED
    yield "empty-absurd", tensor((0, 2**62), (1, 1)), REFUSED
    yield "empty-overflowing", tensor((0, 2**48, 2**48, 2**48), (1, 1, 1, 1)), REFUSED


def _bombs():
    """Streams whose reading, walking or hashing could take exponential or quadratic time."""
    yield "nested-lists", b"]" + b"q\00](h\0e" * 100_000, REFUSED
    yield "nested-marks", b"(" * 100_000 + b"t" * 100_000, REFUSED
    yield "nested-tuples", b")" + b"\x85" * 100_000, REFUSED
    yield "nested-list-marks", b"](" * 100_000 + b"e" * 100_000, REFUSED
    wrap = name("a", "B") + b"q\0" + b"0N" + b"q\10h\0h\1\x85\x81" * 100_000
    yield "nested-instances", wrap, REFUSED
    yield "laughing-tuples", b")" + b"q\0h\0\x86" * 60, REFUSED
    yield "laughing-lists", b"]" + b"q\10](h\1h\1e" * 60, REFUSED
    twice = dict_of(("a", b"h\1"), ("b", b"h\1"))
    yield "laughing-dicts", b"}" + (b"q\10" + twice) * 60, REFUSED
    parts = (("_parameters", b"}"), ("_buffers", b"}"), ("_modules", twice))
    module = name("m", "M") + b")\x81" + dict_of(*parts) + b"b"
    yield "laughing-modules", b"}" + (b"q\10" + module) * 60, REFUSED
    yield "laughing-key", b"}" + b")" + b"q\0h\0\x86" * 60 + b"Ns", HARMLESS
    yield "list-in-itself", b"]q\0h\0a", REFUSED
    yield "dict-in-itself", b"}q\0" + text("me") + b"h\0s", REFUSED
    yield "tuple-in-itself", b"]q\0(h\0te", REFUSED
    instance = name("a", "B") + b")\x81q\0"
    yield "instance-in-itself", instance + dict_of(("me", b"h\0")) + b"b", HARMLESS
    parts = (("_parameters", b"}"), ("_buffers", b"}"), ("_modules", dict_of(("me", b"h\0"))))
    yield "module-in-itself", instance + dict_of(*parts) + b"b", REFUSED
    scripted_class = name("__torch__", "M") + b")\x81"
    wide = (
        b"](" + dict_of(("a", b"N")) + b"q\1" + b"h\1" * 100_000 + b"t"
    )  # a state of 100,000 dicts
    instance_of = scripted_class + wide[1:] + b"bq\2"
    yield "state-of-many-dicts", b"](" + instance_of + b"h\2" * 50_000 + b"e", HARMLESS
    hidden = b"](" + text("a") + b"q\1" + b"h\1" * 100_000 + b"e"
    parts = (
        ("_parameters", b"}"), ("_buffers", b"}"), ("_modules", b"}"),
        ("_non_persistent_buffers_set", hidden),
    )  # fmt: skip
    module = name("m", "M") + b")\x81" + dict_of(*parts) + b"bq\2"
    yield "many-hidden-buffers", b"](" + module + b"h\2" * 50_000 + b"e", REFUSED
    deep = b"".join(b"}(" + text("k" * 500) for _ in range(400))
    yield (
        "long-names",
        deep + b"](" + tensor() + b"q\1" + b"h\1" * 40_000 + b"e" + b"u" * 400,
        REFUSED,
    )
    yield "forty-thousand-long-names", _long_names, REFUSED
    yield "values-of-many-dicts", b"}q\1" + b"0](" + b"h\1" * 300_000 + b"e", REFUSED
    yield "three-million-operations", b"N0" * 1_500_000 + b"N", REFUSED
    yield "colliding-keys", _colliding_keys, HARMLESS
    pairs = b"](" + b"NN\x86" * 10_000 + b"eq\0" + b"0"
    calls = (name("collections", "OrderedDict") + b"h\0\x85R0") * 10_000
    yield "dicts-from-one-list", pairs + calls + b"N", REFUSED
    many = (
        b"](" + b"N" * 100_000 + b"eq\0" + b"0" + (name("builtins", "set") + b"h\0\x85R0") * 10_000
    )
    yield "sets-from-one-list", many + b"N", HARMLESS


def _long_names():
    names = b"".join(b"c%d\n%s\n0" % (i, b"n" * 900) for i in range(40_000))
    return names + b"N"


def _colliding_keys():
    """Integers of one hash: a dict of them takes quadratic time."""
    return b"}(" + b"".join(integer(i * (2**61 - 1)) + b"N" for i in range(100_000)) + b"u"


def _wide_strings(count):
    """Strings that take four times their bytes in memory, for one wide character in each."""
    return list_of(*[text("a" * (3 << 20) + "\U0001f600")] * count)


def _values():
    yield "text-8-huge", b"\x8d" + struct.pack("<Q", 2**63), REFUSED
    yield "bytes-8-huge", b"\x8e" + struct.pack("<Q", 2**63 - 1), REFUSED
    yield "bytearray-8-huge", b"\x96" + struct.pack("<Q", 2**62), REFUSED
    yield "text-4-huge", b"X\xff\xff\xff\xff", REFUSED
    yield "bytes-4-huge", b"B\xff\xff\xff\xff", REFUSED
    yield "old-string-huge", b"T\xff\xff\xff\x7f", REFUSED
    yield "long-4-huge", b"\x8b\xff\xff\xff\x7f", REFUSED
    yield "long-4-negative", b"\x8b\xff\xff\xff\xff", REFUSED
    yield "long-1-long", b"\x8a\xff" + b"\x7f" * 255, REFUSED
    yield "not-utf8", text(b"\xff\xfe\xfd"), REFUSED
    yield "frame-lies", b"\x95" + struct.pack("<Q", 2**63) + b"N", HARMLESS
    yield "protocol-200", b"\x80\xc8N", REFUSED
    yield "unknown-opcode", b"\xff", REFUSED
    yield "key-with-escape", dict_of(("\x1b[2J", tensor())), REFUSED
    yield "key-with-surrogate", dict_of(("\udc80", tensor())), REFUSED
    yield "key-of-a-megabyte", dict_of(("k" * (1 << 20), tensor())), REFUSED
    yield "wide-strings", partial(_wide_strings, 12), REFUSED
    yield "wide-strings-within", partial(_wide_strings, 8), HARMLESS


def payload_cases():
    """Every payload in a legacy file; the calls and states in the other containers as well."""
    families = (_calls, _states, _memo, _storages, _tensors, _bombs, _values)
    for family in families:
        for label, payload, outcome in family():
            stream = partial(with_honest, payload)
            yield Case(f"legacy-{label}", partial(_file, legacy, stream), outcome)
            if family in (_calls, _states, _memo, _storages):
                yield Case(f"zip-{label}", partial(_file, zipped, stream), outcome)
            if family in (_calls, _states):
                yield Case(f"script-{label}", partial(_file, scripted, stream), outcome)


def _file(container, stream):
    return container(stream())
