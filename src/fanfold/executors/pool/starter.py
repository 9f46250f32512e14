"""Starts a pool's worker processes, and tells when they end.

`Starter` asks the launcher, for the methods "forkserver" and "spawn". `ForkStarter` forks the
driver itself: the worker inherits its memory as it is, and the locks of its threads too; that is
why it is used only when it is asked for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import resource
import signal
import socket
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

from fanfold.executors.pool import launcher, worker
from fanfold.executors.pool.handle import WorkerHandle, WorkerLimits
from fanfold.executors.pool.launcher import WorkerSettings
from fanfold.executors.pool.loop import uninterrupted
from fanfold.executors.work.mark import new_mark
from fanfold.executors.work.memory import KernelKills
from fanfold.executors.work.standard import fill_standard_descriptors, flush
from fanfold.resources import blas_threads, cores, thread_environment
from fanfold.transport.channel import Channel, ChannelClosed
from fanfold.transport.pickling import Packed
from fanfold.transport.segments import SegmentFolder
from fanfold.transport.surroundings import surroundings

__all__ = ["ForkStarter", "Starter", "why_not_started"]

_numbers = count()
_driver_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()


class Starter:
    """Starts workers through the launcher.

    ``shares`` of the machine's GPUs, one a worker, are variables of its environment. A share is
    free again when its worker has ended, not before: so a new worker has the place of a dead one.
    ``connect`` connects to the launcher.
    """

    def __init__(
        self,
        method: str,
        workers: int,
        folder: SegmentFolder,
        initializer: Packed | None,
        shares: Sequence[dict[str, str]] = (),
        connect: Callable[[], socket.socket] = launcher.connect,
    ) -> None:
        fill_standard_descriptors()
        self._number = next(_numbers)
        self._connection: Channel | None = None
        self._method = method
        self._workers = workers
        self._folder = folder
        self._initializer = initializer
        self._shares = shares
        self._connect = connect
        self._holders: dict[int, int] = {}  # which worker has which share
        self._kernel_kills: KernelKills | None = None

    def start(self, number: int, limits: WorkerLimits) -> WorkerHandle:
        """Begin to start worker ``number``; work may be posted to it at once."""
        with contextlib.ExitStack() as passed_on, contextlib.ExitStack() as on_failure:
            ours, theirs = socket.socketpair()
            passed_on.enter_context(theirs)
            on_failure.enter_context(ours)
            _driver_sockets.add(ours)
            on_failure.callback(self._holders.pop, number, None)
            descriptor, mark = new_mark()
            passed_on.callback(os.close, descriptor)
            handle = WorkerHandle(number, Channel(ours), mark, limits)
            self._launch(handle, theirs.fileno(), descriptor)
            on_failure.pop_all()
        handle.post([("setup", self._setup(handle))])
        if self._kernel_kills is None:  # now, while the first worker starts, nobody waits for it
            self._kernel_kills = KernelKills()
        return handle

    def _setup(self, handle: WorkerHandle) -> worker.Setup:
        return worker.Setup(
            name=handle.name,
            segment_roots=self._folder.roots,
            segment_label=self._label(handle),
            memory=handle.limits.memory,
            initializer=self._initializer,
            surroundings=surroundings(),
        )

    def _launch(self, handle: WorkerHandle, channel: int, mark: int) -> None:
        frame = Channel.frame(pickle.dumps(("start", handle.number, self._share(handle.number))))
        socket.send_fds(self._socket, [frame], [channel, mark, 1, 2])

    def has_room(self) -> bool:
        """Is there a share for one more worker?"""
        return not self._shares or len(self._holders) < len(self._shares)

    def _share(self, number: int) -> dict[str, str]:
        """The share that worker ``number`` has from now on."""
        taken = set(self._holders.values())
        for place, share in enumerate(self._shares):
            if place not in taken:
                self._holders[number] = place
                return share
        return {}

    def connect(self) -> Channel | None:
        """Connect to the launcher, a new one if the last has died; its channel, to be watched."""
        self._socket = self._connect()
        _driver_sockets.add(self._socket)
        self._connection = Channel(self._socket)
        self._connection.send(pickle.dumps(("setup", self._settings())))
        return self._connection

    def _label(self, handle: WorkerHandle) -> str:
        """How the names of a worker's segments begin: unique among all pools of this driver."""
        return f"p{self._number}w{handle.number}-"

    def _settings(self) -> WorkerSettings:
        umask = os.umask(0o077)
        os.umask(umask)
        try:
            folder = os.getcwd()
        except FileNotFoundError:
            folder = "/"
        return WorkerSettings(
            method=self._method,
            workers=self._workers,
            environment=self._environment(),
            folder=folder,
            affinity=frozenset(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else None,
            umask=umask,
            segment_roots=tuple(self._folder.roots),
        )

    def _environment(self) -> dict[str, str]:
        """Ours, with the share of the cores that each worker's libraries and nested maps have."""
        share = blas_threads(self._workers, int(cores()))
        return {**os.environ, **thread_environment(share), "FANFOLD_CORES": str(share)}

    def events(self) -> Iterator[tuple[Any, ...] | None]:
        """What the launcher has told; None when it is gone."""
        if self._connection is None:
            return
        try:
            for message in self._connection.receive_available():
                yield pickle.loads(message)
        except ChannelClosed:
            yield None

    def kill(self, handle: WorkerHandle, signum: int = signal.SIGKILL) -> None:
        """Send a worker, and all it has started, a signal: SIGKILL ends them now."""
        if self._connection is not None:
            self._connection.post(pickle.dumps(("kill", handle.number, signum)))

    def has_ended(self, handle: WorkerHandle) -> bool:
        """Has a worker ended, though its channel is open? The launcher tells by itself."""
        return False

    def reap(self, handle: WorkerHandle) -> tuple[int | None, int | None] | None:
        """Exit code and peak memory of a worker that has ended; None: the launcher will tell."""
        return None

    def out_of_memory(self, handle: WorkerHandle, exitcode: int | None) -> bool | None:
        """Has the kernel ended a worker for want of memory? None: not known, or we ended it."""
        if exitcode is None or handle.verdict is not None or self._kernel_kills is None:
            return None
        return exitcode == -signal.SIGKILL and self._kernel_kills.explain_one()

    def clear_up(self, handle: WorkerHandle) -> None:
        """Remove what a dead worker was about to send, and take back its share."""
        self._folder.clear(self._label(handle))
        self._holders.pop(handle.number, None)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class ForkStarter(Starter):
    """Starts workers by forking this process."""

    def connect(self) -> Channel | None:
        return None

    def _launch(self, handle: WorkerHandle, channel: int, mark: int) -> None:
        flush(sys.stdout)  # else it would be told again, by the worker
        flush(sys.stderr)
        with uninterrupted(), warnings.catch_warnings():
            # Python warns of forking a process with threads; who asks for "fork" knows.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
            if pid == 0:
                self._be_worker(channel, mark)
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)
            handle.pid = pid

    def _be_worker(self, channel: int, mark: int) -> None:
        code = 1
        try:
            os.setpgid(0, 0)
            os.environ.update(self._environment())
            code = worker.main(channel, mark, self._workers)
        except BaseException:  # noqa: BLE001 - nothing may return into the driver's code
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)

    def kill(self, handle: WorkerHandle, signum: int = signal.SIGKILL) -> None:
        if handle.pid is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(handle.pid, signum)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(handle.pid) != handle.pid:  # a task has moved it to another group
                os.kill(handle.pid, signum)

    def has_ended(self, handle: WorkerHandle) -> bool:
        if handle.pid is None or not hasattr(os, "waitid"):
            return False
        try:
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, handle.pid, flags) is not None
        except ChildProcessError:  # somebody else waited for it
            return True

    def reap(self, handle: WorkerHandle) -> tuple[int | None, int | None]:
        assert handle.pid is not None  # known since the fork  # noqa: S101
        try:
            _, status, usage = os.wait4(handle.pid, 0)
        except ChildProcessError:  # somebody else waited for it
            return None, None
        scale = 1 if sys.platform == "darwin" else 1024
        return os.waitstatus_to_exitcode(status), usage.ru_maxrss * scale


def why_not_started(error: OSError) -> str:
    """What the system said, and what to do."""
    advice = "see what the system says"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        advice = f"this process may have {limit} open files: raise that with ulimit -n"
    return f"cannot start a worker: {error}; {advice}"


def _close_driver_sockets() -> None:
    """In a forked child: only the driver holds its ends, else nobody would see its death."""
    for sock in list(_driver_sockets):
        sock.close()


os.register_at_fork(after_in_child=_close_driver_sockets)
