"""Whether a file is what models of frontal chest radiographs take, before they are asked."""

from __future__ import annotations

import contextlib
import io
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.images import silence_decoders
from torchxrayvision.inputs import Readers, ReadOptions, crop_and_resize, expand, read_bytes
from torchxrayvision.provenance import Provenance
from torchxrayvision.runs import (
    RunFolder,
    check_format,
    describe_inputs,
    fingerprint,
    in_batches,
    open_table,
    read_manifest,
    run_to_table,
)
from torchxrayvision.screening.pose import (
    SIDE,
    FrameMeasures,
    Pose,
    inside_bars,
    is_surely_upright,
    levels_of,
    measure_frame,
    pose_of,
)
from torchxrayvision.transforms import prepare

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterable, Iterator

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.images import Raster
    from torchxrayvision.inputs import InputFile, Paths, Read, Skipped
    from torchxrayvision.runs import Batch, Record, Summary
    from torchxrayvision.screening.reference import Reference, Score

_KEYWORDS: Final = ("Modality", "BodyPartExamined", "ViewPosition", "PhotometricInterpretation")
# Projection radiography, film that was scanned, and what secondary captures are stored as.
_MODALITIES: Final = frozenset({"", "CR", "DX", "RG", "RF", "XA", "OT", "SC", "PX"})
# PS3.16 annex L and what scanners write instead.
_CHEST: Final = (
    "CHEST",
    "THORAX",
    "LUNG",
    "RIB",
    "HEART",
    "TORSO",
    "STERNUM",
    "CLAVICLE",
    "TSPINE",
)
# Codes of PS3.3 and PS3.16 that a remark may quote.
_KNOWN: Final = (
    " AR AU BI BMD CT DG DOC ECG ES GM IO IVOCT IVUS KO LS MG MR NM OAM OCT OP OPM OPT OPV PR PT "
    "REG RTDOSE RTIMAGE RTPLAN RTSTRUCT SEG SM SMR SR TG US XC ABDOMEN ANKLE ARM BREAST CALCANEUS "
    "CERVIX COCCYX CSPINE ELBOW EXTREMITY EYE FEMUR FINGER FOOT FOREARM HAND HEAD HIP HUMERUS JAW "
    "KNEE LEG LSPINE MANDIBLE NECK PATELLA PELVIS SCAPULA SHOULDER SKULL SPINE TEETH THUMB TIBIA "
    "TOE WRIST ZYGOMA CHEST THORAX LUNG RIB RIBS HEART TORSO STERNUM CLAVICLE TSPINE "
)
_LATERAL: Final = frozenset({"LL", "RL", "LAT", "LATERAL", "LLD", "RLD", "L", "R"})
_FRONTAL: Final = frozenset({"PA", "AP"})
_OTHER: Final = {"MONOCHROME1": "MONOCHROME2", "MONOCHROME2": "MONOCHROME1"}


@dataclass(frozen=True, slots=True)
class Header:
    """Elements of a DICOM file, upper case, empty where absent or damaged.

    Args:
        modality: Modality (0008,0060).
        body_part: Body Part Examined (0018,0015).
        view: View Position (0018,5101).
        photometric: Photometric Interpretation (0028,0004).
    """

    modality: str = ""
    body_part: str = ""
    view: str = ""
    photometric: str = ""

    @property
    def elsewhere(self) -> bool:
        """Whether it names a part of the body that is not the chest."""
        return bool(self.body_part) and not any(word in self.body_part for word in _CHEST)


def read_header(file: InputFile) -> Header:
    """Read the elements of a DICOM file; a damaged header gives empty ones."""
    from pydicom import dcmread

    try:
        with silence_decoders():
            dataset = dcmread(
                io.BytesIO(read_bytes(file)),
                force=True,
                stop_before_pixels=True,
                specific_tags=list(_KEYWORDS),
            )
            # Values are converted when they are asked for.
            texts = [str(dataset.get(name) or "").strip(" \0").upper() for name in _KEYWORDS]
        return Header(*texts)
    except Exception:  # noqa: BLE001 - damage may raise anything
        return Header()


def _named(code: str) -> str:
    """A code as a remark may quote it; damage and custom put anything there, names too."""
    return code if f" {code} " in _KNOWN else "something else"


def contradictions(header: Header, pose: Pose) -> Iterator[str]:
    """Where header and image do not agree, one clause each."""
    if header.modality not in _MODALITIES:
        yield f"Modality says {_named(header.modality)}, which is no projection radiograph"
    frontal = pose.chest > 0
    lateral = not frontal and pose.lateral > 0 and not header.elsewhere
    if header.elsewhere and frontal:
        yield f"BodyPartExamined says {_named(header.body_part)}, the picture shows a chest"
    if header.body_part and not header.elsewhere and not frontal and not lateral:
        yield f"BodyPartExamined says {_named(header.body_part)}, the picture does not show it"
    if header.view in _LATERAL and frontal:
        yield f"ViewPosition says {header.view}, the picture is frontal"
    if header.view in _FRONTAL and lateral:
        yield f"ViewPosition says {header.view}, the picture is lateral"
    if frontal and pose.inverted and header.photometric in _OTHER:
        right = _OTHER[header.photometric]
        yield f"PhotometricInterpretation says {header.photometric}, {right} shows it right"


REFUSED: Final = ("blank", "not-chest", "lateral", "rotated", "inverted", "unfamiliar")
"""Remarks for which a file is refused; the last is only made where a reference is given."""

NOTED: Final = ("mirrored", "bars", "text", "exposure", "header")
"""Remarks that leave it to the reader."""

# Beyond nearly all of 413 frontal images of NIH ChestX-ray14: 1 % have more bars, none the rest.
_BARS: Final = 0.15
_FEW_BARS: Final = 0.05
_FEWEST_LEVELS: Final = 16
_LEAST_CONTRAST: Final = 0.3
_BRIGHTNESS: Final = (0.2, 0.93)
_WHITE, _BLACK = 0.02, 0.35
_LITTLE_RANGE: Final = "uses {:.0%} of the range that the file declares"
_BATCH: Final = 16  # files of a batch in the journal
_COLUMNS: Final = {
    "path": "text", "error": "text", "verdict": "text", "codes": "text",
    "turned_clockwise": "integer", "inverted": "flag", "chest_score": "number", "bars": "number",
    "letters": "integer", "contrast": "number", "remarks": "text",
}  # fmt: skip
_DISTANCES: Final = {"embedding_distance": "number", "reconstruction_error": "number"}
_QUICK_SIDE: Final = 32  # rows and columns, or a few more, that the quick check looks at


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about an image.

    Args:
        code: One of `REFUSED` or `NOTED`.
        message: One clause for a person.
    """

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Check:
    """What came of one file.

    Args:
        path: The file as the user named it.
        error: Why it could not be read, or an empty string.
        remarks: What was found, the gravest first.
        pose: How the image lies, or None after an error.
        plate: Measures of bars, text and exposure, or None after an error.
        score: How far the image lies from the reference, where one was given.
        allowed: Remarks for which the caller does not refuse a file.
    """

    path: str
    error: str
    remarks: tuple[Finding, ...] = ()
    pose: Pose | None = None
    plate: FrameMeasures | None = None
    allowed: frozenset[str] = frozenset()
    score: Score | None = None

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes of the remarks, each once."""
        return tuple(dict.fromkeys(remark.code for remark in self.remarks))

    @property
    def verdict(self) -> str:
        """`"error"`, `"refused"`, `"noted"` or `"ok"`."""
        if self.error:
            return "error"
        if any(code in REFUSED and code not in self.allowed for code in self.codes):
            return "refused"
        return "noted" if self.remarks else "ok"

    def to_row(self) -> dict[str, Any]:
        """The result as plain values, one per column of a table."""
        pose, plate = self.pose, self.plate
        known = pose is not None and not {"blank", "not-chest", "lateral"} & set(self.codes)
        return {
            "path": self.path,
            "error": self.error,
            "verdict": self.verdict,
            "codes": " ".join(self.codes),
            "turned_clockwise": 90 * pose.turns if known and pose else None,
            "inverted": pose.inverted if known and pose else None,
            "chest_score": round(pose.chest, 2) if pose else None,
            "bars": round(plate.bars, 3) if plate else None,
            "letters": plate.letters if plate else None,
            "contrast": round(plate.contrast, 3) if plate else None,
            "remarks": "; ".join(remark.message for remark in self.remarks),
            **self._distances(),
        }

    def _distances(self) -> dict[str, float | None]:
        """The scores, where a reference was given."""
        if self.score is None:
            return {}
        pair = self.score.distance, self.score.error
        values = (round(value, 4) if math.isfinite(value) else None for value in pair)
        return dict(zip(_DISTANCES, values, strict=True))


def iter_checks(
    paths: Paths | Iterable[InputFile],
    *,
    allow: Iterable[str] = (),
    workers: int = 1,
    view_model: Any = None,
    reading: ReadOptions | None = None,
    skipped: Skipped | None = None,
    reference: Reference | None = None,
) -> Iterator[Check]:
    """Check files one after the other, as they are done.

    Args:
        paths: A file or folder, or several; see `expand`.
        allow: Codes of `REFUSED` for which no file is refused, such as `"lateral"`.
        workers: Threads.
        view_model: A `baseline_models.xinario.ViewModel` that tells frontal from lateral; None
            takes the published one if its weights are in the cache.
        reading: How files are read; None for `workers` threads.
        skipped: Counts files of folders that are no images.
        reference: Refuses what lies far from it too, see `load_reference` and `fit_reference`.

    Yields:
        One result per file, in order.

    Raises:
        UnknownNameError: If there is no such code.
    """
    allowed = _allowed(allow)
    reading = reading or ReadOptions(workers=workers)
    files = expand(paths, strict=reading.strict, skipped=skipped)
    return _checks(files, allowed, view_model, reading, reference)


def _allowed(codes: Iterable[str]) -> frozenset[str]:
    for code in codes:
        if code not in REFUSED:
            raise UnknownNameError("remark", code, REFUSED)
    return frozenset(codes)


def _checks(
    files: Iterable[InputFile],
    allowed: frozenset[str],
    view_model: Any,
    reading: ReadOptions,
    reference: Reference | None,
) -> Generator[Check, None, None]:
    look = view_model or _cached_view_model()

    def one(file: InputFile, read: Read) -> Check:
        return _check(file, read(file), look, allowed, reference)

    with Readers(one, reading) as readers:
        for file, made in readers.map(files):
            yield Check(file.given, made) if isinstance(made, str) else made


def check_to_file(
    paths: Paths,
    output: str | os.PathLike[str],
    *,
    allow: Iterable[str] = (),
    view_model: Any = None,
    reference: Reference | None = None,
    reading: ReadOptions | None = None,
    overwrite: bool = False,
    on_found: Callable[[int], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_done: Callable[[Summary], object] | None = None,
) -> Counter[str]:
    """Check any number of files into a table; whatever stops it, the same call resumes.

    Args:
        paths: A file or folder, or several; see `expand`.
        output: The table, ending in `.csv`, `.parquet` or `.json`; columns as those of `check`.
        allow: See `iter_checks`.
        view_model: See `iter_checks`.
        reference: See `iter_checks`.
        reading: How files are read.
        overwrite: See `torchxrayvision.inference.predict_to_file`.
        on_found: See `torchxrayvision.inference.predict_to_file`.
        on_progress: See `torchxrayvision.inference.predict_to_file`.
        on_done: Called once with what the run came to.

    Returns:
        Verdict to number of files. With no image at all it is empty and no table is written.

    Raises:
        UnknownNameError: If there is no such code, or the ending is unknown.
        ResumeError: If an unfinished run with other options is there, or another process works.
        OutputError: If the table exists, the disk is full or it cannot be written.
    """
    target, allowed = Path(output), _allowed(list(allow))
    check_format(target)
    how = reading or ReadOptions()
    look = view_model or _cached_view_model()
    options: dict[str, Any] = {
        "inputs": describe_inputs(paths, how),
        "check": sorted(allowed),
        "view_model": None if look is None else fingerprint(look),
        "batch_size": _BATCH,
    }
    if reference is not None:
        options["reference"] = reference.digest
    columns = _COLUMNS | ({} if reference is None else _DISTANCES)
    verdicts: Counter[str] = Counter()

    def compute(
        folder: RunFolder, record: Record, start: int, stop: int
    ) -> Generator[Batch, None, None]:
        files = read_manifest(folder.sources, start, stop)
        with contextlib.closing(_checks(files, allowed, look, how, reference)) as done:
            yield from in_batches(
                done, start, record.batch_size, lambda found: (found.error, found.to_row())
            )

    def write(part: Path, rows: Iterator[dict[str, Any]]) -> None:
        told = {"allow": "check", "reference": "reference"}
        provenance = Provenance(
            command="xrv check", weights_sha256=options["view_model"],
            options={key: options[of] for key, of in told.items() if of in options},
        )  # fmt: skip
        with open_table(target, columns, part, provenance=provenance) as table:
            for row in rows:
                verdicts[row["verdict"]] += 1
                table.write(row)

    done = run_to_table(
        RunFolder(target), options, compute, write, overwrite=overwrite, on_found=on_found,
        on_progress=on_progress,
    )  # fmt: skip
    if on_done is not None:
        on_done(done)
    return verdicts


def check(
    paths: Paths,
    *,
    allow: Iterable[str] = (),
    workers: int = 1,
    reference: Reference | None = None,
) -> pd.DataFrame:
    """Check files, and return a table.

    Args:
        paths: A file or folder, or several; see `expand`.
        allow: Codes of `REFUSED` for which no file is refused.
        workers: Threads.
        reference: See `iter_checks`.

    Returns:
        One row per file: `path`, `error`, `verdict` (ok, noted, refused, error), `codes`,
        `turned_clockwise` (degrees), `inverted`, `chest_score` (above 0 is a frontal chest
        radiograph), `bars` (share of the image), `letters`, `contrast` (share of the declared
        range), `remarks`; with a reference `embedding_distance` and `reconstruction_error`.

    Raises:
        UnknownNameError: If there is no such code.
    """
    import pandas as pd

    found = iter_checks(paths, allow=allow, workers=workers, reference=reference)
    columns = [*Check("", "").to_row(), *({} if reference is None else _DISTANCES)]
    return pd.DataFrame([result.to_row() for result in found], columns=columns)


def _check(
    file: InputFile,
    raster: Raster,
    view_model: Any,
    allowed: frozenset[str],
    reference: Reference | None,
) -> Check:
    plate = measure_frame(raster)
    pose = _pose(file, raster, plate.inside, plate.bars)
    header = read_header(file) if raster.info.format == "dicom" else Header()
    if plate.levels < _FEWEST_LEVELS:
        found = [Finding("blank", f"holds {plate.levels} grey values, no picture")]
        return Check(file.given, "", tuple(found), pose, plate, allowed)
    lateral = pose.chest > 0 and view_model is not None and _looks_lateral(raster, view_model)
    remarks = [*_of_pose(pose, lateral, header), *_of_plate(plate)]
    remarks += [Finding("header", text) for text in contradictions(header, pose)]
    remarks += [Finding("header", note) for note in raster.info.notes]
    score = None
    if reference is not None:
        score = _score(file, raster, reference)
        remarks = [*_of_score(score, reference), *remarks]
    return Check(file.given, "", tuple(remarks), pose, plate, allowed, score)


def _score(file: InputFile, raster: Raster, reference: Reference) -> Score:
    return reference.scores(crop_and_resize(file, raster, reference.side)[None])[0]


def _of_score(score: Score, reference: Reference) -> Iterator[Finding]:
    if reasons := reference.reasons(score):
        yield Finding("unfamiliar", "; ".join(reasons))


def reference_named(name: str | None) -> Reference | None:
    """The reference that a setting means.

    Args:
        name: `"packaged"`, a file of `Reference.save`, or None for none.

    Returns:
        The reference, or None.

    Raises:
        CheckpointError: If the file is no reference.
    """
    if name is None:
        return None
    from torchxrayvision.screening.reference import load_reference

    return load_reference(None if name == "packaged" else name)


def quick_check(
    file: InputFile,
    raster: Raster,
    square: NDArray[np.float32],
    reference: Reference | None = None,
) -> str:
    """What the cheap part of the screening says of an image that a network is given anyway.

    Bars, text, headers, exchanged sides and the view model are left to `iter_checks`.

    Args:
        file: Where the image is from.
        raster: As read.
        square: As a network gets it, float32, shape (1, R, R).
        reference: See `iter_checks`.

    Returns:
        `"ok"`, or `"refused: "` or `"noted: "` and the reasons.
    """
    findings = list(_quick_findings(file, raster, square))
    if reference is not None and not any(finding.code == "blank" for finding in findings):
        findings += _of_score(_score(file, raster, reference), reference)
    verdict = Check(file.given, "", tuple(findings)).verdict
    reasons = "; ".join(finding.message for finding in findings)
    return f"{verdict}: {reasons}" if reasons else verdict


def _quick_findings(
    file: InputFile, raster: Raster, square: NDArray[np.float32]
) -> Iterator[Finding]:
    yield from (Finding("header", note) for note in raster.info.notes)
    step = max(1, max(raster.shape) // _QUICK_SIDE)
    ordered = np.sort(raster.pixels[::step, ::step], axis=None)
    if 1 + np.count_nonzero(ordered[1:] != ordered[:-1]) < _FEWEST_LEVELS:
        levels = levels_of(raster)
        if levels < _FEWEST_LEVELS:
            yield Finding("blank", f"holds {levels} grey values, no picture")
            return
    if not is_surely_upright(prepare(square[0], 1.0, 0.0, SIDE)[0]):
        pose = _pose(file, raster, *inside_bars(raster))
        header = read_header(file) if raster.info.format == "dicom" else Header()
        yield from (f for f in _of_pose(pose, False, header) if f.code != "mirrored")
    low, high = (float(ordered[int(share * (ordered.size - 1))]) for share in (0.02, 0.98))
    contrast = (high - low) * abs(raster.scale) / 2048
    if contrast < _LEAST_CONTRAST:
        yield Finding("exposure", _LITTLE_RANGE.format(contrast))


def _pose(file: InputFile, raster: Raster, frame: tuple[int, int, int, int], bars: float) -> Pose:
    """How the image lies; where shutters have left little of it, how that little lies."""
    pose = pose_of(crop_and_resize(file, raster, SIDE)[0])
    top, bottom, left, right = frame
    inside = raster.pixels[top:bottom, left:right]
    known = pose.chest > 0 or pose.lateral > 0
    if known or bars < _FEW_BARS or min(inside.shape) < SIDE:
        return pose
    within = pose_of(prepare(inside, raster.scale, raster.offset, SIDE, raster.info.aspect)[0])
    return within if within.chest > 0 else pose


def _of_pose(pose: Pose, lateral: bool, header: Header) -> Iterator[Finding]:
    if lateral or (pose.chest <= 0 < pose.lateral and not header.elsewhere):
        yield Finding("lateral", "looks like a lateral radiograph")
        return
    if pose.chest <= 0:
        yield Finding("not-chest", "does not look like a chest radiograph")
        return
    if pose.turns:
        yield Finding("rotated", f"is rotated by {90 * pose.turns} degrees clockwise")
    if pose.inverted:
        yield Finding("inverted", "its grey is inverted, air is bright")
    if pose.mirrored > 0:
        yield Finding("mirrored", "left and right may be exchanged, or the heart lies on the right")


def _of_plate(plate: FrameMeasures) -> Iterator[Finding]:
    if plate.bars > _BARS:
        yield Finding("bars", f"bars take {plate.bars:.0%} of the picture")
    if plate.letters:
        yield Finding("text", f"about {plate.letters} letters are burnt in")
    low, high = _BRIGHTNESS
    if plate.contrast < _LEAST_CONTRAST:
        yield Finding("exposure", _LITTLE_RANGE.format(plate.contrast))
    elif not low <= plate.brightness <= high:
        word = "dark" if plate.brightness < low else "bright"
        yield Finding("exposure", f"very {word}: half of it is beyond {plate.brightness:.0%}")
    elif plate.white > _WHITE or plate.black > _BLACK:
        share, word = max((plate.white, "white"), (plate.black, "black"))
        yield Finding("exposure", f"{share:.0%} of the picture is clipped to {word}")


def _cached_view_model() -> Any:
    """The published view classifier, or None where its weights would have to be fetched."""
    from torchxrayvision.weights import get, locate_weights

    entry = get("xinario-view-resnet50")
    if locate_weights(entry) is None:
        return None
    from torchxrayvision.baseline_models.xinario import ViewModel

    return ViewModel(weights=entry)


def _looks_lateral(raster: Raster, view_model: Any) -> bool:
    import torch

    size = view_model.input_resolution
    image = prepare(raster.pixels, raster.scale, raster.offset, size, raster.info.aspect)
    with torch.inference_mode():
        views = dict(view_model.predict(torch.from_numpy(image)[None]).values)
    return bool(views["Lateral"] > views["Frontal"])
