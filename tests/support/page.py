"""A page with the demonstration networks, asked as a browser would ask it."""

from __future__ import annotations

import contextlib
import io
import warnings
import zipfile

import numpy as np

import torchxrayvision as xrv
from torchxrayvision.app import Access, Classifier, Networks, Settings, create_app
from torchxrayvision.phantom import simulate, write_dicom

HOST = "127.0.0.1:8000"
OPEN = contextlib.ExitStack()  # closed after each module, see unit/app/conftest.py
OWN = {"host": HOST, "origin": f"http://{HOST}"}


def networks(*names, segmenter="demo-anatomy"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = [Classifier(xrv.models.get_model(name)) for name in names or ("demo",)]
        found = Networks(models, segmenter)
        if segmenter is not None:
            assert found.segmenter  # loaded here, where its warning is expected
    return found


def client(nets, access=None, *, inside=True, on_closed=None, **settings):
    """A client of a new page; with the cookie unless it stays outside."""
    from starlette.testclient import TestClient

    access = access or Access("127.0.0.1", 8000)
    app = create_app(nets, access, Settings(**settings), on_closed=on_closed)
    # One event loop for all requests, as a server has.
    found = OPEN.enter_context(TestClient(app, base_url=f"http://{HOST}", headers=OWN))
    if inside:
        token = access.new_address().partition("token=")[2]
        assert found.get(f"/?token={token}").status_code == 200
    return found


def add(page, name, data):
    """The keys of what came of a file."""
    from urllib.parse import quote

    answer = page.post("/api/images", content=data, headers={"x-name": quote(name)})
    assert answer.status_code == 201, answer.text
    return [item["key"] for item in answer.json()["images"]]


def chest(size=512, index=0, **findings):
    """A simulated frontal image, float32 (1, H, W)."""
    return simulate(index, seed=3, size=size, views=["PA"], findings=findings, others=False)


def chest_dicom(size=512, *, inverted=True, index=0, change=None, **findings):
    """12 bits, by default MONOCHROME1."""
    from pydicom import dcmwrite

    dataset = write_dicom(
        None, chest(size, index, **findings), seed=3, number=index, inverted=inverted
    )
    if change is not None:
        change(dataset)
    file = io.BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def chest_png16(size=512, index=0, **findings):
    from PIL import Image

    image = chest(size, index, **findings).image[0]
    levels = np.rint((image + 1024) * (65535 / 2048)).astype(np.uint16)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    return file.getvalue()


def chest_jpeg(size=512, index=0, **findings):
    from PIL import Image

    image = chest(size, index, **findings).image[0]
    file = io.BytesIO()
    Image.fromarray(np.rint((image + 1024) * (255 / 2048)).astype(np.uint8)).save(
        file, "JPEG", quality=95
    )
    return file.getvalue()


def photograph():
    """What no chest is: a landscape in colour."""
    from PIL import Image

    rows, columns = np.mgrid[0:300, 0:400]
    sky = np.stack([120 + 0 * rows, 160 + rows // 6, 250 - rows // 8], -1)
    hills = rows > 170 + 45 * np.sin(columns / 31) + 20 * np.sin(columns / 9)
    sky[hills] = np.stack([60 + columns // 9, 120 - rows // 9, 40 + 0 * rows], -1)[hills]
    sun = (rows - 60) ** 2 + (columns - 310) ** 2 < 700
    sky[sun] = (255, 240, 150)
    file = io.BytesIO()
    Image.fromarray(sky.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def zipped(**files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()
