"""The durable queue: what was received, what became of it, and where its results have to go.

One sqlite file in WAL mode with `synchronous=FULL`: a commit is on the disk when it returns. An
image is a job; its states are::

    received -> working -> produced -> delivered          results are where they belong
                   |          |
                   |          +------> dead                an archive does not take them
                   +-> refused                             the gate does not let it pass
                   +-> failed                              it cannot be read

A job is unique by instance and model, so that an instance is answered once per model. The file
holds no patient data: instances are known by a keyed hash, and the UIDs of results are our own.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

STATES: Final = ("received", "working", "produced", "delivered", "refused", "failed", "dead")
_LAYOUT: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    instance BLOB NOT NULL,          -- keyed hash of the SOP Instance UID
    model TEXT NOT NULL,             -- networks and version that answer
    state TEXT NOT NULL,
    origin TEXT NOT NULL,            -- cstore, stow, watch, pull
    file TEXT NOT NULL,              -- in the spool; '' once it is removed
    sha256 BLOB NOT NULL,            -- of the bytes
    results TEXT NOT NULL DEFAULT '',  -- folder in the spool; '' for none
    outcome TEXT NOT NULL DEFAULT '',  -- read, refused, failed
    reason TEXT NOT NULL DEFAULT '',
    received REAL NOT NULL,
    changed REAL NOT NULL,
    crashes INTEGER NOT NULL DEFAULT 0,
    owner TEXT NOT NULL DEFAULT '',
    lease REAL NOT NULL DEFAULT 0,
    UNIQUE (instance, model));
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, id);
CREATE TABLE IF NOT EXISTS objects (
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    file TEXT NOT NULL,
    uid TEXT NOT NULL,               -- SOP Instance UID of the result
    sop_class TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS objects_by_job ON objects (job);
CREATE TABLE IF NOT EXISTS deliveries (
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    target TEXT NOT NULL,
    state TEXT NOT NULL,             -- waiting, sent, done, dead
    due REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    owner TEXT NOT NULL DEFAULT '',
    lease REAL NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (job, target));
CREATE INDEX IF NOT EXISTS deliveries_by_due ON deliveries (target, state, due);
"""


@dataclass(frozen=True, slots=True)
class Job:
    """An image that waits to be read.

    Args:
        id: Own number.
        instance: Keyed hash of its SOP Instance UID.
        file: Name in the spool.
        received: When, in seconds since 1970.
        crashes: Workers that died of it.
    """

    id: int
    instance: bytes
    file: str
    received: float
    crashes: int


@dataclass(frozen=True, slots=True)
class ResultObject:
    """One object that was made.

    Args:
        kind: Of `torchxrayvision.results.KINDS`, or `"refusal"`.
        file: Name in the spool.
        uid: Its SOP Instance UID.
        sop_class: Its SOP Class UID.
    """

    kind: str
    file: str
    uid: str
    sop_class: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """Results of one image on their way to one archive.

    Args:
        job: Number of the job.
        target: Name of the archive.
        sent: Whether they were sent, so that the archive is to be asked for them.
        attempts: How often they were sent before.
        objects: What is to be there.
        received: When the image was received.
    """

    job: int
    target: str
    sent: bool
    attempts: int
    objects: tuple[ResultObject, ...]
    received: float


@dataclass(frozen=True, slots=True)
class Added:
    """What came of a received image.

    Args:
        job: Its number.
        new: Whether it is to be read; False if the instance waits or is answered already.
        stale: Names in the spool that nobody needs.
    """

    job: int
    new: bool
    stale: tuple[str, ...]


def _restart(db: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> int:
    """Let jobs be read anew; `where` is a constant of this module."""
    chosen = f"(SELECT id FROM jobs WHERE {where})"
    db.execute(f"DELETE FROM objects WHERE job IN {chosen}", values)
    db.execute(f"DELETE FROM deliveries WHERE job IN {chosen}", values)
    return db.execute(
        "UPDATE jobs SET state = 'received', outcome = '', reason = '', results = '', crashes = 0, "
        f"owner = '', changed = {time.time()} WHERE {where}", values,
    ).rowcount  # fmt: skip


class Queue:
    """The queue of one service; all methods may be called from any thread.

    Args:
        file: Made if absent.

    Raises:
        ServiceError: If the file is of another version or damaged.
    """

    def __init__(self, file: Path) -> None:
        self._lock = threading.RLock()
        file.touch(mode=0o600)  # sqlite gives its other files the rights of this one
        try:
            self._db = sqlite3.connect(file, timeout=30, check_same_thread=False)
            self._db.isolation_level = None
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._db.executescript(_SCHEMA)
            self._check_layout(file)
        except sqlite3.DatabaseError as error:
            msg = f"{file} cannot be used as the queue: {error}"
            raise ServiceError(msg) from None

    def _check_layout(self, file: Path) -> None:
        layout = int(self.setting("layout") or _LAYOUT)
        if layout != _LAYOUT:
            msg = f"{file} was written by another version (layout {layout}, known: {_LAYOUT})"
            raise ServiceError(msg)
        self.keep("layout", str(_LAYOUT))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on the disk when the block has ended."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    # ---- settings -------------------------------------------------------------------------------

    def setting(self, name: str) -> str:
        """A value that `keep` kept; empty if none.

        Args:
            name: Its name.
        """
        rows = self._rows("SELECT value FROM settings WHERE name = ?", name)
        return str(rows[0][0]) if rows else ""

    def keep(self, name: str, value: str) -> None:
        """Keep a value.

        Args:
            name: Its name.
            value: A text.
        """
        with self._change() as db:
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    # ---- in -------------------------------------------------------------------------------------

    def begin(self, model: str) -> int:
        """Take over what an earlier life of the service left.

        All leases end, for only one service runs at a time; what was not read yet is read by the
        networks of today.

        Args:
            model: Networks and version that answer from now on.

        Returns:
            How many jobs were being read.
        """
        with self._change() as db:
            left = db.execute(
                "UPDATE jobs SET state = 'received', owner = '', lease = 0 WHERE state = 'working'"
            ).rowcount
            db.execute("UPDATE OR IGNORE jobs SET model = ? WHERE state = 'received'", (model,))
            # What was answered by the networks of today meanwhile needs no second answer.
            db.execute("DELETE FROM jobs WHERE state = 'received' AND model != ?", (model,))
            db.execute("UPDATE deliveries SET owner = '', lease = 0 WHERE owner != ''")
        return left

    def known(self, instance: bytes, model: str) -> int | None:
        """The job of an instance that waits or is answered, so that its bytes are not needed again.

        Args:
            instance: Keyed hash of its UID.
            model: Networks and version.
        """
        rows = self._rows(
            "SELECT id FROM jobs WHERE instance = ? AND model = ? AND state NOT IN "
            "('failed', 'refused')", instance, model,
        )  # fmt: skip
        return int(rows[0][0]) if rows else None

    def has(self, instance: bytes, model: str) -> bool:
        """Whether there is a record of an instance, whatever came of it.

        Args:
            instance: Keyed hash of its UID.
            model: Networks and version.
        """
        query = "SELECT 1 FROM jobs WHERE instance = ? AND model = ?"
        return bool(self._rows(query, instance, model))

    def add(self, instance: bytes, model: str, origin: str, file: str, sha256: bytes) -> Added:
        """Take a received image; on return it is durable.

        An instance that failed or was refused before is read again: who sends it a second time
        may have repaired it, or the rules.

        Args:
            instance: Keyed hash of its UID.
            model: Networks and version.
            origin: Where from: `"cstore"`, `"stow"`, `"watch"`, `"pull"`.
            file: Name in the spool.
            sha256: Of the bytes.

        Returns:
            The job, and what the spool holds in vain: `file` itself if the instance is known.
        """
        now = time.time()
        with self._change() as db:
            found = db.execute(
                "SELECT id, state, file, results FROM jobs WHERE instance = ? AND model = ?",
                (instance, model),
            ).fetchone()
            if found is None:
                row = db.execute(
                    "INSERT INTO jobs (instance, model, state, origin, file, sha256, received, "
                    "changed) VALUES (?, ?, 'received', ?, ?, ?, ?, ?)",
                    (instance, model, origin, file, sha256, now, now),
                )
                return Added(int(row.lastrowid or 0), True, ())
            job, state, *old = found
            if state not in ("failed", "refused"):
                return Added(int(job), False, (file,))
            _restart(db, "id = ?", (job,))
            db.execute(
                "UPDATE jobs SET origin = ?, file = ?, sha256 = ?, received = ? WHERE id = ?",
                (origin, file, sha256, now, job),
            )
        return Added(int(job), True, tuple(name for name in old if name))

    # ---- work -----------------------------------------------------------------------------------

    def claim(self, owner: str, most: int, seconds: float) -> list[Job]:
        """Lease images that wait, the oldest first.

        What the same owner leased before and said nothing of is leased again.

        Args:
            owner: Who.
            most: How many at most.
            seconds: After which the lease ends if nobody says what came of it.

        Returns:
            The jobs, now `working`.
        """
        now = time.time()
        with self._change() as db:
            rows = db.execute(
                "UPDATE jobs SET state = 'working', owner = ?, lease = ?, changed = ? WHERE id IN "
                "(SELECT id FROM jobs WHERE state = 'received' OR (state = 'working' AND "
                "(lease < ? OR owner = ?)) ORDER BY id LIMIT ?) "
                "RETURNING id, instance, file, received, crashes",
                (owner, now + seconds, now, now, owner, most),
            ).fetchall()  # fmt: skip
        return [Job(*row) for row in sorted(rows)]

    def crashed(self, job: int, owner: str, most: int, reason: str) -> bool:
        """Note that a worker died of an image; whether it counts as failed now.

        Args:
            job: Its number.
            owner: Who leased it.
            most: Workers that may die of it.
            reason: Of the failure, should it be one.
        """
        with self._change() as db:
            row = db.execute(
                "UPDATE jobs SET crashes = crashes + 1, owner = '', lease = 0, changed = ?1, "
                "state = iif(crashes + 1 >= ?2, 'failed', 'received'), "
                "outcome = iif(crashes + 1 >= ?2, 'failed', ''), "
                "reason = iif(crashes + 1 >= ?2, ?3, '') "
                "WHERE id = ?4 AND owner = ?5 AND state = 'working' RETURNING state",
                (time.time(), most, reason, job, owner),
            ).fetchone()  # fmt: skip
        return row is not None and row[0] == "failed"

    def produced(
        self,
        job: int,
        owner: str,
        results: str,
        objects: Sequence[ResultObject],
        targets: Sequence[str],
        *,
        outcome: str = "read",
        reason: str = "",
    ) -> bool:
        """Take the results of an image; whether the lease still held.

        Args:
            job: Its number.
            owner: Who leased it.
            results: Folder of the objects in the spool; empty for none.
            objects: What was made; none for an image that is refused without an answer.
            targets: Names of the archives that get them.
            outcome: `"read"`, `"refused"` or `"failed"`.
            reason: Why it was refused or failed.

        Returns:
            False if somebody else has the job meanwhile, so that these results are not needed.
        """
        now = time.time()
        ended = {"read": "delivered"}.get(outcome, outcome)
        state = "produced" if objects and targets else ended
        with self._change() as db:
            held = db.execute(
                "UPDATE jobs SET state = ?, results = ?, outcome = ?, reason = ?, owner = '', "
                "lease = 0, changed = ? WHERE id = ? AND owner = ? AND state = 'working'",
                (state, results, outcome, reason, now, job, owner),
            ).rowcount  # fmt: skip
            if not held:
                return False
            db.executemany(
                "INSERT INTO objects VALUES (?, ?, ?, ?, ?)",
                [(job, o.kind, o.file, o.uid, o.sop_class) for o in objects],
            )
            if objects:
                db.executemany(
                    "INSERT INTO deliveries (job, target, state, due) VALUES (?, ?, 'waiting', ?)",
                    [(job, target, now) for target in targets],
                )
        return True

    # ---- out ------------------------------------------------------------------------------------

    def claim_deliveries(
        self, target: str, owner: str, most: int, seconds: float
    ) -> list[Delivery]:
        """Lease deliveries to one archive that are due; also what this owner leased and forgot.

        Args:
            target: Its name.
            owner: Who.
            most: How many at most.
            seconds: Of the lease.

        Returns:
            The deliveries with their objects.
        """
        now = time.time()
        with self._lock:  # most looks find nothing, and need no transaction
            due = self._rows(
                "SELECT 1 FROM deliveries WHERE target = ? AND state IN ('waiting', 'sent') "
                "AND due <= ? LIMIT 1", target, now,
            )  # fmt: skip
            if not due:
                return []
        with self._change() as db:
            rows = db.execute(
                "UPDATE deliveries SET owner = ?, lease = ? WHERE rowid IN (SELECT rowid FROM "
                "deliveries WHERE target = ? AND state IN ('waiting', 'sent') AND due <= ? AND "
                "(lease < ? OR owner = ?) ORDER BY due LIMIT ?) RETURNING job, state, attempts",
                (owner, now + seconds, target, now, now, owner, most),
            ).fetchall()  # fmt: skip
            return [self._delivery(target, *row) for row in sorted(rows)]

    def _delivery(self, target: str, job: int, state: str, attempts: int) -> Delivery:
        objects = self._rows("SELECT kind, file, uid, sop_class FROM objects WHERE job = ?", job)
        ((received,),) = self._rows("SELECT received FROM jobs WHERE id = ?", job)
        made = tuple(ResultObject(*row) for row in objects)
        return Delivery(job, target, state == "sent", attempts, made, received)

    def delivery_is(
        self,
        delivery: Delivery,
        owner: str,
        state: str,
        *,
        due: float = 0.0,
        attempted: bool = False,
        reason: str = "",
    ) -> None:
        """Take what came of a delivery; the job ends with the last one.

        Args:
            delivery: As leased.
            owner: Who leased it.
            state: `"waiting"` to try again, `"sent"` to ask for it, `"done"` or `"dead"`.
            due: When it is to be looked at again, in seconds since 1970.
            attempted: Whether this was an attempt to send that counts.
            reason: What went wrong.
        """
        job, target = delivery.job, delivery.target
        with self._change() as db:
            db.execute(
                "UPDATE deliveries SET state = ?, due = ?, attempts = attempts + ?, reason = ?, "
                "owner = '', lease = 0 WHERE job = ? AND target = ? AND owner = ?",
                (state, due, int(attempted), reason, job, target, owner),
            )  # fmt: skip
            self._settle(db, job)

    def _settle(self, db: sqlite3.Connection, job: int) -> None:
        states = {
            row[0] for row in db.execute("SELECT state FROM deliveries WHERE job = ?", (job,))
        }
        if states & {"waiting", "sent"}:
            return
        ended = "dead" if "dead" in states else None
        db.execute(
            "UPDATE jobs SET changed = ?, state = coalesce(?, CASE outcome WHEN 'read' THEN "
            "'delivered' ELSE outcome END) WHERE id = ? AND state = 'produced'",
            (time.time(), ended, job),
        )  # fmt: skip

    # ---- operate --------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        found = dict(self._rows("SELECT state, count(*) FROM jobs GROUP BY state"))
        return {state: int(found.get(state, 0)) for state in STATES}

    def waiting(self) -> int:
        """How many images wait to be read or are being read."""
        query = "SELECT count(*) FROM jobs WHERE state IN ('received', 'working')"
        return int(self._rows(query)[0][0])

    def unfinished(self) -> int:
        """How many images are neither delivered nor given up."""
        query = "SELECT count(*) FROM jobs WHERE state IN ('received', 'working', 'produced')"
        return int(self._rows(query)[0][0])

    def oldest(self) -> float:
        """Seconds for which the oldest unfinished image has been here; 0 if there is none."""
        query = "SELECT min(received) FROM jobs WHERE state IN ('received', 'working', 'produced')"
        (first,) = self._rows(query)[0]
        return 0.0 if first is None else max(0.0, time.time() - first)

    def delivery_counts(self) -> dict[tuple[str, str], int]:
        """How many deliveries are in each state, by (target, state)."""
        query = "SELECT target, state, count(*) FROM deliveries GROUP BY target, state"
        return {(target, state): int(n) for target, state, n in self._rows(query)}

    def troubles(self, most: int = 100) -> list[dict[str, Any]]:
        """Jobs that were refused, failed or are dead letters, the newest first.

        Args:
            most: How many at most.

        Returns:
            Number, state, reason and time of each; of a dead letter its targets with reasons.
        """
        rows = self._rows(
            "SELECT id, state, reason, changed FROM jobs WHERE state IN "
            "('refused', 'failed', 'dead') ORDER BY changed DESC LIMIT ?", most,
        )  # fmt: skip
        found = []
        for job, state, reason, changed in rows:
            dead = self._rows(
                "SELECT target, reason FROM deliveries WHERE job = ? AND state = 'dead'", job
            )
            row = {"job": job, "state": state, "reason": reason, "changed": changed}
            found.append(row | ({"targets": dict(dead)} if dead else {}))
        return found

    def retry(self, states: Sequence[str], job: int | None = None) -> int:
        """Begin anew what failed, was refused or is a dead letter.

        Args:
            states: Of `"failed"`, `"refused"`, `"dead"`.
            job: One job only.

        Returns:
            How many jobs; those whose image is no longer kept are left.
        """
        only = "" if job is None else " AND id = ?"
        values = () if job is None else (job,)
        changed = 0
        with self._change() as db:
            if "dead" in states:
                db.execute(
                    "UPDATE deliveries SET state = 'waiting', due = 0, attempts = 0 WHERE "
                    "state = 'dead' AND job IN (SELECT id FROM jobs WHERE state = 'dead' "
                    f"AND results != ''{only})", values,
                )  # fmt: skip
                changed += db.execute(
                    "UPDATE jobs SET state = 'produced' WHERE state = 'dead' AND results != ''"
                    f"{only}", values,
                ).rowcount  # fmt: skip
            for state in {"failed", "refused"} & set(states):
                changed += _restart(db, f"state = ? AND file != ''{only}", (state, *values))
        return changed

    def drop_targets(self, names: Sequence[str]) -> int:
        """Give up deliveries to archives that the settings no longer name.

        Args:
            names: Of those that they name.

        Returns:
            How many deliveries are dead letters now.
        """
        marks = ", ".join("?" * len(names)) or "''"
        with self._change() as db:
            jobs = db.execute(
                "UPDATE deliveries SET state = 'dead', reason = 'the settings name no such target' "
                f"WHERE state IN ('waiting', 'sent') AND target NOT IN ({marks}) RETURNING job",
                tuple(names),
            ).fetchall()  # fmt: skip
            for (job,) in jobs:
                self._settle(db, job)
        return len(jobs)

    # ---- retention ------------------------------------------------------------------------------

    def files(self) -> set[str]:
        """Names in the spool that a record still needs."""
        rows = self._rows("SELECT file, results FROM jobs")
        return {name for row in rows for name in row if name}

    def expired(self, delivered_before: float, ended_before: float) -> list[tuple[int, str, str]]:
        """Jobs whose files have been kept long enough.

        Args:
            delivered_before: Time before which delivered ones ended.
            ended_before: Time before which refused, failed and dead ones ended.

        Returns:
            Number, file and folder of results of each.
        """
        rows = self._rows(
            "SELECT id, file, results FROM jobs WHERE (file != '' OR results != '') AND "
            "((state = 'delivered' AND changed <= ?) OR "
            "(state IN ('refused', 'failed', 'dead') AND changed <= ?)) LIMIT 1000",
            delivered_before, ended_before,
        )  # fmt: skip
        return [(int(job), file, results) for job, file, results in rows]

    def forget_files(self, jobs: Sequence[int]) -> None:
        """Note that files are about to be removed; `files` names them no longer.

        Args:
            jobs: Numbers.
        """
        with self._change() as db:
            ones = [(job,) for job in jobs]
            db.executemany("UPDATE jobs SET file = '', results = '' WHERE id = ?", ones)

    def forget_records(self, before: float) -> int:
        """Remove records of jobs that ended long ago, with no files left.

        Args:
            before: Time before which they ended.

        Returns:
            How many.
        """
        with self._change() as db:
            return db.execute(
                "DELETE FROM jobs WHERE state IN ('delivered', 'refused', 'failed', 'dead') "
                "AND file = '' AND results = '' AND changed < ?", (before,),
            ).rowcount  # fmt: skip
