"""Progress: what a map tells while it runs. Time is moved by hand."""

import codecs
import contextlib
import functools
import io
import os
import pty
import signal
import subprocess
import sys

import pytest

from fanfold.progress import listener
from fanfold.seeds import task_stream
from fanfold.tasks import MapFinished, MapStarted, Report

NOTHING_ENDED = Report(0, [])


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(autouse=True)
def capable_terminal(monkeypatch):
    """Whatever terminal runs the tests, the pretended ones can draw."""
    monkeypatch.setenv("TERM", "xterm")


def begin(file, clock, *, progress=None, total=100):
    tell = listener(progress, file=file, clock=clock)
    tell(MapStarted(total=total, workers=2, place="processes"))
    return tell


def ended(count, failed=()):
    return Report(0, [None] * count, failed=failed)


def test_short_work_shows_nothing(clock):
    """A map shorter than 0.7 seconds leaves no mark on the terminal."""
    screen = Terminal()
    tell = begin(screen, clock)
    clock.now += 0.69
    tell(ended(100))
    clock.now += 5
    tell(MapFinished())
    assert screen.getvalue() == ""


def test_a_bar_is_drawn_when_the_map_lasts(clock):
    """After 0.7 seconds a terminal shows tasks done, failed, the rate and the time left."""
    screen = Terminal()
    tell = begin(screen, clock)
    clock.now += 2
    tell(ended(40, failed=(3, 5)))
    assert "40/100 done, 2 failed in 2s (20/s), about 3s left" in screen.getvalue()


def test_the_bar_is_redrawn_ten_times_a_second_at_most(clock):
    """A million reports must not become a million drawings."""
    screen = Terminal()
    tell = begin(screen, clock, total=10_000)
    clock.now += 1
    for _ in range(10_000):
        clock.now += 0.0001
        tell(ended(1))
    assert 9 <= screen.getvalue().count("/10,000 done") <= 12


def test_the_bar_ends_with_the_last_state_on_a_line_of_its_own(clock):
    """After a map its bar stays, complete, the cursor is back and the next line is free."""
    screen = Terminal()
    tell = begin(screen, clock)
    clock.now += 1
    tell(ended(10))
    clock.now += 9
    tell(ended(90))
    tell(MapFinished())
    assert "100/100 done in 10s (10/s)" in screen.getvalue().splitlines()[-2]
    assert screen.getvalue().endswith("\n\x1b[?25h")


def test_an_interrupted_bar_stops_cleanly(clock):
    """Ctrl-C leaves the bar where the work stopped, says so, and gives the cursor back."""
    screen = Terminal()
    tell = begin(screen, clock)
    clock.now += 1
    tell(ended(10))
    tell(MapFinished(interrupted=True))
    assert "10/100 done in 1s (10/s), stopped" in screen.getvalue().splitlines()[-2]
    assert screen.getvalue().endswith("\n\x1b[?25h")


def test_time_is_told_while_no_task_ends(clock):
    """Few long tasks: an empty report is enough to show that the map is alive."""
    screen = Terminal()
    tell = begin(screen, clock, total=8)
    clock.now += 125
    tell(NOTHING_ENDED)
    assert "0/8 done in 2m05s" in screen.getvalue()


def test_an_unknown_total_is_a_count_and_a_rate(clock):
    """An infinite input has no end to draw: no percentage and no time left are made up."""
    screen = Terminal()
    tell = begin(screen, clock, total=None)
    clock.now += 2
    tell(ended(3000))
    tell(MapFinished())
    assert "3,000 done in 2s (1,500/s)" in screen.getvalue()
    assert "left" not in screen.getvalue()


def test_a_pipe_gets_plain_lines_every_ten_seconds(clock):
    """In a log the first line comes after ten seconds, then one each ten, then the end."""
    log = io.StringIO()
    tell = begin(log, clock, total=3600)
    for _ in range(25):
        clock.now += 1
        tell(ended(1))
    tell(MapFinished())
    assert log.getvalue().splitlines() == [
        "fanfold: 10/3,600 done in 10s (1.0/s), about 59m50s left",
        "fanfold: 20/3,600 done in 20s (1.0/s), about 59m40s left",
        "fanfold: 25/3,600 done in 25s (1.0/s)",
    ]


def test_a_pipe_gets_nothing_from_a_map_under_ten_seconds(clock):
    """A log is not filled by short maps, not even with their end."""
    log = io.StringIO()
    tell = begin(log, clock)
    clock.now += 9.9
    tell(ended(100))
    clock.now += 1
    tell(MapFinished())
    assert log.getvalue() == ""


def test_true_tells_from_the_start(clock):
    """progress=True waits for nothing, in a terminal and in a pipe."""
    screen, log = Terminal(), io.StringIO()
    for file in (screen, log):
        begin(file, clock, progress=True)(MapFinished())
        assert "0/100 done in 0s" in file.getvalue()


def test_false_tells_nothing(clock):
    """progress=False is silence, however long the map."""
    screen = Terminal()
    tell = begin(screen, clock, progress=False)
    clock.now += 3600
    tell(ended(100))
    tell(MapFinished())
    assert screen.getvalue() == ""


def test_a_dumb_terminal_gets_lines(clock, monkeypatch):
    """A terminal that cannot move its cursor is written to like a log."""
    monkeypatch.setenv("TERM", "dumb")
    screen = Terminal()
    begin(screen, clock, progress=True)
    assert screen.getvalue() == "fanfold: 0/100 done in 0s\n"


def test_a_map_inside_a_task_is_silent(clock):
    """The outermost map has the screen; one inside its tasks tells only when it is asked to."""
    screen = Terminal()
    with task_stream(lambda: (1, 0)):
        tell = begin(screen, clock)
        clock.now += 60
        tell(ended(1))
        tell(MapFinished())
        assert screen.getvalue() == ""
        begin(screen, clock, progress=True)(MapFinished())
    assert "0/100 done" in screen.getvalue()


def test_a_broken_pipe_does_not_disturb_the_map(clock):
    """When nobody reads the progress any more, the work goes on in silence."""
    reader, writer = os.pipe()
    pipe = os.fdopen(writer, "w")
    tell = begin(pipe, clock, progress=True)
    os.close(reader)
    clock.now += 10
    tell(ended(1))
    clock.now += 10
    tell(ended(1))
    tell(MapFinished())
    with pytest.raises(BrokenPipeError):  # so the pipe was broken indeed
        pipe.close()


def test_a_closed_file_does_not_disturb_the_map(clock):
    """A standard error that somebody closed is no reason to fail."""
    closed = io.StringIO()
    closed.close()
    tell = begin(closed, clock, progress=True)
    tell(ended(1))
    tell(MapFinished())


def test_a_program_without_standard_error_is_served(clock, monkeypatch):
    """A program started without a console (standard error is None) runs its maps in silence."""
    monkeypatch.setattr(sys, "stderr", None)
    tell = begin(None, clock, progress=True)
    tell(ended(1))
    tell(MapFinished())


def test_a_report_costs_one_look_at_the_clock(clock):
    """What is called for every report does nothing but count and ask the time."""
    looks = 0

    def counting_clock():
        nonlocal looks
        looks += 1
        return clock()

    tell = begin(Terminal(), counting_clock)
    before = looks
    for _ in range(50):
        tell(ended(1))
    assert looks - before == 50


PRINTING = """
import sys
from fanfold.progress import listener
from fanfold.tasks import MapFinished, MapStarted, Report
tell = listener({progress})
tell(MapStarted(2, 2, "threads"))
tell(Report(0, [1]))
print("a result")
tell(Report(1, [1]))
tell(MapFinished())
print("rich" in sys.modules)
"""


@contextlib.contextmanager
def started(program):
    """(a process whose standard error is a real terminal, a function that reads that terminal)"""
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen, open(theirs, "wb", buffering=0) as terminal:
        command = [sys.executable, "-c", program]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal) as process:
            terminal.close()
            try:
                yield process, functools.partial(read_until, screen)
            finally:
                process.kill()


def read_until(screen, text):
    """What the terminal shows until there is a text, or until its end."""
    shown, decode = "", codecs.getincrementaldecoder("utf-8")().decode  # pieces end anywhere
    with contextlib.suppress(OSError):  # Linux: how the end of a terminal is told
        while text is None or text not in shown:
            shown += decode(screen.read(65536))
    return shown


def output_and_screen(program):
    """What a program writes into a pipe as standard output, and a terminal as standard error."""
    with started(program) as (process, read):
        shown = read(None)
        output = process.stdout.read().decode()
    return output, shown


def test_the_bar_leaves_standard_output_alone():
    """What a program prints into a pipe while the bar is drawn stays in the pipe."""
    output, shown = output_and_screen(PRINTING.format(progress=True))
    assert output == "a result\nTrue\n"
    assert "2/2 done" in shown


def test_rich_is_not_imported_for_short_work():
    """A map that shows nothing does not pay for the import of rich."""
    output, shown = output_and_screen(PRINTING.format(progress=None))
    assert output == "a result\nFalse\n"
    assert shown == ""


def test_few_long_tasks_show_that_they_run():
    """The bar of a map appears although none of its tasks has ended."""
    program = "import time, fanfold as ff; ff.map(time.sleep, [2.5, 2.5], on='threads', workers=2)"
    _, shown = output_and_screen(program)
    assert "0/2 done" in shown
    assert "2/2 done" in shown


def test_ctrl_c_stops_the_bar():
    """An interrupted map gives the cursor back before the program ends."""
    program = "import time, fanfold as ff; ff.map(time.sleep, [100, 100], on='processes')"
    with started(program) as (process, read):
        read("0/2 done")
        process.send_signal(signal.SIGINT)
        shown = read(None)
    bar, end = shown.split("\x1b[?25h")
    assert ", stopped" in bar
    assert "KeyboardInterrupt" in end
