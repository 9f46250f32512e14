"""What a remote worker does: an errand, which is tasks of one or several calls sent together.

An engine (MPI, Dask, IPython) carries two parcels to a worker, has it call `run_errand`, and
carries a parcel back. A parcel is a list of bytes-likes: a message, and the big buffers that belong
to it, which an engine may send without copying them.

The first message is a pickled `Errand`, the answer is one of these tuples, pickled:

    ("done", worker, peak memory, entries)
    ("mismatch", Python version, fanfold version)       of the worker: they do not fit
    ("broken", packed error)                            the initializer raised

with an entry for each piece of a lot, in order:

    ("done", lot, folded, offset, values, failed, seconds, evidence, peak memory)
    ("unloadable", lot, whole, packed error)

Tasks of which there is no entry have not begun: they are to be sent again.
"""

from __future__ import annotations

import os
import pickle
import platform
import queue
import socket
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextvars import copy_context
from time import perf_counter
from typing import Any, NamedTuple

from fanfold.errors import LoadFailed, TaskTimeout
from fanfold.executors.work.evidence import Tracker, thread_meter
from fanfold.executors.work.memory import peak_memory
from fanfold.executors.work.packing import pack_answer, pack_error
from fanfold.executors.work.runner import Runner, fold_results
from fanfold.tasks import Call
from fanfold.transport.pickling import Packed, unpack
from fanfold.transport.segments import Segment

__all__ = [
    "Buffer",
    "Errand",
    "Freight",
    "LotSpec",
    "Parcel",
    "copied",
    "end_helpers",
    "reader",
    "run_errand",
    "versions",
]

Buffer = bytes | bytearray | memoryview
Parcel = list[Buffer]

_TICK = 0.05  # seconds between looks at a task that somebody may have to leave behind
_DRIVERS = 8  # drivers whose functions are kept
_CALLS = 64  # functions of one driver that are kept


class Freight:
    """The big buffers that travel beside a message: what `pack` calls segments are numbers here.

    ``copy`` copies them, where their owner may change them.
    """

    def __init__(self, copy: Callable[[memoryview], Buffer] | None = None) -> None:
        self.buffers: Parcel = []
        self._copy = copy

    def put(self, view: memoryview) -> Segment:
        self.buffers.append(view if self._copy is None else self._copy(view))
        return Segment(str(len(self.buffers) - 1), view.nbytes)

    def read(self, segment: Segment) -> memoryview:
        return memoryview(self.buffers[int(segment.path)])


def copied(buffer: Buffer) -> Buffer:
    """The same bytes elsewhere. NumPy asks for large pages, and takes half the time of `bytes`."""
    numpy = sys.modules.get("numpy")
    return memoryview(numpy.frombuffer(buffer, "u1").copy()) if numpy else bytes(buffer)


def reader(
    buffers: Sequence[Buffer], base: int = 0, *, writable: bool = False
) -> Callable[[Segment], memoryview]:
    """What finds the buffers that came with a message; its own begin at ``base``.

    ``writable`` copies where that is needed; without it they are read-only, as in processes.
    """

    def read(segment: Segment) -> memoryview:
        view = memoryview(buffers[base + int(segment.path)])
        if not writable:
            return view.toreadonly()
        return memoryview(bytearray(view)) if view.readonly else view

    return read


def versions() -> tuple[str, str]:
    """The versions of Python and fanfold here; of Python what matters to pickled functions."""
    package = sys.modules[__package__.partition(".")[0]]
    return ".".join(platform.python_version_tuple()[:2]), package.__version__


class LotSpec(NamedTuple):
    """The tasks ``start`` ... ``stop - 1`` of a chunk; ``base`` is where its buffers begin."""

    call: int
    first: int
    attempt: int
    start: int
    stop: int
    packed: bytes | Packed
    base: int


class Errand(NamedTuple):
    """A driver's message to a worker.

    ``calls`` holds the definitions of calls that were not published; ``oldest`` is the lowest
    number of a call that is still open. No task begins when ``seconds`` have passed.
    """

    driver: str
    path: list[str]
    initializer: bytes | None
    calls: dict[int, bytes]
    oldest: int
    lots: list[LotSpec]
    seconds: float

    def pack(self) -> bytes:
        """With the versions in front, which any version can read."""
        return pickle.dumps((versions(), pickle.dumps(tuple(self), 5)), 4)


def run_errand(
    published: Sequence[Buffer] | None,
    parcel: Sequence[Buffer],
    *,
    worker: str = "",
    wanted: Callable[[], bool] | None = None,
    leave: bool = True,
) -> Parcel:
    """Do an errand, and return the answer; called by the engine in a worker.

    ``published`` is what `Site.publish` has put there, where the errand needs it. ``worker`` is its
    name in reports and notes. ``wanted`` tells whether anybody still waits for the answer: with it,
    the tasks run in a thread that is left behind when nobody does. Without it they run in this
    thread, unless they have a timeout. Where no thread may be left behind (``leave``), the running
    task goes on then, and no other begins.
    """
    theirs, message = pickle.loads(parcel[0])
    if theirs != versions():
        return [pickle.dumps(("mismatch", *versions()), 4)]
    errand = Errand(*pickle.loads(message))
    name = worker or f"{socket.gethostname()} pid {os.getpid()}"
    work = _Work(errand, parcel[1:], published, name)
    if wanted is None and not work.has_timeout:
        work.do(0, None, 0)
    elif leave or wanted is None:
        _supervise(work, wanted)
    else:
        _do_while(wanted, work)
    return work.answer()


class _Work:
    """An errand being done. ``turn`` counts the threads that had to be left behind."""

    def __init__(
        self,
        errand: Errand,
        buffers: Sequence[Buffer],
        published: Sequence[Buffer] | None,
        worker: str,
    ) -> None:
        self._errand = errand
        self._buffers = buffers
        self._published = published
        self._worker = worker
        self._until: float | None = None  # the time is counted from the first task on
        self._lock = threading.Lock()
        self._entries: list[tuple[Any, ...]] = []
        self._freight = Freight()
        self._broken: BaseException | None = None
        self._running: tuple[int, Runner] | None = None
        self._turn = 0

    @property
    def has_timeout(self) -> bool:
        return any(_definition_timeout(self._errand, self._published, lot) for lot in self._lots)

    @property
    def _lots(self) -> list[LotSpec]:
        return self._errand.lots

    def do(self, position: int, start: int | None, turn: int) -> None:
        """Run the lots from ``position`` on, the first of them from the task ``start`` on."""
        if not self._prepare():
            return
        for number in range(position, len(self._lots)):
            runner = self._runner(number, start if number == position else None)
            if runner is not None:
                with self._lock:
                    if self._turn != turn:
                        return
                    self._running = number, runner
                runner.run(self._left())
            with self._lock:
                if self._turn != turn:
                    return
                if runner is not None:
                    self._collect(number, runner)
                self._running = None
            if self._left() <= 0:
                return

    def _left(self) -> float:
        """Seconds in which tasks may begin."""
        now = perf_counter()
        if self._until is None:
            self._until = now + self._errand.seconds
        return self._until - now

    def _prepare(self) -> bool:
        """Run the initializer, once in each thread that runs tasks; False when it fails."""
        errand = self._errand
        if errand.initializer is None or errand.driver in _here.prepared:
            return True
        try:
            _extend_path(errand.path)
            initializer, arguments = pickle.loads(errand.initializer)
            initializer(*arguments)
        except BaseException as error:  # noqa: BLE001 - whatever it was, the driver decides
            self._broken = error
            return False
        _here.prepared.add(errand.driver)
        return True

    def _runner(self, number: int, start: int | None) -> Runner | None:
        """A runner for a lot; None, with the failure noted, where it cannot be loaded."""
        lot = self._lots[number]
        whole = True
        try:
            call = _load_call(self._errand, self._published, lot.call)
            whole = False
            items = unpack(lot.packed, reader(self._buffers, lot.base))
        except BaseException as error:  # noqa: BLE001 - a user's __setstate__ may do anything
            failure = LoadFailed(
                f"{'the function' if whole else 'an argument'} could not be loaded in the worker: "
                f"{type(error).__name__}: {error}"
            )
            failure.__cause__ = error
            packed = pack_error(failure, self._freight.put, self._freight.read)
            with self._lock:
                self._entries.append(("unloadable", number, whole, packed))
            return None
        begin = lot.start if start is None else start
        return Runner(
            call,
            lot.first,
            items,
            attempt=lot.attempt,
            start=begin,
            stop=lot.stop,
            worker=self._worker,
            tracker=None if call.evidence is None else Tracker(lot.first + begin, thread_meter),
        )

    def _collect(self, number: int, runner: Runner) -> None:
        results = runner.take()
        if results is not None:
            values, folded = fold_results(runner.call, runner.first, results)
            self._entries.append(("done", number, folded, *results._replace(values=values)))

    def give_up(self) -> None:
        """Nobody wants the answer: leave the running task behind, begin no other."""
        with self._lock:
            self._turn += 1
            if self._running is not None:
                self._running[1].cut()

    def leave_late(self) -> tuple[int, int, int] | None:
        """Leave a task behind that exceeds its timeout; where and in which turn to go on."""
        with self._lock:
            if self._running is None:
                return None
            number, runner = self._running
            began, limit = runner.began, runner.call.timeout
            if not began or limit is None or perf_counter() - began <= limit:
                return None
            runner.cut()
            self._collect(number, runner)
            if runner.began != began:  # it ended just now
                return None
            self._turn += 1
            self._running = None
            self._entries.append(self._late(number, runner, limit))
            return number, runner.offset + 1, self._turn

    def _late(self, number: int, runner: Runner, limit: float) -> tuple[Any, ...]:
        offset = runner.offset
        index = runner.first + offset
        error = TaskTimeout(
            f"task {index} exceeded its timeout of {limit:g} s. It runs in a thread of its worker, "
            'which cannot be stopped: it was left behind. Use on="processes" to have such tasks '
            "killed."
        )
        error.index = index
        task = runner.call.describe(index, runner.items[offset])
        error.add_note(f"fanfold: {task}, attempt {runner.attempt}, {self._worker}")
        error.evidence = runner.unfinished()
        evidence = [error.evidence] if error.evidence is not None else ()
        return "done", number, 0, offset, [error], (offset,), [limit], evidence

    def answer(self) -> Parcel:
        """What is sent back, as far as the errand was done."""
        freight = self._freight
        message: tuple[Any, ...]
        if self._broken is not None:
            message = ("broken", pack_error(self._broken, freight.put, freight.read))
        else:
            with self._lock:
                done, self._entries = self._entries, []
            peak = peak_memory()
            entries = [pack_answer(entry, peak, freight.put, freight.read) for entry in done]
            message = ("done", self._worker, peak, entries)
        return [pickle.dumps(message, 5), *freight.buffers]


# Functions are loaded once in a process, however many errands need them


class _Here(threading.local):
    """The drivers whose initializer has run in this thread."""

    def __init__(self) -> None:
        self.prepared: set[str] = set()


_here = _Here()
_lock = threading.Lock()
_known: OrderedDict[str, OrderedDict[int, Call]] = OrderedDict()


def _load_call(errand: Errand, published: Sequence[Buffer] | None, number: int) -> Call:
    with _lock:
        calls = _known.setdefault(errand.driver, OrderedDict())
        _known.move_to_end(errand.driver)
        while len(_known) > _DRIVERS:
            _known.popitem(last=False)
        while calls and (next(iter(calls)) < errand.oldest or len(calls) > _CALLS):
            calls.popitem(last=False)
        known = calls.get(number)
    if known is not None:
        return known
    _extend_path(errand.path)
    style, entropy, timeout, evidence, functions = _definition(errand, published, number)
    func, fold = unpack(functions, reader(published[1:] if published else ()))
    call = Call(func, style, entropy, timeout, fold, evidence=evidence)
    with _lock:
        calls[number] = call
    return call


def _definition(errand: Errand, published: Sequence[Buffer] | None, number: int) -> tuple[Any, ...]:
    """What the driver says of a call: its functions are still packed."""
    source = errand.calls.get(number)
    if source is None:
        assert published is not None  # noqa: S101 - it is in one place or in the other
        return pickle.loads(published[0])  # type: ignore[no-any-return]
    return pickle.loads(source)  # type: ignore[no-any-return]


def _definition_timeout(
    errand: Errand, published: Sequence[Buffer] | None, lot: LotSpec
) -> float | None:
    timeout: float | None = _definition(errand, published, lot.call)[2]
    return timeout


def _extend_path(path: Sequence[str]) -> None:
    """Let the driver's modules be found, after those of this worker, where they are here too."""
    for folder in path:
        if folder not in sys.path and os.path.exists(folder):
            sys.path.append(folder)


# Threads that can be left behind


class _Helper:
    """A thread that runs tasks for one that watches it."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._main, name="fanfold-tasks", daemon=True)
        self.thread.start()

    def begin(self, work: Callable[[], None] | None) -> None:
        self._inbox.put(work)

    def _main(self) -> None:
        while (work := self._inbox.get()) is not None:
            work()
            del work
            with _lock:
                _idle.append(self)


_idle: list[_Helper] = []


def _helper() -> _Helper:
    with _lock:
        if _idle:
            return _idle.pop()
    return _Helper()


def end_helpers() -> None:
    """End the threads that have nothing to do: for a worker that goes on without fanfold."""
    with _lock:
        ended, _idle[:] = _idle[:], []
    for helper in ended:
        helper.begin(None)
        helper.thread.join()


def _supervise(work: _Work, wanted: Callable[[], bool] | None) -> None:
    """Have the work done by a helper; leave it behind where that must be."""
    place: tuple[int, int | None, int] | None = (0, None, 0)
    while place is not None:
        done = threading.Event()
        _begin(work, place, done)
        place = None
        while place is None and not done.wait(_TICK):
            place = work.leave_late()
            if wanted is not None and not wanted():
                work.give_up()
                return


def _do_while(wanted: Callable[[], bool], work: _Work) -> None:
    """Do the work in this thread, and begin no further task when nobody wants it."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_TICK):
            if not wanted():
                work.give_up()
                return

    watcher = threading.Thread(target=watch, name="fanfold-watch")
    watcher.start()
    try:
        work.do(0, None, 0)
    finally:
        done.set()
        watcher.join()


def _begin(work: _Work, place: tuple[int, int | None, int], done: threading.Event) -> None:
    context = copy_context()  # an engine may tell there which worker this is

    def run() -> None:
        try:
            context.run(work.do, *place)
        finally:
            done.set()

    _helper().begin(run)
