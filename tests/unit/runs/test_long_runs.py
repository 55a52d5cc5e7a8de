"""Runs that are stopped: the table is the one of a run that was not."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from support import long_run
from torchxrayvision.errors import OutputError, ResumeError, UnknownNameError, XRVWarning
from torchxrayvision.inference import Shard, join_shards, parse_shard, predict_to_file
from torchxrayvision.runs import Record, RunFolder
from torchxrayvision.runs.journal import Journal, replay

COUNT = 70


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return long_run.write_films(tmp_path_factory.mktemp("films"), COUNT, damaged=9)


@pytest.fixture(scope="module")
def network():
    return long_run.network()


def predict(films, network, output, **options):
    options = {"engine": "torch", "batch_size": 4, **options}
    return predict_to_file(films, network, output, **options)


@pytest.fixture(scope="module")
def reference(films, network, tmp_path_factory):
    """The bytes of an uninterrupted run, by ending."""
    folder = tmp_path_factory.mktemp("reference")
    tables = {}
    for ending in (".csv", ".json", ".parquet"):
        predict(films, network, folder / f"t{ending}", embeddings=True)
        tables[ending] = (folder / f"t{ending}").read_bytes()
    return tables


class StoppedError(Exception):
    """What ends a run in these tests."""


def stop_after(batches):
    """A progress callback that raises after so many batches."""
    calls = iter(range(batches))  # the first call says where it begins

    def on_progress(done, total):
        if next(calls, None) is None:
            raise StoppedError

    return on_progress


def test_rows_are_complete_in_order_and_the_folder_is_gone(films, network, tmp_path):
    done = predict(films, network, tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    assert list(table.columns) == ["path", "error", "Mass", "Hernia", "check"]
    assert list(table["path"]) == [str(p) for p in sorted(films.glob("*/*.png"))]
    assert (table["error"] != "").sum() == 8 == done.failed
    assert (done.total, done.resumed) == (COUNT, 0)
    assert table.loc[table["error"] == "", "Mass"].nunique() == COUNT - 8
    assert {p.name for p in tmp_path.iterdir()} == {"t.csv", "t.csv.provenance.json"}


@pytest.mark.parametrize("ending", [".csv", ".json", ".parquet"])
def test_a_run_stopped_twice_gives_the_same_bytes(films, network, reference, tmp_path, ending):
    target = tmp_path / f"t{ending}"
    for batches in (3, 5):
        with pytest.raises(StoppedError):
            predict(films, network, target, embeddings=True, on_progress=stop_after(batches))
        assert not target.exists()
    done = predict(films, network, target, embeddings=True)
    assert done.resumed == 32
    assert target.read_bytes() == reference[ending]


def test_workers_isolation_and_threads_do_not_change_a_byte(films, network, reference, tmp_path):
    from torchxrayvision.inputs import ReadOptions

    for number, reading in enumerate(
        [ReadOptions(workers=5), ReadOptions(workers=1, isolate=True)]
    ):
        target = tmp_path / f"{number}.csv"
        predict(films, network, target, embeddings=True, reading=reading)
        assert target.read_bytes() == reference[".csv"]


def test_going_on_uses_the_threads_that_the_run_began_with(films, network, reference, tmp_path):
    before = torch.get_num_threads()
    seen = []
    with pytest.raises(StoppedError):
        predict(films, network, tmp_path / "t.csv", embeddings=True, on_progress=stop_after(2))
    torch.set_num_threads(before + 1)
    try:
        predict(films, network, tmp_path / "t.csv", embeddings=True,
                on_progress=lambda *_: seen.append(torch.get_num_threads()))  # fmt: skip
        assert set(seen[1:]) == {before}  # the first call comes before any work
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert (tmp_path / "t.csv").read_bytes() == reference[".csv"]


def test_a_journal_cut_at_any_byte_goes_on_after_its_last_whole_batch(
    films, network, reference, tmp_path
):
    with pytest.raises(StoppedError):
        predict(films, network, tmp_path / "t.csv", embeddings=True, on_progress=stop_after(4))
    rows = tmp_path / "t.csv.part" / "rows.bin"
    whole = rows.read_bytes()
    ends = []
    for cut in [*range(0, len(whole), 23), len(whole)]:
        rows.write_bytes(whole[:cut])
        with Journal(rows, 0) as journal:
            ends.append(journal.position)
        assert len(rows.read_bytes()) <= cut
    assert ends == sorted(ends)
    assert set(ends) == {0, 4, 8, 12, 16}
    for cut in random.Random(1).sample(range(len(whole)), 5):
        rows.write_bytes(whole[:cut] + b"\0" * 50)  # a file that grew without its bytes
        shutil.copytree(rows.parent, tmp_path / "u.csv.part", dirs_exist_ok=True)
        predict(films, network, tmp_path / "u.csv", embeddings=True, overwrite=True)
        assert (tmp_path / "u.csv").read_bytes() == reference[".csv"]


def test_a_flipped_bit_is_noticed(films, network, tmp_path):
    with pytest.raises(StoppedError):
        predict(films, network, tmp_path / "t.csv", on_progress=stop_after(4))
    rows = tmp_path / "t.csv.part" / "rows.bin"
    data = bytearray(rows.read_bytes())
    data[len(data) // 2] ^= 1
    rows.write_bytes(data)
    with Journal(rows, 0) as journal:
        assert journal.position in (4, 8)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 8}, {"embeddings": True}, {"kind": "probability"}, {"precision": "fast"},
        {"paths": "other"}, {"network": "other"},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_another_run_is_not_mixed_with_the_one_that_is_there(
    films, network, tmp_path, change, reference
):
    target = tmp_path / "t.csv"
    with pytest.raises(StoppedError):
        predict(films, network, target, on_progress=stop_after(2))
    other = long_run.network()
    with torch.no_grad():
        other.classifier.bias += 1
    place = films / "000" if "paths" in change else films
    options = {k: v for k, v in change.items() if k not in ("paths", "network")}
    with pytest.raises(ResumeError, match="--overwrite"):
        predict(place, other if "network" in change else network, target, **options)
    done = predict(place, network, target, restart=True)
    assert done.resumed == 0


def test_a_list_that_was_edited_is_another_run(films, network, tmp_path):
    names = [str(p) for p in sorted(films.glob("*/*.png"))]
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(names[:20]))
    with pytest.raises(StoppedError):
        predict([f"@{listed}"], network, tmp_path / "t.csv", on_progress=stop_after(2))
    listed.write_text("\n".join(names[:21]))
    with pytest.raises(ResumeError, match=r"list\.txt changed, [\d,]+ to [\d,]+ bytes"):
        predict([f"@{listed}"], network, tmp_path / "t.csv")


SAME = [f"films/{number:03d}.png" for number in range(20)]


@pytest.mark.parametrize(
    ("found", "wanted", "said"),
    [
        ({"batch_size": 4}, {"batch_size": 8}, "batch_size: 4, now 8"),
        (
            {"inputs": {"folder": "a" * 99 + "b", "changed": {}}},
            {"inputs": {"folder": "a" * 99 + "c", "changed": {}}},
            f'folder: ...{"a" * 40}b", now ...{"a" * 40}c"',
        ),
        (
            {"inputs": {"paths": [*SAME, "x.png"]}},
            {"inputs": {"paths": [*SAME, "y.png", "z.png"]}},
            '"films/019.png", "x.png"], now',
        ),
        (
            {"inputs": {"changed": {"@a.txt": [150, 1], "@b.txt": [7, 1], "c.zip": [1, 1]}}},
            {"inputs": {"changed": {"@a.txt": [150, 2], "@d.txt": [7, 1], "c.zip": [1, 1]}}},
            "(@a.txt changed, still 150 bytes; @b.txt is gone; @d.txt appeared)",
        ),
        ({"columns": {"Mass": 0, "Edema": 1}}, {"columns": {"Mass": 0}}, "(Edema: 1, now null)"),
        (
            {"columns": {f"{n}": n for n in range(9)}},
            {"columns": {f"{n}": n + 1 for n in range(9)}},
            "4: 4, now 5; 4 more)",
        ),
    ],
)
def test_a_refusal_to_go_on_says_what_differs(tmp_path, found, wanted, said):
    with pytest.raises(ResumeError) as refused:
        RunFolder(tmp_path / "t.csv").check(found, wanted)
    assert said in str(refused.value)


def test_files_that_come_later_belong_to_the_next_run(films, network, tmp_path):
    folder = tmp_path / "films"
    shutil.copytree(films / "000", folder)
    with pytest.raises(StoppedError):
        predict(folder, network, tmp_path / "t.csv", on_progress=stop_after(2))
    shutil.copy(folder / "00001.png", folder / "00000a.png")
    (folder / "00060.png").unlink()
    predict(folder, network, tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv", keep_default_na=False).set_index("path")
    assert len(table) == COUNT
    assert table.loc[str(folder / "00060.png"), "error"] == "no such file"


def test_two_processes_do_not_share_a_run(films, network, tmp_path):
    def again(done, total):
        with pytest.raises(ResumeError, match="another process"):
            predict(films, network, tmp_path / "t.csv")
        raise StoppedError

    with pytest.raises(StoppedError):
        predict(films, network, tmp_path / "t.csv", on_progress=again)


def test_a_file_in_the_way_is_named(films, network, tmp_path):
    (tmp_path / "t.csv.part").write_text("rows of an older version")
    with pytest.raises(ResumeError, match="in the way"):
        predict(films, network, tmp_path / "t.csv")


def test_going_on_elsewhere_is_said(films, network, tmp_path):
    with pytest.raises(StoppedError):
        predict(films, network, tmp_path / "t.csv", on_progress=stop_after(2))
    record = tmp_path / "t.csv.part" / "run.json"
    begun = Record.from_json(record.read_text())
    begun.machine["torch"] = "2.6.0"
    record.write_text(begun.to_json())
    rows = record.with_name("rows.bin")  # each of its records names the run
    with Journal(tmp_path / "moved.bin", 0, begun.run) as journal:
        for batch in replay(rows):
            journal.append(batch)
    (tmp_path / "moved.bin").replace(rows)
    with pytest.warns(XRVWarning, match=r"torch 2\.6\.0, now"):
        predict(films, network, tmp_path / "t.csv")


def test_a_full_disk_keeps_what_is_finished(films, network, reference, tmp_path, monkeypatch):
    from torchxrayvision.runs import journal as _journal

    class Full:
        """A file that takes 1500 bytes more, and half of a record at that."""

        left = 1500

        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def write(self, data):
            taken = self._file.write(data[: Full.left])
            Full.left -= taken
            if not taken:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return taken

    original = Journal.__init__

    def limited(self, *arguments):
        original(self, *arguments)
        self._file = Full(self._file)

    with monkeypatch.context() as patched:
        patched.setattr(_journal.Journal, "__init__", limited)
        with pytest.raises(OutputError, match=r"no space left.*same command"):
            predict(films, network, tmp_path / "t.csv", embeddings=True)
    done = predict(films, network, tmp_path / "t.csv", embeddings=True)
    assert done.resumed > 0
    assert (tmp_path / "t.csv").read_bytes() == reference[".csv"]


def test_a_table_that_cannot_be_written_costs_no_computation(
    films, network, reference, tmp_path, monkeypatch
):
    from torchxrayvision.runs import tables

    def full(self, result):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(tables.CsvTable, "write", full)
        with pytest.raises(OutputError, match="no space left"):
            predict(films, network, tmp_path / "t.csv", embeddings=True)
    done = predict(films, network, tmp_path / "t.csv", embeddings=True)
    assert done.resumed == COUNT
    assert (tmp_path / "t.csv").read_bytes() == reference[".csv"]


def test_nothing_is_listed_or_written_for_an_unknown_ending(films, network, tmp_path):
    with pytest.raises(UnknownNameError, match=r"\.parquet"):
        predict(films, network, tmp_path / "t.xlsx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [2, 3, 20])
def test_shards_join_to_the_bytes_of_one_run(films, network, reference, tmp_path, count):
    target = tmp_path / "t.csv"
    sizes = []
    for index in reversed(range(1, count + 1)):
        done = predict(films, network, target, embeddings=True, shard=Shard(index, count))
        sizes.append(done.total)
    assert sum(sizes) == COUNT
    done = join_shards(target)
    assert (done.total, done.failed) == (COUNT, 8)
    assert target.read_bytes() == reference[".csv"]
    assert {p.name for p in tmp_path.iterdir()} == {"t.csv", "t.csv.provenance.json"}


def test_a_finished_shard_is_not_done_again(films, network, tmp_path):
    predict(films, network, tmp_path / "t.csv", shard=Shard(1, 2))
    done = predict(films, network, tmp_path / "t.csv", shard=Shard(1, 2))
    assert done.resumed == done.total == 36


def test_shards_join_only_when_all_are_whole_and_of_one_list(films, network, tmp_path):
    target = tmp_path / "t.csv"
    with pytest.raises(ResumeError, match="no shard"):
        join_shards(target)
    predict(films, network, target, shard=Shard(1, 2))
    with pytest.raises(ResumeError, match="2/2 is missing"):
        join_shards(target)
    with pytest.raises(StoppedError):
        predict(films, network, target, shard=Shard(2, 2), on_progress=stop_after(3))
    with pytest.raises(ResumeError, match="12 of 34"):
        join_shards(target)
    few = sorted(films.glob("*/*.png"))[:40]
    predict(few, network, target, shard=Shard(2, 2), restart=True)
    with pytest.raises(ResumeError, match="different lists"):
        join_shards(target)
    predict(films, network, target, shard=Shard(2, 2), kind="probability", restart=True)
    with pytest.raises(ResumeError, match="output"):
        join_shards(target)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2"])
def test_shards_are_checked(text):
    with pytest.raises(ValueError, match="shard"):
        parse_shard(text)


@pytest.mark.parametrize("images", [0, 1, 7, 8, 9, 1000])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_shards_cover_the_list_in_whole_batches(images, count):
    bounds = [Shard(i, count).bounds(images, 8) for i in range(1, count + 1)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == images
    assert all(a[1] == b[0] for a, b in itertools.pairwise(bounds))
    assert all(first % 8 == 0 or first == images for first, _ in bounds)


def killed_run(films, folder, *, kills, pause, options, seed):
    """Bytes of a run that was killed so many times, and of one that was not."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(long_run.__file__).parents[1]), *sys.path]
    )
    words = (films, folder, kills, pause, seed, json.dumps(options))
    command = [sys.executable, long_run.__file__, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return (folder / "killed.csv").read_bytes(), (folder / "whole.csv").read_bytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks and kills as POSIX does")
def test_three_kills_change_no_byte(tmp_path):
    films = long_run.write_films(tmp_path / "films", 300, damaged=50)
    options = {"batch_size": 4}
    killed, whole = killed_run(films, tmp_path, kills=3, pause=0.01, options=options, seed=5)
    assert killed == whole
    assert whole.count(b"\n") == 301


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks and kills as POSIX does")
@pytest.mark.parametrize("isolate", [False, True])
def test_twenty_kills_of_ten_thousand_images_change_no_byte(tmp_path, isolate):
    films = long_run.write_films(tmp_path / "films", 10_000, damaged=97)
    options = {"batch_size": 8, "reading": {"workers": 2, "isolate": isolate}}
    killed, whole = killed_run(films, tmp_path, kills=20, pause=0.001, options=options, seed=9)
    assert killed == whole
    assert whole.count(b"\n") == 10_001
