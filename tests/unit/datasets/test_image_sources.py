"""Where the pixels of a row are: folders, folders of unknown depth, archives."""

from __future__ import annotations

import pickle
import zipfile

import numpy as np
import pytest
import torchvision
from PIL import Image

import torchxrayvision.datasets as xd
from fakes._fake import random_constant
from support.tiny import NAMES, Tiny, as_image, picture, tiny, write_pictures
from torchxrayvision.datasets.images import Files, IndexedFiles, ZipFiles
from torchxrayvision.errors import DatasetError, DatasetNotFoundError, ImageReadError
from torchxrayvision.images import Raster
from torchxrayvision.transforms import XRayCenterCrop, XRayResizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("flat"))


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """Each image in a folder of its own, as archives unpack."""
    flat = write_pictures(tmp_path_factory.mktemp("deep"))
    for i, name in enumerate(NAMES):
        (flat / f"part{i}" / "images").mkdir(parents=True)
        (flat / f"{name}.png").rename(flat / f"part{i}" / "images" / f"{name}.png")
    return flat


@pytest.fixture(scope="module")
def archive(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("zip") / "images.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in NAMES:
            file.write(folder / f"{name}.png", f"train/{name}.png")
        file.writestr("readme.txt", "not an image")
    return path


SOURCES = {
    "files": ("folder", Files("{name}.png")),
    "files by a function": ("folder", Files(lambda row: f"{row['name']}.png")),
    "files in folders of the release": ("deep", Files("{name}.png", folders=("part*/images",))),
    "indexed files": ("deep", IndexedFiles("{name}")),
    "indexed by a key": ("deep", IndexedFiles("{name}.PNG", key=str.swapcase)),
    "members by their path": ("archive", ZipFiles("train/{name}.png")),
    "members by their name": ("archive", ZipFiles("{name}.png", folders=("train", "dev"))),
}


@pytest.fixture(params=SOURCES)
def source(request):
    place, images = SOURCES[request.param]
    if request.param == "indexed by a key":
        images = IndexedFiles(lambda row: f"{row['name']}.png".swapcase(), key=str.swapcase)
    return request.getfixturevalue(place), images


def test_every_source_gives_the_pixels_of_its_row(source):
    place, images = source
    dataset = tiny(place, images=images)
    for i in range(len(dataset)):
        np.testing.assert_allclose(dataset[i]["img"], as_image(i), atol=1e-3)
    dataset.check_paths_exist()


def test_every_source_names_the_image_that_is_missing(source):
    place, images = source
    table = tiny().csv.assign(name=[*NAMES[:3], "lost"])
    dataset = tiny(place, images=images, kwargs={"csvpath": table})
    assert dataset[2]["idx"] == 2
    with pytest.raises(DatasetNotFoundError, match=r"(?i)imgpath=.*lost.*row 3"):
        dataset[3]
    with pytest.raises(DatasetNotFoundError, match=r"(?i)lost"):
        dataset.check_paths_exist()


def test_every_source_names_the_argument_of_its_place(source, tmp_path):
    _, images = source
    with pytest.raises(DatasetNotFoundError, match=r"imgpath=.*pass imgpath"):
        tiny(images=images)[0]
    with pytest.raises(DatasetNotFoundError, match="nowhere"):
        tiny(tmp_path / "nowhere", images=images)[0]


def test_a_damaged_image_is_named_wherever_it_is(folder, tmp_path):
    damaged = (folder / "b.png").read_bytes()[:40]
    (tmp_path / "b.png").write_bytes(damaged)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        file.writestr("b.png", damaged)
    with pytest.raises(ImageReadError, match=r"b\.png"):
        tiny(tmp_path)[1]
    with pytest.raises(ImageReadError, match=r"all\.zip/b\.png"):
        tiny(tmp_path / "all.zip", images=ZipFiles("{name}.png"))[1]


def test_a_file_without_the_release_does_not_open_the_wrong_one(deep):
    """Without `folders` a bare name means that place and no other."""
    with pytest.raises(DatasetNotFoundError):
        tiny(deep, images=Files("{name}.png"))[0]


def test_two_objects_with_two_folders_keep_their_files_apart(folder, tmp_path):
    """1.5.7 kept one list of files for the whole process."""
    other = write_pictures(tmp_path / "x" / "y")
    (other / "a.png").write_bytes((folder / "b.png").read_bytes())
    images = IndexedFiles("{name}")
    first, second = tiny(folder, images=images), tiny(tmp_path, images=images)
    assert np.array_equal(second[0]["img"], first[1]["img"])
    assert not np.array_equal(second[0]["img"], first[0]["img"])


AMBIGUOUS = {
    "indexed": IndexedFiles("{name}"),
    "folders": Files("{name}.png", folders=("p*",)),
}


@pytest.mark.parametrize("images", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_one_of_two_files_of_one_name_is_not_guessed(tmp_path, images):
    for part in ("p2", "p1"):
        write_pictures(tmp_path / part)
    (tmp_path / "p2" / "b.png").unlink()
    dataset = tiny(tmp_path, images=images)
    assert dataset[1]["idx"] == 1
    with pytest.raises(DatasetError, match=r"2 files, such as .*p1.a\.png and .*p2.a\.png"):
        dataset[0]


def test_two_members_of_one_name_are_not_guessed(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        for part in ("train", "dev", "overlays"):
            file.write(folder / "a.png", f"{part}/a.png")
        file.write(folder / "b.png", "overlays/b.png")
    dataset = tiny(tmp_path / "all.zip", images=ZipFiles("{name}.png", folders=("train", "dev")))
    with pytest.raises(DatasetError, match="2 files"):
        dataset[0]
    with pytest.raises(DatasetNotFoundError):
        dataset[1]


def test_only_folders_of_the_release_are_searched(tmp_path):
    dataset = xd.NIH_Dataset(tmp_path)
    name = dataset.csv["Image Index"][0]
    for folder in ("overlays", "images_001/masks", "images_001/images/old"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(np.full((8, 8), 99, np.uint8)).save(tmp_path / folder / name)
    with pytest.raises(DatasetNotFoundError, match=name):
        dataset[0]
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / "images_001/images" / name)
    assert dataset[0]["img"].min() == 1024


def test_the_files_follow_the_attributes_that_say_where_they_are(tmp_path):
    dataset = xd.RSNA_Pneumonia_Dataset(tmp_path / "old")
    name = dataset.csv["patientId"][0]
    for folder, extension, value in (("old", "jpg", 0), ("new", "jpg", 128), ("new", "png", 255)):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), value, np.uint8)).save(
            tmp_path / folder / f"{name}.{extension}"
        )
    assert dataset[0]["img"].max() == -1024
    dataset.imgpath = str(tmp_path / "new")
    assert -1024 < dataset[0]["img"].max() < 1024
    assert pickle.loads(pickle.dumps(dataset))[0]["img"].max() < 1024
    dataset.extension = ".png"
    assert dataset[0]["img"].max() == 1024


def test_a_reader_of_ones_own_is_used(folder):
    def reader(path):
        return np.full((1, 2, 2), float(len(path.name)), dtype=np.float32)

    assert tiny(folder, images=Files("{name}.png", reader=reader))[0]["img"].tolist() == [
        [[5.0, 5.0], [5.0, 5.0]]
    ]


def test_constructor_arguments_stand_behind_the_columns(tmp_path):
    write_pictures(tmp_path, ".tif")
    images = Files("{name}{extension}")
    dataset = tiny(tmp_path, images=images, kwargs={"arguments": {"extension": ".tif"}})
    np.testing.assert_allclose(dataset[3]["img"], as_image(3), atol=1e-3)
    assert dataset.extension == ".tif"
    assert picture(3).dtype == np.uint8
    assert Tiny.spec.images.name(dataset._row(3)) == "d.png"


def usual(size=16):
    return torchvision.transforms.Compose([XRayCenterCrop(), XRayResizer(size)])


def test_the_usual_preparation_never_makes_the_whole_image(source, monkeypatch):
    place, images = source
    expected = [usual()(item["img"]) for item in tiny(place, images=images)]
    monkeypatch.setattr(Raster, "to_array", None)
    found = [item["img"] for item in tiny(place, images=images, kwargs={"transform": usual()})]
    assert {image.dtype for image in found} == {np.dtype(np.float32)}
    np.testing.assert_allclose(found, expected, atol=1e-3)  # of 2048


@pytest.mark.parametrize(
    "transform",
    [
        XRayResizer(16),
        torchvision.transforms.Compose([XRayResizer(16), XRayCenterCrop()]),
        torchvision.transforms.Compose([XRayCenterCrop(), XRayResizer(16, engine="torch")]),
        torchvision.transforms.Compose([usual(), lambda image: image + 1]),
    ],
)
def test_any_other_transform_is_given_the_whole_image(folder, transform):
    for item, whole in zip(Tiny(folder, transform=transform), Tiny(folder), strict=True):
        np.testing.assert_array_equal(np.asarray(item["img"]), transform(whole["img"]))


def test_a_reader_of_its_own_is_asked_in_any_case(folder):
    images = Files("{name}.png", reader=lambda _: np.full((1, 8, 8), 7, np.float32))
    for item in tiny(folder, images=images, kwargs={"transform": usual(4)}):
        assert item["img"].shape == (1, 4, 4)
        assert item["img"][0, 1, 1] == pytest.approx(7)


def test_augmentation_draws_the_same_whether_prepared_in_one_step(folder):
    slow, drawn = torchvision.transforms.Compose([usual(), lambda image: image]), random_constant
    drawn = [
        [
            item["img"][0, 0, 0]
            for item in Tiny(folder, transform=t, data_aug=random_constant, seed=5)
        ]
        for t in (usual(), slow)
    ]
    assert drawn[0] == drawn[1]


def test_a_transform_that_offers_to_take_stored_pixels_is_asked(tmp_path):
    class Corner:
        def __call__(self, image):
            return image[:, :2, :2]

        def from_raster(self, raster):
            self.seen = raster.pixels.dtype
            return raster.to_array()[:, :2, :2]

    folder, transform = write_pictures(tmp_path), Corner()
    sample = Tiny(folder, transform=transform)[0]
    assert transform.seen.kind == "u"
    np.testing.assert_array_equal(sample["img"], Tiny(folder)[0]["img"][:, :2, :2])
