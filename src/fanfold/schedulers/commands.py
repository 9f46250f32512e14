"""Run a command and hear what it says: no shell, no terminal, no waiting for ever."""

from __future__ import annotations

import errno
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic

from fanfold.errors import SchedulerDown, UsageError
from fanfold.schedulers.base import Answer

__all__ = ["TIMEOUT", "ask", "program"]

# A question is answered within this, or not at all: squeue takes 18 s to find that slurmctld is
# down. Twice this is for a submission: sbatch goes on trying for 120 s, and ends by itself then.
TIMEOUT = 65.0

_SIZE = 1 << 28  # bytes: what a command may say
_ENDED = 0.1  # seconds between looks whether it has ended, while others hold its pipes
_DEAD = 5.0  # seconds that a killed process may take to end: one that waits for a disk may not
_NOT_INSTALLED = (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR)


def ask(
    argv: Sequence[str],
    *,
    timeout: float = TIMEOUT,
    folder: Path | None = None,
    input: str | None = None,  # noqa: A002 - as subprocess calls it
    finish: bool = False,
) -> Answer:
    """Run a command, without a shell, and return what it said.

    It runs in ``folder`` and reads ``input``, or nothing. It has a session of its own, so that a
    Ctrl-C meant for us does not reach it. After ``timeout`` seconds, or when it says more than
    256 MB, it is killed, with the processes that it has started, and has no exit status. What it
    leaves behind by itself is left alone. An exception that comes meanwhile kills it, too; with
    ``finish`` the first Ctrl-C waits for its end.

    Raises `UsageError` where there is no such command, and `SchedulerDown` where this machine
    cannot start one now.

    >>> answer = ask(["env", "A=1", "sh", "-c", "echo $A; exit 3"])
    >>> answer.code, answer.out
    (3, '1\\n')
    """
    if shutil.which(program(argv)) is None:
        raise _not_installed(argv)
    with ExitStack() as stack:
        stdin = subprocess.DEVNULL
        if input is not None:
            stream = stack.enter_context(tempfile.TemporaryFile())
            stream.write(input.encode())
            stream.seek(0)
            stdin = stream.fileno()
        process = _start(argv, stdin, folder)
    return _Conversation(process, timeout).answer(argv, finish)


def program(argv: Sequence[str]) -> str:
    """The program that a command runs, which may stand behind ``env -u NAME NAME=VALUE``.

    >>> program(["env", "-u", "SQUEUE_USERS", "LC_ALL=C", "squeue", "-h"])
    'squeue'
    """
    words = iter(argv)
    word = next(words)
    if word != "env":
        return word
    for word in words:
        if word == "-u":
            next(words)
        elif "=" not in word:
            return word
    return "env"


def _start(argv: Sequence[str], stdin: int, folder: Path | None) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            start_new_session=True,
        )
    except OSError as error:
        if error.errno in _NOT_INSTALLED:
            raise _not_installed(argv) from error
        raise SchedulerDown(f"{program(argv)} cannot be started: {error.strerror}") from error


def _not_installed(argv: Sequence[str]) -> UsageError:
    name = program(argv)
    module = "pbs" if os.path.basename(name).startswith("q") else "slurm"
    return UsageError(
        f"there is no command {name} here: run this on a login node of the cluster, and if it "
        f"is one, load the module that has {name} first (perhaps: module load {module})"
    )


class _Conversation:
    """What a process says until its end."""

    def __init__(self, process: subprocess.Popen[bytes], timeout: float) -> None:
        self._process = process
        self._pipes = [pipe for pipe in (process.stdout, process.stderr) if pipe is not None]
        self._said = {pipe.fileno(): bytearray() for pipe in self._pipes}
        self._deadline = monotonic() + timeout

    def answer(self, argv: Sequence[str], finish: bool) -> Answer:
        try:
            code = self._code(finish)
        finally:
            self._end()
        out, err = (said.decode(errors="replace") for said in self._said.values())
        return Answer(argv, code, out, err)

    def _code(self, finish: bool) -> int | None:
        """Its exit status; None when it has taken too long or said too much."""
        try:
            return self._listen()
        except KeyboardInterrupt:
            if finish:
                self._listen()
            raise

    def _listen(self) -> int | None:
        with selectors.DefaultSelector() as selector:
            for pipe in self._said:
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                ended = self._process.poll() is not None  # before reading: all it said is there
                ready = selector.select(0 if ended else _ENDED)
                for key, _ in ready:
                    if not self._read(key.fd):
                        selector.unregister(key.fd)
                if ended and not ready:  # what it left behind holds the pipes
                    break
                if max(map(len, self._said.values())) > _SIZE:
                    return None
                if monotonic() > self._deadline:
                    break
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(max(0.0, self._deadline - monotonic()))
        return None

    def _read(self, pipe: int) -> bool:
        data = os.read(pipe, 1 << 16)
        self._said[pipe] += data
        return bool(data)

    def _end(self) -> None:
        if self._process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_DEAD)
        for pipe in self._pipes:
            pipe.close()
