"""Pictures that models of frontal chest radiographs should not be given."""

import csv
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from typer.testing import CliRunner

from torchxrayvision import screening
from torchxrayvision.cli import app
from torchxrayvision.errors import UnknownNameError
from torchxrayvision.images import read_raster
from torchxrayvision.phantom import simulate
from torchxrayvision.screening.checks import Header, contradictions
from torchxrayvision.screening.pose import (
    SIDE,
    Pose,
    PoseModel,
    features,
    measure_frame,
    pose_of,
    poses,
)


@pytest.fixture(scope="module")
def film():
    """A simulated frontal film, uint8."""
    image = simulate(3, seed=5, size=160, views=("PA",)).image[0]
    return np.round((image + 1024) * (255 / 2048)).clip(0, 255).astype(np.uint8)


def _check(tmp_path, picture, **options):
    Image.fromarray(np.ascontiguousarray(picture)).save(tmp_path / "film.png")
    (result,) = screening.iter_checks(tmp_path / "film.png", **options)
    return result


def test_an_upright_frontal_film_passes(tmp_path, film):
    result = _check(tmp_path, film)
    assert (result.verdict, result.codes, result.pose.turns) == ("ok", (), 0)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_films_say_how_far(tmp_path, film, turns):
    result = _check(tmp_path, np.rot90(film, -turns))
    assert (result.verdict, result.codes, result.pose.turns) == ("refused", ("rotated",), turns)
    assert f"{90 * turns} degrees clockwise" in result.remarks[0].message


def test_inverted_films_are_refused(tmp_path, film):
    assert _check(tmp_path, 255 - film).codes == ("inverted",)
    both = _check(tmp_path, np.rot90(255 - film, 2))
    assert set(both.codes) == {"inverted", "rotated"}


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_blank_pictures_are_refused(tmp_path, grey):
    result = _check(tmp_path, np.full((90, 120), grey, np.uint8))
    assert (result.verdict, result.codes) == ("refused", ("blank",))


def test_what_is_no_chest_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    stripes = np.tile(np.linspace(0, 255, 32), (128, 4)) + rng.normal(0, 5, (128, 128))
    result = _check(tmp_path, stripes.clip(0, 255).astype(np.uint8))
    assert (result.verdict, result.codes[0]) == ("refused", "not-chest")


def test_what_the_caller_allows_is_not_refused(tmp_path, film):
    assert _check(tmp_path, np.rot90(film), allow=["rotated"]).verdict == "noted"
    with pytest.raises(UnknownNameError, match="unknown remark 'rotate'; did you mean 'rotated'"):
        screening.iter_checks(tmp_path, allow=["rotate"])


def test_bars_around_a_film_are_noted_and_looked_past(tmp_path, film):
    wide = np.pad(film, ((100, 60), (140, 20)), constant_values=255)
    result = _check(tmp_path, wide)
    assert result.plate.bars == pytest.approx(1 - film.size / wide.size, abs=0.02)
    assert result.plate.inside == pytest.approx((100, 260, 140, 300), abs=3)
    assert "bars" in result.codes
    assert result.verdict == "noted"


def test_burnt_in_text_is_counted():
    assert _letters("L") == 0  # a side marker
    assert _letters("PORTABLE") == 8
    assert _letters("ERECT", paper=255, ink=0) == 5


def _letters(words, paper=0, ink=255):
    shade = np.abs(paper - np.linspace(0, 200, 600)[:, None] * np.ones(500))
    canvas = Image.fromarray(shade.astype(np.uint8))
    ImageDraw.Draw(canvas).text((40, 30), words, fill=ink, font=ImageFont.load_default(20))
    return measure_frame(_raster(canvas)).letters


def _raster(image):
    import io

    file = io.BytesIO()
    image.save(file, "PNG")
    return read_raster(file.getvalue())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda film: film.astype(np.uint16) * 16, "of the range that the file declares"),
        (lambda film: np.clip(film * 3.0, 0, 255).astype(np.uint8), "very bright|clipped to white"),
        (lambda film: np.clip(film * 2.0 - 330, 0, 255).astype(np.uint8), "very dark|black"),
    ],
)
def test_unusual_exposure_is_noted(tmp_path, film, change, said):
    result = _check(tmp_path, change(film))
    messages = [remark.message for remark in result.remarks if remark.code == "exposure"]
    assert len(messages) == 1
    assert any(part in messages[0] for part in said.split("|"))


def _dicom(path, picture, **elements):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    dataset.Rows, dataset.Columns = picture.shape
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 7, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.PixelData = np.ascontiguousarray(picture).tobytes()
    dataset.save_as(path, enforce_file_format=True)


def test_a_header_that_contradicts_the_picture_is_noted(tmp_path, film):
    facts = {"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA"}
    _dicom(tmp_path / "a.dcm", film, **facts)
    _dicom(tmp_path / "b.dcm", film, **(facts | {"ViewPosition": "LL"}))
    _dicom(tmp_path / "c.dcm", 255 - film, **facts)
    _dicom(tmp_path / "d.dcm", film, **(facts | {"Modality": "MR", "BodyPartExamined": "KNEE"}))
    table = screening.check(tmp_path)
    assert table["codes"].tolist() == ["", "header", "inverted header", "header"]
    assert "ViewPosition says LL" in table["remarks"][1]
    assert "MONOCHROME1 shows it right" in table["remarks"][2]
    assert table["inverted"].tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("header", "pose", "said"),
    [
        (Header("CR", "CHEST", "PA"), Pose(-1, 0, False, 1, -1), "ViewPosition says PA"),
        (Header("CR", "CHEST"), Pose(-1, 0, False, -1, -1), "does not show it"),
        (Header("CR", "THORAX", "AP", "MONOCHROME1"), Pose(1, 0, False, -1, -1), ""),
        (Header(), Pose(1, 0, True, -1, -1), ""),
        (Header("CR", "EXTREMITY", "AP"), Pose(-1, 0, False, 1, -1), ""),
    ],
)
def test_contradictions(header, pose, said):
    found = list(contradictions(header, pose))
    assert len(found) == bool(said)
    assert all(said in text for text in found)


def test_a_damaged_header_says_nothing(tmp_path):
    from torchxrayvision.inputs import InputFile
    from torchxrayvision.screening.checks import read_header

    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM" + b"\x08\x00\x60\x00CS\xff\xff")
    assert read_header(InputFile(tmp_path / "a.dcm", "a.dcm")) == Header()


class Views:
    """Stands for the view model: what it says is planted."""

    input_resolution = 32

    def __init__(self, lateral):
        self.lateral = lateral

    def predict(self, x):
        import torch

        from torchxrayvision.models import Prediction

        assert x.shape == (1, 1, 32, 32)
        share = torch.tensor([self.lateral])
        return Prediction("probability", {"Frontal": 1 - share, "Lateral": share})


@pytest.mark.parametrize(("lateral", "codes"), [(0.9, ("lateral",)), (0.1, ())])
def test_the_view_model_has_the_last_word_on_views(tmp_path, film, lateral, codes):
    assert _check(tmp_path, film, view_model=Views(lateral)).codes == codes


def test_poses_are_one_picture_in_eight(film):
    thumbnail = film[::2, ::2][:SIDE, :SIDE].astype(np.float32)
    eight = poses(thumbnail)
    for turns in range(4):
        np.testing.assert_allclose(eight[turns], np.rot90(eight[0], turns))
        np.testing.assert_allclose(eight[turns + 4], 1 - eight[turns])
        np.testing.assert_allclose(
            poses(-np.rot90(thumbnail, turns))[0], eight[turns + 4], atol=5e-3
        )


def test_scores_turn_with_the_picture(film):
    rng = np.random.default_rng(1)
    size = features(poses(np.zeros((SIDE, SIDE), np.float32))[0]).size
    vectors = (rng.normal(0, 0.1, size).astype(np.float32) for _ in range(3))
    model = PoseModel(
        np.zeros(size, np.float32), np.ones(size, np.float32), np.zeros((1, size), np.float32),
        *vectors, np.zeros(4, np.float32),
    )  # fmt: skip
    thumbnail = film[::2, ::2][:SIDE, :SIDE].astype(np.float32)
    first = pose_of(thumbnail, model)
    for turns in range(4):
        other = pose_of(np.rot90(thumbnail, -turns), model)
        assert other.chest == pytest.approx(first.chest, abs=1e-3)
        assert (other.turns - first.turns) % 4 == turns


def test_the_command_writes_a_table_and_fails_for_a_refused_file(tmp_path, film):
    Image.fromarray(film).save(tmp_path / "a.png")
    Image.fromarray(255 - film).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    table = tmp_path / "table.csv"
    done = CliRunner().invoke(app, ["check", str(tmp_path), "--output", str(table)])
    assert done.exit_code == 1
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == ["ok", "refused", "error"]
    assert "3 files: 1 error, 1 ok, 1 refused" in done.output

    again = CliRunner().invoke(
        app, ["check", str(tmp_path / "a.png"), "--output", str(tmp_path / "t.json")]
    )
    assert again.exit_code == 0
    assert [row["verdict"] for row in json.loads((tmp_path / "t.json").read_text())] == ["ok"]

    shown = CliRunner().invoke(app, ["check", str(tmp_path / "b.png"), "--allow", "inverted"])
    assert shown.exit_code == 0
    assert "air is bright" in shown.output


def test_the_command_refuses_other_formats_and_empty_folders(tmp_path):
    for arguments in (["--output", "table.txt"], []):
        assert CliRunner().invoke(app, ["check", str(tmp_path), *arguments]).exit_code == 2
