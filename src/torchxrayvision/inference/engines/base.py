"""What runs a network: one buffer in, the outputs of its graph out, behind one name."""

from __future__ import annotations

import abc
import copy
import logging
import os
import shutil
from typing import TYPE_CHECKING, ClassVar

import torch

from torchxrayvision.inference.engines.graph import graph_module, output_names
from torchxrayvision.inputs import AIR
from torchxrayvision.models import XRayClassifier, scale_is_known

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from torchxrayvision.models import XRayModel

_log = logging.getLogger(__name__)

__all__ = ["ClassifierEngine", "Engine", "TorchEngine", "has_compiler", "input_size", "reference"]


def input_size(model: XRayModel) -> int:
    """Side in pixels that a model takes.

    Raises:
        ValueError: If it names none.
    """
    size: int | None = getattr(model, "input_resolution", None)
    if size is None:
        msg = "this model names no input resolution; set model.input_resolution to a side in pixels"
        raise ValueError(msg)
    return size


def _wanted(model: XRayModel) -> tuple[str, ...]:
    """Calibration is the same for all engines, so theirs are the raw outputs and features."""
    return output_names(model)[1:] if isinstance(model, XRayClassifier) else model.output_names


class Engine(abc.ABC):
    """A network that is ready to run batches of one fixed shape.

    The numbers of an image depend on the shape of its batch, on its place in it and on the
    alignment of memory, in their last bits. So every batch has the full shape, in the one
    buffer `input`, whose address is a multiple of 64 bytes; missing images are filled up. Then they
    depend on nothing but the image, its place and the number of threads.

    Args:
        model: In evaluation mode.
        batch_size: Images of a batch.

    Attributes:
        input: Where the images go, shape (B, 1, S, S) float32; written by the caller.
        wanted: Names of what `run` gives: of a classifier the raw outputs and features; of another
            network all its outputs.
    """

    name: ClassVar[str]

    def __init__(self, model: XRayModel, batch_size: int) -> None:
        size = input_size(model)
        self.wanted = _wanted(model)
        # Of torch and not of NumPy: torch aligns to 64 bytes.
        self._tensor = torch.full((batch_size, 1, size, size), AIR)
        self.input: NDArray[np.float32] = self._tensor.numpy()

    @abc.abstractmethod
    def _run(self) -> tuple[torch.Tensor, ...]:
        """One tensor (B, ...) for each of `wanted`, float32 on the CPU."""

    def run(self) -> tuple[torch.Tensor, ...]:
        """Run what is in `input`.

        Returns:
            One tensor (B, ...) for each of `wanted`, float32 on the CPU.
        """
        with torch.inference_mode(), scale_is_known():
            return self._run()


def weight_of(model: XRayModel) -> torch.Tensor:
    """One of the weights, for device and arithmetic; an ensemble read member by member has none."""
    return next(model.parameters(), torch.empty(0))


def reference(model: XRayModel, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What engines are compared with: PyTorch as it is, without a copy of the weights.

    Args:
        model: In evaluation mode, on its device.
        images: Shape (n, 1, S, S) float32.

    Returns:
        What `Engine.run` gives, for these images.
    """
    weight = weight_of(model)
    with torch.inference_mode(), scale_is_known():
        given = graph_module(model)(images.to(weight.device, weight.dtype))
    return tuple(one.float().cpu() for one in given[-len(_wanted(model)) :])


class ClassifierEngine:
    """An engine whose raw outputs become the numbers that were asked for.

    Args:
        engine: Runs the classifier.
        model: The classifier.
        kind: Meaning of the values.

    Attributes:
        engine: As given.
        input: Where the images go, see `Engine`.
        outputs: Number of values an image, P.
        width: Number of features an image, D.
    """

    def __init__(self, engine: Engine, model: XRayClassifier, kind: str) -> None:
        self.engine = engine
        self.kind = kind
        self.input = engine.input
        self.outputs = len(model.targets)
        self.width = model.features_width
        self._model = model

    @property
    def batch_size(self) -> int:
        """Images of a batch."""
        return len(self.input)

    @property
    def size(self) -> int:
        """Side of an image in pixels."""
        return int(self.input.shape[-1])

    def __call__(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run what is in `input`.

        Returns:
            Values of the kind asked for, shape (B, P), and features, shape (B, D), float32.
        """
        raw, features = self.engine.run()
        with torch.inference_mode():
            values = self._model.convert(raw, self.kind)
            return self._model.named_values(values, self.kind).numpy(), features.numpy()


class TorchEngine(Engine):
    """PyTorch, on the device of the model.

    On the CPU a copy of the weights lies with the channels last, which convolutions run faster on
    (`docs/speed.md`); the model of the caller stays as it is.

    Args:
        model: See `Engine`.
        batch_size: See `Engine`.
        arithmetic: `"float32"` for that of the weights, or `"bfloat16"` for convolutions in it.
        compiled: Compile the network when it first runs, which takes up to minutes; without a
            compiler that works it runs as it is.
    """

    name = "torch"

    def __init__(
        self,
        model: XRayModel,
        batch_size: int,
        arithmetic: str = "float32",
        *,
        compiled: bool = False,
    ) -> None:
        super().__init__(model, batch_size)
        self._weight = weight_of(model)
        self._reduced = arithmetic == "bfloat16"
        if self._weight.device.type == "cpu":
            model = copy.deepcopy(model).to(memory_format=torch.channels_last)
        self._model = model
        self._module = graph_module(model)
        self._compiled = None
        if compiled:
            # Frozen: the weights are constants, so that normalisation goes into convolutions.
            self._compiled = torch.compile(self._module, options={"freezing": True})

    @property
    def compiled(self) -> bool:
        """Whether what runs is compiled; compiling may have failed."""
        return self._compiled is not None

    def _run(self) -> tuple[torch.Tensor, ...]:
        device, dtype = self._weight.device, self._weight.dtype
        images = self._tensor.to(device, dtype)
        if self._compiled is not None:
            try:
                found = self._compiled(images)
            except Exception as error:  # noqa: BLE001 - 1.5.7 lacks the decoder or the tags
                _log.info("torch.compile: %s; going on without", error)
                self._compiled = None
            else:
                return tuple(given.float().cpu() for given in found[-len(self.wanted) :])
        with torch.autocast(device.type, torch.bfloat16, enabled=self._reduced):
            if isinstance(self._model, XRayClassifier):
                found = self._model.features_and_raw(images)[::-1]
            else:
                found = self._module(images)
        return tuple(given.float().cpu() for given in found)

    @staticmethod
    def arithmetics(device: torch.device) -> tuple[str, ...]:
        """What a device computes in hardware, besides float32."""
        if device.type == "cuda":
            return ("bfloat16",) if torch.cuda.is_bf16_supported(including_emulation=False) else ()
        # Elsewhere bfloat16 is emulated, at a third of the speed of float32.
        return ("bfloat16",) if device.type == "cpu" and _cpu_has_bfloat16() else ()


def has_compiler(device: torch.device) -> bool:
    """Whether `torch.compile` finds what it generates code with."""
    if device.type != "cpu":
        from importlib.util import find_spec

        return find_spec("triton") is not None
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))


def _cpu_has_bfloat16() -> bool:
    # Private in torch, and absent from some builds; without them nothing faster is claimed.
    return any(
        hasattr(torch.cpu, name) and getattr(torch.cpu, name)()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
