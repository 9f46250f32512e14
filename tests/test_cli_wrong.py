"""Wrong commands: one clear sentence with the remedy, status 2, and no work."""

import subprocess
import sys

import pytest

FILES = {
    "work.py": "number = 5\ndef square(x):\n    return x * x\ndef add(x, y=1):\n    return x + y\n",
    "helper.py": "def double(x):\n    return 2 * x\n",
    "syntax.py": "def f(x):\n    return x +\n",
    "imports.py": "import nope\n",
    "exits.py": "import sys\nsys.exit(3)\n",
    "raises.py": "def f(x):\n    return x\n1 / 0\n",
    "statistics.py": "def f(x):\n    return x\n",
    "inner.py": "\n\n1 / 0\n",
    "outer.py": "import inner\n",
    "table.csv": "x,y\n1,2\n3,0.5\n",
    "ragged.csv": "x,y\n1,2\n3\n",
    "empty.csv": "",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder, with files of many faults."""
    folder = tmp_path_factory.mktemp("wrong")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def run(folder):
    def run(*arguments):
        # -P keeps the folder off sys.path, as the installed command does: it has a statistics.py
        return subprocess.run(
            [sys.executable, "-P", "-m", "fanfold", *arguments],
            capture_output=True,
            text=True,
            timeout=100,
            cwd=folder,
        )

    return run


WRONG = [
    ("run work.py:square", "there is no input: give INPUTs, --range 1-10"),
    ("run work.py:square 1 --range 1-3", "INPUT and --range each give inputs: use one"),
    ("run work.py:square --over table.csv --param x=1", "--over and --param each give inputs"),
    ("run", "name a function, as in file.py:function"),
    ("run work.py 1", "names no function: write work.py:FUNCTION"),
    ("run :f 1", "names no function: write file.py:function"),
    ("run wurk.py:square 1", "there is no file wurk.py: is it work.py?"),
    ("run nowhere/x.py:f 1", "there is no file nowhere/x.py: check the folder"),
    ("run work.py:sqare 1", "work.py has no function sqare: is it square?"),
    ("run helper.py:xyz 1", "helper.py has no function xyz: it has double"),
    ("run work.py:number 1", "work.py:number is of type int, which cannot be called"),
    ("run nothing.here:f 1", "there is no module nothing"),
    ("run work.inner:f 1", "there is no module work.inner"),
    ("run syntax.py:f 1", "cannot load syntax.py: SyntaxError"),
    ("run syntax:f 1", "cannot load syntax: SyntaxError"),
    ("run imports.py:f 1", "cannot load imports.py: ModuleNotFoundError: No module named 'nope'"),
    ("run imports:f 1", "cannot load imports: ModuleNotFoundError: No module named 'nope'"),
    ("run exits.py:f 1", "cannot load exits.py: SystemExit: 3 (put what it does as a program"),
    ("run raises.py:f 1", "cannot load raises.py: ZeroDivisionError: division by zero"),
    ("run statistics.py:f 1", "already in use, statistics: rename the file"),
    ("run work.py:square --over table.csv", "takes (x), which does not fit x, y"),
    ("run work.py:add --param z=1", "takes (x, y=1), which does not fit z"),
    ("run helper.py:none 1", "helper.py has no function none"),
    ("run work.py:square --over none.csv", "--over none.csv: cannot be read (No such file"),
    ("run work.py:square --over work.py", "a table is a .csv or a .jsonl file"),
    ("run work.py:square --over ragged.csv", "ragged.csv, line 3: 1 value where the header has 2"),
    ("run work.py:square --over empty.csv", "empty.csv, line 1: no header"),
    ("run work.py:add --over table.csv --str z", "--str z: no such column; there is x, y"),
    ("run work.py:add --range 1-3 --str x", "--str keeps text as text"),
    ("run work.py:square --range 9-1", "runs backwards: write 1-9"),
    ("run work.py:square --range x", "is not a range: write 1-100"),
    ("run work.py:square --param x", "--param x: write NAME=VALUE,VALUE"),
    ("run work.py:square --param x=", "--param x=: a value is empty"),
    ("run work.py:square --param x=1 --param x=2", "--param x is given twice: join its values"),
    ("run work.py:square 1 --workers 0", "0 is not a whole number of at least 1"),
    ("run work.py:square 1 --workers two", "two is not a whole number of at least 1"),
    ("run work.py:square 1 --retries -1", "-1 is not a whole number of at least 0"),
    ("run work.py:square 1 --seed -1", "-1 is not a whole number of at least 0"),
    ("run work.py:square 1 --timeout -5", "'-5' is not a duration: write seconds (90)"),
    ("run work.py:square 1 --timeout 0s", "0s is no time at all; write 60s or 1h30m"),
    ("run work.py:square 1 --timeout soon", "'soon' is not a duration"),
    ("run work.py:square 1 --on gpu", "'gpu' is not one of 'auto'"),
    ("run work.py:square 1 --errors ignore", "'ignore' is not one of 'return', 'raise'"),
    ("run work.py:square 1 --out out.xls", "must end in .csv, .jsonl, .json"),
    ("run work.py:square 1 --out none/out.csv", "there is no folder none; make it first"),
    ("run work.py:square -5", "Put -- before inputs that begin with a dash"),
    ("run work.py:square 1 --worker 2", "No such option"),
    ("runn work.py:square 1", "No such command 'runn'"),
    ("demo --points 0", "0 is not a whole number of at least 1"),
]


@pytest.mark.parametrize(("command", "sentence"), WRONG, ids=[command for command, _ in WRONG])
def test_a_wrong_command(run, command, sentence):
    """A wrong command ends before any work with status 2 and a sentence that holds the remedy."""
    done = run(*command.split())
    assert done.returncode == 2
    assert done.stdout == ""
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("syntax.py", "syntax.py, line 2\n    return x +"),
        ("outer.py", "inner.py, line 3\n    1 / 0"),
    ],
)
def test_the_guilty_line_is_shown(run, target, line):
    """When the target cannot be loaded, the file, the number and the line at fault are shown."""
    assert line in run("run", f"{target}:f", "1").stderr
