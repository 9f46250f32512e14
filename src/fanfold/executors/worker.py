"""A worker process: receives shipments of tasks on its channel, runs them, streams results back.

Messages are pickled lists of tuples. From the driver:

    ("setup", Setup)                                         once, first
    ("call", call id, surroundings, style, entropy, timeout, packed (function, fold))
    ("forget", call id)
    ("run", shipment id, call id, first, attempt, start, stop, packed items)
    ("one", shipment id, call id, packed items)              a single call, of `submit`
    ("exit",)

and back:

    ("ready", process id) | ("broken", packed error)
    ("done", shipment id, folded, offset, values, failed, seconds, peak memory)
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
import resource
import select
import signal
import socket
import sys
import threading
from collections import deque
from time import perf_counter
from types import FrameType
from typing import Any, NamedTuple

from fanfold.errors import LoadFailed, RemoteError
from fanfold.executors.mark import IDLE, LOAD, SEND, Mark
from fanfold.executors.runner import Runner, fold_results, noted
from fanfold.tasks import Call, Style
from fanfold.transport.channel import Channel, ChannelClosed
from fanfold.transport.pickling import THRESHOLD, Packed, pack, unpack
from fanfold.transport.segments import Segment, SegmentFolder, attach
from fanfold.transport.surroundings import Surroundings

__all__ = ["Setup", "main"]

_TICK = 0.01  # seconds between looks of the watching thread; how long a task may hold up others
_LONG_TICK = 0.1
_FLUSH = 0.001  # seconds that results of short tasks may gather before they are sent
_REST = 20  # idle ticks before the watching thread sleeps

_PLAIN = {int, float, bool, complex, type(None)}
_TEXT = {str, bytes}
_PLAIN_OR_TEXT = _PLAIN | _TEXT

_READ_ONLY = (
    "fanfold: large arrays are shared by all workers and cannot be changed in place: "
    "change a copy, made with array.copy()"
)


class Setup(NamedTuple):
    """What a worker is told first."""

    name: str
    segment_roots: list[str]
    segment_label: str
    initializer: Packed | None
    surroundings: Surroundings


class _PackedCall(NamedTuple):
    style: Style
    entropy: int | None
    timeout: float | None
    functions: Packed


class _Worker:
    def __init__(self, channel: Channel, mark: Mark) -> None:
        self._channel = channel
        self._mark = mark
        self._name = ""
        self._calls: dict[int, Call | _PackedCall] = {}
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
        while not self._leaving:
            self._busy = False
            self._end_copy()
            with self._reading:
                message = self._channel.receive()
            self._busy = True
            self._obey(pickle.loads(message))
            if self._resting:
                self._resting = False
                self._alarm.release()
            self._work()
        return 0

    def _set_up(self, setup: Setup) -> bool:
        _enter(setup.surroundings)
        self._name = setup.name
        self._folder = SegmentFolder(setup.segment_roots, setup.segment_label)
        if setup.initializer is not None:
            try:
                initializer, arguments = unpack(setup.initializer, attach)
                initializer(*arguments)
            except BaseException as error:  # noqa: BLE001 - whatever it was, the driver decides
                self._send([("broken", self._pack_error(error))])
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
                case ("exit",):
                    self._leaving = True

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._backlog:
                    break
                shipment = self._backlog.popleft()
            if shipment[0] == "one":
                self._run_one(*shipment[1:])
            else:
                self._run(*shipment[1:])
            if perf_counter() - self._flushed > _FLUSH:
                self._flush(marked=True)
                self._mark.phase(IDLE)
                self._held.clear()
        self._flush(marked=True)
        self._mark.phase(IDLE)
        self._held.clear()

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
            mark=mark.running,
        )
        self._runner = (identity, runner)
        runner.run()
        mark.phase(SEND, identity)
        with self._lock:
            self._runner = None
            self._collect(identity, runner)

    def _run_one(self, identity: int, call_id: int, packed: bytes | Packed) -> None:
        """As `_run` of one task without a place in a map, with less ado."""
        mark = self._mark
        mark.phase(LOAD, identity)
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
            if failed or not _all_plain([value]):
                self._out.append(("done", identity, 0, 0, [value], failed, seconds))
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
                call = Call(function, call.style, call.entropy, call.timeout, fold)
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
                self._out.append(("unloadable", identity, whole, self._pack_error(failure)))
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
        if sys.stdout is not None:
            sys.stdout.flush()
        peak = peak_memory()
        entries = []
        for entry in out:
            shipment = entry[1] if entry[0] == "done" else 0
            if marked:
                self._mark.phase(SEND, shipment)
            else:
                self._mark.packing(shipment)
            entries.append(self._packed(entry, peak))
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

    def _packed(self, entry: tuple[Any, ...], peak: int) -> tuple[Any, ...]:
        if entry[0] != "done":
            return entry
        kind, identity, folded, offset, values, failed, seconds = entry
        if failed or not _all_plain(values):
            values = [
                (1, *self._pack_error(value)) if offset + i in failed else self._pack_value(value)
                for i, value in enumerate(values)
            ]
        else:
            values = (values,)
        return (kind, identity, folded, offset, values, failed, seconds, peak)

    def _pack_value(self, value: Any) -> tuple[Any, ...]:
        try:
            return (0, *pack(value, self._folder.put))
        except BaseException as error:  # noqa: BLE001 - it belongs to this task alone
            return (1, *self._pack_error(error))

    def _pack_error(self, error: BaseException) -> Packed:
        """The exception and its traceback as text; a `RemoteError` where it cannot be rebuilt."""
        if isinstance(error, ValueError) and "read-only" in _text_of(error):
            error.add_note(_READ_ONLY)
        import traceback

        text = "".join(traceback.format_exception(error))
        try:
            packed = pack((error, text), self._folder.put)
            if type(unpack(packed, attach)[0]) is type(error):
                return packed
        except BaseException:  # noqa: BLE001, S110 - anything wrong with it leads to the same
            pass
        kind = type(error)
        name = f"{kind.__module__}.{kind.__qualname__}"
        remote = RemoteError(f"{name}: {_text_of(error)}", original_type=name)
        notes = getattr(error, "__notes__", None)
        for note in notes if isinstance(notes, list) else ():
            remote.add_note(_text_of(note))
        return pack((remote, text), self._folder.put)

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
                stop, end = runner.stop, runner.cut()
                self._collect(identity, runner)
                if end < stop:
                    self._out.append(("back", identity, end))
        if self._reading.acquire(blocking=False):
            try:
                for message in self._channel.receive_available():
                    self._obey(pickle.loads(message))
            except ChannelClosed:
                _end_group()
            finally:
                self._reading.release()
        with self._lock:
            while self._backlog:
                shipment = self._backlog.pop()
                start = 0 if shipment[0] == "one" else shipment[5]
                self._out.append(("back", shipment[1], start))
        self._flush()


def _enter(surroundings: Surroundings) -> None:
    sys.path[:] = surroundings.path
    if surroundings.authkey is not None:
        import multiprocessing

        multiprocessing.current_process().authkey = surroundings.authkey


def _all_plain(values: list[Any]) -> bool:
    """May they travel in the message as they are? Nothing can go wrong with them."""
    kinds = set(map(type, values))
    return kinds <= _PLAIN or (
        kinds <= _PLAIN_OR_TEXT
        and all(len(value) < THRESHOLD for value in values if type(value) in _TEXT)
    )


def _text_of(value: object) -> str:
    try:
        return str(value)
    except Exception as failure:  # noqa: BLE001 - a broken __str__ must not hide the failure
        return f"<its text raises {type(failure).__name__}>"


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _end_group() -> None:
    """The driver is gone: end this process and everything that its tasks started."""
    os.killpg(0, signal.SIGKILL)


def main(channel: int, mark: int) -> int:
    """A worker process, on inherited descriptors; returns its exit code."""
    faulthandler.enable(file=2)
    page = Mark(mark)
    os.close(mark)
    worker = _Worker(Channel(socket.socket(fileno=channel)), page)
    gc.freeze()
    try:
        return worker.serve()
    except ChannelClosed:
        return 0
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
