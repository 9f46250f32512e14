"""One start of an element: its files are opened, its script runs, its output is put in place."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from fanfold.schedulers.base import JobState
from fanfold.schedulers.local.dialect import Begin, interpreter
from fanfold.schedulers.local.dialects import DIALECTS
from fanfold.schedulers.local.process import Ending, Process

__all__ = ["NotStartedError", "Running"]

_NEVER = float("inf")


class NotStartedError(Exception):
    """The script was not run: the message says why, ``status`` what it counts as, if anything."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Running:
    """An element that runs, from its begin until its output is in place.

    ``warn_at``, ``over`` and ``kill_at`` are the times, of the monotonic clock, at which it is
    warned, asked to end, and ended. ``state`` is what it ends in if somebody ends it, ``again`` the
    seconds until it may begin once more. Raises `NotStartedError`.
    """

    def __init__(self, begin: Begin, script: str, on_end: Callable[[Ending], object]) -> None:
        self.begin = begin
        job = begin.submitted.job
        self._dialect = DIALECTS[job.dialect]
        self._streams = self._places()
        self.process, self._errors = self._start(script, on_end)
        self._since = time.monotonic()
        self.over = self._since + (job.walltime or _NEVER)
        self.warn_at = self.over - job.warning[1] if job.warning else _NEVER
        self.kill_at = _NEVER
        self.state: JobState | None = None
        self.again: float | None = None

    @property
    def next_event(self) -> float:
        return min(self.warn_at, self.over, self.kill_at)

    def _places(self) -> tuple[str, str]:
        """Where the script writes: the files themselves, or others that are copied there."""
        element, job = self.begin.element, self.begin.submitted.job
        element.output, element.error = self._dialect.paths(self.begin)
        element.undelivered = ()
        streams = []
        for stream, path, suffix in (("o", element.output, "OU"), ("e", element.error, "ER")):
            name = f"{self._dialect.id(self.begin.submitted, element.index, self.begin.host)}"
            spool = os.path.join(self.begin.folder, f"{name}.{suffix}")
            streams.append(spool if self._dialect.spools(job, stream) else path)
        output, error = streams
        return output, output if element.output == element.error else error

    def _start(self, script: str, on_end: Callable[[Ending], object]) -> tuple[Process, int]:
        """Its processes, and a file descriptor for more errors, which goes on where they stand."""
        job = self.begin.submitted.job
        if not os.path.isdir(job.folder):
            raise NotStartedError(f"the folder to start in, {job.folder}, is not there")
        with ExitStack() as stack:
            try:
                self._dialect.prepare(self.begin)
                streams = self._open(stack)
            except OSError as problem:
                said = f"cannot open {problem.filename}: {problem.strerror}"
                raise NotStartedError(said) from problem
            command = self._dialect.command(job, script)
            variables = {**job.environment, **self._dialect.variables(self.begin)}
            try:
                process = Process(command, job.folder, variables, job.umask, streams, on_end)
            except OSError as problem:
                raise self._not_run(problem, streams[2]) from problem
            return process, os.dup(streams[2])

    def _not_run(self, problem: OSError, errors: int) -> NotStartedError:
        """Say it as Slurm does: PBS starts a shell, which says such things itself."""
        program = " ".join(interpreter(self.begin.submitted.job.script))
        said = f"execve(): bad interpreter({program}): {problem.strerror}"
        line = f"slurmstepd-{self.begin.element.node}: error: {said}\n"
        os.write(errors, line.encode("utf-8", "surrogateescape"))
        return NotStartedError(said, problem.errno or errno.ENOEXEC)

    def _open(self, stack: ExitStack) -> tuple[int, int, int]:
        """The standard streams of the script."""
        job = self.begin.submitted.job
        output, error = self._streams
        flags = _WRITE | (os.O_APPEND if job.append else os.O_TRUNC)
        source = stack.enter_context(_opened(job.input, os.O_RDONLY))
        out = stack.enter_context(_opened(output, flags, job.umask))
        if error == output:
            return source, out, out
        return source, out, stack.enter_context(_opened(error, flags, job.umask))

    def warn(self) -> None:
        """Send the signal that the job wanted before its walltime is over."""
        self.warn_at = _NEVER
        if warning := self.begin.submitted.job.warning:
            self.process.signal(warning[0], script_only=warning[2])

    def stop(self, state: JobState | None, grace: float, *, again: float | None = None) -> None:
        """Ask it to end, and see that it has in ``grace`` seconds."""
        self.state, self.again = state, again
        self.over = self.warn_at = _NEVER
        self.begin.element.state = "ending"
        self.kill_at = time.monotonic() + grace
        self._write(self._dialect.farewell(self.begin, state, time.monotonic() - self._since))
        if grace > 0:
            self.process.terminate()

    def kill(self) -> None:
        self.kill_at = _NEVER
        self.process.kill()

    def _write(self, text: str) -> None:
        """Go on with the errors where the script stands."""
        with suppress(OSError):
            os.write(self._errors, text.encode("utf-8", "surrogateescape"))

    def finish(self, ending: Ending) -> None:
        """Note how it ended; nothing that it started is left, and its output is in place."""
        self.process.kill_rest()
        os.close(self._errors)
        element = self.begin.element
        element.ended = time.time()
        element.exit_status = ending.status if ending.status >= 0 else None
        element.signal = -ending.status if ending.status < 0 else None
        element.cpu_time = ending.cpu_time
        element.peak_memory = self.process.peak_memory
        element.state = self.state or ("failed" if ending.status else "done")
        element.undelivered = tuple(self._undelivered())

    def _undelivered(self) -> Iterator[str]:
        """Put the output in its place; where that cannot be, it stays, and is told."""
        element = self.begin.element
        output, error = self._streams
        for spool, path in {output: element.output, error: element.error}.items():
            if spool == path:
                continue
            try:
                _copy(spool, path, self.begin.submitted.job.umask)
            except OSError:
                yield spool
            else:
                os.unlink(spool)


_WRITE = os.O_WRONLY | os.O_CREAT


@contextmanager
def _opened(path: str, flags: int, umask: int | None = None) -> Iterator[int]:
    """A file descriptor; a named pipe that nobody reads is an error, and no endless wait."""
    file = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, 0o666 & ~(umask or 0))
    try:
        os.set_blocking(file, True)
        yield file
    finally:
        os.close(file)


def _copy(source: str, target: str, umask: int | None) -> None:
    with (
        open(source, "rb") as spooled,
        _opened(target, _WRITE | os.O_TRUNC, umask) as number,
        open(number, "wb", closefd=False) as file,
    ):
        shutil.copyfileobj(spooled, file)
