"""Which engine runs a network, and in which arithmetic: as asked, or by measurement."""

from __future__ import annotations

import itertools
import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from torchxrayvision.errors import DependencyError, PrecisionWarning, caller_stacklevel
from torchxrayvision.inference.engines.base import (
    ClassifierEngine,
    Engine,
    TorchEngine,
    example,
    has_compiler,
    has_wide_convolutions,
    on_cuda,
    parameter_shapes,
    reference,
    weight_of,
)
from torchxrayvision.inference.engines.runtime import (
    ENGINES,
    SESSIONS,
    WORTH_MEASURING,
    Choice,
    Memory,
    Plan,
    check_names,
    input_size,
    is_installed,
    measurement_key,
    return_memory,
)
from torchxrayvision.inference.engines.timing import seconds_of
from torchxrayvision.models import Segmenter, XRayClassifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from torchxrayvision.inference.engines.onnx import OnnxEngine
    from torchxrayvision.models import XRayModel

    Sample = Callable[[], NDArray[np.float32]]

# Most that a probability may differ from PyTorch's in float32.
_PROBABILITY: Final = {"exact": 1e-4, "fast": 1e-2}
_DICE: Final = 0.995  # of the masks of each structure
_DECIBELS: Final = 50.0  # peak signal to noise of a reconstruction


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether answers are near enough.

    Args:
        what: What was compared.
        distance: How far apart they are.
        limit: The most that is allowed.
    """

    what: str
    distance: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether they are; NaN is not."""
        return self.distance <= self.limit

    def __str__(self) -> str:
        return (
            f"{self.what} of the first images differ by {self.distance:.2g} from those of PyTorch "
            f"in float32, more than {self.limit:g}"
        )


def agreement(
    model: XRayModel,
    expected: tuple[torch.Tensor, ...],
    found: tuple[torch.Tensor, ...],
    precision: str,
) -> Agreement:
    """Compare what two engines gave for the same images, see `Engine.run`.

    `exact` compares numbers. `fast` compares what is made of them: probabilities of findings,
    masks of structures by one minus the Dice coefficient of the worst, images by the root mean
    square of the difference as a part of the range.
    """
    if isinstance(model, Segmenter) and precision == "fast":
        return Agreement("masks", 1 - _worst_dice(expected[0] > 0, found[0] > 0), 1 - _DICE)
    if isinstance(model, Segmenter) or getattr(model, "raw_kind", "") == "logit":
        difference = (expected[0].sigmoid() - found[0].sigmoid()).abs()
        return Agreement("probabilities", _largest(difference), _PROBABILITY[precision])
    if getattr(model, "output_kind", "") == "image" and precision == "fast":
        error = (expected[-1] - found[-1]).square().mean().sqrt() / 2048
        return Agreement("images", float(error), float(10 ** (-_DECIBELS / 20)))
    parts = [
        _largest((a - b).abs()) / max(1.0, _largest(a.abs()))
        for a, b in zip(expected, found, strict=True)
    ]
    return Agreement("outputs", max(parts), _PROBABILITY[precision])


def _largest(values: torch.Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0


def _worst_dice(one: torch.Tensor, other: torch.Tensor) -> float:
    """Least Dice coefficient over the structures (axis 1); that of two empty masks is 1."""
    axes = (0, 2, 3)
    sizes = one.sum(axes) + other.sum(axes)
    shared = 2 * (one & other).sum(axes)
    return float(torch.where(sizes > 0, shared / sizes.clamp(min=1), 1.0).min())


_log = logging.getLogger(__name__)

FEWEST_TIMED: Final = 32  # images; fewer are soon done, by any network, and not even timed
# Compiling takes one to two minutes of a core and wins a sixth to a fourth (docs/speed.md).
WORTH_COMPILING: Final = 600.0  # seconds that the run takes without
_ROUNDS: Final = 3
_ONE_BY_ONE: Final = 100 << 20  # bytes of weights; an engine may hold them three times


_TORCH: Final = Choice("torch")
_PLAIN: Final = Plan()


def open_engine(
    model: XRayClassifier, kind: str, batch_size: int, choice: Choice, plan: Plan = _PLAIN
) -> ClassifierEngine:
    """A classifier that is ready to run.

    Args:
        model: In evaluation mode, on its device.
        kind: Meaning of the values.
        batch_size: Images of a batch.
        choice: What runs it.
        plan: How.

    Returns:
        It, with a buffer for images; to be closed.

    Raises:
        DependencyError: If the package of the engine is missing.
    """
    return ClassifierEngine(open_planned(model, batch_size, choice, plan), model, kind)


def open_planned(model: XRayModel, batch_size: int, choice: Choice, plan: Plan) -> Engine:
    """Any network in evaluation mode, ready to run as planned; to be closed.

    Raises:
        DependencyError: If the package of the engine is missing.
        DeviceError: If there is no place for the network on one of the devices.
    """
    if not (plan.grows and on_cuda(model)) and len(plan.devices) < 2:
        return open_network(model, batch_size, choice)
    from torchxrayvision.inference.engines.devices import open_as_planned

    return open_as_planned(
        model, batch_size, choice, plan, lambda net, size: open_network(net, size, choice)
    )


def open_network(
    model: XRayModel, batch_size: int, choice: Choice, *, fresh: bool = False
) -> Engine:
    """Any network in evaluation mode, ready to run; `fresh` leaves a converted one in the cache.

    Raises:
        DependencyError: If the package of the engine is missing.
    """
    if choice.engine == "torch":
        return TorchEngine(
            model, batch_size, choice.arithmetic, compiled=choice.compiled,
            captured=choice.captured,
        )  # fmt: skip
    return _runtime(choice.engine)(
        model, batch_size, choice.arithmetic, winograd=choice.winograd, fresh=fresh
    )


def _runtime(name: str) -> type[OnnxEngine]:
    from torchxrayvision.inference.engines.onnx import OnnxEngine, OpenVinoEngine

    return OnnxEngine if name == "onnx" else OpenVinoEngine


def choose_engine(
    model: XRayModel,
    batch_size: int,
    engine: str,
    precision: str,
    *,
    images: int,
    sample: Sample,
    grows: bool = False,
) -> Choice:
    """The choice for what was asked, checked against PyTorch in float32 on a few images.

    Args:
        model: In evaluation mode, on its device.
        batch_size: Images of a batch.
        engine: One of `ENGINES`. `"auto"` measures once a machine and model, and only for a run
            that takes more than a minute in torch; what came out is kept in the cache folder, and
            serves shorter runs too. Where torch is the only engine, a run of more than ten
            minutes tries whether `torch.compile` makes it faster.
        precision: One of `PRECISIONS`. `"fast"` allows arithmetic that the processor has in
            hardware, where the results stay within what `agreement` allows.
        images: How many there are to do.
        sample: Gives images of the run, shape (n, 1, S, S) with n at most `batch_size`.
        grows: Whether batches grow on a GPU: `torch.compile`, which makes code for one size, is
            not tried there.

    Raises:
        UnknownNameError: If engine or precision are not among those.
        DependencyError: If the package of the engine is missing.

    Warns:
        PrecisionWarning: If `"fast"` is no faster here, or an engine is too far from PyTorch, so
            that it is not used.
    """
    candidates = _asked(model, engine, precision)
    compilable = not (grows and on_cuda(model)) and _compilable(model, candidates)
    if candidates == [_TORCH] and not compilable:
        return _TORCH
    memory = Memory(_key(model, candidates))
    remembered = memory.get()
    if remembered is None:
        seconds = _seconds(model, images)
        if seconds < WORTH_MEASURING:
            candidates = [c for c in candidates if not (c.winograd or c.captured)]
            if engine == "auto" or candidates == [_TORCH]:
                return _TORCH
        elif compilable and seconds > WORTH_COMPILING:
            candidates.append(Choice("torch", compiled=True))
            memory = Memory(_key(model, candidates))
            remembered = memory.get()
    trial = _Trial(model, batch_size, sample())
    if remembered is not None:
        candidates = [remembered]
    chosen = trial.fastest(candidates, precision)
    if remembered is None and len(candidates) > 1:
        memory.put(chosen, trial.seconds)
    return chosen


def _asked(model: XRayModel, engine: str, precision: str) -> list[Choice]:
    """The candidates for what was asked, once that makes sense."""
    check_names(engine, precision)
    candidates = list(_candidates(model, engine, precision))
    if precision == "fast" and all(c.arithmetic == "float32" for c in candidates):
        warnings.warn(
            "precision='fast': this processor has no faster arithmetic than float32 for this "
            "engine; only JPEG and JPEG 2000 are read faster, the network computes as in exact",
            PrecisionWarning,
            stacklevel=caller_stacklevel(),
        )
    return candidates


def _candidates(model: XRayModel, engine: str, precision: str) -> Iterator[Choice]:
    """What may be used, float32 first; a GPU is left to torch."""
    device = weight_of(model).device
    names = ENGINES[1:] if engine == "auto" else (engine,)
    for name in names:
        if name == "torch":
            reduced = TorchEngine.arithmetics(device)
        elif engine == "auto" and (device.type != "cpu" or not is_installed(name)):
            continue
        else:
            SESSIONS[name].require()
            reduced = _runtime(name).arithmetics() if precision == "fast" else ()
        yield Choice(name)
        if name == "onnx" and has_wide_convolutions(model):
            yield Choice(name, winograd=True)
        if name == "torch" and device.type == "cuda":
            yield Choice(name, captured=True)
        if precision == "fast":
            captures = (False, True) if device.type == "cuda" else (False,)
            for arithmetic, captured in itertools.product(reduced, captures):
                yield Choice(name, arithmetic, captured=captured)


def _compilable(model: XRayModel, candidates: list[Choice]) -> bool:
    """Whether compiling may be tried: the other engines are faster still, and sooner ready."""
    if any(choice.engine != "torch" for choice in candidates):
        return False
    if has_compiler(weight_of(model).device):
        return True
    _log.info("torch.compile is not tried: there is no compiler")
    return False


def _seconds(model: XRayModel, images: int) -> float:
    """What PyTorch would take for a run, roughly; 0 where it is too short to ask."""
    return images * _seconds_an_image(model) if images >= FEWEST_TIMED else 0.0


def seconds_an_image(model: XRayModel) -> float:
    """What PyTorch takes for one image of a run, on its device."""
    return _seconds_an_image(model)


def _seconds_an_image(model: XRayModel) -> float:
    """What PyTorch takes as it is; the first run is slower than those that follow."""
    image = example(input_size(model), 1)
    return min(seconds_of(lambda: reference(model, image)) for _ in range(2))


def _bytes_of(model: XRayModel) -> int:
    return sum(weight.nbytes for weight in model.parameters())


class _Trial:
    """Candidates on a few images, compared with PyTorch in float32 and timed."""

    def __init__(self, model: XRayModel, batch_size: int, images: NDArray[np.float32]) -> None:
        self._model = model
        self._batch_size = batch_size
        self._images = images
        self.seconds: dict[str, float] = {}
        self._expected = reference(model, torch.from_numpy(images))

    def _values(
        self, choice: Choice, *, fresh: bool = False
    ) -> tuple[tuple[torch.Tensor, ...], Engine]:
        engine = open_network(self._model, self._batch_size, choice, fresh=fresh)
        count = len(self._images)
        engine.input[:count] = self._images
        return tuple(given[:count] for given in engine.run()), engine

    def fastest(self, candidates: list[Choice], precision: str) -> Choice:
        """The fastest of those that agree, PyTorch in float32 if none does."""
        if len(candidates) > 1 and _bytes_of(self._model) > _ONE_BY_ONE:
            rounds = self._one_by_one(candidates, precision)
        else:
            rounds = self._by_turns(candidates, precision)
        if len(rounds) < 2:
            return next(iter(rounds), _TORCH)
        # Whatever else the machine does can only add to a time.
        least = {choice: min(times) for choice, times in rounds.items()}
        self.seconds = {str(choice): seconds for choice, seconds in least.items()}
        _log.info("seconds per batch of %d: %s", self._batch_size, self.seconds)
        return min(least, key=lambda choice: least[choice])

    def _by_turns(self, candidates: list[Choice], precision: str) -> dict[Choice, list[float]]:
        """Times of those that agree, so that another load of the machine meets all; of one none."""
        opened = ((choice, self._agreeing(choice, precision)) for choice in candidates)
        agreeing = {choice: engine for choice, engine in opened if engine is not None}
        rounds: dict[Choice, list[float]] = {choice: [] for choice in agreeing}
        for _ in range(_ROUNDS if len(agreeing) > 1 else 0):
            for choice, engine in agreeing.items():
                rounds[choice].append(seconds_of(engine.run))
        return rounds

    def _one_by_one(self, candidates: list[Choice], precision: str) -> dict[Choice, list[float]]:
        """The same of a large network, of which no two engines are in memory at the same time."""
        rounds = {}
        for choice in candidates:
            engine = self._agreeing(choice, precision)
            if engine is not None:
                rounds[choice] = [seconds_of(engine.run) for _ in range(_ROUNDS)]
            del engine  # before the next one is opened
        return rounds

    def _agreeing(self, choice: Choice, precision: str) -> Engine | None:
        return_memory()  # of what ran before: an engine takes as much again
        if choice == _TORCH:
            return self._values(choice)[1]
        found = "it did not run"
        for fresh in (False, True):  # a converted model in the cache may be damaged
            try:
                values, engine = self._values(choice, fresh=fresh)
            except DependencyError:
                raise
            except Exception as error:  # noqa: BLE001 - another library may raise anything
                _log.info("%s: %s", choice, error)
                continue
            compared = agreement(self._model, self._expected, values, precision)
            if isinstance(engine, TorchEngine) and choice.compiled and not engine.compiled:
                return None  # the reason was logged
            if compared.holds:
                return engine
            found = str(compared)
            if choice.arithmetic != "float32":
                break
        message = f"{choice}: {found}; it is not used"
        warnings.warn(message, PrecisionWarning, stacklevel=caller_stacklevel())
        return None


def _key(model: XRayModel, candidates: list[Choice]) -> str:
    version, device = str(torch.__version__), weight_of(model).device
    if device.type == "cuda":
        from torchxrayvision.inference.engines.gpu import name_of

        version += f" on {name_of(device)}"
    return measurement_key(
        parameter_shapes(model), input_size(model), torch.get_num_threads(), version, candidates
    )  # fmt: skip
