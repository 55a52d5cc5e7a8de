"""What the page is told: errors as answers, and what is known of images and networks as JSON."""

from __future__ import annotations

import importlib.metadata
import json
import logging
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.app.library import FullError
from torchxrayvision.app.work import BusyError
from torchxrayvision.errors import (
    DependencyError,
    ImageReadError,
    RemoteError,
    UnknownNameError,
    XRVError,
)
from torchxrayvision.inputs import reason_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from torchxrayvision.app.library import Entry
    from torchxrayvision.app.networks import Classifier, Reading

    Handler = Callable[[Any, Request], Awaitable[Response]]

logger = logging.getLogger(__name__)


def answered(handler: Handler) -> Handler:
    """Turns errors into answers that say what to do."""

    @wraps(handler)
    async def answering(page: Any, request: Request) -> Response:
        try:
            return await handler(page, request)
        except Exception as error:  # noqa: BLE001 - each has its answer
            return _answer(error)

    return answering


_ANSWERS: Final[tuple[tuple[type[BaseException], int, str], ...]] = (
    (FullError, 507, "memory-full"),
    (ImageReadError, 422, "cannot-read"),
    (DependencyError, 501, "package-missing"),
    (RemoteError, 503, "weights-missing"),
    (UnknownNameError, 404, "unknown-name"),
    (XRVError, 422, "failed"),
    (KeyError, 404, "gone"),
    (BusyError, 503, "busy"),
    (OSError, 502, "failed"),
)


def _answer(error: Exception) -> Response:
    for kind, status, code in _ANSWERS:
        if isinstance(error, kind):
            detail = "" if kind in (KeyError, BusyError) else reason_of(error)
            return refusal(status, code, detail)
    # By its type alone: its words may quote a header.
    logger.error("unexpected %s in the page's server", type(error).__name__)
    return refusal(500, "unexpected", type(error).__name__)


def refusal(status: int, code: str, detail: str = "") -> Response:
    """An error as JSON: its code, for the words of the page, and what it is about."""
    from starlette.responses import JSONResponse

    return JSONResponse({"error": {"code": code, "detail": detail}}, status)


def as_json(value: Any, status: int = 200) -> Response:
    """A value as JSON."""
    from starlette.responses import Response

    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text.encode(), status, media_type="application/json")


def as_download(response: Response, name: str) -> Response:
    """The same answer, to be saved under a name."""
    response.headers["content-disposition"] = f'attachment; filename="{name}"'
    return response


def shortest(value: Any) -> float | None:
    """A float32 as the shortest number that gives it back; None for NaN."""
    number = float(str(value))
    return None if number != number else number


def listed(entry: Entry, number: int) -> dict[str, Any]:
    """An image in the list, and what became of it with one classifier."""
    reading = entry.readings.get(number)
    state, message = "new", entry.file.problem
    if entry.file.problem:
        state = "error"
    elif reading is not None:
        message = reading.error or reading.refused
        state = "error" if reading.error else "refused" if reading.refused else "read"
    return {"key": entry.key, "name": entry.name, "added": entry.added, "state": state,
            "message": message}  # fmt: skip


def findings_of(classifier: Classifier, reading: Reading, entry: Entry) -> dict[str, Any]:
    """What a classifier says of an image; no number where the screening refuses it."""
    answer: dict[str, Any] = {
        "error": reading.error, "check": reading.check, "refused": reading.refused,
        "forced": entry.forced, "kind": classifier.kind, "findings": None,
    }  # fmt: skip
    values = reading.values
    if values is None or (reading.refused and not entry.forced):
        return answer
    shown = []
    for name, index in classifier.columns.items():
        value = shortest(values[index])
        chance = reading.probabilities
        shown.append(
            {
                "name": name, "value": value,
                "above": None if value is None else classifier.is_above(index, value),
                "probability": None if chance is None else shortest(chance[index]),
                "point": classifier.point(index),
                "calibrated": _calibrated(reading, name),
            }
        )  # fmt: skip
    return answer | {"findings": shown}


def _calibrated(reading: Reading, name: str) -> dict[str, Any] | None:
    """Probability, call and set of a finding by the calibration of the site; None without one."""
    value = reading.cells.get(f"calibrated {name}")
    if value is None:
        return None
    words = {word: reading.cells[f"{word} {name}"] for word in ("call", "set")
             if f"{word} {name}" in reading.cells}  # fmt: skip
    return {"value": shortest(value), **words}


def described(classifier: Classifier) -> dict[str, Any]:
    """A classifier, as the page tells of it."""
    facts = record_of(classifier.name)
    return facts | {
        "name": classifier.name, "sha256": classifier.sha256, "kind": classifier.kind,
        "findings": list(classifier.columns), "resolution": classifier.model.input_resolution,
        "own": classifier.checkpoint is not None, "calibrated": _source_of(classifier),
    }  # fmt: skip


def _source_of(classifier: Classifier) -> str:
    """What the calibration was made on, for a person; empty without one."""
    made = classifier.calibration
    if made is None:
        return ""
    return made.made_on


def record_of(name: str) -> dict[str, Any]:
    """What is published about weights; nothing for those of a user."""
    from torchxrayvision.weights import get

    try:
        record = get(name)
    except UnknownNameError:
        return {}
    return {
        "description": record.description, "trainedOn": list(record.trained_on),
        "licence": record.license.name, "terms": record.license.note,
        "reference": f"{record.reference.authors}. {record.reference.title}. "
        f"{record.reference.venue} {record.reference.year}",
        "demonstration": record.demonstration,
        "metrics": {test: dict(values) for test, values in record.metrics.items()},
        "metricsSource": record.metrics_source,
    }  # fmt: skip


def is_installed(package: str) -> bool:
    """Whether a distribution is there."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
