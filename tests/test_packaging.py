"""What is published: the wheel and the source archive, and fanfold with what it requires alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import NamedTuple

import pytest

import fanfold as ff

ROOT = Path(__file__).parents[1]
LEFT_OVER = re.compile(r"__pycache__|/\.")  # by Python, and by tools such as mypy
DATA = f"fanfold-{ff.__version__}.dist-info"


def run(*command, folder, **environment):
    """A command that must succeed; what it prints. It sees no module of this checkout."""
    environment = {**os.environ, **environment}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True, text=True, timeout=250, cwd=folder, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def build(source, into, *targets):
    pytest.importorskip("hatchling", reason="the extra dev is not installed")
    kinds = [word for target in targets for word in ("--target", target)]
    run(sys.executable, "-m", "hatchling", "build", "-d", into, *kinds, folder=source)


class Built(NamedTuple):
    wheel: Path
    archive: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the source archive, built as `make dist` builds them."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder, "wheel", "sdist")
    [wheel] = folder.glob("*.whl")
    [archive] = folder.glob("*.tar.gz")
    return Built(wheel, archive)


def contents(wheel):
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_the_wheel_is_the_package_and_nothing_else(built):
    """It holds every file of src/fanfold, the marker of its types too, and not the tests."""
    assert built.wheel.name == f"fanfold-{ff.__version__}-py3-none-any.whl"
    source = ROOT / "src"
    package = {
        path.relative_to(source).as_posix()
        for path in (source / "fanfold").rglob("*")
        if path.is_file() and not LEFT_OVER.search(path.as_posix())
    }
    assert "fanfold/py.typed" in package
    assert {name for name in contents(built.wheel) if not name.startswith(DATA)} == package


def test_the_wheel_tells_what_it_is(built):
    """Pure Python, for 3.11 and later, under its licence, with the readme and one command."""
    there = contents(built.wheel)
    assert b"Root-Is-Purelib: true" in there[f"{DATA}/WHEEL"]
    assert b"fanfold = fanfold.cli:main" in there[f"{DATA}/entry_points.txt"]
    about = message_from_bytes(there[f"{DATA}/METADATA"])
    assert about["Requires-Python"] == ">=3.11"
    assert about["License-Expression"] == "MIT"
    assert "Run a Python function over many inputs" in about.get_payload()
    assert f"{DATA}/licenses/LICENSE" in there


def test_bounds_are_lower_bounds(built):
    """No requirement, of an extra neither, pins a version or excludes what is not yet out."""
    about = message_from_bytes(contents(built.wheel)[f"{DATA}/METADATA"])
    needed = about.get_all("Requires-Dist")
    assert len(needed) > 10
    assert [one for one in needed if any(sign in one for sign in ("<", "~=", "==="))] == []
    assert [one for one in needed if "==" in one.split(";")[0]] == []


def test_the_archive_builds_the_same_wheel(built, tmp_path):
    """Who builds from the source archive gets the wheel that is published, byte for byte."""
    with tarfile.open(built.archive) as opened:
        opened.extractall(tmp_path, filter="data")
    [source] = tmp_path.iterdir()
    build(source, tmp_path / "dist", "wheel")
    assert contents(tmp_path / "dist" / built.wheel.name) == contents(built.wheel)


def test_the_archive_can_be_worked_with(built):
    """The source archive has the tests, the documentation and the Makefile, and no leftovers."""
    with tarfile.open(built.archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    needed = {"Makefile", "mkdocs.yml", "conftest.py", "CITATION.cff", "LICENSE", "README.md"}
    assert needed <= names
    assert {
        "tests/test_packaging.py",
        "docs/index.md",
        "examples/pi.py",
        "tools/make-venv",
    } <= names
    assert [name for name in names if LEFT_OVER.search(name) or name.startswith("site/")] == []


# With the required dependencies alone -------------------------------------------------------------


@pytest.fixture(scope="module")
def clean(built, tmp_path_factory):
    """The folder of programs of a new environment: the wheel, and what it requires."""
    folder = tmp_path_factory.mktemp("clean")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    asked = subprocess.run(
        [*pip, "download", "--no-deps", "--dest", folder, "click"], capture_output=True, timeout=100
    )
    if asked.returncode:
        pytest.skip("there is no package index to install from")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", folder=folder)
    programs = folder / "venv" / "bin"
    run(*pip, "--python", programs / "python", "install", built.wheel, folder=folder)
    return programs


def test_the_import_is_silent(clean, tmp_path):
    """`import fanfold` warns of nothing, and every public name can be had without any extra."""
    look = "import fanfold\nfor name in fanfold.__all__: getattr(fanfold, name)"
    assert run(clean / "python", "-W", "error", "-c", look, folder=tmp_path) == ""


def test_the_commands_run(clean, tmp_path):
    """`fanfold demo`, `fanfold cores` and a run work with nothing else installed."""
    assert "pi is about 3.14" in run(
        clean / "fanfold", "demo", "--points", "4000000", folder=tmp_path
    )
    assert json.loads(run(clean / "fanfold", "cores", "--json", folder=tmp_path))["cores"] >= 1
    shown = run(clean / "fanfold", "run", "math:factorial", "3", "4", "--json", folder=tmp_path)
    assert [json.loads(line)["result"] for line in shown.splitlines()] == [6, 24]


ASKED = {
    'ff.map(abs, [1, 2], on="mpi")': "mpi",
    "ff.spmd(print, 2)": "mpi",
    'ff.map(abs, [1, 2], on="dask")': "dask",
    'ff.map(abs, [1, 2], on="ipyparallel")': "ipython",
    "ff.register_joblib()": "joblib",
    'ff.Blocks("numbers.h5")': "arrays",
    'ff.Blocks("numbers.zarr")': "arrays",
    'ff.evaluate("a + 1", {"a": np.arange(3)}, on="cuda")': "cuda",
    'ff.scaling(abs, [1, 2], workers=[1]).plot("speed-up.svg")': "plot",
}

ASK = """
import json, sys
import numpy as np, fanfold as ff
said = {}
for call in json.load(sys.stdin):
    try:
        eval(call)
    except ff.UsageError as error:
        said[call] = str(error)
print(json.dumps(said))
"""


def test_a_missing_extra_says_how_to_get_it(clean, tmp_path):
    """Whatever needs an extra that is not installed says so in a sentence, with the pip line."""
    for name in ("numbers.h5", "numbers.zarr"):
        (tmp_path / name).touch()
    done = subprocess.run(
        [clean / "python", "-c", ASK],
        input=json.dumps(list(ASKED)), capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    for call, extra in ASKED.items():
        assert f'pip install "fanfold[{extra}]"' in said.get(call, "no error"), call
        assert "\n" not in said[call]
