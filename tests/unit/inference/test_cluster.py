"""Runs on a Ray cluster: the rows of a run without one, whatever becomes of the nodes."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from support import long_run, ray_runs
from torchxrayvision.cli import app
from torchxrayvision.errors import ClusterError, DependencyError, StalledError, XRVWarning
from torchxrayvision.inference import RayCluster, predict_to_file
from torchxrayvision.inference.cluster import pool as _cluster_pool
from torchxrayvision.inference.cluster import ray as _cluster
from torchxrayvision.inference.cluster.pool import Pool
from torchxrayvision.inference.cluster.worker import Answer, Part
from torchxrayvision.inputs import ReadOptions
from torchxrayvision.runs import Batch

MACHINE = {"torchxrayvision": "2", "torch": "2.9", "processor": "x86_64 AVX2"}


class FakeRayError(Exception):
    """Ray lost something."""


class FakeTaskError(FakeRayError):
    """A method raised."""

    traceback_str = "Traceback of the node"

    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class Reference:
    """What a method gives: a value, an error, or nothing yet."""

    def __init__(self, value):
        self.value = value


LATER = object()


class Method:
    def __init__(self, actor, name):
        self.actor, self.name = actor, name

    def remote(self, *arguments, **options):
        return Reference(self.actor.cluster.call(self.actor, self.name, *arguments, **options))


class Actor:
    def __init__(self, cluster):
        self.cluster = cluster
        self.number = len(cluster.actors)
        cluster.actors.append(self)

    def __getattr__(self, name):
        return Method(self, name)


class FakeRay:
    """A cluster whose actors do what `behave(actor number, method, ...)` returns or raises."""

    class exceptions:  # a module in Ray
        RayError = FakeRayError
        RayTaskError = FakeTaskError

    def __init__(self, behave, nodes=()):
        self.behave = behave
        self.actors, self.killed, self.calls = [], [], []
        self._nodes = nodes

    def nodes(self):
        return [{"Alive": alive, "Resources": found} for alive, found in self._nodes]

    def remote(self, **options):
        assert options["max_restarts"] == options["max_task_retries"] == 0
        return lambda kind: type("Class", (), {"remote": lambda: Actor(self)})

    def call(self, actor, name, *arguments, **options):
        if actor in self.killed:
            return FakeRayError("killed")
        if name == "predict":
            self.calls.append((actor.number, arguments[0].number, options["isolate"]))
        try:
            return self.behave(actor.number, name, *arguments, **options)
        except Exception as error:  # noqa: BLE001 - what 1.5.7 raises is the fact recorded
            return error

    def wait(self, references, *, num_returns, timeout):
        ready = [r for r in reversed(references) if r.value is not LATER][:num_returns]
        return ready, [r for r in references if r not in ready]

    def get(self, reference):
        assert reference.value is not LATER
        if isinstance(reference.value, Exception):
            raise reference.value
        return reference.value

    def kill(self, actor):
        self.killed.append(actor)


def answer(part, absent=()):
    batch = Batch(part.first, ("",), np.full((1, 1), part.first, np.float32))
    return Answer([batch], list(absent), "node-7")


def works(actor, method, *arguments, **options):
    return answer(arguments[0]) if method == "predict" else MACHINE


def run(behave, parts=20, room=3, limit=None, ray=None):
    """The positions that come out, and the cluster."""
    ray = ray or FakeRay(behave)
    pool = Pool(ray, {"num_cpus": 1}, lambda: room, limit)
    given = iter([Part(i, i, ["line"]) for i in range(parts)])
    try:
        batches = pool.run(given, parts, lambda actor: actor.open.remote(), MACHINE)
        return [batch.first for batch in batches], ray
    finally:
        pool.close()


def test_parts_come_in_the_order_of_the_list_and_actors_end():
    done, ray = run(works)  # the fake cluster answers the last question first
    assert done == list(range(20))
    assert len(ray.actors) == 3
    assert set(ray.killed) == set(ray.actors)


def test_no_more_actors_than_wanted_or_parts():
    assert len(run(works, limit=2)[1].actors) == 2
    assert len(run(works, parts=1)[1].actors) == 1


def test_a_lost_part_is_given_to_another_actor_and_its_actor_replaced():
    def dies(actor, method, *arguments, **options):
        if method == "predict" and actor in (0, 4) and arguments[0].number > 5:
            raise FakeRayError("the node went")
        return works(actor, method, *arguments, **options)

    done, ray = run(dies)
    assert done == list(range(20))
    lost = [part for actor, part, _ in ray.calls if actor in (0, 4) and part > 5]
    assert lost
    assert sum(len([c for c in ray.calls if c[1] == part]) for part in lost) == 2 * len(lost)
    assert len(ray.actors) == 3 + len(lost)


def test_files_that_end_their_process_twice_are_read_in_others():
    def crashes(actor, method, *arguments, **options):
        if method == "predict" and arguments[0].number == 4 and not options["isolate"]:
            raise FakeRayError("signal 11")
        return works(actor, method, *arguments, **options)

    done, ray = run(crashes)
    assert done == list(range(20))
    assert [isolate for _, part, isolate in ray.calls if part == 4] == [False, False, True]
    assert not any(isolate for _, part, isolate in ray.calls if part != 4)


def test_a_part_that_no_process_survives_stops_the_run():
    def crashes(actor, method, *arguments, **options):
        if method == "predict" and arguments[0].number == 4:
            raise FakeRayError("out of memory\nof the node")
        return works(actor, method, *arguments, **options)

    with pytest.raises(ClusterError, match=r"position 4 .* 6 times.*out of memory; of the node"):
        run(crashes)


def test_a_node_that_cannot_start_actors_stops_the_run_only_if_all_are_so():
    def stillborn(actor, method, *arguments, **options):
        if method == "open" and actor != 5:
            raise FakeRayError("no module named torchxrayvision")
        return works(actor, method, *arguments, **options)

    assert run(stillborn, parts=6)[0] == list(range(6))
    with pytest.raises(ClusterError, match=r"no node can start an actor.*no module"):
        run(lambda *_, **__: FakeRayError("no module named torchxrayvision"))


def test_waiting_for_room_is_said_and_has_an_end(monkeypatch):
    monkeypatch.setattr(_cluster_pool, "_SAY_AFTER", 0.01)
    monkeypatch.setattr(_cluster_pool, "_PATIENCE", 0.05)
    with (
        pytest.warns(XRVWarning, match="no actor has started"),
        pytest.raises(ClusterError, match="same command resumes"),
    ):
        run(lambda *_, **__: LATER)


def test_a_slow_part_does_not_let_the_others_fill_the_memory():
    asked = []

    def first_is_late(actor, method, *arguments, **options):
        if method == "predict":
            asked.append(arguments[0].number)
            if arguments[0].number == 0:
                return LATER
        return works(actor, method, *arguments, **options)

    ray = FakeRay(first_is_late)
    waits = iter(range(200))
    original = ray.wait

    def wait(references, **options):
        if next(waits, None) is None:
            raise KeyboardInterrupt
        return original(references, **options)

    ray.wait = wait
    with pytest.raises(KeyboardInterrupt):
        run(first_is_late, parts=1000, ray=ray)
    assert max(asked) == 4 * 3 - 1


def test_a_file_that_only_a_node_misses_is_no_row(tmp_path):
    def blind(path):
        def behave(actor, method, *arguments, **options):
            if method == "predict":
                return answer(arguments[0], [str(path)])
            return works(actor, method, *arguments, **options)

        return behave

    assert run(blind(tmp_path / "gone.png"))[0] == list(range(20))
    (tmp_path / "there.png").touch()
    with pytest.raises(ClusterError, match=r"node-7 does not see .*there\.png.*shared storage"):
        run(blind(tmp_path / "there.png"))


def test_an_error_of_a_node_is_the_error_of_the_run():
    def stalls(actor, method, *arguments, **options):
        if method == "predict":
            raise FakeTaskError(StalledError(33, 120.0))
        return works(actor, method, *arguments, **options)

    with pytest.raises(StalledError, match="33 files") as caught:
        run(stalls)
    assert "Traceback of the node" in caught.value.__notes__[0]


def test_nodes_that_differ_are_named_once():
    def other(actor, method, *arguments, **options):
        found = works(actor, method, *arguments, **options)
        return {**MACHINE, "torch": "2.8"} if method == "open" else found

    with pytest.warns(XRVWarning, match=r"torch 2\.9, now 2\.8") as caught:
        assert run(other)[0] == list(range(20))
    assert len(caught) == 1


def test_the_first_question_survives_an_actor():
    def dies(actor, method, *arguments, **options):
        if method == "equip" and actor < 4:
            raise FakeRayError("the node went")
        return "equipped"

    ray = FakeRay(dies)
    pool = Pool(ray, {}, lambda: 3, None)
    assert pool.ask(lambda actor: actor.equip.remote(), most=2) == "equipped"
    pool = Pool(FakeRay(lambda *_: FakeRayError("no memory")), {}, lambda: 3, None)
    with pytest.raises(ClusterError, match=r"no node could begin the run.*no memory"):
        pool.ask(lambda actor: actor.equip.remote(), most=2)


def test_an_actor_that_waits_for_a_lost_node_does_not_keep_the_others_from_work():
    room = [2]

    def waits(actor, method, *arguments, **options):
        if actor == 1:
            return LATER
        return "equipped" if method == "equip" else works(actor, method, *arguments, **options)

    ray = FakeRay(waits)
    pool = Pool(ray, {}, lambda: room[0], None)
    assert pool.ask(lambda actor: actor.equip.remote(), most=9) == "equipped"
    room[0] = 1  # the node of the other one is gone
    given = iter([Part(i, i, ["line"]) for i in range(9)])
    done = pool.run(given, 9, lambda actor: actor.open.remote(), MACHINE)
    assert [batch.first for batch in done] == list(range(9))
    pool.close()
    assert len(ray.actors) == 2


@pytest.mark.parametrize(
    ("images", "batch_size", "actors", "size"),
    [(100, 8, 1, 8), (10_000, 8, 2, 512), (1000, 8, 4, 24), (3, 8, 4, 8), (10**7, 1000, 9, 1000)],
)
def test_parts_are_whole_batches_many_for_each_actor_and_not_large(
    images, batch_size, actors, size
):
    assert _cluster._part_size(images, batch_size, actors) == size


def on(nodes, monkeypatch, kind=None, **options):
    ray = FakeRay(works, [(True, found) for found in nodes] + [(False, {"CPU": 999})])
    monkeypatch.setattr(_cluster, "_connect", lambda *_: False)
    wanted = RayCluster(**options)
    runner = _cluster._RayRunner(ray, wanted, long_run.network(), ReadOptions(), kind)
    runner._join()
    return runner


def test_actors_take_the_threads_of_this_process_where_a_node_has_them(monkeypatch):
    threads = torch.get_num_threads()
    small, large = {"CPU": 1.0}, {"CPU": 8.0}
    try:
        torch.set_num_threads(4)
        runner = on([small, large, large], monkeypatch)
        assert (runner._default_cpus(), runner._room(4)) == (4, 4)
        assert on([small, small], monkeypatch)._default_cpus() == 1
    finally:
        torch.set_num_threads(threads)


def test_actors_take_the_gpus_with_their_share_of_the_cpus(monkeypatch):
    nodes = [{"CPU": 16.0}, {"CPU": 32.0, "GPU": 4.0}, {"CPU": 24.0, "GPU": 2.0}]
    runner = on(nodes, monkeypatch)
    assert (runner._default_cpus(), runner._room(8)) == (8, 6)
    runner = on(nodes, monkeypatch, kind="cpu")
    assert runner._room(8) == 9
    with pytest.raises(ClusterError, match="no node of the cluster offers a GPU"):
        on(nodes[:1], monkeypatch, kind="cuda")
    with pytest.raises(ClusterError, match=r"no node has 64 CPUs .*16 CPUs and 0 GPUs"):
        on(nodes, monkeypatch)._opened(64)


def test_only_cpu_and_cuda_and_whole_numbers(tmp_path):
    with pytest.raises(ValueError, match="cpus=0"):
        RayCluster(cpus=0)
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed")
    with pytest.raises(ValueError, match="cpu or cuda"):
        predict_to_file(
            [], long_run.network(), tmp_path / "t.csv", device="mps", cluster=RayCluster()
        )


def test_without_ray_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match='pip install "ray'):
        predict_to_file([], long_run.network(), tmp_path / "t.csv", cluster=RayCluster())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cluster", "slurm", "--output", "t.csv"], "'slurm' is not one of 'ray'"),
        (["--cluster", "ray"], "--output"),
        (["--cpus", "4", "--output", "t.csv"], "--cluster ray"),
    ],
)
def test_the_command_says_what_options_need(words, message):
    done = CliRunner().invoke(app, ["predict", "film.png", *words])
    assert done.exit_code == 2
    assert message in done.output


def test_the_costs_in_the_docs_are_those_of_the_tool():
    root = Path(__file__).parents[3]
    page = (root / "docs" / "cluster.md").read_text("utf-8")
    command = [sys.executable, root / "tools" / "cluster_cost.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in page


def cluster_script(scenario, films, folder, path=()):
    """What a scenario of `ray_runs` printed."""
    search = [*map(str, path), str(Path(ray_runs.__file__).parents[1])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(search)}
    command = [sys.executable, ray_runs.__file__, scenario, str(films), str(folder)]
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        if done.returncode not in (ray_runs.NOT_STARTED, -signal.SIGALRM):
            assert done.returncode == 0, done.stderr
            return json.loads((folder / "happened.json").read_text())
    pytest.skip("Ray does not start here within the time that it gives itself")


@pytest.fixture
def films(tmp_path):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    if not hasattr(signal, "SIGALRM"):
        pytest.skip("ends processes as POSIX does")
    return long_run.write_films(tmp_path / "films", 200, damaged=50)


def test_a_run_on_ray_gives_the_rows_of_one_here(films, tmp_path):
    happened = cluster_script("one-node", films, tmp_path)
    assert happened == {"failed": 4, "resumed": [48, 0]}
    whole = (tmp_path / "whole.csv").read_bytes()
    assert whole.count(b"\n") == 201
    assert (tmp_path / "moved.csv").read_bytes() == whole


LISTENING = """
import os, sys, re
from pathlib import Path
import ray
from torchxrayvision.errors import ClusterError
from torchxrayvision.inference.cluster.ray import _connect

try:
    _connect(ray, "local")
except ClusterError as error:
    sys.exit(f"not started: {error}" if "busy" in str(error) else str(error))
ray.get(ray.remote(num_cpus=1)(lambda: 1).remote())  # a worker listens too

def hold(process):
    try:
        links = [os.readlink(fd) for fd in Path("/proc", process, "fd").iterdir()]
    except OSError:
        return []
    return re.findall(r"socket:.([0-9]+)", " ".join(links))

home = f"HOME={Path.home()}".encode()

def of_ours(process):
    try:
        return home in Path("/proc", process, "environ").read_bytes()
    except OSError:
        return False

processes = [name for name in os.listdir("/proc") if name.isdigit() and of_ours(name)]
ours = {socket for process in processes for socket in hold(process)}
for table in ("tcp", "tcp6"):
    for line in Path("/proc/net", table).read_text().splitlines()[1:]:
        place, state, inode = (line.split()[k] for k in (1, 3, 9))
        if state == "0A" and inode in ours:
            print(place.rsplit(":")[0])
print(Path.home(), [str(p) for p in Path.home().rglob("*token*")])
ray.shutdown()
"""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc")
def test_a_cluster_of_our_own_listens_on_the_loopback_address_only(tmp_path):
    pytest.importorskip("ray")
    environment = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", LISTENING],
        capture_output=True,
        text=True,
        timeout=120,
        env={**environment, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        check=False,
    )
    if done.returncode and "not started" in done.stderr:
        pytest.skip("Ray did not start in half a minute")
    assert done.returncode == 0, done.stderr
    *listening, token = done.stdout.splitlines()
    assert len(listening) > 3, "the processes of Ray were not found"
    assert set(listening) <= LOOPBACK
    assert token == f"{tmp_path} []", "a token that others may read"
    assert not [name for name in os.environ if name.startswith("RAY_AUTH")]


def test_a_ray_that_would_listen_elsewhere_is_refused(monkeypatch):
    ray = FakeRay(lambda *_: None)
    ray.is_initialized, ray.shutdown = (lambda: False), (lambda: None)
    ray.init = lambda *_, **__: None
    ray.util = SimpleNamespace(get_node_ip_address=lambda: "192.0.2.7")
    constants = SimpleNamespace(ENABLE_RAY_CLUSTER=True)
    ray._private = SimpleNamespace(ray_constants=constants)
    before = dict(os.environ)
    with pytest.raises(ClusterError, match=r"would listen on 192\.0\.2\.7"):
        _cluster._connect(ray, "local")
    assert constants.ENABLE_RAY_CLUSTER
    assert dict(os.environ) == before


@pytest.mark.slow
def test_a_node_is_lost_and_the_rows_are_the_same(films, tmp_path):
    happened = cluster_script("two-nodes", films, tmp_path)
    assert happened["killed"][0] < 100
    assert happened["losses"] >= 1
    assert happened["failed"] == 4
    assert happened["resumed"] == [0, 48, 48]
    whole = (tmp_path / "whole.csv").read_bytes()
    assert whole.count(b"\n") == 201
    for name in ("lost", "left", "joined"):
        assert (tmp_path / f"{name}.csv").read_bytes() == whole, name


# Python runs it in every process: where the reader looks at this file, the process is gone.
CRASHES = """
import os, signal, sys
stat = os.stat

def fatal(path, **options):
    if str(path).endswith("00077.png") and sys._getframe(1).f_code.co_name == "_state":
        os.kill(os.getpid(), signal.SIGSEGV)
    return stat(path, **options)

os.stat = fatal
"""


@pytest.mark.slow
def test_a_film_that_crashes_its_process_becomes_a_row(films, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(CRASHES)
    happened = cluster_script("crash", films, tmp_path, path=[tmp_path / "site"])
    assert happened["failed"] == 5
    rows = (tmp_path / "crash.csv").read_text().splitlines()
    assert len(rows) == 201
    assert "the process that read it died (signal 11)" in rows[78]
