"""A worker: one process that loads the networks once and turns images into result objects.

The parent writes one JSON line with the settings, then one per batch. The child answers with one
JSON line when it is ready, and one per image. When its standard input ends, its parent is gone,
and it ends at once. It may crash, or be killed, without harm to the service.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from torchxrayvision import __version__
from torchxrayvision.errors import ImageReadError, XRVError
from torchxrayvision.service.config import Config, Model, config_of, draws_evidence
from torchxrayvision.service.gate import (
    read_gate_header,
    refusal_by_header,
    refusal_by_screening,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydicom.dataset import Dataset

    from torchxrayvision.inference import Graph
    from torchxrayvision.models import XRayClassifier
    from torchxrayvision.results import ImageReading, Reader

_FAILED: Final = "failed"


class ImageWorker:
    """The networks, and what is made with them.

    Args:
        config: Settings of the service.

    Raises:
        XRVError: If a network cannot be loaded.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._reader = _reader(config)
        self.model = model_version(self._reader, config)

    @property
    def converted(self) -> bool:
        """Whether this process loaded torch only to make the graph that it runs."""
        config = self._config
        drawn = draws_evidence(config.results) or config.results.evidence
        needed = drawn or config.model.segmenter or config.gate.reference
        return not needed and self._reader.runs_graph and "torch" in sys.modules

    def answer(self, file: str, folder: str) -> dict[str, Any]:
        """Read one image and write its objects.

        Args:
            file: The image.
            folder: Made for the objects, if there are any.

        Returns:
            `outcome` (`"read"`, `"refused"` or `"failed"`), `reason`, `instance` (SOP Instance
            UID) and `objects`. No text holds anything of the header but the UID.
        """
        instance = ""
        try:
            data = Path(file).read_bytes()
            header = read_gate_header(data, self._config.limits.object_bytes)
            instance = header.instance
            reason = refusal_by_header(self._config.gate, header)
            if reason:
                return self._refused(instance, reason, data, folder)
            reading = self._reader.read(file)
            reason = refusal_by_screening(self._config.gate, reading.check)
            if reason:
                return self._refused(instance, reason, data, folder)
            objects = self._objects(reading)
            written = _write(objects, instance, self.model, Path(folder))
        except ImageReadError as error:
            return _said(_FAILED, instance, error.reason)
        except FileNotFoundError:
            return _said(_FAILED, instance, "its bytes are not in the spool")
        except OSError as error:  # a full disk: the image is read again when it is not
            return _said("retry", instance, f"{type(error).__name__}: {error.strerror}")
        except Exception as error:  # noqa: BLE001 - a header can make any constructor fail
            return _said(_FAILED, instance, f"unexpected {type(error).__name__}")
        return _said("read", instance, "", written)

    def _objects(self, reading: ImageReading) -> Mapping[str, Sequence[Dataset]]:
        from torchxrayvision.results import make_objects

        settings = self._config.results
        return make_objects(
            reading,
            settings.kinds,
            segmentation_type=settings.segmentation_type,
            key_threshold=settings.key_threshold,
        )

    def _refused(self, instance: str, reason: str, data: bytes, folder: str) -> dict[str, Any]:
        if not self._config.gate.answer_refused:
            return _said("refused", instance, reason)
        import numpy as np

        from torchxrayvision.results import ImageReading, read_source, structured_report

        try:
            source = read_source(data, "the image")
            picture = np.zeros((1, 1), np.uint8)
            report = structured_report(ImageReading(source, picture), not_read=reason)
        except ImageReadError:  # no study that a report could join
            return _said("refused", instance, reason)
        written = _write({"refusal": [report]}, instance, self.model, Path(folder))
        return _said("refused", instance, reason, written)


def _reader(config: Config) -> Reader:
    from torchxrayvision.results import Reader
    from torchxrayvision.screening import reference_named

    model, answers = config.model, config.results
    segmenter = None
    if model.segmenter:
        from torchxrayvision.segmentation import get_segmenter

        segmenter = get_segmenter(model.segmenter).to(model.device)
    return Reader(
        classifier=_classifier(model),
        segmenter=segmenter,
        checkpoint=model.checkpoint,
        calibration=model.calibration,
        mask_threshold=model.mask_threshold,
        structures=answers.structures or None,
        upright=model.upright,
        targets=answers.evidence or None,
        most=1 if draws_evidence(answers) else 0,
        reference=reference_named(config.gate.reference or None),
        method=answers.method,
        engine="torch" if model.engine == "auto" else model.engine,
    )


def _classifier(model: Model) -> XRayClassifier | Graph | None:
    from torchxrayvision.inference import Graph, NamedClassifier, open_graph

    if model.graph is not None:
        return open_graph(model.graph, "auto" if model.engine == "torch" else model.engine)
    if not (model.weights or model.checkpoint):
        return None
    named = NamedClassifier(weights=model.weights or None, checkpoint=model.checkpoint)
    found = named.open(model.engine)
    return found if isinstance(found, Graph) else found.to(model.device)


def model_version(reader: Reader, config: Config) -> str:
    """What answers, and with what; an instance is answered once by each.

    Networks and their files, calibration, this package, kinds of objects, and a digest of all
    settings that decide on what the objects say: UIDs of results are made of it.

    Args:
        reader: The networks.
        config: Settings of the service.

    Returns:
        One line.
    """
    parts = [f"torchxrayvision={__version__}"]
    for name, algorithm in zip(("classifier", "segmenter"), reader.algorithms(), strict=True):
        if algorithm is not None:
            parts.append(f"{name}={algorithm.name}@{algorithm.sha256[:16] or 'none'}")
    settings, answers = reader.settings(), config.results
    if "calibration" in settings:
        parts.append(f"calibration={settings['calibration'][:16]}")
    parts.append(f"kinds={','.join(sorted(set(answers.kinds)))}")
    decisive = [settings, answers.segmentation_type, answers.key_threshold]
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
    return " ".join([*parts, f"settings={digest[:16]}"])


def result_uid(instance: str, model: str, kind: str, index: int) -> str:
    """The SOP Instance UID of a result: the same however often it is made.

    Args:
        instance: SOP Instance UID of the image.
        model: Of `model_version`.
        kind: Of the object.
        index: Among those of its kind.

    Returns:
        A UID under 2.25.
    """
    from torchxrayvision.results import stable_uid

    return stable_uid("service", instance, model, kind, index)


def _write(
    objects: Mapping[str, Sequence[Dataset]], instance: str, model: str, folder: Path
) -> list[dict[str, str]]:
    """Write objects, durable on return."""
    from torchxrayvision.files import sync_folder

    folder.mkdir(mode=0o700, parents=True)
    written = []
    for kind, several in objects.items():
        for index, made in enumerate(several):
            uid = result_uid(instance, model, kind, index)
            made.SOPInstanceUID = uid
            made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
            path = folder / f"{kind}{index}.dcm"
            with path.open("xb") as file:
                made.save_as(file, enforce_file_format=True)
                file.flush()
                os.fsync(file.fileno())
            sop_class = str(made.SOPClassUID)
            written.append({"kind": kind, "file": path.name, "uid": uid, "sop_class": sop_class})
    for place in (folder, folder.parent, folder.parent.parent):
        sync_folder(place)
    return written


def _said(
    outcome: str, instance: str, reason: str, objects: list[dict[str, str]] | None = None
) -> dict[str, Any]:
    return {"outcome": outcome, "instance": instance, "reason": reason, "objects": objects or []}


def main(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until the requests end.

    Args:
        requests: JSON lines.
        answers: JSON lines.
    """

    def say(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value).encode() + b"\n")
        answers.flush()

    os.umask(0o077)
    settings = json.loads(requests.readline())
    try:
        config = config_of(settings)
        worker = ImageWorker(config)
    except XRVError as error:
        say({"error": str(error)})
        return
    torch = sys.modules.get("torch")
    if torch is not None:  # where a network is no graph
        torch.set_num_threads(config.work.threads)
    say({"model": worker.model, "converted": worker.converted})
    batches = _batches(requests)
    while True:
        for image in batches.get():
            say(worker.answer(image["file"], image["folder"]))


def _batches(requests: IO[bytes]) -> queue.SimpleQueue[list[dict[str, str]]]:
    """Batches as they come; the process ends when the parent is gone, even amid an image."""
    found: queue.SimpleQueue[list[dict[str, str]]] = queue.SimpleQueue()

    def read() -> None:
        while line := requests.readline():
            found.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return found


if __name__ == "__main__":
    # Decoders in C print on standard output; what is printed there must not look like an answer.
    private = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(private, "wb") as channel:
        main(sys.stdin.buffer, channel)
