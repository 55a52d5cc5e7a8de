"""The server of the page: a static page, and what it asks for as JSON and raw numbers."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import socket
import threading
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from torchxrayvision import __version__
from torchxrayvision.app import export, viewing
from torchxrayvision.app.guard import Access, Guard
from torchxrayvision.app.library import FullError, Library, Taken, simulated
from torchxrayvision.errors import (
    DependencyError,
    ImageReadError,
    RemoteError,
    UnknownNameError,
    XRVError,
    needs_package,
)
from torchxrayvision.inputs import printable, reason_of
from torchxrayvision.pictures import diverging, sequential

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from torchxrayvision.app.library import Entry
    from torchxrayvision.app.networks import Classifier, Networks, Reading

    Handler = Callable[["Page", Request], Awaitable[Response]]

_STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
_LONGEST_NAME: Final = 255
_MOST_BODY: Final = 2**16  # bytes of a request that carries no image
_PIECE: Final = 2**20
_METHODS: Final = ("gradcam", "gradcam++", "cam")
_SIMILAR: Final = 12
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a page may do.

    Args:
        folder: Whose images are shown; None for none.
        dicomweb: Address of an archive that results may be sent to; None for none.
        memory: Bytes for images that are given to the page.
        largest: Most bytes of one file.
        pixels: Most pixels of one image.
        batch_size: Images of the folder that are read together.
    """

    folder: Path | None = None
    dicomweb: str | None = None
    memory: int = 2**31
    largest: int = 2**29
    pixels: int = 100_000_000
    batch_size: int = 8


class _BusyError(Exception):
    """So many requests wait already that one more would only wait in vain."""


class _Lane:
    """Threads for one kind of work, and how many requests may wait for one of them."""

    def __init__(self, threads: int, waiting: int) -> None:
        import anyio

        self._limiter = anyio.CapacityLimiter(threads)
        self._most = threads + waiting
        self._count = 0

    async def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        import anyio.to_thread

        if self._count >= self._most:
            raise _BusyError
        self._count += 1
        try:
            return await anyio.to_thread.run_sync(function, *arguments, limiter=self._limiter)
        finally:
            self._count -= 1


def _answered(handler: Handler) -> Handler:
    """Turns errors into answers that say what to do."""

    @wraps(handler)
    async def answering(page: Page, request: Request) -> Response:
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
    (_BusyError, 503, "busy"),
    (OSError, 502, "failed"),
)


def _answer(error: Exception) -> Response:
    for kind, status, code in _ANSWERS:
        if isinstance(error, kind):
            detail = "" if kind in (KeyError, _BusyError) else reason_of(error)
            return _refusal(status, code, detail)
    # By its type alone: its words may quote a header.
    _log.error("unexpected %s in the page's server", type(error).__name__)
    return _refusal(500, "unexpected", type(error).__name__)


def _refusal(status: int, code: str, detail: str = "") -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse({"error": {"code": code, "detail": detail}}, status)


def _json(value: Any, status: int = 200) -> Response:
    from starlette.responses import Response

    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text.encode(), status, media_type="application/json")


class _ReadAll:
    """Reads every image of the library with one classifier, in the background."""

    def __init__(self, library: Library, classifier: Classifier, number: int, batch: int) -> None:
        self.number, self.done, self.total, self.running = number, 0, 0, True
        self._library, self._classifier, self._batch = library, classifier, batch
        self._stop = threading.Event()
        threading.Thread(target=self._run, name="xrv-read-all", daemon=True).start()

    def stop(self) -> None:
        """After the batch that is being read."""
        self._stop.set()

    def _run(self) -> None:
        try:
            left = [e for e in self._library.entries() if self.number not in e.readings]
            self.total = len(left)
            for start in range(0, len(left), self._batch):
                if self._stop.is_set():
                    return
                chunk = left[start : start + self._batch]
                files = [entry.file for entry in chunk]
                for entry, reading in zip(
                    chunk, self._classifier.read(files, self._library.reading), strict=True
                ):
                    entry.readings[self.number] = reading
                self.done += len(chunk)
        except Exception as error:  # noqa: BLE001 - the page must learn that it ended
            _log.error("reading all images ended with %s", type(error).__name__)
        finally:
            self.running = False

    def state(self) -> dict[str, Any]:
        """For JSON."""
        return {"model": self.number, "done": self.done, "total": self.total,
                "running": self.running}  # fmt: skip


class Page:
    """What the server answers.

    Args:
        networks: What reads the images.
        settings: What the page may do.
        access: Who may ask.
        on_closed: Called when a browser without access asks for the page.
    """

    def __init__(
        self,
        networks: Networks,
        settings: Settings,
        access: Access,
        on_closed: Callable[[], None] | None = None,
    ) -> None:
        self.networks, self.settings, self.access = networks, settings, access
        self.library = Library(
            settings.folder, memory=settings.memory, largest=settings.largest,
            pixels=settings.pixels,
        )  # fmt: skip
        self._on_closed = on_closed or (lambda: None)
        self._files = {path.name: path.read_bytes() for path in _STATIC.iterdir()
                       if path.suffix in _TYPES}  # fmt: skip
        self._decode = _Lane(2, 64)
        self._small = _Lane(1, 64)  # thumbnails wait behind nobody and hold nobody up
        self._network = _Lane(2, 64)
        self._job: _ReadAll | None = None

    # ---- the page itself ----

    @_answered
    async def index(self, request: Request) -> Response:
        """The page; or, to a browser without access, the way in."""
        token = request.query_params.get("token")
        cookie = self.access.take(token) if token else None
        if cookie is not None:
            response = self._file("index.html")
            self._let_in(response, cookie)
            return response
        if self.access.knows(request.headers.get("cookie", "")):
            return self._file("index.html")
        if not self.access.has_password:
            self._on_closed()
        return self._file("door.html", 401)

    def _let_in(self, response: Response, cookie: str) -> None:
        response.set_cookie(self.access.cookie, cookie, httponly=True, samesite="strict", path="/")

    @_answered
    async def login(self, request: Request) -> Response:
        """The cookie for a password; by GET whether there is one."""
        if request.method == "GET":
            return _json({"password": self.access.has_password})
        given = await _small_json(request)
        cookie = self.access.enter(str(given.get("password", "")))
        if cookie is None:
            return _refusal(401, "wrong-password")
        response = _json({})
        self._let_in(response, cookie)
        return response

    @_answered
    async def static(self, request: Request) -> Response:
        """A file of the page; only those that are there when the server starts."""
        return self._file(request.path_params["name"])

    def _file(self, name: str, status: int = 200) -> Response:
        from starlette.responses import Response

        content = self._files[name]
        return Response(content, status, media_type=_TYPES[Path(name).suffix])

    # ---- what there is ----

    @_answered
    async def about(self, _: Request) -> Response:
        """Version, networks, limits, colours."""
        models = [_described(classifier) for classifier in self.networks.classifiers]
        segmenter = self.networks.segmenter_name
        return _json(
            {
                "version": __version__, "models": models,
                "segmenter": segmenter and _record_of(segmenter) | {"name": segmenter},
                "folder": self.settings.folder is not None,
                "dicomweb": self.settings.dicomweb is not None, "largest": self.library.largest,
                "methods": _METHODS, "dicomResults": _installed("highdicom"),
                "colours": {"sequential": sequential().ravel().tolist(),
                            "diverging": diverging().ravel().tolist()},
            }
        )  # fmt: skip

    @_answered
    async def images(self, request: Request) -> Response:
        """All images, with what one classifier says of those that were read."""
        number = self._number(request)
        since = request.query_params.get("since")
        library = self.library
        if since == str(library.changes) and not library.listing:
            return _json({"changes": library.changes, "listing": False})
        entries = library.entries()
        return _json(
            {
                "changes": library.changes, "listing": library.listing,
                "skipped": str(library.skipped), "used": library.budget.used,
                "memory": library.budget.total,
                "images": [_listed(entry, number) for entry in entries],
            }
        )  # fmt: skip

    @_answered
    async def values(self, request: Request) -> Response:
        """What one classifier says of every image that was read, for sorting and filtering."""
        number = self._number(request)
        classifier = self.networks.classifiers[number]
        values, above = {}, {}
        for entry in self.library.entries():
            reading = entry.readings.get(number)
            if reading is None or reading.values is None or (reading.refused and not entry.forced):
                continue
            row = [_number(reading.values[index]) for index in classifier.columns.values()]
            values[entry.key] = row
            above[entry.key] = [
                value is not None and bool(classifier.is_above(index, value))
                for value, index in zip(row, classifier.columns.values(), strict=True)
            ]
        return _json({"findings": list(classifier.columns), "values": values, "above": above})

    @_answered
    async def add(self, request: Request) -> Response:
        """Take in a file, as the body of the request; its name is in a header, not the address."""
        name = _clean(unquote(request.headers.get("x-name", "")))
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self.library.largest:
            return self._too_large()
        with self.library.budget.taking() as taken:
            data = await self._body(request, taken)
            if data is None:
                return self._too_large()
            entries = await self._decode(self.library.add, name, data, taken)
        return _json({"images": [_listed(entry, 0) for entry in entries]}, 201)

    async def _body(self, request: Request, taken: Taken) -> bytes | None:
        """The body, each piece counted before the next one is awaited; None if it is too large."""
        pieces = []
        async for piece in request.stream():
            taken.more(len(piece))
            if taken.count > self.library.largest:
                return None
            pieces.append(piece)
        return b"".join(pieces)

    def _too_large(self) -> Response:
        response = _refusal(413, "too-large", f"{self.library.largest / 2**20:,.0f} MB")
        response.headers["connection"] = "close"  # the rest of the body is not waited for
        return response

    @_answered
    async def examples(self, _: Request) -> Response:
        """Add a few simulated images, for whoever has none at hand."""

        def make() -> list[Entry]:
            entries: list[Entry] = []
            for name, data in simulated():
                with self.library.budget.taking() as taken:
                    taken.more(len(data))
                    entries += self.library.add(name, data, taken)
            return entries

        entries = await self._network(make)
        return _json({"images": [_listed(entry, 0) for entry in entries]}, 201)

    @_answered
    async def remove(self, request: Request) -> Response:
        """Forget one image, or all that a user gave to the page."""
        key = request.path_params.get("key")
        for entry in self.library.entries():
            if entry.key == key or (key is None and entry.added):
                self.library.remove(entry.key)
        return _json({})

    # ---- one image ----

    def _entry(self, request: Request) -> Entry:
        return self.library[request.path_params["key"]]

    def _number(self, request: Request) -> int:
        text = request.query_params.get("model", "0")
        number = int(text) if text.isdigit() else -1
        if not 0 <= number < len(self.networks.classifiers):
            raise UnknownNameError(
                "model", text[:20], map(str, range(len(self.networks.classifiers)))
            )
        return number

    @_answered
    async def thumbnail(self, request: Request) -> Response:
        """A small picture."""
        from starlette.responses import Response

        entry = self._entry(request)
        if await request.is_disconnected():  # it was scrolled away meanwhile
            return _json({})
        return Response(await self._small(self.library.thumbnail, entry), media_type="image/jpeg")

    @_answered
    async def facts(self, request: Request) -> Response:
        """What a viewer needs besides the pixels."""
        entry = self._entry(request)
        if "facts" not in entry.seen:
            entry.seen["facts"] = await self._decode(self._facts, entry)
        return _json(entry.seen["facts"])

    def _facts(self, entry: Entry) -> dict[str, Any]:
        raster = self.library.raster(entry)
        is_dicom = raster.info.format == "dicom"
        header = viewing.header_of(self.library.data(entry)) if is_dicom else None
        return viewing.facts_of(raster, header)

    @_answered
    async def pixels(self, request: Request) -> Response:
        """The stored values, row by row, little endian, as `facts` describes them."""
        from starlette.responses import StreamingResponse

        plane, _, _ = await self._decode(self._plane, self._entry(request))
        view = memoryview(plane.astype(plane.dtype.newbyteorder("<"), copy=False)).cast("B")

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(view), _PIECE):
                yield bytes(view[start : start + _PIECE])

        headers = {"content-length": str(len(view))}
        return StreamingResponse(pieces(), media_type="application/octet-stream", headers=headers)

    def _plane(self, entry: Entry) -> Any:
        return viewing.plane_of(self.library.raster(entry))

    @_answered
    async def findings(self, request: Request) -> Response:
        """What a classifier says; of an image that the screening refuses only why, until asked."""
        entry, number = self._entry(request), self._number(request)
        if request.query_params.get("anyway") == "1":
            entry.forced = True
        reading = entry.readings.get(number)
        if reading is None:
            reading = entry.readings[number] = await self._network(self._read, entry, number)
        return _json(_findings(self.networks.classifiers[number], reading, entry))

    def _read(self, entry: Entry, number: int) -> Reading:
        (reading,) = self.networks.classifiers[number].read([entry.file], self.library.reading)
        return reading

    @_answered
    async def evidence(self, request: Request) -> Response:
        """A heat map: the length of its facts in 4 bytes, the facts as JSON, float32 row by row."""
        from starlette.responses import Response

        entry, number = self._entry(request), self._number(request)
        finding = request.query_params.get("finding", "")
        method = request.query_params.get("method", _METHODS[0])
        if method not in _METHODS:
            raise UnknownNameError("method", method[:40], _METHODS)
        classifier = self.networks.classifiers[number]

        def explain() -> Any:
            return classifier.evidence(self.library.raster(entry), finding, method)

        found = await self._network(explain)
        facts = json.dumps(found.facts).encode()
        facts += b" " * (-len(facts) % 4)  # the numbers behind them lie at a multiple of 4
        body = len(facts).to_bytes(4, "little") + facts + found.heat.astype("<f4").tobytes()
        return Response(body, media_type="application/octet-stream")

    @_answered
    async def structures(self, request: Request) -> Response:
        """Outlines, measures and doubts."""
        entry = self._entry(request)
        upright = request.query_params.get("upright") == "1"
        name = "structures-upright" if upright else "structures"
        if name not in entry.seen:
            run = partial(
                self.networks.structures, entry.file, self.library.reading, upright=upright
            )
            entry.seen[name] = await self._network(run)
        return _json(entry.seen[name])

    @_answered
    async def similar(self, request: Request) -> Response:
        """The images that the classifier finds most alike, of those that were read."""
        import numpy as np

        entry, number = self._entry(request), self._number(request)
        own = entry.readings.get(number)
        if own is None or own.embedding is None:
            return _json({"read": 0, "images": []})
        others = [
            (other, reading.embedding)
            for other in self.library.entries()
            if other is not entry
            and (reading := other.readings.get(number)) is not None
            and reading.embedding is not None
        ]
        if not others:
            return _json({"read": 0, "images": []})
        cosine = np.stack([vector for _, vector in others]) @ own.embedding
        best = np.argsort(-cosine, kind="stable")[:_SIMILAR]
        found = [{"key": others[i][0].key, "cosine": float(cosine[i])} for i in best.tolist()]
        return _json({"read": len(others), "images": found})

    # ---- all images ----

    @_answered
    async def read_all(self, request: Request) -> Response:
        """Start (POST), ask about (GET) or stop (DELETE) reading everything."""
        if request.method == "POST" and (self._job is None or not self._job.running):
            number = self._number(request)
            classifier = self.networks.classifiers[number]
            self._job = _ReadAll(self.library, classifier, number, self.settings.batch_size)
        if request.method == "DELETE" and self._job is not None:
            self._job.stop()
        idle = {"model": 0, "done": 0, "total": 0, "running": False}
        return _json(idle if self._job is None else self._job.state())

    @_answered
    async def table(self, request: Request) -> Response:
        """Everything that was read, as CSV or JSON."""
        from starlette.responses import Response

        number, entries = self._number(request), self.library.entries()
        if request.url.path.endswith(".json"):
            return _download(_json(export.to_json(entries, self.networks)), "findings.json")
        classifier = self.networks.classifiers[number]
        rows = export.rows_of(entries, classifier, number)
        text = export.to_csv(rows, export.columns_of(classifier))
        return _download(Response(text.encode(), media_type="text/csv"), "findings.csv")

    @_answered
    async def dicom(self, request: Request) -> Response:
        """DICOM objects of one image: to download, or by POST to the archive of the settings."""
        from starlette.responses import Response

        sending = request.method == "POST"
        if sending and self.settings.dicomweb is None:
            return _refusal(404, "no-archive")
        entry, number = self._entry(request), self._number(request)
        kinds = [k for k in request.query_params.get("kinds", "").split(",") if k in export.KINDS]
        finding = request.query_params.get("finding") or None

        def make() -> Any:
            data = self.library.data(entry)
            files = export.objects_of(entry, data, self.networks, number, kinds, finding)
            if sending:
                return export.send(files, self.settings.dicomweb or "")
            return export.packed(files)

        made = await self._network(make)
        if sending:
            return _json({"stored": made})
        name, media, content = made
        return _download(Response(content, media_type=media), name)


async def _small_json(request: Request) -> dict[str, Any]:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_BODY:
            return {}
    with contextlib.suppress(ValueError):
        found = json.loads(body)
        if isinstance(found, dict):
            return found
    return {}


def _download(response: Response, name: str) -> Response:
    response.headers["content-disposition"] = f'attachment; filename="{name}"'
    return response


def _clean(name: str) -> str:
    """The name of a file that a browser gave: no folders, nothing that a terminal would obey."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return printable(last)[:_LONGEST_NAME] or "image"


def _number(value: Any) -> float | None:
    """A float32 as the shortest number that gives it back; None for NaN."""
    number = float(str(value))
    return None if number != number else number


def _listed(entry: Entry, number: int) -> dict[str, Any]:
    reading = entry.readings.get(number)
    state, message = "new", entry.file.problem
    if entry.file.problem:
        state = "error"
    elif reading is not None:
        message = reading.error or reading.refused
        state = "error" if reading.error else "refused" if reading.refused else "read"
    return {"key": entry.key, "name": entry.name, "added": entry.added, "state": state,
            "message": message}  # fmt: skip


def _findings(classifier: Classifier, reading: Reading, entry: Entry) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "error": reading.error, "check": reading.check, "refused": reading.refused,
        "forced": entry.forced, "kind": classifier.kind, "findings": None,
    }  # fmt: skip
    values = reading.values
    if values is None or (reading.refused and not entry.forced):
        return answer
    shown = []
    for name, index in classifier.columns.items():
        value = _number(values[index])
        chance = reading.probabilities
        shown.append(
            {
                "name": name, "value": value,
                "above": None if value is None else classifier.is_above(index, value),
                "probability": None if chance is None else _number(chance[index]),
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
    return {"value": _number(value), **words}


def _described(classifier: Classifier) -> dict[str, Any]:
    """A classifier, as the page tells of it."""
    facts = _record_of(classifier.name)
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
    return f"{made.data.get('images', '?')} images of {made.data.get('patients', '?')} patients"


def _record_of(name: str) -> dict[str, Any]:
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


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def create_app(
    networks: Networks,
    access: Access,
    settings: Settings | None = None,
    *,
    on_closed: Callable[[], None] | None = None,
) -> Guard:
    """The server of a page, for any ASGI runner.

    Args:
        networks: What reads the images.
        access: Who may ask.
        settings: What the page may do.
        on_closed: Called when a browser without access asks for the page.

    Returns:
        An ASGI application.

    Raises:
        DependencyError: If starlette is missing.
    """
    with needs_package("starlette", "the page", "app"):
        from starlette.applications import Starlette
    page = Page(networks, settings or Settings(), access, on_closed)
    app: Starlette = Starlette(routes=list(_routes(page)))
    app.router.redirect_slashes = False
    app.state.page = page
    return Guard(app, access)


def _routes(page: Page) -> Iterable[Any]:
    from starlette.routing import Route

    one = "/api/images/{key}"
    for path, handler, methods in (
        ("/", page.index, ("GET",)),
        ("/login", page.login, ("GET", "POST")),
        ("/static/{name}", page.static, ("GET",)),
        ("/api/about", page.about, ("GET",)),
        ("/api/images", page.images, ("GET",)),
        ("/api/images", page.add, ("POST",)),
        ("/api/images", page.remove, ("DELETE",)),
        ("/api/examples", page.examples, ("POST",)),
        ("/api/values", page.values, ("GET",)),
        ("/api/read", page.read_all, ("GET", "POST", "DELETE")),
        ("/api/table.csv", page.table, ("GET",)),
        ("/api/table.json", page.table, ("GET",)),
        (one, page.remove, ("DELETE",)),
        (f"{one}/thumbnail", page.thumbnail, ("GET",)),
        (f"{one}/facts", page.facts, ("GET",)),
        (f"{one}/pixels", page.pixels, ("GET",)),
        (f"{one}/findings", page.findings, ("GET",)),
        (f"{one}/evidence", page.evidence, ("GET",)),
        (f"{one}/structures", page.structures, ("GET",)),
        (f"{one}/similar", page.similar, ("GET",)),
        (f"{one}/dicom", page.dicom, ("GET", "POST")),
    ):
        yield Route(path, handler, methods=list(methods))


def serve(
    networks: Networks,
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    password: str | None = None,
    names: Iterable[str] = (),
    on_ready: Callable[[str], None],
) -> None:
    """Serve a page until the process is interrupted.

    Args:
        networks: What reads the images.
        settings: What the page may do.
        host: Where to listen.
        port: 0 takes a free one.
        password: Needed beyond loopback.
        names: See `Access`.
        on_ready: Called with an address that lets in one browser, once: as soon as the server
            listens, and when a browser without access asks for the page.

    Raises:
        ValueError: If the server would be reachable by others without a password.
        OSError: If the port is taken.
        DependencyError: If starlette or uvicorn are missing.
    """
    with needs_package("uvicorn", "the page", "app"):
        import uvicorn
    Access(host, port, password=password)  # refused before the port is taken
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(128)
        access = Access(host, listener.getsockname()[1], password=password, names=names)
        app = create_app(
            networks, access, settings, on_closed=lambda: on_ready(access.new_address())
        )
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, ws="none", lifespan="off",
            timeout_keep_alive=30, timeout_graceful_shutdown=2, limit_concurrency=256,
        )  # fmt: skip
        on_ready(access.new_address())
        uvicorn.Server(config).run(sockets=[listener])
