"""A worker process: receives shipments of tasks on its channel, runs them, streams results back.

Messages are pickled lists of tuples. From the driver:

    ("setup", Setup)                                         once, first
    ("call", call id, surroundings, style, entropy, timeout, evidence, packed (function, fold))
    ("forget", call id)
    ("run", shipment id, call id, first, attempt, start, stop, packed items)
    ("one", shipment id, call id, packed items)              a single call, of `submit`
    ("exit",)

and back:

    ("ready", process id) | ("broken", packed error)
    ("done", shipment id, folded, offset, values, failed, seconds, evidence, peak memory)
    ("ones", shipment ids, values, seconds)                 single calls, all with plain values
    ("back", shipment id, stop)             tasks from ``stop`` on have not begun: give them away
    ("unloadable", shipment id, whole, packed error)
    ("large", segment)                      a message that is there

A second thread watches the main one. When a task runs long, it sends the finished results on and
gives back what has not begun, so that nothing waits behind a stranger. When the driver is gone, it
ends the process and all that it started.

``values`` is a tuple of one list where all are plain scalars, else a list of (0, packed value) and
(1, packed exception and traceback).
"""

from __future__ import annotations

import faulthandler
import gc
import os
import pickle
import select
import signal
import socket
import sys
import threading
from collections import deque
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from fanfold.errors import LoadFailed
from fanfold.executors.work.mark import IDLE, LOAD, SEND, Mark
from fanfold.executors.work.memory import Growth, peak_memory
from fanfold.executors.work.packing import all_plain, pack_answer, pack_error
from fanfold.executors.work.runner import Runner, fold_results, noted
from fanfold.executors.work.standard import flush
from fanfold.tasks import Call, Style
from fanfold.transport.channel import Channel, ChannelClosed
from fanfold.transport.pickling import THRESHOLD, Packed, unpack
from fanfold.transport.segments import Segment, SegmentFolder, adopt, attach
from fanfold.transport.surroundings import Surroundings

if TYPE_CHECKING:
    from fanfold.executors.work.capture import Witness, Witnesses
    from fanfold.executors.work.limits import ThreadLimit

__all__ = ["Setup", "main"]

_TICK = 0.01  # seconds between looks of the watching thread; how long a task may hold up others
_LONG_TICK = 0.1
_FLUSH = 0.001  # seconds that results of short tasks may gather before they are sent
_REST = 20  # idle ticks before the watching thread sleeps


class Setup(NamedTuple):
    """What a worker is told first."""

    name: str
    segment_roots: list[str]
    segment_label: str
    memory: int | None
    initializer: Packed | None
    surroundings: Surroundings


class _PackedCall(NamedTuple):
    style: Style
    entropy: int | None
    timeout: float | None
    evidence: str | None
    functions: Packed


class _Worker:
    def __init__(self, channel: Channel, mark: Mark, limit: ThreadLimit | None = None) -> None:
        self._channel = channel
        self._mark = mark
        self._limit = limit
        self._name = ""
        self._calls: dict[int, Call | _PackedCall] = {}
        self._forgotten: list[int] = []
        self._inherited = sys.stdout, sys.stderr
        self._witnesses: Witnesses | None = None  # until a call asks for evidence
        self._growth: Growth | None = None  # where the memory of a worker has a limit
        self._full = False  # it has grown beyond that
        self._maps: dict[str, memoryview] = {}  # of the shipment that runs now
        self._backlog: deque[tuple[Any, ...]] = deque()
        self._out: list[tuple[Any, ...]] = []
        self._flushed = 0.0
        self._runner: tuple[int, Runner] | None = None
        self._single: tuple[int, float] | None = None
        self._ones: list[tuple[int, Any, float]] = []  # results of single calls, all plain
        # Inputs live until their results are sent: one that crashes when it is freed costs nothing.
        self._held: list[Any] = []
        self._busy = False
        self._resting = False
        self._lock = threading.Lock()  # for what both threads change: _out, _ones, _backlog
        self._reading = threading.Lock()
        self._sending = threading.Lock()
        self._alarm = threading.Lock()
        self._leaving = False
        self._pid = os.getpid()

    # The main thread

    def serve(self) -> int:
        signal.signal(signal.SIGINT, self._interrupt)
        if not self._set_up(pickle.loads(self._channel.receive())[0][1]):
            return 1
        threading.Thread(target=self._watch, name="fanfold-watch", daemon=True).start()
        while True:
            self._busy = False
            self._end_copy()
            with self._reading:
                if self._leaving:  # the watching thread may have read it while this one waited
                    break
                message = self._channel.receive()
            self._busy = True
            self._obey(pickle.loads(message))
            if self._resting:
                self._resting = False
                self._alarm.release()
            self._work()
        self._work()  # what the watching thread has read before it, or has not sent yet
        return 0

    def _set_up(self, setup: Setup) -> bool:
        _enter(setup.surroundings)
        self._name = setup.name
        self._folder = SegmentFolder(setup.segment_roots, setup.segment_label)
        adopt(self._folder)
        if setup.memory is not None:
            self._growth = Growth(setup.memory, self._mark)
        if setup.initializer is not None:
            try:
                initializer, arguments = unpack(setup.initializer, attach)
                initializer(*arguments)
            except BaseException as error:  # noqa: BLE001 - whatever it was, the driver decides
                self._send([("broken", pack_error(error, self._folder.put))])
                return False
        if self._growth is not None and (memory := self._growth.ready()) is not None:
            self._send([("full", memory)])
            return False
        self._send([("ready", os.getpid())])
        return True

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        """SIGINT is for the running task; between tasks there is nothing to interrupt."""
        if self._single or (self._runner is not None and self._runner[1].began):
            raise KeyboardInterrupt

    def _obey(self, operations: list[tuple[Any, ...]]) -> None:
        for operation in operations:
            match operation:
                case ("one", *_) | ("run", *_):
                    self._backlog.append(operation)
                case ("call", identity, surroundings, *rest):
                    _enter(surroundings)  # they may have changed since this worker was started
                    self._calls[identity] = _PackedCall(*rest)
                case ("forget", identity):
                    self._calls.pop(identity, None)
                    self._forgotten.append(identity)
                case ("exit",):
                    self._leaving = True

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._full:
                    self._give_back()
                if not self._backlog:
                    break
                shipment = self._backlog.popleft()
            if shipment[0] == "one":
                self._run_one(*shipment[1:])
            else:
                self._run(*shipment[1:])
            if self._growth is not None and (memory := self._growth.look()) is not None:
                self._make_way(memory)
            if self._limit is not None:
                self._limit.look()
            if perf_counter() - self._flushed > _FLUSH:
                self._flush(marked=True)
                self._mark.phase(IDLE)
                self._held.clear()
        self._flush(marked=True)
        self._mark.phase(IDLE)
        self._held.clear()
        while self._forgotten:
            identity = self._forgotten.pop()
            if self._witnesses is not None:
                self._witnesses.forget(identity)

    def _run(
        self,
        identity: int,
        call_id: int,
        first: int,
        attempt: int,
        start: int,
        stop: int,
        packed: bytes | Packed,
    ) -> None:
        mark = self._mark
        mark.phase(LOAD, identity)
        witness = self._witness(call_id)
        loaded = self._load(identity, call_id, packed)
        if loaded is None:
            return
        call, items = loaded
        self._held.append(items)
        runner = Runner(
            call,
            first,
            items,
            attempt=attempt,
            start=start,
            stop=stop,
            worker=self._name,
            mark=mark.running if self._growth is None else self._begin_measured,
            tracker=None if witness is None else witness.tracker(first + start),
        )
        self._runner = (identity, runner)
        runner.run()
        mark.phase(SEND, identity)
        with self._lock:
            self._runner = None
            self._collect(identity, runner)

    def _begin_measured(self, offset: int, count: int, began: float) -> None:
        """Look what the tasks before it have left; what was loaded for the first is its own."""
        assert self._growth is not None and self._runner is not None  # noqa: PT018, S101
        identity, runner = self._runner
        if offset > runner.start and self._growth.look() is not None:
            with self._lock:
                self._cut(identity, runner)
        self._mark.running(offset, count, began)

    def _cut(self, identity: int, runner: Runner) -> None:
        """Let others do what a runner has not begun. Under the lock."""
        stop, end = runner.stop, runner.cut()
        if end < stop:
            self._out.append(("back", identity, end))

    def _make_way(self, memory: int) -> None:
        """A worker that has grown too large begins nothing more, and asks to leave."""
        self._full = True
        with self._lock:
            self._out.append(("full", memory))

    def _witness(self, call_id: int) -> Witness | None:
        """Who takes the evidence of a call; None where it asks for none."""
        call = self._calls.get(call_id)
        prefix = None if call is None else call.evidence
        if self._witnesses is None:
            if prefix is None:
                return None
            from fanfold.executors.work.capture import Witnesses

            self._witnesses = Witnesses(self._name, self._mark, self._inherited)
        return self._witnesses.attend(call_id, prefix)

    def _run_one(self, identity: int, call_id: int, packed: bytes | Packed) -> None:
        """As `_run` of one task without a place in a map, with less ado."""
        mark = self._mark
        mark.phase(LOAD, identity)
        if self._witnesses is not None:
            self._witness(call_id)
        loaded = self._load(identity, call_id, packed)
        if loaded is None:
            return
        call, items = loaded
        self._held.append(items)
        args, kwargs = items[0]
        began = perf_counter()
        self._single = (identity, began)
        mark.running(0, 1, began)
        failed: tuple[int, ...] = ()
        try:
            value = call.func(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - SystemExit too is only this task's end
            failed = (0,)
            note = f"fanfold: {call.describe(0, items[0])}, {self._name}"
            value = noted(error, note)
        self._single = None
        mark.phase(SEND, identity)
        seconds = perf_counter() - began
        with self._lock:
            if failed or not all_plain([value]):
                self._out.append(("done", identity, 0, 0, [value], failed, seconds, ()))
            else:
                self._ones.append((identity, value, seconds))

    def _load(
        self, identity: int, call_id: int, packed: bytes | Packed
    ) -> tuple[Call, list[Any]] | None:
        """The call and the items; None, with the failure reported, where they cannot be loaded."""
        whole = True
        try:
            call = self._calls[call_id]
            if isinstance(call, _PackedCall):
                function, fold = unpack(call.functions, attach)
                call = Call(
                    function,
                    call.style,
                    call.entropy,
                    call.timeout,
                    fold,
                    evidence=call.evidence,
                )
                self._calls[call_id] = call
            whole = False
            before, self._maps = self._maps, {}
            items = unpack(packed, lambda segment: self._attach(segment, before))
        except BaseException as error:  # noqa: BLE001 - a user's __setstate__ may do anything
            failure = LoadFailed(
                f"{'the function' if whole else 'an argument'} could not be loaded in the worker: "
                f"{type(error).__name__}: {error}"
            )
            failure.__cause__ = error
            with self._lock:
                self._out.append(
                    ("unloadable", identity, whole, pack_error(failure, self._folder.put))
                )
            return None
        return call, items

    def _attach(self, segment: Segment, before: dict[str, memoryview]) -> memoryview:
        """Map a segment, or keep the mapping when the shipment before had it too."""
        path = segment.path
        view = self._maps.get(path) or before.get(path) or attach(segment)
        self._maps[path] = view
        return view

    def _collect(self, identity: int, runner: Runner) -> None:
        results = runner.take()
        if results is not None:
            values, folded = fold_results(runner.call, runner.first, results)
            self._out.append(("done", identity, folded, *results._replace(values=values)))

    def _flush(self, *, marked: bool = False) -> None:
        """Send the results so far; ``marked`` says so in the mark, for the case of a death."""
        with self._sending:  # from taking to sending: results must leave in order
            self._flush_in_order(marked=marked)

    def _flush_in_order(self, *, marked: bool) -> None:
        with self._lock:
            out, self._out = self._out, []
            ones, self._ones = self._ones, []
        self._flushed = perf_counter()
        if ones:
            out.append(("ones", *zip(*ones, strict=True)))
        elif not out:
            return
        flush(sys.stdout)
        peak = peak_memory()
        entries = []
        for entry in out:
            shipment = entry[1] if entry[0] == "done" else 0
            if marked:
                self._mark.phase(SEND, shipment)
            else:
                self._mark.packing(shipment)
            entries.append(pack_answer(entry, peak, self._folder.put))
        self._mark.packing(0)
        if marked and len(out) > 1:
            self._mark.phase(SEND)
        self._send(entries)

    def _send(self, entries: list[tuple[Any, ...]]) -> None:
        self._end_copy()
        message = pickle.dumps(entries, 5)
        if len(message) >= THRESHOLD:
            segment = self._folder.put(memoryview(message))
            message = pickle.dumps([("large", segment)], 5)
        try:
            self._channel.send(message)
        except OSError:
            _end_group()

    def _end_copy(self) -> None:
        """A task forked and returned in both processes: only the worker goes on."""
        if os.getpid() != self._pid:
            os._exit(0)

    # The watching thread

    def _watch(self) -> None:
        self._alarm.acquire()
        hangup = select.poll()
        hangup.register(self._channel.fileno(), 0)  # errors and hang-ups are always told
        idle, before, tick = 0, None, _TICK
        while True:
            if self._alarm.acquire(timeout=tick):
                idle = 0
            if hangup.poll(0):
                _end_group()
            tick = _TICK
            runner = self._runner
            now = self._single or (runner and (runner[0], runner[1].began))
            if self._busy:
                idle = 0
                if now == before:
                    self._relieve()
                    tick = _LONG_TICK  # there is little left to do for this task
                elif perf_counter() - self._flushed > _TICK:
                    self._flush()
            else:
                idle += 1
            before = now
            if idle > _REST:
                self._rest()
                idle = 0

    def _rest(self) -> None:
        """Sleep until the main thread has work."""
        self._resting = True
        if not self._busy:
            self._alarm.acquire()
        self._resting = False

    def _relieve(self) -> None:
        """A task runs long: send on what is done, give back what has not begun."""
        with self._lock:
            if self._runner is not None:
                identity, runner = self._runner
                self._collect(identity, runner)
                self._cut(identity, runner)
        if self._reading.acquire(blocking=False):
            try:
                for message in self._channel.receive_available():
                    self._obey(pickle.loads(message))
            except ChannelClosed:
                _end_group()
            finally:
                self._reading.release()
        with self._lock:
            self._give_back()
        self._flush()

    def _give_back(self) -> None:
        """Let others do what has not begun. Under the lock."""
        while self._backlog:
            shipment = self._backlog.pop()
            start = 0 if shipment[0] == "one" else shipment[5]
            self._out.append(("back", shipment[1], start))


def _enter(surroundings: Surroundings) -> None:
    sys.path[:] = surroundings.path
    if surroundings.authkey is not None:
        import multiprocessing

        multiprocessing.current_process().authkey = surroundings.authkey


def _end_group() -> None:
    """The driver is gone: end this process and everything that its tasks started."""
    os.killpg(0, signal.SIGKILL)


def main(channel: int, mark: int, neighbours: int = 0) -> int:
    """A worker process, on inherited descriptors; returns its exit code.

    ``neighbours`` workers share the cores, where it was forked with libraries that keep threads.
    """
    faulthandler.enable(file=2)
    page = Mark(mark)
    os.close(mark)
    limit = None
    if neighbours:
        from fanfold.executors.work.limits import ThreadLimit  # late: only here it is needed

        limit = ThreadLimit(neighbours)
        limit.look()
    worker = _Worker(Channel(socket.socket(fileno=channel)), page, limit)
    gc.freeze()
    try:
        return worker.serve()
    except ChannelClosed:
        return 0
    finally:
        flush(sys.stdout)
        flush(sys.stderr)
