"""Graphs on ONNX Runtime and OpenVINO, and what was measured of them; nothing here needs torch."""

from __future__ import annotations

import abc
import json
import logging
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from torchxrayvision import __version__
from torchxrayvision.errors import DependencyError, DeviceError, UnknownNameError
from torchxrayvision.files import sha256_of, write_atomically
from torchxrayvision.inference.engines.onnxfile import mapped_graph
from torchxrayvision.inputs import AIR
from torchxrayvision.remote import cache_dir, make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]
    Devices = str | torch.device | Sequence[str | torch.device] | None

_log = logging.getLogger(__name__)

INPUT: Final = "image"
BATCH: Final = 8
"""Images of a batch of a classifier where nobody names a number."""
FOLDER: Final = "engines"
"""Of the cache, for converted networks."""
CARD_SUFFIX: Final = ".json"
"""After the name of a graph, for what is known of it."""
PLACES: Final = 8
"""A side: where a card holds the logits of each structure."""
_ALIGNMENT: Final = 64  # bytes: what torch gives its tensors; last bits may depend on it
_FOLDER_OF_WEIGHTS: Final = "session.model_external_initializers_file_folder_path"
_CPUINFO: Final = Path("/proc/cpuinfo")


def aligned(shape: Sequence[int], value: float = AIR) -> Float32:
    """A float32 array whose address is a multiple of 64 bytes.

    Args:
        shape: Of the array.
        value: What it is filled with.
    """
    items = int(np.prod(shape))
    spare = _ALIGNMENT // 4
    buffer = np.empty(items + spare, np.float32)
    first = -(buffer.ctypes.data // 4) % spare
    array = buffer[first : first + items].reshape(shape)
    array[...] = value
    return array


def usable_threads() -> int:
    """Threads that torch would use: as the environment says, or one per core of the processor.

    Returns:
        At least 1.
    """
    for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        given = os.environ.get(name, "").partition(",")[0].strip()
        if given.isdecimal() and int(given):
            return int(given)
    affinity = getattr(os, "sched_getaffinity", None)
    usable = affinity(0) if affinity else set(range(os.cpu_count() or 1))
    cores = {_core(number) for number in usable}
    return max(1, len(cores))


def _core(number: int) -> tuple[str, str] | int:
    """Which core a processor is a thread of."""
    folder = Path(f"/sys/devices/system/cpu/cpu{number}/topology")
    try:
        package = (folder / "physical_package_id").read_text("ascii").strip()
        return package, (folder / "core_id").read_text("ascii").strip()
    except (OSError, ValueError):
        return number


def example_image(size: int) -> NDArray[np.float32]:
    """An image that a card holds the answer for: smooth, in [-1024, 1024], shape (size, size).

    Made of sines, so that it is the same everywhere to the last bits of float32.
    """
    places = np.arange(size) / size
    across, down = places[None, :], places[:, None]
    waves = np.sin(9 * across + 5 * down**2) * np.cos(7 * down - 4 * across**2)
    return np.asarray(700 * waves + 250 * np.cos(40 * across * down), np.float32)


def without_torch() -> Choice | None:
    """What `"auto"` is where torch is not installed; None where no runtime of graphs is either."""
    return next((Choice(name) for name, run in SESSIONS.items() if find_spec(run.package)), None)


def torch_version() -> str | None:
    """The version of the torch that is installed, without importing it.

    Returns:
        None without one.
    """
    try:
        return version("torch")
    except PackageNotFoundError:
        return None


def at_places(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a card holds of the maps of an image: their values in some places.

    Args:
        maps: Shape (P, R, R).

    Returns:
        Shape (P * 64,), rounded to five digits after the point.
    """
    places = (np.arange(PLACES) * maps.shape[-1] + maps.shape[-1] // 2) // PLACES
    return np.round(maps[:, places[:, None], places[None, :]], 5).reshape(-1)


def winograd_file(path: Path) -> Path:
    """Beside a graph in the cache, the same by Winograd's method."""
    return path.with_suffix(".winograd.onnx")


def input_size(model: Any) -> int:
    """Side in pixels that a model takes.

    Args:
        model: Any network of this package, or a graph of one.

    Returns:
        Its input resolution.

    Raises:
        ValueError: If it names none.
    """
    size: int | None = getattr(model, "input_resolution", None)
    if size is None:
        msg = "this model names no input resolution; set model.input_resolution to a side in pixels"
        raise ValueError(msg)
    return size


def processor() -> str:
    """Name of the processor, as far as the system tells it."""
    try:
        with _CPUINFO.open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.rstrip("\n")
    except (OSError, UnicodeDecodeError):
        pass
    return platform.processor() or platform.machine()


def import_openvino() -> Any:
    """OpenVINO without its reports, which its import alone would send, offline or not.

    Returns:
        The module; as it is where somebody else imported it before.
    """
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        import openvino
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
    return openvino


def return_memory() -> None:
    """Give what was freed back to the system, where the C library would keep it for later.

    Loading a graph needs some copies of its weights for a moment.
    """
    if sys.platform == "linux":
        import ctypes

        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of the GNU library
        if trim is not None:
            trim(0)


class BatchInput:
    """What holds the images of a batch.

    Attributes:
        input: Where they go, shape (B, 1, S, S) float32.
        overlaps: Batches that may have been begun before the oldest of them is to be finished.
    """

    input: Float32
    overlaps: int = 0

    def __call__(self) -> tuple[Float32, Float32]:
        """Run what is in `input`; values and features, a row per image."""
        raise NotImplementedError

    def start(self) -> Callable[[], tuple[Float32, Float32]]:
        """Begin to run what is in `input`, which may then be another array, to be written.

        Returns:
            What waits for the end and gives the results; called in the order of the batches,
            before more than `overlaps` others are begun.
        """
        answer = self()
        return lambda: answer

    def close(self) -> None:
        """End; batches that were not finished are dropped."""

    @property
    def batch_size(self) -> int:
        """Images of a batch."""
        return len(self.input)

    @property
    def size(self) -> int:
        """Side of an image in pixels."""
        return int(self.input.shape[-1])


class Session(abc.ABC):
    """A graph that is ready to run batches of one shape.

    Args:
        path: The graph.
        images: Where the images go, shape (B, 1, S, S) float32, from `aligned`.
        wanted: Names of the outputs that `run` gives.
        threads: That it may use.
        arithmetic: `"float32"`, `"bfloat16"` or `"float16"`.
    """

    name: ClassVar[str]
    package: ClassVar[str]

    def __init__(
        self,
        path: Path,
        images: Float32,
        wanted: Sequence[str],
        threads: int,
        arithmetic: str = "float32",
    ) -> None:
        self.input = images
        self.wanted = tuple(wanted)
        self.require()
        self._start(path, threads, arithmetic)

    @abc.abstractmethod
    def _start(self, path: Path, threads: int, arithmetic: str) -> None:
        """Load the graph."""

    @abc.abstractmethod
    def run(self) -> tuple[Float32, ...]:
        """Run what is in `input`: one array (B, ...) for each of `wanted`."""

    @classmethod
    def require(cls) -> str:
        """The version of the package.

        Raises:
            DependencyError: If it is missing.
        """
        try:
            return version(cls.package)
        except PackageNotFoundError as error:
            raise DependencyError(cls.package, f"engine={cls.name!r}", cls.name) from error


class OnnxSession(Session):
    """ONNX Runtime on the CPU."""

    name = "onnx"
    package = "onnxruntime"

    def _start(self, path: Path, threads: int, arithmetic: str) -> None:  # noqa: ARG002 - float32
        import onnxruntime

        onnxruntime.disable_telemetry_events()  # of the builds for Windows
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors; warnings speak of its own optimisation
        # A plan of all memory lies beside the parts that the first run took, and wins no time.
        options.enable_mem_pattern = False
        source: str | bytes = str(path)
        if sys.platform != "win32":  # where a file that is mapped cannot be replaced
            place = path.resolve()
            source = mapped_graph(place)
            options.add_session_config_entry(_FOLDER_OF_WEIGHTS, str(place.parent))
        self._session = onnxruntime.InferenceSession(
            source, options, providers=["CPUExecutionProvider"]
        )
        return_memory()

    def run(self) -> tuple[Float32, ...]:
        """See `Session`."""
        return tuple(self._session.run(list(self.wanted), {INPUT: self.input}))


class OpenVinoSession(Session):
    """OpenVINO on the CPU."""

    name = "openvino"
    package = "openvino"
    _HINTS: ClassVar = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}

    def _start(self, path: Path, threads: int, arithmetic: str) -> None:
        core = import_openvino().Core()
        graph = core.read_model(path)
        graph.reshape(list(self.input.shape))  # a fixed shape is planned better than any
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": self._HINTS[arithmetic],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time on all threads
        }
        self._compiled = core.compile_model(graph, "CPU", settings)
        self._request = self._compiled.create_infer_request()
        del core, graph
        return_memory()

    def run(self) -> tuple[Float32, ...]:
        """See `Session`."""
        answers = self._request.infer({INPUT: self.input}, share_inputs=True)
        return tuple(answers[name].copy() for name in self.wanted)


SESSIONS: Final[dict[str, type[Session]]] = {"onnx": OnnxSession, "openvino": OpenVinoSession}


ENGINES: Final = ("auto", "torch", "onnx", "openvino")
PRECISIONS: Final = ("exact", "fast")
# Converting a network and timing it takes half a minute, which a faster engine wins back in one.
WORTH_MEASURING: Final = 60.0
"""Seconds that a run takes in torch."""
_MEMORY: Final = "engines.json"


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine and its arithmetic; the same choice gives the same numbers.

    Args:
        engine: `"torch"`, `"onnx"` or `"openvino"`.
        arithmetic: `"float32"`, `"bfloat16"` or `"float16"`.
        compiled: Whether torch compiles the network.
        winograd: Whether ONNX Runtime computes wide 3 x 3 convolutions by Winograd's method.
        captured: Whether torch launches the network as one CUDA graph.
    """

    engine: str
    arithmetic: str = "float32"
    compiled: bool = False
    winograd: bool = False
    captured: bool = False

    def __str__(self) -> str:
        ways = {
            ", compiled,": self.compiled,
            ", as one CUDA graph,": self.captured,
            " by Winograd's method": self.winograd,
        }
        how = "".join(way for way, used in ways.items() if used)
        return f"{self.engine}{how} in {self.arithmetic}"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a network runs besides what `Choice` says; nothing of it moves numbers by more than 1e-5.

    Args:
        grows: Whether batches grow where that makes the device faster: nobody named their size.
        images: How many there are to do; None where that is not known.
        devices: Names of several, the first that of the network; empty for that alone.
    """

    grows: bool = False
    images: int | None = None
    devices: tuple[str, ...] = ()


def device_names(device: Devices) -> tuple[str, ...]:
    """The devices that a user names.

    Args:
        device: A name, a `torch.device`, several of them in a sequence or between commas
            (`"cuda:0,cuda:1"`), or `"all"` for every accelerator of this machine.

    Returns:
        Their names; of one as it was given, nothing for None.

    Raises:
        DeviceError: If one is named twice, or there is no accelerator.
    """
    if device is None:
        return ()
    if device == "all":
        return _accelerators()
    if isinstance(device, str):
        device = device.split(",")
    given = [str(one).strip() for one in (device if isinstance(device, Sequence) else [device])]
    if len(given) < 2:
        return tuple(given)
    # As torch has it, a kind without a number is its first device, but for the CPU.
    names = [one if ":" in one or one == "cpu" else f"{one}:0" for one in given]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise DeviceError(name, "is named twice")
    return tuple(names)


def _accelerators() -> tuple[str, ...]:
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if found is None:
        raise DeviceError("all", "torch finds no accelerator on this machine; name cpu")
    return tuple(f"{found.type}:{index}" for index in range(torch.accelerator.device_count()))


def check_names(engine: str, precision: str) -> None:
    """Refuse engines and precisions that do not exist.

    Raises:
        UnknownNameError: If there is no such engine or precision.
    """
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)


def exact_candidates(engine: str, *, wide: bool) -> Iterator[Choice]:
    """What may run a network on the CPU in float32.

    Args:
        engine: One of `ENGINES`; `"auto"` takes those that are installed.
        wide: Whether the network has convolutions that gain by Winograd's method.
    """
    for name in ENGINES[1:] if engine == "auto" else (engine,):
        if engine == "auto" and not is_installed(name):
            continue
        yield Choice(name)
        if name == "onnx" and wide:
            yield Choice(name, winograd=True)


def is_installed(name: str) -> bool:
    """Whether an engine can be used here; the converter is needed besides what runs the graph."""
    packages = () if name == "torch" else (SESSIONS[name].package, "onnx", "onnxscript")
    return all(find_spec(package) for package in packages)


def measurement_key(
    network: Sequence[str], size: int, threads: int, torch: str, candidates: Sequence[Choice]
) -> str:
    """What a measurement holds for: processor, versions, network and candidates.

    The number of images of a batch is left out, so that one image profits from what a folder
    measured.

    Args:
        network: Name and shape of each parameter.
        size: Side of its images in pixels.
        threads: That the engines use.
        torch: Version of torch.
        candidates: What was compared.
    """
    about = {
        "processor": processor(),
        "threads": threads,
        "torchxrayvision": __version__,
        "torch": torch,
        "runtimes": {c.engine: SESSIONS[c.engine].require() for c in candidates
                     if c.engine in SESSIONS},
        "network": list(network),
        "size": size,
        "candidates": [asdict(c) for c in candidates],
    }  # fmt: skip
    return sha256_of(json.dumps(about, sort_keys=True).encode())[:24]


class Memory:
    """What was measured on this machine, a small file in the cache folder.

    Args:
        key: Of `measurement_key`.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._path = cache_dir() / _MEMORY

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self._path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return entries if isinstance(entries, dict) else {}

    def get(self) -> Choice | None:
        """The choice made earlier."""
        entry = self._read().get(self._key)
        try:
            return Choice(**{k: v for k, v in entry.items() if k != "seconds"}) if entry else None
        except (AttributeError, TypeError, KeyError):
            return None

    def put(self, choice: Choice, seconds: dict[str, float]) -> None:
        """Remember a choice; a folder that cannot be written costs the memory only."""
        entries = {**self._read(), self._key: {**asdict(choice), "seconds": seconds}}
        try:
            make_folder(self._path.parent)
            with write_atomically(self._path, durable=False) as part:
                part.write_text(json.dumps(entries, indent=1), "utf-8")
        except OSError as error:
            _log.info("%s: %s", self._path, error)
