"""Programs as tasks: what they are given, what comes back, and that nothing of them stays."""

from __future__ import annotations

import os
import pickle
import pty
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fanfold as ff
from fanfold.programs import Command
from fanfold.testing.functions import until

PYTHON = sys.executable
FOR_EVER = "while true; do sleep 0.05; done"
PLACES = pytest.mark.parametrize("place", ["serial", "threads", "processes"])


def sh(script: str, *more: str, **options) -> Command:
    """A command that has the shell run a script, which is one fixed word."""
    return ff.command(["sh", "-c", script, "sh", *more], **options)


# What a program is given --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "args", "kwargs", "words"),
    [
        ("prog {}", ["a"], {}, ["prog", "a"]),
        ("prog {} {}", [1, 2.5], {}, ["prog", "1", "2.5"]),
        ("prog {1} --of {0}{0}", ["a", "b"], {}, ["prog", "b", "--of", "aa"]),
        ("prog --x={x} {n}", [], {"n": 2, "x": 1}, ["prog", "--x=1", "2"]),
        ("prog --x={x} {n}", [1, 2], {}, ["prog", "--x=1", "2"]),
        ("prog {} {x}", [1], {"x": 2}, ["prog", "1", "2"]),
        ("prog {} {x}", [1, 2], {}, ["prog", "1", "2"]),
        ("prog 'a b' \"c {}\" d\\ e", [1], {}, ["prog", "a b", "c 1", "d e"]),
        ("prog {{}} {{x}} {{0}} {}", [1], {}, ["prog", "{}", "{x}", "{0}", "1"]),
        ("awk '{print $1}' {}", ["f"], {}, ["awk", "{print $1}", "f"]),
        ('prog {"a": {x}}', [], {"x": 1}, ["prog", "{a:", "1}"]),
        (["prog", "a b", "{}"], ["c"], {}, ["prog", "a b", "c"]),
        ("{} --version", ["gcc"], {}, ["gcc", "--version"]),
        ("prog {}", [Path("a/b")], {}, ["prog", "a/b"]),
        ("prog {}", [b"caf\xe9"], {}, ["prog", "caf\udce9"]),
        ("prog", [], {}, ["prog"]),
    ],
)
def test_placeholders_become_the_inputs(line, args, kwargs, words):
    """{} and {0} are filled by position, {name} by name or in the order in which they stand; the
    line is split once, before that."""
    assert ff.command(line).argv(*args, **kwargs) == words


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_an_input_is_one_argument(text):
    """Whatever is in it: spaces, quotes, line ends, braces; the program gets it as it is."""
    assert ff.command("printf '%s' {}", text=False)(text) == text.encode()


def test_no_shell_reads_an_input(tmp_path):
    """$(...), backquotes, ; and | in an input are text."""
    for text in ("$(touch made)", "`touch made`", "; touch made", "| touch made", "a\nb > made"):
        assert ff.command("printf '%s' {}", cwd=tmp_path)(text) == text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ([], "a line of text or a list of words"),
        (["prog", 1], "a line of text or a list of words"),
        ("prog 'a", "a quote is open"),
        ("prog {} {0}", "do not mix"),
        ("prog {0} {2}", "needs {1}, too"),
        ("sort {} | uniq", "so | has no meaning"),
        ("sort {} > out", "so > has no meaning"),
        ("sort {} >out", "so >out has no meaning"),
        ("sort {} 2>&1", "so 2>&1 has no meaning"),
        ("sort < {}", "so < has no meaning"),
        ("make && ./prog {}", "so && has no meaning"),
        ("prog {} &", "so & has no meaning"),
        ("cd a ; prog {}", "so ; has no meaning"),
    ],
)
def test_a_line_without_sense_is_refused(line, why):
    """Before any work, and what a shell would understand by the name of its sign."""
    with pytest.raises(ff.UsageError) as caught:
        ff.command(line)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    "line", ["expr 3 '>' {}", r"find . -exec ls ';' {}", "prog a=>b {}", "a|b {}"]
)
def test_signs_of_a_shell_may_be_arguments(line):
    """Quoted, or inside of a word, they are text."""
    assert ff.command(line).argv("x")[-1] == "x"


@pytest.mark.parametrize(
    ("line", "args", "kwargs", "why"),
    [
        ("prog", ["a"], {}, "no placeholders for the input: write {} where"),
        ("prog {}", ["a", "b"], {}, "1 placeholder for 2 inputs"),
        ("prog {} {}", ["a"], {}, "takes 2 inputs by position, and 1 is given ({0} is the same"),
        ("prog {}", [], {"x": 1}, "no placeholder takes the input x: write {x} where"),
        ("prog {x} {y}", [], {"x": 1}, "no input fills {y}: give one of that name, or write {{y}}"),
        ("prog {x} {y}", [1], {}, "no input fills {y}"),
        ("prog {x}", [1], {"x": 1}, "{x} is given twice"),
        ("prog {}", [None], {}, "the input 0 is None"),
        ("prog {}", ["a\0b"], {}, "holds a null character"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(line, args, kwargs, why):
    """Placeholders that no input fills and inputs that no placeholder takes: the message shows
    what to write."""
    with pytest.raises(ff.UsageError) as caught:
        ff.command(line)(*args, **kwargs)
    assert why in str(caught.value)


def test_standard_input_is_empty_unless_it_is_given():
    """A program never waits for somebody to type; ``input`` may hold placeholders."""
    assert ff.command("cat")() == ""
    assert ff.command("cat", input="rate {x}\n{}")("depth", x=0.5) == "rate 0.5\ndepth"


def test_folder_and_environment(tmp_path, monkeypatch):
    """``cwd`` may hold placeholders; ``env`` is added to the environment that is there."""
    (tmp_path / "case 1").mkdir()
    assert ff.command("pwd", cwd=f"{tmp_path}/case {{}}")(1) == str(tmp_path / "case 1")
    monkeypatch.setenv("KEPT", "kept")
    assert sh("echo $KEPT $ADDED", env={"ADDED": "added"})() == "kept added"


# What comes back ----------------------------------------------------------------------------------


def test_the_result_is_what_it_prints():
    """Text without the line ends at its end; or the bytes as they are."""
    assert ff.command("printf {}")(r"two\nlines\n\n") == "two\nlines"
    assert ff.command("printf {}", text=False)(r"two\nlines\n\n") == b"two\nlines\n\n"


def test_what_is_no_text_is_shown():
    """Bytes that are no UTF-8 lose nothing: they are shown in the text, or come as they are."""
    assert ff.command("printf {}")(r"caf\351") == r"caf\xe9"
    assert ff.command("printf {}", text=False)(r"caf\351") == b"caf\xe9"


def test_much_output_on_both_streams(capsys):
    """Megabytes on both: neither fills up while the other is read."""
    program = """import sys
for _ in range(64):
    sys.stdout.write("o" * 32768)
    sys.stderr.write("e" * 32768)"""
    assert ff.command([PYTHON, "-S", "-c", program])() == "o" * (1 << 21)
    assert capsys.readouterr().err == "e" * (1 << 21)


def test_standard_error_is_passed_on(capsys):
    """What a program says there is output of the task."""
    assert sh("echo result; echo warning >&2")() == "result"
    assert capsys.readouterr().err == "warning\n"


@PLACES
def test_an_exit_status_is_an_error(place, capfd):
    """It names the command, the status and the last line; all of the last lines are kept. It is
    the same in every place, and the tasks beside it lose nothing."""
    fails = sh('echo "about $1" >&2; echo "bad $1" >&2; exit $1', "{}")
    good, error = ff.map(fails, [0, 3], on=place, errors="return")
    assert good == ""
    assert isinstance(error, ff.CommandFailed)
    assert str(error).endswith("sh 3 ended with exit status 3: bad 3")
    assert (error.exitcode, error.signal, error.stderr) == (3, None, "about 3\nbad 3")
    assert error.argv[-1] == "3"
    assert isinstance(error, ff.TaskError)


def test_a_signal_is_an_error():
    """It is named."""
    with pytest.raises(ff.CommandFailed, match=r"was ended by SIGSEGV$") as caught:
        sh("kill -SEGV $$")()
    assert (caught.value.exitcode, caught.value.signal) == (-11, signal.SIGSEGV)


def test_of_much_standard_error_the_last_lines_are_kept(capfd):
    """Whole lines, a few thousand characters."""
    with pytest.raises(ff.CommandFailed) as caught:
        sh("i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i >&2; done; exit 1")()
    lines = caught.value.stderr.splitlines()
    assert lines[-1] == "line 3000"
    assert lines[0] == f"line {3001 - len(lines)}"
    assert 100 < len(lines) < 3000


def test_what_cannot_be_started_says_why(tmp_path):
    """No such program, no such folder, no permission; there is no exit status then."""
    plain = tmp_path / "plain"
    plain.write_text("text")
    for command, why in [
        (ff.command("no-such-program {}"), "did not run: there is no program no-such-program on"),
        (ff.command("true {}", cwd=tmp_path / "none"), "No such file or directory: .*none$"),
        (ff.command([str(plain), "{}"]), "Permission denied"),
    ]:
        with pytest.raises(ff.CommandFailed, match=why) as caught:
            command(1)
        assert (caught.value.exitcode, caught.value.signal) == (None, None)


@pytest.mark.parametrize(
    ("name", "mode", "why"),
    [
        ("no-such-program", None, "there is no program no-such-program here"),
        ("prog", 0o755, "write ./prog for the file here"),
        ("./prog", 0o644, "allow it with chmod \\+x ./prog"),
    ],
)
def test_a_program_is_looked_for_before_work(name, mode, why, tmp_path, monkeypatch):
    """`check_program` says what to write where it would not be found."""
    monkeypatch.chdir(tmp_path)
    if mode is not None:
        Path("prog").write_text("#!/bin/sh\n")
        Path("prog").chmod(mode)
    with pytest.raises(ff.UsageError, match=why):
        ff.command(f"{name} {{}}").check_program()
    ff.command("sh {}").check_program()


def test_a_command_travels():
    """A command and its error pickle, and tell what they are."""
    command = pickle.loads(pickle.dumps(ff.command("echo {x} 'a b'")))
    assert command(x="c") == "c a b"
    assert "echo" in repr(command)
    error = pickle.loads(pickle.dumps(ff.CommandFailed(["a", "b c"], 7, "said")))
    assert (str(error), error.argv) == ("a 'b c' ended with exit status 7: said", ["a", "b c"])


# What its results depend on -----------------------------------------------------------------------


def test_parts_tell_a_changed_program(tmp_path):
    """The line, the options, the program's size and time, and those of scripts in the line; a
    table that the program reads, or a log that it writes, is none."""
    script, data = tmp_path / "fit.py", tmp_path / "data.csv"
    script.write_text("print(1)")
    data.write_text("1")

    def parts(line=f"{PYTHON} {script} {data} {{}}", **options):
        return ff.command(line, **options).parts

    before = parts()
    assert parts() == before
    data.write_text("22")
    assert parts() == before
    script.write_text("print(22)")
    assert {name for name, mark in parts().items() if before[name] != mark} == {f"script {script}"}
    assert parts(env={"A": "1"})["command line"] != before["command line"]
    assert parts(text=False)["command line"] != before["command line"]
    assert list(before) == ["command line", f"program {PYTHON}", f"script {script}"]
    assert ff.command("no-such-program {}").parts["program no-such-program"] == "not here"


PEAK = """
import sys, fanfold as ff
from fanfold.executors.work.memory import ProcessMeter
meter = ProcessMeter()
meter(True)
ff.command([sys.executable, "-S", "-c", "len(bytearray(1 << 28))"])()
print(*(meter(True)[1] > 1 << 28 for _ in range(2)))
"""


def test_the_peak_memory_of_a_task_is_that_of_its_program():
    """Of its largest process; so what a run asks for next time is enough for its programs. (In a
    process that had no larger one before.)"""
    told = subprocess.run([PYTHON, "-c", PEAK], capture_output=True, text=True, timeout=60)
    assert told.stdout == "True False\n", told.stderr


LARGE = """
import subprocess, sys
block = bytearray(1 << 29)
block[::4096] = b"x" * len(block[::4096])
print(subprocess.run([sys.executable, "-c", sys.argv[1]], capture_output=True, text=True).stdout)
"""
SMALL = """
from fanfold.executors.work.memory import ProcessMeter, peak_memory
meter = ProcessMeter()
print(*(size > 1 << 28 for size in (meter(True)[1], peak_memory(), meter(True)[1])))
"""


def test_the_peak_memory_of_a_process_is_not_that_of_its_parent():
    """That a large program has started the worker says nothing of its tasks, though the kernel
    counts the memory that both had for a moment, between vfork and exec."""
    line = [PYTHON, "-c", LARGE, SMALL]
    told = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert told.stdout.split() == ["False"] * 3, told.stderr


# Nothing of it stays ------------------------------------------------------------------------------


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has buried yet has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def pid_in(path: Path) -> int:
    until(lambda: path.exists() and path.read_text().endswith("\n"), "the program to begin")
    return int(path.read_text())


def test_what_a_program_leaves_running_ends_with_it():
    """A process in the background keeps nobody waiting, and does not stay."""
    pid = int(sh(f"({FOR_EVER}) & echo $!")())
    until(lambda: gone(pid), "it to end")


def test_a_program_ends_with_its_worker(tmp_path):
    """The worker is killed, and so are the program and what it has started, even where a program
    is in a session without it."""
    with ff.ProcessExecutor(1) as pool:
        future = pool.submit(
            sh(f"echo $$ > {tmp_path}/a; ({FOR_EVER}) & echo $! > {tmp_path}/b; wait")
        )
        pids = [pid_in(tmp_path / "a"), pid_in(tmp_path / "b")]
        [activity] = [
            one for one in psutil.Process(pids[0]).parents() if "fanfold" in " ".join(one.cmdline())
        ][:1]
        activity.kill()
        with pytest.raises(ff.WorkerDied):
            future.result(60)
        until(lambda: all(map(gone, pids)), "the program to end")


@PLACES
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_a_program_ends_with_the_driver(place, signum, tmp_path):
    """Ctrl-C, or the death of the program that called: in every place."""
    code = f"""
import fanfold as ff
command = ff.command(["sh", "-c", 'echo $$ > {tmp_path}/pid; {FOR_EVER}', "{{}}"])
if __name__ == "__main__":
    ff.map(command, ["a"], on="{place}", workers=1)
"""
    (tmp_path / "driver.py").write_text(code)
    driver = subprocess.Popen([PYTHON, tmp_path / "driver.py"], stderr=subprocess.DEVNULL)
    pid = pid_in(tmp_path / "pid")
    driver.send_signal(signum)
    assert driver.wait(60) != 0
    until(lambda: gone(pid), "the program to end")


@pytest.mark.parametrize("place", ["threads", "processes"])
def test_a_timeout_ends_the_program(place, tmp_path):
    """That of the map; in threads, too, where other tasks are left behind."""
    command = sh(f"echo $$ > {tmp_path}/pid; {FOR_EVER}", "{}")
    [error] = ff.map(command, [1], on=place, timeout=3.0, errors="return")
    assert isinstance(error, ff.TaskTimeout)
    pid = pid_in(tmp_path / "pid")
    until(lambda: gone(pid), "the program to end")


def test_an_interrupted_task_ends_its_program(tmp_path):
    """KeyboardInterrupt while it runs, in the caller's own thread."""
    command = sh(f"echo $$ > {tmp_path}/pid; kill -INT $PPID; {FOR_EVER}")
    with pytest.raises(KeyboardInterrupt):
        command()
    assert gone(pid_in(tmp_path / "pid"))


ASKING = """
import fcntl, os, sys, termios
import fanfold as ff
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
try:
    ff.command(["sh", "-c", "read answer < /dev/tty"])()
except ff.CommandFailed as error:
    print(error)
"""


def test_a_program_that_asks_at_the_terminal_does_not_hang():
    """The kernel would stop it for ever: it fails, and says what it wanted."""
    ours, theirs = pty.openpty()
    driver = subprocess.Popen(
        [PYTHON, "-c", ASKING],
        stdin=theirs,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    os.close(theirs)
    assert "did not run: it waited for a terminal" in driver.communicate(timeout=60)[0]
    os.close(ours)
