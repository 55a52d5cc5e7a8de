"""Runs on a Ray cluster: the journal is here, models are actors on its nodes."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import secrets
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from torchxrayvision.errors import ClusterError, caller_stacklevel, needs_package
from torchxrayvision.inference.cluster.pool import Pool
from torchxrayvision.inference.cluster.worker import ModelPayload, Part, RunConfig, Worker
from torchxrayvision.inference.engines.runtime import Choice
from torchxrayvision.inputs import ReadOptions
from torchxrayvision.runs import read_lines

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from torchxrayvision.models import XRayClassifier
    from torchxrayvision.runs import Batch, Record

# So many parts for each actor, so that the last ones end at about the same time; and no larger ones
# than these, so that little is lost with a node.
_PARTS_EACH: Final = 8
_LARGEST_PART: Final = 512
_STORE: Final = 256 << 20  # bytes of shared memory that a cluster of our own takes


@dataclass(frozen=True, kw_only=True, slots=True)
class RayCluster:
    """A cluster of Ray, for `predict_to_file`; needs the extra `ray`.

    Every node must have this version of the package and see the images under the same names, as
    on shared storage. The list, the finished rows and the table are on the machine that calls.
    An actor is a process with the model that reads, prepares and computes parts of the list. What
    a node or an actor takes with it is computed again elsewhere.

    Args:
        address: `"auto"` for the cluster that this machine belongs to, `"ray://host:10001"` for
            one elsewhere, `"local"` for a new one on this machine. None is `"auto"` where there is
            one, else `"local"`.
        cpus: CPUs of an actor: threads of torch, and workers that read. None is what a
            run without a cluster would use here, as numbers depend on it in their last bits; on
            GPUs the share of each.
        actors: Most actors; None for as many as the nodes hold, now or later.
    """

    address: str | None = None
    cpus: int | None = None
    actors: int | None = None

    def __post_init__(self) -> None:
        for name in ("cpus", "actors"):
            value = getattr(self, name)
            if value is not None and value < 1:
                msg = f"{name}={value}: at least 1"
                raise ValueError(msg)

    @contextlib.contextmanager
    def runner(
        self,
        net: XRayClassifier,
        reading: ReadOptions | None,
        device: str | torch.device | None,
    ) -> Iterator[_RayRunner]:
        """A `Runner` on the cluster, which is joined when there is something to do.

        Args:
            net: In evaluation mode.
            reading: How files are read.
            device: `"cpu"` or `"cuda"`; None for GPUs if the cluster has any.

        Raises:
            DependencyError: If Ray is not installed.
            ValueError: For any other device.
        """
        kind = None if device is None else torch.device(device).type
        if kind not in (None, "cpu", "cuda"):
            msg = f"device {str(device)!r}: a cluster computes on cpu or cuda"
            raise ValueError(msg)
        runner = _RayRunner(_ray(), self, net, reading or ReadOptions(), kind)
        try:
            yield runner
        finally:
            runner.close()


def _ray() -> Any:
    with needs_package("ray", "a run on a Ray cluster", "ray"):
        import ray
    return ray


class _RayRunner:
    """See `RayCluster.runner`; `machine` and `batches` are those of `Runner`."""

    def __init__(
        self,
        ray: Any,
        cluster: RayCluster,
        net: XRayClassifier,
        reading: ReadOptions,
        kind: str | None,
    ) -> None:
        self._ray = ray
        self._cluster = cluster
        self._net = net
        self._reading = reading
        self._kind = kind
        self._joined = self._ours = False
        self._pool: Pool | None = None

    def _join(self) -> None:
        if self._joined:
            return
        self._ours = _connect(self._ray, self._cluster.address)
        self._joined = True
        gpus = sum(gpu for _, gpu in self._nodes())
        if self._kind == "cuda" and not gpus:
            msg = "no node of the cluster offers a GPU; give --device cpu"
            raise ClusterError(msg)
        self._gpu = gpus > 0 and self._kind != "cpu"

    def _nodes(self) -> list[tuple[int, int]]:
        """CPUs and GPUs of each node that is alive."""
        resources = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return [(int(r.get("CPU", 0)), int(r.get("GPU", 0))) for r in resources]

    def _default_cpus(self) -> int:
        nodes = self._nodes()
        if self._gpu:
            return max(1, min(cpu // gpu for cpu, gpu in nodes if gpu))
        return max(1, min(torch.get_num_threads(), max(cpu for cpu, _ in nodes)))

    def _room(self, cpus: int) -> int:
        return sum(min(cpu // cpus, gpu if self._gpu else cpu) for cpu, gpu in self._nodes())

    def _opened(self, cpus: int) -> Pool:
        """The pool of actors with so many CPUs each."""
        if self._pool is None:
            if not self._room(cpus):
                found = ", ".join(f"{cpu} CPUs and {gpu} GPUs" for cpu, gpu in self._nodes())
                msg = f"no node has {cpus} CPUs for an actor (there are {found}); give fewer --cpus"
                raise ClusterError(msg)
            options = {
                "num_cpus": cpus,
                "num_gpus": int(self._gpu),
                "scheduling_strategy": "SPREAD",
            }
            limit = self._cluster.actors
            self._pool = Pool(self._ray, options, lambda: self._room(cpus), limit)
        return self._pool

    def _model(self, threads: int) -> Any:
        """The network, once in the memory that nodes share."""
        net = self._net
        if next(net.parameters()).device.type != "cpu":
            import copy

            net = copy.deepcopy(net).cpu()
        device = "cuda" if self._gpu else "cpu"
        folder = os.fspath(Path.cwd())
        return self._ray.put(ModelPayload(net=net, device=device, threads=threads, folder=folder))

    def machine(self, options: dict[str, Any], images: int, listed: Path) -> dict[str, Any]:
        """See `Runner`; asked of an actor, as other machines may be slower or lack an engine."""
        self._join()
        cpus = self._cluster.cpus or self._default_cpus()
        pool = self._opened(cpus)
        lines = list(read_lines(listed, 0, Worker.sample(options["batch_size"])))
        model = self._model(cpus)
        machine, notes = pool.ask(
            lambda actor: actor.choose_engine.remote(model, options, images, lines, self._reading),
            most=-(-images // options["batch_size"]),
        )
        for category, text in notes:
            warnings.warn(text, category, stacklevel=caller_stacklevel())
        found: dict[str, Any] = machine
        return found

    def batches(
        self, record: Record, listed: Path, start: int, stop: int
    ) -> Generator[Batch, None, None]:
        """See `Runner`."""
        self._join()
        threads = record.machine["threads"]
        cpus = self._cluster.cpus or threads
        pool = self._opened(cpus)
        model = self._model(threads)
        config = self._ray.put(
            RunConfig(
                kind=record.options["output"],
                batch_size=record.batch_size,
                features=record.options["embeddings"],
                check=record.options["check"],
                reference=record.options.get("reference", {}).get("name"),
                choice=Choice(**record.machine["engine"]),
                reading=replace(self._reading, workers=self._reading.workers or cpus),
                precision=record.options["precision"],
            )
        )
        actors = min(self._room(cpus), self._cluster.actors or stop)
        size = _part_size(stop - start, record.batch_size, actors)
        count = -(-(stop - start) // size)
        parts = _parts(listed, start, stop, size)
        yield from pool.run(
            parts, count, lambda actor: actor.start.remote(model, config), record.machine
        )

    def close(self) -> None:
        """End the actors and leave the cluster, if it was joined here."""
        if self._pool is not None:
            self._pool.close()
        if self._ours:
            self._ray.shutdown()


def _part_size(images: int, batch_size: int, actors: int) -> int:
    """Images of a part: whole batches."""
    wanted = min(_LARGEST_PART, images / (_PARTS_EACH * max(1, actors)))
    return max(1, int(wanted // batch_size)) * batch_size


def _parts(listed: Path, start: int, stop: int, size: int) -> Iterator[Part]:
    lines = read_lines(listed, start, stop)
    for number in itertools.count():
        chunk = list(itertools.islice(lines, size))
        if not chunk:
            return
        yield Part(number, start + number * size, chunk)


def _connect(ray: Any, address: str | None) -> bool:
    """Join a cluster; whether it has to be left at the end."""
    if ray.is_initialized():
        return False
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address != "local":
        try:
            ray.init(address or "auto", **quiet)
        except (ConnectionError, RuntimeError) as error:
            if address is not None:
                msg = f"no Ray cluster at {address} ({error}); `ray start --head` begins one"
                raise ClusterError(msg) from error
        else:
            return True
    try:
        with _private(ray):
            ray.init("local", include_dashboard=False, object_store_memory=_STORE, **quiet)
            listening = str(ray.util.get_node_ip_address())
    except Exception as error:
        msg = f"Ray does not start on this machine ({error}); it waits 30 s, is the machine busy?"
        raise ClusterError(msg) from error
    if not listening.startswith("127."):
        ray.shutdown()
        msg = (
            f"this version of Ray would listen on {listening}, and whoever reaches its ports can "
            "run code; begin a cluster with `ray start --head` in a network of its own, and give "
            "--address auto"
        )
        raise ClusterError(msg)
    return True


@contextlib.contextmanager
def _private(ray: Any) -> Iterator[None]:
    """Keep a cluster that is begun inside to this machine and this run, and its use to itself."""
    # Ray takes the address of the network for the loopback one, apart from where it believes that
    # the system has no clusters; its own token would be a file that everybody may read.
    chosen = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    constants = ray._private.ray_constants
    before, clusters = dict(os.environ), constants.ENABLE_RAY_CLUSTER
    os.environ.update(chosen)
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = clusters
        for name in chosen:
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]
