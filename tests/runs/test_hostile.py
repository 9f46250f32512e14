"""Names, inputs and folders that mean harm: nothing is run, escaped from or given away."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path

import pytest

import fanfold as ff
from fanfold.cli import main
from fanfold.store.lease import Lease
from fanfold.store.pack import PackReader, PackWriter

NOBODY = 65534
SOURCE = Path(ff.__file__).parent

TEXTS = [
    "two words", "it's", 'say "x"', "line\nfeed", "tab\there", "../up", "../../etc/passwd",
    "/etc/passwd", "a/b", ".", "..", ".hidden", "-x", "--name", "naïve ☃ 🎉", "日本", "CON", "con",
    "Con", "nul.txt", "x" * 300, "é" * 200, "$(touch canary)", "`touch canary`", "; touch canary",
    "| touch canary", "&& touch canary", "\x1b[2Jwiped", "%s%n", "{0}", "*", "~", "\\", "a\rb",
    "\udc80",
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</title></style><iframe>",
    "<!--", "]]>", "javascript:alert(1)", "&lt;b&gt;", "{{7*7}}", "' onmouseover='alert(1)",
]  # fmt: skip

TASK = """
def task(text="nothing"):
    print(text)
    if "<" in text or "on" in text:
        raise ValueError(text)
    return len(text)
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever happens: no command in a text was run, and nothing was made elsewhere."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "t.py").write_text(TASK)
    yield
    assert not list(tmp_path.rglob("canary*"))
    assert {path.name for path in tmp_path.iterdir()} <= {"work", "stranger"} | {
        path.name for path in tmp_path.glob("[oe][ur][tr]-*")
    }


def fanfold(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fanfold", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=60,
    )


# Names and inputs ---------------------------------------------------------------------------------


def test_any_text_is_a_name(capfd: pytest.CaptureFixture) -> None:
    """R19, X10, X11: any text names a run, its own one and no other, in a folder below that of the
    runs; a terminal never obeys what is in it."""
    for index, name in enumerate(TEXTS):
        ff.run(len, ["x" * index], name=name, on="serial", progress=False).wait()
    assert len(list(Path("fanfold-runs").iterdir())) == len(TEXTS)
    for index, name in enumerate(TEXTS):
        for command in ("status", "logs", "report", "results", "retry", "cancel"):
            if name in (".", "..") or name.startswith("-"):
                continue
            capfd.readouterr()
            assert main([command, name]) == 0, (command, name)
            told = capfd.readouterr()
            assert "\x1b" not in told.out + told.err, (command, name)
        assert ff.Run.open(name).results() == [index]
    assert main(["runs"]) == 0
    assert "\x1b" not in capfd.readouterr().out


@pytest.mark.parametrize("name", ["$(touch canary); `touch canary`", "line\nfeed \x1b[2J", "-x y"])
def test_names_in_a_command(name: str) -> None:
    """R19, X10: so it is for a whole command, with workers."""
    done = fanfold("run", "t.py:task", "a", "--on", "processes", f"--name={name}")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stderr
    assert fanfold("status", "--", name).returncode == 0


def test_any_text_is_an_input() -> None:
    """R19, X10, X12: inputs and values of parameters are text, and nothing is made of them but
    arguments."""
    done = fanfold("run", "t.py:task", "--name", "i", "--on", "serial", "--json", "--", *TEXTS)
    failing = [text for text in TEXTS if "<" in text or "on" in text]
    assert done.returncode == 1
    run = ff.Run.open("i")
    values = run.results(errors="return")
    right = [None if text in failing else len(text) for text in TEXTS]
    assert [None if isinstance(value, Exception) else value for value in values] == right
    assert [str(failure.message) for failure in run.failures()] == failing
    done = fanfold("run", "t.py:task", "--name", "p", "--on", "serial",
                   "--param", "text=$(touch canary),`touch canary`")  # fmt: skip
    assert ff.Run.open("p").results() == [15, 14]


class Tags(HTMLParser):
    """The tags of a page and their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found[tag] += 1
        self.attributes.update(name for name, _ in attributes)
        for name, value in attributes:
            if name in ("href", "src"):
                assert (value or "").startswith(("#", "data:")), (name, value)


def task(text: str) -> int:
    print(text)
    raise ValueError(text)


def test_no_text_becomes_a_tag(capfd: pytest.CaptureFixture) -> None:
    """X08: nothing that a user, an input, an error or an output says becomes a part of the page of
    the report; it has no scripts of others, and no addresses."""
    pages = []
    for name, texts in (("plain", [str(index) for index in range(len(TEXTS))]), ("bad", TEXTS)):
        name = name if name == "plain" else "<script>alert(1)</script>"
        ff.run(task, texts, name=name, on="threads", workers=1, progress=False).wait()
        pages.append(Path(ff.Run.open(name).report(html=f"{len(pages)}.html")).read_text("utf-8"))
    plain, bad = map(Tags, pages)
    assert set(bad.found) == set(plain.found)
    assert bad.found["script"] == plain.found["script"]
    pale = {"fill-opacity"}  # of a worker's bar, where it was not busy all of the time
    assert bad.attributes ^ plain.attributes <= pale
    assert not [name for name in bad.attributes if name.startswith("on")]
    assert "alert(1)" in pages[1]  # it is told, as text
    for text in TEXTS:
        if "<" in text:
            assert text not in pages[1]


# Runs of others -----------------------------------------------------------------------------------

LOOK = """
import sys
seen = []

def watch(event, arguments):
    if event == "pickle.find_class":
        seen.append(arguments)

sys.addaudithook(watch)
from fanfold.cli import main
codes = [main(command) for command in (
    ["runs"], ["status", "r"], ["status", "r", "--json"], ["logs", "r"], ["logs", "r", "0"],
    ["report", "r"], ["report", "r", "--html", "page.html"], ["cancel", "r"],
)]
refused = [main(command) for command in (["results", "r"], ["retry", "r"], ["retry", "r", "--all"])]
print(codes, refused, seen, file=sys.stderr)
assert not any(codes) and all(refused) and not seen
"""


def plant_bombs(run: Path) -> None:
    """Pickles that do harm when they are loaded, where a run keeps its own."""
    bomb = b"cos\nsystem\n(S'touch canary-unpickled'\ntR."
    (run / "function.pickle").write_bytes(bomb)
    for pack in (run / "inputs-1.pack", run / "results/e0-a1.pack"):
        with PackReader(pack) as reader:
            header, frames = reader.header, list(reader.frames())
        pack.unlink()
        with PackWriter(pack, header) as writer:
            for frame in frames:
                size = len(frame.payload)
                writer.append(frame.first, frame.count, 1, bomb.ljust(size, b"."))


def give(folder: Path, user: int) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, -1)


@pytest.mark.parametrize("whose", ["somebody else's", "open to all"])
def test_nothing_is_unpickled_without_trust(whose: str) -> None:
    """X01, X02, X09: a run of somebody else, or one that others can write, is looked at without
    loading anything from it: state, logs and report are text. What needs loading is refused."""
    ff.run(len, ["a", "bc"], name="r", on="serial", progress=False).wait()
    run = Path("fanfold-runs/r")
    plant_bombs(run)
    if whose == "open to all":
        run.chmod(0o777)
    elif os.geteuid() != 0:
        pytest.skip("only root can give files away")
    else:
        give(run, NOBODY)
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    expected = "belongs to nobody" if whose != "open to all" else "others may write"
    assert done.stderr.count(expected) == 3, done.stderr
    for action in (lambda: ff.Run.open("r").results(), lambda: ff.Run.open("r").retry(all=True),
                   lambda: ff.run(len, ["a", "b"], name="r", on="serial")):  # fmt: skip
        with pytest.raises(ff.RunUntrusted if whose != "open to all" else ff.UnsafeFolder):
            action()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["function.pickle", "inputs-1.pack", "results/e0-a1.pack"])
def test_one_file_of_somebody_else(name: str) -> None:
    """X01, X16: it is enough that one of the files is somebody else's; with trust it is taken."""
    ff.run(len, ["a", "bc"], name="r", on="serial", progress=False).wait()
    os.chown(f"fanfold-runs/r/{name}", NOBODY, -1)
    for action in (lambda run: run.results(), lambda run: run.retry(all=True)):
        with pytest.raises(ff.RunUntrusted, match=rf"{name} belongs to nobody.*--trust"):
            action(ff.Run.open("r"))
    assert ff.Run.open("r", trust=True).results() == [1, 2]
    assert ff.Run.open("r", trust=True).retry(all=True).results() == [1, 2]


def test_a_folder_that_others_may_replace(tmp_path: Path) -> None:
    """X02: no run is made where everybody could put another in its place; nothing is left there."""
    shared = Path("shared")
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(ff.UnsafeFolder, match="chmod"):
        ff.run(len, ["a"], folder=shared / "runs", on="serial")
    assert [path.name for path in shared.rglob("*") if path.name != "runs"] == []
    shared.chmod(0o1777)
    assert ff.run(len, ["a"], folder=shared / "runs", name="r", on="serial").results() == [1]


LINKS = ["results/e0-a2.pack", "journals/e0-a2.journal", "leases/e0-a2.json", "leases/e0-a2.beat",
         "logs/e0-a2-w0.out", "logs/e0-a2-w0.err", "run.json", "inputs-1.json"]  # fmt: skip


@pytest.mark.parametrize("on", ["serial", "processes"])
@pytest.mark.parametrize("name", LINKS)
def test_planted_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, on: str) -> None:
    """X04: links where a driver will write, or read: nothing is written through them; it goes on,
    or says which file is in the way."""
    monkeypatch.setitem(Lease.take.__kwdefaults__, "watch", 0.01)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    victim = stranger / "victim"
    victim.write_text("precious")
    ff.run(len, ["a", "bc"], name="r", on=on, workers=1, progress=False).wait()
    link = Path("fanfold-runs/r", name)
    link.unlink(missing_ok=True)
    link.symlink_to(victim)
    told = ""
    try:
        results = ff.Run.open("r").retry(all=True).results()
    except (ff.RunError, OSError) as error:
        told = str(error)
    assert Path(name).name in told if told else results == [1, 2]
    assert victim.read_text() == "precious"
    assert [path.name for path in stranger.iterdir()] == ["victim"]


# Secrets ------------------------------------------------------------------------------------------


def test_the_environment_is_kept_nowhere() -> None:
    """X09: secrets in the environment are in no file of a run, whatever fails in it, nor in its
    report, nor in what commands print."""
    Path("s.py").write_text(
        "import os, logging\n"
        "def task(n):\n"
        "    logging.warning('task %s', n)\n"
        "    if n == 1: os.kill(os.getpid(), 9)\n"
        "    if n == 2: os.abort()\n"
        "    if n == 3: raise ValueError(n)\n"
        "    return n\n"
    )
    secret = {"API_TOKEN": "hunter2hunter2", "DB_PASSWORD": "hunter2hunter2"}
    told = fanfold(
        "run", "s.py:task", "--range", "0-5", "--name", "s", "--on", "processes", **secret
    )
    assert told.returncode == 1
    told_too = [fanfold(*command, **secret) for command in (
        ["report", "s"], ["report", "s", "--html", "page.html"], ["logs", "s"], ["status", "s"],
    )]  # fmt: skip
    for done in (told, *told_too):
        assert "hunter2" not in done.stdout + done.stderr
    files = [path for path in Path().rglob("*") if path.is_file()]
    assert len(files) > 8
    assert not [path for path in files if b"hunter2" in path.read_bytes()]


def test_shared_memory_is_private() -> None:
    """X05: what lies in shared memory while a run works is its user's alone."""

    def modes(_: int) -> tuple[bytes, list[int]]:
        found = []
        for path in Path("/dev/shm").glob("fanfold-*"):
            for each in (path, *path.glob("*")):
                with suppress(FileNotFoundError):  # of other programs
                    found.append(stat.S_IMODE(each.lstat().st_mode))
        return bytes(1 << 20), found

    run = ff.run(modes, range(8), name="m", on="processes", workers=2, progress=False)
    seen = {mode for _, modes in run.results() for mode in modes}
    assert seen
    assert not [oct(mode) for mode in seen if mode & 0o077]


# Our own code -------------------------------------------------------------------------------------


def test_no_text_is_run() -> None:
    """X10, X12: nowhere in fanfold is text given to a shell, or run as Python."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("eval", "exec", "os.system", "os.popen"), (path, node.lineno)
                assert not any(word.arg == "shell" for word in node.keywords), (path, node.lineno)


def test_nothing_is_picked_up_on_the_way() -> None:
    """X13: files in the working folder are neither configuration nor modules of the command."""
    command = Path(sys.executable).with_name("fanfold")
    if not command.exists():
        pytest.skip("the command is not installed beside this Python")
    ff.run(len, ["a"], name="r", on="serial", progress=False).wait()
    for name in ("fanfold.toml", ".fanfold.toml", "pyproject.toml", "setup.cfg"):
        Path(name).write_text("[tool.fanfold]\nname = 'evil'\n[fanfold]\nname = 'evil'\n")
    for name in ("fanfold", "click", "json", "psutil", "sitecustomize", "rich"):
        Path(f"{name}.py").write_text("open('canary', 'w')\n")
    for arguments in (["runs"], ["status", "r"], ["report", "r"], ["results", "r"]):
        done = subprocess.run(
            [str(command), *arguments], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr


def test_nothing_optional_is_imported() -> None:
    """X17: to look at runs loads neither engines nor libraries that are not asked for."""
    ff.run(len, ["a"], name="r", on="serial", progress=False).wait()
    script = (
        "import sys; from fanfold.cli import main; main(['runs']); main(['status', 'r']); "
        "others = {'dask', 'distributed', 'mpi4py', 'ipyparallel', 'cupy', 'pandas', 'joblib'};"
        "sys.exit(bool(others & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0
