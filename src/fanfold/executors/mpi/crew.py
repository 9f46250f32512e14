"""A crew: the ranks that one launcher has started, as the driver sees them.

The launcher is given nothing secret. Its standard input, which every launcher leads to rank 0, is
one line: where the driver listens, and the secret of this crew. Rank 0 tells the others, as the
first thing that MPI must carry, and connects; it says hello for all. So a launcher that only seems
to work, because it starts strangers that are each rank 0 of 1, is found out here.

Where all ranks are asked to connect, each does, and its connection is its lifeline: the driver
learns of its end by the end of file, and it learns of the driver's. A crew with one dead rank is a
dead crew: launchers end the others, and where they do not, `Crew.end` does.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import selectors
import signal
import socket
import subprocess
import sys
from time import monotonic
from typing import Any

from fanfold.executors.base import StartupFailed
from fanfold.executors.mpi import wire
from fanfold.executors.mpi.launchers import Launcher, environment
from fanfold.executors.mpi.memory import forget
from fanfold.executors.mpi.said import Said
from fanfold.executors.remote.errand import Buffer, versions
from fanfold.transport.segments import process_folder

__all__ = ["Crew", "LauncherFailed"]

_PACKAGE_ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3))
_ENTRY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
_PATIENCE = 30.0  # seconds for the first rank to connect, and a fifth of a second for each more
_GREETING = 5.0  # seconds for whoever connects to say who it is
_FAREWELL = 3.0  # seconds for a launcher to end its ranks
_TICK = 0.05


class LauncherFailed(Exception):  # noqa: N818 - an event: the next launcher is tried
    """A launcher did not start ranks that know one another; the message says what happened."""


class Crew:
    """``size`` ranks started by ``launcher``; ``connect`` is "all" or "first".

    ``eager`` shows all of their standard error at once (see `Said`).
    ``connections`` are by rank, ``hellos`` what each rank has told of itself, ``near`` whether all
    of them see the shared memory of this process.

    Raises `LauncherFailed` where the ranks do not come, and `StartupFailed` where they come but run
    another Python or fanfold than this one.
    """

    def __init__(
        self,
        launcher: Launcher,
        size: int,
        connect: str,
        eager: bool,
    ) -> None:
        self.launcher = launcher
        self.size = size
        self.connections: dict[int, socket.socket] = {}
        self.hellos: list[dict[str, Any]] = []
        self._secret = secrets.token_bytes(32)
        self._listener = _listen()
        try:
            self._launch(eager)
        except OSError as error:
            self._listener.close()
            raise LauncherFailed(f"it cannot be started: {error}") from error
        try:
            self._invite(connect)
            self._await(size if connect == "all" else 1)
        except BaseException:
            self.end()
            raise
        finally:
            self._listener.close()

    def _launch(self, eager: bool) -> None:
        self.process = subprocess.Popen(
            [*self.launcher.command(self.size), sys.executable, "-P", _ENTRY, _PACKAGE_ROOT],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the driver
        )
        self.said = Said(self.process, eager)

    def _invite(self, connect: str) -> None:
        port = self._listener.getsockname()[1]
        invitation = {
            "addresses": _addresses(),
            "port": port,
            "secret": self._secret.hex(),
            "size": self.size,
            "connect": connect,
            "memory": process_folder().roots[0],
        }
        assert self.process.stdin is not None  # a pipe  # noqa: S101
        with contextlib.suppress(OSError), self.process.stdin as stdin:  # it ended: that is seen
            stdin.write(json.dumps(invitation).encode() + b"\n")

    def _await(self, count: int) -> None:
        """Wait until ``count`` ranks have connected, as long as they can still come."""
        deadline = monotonic() + _PATIENCE + count / 5
        self._listener.settimeout(_TICK)
        while len(self.connections) < count:
            if self.process.poll() is not None:
                raise LauncherFailed(self._last_words())
            if monotonic() > deadline:
                raise LauncherFailed(
                    f"only {len(self.connections)} of {count} ranks had answered after "
                    f"{_PATIENCE + count / 5:.0f} seconds"
                )
            with contextlib.suppress(TimeoutError):
                self._admit(self._listener.accept()[0])

    def _admit(self, connection: socket.socket) -> None:
        """Take a rank in; whoever else it is finds the door closed."""
        try:
            connection.settimeout(_GREETING)
            wire.admit(connection, self._secret)
            hello = json.loads(bytes(wire.receive(connection)[0]))
        except (OSError, EOFError, ValueError, wire.Stranger):
            connection.close()
            return
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections[hello["rank"]] = connection
        if "crew" in hello:
            self.hellos = hello["crew"]
            self._check()

    def _check(self) -> None:
        """Refuse ranks that do not know one another, or are not of our kind."""
        if len(self.hellos) != self.size:
            raise LauncherFailed(
                f"its {self.size} ranks do not find one another, each is rank 0 of "
                f"{len(self.hellos)}: it does not belong to {self.hellos[0]['library']}"
            )
        for hello in self.hellos:
            there, here = tuple(hello["versions"]), versions()
            if there != here:
                raise StartupFailed(
                    f"rank {hello['rank']} on {hello['host']} runs Python {there[0]} with fanfold "
                    f"{there[1]}, the driver Python {here[0]} with fanfold {here[1]}: use the same "
                    "environment everywhere"
                )

    def _last_words(self) -> str:
        """How the launcher ended, and what it had said."""
        text = self.said.all()
        status = self.process.wait()
        ended = f"it ended with status {status}"
        lines = [line for line in text.splitlines() if re.search(r"\w", line)]
        return f"{ended}: {_telling(lines)}" if lines else f"{ended} and said nothing"

    def begin(self, program: dict[str, Any], *parts: Buffer) -> None:
        """Tell the ranks what to do (see `fanfold.executors.mpi.rank`)."""
        surroundings = {"path": [entry or os.getcwd() for entry in sys.path], "folder": os.getcwd()}
        wire.send(self.connections[0], json.dumps({**program, **surroundings}).encode(), *parts)

    def name_of(self, rank: int) -> str:
        """A rank as messages name it."""
        hello = self.hellos[rank]
        return f"rank {rank} of {self.size} (process {hello['pid']} on {hello['host']})"

    @property
    def near(self) -> bool:
        return all(hello["near"] for hello in self.hellos)

    def ended(self) -> bool:
        """Has the launcher ended, and so every rank?"""
        return self.process.poll() is not None

    def settle(self, seconds: float = _FAREWELL) -> int | None:
        """Give the launcher time to end by itself; its exit status, None where it goes on."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def death_signal(self) -> int | None:
        """The signal that ended the first rank that died, as far as the launcher has told."""
        text = self.said.all()
        if told := re.search(r"\bsignal (\d+)\b", text):  # mpiexec
            return int(told[1])
        if told := re.search(r"^srun: error: .*tasks? [^:]*: ([\w ]+)", text, re.MULTILINE):
            words = {signal.strsignal(number): int(number) for number in signal.valid_signals()}
            return words.get(told[1].strip())
        return None

    def end(self) -> None:
        """End every rank and the launcher, whatever they do; what they still say is not shown."""
        self.said.mute()
        for connection in self.connections.values():
            connection.close()
        self._listener.close()
        if self.process.poll() is None:
            self.process.terminate()
            if self.settle() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self.said.all()
        self._sweep()

    def _sweep(self) -> None:
        """Remove what killed ranks have left on this machine."""
        for hello in self.hellos:
            if hello["host"] == socket.gethostname():
                forget(hello["shared"])

    def selector(self) -> selectors.BaseSelector:
        """One that waits for messages; a connection's data is its rank."""
        selector = selectors.DefaultSelector()
        for rank, connection in self.connections.items():
            selector.register(connection, selectors.EVENT_READ, rank)
        return selector


def _telling(lines: list[str]) -> str:
    """Of what a launcher said, the last line of a traceback, else the first lines."""
    for line in lines:
        if re.match(r"(\[\d+\] )?[\w.]*(Error|Exception)\b.*:", line):
            return line
    return " ".join(" ".join(lines[:4]).split())[:300]


def _in_allocation() -> bool:
    return any(name in os.environ for name in ("SLURM_JOB_ID", "PBS_NODEFILE", "LSB_HOSTS"))


def _listen() -> socket.socket:
    """On the loopback, unless ranks may be on other machines."""
    return socket.create_server(("" if _in_allocation() else "127.0.0.1", 0), backlog=1024)


def _addresses() -> list[str]:
    """Where this machine can be reached, the best first."""
    if not _in_allocation():
        return ["127.0.0.1"]
    import psutil

    numbers = [
        address.address
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]
    return [socket.gethostname(), *numbers, "127.0.0.1"]
