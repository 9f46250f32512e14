"""Interpreters of this process (PEP 734): each has a lock of its own, so that pure Python runs on
every core, and nothing is started but threads. Python 3.14 and later.

Tasks travel as to another process, in errands; large arrays are seen where they are, and are not
copied on the way there. Few extension modules can be loaded in a second interpreter; NumPy cannot
yet. When one refuses, worker processes take over, from then on, for all tasks of the executor.
"""

from __future__ import annotations

import concurrent.futures
import queue
import re
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from itertools import count
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, NamedTuple

from fanfold.errors import UsageError, WorkerDied
from fanfold.executors.base import StartupFailed, Stream, check_owner, worker_count
from fanfold.executors.remote.errand import Buffer, Parcel, run_errand
from fanfold.executors.remote.executor import RemoteExecutor
from fanfold.executors.remote.site import Loss, Site
from fanfold.resources import cores
from fanfold.tasks import Call

if TYPE_CHECKING:
    from fanfold.executors.processes import ProcessExecutor

__all__ = ["InterpreterExecutor"]

_FIRST = (3, 14)
_REFUSAL = re.compile(
    rb"module (?P<module>[\w.]+) does not support loading in subinterpreters"
    rb"|daemon threads are disabled in this \(sub\)interpreter"
    rb"|\w+ not supported for isolated subinterpreters"
)
_numbers = count()

Answer = concurrent.futures.Future[Parcel]


class InterpreterExecutor(RemoteExecutor):
    """A pool of interpreters in this process, each in a thread; for pure Python.

    ``max_workers`` is by default the number of cores this process may use. Functions and arguments
    are pickled; large buffers are not copied, and are read-only there. What a task needs is
    imported in each interpreter. When one of its modules cannot be, a warning says so, and worker
    processes run what is left: the tasks that were sent together with the first that failed so
    run again from their beginning. A call with a ``timeout`` runs in worker processes from the
    start, since a task in an interpreter cannot be stopped.

    Raises `UsageError` before Python 3.14.
    """

    name = "interpreters"

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        if sys.version_info < _FIRST:
            here = ".".join(map(str, sys.version_info[:3]))
            raise UsageError(
                f'on="interpreters" needs Python 3.14 or later, and this is {here}: use '
                'on="processes"'
            )
        workers = worker_count(max_workers, int(cores()), "max_workers")
        self._stoppable = _Processes(workers, initializer, initargs)
        super().__init__(_Interpreters(workers), initializer, initargs)

    def open(self, call: Call) -> Stream:
        if call.timeout is not None:
            check_owner(self._owner)
            return self._stoppable().open(call)
        return super().open(call)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; with ``wait``, return when all is done and the interpreters closed."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        self._stoppable.shutdown(wait)


class _Processes:
    """Worker processes, made when they are first needed, with these arguments."""

    def __init__(
        self,
        workers: int,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        self._arguments = workers, None, initializer, initargs
        self._lock = threading.Lock()
        self._made: ProcessExecutor | None = None

    def __call__(self) -> ProcessExecutor:
        from fanfold.executors.processes import ProcessExecutor  # interpreters cannot load it

        with self._lock:
            self._made = self._made or ProcessExecutor(*self._arguments)
            return self._made

    def shutdown(self, wait: bool) -> None:
        with self._lock:
            made = self._made
        if made is not None:
            made.shutdown(wait)


class _Work(NamedTuple):
    """An errand on its way; ``unwanted[0]`` is set when nobody waits for it any more."""

    handle: Parcel | None
    parcel: Parcel
    answer: Answer
    unwanted: bytearray


class _Interpreters(Site):
    """Threads that take errands from a queue, each into an interpreter of its own."""

    name = "the interpreters of this process"

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._names = map(f"fanfold-interpreter-{next(_numbers)}_{{}}".format, count())
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._running: dict[Answer, tuple[threading.Thread, _Work]] = {}
        self._processes = _Processes(workers)
        self._refused = False

    @property
    def workers(self) -> int:
        return self._workers

    def publish(self, parcel: Parcel) -> Parcel:
        return parcel

    def retract(self, handle: Parcel) -> None:
        pass

    def post(self, handle: Parcel | None, parcel: Parcel) -> Answer:
        if self._refused:
            return self._send_elsewhere(handle, parcel)
        work = _Work(handle, parcel, concurrent.futures.Future(), bytearray(1))
        with self._lock:
            self._queue.put(work)
            self._start()
        return work.answer

    def _start(self) -> None:
        idle = len(self._threads) - len(self._running)
        if len(self._threads) < self._workers and self._queue.qsize() > idle:
            thread = threading.Thread(target=self._serve, name=next(self._names), daemon=True)
            self._threads.add(thread)
            thread.start()

    def cancel(self, future: Answer) -> None:
        """A task that runs goes on, in a thread that ends with it; another takes its place."""
        with self._lock:
            if not future.cancel() and future in self._running:
                thread, work = self._running.pop(future)
                work.unwanted[0] = True
                self._threads.discard(thread)
                self._start()

    def lost(self, error: BaseException) -> Loss | None:
        if isinstance(error, WorkerDied):
            return Loss(f"process {error.pid}", error.exitcode, error.pid)
        return None

    def check(self) -> None:
        """As long as this process lives, so do they."""

    def close(self) -> None:
        threads = list(self._threads)
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join()
        self._processes.shutdown(wait=True)

    # In its threads

    def _serve(self) -> None:
        thread = threading.current_thread()
        try:
            interpreter = _new_interpreter()
        except Exception as error:  # noqa: BLE001 - whatever Python says
            self._fail(thread, error)
            return
        while thread in self._threads and (work := self._queue.get()) is not None:
            with self._lock:
                begun = work.answer.set_running_or_notify_cancel()
                if begun:
                    self._running[work.answer] = thread, work
            if begun:
                self._do(interpreter, work)
                self._running.pop(work.answer, None)
            del work
        interpreter.close()

    def _fail(self, thread: threading.Thread, error: Exception) -> None:
        """There is no interpreter: one errand less is done, but nobody waits for it."""
        self._threads.discard(thread)
        work = self._queue.get()
        if work is not None and work.answer.set_running_or_notify_cancel():
            failed = StartupFailed(f"Python cannot make another interpreter: {error}")
            failed.__cause__ = error
            work.answer.set_exception(failed)

    def _do(self, interpreter: Any, work: _Work) -> None:
        try:
            message, *buffers = interpreter.call(
                _run,
                threading.current_thread().name,
                _shareable(work.handle),
                _shareable(work.parcel),
                memoryview(work.unwanted),
            )
            refusal = _REFUSAL.search(message)
            if refusal is None:
                # A copy: what lies in an interpreter is gone when that is closed.
                work.answer.set_result([message, *map(bytearray, buffers)])
                return
            self._tell(refusal)
            elsewhere = self._send_elsewhere(work.handle, work.parcel)
            elsewhere.add_done_callback(lambda done: _pass_on(done, work.answer))
        except BaseException as error:  # noqa: BLE001 - whoever waits must get to know
            work.answer.set_exception(error)

    def _tell(self, refusal: re.Match[bytes]) -> None:
        with self._lock:
            first, self._refused = not self._refused, True
        if first:
            warnings.warn(_sentence(refusal), RuntimeWarning, stacklevel=2)

    def _send_elsewhere(self, handle: Parcel | None, parcel: Parcel) -> Answer:
        packed = handle and _picklable(handle), _picklable(parcel)
        return self._processes().submit(_run_in_process, *packed)


def _new_interpreter() -> Any:
    from concurrent import interpreters  # type: ignore[attr-defined]  # Python 3.14

    interpreter = interpreters.create()
    interpreter.prepare_main(path=tuple(sys.path))
    interpreter.exec("import sys; sys.path[:] = path")
    return interpreter


def _sentence(refusal: re.Match[bytes]) -> str:
    module = (refusal["module"] or b"").decode()
    why = f"a task needs what only the main interpreter has ({refusal[0].decode()})"
    if module:
        package = module.partition(".")[0]
        why = f"{package} cannot be loaded in a second interpreter ({module} does not support it)"
    return f'{why}: worker processes do the tasks now, as with on="processes"'


def _run(
    worker: str,
    published: Sequence[Buffer] | None,
    parcel: Sequence[Buffer],
    unwanted: memoryview,
) -> tuple[Buffer, ...]:
    """In an interpreter: do an errand, as long as somebody wants it."""
    answer = run_errand(
        published, parcel, worker=worker, wanted=lambda: not unwanted[0], leave=False
    )
    return _shareable(answer) or ()


def _run_in_process(published: Parcel | None, parcel: Parcel) -> list[Any]:
    return _picklable(run_errand(published, parcel))


def _shareable(parcel: Sequence[Buffer] | None) -> tuple[Buffer, ...] | None:
    """With views in the place of what interpreters cannot share; they share views as they are."""
    if parcel is None:
        return None
    return tuple(part if isinstance(part, bytes) else memoryview(part) for part in parcel)


def _picklable(parcel: Parcel) -> list[Any]:
    return [part if isinstance(part, bytes) else PickleBuffer(part) for part in parcel]


def _pass_on(done: Answer, answer: Answer) -> None:
    error = done.exception()
    if error is None:
        answer.set_result(done.result())
    else:
        answer.set_exception(error)
