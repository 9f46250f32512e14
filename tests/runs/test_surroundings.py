"""What is around a run goes wrong: the disk, the folder, the clock, the process it begins in."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import fanfold as ff
from fanfold.cli import main
from fanfold.runs.state import read_state
from fanfold.store.directory import RunDirectory
from fanfold.testing.functions import until

TINY = 1_000_000


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# The disk -----------------------------------------------------------------------------------------


@contextmanager
def small_files() -> Iterator[None]:
    """No file may become longer than 256 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 << 10, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def small_disk() -> Iterator[None]:
    """The runs are on a disk of 400 KiB, which is made larger afterwards."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    folder = Path("fanfold-runs")
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k,mode=0700", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a disk cannot be mounted here")
    yield
    subprocess.run(["mount", "-o", "remount,size=20m", str(folder)], check=True)


@pytest.fixture
def _mounts(tmp_path: Path) -> Iterator[None]:
    yield
    subprocess.run(["umount", str(tmp_path / "fanfold-runs")], capture_output=True)


@pytest.mark.usefixtures("_mounts")
@pytest.mark.parametrize("on", ["serial", "threads"])
@pytest.mark.parametrize("small", [small_files, small_disk])
def test_no_room_for_results(small, on: str) -> None:
    """R16, R26: when the disk is full, or a quota met, in the middle of a run it ends with an error
    that names the file and the remedy; what is recorded is there, and when there is room the run
    goes on, in the same process and in any other."""

    def large(n: int) -> bytes:
        with open("calls", "a") as out:
            print(n, file=out)
        return bytes([n]) * 40_000

    with small():
        run = ff.run(large, range(20), name="r", on=on, workers=1, chunk=1, progress=False)
        with pytest.raises(ff.NoSpace, match=r"results/e0-a1.pack: free some space"):
            run.wait()
        state = read_state(RunDirectory.open(run.path))
        assert 3 <= state.done < 20
        assert run.status().state == "unfinished"  # nobody works on it, seen from here
    recorded = [n for n in range(20) if state.status[n]]
    before = len(Path("calls").read_text().split())
    elsewhere = subprocess.run(
        [sys.executable, "-c", "import fanfold as ff; print(ff.Run.open('r').status().state)"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert elsewhere.stdout == "unfinished\n", elsewhere.stderr
    assert run.retry().results() == [bytes([n]) * 40_000 for n in range(20)]
    begun = list(map(int, Path("calls").read_text().split()))
    assert sorted(begun[before:]) == [n for n in range(20) if n not in recorded]


@pytest.mark.usefixtures("_mounts")
def test_no_room_to_begin() -> None:
    """R16: a run that cannot be made is not there, not even in part."""
    with small_disk(), pytest.raises(ff.NoSpace, match="free some space"):
        ff.run(len, [os.urandom(50_000) for _ in range(20)], name="r", on="serial")
    assert list(Path("fanfold-runs").iterdir()) == []
    assert ff.run(len, [b"abc"], name="r", on="serial").results() == [3]


@contextmanager
def nobody(*open_folders: Path) -> Iterator[None]:
    """Root may do everything, so it becomes nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    above = [path for folder in open_folders for path in folder.resolve().parents]
    before = {path: stat.S_IMODE(path.stat().st_mode) for path in above}
    for path in above:
        path.chmod(before[path] | 0o711)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for path in above:
            path.chmod(before[path])


def test_a_folder_that_may_not_be_written() -> None:
    """R17: a run in a folder that is read-only can be looked at; to go on, or to make one there, is
    an error that names the folder."""
    ff.run(lambda n: 1 // n, [1, 0], name="r", on="serial", progress=False).wait()
    ff.Run.open("r").report()
    runs = Path("fanfold-runs")
    for path in (runs, *runs.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with nobody(runs / "r"):
        run = ff.Run.open("r", trust=True)
        assert (run.status().done, run.status().failed) == (1, 1)
        assert "r" in run.report()
        assert run.results(errors="return")[0] == 1
        with pytest.raises(ff.RunReadOnly, match="leases"):
            run.retry()
        with pytest.raises(ff.RunReadOnly, match="fanfold-runs"):
            ff.run(len, ["a"], name="new", on="serial")
    for path in (runs, *runs.rglob("*")):
        path.chmod(0o755)


@pytest.mark.parametrize("what", ["moved", "removed"])
def test_a_folder_that_goes(tmp_path: Path, start, told, what: str) -> None:
    """R17: the folder of a run is moved or removed while it is driven: the driver ends within
    seconds, with an error that says so; a folder that was moved is whole where it is now."""
    script = """
    import time, fanfold as ff
    def task(n):
        time.sleep(0.05)
        return n
    if __name__ == "__main__":
        ff.run(task, range(2000), name="r", on="processes", workers=2, progress=False).wait()
    """
    (tmp_path / "s.py").write_text("\n".join(line[4:] for line in script.splitlines()))
    driver = start("s.py")
    until(lambda: len(told().recorded()) > 2, "some records")
    folder = Path("fanfold-runs/r")
    folder.rename("elsewhere")
    if what == "removed":
        import shutil

        shutil.rmtree("elsewhere")
    assert driver.end() == 1
    assert "RunDamaged" in driver.err.splitlines()[-1]
    assert "was moved or removed" in driver.err.splitlines()[-1]
    if what == "moved":
        run = ff.Run.open("elsewhere")
        assert run.status().state == "unfinished"
        assert run.results(errors="return")[0] == 0


# The process --------------------------------------------------------------------------------------

TASK = """
import sys
def task(n):
    print("out", n)
    print("err", n, file=sys.stderr)
    return n * n
"""


@pytest.mark.parametrize("umask", ["000", "077", "777"])
def test_any_umask(start, tmp_path: Path, umask: str) -> None:
    """X02: folders are 0700 and files 0600 whatever the umask, those of workers too."""
    (tmp_path / "t.py").write_text(TASK)
    (tmp_path / "calls").mkdir()
    driver = start(
        "-m", "fanfold", "run", "t.py:task", "1", "2", "--name", "r", "--on", "processes",
        preexec_fn=lambda: os.umask(int(umask, 8)), PYTHONDONTWRITEBYTECODE="1",
    )  # fmt: skip
    assert driver.end() == 0, driver.err
    paths = [Path("fanfold-runs/r"), *Path("fanfold-runs/r").rglob("*")]
    assert {stat.S_IMODE(path.lstat().st_mode) for path in paths if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.lstat().st_mode) for path in paths if path.is_file()} == {0o600}


@pytest.mark.parametrize("on", ["serial", "threads", "processes"])
def test_closed_descriptors(start, tmp_path: Path, on: str) -> None:
    """R23: a command that begins without standard streams runs, records and keeps what tasks
    print, and writes nothing of it into the files of the run."""
    (tmp_path / "t.py").write_text(TASK)
    driver = start(
        "-m", "fanfold", "run", "t.py:task", "1", "2", "3", "--name", "r", "--on", on,
        preexec_fn=lambda: os.closerange(0, 3),
    )  # fmt: skip
    assert driver.end() == 0
    run = ff.Run.open("r")
    assert run.results() == [1, 4, 9]
    assert run.history().damage == []


def test_clocks_that_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    """R14: times of files and of the day an hour or ten years ahead or behind change nothing but
    what is shown: the order is that of the attempts."""
    offsets = iter([0.0, 3600.0, -3600.0, 3.2e8, -3.2e8, 0.0])
    now = time.time

    def value(n: int) -> int:
        if n == 2 and not Path("good").exists():
            raise ValueError(n)
        return n

    for offset in offsets:
        monkeypatch.setattr(time, "time", lambda offset=offset: now() + offset)
        run = ff.run(value, range(4), name="r", on="serial", progress=False).wait()
        for path in Path("fanfold-runs/r").rglob("*"):
            os.utime(path, (now() - offset, now() - offset))
        assert run.status().done == 3
        assert "r" in run.report()
    Path("good").touch()
    assert ff.Run.open("r").retry().results() == [0, 1, 2, 3]
    writers = [session.writer for session in run.history().sessions]
    assert writers == [f"e0-a{number}" for number in range(1, 8)]


def test_all_fail_at_once(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """R21: when everything fails, retries are as many as were granted and no more, what happened is
    told once for each cause, and ``--errors raise`` stops at the first."""
    tries = tmp_path / "tries"

    def fail(n: int) -> None:
        with tries.open("a") as out:
            print(n, file=out)
        raise ConnectionError("the server is down")

    run = ff.run(fail, range(50), name="r", on="threads", retries=2, progress=False).wait()
    assert run.status().failed == 50
    assert len(tries.read_text().split()) == 150
    assert run.report().count("the server is down") < 10
    stopped = ff.run(fail, range(50), name="s", on="serial", errors="raise", progress=False).wait()
    assert stopped.status().failed == 1


# Many tasks ---------------------------------------------------------------------------------------


def test_a_million_tasks() -> None:
    """R18: a million tasks are some dozen files and some tens of megabytes; their state comes from
    the ends of files, so it is there at once: it reads less than 1 MiB."""
    run = ff.run(int, range(TINY), name="many", on="threads", workers=1, progress=False).wait()
    files = [path for path in Path("fanfold-runs/many").rglob("*") if path.is_file()]
    assert len(files) < 100
    assert sum(path.stat().st_size for path in files) < 100 << 20
    before = bytes_read()
    began = time.perf_counter()
    assert run.status().done == TINY
    print(f"status of {TINY:,} tasks: {time.perf_counter() - began:.3f} s")
    assert bytes_read() - before < 1 << 20
    assert main(["status", "many"]) == 0
    assert run.retry().status().state == "done"


def bytes_read() -> int:
    """By this process, from files and caches."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(lines[0].split()[1])
