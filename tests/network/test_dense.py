"""Published example values of segmentation networks and autoencoders, on the real weights.

Opt-in: `pytest -m network`. Each test says why it skips where the network is closed.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchxrayvision.autoencoders import ResNetAE
from torchxrayvision.baseline_models.chestx_anatomy import UNetResNet50
from torchxrayvision.baseline_models.chestx_det import PSPNet
from torchxrayvision.baseline_models.ieee8023 import VQGAN
from torchxrayvision.errors import (
    LicenseWarning,
    OfflineError,
    UnpinnedDownloadWarning,
)
from torchxrayvision.facts import RemoteFile
from torchxrayvision.images import read_image
from torchxrayvision.remote import fetch
from torchxrayvision.transforms import XRayCenterCrop

pytestmark = [
    pytest.mark.network,
    *(
        pytest.mark.filterwarnings(f"ignore::{kind.__module__}.{kind.__name__}")
        for kind in (UnpinnedDownloadWarning, LicenseWarning)
    ),
]

FILM = "https://raw.githubusercontent.com/mlmed/torchxrayvision/master/tests/00000001_000.png"
SHA256 = "c8cbe59e6b9b186060dc68e63965658fa6b5b3ada6648d25c189b8b69b43cd4c"
# The authors' own example, at the commits that hold it.
DEEPWISE = "https://raw.githubusercontent.com/Deepwise-AILab/ChestX-Det-Dataset"
DEMO = RemoteFile(
    url=f"{DEEPWISE}/25566973f5bedf1bb1e9ba98e78e4ad502dec97c/pre-trained_PSPNet/demo.png",
    filename="demo.png",
    sha256="04b94409c88760a347bcd614f571922caf616662257f49ac71835039232f4743",
)
LEFT_LUNG = RemoteFile(
    url=f"{DEEPWISE}/a33fa5ce55f58b0f2b7b7977c9ed5c313283303a/pre-trained_PSPNet/demo_left_lung.png",
    filename="demo_left_lung.png",
    sha256="64635475cf40974a9dc52f23b1147293e85c68daf6d45d417383fed6eacb4f26",
)


def or_skip(call):
    try:
        return call()
    except OfflineError as error:
        pytest.skip(f"the network is closed: {error}")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    file = RemoteFile(url=FILM, filename="00000001_000.png", sha256=SHA256)
    path = or_skip(lambda: fetch(file, cache=tmp_path_factory.mktemp("film")))
    return torch.from_numpy(XRayCenterCrop()(read_image(path)))[None]


def test_logits_of_the_pspnet_span_what_was_reported(film):
    model = or_skip(PSPNet)
    with torch.inference_mode():
        logits = model(film)
    assert logits.shape == (1, 14, 512, 512)
    assert float(logits.min()) == pytest.approx(-26.15, abs=0.05)
    assert float(logits.max()) == pytest.approx(14.30, abs=0.05)


def test_left_lung_is_the_mask_that_the_authors_show(tmp_path):
    cv2 = pytest.importorskip("cv2")
    paths = [or_skip(lambda f=f: fetch(f, cache=tmp_path)) for f in (DEMO, LEFT_LUNG)]
    film, expected = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths)
    film = cv2.resize(film, (512, 512), interpolation=cv2.INTER_CUBIC)
    x = torch.from_numpy(film)[None, None].float() / 255 * 2048 - 1024
    model = or_skip(PSPNet)
    with torch.inference_mode():
        mask = model(x)[0, model.targets.index("Left Lung")].numpy() > 0
    assert mask.mean() == pytest.approx(0.1351395, abs=1e-4)
    assert (mask != (expected > 0)).mean() < 1e-4


@pytest.mark.parametrize("name", ["cxr2-vqgan-768-sd", "cxr2-vqgan-768-msdd"])
def test_vqgan_gives_back_the_film(film, name):
    model = or_skip(lambda: VQGAN(name))
    grid = {"cxr2-vqgan-768-sd": (1, 64, 24, 24), "cxr2-vqgan-768-msdd": (1, 128, 12, 12)}
    words = {"cxr2-vqgan-768-sd": 256, "cxr2-vqgan-768-msdd": 512}
    with torch.inference_mode():
        assert model.encode(film).shape == grid[name]
        image = model(film)
    assert model.config.words == words[name]
    assert correlation(image, film) > 0.9


def test_autoencoder_gives_back_the_film(film):
    model = or_skip(lambda: ResNetAE("101-elastic"))
    with torch.inference_mode():
        assert correlation(model(film)["out"], film) > 0.9


def test_lungs_of_the_unet_lie_on_either_side_of_the_heart(film):
    model = or_skip(UNetResNet50)
    with torch.inference_mode():
        maps = model.predict(film).values
    columns = torch.arange(512.0)
    centre = {
        name: float((maps[name][0] > 0.5).float().sum(0) @ columns / (maps[name] > 0.5).sum())
        for name in ("right lung", "heart", "left lung")
    }
    assert centre["right lung"] < centre["heart"] < centre["left lung"]


def correlation(image, film):
    small = [torch.nn.functional.interpolate(x, (64, 64), mode="area") for x in (image, film)]
    return float(np.corrcoef(*(x.flatten().numpy() for x in small))[0, 1])
