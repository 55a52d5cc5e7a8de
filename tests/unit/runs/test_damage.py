"""Folders of unfinished runs that were damaged or exchanged: a typed error, never wrong numbers."""

from __future__ import annotations

import random
import shutil

import pytest

from support import long_run
from torchxrayvision.errors import OutputError, ResumeError
from torchxrayvision.inference import Shard, join_shards, predict_to_file

COUNT = 12


@pytest.fixture(scope="module")
def network():
    return long_run.network()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, network):
    """Films, two finished shards of them, and the bytes of a run without shards."""
    folder = tmp_path_factory.mktemp("whole")
    films = long_run.write_films(folder / "films", COUNT)
    options = {"engine": "torch", "batch_size": 2}
    predict_to_file(films, network, folder / "t.csv", **options)
    table = (folder / "t.csv").read_bytes()
    (folder / "t.csv").unlink()
    for index in (1, 2):
        predict_to_file(films, network, folder / "t.csv", shard=Shard(index, 2), **options)
    return folder, table


@pytest.fixture
def shards(whole, tmp_path):
    """A copy of the two shards, the bytes of the right table, and the films."""
    folder, table = whole
    for part in folder.glob("t.csv.part-*"):
        shutil.copytree(part, tmp_path / part.name)
    return tmp_path, table, folder / "films"


def first(folder):
    return folder / "t.csv.part-1-of-2"


def swap_lines(place):
    lines = (place / "sources.jsonl").read_text().splitlines(keepends=True)
    lines[0], lines[3] = lines[3], lines[0]
    (place / "sources.jsonl").write_text("".join(lines))


def other_name(place):
    data = (place / "sources.jsonl").read_bytes()
    (place / "sources.jsonl").write_bytes(data.replace(b"00002.png", b"00009.png"))


def other_journal(place):
    shutil.copy(place.with_name("t.csv.part-2-of-2") / "rows.bin", place / "rows.bin")


def other_column(place):
    text = (place / "run.json").read_text()
    (place / "run.json").write_text(text.replace('"Hernia": 2', '"Hernia": 0'))


DAMAGES = {
    "run.json cut": lambda p: (p / "run.json").write_bytes((p / "run.json").read_bytes()[:300]),
    "run.json of zeros": lambda p: (p / "run.json").write_bytes(bytes(1000)),
    "run.json deep": lambda p: (p / "run.json").write_text("[" * 100_000),
    "run.json a list": lambda p: (p / "run.json").write_text("[1]"),
    "run.json no text": lambda p: (p / "run.json").write_bytes(b"\xff\xfe{}"),
    "run.json another column": other_column,
    "run.json a folder": lambda p: ((p / "run.json").unlink(), (p / "run.json").mkdir()),
    "run.json gone": lambda p: (p / "run.json").unlink(),
    "list cut": lambda p: (p / "sources.jsonl").write_bytes(
        (p / "sources.jsonl").read_bytes()[:40]
    ),
    "list gone": lambda p: (p / "sources.jsonl").unlink(),
    "list no ASCII": lambda p: (p / "sources.jsonl").write_bytes(b"\xff" * 900),
    "list two lines exchanged": swap_lines,
    "list another name": other_name,
    "journal of another shard": other_journal,
    "journal gone": lambda p: (p / "rows.bin").unlink(),
    "journal a folder": lambda p: ((p / "rows.bin").unlink(), (p / "rows.bin").mkdir()),
    "journal of zeros": lambda p: (p / "rows.bin").write_bytes(bytes(1000)),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_a_typed_error_that_names_it(shards, damage):
    folder, _, _ = shards
    DAMAGES[damage](first(folder))
    with pytest.raises(ResumeError, match=r"part-1-of-2"):
        join_shards(folder / "t.csv")
    assert not (folder / "t.csv").exists()


def test_random_damage_never_gives_another_table(shards):
    folder, table, _ = shards
    rng = random.Random(4)
    kept = {p: p.read_bytes() for p in first(folder).iterdir() if p.name != "lock"}
    refused = 0
    for _ in range(150):
        path = rng.choice(sorted(kept))
        data = bytearray(kept[path])
        at = rng.randrange(len(data))
        if rng.random() < 0.7:
            data[at] ^= 1 << rng.randrange(8)
        else:
            del data[at:]
        path.write_bytes(data)
        try:
            join_shards(folder / "t.csv")
        except ResumeError:
            refused += 1
            path.write_bytes(kept[path])
        else:  # pragma: no cover - what fails here is the test
            pytest.fail(f"{path.name} damaged at {at} went unnoticed")
    assert refused == 150
    join_shards(folder / "t.csv")
    assert (folder / "t.csv").read_bytes() == table


@pytest.mark.parametrize("damage", ["run.json cut", "list gone", "list two lines exchanged"])
def test_a_damaged_run_begins_again_when_that_is_asked_for(shards, network, damage):
    folder, table, films = shards
    options = {"engine": "torch", "batch_size": 2, "shard": Shard(1, 2)}
    DAMAGES[damage](first(folder))
    with pytest.raises(ResumeError, match="--overwrite"):
        predict_to_file(films, network, folder / "t.csv", **options)
    done = predict_to_file(films, network, folder / "t.csv", overwrite=True, **options)
    assert done.resumed == 0
    join_shards(folder / "t.csv")
    assert (folder / "t.csv").read_bytes() == table


def test_an_existing_table_is_not_replaced_unasked(shards, network):
    folder, table, films = shards
    (folder / "t.csv").write_text("of last year")
    for again in (
        lambda **o: join_shards(folder / "t.csv", **o),
        lambda **o: predict_to_file(
            films, network, folder / "t.csv", engine="torch", batch_size=2, **o
        ),
    ):
        with pytest.raises(OutputError, match="exists already; give --overwrite"):
            again()
        assert (folder / "t.csv").read_text() == "of last year"
    again(overwrite=True)
    assert (folder / "t.csv").read_bytes() == table
