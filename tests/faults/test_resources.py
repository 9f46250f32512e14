"""Rows L39-L42, L50: descriptors, shared memory, disk and main memory that run out."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import numpy as np
import pytest

import fanfold as ff
from fanfold.errors import NoSpace

MIB = 1 << 20
TASKS, GUILTY = 20, 7
SQUARES = {n: n * n for n in range(TASKS) if n != GUILTY}
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


def can_mount():
    """May this user have a mount namespace of its own, with a tmpfs in it?"""
    probe = ["mount", "-t", "tmpfs", "-o", "size=1M", "none", "/mnt"]
    return sys.platform == "linux" and not subprocess.run([*NAMESPACE, *probe]).returncode


mounts = pytest.mark.skipif(not can_mount(), reason="no unprivileged mount namespaces here")


def with_mounts(*mounts, then=()):
    """A command prefix: in a mount namespace of its own, with a tmpfs of some MiB on each path."""
    script = " && ".join(
        f"mount -t tmpfs -o size={size} fanfold-test {path}" for path, size in mounts
    )
    return [*NAMESPACE, "sh", "-c", f'{" && ".join([script, *then])} && exec "$@"', "sh"]


# Descriptors


@pytest.mark.parametrize("limit", [24, 64])
def test_few_descriptors(limit, run):
    """L39: with so few descriptors a small pool works as ever, deaths and replacements included."""
    driver = run(
        f"""
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
        task = faults.Script({{n: faults.kill_self for n in range(3, 40, 4)}})
        results = ff.map(task, range(40), on="processes", workers=2, errors="return")
        say(sum(isinstance(result, ff.WorkerDied) for result in results))
        say(sum(result == n * n for n, result in enumerate(results)))
        """
    )
    assert driver.out.split() == ["10", "30"]


@pytest.mark.parametrize("way", ["map", "submit"])
def test_no_descriptors_left(way, run):
    """L39: with too few descriptors for its workers a pool gives one clear error, at once, that
    names the limit; it does not hang, and what it had begun is gone."""
    work = {
        "map": "ff.map(time.sleep, [0.1] * 100, on=pool)",
        "submit": "[f.result() for f in [pool.submit(time.sleep, 0.1) for _ in range(100)]]",
    }
    driver = run(
        f"""
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        began = time.monotonic()
        with ff.ProcessExecutor(100) as pool:
            try:
                {work[way]}
                say("done")
            except ff.FanfoldError as error:
                say(type(error).__name__, error)
        say(time.monotonic() - began < 30)
        """
    )
    answer, soon = driver.out.splitlines()
    assert answer == "done" or "open files" in answer
    assert soon == "True"


def test_no_descriptors_left_in_a_worker():
    """L39: a task that uses up its worker's descriptors fails; a large result after it arrives."""

    def hoard(n):
        if n == GUILTY:
            resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
            return [open(os.devnull) for _ in range(100)]
        return n * n

    results = dict(
        enumerate(ff.map(hoard, range(TASKS), on="processes", workers=1, errors="return"))
    )
    error = results.pop(GUILTY)
    assert isinstance(error, OSError)
    assert results == SQUARES


def test_standard_streams_closed(run):
    """L40: a task that closes or replaces its standard streams harms nobody."""
    driver = run(
        """
        def task(n):
            if n == 1:
                for number in (0, 1, 2):
                    os.close(number)
            if n == 2:
                sys.stdout = sys.stderr = None
            if n == 3:
                sys.stdout.close()
            if n == 4:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return n * n

        for n in range(1, 5):
            with ff.ProcessExecutor(1) as pool:
                results = ff.map(task, [0, n, 5, 6], on=pool, errors="return")
                say(*[getattr(result, "index", result) for result in results])
                say(pool.submit(abs, -1).result(timeout=60))
        """
    )
    lines = driver.out.splitlines()
    assert lines[1::2] == ["1"] * 4
    for n, line in enumerate(lines[0::2], 1):
        assert line in (f"0 {n * n} 25 36", "0 1 25 36")  # or it cost that task its worker


def test_channel_closed():
    """L40: a task that closes what is not its own fails alone, whichever descriptors it closes."""
    for first in range(3, 12):
        with ff.ProcessExecutor(1) as pool:
            error = pool.submit(os.close, first).exception(timeout=60)
            assert error is None or isinstance(error, (OSError, ff.WorkerDied))
            assert pool.submit(abs, -1).result(timeout=60) == 1


# Shared memory and disk

LARGE = """
    def large(n):
        return bytes([n]) * (5 << 20)

    def check():
        results = ff.map(large, range(8), on="processes", workers=2, errors="return")
        good = [n for n, result in enumerate(results) if result == large(n)]
        bad = {f"{type(r).__name__}: {r}" for r in results if isinstance(r, BaseException)}
        say(len(good), *bad)
        say(sum(ff.map(len, [large(n) for n in range(8)], on="processes", workers=2)) >> 20)

    check()
    """


@mounts
def test_shared_memory_full(run):
    """L41: results and arguments larger than what /dev/shm has room for go through a file."""
    driver = run(LARGE, prefix=with_mounts(("/dev/shm", "4M")))
    assert driver.out.splitlines() == ["8", "40"]


@mounts
def test_no_shared_memory(run):
    """L41: without /dev/shm, as in some containers, files in the temporary folder do."""
    then = ["mount -o remount,ro /dev/shm"]
    driver = run(LARGE, prefix=with_mounts(("/dev/shm", "1M"), then=then))
    assert driver.out.splitlines() == ["8", "40"]


@mounts
def test_everything_full(run, tmp_path):
    """L41, L42: when the temporary folder is full too, each result that finds no room fails with
    NoSpace, which names the bytes, the places and the remedy; small ones still come; nobody gets a
    SIGBUS, and the pool goes on when there is room again."""
    folder = tmp_path / "small"
    folder.mkdir()
    script = """
        def large(n):
            return bytes(n << 20)

        with ff.ProcessExecutor(1) as pool:  # two at once would fill it for one another
            results = ff.map(large, [0, 1, 20, 2, 30], on=pool, errors="return")
            say(*[len(r) >> 20 if isinstance(r, bytes) else type(r).__name__ for r in results])
            say(results[2])
            try:
                pool.submit(len, large(20))
            except ff.NoSpace as error:
                say(error)
            say(sum(len(pool.submit(large, 1).result()) for _ in range(20)) >> 20)
        """
    driver = run(
        script,
        prefix=with_mounts(("/dev/shm", "4M"), (str(folder), "4M")),
        environment={"TMPDIR": str(folder)},
    )
    summary, of_result, of_argument, again = driver.out.splitlines()
    assert summary == "0 1 NoSpace 2 NoSpace"
    for message in (of_result, of_argument):
        assert "no room for 20,971,5" in message
        assert "/dev/shm" in message
        assert str(folder) in message
        assert "set TMPDIR" in message
    assert again == "20"


@mounts
def test_temporary_folder_read_only(run, tmp_path):
    """L42: a temporary folder that cannot be written costs nothing while /dev/shm has room; when
    neither can, that is said at once."""
    folder = tmp_path / "fixed"
    folder.mkdir()
    environment = {"TMPDIR": str(folder)}
    shut = [f"mount -o remount,ro {folder}"]
    prefix = with_mounts((str(folder), "1M"), then=shut)
    driver = run(LARGE, prefix=prefix, environment=environment)
    assert driver.out.splitlines() == ["8", "40"]

    script = """
        import tempfile
        tempfile.tempdir = os.environ["TMPDIR"]
        try:
            ff.map(abs, [1, 2], on="processes")
        except ff.NoSpace as error:
            say(error)
        """
    places = [("/dev/shm", "1M"), (str(folder), "1M")]
    prefix = with_mounts(*places, then=[*shut, "mount -o remount,ro /dev/shm"])
    driver = run(script, prefix=prefix, environment=environment)
    assert "set TMPDIR" in driver.out
    assert str(folder) in driver.out


def test_temporary_folder_missing(run, tmp_path):
    """L42: a TMPDIR that does not exist is passed over."""
    driver = run(LARGE, environment={"TMPDIR": str(tmp_path / "nowhere")})
    assert driver.out.splitlines() == ["8", "40"]


def test_file_size_limit():
    """L41: where a worker may not write a file as large as its result, the task fails with NoSpace,
    and it alone."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))

    with ff.ProcessExecutor(1, initializer=limit) as pool:
        error = pool.submit(bytes, 8 * MIB).exception(timeout=60)
        assert type(error) is NoSpace
        assert len(pool.submit(bytes, MIB // 2).result(timeout=60)) == MIB // 2


# Main memory


def test_worker_that_grows():
    """L50: with max_tasks_per_child workers that grow are replaced in time; no task is lost, none
    runs twice."""

    def leak(n, kept=[]):  # noqa: B006 - this is the leak
        kept.append(np.ones(MIB, np.uint8))
        return n, os.getpid()

    with ff.ProcessExecutor(2, max_tasks_per_child=10) as pool:
        reports = list(ff.api.reports(leak, range(200), on=pool))
        peaks = [report.peak_memory for report in reports]
        results = [result for report in reports for result in report.values]
    assert sorted(n for n, _ in results) == list(range(200))
    pids = [pid for _, pid in results]
    assert max(map(pids.count, set(pids))) <= 10
    assert max(peaks) < min(peaks) + 40 * MIB
