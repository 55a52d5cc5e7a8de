"""Files to masks in their geometry, with a network whose answer is planted."""

import csv
import tarfile
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from torchxrayvision import measures, segmentation
from torchxrayvision.cli import app
from torchxrayvision.errors import DependencyError, UnknownNameError
from torchxrayvision.images import ImageInfo, Raster
from torchxrayvision.models import Segmenter
from torchxrayvision.phantom import simulate
from torchxrayvision.screening.pose import Pose
from torchxrayvision.segmentation import files
from torchxrayvision.segmentation import masks as masks_module
from torchxrayvision.segmentation import networks as _segmenters
from torchxrayvision.segmentation.masks import Masks
from torchxrayvision.transforms import Placement

SIDE = 64
NAMES = ("Left Lung", "Right Lung", "Heart", "Spine")


class Planted(Segmenter):
    """Finds what is bright; which structure it is, the part of the square tells."""

    def __init__(self, names=NAMES):
        super().__init__(targets=names, input_resolution=SIDE)
        self.weights = "planted"
        self.one = torch.nn.Parameter(torch.ones(1))

    def _rescale(self, x):
        return x

    def _maps(self, x):
        return x * self.one

    def _logits(self, maps, side):
        y, x = ((torch.arange(side) + 0.5) / side).view(-1, 1), (torch.arange(side) + 0.5) / side
        middle = (x > 0.3) & (x < 0.7)
        zones = (x >= 0.7, x <= 0.3, middle & (y > 0.5), middle & (y <= 0.5))
        return torch.cat([torch.where(zone, maps / 100, -10) for zone in zones], 1)


def drawn(height, width):
    """A picture whose centre square holds the four structures, and their masks."""
    side = min(height, width)
    top, left = height // 2 - side // 2, width // 2 - side // 2
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    square = {
        "Left Lung": (x > 0.74) & (x < 0.95) & (y > 0.1) & (y < 0.8),
        "Right Lung": (x > 0.05) & (x < 0.26) & (y > 0.2) & (y < 0.8),
        "Heart": (x > 0.35) & (x < 0.65) & (y > 0.55) & (y < 0.8),
        "Spine": (x > 0.45) & (x < 0.52) & (y > 0.05) & (y < 0.45),
    }
    masks = {name: np.zeros((height, width), bool) for name in NAMES}
    for name, mask in square.items():
        masks[name][top : top + side, left : left + side] = mask
    return np.where(np.logical_or.reduce(list(masks.values())), 255, 0).astype(np.uint8), masks


@pytest.fixture
def net(monkeypatch):
    planted = Planted()
    named = (planted, segmentation.NamedSegmenter())
    monkeypatch.setattr(files, "named_or_given", lambda *_: named)
    return planted


def _rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def _edges(mask):
    rows, columns = np.nonzero(mask)
    return np.array([rows.min(), rows.max(), columns.min(), columns.max()])


@pytest.mark.parametrize("shape", [(128, 128), (200, 130), (130, 211)])
def test_masks_return_to_the_geometry_of_the_file(tmp_path, net, shape):
    picture, masks = drawn(*shape)
    Image.fromarray(picture).save(tmp_path / "film.png")
    (result,) = segmentation.segment(tmp_path / "film.png", net)
    assert list(result.masks) == list(NAMES)
    assert result.picture.shape == shape
    coarse = min(shape) / SIDE  # a pixel of the network
    for name, mask in masks.items():
        assert result.masks[name].shape == shape
        off = np.abs(_edges(result.masks[name]) - _edges(mask)).max()
        assert off <= max(1, coarse), (name, off)


def test_maps_keep_their_numbers_in_two_bytes():
    maps = np.random.default_rng(0).random((2, 5, 5)).astype(np.float32)
    maps[0, 0, :3] = 0, 1, np.nan
    masks = Masks(["Heart", "Spine"], maps, Placement(5, 5, 0, 0, 5))
    for name, plane in zip(masks, np.nan_to_num(maps), strict=True):
        assert np.abs(masks.of_square(name) - plane).max() < 1e-5
        assert np.abs(masks.probability(name) - plane).max() < 1e-5
        np.testing.assert_array_equal(masks[name], plane >= 0.5)
    assert masks.of_square("Heart")[0, :3].tolist() == [0, 1, 0]


@pytest.mark.parametrize("kind", ["u1", ">u2", "<u2", "f4"])
@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_the_picture_is_as_bright_as_its_numbers_say(kind, scale):
    """Stored codes are looked up in a table; each must get what arithmetic on the image gives."""
    pixels = np.random.default_rng(0).integers(0, 250, (301, 203)).astype(kind)
    info = ImageInfo(format="png", height=301, width=203, bits=8, photometric="MONOCHROME2")
    raster = Raster(pixels=pixels, scale=scale * 2048 / 255, offset=-1024.0 * scale, info=info)
    values = raster.to_array()[0]
    low, high = np.quantile(values[::4, ::4], (0.002, 0.998))
    values -= low
    values *= 255 / (high - low)
    shown = masks_module._on_screen(raster)
    np.testing.assert_array_equal(shown, np.clip(values, 0, 255).astype(np.uint8))


def test_files_are_written_while_the_network_runs_and_in_order():
    """The network is asked for the next image before the files of the last one are there."""
    begun, saved = threading.Event(), []

    def results():
        for number in range(4):
            if number == 1:
                begun.set()
            yield number

    def save(number):
        assert number or begun.wait(30)
        saved.append(number)
        return -number

    assert list(files._meanwhile(results(), save, 1)) == [0, -1, -2, -3]
    assert saved == [0, 1, 2, 3]


def test_no_more_results_wait_than_a_batch_holds():
    release, computed = threading.Event(), []

    def save(number):
        assert release.wait(30)
        return number

    def results():
        for number in range(10):
            computed.append(number)
            if number == 3:  # three wait, one is saved: nobody asks for more before one is done
                release.set()
            yield number

    rows = files._meanwhile(results(), save, 3)
    assert next(rows) == 0
    assert computed == [0, 1, 2, 3]
    assert list(rows) == list(range(1, 10))


def test_a_disk_that_is_full_ends_the_run():
    def save(number):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        list(files._meanwhile(iter(range(9)), save, 2))


def test_another_engine_gives_the_same_masks(tmp_path, monkeypatch):
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))
    Image.fromarray(drawn(96, 96)[0]).save(tmp_path / "film.png")
    (plain,) = segmentation.segment(tmp_path / "film.png", Planted())
    (other,) = segmentation.segment(tmp_path / "film.png", Planted(), engine="onnx")
    for name in NAMES:
        np.testing.assert_array_equal(plain.masks[name], other.masks[name])
    with pytest.raises(UnknownNameError, match="openvino"):
        segmentation.segment(tmp_path / "film.png", Planted(), engine="tensorrt")


def test_a_film_stored_on_its_side_comes_back_upright(tmp_path, net):
    picture, masks = drawn(200, 130)
    exif = Image.Exif()
    exif[0x0112] = 6  # the viewer turns it by 90 degrees clockwise
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(picture)))
    turned.save(tmp_path / "film.jpg", exif=exif, quality=100)
    (result,) = segmentation.segment(tmp_path / "film.jpg", net)
    mask = result.masks["Right Lung"]
    assert mask.shape == (200, 130)
    assert np.abs(_edges(mask) - _edges(masks["Right Lung"])).max() <= 3


@pytest.fixture
def lying(monkeypatch):
    """Make every film seem to lie turned."""

    def lie(turns, chest=1.0):
        pose = Pose(chest=chest, turns=turns, inverted=False, lateral=-1.0, mirrored=-1.0)
        monkeypatch.setattr("torchxrayvision.segmentation.masks.pose_of", lambda thumbnail: pose)

    return lie


def save_turned(path, turns, shape=(200, 130)):
    """A picture as `turns` quarter turns clockwise leave it, and its masks."""
    picture, masks = drawn(*shape)
    Image.fromarray(np.ascontiguousarray(np.rot90(picture, -turns))).save(path)
    return {name: np.rot90(mask, -turns) for name, mask in masks.items()}


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_films_that_lie_turned_are_set_upright_for_the_network_alone(tmp_path, net, lying, turns):
    save_turned(tmp_path / "upright.png", 0)
    expected = next(segmentation.segment(tmp_path / "upright.png", net)).measures()
    masks = save_turned(tmp_path / "film.png", turns)
    lying(turns)
    (result,) = segmentation.segment(tmp_path / "film.png", net, upright=True)
    assert result.turned == result.masks.placement.turns == turns
    for name, mask in masks.items():
        assert result.masks[name].shape == result.picture.shape == mask.shape
        assert np.abs(_edges(result.masks[name]) - _edges(mask)).max() <= 3, name
    assert result.measures() == pytest.approx(expected, rel=0.02, nan_ok=True)


def test_films_that_lie_turned_are_told_and_left_as_they_are(tmp_path, net, lying):
    lying(1)
    save_turned(tmp_path / "film.png", 0)
    (result,) = segmentation.segment(tmp_path / "film.png", net)
    assert (result.turned, result.masks.placement.turns) == (1, 0)


def test_what_is_no_chest_is_not_turned(tmp_path, net, lying):
    lying(1, chest=-0.1)
    save_turned(tmp_path / "film.png", 0)
    (result,) = segmentation.segment(tmp_path / "film.png", net, upright=True)
    assert (result.turned, result.masks.placement.turns) == (0, 0)


@pytest.mark.parametrize("turns", range(4))
def test_files_of_a_turned_film_have_its_geometry(tmp_path, net, lying, turns):
    nibabel = pytest.importorskip("nibabel")
    masks = save_turned(tmp_path / "film.png", turns)
    lying(turns)
    results = segmentation.segment(
        tmp_path / "film.png", net, upright=True, pixel_spacing=(0.5, 0.25)
    )
    with segmentation.SegmentationWriter(tmp_path / "out", NAMES, nifti=True) as writer:
        for result in results:
            writer.write(result)
    folder = tmp_path / "out" / "film"
    assert _pixels(folder / "labels.png").shape == masks["Heart"].shape
    assert _pixels(folder / "masks" / "Heart.png").shape == masks["Heart"].shape
    assert _pixels(folder / "overlay.jpg").shape == (200, 130, 3)  # for a person: upright
    (row,) = _rows(tmp_path / "out" / "measures.csv")
    assert row["turned_clockwise"] == str(90 * turns)
    across = 0.5 if turns % 2 else 0.25
    assert float(row["heart_width_mm"]) == pytest.approx(
        float(row["heart_width_px"]) * across, abs=0.1
    )
    volume = nibabel.load(folder / "labels.nii.gz")

    def place(name):
        index = 1 + NAMES.index(name)
        columns, rows, _ = np.nonzero(np.asarray(volume.dataobj) == index)
        return (volume.affine @ [columns.mean(), rows.mean(), 0, 1])[:3]

    # To the right, front and head of the patient.
    assert place("Right Lung")[0] - place("Left Lung")[0] > 10
    assert place("Spine")[2] - place("Heart")[2] > 10
    assert abs(place("Right Lung")[1] - place("Left Lung")[1]) < 1e-6


@pytest.mark.filterwarnings("ignore::torchxrayvision.errors.DemonstrationWarning")
def test_a_simulated_film_on_its_side_gets_the_masks_of_the_upright_one(tmp_path):
    film = simulate(3, seed=5, size=256, views=("PA",)).image[0]
    grey = np.clip((film + 1024) / 8, 0, 255).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(np.ascontiguousarray(np.rot90(grey))).save(tmp_path / "b.png")
    upright, turned = segmentation.segment(tmp_path, "demo-anatomy", upright=True)
    assert (upright.turned, turned.turned) == (0, 3)
    for name in ("Heart", "Left Lung"):
        assert upright.masks[name].sum() > 500
        one, other = upright.masks[name], np.rot90(turned.masks[name], -1)
        assert (one != other).mean() < 0.001
    assert turned.measures() == pytest.approx(upright.measures(), rel=0.02, nan_ok=True)


def test_the_command_tells_of_turned_films(tmp_path, net, lying):
    save_turned(tmp_path / "film.png", 1)
    lying(1)
    command = [
        "segment",
        str(tmp_path / "film.png"),
        "--weights",
        "x",
        "--out-dir",
        str(tmp_path / "o"),
    ]
    told = CliRunner().invoke(app, command)
    assert "1 of 1 images seem to be rotated; --upright turns them" in told.output
    done = CliRunner().invoke(app, [*command, "--upright", "--overwrite"])
    assert done.exit_code == 0
    assert "1 of 1 images were turned upright" in done.output


def test_measures_are_those_of_what_is_drawn(tmp_path, net):
    picture, masks = drawn(256, 256)
    Image.fromarray(picture).save(tmp_path / "film.png")
    (result,) = segmentation.segment(tmp_path / "film.png", net, pixel_spacing=(0.5, 0.5))
    found = result.measures()
    assert found["cardiothoracic_ratio"] == pytest.approx(0.3 / 0.9, abs=0.01)
    assert found["thorax_width"] == pytest.approx(0.9 * 256, abs=4)
    assert found["lung_area_ratio"] == pytest.approx(measures.lung_area_ratio(masks), abs=0.03)
    assert np.isnan(found["spine_heart_distance"])  # no spine beside the heart


def test_a_network_without_heart_and_lungs_measures_nothing(tmp_path):
    Image.fromarray(drawn(96, 96)[0]).save(tmp_path / "film.png")
    (result,) = segmentation.segment(tmp_path / "film.png", Planted(["A", "B", "C", "D"]))
    assert np.isnan(list(result.measures().values())).all()
    assert result.cardiothoracic() is None


def test_files_that_fail_are_results_with_a_reason(tmp_path, net):
    Image.fromarray(drawn(96, 96)[0]).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    results = list(segmentation.segment([tmp_path, tmp_path / "c.png"], net, batch_size=2))
    assert [bool(r.error) for r in results] == [False, True, True]
    assert results[1].masks is None
    assert np.isnan(list(results[1].measures().values())).all()


def test_compressed_archives_are_read_in_order(tmp_path, net):
    names = ["a.png", "b.png", "c.png"]
    with tarfile.open(tmp_path / "films.tar.gz", "w:gz") as archive:
        for size, name in zip((96, 80, 112), names, strict=True):
            Image.fromarray(drawn(size, size)[0]).save(tmp_path / name)
            archive.add(tmp_path / name, name)
    results = list(segmentation.segment(tmp_path / "films.tar.gz", net, workers=2))
    assert [r.picture.shape[0] for r in results] == [96, 80, 112]


def test_the_command_writes_everything(tmp_path, net):
    picture, masks = drawn(300, 240)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture).save(tmp_path / folder / "film.png")
    (tmp_path / "bad.dcm").write_bytes(b"no picture")
    given = [str(tmp_path / part) for part in ("one", "two", "bad.dcm")]
    out = tmp_path / "out"
    done = CliRunner().invoke(
        app, ["segment", *given, "--weights", "x", "--out-dir", str(out), "--pixel-spacing", "0.2"]
    )
    assert done.exit_code == 1
    assert "1 of 3 files could not be read" in done.output
    rows = _rows(out / "measures.csv")
    assert [row["folder"] for row in rows] == ["film", "film-2", ""]
    assert rows[2]["error"]
    row = rows[0]
    assert (row["height"], row["width"], row["column_spacing_mm"]) == ("300", "240", "0.2")
    pixels = int(row["Heart px"])
    assert pixels == pytest.approx(masks["Heart"].sum(), rel=0.05)
    assert float(row["Heart mm2"]) == pytest.approx(pixels * 0.04, abs=0.1)
    assert float(row["heart_width_mm"]) == pytest.approx(float(row["heart_width_px"]) / 5, abs=0.1)
    assert not (out / "measures.csv.part").exists()

    with Image.open(out / "film" / "labels.png") as image:
        assert image.mode == "P"
        labels = np.asarray(image)
    key = {r["structure"]: int(r["index"]) for r in _rows(out / "labels.csv")}
    for name in NAMES:
        mask = _pixels(out / "film" / "masks" / f"{name.replace(' ', '_')}.png")
        assert mask.dtype == bool
        np.testing.assert_array_equal(labels == key[name], mask)
    overlay = _pixels(out / "film" / "overlay.jpg")
    assert overlay.shape == (300, 240, 3)
    coloured = np.ptp(overlay.astype(int), axis=2) > 60
    assert 0.005 < coloured.mean() < 0.2


def test_only_some_structures(tmp_path, net):
    Image.fromarray(drawn(96, 96)[0]).save(tmp_path / "film.png")
    (result,) = segmentation.segment(tmp_path / "film.png", net)
    with segmentation.SegmentationWriter(tmp_path / "out", NAMES, only=["lungs"]) as writer:
        writer.write(result)
    found = sorted(path.name for path in (tmp_path / "out" / "film" / "masks").iterdir())
    assert found == ["Left_Lung.png", "Right_Lung.png"]
    with pytest.raises(UnknownNameError, match="structure 'liver'"):
        segmentation.SegmentationWriter(tmp_path / "out", NAMES, only=["liver"])


def test_an_interrupted_run_leaves_what_it_wrote(tmp_path, net):
    Image.fromarray(drawn(96, 96)[0]).save(tmp_path / "film.png")
    (result,) = segmentation.segment(tmp_path / "film.png", net)
    with (
        pytest.raises(KeyboardInterrupt),
        segmentation.SegmentationWriter(tmp_path / "out", NAMES) as writer,
    ):
        writer.write(result)
        raise KeyboardInterrupt
    assert "film.png" in (tmp_path / "out" / "measures.csv.part").read_text()


def test_many_structures_show_the_main_ones(tmp_path):
    names = ["left lung", "right lung", "heart", *(f"vertebra {i}" for i in range(30))]
    writer = segmentation.SegmentationWriter(tmp_path, names)
    writer.close()
    shown = [r["structure"] for r in _rows(tmp_path / "labels.csv")]
    assert shown == ["left lung", "right lung", "heart"]


def test_nifti_has_the_labels_and_the_spacing(tmp_path, net):
    import nibabel

    Image.fromarray(drawn(96, 80)[0]).save(tmp_path / "film.png")
    (result,) = segmentation.segment(tmp_path / "film.png", net, pixel_spacing=(0.5, 0.25))
    with segmentation.SegmentationWriter(tmp_path / "out", NAMES, nifti=True) as writer:
        writer.write(result)
    volume = nibabel.load(tmp_path / "out" / "film" / "labels.nii.gz")
    labels = _pixels(tmp_path / "out" / "film" / "labels.png")
    np.testing.assert_array_equal(np.asarray(volume.dataobj)[..., 0].T, labels)
    assert volume.header.get_zooms()[:2] == (0.25, 0.5)
    assert nibabel.aff2axcodes(volume.affine)[:2] == ("L", "I")


def test_nifti_without_nibabel_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(DependencyError, match=r'pip install .*"nibabel'):
        segmentation.SegmentationWriter(tmp_path, NAMES, nifti=True)


def test_networks_go_by_name():
    assert "chestx_det-pspnet" in _segmenters.list_segmenters()
    with pytest.raises(UnknownNameError, match="segmentation network 'pspnett'"):
        _segmenters.get_segmenter("pspnett")
    with pytest.raises(UnknownNameError, match="segmentation network 'all'"):
        _segmenters.get_segmenter("all")  # weights of a classifier


@pytest.mark.parametrize("spacing", [(-1.0, 1.0), (0.0, 0.0), (float("nan"), 1.0)])
def test_lengths_that_are_none_are_refused(spacing):
    with pytest.raises(ValueError, match="above 0"):
        segmentation.segment("film.png", "demo-anatomy", pixel_spacing=spacing)


def test_measures_in_doubt_say_why_in_the_table_and_in_the_picture(tmp_path, net):
    picture, _ = drawn(128, 128)
    Image.fromarray(picture).save(tmp_path / "good.png")
    picture[40:100, 118:] = 255  # the left lung runs out of the picture
    picture[74:98, 40:90] = 0  # and no heart is left
    Image.fromarray(picture).save(tmp_path / "torn.png")
    films = [tmp_path / "good.png", tmp_path / "torn.png"]
    segmentation.segment_to_folder(films, net, tmp_path / "out")
    good, torn = _rows(tmp_path / "out" / "measures.csv")
    assert good["doubt"] == ""
    assert "Left Lung is cut by the border of the picture" in torn["doubt"]
    assert _pixels(tmp_path / "out" / "good" / "overlay.jpg").shape == (128, 128, 3)
    assert _pixels(tmp_path / "out" / "torn" / "overlay.jpg").shape[0] > 128
