"""The loop of a pool: waits for its channels, in a thread of its own or in the one that waits.

A result that travels from the channel through the loop's thread to the thread that waits for it
costs two switches between threads, several times the work itself. So whoever waits lends a hand:
`Loop.help` runs the loop in the waiting thread until what it waits for is there. Meanwhile the
loop's own thread rests, and takes over a few milliseconds after the last helper has gone.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

__all__ = ["Loop"]

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
        self._running = threading.RLock()  # held by the thread that runs the loop
        self._over = False
        self._helpers = 0
        self._helped = 0.0  # when the last helper was seen
        self._rest = threading.Semaphore(0)
        self._deferral = _Deferral()
        self._wake_end, self._woken_end = socket.socketpair()
        for end in (self._wake_end, self._woken_end):
            end.setblocking(False)
        self._selector.register(self._woken_end, selectors.EVENT_READ)

    @property
    def started(self) -> bool:
        return self._thread is not None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._main, name="fanfold-pool", daemon=True)
        self._thread.start()

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
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def close(self) -> None:
        self._selector.close()
        self._wake_end.close()
        self._woken_end.close()

    def help(self, ready: Callable[[], bool], timeout: float | None) -> None:
        """Run the loop in this thread until ``ready()``, or for ``timeout`` seconds.

        Returns early when another helper is at it: wait as usual then.
        """
        deadline = None if timeout is None else monotonic() + timeout
        self._helpers += 1
        try:
            if not self._running.acquire(blocking=False):
                if self._helpers > 1:
                    return
                self.wake()
                self._running.acquire()
            try:
                with self._deferral.installed():
                    while not (self._over or ready()):
                        left = None if deadline is None else deadline - monotonic()
                        if left is not None and left <= 0:
                            break
                        self._go_round(left)
            finally:
                self._running.release()
        finally:
            self._helpers -= 1
            self._helped = monotonic()
            if self._helpers:
                self._rest.release()

    def _main(self) -> None:
        while not self._over:
            if self._helpers or monotonic() - self._helped < _HANDOVER:
                self._rest.acquire(timeout=_HANDOVER)
                if self._helpers <= 1 and monotonic() - self._helped < _HANDOVER:
                    continue
            with self._running:
                if not self._over:
                    self._go_round(None)
        self._ended()

    def _go_round(self, limit: float | None) -> None:
        pause = self._pause()
        events = self._selector.select(pause if limit is None else min(limit, pause))
        with self._deferral.critical():
            try:
                self._drain_wakes()
                if not self._turn([event for event in events if event[0].data is not None]):
                    self._over = True
            except BaseException as error:  # noqa: BLE001 - nobody may wait for a loop that ended
                self._over = True
                self._failed(error)

    def _drain_wakes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken_end.recv(4096)


class _Deferral:
    """Keeps Ctrl-C from striking in the middle of a turn, which would lose what it had read.

    The main thread gets KeyboardInterrupt between any two steps. While it helps, the interrupt is
    noted instead if it comes during a turn, and raised after it.
    """

    def __init__(self) -> None:
        self._critical = False
        self._pending = False

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        main = threading.current_thread() is threading.main_thread()
        if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    @contextlib.contextmanager
    def critical(self) -> Iterator[None]:
        self._critical = True
        try:
            yield
        finally:
            self._critical = False
            if self._pending:
                self._pending = False
                raise KeyboardInterrupt

    def _interrupt(self, signum: int, frame: Any) -> None:
        if not self._critical:
            raise KeyboardInterrupt
        self._pending = True
