"""The loop of a pool: waits for its channels, in a thread of its own or in the one that waits.

A result that travels from the channel through the loop's thread to the thread that waits for it
costs two switches between threads, several times the work itself. So whoever waits lends a hand:
`Loop.help` runs the loop in the waiting thread until what it waits for is there. Meanwhile the
loop's own thread rests, and takes over a few milliseconds after the last helper has gone.
"""

from __future__ import annotations

# What `signal` wraps: its enums would be a tenth of a round trip.
import _signal  # type: ignore[import-not-found]
import contextlib
import selectors
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

from fanfold.transport.spinning import SpinWait

__all__ = ["Loop", "uninterrupted"]

_MAIN_THREAD = threading.main_thread().ident
_SHORTEST = 5e-4  # seconds: selectors wait for whole milliseconds, and such a wait for two
_HANDOVER = 5e-3  # seconds without a helper until the loop's own thread goes on

Events = list[tuple[selectors.SelectorKey, int]]


class Loop:
    """Calls ``turn(events)`` whenever something has happened, at least every ``pause()`` seconds.

    ``turn`` says whether to go on. ``failed`` gets an exception that it raised, which ends the
    loop; ``ended`` is called once, at the end.
    """

    def __init__(
        self,
        turn: Callable[[Events], bool],
        pause: Callable[[], float],
        failed: Callable[[BaseException], None],
        ended: Callable[[], None],
    ) -> None:
        self._turn = turn
        self._pause = pause
        self._failed = failed
        self._ended = ended
        self._selector = selectors.DefaultSelector()
        self._thread: threading.Thread | None = None
        self._running = threading.Lock()  # held by the thread that runs the loop
        self._choosing = threading.Lock()
        self._runner: int | None = None  # that thread, during a turn
        self._over = False
        self._helping = False  # somebody runs the loop, or is about to
        self._helped = 0.0  # when the last helper left
        self._followed = False
        self._rest = threading.Semaphore(0)
        self._interrupts = _Interrupts()
        self._spin = SpinWait()  # of the helpers: the loop's own thread is in no hurry
        self._wake_end, self._woken_end = socket.socketpair()
        for end in (self._wake_end, self._woken_end):
            end.setblocking(False)
        self._selector.register(self._woken_end, selectors.EVENT_READ)

    @property
    def started(self) -> bool:
        return self._thread is not None

    def start(self) -> None:
        thread = threading.Thread(target=self._main, name="fanfold-pool", daemon=True)
        thread.start()
        self._thread = thread

    def watch(self, channel: Any, data: object, *, writable: bool = False) -> None:
        """Have ``turn`` told when a channel can be read (and, if asked, written)."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writable else 0)
        try:
            self._selector.register(channel, events, data)
        except KeyError:
            self._selector.modify(channel, events, data)

    def forget(self, channel: Any) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(channel)

    def wake(self) -> None:
        """Have a turn soon."""
        with contextlib.suppress(OSError):
            self._wake_end.send(b"w")

    def join(self) -> None:
        """Wait for the end, and help meanwhile: the loop's own thread would come to it later."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        if thread.is_alive():  # it is not in a forked child, whose pool this is not
            self.help(lambda: False, None)
            self._rest.release()
        thread.join()

    def close(self) -> None:
        self._selector.close()
        self._wake_end.close()
        self._woken_end.close()

    def help(self, ready: Callable[[], bool], timeout: float | None) -> None:
        """Run the loop in this thread until ``ready()``, or for ``timeout`` seconds.

        Returns early when another helper is at it: wait as usual then.
        """
        if self._runner == threading.get_ident():  # a callback waits: go round inside the round
            self._go_round_until(ready, timeout)
            return
        deferred = self._interrupts.defer()
        try:
            if self._enter():
                try:
                    self._go_round_until(ready, timeout)
                finally:
                    self._leave()
        finally:
            if deferred:
                self._interrupts.allow()

    def _enter(self) -> bool:
        """Become the one that runs the loop; False when another helper is."""
        with self._choosing:
            if self._helping:
                self._followed = True
                return False
            self._helping = True
        if not self._running.acquire(blocking=False):
            self.wake()  # the loop's own thread, which waits for events
            self._running.acquire()
        return True

    def _leave(self) -> None:
        self._running.release()
        with self._choosing:
            self._helping = False
            followed, self._followed = self._followed, False
        self._helped = 0.0 if followed else monotonic()
        if followed:  # somebody else waits for this loop, and does not run it
            self._rest.release()

    def _go_round_until(self, ready: Callable[[], bool], timeout: float | None) -> None:
        deadline = None if timeout is None else monotonic() + timeout
        while not (self._over or ready()):
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                break
            self._go_round(left, self._spin)

    def _main(self) -> None:
        while not self._over:
            if self._helping or monotonic() - self._helped < _HANDOVER:
                self._rest.acquire(timeout=_HANDOVER)
                continue
            with self._running:
                if not (self._over or self._helping):
                    self._go_round(None)
        self._ended()

    def _go_round(self, limit: float | None, spin: SpinWait | None = None) -> None:
        pause = self._pause()
        wait = pause if limit is None else min(limit, pause)
        if wait < _SHORTEST:
            wait, spin = 0.0, None
        events = self._interrupts.select(self._selector, wait, spin)
        outer, self._runner = self._runner, threading.get_ident()
        try:
            if not self._turn([event for event in events if not self._was_wake(event[0])]):
                self._over = True
        except BaseException as error:  # noqa: BLE001 - nobody may wait for a loop that ended
            self._over = True
            self._failed(error)
        finally:
            self._runner = outer

    def _was_wake(self, key: selectors.SelectorKey) -> bool:
        if key.data is not None:
            return False
        with contextlib.suppress(BlockingIOError):
            self._woken_end.recv(4096)
        return True


class _Interrupts:
    """Lets Ctrl-C strike a helper only while it waits, not in the middle of a turn.

    The main thread gets KeyboardInterrupt between any two steps, and what a turn had just read
    would be lost. While it helps, an interrupt that comes at another time is noted, and raised
    before the next wait.
    """

    def __init__(self) -> None:
        self._waiting: int | None = None  # the thread that waits for events
        self._noted = False

    def defer(self) -> bool:
        """Begin to note interrupts; False where there are none to expect."""
        if threading.get_ident() != _MAIN_THREAD:
            return False
        if _signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return False
        _signal.signal(signal.SIGINT, self._interrupt)
        return True

    def allow(self) -> None:
        """Let interrupts strike at once again."""
        _signal.signal(signal.SIGINT, signal.default_int_handler)
        self._raise_noted()

    def select(
        self, selector: selectors.BaseSelector, timeout: float, spin: SpinWait | None
    ) -> Events:
        try:
            self._waiting = threading.get_ident()
            if self._waiting == _MAIN_THREAD:
                self._raise_noted()
            if spin is None:
                return selector.select(timeout)
            return spin.wait(lambda: selector.select(0), lambda: selector.select(timeout))
        finally:
            self._waiting = None

    def _raise_noted(self) -> None:
        if self._noted:
            self._noted = False
            raise KeyboardInterrupt

    def _interrupt(self, signum: int, frame: Any) -> None:
        if self._waiting == threading.get_ident():
            raise KeyboardInterrupt
        self._noted = True


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """A Ctrl-C that comes meanwhile is raised at the end: in what Python does after a fork it would
    be suppressed."""
    interrupts = _Interrupts()
    deferred = interrupts.defer()
    try:
        yield
    finally:
        if deferred:
            interrupts.allow()
