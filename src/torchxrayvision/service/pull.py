"""Images that an archive is asked for by DICOMweb: found by QIDO-RS, fetched by WADO-RS.

Days are asked for one after the other, and the day that was reached is kept in the queue's file:
a service that was killed goes on there. What the queue knows is not fetched again.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, Final

import requests
from dicomweb_client.api import DICOMwebClient

from torchxrayvision.errors import DeliveryError, ImageReadError, RequestError
from torchxrayvision.service.archives import open_session
from torchxrayvision.service.gate import is_uid
from torchxrayvision.service.loops import Loop
from torchxrayvision.service.stow import Memory, Parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torchxrayvision.service.config import Pull
    from torchxrayvision.service.queue import Queue

_PAGE: Final = 200  # series or instances of one answer
_MOST_PAGES: Final = 500
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_COUNT: Final = "00201209"  # Number of Series Related Instances
_ACCEPT: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_CHUNK: Final = 1 << 18


class ArchivePull(Loop):
    """A thread that asks one archive.

    Args:
        settings: Of the archive.
        jobs: The queue, which keeps the day that was reached.
        accept: Called with the bytes of a file; raises `OverloadError` or `ImageReadError`.
        known: Whether an instance, by its UID, is in the queue already.
        log: Called with an event and its facts.
        object_bytes: Of the largest object that is fetched.

    Raises:
        ConfigError: If certificates or secrets cannot be used.
    """

    def __init__(
        self,
        settings: Pull,
        jobs: Queue,
        accept: Callable[[bytes], Any],
        known: Callable[[str], bool],
        log: Callable[..., None],
        object_bytes: int,
    ) -> None:
        super().__init__("pull", settings.every, log, archive=settings.name)
        self._settings = settings
        self._jobs = jobs
        self._accept = accept
        self._known = known
        self._most = object_bytes
        self._session = open_session(settings, f"pull.{settings.name}")
        self._url = settings.url.rstrip("/")
        self._client = DICOMwebClient(self._url, session=self._session, timeout=settings.time_limit)
        self._client.set_http_retry_params(retry=False)  # the next look does it
        self._complete: dict[str, int] = {}  # series of recent days to their instances
        self._left: set[str] = set()  # instances that cannot be read

    def _end(self) -> None:
        self._session.close()

    def look(self, today: datetime.date | None = None) -> int:
        """Ask for what is new, and fetch it.

        Args:
            today: For tests.

        Returns:
            How many images were taken.

        Raises:
            DeliveryError: If the archive does not answer, or not as DICOMweb does.
            OverloadError: If nothing more is taken for now; the next look goes on.
        """
        now = today or datetime.datetime.now(tz=datetime.UTC).astimezone().date()
        taken = sum(self._take({"AccessionNumber": number}) for number in self._settings.accessions)
        if self._settings.days == 0:
            return taken
        day = self._reached(now)
        while day <= now and not self._stop.is_set():
            taken += self._take({"StudyDate": f"{day:%Y%m%d}"})
            if self._stop.is_set():
                break
            settled = now - datetime.timedelta(days=self._settings.late_days)
            if day < settled:  # until then its images may still come in
                self._jobs.keep(self._key, f"{day + datetime.timedelta(days=1):%Y%m%d}")
                self._complete.clear()
            day += datetime.timedelta(days=1)
        return taken

    @property
    def _key(self) -> str:
        return f"pull.{self._settings.name}"

    def _reached(self, now: datetime.date) -> datetime.date:
        kept = self._jobs.setting(self._key)
        if kept:
            return datetime.date(int(kept[:4]), int(kept[4:6]), int(kept[6:8]))
        return now - datetime.timedelta(days=self._settings.days - 1)

    def _take(self, filters: dict[str, str]) -> int:
        """Fetch what the archive has of a day or an accession number and the queue has not."""
        taken = 0
        for study, series, count in self._series(filters):
            if count and self._complete.get(series) == count:
                continue
            found = 0
            for instance in self._instances(study, series):
                if self._stop.is_set():
                    return taken
                found += 1
                taken += self._fetch_new(study, series, instance)
            self._complete[series] = count if found >= count else 0
        return taken

    def _series(self, filters: dict[str, str]) -> Iterator[tuple[str, str, int]]:
        settings = self._settings
        for modality in settings.modalities or ("",):
            for part in settings.body_parts or ("",):
                asked = dict(filters)
                if modality:
                    asked["Modality"] = modality
                if part:
                    asked["BodyPartExamined"] = part
                for item in self._pages(self._client.search_for_series, asked, [_COUNT]):
                    study, series = _text(item, _STUDY), _text(item, _SERIES)
                    if is_uid(study) and is_uid(series):
                        yield study, series, _number(item, _COUNT)

    def _instances(self, study: str, series: str) -> Iterator[str]:
        def search(**options: Any) -> Any:
            return self._client.search_for_instances(study, series, **options)

        for item in self._pages(search, {}, []):
            instance = _text(item, _INSTANCE)
            if is_uid(instance):
                yield instance

    def _pages(
        self, search: Callable[..., Any], filters: dict[str, str], fields: list[str]
    ) -> Iterator[Any]:
        """All that a search finds; archives give pages of their own size too."""
        seen = 0
        for _ in range(_MOST_PAGES):
            try:
                page = search(
                    search_filters=filters, fields=fields or None, limit=_PAGE, offset=seen
                )
            except requests.HTTPError as error:
                status = "nothing" if error.response is None else error.response.status_code
                raise DeliveryError(f"QIDO-RS answers {status}") from None
            except (requests.RequestException, ValueError, KeyError, TypeError) as error:
                raise DeliveryError(f"QIDO-RS: {type(error).__name__}") from None
            if not page:
                return
            yield from page
            seen += len(page)

    def _fetch_new(self, study: str, series: str, instance: str) -> bool:
        """Fetch an instance unless the queue has it; whether it was taken."""
        if instance in self._left or self._known(instance):
            return False
        try:
            self._accept(self._fetch(study, series, instance))
        except ImageReadError as error:
            self._left.add(instance)
            self._log("pull_left", archive=self._settings.name, reason=error.reason)
            return False
        return True

    def _fetch(self, study: str, series: str, instance: str) -> bytes:
        """The bytes of an instance, however long the archive makes them.

        Source:
            DICOM PS3.18 section 10.4 (WADO-RS): one object as a multipart body of one part.
        """
        from python_multipart.multipart import parse_options_header

        url = f"{self._url}/studies/{study}/series/{series}/instances/{instance}"
        memory = Memory(4 * self._most)
        try:
            with self._session.get(
                url, headers={"Accept": _ACCEPT}, stream=True, timeout=self._settings.time_limit,
                allow_redirects=False,
            ) as answer:  # fmt: skip
                if answer.status_code != 200:
                    raise DeliveryError(f"WADO-RS answers {answer.status_code}")
                kind, options = parse_options_header(answer.headers.get("Content-Type", ""))
                boundary = options.get(b"boundary")
                if kind.startswith(b"multipart/") and boundary:
                    parts = Parts(boundary.decode("latin-1"), self._most, 1, memory)
                else:
                    parts = Parts(None, self._most, 1, memory)
                found = [
                    part for piece in answer.iter_content(_CHUNK) for part in parts.feed(piece)
                ]
                found += parts.finish()
        except requests.RequestException as error:
            raise DeliveryError(f"WADO-RS: {type(error).__name__}") from None
        except RequestError as error:
            raise DeliveryError(f"WADO-RS: {error.reason}") from None
        if len(found) != 1:
            raise DeliveryError(f"WADO-RS gives {len(found)} objects for one")
        if found[0].failure:
            raise ImageReadError("the object", "larger than limits.object_bytes, or no DICOM")
        return found[0].data


def _text(item: Any, tag: str) -> str:
    element = item.get(tag) if isinstance(item, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]) if isinstance(values, list) and values else ""


def _number(item: Any, tag: str) -> int:
    text = _text(item, tag)
    return int(text) if text.isdecimal() else 0
