"""A pretend cluster: Slurm's or PBS's commands on PATH, over processes of this machine."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from fanfold.errors import UsageError
from fanfold.schedulers.base import ENDED, JobState
from fanfold.testing.cluster import client
from fanfold.testing.cluster.faults import Change, fault
from fanfold.testing.cluster.nodes import NodeQueue
from fanfold.testing.cluster.pbs import PBS
from fanfold.testing.cluster.server import Server
from fanfold.testing.cluster.site import Entry, Index, Settings, Site
from fanfold.testing.cluster.slurm import SLURM

__all__ = ["Cluster"]

_DIALECTS = {"pbs": PBS, "slurm": SLURM}

Processes = Literal["killed", "stopped", "left"]


class Cluster:
    """A cluster of Slurm or PBS for tests: its commands work, and its jobs run on this machine.

    Its socket and the commands are in ``folder``, which is made, and may hold nothing else. Put
    ``bin`` before PATH, or give ``environment`` to a process. ``limits`` are the fields of
    `Settings`: how many nodes and cores there are, how large an array may be, whether history is
    kept. Times are to the second, where Slurm has minutes and PBS looks every ten seconds.

    A job is named as the scheduler names it: ``"12"``, ``"12_3"``, ``"12[]"``, ``"12[3].pretend"``.

    >>> import subprocess, tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Cluster(folder, "slurm") as cluster:
    ...     call = {"env": cluster.environment, "cwd": folder, "text": True}
    ...     sbatch = ["sbatch", "--parsable", "--wrap", "echo hello"]
    ...     job = subprocess.check_output(sbatch, **call).strip()
    ...     cluster.wait(job)
    ...     print(job, Path(folder, "slurm-1.out").read_text(), end="")
    1 hello
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        dialect: Literal["pbs", "slurm"],
        nodes: int | Sequence[str] = 4,
        cores: int = 4,
        **limits: Any,
    ) -> None:
        if dialect not in _DIALECTS:
            raise UsageError(
                f"{dialect!r} is no scheduler that can be pretended: write pbs or slurm"
            )
        self.folder = Path(folder).absolute()
        self.bin = self.folder / "bin"
        self._dialect = _DIALECTS[dialect]
        self._settings = Settings(nodes, cores, **limits)
        self._queue = NodeQueue(
            self._settings.all_cores,
            host=self._settings.host,
            nodes=self._settings.node_names,
            first=self._settings.first,
            grace=self._settings.grace,
        )
        self._site = Site(dialect, self._settings, self._queue)
        self._server = Server(self.folder, self._site, self._dialect)

    # Its life ------------------------------------------------------------------------------------

    def __enter__(self) -> Cluster:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            self._write_commands()
            self._server.start()
        except BaseException:
            self._queue.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End everything that it started. Raises what went wrong in its server."""
        try:
            self._server.close()
        finally:
            self._queue.close()

    def _write_commands(self) -> None:
        self.bin.mkdir(exist_ok=True)
        words = [sys.executable, "-IS", "-X", "utf8", client.__file__, str(self.folder)]
        for name in self._dialect.commands:
            command = self.bin / name
            command.write_text(f'#!/bin/sh\nexec {shlex.join(words)} {name} "$@"\n')
            command.chmod(0o700)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of this process, with the commands before all others on PATH."""
        path = os.environ.get("PATH", os.defpath)
        return {**os.environ, "PATH": f"{self.bin}{os.pathsep}{path}"}

    @property
    def calls(self) -> Counter[str]:
        """How often each command was called."""
        return self._server.call(lambda: Counter(self._site.calls))

    # Faults --------------------------------------------------------------------------------------

    def fault(self, command: str, kind: str | Change, times: int = 1) -> None:
        """Let something go wrong with the next ``times`` calls of a command (``"*"``: of any).

        Before the scheduler has heard: it is ``"refused"`` (nobody answers), or ``"stuck"`` (it
        does not end by itself). After: the answer is ``"lost"``, ``"garbled"``, ``"truncated"``,
        ``"noisy"`` (with a warning before it) or ``"silent"`` (nothing is printed); the command
        ``"hangs"``, or is ``"killed"``; a job is accepted, and ``"forgotten"`` at once.
        A function gets the reply, and returns another. Faults are met in the order they were made.
        """
        self._server.call(self._site.faults.append, fault(command, kind, times))

    def stop(self) -> None:
        """Let the scheduler be down: its commands say so. Jobs that run go on."""
        self._server.call(setattr, self._site, "down", True)

    def start(self) -> None:
        """Let the scheduler be up again."""
        self._server.call(setattr, self._site, "down", False)

    # What becomes of jobs ------------------------------------------------------------------------

    def end(self, job: str, state: JobState = "cancelled") -> None:
        """End what runs of a job: ``"walltime"``, ``"memory"``, ``"node"`` and so on is why."""
        self._do(job, self._site.end, state)

    def requeue(
        self, job: str, why: JobState = "preempted", processes: Processes = "killed"
    ) -> None:
        """Let what runs of a job begin again, under the same id.

        Its processes are ``"killed"``, or those of before are still there: ``"stopped"``
        (`wake` lets them go on), or ``"left"`` as they are.
        """
        self._do(job, self._requeue, why, processes)

    def lose_node(self, name: str, processes: Processes = "killed") -> None:
        """Lose a node, with all that runs on it, which begins again elsewhere."""

        def lose() -> None:
            for entry, index in self._site.on_node(name):
                if entry.requeue:
                    self._requeue(entry, [index], "node", processes)
                else:
                    self._site.end(entry, [index], "node")

        self._server.call(lose)

    def _requeue(
        self, entry: Entry, indices: list[Index], why: JobState, processes: Processes
    ) -> None:
        for index in indices:
            if entry.submitted.elements[index].state != "running":
                continue
            if processes == "stopped":
                self._queue.signal(entry.number, signal.SIGSTOP, [index])
            self._site.requeue(entry, index, why, leave=processes != "killed")

    def wake(self) -> None:
        """Let stopped processes of lost nodes go on."""
        self._server.call(self._queue.signal_left, signal.SIGCONT)

    def forget(self, job: str) -> None:
        """Let the scheduler know a job no more, nor its records; its processes go on."""

        def forget(entry: Entry, indices: list[Index]) -> None:
            entry.hidden = True

        self._do(job, forget)

    def freeze(self, job: str) -> None:
        """Let a job look for ever as it looks now: running, though it has ended."""
        self._do(job, self._site.freeze)

    def _do(self, job: str, action: Callable[..., None], *details: Any) -> None:
        """Do something to a job, or to the element that is named."""

        def do() -> None:
            number, index = self._dialect.named(job)
            entry = self._site.find(number)
            action(entry, list(entry.elements) if index is None else [index], *details)

        self._server.call(do)

    # Waiting -------------------------------------------------------------------------------------

    def states(self, job: str) -> dict[Index, JobState]:
        """What became of the elements of a job so far, by index; a plain job has the index None."""
        number, _ = self._dialect.named(job)
        return self._server.call(
            lambda: {
                index: element.state
                for index, element in self._site.find(number).submitted.elements.items()
            }
        )

    def pids(self, job: str) -> dict[Index, int]:
        """The processes that run the scripts of a job, by index."""
        number, _ = self._dialect.named(job)
        return self._server.call(
            lambda: {
                index: element.pid
                for index, element in self._site.find(number).submitted.elements.items()
                if element.pid is not None and element.state == "running"
            }
        )

    def wait(self, job: str, *states: JobState, timeout: float = 60.0) -> None:
        """Wait until all elements of a job are in one of these states; without any, have ended.

        An element that is named (``"12_3"``) is waited for alone. Raises `TimeoutError`.
        """
        _, only = self._dialect.named(job)
        wanted = frozenset(states) or ENDED
        deadline = time.monotonic() + timeout
        while True:
            now = self.states(job)
            there = {now[only]} if only is not None else set(now.values())
            if there <= wanted:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {job} is {', '.join(sorted(there))} after {timeout:g} s")
            time.sleep(0.01)
