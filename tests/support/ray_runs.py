"""Runs on a Ray cluster of one or two nodes on this machine; a script, as Ray fills a process.

    python ray_runs.py SCENARIO FILMS FOLDER

Writes tables into FOLDER, and what happened into happened.json. Ray gives a node half a minute to
start, which a busy machine may exceed: then the exit code is NOT_STARTED, or SIGALRM ends it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

import torch

from support import long_run
from torchxrayvision.errors import ClusterError
from torchxrayvision.inference import RayCluster, predict_to_file
from torchxrayvision.models import DenseNet

ONE = RayCluster(cpus=1)
STORE = 100 << 20  # bytes; hardly more than the least that Ray takes
NOT_STARTED = 75
NODE = {"num_cpus": 1, "object_store_memory": STORE}


class Slow(DenseNet):
    """A network that waits until both nodes compute, and then gives one time to be lost in."""

    marks: Path

    def embed(self, x):
        if len(x) == 1:  # one node is asked how fast it is, before there is anything to do
            return super().embed(x)
        (self.marks / str(os.getppid())).touch()  # a node is the parent of its workers
        while len(list(self.marks.iterdir())) < 2:
            time.sleep(0.02)
        time.sleep(0.05)
        return super().embed(x)


class StoppedError(Exception):
    """What ends a run here."""


def slow_network(folder):
    net = long_run.network()
    net.__class__, net.marks = Slow, folder / "marks"
    net.marks.mkdir()
    return net


def predict(films, output, net, **options):
    return predict_to_file(
        films, net, output, engine="torch", batch_size=4, embeddings=True, **options
    )


def stop_after(batches):
    calls = iter(range(batches))

    def on_progress(done, total):
        if next(calls, None) is None:
            raise StoppedError

    return on_progress


def stopped(films, output, net, **options):
    try:
        predict(films, output, net, on_progress=stop_after(12), **options)
    except StoppedError:
        return
    raise AssertionError


class Losses(logging.Handler):
    """How many parts were lost."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def emit(self, record):
        self.count += record.msg.startswith("lost %d images")


def two_nodes(films, folder):
    """One run that loses a node, two that are moved between the cluster and this process."""
    predict(films, folder / "whole.csv", long_run.network())
    assert "ray" not in sys.modules
    import ray
    from ray.cluster_utils import Cluster

    losses = Losses()
    logger = logging.getLogger("torchxrayvision.inference.cluster.pool")
    logger.addHandler(losses)
    logger.setLevel(logging.INFO)
    net = slow_network(folder)
    signal.alarm(100)
    try:
        cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **NODE})
        second = cluster.add_node(**NODE)
        ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception:  # noqa: BLE001 - Ray raises just that
        os._exit(NOT_STARTED)
    signal.alarm(0)
    killed = []

    def kill_second(done, total):
        if not killed and done:
            killed.append(done)
            cluster.remove_node(second, allow_graceful=False)

    try:
        begun = time.monotonic()
        lost = predict(films, folder / "lost.csv", net, cluster=ONE, on_progress=kill_second)
        seconds = time.monotonic() - begun
        stopped(films, folder / "left.csv", net, cluster=ONE)
        left = predict(films, folder / "left.csv", net)
        stopped(films, folder / "joined.csv", net)
        joined = predict(films, folder / "joined.csv", net, cluster=ONE)
    finally:
        ray.shutdown()
        cluster.shutdown()
    return {
        "killed": killed, "losses": losses.count, "failed": lost.failed, "seconds": seconds,
        "resumed": [lost.resumed, left.resumed, joined.resumed],
    }  # fmt: skip


def one_node(films, folder):
    """A run that is begun here and finished on a cluster of its own."""
    net = long_run.network()
    whole = predict(films, folder / "whole.csv", net)
    stopped(films, folder / "moved.csv", net)
    assert "ray" not in sys.modules
    moved = on_own_cluster(films, folder / "moved.csv")
    return {"failed": moved.failed, "resumed": [moved.resumed, whole.resumed]}


def crash(films, folder):
    """One film ends every process that reads it; see the code that the test gives to Python."""
    return {"failed": on_own_cluster(films, folder / "crash.csv").failed}


def on_own_cluster(films, output):
    """A run with one actor on a cluster that the run begins."""
    try:
        return predict(films, output, long_run.network(), cluster=RayCluster(
            address="local", cpus=1, actors=1))  # fmt: skip
    except ClusterError as error:
        if "does not start" in str(error):
            os._exit(NOT_STARTED)
        raise


def main(scenario, films, folder):
    torch.set_num_threads(1)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    scenarios = {"one-node": one_node, "two-nodes": two_nodes, "crash": crash}
    happened = scenarios[scenario](films, Path(folder))
    Path(folder, "happened.json").write_text(json.dumps(happened))


if __name__ == "__main__":
    main(*sys.argv[1:])
