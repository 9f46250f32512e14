"""The launcher: a small single-threaded process that starts a driver's workers and buries them.

It exists so that no process is ever forked from one with threads, and so that somebody outlives the
driver: when the driver's end of a connection closes, however the driver ended, the launcher kills
what it started for it, process groups whole. As the parent of the workers it knows the exit status
and the peak memory of each.

One launcher serves all pools of a driver; each pool has a connection of its own. Requests are
pickled tuples from the driver, which made the socket pair:

    ("setup", WorkerSettings)
    ("start", number, variables) with descriptors: channel, mark, stdout, stderr
    ("kill", number, signal)

and answers ``("started", number, pid)`` and ``("exited", number, exit code, peak memory)``.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import os
import pickle
import selectors
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from fanfold.transport.channel import Channel, ChannelClosed

if TYPE_CHECKING:
    from fanfold.executors.pool.generators import Generators

__all__ = ["WorkerSettings", "close_all_but", "connect", "connection", "main"]

_PACKAGE_ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3))
_BOOTSTRAP = (
    "import sys; sys.path.append(sys.argv[2]); "
    "from fanfold.executors.pool.launcher import main; main(int(sys.argv[1]))"
)
_START_DESCRIPTORS = 4


class WorkerSettings(NamedTuple):
    """How the ``workers`` of a pool are started: ``method`` is ``"forkserver"`` or ``"spawn"``."""

    method: str
    workers: int
    environment: dict[str, str]
    folder: str
    affinity: frozenset[int] | None
    umask: int
    segment_roots: tuple[str, ...]


# The driver's side


class _Launcher:
    """The launcher process of this driver."""

    def __init__(self) -> None:
        import subprocess  # late, as all that the launcher itself does not need

        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",  # a signal.py in the current folder is not ours to import
                    "-c",
                    _BOOTSTRAP,
                    str(theirs.fileno()),
                    _PACKAGE_ROOT,
                ],
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
            )
        self._socket = ours
        self.driver = os.getpid()

    def usable(self) -> bool:
        return self.driver == os.getpid() and self._process.poll() is None

    def connect(self) -> socket.socket:
        return connection(self._socket)

    def close(self) -> None:
        """Let it end, as it does when its control socket closes; unless it is another process's."""
        self._socket.close()
        if self.driver == os.getpid():
            with contextlib.suppress(Exception):  # it did not end in time: it will
                self._process.wait(timeout=1)


def connection(control: socket.socket) -> socket.socket:
    """A new one to the launcher at the other end of ``control``."""
    ours, theirs = socket.socketpair()
    with theirs, contextlib.ExitStack() as on_failure:
        on_failure.enter_context(ours)
        socket.send_fds(control, [b"+"], [theirs.fileno()])
        on_failure.pop_all()
    return ours


_lock = threading.Lock()
_launcher: _Launcher | None = None


def prepare() -> None:
    """Start the launcher if there is none, without waiting: soon a pool will connect."""
    with _lock, contextlib.suppress(OSError):  # connect() tries again, and tells
        _living()


def connect() -> socket.socket:
    """A new connection to this driver's launcher, which is started when there is none."""
    global _launcher
    with _lock:
        with contextlib.suppress(OSError):  # it died since we looked
            return _living().connect()
        if _launcher is not None:
            _launcher.close()
            _launcher = None
        return _living().connect()


def _living() -> _Launcher:
    global _launcher
    if _launcher is None or not _launcher.usable():
        if _launcher is not None:
            _launcher.close()
        _launcher = None
        _launcher = _Launcher()
    return _launcher


@atexit.register
def _end_with_driver() -> None:
    if _launcher is not None:
        _launcher.close()


# The launcher's side


class _Worker(NamedTuple):
    number: int
    pid: int


class _Connection:
    """A pool: its requests and its workers."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.channel = Channel(sock, self._read)
        self.descriptors: list[int] = []
        self.settings: WorkerSettings | None = None
        self.workers: dict[int, _Worker] = {}  # by process id

    def requests(self) -> list[tuple[Any, ...]]:
        """The requests that have arrived, their descriptors put aside in order."""
        return [pickle.loads(message) for message in self.channel.receive_available()]

    def _read(self, buffer: bytearray, flags: int) -> int:
        room = socket.CMSG_SPACE(array.array("i").itemsize * 64)
        size, ancillary, _, _ = self.socket.recvmsg_into([buffer], room, flags)
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                received = array.array("i")
                received.frombytes(content[: len(content) - len(content) % received.itemsize])
                self.descriptors.extend(received)
        return size

    def answer(self, *answer: object) -> None:
        with contextlib.suppress(OSError):  # the driver is gone: reading will tell
            self.channel.send(pickle.dumps(answer))

    def kill_all(self) -> None:
        for worker in self.workers.values():
            _kill_worker(worker.pid, signal.SIGKILL)

    def close(self) -> None:
        self.channel.close()
        for descriptor in self.descriptors:
            os.close(descriptor)


class _Server:
    def __init__(self, control: socket.socket, generators: Generators | None) -> None:
        self._control = control
        self._connections: dict[int, _Connection] = {}
        self._generators = generators
        self._warm = generators is not None
        self._closing: list[_Connection] = []
        self._roots: set[str] = set()  # where the driver and its workers keep segments
        self._selector = selectors.DefaultSelector()
        self._child_ended, write_end = os.pipe()
        for end in (self._child_ended, write_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(control, selectors.EVENT_READ)
        self._selector.register(self._child_ended, selectors.EVENT_READ)

    def serve(self) -> None:
        while True:
            events = self._selector.select(None if self._warm else 0.02)
            if not events:
                self._warm_up()
            for key, _ in events:
                if key.fileobj is self._control:
                    if not self._accept():
                        return self._end()
                elif key.fd == self._child_ended:
                    self._bury()
                else:
                    self._handle(self._connections[key.fd])

    def _warm_up(self) -> None:
        """Load what many tasks need, once here instead of once a worker; the first did not wait."""
        self._warm = True
        with contextlib.suppress(ImportError):
            import cloudpickle  # noqa: F401

            from fanfold.executors.work import capture  # noqa: F401

    def _accept(self) -> bool:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
        except ConnectionError:
            data = b""
        for descriptor in descriptors if data else ():
            connection = _Connection(socket.socket(fileno=descriptor))
            self._connections[descriptor] = connection
            self._selector.register(descriptor, selectors.EVENT_READ)
        return bool(data)

    def _handle(self, connection: _Connection) -> None:
        try:
            requests = connection.requests()
        except ChannelClosed:
            self._drop(connection)
            return
        for request in requests:
            if request[0] == "setup":
                connection.settings = request[1]
                self._roots.update(request[1].segment_roots)
            elif request[0] == "start":
                self._start(connection, *request[1:])
            else:
                for worker in connection.workers.values():
                    if worker.number == request[1]:
                        _kill_worker(worker.pid, request[2])

    def _drop(self, connection: _Connection) -> None:
        descriptor = connection.socket.fileno()
        self._selector.unregister(descriptor)
        del self._connections[descriptor]
        connection.kill_all()
        connection.close()
        if connection.workers:
            self._closing.append(connection)

    def _start(self, connection: _Connection, number: int, variables: dict[str, str]) -> None:
        descriptors = connection.descriptors[:_START_DESCRIPTORS]
        del connection.descriptors[:_START_DESCRIPTORS]
        settings = connection.settings
        assert settings is not None  # "setup" comes first  # noqa: S101
        settings = settings._replace(environment={**settings.environment, **variables})
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _be_worker(settings, descriptors, number, parent, self._generators)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # the child does it too: whoever is first
        for descriptor in descriptors:
            os.close(descriptor)
        connection.workers[pid] = _Worker(number, pid)
        connection.answer("started", number, pid)

    def _bury(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._child_ended, 4096)
        while (dead := _reap()) is not None:
            for connection in (*self._connections.values(), *self._closing):
                worker = connection.workers.pop(dead.pid, None)
                if worker is not None and connection not in self._closing:
                    connection.answer("exited", worker.number, dead.exitcode, dead.peak_memory)
        self._closing = [connection for connection in self._closing if connection.workers]

    def _end(self) -> None:
        """The driver is gone: nothing of it may stay."""
        for connection in self._connections.values():
            connection.kill_all()
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
        import shutil

        for root in self._roots:
            shutil.rmtree(root, ignore_errors=True)


class _Dead(NamedTuple):
    pid: int
    exitcode: int
    peak_memory: int


def _reap() -> _Dead | None:
    """Bury a child that has ended, and end what it had started; None when there is none."""
    try:
        if hasattr(os, "waitid"):
            # Look first: while it is not reaped its group cannot be anybody else's.
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if info is None:
                return None
            _kill_group(info.si_pid, signal.SIGKILL)
        pid, status, usage = os.wait4(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    if pid == 0:
        return None
    _kill_group(pid, signal.SIGKILL)
    scale = 1 if sys.platform == "darwin" else 1024
    return _Dead(pid, os.waitstatus_to_exitcode(status), usage.ru_maxrss * scale)


def _kill_worker(pid: int, signum: int) -> None:
    """A worker that has not been reaped: its group, and itself if a task moved it to another. Once:
    what its task does about SIGTERM is not to be done twice."""
    _kill_group(pid, signum)
    with contextlib.suppress(ProcessLookupError):
        if os.getpgid(pid) != pid:
            os.kill(pid, signum)


def _kill_group(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def _be_worker(
    settings: WorkerSettings,
    descriptors: list[int],
    number: int,
    parent: int,
    generators: Generators | None,
) -> None:
    """In the new process: become worker ``number``; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _die_with(parent)
        channel, mark, stdout, stderr = descriptors
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.umask(settings.umask)
        with contextlib.suppress(OSError):
            os.chdir(settings.folder)
        if settings.affinity is not None and hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, settings.affinity)
        if settings.method == "spawn":
            _become_interpreter(settings, channel, mark)
        close_all_but({0, 1, 2, channel, mark})
        _set_environment(settings.environment)
        from fanfold.executors.pool import worker

        if generators is None:
            code = worker.main(channel, mark)
        else:
            generators.renew()
            code = worker.main(channel, mark, settings.workers)
    except BaseException:  # noqa: BLE001 - nothing may return into the launcher's loop
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _set_environment(wanted: dict[str, str]) -> None:
    """Change what is different: to set each variable anew takes half a millisecond."""
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    known = dict(os.environ)
    os.environ.update({name: one for name, one in wanted.items() if known.get(name) != one})


def _become_interpreter(settings: WorkerSettings, channel: int, mark: int) -> None:
    code = (
        "import sys, os; sys.path.append(sys.argv[3]); "
        "from fanfold.executors.pool.worker import main; "
        "os._exit(main(int(sys.argv[1]), int(sys.argv[2])))"
    )
    for descriptor in (channel, mark):
        os.set_inheritable(descriptor, True)
    arguments = [sys.executable, "-P", "-c", code, str(channel), str(mark), _PACKAGE_ROOT]
    os.execve(sys.executable, arguments, settings.environment)  # noqa: S606 - no shell


def close_all_but(kept: set[int]) -> None:
    limits = [*sorted(kept), max(max(kept) + 1, os.sysconf("SC_OPEN_MAX"))]
    low = 0
    for descriptor in limits:
        if low < descriptor:  # an empty range would be taken as "all" by Python 3.11
            os.closerange(low, descriptor)
        low = descriptor + 1


def _die_with(parent: int) -> None:
    """Linux: have the kernel kill this process when the launcher dies, itself killed."""
    if sys.platform != "linux":
        return
    _prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _load_prctl() -> Any:
    if sys.platform != "linux":
        return None
    import ctypes

    return ctypes.CDLL(None).prctl


_prctl: Any = None


def main(descriptor: int, generators: Generators | None = None) -> None:
    """The launcher process: serve until the driver's end of ``descriptor`` closes.

    ``generators`` has the launcher that is a copy of the driver: its workers begin with what the
    driver had loaded, but for the numbers that are to come.
    """
    global _prctl
    _prctl = _load_prctl()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whoever started us may have blocked some
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    from fanfold.executors.pool import worker  # noqa: F401 - loaded once here, not once a worker

    _Server(socket.socket(fileno=descriptor), generators).serve()
