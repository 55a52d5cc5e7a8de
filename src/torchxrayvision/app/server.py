"""The server of the page: a static page, and what it asks for as JSON and raw numbers."""

from __future__ import annotations

import contextlib
import json
import socket
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from torchxrayvision import __version__
from torchxrayvision.app import export, viewing
from torchxrayvision.app.answers import (
    answered,
    as_download,
    as_json,
    described,
    findings_of,
    is_installed,
    listed,
    record_of,
    refusal,
    shortest,
)
from torchxrayvision.app.guard import Access, Guard
from torchxrayvision.app.library import Library, Taken, simulated
from torchxrayvision.app.work import Lane, ReadAll
from torchxrayvision.errors import UnknownNameError, how_to_install, needs_package
from torchxrayvision.inputs import printable
from torchxrayvision.pictures import diverging, sequential

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from torchxrayvision.app.library import Entry
    from torchxrayvision.app.networks import Networks, Reading

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
        self._decode = Lane(2, 64)
        self._small = Lane(1, 64)  # thumbnails wait behind nobody and hold nobody up
        self._network = Lane(2, 64)
        self._job: ReadAll | None = None

    # ---- the page itself ----

    @answered
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

    @answered
    async def login(self, request: Request) -> Response:
        """The cookie for a password; by GET whether there is one."""
        if request.method == "GET":
            return as_json({"password": self.access.has_password})
        given = await _small_json(request)
        cookie = self.access.enter(str(given.get("password", "")))
        if cookie is None:
            return refusal(401, "wrong-password")
        response = as_json({})
        self._let_in(response, cookie)
        return response

    @answered
    async def static(self, request: Request) -> Response:
        """A file of the page; only those that are there when the server starts."""
        return self._file(request.path_params["name"])

    def _file(self, name: str, status: int = 200) -> Response:
        from starlette.responses import Response

        content = self._files[name]
        return Response(content, status, media_type=_TYPES[Path(name).suffix])

    # ---- what there is ----

    @answered
    async def about(self, _: Request) -> Response:
        """Version, networks, limits, colours."""
        models = [described(classifier) for classifier in self.networks.classifiers]
        segmenter = self.networks.segmenter_name
        return as_json(
            {
                "version": __version__, "models": models,
                "segmenter": segmenter and record_of(segmenter) | {"name": segmenter},
                "folder": self.settings.folder is not None,
                "dicomweb": self.settings.dicomweb is not None, "largest": self.library.largest,
                "methods": _METHODS, "dicomResults": is_installed("highdicom"),
                "installResults": how_to_install("dicom-results", "highdicom"),
                "colours": {"sequential": sequential().ravel().tolist(),
                            "diverging": diverging().ravel().tolist()},
            }
        )  # fmt: skip

    @answered
    async def images(self, request: Request) -> Response:
        """All images, with what one classifier says of those that were read."""
        number = self._number(request)
        since = request.query_params.get("since")
        library = self.library
        if since == str(library.changes) and not library.listing:
            return as_json({"changes": library.changes, "listing": False})
        entries = library.entries()
        return as_json(
            {
                "changes": library.changes, "listing": library.listing,
                "skipped": str(library.skipped), "used": library.budget.used,
                "memory": library.budget.total,
                "images": [listed(entry, number) for entry in entries],
            }
        )  # fmt: skip

    @answered
    async def values(self, request: Request) -> Response:
        """What one classifier says of every image that was read, for sorting and filtering."""
        number = self._number(request)
        classifier = self.networks.classifiers[number]
        values, above = {}, {}
        for entry in self.library.entries():
            reading = entry.readings.get(number)
            if reading is None or reading.values is None or (reading.refused and not entry.forced):
                continue
            row = [shortest(reading.values[index]) for index in classifier.columns.values()]
            values[entry.key] = row
            above[entry.key] = [
                value is not None and bool(classifier.is_above(index, value))
                for value, index in zip(row, classifier.columns.values(), strict=True)
            ]
        return as_json({"findings": list(classifier.columns), "values": values, "above": above})

    @answered
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
        return as_json({"images": [listed(entry, 0) for entry in entries]}, 201)

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
        response = refusal(413, "too-large", f"{self.library.largest / 2**20:,.0f} MB")
        response.headers["connection"] = "close"  # the rest of the body is not waited for
        return response

    @answered
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
        return as_json({"images": [listed(entry, 0) for entry in entries]}, 201)

    @answered
    async def remove(self, request: Request) -> Response:
        """Forget one image, or all that a user gave to the page."""
        key = request.path_params.get("key")
        for entry in self.library.entries():
            if entry.key == key or (key is None and entry.added):
                self.library.remove(entry.key)
        return as_json({})

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

    @answered
    async def thumbnail(self, request: Request) -> Response:
        """A small picture."""
        from starlette.responses import Response

        entry = self._entry(request)
        if await request.is_disconnected():  # it was scrolled away meanwhile
            return as_json({})
        return Response(await self._small(self.library.thumbnail, entry), media_type="image/jpeg")

    @answered
    async def facts(self, request: Request) -> Response:
        """What a viewer needs besides the pixels."""
        entry = self._entry(request)
        if "facts" not in entry.seen:
            entry.seen["facts"] = await self._decode(self._facts, entry)
        return as_json(entry.seen["facts"])

    def _facts(self, entry: Entry) -> dict[str, Any]:
        raster = self.library.raster(entry)
        is_dicom = raster.info.format == "dicom"
        header = viewing.header_of(self.library.data(entry)) if is_dicom else None
        return viewing.facts_of(raster, header)

    @answered
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

    @answered
    async def findings(self, request: Request) -> Response:
        """What a classifier says; of an image that the screening refuses only why, until asked."""
        entry, number = self._entry(request), self._number(request)
        if request.query_params.get("anyway") == "1":
            entry.forced = True
        reading = entry.readings.get(number)
        if reading is None:
            reading = entry.readings[number] = await self._network(self._read, entry, number)
        return as_json(findings_of(self.networks.classifiers[number], reading, entry))

    def _read(self, entry: Entry, number: int) -> Reading:
        (reading,) = self.networks.classifiers[number].read([entry.file], self.library.reading)
        return reading

    @answered
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

    @answered
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
        return as_json(entry.seen[name])

    @answered
    async def similar(self, request: Request) -> Response:
        """The images that the classifier finds most alike, of those that were read."""
        import numpy as np

        entry, number = self._entry(request), self._number(request)
        own = entry.readings.get(number)
        if own is None or own.embedding is None:
            return as_json({"read": 0, "images": []})
        others = [
            (other, reading.embedding)
            for other in self.library.entries()
            if other is not entry
            and (reading := other.readings.get(number)) is not None
            and reading.embedding is not None
        ]
        if not others:
            return as_json({"read": 0, "images": []})
        cosine = np.stack([vector for _, vector in others]) @ own.embedding
        best = np.argsort(-cosine, kind="stable")[:_SIMILAR]
        found = [{"key": others[i][0].key, "cosine": float(cosine[i])} for i in best.tolist()]
        return as_json({"read": len(others), "images": found})

    # ---- all images ----

    @answered
    async def read_all(self, request: Request) -> Response:
        """Start (POST), ask about (GET) or stop (DELETE) reading everything."""
        if request.method == "POST" and (self._job is None or not self._job.running):
            number = self._number(request)
            classifier = self.networks.classifiers[number]
            self._job = ReadAll(self.library, classifier, number, self.settings.batch_size)
        if request.method == "DELETE" and self._job is not None:
            self._job.stop()
        idle = {"model": 0, "done": 0, "total": 0, "running": False}
        return as_json(idle if self._job is None else self._job.state())

    @answered
    async def table(self, request: Request) -> Response:
        """Everything that was read, as CSV or JSON."""
        from starlette.responses import Response

        number, entries = self._number(request), self.library.entries()
        if request.url.path.endswith(".json"):
            return as_download(as_json(export.to_json(entries, self.networks)), "findings.json")
        classifier = self.networks.classifiers[number]
        rows = export.rows_of(entries, classifier, number)
        text = export.to_csv(rows, export.columns_of(classifier))
        return as_download(Response(text.encode(), media_type="text/csv"), "findings.csv")

    @answered
    async def dicom(self, request: Request) -> Response:
        """DICOM objects of one image: to download, or by POST to the archive of the settings."""
        from starlette.responses import Response

        sending = request.method == "POST"
        if sending and self.settings.dicomweb is None:
            return refusal(404, "no-archive")
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
            return as_json({"stored": made})
        name, media, content = made
        return as_download(Response(content, media_type=media), name)


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


def _clean(name: str) -> str:
    """The name of a file that a browser gave: no folders, nothing that a terminal would obey."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return printable(last)[:_LONGEST_NAME] or "image"


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
