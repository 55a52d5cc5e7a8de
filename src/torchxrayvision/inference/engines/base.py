"""What a network gives, and what every engine that runs it has in common."""

from __future__ import annotations

import abc
import contextlib
import copy
import logging
import os
import platform
import shutil
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch
from torch import Tensor, nn

from torchxrayvision import __version__
from torchxrayvision.files import sha256_of
from torchxrayvision.inference.engines import winograd
from torchxrayvision.inference.engines.kinds import convert
from torchxrayvision.inference.engines.runtime import (
    FOLDER,
    BatchInput,
    input_size,
)
from torchxrayvision.inputs import AIR
from torchxrayvision.models import Segmenter, XRayClassifier, scale_is_known
from torchxrayvision.remote import cache_dir
from torchxrayvision.runs import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from torchxrayvision.inference.engines.gpu import Captured, Transfers
    from torchxrayvision.models import XRayModel

    Finish = Callable[[], tuple[torch.Tensor, ...]]
    Timed = Callable[[], tuple[tuple[torch.Tensor, ...], float]]
    Answer = tuple[NDArray[np.float32], NDArray[np.float32]]

_Made = TypeVar("_Made")
_Model = TypeVar("_Model", bound=nn.Module)

# Names of the outputs of a classifier of findings; other networks name theirs.
OUTPUTS: Final = ("outputs", "logits", "features")


class _Classifier(nn.Module):
    """All that a classifier can say, in one pass."""

    def __init__(self, model: XRayClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, raw = self.model.features_and_raw(image)
        return self.model.convert(raw, self.model.output_kind), raw, features


class _Features(nn.Module):
    """What an encoder gives that has no findings."""

    def __init__(self, model: XRayClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return (self.model.embed(image),)


class _Whole(nn.Module):
    """What any other network gives."""

    def __init__(self, model: XRayModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        given: Any = self.model(image)
        return tuple(given.values()) if isinstance(given, dict) else (given,)


def output_names(model: XRayModel) -> tuple[str, ...]:
    """What the outputs of `graph_module` are called, in order."""
    if not isinstance(model, XRayClassifier):
        return model.output_names
    if gives_features_only(model):
        return OUTPUTS[2:]
    return OUTPUTS if model.raw_kind == "logit" else (OUTPUTS[0], "raw", OUTPUTS[2])


def gives_features_only(model: XRayModel) -> bool:
    """Whether a network is an encoder without findings."""
    return isinstance(model, XRayClassifier) and model.raw_kind == "embedding"


def graph_module(model: XRayModel) -> nn.Module:
    """The model with the outputs that a graph has, in evaluation mode."""
    if isinstance(model, XRayClassifier) and gives_features_only(model):
        return _Features(model).eval()
    chosen = _Classifier(model) if isinstance(model, XRayClassifier) else _Whole(model)
    return chosen.eval()


def example(size: int, count: int, seed: int = 0) -> Tensor:
    """Radiograph-like images (count, 1, size, size) in [-1024, 1024], smooth with noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 9, 9, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    noise = torch.rand(count, 1, size, size, generator=generator)
    return ((smooth * 0.9 + noise * 0.1).clamp(0, 1) * 2048 - 1024).contiguous()


def on_cpu(model: _Model) -> _Model:
    """A model in float32 on the CPU that changes nothing of the one given.

    Tensors that are there already are shared, as nothing writes to them.
    """
    shared = {
        id(tensor): tensor
        for tensor in (*model.parameters(), *model.buffers())
        if tensor.device.type == "cpu"
        and (tensor.dtype == torch.float32 or not tensor.is_floating_point())
    }
    return copy.deepcopy(model, shared).float().cpu()


def runs_as_graph(model: XRayModel) -> bool:
    """Whether the numbers of a model can be made of what its graph gives, without torch."""
    if isinstance(model, Segmenter):
        return True
    return (
        isinstance(model, XRayClassifier)
        and model.raw_kind == "logit"
        and not model.exclusive
        and all(
            getattr(type(model), name) is getattr(XRayClassifier, name)
            for name in ("convert", "named_values", "check_kind")
        )
    )


def has_wide_convolutions(model: nn.Module) -> bool:
    """Whether a network has convolutions that `minimal_filtering` would write anew."""
    return any(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (3, 3)
        and layer.stride == (1, 1)
        and layer.groups == 1
        and min(layer.in_channels, layer.out_channels) >= winograd.LEAST_CHANNELS
        for layer in model.modules()
    )


def onnx_place(model: XRayModel, size: int) -> Path:
    """Where the graph of a model lies in the cache folder, once there is one."""
    made_by = f"{__version__}-{torch.__version__}-{size}"
    key = sha256_of(f"{fingerprint(model)}-{made_by}".encode())[:24]
    return cache_dir() / FOLDER / f"{key}.onnx"


def parameter_shapes(model: XRayModel) -> list[str]:
    """Name and shape of each parameter."""
    return [f"{name}{tuple(value.shape)}" for name, value in model.named_parameters()]


def cpu() -> str:
    """The processor as torch uses it."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


_log = logging.getLogger(__name__)


def _wanted(model: XRayModel) -> tuple[str, ...]:
    """Calibration is the same for all engines, so theirs are the raw outputs and features."""
    names = output_names(model)
    return names[1:] if isinstance(model, XRayClassifier) and len(names) > 1 else names


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
        overlaps: Batches that may have been begun before the oldest of them is to be finished.
        took: Seconds that the device took for the batch that was finished last.
        fitted: Images of that batch that went through at once.
    """

    name: str
    overlaps: int = 0
    took: float = 0.0
    fitted: int = 0

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

    def start(self) -> Finish:
        """Begin to run what is in `input`, which may then be another buffer, to be written.

        Returns:
            What waits for the end and gives what `run` gives; called in the order of the batches,
            before more than `overlaps` others are begun.
        """
        given = self.run()
        return lambda: given

    def retire(self) -> None:  # noqa: B027 - most hold nothing
        """Begin no more batches; those that were begun can still be finished."""

    def close(self) -> None:  # noqa: B027
        """End; batches that were not finished are dropped."""


def halved_to_fit(compute: Callable[[int], _Made], size: int) -> tuple[_Made, int]:
    """Compute a batch in parts, of half as many images where the memory does not suffice.

    Args:
        compute: Computes all of the batch, so many images at a time.
        size: How many to begin with.

    Returns:
        What it gives, and how many images at a time fitted.

    Raises:
        torch.OutOfMemoryError: If a single image does not fit.
    """
    while True:
        try:
            return compute(size), size
        except torch.OutOfMemoryError as error:
            if size == 1:
                error.add_note("a single image does not fit; free memory or use another device")
                raise
        # Not within `except`, which keeps what the failed pass had made.
        size //= 2
        _log.warning("out of memory: going on with %d images at a time", size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _joined(parts: Sequence[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
    return parts[0] if len(parts) == 1 else tuple(map(torch.cat, zip(*parts, strict=True)))


def on_cuda(model: XRayModel) -> bool:
    """Whether a network is on a CUDA device."""
    return weight_of(model).device.type == "cuda"


def weight_of(model: XRayModel) -> torch.Tensor:
    """One of the weights, for device and arithmetic; an ensemble read member by member has none."""
    return next(model.parameters(), torch.empty(0))


def reference(model: XRayModel, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What engines are compared with: PyTorch as it is, without a copy of the weights.

    It takes images (n, 1, S, S) float32 and gives what `Engine.run` gives for them.
    """
    weight, module, wanted = weight_of(model), graph_module(model), len(_wanted(model))

    def in_parts(size: int) -> list[tuple[torch.Tensor, ...]]:
        return [
            tuple(one.float().cpu() for one in given[-wanted:])
            for part in torch.split(images, size)
            for given in [module(part.to(weight.device, weight.dtype))]
        ]

    with torch.inference_mode(), scale_is_known(), true_float32_on(weight.device):
        return _joined(halved_to_fit(in_parts, len(images))[0])


def true_float32_on(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Let a device use all bits of float32 meanwhile; all but those of CUDA do so anyway.

    Args:
        device: Where the network is.

    Returns:
        A context, which any number of threads may enter.
    """
    if device.type != "cuda":
        return contextlib.nullcontext()
    from torchxrayvision.inference.engines.gpu import true_float32

    return true_float32()


class ClassifierEngine(BatchInput):
    """An engine whose raw outputs become the numbers that were asked for.

    Args:
        engine: Runs the classifier.
        model: The classifier.
        kind: Meaning of the values.

    Attributes:
        engine: As given.
        input: Where the images go, see `Engine`.
        outputs: Number of values per image, P.
        width: Number of features per image, D.
    """

    def __init__(self, engine: Engine, model: XRayClassifier, kind: str) -> None:
        self.engine = engine
        self.kind = kind
        self.input = engine.input
        self.overlaps = engine.overlaps
        self.outputs = len(model.targets)
        self.width = model.features_width
        self._model = model
        # What runs without torch elsewhere gives the same bits here.
        self._by_numpy = runs_as_graph(model) and engine.name != TorchEngine.name
        points = getattr(model, "op_threshs", None)
        self._points = None if points is None else points.float().cpu().numpy()

    def __call__(self) -> Answer:
        """Run what is in `input`.

        Returns:
            Values of the kind asked for, shape (B, P), and features, shape (B, D), float32.
        """
        found = self.engine.run()
        self.input = self.engine.input
        return self._answer(found)

    def start(self) -> Callable[[], Answer]:
        """See `BatchInput`."""
        finish = self.engine.start()
        self.input = self.engine.input
        return lambda: self._answer(finish())

    def close(self) -> None:
        """See `BatchInput`."""
        self.engine.close()

    def _answer(self, found: tuple[torch.Tensor, ...]) -> Answer:
        *given, features = found
        raw = given[0] if given else features  # an encoder has no outputs besides
        if self._by_numpy:
            return convert(raw.numpy(), self.kind, self._points), features.numpy()
        with torch.inference_mode():
            values = self._model.convert(raw, self.kind)
            return self._model.named_values(values, self.kind).numpy(), features.numpy()


class TorchEngine(Engine):
    """PyTorch, on the device of the model.

    On the CPU, and on a GPU in bfloat16, a copy of the weights lies with the channels last, which
    convolutions run faster on (`docs/speed.md`); the model of the caller stays as it is. On a GPU
    images and results are copied while other batches are computed, see `start`. Where the memory of
    the device does not suffice for a batch, it goes through in halves, or in halves of those, from
    then on.

    `arithmetic` is `"float32"` for that of the weights, or `"bfloat16"` for convolutions in it.
    `compiled` compiles the network when it first runs, which takes up to minutes; without a
    compiler that works it runs as it is. `captured` launches the network as one CUDA graph.
    """

    name = "torch"

    def __init__(
        self,
        model: XRayModel,
        batch_size: int,
        arithmetic: str = "float32",
        *,
        compiled: bool = False,
        captured: bool = False,
    ) -> None:
        super().__init__(model, batch_size)
        self._weight = weight_of(model)
        self._reduced = arithmetic == "bfloat16"
        self._part = batch_size  # images that go through at once
        self._transfers: Transfers | None = None
        if self._weight.device.type == "cpu":
            model = copy.deepcopy(model).to(memory_format=torch.channels_last)
        elif self._weight.device.type == "cuda":
            from torchxrayvision.inference.engines.gpu import Transfers

            if self._reduced:  # what tensor cores take without turning each layer
                model = copy.deepcopy(model).to(memory_format=torch.channels_last)
            self._transfers = Transfers(self._tensor.shape, self._weight.device)
            self._take(self._transfers.buffer)
            self.overlaps = 1
        self._model = model
        self._module = graph_module(model)
        self._compiled = None
        self._capture = captured
        self._graph: Captured | None = None
        if compiled:
            # Frozen: the weights are constants, so that normalisation goes into convolutions.
            self._compiled = torch.compile(self._module, options={"freezing": True})

    def _take(self, buffer: torch.Tensor) -> None:
        self._tensor = buffer
        self.input = buffer.numpy()

    @property
    def compiled(self) -> bool:
        """Whether what runs is compiled; compiling may have failed."""
        return self._compiled is not None

    @property
    def captured(self) -> bool:
        """Whether what runs is one CUDA graph; capturing may have failed."""
        return self._graph is not None

    def start(self) -> Finish:
        """See `Engine`."""
        if self._transfers is None:
            return super().start()
        with torch.inference_mode(), scale_is_known():
            finish = self._begin()
        self._transfers.swap()
        self._take(self._transfers.buffer)
        return finish

    def _run(self) -> tuple[torch.Tensor, ...]:
        return self._begin()()

    def _begin(self) -> Finish:
        def in_parts(size: int) -> list[Timed]:
            return [self._part_of(images) for images in torch.split(self._tensor, size)]

        ends, self._part = halved_to_fit(in_parts, self._part)
        fitted = self._part

        def finish() -> tuple[torch.Tensor, ...]:
            parts, seconds = zip(*(end() for end in ends), strict=True)
            self.took, self.fitted = sum(seconds), fitted
            return _joined(parts)

        return finish

    def _part_of(self, images: torch.Tensor) -> Timed:
        """Begin with some of the images; what ends it gives float32 on the CPU, and seconds."""
        device, dtype = self._weight.device, self._weight.dtype
        if self._transfers is None:
            begun = time.perf_counter()
            found = self._forward(images.to(device, dtype))
            given = tuple(one.float().cpu() for one in found)
            seconds = time.perf_counter() - begun
            return lambda: (given, seconds)
        from torchxrayvision.inference.engines.gpu import true_float32

        moved = self._transfers.to_device(images, dtype)
        begin = self._transfers.mark()
        with true_float32():
            return self._transfers.to_host(self._forward(moved), begin)

    def _forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What is wanted, of images on the device."""
        if self._compiled is not None:
            try:
                return tuple(self._compiled(images)[-len(self.wanted) :])
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - another library may raise anything
                _log.info("torch.compile: %s; going on without", error)
                self._compiled = None
        if self._capture and len(images) == len(self._tensor):
            return self._replayed(images)
        return self._plain(images)

    def _replayed(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        from torchxrayvision.inference.engines.gpu import Captured

        try:
            if self._graph is None:
                self._graph = Captured(self._plain, images)
            return self._graph(images)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - not every network can be captured
            _log.info("CUDA graph: %s; going on without", error)
            self._capture, self._graph = False, None
            return self._plain(images)

    def _plain(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        device = self._weight.device.type
        # A captured graph may not find weights that autocast has kept from another pass.
        with torch.autocast(
            device, torch.bfloat16, enabled=self._reduced, cache_enabled=device == "cpu"
        ):
            if isinstance(self._model, XRayClassifier) and len(self.wanted) > 1:
                return tuple(self._model.features_and_raw(images)[::-1])
            return tuple(self._module(images))

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
