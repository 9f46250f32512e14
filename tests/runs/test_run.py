"""What a run promises: `ff.run`, the handle `ff.Run`, and going on after anything."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import fanfold as ff
from fanfold.testing.functions import until

PLACES = pytest.mark.parametrize("on", ["serial", "threads", "processes"])


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def calls(tmp_path):
    """A file that tasks append their input to, and what is in it."""
    path = tmp_path / "calls"
    path.touch()

    def made():
        return [int(line) for line in path.read_text().split()]

    made.path = path
    return made


def square_and_tell(path, broken=()):
    """A task that leaves a line in a file when it is called."""

    def task(n):
        with path.open("a") as out:
            print(n, file=out)
        if n in broken:
            raise ValueError(f"no square for {n}")
        return n * n

    return task


# Results ------------------------------------------------------------------------------------------


@PLACES
def test_results_in_order(on):
    """A run gives what a map gives, in the order of the inputs, as a list and as an iterator."""
    run = ff.run(lambda n: n * n, range(50), on=on)
    assert run.results() == list(run) == [n * n for n in range(50)]
    assert run.status()[1:5] == ("done", 50, 50, 0)


@PLACES
def test_same_random_numbers_as_a_map(on):
    """Random streams are keyed by the seed and the index, in a run as in a map, resumed or not."""

    def draw(n):
        return int(ff.rng().integers(1 << 40))

    assert ff.run(draw, range(20), seed=3, on=on).results() == ff.map(draw, range(20), seed=3)


def test_failures_are_kept_whole(here):
    """A failure comes back as the exception it was, with its traceback, and says what was printed;
    the others lose nothing."""

    def task(n):
        print("looking at", n)
        if n == 2:
            raise KeyError("missing", n)
        return n

    run = ff.run(task, range(4), name="fails").wait()
    with pytest.raises(KeyError):
        run.results()
    results = ff.Run.open("fails").results(errors="return")
    assert [results[i] for i in (0, 1, 3)] == [0, 1, 3]
    assert type(results[2]) is KeyError
    assert results[2].args == ("missing", 2)
    assert 'raise KeyError("missing", n)' in str(results[2].__cause__)
    [failure] = run.failures()
    assert (failure.index, failure.shown, failure.kind) == (2, "2", "KeyError")
    assert failure.log == ("looking at 2",)
    assert run.status().state == "failed"


def test_death_certificate():
    """A task that kills its worker leaves its signal, its phase, its memory and what it printed."""

    def task(n):
        if n == 1:
            print("last words", flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        return n

    [failure] = ff.run(task, range(3)).wait().failures()
    death = failure.death
    assert (failure.index, failure.kind) == (1, "WorkerDied")
    assert (death.signal, death.phase, death.out_of_memory) == ("SIGSEGV", "run", False)
    assert death.peak_memory > 1 << 20
    assert "last words" in failure.log
    assert any("Segmentation fault" in line or "in task" in line for line in failure.log)


def test_results_that_cannot_be_kept():
    """A result that cannot be pickled fails its own task, by name."""
    results = ff.run(lambda n: threading.Lock() if n == 1 else n, range(3), on="threads").results(
        errors="return"
    )
    assert [results[0], results[2]] == [0, 2]
    assert type(results[1]) is ff.NotSerializable


def test_unfinished_results(calls):
    """Results of a run with tasks missing: an error that says so, or `TaskMissing` in place."""
    run = ff.run(square_and_tell(calls.path, {0}), range(3), on="serial", errors="raise").wait()
    with pytest.raises(ff.RunUnfinished, match="2 of 3 tasks"):
        run.results()
    kinds = [type(result) for result in run.results(errors="return")]
    assert kinds == [ValueError, ff.TaskMissing, ff.TaskMissing]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"on": "moon"}, "on='moon' is no place"),
        ({"on": 7}, 'takes a name such as "local"'),
        ({"workers": 0}, "workers must be greater than 0"),
        ({"retries": -1}, "retries must be a whole number from 0"),
        ({"timeout": -2.0}, "timeout must be a number of seconds above 0"),
        ({"files": "sha"}, "use stat, hash or ignore"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"resume": "yes"}, "resume must be 'ask', 'anyway' or 'fresh'"),
    ],
)
def test_wrong_options(here, options, said):
    """An option that makes no sense is refused in words, and nothing has been made."""
    with pytest.raises(ff.UsageError, match=re.escape(said)):
        ff.run(abs, [1], **options)
    assert list(here.glob("fanfold-runs/*")) == []


# Going on -----------------------------------------------------------------------------------------


@PLACES
def test_nothing_is_done_twice(on, calls):
    """The same name again runs only what has no result; what is done is read from the disk."""
    broken = {2, 5}
    first = ff.run(square_and_tell(calls.path, broken), range(8), name="again", on=on).wait()
    assert first.status().failed == 2
    assert sorted(calls()) == list(range(8))
    again = ff.run(square_and_tell(calls.path, broken), range(8), name="again", on=on).wait()
    assert sorted(calls()) == sorted([*range(8), 2, 5])
    assert again.status().done == 6


def test_retry(calls):
    """`retry` runs what failed and what is missing, from any process; with ``all``, everything."""
    good = calls.path.with_name("good")

    def task(n, path=calls.path, good=good):
        with path.open("a") as out:
            print(n, file=out)
        if n == 1 and not good.exists():
            raise ValueError
        return n

    ff.run(task, range(3), name="r").wait()
    good.touch()
    run = ff.Run.open("r").retry()
    assert run.results() == [0, 1, 2]
    assert sorted(calls()) == [0, 1, 1, 2]
    assert run.retry(all=True).results() == [0, 1, 2]
    assert sorted(calls()) == [0, 0, 1, 1, 1, 2, 2]


def test_new_results_count_after_retry_all(here):
    """After ``retry(all=True)`` the new results are the ones that count."""
    counter = here / "counter"

    def task(n, path=counter):
        with path.open("a") as out:
            out.write("x")
        return path.stat().st_size

    run = ff.run(task, [0], name="r", on="serial")
    assert run.results() == [1]
    assert run.retry(all=True).results() == [2]
    assert ff.Run.open("r").results() == [2]


def test_inputs_are_known_by_content(calls):
    """Inputs permuted, added, removed, or doubled: what is done is kept wherever it stands now."""
    task = square_and_tell(calls.path)
    ff.run(task, [1, 2, 3, 4], name="r", on="serial").wait()
    run = ff.run(task, [4, 9, 2, 2, 1], name="r", on="serial")
    assert run.results() == [16, 81, 4, 4, 1]
    assert calls() == [1, 2, 3, 4, 9, 2]
    assert ff.run(task, [1, 2, 3], name="r", on="serial").results() == [1, 4, 9]
    assert calls() == [1, 2, 3, 4, 9, 2, 3]


def test_files_among_the_inputs(here, calls):
    """An input file that has changed makes its task run again."""
    files = [here / name for name in ("a", "b")]
    for file in files:
        file.write_text("1")

    def read(path, calls=calls.path):
        with calls.open("a") as out:
            print(ord(path.name), file=out)
        return path.read_text()

    assert ff.run(read, files, name="r", on="serial").results() == ["1", "1"]
    files[1].write_text("22")
    assert ff.run(read, files, name="r", on="serial").results() == ["1", "22"]
    assert calls() == [97, 98, 98]


def test_a_changed_function_is_asked_about(calls):
    """A function that has changed is never used silently: which part changed is said, "anyway"
    keeps the results, "fresh" keeps the old run aside and begins."""
    first, second = square_and_tell(calls.path), square_and_tell(calls.path, {7})
    ff.run(first, range(2), name="r", on="serial").wait()
    with pytest.raises(ff.RunChanged, match="broken has changed") as caught:
        ff.run(second, range(3), name="r", on="serial")
    assert "--resume anyway" in str(caught.value)
    ff.run(second, range(3), name="r", on="serial", resume="anyway").wait()
    assert calls() == [0, 1, 2]
    ff.run(second, range(3), name="r", on="serial").wait()  # it is known now
    assert calls() == [0, 1, 2]
    ff.run(first, range(3), name="r", on="serial", resume="fresh").wait()
    assert calls() == [0, 1, 2, 0, 1, 2]
    assert ff.Run.open("r.before-1").results() == [0, 1, 4]


def test_another_seed_is_another_run():
    """Results of one seed are not mixed with those of another."""
    ff.run(abs, [1], name="r", seed=1, on="serial").wait()
    with pytest.raises(ff.RunChanged, match="the seed is 2 now, and was 1"):
        ff.run(abs, [1], name="r", seed=2, on="serial")


def test_stop_at_the_first_failure(calls):
    """``errors="raise"`` stops the run after a failure; what is missing can go on later."""
    run = ff.run(square_and_tell(calls.path, {1}), range(50), on="serial", errors="raise").wait()
    assert run.status().failed == 1
    assert run.status().missing > 0


# Drivers ------------------------------------------------------------------------------------------

SCRIPT = """
import sys, time
from pathlib import Path
import fanfold as ff

def task(n):
    with open("calls", "a") as out:
        print(n, file=out)
    while not Path("gate").exists():
        time.sleep(0.01)
    return n * n

if __name__ == "__main__":
    run = ff.run(task, range(6), name="shared", workers=2)
    print("begun", flush=True)
    run.wait()
    print(run.results())
"""


# Says when the main thread stands in `wait`: Ctrl-C before that would not be its concern.
WAITS = """
import sys, threading, time

def joins(frame):
    join = threading.Thread.join.__code__
    return frame is not None and (frame.f_code is join or joins(frame.f_back))

def tell(main):
    while not joins(sys._current_frames()[main]):
        time.sleep(0.001)
    print("waits", flush=True)

threading.Thread(target=tell, args=[threading.get_ident()], daemon=True).start()
"""


@pytest.fixture
def script(here):
    (here / "script.py").write_text(textwrap.dedent(SCRIPT))
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "script.py"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until_two_tasks_began():
    calls = Path("calls")
    until(lambda: calls.exists() and len(calls.read_text().split()) >= 2, "two tasks to begin")


def test_a_second_driver_is_refused(script):
    """A run that is being worked on is refused, by the process and the host that work on it."""
    first = script()
    assert first.stdout.readline() == "begun\n"
    second = script()
    _, told = second.communicate(timeout=60)
    assert second.returncode == 1
    assert f"process {first.pid} on" in told
    Path("gate").touch()
    assert first.communicate(timeout=60)[0].strip() == str([n * n for n in range(6)])


def test_a_dead_driver_is_taken_over(script):
    """A driver that was killed is proved dead: the next one goes on at once."""
    first = script()
    assert first.stdout.readline() == "begun\n"
    until_two_tasks_began()
    first.kill()
    first.wait()
    assert ff.Run.open("shared").status().state == "unfinished"
    Path("gate").touch()
    done, told = script().communicate(timeout=60)
    assert done.splitlines()[1] == str([n * n for n in range(6)]), told


def test_status_and_cancel_from_elsewhere(script, calls):
    """Another process sees what each worker does, and can stop the run; what is done stays."""
    driver = script()
    assert driver.stdout.readline() == "begun\n"
    run = ff.Run.open("shared")
    until_two_tasks_began()
    until(lambda: sum(w.task is not None for w in run.status().workers) == 2, "two busy workers")
    status = run.status()
    assert (status.state, status.driver[1], status.done) == ("running", driver.pid, 0)
    assert {worker.task for worker in status.workers} == set(calls())
    run.cancel()
    _, told = driver.communicate(timeout=60)
    assert driver.returncode == 1
    assert "RunCancelled" in told
    assert (run.status().state, run.status().why) == ("unfinished", "cancelled")


def test_cancel_here():
    """`cancel` stops the run of this process, and waits until it has stopped."""
    gate = threading.Event()
    run = ff.run(gate.wait, [30] * 4, workers=2, on="threads")
    until(lambda: run.status().state == "running", "the run to begin")
    gate.set()
    run.cancel()
    assert run.status().state in ("unfinished", "done")
    assert not run.is_driven()


def test_ctrl_c_while_waiting(script):
    """Ctrl-C in `wait` stops the run and raises KeyboardInterrupt; its workers are gone."""
    begun = 'print("begun", flush=True)\n'
    assert begun in SCRIPT
    Path("script.py").write_text(SCRIPT.replace(begun, f"exec({WAITS!r}, {{}})\n"))
    driver = script()
    assert driver.stdout.readline() == "waits\n"
    until_two_tasks_began()
    driver.send_signal(signal.SIGINT)
    _, told = driver.communicate(timeout=60)
    assert driver.returncode != 0
    assert told.strip().endswith("KeyboardInterrupt")
    assert ff.Run.open("shared").status().why == "interrupted"


@PLACES
def test_a_program_that_does_not_wait(here, on):
    """A program that begins a run and ends without waiting ends when the run does."""
    program = f"import fanfold as ff; ff.run(abs, range(100), name='r', on={on!r}, chunk=1)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert ff.Run.open("r").results() == list(range(100))


def test_wait_has_a_limit(script):
    """`wait(timeout)` raises TimeoutError, here and for a run that another process drives."""
    gate = threading.Event()
    run = ff.run(gate.wait, [30], on="threads")
    with pytest.raises(TimeoutError, match="has not ended"):
        run.wait(0.05)
    gate.set()
    run.wait()
    assert script().stdout.readline() == "begun\n"
    with pytest.raises(TimeoutError):
        ff.Run.open("shared").wait(0.1)


# Tables -------------------------------------------------------------------------------------------


def test_results_as_a_table(here):
    """Inputs, the named parts of results, and failures are columns; CSV, JSON Lines and pandas."""

    def fit(n):
        return {"n": n, "inverse": 1 / n}

    table = ff.run(fit, [2, 0, 4], on="threads").wait().table()
    assert table.header == ["index", "input", "n", "inverse", "error"]
    assert table.rows[1] == [1, 0, None, None, "ZeroDivisionError: division by zero"]
    table.to_csv("table.csv")
    assert Path("table.csv").read_text().splitlines()[:2] == [
        "index,input,n,inverse,error",
        "0,2,2,0.5,",
    ]
    table.to_jsonl("table.jsonl")
    assert json.loads(Path("table.jsonl").read_text().splitlines()[2])["inverse"] == 0.25
    frame = pytest.importorskip("pandas") and table.to_pandas()
    assert list(frame["inverse"].dropna()) == [0.5, 0.25]


# The folder ---------------------------------------------------------------------------------------


def test_private_folder(here):
    """The folder is 0700 and its files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        ff.run(print, ["hello"], name="r").wait()
    finally:
        os.umask(before)
    modes = {
        stat.S_IMODE(path.lstat().st_mode): path
        for path in [here / "fanfold-runs/r", *(here / "fanfold-runs/r").rglob("*")]
    }
    assert set(modes) == {0o700, 0o600}


def test_few_files(here):
    """A hundred thousand small tasks stay under a hundred files."""
    ff.run(lambda n: n, range(100_000), name="many").wait()
    assert sum(path.is_file() for path in Path("fanfold-runs/many").rglob("*")) < 100


@pytest.mark.parametrize("name", ["a b", "it's", 'say "x"', "../up", "line\nfeed", "naïve ☃", "-x"])
def test_any_name(here, name):
    """Any name names one run, and never leaves the folder of the runs."""
    ff.run(abs, [-1], name=name, on="serial").wait()
    assert ff.Run.open(name).results() == [1]
    assert [path.parent for path in here.rglob("run.json")] == [
        here / "fanfold-runs" / path.parent.name for path in here.rglob("run.json")
    ]


def test_no_such_run():
    """A name that there is no run of is told, with those that come near."""
    ff.run(abs, [-1], name="march", on="serial").wait()
    with pytest.raises(ff.RunNotFound, match="march"):
        ff.Run.open("marsh")


def test_time_runs_out_of_order(monkeypatch):
    """A clock that jumps back (L60, R14) changes no result and no order of the records."""
    times = iter(range(2_000_000_000, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(times)))
    run = ff.run(lambda n: n, range(20), name="r", on="serial")
    assert run.results() == list(range(20))
    assert ff.Run.open("r").retry().status().done == 20
