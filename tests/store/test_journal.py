"""Journals: what was written is read, and what was damaged is told."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from itertools import accumulate
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold.errors import RunDamaged, RunTooNew
from fanfold.store.journal import FORMAT, Journal, JournalWriter, newest, tail

HEADER = {"run": "7f3a", "element": 0, "attempt": 1}
RECORDS = [
    {"is": "done", "first": 0, "count": 4, "place": [64, 99]},
    {"is": "failed", "first": 4, "error": {"type": "ValueError", "message": "größer\n☃"}},
    {"is": "done", "first": 5, "count": 1, "place": [163, 64]},
    {"is": "tally", "done": 5, "failed": 1, "seconds": 0.25},
    {"is": "end", "why": "failed", "at": 1.7e9},
]

Record = dict[str, Any]


def written(path: Path, records: list[Record] = RECORDS) -> bytes:
    """Write a journal; what the file holds."""
    with JournalWriter(path, HEADER) as journal:
        journal.append(records)
        assert journal.size == path.stat().st_size
    return path.read_bytes()


def read(path: Path, end: int | None = None) -> tuple[list[Record], list[str]]:
    journal = Journal(path, end=end)
    return list(journal.records()), journal.damage


def is_part(some: list[Record], of: list[Record]) -> bool:
    """Are they among those, in their order?"""
    rest = iter(of)
    return all(record in rest for record in some)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=5), max_size=5))
def test_what_is_written_is_read(appended: list[list[Record]]) -> None:
    """Reading is the inverse of writing, for any records, in whatever portions they come."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.journal")
        with JournalWriter(path, HEADER) as writer:
            for records in appended:
                writer.append(records)
                writer.sync()
        journal = Journal(path)
        everything = [record for records in appended for record in records]
        assert list(journal.records()) == everything
        assert journal.header == {"is": "journal", "format": FORMAT, **HEADER}
        assert (journal.damage, journal.torn) == ([], False)
        assert tail(path, path.stat().st_size) == [journal.header, *everything]


def test_a_line_is_a_checksum_and_json(tmp_path: Path) -> None:
    """The format is that of docs/reference/run-directory.md: text that any tool can read."""
    data = written(tmp_path / "a.journal")
    assert data.isascii()
    for line in data.decode().splitlines():
        checksum, _, text = line.partition(" ")
        assert re.fullmatch("[0-9a-f]{8}", checksum)
        assert int(checksum, 16) == crc32(text.encode())
        assert "is" in json.loads(text)


def test_records_can_be_read_again(tmp_path: Path) -> None:
    """A journal is read from its begin each time."""
    written(tmp_path / "a.journal")
    journal = Journal(tmp_path / "a.journal")
    assert list(journal.records()) == list(journal.records()) == RECORDS


def test_a_journal_is_read_while_it_grows(tmp_path: Path) -> None:
    """A reader sees what has been written when it reads, and is not in the writer's way."""
    path = tmp_path / "a.journal"
    with JournalWriter(path, HEADER) as writer:
        journal = Journal(path)
        for count, record in enumerate(RECORDS, 1):
            writer.append([record])
            assert list(journal.records()) == RECORDS[:count]


def test_torn_at_every_byte(tmp_path: Path) -> None:
    """R01, R06: whatever a crash leaves of the last two lines, the whole ones count, and a part of
    one is told."""
    path = tmp_path / "a.journal"
    data = written(path)
    ends = list(accumulate(map(len, data.splitlines(keepends=True))))
    for size in range(ends[-3], len(data) + 1):
        path.write_bytes(data[:size])
        journal = Journal(path)
        whole = sum(end <= size for end in ends) - 1
        assert list(journal.records()) == RECORDS[:whole]
        assert journal.torn == (size not in ends)
        torn = f"line {whole + 2} (byte {ends[whole]}), the last, is torn"
        assert journal.damage == ([torn] if journal.torn else [])
        assert tail(path) == [journal.header, *RECORDS[:whole]]


@pytest.mark.parametrize("change", [0x01, 0x20, 0x80, 0xFF])
def test_every_byte_flipped(tmp_path: Path, change: int) -> None:
    """R06: a changed byte costs the records of its line at most, which is told; no record is ever
    read that was not written."""
    path = tmp_path / "a.journal"
    data = written(path)
    header = data.index(b"\n") + 1
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= change
        path.write_bytes(damaged)
        assert is_part(tail(path), [{"is": "journal", "format": FORMAT, **HEADER}, *RECORDS])
        if position < header:
            continue  # see below
        records, damage = read(path)
        assert is_part(records, RECORDS)
        assert len(records) >= len(RECORDS) - 2  # the line feed belongs to two
        assert (records == RECORDS) == (damage == [])


def test_every_byte_of_the_header_flipped(tmp_path: Path) -> None:
    """R06: a journal whose header is damaged is refused by name, not read as if it were whole."""
    path = tmp_path / "a.journal"
    data = written(path)
    for position in range(data.index(b"\n") + 1):
        damaged = bytearray(data)
        damaged[position] ^= 0x04
        path.write_bytes(damaged)
        if position != 8:  # the space between checksum and record says nothing
            with pytest.raises(RunDamaged, match=re.escape(str(path))):
                Journal(path)


def test_damaged_lines_are_told_where_they_are(tmp_path: Path) -> None:
    """R06: line and byte of the damage are told, once for lines that follow one another."""
    path = tmp_path / "a.journal"
    lines = written(path).splitlines(keepends=True)
    lines[2] = b"garbage\n"
    lines[3] = b"\n"
    lines[5] = lines[5][:20] + b"\0" * (len(lines[5]) - 21) + b"\n"
    path.write_bytes(b"".join(lines) + b"7f")
    records, damage = read(path)
    ends = list(accumulate(map(len, lines)))
    assert records == [RECORDS[0], RECORDS[3]]
    assert damage == [
        f"lines 3 to 4 (from byte {ends[1]}) are damaged: what they said is lost",
        f"line 6 (byte {ends[4]}) is damaged: what it said is lost",
        f"line 7 (byte {ends[5]}), the last, is torn",
    ]


@pytest.mark.parametrize("body", [b"", b"1", b"[]", b"{", b'{"a":1},{"b":2}', b"[" * 100_000])
def test_a_checksum_does_not_make_a_record(tmp_path: Path, body: bytes) -> None:
    """R06: a line that matches its checksum and is no record counts as damage, and alone."""
    path = tmp_path / "a.journal"
    lines = written(path).splitlines(keepends=True)
    lines[2] = b"%08x %b\n" % (crc32(body), body)
    path.write_bytes(b"".join(lines))
    records, damage = read(path)
    assert records == [RECORDS[0], *RECORDS[2:]]
    assert [sentence[:7] for sentence in damage] == ["line 3 "]


def test_damage_in_a_large_journal(tmp_path: Path) -> None:
    """R06: of a journal of many megabytes one damaged line is lost, and told by its number; a
    record may be larger than what is read at a time."""
    path = tmp_path / "a.journal"
    records = [{"is": "done", "first": n, "ran": [n] * 30} for n in range(20_000)]
    records[7_000] = {"is": "failed", "message": "x" * 3_000_000}
    lines = written(path, records).splitlines(keepends=True)
    byte = sum(map(len, lines[:15_000]))
    lines[15_000] = lines[15_000].replace(b"done", b"gone")
    path.write_bytes(b"".join(lines))
    found, damage = read(path)
    assert found == records[:14_999] + records[15_000:]
    assert damage == [f"line 15001 (byte {byte}) is damaged: what it said is lost"]


def test_nothing_counts_beyond_the_end(tmp_path: Path) -> None:
    """R04: of a journal only what it held when a newer attempt began is read, and a line that was
    not whole then does not count, even if it is now."""
    path = tmp_path / "a.journal"
    data = written(path)
    ends = list(accumulate(map(len, data.splitlines(keepends=True))))
    for end in range(len(data) + 1):
        journal = Journal(path, end=end)
        assert list(journal.records()) == RECORDS[: max(0, sum(e <= end for e in ends) - 1)]
        assert journal.torn == (end > ends[0] and end not in ends)
    assert read(path, end=len(data) + 1000) == (RECORDS, [])


def test_an_empty_journal_is_damaged(tmp_path: Path) -> None:
    """R06: what a driver left that died before its first word is no journal, and is told so."""
    path = tmp_path / "a.journal"
    path.touch()
    with pytest.raises(RunDamaged, match=f"{re.escape(str(path))} is empty"):
        Journal(path)
    assert tail(path) == []


@pytest.mark.parametrize(
    "content",
    [b"\0" * 4096, b"PK\x03\x04" * 100, b"{}\n", b"\n\n", b"00000000 \n", b"x" * (17 << 20)],
    ids=["zeros", "zip", "json", "empty lines", "empty record", "one long line"],
)
def test_anything_else_is_no_journal(tmp_path: Path, content: bytes) -> None:
    """R06: a file that does not begin with a header is refused by name."""
    path = tmp_path / "a.journal"
    path.write_bytes(content)
    with pytest.raises(RunDamaged, match=f"{re.escape(str(path))} does not begin with the header"):
        Journal(path)
    assert tail(path) == []


def test_a_newer_journal_is_refused(tmp_path: Path) -> None:
    """R08: a journal of a newer format is refused by name, for its records may mean something
    else; an older fanfold does not guess."""
    path = tmp_path / "a.journal"
    with JournalWriter(path, {"format": FORMAT + 1}):
        pass
    with pytest.raises(RunTooNew) as caught:
        Journal(path)
    assert (caught.value.path, caught.value.found, caught.value.known) == (path, 2, 1)
    assert f"{path} is of format 2" in str(caught.value)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """X04: links, folders and pipes at the name of a journal are refused, and do not block."""
    target, path = tmp_path / "target", tmp_path / "a.journal"
    written(target)
    path.symlink_to(target)
    for make in (path.mkdir, lambda: os.mkfifo(path), lambda: None):
        with pytest.raises(RunDamaged, match=re.escape(str(path))):
            Journal(path)
        with pytest.raises(RunDamaged, match=re.escape(str(path))):
            tail(path)
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        make()


def test_the_tail_is_the_end(tmp_path: Path) -> None:
    """The tail is the whole records among the last bytes, however many bytes these are."""
    path = tmp_path / "a.journal"
    data = written(path)
    everything = [Journal(path).header, *RECORDS]
    ends = [0, *accumulate(map(len, data.splitlines(keepends=True)))]
    for size in range(len(data) + 10):
        count = sum(begin >= len(data) - size for begin in ends[:-1])
        assert tail(path, size) == everything[len(everything) - count :]


@pytest.mark.parametrize("after", [0, 1, 300, 3000])
@pytest.mark.parametrize("before", [0, 5, 5000])
def test_what_is_new_begins_with_the_last_tally(tmp_path: Path, before: int, after: int) -> None:
    """What there is to add to the last tally is told whole, wherever in the journal that is."""
    path = tmp_path / "a.journal"
    news = [{"is": "done", "first": number, "count": 1, "ran": []} for number in range(after)]
    with JournalWriter(path, HEADER) as journal:
        journal.append({"is": "tally", "done": number} for number in range(before))
        journal.append(news)
    told = newest(path)
    assert told[1:] == news
    assert told[0] == ({"is": "tally", "done": before - 1} if before else Journal(path).header)


def test_a_damaged_tally_does_not_count(tmp_path: Path) -> None:
    """What is new is added to the tally before it then."""
    path = tmp_path / "a.journal"
    with JournalWriter(path, HEADER) as journal:
        journal.append({"is": "tally", "done": number} for number in range(3))
    path.write_bytes(path.read_bytes().replace(b'"done":2', b'"done":7'))
    assert newest(path) == [{"is": "tally", "done": 1}]


def test_the_tail_of_a_huge_journal(tmp_path: Path) -> None:
    """R18: the tail of a journal is read from its end, however long it is: here 1 TB."""
    path = tmp_path / "a.journal"
    written(path)
    last = path.read_bytes().splitlines(keepends=True)[-1]
    os.truncate(path, 1 << 40)
    with path.open("ab") as file:
        file.write(b"\n" + last)
    assert tail(path) == RECORDS[-1:]


def test_a_journal_is_new_and_private(tmp_path: Path) -> None:
    """X02, X04: the file is made by its writer, 0600 whatever the umask; what is there already, a
    link above all, is left alone."""
    for mask in (0o000, 0o022, 0o077, 0o777):
        path = tmp_path / f"{mask}.journal"
        before = os.umask(mask)
        try:
            data = written(path)
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o7777 == 0o600
        with pytest.raises(FileExistsError):
            JournalWriter(path, {})
        assert path.read_bytes() == data
    link = tmp_path / "link.journal"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        JournalWriter(link, {})
    assert not (tmp_path / "elsewhere").exists()


def test_all_records_or_none(tmp_path: Path) -> None:
    """A record that cannot be written keeps those that come with it from being written."""
    path = tmp_path / "a.journal"
    with JournalWriter(path, HEADER) as journal:
        journal.append(RECORDS[:1])
        with pytest.raises(TypeError):
            journal.append([RECORDS[1], {"is": object()}])
        journal.append(RECORDS[2:])
    assert read(path) == ([RECORDS[0], *RECORDS[2:]], [])


def test_short_writes_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write of which the system takes a part only, as it may, is carried on."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    written(tmp_path / "a.journal")
    assert read(tmp_path / "a.journal") == (RECORDS, [])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")])
def test_an_interrupted_write_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """R16: what is written after a write that was interrupted, or that failed, can be read."""
    path = tmp_path / "a.journal"
    real = os.write

    def interrupted(descriptor: int, data: bytes) -> int:
        real(descriptor, data[:-3])
        raise error

    with JournalWriter(path, HEADER) as journal:
        journal.append(RECORDS[:1])
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", interrupted)
            with pytest.raises(type(error)):
                journal.append(RECORDS[1:])
        journal.append(RECORDS[3:])
        assert journal.size == path.stat().st_size
    assert read(path) == ([RECORDS[0], *RECORDS[3:]], [])


def test_after_a_failed_sync_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R16: a system that could not write may say at the next sync that all is well. It is not
    asked again, and nothing more is recorded in this file."""
    with JournalWriter(tmp_path / "a.journal", HEADER) as journal:
        journal.append(RECORDS[:1])
        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", failing(errno.EIO), raising=False)
            with pytest.raises(OSError, match="as asked"):
                journal.sync()
        for write in (journal.sync, lambda: journal.append(RECORDS)):
            with pytest.raises(OSError, match="as asked"):
                write()
    assert read(tmp_path / "a.journal") == (RECORDS[:1], [])


def failing(number: int) -> Any:
    def fail(*_: object) -> None:
        raise OSError(number, "as asked")

    return fail
