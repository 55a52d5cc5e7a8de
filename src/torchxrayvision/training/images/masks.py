"""Images with masks of structures, ready for a network that outlines them."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from torchxrayvision.datasets import MaskFiles, TableMasks
from torchxrayvision.errors import DatasetError, ImageShapeError, UnknownNameError, XRVError
from torchxrayvision.files import sha256_of, write_atomically
from torchxrayvision.inputs import ReadOptions, prefetch
from torchxrayvision.remote import make_folder
from torchxrayvision.training.images.cache import alone, cache_root, patients_of
from torchxrayvision.training.images.prepared import PreparedImages, to_stored
from torchxrayvision.training.images.sources import Sources, stamp_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from torchxrayvision.inputs import Read

logger = logging.getLogger(__name__)

MaskKind = Literal["anatomy", "findings"]
MASK_KINDS: Final[tuple[str, ...]] = get_args(MaskKind)
_FIELDS: Final = {"anatomy": "semantic_masks", "findings": "pathology_masks"}
# Changes whenever what is kept would be another for the same files.
_PREPARATION: Final = "1: centre square, half of a pixel, bits"


class MaskedImages(PreparedImages):
    """Prepared images, each with a mask of every structure, or the word that it has none.

    Labels say what is known: 1, the structure is there and its mask shows where; 0, it is not
    there, so that an empty mask is right; NaN, nobody said, so that the mask tells nothing and
    neither the loss nor a figure counts it.

    Use `build` for a dataset. Masks are kept as bits, an eighth of a byte per pixel.

    Args:
        images: As of `PreparedImages`.
        masks: (N, P, S, S), true inside.
        names: The P structures.
        labels: (N, P), see above; None where every mask is known, also an empty one.
        patient_ids: As of `PreparedImages`.

    Raises:
        ImageShapeError: If the shapes do not fit each other.

    Example:
        >>> masks = np.zeros((3, 1, 8, 8), bool)
        >>> masks[0, 0, 2:4] = True
        >>> data = MaskedImages(np.zeros((3, 8, 8), np.uint8), masks, ["Heart"])
        >>> data.labels[:, 0].tolist(), int(data.masks([0, 1]).sum())
        ([1.0, 0.0, 0.0], 16)
    """

    def __init__(
        self,
        images: NDArray[Any],
        masks: ArrayLike,
        names: Sequence[str],
        labels: NDArray[Any] | None = None,
        patient_ids: NDArray[Any] | Sequence[Any] | None = None,
    ) -> None:
        inside = np.asarray(masks)
        expected = (len(images), len(names), *images.shape[-2:])
        if inside.shape != expected:
            msg = f"masks must be of shape {expected}, one per image and name, got {inside.shape}"
            raise ImageShapeError(msg)
        inside = inside.astype(bool)
        shown: NDArray[Any] = np.asarray(inside.any((2, 3)), np.float32)
        super().__init__(images, shown if labels is None else labels, names, patient_ids)
        self._take_masks(np.packbits(inside, axis=-1), None)

    def _take_masks(self, packed: NDArray[np.uint8], paths: Sequence[str] | None) -> None:
        self._packed, self._paths = packed, paths
        self._channels = np.arange(len(self.names))

    @classmethod
    def build(
        cls,
        dataset: Any,
        size: int,
        names: Sequence[str] = (),
        *,
        masks: MaskKind = "anatomy",
        folder: str | os.PathLike[str] | None = None,
        workers: int | None = None,
        reading: ReadOptions | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> MaskedImages:
        """Draw the masks of a dataset once, with its images, and keep both on disk.

        What is kept is found again as long as neither the files of the images nor the annotations
        change; masks of a source of another kind, such as CheXmask, are drawn at each start.

        Args:
            dataset: A dataset of this package or a container, without transforms, whose samples
                have masks: made with ``pathology_masks=True``, or with masks of anatomy.
            size: Side of the prepared images in pixels.
            names: Structures wanted, in order; empty for all that there are.
            masks: `"anatomy"` for `semantic_masks`, `"findings"` for `pathology_masks`. A finding
                that an image is labelled not to have has an empty mask there; one that it is
                labelled to have and that nobody outlined is unknown.
            folder: Where they are kept; None for the package's cache folder.
            workers: Threads that read and prepare; None for one per processor.
            reading: Limits for reading a file; its `workers`, if given, replace those above.
            progress: Called with (done, total) now and then.

        Returns:
            The images, with masks, structures and patients of the dataset.

        Raises:
            DatasetError: If the dataset gives no masks of that kind, or transforms its images.
            ImageReadError: If an image cannot be read.
            UnknownNameError: If there is no such kind of masks, or no mask of a name.

        Example:
            >>> import tempfile
            >>> from torchxrayvision.datasets import Phantom_Dataset
            >>> dataset = Phantom_Dataset(n=2, size=64, anatomy_masks=True)
            >>> data = MaskedImages.build(dataset, 32, ["Heart"], folder=tempfile.mkdtemp())
            >>> data.masks([0]).shape
            (1, 1, 32, 32)
        """
        if masks not in MASK_KINDS:
            raise UnknownNameError("kind of masks", masks, MASK_KINDS)
        sources = Sources(dataset)
        for leaf in sources.leaves:
            _check_masks(leaf, masks)
        key = _key_of(sources, masks, size)
        options = reading or ReadOptions()
        options = replace(options, workers=options.workers or workers)
        if options.isolate:
            msg = "images with masks are read in this process: leave isolate out"
            raise DatasetError(msg)
        draw = _Draw(dataset, size, _FIELDS[masks])
        if key is None:
            held = _drawn(draw, sources, options, progress)
        else:
            place = cache_root(folder) / "masks" / key
            with alone(place.with_suffix(".lock")):
                held = _kept(place) or _keep(place, _drawn(draw, sources, options, progress))
        return cls._over(held, dataset, sources, list(names) or held.names, masks)

    @classmethod
    def _over(
        cls, held: _Held, dataset: Any, sources: Sources, names: list[str], kind: str
    ) -> MaskedImages:
        if lacking := [name for name in names if name not in held.names]:
            raise UnknownNameError(f"mask of {kind}", lacking[0], held.names)
        columns = [held.names.index(name) for name in names]
        made = object.__new__(cls)
        labels = _known(held.present[:, columns], dataset, names, kind)
        PreparedImages.__init__(made, held.images, labels, names, patients_of(dataset))
        made._take_masks(held.masks, [sources.name(row) for row in range(len(sources))])
        made._channels = np.array(columns)
        return made

    @property
    def paths(self) -> list[str]:
        """Path of each image in its release, or the number of its row."""
        if self._paths is None:
            return super().paths
        return [self._paths[row] for row in self.rows.tolist()]

    def masks(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Masks of several images.

        Args:
            indices: Positions in this dataset, B of them.

        Returns:
            uint8 (B, P, S, S): 1 inside; 0 also where nothing is known, see `labels`.
        """
        rows = self.rows[np.asarray(indices, dtype=np.int64)]
        return np.unpackbits(self._bits(rows), axis=-1, count=self.size)

    def _bits(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        there = self._channels >= 0
        bits = np.zeros((len(rows), len(there), *self._packed.shape[2:]), np.uint8)
        bits[:, there] = self._packed[rows][:, self._channels[there]]
        return bits

    def with_findings(self, names: Sequence[str]) -> PreparedImages:
        """The same images with other structures; those that are not there are unknown.

        Args:
            names: Structures wanted, in order.

        Returns:
            A dataset over the same arrays.

        Raises:
            DatasetError: If some are wanted and none of them is there.
        """
        part: Any = super().with_findings(names)
        own = dict(zip(self.names, self._channels.tolist(), strict=True))
        part._channels = np.array([own.get(name, -1) for name in names])
        made: PreparedImages = part
        return made

    def _digest_pixels(self, digest: Any) -> None:
        super()._digest_pixels(digest)
        for row in self.rows:
            digest.update(self._bits(np.array([row])).tobytes())


class _Held:
    """Images, masks as bits, and which masks there are; (N, S, S), (N, P, S, S / 8), (N, P)."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        masks: NDArray[np.uint8],
        present: NDArray[np.bool_],
        names: list[str],
    ) -> None:
        self.images, self.masks, self.present, self.names = images, masks, present, names


def _check_masks(leaf: Any, kind: str) -> None:
    name = type(leaf).__name__
    if kind == "findings":
        there, asked = leaf.spec.masks is not None, leaf.pathology_masks
        argument = "pathology_masks=True"
    else:
        there = leaf.spec.semantic is not None or leaf.anatomy is not None
        asked = leaf.semantic_masks
        argument = "semantic_masks=True (anatomy_masks=True of Phantom_Dataset)"
    if not there:
        raise DatasetError(f"{name} has no masks of {kind}; docs/datasets.md says which have")
    if not asked:
        raise DatasetError(f"{name} was made without its masks: give it {argument}")


def _known(
    present: NDArray[np.bool_], dataset: Any, names: Sequence[str], kind: str
) -> NDArray[np.float32]:
    """What is known of each mask, see `MaskedImages`."""
    known = np.where(present, 1.0, np.nan).astype(np.float32)
    if kind == "findings":
        findings = [str(name) for name in dataset.pathologies]
        for column, name in enumerate(names):
            labels = np.asarray(dataset.labels)[:, findings.index(name)]
            known[(labels == 0) & ~present[:, column], column] = 0
    return known


class _Draw:
    """The image and the masks of a row, cropped and resized together."""

    def __init__(self, dataset: Any, size: int, field: str) -> None:
        from torchvision.transforms import v2

        from torchxrayvision.transforms import CenterCropSquare, ResizeSquare

        self._dataset, self._field, self.size = dataset, field, size
        self._together = v2.Compose([CenterCropSquare(), ResizeSquare(size)])

    def __call__(self, row: int, _: Read) -> Any:
        """Pixels, and name to mask as bits; or the error."""
        from torchxrayvision.transforms import apply_transforms

        try:
            sample = self._dataset[row]
            sample = {key: sample[key] for key in ("img", self._field) if key in sample}
            sample = apply_transforms(sample, self._together, seed=0)
        except XRVError as error:
            return error
        found = sample.get(self._field, {})
        bits = {self._named(key): np.packbits(mask[0] > 0, axis=-1) for key, mask in found.items()}
        return to_stored(sample["img"][0], "uint8"), bits

    def _named(self, key: str | int) -> str:
        return key if isinstance(key, str) else str(self._dataset.pathologies[key])


def _drawn(
    draw: _Draw,
    sources: Sources,
    options: ReadOptions,
    progress: Callable[[int, int], None] | None,
) -> _Held:
    """Read every image and draw its masks."""
    count, size = len(sources), draw.size
    images = np.zeros((count, size, size), np.uint8)
    rows: list[dict[str, NDArray[np.uint8]]] = []
    for row, made in prefetch(range(count), draw, options):
        if isinstance(made, str):
            raise DatasetError(f"{sources.name(row)}: {made}")
        if isinstance(made, XRVError):
            raise made
        images[row], bits = made
        rows.append(bits)
        if progress is not None:
            progress(row + 1, count)
    names = list(dict.fromkeys(name for bits in rows for name in bits))
    masks = np.zeros((count, len(names), size, -(-size // 8)), np.uint8)
    present = np.zeros((count, len(names)), bool)
    for row, bits in enumerate(rows):
        for name, mask in bits.items():
            masks[row, names.index(name)], present[row, names.index(name)] = mask, True
    return _Held(images, masks, present, names)


def _key_of(sources: Sources, kind: str, size: int) -> str | None:
    """Names what would be drawn: by states of files and annotations; None if that cannot be."""
    names, stamps, computed = sources.states()
    digest = hashlib.sha256(json.dumps([_PREPARATION, kind, size, names]).encode())
    digest.update(stamps.tobytes() + computed.tobytes())
    for leaf, common in zip(sources.leaves, sources.common, strict=True):
        digest.update(json.dumps([str(name) for name in leaf.pathologies]).encode())
        if common:
            digest.update(common.encode())
            continue
        source = leaf.spec.masks if kind == "findings" else leaf.spec.semantic
        if kind == "anatomy" and leaf.anatomy is not None:
            return None
        if not isinstance(source, TableMasks | MaskFiles):
            return None
        for part in _annotations(source, leaf):
            digest.update(part)
    return digest.hexdigest()[:40]


def _annotations(source: TableMasks | MaskFiles, leaf: Any) -> Iterator[bytes]:
    """What the masks of a dataset depend on besides its images."""
    context = leaf._context
    yield repr(type(source)).encode()
    if isinstance(source, TableMasks):
        for argument in source.tables:
            table = context.tables.get(argument)
            yield argument.encode() + (b"" if table is None else table.to_csv().encode())
        return
    for position in range(len(leaf)):
        row = leaf._row(position)
        for name, images in source.files.items():
            for one in images:
                if one.exists(row, context):
                    path = one.input_file(row, context).path
                    yield f"{name} {one.name(row)} {stamp_of(path)}".encode()


_ARRAYS: Final = ("images", "masks", "present")


def _keep(place: Path, held: _Held) -> _Held:
    """Write what was drawn; the list of hashes comes last, so that all of it is there or none."""
    try:
        make_folder(place)
        hashes = {}
        for name in _ARRAYS:
            path = place / f"{name}.npy"
            with write_atomically(path) as part, part.open("xb") as file:
                np.save(file, getattr(held, name), allow_pickle=False)
            hashes[name] = sha256_of(path)
        with write_atomically(place / "held.json") as part:
            part.write_text(json.dumps({"names": held.names, "sha256": hashes}), "utf-8")
    except OSError as error:
        logger.warning("%s: the masks are not kept: %s", place, error)
        return held
    return _kept(place) or held


def _kept(place: Path) -> _Held | None:
    """What was drawn before, if all of it is there as it was written."""
    try:
        said = json.loads((place / "held.json").read_text("utf-8"))
        paths = {name: place / f"{name}.npy" for name in _ARRAYS}
        if any(sha256_of(paths[name]) != said["sha256"][name] for name in _ARRAYS):
            logger.warning("%s: damaged masks are drawn again", place)
            return None
        images, masks, present = (
            np.load(paths[name], mmap_mode="r", allow_pickle=False) for name in _ARRAYS
        )
        return _Held(images, masks, present, [str(name) for name in said["names"]])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s: what was kept cannot be read, it is drawn again: %s", place, error)
        return None
