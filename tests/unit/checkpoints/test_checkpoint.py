"""The checkpoint reader returns what torch itself returns for files that torch wrote."""

from __future__ import annotations

import collections
import importlib.util
import random
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from torchxrayvision.checkpoints.read import pick, read_tensors, state_dict_of, strip_prefix
from torchxrayvision.errors import CheckpointError

from . import hostile as asm
from .torch_files import CONTAINERS, assert_same, network, same, save


class Callback:
    """An object as trainers keep it in a checkpoint."""

    def __init__(self):
        self.best = 0.5
        self.history = {"loss": [1.0, 0.5]}
        self.owner = self


Pair = collections.namedtuple("Pair", ["left", "right"])


def tied():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    return net


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    "make",
    [network, tied, lambda: nn.DataParallel(network()), lambda: nn.ModuleDict({"a": network()}),
     lambda: nn.Sequential(*[layer := nn.Linear(2, 2), layer])],
    ids=["module", "tied", "data-parallel", "module-dict", "shared-layer"],
)  # fmt: skip
def test_whole_module_gives_its_state_dict(make, container, tmp_path):
    module = make()
    checkpoint = read_tensors(save(module, tmp_path / "m.pt", container))
    assert checkpoint.container == container
    assert_same(checkpoint.tensors, module.state_dict())
    assert not checkpoint.skipped


@pytest.mark.parametrize("container", CONTAINERS)
def test_module_of_a_class_that_is_gone_is_read(container, tmp_path):
    source = tmp_path / "vanished_net.py"
    source.write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.fc = nn.Linear(3, 2)\n"
    )
    spec = importlib.util.spec_from_file_location("vanished_net", source)
    module = importlib.util.module_from_spec(spec)
    sys.modules["vanished_net"] = module
    try:
        spec.loader.exec_module(module)
        net = module.Net()
        path = save(net, tmp_path / "m.pt", container)
    finally:
        del sys.modules["vanished_net"]
    source.unlink()
    checkpoint = read_tensors(path)
    assert_same(checkpoint.tensors, net.state_dict())
    assert "vanished_net.Net" in checkpoint.globals
    assert "vanished_net" not in sys.modules


DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64, torch.complex128,
    torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


def one_of_each():
    base = torch.arange(24.0).reshape(4, 6)
    wide = torch.arange(100.0)
    return {
        **{str(dtype): torch.tensor([0, 1, 1, 0]).to(dtype) for dtype in DTYPES},
        "zero-dimensional": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "empty strided": torch.empty(3, 0).t(),
        "transposed": base.t(),
        "every other": base[::2, ::3],
        "column": base[:, 2:3],
        "expanded": torch.ones(1, 3).expand(5, 3),
        "channels last": torch.arange(48.0).reshape(1, 3, 4, 4).to(
            memory_format=torch.channels_last
        ),
        "slice": wide[10:20],
        "slice that overlaps": wide[15:25],
        "parameter": nn.Parameter(torch.ones(2)),
        "requires grad": torch.ones(2, requires_grad=True),
        "not a number": torch.tensor([float("nan"), -0.0, float("inf")]),
    }  # fmt: skip


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_dtype_and_layout_is_bit_equal(container, tmp_path):
    path = save(one_of_each(), tmp_path / "t.pt", container)
    ours = read_tensors(path).tensors
    assert_same(ours, one_of_each())
    if container == "zip":  # torch cannot read its own legacy files of the newest dtypes
        assert_same(ours, torch.load(path, weights_only=False))
    assert all(t.is_contiguous() and not t.requires_grad for t in ours.values())
    assert all(type(t) is torch.Tensor for t in ours.values())


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_is_read(protocol, container, tmp_path):
    value = {"net": network().state_dict(), "set": {1, 2}, "frozen": frozenset("a"), "raw": b"\0"}
    path = save(value, tmp_path / "p.pt", container, pickle_protocol=protocol)
    assert_same(pick(read_tensors(path).tensors, "net"), network().state_dict())


@pytest.mark.parametrize("container", CONTAINERS)
def test_lightning_checkpoint_gives_state_values_and_ignores_objects(container, tmp_path):
    net = network()
    optimiser = torch.optim.Adam(net.parameters())
    net(torch.randn(2, 1, 8, 8)).sum().backward()
    optimiser.step()
    value = {
        "epoch": 7,
        "task_sequence": {"Cardiomegaly": 0, "Edema": 1},
        "ckpt_info": [1, 2.5, None, True, "word"],
        "state_dict": collections.OrderedDict(
            (f"model.{k}", v) for k, v in net.state_dict().items()
        ),
        "callbacks": {"Checkpoint": Callback(), "path": Path("/nowhere")},
        "optimizer_states": [optimiser.state_dict()],
        "best": np.float64(0.25),
        "array": np.arange(4),
        "size": torch.Size([1, 2]),
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "counter": collections.Counter("aab"),
        "default": collections.defaultdict(list, a=[1]),
        "generator": random.Random(0).getstate()[0],
    }
    path = save(value, tmp_path / "l.ckpt", container)
    checkpoint = read_tensors(path)
    assert_same(strip_prefix(state_dict_of(checkpoint), "model."), net.state_dict())
    assert checkpoint.values["epoch"] == 7
    assert checkpoint.values["task_sequence"] == {"Cardiomegaly": 0, "Edema": 1}
    assert checkpoint.values["ckpt_info"] == [1, 2.5, None, True, "word"]
    assert checkpoint.values["default"] == {"a": [1]}
    assert not {"array", "best", "dtype"} & set(checkpoint.values)
    assert "optimizer_states.0.state.0.exp_avg" in checkpoint.tensors
    assert any(name.endswith(".Callback") for name in checkpoint.globals)


@pytest.mark.parametrize("container", CONTAINERS)
def test_names_follow_containers(container, tmp_path):
    value = [torch.ones(1), {"a": (torch.ones(2), 5), 3: torch.ones(3)}, Pair(torch.ones(4), None)]
    ours = read_tensors(save(value, tmp_path / "n.pt", container)).tensors
    assert {name: t.numel() for name, t in ours.items()} == {"0": 1, "1.a.0": 2, "1.3": 3, "2.0": 4}


class Tagged(torch.Tensor):
    """A tensor subclass, as frameworks make them."""


@pytest.mark.parametrize("container", CONTAINERS)
def test_tensors_with_attributes_and_of_subclasses_are_plain_tensors(container, tmp_path):
    parameter, plain = nn.Parameter(torch.ones(2)), torch.full((2,), 3.0)
    parameter.tag, plain.owner = "x", Callback()
    value = {"p": parameter, "t": plain, "s": torch.full((2,), 5.0).as_subclass(Tagged)}
    checkpoint = read_tensors(save(value, tmp_path / "a.pt", container))
    assert {name: t.tolist() for name, t in checkpoint.tensors.items()} == {
        "p": [1, 1], "t": [3, 3], "s": [5, 5],
    }  # fmt: skip
    assert all(type(t) is torch.Tensor for t in checkpoint.tensors.values())
    assert not any("owner" in name or "tag" in name for name in checkpoint.tensors)


@pytest.mark.parametrize("container", CONTAINERS)
def test_file_of_one_tensor_calls_it_tensor(container, tmp_path):
    path = save(torch.arange(3), tmp_path / "one.pt", container)
    assert read_tensors(path).tensors["tensor"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("container", CONTAINERS)
def test_tied_names_share_one_tensor_and_views_share_memory(container, tmp_path):
    base = torch.arange(10.0)
    path = save({"a": base, "b": base, "c": base[2:4]}, tmp_path / "v.pt", container)
    ours = read_tensors(path).tensors
    assert ours["a"] is ours["b"]
    ours["a"][2] = 99.0
    assert ours["c"][0] == 99.0


@pytest.mark.parametrize("container", CONTAINERS)
def test_unreadable_tensors_are_named_and_stop_only_their_own_state(container, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that sparse and quantised kinds change
        value = {
            "net": {"w": torch.ones(2)},
            "sparse": torch.eye(3).to_sparse(),
            "csr": torch.eye(3).to_sparse_csr(),
            "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
            "conjugate": torch.ones(2, dtype=torch.complex64).conj(),
            "meta": torch.ones(2, device="meta"),
        }
        path = save(value, tmp_path / "u.pt", container)
    checkpoint = read_tensors(path)
    assert set(checkpoint.tensors) == {"net.w"}
    assert set(checkpoint.skipped) == {"sparse", "csr", "quantised", "conjugate", "meta"}
    assert list(state_dict_of(checkpoint)) == ["w"]


def test_unread_tensor_of_the_state_itself_is_an_error(tmp_path):
    path = save({"a": torch.ones(2), "s": torch.eye(2).to_sparse()}, tmp_path / "s.pt")
    with pytest.raises(CheckpointError, match=r"'s' is a sparse or nested tensor"):
        state_dict_of(read_tensors(path))


@pytest.mark.parametrize("how", ["script", "trace"])
def test_torchscript_gives_its_attributes_without_running_code(how, tmp_path):
    net = network().eval()
    path = tmp_path / "s.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript; files of it remain
        net.plain = None
        made = (
            torch.jit.script(net)
            if how == "script"
            else torch.jit.trace(net, torch.zeros(1, 1, 8, 8))
        )
        made.save(str(path))
        expected = made.state_dict()
    checkpoint = read_tensors(path)
    assert checkpoint.container == "torchscript"
    ours = {name: t for name, t in checkpoint.tensors.items() if name in expected}
    assert set(ours) == set(expected)
    assert all(same(ours[name], expected[name]) for name in expected)
    # TorchScript keeps the buffer that state_dict() leaves out.
    assert set(checkpoint.tensors) - set(expected) <= {"scratch"}


def test_big_endian_archive_reads_like_its_twin(tmp_path):
    value = {"f": torch.randn(5), "c": torch.randn(3, dtype=torch.complex64),
             "h": torch.randn(4).half(), "i": torch.arange(4),
             "b": torch.ones(3, dtype=torch.uint8)}  # fmt: skip
    little = save(value, tmp_path / "little.pt")
    widths = [4, 4, 2, 8, 1]
    with (
        zipfile.ZipFile(little) as source,
        zipfile.ZipFile(tmp_path / "big.pt", "w") as target,
    ):
        for member in source.namelist():
            raw = source.read(member)
            folder, _, key = member.rpartition("/")
            if folder.endswith("data") and key.isdigit():
                raw = np.frombuffer(raw, f"V{widths[int(key)]}").copy().view(np.uint8)
                raw = raw.reshape(-1, widths[int(key)])[:, ::-1].tobytes()
            target.writestr(member, b"big" if key == "byteorder" else raw)
    assert_same(read_tensors(tmp_path / "big.pt").tensors, value)
    assert_same(torch.load(tmp_path / "big.pt", weights_only=False), value)


def test_archive_without_checksums_is_read(tmp_path):
    computing = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path = save(network().state_dict(), tmp_path / "c.pt")
    finally:
        torch.serialization.set_crc32_options(computing)
    assert_same(read_tensors(path).tensors, network().state_dict())


def test_safetensors_file_is_read(tmp_path):
    from safetensors.torch import save_file

    state = {name: t.contiguous() for name, t in network().state_dict().items()}
    save_file(state, tmp_path / "s.safetensors", metadata={"epoch": "3"})
    checkpoint = read_tensors(tmp_path / "s.safetensors")
    assert checkpoint.container == "safetensors"
    assert checkpoint.values == {"epoch": "3"}
    assert_same(dict(sorted(checkpoint.tensors.items())), dict(sorted(state.items())))


@pytest.mark.parametrize("location", ["cuda:0", "mps", "xpu:1", "privateuseone"])
def test_tensors_of_any_device_come_to_the_cpu(location, tmp_path):
    source = asm.storage(kind=("torch.cuda", "FloatStorage"), location=location)
    stream = asm.proto() + asm.dict_of(("w", asm.tensor(source=source))) + b"."
    (tmp_path / "d.pt").write_bytes(asm.legacy(stream))
    tensor = read_tensors(tmp_path / "d.pt").tensors["w"]
    assert tensor.device.type == "cpu"
    assert tensor.tolist() == [1, 2, 3, 4]


def test_stream_of_python_2_and_torch_0_4_is_read(tmp_path):
    """Byte strings, an OrderedDict made of pairs, a module's source in a persistent id."""

    def word(value):
        return b"U" + bytes([len(value)]) + value

    source = asm.tuple_of(
        word(b"storage"), asm.name("torch", "FloatStorage"), word(b"0"), word(b"cuda:0"),
        asm.integer(4), b"N",
    ) + b"Q"  # fmt: skip
    weight = asm.call(
        "torch._utils",
        "_rebuild_tensor",
        source,
        asm.integer(0),
        asm.shape((2, 2)),
        asm.shape((2, 1)),
    )
    ordered = asm.call(
        "collections", "OrderedDict", b"](" + b"](" + word(b"weight") + weight + b"ee"
    )
    empty = asm.call("collections", "OrderedDict", b"]")
    cls = asm.tuple_of(
        word(b"module"), asm.name("old.package", "Net"), word(b"/net.py"), word(b"class Net: pass"),
    ) + b"Q"  # fmt: skip
    state = b"}(" + word(b"_parameters") + ordered + word(b"_buffers") + empty
    state += word(b"_modules") + empty + word(b"training") + b"\x88u"
    stream = asm.proto() + cls + b")\x81" + state + b"b."
    (tmp_path / "old.pt").write_bytes(asm.legacy(stream))
    checkpoint = read_tensors(tmp_path / "old.pt")
    assert checkpoint.tensors["weight"].tolist() == [[1, 2], [3, 4]]
    assert checkpoint.globals["old.package.Net"] == 1


def test_odd_bytes_of_a_bool_become_true(tmp_path):
    source = asm.storage(kind=("torch", "BoolStorage"))
    stream = asm.proto() + asm.dict_of(("w", asm.tensor(source=source))) + b"."
    (tmp_path / "b.pt").write_bytes(asm.legacy(stream, storages=(("0", 4, b"\0\1\2\xff"),)))
    tensor = read_tensors(tmp_path / "b.pt").tensors["w"]
    assert tensor.view(torch.uint8).tolist() == [0, 1, 1, 1]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured through /proc")
@pytest.mark.parametrize("container", CONTAINERS)
def test_reading_takes_little_more_memory_than_the_file(container, tmp_path):
    path = save(
        {"a": torch.ones(12 << 20), "b": torch.ones(12 << 20)}, tmp_path / "m.pt", container
    )

    def peak():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

    read_tensors(path)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    read_tensors(path)
    assert peak() - before < 1.2 * path.stat().st_size
