"""Every error and warning the package raises on its own account.

::

    XRVError
    ├── ImageReadError (ValueError)        a file cannot be read as a radiograph
    │   ├── ImageNotFoundError (FileNotFoundError)  there is no such file
    │   ├── ImageTooLargeError             declared size above the limit; nothing was decoded
    │   └── UnsupportedImageError (NotImplementedError)  a valid file that is not one grey image
    ├── ImageRangeError (ValueError)       pixel values outside what the call takes
    ├── ImageShapeError (ValueError)       array or tensor of the wrong shape
    ├── UnknownNameError (ValueError)      no weights, model or dataset of that name
    ├── RemoteError (OSError)              a file could not be fetched
    │   ├── OfflineError                   the network may not be used, and the cache lacks the file
    │   ├── DownloadError                  the transfer failed
    │   └── ChecksumError                  the bytes are not those that were published or pinned
    ├── CheckpointError (ValueError)       a file holds no readable tensors
    │   └── StateMismatchError             the tensors are not those of the network
    ├── WeightsError (ValueError)          weights that cannot be added or published as asked
    ├── DatasetError (ValueError)          a release and its tables do not fit the request
    │   ├── DatasetNotFoundError (FileNotFoundError)  a folder, table or image is missing
    │   ├── EmptyDatasetError              no row is left after the filters
    │   └── ViewError                      an unknown view, or one that the source lacks
    ├── ExportError (RuntimeError)         an exported file gives other numbers than its model
    ├── OutputError (OSError)              results cannot be written
    ├── ResumeError (ValueError)           an unfinished run that this one cannot resume
    ├── ClusterError (RuntimeError)        the nodes of a cluster cannot do a run
    ├── StalledError (TimeoutError)        so many files hang that their storage must be the cause
    ├── ConfigError (ValueError)           a setting of the service that cannot be used
    ├── ServiceError (RuntimeError)        the service cannot start or go on
    ├── OverloadError (OSError)            the service takes nothing more for now
    ├── DeliveryError (OSError)            an archive did not take or does not have a result
    ├── ExplanationError (ValueError)      a network does not allow the explanation asked for
    ├── EvaluationError (ValueError)       labels and scores that give no such measure
    ├── CalibrationError (ValueError)      a calibration that fails, or is for other outputs
    ├── PromptError (ValueError)           texts that cannot be compared with an image
    ├── RecipeError (ValueError)           a training run that cannot be carried out as described
    └── DependencyError (ImportError)      an optional package is missing

    XRVWarning (UserWarning)
    ├── ImageRangeWarning                  values that look like another scale
    ├── UnpinnedDownloadWarning            a file whose checksum nobody has published
    ├── ChecksumWarning                    bytes that differ from what a single source reported
    ├── DataWarning                        a table that needed a guess, and which
    ├── PrecisionWarning                   a faster way to compute that is not used, and why
    └── LicenseWarning                     weights that may not be used commercially

They derive from the built-in exception of the same meaning, so code that catches
``ValueError`` or ``OSError`` goes on working.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "CalibrationError",
    "CheckpointError",
    "ChecksumError",
    "ChecksumWarning",
    "ClusterError",
    "ConfigError",
    "DataWarning",
    "DatasetError",
    "DatasetNotFoundError",
    "DeliveryError",
    "DemonstrationWarning",
    "DependencyError",
    "DownloadError",
    "EmptyDatasetError",
    "EvaluationError",
    "ExplanationError",
    "ExportError",
    "ImageNotFoundError",
    "ImageRangeError",
    "ImageRangeWarning",
    "ImageReadError",
    "ImageShapeError",
    "ImageTooLargeError",
    "LicenseWarning",
    "OfflineError",
    "OutputError",
    "OverloadError",
    "PrecisionWarning",
    "PromptError",
    "RecipeError",
    "RemoteError",
    "ResumeError",
    "ServiceError",
    "StalledError",
    "StateMismatchError",
    "UnknownNameError",
    "UnpinnedDownloadWarning",
    "UnsupportedImageError",
    "ViewError",
    "WeightsError",
    "XRVError",
    "XRVWarning",
    "caller_stacklevel",
    "counted",
    "how_to_install",
]


_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep  # noqa: PTH100, PTH120 - of each frame
# Through whose frames a call of a user goes on its way into this package.
_BETWEEN = (f"{os.sep}torch{os.sep}", f"{os.sep}contextlib.py")


def caller_stacklevel() -> int:
    """`stacklevel` for a warning that names the line outside this package that led here.

    Returns:
        Frames from the caller of this function up to that line, 1 or more.

    Example:
        >>> warnings.warn("look", UserWarning, stacklevel=caller_stacklevel())  # doctest: +SKIP
    """
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_HERE) and not any(part in name for part in _BETWEEN):
            break
        frame, level = frame.f_back, level + 1
    return level


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number and what is counted, one of it or several.

    Args:
        count: How many.
        noun: What, in the singular; what follows it may stand here too.
        plural: The same for any other number; by default the noun with an s.

    Returns:
        Text with the thousands apart.

    Example:
        >>> counted(1, "row"), counted(1200, "row"), counted(0, "image is", "images are")
        ('1 row', '1,200 rows', '0 images are')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


class XRVError(Exception):
    """Base of every error that the package raises on its own account."""


class ImageReadError(XRVError, ValueError):
    """A file cannot be read as a radiograph.

    Args:
        path: The file as the caller named it.
        reason: What is wrong with it, one clause without a full stop.
        advice: What to do about it, if anything is known.

    Example:
        >>> str(ImageReadError("a.png", "the file is empty"))
        'a.png: the file is empty'
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, advice: str = "") -> None:
        self.path = path
        self.reason = reason
        self.advice = advice
        super().__init__(path, reason, advice)  # the arguments, so that the error pickles

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" + (f"; {self.advice}" if self.advice else "")


class ImageNotFoundError(ImageReadError, FileNotFoundError):
    """There is no such file."""


class ImageTooLargeError(ImageReadError):
    """The declared size is above the limit; no pixel was decoded."""


class UnsupportedImageError(ImageReadError, NotImplementedError):
    """A valid file of a kind that is not one grey image: colour or multi-frame DICOM, CMYK.

    It is a `NotImplementedError` too, as in 1.5.7.
    """


class ImageRangeError(XRVError, ValueError):
    """Pixel values outside the range that the call takes."""


class ImageShapeError(XRVError, ValueError):
    """An array or tensor whose shape the call does not take."""


class UnknownNameError(XRVError, ValueError):
    """No weights, model or dataset of that name.

    Args:
        kind: What was asked for, such as ``"weights"``.
        name: The name as given.
        known: Every valid name.
        advice: What to do instead; the nearest valid name if empty.

    Example:
        >>> print(UnknownNameError("weights", "densnet", ["densenet", "resnet"]))
        unknown weights 'densnet'; did you mean 'densenet'? Known: densenet, resnet
    """

    def __init__(self, kind: str, name: object, known: Iterable[str], advice: str = "") -> None:
        self.kind = kind
        self.name = name
        self.known = tuple(known)
        self.advice = advice
        super().__init__(kind, name, self.known, advice)

    def __str__(self) -> str:
        hint = f" {self.advice}." if self.advice else self._nearest()
        return f"unknown {self.kind} {self.name!r};{hint} Known: {', '.join(self.known)}"

    def _nearest(self) -> str:
        """The name that was meant, whatever its case, also where only a part of it was given."""
        given, folded = str(self.name).casefold(), {one.casefold(): one for one in self.known}
        close = difflib.get_close_matches(given, folded, n=1)
        if not close and len(given) > 1:
            close = sorted((one for one in folded if given in one), key=len)
        return f" did you mean {folded[close[0]]!r}?" if close else ""


class RemoteError(XRVError, OSError):
    """A file could not be fetched."""


class OfflineError(RemoteError):
    """The network may not be used or cannot be reached, and the cache lacks the file."""


class DownloadError(RemoteError):
    """The transfer failed."""


class ChecksumError(RemoteError):
    """The bytes are not those that were published or pinned."""


class CheckpointError(XRVError, ValueError):
    """A file holds no tensors that can be read without executing code."""


class StateMismatchError(CheckpointError):
    """The tensors of a file are not those of the network.

    Args:
        source: The file or the weights that were read.
        missing: Names that the network has and the file lacks.
        unexpected: Names that the file has and the network lacks.
        shapes: Name to the pair (shape in the file, shape in the network) where they differ.
    """

    SHOWN = 5

    def __init__(
        self,
        source: str,
        missing: Iterable[str] = (),
        unexpected: Iterable[str] = (),
        shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] | None = None,
    ) -> None:
        self.source = source
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.shapes = dict(shapes or {})
        super().__init__(source, self.missing, self.unexpected, self.shapes)

    def __str__(self) -> str:
        parts = [f"{self.source} does not fit the network"]
        differing = [f"{name} {file} instead of {net}" for name, (file, net) in self.shapes.items()]
        for label, names in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape", differing),
        ):
            if names:
                more = f" and {len(names) - self.SHOWN} more" if len(names) > self.SHOWN else ""
                parts.append(f"{len(names)} {label}: {', '.join(names[: self.SHOWN])}{more}")
        return "; ".join(parts)


class WeightsError(XRVError, ValueError):
    """Weights that cannot be added, exported or published as asked."""


class DatasetError(XRVError, ValueError):
    """A release and its tables do not fit the request."""


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """A folder, table or image of a dataset is missing.

    Args:
        dataset: Name of the dataset class.
        argument: The constructor argument that named the place.
        path: Its value.
        advice: What to place there, or where to get it.
    """

    def __init__(
        self, dataset: str, argument: str, path: str | os.PathLike[str], advice: str = ""
    ) -> None:
        self.dataset = dataset
        self.argument = argument
        self.path = path
        self.advice = advice
        super().__init__(dataset, argument, path, advice)

    def __str__(self) -> str:
        text = f"{self.dataset}: {self.argument}={str(self.path)!r} does not exist"
        return f"{text}; {self.advice}" if self.advice else text


class EmptyDatasetError(DatasetError):
    """No row is left after the filters."""


class ViewError(DatasetError):
    """An unknown view, or one that the source lacks."""


class ExportError(XRVError, RuntimeError):
    """An exported file gives other numbers than its model; it is not kept."""


class GraphError(XRVError, ValueError):
    """A graph of a network that cannot stand for it; the message says what to do."""


class OutputError(XRVError, OSError):
    """Results cannot be written; what was finished is kept."""


class ResumeError(XRVError, ValueError):
    """An unfinished run lies where this one would write, and this one cannot resume it."""


class ClusterError(XRVError, RuntimeError):
    """The nodes of a cluster cannot do a run; what was finished is kept."""


class DeviceError(XRVError, RuntimeError):
    """A device cannot be used, or failed while it computed; rows that were finished are kept.

    Args:
        device: Its name.
        reason: What went wrong.
    """

    def __init__(self, device: str, reason: object) -> None:
        self.device = device
        self.reason = str(reason).partition("\n")[0]
        super().__init__(device, self.reason)

    def __str__(self) -> str:
        return f"{self.device}: {self.reason}"


class StalledError(XRVError, TimeoutError):
    """So many files hang that the storage they lie on must be the cause.

    Args:
        files: How many.
        limit: Seconds that each was given.
    """

    def __init__(self, files: int, limit: float) -> None:
        self.files = files
        self.limit = limit
        super().__init__(files, limit)

    def __str__(self) -> str:
        return (
            f"reading {self.files} files took longer than {self.limit:g} s each and never ended; "
            "see whether their disk or server answers, then run the same command again to resume"
        )


class ConfigError(XRVError, ValueError):
    """A setting of the service that cannot be used.

    Args:
        key: The setting, with its sections, such as ``"receive.port"``.
        reason: What was given and what was expected, one clause without a full stop.

    Example:
        >>> print(ConfigError("receive.port", "is 'dicom', expected a whole number"))
        receive.port: is 'dicom', expected a whole number
    """

    def __init__(self, key: str, reason: str) -> None:
        self.key = key
        self.reason = reason
        super().__init__(key, reason)

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}"


class ServiceError(XRVError, RuntimeError):
    """The service cannot start or go on."""


class OverloadError(XRVError, OSError):
    """The service takes nothing more for now; what it accepted before is kept."""


class RequestError(XRVError, ValueError):
    """A request over HTTP that cannot be taken.

    Args:
        status: Of the answer, such as 400 or 413.
        reason: One clause without a full stop, which quotes nothing of the request.
    """

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(status, reason)

    def __str__(self) -> str:
        return self.reason


class DeliveryError(XRVError, OSError):
    """An archive did not take a result, or does not have it afterwards.

    Args:
        reason: What it answered, one clause without a full stop.
        permanent: Whether the same object would be refused again.
    """

    def __init__(self, reason: str, permanent: bool = False) -> None:
        self.reason = reason
        self.permanent = permanent
        super().__init__(reason, permanent)

    def __str__(self) -> str:
        return self.reason


class ExplanationError(XRVError, ValueError):
    """A network does not allow the explanation that was asked for."""


class PromptError(XRVError, ValueError):
    """Texts that a zero-shot network cannot compare with an image."""


class RecipeError(XRVError, ValueError):
    """A training run cannot be carried out as it is described."""


class EvaluationError(XRVError, ValueError):
    """Labels and scores that do not fit each other, or that leave a measure undefined."""


class CalibrationError(XRVError, ValueError):
    """A calibration that cannot be made, or that is for other weights, images or outputs."""


class DependencyError(XRVError, ImportError):
    """An optional package is missing.

    Args:
        package: The distribution to install.
        purpose: What it is needed for.
        extra: The extra of this package that brings it.

    Example:
        >>> str(DependencyError("pyjpegls", "JPEG-LS pixels", "dicom")).partition(":")[0]
        'JPEG-LS pixels needs the package pyjpegls of the extra dicom'
    """

    def __init__(self, package: str, purpose: str, extra: str) -> None:
        self.package = package
        self.purpose = purpose
        self.extra = extra
        super().__init__(package, purpose, extra)

    def __str__(self) -> str:
        said = f"{self.purpose} needs the package {self.package} of the extra {self.extra}"
        return f"{said}: {how_to_install(self.extra, self.package)}"


def how_to_install(extra: str, package: str) -> str:
    """The command that installs what an extra brings.

    It names the packages, with the versions that the installed distribution of this package asks
    for. ``pip install "torchxrayvision[extra]"`` would install whatever release an index has under
    that name, in place of a checkout or a wheel from elsewhere.

    Args:
        extra: The extra.
        package: What is missing; named alone where nothing says what the extra brings.

    Returns:
        A line for a shell.

    Example:
        >>> how_to_install("no such extra", "pyjpegls")
        'pip install "pyjpegls"'
    """
    needed = _requirements(extra) or [package]
    return " ".join(["pip install", *(f'"{one}"' for one in needed)])


def _requirements(extra: str) -> list[str]:
    """Requirements of an extra of the installed distribution, none where it has no such extra."""
    import importlib.metadata

    try:
        declared = importlib.metadata.requires("torchxrayvision") or []
    except importlib.metadata.PackageNotFoundError:  # the source stands in the path, uninstalled
        return []
    found = []
    for line in declared:
        requirement, _, condition = line.partition(";")
        if re.search(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]", condition):
            found.append(requirement.strip())
    return found


@contextlib.contextmanager
def needs_package(package: str, purpose: str, extra: str) -> Iterator[None]:
    """Say what to install where an import in the block fails.

    Args:
        package: See `DependencyError`; empty for the one that is missing.
        purpose: See `DependencyError`.
        extra: See `DependencyError`.

    Raises:
        DependencyError: If a package is missing.
    """
    try:
        yield
    except DependencyError:
        raise
    except ImportError as error:
        missing = package or str(error.name).partition(".")[0]
        raise DependencyError(missing, purpose, extra) from error


class XRVWarning(UserWarning):
    """Base of every warning that the package gives on its own account."""


class ImageRangeWarning(XRVWarning):
    """Pixel values that look like another scale than [-1024, 1024]."""


class UnpinnedDownloadWarning(XRVWarning):
    """A file whose checksum nobody has published was trusted on first use."""


class ChecksumWarning(XRVWarning):
    """The bytes of a file differ from what a single, unconfirmed source reported."""


class DataWarning(XRVWarning):
    """A table that needed a guess, or an image that was changed, and how."""


class LicenseWarning(XRVWarning):
    """Weights under terms that allow no commercial use were loaded."""


class PrecisionWarning(XRVWarning):
    """A faster way to compute is not used: it is not there, or too far from the exact one."""


class DemonstrationWarning(XRVWarning):
    """Weights that are there to try the package with were loaded."""
