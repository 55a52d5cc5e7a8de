"""A module of mercure: one folder in, one folder out, then the process ends.

mercure (https://mercure-imaging.org) starts a container per series or study, with the images and
`task.json` in `MERCURE_IN_DIR`. What lies in `MERCURE_OUT_DIR` afterwards goes on to its targets;
`result.json` there is shown and may ask for a notification; an exit code other than 0 makes the
task a failed one, which nobody loses sight of.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import ConfigError, ServiceError, counted
from torchxrayvision.files import write_atomically
from torchxrayvision.service.config import config_of
from torchxrayvision.service.operate import log_event

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torchxrayvision.service.config import Config

IN_DIR: Final = "MERCURE_IN_DIR"
"""Variable that names the folder of received files."""

OUT_DIR: Final = "MERCURE_OUT_DIR"
"""Variable that names the folder for results."""

_TASK: Final = "task.json"
_RESULT: Final = "result.json"
_SECTIONS: Final = ("model", "results", "gate", "limits")


@dataclass(slots=True)
class MercureTask:
    """What came of a task.

    Args:
        read: Images that have results.
        refused: Reason to number of images that the gate refused.
        failed: Reason to number of images that could not be read.
        objects: Files that were written.
    """

    read: int
    refused: dict[str, int]
    failed: dict[str, int]
    objects: int

    def to_json(self) -> dict[str, Any]:
        """Content of `result.json`; nothing of a header."""
        failed, refused = sum(self.failed.values()), sum(self.refused.values())
        read = counted(self.read, "image")
        text = f"{read} read, {refused} refused, {failed} failed. Research use only"
        return {
            "read": self.read,
            "refused": self.refused,
            "failed": self.failed,
            "objects": self.objects,
            "__mercure_notification": {"text": text, "requested": bool(failed)},
        }


def mercure_config(folder: Path) -> Config:
    """The settings of a task: those of the module and of the rule, in `process.settings`.

    Args:
        folder: With `task.json`; without it the defaults count.

    Returns:
        The settings: sections `model`, `results`, `gate` and `limits` as in `serve.toml`.

    Raises:
        ConfigError: If `task.json` cannot be understood, or a setting cannot be used.
    """
    file = folder / _TASK
    values: Mapping[str, Any] = {}
    if file.exists():
        try:
            values = _settings_of(json.loads(file.read_text("utf-8")))
        except (ValueError, RecursionError, OSError):
            raise ConfigError(_TASK, "is no JSON that can be read") from None
    for name in values:
        if name not in _SECTIONS:
            known = ", ".join(_SECTIONS)
            raise ConfigError(f"process.settings.{name}", f"is no section; known: {known}")
    return config_of({"folder": str(folder), **values}, folder)


def _settings_of(task: Any) -> Mapping[str, Any]:
    """Settings of the step that this is: of several the first that has some of ours."""
    process = task.get("process") if isinstance(task, dict) else None
    steps = process if isinstance(process, list) else [process]
    given = [step.get("settings") for step in steps if isinstance(step, dict)]
    found = [settings for settings in given if isinstance(settings, dict)]
    ours = [settings for settings in found if set(settings) & set(_SECTIONS)]
    return (ours or found or [{}])[0]


def run_mercure(in_dir: Path, out_dir: Path) -> MercureTask:
    """Read all images of a folder once, and write their results.

    Args:
        in_dir: With DICOM files and `task.json`; folders in it count too.
        out_dir: Gets the results and `result.json`.

    Returns:
        What came of it; images that were refused are no failure.

    Raises:
        ConfigError: See `mercure_config`.
        ServiceError: If a folder does not exist or holds no image, or a network cannot be loaded.
        OSError: If results cannot be written.
    """
    for name, folder in ((IN_DIR, in_dir), (OUT_DIR, out_dir)):
        if not folder.is_dir():
            msg = f"{name} is {folder}, expected a folder that exists"
            raise ServiceError(msg)
    config = mercure_config(in_dir)
    files = list(_images(in_dir))
    if not files:
        msg = f"{in_dir} holds no file besides {_TASK}"
        raise ServiceError(msg)
    from torchxrayvision.service.worker import ImageWorker

    worker = ImageWorker(config)
    done = MercureTask(0, {}, {}, 0)
    for number, file in enumerate(files):
        _read(worker, file, number, out_dir, config.limits.object_bytes, done)
    with write_atomically(out_dir / _RESULT) as part:
        part.write_text(json.dumps(done.to_json(), indent=1), "utf-8")
    return done


def _images(folder: Path) -> Iterator[Path]:
    """Files that may be images, in a stable order; links lead out of the folder."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if name != _TASK and not name.startswith(".") and not path.is_symlink():
                yield path


def _read(
    worker: Any, file: Path, number: int, out_dir: Path, most: int, done: MercureTask
) -> None:
    with tempfile.TemporaryDirectory(dir=out_dir, prefix=".xrv-") as own:
        if file.stat().st_size > most:
            too_large = "larger than limits.object_bytes"
            answer: dict[str, Any] = {"outcome": "failed", "reason": too_large}
        else:
            answer = worker.answer(str(file), str(Path(own, "made")))
        outcome, reason = str(answer["outcome"]), str(answer["reason"])
        log_event("read", image=number, outcome=outcome, reason=reason)
        if outcome == "retry":  # the disk is full, or gone
            raise OSError(reason)
        for made in answer.get("objects", ()):
            Path(own, "made", made["file"]).replace(out_dir / f"{made['kind']}-{made['uid']}.dcm")
            done.objects += 1
    if outcome == "read":
        done.read += 1
    else:
        reasons = done.refused if outcome == "refused" else done.failed
        reasons[reason] = reasons.get(reason, 0) + 1
