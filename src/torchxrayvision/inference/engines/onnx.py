"""Engines that run a graph instead of the model: ONNX Runtime and OpenVINO."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

import torch

from torchxrayvision.files import write_atomically
from torchxrayvision.inference.engines.base import (
    Engine,
    on_cpu,
    onnx_place,
    output_names,
)
from torchxrayvision.inference.engines.conversion import to_onnx, trace
from torchxrayvision.inference.engines.onnxfile import LightModel, read_light
from torchxrayvision.inference.engines.pages import drop_clean_pages
from torchxrayvision.inference.engines.runtime import (
    OnnxSession,
    OpenVinoSession,
    import_openvino,
    input_size,
    winograd_file,
)
from torchxrayvision.inference.engines.winograd import minimal_filtering
from torchxrayvision.remote import is_as_made, make_folder, remember_made

if TYPE_CHECKING:
    from pathlib import Path

    from torchxrayvision.inference.engines.runtime import Session
    from torchxrayvision.models import XRayModel

_log = logging.getLogger(__name__)


def onnx_file(model: XRayModel, size: int, *, winograd: bool = False, fresh: bool = False) -> Path:
    """The graph of a model in the cache folder, converted where it is not there, or if `fresh`.

    A graph decides what the numbers are, so one that is not what was written here is not used: the
    first use in a process hashes it.

    Raises:
        DependencyError: If onnx or onnxscript is missing.
    """
    path = onnx_place(model, size)
    if fresh or not is_as_made(path):
        # A graph is traced on the CPU in float32, whatever the model is on.
        _write(to_onnx(trace(on_cpu(model), size), output_names(model)), path)
    if not winograd:
        return path
    changed = winograd_file(path)
    if fresh or not is_as_made(changed):
        _write(minimal_filtering(read_light(path)), changed)
    return changed


def _write(graph: LightModel, path: Path) -> None:
    make_folder(path.parent)
    with write_atomically(path, durable=False) as part:
        graph.write(part)
    try:
        remember_made(path)
    except OSError as error:  # it is converted again the next time
        _log.info("%s: %s", path.parent, error)


class OnnxEngine(Engine):
    """ONNX Runtime on the CPU; `winograd` and `fresh` are those of `onnx_file`."""

    name = "onnx"
    session: ClassVar[type[Session]] = OnnxSession

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
        path = onnx_file(model, input_size(model), winograd=winograd, fresh=fresh)
        drop_clean_pages(model)  # which were hashed, converted or compared before
        self._start(path)

    def _start(self, path: Path) -> None:
        threads = torch.get_num_threads()
        self._session = self.session(path, self.input, self.wanted, threads, self._arithmetic)

    def _run(self) -> tuple[torch.Tensor, ...]:
        return tuple(torch.from_numpy(answer) for answer in self._session.run())

    @classmethod
    def require(cls) -> str:
        """The version of the package.

        Raises:
            DependencyError: If it is missing.
        """
        return cls.session.require()

    @staticmethod
    def arithmetics() -> tuple[str, ...]:
        """What the processor computes in hardware and the engine uses, besides float32."""
        return ()


class OpenVinoEngine(OnnxEngine):
    """OpenVINO on the CPU; Winograd's method was slower than without (docs/speed.md)."""

    name = "openvino"
    session = OpenVinoSession

    @staticmethod
    def arithmetics() -> tuple[str, ...]:
        """What the processor computes in hardware and the engine uses, besides float32."""
        able = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        # float16 first: its rounding is eight times finer.
        return tuple(n for n, code in (("float16", "FP16"), ("bfloat16", "BF16")) if code in able)
