"""The caller's own thread: the simplest place, and the one for a debugger."""

from __future__ import annotations

import concurrent.futures
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Any

from fanfold.errors import PoolClosed
from fanfold.executors.base import Executor, StartupFailed, Stream, report_of
from fanfold.executors.threads import ThreadExecutor
from fanfold.executors.work.runner import Runner
from fanfold.tasks import Call, Chunk, Report

if TYPE_CHECKING:
    from fanfold.executors.work.streams import ThreadWitness

__all__ = ["SerialExecutor"]

_TURN = 0.02  # seconds of work until the results so far are told


class SerialExecutor(Executor):
    """Runs each task at once, in the thread that asks for it.

    Takes what the standard executors take; there is one worker whatever ``max_workers`` says.

    >>> with SerialExecutor() as pool:
    ...     pool.submit(pow, 2, 10).result()
    1024
    """

    name = "serial"
    inline = True

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        self.workers = 1
        self._initializer = initializer
        self._initargs = initargs
        self._closed = False

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        """Run the call now; the future that comes back is finished."""
        self._start()
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - it belongs to the future
            future.set_exception(error)
        return future

    def _start(self) -> None:
        if self._closed:
            raise PoolClosed("cannot schedule new futures after shutdown")
        if self._initializer is not None:
            initializer, self._initializer = self._initializer, None
            try:
                initializer(*self._initargs)
            except Exception as error:
                self._closed = True
                raise StartupFailed(f"the initializer raised {error!r}") from error

    def open(self, call: Call) -> Stream:
        """Begin a call. Tasks with a timeout run in a helper thread, which can be left behind."""
        self._start()
        return _SerialStream(call) if call.timeout is None else _HelperStream(call)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._closed = True


class _SerialStream(Stream):
    """Chunks wait here until `receive` runs them."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._runners: deque[Runner] = deque()
        self._woken = threading.Event()
        self._meanwhile = ExitStack()
        self._witness = None if call.evidence is None else self._take_evidence(call.evidence)

    def _take_evidence(self, prefix: str) -> ThreadWitness:
        from fanfold.executors.work.streams import ThreadWitness, routed

        self._meanwhile.enter_context(routed())
        witness = ThreadWitness(prefix, "serial")
        self._meanwhile.callback(witness.close)
        return witness

    def send(self, chunk: Chunk) -> None:
        witness = self._witness
        runner = Runner(
            self._call,
            chunk.first,
            chunk.items,
            attempt=chunk.attempt,
            worker="serial",
            escapes=(KeyboardInterrupt,),
            tracker=None if witness is None else witness.tracker(chunk.first),
        )
        self._runners.append(runner)

    def receive(self, timeout: float | None = None) -> Report | None:
        if not self._runners:
            self._woken.wait(timeout)
        if self._woken.is_set() or not self._runners:
            self._woken.clear()
            return None
        runner = self._runners[0]
        with self._witness or nullcontext():
            runner.run(_TURN)
        if runner.offset >= runner.stop:
            self._runners.popleft()
        results = runner.take()
        if results is None:  # others had the core for the whole turn
            return None
        return report_of(self._call, runner.first, runner.attempt, results, worker="serial")

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        self._runners.clear()
        self._meanwhile.close()


class _HelperStream(Stream):
    """The stream of a thread of its own."""

    def __init__(self, call: Call) -> None:
        self._pool = ThreadExecutor(1)
        self._stream = self._pool.open(call)

    def send(self, chunk: Chunk) -> None:
        self._stream.send(chunk)

    def receive(self, timeout: float | None = None) -> Report | None:
        return self._stream.receive(timeout)

    def wake(self) -> None:
        self._stream.wake()

    def close(self) -> None:
        self._stream.close()
        self._pool.shutdown(wait=False)
