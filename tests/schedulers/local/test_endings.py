"""How elements end, and what of them is left."""

import os
import re
import signal
import sys
import threading
import time

import psutil
import pytest

from fanfold.errors import UsageError
from fanfold.schedulers.local import LocalQueue

STUBBORN = "trap '' TERM; "
FOR_EVER = "while true; do sleep 0.02; done"
PYTHON = sys.executable


def pids(bench, name):
    bench.until(lambda: (bench.folder / name).exists() and bench.text(name), f"pids in {name}")
    return [int(word) for word in bench.text(name).split()]


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("dialect", ["slurm", "pbs"])
@pytest.mark.parametrize(
    ("body", "state", "status", "signum"),
    [
        ("exit 0", "done", 0, None),
        ("exit 3", "failed", 3, None),
        ("kill -KILL $$", "failed", None, signal.SIGKILL),
        ("kill -TERM $$", "failed", None, signal.SIGTERM),
        ("exit 255", "failed", 255, None),
        ("exit 137", "failed", 137, None),
        ("ulimit -c 0; kill -SEGV $$", "failed", None, signal.SIGSEGV),
        ("nosuchcommand", "failed", 127, None),
        ("false; true", "done", 0, None),
        ("exec 1>&-; exit 0", "done", 0, None),
    ],
)
def test_exit_statuses(bench, dialect, body, state, status, signum):
    """An element is done when its script ends with 0; else its status or signal is kept."""
    ended = bench.run(body, dialect)
    assert (ended.state, ended.exit_status, ended.signal) == (state, status, signum)
    assert ended.began <= ended.ended


def test_elements_end_each_in_its_own_way(bench):
    """S09: one that fails leaves the others alone."""
    elements = bench.run("exit $((SLURM_ARRAY_TASK_ID % 2))", indices=range(6))
    assert [element.exit_status for element in elements] == [0, 1, 0, 1, 0, 1]
    assert [element.state for element in elements] == ["done", "failed"] * 3


@pytest.mark.parametrize("dialect", ["slurm", "pbs"])
def test_what_a_script_leaves_behind_ends_with_it(bench, dialect):
    """Neither a child in the background nor one that it started outlives its element."""
    ended = bench.run(
        "(sleep 600 & echo $!; sleep 600) > pids & echo $! > pid; "
        "until [ -s pids ]; do sleep 0.01; done",
        dialect,
    )
    left = pids(bench, "pids") + pids(bench, "pid")
    assert ended.state == "done"
    bench.until(lambda: all(map(gone, left)), "the end of what was left")


@pytest.mark.parametrize("dialect", ["slurm", "pbs"])
def test_walltime(bench, dialect):
    """S10: over its walltime an element gets TERM, with all that it started, and is told why."""
    body = "trap 'echo got TERM; exit 7' TERM; sleep 600 & echo $! > pids; wait"
    number = bench.submit(body, dialect, walltime=600.0, output="out", join="oe")
    bench.until_there("pids")
    bench.hurry(500)
    assert bench.states(number) == ["running"]
    bench.hurry(100)
    ended = bench.finish(number)
    assert (ended.state, ended.exit_status) == ("walltime", 7)
    bench.until(lambda: all(map(gone, pids(bench, "pids"))), "the end of what it started")
    said = {
        "slurm": r"slurmstepd-\w+: error: \*\*\* JOB 1 ON \w+ CANCELLED AT \S+ DUE TO TIME LIMIT",
        "pbs": r"=>> PBS: job killed: walltime \d+ exceeded limit 600\b",
    }
    assert re.search(said[dialect], bench.text("out"))
    assert "got TERM" in bench.text("out")


def test_walltime_of_the_stubborn(bench):
    """Who ignores TERM gets KILL after the grace: children, those in a session of their own, and
    those that stopped themselves."""
    child = f"{STUBBORN} echo $$ >> pids; {FOR_EVER}"
    (bench.folder / "child").write_text(child)
    body = f"{STUBBORN} sh child & setsid sh child & (sh -c 'echo $$ >> pids; kill -STOP $$') & "
    number = bench.submit(body + FOR_EVER, walltime=3.0)
    bench.until(lambda: len(pids(bench, "pids")) == 3, "three children")
    (ended,) = [bench.finish(number)]
    assert (ended.state, ended.signal) == ("walltime", signal.SIGKILL)
    bench.until(lambda: all(map(gone, pids(bench, "pids"))), "the end of the children")


def test_a_daemon_that_was_seen_ends_too(bench):
    """A process that left its session and lost its parent is ended, once it was seen."""
    daemon = "import os, time; os.setsid(); print(os.getpid(), flush=True); time.sleep(600)"
    number = bench.submit(f'{PYTHON} -c "{daemon}" > pids & {FOR_EVER}')
    (pid,) = pids(bench, "pids")
    looked = time.monotonic() + 1.2
    bench.until(lambda: time.monotonic() > looked, "a second")
    bench.queue.step()
    assert not gone(pid)
    os.kill(bench.queue.jobs[number].elements[None].pid, signal.SIGKILL)
    assert bench.finish(number).state == "failed"
    bench.until(lambda: gone(pid), "the end of the daemon")


def test_warning_before_the_walltime(bench):
    """S11: a job that asks for a signal before its end gets it, its script alone if it says so."""
    body = "trap 'echo warned > warned; exit 0' USR1; sleep 600 & echo $! > pids; wait"
    number = bench.submit(body, walltime=600.0, warning=(signal.SIGUSR1, 60.0, True))
    bench.until_there("pids")
    assert bench.states(number) == ["running"]
    bench.hurry(550)
    ended = bench.finish(number)
    assert (ended.state, bench.text("warned")) == ("done", "warned\n")
    ended = bench.run("sleep 600; echo after > after", walltime=60.0, warning=(10, 59.8, False))
    assert (ended.state, ended.signal) == ("failed", signal.SIGUSR1)
    assert not (bench.folder / "after").exists()


def test_cancel(bench):
    """What runs is asked to end; what waits never starts; what has ended stays as it is."""
    body = f"echo $$ > pid.$SLURM_ARRAY_TASK_ID; [ $SLURM_ARRAY_TASK_ID = 1 ] && exit 0; {FOR_EVER}"
    number = bench.submit(body, indices=(1, 2, 3, 4), at_once=1)
    bench.until_there("pid.2")
    bench.queue.cancel(number, [4])
    bench.queue.cancel(number, [4])
    assert bench.states(number) == ["done", "running", "waiting", "cancelled"]
    bench.queue.cancel(number)
    assert bench.states(number) == ["done", "ending", "cancelled", "cancelled"]
    first, second, third, _ = bench.finish(number)
    assert (first.state, second.state, second.signal) == ("done", "cancelled", signal.SIGTERM)
    assert (third.began, third.pid, third.exit_status) == (None, None, None)
    assert not (bench.folder / "pid.3").exists()


def test_cancelled_though_it_ended_well(bench):
    """A script that catches TERM and ends with 0 was cancelled all the same."""
    number = bench.submit(f"trap 'exit 0' TERM; touch there; {FOR_EVER}")
    bench.until_there("there")
    bench.queue.cancel(number)
    ended = bench.finish(number)
    assert (ended.state, ended.exit_status) == ("cancelled", 0)


@pytest.mark.parametrize("state", ["node", "preempted"])
def test_what_it_is_ended_for(bench, state):
    """A lost node ends its elements at once; pre-emption asks them first."""
    number = bench.submit(f"trap 'exit 5' TERM; touch there; {FOR_EVER}")
    bench.until_there("there")
    bench.queue.cancel(number, state=state)
    ended = bench.finish(number)
    assert ended.state == state
    assert (ended.exit_status, ended.signal) == {
        "node": (None, signal.SIGKILL),
        "preempted": (5, None),
    }[state]


def test_requeue(bench):
    """S12: the same id begins again, knows how often, and its files begin anew."""
    body = "echo $SLURM_JOB_ID-${SLURM_RESTART_COUNT-unset} >> runs; echo out; "
    body += "[ $(wc -l < runs) = 2 ] && exit 0; touch there; " + FOR_EVER
    number = bench.submit(body)
    bench.until_there("there")
    bench.queue.requeue(number, None)
    assert bench.states(number) == ["ending"]
    ended = bench.finish(number)
    assert (ended.state, ended.restarts) == ("done", 1)
    assert bench.text("runs") == "1-unset\n1-1\n"
    assert bench.text("slurm-1.out") == "out\n"


def test_requeue_of_what_has_ended_and_later(bench):
    """An element that has ended may begin again, not before a delay is over; then it can still be
    cancelled."""
    ended = bench.run("exit 1")
    bench.queue.requeue(1, None, delay=600)
    bench.queue.step()
    assert (ended.state, ended.began, bench.queue.why(1, None)) == ("waiting", None, "begin")
    bench.queue.cancel(1)
    assert ended.state == "cancelled"


def test_elements_that_begin_again_side_by_side(bench):
    """Each has files of its own, the one that never ran before, too."""
    number = bench.submit("echo $PBS_ARRAY_INDEX", "pbs", indices=(1, 2), held=True)
    bench.queue.release(number, [1])
    bench.until(lambda: bench.states(number)[0] == "done", "the first")
    bench.queue.cancel(number, [2])
    for index in (1, 2):
        bench.queue.requeue(number, index)
    assert [element.state for element in bench.finish(number)] == ["done", "done"]
    assert (bench.text("demo.o1.1"), bench.text("demo.o1.2")) == ("1\n", "2\n")


def test_a_cancelled_requeue_does_not_begin_again(bench):
    """Between its two runs an element can be cancelled."""
    number = bench.submit(f"touch there; {FOR_EVER}")
    bench.until_there("there")
    bench.queue.requeue(number, None)
    bench.queue.cancel(number)
    ended = bench.finish(number)
    assert (ended.state, ended.restarts) == ("cancelled", 0)


def test_signals(bench):
    """A signal goes to everything that runs, or to the script alone."""
    (bench.folder / "child").write_text(
        "trap 'echo child >> got' USR1; touch ready-child; " + FOR_EVER
    )
    body = "sh child & trap 'echo script >> got' USR1; touch ready; " + FOR_EVER
    number = bench.submit(body)
    bench.until_there("ready", "ready-child")
    bench.queue.signal(number, signal.SIGUSR1, script_only=True)
    bench.until(lambda: (bench.folder / "got").exists() and bench.text("got"), "the signal")
    assert bench.text("got") == "script\n"
    bench.queue.signal(number, signal.SIGUSR1)
    bench.until(lambda: len(bench.text("got").splitlines()) == 3, "both signals")
    assert sorted(bench.text("got").split()) == ["child", "script", "script"]


def test_close_ends_everything(bench):
    """Closing ends every process that the queue has started, and leaves no file of its own."""
    (bench.folder / "child").write_text(f"{STUBBORN} echo $$ >> pids; {FOR_EVER}")
    with LocalQueue(workers=2) as queue:
        bench.queue, outer = queue, bench.queue
        bench.submit(f"{STUBBORN} sh child & setsid sh child & {FOR_EVER}", indices=(1, 2, 3))
        bench.until(lambda: len(pids(bench, "pids")) == 4, "four children")
        bench.queue = outer
    assert not os.path.exists(queue.folder)
    bench.until(lambda: all(map(gone, pids(bench, "pids"))), "the end of the children")
    assert [each.state for each in queue.jobs[1].elements.values()] == ["cancelled"] * 3
    assert queue.ended(1)


def test_what_was_used(bench):
    """CPU time is that of the script and its children, memory the most they held together."""
    body = f"""{PYTHON} -c '
import os, time
while sum(os.times()[:2]) < 0.3: pass
held = b"x" * 60_000_000
open("ready", "w").close()
while not os.path.exists("enough"): time.sleep(0.01)'
"""
    number = bench.submit(body)
    bench.until_there("ready")
    looked = time.monotonic() + 1.2
    bench.until(lambda: time.monotonic() > looked, "a second")
    bench.queue.step()
    (bench.folder / "enough").touch()
    ended = bench.finish(number)
    assert 0.3 <= ended.cpu_time < 5
    assert 60_000_000 < ended.peak_memory < 200_000_000


def test_memory_of_a_short_job_is_not_known(bench):
    """Nobody looked while it ran, and the memory of this process is not that of the job."""
    with LocalQueue() as queue:
        number = queue.submit(bench.job("true"))
        queue.step()
        ended = queue.jobs[number].elements[None]
        while ended.state == "running":  # no look is due before a tenth of a second
            queue.step(0.01)
        assert ended.peak_memory is None or ended.peak_memory < 50_000_000


def test_wake(bench):
    """Another thread can end the wait of a step."""
    threading.Timer(0.05, bench.queue.wake).start()
    began = time.monotonic()
    assert bench.queue.step(60) == []
    assert time.monotonic() - began < 30


def test_unknown_jobs_and_elements(bench):
    """What is not there is a usage error that names it."""
    number = bench.submit("true", indices=(1, 2))
    with pytest.raises(UsageError, match="there is no job 77"):
        bench.queue.cancel(77)
    with pytest.raises(UsageError, match="job 1 has no element 3"):
        bench.queue.cancel(number, [1, 3])
    with pytest.raises(UsageError, match="there is no job 5"):
        bench.submit("true", after=[("afterok", 5)])
    bench.finish(number)
