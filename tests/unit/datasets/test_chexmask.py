"""Masks of CheXmask on the datasets they belong to."""

import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest

import torchxrayvision as xrv
import torchxrayvision.datasets as xd
from fakes import BUILDERS
from fakes._fake import area, write_image, write_text
from torchxrayvision.errors import DatasetError, DatasetNotFoundError

SHAPE = (1024, 1024)
LEFT = area(SHAPE, (600, 100, 900, 800))
RIGHT = area(SHAPE, (100, 100, 400, 800))
HEART = area(SHAPE, (400, 400, 700, 900))


def starts_and_lengths(mask):
    """The form of CheXmask, written without this package: along the rows, the first pixel is 1."""
    flat = np.concatenate([[0], mask.ravel().astype(int), [0]])
    edges = np.flatnonzero(np.diff(flat))
    pairs = zip((edges[::2] + 1).tolist(), (edges[1::2] - edges[::2]).tolist(), strict=True)
    return " ".join(f"{start} {length}" for start, length in pairs)


def line(name, dice="0.9", masks=(LEFT, RIGHT, HEART), landmarks='"1,2,3,4"', shape=SHAPE):
    runs = ",".join(starts_and_lengths(mask) for mask in masks)
    return f"{name},{dice},0.95,{landmarks},{runs},{shape[0]},{shape[1]}"


def header(name, dice="Dice RCA (Mean),Dice RCA (Max)"):
    return f"{name},{dice},Landmarks,Left Lung,Right Lung,Heart,Height,Width"


@pytest.fixture(scope="module")
def nih(tmp_path_factory):
    return BUILDERS["NIH_Dataset"](tmp_path_factory.mktemp("nih"))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Four images: good, good in another quoting, too low, and one of no dataset here."""
    return write_text(
        tmp_path_factory.mktemp("chexmask") / "ChestX-Ray8.csv",
        [
            header("Image Index"),
            line("00000001_000.png"),
            line("00000099_000.png"),
            # Landmarks as an array on several lines, as one of the files has them.
            line(
                "00000002_000.png",
                masks=(LEFT, RIGHT, HEART & False),
                landmarks='"[[1 2]\n [3, 4]]"',
            ),
            line("00000003_000.png", dice="0.55"),
            line("00000010_000.png", dice=""),
        ],
    )


@pytest.fixture
def dataset(nih, table):
    whole = xd.NIH_Dataset(**nih.kwargs, views="*", unique_patients=False)
    return xd.with_chexmask(whole, table)


def position(dataset, name):
    return [dataset.image_path(i) for i in range(len(dataset))].index(name)


def test_masks_are_those_of_the_file(dataset):
    found = dataset[position(dataset, "00000001_000.png")]["semantic_masks"]
    assert list(found) == ["Left Lung", "Right Lung", "Heart"]
    for mask, wanted in zip(found.values(), (LEFT, RIGHT, HEART), strict=True):
        assert (mask.shape, mask.dtype) == ((1, *SHAPE), np.float32)
        np.testing.assert_array_equal(mask[0] > 0, wanted)


def test_an_empty_mask_is_left_out_and_line_ends_in_quotes_are_read(dataset):
    found = dataset[position(dataset, "00000002_000.png")]["semantic_masks"]
    assert list(found) == ["Left Lung", "Right Lung"]


@pytest.mark.parametrize("name", ["00000003_000.png", "00000001_001.png", "00000010_000.png"])
def test_low_missing_and_blank_estimates_give_no_masks(dataset, name):
    assert dataset[position(dataset, name)]["semantic_masks"] == {}


def test_the_least_estimate_can_be_chosen(nih, table):
    whole = xd.NIH_Dataset(**nih.kwargs, views="*", unique_patients=False)
    lower = xd.with_chexmask(whole, table, min_dice=0.5)
    assert len(lower[position(lower, "00000003_000.png")]["semantic_masks"]) == 3


def test_estimates_select_rows(dataset, table):
    estimates = xd.CheXmask(table).dice(dataset)
    assert (estimates.dtype, estimates.shape) == (np.float32, (len(dataset),))
    good = xd.SubsetDataset(dataset, np.flatnonzero(estimates >= 0.7))
    names = [dataset.image_path(i) for i in good.idxs]
    assert names == ["00000001_000.png", "00000002_000.png"]


def test_the_dataset_given_stays_as_it_is(nih, table):
    plain = xd.NIH_Dataset(**nih.kwargs)
    with_masks = xd.with_chexmask(plain, table)
    assert "semantic_masks" not in plain[0]
    assert "semantic_masks" in with_masks[0]
    xd.relabel_dataset(["Mass"], with_masks, silent=True)
    assert len(plain.pathologies) == 14
    with_masks.limit_to_selected_views("PA")


def test_masks_follow_transforms(dataset):
    import torch
    from torchvision.transforms import v2

    dataset.transform = v2.Compose([v2.RandomHorizontalFlip(1.0), v2.Resize((512, 512))])
    sample = dataset[position(dataset, "00000001_000.png")]
    assert sample["img"].shape == (1, 512, 512)
    left = np.asarray(torch.as_tensor(sample["semantic_masks"]["Left Lung"]))[0] > 0
    np.testing.assert_array_equal(left, LEFT[::2, ::2][:, ::-1])
    dataset.transform = xd.XRayResizer(256)
    assert dataset[0]["semantic_masks"]["Heart"].shape == (1, 256, 256)


def test_masks_are_at_the_shape_of_a_smaller_copy(tmp_path, table):
    write_image(tmp_path / "00000001_000.png", (256, 256))
    rows = pd.DataFrame({"Image Index": ["00000001_000.png"], "Mass": [1]})
    found = xd.with_chexmask(xd.CSV_Dataset(rows, tmp_path), table)[0]["semantic_masks"]
    np.testing.assert_array_equal(found["Heart"][0] > 0, HEART[::4, ::4])


def test_findings_and_anatomy_come_together(nih, table):
    whole = xd.NIH_Dataset(**nih.kwargs, views="*", unique_patients=False, pathology_masks=True)
    sample = xd.with_chexmask(whole, table)[3]
    assert list(sample["pathology_masks"]) == [whole.pathologies.index("Infiltration")]
    assert sample["semantic_masks"] == {}


def test_it_goes_into_workers_small(dataset):
    from torch.utils.data import DataLoader

    packed = pickle.dumps(dataset)
    assert len(packed) < 20_000
    again = pickle.loads(packed)
    wanted = dataset[0]["semantic_masks"]
    assert again[0]["semantic_masks"].keys() == wanted.keys()
    loaded = list(DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=list))
    np.testing.assert_array_equal(loaded[0][0]["semantic_masks"]["Heart"], wanted["Heart"])


def test_merged_and_collated_datasets_keep_their_masks(nih, table):
    first = xd.with_chexmask(xd.NIH_Dataset(**nih.kwargs), table)
    merged = xd.MergeDataset([first, xd.NIH_Dataset(**nih.kwargs)])
    assert "semantic_masks" in merged[0]
    assert "semantic_masks" not in merged[len(first)]
    with pytest.raises(DatasetError, match="container before it is made"):
        xd.with_chexmask(merged, table)


@pytest.mark.parametrize(
    ("builder", "column", "names"),
    [
        # CheXpert comes with and without the name of the release before the path.
        ("CheX_Dataset", "Path", "{}"),
        ("CheX_Dataset", "Path", "CheXpert-v1.0/{}"),
        ("CheXpertPlus_Dataset", "Path", "{}"),
        ("MIMIC_Dataset", "dicom_id", None),
        ("PC_Dataset", "ImageID", None),
        ("VinDr_Dataset", "image_id", None),
        ("MSCXR_Dataset", "dicom_id", None),
        ("REFLACX_Dataset", "dicom_id", None),
        ("CANDIDPTX_Dataset", "ImageID", "{}.jpg"),
    ],
)
def test_images_of_other_datasets_are_found_by_their_column(builder, column, names, tmp_path):
    context = BUILDERS[builder](tmp_path)
    dataset = getattr(xd, builder)(**context.kwargs)
    path = dataset.image_path(0)
    name = names.format(path) if names else path.rpartition("/")[2].partition(".")[0]
    shape = dataset[0]["img"].shape[1:]
    lung = area(shape, (3, 4, 20, 30))
    lines = [header(column, "Dice RCA (Max),Dice RCA (Mean)")]
    lines.append(f"{name},0.4,0.8,,{starts_and_lengths(lung)},,,{shape[0]},{shape[1]}")
    found = xd.with_chexmask(dataset, write_text(tmp_path / "masks.csv", lines))[0]
    assert list(found["semantic_masks"]) == ["Left Lung"]
    np.testing.assert_array_equal(found["semantic_masks"]["Left Lung"][0] > 0, lung)


def test_a_file_of_another_dataset_is_refused(nih, tmp_path):
    plain = xd.NIH_Dataset(**nih.kwargs)
    other = write_text(tmp_path / "MIMIC-CXR-JPG.csv", [header("dicom_id"), line("02aa804e")])
    with pytest.raises(DatasetError, match=r"'dicom_id'.*NIH_Dataset.*column="):
        xd.with_chexmask(plain, other)
    foreign = write_text(tmp_path / "other.csv", [header("Image Index"), line("x.png")])
    with pytest.raises(DatasetError, match=r"none of the 3 images of NIH_Dataset"):
        xd.with_chexmask(plain, foreign)
    empty = write_text(tmp_path / "empty.csv", [header("Image Index")])
    with pytest.raises(DatasetError, match="none of the 3 images"):
        xd.with_chexmask(plain, empty)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", r"lacks Dice RCA \(Mean\), Left Lung"),
        ("Image Index,Dice RCA (Mean),Left Lung,Right Lung,Heart\n", "lacks Height, Width"),
        (header("name") + "\n", "lacks one of"),
        ("", "lacks"),
    ],
)
def test_another_table_is_refused_with_its_header(tmp_path, text, said):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(DatasetError, match=said):
        xd.CheXmask(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"gone\.csv.*OriginalResolution"):
        xd.CheXmask(tmp_path / "gone.csv")


def test_damaged_runs_are_an_error_of_their_own(nih, tmp_path):
    runs = starts_and_lengths(LEFT)
    rows = [header("Image Index"), f"00000001_000.png,0.9,0.9,,{runs} 5,,,1024,1024"]
    dataset = xd.with_chexmask(xd.NIH_Dataset(**nih.kwargs), write_text(tmp_path / "m.csv", rows))
    with pytest.raises(DatasetError, match="pairs"):
        dataset[0]


def test_the_index_is_made_once_and_again_after_a_change(nih, tmp_path, monkeypatch):
    path = write_text(tmp_path / "m.csv", [header("Image Index"), line("00000001_000.png")])
    scans = []
    scan = xd.CheXmask._scan
    monkeypatch.setattr(xd.CheXmask, "_scan", lambda self: scans.append(1) or scan(self))
    assert len(xd.CheXmask(path)) == len(xd.CheXmask(path)) == len(scans) == 1
    write_text(path, [header("Image Index"), line("00000003_000.png"), line("00000001_000.png")])
    changed = xd.CheXmask(path)
    assert (len(changed), len(scans)) == (2, 2)
    np.testing.assert_array_equal(changed.read("00000001_000.png")["Heart"], HEART)


@pytest.mark.parametrize("damage", [b"damaged", b"PK\x03\x04 cut off"])
def test_a_damaged_or_unwritable_index_does_no_harm(tmp_path, monkeypatch, damage):
    path = write_text(tmp_path / "m.csv", [header("Image Index"), line("00000001_000.png")])
    xd.CheXmask(path)
    (kept,) = (xrv_cache() / "chexmask").iterdir()
    kept.write_bytes(damage)
    assert len(xd.CheXmask(path)) == 1
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("XRV_CACHE_DIR", str(blocked))
    assert len(xd.CheXmask(path)) == 1


def xrv_cache():
    from torchxrayvision.remote import cache_dir

    return cache_dir()


def test_a_file_that_changes_underneath_is_noticed(tmp_path):
    rows = [header("Image Index"), line("a.png"), line("b.png")]
    path = write_text(tmp_path / "m.csv", rows)
    masks = xd.CheXmask(path)
    write_text(path, [rows[0], rows[2], rows[1]])
    with pytest.raises(DatasetError, match="changed while it was in use"):
        masks.read("a.png")


def test_the_scan_holds_no_run_lengths(tmp_path):
    rows = [header("Image Index"), *(line(f"{n:08d}_000.png") for n in range(300))]
    path = write_text(tmp_path / "big.csv", rows)
    assert path.stat().st_size > 5_000_000
    tracemalloc.start()
    masks = xd.CheXmask(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(masks) == 300
    assert peak < 500_000
    assert len(pickle.dumps(masks)) < 10_000


def test_it_is_public():
    assert xrv.datasets.with_chexmask is xd.with_chexmask
    assert repr(xd.CheXmask)
