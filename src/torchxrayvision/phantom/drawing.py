"""Draw an image's patient, view, findings and geometry, without its pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.errors import DatasetError, UnknownNameError, ViewError
from torchxrayvision.phantom.body import SIDES, Change, Physique, Pose
from torchxrayvision.phantom.measure import cardiothoracic_ratio, heart_scale
from torchxrayvision.phantom.prevalence import Correlations
from torchxrayvision.phantom.records import FINDINGS, OPACITIES, VIEWS, Case, PatientFacts, Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PATIENTS = (0, 1, 1, 2, 2, 2)  # of six images in a row: one, two and three images of one patient
CHRONIC = ("Emphysema", "Hernia", "Pleural_Thickening", "Cardiomegaly", "Mass", "Nodule")
"""Findings that stay with a patient from image to image, at the same place."""

MILDEST = 0.35
"""Least severity that is drawn: what is milder would not be reported."""

PATIENT, FINDING, VIEW, DETAIL, APPEARANCE, DEVICE = range(6)


def generator(seed: int, index: int, *stream: int) -> np.random.Generator:
    """Make the generator of one stream of one image or patient.

    Args:
        seed: Seed of the collection.
        index: Number of the image or patient.
        stream: Which of its streams.

    Returns:
        Philox, which is the same on every machine.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index, *stream])))


def patient_of(index: int) -> tuple[int, int]:
    """Tell whose image this is.

    Six images in a row are of three patients, who have one, two and three of them.

    Args:
        index: Number of the image.

    Returns:
        Number of the patient, and of the image among the patient's own, from 0.

    Example:
        >>> [patient_of(i) for i in range(6)]
        [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    """
    block, place = divmod(index, len(_PATIENTS))
    mine = _PATIENTS[place]
    return 3 * block + mine, place - _PATIENTS.index(mine)


def _physique(rng: np.random.Generator, seed: int) -> Physique:
    sex = "F" if rng.random() < 0.47 else "M"
    age = float(np.clip(rng.normal(54, 18), 18, 94))
    body = float(np.clip(rng.normal(0, 1), -1.8, 2.4))  # from slim to stout
    stature = (0.94 if sex == "F" else 1.0) * (1 + 0.035 * float(np.clip(rng.normal(), -2, 2)))
    bone = 1 - 0.006 * max(age - 30, 0) * (1.25 if sex == "F" else 1.0)
    return Physique(
        sex=sex,
        age=age,
        stature=stature,
        girth=1 + 0.035 * body + 0.025 * float(np.clip(rng.normal(), -2, 2)),
        barrel=1 + 0.06 * body + 0.002 * (age - 54),
        fat=float(np.clip(26 + 9 * body + rng.normal(0, 3), 12, 58)),
        breast=float(np.clip(rng.normal(58, 11) + 9 * body, 34, 90)) if sex == "F" else 0.0,
        kyphosis=8 + 0.12 * age + float(rng.normal(0, 3)),
        tortuosity=float(np.clip((age - 45) / 50 + rng.normal(0, 0.12), 0, 1)),
        bone=max(bone, 0.55) * (1 + 0.06 * float(np.clip(rng.normal(), -2, 2))),
        seed=int(rng.integers(2**31)) ^ (seed & 0xFFFF),
    )


def _view(rng: np.random.Generator, views: Sequence[str], odds: Correlations) -> str:
    shares = {"AP": odds.ap_share, "L": odds.lateral_share}
    shares["PA"] = 1 - odds.ap_share - odds.lateral_share
    weights = np.array([max(shares[v], 0.0) for v in views])
    if weights.sum() <= 0:
        weights = np.ones(len(views))
    place = np.searchsorted(np.cumsum(weights / weights.sum()), rng.random(), side="right")
    return views[min(int(place), len(views) - 1)]


def _findings(
    chronic: np.random.Generator,
    acute: np.random.Generator,
    body: Physique,
    view: str,
    odds: Correlations,
    forced: Mapping[str, float],
    others: bool,
) -> dict[str, float]:
    """Draw the severity of each finding; those that last are drawn from the patient's stream."""
    severity: dict[str, float] = {}
    draws = {name: ((chronic if name in CHRONIC else acute).random(2)) for name in odds.prevalence}
    for name, share in odds.prevalence.items():
        logit = math.log(max(share, 1e-9) / max(1 - share, 1e-9))
        logit += math.log(odds.age.get(name, 1.0)) * (body.age - 50) / 10
        logit += math.log(odds.female.get(name, 1.0)) * (body.sex == "F")
        logit += (
            math.log(odds.ap.get(name, 1.0))
            * (view == "AP")
            * (name not in CHRONIC or name == "Cardiomegaly")
        )
        for (first, second), ratio in odds.pairs.items():
            if second == name and severity.get(first, 0) > 0:
                logit += math.log(ratio)
        present = draws[name][0] < 1 / (1 + math.exp(-logit))
        drawn = MILDEST + (1 - MILDEST) * float(draws[name][1]) if present else 0.0
        severity[name] = forced.get(name, drawn if others else 0.0)
    return severity


def _force_opacity(severity: dict[str, float], forced: Mapping[str, float]) -> dict[str, float]:
    """Make Lung Opacity what was asked for: through a consolidation, or by taking all away."""
    if "Lung Opacity" not in forced:
        return severity
    wanted = forced["Lung Opacity"]
    if wanted <= 0:
        return {n: 0.0 if n in OPACITIES else s for n, s in severity.items()}
    if not any(severity[n] > 0 for n in OPACITIES):
        return {**severity, "Consolidation": wanted}
    return severity


def _sides(
    chronic: np.random.Generator, acute: np.random.Generator, severity: Mapping[str, float]
) -> dict[str, int]:
    draws = {name: (chronic if name in CHRONIC else acute).random() for name in FINDINGS}
    sides = {name: 1 if lot < 0.48 else -1 for name, lot in draws.items()}
    both = draws["Edema"] < 0.45 and severity["Edema"] > 0
    if draws["Effusion"] > 0.78 or (severity["Effusion"] > 0 and both):
        sides["Effusion"] = 0
    return sides


def _change(severity: Mapping[str, float], sides: Mapping[str, int]) -> Change:
    loss, air = severity["Atelectasis"], severity["Pneumothorax"]
    raised = dict.fromkeys(SIDES, 0.0)
    raised[sides["Atelectasis"]] += 30.0 * loss
    tension = max(air - 0.7, 0.0) / 0.3
    shift = 20.0 * loss * sides["Atelectasis"] - 16.0 * tension * sides["Pneumothorax"]
    raised[sides["Pneumothorax"]] -= 14.0 * tension
    return Change(severity["Emphysema"], raised, shift, 1.0)


def _pose(rng: np.random.Generator, view: str) -> Pose:
    draws = rng.random(3)
    turn = math.radians(float(np.clip(rng.normal(0, 2.2 if view != "AP" else 4.0), -8, 8)))
    if view == "AP":
        return Pose(0.15 + 0.55 * draws[0], turn, 0.35 * draws[1], bool(draws[2] < 0.6))
    return Pose(0.5 + 0.5 * draws[0], turn, 0.55 + 0.45 * draws[1], True, view == "L")


def _ratio(lot: float, severity: float) -> float:
    """Choose the ratio that a PA image is to show."""
    return 0.525 + 0.14 * severity if severity > 0 else 0.39 + 0.085 * lot


def checked_findings(findings: Mapping[str, float] | None) -> dict[str, float]:
    """Hold forced findings to their names and range."""
    forced = dict(findings or {})
    for name, value in forced.items():
        if name not in FINDINGS:
            raise UnknownNameError("finding", name, FINDINGS)
        if not 0 <= value <= 1:
            msg = f"findings[{name!r}] is a severity from 0 (absent) to 1, got {value!r}"
            raise DatasetError(msg)
    return forced


def checked_views(views: Sequence[str]) -> tuple[str, ...]:
    """Hold views to those that are simulated."""
    chosen = (views,) if isinstance(views, str) else tuple(views)
    unknown = [v for v in chosen if v not in VIEWS]
    if unknown or not chosen:
        msg = f"views must name at least one of {', '.join(VIEWS)}, got {list(chosen)!r}"
        raise ViewError(msg)
    return chosen


def _drawn(
    index: int,
    seed: int,
    views: Sequence[str],
    forced: Mapping[str, float],
    others: bool,
    odds: Correlations,
) -> tuple[Record, Physique, float]:
    """Draw what a table says of an image, the patient's build, and the lot of the heart's width."""
    if index < 0 or seed < 0:
        msg = f"index and seed count from 0, got index={index} and seed={seed}"
        raise DatasetError(msg)
    number, study = patient_of(index)
    person = generator(seed, number, PATIENT)
    body = _physique(person, seed)
    view = _view(generator(seed, index, VIEW), checked_views(views), odds)
    # Patients and images have streams of their own, or patient 0 would repeat the lots of image 0.
    chronic, acute = generator(seed, number, FINDING, 2), generator(seed, index, FINDING)
    severity = _findings(chronic, acute, body, view, odds, forced, others)
    severity = _force_opacity(severity, forced)
    severity["Lung Opacity"] = max(severity[n] for n in OPACITIES)
    age = round(body.age + 0.3 * study, 1)
    record = Record(
        index=index,
        seed=seed,
        patient=PatientFacts(id=f"P{seed}-{number:06d}", sex=body.sex, age_years=age, study=study),
        view=view,
        labels={name: float(severity[name] > 0) for name in FINDINGS},
        severity={name: severity[name] for name in FINDINGS},
    )
    return record, body, float(person.random())


def draw_record(
    index: int,
    *,
    seed: int = 0,
    views: Sequence[str] = VIEWS,
    correlations: Correlations | None = None,
) -> Record:
    """Draw patient, view and findings of an image in a quarter of a millisecond, without geometry.

    Args:
        index: As in `draw`.
        seed: As in `draw`.
        views: As in `draw`.
        correlations: As in `draw`.

    Returns:
        The same patient, view, labels and severities as `draw` and `simulate` give.

    Example:
        >>> draw_record(3, seed=1).severity == draw(3, seed=1).severity
        True
    """
    return _drawn(index, seed, views, {}, True, correlations or Correlations())[0]


def draw(
    index: int,
    *,
    seed: int = 0,
    views: Sequence[str] = VIEWS,
    findings: Mapping[str, float] | None = None,
    others: bool = True,
    correlations: Correlations | None = None,
) -> Case:
    """Draw everything about an image but its pixels.

    Args:
        index: Number of the image, from 0. Images in a row may be of one patient: see
            `patient_of`.
        seed: Seed of the collection.
        views: Views to draw from.
        findings: Finding to the severity that it is to have, 0 for absent. Lung Opacity above 0
            adds a consolidation unless there is another opacity.
        others: False leaves out the findings that are not forced.
        correlations: Prevalences and odds; None for the defaults.

    Returns:
        Patient, view, labels, severities and the geometry that `simulate` renders.

    Raises:
        DatasetError: If a number is out of range.
        UnknownNameError: If a finding is not simulated.
        ViewError: If a view is not simulated.

    Example:
        >>> case = draw(3, seed=1, views=["PA"], findings={"Effusion": 0.5}, others=False)
        >>> case.view, [name for name, label in case.labels.items() if label]
        ('PA', ['Effusion'])
    """
    odds = correlations or Correlations()
    forced = checked_findings(findings)
    record, body, lot = _drawn(index, seed, views, forced, others, odds)
    view, severity = record.view, record.severity
    number, _ = patient_of(index)
    streams = generator(seed, number, FINDING, 3), generator(seed, index, FINDING, 1)
    sides = _sides(*streams, severity)
    pose = _pose(generator(seed, index, VIEW, 1), view)
    wanted = _ratio(lot, severity["Cardiomegaly"])
    change = heart_scale(body, pose, _change(severity, sides), wanted)
    ratio = math.nan if view == "L" else cardiothoracic_ratio(body, pose, change, view)
    return Case(
        **vars(record),
        cardiothoracic_ratio=ratio,
        sides=sides,
        physique=body,
        pose=pose,
        change=change,
    )
