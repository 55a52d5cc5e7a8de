"""Every known checkpoint by name, and the view of them that 1.5.7's `model_urls` was."""

from __future__ import annotations

import importlib.resources
import json
import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from torchxrayvision.errors import (
    ChecksumError,
    DemonstrationWarning,
    LicenseWarning,
    OfflineError,
    RemoteError,
    UnknownNameError,
    caller_stacklevel,
)
from torchxrayvision.facts import OwnFile, PackagedFile

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from torchxrayvision.facts import License, Reference, RemoteFile
    from torchxrayvision.remote import Verification

Container = Literal[
    "pickled_module", "state_dict", "lightning", "torchscript", "safetensors", "zip"
]
Output = Literal[
    "logit", "probability", "log-probability", "years", "image", "embedding", "similarity"
]

_log = logging.getLogger(__name__)


class Metrics(dict[str, Mapping[str, float]]):
    """Test set to finding to value: a mapping that cannot change.

    Example:
        >>> Metrics({"NIH": {"Hernia": 0.91}})["NIH"]["Hernia"]
        0.91
    """

    def __setitem__(self, key: str, value: Mapping[str, float]) -> None:
        msg = "published metrics do not take an item assignment"
        raise TypeError(msg)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """How the authors of weights bring a picture from its square to their network.

    Args:
        crop: Side of the middle that is kept of `input_resolution` pixels a side.
        mean: Of pixels in [0, 1], subtracted; one number, or one per colour.
        deviation: By which the rest is divided; likewise.
        resampling: How they bring a picture to its square.

    Example:
        >>> facts = Preprocessing(crop=224, mean=(0.5, 0.25, 0.0), deviation=0.25)
        >>> facts.grey_mean, facts.colours()[1]
        (0.25, (0.25, 0.25))
    """

    crop: int
    mean: float | tuple[float, float, float]
    deviation: float | tuple[float, float, float]
    resampling: Literal["bicubic", "bilinear"] = "bicubic"

    def colours(self) -> tuple[tuple[float, float], ...]:
        """Mean and deviation of red, green and blue."""
        return tuple(zip(_three(self.mean), _three(self.deviation), strict=True))

    @property
    def grey_mean(self) -> float:
        """The mean over the colours."""
        return _grey(self.mean)

    @property
    def grey_deviation(self) -> float:
        """The mean deviation of the colours."""
        return _grey(self.deviation)


def _three(value: float | tuple[float, float, float]) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,) * 3


def _grey(value: float | tuple[float, float, float]) -> float:
    return math.fsum(value) / 3 if isinstance(value, tuple) else value


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """One published checkpoint and everything that is known about it.

    Args:
        name: What users type, such as ``"densenet121-res224-all"``.
        aliases: Shorter names.
        file: Where it is, on the network, in the package or in the cache, and what its bytes are.
        container: How its tensors are packed; `"zip"` is one of several state dicts.
        architecture: The network that they fit, such as ``"densenet121"``.
        targets: Name of each output in order, P of them; ``""`` where the output was not trained.
            None of a network that gives features, or that takes its findings as text and was not
            saved with any.
        input_resolution: Side of the square input in pixels.
        pixel_range: Least and largest pixel value of the input, air first.
        preprocessing: What becomes of the square input, where it is not only rescaled.
        output: What a raw output is; `"similarity"` with a text, which the user gives.
        companions: Other files of the release that the network needs: its configuration, and the
            vocabulary of the texts it takes.
        operating_points: For each output the probability that counts as 0.5 after calibration, in
            (0, 1); NaN where there is none. None if the checkpoint has no operating points.
        compat_operating_points: As 1.5.7 publishes them; `operating_points` by default. They
            differ where 1.5.7's are wrong, see `ResNet50_Weights`.
        ppv80: For each output the probability with a positive predictive value of 0.8, or None.
        compat_ppv80: As 1.5.7 publishes it; `ppv80` by default.
        trained_on: Codes of the training sets.
        license: Terms of the weights, and the questions of data use that travel with them.
        reference: What to cite.
        metrics: Area under the ROC curve, by test set and target; `"mean"` is that over all
            targets, where nothing else is published.
        metrics_source: Where those numbers come from.
        description: The sentence that 1.5.7 published with them, or ``""``.
        demonstration: Whether they are there to try the package with; who loads them is warned.
        cell_maps: Whether pre-training told each position of the later maps what the equal cell
            of the image holds, so that maps are read by cells (docs/explanations.md).

    Raises:
        ValueError: If fields are malformed or contradict each other.
    """

    name: str
    file: RemoteFile | PackagedFile | OwnFile
    container: Container
    architecture: str
    targets: tuple[str, ...]
    input_resolution: int
    trained_on: tuple[str, ...]
    license: License
    reference: Reference
    aliases: tuple[str, ...] = ()
    pixel_range: tuple[float, float] = (-1024.0, 1024.0)
    preprocessing: Preprocessing | None = None
    output: Output = "logit"
    companions: tuple[RemoteFile, ...] = ()
    operating_points: tuple[float, ...] | None = None
    compat_operating_points: tuple[float, ...] | None = None
    ppv80: tuple[float, ...] | None = None
    compat_ppv80: tuple[float, ...] | None = None
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=Metrics)
    metrics_source: str = ""
    description: str = ""
    demonstration: bool = False
    cell_maps: bool = False

    def __post_init__(self) -> None:
        for derived, source in (
            ("compat_operating_points", "operating_points"),
            ("compat_ppv80", "ppv80"),
        ):
            if getattr(self, derived) is None:
                object.__setattr__(self, derived, getattr(self, source))
        object.__setattr__(self, "metrics", Metrics(self.metrics))
        for complaint in (
            *_complaints_about_names(self),
            *_complaints_about_points(self),
            *_complaints_about_metrics(self),
        ):
            msg = f"weights {self.name!r}: {complaint}"
            raise ValueError(msg)

    @property
    def trained(self) -> tuple[bool, ...]:
        """For each output, whether it may be shown as a prediction.

        False where the target has no name, and also where it has a name and no operating point:
        the training data of such an output held no example of both classes, and 1.5.7 answers 0.5
        for every image.
        """
        points = self.operating_points or (0.5,) * len(self.targets)
        return tuple(
            bool(name) and not math.isnan(point)
            for name, point in zip(self.targets, points, strict=True)
        )

    @property
    def url(self) -> str:
        """Address of the file; ``""`` for one that is installed with the package."""
        return getattr(self.file, "url", "")

    def __str__(self) -> str:
        return self.name

    # By what they show, for values hold NaN, which is unequal to itself.
    def __eq__(self, other: object) -> bool:
        return repr(self) == repr(other) if isinstance(other, Weights) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.name)


def _complaints_about_names(weights: Weights) -> Iterator[str]:
    names = (weights.name, *weights.aliases)
    if not all(names) or len(set(names)) != len(names):
        yield f"name and aliases must be distinct and not empty, got {names!r}"
    named = [target for target in weights.targets if target]
    # What is compared with texts may have been saved with some of them.
    unfit = {"embedding": bool(named), "similarity": False}.get(weights.output, not named)
    if unfit or len(set(named)) != len(named):
        yield f"targets must be distinct and not all empty, got {weights.targets!r}"
    if weights.input_resolution < 1:
        yield f"input_resolution must be positive, got {weights.input_resolution}"
    low, high = weights.pixel_range
    if not low < high:
        yield f"pixel_range must ascend, got {weights.pixel_range}"


def _complaints_about_points(weights: Weights) -> Iterator[str]:
    for key in ("operating_points", "compat_operating_points", "ppv80", "compat_ppv80"):
        points = getattr(weights, key)
        if points is None:
            continue
        if len(points) != len(weights.targets):
            yield f"{key} has {len(points)} values for {len(weights.targets)} targets"
        wrong = [point for point in points if not (math.isnan(point) or 0 < point < 1)]
        if wrong:
            yield f"{key} must be probabilities in (0, 1) or NaN, got {wrong}"


def _complaints_about_metrics(weights: Weights) -> Iterator[str]:
    for dataset, values in weights.metrics.items():
        unknown = [target for target in values if target not in (*weights.targets, "mean")]
        if unknown:
            yield f"metrics on {dataset} name {unknown}, which are not targets"
        if not all(0 <= value <= 1 for value in values.values()):
            yield f"metrics on {dataset} must be areas in [0, 1]"
    if bool(weights.metrics) != bool(weights.metrics_source):
        yield "metrics and metrics_source go together"


class WeightsEnum(Enum):
    """The checkpoints of one architecture; the value of each member is a `Weights`.

    Fields of the record can be read from the member (``member.file``), except those whose names an
    enum member has itself: ``member.name`` is ``"ALL"``, ``member.value.name`` and ``str(member)``
    are ``"densenet121-res224-all"``. ``DEFAULT`` is an alias of the best general member.
    """

    def __getattr__(self, name: str) -> Any:
        # Called only for what the enum itself lacks. Names with underscores are Python's own
        # protocols (copying, pickling), which must not reach into the record.
        value = self.__dict__.get("_value_")
        if name.startswith("_") or not hasattr(value, name):
            msg = f"{type(self).__name__} has no attribute {name!r}"
            raise AttributeError(msg)
        return getattr(value, name)

    def __str__(self) -> str:
        return str(self.value)

    @classmethod
    def parse(cls, value: str | Weights | WeightsEnum) -> Weights:
        """The record that a caller means.

        Args:
            value: A member of this enum, its name (``"ALL"``, ``"DEFAULT"``), the name or an alias
                of its weights, or a `Weights` of the same architecture, such as a user's own.

        Returns:
            The record.

        Raises:
            UnknownNameError: If it is none of these.
        """
        if isinstance(value, cls):
            record: Weights = value.value
            return record
        architectures = {member.value.architecture for member in cls}
        if isinstance(value, Weights) and value.architecture in architectures:
            return value
        if isinstance(value, str):
            for key, member in cls.__members__.items():
                if value in (key, member.value.name, *member.value.aliases):
                    return cls.parse(member)
        known = [name for member in cls for name in (member.value.name, *member.value.aliases)]
        raise UnknownNameError(f"{'/'.join(sorted(architectures))} weights", str(value), known)


_T = TypeVar("_T", Weights, type[WeightsEnum])

_by_name: dict[str, Weights] = {}
"""Names and aliases to records, in the order of registration."""


def register(entry: _T) -> _T:
    """Make weights known by their names and aliases; as a decorator, all members of an enum.

    Args:
        entry: A record, or a `WeightsEnum`.

    Returns:
        The same object.

    Raises:
        ValueError: If a name, an alias or the name of a file in the cache is already taken, or two
            members of the enum are the same record.
    """
    if isinstance(entry, Weights):
        _add([entry])
        return entry
    aliases = [key for key, member in entry.__members__.items() if key != member.name]
    if set(aliases) - {"DEFAULT"}:
        msg = f"{entry.__name__}: {aliases} repeat other members; only DEFAULT may"
        raise ValueError(msg)
    _add([member.value for member in entry])
    return entry


def _add(entries: list[Weights]) -> None:
    # All or nothing: a rejected enum leaves no half of itself behind.
    names = dict(_by_name)
    files = {name: known.name for known in _by_name.values() for name in _filenames(known)}
    for entry in entries:
        for name in (entry.name, *entry.aliases):
            if name in names:
                msg = f"weights {entry.name!r}: the name {name!r} is taken by {names[name].name!r}"
                raise ValueError(msg)
            names[name] = entry
        for filename in _filenames(entry):
            other = files.setdefault(filename, entry.name)
            if other != entry.name:
                msg = f"weights {entry.name!r}: {filename} is the file of {other!r}"
                raise ValueError(msg)
    _by_name.update(names)


def _filenames(entry: Weights) -> list[str]:
    return [file.filename for file in (entry.file, *entry.companions)]


def get_weights_entry(name: str | Weights | WeightsEnum) -> Weights:
    """The record of that name.

    Args:
        name: Name or alias; a record or an enum member is taken as it is.

    Returns:
        The record.

    Raises:
        UnknownNameError: If nothing has that name.

    Example:
        >>> get_weights_entry("all").name
        'densenet121-res224-all'
    """
    if isinstance(name, WeightsEnum):
        record: Weights = name.value
        return record
    if isinstance(name, Weights):
        return name
    if isinstance(name, str):
        if name in _by_name:
            return _by_name[name]
        for find, _ in _elsewhere:
            if (found := find(name)) is not None:
                return found
    known = [*_by_name, *(one for _, names in _elsewhere for one in names())]
    advice = _ADDED_FIRST if isinstance(name, str) and name.startswith("hf://") else ""
    raise UnknownNameError("weights", name, known, advice)


_ADDED_FIRST: Final = "a model of the Hub is added under a name first: `xrv weights add hf://...`"
_elsewhere: list[tuple[Callable[[str], Weights | None], Callable[[], list[str]]]] = []


def find_elsewhere(find: Callable[[str], Weights | None], names: Callable[[], list[str]]) -> None:
    """Look for weights in another place too, after those that are registered.

    Args:
        find: The record of a name, or None.
        names: Every name there.
    """
    _elsewhere.append((find, names))


def list_weights() -> list[Weights]:
    """Every registered record once, in the order of registration.

    Returns:
        Records of core, baseline, segmentation and demonstration weights.

    Example:
        >>> [weights.name for weights in list_weights()][:2]
        ['densenet121-res224-all', 'densenet121-res224-nih']
    """
    return list(dict.fromkeys(_by_name.values()))


def _local_path(file: PackagedFile | OwnFile) -> Path:
    if isinstance(file, OwnFile):
        return Path(file.folder) / file.filename
    return packaged_path(file.folder, file.filename)


def packaged_path(folder: str, filename: str) -> Path:
    """Where a file in a folder of the package is installed, whether or not it is there."""
    # torch is never run from an archive, so that the package beside it lies in a folder.
    return Path(str(importlib.resources.files("torchxrayvision"))) / folder / filename


download: Callable[[str, str], Any] | None = None
"""What a client has put in place of `utils.download`; what it fetches is verified all the same."""


def fetch_weights(
    weights: str | Weights | WeightsEnum,
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Path:
    """Return the verified local checkpoint, downloading it if there is none.

    Args:
        weights: Name, alias, record or enum member.
        cache: Cache folder; `torchxrayvision.remote.cache_dir` by default.
        progress: Draw a progress bar, if standard error is a terminal.

    Returns:
        Path of the file; for one that is installed with the package, its path there.

    Raises:
        UnknownNameError: If nothing has that name.
        RemoteError: If the file cannot be fetched, see `torchxrayvision.remote.fetch`, or the
            installed one is damaged.
        ChecksumError: If the installed file is not the one that its record names.
    """
    from torchxrayvision.remote import cache_dir, fetch, locate, make_folder, verify

    file = get_weights_entry(weights).file
    if not isinstance(file, PackagedFile | OwnFile):
        if download is not None and locate(file, cache) is None:
            folder = cache_dir() if cache is None else Path(cache).expanduser()
            make_folder(folder)
            download(file.url, str(folder / file.filename))
        return fetch(file, cache=cache, progress=progress)
    path = _local_path(file)
    found = verify(path, file)
    if not found.ok:
        again = "add the weights" if isinstance(file, OwnFile) else "install torchxrayvision"
        msg = f"{path}: {found.reason}; {again} again"
        raise ChecksumError(msg)
    return path


def fetch_companions(
    weights: str | Weights | WeightsEnum, *, cache: str | os.PathLike[str] | None = None
) -> dict[str, Path]:
    """The files that a release has beside its tensors, downloaded where they are not here yet.

    Args:
        weights: Name, alias, record or enum member.
        cache: Cache folder; `torchxrayvision.remote.cache_dir` by default.

    Returns:
        Name in the release to the local path; without those that cannot be had.

    Raises:
        UnknownNameError: If nothing has that name.
        ChecksumError: If one is not the file that was trusted before.
    """
    from torchxrayvision.remote import fetch, locate

    found: dict[str, Path] = {}
    reachable = True
    for file in get_weights_entry(weights).companions:
        path = locate(file, cache)
        if path is not None or reachable:
            try:
                path = fetch(file, cache=cache, progress=False)
            except ChecksumError:
                raise
            except RemoteError as error:
                _log.info("%s: %s", file.filename, error)
                reachable = not isinstance(error, OfflineError)
                continue
            found[file.url.rpartition("/")[2]] = path
    return found


def locate_weights(
    weights: str | Weights | WeightsEnum, cache: str | os.PathLike[str] | None = None
) -> Path | None:
    """Where the local checkpoint lies, without checking it and without the network.

    Args:
        weights: Name, alias, record or enum member.
        cache: Cache folder; `torchxrayvision.remote.cache_dir` by default.

    Returns:
        Its path, or None.

    Raises:
        UnknownNameError: If nothing has that name.
    """
    from torchxrayvision.remote import locate

    file = get_weights_entry(weights).file
    if not isinstance(file, PackagedFile | OwnFile):
        return locate(file, cache)
    path = _local_path(file)
    return path if path.is_file() else None


def verify_weights(
    weights: str | Weights | WeightsEnum, cache: str | os.PathLike[str] | None = None
) -> Verification | None:
    """Compare the local checkpoint with what is known about its bytes.

    Args:
        weights: Name, alias, record or enum member.
        cache: Cache folder; `torchxrayvision.remote.cache_dir` by default.

    Returns:
        What was found, or None where there is no local checkpoint.

    Raises:
        UnknownNameError: If nothing has that name.
        OSError: If the file exists and cannot be read.
    """
    from torchxrayvision.remote import verify

    path = locate_weights(weights, cache)
    return None if path is None else verify(path, get_weights_entry(weights).file)


def card_of(weights: str | Weights | WeightsEnum) -> dict[str, Any]:
    """The model card that lies beside weights of the package: data, recipe, metrics, limits.

    Args:
        weights: Name, alias, record or enum member.

    Returns:
        The card as plain data; empty for weights of others, whose facts are all in the record.

    Raises:
        UnknownNameError: If nothing has that name.

    Example:
        >>> card_of("all")
        {}
    """
    file = get_weights_entry(weights).file
    if not isinstance(file, PackagedFile):
        return {}
    return read_card(file.folder, file.filename)


def read_card(folder: str, filename: str) -> dict[str, Any]:
    """The card beside a file of tensors that is installed with the package."""
    path = packaged_path(folder, filename).with_suffix(".json")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def warn_of_terms(entry: Weights) -> None:
    """Say aloud that weights may not be used commercially, or are for trying the package only.

    The terms of all others are logged.

    Args:
        entry: The weights.

    Warns:
        LicenseWarning: Python shows it once for each line that loads such weights.
        DemonstrationWarning: Likewise.
    """
    _log.info("%s: %s, %s", entry.name, entry.license.name, entry.license.url)
    if entry.license.commercial is False:
        warnings.warn(
            f"{entry.name}: these weights are under {entry.license.name}, which allows no "
            f"commercial use; see {entry.license.url}",
            LicenseWarning,
            stacklevel=caller_stacklevel(),
        )
    if entry.demonstration:
        warnings.warn(
            f"{entry.name}: demonstration weights, to try the package with; their outputs are not "
            "findings. `xrv weights show` says what they were trained on and how good they are",
            DemonstrationWarning,
            stacklevel=caller_stacklevel(),
        )
