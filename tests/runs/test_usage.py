"""What an element is measured to use, against real processes whose use is known."""

from __future__ import annotations

import json
import os
import platform
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import fanfold as ff
from fanfold.errors import RunDamaged
from fanfold.history import Element, History
from fanfold.reports.words import size
from fanfold.runs import usage
from fanfold.runs.usage import Meter, write_usage

MB = 1 << 20
TICKS = 0.03  # seconds: the kernel tells of others in ticks of 10 ms

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere the system tells less, and says so"
)

# A program that measures itself. `child` starts a process that obeys: it runs the lines that it is
# sent, and answers each when it has done so.
PROGRAM = """
import json, os, subprocess, sys, time
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from fanfold.runs import usage
from fanfold.runs.usage import Meter

MB = 1 << 20
OBEY = '''
import mmap, os, subprocess, sys, time
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass

def spent():
    return sum(sum(getrusage(who)[:2]) for who in (RUSAGE_SELF, RUSAGE_CHILDREN))

def obey():
    for line in sys.stdin:
        exec(line, globals())
        print(globals().pop("answer", None), flush=True)
'''
exec(OBEY)

class Child:
    def __init__(self):
        code = f"OBEY = {OBEY!r}" + OBEY + "obey()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def do(self, line):
        self.process.stdin.write(line + chr(10))
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self):
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.stdout.close()
        self.process.wait()

meter = Meter(4, 8 << 30, 3600)
told = {}
"""

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run() -> Run:
    """Runs a program that measures itself; what it puts into ``told``."""

    def run(code: str, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", f"{PROGRAM}\n{code}\nprint(json.dumps(told))", *arguments],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


# ---- time


def test_says_what_was_asked_and_how_it_was_measured(run):
    """Beside what is used stands what was asked for, and how the numbers were made."""
    told = run("told = meter.usage()")
    assert (told["cores"], told["memory"], told["walltime"]) == (4, 8 << 30, 3600)
    assert told["how"] == (
        "CPU time of the processes; memory of the processes, what they share counted once; looks: 1"
    )


def test_seconds_count_from_the_start_of_the_process(run):
    """What went by before there was a meter belongs to the walltime, too."""
    before = time.monotonic()
    told = run("""
burn(0.5)
told = {"used": usage.Meter(1).usage()["seconds"], "now": time.monotonic()}
""")
    assert 0.5 <= told["used"] < told["now"] - before + 0.03


# ---- CPU time


def test_children_that_come_and_go_between_looks(run):
    """What ended between two looks is counted, and what was seen and then waited for only once."""
    told = run("""
meter.sample()
for _ in range(4):
    child = Child()
    child.do("burn(0.1)")
    meter.sample()
    child.do("burn(0.1)")
    child.end()
told = {"used": meter.usage()["cpu"], "spent": spent()}
""")
    assert told["spent"] > 0.8
    assert told["used"] == pytest.approx(told["spent"], abs=0.15)


def test_whole_tree_is_counted(run):
    """Children's children are counted, those that live and those that their parents waited for."""
    told = run("""
child = Child()
child.do("subprocess.run([sys.executable, '-c', 'for _ in range(10_000_000): 0'])")
child.do("inner = subprocess.Popen(['sleep', '60'])")
answer = float(child.do("answer = spent()"))
told = {"used": meter.usage()["cpu"], "spent": answer + spent()}
child.do("inner.kill(); inner.wait()")
child.end()
""")
    assert told["spent"] > 0.1
    assert told["used"] == pytest.approx(told["spent"], abs=0.1)


ORPHAN = """
(read, write), (go_read, go_write) = os.pipe(), os.pipe()
between = subprocess.Popen(
    [sys.executable, "-c", OBEY + '''
if os.fork() == 0:
    read, write, go = map(int, sys.argv[1:])
    burn(0.3)
    os.write(write, b"1")
    os.read(go, 1)
    burn(0.3)
    os.write(write, b"2")
    os.read(go, 1)
    os._exit(0)
sys.stdin.read()
''', str(read), str(write), str(go_read)],
    stdin=subprocess.PIPE, pass_fds=(read, write, go_read),
)
os.close(write)
os.read(read, 1)
seen = meter.usage()["cpu"]
between.communicate()          # it ends, and its child has another parent now
os.write(go_write, b"1")
os.read(read, 1)
orphan = meter.usage()["cpu"]
os.write(go_write, b"2")
os.read(read, 1)               # the end of the pipe: it has ended, and nobody of ours waited
burn(0.3)
told = {"seen": seen, "orphan": orphan, "after": meter.usage()["cpu"]}
"""


def test_orphans_stay_in_the_family(run):
    """A process whose parent has ended still counts, and what it used is kept when it is gone."""
    told = run(ORPHAN)
    assert told["seen"] > 0.25  # the kernel tells of others in ticks of 10 ms
    assert told["orphan"] > told["seen"] + 0.25
    assert told["orphan"] + 0.25 < told["after"] < told["orphan"] + 0.5


def test_nobody_waits(run):
    """Where a parent does not want to know of its children, what was seen of them is kept."""
    told = run("""
child = Child()
child.do("import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)")
child.do("code = OBEY + 'burn(0.3); print(1, flush=True); input()'")
child.do("inner = subprocess.Popen([sys.executable, '-c', code], stdin=-1, stdout=-1, bufsize=0)")
child.do("inner.stdout.read(1)")
before = meter.usage()["cpu"]
child.do("inner.communicate(b'1')")
burn(0.3)
told = {"before": before, "after": meter.usage()["cpu"]}
child.end()
""")
    assert told["before"] > 0.3
    assert told["before"] + 0.25 < told["after"] < told["before"] + 0.5


def test_killed_parent_takes_nothing_away(run):
    """L-row of a launcher that is killed: what was seen of it and of its children is not lost."""
    told = run("""
child = Child()
child.do("code = OBEY + 'burn(0.6); print(1, flush=True); time.sleep(60)'")
child.do("inner = subprocess.Popen([sys.executable, '-c', code], stdout=-1, bufsize=0)")
child.do("inner.stdout.read(1)")
child.do("burn(0.3)")
inner = int(child.do("answer = inner.pid"))
before = meter.usage()["cpu"]
child.process.kill()
child.process.wait()
os.kill(inner, 9)
child.end()
burn(0.3)
told = {"before": before, "after": meter.usage()["cpu"]}
""")
    assert told["before"] > 0.85
    assert told["after"] > told["before"] + 0.25


def test_workers_of_a_pool(run):
    """Of a real pool everything counts, also the work of workers that a task has ended."""
    told = run("""
import fanfold as ff

def work(index):
    burn(0.5)
    if index == 1:
        os._exit(3)

meter.sample()
results = ff.map(work, range(4), on="processes", workers=2, errors="return")
told = {"used": meter.usage()["cpu"], "died": sum(result is not None for result in results)}
""")
    assert told["died"] == 1
    assert 2.0 < told["used"] < 3.9


# ---- memory


def test_memory_of_all_processes_together(run):
    """The peak is what all processes have together, at one time."""
    told = run("""
usage._RARELY = 0
before = meter.usage()["peak"]
children = [Child() for _ in range(3)]
for child in children:
    child.do("data = bytearray(b'x') * (60 << 20)")
together = meter.usage()["peak"]
for child in children:
    child.do("del data")
for child in children[:2]:
    child.do("data = bytearray(b'x') * (60 << 20)")
told = {"grown": together - before, "after": meter.usage()["peak"] - before}
for child in children:
    child.end()
""")
    assert 180 * MB < told["grown"] < 240 * MB
    assert told["after"] == told["grown"]


def test_shared_memory_counts_once(run):
    """A segment that four processes have mapped and read is there once; so is what was forked."""
    told = run("""
import mmap
usage._RARELY = 0
base = meter.usage()["peak"]
shared = mmap.mmap(-1, 100 * MB)
shared.write(b"x" * (100 * MB))
own = bytearray(b"x") * (100 * MB)
ready, go = os.pipe(), os.pipe()
for _ in range(4):
    if os.fork() == 0:
        found = sum(shared[at] + own[at] for at in range(0, 100 * MB, 4096))
        os.write(ready[1], b".")
        os.read(go[0], 1)
        os._exit(0)
for _ in range(4):
    os.read(ready[0], 1)
told = {"grown": meter.usage()["peak"] - base}
os.write(go[1], b"....")
for _ in range(4):
    os.wait()
""")
    assert 200 * MB < told["grown"] < 260 * MB


def test_between_looks_at_what_is_shared(run):
    """Where it takes long to look at what is shared, what each has of its own is still looked at;
    what is shared meanwhile, and who is new, do not count: nothing is counted twice."""
    told = run("""
usage._RARELY = 1e9
child = Child()
child.do("shared = mmap.mmap(-1, 50 << 20); shared.write(b'x' * (50 << 20))")
before = meter.usage()["peak"]
child.do("data = bytearray(b'x') * (60 << 20)")
own = meter.usage()["peak"]
child.do("del data")
child.do("more = mmap.mmap(-1, 90 << 20); more.write(b'x' * (90 << 20))")
new = Child()
new.do("data = bytearray(b'x') * (70 << 20)")
told = {"own": own - before, "later": meter.usage()["peak"] - own}
child.end()
new.end()
""")
    assert 59 * MB < told["own"] < 66 * MB
    assert told["later"] == 0


def test_a_look_costs_little(run):
    """A look reads two small files of each process; what takes long, what they share, is looked at
    when that was long ago."""
    told = run("""
from collections import Counter
usage._RARELY = 1e9
sleepers = [subprocess.Popen(["sleep", "60"]) for _ in range(20)]
ours = {str(os.getpid()), *(str(sleeper.pid) for sleeper in sleepers)}
reads, read = Counter(), usage._read

def counted(path):
    number, name = path.split("/")[2:4]
    reads[name] += number in ours
    return read(path)

usage._read = counted
for _ in range(20):
    meter.sample()
told = reads
for sleeper in sleepers:
    sleeper.kill()
    sleeper.wait()
""")
    assert told == {"stat": 20 * 21, "statm": 20 * 21, "smaps_rollup": 21}


# ---- what can go wrong


def test_no_descriptor_is_free(run):
    """A meter never ends a run: what cannot be looked at is as it was, and nothing counts twice."""
    told = run("""
from resource import RLIMIT_NOFILE, setrlimit
child = Child()
child.do("burn(0.3)")
before = meter.usage()
held = []
try:
    while True:
        held.append(os.dup(0))
except OSError:
    pass
without = meter.usage()
for descriptor in held:
    os.close(descriptor)
child.end()
told = {"before": before, "without": without, "after": meter.usage(), "spent": spent()}
""")
    assert told["without"]["cpu"] == told["before"]["cpu"] > 0.3
    assert told["without"]["peak"] == told["before"]["peak"] > MB
    assert told["after"]["cpu"] == pytest.approx(told["spent"], abs=0.1)


def test_elsewhere_the_same_is_told():
    """Where there is no /proc, psutil tells the same of a process."""
    mine = usage._processes()[os.getpid()]
    same = usage._processes_elsewhere()[os.getpid()]
    later = usage._processes()[os.getpid()]
    assert same.parent == mine.parent == os.getppid()
    assert mine.own - TICKS <= same.own <= later.own + TICKS
    assert same.reaped == pytest.approx(mine.reaped, abs=TICKS)


# ---- control groups


def group(root: Path, lines: str, **files: str) -> None:
    """A pretend /proc/self/cgroup, and files of control groups; ``__`` is for what is no name."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(lines)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


STAT = "anon 300000000\nfile 5000000000\nshmem 100000000\n"
TOTAL = "cache 5000000000\nrss 1\ntotal_cache 7\ntotal_rss 300000000\ntotal_shmem 100000000\n"


@pytest.mark.parametrize(
    ("variable", "lines", "files"),
    [
        (
            ("SLURM_JOB_ID", "812"),
            "0::/system.slice/slurmstepd.scope/job_812/step_batch/user/task_0\n",
            {
                "system.slice/slurmstepd.scope/job_812/cpu.stat": "usage_usec 1000000000\nnr 2\n",
                "system.slice/slurmstepd.scope/job_812/memory.stat": STAT,
            },
        ),
        (
            ("SLURM_JOB_ID", "812"),
            "9:memory:/slurm/uid_1/job_812/step_batch\n4:cpu,cpuacct:/slurm/uid_1/job_812\n0::/x\n",
            {
                "cpu,cpuacct/slurm/uid_1/job_812/cpuacct.usage": "1000000000000\n",
                "memory/slurm/uid_1/job_812/memory.stat": TOTAL,
            },
        ),
        (
            ("PBS_JOBID", "12[4].pbshost"),
            "0::/pbs_jobs.service/jobid/12[4].pbshost\n",
            {
                "pbs_jobs.service/jobid/12[4].pbshost/cpu.stat": "usage_usec 1000000000\n",
                "pbs_jobs.service/jobid/12[4].pbshost/memory.stat": STAT,
            },
        ),
    ],
    ids=["slurm, unified", "slurm", "pbs"],
)
def test_control_group_of_the_job(tmp_path, monkeypatch, variable, lines, files):
    """A control group that bears the name of the job tells more; cached files are not needed."""
    monkeypatch.setenv(*variable)
    group(tmp_path, lines, **files)
    told = Meter(1, root=str(tmp_path)).usage()
    assert (told["cpu"], told["peak"]) == (1000.0, 400_000_000)
    assert told["how"].startswith("CPU time of the job's control group; memory of that group, ")


@pytest.mark.parametrize(
    ("variable", "lines"),
    [
        (("SLURM_JOB_ID", "812"), "0::/\n"),
        (("SLURM_JOB_ID", "812"), "0::/user.slice/job_8123\n"),
        (("SLURM_JOB_ID", ""), "0::/user.slice/job_\n"),
        (("PBS_JOBID", ""), "0::/user.slice/\n"),
        (("PBS_JOBID", "12.pbshost"), "0::/user.slice/112.pbshost\n"),
        (("FANFOLD_NO_JOB", "812"), "0::/job_None/812\n"),
        (("SLURM_JOB_ID", "812"), "0::/../gone/job_812\n"),
        (("SLURM_JOB_ID", "812"), ""),
    ],
)
def test_control_group_of_something_else(tmp_path, monkeypatch, variable, lines):
    """The group of the machine, of a user or of another job is worse than none: it is not taken."""
    monkeypatch.setenv(*variable)
    everywhere = ("", "user.slice", "user.slice/job_8123", "job_None", "job_None/812")
    files = {
        f"{folder}/{name}": content
        for folder in (*everywhere, "user.slice/job_", "user.slice/112.pbshost")
        for name, content in (("cpu.stat", "usage_usec 99000000000000\n"), ("memory.stat", STAT))
    }
    group(tmp_path, lines, **{name.lstrip("/"): content for name, content in files.items()})
    told = Meter(1, root=str(tmp_path)).usage()
    assert told["cpu"] < 10_000
    assert told["how"].startswith("CPU time of the processes; memory of the processes")


def test_group_that_tells_of_memory_only(tmp_path, monkeypatch):
    """What a group does not tell is measured of the processes, and that is said."""
    monkeypatch.setenv("SLURM_JOB_ID", "812")
    group(tmp_path, "0::/job_812\n", **{"job_812/memory.stat": STAT})
    told = Meter(1, root=str(tmp_path)).usage()
    assert told["peak"] == 400_000_000
    assert told["cpu"] < 10_000
    assert told["how"].startswith("CPU time of the processes; memory of that group, ")


# ---- the file


def history_of(*elements: Element) -> History:
    history = History("pi-1", "fanfold-runs/pi-1", "pi.py:inside", 9, 2, 0.0, asked={"on": "slurm"})
    history.elements = list(elements)
    return history


def test_file_beside_the_logs(tmp_path):
    """The file holds a line for each element that has ended; it is replaced whole, and private."""
    one = Element(1, "12", 0, "n1", "done", 3, 2, 1 << 30, 3600, 0.0, 60.0, 90.0, 100 * MB)
    path = write_usage(tmp_path, history_of(one))
    assert path == tmp_path / "_usage.txt"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_usage(tmp_path, history_of(one, one._replace(number=2, index=1, node="n\x1b[31m2")))
    text = path.read_text()
    assert [line.split()[0] for line in text.splitlines()[-2:]] == ["1", "2"]
    assert "#SBATCH --nodes=1 --ntasks-per-node=1 --cpus-per-task=2 --mem=128M" in text
    assert "\x1b" not in text
    assert os.listdir(tmp_path) == ["_usage.txt"]


def test_file_where_no_element_has_ended(tmp_path):
    """There is a file also while nothing has ended, which says that."""
    waiting = Element(1, "12", 0, "", "waiting", 3, 2, None, None)
    assert "No element has ended yet." in write_usage(tmp_path, history_of(waiting)).read_text()


def rows_of(run: ff.Run) -> dict[str, str]:
    """The lines of its file, by their first word."""
    lines = (run.path / "logs" / "_usage.txt").read_text().splitlines()
    return dict(line.split(None, 1) for line in lines)


def burn_on(megabytes: int) -> None:
    """Takes a tenth of a second of a core, and so much memory."""
    end = time.thread_time() + 0.1
    held = bytearray(b"1") * (megabytes * MB)
    while time.thread_time() < end:
        pass
    del held


def test_file_of_a_run_on_this_machine(tmp_path):
    """A run without a scheduler leaves the same summary beside its logs: where, how it ended, and
    what its tasks asked for and used. The peaks of worker processes add up."""
    run = ff.run(burn_on, [100] * 4, name="own", folder=tmp_path, workers=2, progress=False,
                 max_memory_per_worker="1GB").wait()  # fmt: skip
    rows = rows_of(run)
    assert rows["job"] == f"process {os.getpid()}: run own"
    assert rows["ended"] == "done, exit status 0, 4 tasks"
    assert rows["ran"].startswith(f"on    {platform.node()}, from ")
    assert rows["walltime"].endswith(", none asked for")
    [used] = re.findall(r"(\S+) of 2 \(\d+ %\)", rows["cores"])
    pieces = run.history().pieces
    assert sum(piece.cpu_time or 0 for piece in pieces) >= 0.4
    assert 0 <= float(used) <= 2.1
    peaks: dict[str, int] = {}
    for piece in pieces:
        peaks[piece.worker] = max(peaks.get(piece.worker, 0), piece.peak_memory or 0)
    assert rows["memory"].startswith(f"{size(sum(peaks.values()))} of 2.0 GB (")
    assert sum(peaks.values()) > 100 * MB * len(peaks)


def test_file_where_memory_is_not_known(tmp_path):
    """Threads have no memory of their own: what their tasks used is not known, and that is said."""
    run = ff.run(abs, [-1], folder=tmp_path, on="threads", progress=False).wait()
    assert rows_of(run)["memory"] == "unknown, none asked for"


def test_file_tells_how_it_ended(tmp_path):
    """A failure is an exit status of 1, Ctrl-C one of 130; tries that failed count as used, but
    not as tasks. The file is of the last driver."""

    def fragile(n):
        if not (tmp_path / "mended").exists():
            raise KeyboardInterrupt if n == 1 else ValueError(n)

    def ended(run):
        with suppress(KeyboardInterrupt):
            run.wait()
        return rows_of(run)["ended"]

    run = ff.run(fragile, [0], name="f", folder=tmp_path, on="serial", retries=1, progress=False)
    assert ended(run) == "failed, exit status 1, 1 task"
    other = ff.run(fragile, [0, 2, 1], folder=tmp_path, on="serial", chunk=1, progress=False)
    assert ended(other) == "interrupted, exit status 130, 2 tasks"
    (tmp_path / "mended").touch()
    assert ended(other.retry()) == "done, exit status 0, 3 tasks"


def test_folder_that_is_gone(tmp_path):
    """A folder that was removed is told as that."""
    with pytest.raises(RunDamaged, match="was moved or removed"):
        write_usage(tmp_path / "gone", history_of())
