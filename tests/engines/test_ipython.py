"""IPython engines as an executor, with real engines of a real ipyparallel."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import zmq

import fanfold as ff
from fanfold.executors.ipython.clusters import LocalCluster, _ending
from fanfold.executors.ipython.executor import EngineExecutor
from fanfold.testing import ExecutorTests
from fanfold.testing.functions import mark, until

ipyparallel = pytest.importorskip("ipyparallel", reason="ipyparallel is not installed here")


@pytest.fixture(scope="module")
def owner():
    """A cluster of six engines: two to work with, and four that may die."""
    cluster = LocalCluster(6)
    cluster.wait()
    with EngineExecutor(client=cluster.client) as engines:
        table = np.ones(1_000_000)
        cluster.client[:].apply_sync(np.sum, table)  # zmq keeps a thread for such arrays ...
        engines.submit(abs, -1).result()  # ... and this executor one of its own
        yield engines
    cluster.stop()


@pytest.fixture
def rc(owner):
    return owner.client


class TestEngines(ExecutorTests):
    """On a cluster that is joined, for it takes seconds to start one."""

    remote = True

    @pytest.fixture(autouse=True)
    def _client(self, rc):
        self.client = rc

    def make(self, **options):
        return EngineExecutor(client=self.client, **options)


def where(_=None):
    return os.getpid()


def slowly(number):
    time.sleep(0.02)
    return number, os.getpid()


def meet(folder, count, number):
    """Wait until so many engines are here; the number, and which engine this is."""
    mark(folder, os.getpid())
    until(lambda: len(list(folder.iterdir())) >= count, f"{count} engines to be here")
    return number, os.getpid()


@pytest.fixture
def engine_pids(rc):
    """The process of each engine, by its number."""
    return dict(zip(rc.ids, rc[:].apply_sync(os.getpid), strict=True))


# Which engines ------------------------------------------------------------------------------------


def test_a_client_is_a_place(rc, engine_pids, tmp_path):
    """on=rc maps over all engines of the client's cluster, and leaves it as it is."""
    found = ff.map(partial(meet, tmp_path, len(engine_pids)), range(40), on=rc, chunk=1)
    assert [number for number, _ in found] == list(range(40))
    assert {pid for _, pid in found} == set(engine_pids.values())
    assert rc[:].apply_sync(os.getpid) == list(engine_pids.values())


@pytest.mark.parametrize("kind", ["direct", "direct to one", "load-balanced"])
def test_a_view_is_a_place(rc, engine_pids, kind, tmp_path):
    """on=view maps over the engines of the view, and no others."""
    first, second = rc.ids[:2]
    views = {
        "direct": (rc[[first, second]], {first, second}),
        "direct to one": (rc[second], {second}),
        "load-balanced": (rc.load_balanced_view([first, second]), {first, second}),
    }
    view, numbers = views[kind]
    found = ff.map(partial(meet, tmp_path, len(numbers)), range(20), on=view, chunk=1)
    assert {pid for _, pid in found} == {engine_pids[number] for number in numbers}


def test_workers_limit_the_engines(rc, tmp_path):
    """workers=2 uses two engines of a larger cluster."""
    found = ff.map(partial(meet, tmp_path, 2), range(20), on=rc, workers=2, chunk=1)
    assert len({pid for _, pid in found}) == 2


def test_a_running_cluster_is_joined_by_its_file(rc, owner):
    """connection_file= connects to a cluster that somebody else started; shutdown leaves it."""
    path = rc.cluster.controller.connection_files["client"]
    with EngineExecutor(connection_file=path) as engines:
        assert engines.submit(divmod, 7, 2).result(timeout=90) == (3, 1)
        assert engines.client.ids == rc.ids
    assert owner.submit(divmod, 7, 2).result(timeout=90) == (3, 1)


def test_the_client_does_all_that_ipyparallel_does(owner):
    """executor.client pushes, executes, pulls, scatters and gathers beside the tasks."""
    view = owner.client[:]
    view.push({"offset": 3}, block=True)
    view.execute("total = offset + 4", block=True)
    assert view.pull("total", block=True) == [7] * len(view)
    view.scatter("part", [*range(16)], block=True)
    assert view.gather("part", block=True) == list(range(16))


# What travels -------------------------------------------------------------------------------------


def test_large_arrays_come_and_go(owner):
    """Arrays are sent as buffers: one large, or more than ipyparallel looks for in a list."""
    large = np.arange(2_000_000.0)
    assert np.array_equal(owner.submit(np.negative, large).result(timeout=90), -large)
    many = [np.full(50_000, number) for number in range(100)]
    back = owner.submit(lambda arrays: arrays[::-1], many).result(timeout=90)
    assert all(map(np.array_equal, back, many[::-1]))


def test_a_large_function_travels_once_to_an_engine(rc):
    """What a function takes along is sent with the first errand of each engine, and forgotten."""
    count = (
        "len(__import__('fanfold.executors.ipython.engine').executors.ipython.engine._published)"
    )
    with EngineExecutor(client=rc) as engines:
        table = np.arange(200_000)
        found = engines.submit(partial(np.take, table), [7, 8])
        assert list(found.result(timeout=90)) == [7, 8]
        assert ff.map(partial(np.searchsorted, table), range(1000), on=engines) == list(range(1000))
    assert set(rc[:].apply_sync(ipyparallel.Reference(f"lambda: {count}"))) == {0}


# Engines that die ---------------------------------------------------------------------------------


def test_a_killed_engine_takes_nothing_with_it(rc):
    """An engine killed from outside: what it had runs elsewhere, and every result is there."""
    first, second = rc.ids[-2:]
    with EngineExecutor(client=rc[[first, second]]) as engines:
        victim = rc[first].apply_sync(os.getpid)
        results = ff.imap(slowly, range(200), on=engines)
        found = [next(results)]
        os.kill(victim, signal.SIGKILL)
        found += results
    assert [number for number, _ in found] == list(range(200))
    assert victim not in {pid for _, pid in found[-50:]}


def test_without_engines_a_joined_cluster_is_lost(rc):
    """When the last engine that may be used dies, what waits fails with EngineLost, in seconds."""
    with EngineExecutor(client=rc[rc.ids[-1]]) as engines:
        pid = engines.submit(os.getpid).result(timeout=90)
        waiting = engines.submit(time.sleep, 600)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ff.EngineLost, match="no engine of it is left"):
            waiting.result(timeout=60)


def test_engines_started_here_are_replaced():
    """Of a cluster that fanfold started, a dead engine is replaced: even the only one."""
    with ff.executor("ipyparallel", workers=1) as engines:
        first = engines.submit(os.getpid).result(timeout=90)
        os.kill(first, signal.SIGKILL)
        assert engines.submit(os.getpid).result(timeout=90) != first


def test_a_controller_that_is_gone(gate):
    """Without its controller a cluster is lost: what runs fails with EngineLost, in seconds."""
    with EngineExecutor(1) as engines:
        running = engines.submit(gate.wait)
        gate.wait_for(1)
        for process in reversed(family(engines.client.cluster.controller.pid)):
            process.kill()
        with pytest.raises(ff.EngineLost, match="controller has ended"):
            running.result(timeout=60)
        with pytest.raises(ff.EngineLost):
            engines.submit(abs, -1)


def test_a_part_of_a_controller_that_is_gone(gate):
    """Its queues are processes: without the one for direct messages the cluster is lost, too."""
    with EngineExecutor(1) as engines:
        running = engines.submit(gate.wait)
        gate.wait_for(1)
        controller = engines.client.cluster.controller
        port = json.loads(Path(controller.connection_files["client"]).read_text())["mux"]
        [queue] = [child for child in family(controller.pid)[1:] if port in listening(child)]
        queue.kill()
        with pytest.raises(ff.EngineLost, match="a part of its controller has ended"):
            running.result(timeout=60)


def listening(process):
    return {place.laddr.port for place in process.net_connections() if place.status == "LISTEN"}


def test_the_first_messages_are_lost(rc):
    """An engine may be known before its queue knows it, and what is sent then is lost: engines are
    greeted until they answer, and get no task before. Nothing stays that never comes back."""
    path = rc.cluster.controller.connection_files["client"]
    with zmq.Context() as context, ipyparallel.Client(path, context=context) as client:
        lost = lose_first(client)
        with EngineExecutor(2, client=client) as engines:
            assert ff.map(abs, range(20), on=engines) == list(range(20))
        assert len(lost) == 2
        assert not client.outstanding


def lose_first(client):
    """The first call of this client for each engine goes nowhere; for which engines, so far."""
    lost, send = [], client.session.send

    def lossy(stream, message, *args, ident=None, **options):
        if message["msg_type"] != "apply_request" or ident in lost:
            return send(stream, message, *args, ident=ident, **options)
        lost.append(ident)
        return message

    client.session.send = lossy
    return lost


def family(pid):
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


OWNER = """
import time
import fanfold as ff

if __name__ == "__main__":
    engines = ff.EngineExecutor(1)
    engines.submit(time.sleep, 600)
    print(engines.client.cluster.profile_dir, flush=True)
    time.sleep(600)
"""


def test_nothing_outlives_a_killed_driver(tmp_path):
    """G7: after SIGKILL of the driver its controller, engines and folder go, busy or not."""
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as driver:
        folder = Path(driver.stdout.readline().strip())
        started = psutil.Process(driver.pid).children(recursive=True)
        assert len(started) > 2
        driver.kill()
    until(lambda: not any(process.is_running() for process in started), "its processes to end")
    until(lambda: not folder.exists(), "its folder to be removed")


# What is wrong ------------------------------------------------------------------------------------


def test_engines_of_another_version_are_refused(rc, tmp_path):
    """An engine with another fanfold is refused with both versions, before a task runs."""
    (tmp_path / "fanfold").mkdir()
    (tmp_path / "fanfold" / "__init__.py").write_text("__version__ = '0.0.1'")
    path = rc.cluster.controller.connection_files["engine"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    before = set(rc.ids)
    command = [sys.executable, "-m", "ipyparallel.engine", f"--file={path}", "--log-level=ERROR"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path) as engine:
        until(lambda: set(rc.ids) - before, "the engine", 100)
        other = max(rc.ids)
        with (
            pytest.raises(ff.StartupFailed, match=r"fanfold 0\.0\.1, and here is Python"),
            EngineExecutor(client=rc[other]) as engines,
        ):
            engines.submit(abs, -1).result(timeout=90)
        engine.kill()
    until(lambda: other not in rc.ids, "its end to be known")


def is_json(path):
    """Is the file there, and whole?"""
    try:
        return bool(json.loads(Path(path).read_text()))
    except (FileNotFoundError, ValueError):
        return False


def test_a_cluster_without_engines(tmp_path):
    """A controller alone is refused in seconds; and so is the file that a dead one left."""
    cluster = ipyparallel.Cluster(
        profile_dir=str(tmp_path), cluster_id="", load_profile=False, shutdown_atexit=False
    )
    cluster.start_controller_sync()
    try:
        path = cluster.controller.connection_files["client"]
        until(lambda: is_json(path), "the controller")
        with pytest.raises(ff.StartupFailed, match="has no engines: add some"):
            EngineExecutor(connection_file=path)
    finally:
        for process in reversed(family(cluster.controller.pid)):
            process.kill()
    with pytest.raises(ff.StartupFailed, match="is its controller gone"):
        EngineExecutor(connection_file=path)
    cluster.stop_controller_sync()


def test_no_cluster_at_all(tmp_path, monkeypatch):
    """A file or a profile that is not there is told with the way to start a cluster."""
    with pytest.raises(ff.StartupFailed, match=r"start one \(ipcluster start"):
        EngineExecutor(connection_file=tmp_path / "client.json")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    with pytest.raises(ff.StartupFailed, match="no IPython profile 'nowhere'"):
        EngineExecutor(profile="nowhere")
    (tmp_path / "profile_default").mkdir()
    with pytest.raises(ff.StartupFailed, match=r"ipcontroller-mine-client\.json"):
        EngineExecutor(cluster_id="mine")


def test_a_port_that_is_taken():
    """A port that somebody else has is refused by its number, before anything is started."""
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ff.UsageError, match=f"port {port} cannot be used"):
            EngineExecutor(1, ports=[port] * 15)
    with pytest.raises(ff.UsageError, match="needs 15 ports: ports= has 2"):
        EngineExecutor(1, ports=[20_001, 20_002])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"client": 42}, "takes a Client of ipyparallel or one of its views, not 42"),
        ({"profile": "mine", "scheduler": "slurm"}, "either joined .* or started"),
        ({"resources": ff.Resources()}, "say scheduler="),
        ({"scheduler": "lsf"}, "'lsf' is no scheduler that fanfold knows"),
        ({"scheduler": "slurm", "resources": ff.Resources(nodes=2)}, "an engine runs on one node"),
        ({"max_workers": 0}, "max_workers must be greater than 0"),
    ],
)
def test_options_that_make_no_sense(options, match):
    """What contradicts itself is a UsageError at once, and nothing is started."""
    with pytest.raises(ff.UsageError, match=match):
        EngineExecutor(**options)


def test_the_extra_is_not_installed(tmp_path):
    """Where ipyparallel is missing, one sentence says what to install."""
    for name in ("cloudpickle", "psutil", "threadpoolctl"):
        origin = Path(importlib.util.find_spec(name).origin)
        found = origin.parent if origin.name == "__init__.py" else origin
        (tmp_path / found.name).symlink_to(found)
    (tmp_path / "fanfold").symlink_to(Path(ff.__file__).parent)
    tried = "import fanfold as ff; ff.map(abs, [1, 2], on='ipyparallel')"
    ended = subprocess.run(
        [sys.executable, "-S", "-c", tried],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert 'needs ipyparallel: pip install "fanfold[ipython]"' in ended.stderr.splitlines()[-1]


def test_an_end_that_somebody_else_has_seen():
    """ipyparallel waits for its engines too: when it is the first, how one ended is known of it."""
    child = subprocess.Popen(["sleep", "60"])
    process = psutil.Process(child.pid)
    child.kill()
    assert child.wait() == -9  # who waits now is told nothing
    launcher = SimpleNamespace(process=process, stop_data={"exit_code": -9, "pid": child.pid})
    assert _ending(launcher) == -9
    launcher = SimpleNamespace(process=process, stop_data=None)
    assert _ending(launcher) is None
