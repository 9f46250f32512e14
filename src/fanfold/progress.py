"""Listens to the events of a map and tells how far it is: a bar in a terminal or a notebook, lines
in a log.

Dispatch calls the listener with every event, and with an empty `Report` when nothing has ended
for a while: time is told even when tasks take minutes. So no thread is needed here, and a report
costs two additions and a look at the clock.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from fanfold.seeds import in_task
from fanfold.tasks import MapFinished, MapStarted, Report
from fanfold.units import format_duration

if TYPE_CHECKING:
    from rich.progress import Progress

    from fanfold.dispatch import Event

__all__ = ["listener"]

Clock = Callable[[], float]

BAR_AFTER, BAR_EVERY = 0.7, 0.1  # seconds
LINES_AFTER, LINES_EVERY = 10.0, 10.0


def listener(
    progress: bool | None, *, file: TextIO | None = None, clock: Clock = time.perf_counter
) -> Callable[[Event], None]:
    """What dispatch calls with the events of one map.

    ``progress`` None draws a bar when ``file`` is a terminal, or in a notebook, when the map has
    lasted 0.7 seconds; elsewhere it writes a plain line every 10 seconds. True begins at once,
    False tells nothing. A map inside a task of another map tells nothing unless ``progress`` is
    True: the outer one has the screen. ``file`` is standard error unless given; ``clock`` gives
    seconds.

    The time left assumes that the rest goes at the pace so far.

    >>> tell = listener(True, file=sys.stdout)
    >>> tell(MapStarted(total=4, workers=2, place="threads"))
    fanfold: 0/4 done in 0s
    >>> tell(Report(0, [1, 2, 3, 4]))
    >>> tell(MapFinished())
    fanfold: 4/4 done in 0s...
    """
    file = sys.stderr if file is None else file
    silent = progress is False or (progress is None and in_task())
    if silent or file is None:  # a program without a console has no standard error
        return _tell_nothing
    if file is sys.stderr and _in_notebook():
        return _Listener(_Cell(), 0.0 if progress else BAR_AFTER, BAR_EVERY, clock)
    if _can_draw_on(file):
        return _Listener(_Bar(file, clock), 0.0 if progress else BAR_AFTER, BAR_EVERY, clock)
    return _Listener(_Lines(file), 0.0 if progress else LINES_AFTER, LINES_EVERY, clock)


def _tell_nothing(event: Event) -> None:
    pass


def _can_draw_on(file: TextIO) -> bool:
    try:
        terminal = file.isatty()
    except ValueError:  # it is closed
        return False
    return terminal and os.environ.get("TERM") != "dumb"


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


class _State:
    """How far a map is. No dataclass: every map would pay for importing that."""

    __slots__ = ("done", "failed", "finished", "interrupted", "seconds", "total")

    def __init__(self) -> None:
        self.total: int | None = None
        self.done = 0
        self.failed = 0
        self.seconds = 0.0
        self.finished = False
        self.interrupted = False

    def __str__(self) -> str:
        text = f"{self.done:,} done" if self.total is None else f"{self.done:,}/{self.total:,} done"
        if self.failed:
            text += f", {self.failed:,} failed"
        text += f" in {_duration(self.seconds)}"
        if self.done and self.seconds > 0:
            text += f" ({_rate(self.done / self.seconds)})"
        if self.interrupted:
            return text + ", stopped"
        if self.done and self.total is not None and not self.finished:
            left = self.seconds / self.done * (self.total - self.done)
            text += f", about {_duration(left)} left"
        return text


def _duration(seconds: float) -> str:
    return f"{seconds:.0f}s" if seconds < 60 else format_duration(seconds)


def _rate(per_second: float) -> str:
    """In the unit of time that gives at least one.

    >>> _rate(1234.5), _rate(2.5), _rate(0.05), _rate(0.0001)
    ('1,234/s', '2.5/s', '3.0/min', '0.4/h')
    """
    number, unit = per_second, "s"
    if number < 1:
        number, unit = per_second * 60, "min"
    if number < 1:
        number, unit = per_second * 3600, "h"
    return f"{number:,.0f}/{unit}" if number >= 10 else f"{number:.1f}/{unit}"


class _View(Protocol):
    """Where a state is shown."""

    def show(self, state: _State) -> None: ...
    def close(self) -> None: ...


class _Listener:
    """Counts, and shows the state when the time has come."""

    def __init__(self, view: _View, after: float, every: float, clock: Clock) -> None:
        self._view = view
        self._after = after
        self._every = every
        self._clock = clock
        self._state = _State()
        self._began = self._due = math.inf
        self._showing = False

    def __call__(self, event: Event) -> None:
        now = self._clock()
        if isinstance(event, Report):
            self._state.done += len(event)
            self._state.failed += len(event.failed)
        elif isinstance(event, MapStarted):
            self._state.total = event.total
            self._began, self._due = now, now + self._after
        elif isinstance(event, MapFinished):
            self._finish(event, now)
        if now >= self._due:
            self._due = now + self._every
            self._show(now)

    def _show(self, now: float) -> None:
        self._showing = True
        self._state.seconds = now - self._began
        try:
            self._view.show(self._state)
        except (OSError, ValueError):  # the terminal is gone: no reason to lose the work
            self._due = math.inf

    def _finish(self, event: MapFinished, now: float) -> None:
        self._due = math.inf
        if self._showing:
            self._state.finished, self._state.interrupted = True, event.interrupted
            self._show(now)
            self._view.close()


class _Lines:
    """Plain lines, for a log."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def show(self, state: _State) -> None:
        print(f"fanfold: {state}", file=self._file, flush=True)

    def close(self) -> None:
        """Every line is already written."""


class _Cell:
    """A bar in a notebook, shown again in its place."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, state: _State) -> None:
        from IPython import display

        total = state.done if state.finished and state.total is None else state.total
        value = "" if total is None else f' max="{max(1, total)}" value="{state.done}"'
        shown = {
            "text/plain": f"fanfold: {state}",
            "text/html": f"<progress{value}></progress> {state}",
        }
        if self._handle is None:
            draw: Any = display.display
            self._handle = draw(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)

    def close(self) -> None:
        """What was shown last stays."""


class _Bar:
    """A bar that moves in a terminal. rich takes 60 ms to import: not before it is needed."""

    def __init__(self, file: TextIO, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._bar: Progress | None = None

    def show(self, state: _State) -> None:
        total = state.done if state.finished and state.total is None else state.total
        if self._bar is None:
            self._bar = _rich_bar(self._file, self._clock)
            self._bar.add_task("", total=total, state="")
            self._bar.start()
        self._bar.update(
            self._bar.task_ids[0],
            total=total,
            completed=state.done,
            state=str(state),
            refresh=True,
        )

    def close(self) -> None:
        if self._bar is not None:
            with suppress(OSError, ValueError):
                self._bar.stop()


def _rich_bar(file: TextIO, clock: Clock) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        BarColumn(bar_width=20),
        TextColumn("{task.fields[state]}", style="none", markup=False),
        console=Console(file=file),
        auto_refresh=False,
        get_time=clock,
        # What is printed goes above the bar, unless standard output goes into a file or a pipe.
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
    )
