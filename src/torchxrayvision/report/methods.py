"""The section on methods of a study, as far as the software knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchxrayvision.report.writing import Judgement


def methods(evaluated: Judgement) -> list[tuple[str, str]]:
    """Paragraphs with their titles, in plain sentences that a paper may take over.

    Args:
        evaluated: The study.

    Returns:
        Title and text of each.
    """
    study, made = evaluated.study, evaluated.study.made
    unit = (
        f"Patients are those of {study.patient}; images of one patient are not taken for "
        "independent anywhere."
        if study.patient
        else "The tables name no patient, so each image counts as one; if patients have several "
        "images, the intervals are too narrow."
    )
    parts = [
        (
            "Images and reference",
            f"{evaluated.size} had predictions and "
            "labels. Labels are 1 (present), 0 (absent) or missing; a row whose label of a finding "
            "is missing is left out of that finding. "
            + _missing(evaluated)
            + unit
            + _of_one(evaluated),
        ),
        ("Predictions", _predictions(evaluated)),
        ("Thresholds", evaluated.threshold_shown + " A row at or above the threshold is positive."),
        (
            "Measures",
            "AUROC is the exact area with ties counted half; average precision is the sum of steps "
            "without interpolation. Sensitivity, specificity, predictive values and F1 are shares "
            "of images at the threshold, predictive values at the prevalence of these images"
            + (
                "; those at another prevalence follow from sensitivity and specificity by Bayes' "
                "theorem"
                if evaluated.options.prevalence
                else ""
            )
            + "."
            + (
                " The Brier score is the mean squared error of the probability. The calibration "
                "slope is that of a logistic regression of the label on the logit of the "
                "probability; the calibration intercept is that with the slope held at 1. ECE is "
                "the expected calibration error over ten bins of equal width. Net benefit is the "
                "share of true positives less that of false positives times the odds of the "
                "threshold probability."
                if evaluated.has_probabilities
                else ""
            ),
        ),
        (
            "Intervals",
            "All intervals are for 95 % confidence. The unit of analysis is the image and the unit "
            "of sampling the patient: variances are of sums over patients. They are formulas; "
            "nothing is resampled and no seed is needed. "
            "AUROC: score interval with the variance of clustered data (DeLong, Obuchowski). "
            "Average precision: Wilson's interval with the variance of the patients' influence. "
            "Rates, predictive values and F1: Wilson's interval with the effective number of rows "
            "(Rao and Scott). "
            + (
                "Brier score, slope and intercept: Student's interval with the patients' influence "
                "(sandwich variance); degrees of freedom are the patients less 1, for the slope "
                "those of the rarer class less 1. ECE: the same, "
                "corrected for the bias that chance brings about, and withheld where the value is "
                "near what chance alone would give. "
                if evaluated.has_probabilities
                else ""
            )
            + "Means over findings combine the intervals of the findings with the correlation that "
            "patients show (Donner and Zou). "
            + _of_comparisons(evaluated)
            + "An interval is withheld, and the reason given, where patients are too few for it to "
            "hold: how often each interval held the truth in simulations, and the patients that it "
            "needs, are in docs/intervals.md of the software.",
        ),
    ]
    if evaluated.differences is not None or evaluated.gaps is not None:
        parts.append(
            (
                "Comparisons",
                "P values belong to the intervals: one is below 0.05 where the interval leaves out "
                "0. Holm's step-down rule corrects them for the number of findings"
                + (" and models" if len(evaluated.others) > 1 else "")
                + (" and, for gaps, of subgroups" if evaluated.gaps is not None else "")
                + ", separately for each measure; the mean over findings is one comparison and is "
                "not corrected.",
            )
        )
    if evaluated.gaps is not None:
        parts.append(
            (
                "Subgroups",
                f"Images were split by {', '.join(evaluated.options.by)}"
                + (" and by every two of these" if evaluated.options.intersections else "")
                + ". Each subgroup is compared with the rest of the images whose subgroup is "
                f"known; both need {evaluated.options.least} patients. The gap of the sensitivity "
                "is that of equal opportunity, at the same threshold for all. Means over findings "
                "are over those that all subgroups of an attribute have.",
            )
        )
    parts.append(
        (
            "Software",
            f"{evaluated.provenance.package}, command xrv evaluate, with {_versions()}. SHA-256 of "
            "the tables: "
            + ", ".join(
                f"{name.removesuffix('_sha256')} {value}" for name, value in study.hashes.items()
            )
            + (f". Predictions were made by {made['package']}." if made.get("package") else "."),
        )
    )
    return parts


def _missing(evaluated: Judgement) -> str:
    """How many labels are missing, where some are."""
    import numpy as np

    study = evaluated.study
    counts = {
        name: int(np.isnan(study.labels[:, j]).sum()) for j, name in enumerate(study.findings)
    }
    some = [f"{name} {count:,}" for name, count in counts.items() if count]
    return f"Labels that are missing: {', '.join(some)}. " if some else "No label is missing. "


def _of_one(evaluated: Judgement) -> str:
    """How many images patients have, where the tables name patients."""
    import numpy as np

    if not evaluated.study.patient:
        return ""
    sizes = np.unique(evaluated.study.codes, return_counts=True)[1]
    return f" A patient has {np.median(sizes):g} images in the median, and {sizes.max()} at most."


def _of_comparisons(evaluated: Judgement) -> str:
    """How differences and gaps have their intervals, where there are any."""
    text = ""
    if evaluated.differences is not None:
        others = ", ".join(
            f"{other.name} ({other.made.get('weights') or 'weights not said'})"
            for other in evaluated.others
        )
        text += (
            f"The model is compared with {others} on the images that both have, at the same "
            "thresholds. Differences of two models are paired by patient. AUROC: score interval "
            "of the difference with DeLong's correlation of clustered data. Sensitivity and "
            "specificity: "
            "Tango's score interval with the effective number of rows. Predictive values and F1: "
            "score interval with the correlation that patients show. Brier score, slope and "
            "intercept: Student's interval of what each patient adds to the difference. Average "
            "precision: both intervals combined with their correlation (MOVER, Zou). "
        )
    if evaluated.gaps is not None:
        text += (
            "Gaps of subgroups: score interval of a difference (Mee) with the effective numbers of "
            "rows, the correlation of patients who are on both sides, and Welch's degrees of "
            "freedom. "
        )
    return text


def _versions() -> str:
    """What the numbers were computed with."""
    import platform

    import numpy as np
    import pandas as pd

    return f"Python {platform.python_version()}, NumPy {np.__version__}, pandas {pd.__version__}"


def _predictions(evaluated: Judgement) -> str:
    made = evaluated.study.made
    if not made:
        return (
            "The table of predictions does not say what made it. Its numbers are taken for "
            f"{evaluated.kind_shown}."
        )
    weights = made.get("weights") or "a checkpoint of the user's own"
    text = f"Predictions are of {weights}"
    if made.get("weights_sha256"):
        text += f" (SHA-256 of weights and targets {made['weights_sha256']})"
    prepared = made.get("preprocessing")
    if isinstance(prepared, dict):
        text += "; images were prepared by " + ", ".join(
            f"{name.replace('_', ' ')} {value}" for name, value in prepared.items()
        )
    text += f". The numbers are {evaluated.kind_shown}."
    calibration = made.get("calibration")
    if isinstance(calibration, dict):
        used = sorted(set(dict(calibration.get("methods", {})).values()))
        text += (
            f" They were calibrated ({', '.join(used)}; SHA-256 of the calibration "
            f"{calibration.get('sha256')})."
        )
    if evaluated.held_out:
        text += " " + evaluated.held_out
    return text
