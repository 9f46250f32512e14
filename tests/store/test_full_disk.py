"""A disk that is full: an error that names file and remedy, and files that still read well."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fanfold.errors import NoSpace
from fanfold.store.directory import RunDirectory
from fanfold.store.files import create
from fanfold.store.journal import Journal, JournalWriter
from fanfold.store.pack import PackReader, PackWriter

RECORD = {"is": "done", "first": 0, "count": 1, "note": "x" * 1000}


def test_a_journal_on_a_full_disk(full: Path) -> None:
    """R16, R26: records that do not fit are not in the journal, not even in part; it reads well,
    and takes on smaller ones."""
    path = full / "a.journal"
    with JournalWriter(path, {}) as journal:
        count = 0
        while (error := refused(journal)) is None:
            count += 3
        assert str(path) in str(error)
        assert "free some space" in str(error)
        assert count > 30
        assert journal.size == path.stat().st_size
        reader = Journal(path)
        assert list(reader.records()) == [RECORD] * count
        assert reader.damage == []
        journal.append([{"is": "end"}])
        assert list(reader.records()) == [RECORD] * count + [{"is": "end"}]


def refused(journal: JournalWriter) -> NoSpace | None:
    """Append three records; the error, if there is one."""
    try:
        journal.append([RECORD] * 3)
    except NoSpace as error:
        return error
    return None


def test_a_pack_on_a_full_disk(full: Path) -> None:
    """R16, R26: a frame that does not fit is not in the pack, and the next has the right place."""
    path = full / "a.pack"
    with PackWriter(path, {}) as pack, PackReader(path) as reader:
        pack.append(0, 1, 1, b"a" * 20_000)
        with pytest.raises(NoSpace, match="free some space"):
            pack.append(1, 1, 1, b"b" * 60_000)
        assert pack.size == path.stat().st_size
        place = pack.append(2, 1, 1, b"c" * 20_000)
        assert bytes(reader.read(place).payload) == b"c" * 20_000
        assert [frame.first for frame in reader.frames()] == [0, 2]


def test_a_new_file_on_a_full_disk(full: Path) -> None:
    """R16: a file that cannot be begun is not there; one that cannot be replaced stays."""
    large = "x" * 80_000
    for writer in (JournalWriter, PackWriter):
        with pytest.raises(NoSpace):
            writer(full / "a.new", {"run": large})
    with pytest.raises(NoSpace):
        create(full / "a.new", large.encode())
    directory = RunDirectory(full)
    directory.write_text("run.json", "{}")
    with pytest.raises(NoSpace):
        directory.write_text("run.json", large)
    assert directory.read_json("run.json") == {}
    assert os.listdir(full) == ["run.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_says_so_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """R16: over NFS a full disk, or a quota, shows when a file is synced: the same error."""

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with PackWriter(tmp_path / "a.pack", {}) as pack:
        pack.append(0, 1, 1, b"a")
        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", fail, raising=False)
            with pytest.raises(NoSpace) as caught:
                pack.sync()
    assert caught.value.errno == number
