import sqlite3
import threading

import pytest

from torchxrayvision.errors import ServiceError
from torchxrayvision.service.queue import Queue, ResultObject

OBJECT = ResultObject("sr", "out/aa/bb/sr0.dcm", "2.25.1", "1.2")


@pytest.fixture
def queue(tmp_path):
    found = Queue(tmp_path / "queue.sqlite")
    yield found
    found.close()


def add(queue, name=b"a", model="m"):
    return queue.add(name, model, "cstore", f"in/{name.hex()}.dcm", b"hash")


def test_a_commit_is_on_the_disk_and_survives(queue, tmp_path):
    (mode,) = queue._db.execute("PRAGMA journal_mode").fetchone()
    (sync,) = queue._db.execute("PRAGMA synchronous").fetchone()
    assert (mode, sync) == ("wal", 2)
    add(queue)
    again = Queue(tmp_path / "queue.sqlite")
    assert again.waiting() == 1
    again.close()


def test_an_instance_is_taken_once_per_model(queue):
    first = add(queue)
    assert first.new
    assert not first.stale
    second = queue.add(b"a", "m", "stow", "in/other.dcm", b"hash")
    assert (second.job, second.new, second.stale) == (first.job, False, ("in/other.dcm",))
    assert add(queue, model="n").new
    assert queue.waiting() == 2


def test_many_threads_take_an_instance_once(queue):
    found = []
    threads = [threading.Thread(target=lambda: found.append(add(queue).new)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False] * 15 + [True]


def test_an_image_goes_from_state_to_state(queue):
    job = add(queue).job
    (claimed,) = queue.claim("w", 5, 60)
    assert claimed.id == job
    assert queue.claim("other", 5, 60) == []
    assert queue.produced(job, "w", "out/aa/bb", [OBJECT], ["pacs", "web"])
    assert queue.counts()["produced"] == 1
    for target in ("pacs", "web"):
        (delivery,) = queue.claim_deliveries(target, "d", 5, 60)
        assert delivery.objects == (OBJECT,)
        assert queue.claim_deliveries(target, "other", 5, 60) == []
        assert queue.counts()["delivered"] == 0
        queue.delivery_is(delivery, "d", "done")
    assert queue.counts()["delivered"] == 1
    assert queue.unfinished() == 0


def test_without_targets_an_image_ends_where_it_is_read(queue):
    job = add(queue).job
    queue.claim("w", 1, 60)
    queue.produced(job, "w", "out/aa/bb", [OBJECT], [])
    assert queue.counts()["delivered"] == 1


def test_who_lost_the_lease_cannot_answer(queue):
    job = add(queue).job
    queue.claim("slow", 1, 0.0)
    (again,) = queue.claim("fast", 1, 60)
    assert again.id == job
    assert not queue.produced(job, "slow", "out/1", [OBJECT], ["pacs"])
    assert queue.produced(job, "fast", "out/2", [OBJECT], ["pacs"])
    assert not queue.produced(job, "fast", "out/3", [OBJECT], ["pacs"])
    assert len(queue.claim_deliveries("pacs", "d", 5, 60)) == 1


def test_what_the_same_owner_forgot_is_leased_again(queue):
    job = add(queue).job
    queue.claim("w", 1, 60)
    assert [j.id for j in queue.claim("w", 1, 60)] == [job]


def test_the_next_life_takes_over_what_was_at_hand(queue):
    for name in (b"a", b"b", b"c"):
        add(queue, name, "old")
    add(queue, b"c", "new")
    queue.claim("w", 1, 3600)
    assert queue.begin("new") == 1
    assert queue.counts()["received"] == 3
    assert {j.instance for j in queue.claim("w2", 9, 60)} == {b"a", b"b", b"c"}


def test_an_image_that_workers_die_of_fails_at_last(queue):
    job = add(queue).job
    for died in (False, True):
        queue.claim("w", 1, 60)
        assert queue.crashed(job, "w", 2, "died") is died
    assert queue.counts()["failed"] == 1
    assert queue.troubles()[0]["reason"] == "died"


@pytest.mark.parametrize("outcome", ["failed", "refused"])
def test_what_failed_is_read_again_when_it_is_sent_again(queue, outcome):
    job = add(queue).job
    queue.claim("w", 1, 60)
    queue.produced(job, "w", "out/aa/bb", [OBJECT], [], outcome=outcome, reason="so")
    assert queue.known(b"a", "m") is None
    again = queue.add(b"a", "m", "stow", "in/new.dcm", b"hash")
    assert again.new
    assert set(again.stale) == {"in/61.dcm", "out/aa/bb"}
    assert queue.counts()["received"] == 1
    assert queue.claim("w", 1, 60)[0].file == "in/new.dcm"


def test_dead_letters_begin_anew_when_told(queue):
    job = add(queue).job
    queue.claim("w", 1, 60)
    queue.produced(job, "w", "out/aa/bb", [OBJECT], ["pacs", "web"])
    for target, state in (("pacs", "done"), ("web", "dead")):
        (delivery,) = queue.claim_deliveries(target, "d", 1, 60)
        queue.delivery_is(delivery, "d", state, attempted=True, reason="no")
    assert queue.counts()["dead"] == 1
    assert queue.troubles()[0]["targets"] == {"web": "no"}
    assert queue.retry(["failed"]) == 0
    assert queue.retry(["dead"], job + 1) == 0
    assert queue.retry(["dead"], job) == 1
    assert queue.claim_deliveries("pacs", "d", 1, 60) == []
    (delivery,) = queue.claim_deliveries("web", "d", 1, 60)
    assert delivery.attempts == 0


def test_targets_that_are_no_longer_named_end_as_dead_letters(queue):
    job = add(queue).job
    queue.claim("w", 1, 60)
    queue.produced(job, "w", "out/aa/bb", [OBJECT], ["gone"])
    assert queue.drop_targets(["pacs"]) == 1
    assert queue.counts()["dead"] == 1


def test_files_are_named_as_long_as_they_are_needed(queue):
    job = add(queue).job
    queue.claim("w", 1, 60)
    queue.produced(job, "w", "out/aa/bb", [OBJECT], [])
    assert queue.files() == {"in/61.dcm", "out/aa/bb"}
    assert queue.expired(0.0, 0.0) == []
    assert queue.expired(2e10, 0.0) == [(job, "in/61.dcm", "out/aa/bb")]
    queue.forget_files([job])
    assert queue.files() == set()
    assert queue.known(b"a", "m") == job
    assert queue.forget_records(2e10) == 1
    assert queue.known(b"a", "m") is None


def test_a_file_of_another_version_or_a_damaged_one_is_refused(tmp_path):
    queue = Queue(tmp_path / "a.sqlite")
    queue.keep("layout", "99")
    queue.close()
    with pytest.raises(ServiceError, match="another version"):
        Queue(tmp_path / "a.sqlite")
    (tmp_path / "b.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(ServiceError, match="cannot be used"):
        Queue(tmp_path / "b.sqlite")


def test_a_transaction_that_fails_leaves_nothing(queue):
    with pytest.raises(sqlite3.Error), queue._change() as db:
        db.execute("INSERT INTO settings VALUES ('a', 'b')")
        db.execute("INSERT INTO nothing VALUES (1)")
    assert queue.setting("a") == ""
    assert add(queue).new
