"""How ff.map is called: mistakes get one clear sentence, and any script may call it."""

import subprocess
import sys
from pathlib import Path

import pytest

import fanfold as ff

# Mistakes

MISTAKES = [
    ({"workers": 0}, "workers", "0"),
    ({"workers": -1}, "workers", "-1"),
    ({"workers": True}, "workers", "True"),
    ({"workers": 1.5}, "workers", "1.5"),
    ({"workers": "2"}, "workers", "'2'"),
    ({"chunk": 0}, "chunk", "0"),
    ({"chunk": True}, "chunk", "True"),
    ({"chunk": 2.0}, "chunk", "2.0"),
    ({"retries": -1}, "retries", "-1"),
    ({"retries": 1.5}, "retries", "1.5"),
    ({"timeout": 0}, "timeout", "0"),
    ({"timeout": -1}, "timeout", "-1"),
    ({"timeout": float("nan")}, "timeout", "nan"),
    ({"timeout": "60s"}, "timeout", "'60s'"),
    ({"errors": "x"}, "errors", "'x'"),
    ({"seed": -1}, "seed", "-1"),
    ({"seed": "seven"}, "seed", "'seven'"),
    ({"on": "grid"}, "on", "'grid'"),
    ({"on": 3}, "on", "3"),
]


def never(_):
    raise AssertionError("a wrong call must not begin any work")


@pytest.mark.parametrize(("options", "name", "wrong"), MISTAKES, ids=lambda part: str(part))
@pytest.mark.parametrize("function", ["map", "starmap", "imap", "imap_unordered", "map_reduce"])
def test_wrong_option(function, options, name, wrong):
    """A bad option is a UsageError at the call, which names it and shows the wrong value."""
    if function == "map_reduce" and name == "errors":
        return  # it has no errors=: what would a fold do with an exception in place of a result?
    with pytest.raises(ff.UsageError) as caught:
        getattr(ff, function)(never, [(1,)], **options)
    message = str(caught.value)
    assert name in message
    assert wrong in message
    assert "\n" not in message.strip()


def test_unknown_place_suggests_the_right_one():
    """A misspelt place is answered with the one that was meant, and with all there are."""
    with pytest.raises(ff.UsageError, match="did you mean 'processes'") as caught:
        ff.map(never, [1], on="proceses")
    assert all(place in str(caught.value) for place in ("serial", "threads", "processes"))


def test_errors_names_the_choices():
    """A wrong errors= is answered with the two that exist."""
    with pytest.raises(ff.UsageError, match=r"'raise'.*'return'"):
        ff.map(never, [1], errors="ignore")


@pytest.mark.parametrize("func", [None, 3, "math.sqrt", [abs]])
def test_func_is_callable(func):
    """What cannot be called is a UsageError, which shows it."""
    with pytest.raises(ff.UsageError, match="call") as caught:
        ff.map(func, [1])
    assert repr(func) in str(caught.value)


def test_input_is_iterable():
    """Inputs that cannot be iterated over are a UsageError that says what to pass."""
    with pytest.raises(ff.UsageError, match="iterable"):
        ff.map(abs, 3)


def test_map_needs_inputs():
    """ff.map(func) without inputs is a UsageError, as map(func) is a TypeError."""
    with pytest.raises(ff.UsageError, match="iterable"):
        ff.map(abs)


def test_usage_errors_are_value_errors():
    """A program that catches ValueError catches them."""
    with pytest.raises(ValueError, match="workers"):
        ff.map(abs, [1], workers=0)


@pytest.mark.parametrize("name", ["serial", "threads", "processes"])
def test_executor_by_name(name):
    """ff.executor(name) makes the executor that on=name would use."""
    with ff.executor(name, workers=1) as pool:
        assert pool.name == name
        assert pool.workers == 1
        assert list(pool.map(abs, [-1, 2])) == [1, 2]


def test_executor_of_unknown_name():
    """ff.executor with an unknown name answers as on= does."""
    with pytest.raises(ff.UsageError, match="did you mean 'threads'"):
        ff.executor("thread")


# Scripts

SCRIPT = """
import fanfold as ff

factor = 3

class Wrong(Exception):
    pass

def times(number):
    if number == 4:
        raise Wrong(number)
    return factor * number

print("once")
print(ff.map(times, range(4), workers=2, on="processes"))
try:
    ff.map(times, range(6), workers=2, on="processes")
except Wrong as error:
    print("caught", error.args)
"""

FORMS = {
    "file": lambda path: ([str(path)], ""),
    "stdin": lambda path: (["-"], path.read_text()),
    "-c": lambda path: (["-c", path.read_text()], ""),
    "-m": lambda path: (["-m", path.stem], ""),
    "interactive": lambda path: (["-i", str(path)], ""),
}


@pytest.mark.parametrize("form", FORMS)
def test_main_needs_no_guard(form, tmp_path):
    """Functions and classes of a script work, run in whatever way, and it is not run again."""
    path = tmp_path / "unguarded.py"
    path.write_text(SCRIPT)
    arguments, text = FORMS[form](path)
    source = str(Path(ff.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, *arguments],
        input=text,
        cwd=tmp_path,
        env={"PYTHONPATH": source, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "once\n[0, 3, 6, 9]\ncaught (4,)\n", done.stderr
    assert done.returncode == 0
