"""The stages that make the demonstration weights, on noise and in miniature."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from torchxrayvision.models import ResNet, save_checkpoint
from torchxrayvision.training.images.prepared import from_stored

pytest.importorskip("lightning", reason="the extra train")

TOOLS = Path(__file__).parents[3] / "tools"
COUNT = 40


@pytest.fixture(scope="module")
def parts():
    """The modules of the tool, which is no package of ours."""
    sys.path.insert(0, str(TOOLS))
    try:
        from demo_weights import classify, distil, films, plan
    finally:
        sys.path.remove(str(TOOLS))
    return classify, distil, films, plan


@pytest.fixture(scope="module")
def noise(parts):
    _, _, films, plan = parts
    rng = np.random.default_rng(0)
    shape = COUNT, plan.KEPT, plan.KEPT
    labels = rng.integers(0, 2, (COUNT, len(plan.OUTPUTS))).astype(np.float32)
    labels[:, 0] = np.nan  # a finding that the source does not label
    patients = np.array([f"p{row // 2}" for row in range(COUNT)])
    return films.Films(rng.integers(0, 256, shape).astype(np.uint8), labels, patients)


@pytest.fixture(scope="module")
def built(parts, noise, tmp_path_factory):
    classify, _, _, plan = parts
    work = tmp_path_factory.mktemp("work")
    short = plan.Plan(
        work=work, nih=work, scratch_epochs=1, tune_epochs=1, repeats=1, mixed_in=8, lesson_steps=2
    )
    torch.manual_seed(0)
    start = ResNet(architecture=plan.MODEL, num_classes=len(plan.OUTPUTS))
    start.targets = list(plan.OUTPUTS)
    save_checkpoint(start, classify.written(short, "pretrain"))
    return short, classify.learn(short, noise, noise, 0)


def test_a_patient_is_in_one_fold(parts, noise):
    fold = parts[0].folds(noise.patients)
    assert set(fold) == set(range(5))
    assert all(len(set(fold[noise.patients == name])) == 1 for name in noise.patients)


def test_students_learn_and_are_not_trained_twice(parts, noise, built):
    classify, _, _, plan = parts
    short, path = built
    stages = ["pretrain", *(lesson.name for lesson in plan.LESSONS)]
    assert path == classify.written(short, plan.SHIPS, 0) == classify.written(short, stages[-1], 0)
    scores = [classify.scores(classify.written(short, stage, 0), noise) for stage in stages]
    assert scores[0].shape == (COUNT, len(plan.OUTPUTS))
    for before, after in pairwise(scores):
        assert np.abs(after - before).max() > 1e-3
    written = path.stat().st_mtime_ns
    classify.learn(short, noise, noise, 0)
    assert path.stat().st_mtime_ns == written


def test_a_lesson_needs_only_stages_before_it(parts):
    done = {"pretrain", "scratch", "tuned"}
    for lesson in parts[3].LESSONS:
        assert {lesson.start, *lesson.teachers} <= done
        done.add(lesson.name)


def test_teachers_say_the_mean_of_films_and_mirror_images(parts, noise, built):
    classify, distil, films, _ = parts
    short, _ = built
    paths = [classify.written(short, stage, 0) for stage in ("scratch", "tuned")]
    mirrored = films.Films(noise.images[:, :, ::-1].copy(), noise.labels, noise.patients)
    logits = [classify.scores(p, source) for p in paths for source in (noise, mirrored)]
    images = from_stored(torch.from_numpy(noise.images[:, None]))
    images = torch.nn.functional.interpolate(images, (144, 144), mode="bilinear", antialias=True)
    said = distil.Teachers(paths)(images)
    expected = 1 / (1 + np.exp(-np.mean(logits, axis=0)))
    np.testing.assert_allclose(said.numpy(), expected, atol=2e-3)


def test_the_distance_is_none_at_what_the_teachers_say(parts):
    distance = parts[1]._distance
    said = torch.tensor([[0.1, 0.9, 0.5]])
    known = torch.tensor([[True, True, False]])
    assert float(distance(said.logit(), said, known)) == pytest.approx(0, abs=1e-6)
    assert float(distance(torch.zeros(1, 3), said, known)) == pytest.approx(0.368, abs=1e-3)
