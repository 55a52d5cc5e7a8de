"""Published example values, on the real weights and the images of the 1.5.7 repository.

Opt-in: `pytest -m network`. Each test says why it skips where the network is closed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from torchxrayvision.errors import OfflineError, UnpinnedDownloadWarning
from torchxrayvision.facts import RemoteFile
from torchxrayvision.images import read_image
from torchxrayvision.models import get_model
from torchxrayvision.remote import fetch
from torchxrayvision.transforms import XRayCenterCrop, XRayResizer

pytestmark = [
    pytest.mark.network,
    # Some of these files have no published checksum; the warning that says so is expected.
    pytest.mark.filterwarnings(
        f"ignore::{UnpinnedDownloadWarning.__module__}.{UnpinnedDownloadWarning.__name__}"
    ),
]

VECTORS = json.loads((Path(__file__).parents[1] / "golden" / "published.json").read_text())
IMAGES = {
    "00000001_000.png": "c8cbe59e6b9b186060dc68e63965658fa6b5b3ada6648d25c189b8b69b43cd4c",
    "00027426_000.png": "c03ad7e574b14cf8442e61f9a4e849997b5e09f645ece069b714e5d4c5d8a2c2",
    "16747_3_1.jpg": "17dae3a0d41049d5582fb3c05fddaf57a854839f58bb89f55e888be262659d34",
    "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm": (
        "13d378bfe1af0724e8cbe51adde36882cfdc6a69361c8a48ac30f688c3af7613"
    ),
}
REPOSITORY = "https://raw.githubusercontent.com/mlmed/torchxrayvision/master/tests"


def or_skip(call):
    try:
        return call()
    except OfflineError as error:
        pytest.skip(f"the network is closed: {error}")


@pytest.fixture(scope="module")
def image_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")

    def image(name):
        file = RemoteFile(url=f"{REPOSITORY}/{name}", filename=name, sha256=IMAGES[name])
        return read_image(or_skip(lambda: fetch(file, cache=folder)))

    return image


def model_of(name, **kwargs):
    # The example values of the ResNet come from 1.5.7's operating points.
    return or_skip(lambda: get_model(name, compat="xrv-1.5", **kwargs))


def prepared(image, resize, resolution):
    square = XRayCenterCrop()(image)
    return XRayResizer(resolution)(square) if resize == "skimage" else square


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_published_values_come_out(vector, image_of):
    route = "bilinear" if vector["resize"] == "bilinear" else "antialias"
    model = model_of(vector["weights"], resize_route=route)
    image = prepared(image_of(vector["image"]), vector["resize"], model.input_resolution)
    with torch.inference_mode():
        outputs = model(torch.from_numpy(image)[None])[0].numpy()
    names = list(torch_targets(model))
    found = [outputs[names.index(name)] for name in vector["values"]]
    np.testing.assert_allclose(found, list(vector["values"].values()), atol=vector["atol"])


def torch_targets(model):
    # Untrained outputs have no name; the published vectors list them under the common order.
    from torchxrayvision.labels import DEFAULT_PATHOLOGIES

    return DEFAULT_PATHOLOGIES if len(model.targets) == len(DEFAULT_PATHOLOGIES) else model.targets


def test_features_of_the_published_example(image_of):
    model = model_of("densenet121-res224-all")
    image = prepared(image_of("16747_3_1.jpg"), "skimage", 224)
    with torch.inference_mode():
        features = model.features2(torch.from_numpy(image)[None])[0].numpy()
    np.testing.assert_allclose(features[:3], [0.052227624, 0.014457048, 0.0], atol=1e-5)
    np.testing.assert_allclose(features[-3:], [0.1864362, 0.0, 0.9219263], atol=1e-5)


def test_classifier_is_the_one_of_the_authors_web_application():
    bias = model_of("densenet121-res224-all").classifier.bias.detach().numpy().astype("<f4")
    digest = hashlib.sha256(bias.tobytes()).hexdigest()
    assert digest == "d4f01b6ae8c1c983aca51797c03cea294872396922e91e4ba09f8e327989f73d"
