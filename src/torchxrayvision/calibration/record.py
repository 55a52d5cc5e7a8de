"""The record of a calibration: what was chosen, on what and for which weights, and its use."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.errors import CalibrationError, counted
from torchxrayvision.files import sha256_of, write_atomically

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

FORMAT: Final = "torchxrayvision calibration 1"
PREFIX: Final = "calibrated "
"""Begins the names of columns of calibrated probabilities."""

CALL: Final = "call "
"""Begins the names of columns that say positive or negative, by the threshold."""

SET: Final = "set "
"""Begins the names of columns of conformal sets: absent, present or unsure."""

_TINY: Final = 1e-7
_PARAMETERS: Final = {
    "unchanged": (),
    "temperature": ("scale",),
    "platt": ("scale", "shift"),
    "isotonic": ("at", "probability"),
}
KINDS: Final = ("probability", "logit", "operating-point", "zero-shot", "similarity")
"""What outputs may be that a calibration takes."""


def logits_of(outputs: ArrayLike, kind: str) -> Floats:
    """Outputs as logits; 0 and 1 count as 1e-7 from there.

    Args:
        outputs: Any shape.
        kind: What they are; those scaled to operating points, and the scores of zero-shot
            networks, are taken as if they were probabilities or logits, whose meaning the
            calibration restores.

    Returns:
        float64, of the same shape.
    """
    given = np.asarray(outputs, np.float64)
    if kind in ("logit", "similarity"):
        return given
    clipped = np.clip(given, _TINY, 1 - _TINY)
    return np.asarray(np.log(clipped / (1 - clipped)), np.float64)


def sigmoid(logits: Floats) -> Floats:
    """Logistic function."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -500, 500))), np.float64)


@dataclass(frozen=True)
class FindingCalibration:
    """What was chosen for one finding.

    Attributes:
        method: `"unchanged"`, `"temperature"`, `"platt"` or `"isotonic"`.
        parameters: Of the method: `scale` of the logit, `shift` of it, or `at` and `probability`,
            the points of an isotonic function of the logit.
        counts: `n`, `positives`, `patients` that it was chosen on.
        judged: Method to `log_loss`, `brier` and `ece` on held-out patients.
        threshold: None, or `target`, `value`, `on` (`"output"` or `"calibrated"`), `at`, and what
            was achieved, see `docs/evaluation.md`.
        conformal: None, or `coverage`, `present_from` and `absent_to`, both on the scale of the
            outputs, and `reason` where a limit could not be given.
    """

    method: str
    parameters: Mapping[str, Any]
    counts: Mapping[str, int]
    judged: Mapping[str, Mapping[str, float]]
    threshold: Mapping[str, Any] | None = None
    conformal: Mapping[str, Any] | None = None

    def probabilities(self, outputs: Floats, kind: str) -> Floats:
        """Calibrated probabilities of outputs; NaN stays NaN.

        Args:
            outputs: Any shape.
            kind: What the outputs are.

        Returns:
            float64, of the same shape.
        """
        logits = logits_of(outputs, kind)
        if self.method == "isotonic":
            points = (self.parameters["at"], self.parameters["probability"])
            return np.asarray(np.interp(logits, *points), np.float64)
        scale = float(self.parameters.get("scale", 1.0))
        return sigmoid(scale * logits + float(self.parameters.get("shift", 0.0)))

    def call(self, outputs: Floats, kind: str) -> NDArray[np.bool_] | None:
        """Whether outputs are at or above the threshold; None without one."""
        if self.threshold is None or self.threshold.get("at") is None:
            return None
        judged = outputs
        if self.threshold["on"] == "calibrated":
            judged = self.probabilities(outputs, kind)
        # As float32, which tables hold: digits beyond it would move outputs over the threshold.
        return np.asarray(judged.astype(np.float32) >= np.float32(self.threshold["at"]), bool)

    def sets(self, outputs: Floats) -> NDArray[np.object_] | None:
        """``absent``, ``present`` or ``unsure`` for each output; None if no sets were asked for."""
        if self.conformal is None:
            return None
        low, high = self.conformal["present_from"], self.conformal["absent_to"]
        given = outputs.astype(np.float32)  # as in `call`
        present = given >= np.float32(-math.inf if low is None else low)
        absent = given <= np.float32(math.inf if high is None else high)
        alone = np.where(present, "present", "absent")
        return np.where(present == absent, "unsure", alone).astype(object)


@dataclass(frozen=True)
class Calibration:
    """Probabilities, thresholds and sets for the outputs of certain weights.

    Attributes:
        output: What outputs it takes, one of `KINDS`.
        findings: Name to what was chosen.
        skipped: Findings for which nothing could be chosen, and why.
        weights: Name of the weights, or None.
        weights_sha256: What makes their numbers; None if the predictions did not say.
        preprocessing: What was done to images; None if the predictions did not say.
        data: Hashes of the tables, numbers of images and patients.
        provenance: What made the record, as `Provenance.to_dict`.
    """

    output: str
    findings: Mapping[str, FindingCalibration]
    skipped: Mapping[str, str] = field(default_factory=dict)
    weights: str | None = None
    weights_sha256: str | None = None
    preprocessing: Mapping[str, Any] | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] | None = None

    @property
    def made_on(self) -> str:
        """What it was fitted to, such as "90 images of 60 patients"; "other" if unknown."""
        images, patients = (self.data.get(name) for name in ("images", "patients"))
        shown = counted(images, "image") if isinstance(images, int) else "other images"
        people = counted(patients, "patient") if isinstance(patients, int) else "other patients"
        return f"{shown} of {people}"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read what `xrv calibrate` wrote.

        Args:
            path: The file.

        Returns:
            The record.

        Raises:
            CalibrationError: If it is another file.
            OSError: If it cannot be read.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text("utf-8")))
        except (ValueError, RecursionError) as error:
            reason = str(error) if isinstance(error, CalibrationError) else "it is no JSON"
            msg = f"{path} is no calibration: {reason}; make one with xrv calibrate"
            raise CalibrationError(msg) from None

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Calibration:
        """The calibration of a record, as `to_dict` gives it.

        Args:
            record: Whatever JSON held.

        Returns:
            It.

        Raises:
            CalibrationError: If the record is of something else or is damaged.
        """
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            msg = f"its format is not {FORMAT!r}"
            raise CalibrationError(msg)
        try:
            made = cls(
                output=record["output"],
                findings={str(n): _finding(f) for n, f in record["findings"].items()},
                skipped={str(n): str(why) for n, why in record["skipped"].items()},
                **{name: record[name] for name in _FACTS},
            )
            if made.output not in KINDS:
                raise ValueError(made.output)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            msg = f"its content is damaged ({error})"
            raise CalibrationError(msg) from None
        return made

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return {
            "format": FORMAT,
            "output": self.output,
            **{name: getattr(self, name) for name in _FACTS},
            "findings": {
                name: {key: getattr(finding, key) for key in _PARTS}
                for name, finding in self.findings.items()
            },
            "skipped": dict(self.skipped),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record; the file is whole or absent.

        Args:
            path: The file.
        """
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        with write_atomically(path) as part:
            part.write_text(text + "\n", encoding="utf-8")

    @property
    def sha256(self) -> str:
        """Of the content, whatever the file is called."""
        return sha256_of(json.dumps(self.to_dict(), sort_keys=True).encode())

    def summary(self) -> dict[str, Any]:
        """What tables say of the calibration that made their numbers."""
        methods = {name: finding.method for name, finding in self.findings.items()}
        return {"sha256": self.sha256, "fitted_on": self.output, "methods": methods}

    def check(self, weights_sha256: str, preprocessing: Mapping[str, Any]) -> None:
        """Refuse outputs of other weights, or of images that were prepared in another way.

        Args:
            weights_sha256: Of the network, as tables of predictions hold it.
            preprocessing: What is done to images, as tables hold it.

        Raises:
            CalibrationError: If they are not those of the calibration, or it does not say.
        """
        if self.weights_sha256 is None or self.preprocessing is None:
            msg = (
                "the calibration does not say of which weights it is: the table it was made from "
                "had no provenance; predict again with xrv predict --output and calibrate on that"
            )
            raise CalibrationError(msg)
        if self.weights_sha256 != weights_sha256:
            msg = (
                f"the calibration is for {self.weights or 'weights'} with hash "
                f"{self.weights_sha256[:12]}, these have {weights_sha256[:12]}; calibrate anew"
            )
            raise CalibrationError(msg)
        theirs, ours = dict(self.preprocessing), dict(preprocessing)
        if changed := [k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k)]:
            kinds = ", ".join(f"{k} {theirs.get(k)}, now {ours.get(k)}" for k in sorted(changed))
            msg = f"images were prepared in another way for the calibration: {kinds}"
            raise CalibrationError(msg)

    def thresholds(self, *, calibrated: bool, kind: str | None = None) -> dict[str, float]:
        """The thresholds, to judge them on other patients.

        Args:
            calibrated: Whether they are for calibrated probabilities, or for outputs.
            kind: What the outputs are; must be what the calibration takes.

        Returns:
            Finding to threshold.

        Raises:
            CalibrationError: If outputs are of another kind, or there are no thresholds.
        """
        if not calibrated and kind is not None and kind != self.output:
            msg = f"the calibration takes outputs of kind {self.output}, these are of kind {kind}"
            raise CalibrationError(msg)
        found = {}
        for name, finding in self.findings.items():
            chosen = finding.threshold
            if chosen is None or chosen.get("at") is None:
                continue
            at = np.array([chosen["at"]], np.float32)
            if calibrated and chosen["on"] == "output":
                at = finding.probabilities(at.astype(np.float64), self.output).astype(np.float32)
            if calibrated or chosen["on"] == "output":
                # Between two numbers of float32: above the lower one however it is written.
                below = np.nextafter(at, np.float32(-np.inf))
                found[name] = float((at.astype(np.float64) + below)[0] / 2)
        if not found:
            msg = "the calibration holds no threshold for such numbers; give xrv calibrate --reach"
            raise CalibrationError(msg)
        return found

    def columns(self, names: Sequence[str]) -> dict[str, str]:
        """Names and kinds of the columns that take the place of those of the findings.

        Args:
            names: The findings of the network that have columns.

        Returns:
            Name to `"float32"` or `"text"`; findings that were not calibrated have none.

        Raises:
            CalibrationError: If not one of them was calibrated.
        """
        mine = [name for name in names if name in self.findings]
        if not mine:
            msg = (
                f"the calibration is for {', '.join(self.findings) or 'no finding'}, not for these"
            )
            raise CalibrationError(msg)
        found = {PREFIX + name: "float32" for name in mine}
        for name in mine:
            threshold = self.findings[name].threshold
            if threshold is not None and threshold.get("at") is not None:
                found[CALL + name] = "text"
            if self.findings[name].conformal is not None:
                found[SET + name] = "text"
        return found

    def probabilities(self, names: Sequence[str], outputs: ArrayLike) -> Floats:
        """Calibrated probabilities.

        Args:
            names: The P findings of the outputs.
            outputs: Of the kind `output`, shape (..., P).

        Returns:
            float64 (..., P), NaN for findings that were not calibrated.
        """
        given = np.asarray(outputs, np.float64)
        made = np.full(given.shape, np.nan)
        for place, name in enumerate(names):
            if name in self.findings:
                finding = self.findings[name]
                made[..., place] = finding.probabilities(given[..., place], self.output)
        return made

    def row(self, outputs: Mapping[str, float]) -> dict[str, Any]:
        """The cells of one image.

        Args:
            outputs: Finding to its output, of the kind `output`.

        Returns:
            Name of each of `columns` to its value.
        """
        cells: dict[str, Any] = {}
        for name, value in outputs.items():
            finding = self.findings.get(name)
            if finding is None:
                continue
            given = np.array([value], np.float64)
            cells[PREFIX + name] = np.float32(finding.probabilities(given, self.output)[0])
            called, sets = finding.call(given, self.output), finding.sets(given)
            if called is not None:
                cells[CALL + name] = "positive" if called[0] else "negative"
            if sets is not None:
                cells[SET + name] = str(sets[0])
        return cells


_FACTS: Final = ("weights", "weights_sha256", "preprocessing", "data", "provenance")
_PARTS: Final = ("method", "parameters", "counts", "judged", "threshold", "conformal")


def _finding(record: Mapping[str, Any]) -> FindingCalibration:
    made = FindingCalibration(**{name: record[name] for name in _PARTS})
    numbers = [made.parameters[name] for name in _PARAMETERS[made.method]]
    arrays = [np.asarray(number, np.float64) for number in numbers]
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(made.method)
    if made.method == "isotonic" and (
        arrays[0].shape != arrays[1].shape
        or arrays[0].ndim != 1
        or not arrays[0].size
        or (np.diff(arrays[0]) < 0).any()
    ):
        raise ValueError(made.method)
    return made
