"""Executors of other distributions, found by the entry point group `fanfold.executors`."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

MODULE = """
from fanfold.executors.threads import ThreadExecutor

class TinyExecutor(ThreadExecutor):
    name = "tiny"

class Impostor:
    pass
"""

ENTRY_POINTS = """
[fanfold.executors]
tiny = tiny_places:TinyExecutor
wrong = tiny_places:Impostor
broken = tiny_places.missing:Executor
threads = tiny_places:TinyExecutor
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed a small distribution with executors of its own."""
    folder = tmp_path_factory.mktemp("site")
    wheel = folder / "tiny_places-1.0-py3-none-any.whl"
    files = {
        "tiny_places.py": MODULE,
        "tiny_places-1.0.dist-info/METADATA": (
            "Metadata-Version: 2.1\nName: tiny-places\nVersion: 1.0\n"
        ),
        "tiny_places-1.0.dist-info/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
        "tiny_places-1.0.dist-info/entry_points.txt": ENTRY_POINTS,
    }
    record = "tiny_places-1.0.dist-info/RECORD"
    files[record] = "".join(f"{name},,\n" for name in [*files, record])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    options = ["--no-deps", "--no-index", "--target", str(folder / "packages")]
    subprocess.run([*pip, *options, str(wheel)], check=True)
    return folder / "packages"


def outcome(site: Path, code: str) -> str:
    """The last line that a program prints which finds the distribution."""
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    ended = subprocess.run(
        [sys.executable, "-c", f"import fanfold as ff\n{code}"],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.stdout.strip().splitlines()[-1]


def test_its_name_is_a_place(site: Path) -> None:
    """``on=`` takes the name, wherever it takes those of fanfold, and so does `ff.executor`."""
    assert outcome(site, "print(ff.map(abs, [-1, -2], on='tiny', workers=2))") == "[1, 2]"
    code = "with ff.executor('tiny', 3) as pool: print(type(pool).__name__, pool.workers)"
    assert outcome(site, code) == "TinyExecutor 3"
    assert outcome(site, "with ff.Pool(2, on='tiny') as p: print(p.map(abs, [-3]))") == "[3]"


def test_names_of_fanfold_stay(site: Path) -> None:
    """A distribution cannot put itself in the place of one of fanfold's own executors."""
    code = "with ff.executor('threads', 1) as pool: print(type(pool).__name__)"
    assert outcome(site, code) == "ThreadExecutor"


def test_it_is_among_the_suggestions(site: Path) -> None:
    """A name that is not known is told with those that are, of other distributions too."""
    told = outcome(site, "ff.map(abs, [1], on='tinny')")
    assert "on='tinny' is no place that fanfold knows: did you mean 'tiny'?" in told
    assert "'processes'" in told
    assert "'broken'" in told


def test_one_that_does_not_work(site: Path) -> None:
    """One that cannot be imported, or is no executor, is an error that names the distribution."""
    told = outcome(site, "ff.map(abs, [1], on='broken')")
    assert told.startswith("fanfold.errors.UsageError: on='broken' is tiny_places.missing:Executor")
    assert "of tiny-places, which cannot be imported: ModuleNotFoundError" in told
    told = outcome(site, "ff.map(abs, [1], on='wrong')")
    assert "of tiny-places, which is no subclass of fanfold.executors.base.Executor" in told
