"""People's own images: what is guessed, what is refused, and what the messages say."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import torchxrayvision.datasets as xd
from fakes._fake import write_dicom, write_image, write_text
from torchxrayvision.datasets.split import patients
from torchxrayvision.errors import (
    DatasetError,
    DatasetNotFoundError,
    DataWarning,
    EmptyDatasetError,
    ViewError,
)


def table(**columns):
    return pd.DataFrame({"file": ["a.png", "b.png", "c.png"], **columns})


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("Image Index", ["a.png", "b.png"]),
        ("filename", ["a.png", "b.png"]),
        ("IMAGE_PATH", ["x/a.jpg", "y/b.dcm"]),
        ("whatever", ["a.TIF", "b.jpeg"]),
        ("dicom_path", ["1.2.3", "1.2.4"]),
    ],
)
def test_the_column_of_paths_is_found(column, values):
    frame = pd.DataFrame({"note": ["x", "y"], column: values, "Mass": [0, 1]})
    dataset = xd.CSV_Dataset(frame)
    assert [dataset.image_path(i) for i in range(2)] == values
    assert dataset.pathologies == ["Mass"]


def test_two_columns_of_images_have_to_be_told_apart():
    frame = pd.DataFrame({"frontal": ["a.png"], "lateral": ["b.png"], "Mass": [1]})
    with pytest.raises(DatasetError, match=r"'frontal' and 'lateral'.*path="):
        xd.CSV_Dataset(frame)
    assert xd.CSV_Dataset(frame, path="lateral").image_path(0) == "b.png"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": "gone"}, r"path='gone' is no column.*'file'"),
        ({"labels": ["Mass", "gone"]}, r"labels names 'gone'.*'Mass'"),
        ({"labels": {"Mass": "gone"}}, r"labels names 'gone'"),
        ({"terms": "gone"}, r"terms='gone'"),
        ({"patient": "gone"}, r"patient='gone' is no column"),
        ({"view": "gone"}, r"view='gone'"),
        ({"split": "gone"}, r"split='gone'"),
        ({"uncertain": "maybe"}, r"'unknown', 'present', 'absent'.*'maybe'"),
        ({"views": ["PA"]}, r"views=\['PA'\] needs a column of views"),
        ({"unique_patients": True}, r"needs a column of patients"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(arguments, said):
    with pytest.raises(DatasetError, match=said):
        xd.CSV_Dataset(table(Mass=[0, 1, 0]), **arguments)


@pytest.mark.parametrize("lines", [["sep=;", "file;Mass;pid"], ["file;Mass;pid"]])
def test_a_table_with_semicolons_is_read_as_one_with_commas(tmp_path, lines):
    path = write_text(tmp_path / "mine.csv", [*lines, "007,a.png;1;007", "b.png;0;7"])
    dataset = xd.CSV_Dataset(path, patient="pid")
    assert dataset.pathologies == ["Mass"]
    assert dataset.labels.tolist() == [[1], [0]]
    assert dataset.csv["file"].tolist() == ["007,a.png", "b.png"]
    assert dataset.csv["patientid"].tolist() == ["007", "7"]


def test_a_table_with_another_separator_says_how_to_read_it(tmp_path):
    path = write_text(tmp_path / "mine.csv", ["file|Mass", "a.png|1"])
    with pytest.raises(DatasetError, match=r"sep='\|'"):
        xd.CSV_Dataset(path)


def test_a_table_in_another_encoding_says_how_to_save_it(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes("file,sex,Mass\na.png,\xe4,1\n".encode("cp1252"))
    with pytest.raises(DatasetError, match="save it as CSV UTF-8"):
        xd.CSV_Dataset(path)


def test_a_row_without_a_path_is_named():
    frame = table(Mass=[0, 1, 0])
    frame.loc[1, "file"] = " "
    with pytest.raises(DatasetError, match=r"1 row without an image.*row 1"):
        xd.CSV_Dataset(frame)


def test_guessed_labels_are_zeros_ones_and_blanks_alone():
    frame = table(
        Mass=[0, 1, None],
        Edema=[-1, 0, 1],
        flag=[True, False, True],
        grade=[0, 1, 2],
        uncertain=[-1, -1, None],
        nothing=[None, None, None],
        text=["0", "1", "x"],
        age=[1, 0, 1],
        id=[0, 1, 1],
    )
    assert xd.CSV_Dataset(frame).pathologies == ["Mass", "Edema", "flag"]


@pytest.mark.parametrize(
    ("uncertain", "label"), [("unknown", np.nan), ("present", 1.0), ("absent", 0.0)]
)
def test_minus_one_means_what_is_asked(uncertain, label):
    dataset = xd.CSV_Dataset(table(Mass=[-1, 1, None]), uncertain=uncertain)
    np.testing.assert_array_equal(dataset.labels[:, 0], np.float32([label, 1, np.nan]))


def test_labels_keep_the_order_and_names_that_are_given():
    frame = table(b=[0, 1, 0], a=[1, 1, 0])
    assert xd.CSV_Dataset(frame, labels=["a", "b"]).pathologies == ["a", "b"]
    renamed = xd.CSV_Dataset(frame, labels={"Effusion": "b"})
    assert (renamed.pathologies, renamed.labels[:, 0].tolist()) == (["Effusion"], [0, 1, 0])
    assert xd.CSV_Dataset(frame, labels="b").pathologies == ["b"]


@pytest.mark.parametrize("labels", [None, [], ()])
def test_without_labels_there_are_no_findings_and_all_else_works(labels, tmp_path):
    write_image(tmp_path / "a.png")
    dataset = xd.CSV_Dataset(table(Mass=[0, 1, 0]), tmp_path, labels=labels)
    assert (dataset.pathologies, dataset.labels.shape, dataset.totals()) == ([], (3, 0), {})
    assert len(dataset.describe()) == 0
    assert dataset[0]["lab"].shape == (0,)
    assert "num_samples=3" in dataset._repr_html_()


def test_text_in_a_label_column_says_how_to_translate_it():
    frame = table(Mass=["yes", "no", ""])
    with pytest.raises(DatasetError, match=r"'Mass' holds 'yes' in row 0.*map"):
        xd.CSV_Dataset(frame, labels=["Mass"])


def test_a_column_of_terms_becomes_findings():
    frame = table(finding=["Nodule| Mass", "no finding", None])
    dataset = xd.CSV_Dataset(frame, terms="finding")
    assert dataset.pathologies == ["Mass", "Nodule"]
    np.testing.assert_array_equal(dataset.labels, np.float32([[1, 1], [0, 0], [np.nan, np.nan]]))


def test_paths_start_at_the_folder_of_the_table(tmp_path):
    write_image(tmp_path / "a.png")
    path = write_text(tmp_path / "mine.csv", ["file,Mass", "a.png,1"])
    dataset = xd.CSV_Dataset(path)
    assert dataset[0]["img"].shape == (1, 64, 48)
    assert (dataset.imgpath, dataset.csvpath) == (None, path)


def test_absolute_paths_backslashes_and_endings(tmp_path):
    image = write_image(tmp_path / "deep" / "a.png")
    assert xd.CSV_Dataset(pd.DataFrame({"file": [str(image)]}))[0]["img"].shape == (1, 64, 48)
    assert xd.CSV_Dataset(pd.DataFrame({"file": ["deep\\a.png"]}), tmp_path)[0]["idx"] == 0
    bare = pd.DataFrame({"image_id": ["a"], "Mass": [1]})
    assert xd.CSV_Dataset(bare, tmp_path / "deep", extension=".png")[0]["idx"] == 0


def test_a_missing_file_names_row_and_folder(tmp_path):
    dataset = xd.CSV_Dataset(table(Mass=[0, 1, 0]), tmp_path)
    with pytest.raises(DatasetNotFoundError, match=r"b\.png.*row 1"):
        dataset[1]


def test_views_and_patients_can_be_switched_off():
    frame = table(view=["PA", "front", None], patient=[7, 7, 8], Mass=[0, 1, 0])
    dataset = xd.CSV_Dataset(frame)
    assert dataset.csv["view"].tolist() == ["PA", "front", "UNKNOWN"]
    assert len(xd.CSV_Dataset(frame, views="front")) == 1
    with pytest.raises(ViewError):
        xd.CSV_Dataset(frame, views="LL")
    plain = xd.CSV_Dataset(frame, view=None, patient=None)
    assert "patientid" not in plain.csv
    assert not hasattr(plain, "views")
    with pytest.raises(DatasetError, match="patientid"):
        xd.split_by_patient(plain)


def test_two_objects_do_not_share_their_columns():
    first = xd.CSV_Dataset(table(Mass=[0, 1, 0], view=["PA"] * 3))
    second = xd.CSV_Dataset(table(Edema=[0, 1, 0]))
    assert (first.pathologies, second.pathologies) == (["Mass"], ["Edema"])
    assert xd.CSV_Dataset.spec.findings.names is None


def test_rows_of_the_callers_table_stay_as_they_are():
    frame = table(Mass=[0, 1, 0], sex=["F", "M", "w"]).set_index(pd.Index([5, 6, 7]))
    before = frame.copy()
    dataset = xd.CSV_Dataset(frame)
    pd.testing.assert_frame_equal(frame, before)
    assert dataset.csv["sex_female"].tolist() == [True, False, True]


def test_a_merge_with_another_dataset_keeps_both(tmp_path):
    write_image(tmp_path / "mine" / "a.png")
    mine = xd.CSV_Dataset(pd.DataFrame({"file": ["a.png"], "Mass": [1]}), tmp_path / "mine")
    folder = xd.Folder_Dataset(tmp_path, labels="folders")
    for dataset in (mine, folder):
        xd.relabel_dataset(["Mass"], dataset, silent=True)
    merged = xd.MergeDataset([mine, folder])
    assert len(merged) == 2
    np.testing.assert_array_equal(merged.labels, np.float32([[1], [np.nan]]))


def test_a_folder_needs_no_labels_and_finds_images_by_content(tmp_path):
    write_image(tmp_path / "b.PNG")
    write_dicom(tmp_path / "sub" / "1.2.840.1")
    write_text(tmp_path / "notes", ["plain text"])
    write_text(tmp_path / "table.csv", ["a,b"])
    (tmp_path / "empty").touch()
    dataset = xd.Folder_Dataset(tmp_path)
    assert dataset.csv["path"].tolist() == ["b.PNG", "sub/1.2.840.1"]
    assert (dataset.pathologies, dataset.labels.shape) == ([], (2, 0))
    assert dataset[1]["img"].shape == (1, 64, 48)


def test_paths_sort_by_folder_on_every_system(tmp_path):
    for name in ("a-b/1.png", "a/2.png", "a/10.png"):
        write_image(tmp_path / name)
    # "-" sorts before "/", so whole paths would mix the files of a folder with its neighbours.
    dataset = xd.Folder_Dataset(tmp_path)
    assert dataset.csv["path"].tolist() == ["a/10.png", "a/2.png", "a-b/1.png"]


def test_healthy_folders_are_a_choice(tmp_path):
    for name in ("NORMAL/a.png", "gesund/b.png", "Mass/c.png"):
        write_image(tmp_path / name)
    assert xd.Folder_Dataset(tmp_path, "folders").pathologies == ["Mass", "gesund"]
    other = xd.Folder_Dataset(tmp_path, "folders", healthy=["Gesund"])
    assert other.pathologies == ["Mass", "NORMAL"]
    assert other.csv["path"].tolist()[2] == "gesund/b.png"
    assert other.labels[2].tolist() == [0, 0]


def test_a_folder_without_images_says_so(tmp_path):
    write_text(tmp_path / "readme.txt", ["nothing"])
    with pytest.raises(EmptyDatasetError, match=r"no image below.* 1 \.txt"):
        xd.Folder_Dataset(tmp_path)


def test_a_single_file_is_no_folder(tmp_path):
    image = write_image(tmp_path / "a.png")
    with pytest.raises(DatasetNotFoundError, match="it is a file"):
        xd.Folder_Dataset(image)


def test_an_image_outside_the_folders_has_no_label(tmp_path):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "Mass" / "b.png")
    with pytest.raises(DatasetError, match=r"directly in .*'a\.png'"):
        xd.Folder_Dataset(tmp_path, labels="folders")


def test_other_kinds_of_folder_labels_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="'folders' or None"):
        xd.Folder_Dataset(tmp_path, labels="files")


def test_a_table_without_label_columns_says_what_to_pass():
    frame = table(diagnosis=["Mass", "normal", "Mass"])
    with pytest.warns(DataWarning, match=r"no findings.*'diagnosis'.*terms=") as caught:
        assert xd.CSV_Dataset(frame).pathologies == []
    assert caught[0].filename == __file__
    assert xd.CSV_Dataset(frame, labels=None).pathologies == []
    assert xd.CSV_Dataset(table()).pathologies == []


def test_linked_folders_are_followed_once(tmp_path):
    write_image(tmp_path / "store" / "a.png")
    write_image(tmp_path / "mine" / "b.png")
    (tmp_path / "mine" / "linked").symlink_to(tmp_path / "store")
    (tmp_path / "mine" / "round").symlink_to(tmp_path / "mine")
    assert xd.Folder_Dataset(tmp_path / "mine").csv["path"].tolist() == ["b.png", "linked/a.png"]


WRITTEN = ["007", "7", "0007", "12e4", "12E4", "NA", "00000000000000000000017", "1.0"]


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet"])
def test_identifiers_are_text_as_they_are_written(tmp_path, ending):
    names = [f"{i:06}" for i in range(len(WRITTEN))]
    path = tmp_path / f"mine{ending}"
    frame = pd.DataFrame({"file": names, "patient": WRITTEN, "fold": ["00", "1"] * 4, "Mass": 1})
    frame.to_parquet(path) if ending == ".parquet" else frame.to_csv(path, index=False)
    dataset = xd.CSV_Dataset(path, extension=".png", split="fold")
    assert [dataset.image_path(i) for i in range(len(names))] == [f"{n}.png" for n in names]
    assert dataset.csv["patientid"].tolist() == WRITTEN
    assert len(np.unique(patients(dataset))) == len(WRITTEN)
    assert len(xd.CSV_Dataset(path, extension=".png", unique_patients=True)) == len(WRITTEN)
    assert set(xd.official_splits(dataset)) == {"00", "1"}
    assert dataset.csv["Mass"].dtype == np.int64


def test_a_patient_is_the_same_whether_others_are_blank(tmp_path):
    (tmp_path / "a.csv").write_text("file,patient,Mass\na.png,7,1\nb.png,,0\nc.png, 7 ,0\n")
    of_file = xd.CSV_Dataset(tmp_path / "a.csv").csv["patientid"]
    frame = pd.DataFrame({"file": ["a.png", "b.png"], "patient": [7, None], "Mass": [1, 0]})
    for ids in (of_file, xd.CSV_Dataset(frame).csv["patientid"]):
        assert ids[0] == "7"
        assert pd.isna(ids[1])
    assert of_file[2] == "7"


def test_film_zero_is_found(tmp_path):
    (tmp_path / "a.csv").write_text("file,Mass\n000000,1\n000001,0\n")
    for name in ("000000", "000001"):
        Image.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / f"{name}.png")
    dataset = xd.CSV_Dataset(tmp_path / "a.csv", extension=".png")
    assert dataset[0]["img"].max() == 1024


def test_a_release_table_keeps_what_numbers_would_lose(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text(
        "patient_id,image_id,projection,admission_offset\n"
        "00042371,00000042,AP,-1\n12345e67,99999e99,PA,-2\n"
    )
    dataset = xd.HannoverCOVID_Dataset(csvpath=path)
    assert dataset.csv["patientid"].tolist() == ["00042371", "12345e67"]
    assert dataset.image_path(0) == "png/00000042.png"
    assert dataset.csv["offset_day_int"].tolist() == [1, 2]
