"""The command ``fanfold`` as its users meet it: real processes, exit statuses, two outputs."""

import json
import os
import re
import signal
import subprocess
import sys

import psutil
import pytest

import fanfold
from fanfold.testing.functions import until

TASKS = """
import os, sys, threading, time
import helper
import fanfold as ff

lock = threading.Lock()
number = 5

def square(x):
    return x * x

def name_of(path):
    return f"<{path}>"

def add(x, y=1):
    return {"sum": x + y}

def draw(x):
    return int(ff.rng().integers(1_000_000))

def guarded(x):
    with lock:
        return helper.double(x)

def chatty(x):
    print(f"Python says {x}", flush=True)
    os.system("echo the shell says")
    return x

def picky(x):
    if x % 3 == 0:
        raise ValueError(f"no multiple of three: {x}")
    return x

def deadly(x):
    if x == 2:
        os.kill(os.getpid(), 9)
    return x

def flaky(path):
    with open(path, "a+") as file:
        file.seek(0)
        tries = len(file.read())
        file.write("x")
    if tries < 2:
        raise OSError("not yet")
    return tries

def fail_or_wait(x):
    if x == 0:
        raise ValueError("no")
    time.sleep(300)

def wait_from_two(x):
    if x >= 2:
        print("waiting", file=sys.stderr, flush=True)
        time.sleep(300)
    return x
"""


@pytest.fixture
def folder(tmp_path):
    """A user's folder, with a file of tasks and its sibling."""
    (tmp_path / "work.py").write_text(TASKS)
    (tmp_path / "helper.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "table.csv").write_text("x,y\n1,2\n3,0.5\n")
    return tmp_path


@pytest.fixture
def run(folder):
    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "fanfold", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=100,
            cwd=folder,
            env=os.environ | environment,
        )

    return run


def rows(done):
    return [line.split("\t") for line in done.stdout.splitlines()]


def records(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


PLACES = pytest.mark.parametrize("place", ["serial", "threads", "processes", "local", "auto"])


# What comes out -----------------------------------------------------------------------------------


@PLACES
def test_results_are_the_same_everywhere(run, place):
    """The table is the same, in the order of the inputs, wherever the tasks ran."""
    done = run("run", "work.py:square", "--range", "1-20", "--on", place, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert rows(done) == [
        ["index", "input", "result"],
        *([str(i), str(i + 1), str((i + 1) ** 2)] for i in range(20)),
    ]


@PLACES
def test_a_file_may_use_its_siblings_and_what_cannot_be_sent(run, place):
    """A target's file works as it does under Python: sibling modules, locks at module level."""
    done = run("run", "work.py:guarded", 1, 2, "--on", place, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert [row[2] for row in rows(done)[1:]] == ["2", "4"]


def test_a_file_in_another_folder(run, folder):
    """A target may be named by a path; its siblings are found beside it."""
    (folder / "sub").mkdir()
    (folder / "work.py").rename(folder / "sub" / "work.py")
    (folder / "helper.py").rename(folder / "sub" / "helper.py")
    done = run("run", "sub/work.py:guarded", 1, 2, "--on", "processes")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", ["work:guarded", "pack.inner:double", "math:sqrt"])
def test_a_module_by_name(run, folder, target):
    """A module is found in the current folder, in a package, or among those installed."""
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").touch()
    (folder / "helper.py").rename(folder / "pack" / "inner.py")
    (folder / "helper.py").write_text("from pack.inner import double\n")
    done = run("run", target, 4, 9, "--on", "processes")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("place", ["serial", "threads", "processes"])
def test_the_seed_decides_the_random_numbers(run, place):
    """The same ``--seed`` gives the same numbers anywhere and for any workers."""
    draws = run("run", "work.py:draw", "--range", "1-8", "--seed", 7, "--on", "serial").stdout
    again = run("run", "work.py:draw", "--range", "1-8", "--seed", 7, "--on", place, "--workers", 3)
    assert len(set(draws.split())) > 8
    assert again.stdout == draws


def test_inputs_that_look_like_numbers_but_are_names(run):
    """007 stays text, and the numbers beside it too."""
    done = run("run", "work.py:name_of", "007", "10", "--quiet")
    assert [row[2] for row in rows(done)[1:]] == ["<007>", "<10>"]


def test_inputs_that_begin_with_a_dash(run):
    """Behind -- an input may begin with a dash."""
    done = run("run", "work.py:square", "--", -3, -4)
    assert [row[2] for row in rows(done)[1:]] == ["9", "16"]


def test_a_row_is_keyword_arguments(run):
    """The rows of a table become keyword arguments, and columns of the results."""
    done = run("run", "work.py:add", "--over", "table.csv")
    assert rows(done) == [
        ["index", "x", "y", "sum"],
        ["0", "1", "2.0", "3.0"],
        ["1", "3", "0.5", "3.5"],
    ]


def test_params_are_a_product(run):
    """``--param`` gives every combination as keyword arguments."""
    done = run("run", "work.py:add", "--param", "x=1,2", "--param", "y=10,20", "--json")
    assert [record["result"]["sum"] for record in records(done)] == [11, 21, 12, 22]
    assert records(done)[1]["input"] == {"x": 1, "y": 20}


def test_out_and_json_agree(run, folder):
    """``--out`` holds what ``--json`` prints, failed tasks included."""
    done = run("run", "work.py:picky", "--range", "1-5", "--json", "--out", "out.jsonl")
    assert done.returncode == 1
    assert (folder / "out.jsonl").read_text() == done.stdout
    assert records(done)[2] == {
        "index": 2,
        "input": 3,
        "error": "ValueError: no multiple of three: 3",
    }


@pytest.mark.parametrize("place", ["serial", "threads", "processes"])
def test_what_tasks_print_is_not_data(run, place):
    """Standard output holds results only: what tasks print is in the logs of the run; what only the
    descriptors show (a shell that is called) too, where tasks have processes of their own."""
    done = run("run", "work.py:chatty", 1, 2, "--on", place, "--json", "--name", "chat")
    assert [record["result"] for record in records(done)] == [1, 2]
    logs = run("logs", "chat").stdout
    assert sorted(re.findall("Python says [12]", logs)) == ["Python says 1", "Python says 2"]
    where = logs if place == "processes" else done.stderr
    assert re.findall("the shell says", where) == ["the shell says"] * 2


def test_a_full_disk(run, folder):
    """Results that cannot be written are told about, in words, with exit status 1."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fanfold", "run", "work.py:square", "1", "--out", "out.csv"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=100,
            cwd=folder,
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "out.csv").read_text() == "index,input,result,error\n0,1,1,\n"


def test_a_terminal_gets_an_aligned_table(folder):
    """In a terminal the columns are aligned, numbers to the right."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "fanfold", "run", "work.py:square", "1", "12"]
    environment = os.environ | {"NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(command, stdout=theirs, cwd=folder, timeout=100, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # how Linux tells that the other end is closed
        pass
    os.close(ours)
    assert done.returncode == 0
    lines = [line.rstrip() for line in shown.decode().splitlines()]
    assert lines == ["index  input  result", "    0      1       1", "    1     12     144"]


def test_a_terminal_without_the_letters(run):
    """A result that the output's encoding does not have is shown by its codes, not an error."""
    done = run("run", "work.py:name_of", "é", "--quiet", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert rows(done)[1] == ["0", r"\xe9", r"<\xe9>"]


# What is told -------------------------------------------------------------------------------------


def test_the_summary_is_not_data(run):
    """Tasks, times, speed-up, slowest and memory go to standard error; ``--quiet`` drops them."""
    arguments = ("run", "work.py:square", "--range", "1-4", "--on", "processes", "--workers", 2)
    told = run(*arguments).stderr
    assert "4 tasks: 4 done, 0 failed" in told
    assert re.search(r"wall time \S+, work time \S+, speed-up \d+\.\d\d on [12] worker", told)
    assert re.search(r"slowest: task \d \(\d\) \S+", told)
    assert re.search(r"peak memory of a worker: \d+\.\d MB", told)
    assert run(*arguments, "--quiet").stderr == ""


@pytest.mark.parametrize("place", ["serial", "threads", "processes"])
def test_a_failure_is_told_and_the_rest_is_done(run, place):
    """A failed task costs no other: it is told by index, input, exception and traceback."""
    done = run("run", "work.py:picky", "--range", "1-7", "--on", place, "--workers", 2)
    assert done.returncode == 1
    assert [row[0] for row in rows(done)[1:]] == ["0", "1", "3", "4", "6"]
    assert "failed: task 2, input 3: ValueError: no multiple of three: 3" in done.stderr
    assert "failed: task 5, input 6: ValueError: no multiple of three: 6" in done.stderr
    assert "task 2, and 1 more like it:" in done.stderr
    assert done.stderr.count("Traceback") == 1
    assert "in picky" in done.stderr
    assert os.path.dirname(fanfold.__file__) not in done.stderr


def test_errors_raise_stops_at_the_first(run):
    """``--errors raise`` stops what runs at the first failure, and says what was not done."""
    arguments = ("--errors", "raise", "--on", "processes", "--workers", 2)
    done = run("run", "work.py:fail_or_wait", 0, 1, 2, 3, *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "failed: task 0, input 0: ValueError: no" in done.stderr
    assert "4 tasks: 0 done, 1 failed, 3 not finished" in done.stderr


def test_a_dead_worker_costs_one_task(run):
    """A task that kills its worker fails alone, by name."""
    done = run("run", "work.py:deadly", "--range", "1-6", "--on", "processes", "--workers", 2)
    assert done.returncode == 1
    assert [row[1] for row in rows(done)[1:]] == ["1", "3", "4", "5", "6"]
    assert "failed: task 1, input 2: WorkerDied" in done.stderr
    assert "SIGKILL" in done.stderr


def test_retries(run, folder):
    """``--retries`` tries a failed task again before it counts as failed."""
    arguments = ("run", "work.py:flaky", folder / "tries", "--on", "serial")
    done = run(*arguments, "--retries", 1)
    assert done.returncode == 1
    assert "(attempt 2)" in done.stderr
    (folder / "tries").unlink()
    assert run(*arguments, "--retries", 2).returncode == 0


def test_timeout(run):
    """A task that takes longer than ``--timeout`` fails alone, and the command ends."""
    done = run("run", "work.py:wait_from_two", 0, 1, 2, "--timeout", "4s", "--on", "processes")
    assert done.returncode == 1
    assert [row[1] for row in rows(done)[1:]] == ["0", "1"]
    assert "failed: task 2, input 2: TaskTimeout" in done.stderr


# Ctrl-C -------------------------------------------------------------------------------------------


def command(*arguments, folder):
    """The command as a process of its own, and the leader of its group, as in a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "fanfold", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("place", ["processes", "threads"])
@pytest.mark.parametrize("everybody", [True, False], ids=["group", "driver"])
def test_ctrl_c_keeps_what_is_done(folder, place, everybody):
    """One Ctrl-C, to the whole group as a terminal sends it or to the command alone: what is done
    is printed and written, the exit status is 130, and no process is left."""
    arguments = ["run", "work.py:wait_from_two", *"0123456", "--on", place, "--workers", "3"]
    with command(*arguments, "--json", "--out", "out.jsonl", folder=folder) as process:
        lines = [process.stdout.readline(), process.stdout.readline()]
        family = psutil.Process(process.pid).children(recursive=True)
        if everybody:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        rest, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert [json.loads(line)["result"] for line in lines] == [0, 1]
    assert rest == ""
    assert (folder / "out.jsonl").read_text() == "".join(lines)
    assert "interrupted: 7 tasks: 2 done, 0 failed, 5 not finished" in told
    assert "Traceback" not in told
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []


def test_ctrl_c_in_the_own_process(folder):
    """Ctrl-C stops a task of the serial place in its middle; what was reported is printed."""
    arguments = ["run", "work.py:wait_from_two", *"0123456", "--on", "serial"]
    with command(*arguments, folder=folder) as process:
        logs = folder / "fanfold-runs/work.wait_from_two-1/logs"
        until(lambda: b"waiting" in b"".join(log.read_bytes() for log in logs.glob("*")), "a task")
        process.send_signal(signal.SIGINT)
        shown, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert shown.startswith("index\tinput\tresult\n0\t0\t0\n")
    assert "interrupted: 7 tasks" in told
    assert "Traceback" not in told


def test_ctrl_c_before_any_work(folder):
    """Ctrl-C while the target loads ends the command with 130, without a traceback."""
    (folder / "slow.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(300)\n")
    with command("run", "slow.py:f", "1", folder=folder) as process:
        assert process.stderr.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told.strip() == "fanfold: interrupted"


def test_a_reader_that_has_enough(folder):
    """When the reader of the output leaves, as head does, the command ends without a traceback."""
    done = subprocess.run(
        f"{sys.executable} -m fanfold run work.py:square --range 1-50000 --on serial | head -n 2",
        shell=True,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout == "index\tinput\tresult\n0\t1\t1\n"
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr


# The other commands -------------------------------------------------------------------------------


def test_version_and_help(run):
    """``--version`` tells the version; -h and --help are the same, for each command."""
    assert run("--version").stdout == f"fanfold {fanfold.__version__}\n"
    for command in ((), ("run",), ("cores",), ("demo",)):
        short, long = run(*command, "-h"), run(*command, "--help")
        assert short.returncode == 0
        assert short.stdout == long.stdout != ""


def test_without_a_command(run):
    """``fanfold`` alone shows its help, and that nothing was asked of it by its exit status."""
    done = run()
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Commands:" in done.stderr


def test_cores(run):
    """``fanfold cores`` tells the number and why; ``--json`` for programs."""
    environment = {"SLURM_CPUS_PER_TASK": "1", "NCPUS": "many"}
    told = run("cores", **environment).stdout
    assert told.startswith("1 core may be used, because of")
    assert "ignored: 'many'" in told
    found = json.loads(run("cores", "--json", **environment).stdout)
    assert found["cores"] == 1
    limits = {reason["source"]: reason["limit"] for reason in found["reasons"]}
    assert limits["SLURM_CPUS_PER_TASK"] == 1
    assert limits["NCPUS"] is None


def test_demo(run):
    """The demo gives the same digits on one worker and on all, and a speed-up."""
    done = run("demo", "--points", 1_000_001, "--seed", 1)
    assert done.returncode == 0, done.stderr
    digits = re.findall(r"pi is about (3\.1\d+)", done.stdout)
    if fanfold.cores() > 1:
        assert digits[0] == digits[1]
        assert re.search(r"speed-up \d+\.\d\d on \d+ cores", done.stdout)
    assert run("demo", "--points", 1_000_001, "--seed", 2).stdout != done.stdout
