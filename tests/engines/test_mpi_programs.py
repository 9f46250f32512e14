"""`ff.spmd` and `fanfold mpi`: MPI programs on real ranks, and what becomes of those that fail."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import fanfold as ff
from fanfold import mpi_programs
from fanfold.executors.mpi import wire
from fanfold.executors.mpi.launchers import launchers, without_ranks
from fanfold.executors.mpi.start import working_launcher
from fanfold.testing.functions import until

pytest.importorskip("mpi4py", reason="mpi4py is not installed here")

ROOT = Path(__file__).parents[2]
SECONDS = 60  # far more than any of these failures takes, far less than for ever


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache, where the launcher that works is remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fanfold" / "launchers.json"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Writes a program, such as a launcher."""

    def write(name, text):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)
        return path

    return write


def fanfold(*arguments):
    """What `fanfold ARGUMENTS` ends with and prints."""
    return subprocess.run(
        [sys.executable, "-m", "fanfold", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
    )


# What a program is ------------------------------------------------------------------------------


def test_every_rank_runs_the_function_and_results_are_by_rank():
    """spmd(func, ranks) returns what each rank returned, in the order of the ranks."""
    assert ff.spmd(lambda comm: (comm.rank, comm.size), 3) == [(0, 3), (1, 3), (2, 3)]


def test_the_communicator_is_real():
    """Ranks talk to one another through mpi4py's own communicator."""

    def program(comm, factor, *, offset):
        from mpi4py import MPI

        assert isinstance(comm, MPI.Intracomm)
        return comm.allreduce(factor * comm.rank + offset, op=MPI.MAX)

    assert ff.spmd(program, 3, 10, offset=1) == [21, 21, 21]


def test_four_ranks_by_default():
    """ranks is 4 unless it is said."""
    assert len(ff.spmd(lambda comm: None)) == 4


def test_large_arrays_go_there_and_back():
    """An array of 40 MB reaches every rank, which may change its copy; what they return arrives."""
    array = np.arange(5_000_000.0)

    def program(comm, array):
        array += comm.rank
        return array if comm.rank else array[::2]

    halved, whole = ff.spmd(program, 2, array)
    assert np.array_equal(halved, array[::2])
    assert np.array_equal(whole, array + 1)


def test_output_tells_its_rank(capfd):
    """Each line that a rank prints has its number in front, on the stream where it was printed."""

    def program(comm):
        print("one", "two")
        print("three", end="")
        print("wrong", file=sys.stderr)

    ff.spmd(program, 2)
    out, err = capfd.readouterr()
    assert sorted(out.splitlines()) == ["[0] one two", "[0] three", "[1] one two", "[1] three"]
    assert sorted(err.splitlines()) == ["[0] wrong", "[1] wrong"]


def test_ranks_share_the_cores():
    """What a rank's libraries may use is its share: ranks do not fight for cores."""
    shares = ff.spmd(lambda comm: (int(ff.cores()), os.environ["OMP_NUM_THREADS"]), 2)
    share = max(1, int(ff.cores()) // 2)
    assert shares == [(share, str(share))] * 2


@pytest.mark.parametrize("ranks", [0, -1, 1.5, True, "2"])
def test_the_number_of_ranks_is_checked(ranks):
    """ranks is a whole number from 1."""
    with pytest.raises(ff.UsageError, match="ranks must be a whole number from 1"):
        ff.spmd(lambda comm: None, ranks)


def test_only_functions_are_run():
    """What is no function is refused before any rank is started."""
    with pytest.raises(ff.UsageError, match="takes a function of the communicator, not 3"):
        ff.spmd(3)


# How a program fails ----------------------------------------------------------------------------


def test_an_exception_in_one_rank_is_raised_here(capfd):
    """The others, which wait for it, are ended; type, traceback and rank are those of the guilty,
    what was printed before is there, and what the launcher says of the end is not."""

    def program(comm):
        print("begun")
        if comm.rank == 1:
            {}["missing"]
        comm.Barrier()

    with pytest.raises(KeyError, match="missing") as caught:
        ff.spmd(program, 3)
    assert '{}["missing"]' in str(caught.value.__cause__)
    assert "raised by rank 1 of 3" in caught.value.__notes__[-1]
    out, err = capfd.readouterr()
    assert "[1] begun" in out
    assert set(re.sub(r"\[\d\] ", "", out).split()) == {"begun"}
    assert err == ""


def test_an_exception_that_cannot_be_rebuilt_is_told():
    """An exception that cannot be loaded here is a RemoteError with its type and text."""

    def program(comm):
        class StrangeError(Exception):
            def __reduce__(self):
                raise TypeError("no")

        raise StrangeError("told all the same")

    with pytest.raises(ff.RemoteError, match="told all the same"):
        ff.spmd(program, 2)


def test_a_result_that_cannot_be_sent_is_an_error_of_its_rank():
    """A rank that returns a lock raises NotSerializable, which names what cannot be sent."""
    with pytest.raises(ff.NotSerializable, match="lock"):
        ff.spmd(lambda comm: threading.Lock(), 2)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_rank_that_is_killed_is_an_error_in_seconds(number, capfd):
    """L01: a rank that dies is named, with its signal; nobody waits for it, and what its launcher
    prints about it is not taken for output."""

    def program(comm):
        if comm.rank == 1:
            os.kill(os.getpid(), number)
        comm.Barrier()

    began = time.monotonic()
    with pytest.raises(ff.WorkerDied, match="rank 1 of 3") as caught:
        ff.spmd(program, 3)
    assert time.monotonic() - began < SECONDS
    assert caught.value.exitcode == -number
    assert capfd.readouterr().out.strip() == ""


def test_a_rank_that_exits_is_an_error():
    """os._exit in one rank, with any status, is the death of that rank."""

    def program(comm):
        if comm.rank == 0:
            os._exit(0)
        comm.Barrier()

    with pytest.raises(ff.WorkerDied, match="rank 0 of 2"):
        ff.spmd(program, 2)


def test_interrupting_tells_where_each_rank_is(tmp_path, monkeypatch):
    """Ctrl-C ends a program whose ranks wait for one another for ever, and says where they wait."""
    monkeypatch.setattr(mpi_programs, "_ANSWER", 60.0)

    def program(comm, folder):
        mine = folder / str(comm.rank)
        return mine.touch(), comm.rank or comm.recv(source=1)  # which never sends

    def interrupt():
        until(lambda: len(list(tmp_path.glob("[01]"))) == 2, "the ranks to begin", 100)
        os.kill(os.getpid(), signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        ff.spmd(program, 2, tmp_path)
    interrupter.join()
    told = "\n".join(caught.value.__notes__)
    assert "comm.recv(source=1)" in told
    assert "rank 0 of 2" in told


def test_nothing_outlives_a_driver_that_is_killed(tmp_path):
    """L30: ranks and launcher end when the driver is killed by SIGKILL."""
    script = tmp_path / "driver.py"
    script.write_text(
        "import os, sys, time, pathlib, fanfold as ff\n"
        "def program(comm, folder):\n"
        "    (pathlib.Path(folder) / f'rank{os.getpid()}').touch()\n"
        "    time.sleep(1000)\n"
        "ff.spmd(program, 2, sys.argv[1])\n"
    )
    driver = subprocess.Popen([sys.executable, script, tmp_path])
    until(lambda: len(list(tmp_path.glob("rank*"))) == 2, "the ranks to begin", 100)
    ranks = [int(path.name.removeprefix("rank")) for path in tmp_path.glob("rank*")]
    driver.kill()
    driver.wait()
    until(lambda: not any(map(alive, ranks)), "the ranks to end")


def alive(pid):
    """Is there such a process? Orphans of a container without an init stay as zombies."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# How ranks are started --------------------------------------------------------------------------


def test_the_launcher_that_works_is_remembered(program, cache):
    """What has worked is tried first the next time, and what no longer works is forgotten."""
    real = working_launcher()
    assert list(json.loads(cache.read_text()).values()) == [real]
    other = program("mpirun", f'#!/bin/sh\nexec {real} "$@"\n')
    assert [launcher.name for launcher in launchers()][-1] == str(other)
    assert working_launcher() == real
    known = json.loads(cache.read_text())
    cache.write_text(json.dumps(dict.fromkeys(known, str(other))))
    assert working_launcher() == str(other)
    program("mpirun", "#!/bin/sh\nexit 1\n")
    assert working_launcher() == real
    assert real in json.loads(cache.read_text()).values()


def test_a_damaged_cache_is_no_reason_to_fail(cache):
    """What is remembered wrongly, or not readable, is as if nothing were remembered."""
    cache.parent.mkdir(parents=True)
    for content in ("{", "[]", '{"a": 1}'):
        cache.write_text(content)
        assert ff.spmd(lambda comm: comm.rank, 1) == [0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot be started"),
        ("#!/bin/sh\necho there is no network >&2; exit 7\n", "status 7: there is no network"),
        ("#!/bin/sh\nexit 0\n", "status 0 and said nothing"),
        ('#!/bin/sh\nshift 2\n"$@"\n', "each is rank 0 of 1: it does not belong to"),
    ],
    ids=["missing", "failing", "silent", "of another library"],
)
def test_a_launcher_that_does_not_work_is_told(program, monkeypatch, text, told):
    """No launcher works: StartupFailed within seconds, with what each said, and what to do."""
    path = program("mine", text) if text else "/nowhere/mpiexec"
    monkeypatch.setenv("FANFOLD_MPIEXEC", f"{path}")
    began = time.monotonic()
    with pytest.raises(ff.StartupFailed, match=re.escape(told)) as caught:
        ff.spmd(lambda comm: None, 2)
    assert time.monotonic() - began < SECONDS
    assert str(path) in str(caught.value)
    assert "FANFOLD_MPIEXEC=" in str(caught.value)


def test_the_user_may_name_the_launcher(program, monkeypatch):
    """FANFOLD_MPIEXEC is a command line, and the only launcher that is tried."""
    path = program("mine", f'#!/bin/sh\nshift\nexec {working_launcher()} "$@"\n')
    monkeypatch.setenv("FANFOLD_MPIEXEC", f"{path} --my-option")
    assert working_launcher() == f"{path} --my-option"


def test_without_mpi4py_the_remedy_is_told(monkeypatch):
    """mpi4py is not installed: one sentence with the command that installs it."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    with pytest.raises(ff.UsageError, match=r'mpi4py: pip install "fanfold\[mpi\]"'):
        ff.spmd(lambda comm: None)


def test_ranks_of_another_version_are_refused(monkeypatch):
    """Ranks with another fanfold: a typed error with both versions, before anything is sent."""
    theirs = ff.__version__
    monkeypatch.setattr(ff, "__version__", "9.9")
    with pytest.raises(ff.StartupFailed, match=rf"fanfold {theirs}, the driver .* fanfold 9\.9"):
        ff.spmd(lambda comm: None, 2)


def test_a_rank_starts_another_program():
    """spmd inside a rank starts ranks of its own, which know nothing of the outer ones."""

    def inner(comm):
        return comm.size

    assert ff.spmd(lambda comm, inner: ff.spmd(inner, 2), 1, inner) == [[2, 2]]


def test_what_makes_a_rank_is_not_handed_on():
    """Variables of MPICH, Open MPI and PMIx go; settings of the user stay."""
    of_rank = {"PMI_FD": "3", "PMIX_RANK": "0", "OMPI_COMM_WORLD_RANK": "1", "HYDI_CONTROL_FD": "4"}
    of_user = {"OMPI_MCA_btl": "tcp", "HOME": "/", "I_MPI_FABRICS": "shm"}
    assert without_ranks({**of_rank, **of_user}) == of_user


@pytest.mark.parametrize("liar", ["rank", "driver"])
def test_strangers_are_turned_away(liar):
    """Whoever does not know the secret is told from a rank, and from the driver."""
    secrets = {"rank": b"right", "driver": b"right"} | {liar: b"wrong"}
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = []

        def rank():
            try:
                wire.greet(theirs, secrets["rank"])
            except (wire.Stranger, EOFError) as error:
                found.append(error)

        thread = threading.Thread(target=rank)
        thread.start()
        with pytest.raises(wire.Stranger):
            wire.admit(ours, secrets["driver"])
        ours.close()
        thread.join()
    assert found


# fanfold mpi ------------------------------------------------------------------------------------

SCRIPT = """\
import sys
from mpi4py import MPI
comm = MPI.COMM_WORLD
print(sys.argv[1:], comm.allreduce(comm.rank), __name__)
if "raise" in sys.argv and comm.rank == 1:
    raise ValueError("rank one")
if "leave" in sys.argv and comm.rank == 1:
    sys.exit(3)
comm.Barrier()
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_a_script_runs_on_every_rank(script):
    """fanfold mpi -n 2 script.py runs it as the main program, with its arguments and options; its
    standard output is as it prints it."""
    done = fanfold("mpi", "-n", 2, script, "-n", "5", "--x", "y")
    assert done.stdout == "['-n', '5', '--x', 'y'] 1 __main__\n" * 2
    assert (done.returncode, done.stderr) == (0, "")


def test_a_script_with_labels(script):
    """--label puts the rank in front of each line."""
    done = fanfold("mpi", "-n", 2, "--label", script)
    assert sorted(done.stdout.splitlines()) == ["[0] [] 1 __main__", "[1] [] 1 __main__"]


def test_a_script_that_raises(script):
    """One rank raises: its traceback, which begins in the script, and its rank; status 1."""
    done = fanfold("mpi", "-n", 2, script, "raise")
    assert done.returncode == 1
    assert "rank 1 of 2" in done.stderr
    assert "ValueError: rank one" in done.stderr
    assert "runpy" not in done.stderr
    assert "BAD TERMINATION" not in done.stdout + done.stderr


def test_a_script_that_leaves(script):
    """sys.exit in one rank ends all, and its status is the command's."""
    done = fanfold("mpi", "-n", 2, script, "leave")
    assert done.returncode == 3
    assert "rank 1 left with status 3" in done.stderr


def test_a_script_that_is_not_there():
    """A missing script is status 2, before any rank is started."""
    done = fanfold("mpi", "nowhere.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no file nowhere.py" in done.stderr


# The examples -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("bars", "ranks", "area"), [(10, 2, "8.09175000"), (100, 3, "8.16201750")])
def test_the_area_under_a_curve(bars, ranks, area):
    """E11: the sum of the bars is the same on any number of ranks."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples/learn/e11_area.py", f"--bars={bars}", f"--ranks={ranks}"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout.splitlines()[-1] == f"area = {area}, exactly 8.175"


def test_pi_by_gather():
    """E10: every point is thrown, whatever the number of ranks; rank 0 alone tells."""
    done = fanfold(
        "mpi", "-n", 3, ROOT / "examples/learn/e10_pi_ranks.py", "--points=100001", "--seed=1"
    )
    assert [line.split(" of ")[1] for line in done.stdout.splitlines()[:3]] == [
        "33334 points inside",
        "33334 points inside",
        "33333 points inside",
    ]
    assert abs(float(re.search(r"pi = ([\d.]+)", done.stdout)[1]) - 3.1416) < 0.05
