"""Faults of a copy on disk that `verify` finds, each by itself and all at once."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

import torchxrayvision.datasets as xd
from support.tiny import NAMES, SHAPE, tiny, write_pictures
from torchxrayvision.datasets.images import ZipFiles
from torchxrayvision.errors import DatasetError, DatasetNotFoundError


def sides(frame, context):
    return np.full((len(frame), 2), SHAPE)


@pytest.fixture
def folder(tmp_path):
    return write_pictures(tmp_path / "images")


def lose(folder):
    (folder / "b.png").unlink()
    return {"missing": ["b.png"]}


def cut(folder):
    path = folder / "c.png"
    path.write_bytes(path.read_bytes()[:-30])
    return {"unreadable": ["c.png"]}


def blank(folder):
    (folder / "c.png").write_bytes(b"")
    return {"unreadable": ["c.png"]}


def shrink(folder):
    write_pictures(folder / "small", shape=(6, 5))
    (folder / "small" / "d.png").replace(folder / "d.png")
    return {"wrong_size": [("d.png", (6, 5), SHAPE)]}


def copy(folder):
    (folder / "d.png").write_bytes((folder / "a.png").read_bytes())
    return {"duplicates": [("a.png", "d.png")]}


FAULTS = (lose, cut, blank, shrink, copy)


def shown(report):
    return {
        "missing": report.missing,
        "unreadable": [path for path, _ in report.unreadable],
        "wrong_size": report.wrong_size,
        "duplicates": report.duplicates,
    }


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_nothing_else(folder, fault, workers):
    wanted = fault(folder)
    report = xd.verify(tiny(folder, expected_sizes=sides), workers=workers)
    none = {key: [] for key in shown(report)}
    assert shown(report) == {**none, **wanted}
    assert report.ok == (fault is copy)
    assert report.checked == 4
    for paths in wanted.values():
        first = paths[0] if isinstance(paths[0], str) else paths[0][0]
        assert first in str(report)


def test_faults_are_all_reported_in_the_order_of_the_rows(folder):
    lose(folder)
    cut(folder)
    shrink(folder)
    report = xd.verify(tiny(folder, expected_sizes=sides))
    assert "1 missing, 1 unreadable, 1 of the wrong size, 0 groups" in str(report)
    path, reason = report.unreadable[0]
    assert (path, bool(reason)) == ("c.png", True)


def test_without_decoding_only_missing_files_are_found(folder):
    cut(folder)
    lose(folder)
    report = xd.verify(tiny(folder, expected_sizes=sides), decode=False, hashes=False)
    assert shown(report) == {
        "missing": ["b.png"],
        "unreadable": [],
        "wrong_size": [],
        "duplicates": [],
    }


def test_rows_that_name_one_image_are_duplicates(folder):
    table = tiny().csv.assign(name=["a", "b", "a", "a"])
    report = xd.verify(tiny(folder, kwargs={"csvpath": table}))
    assert report.duplicates == [("a.png", "a.png", "a.png")]
    assert report.ok


def test_archives_are_checked_too(folder, tmp_path):
    copy(folder)
    cut(folder)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        for name in NAMES[:3] + NAMES[3:]:
            file.write(folder / f"{name}.png", f"{name}.png")
    report = xd.verify(tiny(tmp_path / "all.zip", images=ZipFiles("{name}.png")))
    assert shown(report) | {"missing": []} == {
        "missing": [],
        "unreadable": ["c.png"],
        "wrong_size": [],
        "duplicates": [("a.png", "d.png")],
    }


def test_a_missing_folder_is_an_error_and_not_a_report(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="nowhere"):
        xd.verify(tiny(tmp_path / "nowhere"))


def test_a_container_is_refused(folder):
    with pytest.raises(DatasetError, match="SubsetDataset"):
        xd.verify(xd.SubsetDataset(tiny(folder)))


def test_progress_counts_every_image(folder):
    lose(folder)
    seen = []
    xd.verify(tiny(folder), progress=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_long_report_is_cut(folder):
    report = xd.Report(dataset="Many", checked=30, missing=[f"{i}.png" for i in range(30)])
    assert "and 20 more" in str(report)
    assert str(report).count("missing:") == 11
