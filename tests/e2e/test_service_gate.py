"""The gate of the service with a reference of known images, from C-STORE to the recorded reason."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pydicom
import pytest

from support.page import photograph
from support.service_runs import send, settled
from torchxrayvision.images import read_image
from torchxrayvision.models import get_model
from torchxrayvision.phantom import simulate, write_dicom
from torchxrayvision.screening import reference_of
from torchxrayvision.service import Service, config_of
from torchxrayvision.transforms import XRayResizer

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
SIDE = 256


def landscape():
    """A photograph in grey, as a secondary capture brings it."""
    from PIL import Image

    grey = Image.open(io.BytesIO(photograph())).convert("L").resize((SIDE, SIDE))
    return np.asarray(grey, np.float64) / 255


def leg():
    """A lower leg: soft tissue in air, with two bones whose rims are dense."""
    down, across = np.mgrid[:SIDE, :SIDE] / SIDE
    picture = np.full((SIDE, SIDE), 0.02)
    limb = np.abs(across - 0.5) < 0.22 + 0.05 * np.sin(2 * down)
    picture[limb] = 0.45
    for centre, width in ((0.44, 0.075), (0.62, 0.03)):
        away = np.abs(across - centre - 0.02 * down) / width
        picture = np.where(away < 1, 0.62 + 0.3 * away**4, picture)
    return picture + 0.01 * np.random.default_rng(0).standard_normal(picture.shape)


def blank():
    """An exposure of nothing: one grey with the noise of a detector."""
    return 0.4 + 0.004 * np.random.default_rng(1).standard_normal((SIDE, SIDE))


OTHERS = {"photograph": landscape, "leg": leg, "blank": blank}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """What a site writes with `xrv check --reference FOLDER --write-reference FILE`."""
    squares = []
    for number in range(100, 132):
        made = simulate(number, seed=7, size=SIDE, views=["PA"]).image
        squares.append(XRayResizer(144)(made))
    path = tmp_path_factory.mktemp("site") / "site.safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what demonstration weights are
        reference_of(squares, get_model("demo")).save(path)
    return path


def dicom(number, picture=None):
    """A chest radiograph by its header; its pixels are a simulated one's, or any in [0, 1]."""
    made = simulate(number, seed=7, size=SIDE, views=["PA"])
    dataset = write_dicom(None, made, seed=7, number=number, modality="CR")
    dataset.StudyInstanceUID = f"1.2.826.0.1.3680043.10.999.19.{number + 1}"
    if picture is not None:
        stored = np.rint(np.clip(picture, 0, 1) * (2**dataset.BitsStored - 1))
        dataset.PixelData = stored.astype("<u2").tobytes()
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def outcomes(folder, reference, chest=None):
    """State and reason of a chest film and of the others, each sent as a modality does."""
    service = Service(
        config_of(
            {
                "folder": str(folder),
                "model": {"weights": "demo"},
                "results": {"kinds": ["sr"]},
                "gate": {"reference": reference},
                "receive": {"port": 0, "any_peer": True},
                "limits": {"free_bytes": 0},
            }
        )
    )
    service.start()
    try:
        names = ["chest", *OTHERS]
        pictures = [chest, *(draw() for draw in OTHERS.values())]
        for number, picture in enumerate(pictures):
            assert send(service.port, dicom(number, picture)) == [0]
        assert settled(service, 120)
        rows = service.queue._rows("SELECT state, reason FROM jobs ORDER BY id")
        return dict(zip(names, rows, strict=True))
    finally:
        service.stop()


def test_what_lies_far_from_chest_films_is_refused_with_its_reason(site, tmp_path):
    check_refusals(outcomes(tmp_path / "state", str(site)))


def check_refusals(found):
    assert found["chest"] in (("produced", ""), ("delivered", ""))
    for name in OTHERS:
        state, reason = found[name]
        assert state == "refused", (name, state, reason)
        assert reason, name
    said = [reason for name, (_, reason) in found.items() if name in OTHERS]
    assert any("from the reference" in reason for reason in said), said


@pytest.mark.shared
def test_the_packaged_reference_lets_a_real_film_pass_and_none_of_the_others(shared, tmp_path):
    film = XRayResizer(SIDE)(read_image(shared / "samples" / "00000001_000.png"))
    film = (film[0] + 1024) / 2048
    check_refusals(outcomes(tmp_path / "state", "packaged", film))
