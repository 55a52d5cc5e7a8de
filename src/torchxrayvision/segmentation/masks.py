"""Structures of radiographs as masks in the geometry of their files."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from torchxrayvision import measures
from torchxrayvision.errors import UnknownNameError
from torchxrayvision.inference import MaskGraph, ready, usable_threads, worth_measuring
from torchxrayvision.inputs import Readers, ReadOptions, crop_and_resize, expand
from torchxrayvision.screening import SIDE, pose_of
from torchxrayvision.segmentation.networks import named_or_given
from torchxrayvision.transforms import Placement

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from torchxrayvision.images import Raster
    from torchxrayvision.inference import Accelerated, MaskEngine, Plan
    from torchxrayvision.inputs import InputFile, Paths, Read
    from torchxrayvision.models import Segmenter

    Net = Segmenter | MaskGraph

MEASURES: Final = (
    "cardiothoracic_ratio",
    "heart_width",
    "thorax_width",
    "lung_area_ratio",
    "spine_heart_distance",
)
"""What `Segmentation.measures` gives, in the order of the columns."""

_STEPS: Final = 65535
BATCH: Final = 1
"""Images that go through a network together where nobody names a number."""
_RESOLUTION: Final = 512  # of networks that take any
_BLOCK_PIXELS: Final = 1 << 16
_DARKEST, _BRIGHTEST = 0.002, 0.998  # quantiles of the grey that a screen shows as black and white


class Masks(Mapping[str, "NDArray[np.bool_]"]):
    """Name to mask, each made when it is asked for, so that a hundred cost no more than one.

    A mask is bool, shape (H, W), in the geometry of the file: resizing, turning and cropping are
    undone, and nothing is set outside the square that the network saw.

    Args:
        names: Structures.
        maps: Their probabilities, shape (P, R, R) in [0, 1]; kept in steps of 1 / 65535.
        placement: Where the square lies in the picture.
        threshold: Least probability inside a mask.

    Example:
        >>> place = Placement(6, 4, 1, 0, 4)
        >>> masks = Masks(["Heart"], np.ones((1, 2, 2), np.float32), place)
        >>> masks["Heart"].shape, masks["Heart"].sum().item()
        ((6, 4), 16)
    """

    def __init__(
        self,
        names: Iterable[str],
        maps: NDArray[Any],
        placement: Placement,
        threshold: float = 0.5,
    ) -> None:
        # Two bytes per pixel; float16 would be 30 times coarser near 1.
        self._maps = {name: _steps(plane) for name, plane in zip(names, maps, strict=True)}
        self.placement = placement
        self.threshold = threshold
        # Made masks, an eighth of a byte a pixel: files, measures and pictures ask for the same.
        self._made: dict[str, NDArray[np.uint8]] = {}

    def probability(self, name: str) -> NDArray[np.float32]:
        """Probability of a structure in each pixel of the picture.

        Args:
            name: One of the names.

        Returns:
            float32, shape (H, W), in [0, 1].
        """
        probability: NDArray[np.float32] = self.placement.to_picture(self.of_square(name))
        return probability

    def of_square(self, name: str) -> NDArray[np.float32]:
        """Probability of a structure in each pixel of the square that the network saw.

        Args:
            name: One of the names.

        Returns:
            float32, shape (R, R), in [0, 1].
        """
        return self._maps[name] * np.float32(1 / _STEPS)

    def __getitem__(self, name: str) -> NDArray[np.bool_]:
        if name not in self._made:
            mask = self.placement.mask_to_picture(self.of_square(name), self.threshold)
            self._made[name] = np.packbits(mask, axis=1)
            return mask
        width = self.placement.width
        return np.unpackbits(self._made[name], axis=1, count=width).view(bool)

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)


def _steps(plane: NDArray[Any]) -> NDArray[np.uint16]:
    within = np.fmax(np.asarray(plane, np.float32), 0)  # NaN is 0
    np.fmin(within, 1, out=within)
    within *= _STEPS
    return np.rint(within, out=within).astype(np.uint16)


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """What came of one file.

    Args:
        path: The file as the user named it.
        error: What went wrong, or an empty string.
        masks: Name to mask of shape (H, W), or None after an error.
        picture: The radiograph as a screen shows it, uint8 of shape (H, W), or None.
        pixel_spacing: Millimetres between rows and between columns, where known.
        turned: Quarter turns clockwise by which the image seems to be rotated; 0 where it is
            upright or no frontal chest radiograph. Where the network saw it set upright, these
            are `masks.placement.turns`.
    """

    path: str
    error: str
    masks: Masks | None = None
    picture: NDArray[np.uint8] | None = None
    pixel_spacing: tuple[float, float] | None = None
    turned: int = 0
    _found: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def upright(self, plane: NDArray[Any]) -> NDArray[Any]:
        """A mask or picture of the file as the network saw it lie.

        Args:
            plane: Shape (H, W), in the geometry of the file.

        Returns:
            A view; shape (W, H) after an odd number of quarter turns.
        """
        return plane if self.masks is None else np.rot90(plane, self.masks.placement.turns)

    def _of(self, *structures: str) -> dict[str, NDArray[np.bool_]]:
        """The masks that make up some structures, upright, each made once; those that there are."""
        if self.masks is None:
            return {}
        names: dict[str, None] = {}
        for structure in structures:
            try:
                names |= dict.fromkeys(measures.parts_of(structure, self.masks))
            except UnknownNameError:
                continue
        return {name: self.upright(self.masks[name]) for name in names}

    def cardiothoracic(self) -> measures.Cardiothoracic | None:
        """Widths of heart and thorax in the upright image, or None if they cannot be measured."""
        if "cardiothoracic" not in self._found:
            self._found["cardiothoracic"] = self._cardiothoracic()
        found: measures.Cardiothoracic | None = self._found["cardiothoracic"]
        return found

    def _cardiothoracic(self) -> measures.Cardiothoracic | None:
        if self.masks is None:
            return None
        try:
            return measures.cardiothoracic(self._of("Heart", "Lungs", "Spine"))
        except UnknownNameError:
            return None

    def measures(self) -> dict[str, float]:
        """Measures of `torchxrayvision.measures`, lengths in pixels.

        Returns:
            One value for each of `MEASURES`, NaN where it cannot be measured.
        """
        values = dict.fromkeys(MEASURES, math.nan)
        if self.masks is None:
            return values
        found = self.cardiothoracic()
        if found is not None:
            values["cardiothoracic_ratio"] = found.ratio
            values["heart_width"] = found.heart_width
            values["thorax_width"] = found.thorax_width
        masks = self._of("Heart", "Spine", "Left Lung", "Right Lung")
        for name in ("lung_area_ratio", "spine_heart_distance"):
            try:
                values[name] = getattr(measures, name)(masks)
            except UnknownNameError:  # the network has no such structures
                continue
        return values

    def doubts(self) -> list[str]:
        """Why the measures of this image may be wrong, one clause each; empty for no reason."""
        if "doubts" not in self._found:
            self._found["doubts"] = self._doubts()
        return list(self._found["doubts"])

    def _doubts(self) -> list[str]:
        if self.masks is None:
            return []
        found = measures.doubts(self._of("Heart", "Left Lung", "Right Lung"))
        seen = self.masks.placement
        for name in self._of("Heart", "Left Lung", "Right Lung"):
            edge = self.masks.of_square(name) >= self.masks.threshold
            if edge[[0, -1]].any() or edge[:, [0, -1]].any():
                side = "the picture" if seen.height == seen.width else "the part that was seen"
                found.append(f"{name} is cut by the border of {side}")
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One image, ready for the network: what `Segmenting.prepare` gives.

    Args:
        square: What the network sees, float32 (1, R, R) in [-1024, 1024].
        placement: Where the square lies in the picture.
        picture: The image as a screen shows it, uint8 (H, W).
        pixel_spacing: Millimetres between rows and between columns, where known.
        turned: See `Segmentation`.
    """

    square: NDArray[np.float32]
    placement: Placement
    picture: NDArray[np.uint8]
    pixel_spacing: tuple[float, float] | None
    turned: int


def segment(
    paths: Paths | Iterable[str | os.PathLike[str] | InputFile],
    model: str | Net,
    *,
    threshold: float = 0.5,
    pixel_spacing: tuple[float, float] | None = None,
    batch_size: int | None = None,
    workers: int = 1,
    device: str | torch.device | Sequence[str | torch.device] | None = None,
    engine: str = "torch",
    precision: str = "exact",
    upright: bool = False,
    reading: ReadOptions | None = None,
) -> Iterator[Segmentation]:
    """Segment radiographs, one after the other; nothing piles up however many there are.

    Args:
        paths: A file or folder, or several; see `expand`, which takes an `InputFile` too.
        model: Name of a network, see `get_segmenter`, or a network with weights, which is in
            evaluation mode from the first result to the last and then as it was, or a `MaskGraph`.
        threshold: Least probability inside a mask.
        pixel_spacing: Millimetres between rows and between columns of all the files; None takes
            what each DICOM file says.
        batch_size: Images that go through the network together; None for 1, from which batches
            grow on a CUDA device as long as that makes it faster.
        workers: Threads that read files ahead.
        device: Where the network runs meanwhile, or several devices, see
            `torchxrayvision.inference.predict`; None leaves it where it is.
        engine: See `accelerate`; others than torch need seconds to minutes to convert a network,
            and none of it, nor torch, where its graph is in the cache or in the package. A
            `MaskGraph` runs as it was opened.
        precision: See `accelerate`.
        upright: Turn rotated images upright for the network; masks still have the geometry of the
            file, and measures are those of the upright image. `checks` tells how an image is
            rotated, and docs/check.md how often it errs.
        reading: How files are read; None for `workers` threads.

    Yields:
        One result per file, in order; a file that cannot be read gives one with an error.

    Raises:
        UnknownNameError: If there is no such network, engine or precision.
        ValueError: If the spacing is not above 0.
        DependencyError: If the package of the engine is missing.
        RemoteError: If its weights cannot be fetched.
    """
    from torchxrayvision.inference import device_names

    check_spacing(pixel_spacing)
    net, named = named_or_given(model, engine, precision, device)
    segmenting = Segmenting(
        net, threshold, pixel_spacing, upright, batch_size or BATCH, engine, precision,
        grows=batch_size is None, devices=device_names(device),
    )  # fmt: skip
    first = segmenting.devices[0] if segmenting.devices else None
    if segmenting.converts:
        if not isinstance(paths, str | os.PathLike):
            paths = list(paths)  # they are counted first; more would not change the choice
        images = sum(1 for _ in itertools.islice(expand(paths), 100_000))
        with ready(net, first):
            segmenting.start(segmenting.choose(images))
            named.keep_card(segmenting.net)
    how = reading or ReadOptions(workers=workers)
    results = segmenting.results(expand(paths, strict=how.strict), how)
    return _lending(net, first, results)


def check_spacing(spacing: tuple[float, float] | None) -> None:
    """Refuse lengths that are none, before a network is loaded.

    Raises:
        ValueError: If the spacing is not above 0.
    """
    if spacing is not None and not all(0 < mm < math.inf for mm in spacing):
        msg = f"pixel_spacing takes millimetres above 0, got {spacing}"
        raise ValueError(msg)


def _lending(
    net: Net,
    device: str | None,
    results: Generator[Segmentation, None, None],
) -> Iterator[Segmentation]:
    """The results; the network is in evaluation mode from the first one to the last."""
    with ready(net, device), contextlib.closing(results):
        yield from results


@dataclass(eq=False)
class Segmenting:
    """A network and how `segment`, which says more of it, uses it.

    Args:
        net: In evaluation mode while results are made, or a graph of it.
        threshold: Least probability inside a mask.
        spacing: Millimetres between rows and between columns of all files, or None.
        upright: Whether rotated images are turned upright for the network.
        batch_size: Images that go through the network together.
        engine: What computes the network.
        precision: `"exact"` or `"fast"`.
        grows: Whether batches grow on a GPU as long as that makes it faster.
        devices: Names of those that compute, the first that of the network; empty for that alone.
    """

    net: Net
    threshold: float
    spacing: tuple[float, float] | None
    upright: bool
    batch_size: int
    engine: str
    precision: str
    grows: bool = False
    devices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._run: Accelerated | None = None  # the network itself
        self._graph: MaskEngine | None = None

    @property
    def converts(self) -> bool:
        """Whether the network may run on another engine than itself."""
        asked = (self.engine, self.precision) != ("torch", "exact")
        return asked or isinstance(self.net, MaskGraph)

    def choose(self, images: int) -> dict[str, Any] | None:
        """The engine and its arithmetic for so many images; None for the network itself."""
        if not self.converts:
            return None
        self.net = worth_measuring(self.net, images)
        if isinstance(self.net, MaskGraph):
            return asdict(self.net.choice)
        from torchxrayvision.inference import accelerate

        made = accelerate(
            self.net, self.batch_size, engine=self.engine, precision=self.precision,
            images=images, plan=self._plan(),
        )  # fmt: skip
        self._run = made
        return asdict(made.choice)

    def start(self, choice: dict[str, Any] | None) -> None:
        """Get ready to run as `choose` said."""
        if choice is None or self._run is not None or self._graph is not None:
            return
        from torchxrayvision.inference import Choice

        how, net = Choice(**choice), self.net
        if isinstance(net, MaskGraph):
            if net.file_for(how) is not None:
                self._graph = net.open(self.batch_size, how, usable_threads())
                return
            self.net = net = net.network("masks of a run that was begun with torch")
        from torchxrayvision.inference import Accelerated

        self._run = Accelerated(net, self.batch_size, how, self._plan())

    def _plan(self) -> Plan:
        from torchxrayvision.inference import Plan as Planned

        return Planned(grows=self.grows, devices=self.devices)

    def _start_unasked(self) -> None:
        """Open a graph; leave a network on a GPU, or on several devices, to an engine.

        Copies overlap there, and batches may grow.
        """
        net = self.net
        if isinstance(net, MaskGraph):
            self.start(asdict(net.choice))
            return
        known = getattr(net, "input_resolution", None) is not None
        on_cuda = next(net.parameters()).device.type == "cuda"
        if known and (on_cuda or len(self.devices) > 1):
            self.start({"engine": "torch"})

    @property
    def _at_once(self) -> tuple[int, int]:
        """Images of the next batch, and batches that may have been begun besides."""
        run = self._run
        return (self.batch_size, 0) if run is None else (run.batch_size, run.overlaps)

    def results(
        self, files: Iterable[InputFile], reading: ReadOptions
    ) -> Generator[Segmentation, None, None]:
        """One result per file, in order; whole batches of files are computed together."""

        def make(file: InputFile, read: Read) -> Prepared:
            return self.prepare(file, read(file))

        self._start_unasked()
        begun: deque[Callable[[], Iterator[Segmentation]]] = deque()
        with contextlib.ExitStack() as stack:
            if self._run is not None:
                stack.callback(self._run.close)
            readers = stack.enter_context(Readers(make, reading))
            done = readers.map(files, ahead=lambda: self._at_once[0] + readers.workers)
            while chunk := list(itertools.islice(done, self._at_once[0])):
                begun.append(self._begin(chunk))
                if len(begun) > self._at_once[1]:
                    yield from begun.popleft()()
            while begun:
                yield from begun.popleft()()

    def prepare(self, file: InputFile, raster: Raster) -> Prepared:
        """What the network needs of an image that is read; any thread may call this.

        Args:
            file: Where it is from, for errors.
            raster: As read.

        Raises:
            ImageReadError: If a value is NaN or infinite.
        """
        size = getattr(self.net, "input_resolution", None) or _RESOLUTION
        return _prepared(file, raster, size, self.upright)

    def batch(self, chunk: Sequence[tuple[InputFile, Prepared | str]]) -> Iterator[Segmentation]:
        """One result for each of some images that go through the network together.

        Args:
            chunk: Images, or the reasons why they cannot be read.

        Yields:
            The results, in order.
        """
        yield from self._begin(chunk)()

    def _begin(
        self, chunk: Sequence[tuple[InputFile, Prepared | str]]
    ) -> Callable[[], Iterator[Segmentation]]:
        """Begin with some images; what it gives waits for the end and gives their results."""
        squares = [image.square for _, image in chunk if not isinstance(image, str)]
        finish = self._maps(squares) if squares else None

        def results() -> Iterator[Segmentation]:
            maps = iter(() if finish is None else finish())
            for file, image in chunk:
                if isinstance(image, str):
                    yield Segmentation(file.given, image)
                    continue
                masks = Masks(self.net.targets, next(maps), image.placement, self.threshold)
                near = self.spacing or image.pixel_spacing
                yield Segmentation(file.given, "", masks, image.picture, near, image.turned)

        return results

    def _maps(self, squares: list[NDArray[np.float32]]) -> Callable[[], NDArray[np.float32]]:
        """Begin with a batch; what it gives waits for its probabilities, (B, P, R, R)."""
        if isinstance(self.net, MaskGraph):
            self.start(asdict(self.net.choice))
        if self._graph is not None:
            made = self._graph(squares)
            return lambda: made
        assert not isinstance(self.net, MaskGraph)  # which was opened, or gave its network
        return _maps(self.net, self._run, squares)


def _prepared(file: InputFile, raster: Raster, size: int, upright: bool) -> Prepared:
    square = crop_and_resize(file, raster, size)
    pose = pose_of(crop_and_resize(file, raster, SIDE)[0])
    turned = pose.turns if pose.chest > 0 else 0
    turns = turned if upright else 0
    placement = Placement.in_middle(*raster.shape, aspect=raster.info.aspect, turns=turns)
    picture, spacing = _on_screen(raster), raster.info.pixel_spacing
    seen = np.ascontiguousarray(np.rot90(square, turns, axes=(1, 2)))
    return Prepared(seen, placement, picture, spacing, turned)


def _on_screen(raster: Raster) -> NDArray[np.uint8]:
    """The picture in 8 bits, its darkest pixels black and its brightest white."""
    seen = replace(raster, pixels=raster.pixels[::4, ::4]).to_array()
    limits = np.quantile(seen[0], (_DARKEST, _BRIGHTEST))
    codes = _codes(raster.pixels)
    if codes is None:
        return _shown(raster.to_array()[0], *limits)
    table = _shown(replace(raster, pixels=codes[None]).to_array()[0, 0], *limits)
    shown = np.empty(raster.shape, np.uint8)
    rows = max(1, _BLOCK_PIXELS // max(1, shown.shape[1]))  # NumPy makes 8 bytes of each code
    for start in range(0, len(shown), rows):
        shown[start : start + rows] = table.take(raster.pixels[start : start + rows])
    return shown


def _codes(pixels: NDArray[Any]) -> NDArray[Any] | None:
    """Every value that pixels of this type can have, by its bits; None where there are too many."""
    if pixels.dtype.kind != "u" or pixels.dtype.itemsize > 2:
        return None
    return np.arange(1 << 8 * pixels.dtype.itemsize, dtype=pixels.dtype)


def _shown(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    values -= low
    values *= 255 / max(high - low, 1e-6)
    shown: NDArray[np.uint8] = np.clip(values, 0, 255).astype(np.uint8)
    return shown


def _maps(
    net: Segmenter, run: Accelerated | None, squares: list[NDArray[np.float32]]
) -> Callable[[], NDArray[np.float32]]:
    """Begin with a batch; what it gives waits for its probabilities, (B, P, R, R)."""
    import torch

    from torchxrayvision.models import scale_is_known

    def probabilities(given: torch.Tensor) -> NDArray[np.float32]:
        with torch.inference_mode():
            maps: NDArray[np.float32] = given.float().sigmoid().cpu().numpy()
        return maps

    images = torch.from_numpy(np.stack(squares))
    with torch.inference_mode(), scale_is_known():
        if run is not None:
            finish = run.start(images)
            return lambda: probabilities(cast("torch.Tensor", finish()))
        parameter = next(net.parameters())
        with _true_float32(parameter.device):
            made = probabilities(net(images.to(parameter.device, parameter.dtype)))
    return lambda: made


def _true_float32(device: torch.device) -> contextlib.AbstractContextManager[None]:
    if device.type == "cpu":
        return contextlib.nullcontext()
    from torchxrayvision.inference import true_float32_on

    return true_float32_on(device)
