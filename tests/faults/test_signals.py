"""Rows L28-L31, L54: Ctrl-C, and drivers that die in every way, at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

import fanfold as ff
from fanfold.runs.status import read_status
from fanfold.store.directory import RunDirectory
from fanfold.testing.functions import until

MOMENTS = 15 if os.environ.get("FANFOLD_FAULTS") == "whole" else 4

LONG_MAP = """
    def task(n):
        if n:
            open(f"began-{n}", "x").close()
            time.sleep(60)
        return n

    results = ff.imap(task, range(20), on=sys.argv[1], workers=2)
    say("first", next(results))
    while not sum(name.startswith("began") for name in os.listdir()) == 2:
        time.sleep(0.01)
    say("running")
    """


@pytest.mark.parametrize("on", ["threads", "processes"])
def test_interrupt(on, start):
    """L28: Ctrl-C ends the map, and does not wait for what runs; results taken so far are the
    caller's; no worker says a word; nothing stays."""
    driver = start(
        LONG_MAP
        + """
    try:
        next(results)
    except KeyboardInterrupt:
        say("interrupted")
    results.close()
    """,
        on,
    )
    driver.wait_for("running")
    driver.send_group(signal.SIGINT)
    assert driver.end(limit=20) == 0, driver.report()
    assert driver.out.splitlines() == ["first 0", "running", "interrupted"]
    assert driver.err == ""
    driver.nothing_is_left()


def test_interrupt_not_caught(start):
    """L28: a program that does not catch Ctrl-C ends by it, with its own traceback and no other."""
    driver = start(LONG_MAP + "\n    list(results)\n", "processes")
    driver.wait_for("running")
    driver.send_group(signal.SIGINT)
    assert driver.end(limit=20) == -signal.SIGINT
    assert driver.err.count("Traceback") == 1
    assert driver.err.rstrip().endswith("KeyboardInterrupt")
    driver.nothing_is_left()


def test_interrupt_of_submits(start):
    """L28: Ctrl-C while submitted calls run ends them too: what waits does not go on."""
    driver = start(
        """
        with ff.ProcessExecutor(2) as pool:
            futures = [pool.submit(time.sleep, 60) for _ in range(6)]
            while not any(future.running() for future in futures):
                time.sleep(0.01)
            say("running")
            futures[0].result()
        """
    )
    driver.wait_for("running")
    driver.send_group(signal.SIGINT)
    assert driver.end(limit=20) != 0
    driver.nothing_is_left()


@pytest.mark.parametrize("seed", range(MOMENTS))
def test_interrupts_again_and_again(seed, start):
    """L29: three Ctrl-C at any moments, start-up and shut-down included, end the program at once;
    nothing stays."""
    chance = random.Random(seed)
    driver = start(
        """
        say("begun")
        with ff.ProcessExecutor(2) as pool:
            pool.submit(abs, -1).result()
            ff.map(time.sleep, [0.15] * 4, on=pool)
        """
    )
    driver.wait_for("begun")
    for _ in range(3):
        time.sleep(chance.uniform(0, 0.3))
        driver.send_group(signal.SIGINT) if driver.process.poll() is None else None
    driver.end(limit=20)
    driver.nothing_is_left()


# Drivers that die

BUSY = """
    import subprocess
    from fanfold.executors.pool.copied import Copied

    def task(large):
        subprocess.Popen(["sleep", "999"])
        time.sleep(60)

    method = sys.argv[1]
    pool = ff.ProcessExecutor(2, mp_context=Copied() if method == "copied" else method)
    pool.submit(abs, -1).result()
    say("begun")
    if sys.argv[2] == "busy":
        for future in [pool.submit(task, bytes(1 << 20)) for _ in range(4)]:
            future.result()
    else:
        time.sleep(60)
    """

KILLER = """
    def die():
        time.sleep(float(sys.argv[3]))
        exec(sys.argv[4])

    threading.Thread(target=die, daemon=True).start()
    """

ENDS = {
    "SIGKILL": signal.SIGKILL,
    "SIGTERM": signal.SIGTERM,
    "SIGHUP": signal.SIGHUP,
    "os._exit": "os._exit(1)",
    "a crash in C": "__import__('ctypes').string_at(0)",
}


METHODS = ["forkserver", "fork", "spawn", "copied"]


@pytest.mark.parametrize("state", ["busy", "idle"])
@pytest.mark.parametrize("end", ENDS)
def test_driver_dies(end, state, start):
    """L30, L31: however the driver ends, and whenever, its workers and what their tasks started are
    gone soon; what it had in shared memory goes with them, or at the next start where nobody
    was there to remove it: no launcher yet, or none at all, with "fork"."""
    chance = random.Random(f"{end} {state}")
    drivers = []
    for moment in range(MOMENTS):
        method, after = METHODS[moment % len(METHODS)], chance.uniform(0, 0.3)
        driver = die(start, ENDS[end], method, state, after)
        drivers.append(driver)
        assert driver.end() != 0
        assert "Traceback" not in driver.err, driver.report()
        driver.nothing_is_left(names="begun" in driver.out and method != "fork")
    assert start("ff.map(abs, [-1, -2], on='processes')").end() == 0
    assert [driver.names() for driver in drivers] == [[]] * len(drivers)


def die(start, how, method, state, after):
    """A driver that ends ``after`` some seconds: by a signal, or by what it does itself."""
    if isinstance(how, str):
        return start(KILLER + BUSY, method, state, after, how)
    driver = start(BUSY, method, state)
    driver.wait_for("begun")
    time.sleep(after)
    driver.send(how)
    return driver


def test_driver_dies_at_start(start):
    """L30: a driver that is killed while it starts its workers leaves none of them."""
    chance = random.Random(30)
    for _ in range(2 * MOMENTS):
        driver = start("say('begun')\nff.map(time.sleep, [60] * 4, on='processes', workers=4)\n")
        driver.wait_for("begun")
        time.sleep(chance.uniform(0, 0.15))
        driver.send(signal.SIGKILL)
        driver.end()
        driver.nothing_is_left(names=False)
    assert start("ff.map(abs, [-1, -2], on='processes')").end() == 0
    assert driver.names() == []


def test_everything_dies(start):
    """L54: what a driver leaves in shared memory when it is killed together with all its processes
    is swept by the next one that starts; what belongs to the living is not."""
    script = """
        pool = ff.ProcessExecutor(2)
        futures = [pool.submit(time.sleep, 60) for _ in range(2)]
        futures += [pool.submit(len, bytes(1 << 20)) for _ in range(3)]
        say("begun")
        time.sleep(60)
        """
    victim, living = start(script), start(script)
    victim.wait_for("begun")
    living.wait_for("begun")
    until(lambda: files(victim) and files(living), "the arguments to be in shared memory")
    for process in victim.family():  # so that none of them clears up after the others
        process.suspend()
    kept = files(living)
    assert files(victim)
    victim.kill_everything()
    sweeper = start("print(ff.map(abs, [-1, -2], on='processes', workers=1))")
    assert sweeper.end() == 0, sweeper.report()
    assert victim.names() == []
    assert kept
    assert all(path.exists() for path in kept)


def files(driver):
    """What it has in shared memory."""
    return [path for root in driver.names() for path in root.iterdir()]


@pytest.mark.parametrize("begins", [True, False], ids=["begins", "does not begin"])
@pytest.mark.parametrize("on", ["threads", "auto"])
def test_interrupted_while_a_thread_is_started(on, begins, monkeypatch):
    """L28: Ctrl-C ends a map also in the moment in which a thread of it begins, or was about to."""
    struck = []

    def start(thread, start=threading.Thread.start):
        strikes = not struck and thread.name.startswith("fanfold")
        if begins or not strikes:
            start(thread)
        if strikes:
            struck.append(thread.name)
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start)
    interval = sys.getswitchinterval()
    with pytest.raises(KeyboardInterrupt):
        ff.map(time.sleep, [0.01] * 100, on=on, workers=2)
    assert struck
    assert sys.getswitchinterval() == interval


FORKED = """
import os, signal
from fanfold.executors.pool.copied import Copied

os.register_at_fork(after_in_parent=lambda: signal.raise_signal(signal.SIGINT))
try:
    Copied.made()
except KeyboardInterrupt:
    print("interrupted")
try:
    os.wait()
except ChildProcessError:
    print("nothing is left")
"""


def test_interrupted_while_the_program_is_forked():
    """L28: what comes during a fork is not lost, and the copy does not stay: Python suppresses
    what is raised in its own steps after a fork."""
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("interrupted\nnothing is left\n", "")


def test_command_interrupted(tmp_path, launch):
    """L28: Ctrl-C to the command ends it with exit code 130, whatever runs, and says what had
    finished, without a traceback; the results so far are on stdout."""
    (tmp_path / "work.py").write_text(
        "import time, pathlib\n"
        "def task(n):\n"
        "    n = int(n)\n"
        "    pathlib.Path(f'began-{n}').touch()\n"
        "    time.sleep(60 if n > 3 else 0)\n"
        "    return n\n"
    )
    command = [sys.executable, "-m", "fanfold", "run", "work.py:task", "--range", "1-9"]
    driver = launch([*command, "--workers", "2"], tmp_path)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("began-[4-9]"))) < 2:
        assert time.monotonic() < deadline, driver.report()
        time.sleep(0.01)
    [kept] = tmp_path.glob("fanfold-runs/*")
    until(lambda: read_status(RunDirectory.open(kept)).done == 3, "the results to be kept")
    driver.send_group(signal.SIGINT)
    assert driver.end(limit=20) == 130, driver.report()
    driver.nothing_is_left()
    assert "Traceback" not in driver.err
    assert "3 done, 0 failed, 6 not finished" in driver.err
    assert [line.split() for line in driver.out.splitlines()[1:]] == [
        ["0", "1", "1"],
        ["1", "2", "2"],
        ["2", "3", "3"],
    ]
