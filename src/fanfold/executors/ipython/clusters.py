"""Clusters of IPython engines: started here, as a job array of Slurm or PBS, or joined.

A cluster is a controller, which its clients know from a connection file, and engines, which come
and go. What is started here ends with the process that started it.
"""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fanfold.errors import SchedulerError, UsageError
from fanfold.executors.base import StartupFailed
from fanfold.executors.ipython.ports import checked, free_ports
from fanfold.executors.remote.leash import leashed
from fanfold.resources import Resources, blas_threads, cores, thread_environment
from fanfold.schedulers.base import ENDED, Job, Scheduler
from fanfold.schedulers.queue import Queue
from fanfold.schedulers.registry import scheduler as scheduler_named

__all__ = ["JobCluster", "JoinedCluster", "LocalCluster"]

_PATIENCE = 60.0  # seconds for processes of this machine to start
_REPLY = 5.0  # seconds for a controller to answer
_PATIENCE_JOINED = 3.0  # seconds for the first engine of a cluster that somebody else started
_GRACE = 1  # second between SIGTERM and SIGKILL
_LOOK = 5.0  # seconds between looks at the queue of a scheduler
_HEARTBEATS = 10  # missed, 3.5 seconds each, after which an engine ends without its controller
_TURN = 0.02  # seconds between looks whether engines have come

_logger = logging.getLogger("fanfold")
_silent = logging.getLogger("fanfold.ipyparallel")  # what its launchers say nobody need hear
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class JoinedCluster:
    """A cluster that somebody else started: it is left as it is.

    ``name`` is in messages. It is not ``young``: its engines can be reached.
    """

    young = False

    def __init__(self, client: Any, name: str, context: Any = None) -> None:
        self.client = client
        self.name = name
        self._context = context

    @classmethod
    def found(
        cls,
        profile: str | None = None,
        cluster_id: str | None = None,
        connection_file: str | os.PathLike[str] | None = None,
    ) -> JoinedCluster:
        """Connect to a running one, known by its file, or by its profile and id.

        Raises `StartupFailed` when it is not there or does not answer.
        """
        import ipyparallel
        import zmq

        path = Path(connection_file or _connection_file(profile, cluster_id))
        if not path.exists():
            raise StartupFailed(
                f"no IPython cluster has written {path}: start one (ipcluster start -n 4), or name "
                "its profile=, cluster_id= or connection_file="
            )
        name = f"the IPython cluster of {path}"
        context = zmq.Context()
        try:
            client = ipyparallel.Client(str(path), timeout=_REPLY, context=context)
        except (OSError, ValueError, KeyError) as error:
            context.destroy(linger=0)
            raise StartupFailed(
                f"{name} does not answer ({error}): is its controller gone? Start it again "
                "(ipcluster start), and remove the file if it stays"
            ) from error
        return cls(client, name, context)

    def wait(self) -> None:
        """Return when there is an engine. Raises `StartupFailed`."""
        deadline = time.monotonic() + _PATIENCE_JOINED
        while not self.client.ids:
            if time.monotonic() > deadline:
                raise StartupFailed(
                    f"{self.name} has no engines: add some (ipcluster engines -n 4)"
                )
            time.sleep(_TURN)

    def trouble(self, alone: bool) -> str:
        """Why nothing can be expected of it, in words; "" otherwise. ``alone``: without engines."""
        return "no engine of it is left" if alone else ""

    def replace(self, pid: int) -> None:
        """The engine with this process id is lost: nothing can be done about it here."""

    def exitcode(self, pid: int) -> int | None:
        """How the engine with this process id ended; None where that cannot be known."""
        return _exitcode(getattr(self.client, "cluster", None), pid)

    def stop(self) -> None:
        """Close the connection, where it was made here."""
        if self._context is not None:
            self.client.close(linger=0)
            self._context.destroy(linger=0)


class _StartedCluster:
    """A cluster with a controller of ours, in a folder of its own, and everything of it."""

    name: str
    client: Any
    young = True

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._cluster: Any = None
        self._context: Any = None
        self._parts: list[Any] = []  # the processes of the controller: one for each of its queues

    def _start_controller(self, ports: Sequence[int] | None, *, everywhere: bool) -> None:
        self._cluster = _controller(self._folder, ports, everywhere)

    def _connect(self) -> None:
        """A client, whose sockets have a context of their own, so that they can be closed."""
        import zmq

        self._context = zmq.Context()
        try:
            self.client = self._cluster.connect_client_sync(
                context=self._context, timeout=_PATIENCE
            )
        except (RuntimeError, TimeoutError) as error:
            said = _last_words(self._folder)
            raise StartupFailed(f"the controller did not start ({error}): {said}") from error
        self._parts = self._cluster.controller.process.children()

    def trouble(self, alone: bool) -> str:
        """Why nothing can be expected of it, in words; "" otherwise. ``alone``: without engines."""
        if not _runs(self._cluster.controller.process):
            return "its controller has ended"
        if not all(map(_runs, self._parts)):
            return "a part of its controller has ended"
        return ""

    def exitcode(self, pid: int) -> int | None:
        """How the engine with this process id ended; None where that cannot be known."""
        return _exitcode(self._cluster, pid)

    def stop(self) -> None:
        """End all of it."""
        if self._context is not None:
            if (client := getattr(self, "client", None)) is not None:
                client.close(linger=0)
            self._context.destroy(linger=0)
        if self._cluster is not None:
            _end(self._cluster)
        shutil.rmtree(self._folder, ignore_errors=True)


class LocalCluster(_StartedCluster):
    """A cluster of ``engines`` engines on this machine.

    ``ports`` are those that the controller may use; any, where it is None.
    """

    name = "the IPython cluster of this process"

    def __init__(self, engines: int, ports: Sequence[int] | None = None) -> None:
        super().__init__(tempfile.mkdtemp(prefix="fanfold-engines-"))
        self._engines = engines
        try:
            self._start_controller(ports, everywhere=False)
            share = blas_threads(engines, int(cores()))
            variables = {**thread_environment(share), "FANFOLD_CORES": str(share)}
            self._cluster.config.EngineLauncher.environment = variables
            self._start_engines(engines)
            self._connect()
        except BaseException:
            self.stop()
            raise

    def _start_engines(self, count: int) -> None:
        try:
            self._cluster.start_engines_sync(count)
        except (RuntimeError, TimeoutError) as error:
            said = _last_words(self._folder)
            raise StartupFailed(f"the engines did not start ({error}): {said}") from error

    def wait(self) -> None:
        """Return when all engines are there. Raises `StartupFailed`."""
        deadline = time.monotonic() + _PATIENCE
        while (here := len(self.client.ids)) < self._engines:
            ended = [code for code in map(_ending, _launchers(self._cluster)) if code is not None]
            trouble = f"one ended with status {ended[0]}" if ended else self.trouble(alone=True)
            if trouble or time.monotonic() > deadline:
                why = trouble or f"in {_PATIENCE:g} s"
                raise StartupFailed(
                    f"{here} of {self._engines} engines started ({why}): "
                    f"{_last_words(self._folder)}"
                )
            time.sleep(_TURN)

    def replace(self, pid: int) -> None:
        """The engine with this process id is lost: end what is left of it, and start another."""
        for launcher in _launchers(self._cluster):
            if launcher.pid == pid and launcher.process.is_running():
                launcher.signal(signal.SIGKILL)
        if not self.trouble(alone=True):
            self._start_engines(1)


class JobCluster(_StartedCluster):
    """A cluster whose controller is here and whose engines are the elements of a job array.

    ``resources`` are what each of the ``engines`` engines gets; engines join as their elements
    begin. ``folder`` is one that all nodes see. It is fanfold's queue that submits and watches:
    the launchers of ipyparallel never learn that a job was refused or has ended.
    """

    def __init__(
        self,
        engines: int,
        scheduler: str,
        resources: Resources,
        folder: str | os.PathLike[str],
        ports: Sequence[int] | None = None,
    ) -> None:
        if resources.nodes > 1:
            raise UsageError(f"an engine runs on one node: write nodes=1, not {resources.nodes}")
        self._scheduler = scheduler_named(scheduler)
        super().__init__(tempfile.mkdtemp(prefix="fanfold-engines-", dir=os.path.abspath(folder)))
        self._queue = Queue(self._scheduler)
        self._resources = resources
        self._elements: dict[str, list[int | None]] = {}
        self.name = f"the IPython cluster on {scheduler}"
        try:
            self._start_controller(ports, everywhere=True)
            self._connect()
            self._submit(engines)
        except BaseException:
            self.stop()
            raise

    def _submit(self, engines: int) -> None:
        name = f"engines-{secrets.token_hex(6)}"
        script = Path(self._folder, "job.sh")
        job = Job(name, 0, engines - 1, self._resources, str(Path(self._folder, "engine")))
        connection = self._cluster.controller.connection_files["engine"]
        script.write_text(engine_script(self._scheduler, job, connection), encoding="utf-8")
        submitted = self._queue.submit(script, name, self._resources)
        self._elements = {submitted: [*range(engines)] if engines > 1 else [None]}

    def wait(self) -> None:
        """Return when the first engine is there. Raises `StartupFailed`."""
        while not self.client.ids:
            if trouble := self.trouble(alone=True):
                raise StartupFailed(f"{self.name} has no engines: {trouble}")
            time.sleep(_TURN)

    def trouble(self, alone: bool) -> str:
        """The same; without engines it asks whether the scheduler may still begin some."""
        if (gone := super().trouble(alone)) or not alone:
            return gone
        seen = self._queue.look(self._elements, max_age=_LOOK).seen.values()
        if len(seen) < sum(map(len, self._elements.values())):
            return ""  # not all of them are known yet
        ended = [element for element in seen if element.state in {*ENDED, "vanished"}]
        if len(ended) < len(seen):
            return ""
        states = ", ".join(sorted({str(element.state) for element in ended}))
        return f"its job {next(iter(self._elements))} has ended ({states}): {self._said()}"

    def _said(self) -> str:
        return _last_words(self._folder, "engine*")

    def replace(self, pid: int) -> None:
        """The engine with this process id is lost: the scheduler may begin its element again."""

    def stop(self) -> None:
        """End all of it: what waits in the queue, too."""
        for job in self._elements:
            try:
                self._queue.cancel(job, patience=_REPLY)
            except SchedulerError as error:
                _logger.warning("job %s may still be in the queue: %s", job, error)
        super().stop()


def engine_script(scheduler: Scheduler, job: Job, connection: str) -> str:
    """The script of a job array that begins an engine in each element.

    ``connection`` is the file that the controller has written for engines.

    >>> from fanfold.schedulers.pbs import PBS
    >>> asked = Resources(cores=2, memory="4GB", walltime="1h")
    >>> job = Job("engines", 0, 7, asked, "/shared/engines/log")
    >>> print(engine_script(PBS(), job, "/shared/engines/ipcontroller-engine.json"))
    #!/bin/sh
    #PBS -r y
    #PBS -l select=1:ncpus=2:mem=4gb
    #PBS -l walltime=01:00:00
    #PBS -N engines
    #PBS -J 0-7
    #PBS -j oe
    #PBS -o /shared/engines/log.^array_index^
    export OMP_NUM_THREADS=2
    ...
    cd ...
    exec ...python... -m ipyparallel.engine --file=/shared/engines/ipcontroller-engine.json ...
    """
    profile = os.path.dirname(os.path.dirname(connection))
    engine = [
        sys.executable, "-m", "ipyparallel.engine", f"--file={connection}",
        f"--profile-dir={profile}",
        f"--IPEngine.max_heartbeat_misses={_HEARTBEATS}",
    ]  # fmt: skip
    variables = thread_environment(job.resources.cores)
    if modules := os.environ.get("PYTHONPATH"):
        variables["PYTHONPATH"] = modules
    lines = ["#!/bin/sh", *scheduler.header(job)]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    lines += [f"cd {shlex.quote(os.getcwd())}", f"exec {shlex.join(engine)}", ""]
    return "\n".join(lines)


# Parts of a cluster


def _controller(folder: str, ports: Sequence[int] | None, everywhere: bool = False) -> Any:
    """A cluster of which the controller runs, on this machine.

    It listens on the loopback; ``everywhere``: on all interfaces, encrypted and signed.
    """
    from ipyparallel import Cluster

    config = _launching(folder)
    ports = free_ports() if ports is None else checked(ports)
    options = ["--HeartMonitor.period=1000"]  # milliseconds; an engine is known from its first
    options.append(f"--ports={','.join(map(str, ports))}")
    if everywhere:
        options.append("--IPController.enable_curve=True")
        config.ControllerLauncher.environment = {"IPP_SESSION_KEY": secrets.token_hex(32)}
    cluster = Cluster(
        profile_dir=folder,
        cluster_id="",
        cluster_file="",
        load_profile=False,
        delay=0.0,
        shutdown_atexit=False,
        controller_args=options,
        controller_ip="*" if everywhere else "",
        config=config,
        log=_silent,
    )
    cluster.start_controller_sync()
    return cluster


def _launching(folder: str) -> Any:
    """How ipyparallel is to start the processes of a cluster."""
    from traitlets.config import Config

    config = Config()
    config.ControllerLauncher.controller_cmd = leashed("ipyparallel.controller", folder)
    config.EngineLauncher.engine_cmd = leashed("ipyparallel.engine", folder)
    config.LocalEngineSetLauncher.delay = 0.0
    config.LocalProcessLauncher.stop_seconds_until_kill = _GRACE
    config.LocalProcessLauncher.poll_seconds = 3600  # an end is told at once, not polled for
    return config


def _connection_file(profile: str | None, cluster_id: str | None) -> str:
    from IPython.core.profiledir import ProfileDir, ProfileDirError
    from IPython.paths import get_ipython_dir

    profiles: Any = ProfileDir
    name = profile or "default"
    try:
        found = profiles.find_profile_dir_by_name(get_ipython_dir(), name)
    except ProfileDirError as error:
        raise StartupFailed(
            f"there is no IPython profile {name!r}: make it (ipython profile create {name}), or "
            "name another"
        ) from error
    middle = f"-{cluster_id}" if cluster_id else ""
    return os.path.join(found.security_dir, f"ipcontroller{middle}-client.json")


def _launchers(cluster: Any) -> list[Any]:
    return [
        launcher
        for engines in getattr(cluster, "engines", {}).values()
        for launcher in getattr(engines, "launchers", {}).values()
    ]


def _runs(process: Any) -> bool:
    import psutil

    with suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _end(cluster: Any) -> None:
    """End the engines, then their nannies, which tell the controller, and last the controller."""
    import psutil

    nannies = []
    for launcher in [*_launchers(cluster), cluster.controller]:
        with suppress(psutil.Error):
            nannies += launcher.process.children(recursive=True)
    with suppress(Exception):  # what has ended need not be stopped
        cluster.stop_engines_sync()
    with suppress(Exception):
        cluster.stop_controller_sync()
    for process in psutil.wait_procs(nannies, timeout=_GRACE)[1]:
        with suppress(psutil.Error):
            process.kill()


def _exitcode(cluster: Any, pid: int) -> int | None:
    """How an engine ended that is known to have ended: its process may take a moment longer."""
    found = [launcher for launcher in _launchers(cluster) if launcher.pid == pid]
    return _ending(found[0], _GRACE) if found else None


def _ending(launcher: Any, patience: float = 0.0) -> int | None:
    """The exit status of a local engine; None while it runs, or where it is not known."""
    import psutil

    with suppress(psutil.TimeoutExpired):
        status: int | None = launcher.process.wait(timeout=patience)
        return _told(launcher, patience) if status is None else status
    return None


def _told(launcher: Any, patience: float) -> int | None:
    """What ipyparallel's own thread has found, where that was the first to wait for the process."""
    last = time.monotonic() + patience
    while (told := launcher.stop_data or {}).get("exit_code") is None and time.monotonic() < last:
        time.sleep(_TURN)
    status: int | None = told.get("exit_code")
    return status


def _last_words(folder: str, pattern: str = "log/*") -> str:
    """The end of what was logged last."""
    logs = sorted(Path(folder).glob(pattern), key=lambda path: path.stat().st_mtime)
    return logs[-1].read_text(errors="replace")[-600:].strip() if logs else "it said nothing"
