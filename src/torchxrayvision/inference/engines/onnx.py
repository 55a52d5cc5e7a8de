"""Engines that run a graph instead of the model: ONNX Runtime and OpenVINO."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, Final

import torch

from torchxrayvision import __version__
from torchxrayvision.errors import DependencyError
from torchxrayvision.files import sha256_of, write_atomically
from torchxrayvision.inference.engines.base import (
    INPUT,
    Engine,
    input_size,
    output_names,
    to_onnx,
    trace,
)
from torchxrayvision.inference.engines.winograd import minimal_filtering
from torchxrayvision.remote import cache_dir, is_as_made, make_folder, remember_made
from torchxrayvision.runs import fingerprint

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from torchxrayvision.models import XRayModel

_log = logging.getLogger(__name__)

_FOLDER: Final = "engines"


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


def onnx_file(model: XRayModel, size: int, *, winograd: bool = False, fresh: bool = False) -> Path:
    """The graph of a model in the cache folder, converted where it is not there, or if `fresh`.

    A graph decides what the numbers are, so one that is not what was written here is not used: the
    first use in a process hashes it.

    Raises:
        DependencyError: If onnx or onnxscript is missing.
    """
    made_by = f"{__version__}-{torch.__version__}-{size}"
    key = sha256_of(f"{fingerprint(model)}-{made_by}".encode())[:24]
    path = cache_dir() / _FOLDER / f"{key}.onnx"
    if fresh or not is_as_made(path):
        import copy

        # A graph is traced on the CPU in float32, whatever the model is on.
        _write(to_onnx(trace(copy.deepcopy(model).float().cpu(), size), output_names(model)), path)
    if not winograd:
        return path
    # A file too: held in memory while it is loaded, a large graph doubles what the process takes.
    changed = path.with_suffix(".winograd.onnx")
    if fresh or not is_as_made(changed):
        import onnx

        _write(minimal_filtering(onnx.load(path)), changed)
    return changed


def _write(proto: onnx.ModelProto, path: Path) -> None:
    make_folder(path.parent)
    with write_atomically(path, durable=False) as part:
        part.write_bytes(proto.SerializeToString())
    try:
        remember_made(path)
    except OSError as error:  # it is converted again the next time
        _log.info("%s: %s", path.parent, error)


class OnnxEngine(Engine):
    """ONNX Runtime on the CPU; `winograd` and `fresh` are those of `onnx_file`."""

    name: ClassVar[str] = "onnx"
    extra: ClassVar[str] = "onnx"
    package: ClassVar[str] = "onnxruntime"

    def __init__(
        self,
        model: XRayModel,
        batch_size: int,
        arithmetic: str = "float32",
        *,
        winograd: bool = False,
        fresh: bool = False,
    ) -> None:
        super().__init__(model, batch_size)
        self.require()
        self._arithmetic = arithmetic
        self._start(onnx_file(model, input_size(model), winograd=winograd, fresh=fresh))

    def _start(self, path: Path) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()  # of the builds for Windows
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors; warnings speak of its own optimisation
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def _run(self) -> tuple[torch.Tensor, ...]:
        answers = self._session.run(list(self.wanted), {INPUT: self.input})
        return tuple(torch.from_numpy(answer) for answer in answers)

    @classmethod
    def require(cls) -> str:
        """The version of the package.

        Raises:
            DependencyError: If it is missing.
        """
        try:
            return version(cls.package)
        except ImportError as error:
            raise DependencyError(cls.package, f"engine={cls.name!r}", cls.extra) from error

    @staticmethod
    def arithmetics() -> tuple[str, ...]:
        """What the processor computes in hardware and the engine uses, besides float32."""
        return ()


class OpenVinoEngine(OnnxEngine):
    """OpenVINO on the CPU; Winograd's method was slower than without (docs/speed.md)."""

    name = "openvino"
    extra = "openvino"
    package = "openvino"
    _HINTS: ClassVar = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}

    def _start(self, path: Path) -> None:
        core = import_openvino().Core()
        graph = core.read_model(path)
        graph.reshape(list(self.input.shape))  # a fixed shape is planned better than any
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": self._HINTS[self._arithmetic],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time on all threads
        }
        self._compiled = core.compile_model(graph, "CPU", settings)
        self._request = self._compiled.create_infer_request()

    def _run(self) -> tuple[torch.Tensor, ...]:
        answers = self._request.infer({INPUT: self.input}, share_inputs=True)
        return tuple(torch.from_numpy(answers[name].copy()) for name in self.wanted)

    @staticmethod
    def arithmetics() -> tuple[str, ...]:
        """What the processor computes in hardware and the engine uses, besides float32."""
        able = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        # float16 first: its rounding is eight times finer.
        return tuple(n for n, code in (("float16", "FP16"), ("bfloat16", "BF16")) if code in able)
