"""Missing labels have no part in the loss, whatever the weights and the number of processes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from torchxrayvision.training import masked_bce, positive_weights, task_weights

NAN = float("nan")


def by_hand(logits, labels, weights):
    tasks = []
    for p in range(labels.shape[1]):
        terms = [
            -math.log(1 / (1 + math.exp(-x if y == 1 else x)))
            for x, y in zip(logits[:, p].tolist(), labels[:, p].tolist(), strict=True)
            if not math.isnan(y)
        ]
        if terms:
            tasks.append((weights[p], sum(terms) / len(terms)))
    return sum(w * t for w, t in tasks) / sum(w for w, _ in tasks)


def test_it_is_the_weighted_mean_of_means_over_what_is_there():
    logits = torch.tensor([[0.3, -1.0, 2.0], [1.5, 0.2, -0.7]])
    labels = torch.tensor([[1.0, NAN, NAN], [0.0, 1.0, NAN]])
    weights = [0.5, 2.0, 3.0]
    loss = masked_bce(logits, labels, torch.tensor(weights))
    assert loss.item() == pytest.approx(by_hand(logits, labels, weights), rel=1e-6)


def test_a_task_without_labels_gets_no_gradient_and_changes_nothing():
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([[1.0, NAN]] * 4)
    loss = masked_bce(logits, labels)
    assert loss.item() == pytest.approx(masked_bce(logits[:, :1], labels[:, :1]).item())
    loss.backward()
    assert logits.grad[:, 1].tolist() == [0] * 4
    assert logits.grad[:, 0].abs().min() > 0


@pytest.mark.parametrize("logit", [0.0, 1e4, -1e4, math.inf])
def test_a_batch_without_labels_gives_zero_and_no_nan(logit):
    logits = torch.full((3, 2), logit, requires_grad=True)
    loss = masked_bce(logits, torch.full((3, 2), NAN))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.tolist() == [[0.0, 0.0]] * 3


def test_the_mean_of_two_processes_is_the_loss_and_gradient_of_one():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(7, 3, generator=generator)
    labels = torch.randint(0, 2, (7, 3), generator=generator).float()
    labels[torch.rand(7, 3, generator=generator) < 0.4] = NAN
    labels[:4, 2] = NAN  # one process holds no label of this finding
    whole = logits.clone().requires_grad_()
    masked_bce(whole, labels).backward()
    counts = torch.cat([(~torch.isnan(labels)).sum(0).float(), torch.tensor([2.0])])
    parts = [logits[:4].clone().requires_grad_(), logits[4:].clone().requires_grad_()]
    losses = [
        masked_bce(part, label, total=lambda _: counts)
        for part, label in zip(parts, (labels[:4], labels[4:]), strict=True)
    ]
    for loss in losses:
        (loss / 2).backward()
    assert sum(losses).item() / 2 == pytest.approx(masked_bce(logits, labels).item(), rel=1e-6)
    torch.testing.assert_close(torch.cat([p.grad for p in parts]), whole.grad)


def test_published_task_weights_favour_rare_findings():
    labels = np.zeros((10, 3))
    labels[:6, 0], labels[:3, 1], labels[:, 2] = 1, 1, np.nan
    # 6, 3 and 0 positives: 6 - n + 3 is 3, 6 and 9.
    np.testing.assert_allclose(task_weights(labels), [3 / 9, 6 / 9, 1])
    assert task_weights(labels, "equal").tolist() == [1, 1, 1]
    assert np.isfinite(task_weights(np.full((4, 2), np.nan))).all()


def test_positive_weights_leave_findings_of_one_kind_alone():
    labels = np.array([[1, 0, np.nan], [0, 0, 1], [0, 0, 1], [0, 0, np.nan], [0, 0, 1]])
    assert positive_weights(labels, "balanced").tolist() == [4, 1, 1]
    assert positive_weights(labels, "sqrt").tolist() == [2, 1, 1]
