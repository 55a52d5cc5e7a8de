"""From files to explanations in their geometry, in Python and by `xrv explain`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from support.evidence import LAYER, SIDE, CellAutoencoder, Planted
from support.networks import write
from support.synthetic import film
from torchxrayvision import explain
from torchxrayvision.cli import app
from torchxrayvision.errors import ImageNotFoundError, UnknownNameError
from torchxrayvision.models import DenseNet
from torchxrayvision.transforms import Placement

HEIGHT, WIDTH = 300, 200


@pytest.fixture
def picture(tmp_path):
    """A portrait picture with a dark spot; the square begins at row 50."""
    pixels = np.full((HEIGHT, WIDTH), 128, np.uint8)
    pixels[100:150, 100:150] = 5
    pixels[:40] = 0  # darker still, but outside the square
    path = tmp_path / "a b.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("method", ["cam", "gradcam", "gradcam++", "ig", "occlusion"])
def test_evidence_comes_back_in_the_geometry_of_the_file(picture, method):
    options = {"layer": LAYER} if "cam" in method else {}
    found = explain.explain_file(picture, Planted(), "dark", method, **options)
    assert found.heat.shape == found.image.shape == (HEIGHT, WIDTH)
    seen = np.zeros((HEIGHT, WIDTH), bool)
    seen[50:250] = True
    np.testing.assert_array_equal(np.isfinite(found.heat), seen)
    row, column = found.peak
    assert 95 <= row < 155
    assert 95 <= column < 155
    left, top, right, bottom = found.box
    cell = WIDTH / (SIDE / 8)
    assert abs(left - 100) <= cell
    assert abs(top - 100) <= cell
    assert abs(right - 150) <= cell
    assert abs(bottom - 150) <= cell


def test_value_is_what_the_network_says_of_the_prepared_file(picture):
    from torchxrayvision.images import read_raster
    from torchxrayvision.transforms import prepare

    raster = read_raster(picture)
    x = torch.from_numpy(prepare(raster.pixels, raster.scale, raster.offset, SIDE))[None]
    with torch.no_grad():
        expected = Planted()(x).sigmoid()[0, 1].item()
    found = explain.explain_file(picture, Planted(), "dark", layer=LAYER)
    assert found.value == pytest.approx(expected)
    assert found.kind == "probability"
    assert found.title == f"dark: probability {expected:.3g} (gradcam)"


def test_picture_is_the_file_with_a_legend(picture):
    found = explain.explain_file(picture, Planted(), "dark", layer=LAYER)
    shown = found.picture(boxes=True)
    assert shown.shape[1] == WIDTH
    assert shown.shape[0] > HEIGHT
    np.testing.assert_array_equal(shown[260:HEIGHT, :, 0], 128)  # outside the square
    left, top, _, _ = found.box
    assert shown[top, left].tolist() == [0, 255, 255]
    assert found.picture()[top, left].tolist() != [0, 255, 255]


def test_counterfactual_of_a_file(picture):
    found = explain.explain_file(
        picture, Planted(), "dark", "counterfactual", autoencoder=CellAutoencoder(),
        frames=3, change=0.01,
    )  # fmt: skip
    assert found.counterfactual.frames.shape == (3, SIDE, SIDE)
    row, column = found.peak
    assert 95 <= row < 155
    assert 95 <= column < 155
    with pytest.raises(TypeError, match="autoencoder="):
        explain.explain_file(picture, Planted(), "dark", "counterfactual")


def test_model_without_names_and_resolution_is_explained(picture):
    model = torch.nn.Sequential(
        torch.nn.AvgPool2d(64), torch.nn.Flatten(), torch.nn.Linear(64, 2)
    ).bfloat16()
    found = explain.explain_file(picture, model, 1, "gradients")
    assert found.target == "output 1"
    assert found.heat.shape == (HEIGHT, WIDTH)


def test_absent_files_and_targets_are_refused(picture, tmp_path):
    with pytest.raises(ImageNotFoundError):
        explain.explain_file(tmp_path / "gone.png", Planted(), "dark")
    with pytest.raises(UnknownNameError, match="bright, dark, corner"):
        explain.explain_file(picture, Planted(), "Mass")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write("densenet121-res224-all", tmp_path_factory.mktemp("weights"))


def xrv(*arguments):
    return CliRunner().invoke(app, ["explain", *map(str, arguments)])


def test_command_writes_pictures_and_what_was_done(checkpoint, tmp_path):
    for folder in ("x", "y"):
        (tmp_path / "films" / folder).mkdir(parents=True)
        Image.fromarray(film(120, 90, 1)).save(tmp_path / "films" / folder / "same.png")
    (tmp_path / "films" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = xrv(
        tmp_path / "films", "--checkpoint", checkpoint, "--weights", "all", "--out-dir",
        tmp_path / "out", "--target", "Effusion", "--target", "Lung Opacity", "--method", "cam",
        "--boxes",
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    assert "broken.png" in result.stderr
    rows = json.loads((tmp_path / "out" / "explanations.json").read_text())
    assert [bool(row["error"]) for row in rows] == [True, True, False, False, False, False]
    good = rows[2:]
    assert [row["target"] for row in good] == ["Effusion", "Lung Opacity"] * 2
    names = [row["picture"] for row in good]
    assert len(set(names)) == 4
    assert names[:2] == ["same.Effusion.cam.png", "same.Lung_Opacity.cam.png"]
    for row in good:
        with Image.open(tmp_path / "out" / row["picture"]) as shown:
            assert shown.width == 90
            assert shown.height > 120
        assert row["method"] == "cam"
        assert row["weights"] == checkpoint.stem
        assert 0 <= row["value"] <= 1
        assert 0 <= row["peak"][0] < 120
        assert row["box"] is None or row["box"][2] <= 90


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--target", "Efusion"), "did you mean 'Effusion'"),
        (("--target", "Effusion", "--method", "gradcm"), "'gradcm' is not one of 'cam', 'gradcam'"),
    ],
)
def test_command_refuses_before_it_reads(checkpoint, tmp_path, arguments, said):
    Image.fromarray(film(90, 90, 1)).save(tmp_path / "a.png")
    result = xrv(
        tmp_path / "a.png", "--checkpoint", checkpoint, "--out-dir", tmp_path / "out", *arguments
    )
    assert isinstance(result.exception, UnknownNameError) or result.exit_code == 2
    assert said in f"{result.exception} {result.output}"
    assert not (tmp_path / "out").exists()


def test_command_without_images_says_so(checkpoint, tmp_path):
    (tmp_path / "none").mkdir()
    result = xrv(
        tmp_path / "none",
        "--checkpoint",
        checkpoint,
        "--out-dir",
        tmp_path / "o",
        "--target",
        "Mass",
    )
    assert result.exit_code == 2
    assert "no image in" in result.output


def explained(heat, value=0.3, scale=None, point=None, method="gradcam"):
    image = np.zeros(np.shape(heat), np.float32)
    place = Placement.in_middle(*image.shape)
    return explain.Explanation(
        "a.png", "Mass", method, value, "probability", image, np.asarray(heat, np.float32),
        place, scale=scale, operating_point=point,
    )  # fmt: skip


def coloured(picture):
    return np.ptp(picture[:60].astype(int), axis=2).max() > 0


def test_hardly_any_evidence_gets_no_colour_and_no_box():
    heat = np.zeros((60, 60))
    heat[10:20, 30:40] = 9e-6
    faint = explained(heat)
    assert faint.box is None
    assert not coloured(faint.picture(boxes=True))
    assert faint.title == "Mass: probability 0.3 (gradcam), no evidence to show"
    plain = explained(heat * 1e5)
    assert plain.box == (30, 10, 40, 20)
    assert coloured(plain.picture())


@pytest.mark.parametrize("method", [*explain.METHODS, "counterfactual"])
def test_every_method_has_a_floor_below_which_a_map_stays_grey(method):
    heat = np.zeros((60, 60))
    heat[10:20, 30:40] = explain.evidence_floor(method)
    faint, plain = (explained(heat * factor, method=method) for factor in (0.9, 1.1))
    assert faint.box is None
    assert not coloured(faint.picture(boxes=True))
    assert "no evidence to show" in faint.title
    assert plain.box == (30, 10, 40, 20)
    assert coloured(plain.picture())


@pytest.mark.parametrize("method", ["gradients", "ig"])
def test_a_network_that_sees_next_to_nothing_shows_nothing(method, tmp_path):
    """Gradients of any size made a picture as colourful as any other."""
    torch.manual_seed(0)
    model = DenseNet(num_classes=1, weights=None).eval()
    model.targets, model.input_resolution = ["Mass"], 64
    Image.fromarray(film(96, 96, 3)).save(tmp_path / "a.png")
    seen = explain.explain_file(tmp_path / "a.png", model, "Mass", method)
    with torch.no_grad():
        model.classifier.weight *= 1e-6
    faint = explain.explain_file(tmp_path / "a.png", model, "Mass", method)
    assert coloured(seen.picture())
    assert faint.box is None
    assert not coloured(faint.picture(boxes=True))


def test_a_scale_belongs_to_the_network_and_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))
    torch.manual_seed(1)
    model = DenseNet(num_classes=2, weights=None).eval()
    model.input_resolution = 64
    with torch.no_grad():
        model.classifier.weight *= 1000  # well above the least scale
    first = explain.evidence_scale(model, 0, "cam")
    with torch.no_grad():
        model.classifier.weight[0] *= 3
    assert explain.evidence_scale(model, 0, "cam") == pytest.approx(3 * first, rel=1e-3)
    monkeypatch.setattr("torchxrayvision.explain.scale.evidence_of", None)
    assert explain.evidence_scale(model, 0, "cam") == pytest.approx(3 * first, rel=1e-3)
    (kept,) = (tmp_path / "cache").glob("explain/scales.json")
    assert len(json.loads(kept.read_text())) == 2
    kept.write_text("[")
    with pytest.raises(TypeError):  # asked anew, which this test has taken away
        explain.evidence_scale(model, 0, "cam")
    with pytest.raises(TypeError, match="needs autoencoder"):
        monkeypatch.undo()
        explain.evidence_scale(model, 0, "counterfactual")


def test_pictures_of_one_scale_can_be_compared():
    heat = np.zeros((60, 60))
    heat[10:20, 30:40] = 0.5
    strong, weak = (explained(heat, scale=scale).picture() for scale in (0.5, 5.0))
    seen = [np.ptp(picture[15, 35].astype(int)) for picture in (strong, weak)]
    assert 0 < seen[1] < seen[0] / 3
    assert explained(heat, scale=50.0).box is None


def test_a_finding_below_the_operating_point_is_called_so():
    heat = np.ones((60, 60))
    assert "below the operating point 0.4" in explained(heat, point=0.4).title
    assert "operating" not in explained(heat, point=0.2).title


def test_a_run_has_one_scale_per_finding(checkpoint, tmp_path):
    for number in range(3):
        Image.fromarray(film(90, 90, number)).save(tmp_path / f"{number}.png")
    from torchxrayvision.models import load_checkpoint

    model = load_checkpoint(checkpoint, weights="all")

    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain.explain_to_folder(
            tmp_path, model, ["Mass", "Edema"], tmp_path / "out", on_progress=stop
        )
    record = json.loads((tmp_path / "out" / "explanations.json.part" / "run.json").read_text())
    scales = record["machine"]["scales"]
    assert scales == {name: explain.evidence_scale(model, name) for name in ("Mass", "Edema")}
