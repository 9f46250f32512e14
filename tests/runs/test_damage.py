"""Files of a run that are damaged, missing, mixed up or of a later version: recovered, or told by
one error that names the file; never a wrong result."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from zlib import crc32

import pytest

import fanfold as ff
from fanfold.cli import main
from fanfold.errors import RunDamaged, RunError, RunTooNew
from fanfold.runs.frames import forget_damaged
from fanfold.runs.state import journals, read_state
from fanfold.store.directory import RunDirectory
from fanfold.store.lease import Lease
from fanfold.store.pack import PackReader

DAMAGES = 500 if os.environ.get("FANFOLD_FAULTS") == "whole" else 120
RESULTS = [n * n for n in range(12)]


def square(n: int) -> int:
    with open("calls", "a") as out:
        print(n, file=out)
    if n in (2, 7) and not os.path.exists("good"):
        raise ValueError(f"no square for {n}")
    return n * n


def calls() -> list[int]:
    return [int(line) for line in Path("calls").read_text().split()]


def drive() -> ff.Run:
    return ff.run(square, list(range(12)), name="r", on="serial").wait()


def path(name: str = "") -> Path:
    return Path("fanfold-runs/r", name)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is on another host is watched for a moment only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Lease.take.__kwdefaults__, "watch", 0.01)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three attempts and two lists of inputs, with failures, to be copied."""
    folder = tmp_path_factory.mktemp("kept")
    before = os.getcwd()
    os.chdir(folder)
    try:
        ff.run(square, [5, 4, 3, 2, 1], name="r", on="serial").wait()
        drive()
        Path("good").touch()
        drive()
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def three(kept: Path, tmp_path: Path) -> Path:
    """A copy of it, in the working folder."""
    return copy(kept, tmp_path)


def copy(kept: Path, folder: Path) -> Path:
    shutil.rmtree(folder / "fanfold-runs", ignore_errors=True)
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    return folder / "fanfold-runs/r"


def outcome() -> str:
    """What a user meets who looks at the run, and then gives the same command again."""
    told = [attempt(read) for read in (look, results)]
    error = attempt(lambda: drive().results())
    if error is None:
        assert drive().results() == RESULTS
        assert attempt(look) is None
        told.append(attempt(lambda: ff.Run.open("r").retry().wait()))
    for one in (*told, error):
        assert one is None or str(path()) in str(one) or "fanfold retry" in str(one), repr(one)
    return "recovered" if error is None else type(error).__name__


def attempt(action: Callable[[], object]) -> Exception | None:
    try:
        action()
    except (RunError, ff.UsageError) as error:
        return error
    return None


def look() -> None:
    """Status, history and report say the same; none of them unpickles."""
    run = ff.Run.open("r")
    history, status = run.history(), run.status()
    assert status.total == history.total == history.done + history.failed + history.missing
    assert "r" in run.report()


def results() -> None:
    values = ff.Run.open("r").results(errors="return")
    for value, right in zip(values, RESULTS, strict=True):
        assert value == right or isinstance(value, (ff.TaskMissing, ValueError)), value


# Any damage of any file --------------------------------------------------------------------------


def files(run: Path) -> list[Path]:
    return sorted(file for file in run.rglob("*") if file.is_file())


def test_each_file_deleted(kept: Path, tmp_path: Path) -> None:
    """R06, R07, R24: any one file of a run may be missing: it recovers, or the error names the
    file; what says what was asked, or the inputs, cannot be made up."""
    run = copy(kept, tmp_path)
    found = {}
    for name in [file.relative_to(run) for file in files(run)]:
        copy(kept, tmp_path)
        path(str(name)).unlink()
        found[str(name)] = outcome() if str(name) != "run.json" else "not a run"
    lost = {name for name, what in found.items() if what != "recovered"}
    assert lost == {"run.json", "inputs-1.json", "inputs-2.json", "inputs-2.pack"}


def test_each_file_empty(kept: Path, tmp_path: Path) -> None:
    """R06: so it is when a file is empty, as after a power failure on some file systems."""
    run = copy(kept, tmp_path)
    found = {}
    for name in [file.relative_to(run) for file in files(run)]:
        copy(kept, tmp_path)
        path(str(name)).write_bytes(b"")
        found[str(name)] = outcome()
    lost = {name for name, what in found.items() if what != "recovered"}
    assert lost == {"run.json", "inputs-1.json", "inputs-2.json", "inputs-2.pack"}


def truncated(content: bytes, source: random.Random) -> bytes:
    return content[: source.randrange(len(content))]


def flipped(content: bytes, source: random.Random) -> bytes:
    place = source.randrange(len(content))
    return (
        content[:place] + bytes([content[place] ^ 1 << source.randrange(8)]) + content[place + 1 :]
    )


def zeroed(content: bytes, source: random.Random) -> bytes:
    begin = source.randrange(len(content))
    size = min(source.choice([16, 64, 512]), len(content) - begin)
    return content[:begin] + bytes(size) + content[begin + size :]


def grown(content: bytes, source: random.Random) -> bytes:
    return content + source.randbytes(source.choice([1, 40, 500]))


@pytest.mark.parametrize("damage", [truncated, flipped, zeroed, grown])
def test_damaged_files(
    kept: Path, tmp_path: Path, damage: Callable[[bytes, random.Random], bytes]
) -> None:
    """R06, R24: a file is cut at any byte, has a bit flipped, zeros in it, or rubbish at its end:
    never a wrong result, always all of them in the end, or one error that names the file."""
    source = random.Random(damage.__name__)
    found: dict[str, int] = {}
    for _ in range(DAMAGES // 4):
        run = copy(kept, tmp_path)
        file = source.choice([file for file in files(run) if file.stat().st_size])
        file.write_bytes(damage(file.read_bytes(), source))
        what = outcome()
        found[what] = found.get(what, 0) + 1
    assert set(found) <= {"recovered", "RunDamaged", "RunTooNew"}, found
    assert found["recovered"] > DAMAGES // 8, found


def test_swapped_files(kept: Path, tmp_path: Path) -> None:
    """R06: files of two attempts, or of two runs, that were exchanged are found out."""
    pairs = [("journals", "e0-a1.journal"), ("results", "e0-a1.pack"), ("leases", "e0-a1.json")]
    other = {"e0-a1.journal": "e0-a2.journal", "e0-a1.pack": "e0-a2.pack"}
    for folder, name in pairs:
        run = copy(kept, tmp_path)
        exchange(run / folder / name, run / folder / other.get(name, "e0-a2.json"))
        assert outcome() == "recovered", name
    stranger = tmp_path / "fanfold-runs/other"
    for name in ["run.json", "inputs-1.pack", "inputs-2.json", "inputs-2.pack", "function.pickle",
                 "journals/e0-a2.journal", "results/e0-a2.pack", "results/e0-a3.pack"]:  # fmt: skip
        run = copy(kept, tmp_path)
        ff.run(square, [50, 40, 30, 20, 10], name="other", on="serial").wait()
        ff.run(square, list(range(20, 32)), name="other", on="serial").wait()
        ff.run(square, list(range(20, 32)), name="other", on="serial").retry(all=True).wait()
        exchange(run / name, stranger / name)
        outcome()


def exchange(one: Path, other: Path) -> None:
    spare = one.with_name("spare")
    one.rename(spare)
    other.rename(one)
    spare.rename(other)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("run.json", r'"entropy": \d', '"entropy": 9'),
        ("run.json", r'"target": "', '"target": "x'),
        ("inputs-2.json", r"\[\[(\d+),", "[[7,"),
        ("inputs-2.json", r'"total": 12', '"total": 11'),
    ],
)
def test_text_that_reads_well_and_is_wrong(three: Path, name: str, old: str, new: str) -> None:
    """R06: text that says what was asked is believed only when it is as it was written: another
    seed, or other inputs, would give other results."""
    text = path(name).read_text()
    changed = re.sub(old, new, text, count=1)
    if changed == text:
        changed = re.sub(old, new.replace("9", "8").replace("7", "6"), text, count=1)
    assert changed != text
    path(name).write_text(changed)
    for action in (drive, look, results):
        with pytest.raises(RunDamaged, match=f"{re.escape(name)} is damaged"):
            action()


# What is done about it ----------------------------------------------------------------------------


def damage_result(run: Path, pack: str, task: int) -> None:
    """Flip a bit in the payload of a task's frame."""
    file = run / "results" / pack
    content = bytearray(file.read_bytes())
    with PackReader(file) as reader:
        offset = reader._begin
        for frame in reader.frames():
            end = offset + 32 + len(frame.payload)
            if frame.first <= task < frame.first + frame.count:
                content[end - 2] ^= 4
            offset = end
    file.write_bytes(content)


def test_a_damaged_result(three: Path) -> None:
    """R06: a result that is damaged is never given; the error names the file and the remedy."""
    damage_result(three, "e0-a2.pack", 9)
    run = ff.Run.open("r")
    with pytest.raises(RunDamaged, match=r"results/e0-a2.pack is damaged.*fanfold retry"):
        run.results()
    with pytest.raises(RunDamaged, match=r"e0-a2.pack"):
        list(run)
    state = read_state(RunDirectory.open(three))
    lost, told = forget_damaged(RunDirectory.open(three), state, run._asked.id)
    assert 9 in [index for tasks in lost for index in tasks]
    assert len(told) == 1


@pytest.mark.parametrize("how", ["retry", "again", "command"])
def test_damaged_results_run_again(three: Path, how: str) -> None:
    """R06: `retry`, and the same call or command, run the tasks whose results are damaged, and no
    others; what was damaged counts no more, and the report tells it."""
    damage_result(three, "e0-a2.pack", 9)
    before = calls()
    if how == "retry":
        run = ff.Run.open("r").retry()
    elif how == "again":
        run = drive()
    else:
        assert main(["retry", "r"]) == 0
        run = ff.Run.open("r")
    assert run.results() == RESULTS
    again = calls()[len(before) :]
    assert 9 in again
    assert len(again) < 12
    assert any("damaged" in sentence for sentence in run.history().damage)
    run.retry().wait()
    assert len(calls()) == len(before) + len(again)
    assert ff.Run.open("r").status().state == "done"


def test_a_damaged_result_is_told_on_the_way(three: Path, capfd: pytest.CaptureFixture) -> None:
    """R06: the command that repairs says which file was damaged."""
    damage_result(three, "e0-a2.pack", 9)
    assert main(["retry", "r"]) == 0
    told = capfd.readouterr().err
    assert re.search(r"e0-a2.pack is damaged: .*: its tasks run again", told)


def test_a_damaged_function(three: Path) -> None:
    """R06: a function that is damaged is not run; who has it goes on all the same."""
    content = bytearray(path("function.pickle").read_bytes())
    content[len(content) // 2] ^= 1
    path("function.pickle").write_bytes(content)
    with pytest.raises(RunDamaged, match=r"function\.pickle is damaged"):
        ff.Run.open("r").retry(all=True)
    assert drive().results() == RESULTS


def test_records_of_a_damaged_line_run_again(three: Path) -> None:
    """R06: a damaged line costs the tasks that it told of, and nothing else."""
    file = path("journals/e0-a2.journal")
    lines = file.read_bytes().splitlines(keepends=True)
    number = next(i for i, line in enumerate(lines) if b'"is":"done"' in line)
    told = json.loads(lines[number][9:])
    lines[number] = lines[number].replace(b"done", b"dove", 1)
    file.write_bytes(b"".join(lines))
    before = len(calls())
    run = drive()
    assert run.results() == RESULTS
    assert calls()[before:] == list(range(told["first"], told["first"] + told["count"]))
    assert f"line {number + 1}" in " ".join(run.history().damage)


def test_whole_lines_that_make_no_sense(three: Path) -> None:
    """R24: records that match their checksums and tell of tasks that there are not count for
    nothing, and are told."""
    records = [
        {"is": "done", "first": 11, "count": 10**12, "place": [0, 9]},
        {"is": "done", "first": -1, "count": 1, "place": [0, 9]},
        {"is": "done", "first": 0, "count": 1, "place": "here"},
        {"is": "failed", "first": 99, "final": True, "place": [1, 2]},
        {"is": "done"},
        {"is": "a later invention", "first": "?"},
    ]
    with path("journals/e0-a3.journal").open("ab") as file:
        for record in records:
            body = json.dumps(record).encode()
            file.write(b"%08x %b\n" % (crc32(body), body))
    state = read_state(RunDirectory.open(three))
    assert state.done == 12
    assert len([told for told in state.damage if "counts for nothing" in told]) >= 4
    assert ff.Run.open("r").results() == RESULTS


@pytest.mark.parametrize("name", ["run.json", "journals/e0-a2.journal", "results/e0-a2.pack"])
def test_a_later_format(three: Path, name: str) -> None:
    """R08, R13: what a newer fanfold wrote is refused, by the name of the file, not guessed at."""
    content = path(name).read_bytes()
    if name.endswith("pack"):
        path(name).write_bytes(b"FFP7" + content[4:])
    elif name.endswith("json"):
        path(name).write_bytes(content.replace(b'"format": 1', b'"format": 7'))
    else:
        header, _, rest = content.partition(b"\n")
        body = header[9:].replace(b'"format":1', b'"format":7')
        path(name).write_bytes(b"%08x %b\n" % (crc32(body), body) + rest)
    for action in (lambda: ff.Run.open("r").results(), lambda: ff.Run.open("r").retry(), drive):
        with pytest.raises(RunTooNew, match=f"{name} is of format 7"):
            action()


def test_results_that_cannot_be_loaded_here(kept: Path, tmp_path: Path) -> None:
    """R13: a result whose class is gone fails alone, by its index; the others are there."""
    (tmp_path / "gone_soon.py").write_text("class Thing: pass\n")
    (tmp_path / "make.py").write_text(
        "import gone_soon\ndef make(n): return gone_soon.Thing() if n == 1 else n\n"
    )
    go = "import make, fanfold as ff; ff.run(make.make, [0, 1, 2], name='g', on='serial', chunk=1)"
    subprocess.run([sys.executable, "-c", go], check=True, timeout=60)
    (tmp_path / "gone_soon.py").unlink()
    values = ff.Run.open("g").results(errors="return")
    assert [values[0], values[2]] == [0, 2]
    assert isinstance(values[1], ff.LoadFailed)
    assert values[1].index == 1
    with pytest.raises(ff.LoadFailed, match="gone_soon"):
        ff.Run.open("g").results()


@pytest.mark.parametrize("name", ["run.json", "inputs-2.json", "inputs-2.pack"])
def test_begin_afresh(three: Path, name: str) -> None:
    """R06: where a run cannot be recovered, "fresh" keeps it aside as it is, and begins anew."""
    path(name).write_bytes(path(name).read_bytes()[:9])
    run = ff.run(square, list(range(12)), name="r", on="serial", resume="fresh").wait()
    assert run.results() == RESULTS
    assert three.with_name("r.before-1").is_dir()


# Power loss ---------------------------------------------------------------------------------------


def cut_after(run: Path, writer: str, size: int) -> None:
    """The disk as a power failure may leave it: of the journal only ``size`` bytes; of the pack
    what its records tell of, for that was synced before them."""
    journal = run / "journals" / f"{writer}.journal"
    os.truncate(journal, size)
    with PackReader(run / "results" / f"{writer}.pack") as reader:
        last = reader._begin
    for _, told in journals(RunDirectory(run), []):
        if told.path.name == journal.name:
            for record in told.records():
                last = max(last, sum(record.get("place", [0])))
    os.truncate(run / "results" / f"{writer}.pack", last)


def test_power_loss(kept: Path, tmp_path: Path) -> None:
    """R01, R03: whatever was not synced is gone, at any byte: what the records tell is there, is
    not run again, and the rest is."""
    source = random.Random(3)
    for _ in range(DAMAGES // 3):
        run = copy(kept, tmp_path)
        writer = source.choice(["e0-a1", "e0-a2", "e0-a3"])
        for later in range(int(writer[-1]) + 1, 4):  # they did not begin yet
            for file in run.rglob(f"e0-a{later}*"):
                file.unlink()
        size = (run / f"journals/{writer}.journal").stat().st_size
        with (run / f"journals/{writer}.journal").open("rb") as file:
            header = len(file.readline())
        cut_after(run, writer, source.randint(header, size))
        directory = RunDirectory.open(run)
        recorded = read_state(directory).done
        assert forget_damaged(directory, read_state(directory), ff.Run.open("r")._asked.id) == (
            [],
            [],
        )
        before = len(calls())
        assert drive().results() == RESULTS
        assert len(calls()) - before == 12 - recorded, (writer, recorded)


# Leases and heartbeats ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [b"", b"{}", b'{"at": "soon", "workers": 3}', b"\x00" * 99, b"[1]"]
)
def test_lost_heartbeats_and_leases(three: Path, text: bytes) -> None:
    """R05: heartbeats and leases that say nothing are no obstacle to status, nor to going on."""
    for file in path("leases").iterdir():
        file.write_bytes(text)
    assert ff.Run.open("r").status().done == 12
    assert ff.Run.open("r").retry(all=True).results() == RESULTS


@pytest.fixture(autouse=True)
def _no_damaged_stranger() -> Iterator[None]:
    yield
    assert not list(Path("fanfold-runs").glob(".new-*")), "an unfinished run was left"


def test_a_damaged_neighbour(tmp_path: Path) -> None:
    """R24: another run that cannot be read does not keep a command from its own."""
    (tmp_path / "task.py").write_text("def f(n): return n\n")
    command = [sys.executable, "-m", "fanfold", "run", "task.py:f", "1", "--on", "serial"]
    subprocess.run(command, check=True, timeout=60)
    (tmp_path / "fanfold-runs/bad").mkdir()
    (tmp_path / "fanfold-runs/bad/run.json").write_text("{")
    done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    assert "run task.f-1 goes on: 1 of 1 tasks are done" in done.stderr
    assert main(["runs"]) == 0
