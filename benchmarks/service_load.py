"""How many radiographs a second does the service read, and does it stay as it began?

`xrv serve` with the demonstration's networks receives simulated radiographs by C-STORE as fast as
its queue takes them, and delivers by C-STORE to an archive that keeps nothing but names. Sender,
archive and service share the machine. Meanwhile another peer opens associations, and the memory of
the service with its workers, the length of its queue and its processor time are read.

    python benchmarks/service_load.py --films 10000 --kinds sr
    python benchmarks/service_load.py --films 10000 --kinds sr,sc,seg
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from torchxrayvision.phantom import simulate, write_dicom
from torchxrayvision.service import config_of, status

DX = "1.2.840.10008.5.1.4.1.1.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
PICTURES = 8
BUSY = 0xA700
TICK = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def archive(port: int) -> None:
    """Takes everything, and answers C-FIND with what it took."""
    from pydicom.dataset import Dataset
    from pynetdicom import AE, AllStoragePresentationContexts, evt

    held = set()

    def store(event: Any) -> int:
        held.add(str(event.request.AffectedSOPInstanceUID))
        return 0

    def find(event: Any) -> Any:
        wanted = str(event.identifier.SOPInstanceUID)
        if wanted in held:
            found = Dataset()
            found.QueryRetrieveLevel, found.SOPInstanceUID = "IMAGE", wanted
            yield 0xFF00, found

    ae = AE(ae_title="ARCHIVE")
    ae.supported_contexts = AllStoragePresentationContexts
    ae.add_supported_context("1.2.840.10008.5.1.4.1.2.2.1")

    def opened(event: Any) -> None:
        connection = event.assoc.dul.socket.socket
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    handlers = [
        (evt.EVT_CONN_OPEN, opened),
        (evt.EVT_C_STORE, store),
        (evt.EVT_C_FIND, find),
    ]
    ae.start_server(("127.0.0.1", port), evt_handlers=handlers)


def encoded(folder: Path, size: int) -> list[tuple[str, bytes]]:
    """SOP Instance UID and dataset, without meta information, of some pictures."""
    found = []
    for number in range(PICTURES):
        made = simulate(number, size=size, views=["PA"], findings={"Effusion": 0.7})
        dataset = write_dicom(folder / f"{number}.dcm", made, seed=1, number=number)
        dataset.SOPInstanceUID = f"1.2.826.0.1.3680043.10.998.{number}.{'1' * 9}"
        stream = io.BytesIO()
        dataset.preamble = None
        del dataset.file_meta
        dataset.save_as(stream, implicit_vr=False, little_endian=True)
        found.append((str(dataset.SOPInstanceUID), stream.getvalue()))
    return found


def sender(port: int, pictures: list[tuple[str, bytes]], films: int, refused: Any) -> None:
    """Sends until all were taken; waits a moment where the queue is full, as modalities do."""
    from pynetdicom import AE
    from pynetdicom.dimse_primitives import C_STORE

    ae = AE(ae_title="MODALITY")
    ae.add_requested_context(DX, EXPLICIT)
    association: Any = None
    number = 0
    while number < films:
        if association is None or not association.is_established:
            association = ae.associate("127.0.0.1", port, ae_title="XRV")
            continue
        uid, data = pictures[number % PICTURES]
        own = f"{uid[:-9]}{number + 100_000_000}"
        request = C_STORE()
        request.MessageID, request.Priority = number % 60_000 + 1, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = DX, own
        request.DataSet = io.BytesIO(data.replace(uid.encode(), own.encode()))
        association._reactor_checkpoint.clear()
        while not association._is_paused:
            time.sleep(0.0005)
        association.dimse.send_msg(request, 1)
        _, answer = association.dimse.get_msg(block=True)
        association._reactor_checkpoint.set()
        if answer is not None and answer.Status == 0:
            number += 1
        elif answer is not None and answer.Status == BUSY:
            refused.value += 1
            time.sleep(0.2)
    association.release()


def association_seconds(port: int) -> float:
    """From connecting to the accepted association."""
    from pynetdicom import AE

    ae = AE(ae_title="OTHER")
    ae.add_requested_context("1.2.840.10008.1.1")
    began = time.perf_counter()
    association = ae.associate("127.0.0.1", port, ae_title="XRV")
    took = time.perf_counter() - began
    if association.is_established:
        association.release()
    return took


def processes(parent: int) -> list[int]:
    """A process and those that it started."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found = [parent]
    for process in found:
        found += [child for child, above in parents.items() if above == process]
    return found


def used(parent: int) -> tuple[float, float]:
    """Resident MiB and processor seconds of a process and those that it started."""
    pages = seconds = 0.0
    for process in processes(parent):
        try:
            stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
        except OSError:
            continue
        seconds += (int(stat[11]) + int(stat[12])) / TICK
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, seconds


def settings(folder: Path, arguments: argparse.Namespace, port: int, store: int) -> dict[str, Any]:
    kinds = arguments.kinds.split(",")
    return {
        "folder": str(folder / "state"),
        "model": {"weights": "demo"} | ({"segmenter": "demo-anatomy"} if "seg" in kinds else {}),
        "results": {"kinds": kinds},
        "work": {"processes": arguments.processes},
        "receive": {"port": port, "any_peer": True},
        "limits": {"waiting": arguments.waiting},
        "targets": [
            {"name": "archive", "kind": "dicom", "host": "127.0.0.1", "port": store,
             "aet": "ARCHIVE", "verify_after": 0.0}
        ],
    }  # fmt: skip


def as_toml(values: dict[str, Any]) -> str:
    lines = [f"{k} = {json.dumps(v)}" for k, v in values.items() if not isinstance(v, dict | list)]
    for name, section in values.items():
        if isinstance(section, dict):
            lines += [f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in section.items())]
        elif isinstance(section, list):
            for one in section:
                lines += [f"[[{name}]]", *(f"{k} = {json.dumps(v)}" for k, v in one.items())]
    return "\n".join(lines) + "\n"


def wait_for(port: int, service: subprocess.Popen[bytes]) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if service.poll() is not None:
                raise SystemExit("the service did not start") from None
            time.sleep(0.1)
        else:
            return


def watched(config: Any, service: subprocess.Popen[bytes], port: int, films: int) -> list[Any]:
    """Every two seconds: seconds, delivered, waiting, MiB, processor seconds, association."""
    rows = []
    began = time.perf_counter()
    while True:
        jobs = status(config, troubles=0)["jobs"]
        memory, processor = used(service.pid)
        waiting = jobs["received"] + jobs["working"]
        took = association_seconds(port)
        rows.append(
            (time.perf_counter() - began, jobs["delivered"], waiting, memory, processor, took)
        )
        if jobs["delivered"] + jobs["failed"] + jobs["refused"] + jobs["dead"] >= films:
            return rows
        time.sleep(2)


def report(rows: list[Any], arguments: argparse.Namespace, refused: int) -> None:
    # The first tenth warms up: libraries load, caches fill.
    first = next(i for i, row in enumerate(rows) if row[1] >= arguments.films // 10)
    start, end = rows[first], rows[-1]
    delivered, seconds = end[1] - start[1], end[0] - start[0]
    full = [row[5] for row in rows[first:] if row[2] >= arguments.waiting * 0.9]
    times = full or [row[5] for row in rows[first:]]
    found = {
        "films": end[1],
        "films per second": round(delivered / seconds, 2),
        "processor seconds of the service per film": round((end[4] - start[4]) / delivered, 4),
        "memory after a tenth, MiB": round(start[3]),
        "memory at the end, MiB": round(end[3]),
        "largest memory, MiB": round(max(row[3] for row in rows)),
        "longest queue": max(row[2] for row in rows),
        "median association while the queue is full, ms": round(1000 * statistics.median(times), 1),
        "refused for a full queue": refused,
        "load of the machine": os.getloadavg()[0],
    }
    print(json.dumps(vars(arguments) | found, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--kinds", default="sr")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--waiting", type=int, default=200, help="limits.waiting of the service")
    arguments = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    refused = spawn.Value("q", 0)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        pictures = encoded(folder, arguments.size)
        port, store = free_port(), free_port()
        values = settings(folder, arguments, port, store)
        (folder / "serve.toml").write_text(as_toml(values))
        command = [sys.executable, "-m", "torchxrayvision", "serve", "--config"]
        with (folder / "log").open("wb") as log:
            service = subprocess.Popen([*command, folder / "serve.toml"], stdout=log, stderr=log)
        others = [
            spawn.Process(target=archive, args=(store,), daemon=True),
            spawn.Process(
                target=sender, args=(port, pictures, arguments.films, refused), daemon=True
            ),
        ]
        try:
            wait_for(port, service)
            for other in others:
                other.start()
            rows = watched(config_of(values), service, port, arguments.films)
        finally:
            service.terminate()
            service.wait(60)
            for other in others:
                other.kill()
        report(rows, arguments, refused.value)


if __name__ == "__main__":
    main()
