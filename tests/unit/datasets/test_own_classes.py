"""Datasets that somebody derives from `Dataset`, as the classes of 1.5.7 were written."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

from torchxrayvision import datasets


class Own(datasets.Dataset):
    """Sets its parts one after another, views first."""

    def __init__(self, labels):
        super().__init__()
        self.pathologies = ["Mass"]
        self.csv = pd.DataFrame({"view": ["PA", "AP", "PA"], "Mass": [1.0, 0.0, 0.0]})
        self.limit_to_selected_views(["PA"])
        self.labels = labels(self.csv)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, idx):
        return {"lab": np.asarray(self.labels)[idx], "idx": idx}


def grown(csv):
    found = []
    for value in csv["Mass"]:
        found.append([value])  # noqa: PERF401 - it is what such code does
    return found


@pytest.mark.parametrize(
    "labels", [grown, lambda csv: csv[["Mass"]], lambda csv: csv[["Mass"]].to_numpy()]
)
def test_labels_may_come_late_and_in_any_form(labels):
    dataset = Own(labels)
    assert dataset.csv["view"].tolist() == ["PA", "PA"]
    assert [dataset[i]["lab"].tolist() for i in range(len(dataset))] == [[1.0], [0.0]]
    again = pickle.loads(pickle.dumps(dataset))
    assert np.asarray(again.labels).tolist() == [[1.0], [0.0]]


def test_a_list_that_is_appended_to_is_the_same_list():
    dataset = Own(grown)
    dataset.labels = []
    dataset.labels.append([1.0])
    assert dataset.labels == [[1.0]]
