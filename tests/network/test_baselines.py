"""Example values that the authors of 1.5.7 published for classifiers of other groups.

Opt-in: `pytest -m network`. Each test says why it skips where the network is closed.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchxrayvision.baseline_models import emory_hiti, mira, riken
from torchxrayvision.errors import OfflineError, UnpinnedDownloadWarning
from torchxrayvision.facts import RemoteFile
from torchxrayvision.images import read_image
from torchxrayvision.remote import fetch
from torchxrayvision.transforms import XRayCenterCrop, XRayResizer

pytestmark = [
    pytest.mark.network,
    # None of these files has a published checksum; the warning that says so is expected.
    pytest.mark.filterwarnings(
        f"ignore::{UnpinnedDownloadWarning.__module__}.{UnpinnedDownloadWarning.__name__}"
    ),
]

FILM = RemoteFile(
    url="https://raw.githubusercontent.com/mlmed/torchxrayvision/master/tests/00027426_000.png",
    filename="00027426_000.png",
    sha256="c03ad7e574b14cf8442e61f9a4e849997b5e09f645ece069b714e5d4c5d8a2c2",
)


def or_skip(call):
    try:
        return call()
    except OfflineError as error:
        pytest.skip(f"the network is closed: {error}")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """The published example: a man of 53 years, no finding."""
    path = or_skip(lambda: fetch(FILM, cache=tmp_path_factory.mktemp("images")))
    return read_image(path)


def resized(image, resolution):
    return torch.from_numpy(XRayResizer(resolution)(XRayCenterCrop()(image)))[None]


def test_race_of_the_published_example(film):
    """scripts/race_prediction.ipynb of the 1.5.7 repository."""
    model = or_skip(emory_hiti.RaceModel)
    with torch.inference_mode():
        found = model(resized(film, 320), output="probability")[0].numpy()
    expected = [8.456485375063494e-06, 0.00020567238971125335, 0.999785840511322]
    np.testing.assert_allclose(found, expected, rtol=1e-2)
    assert model.targets[int(found.argmax())] == "White"


def test_sex_of_the_published_example(film):
    """scripts/sex_prediction.ipynb of the 1.5.7 repository."""
    model = or_skip(mira.SexModel)
    x = resized(film, 224)
    with torch.inference_mode():
        assert model(x)[0, 0].item() == pytest.approx(8.347, abs=1e-2)
        assert model.predict(x).values["Male"].item() == pytest.approx(0.9999995, abs=1e-6)


def test_age_of_the_published_example(film):
    """The docstring of 1.5.7, which was written when inputs were resized without a filter."""
    model = or_skip(lambda: riken.AgeModel(resize_route="bilinear"))
    with torch.inference_mode():
        years = model.predict(torch.from_numpy(film)[None]).values["Age"]
    assert years.item() == pytest.approx(50.4033, abs=0.05)
