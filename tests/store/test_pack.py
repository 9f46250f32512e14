"""Packs: what was put in comes out, or an error that names the file."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import tempfile
import tracemalloc
from array import array
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold.errors import RunDamaged, RunTooNew
from fanfold.store.directory import open_private
from fanfold.store.pack import Frame, PackReader, PackWriter

HEADER = {"run": "7f3a", "element": 0, "attempt": 1}
FRAMES = [(0, 4, 1, b"zero to three"), (4, 1, 2, b""), (5, 2, 1, bytes(range(40)))]

Place = tuple[int, int]


def written(path: Path, header: dict[str, object] = HEADER) -> list[Place]:
    """Write a pack; the places of its frames."""
    with PackWriter(path, header) as pack:
        places = [pack.append(*frame) for frame in FRAMES]
        assert pack.size == path.stat().st_size == sum(places[-1])
    return places


def plain(frame: Frame) -> tuple[int, int, int, bytes]:
    return frame.first, frame.count, frame.attempt, bytes(frame.payload)


frames = st.tuples(
    st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary()
)


@given(st.lists(frames))
def test_what_is_put_in_comes_out(given: list[tuple[int, int, int, bytes]]) -> None:
    """Reading is the inverse of writing, one by one from their places and all in order."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.pack")
        with PackWriter(path, HEADER) as writer:
            places = [writer.append(*frame) for frame in given]
            writer.sync()
        with PackReader(path, run="7f3a") as reader:
            assert [plain(reader.read(place)) for place in places] == given
            assert [plain(frame) for frame in reader.frames()] == given
            assert reader.header == HEADER
            assert reader.damage == []


def test_a_frame_is_as_documented(tmp_path: Path) -> None:
    """The format is that of docs/reference/run-directory.md."""
    path = tmp_path / "a.pack"
    offset, length = written(path)[2]
    data = path.read_bytes()[offset : offset + length]
    magic, _, first, count, attempt, size = struct.unpack("<4sIQIIQ", data[:32])
    assert (magic, first, count, attempt, size) == (b"FFP1", 5, 2, 1, 40)
    assert data[32:] == bytes(range(40))


def test_payloads_may_be_views(tmp_path: Path) -> None:
    """A payload is any contiguous memory, counted in bytes; a place may come from JSON, a list."""
    numbers = array("d", [1.5, 2.5])
    with PackWriter(tmp_path / "a.pack", HEADER) as pack:
        offset, length = pack.append(0, 2, 1, memoryview(numbers))
    with PackReader(tmp_path / "a.pack") as reader:
        assert reader.read([offset, length]).payload == numbers.tobytes()


def test_a_pack_is_read_while_it_grows(tmp_path: Path) -> None:
    """What is appended after a reader was opened can be read."""
    path = tmp_path / "a.pack"
    with PackWriter(path, HEADER) as writer, PackReader(path) as reader:
        assert list(reader.frames()) == []
        for count, frame in enumerate(FRAMES, 1):
            place = writer.append(*frame)
            if count != 2:
                assert plain(reader.read(place)) == frame
            assert [plain(frame) for frame in reader.frames()] == FRAMES[:count]


def test_threads_may_read_at_once(tmp_path: Path) -> None:
    """Reading has no position that threads could disturb."""
    path = tmp_path / "a.pack"
    with PackWriter(path, HEADER) as writer:
        places = [writer.append(n, 1, 1, b"%d" % n * 500) for n in range(200)]
    with PackReader(path) as reader, ThreadPoolExecutor(4) as pool:
        for n, frame in enumerate(pool.map(reader.read, places * 5)):
            assert plain(frame) == (n % 200, 1, 1, b"%d" % (n % 200) * 500)


def test_torn_at_every_byte(tmp_path: Path) -> None:
    """R06: of a pack that ends within a frame the whole ones are read, and the rest is told."""
    path = tmp_path / "a.pack"
    places = written(path)
    data = path.read_bytes()
    ends = [places[0][0], *(offset + length for offset, length in places)]
    for size in range(ends[0], len(data)):
        path.write_bytes(data[:size])
        whole = sum(end <= size for end in ends) - 1
        with PackReader(path) as reader:
            assert [plain(frame) for frame in reader.frames()] == FRAMES[:whole]
            torn = f"the frame at byte {ends[whole]}, the last, is torn"
            assert reader.damage == ([] if size in ends else [torn])
            with pytest.raises(RunDamaged, match=rf"byte {ends[whole]} of {re.escape(str(path))}"):
                reader.read(places[whole])
    for size in range(ends[0]):
        path.write_bytes(data[:size])
        with pytest.raises(RunDamaged, match=re.escape(str(path))):
            PackReader(path)


@pytest.mark.parametrize("change", [0x01, 0x20, 0x80, 0xFF])
def test_every_byte_flipped(tmp_path: Path, change: int) -> None:
    """R06: a changed byte is found out: what is read is right, or there is an error."""
    path = tmp_path / "a.pack"
    places = written(path)
    data = path.read_bytes()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= change
        path.write_bytes(damaged)
        if position < places[0][0]:
            with pytest.raises(RunDamaged, match=re.escape(str(path))):
                PackReader(path)
            continue
        hit = next(n for n, place in enumerate(places) if position < sum(place))
        with PackReader(path, run="7f3a") as reader:
            for n, place in enumerate(places):
                if n != hit:
                    assert plain(reader.read(place)) == FRAMES[n]
            with pytest.raises(
                RunDamaged, match=f"byte {places[hit][0]} of {re.escape(str(path))}"
            ):
                reader.read(places[hit])
            got: list[tuple[int, int, int, bytes]] = []
            try:
                got.extend(map(plain, reader.frames()))
            except RunDamaged:
                told = True
            else:
                told = bool(reader.damage)
            assert told
            assert got == FRAMES[: len(got)]


def test_two_frames_swapped(tmp_path: Path) -> None:
    """X16: a frame that is whole, and of other tasks than it should be, is refused."""
    path = tmp_path / "a.pack"
    places = written(path)
    with PackReader(path) as reader:
        assert plain(reader.read(places[0], expect=(0, 4))) == FRAMES[0]
        with pytest.raises(RunDamaged, match="holds tasks 0 to 3, and should hold task 4"):
            reader.read(places[0], expect=(4, 1))


def test_the_pack_of_another_run(tmp_path: Path) -> None:
    """R06: a pack of another run is not taken for one of this."""
    path = tmp_path / "a.pack"
    written(path, {**HEADER, "run": "other"})
    with pytest.raises(RunDamaged, match="belongs to the run other, not to 7f3a"):
        PackReader(path, run="7f3a")
    written(tmp_path / "b.pack", {})
    with pytest.raises(RunDamaged, match="belongs to the run None"):
        PackReader(tmp_path / "b.pack", run="7f3a")


@pytest.mark.parametrize("place", [(0, 10**15), (10**15, 100), (-5, 100), (70, 3), (70, -1)])
def test_a_place_that_is_not_there(tmp_path: Path, place: Place) -> None:
    """X14: a place beyond the file is an error before anything is allocated for it."""
    path = tmp_path / "a.pack"
    written(path)
    with PackReader(path) as reader:
        tracemalloc.start()
        try:
            with pytest.raises(RunDamaged, match=f"byte {place[0]} of {re.escape(str(path))}"):
                reader.read(place)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("length", [2**31, 2**62, 2**64 - 1])
def test_a_frame_that_claims_to_be_huge(tmp_path: Path, length: int) -> None:
    """X14: a length is believed when the file is as long; nothing is allocated before."""
    path = tmp_path / "a.pack"
    offset, _ = written(path)[1]
    data = bytearray(path.read_bytes())
    data[offset + 24 : offset + 32] = length.to_bytes(8, "little")
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with PackReader(path) as reader:
            assert [plain(frame) for frame in reader.frames()] == FRAMES[:1]
            assert reader.damage
            with pytest.raises(RunDamaged):
                reader.read((offset, 32 + length))
        path.write_bytes(data[:24] + length.to_bytes(8, "little") + data[32:])
        with pytest.raises(RunDamaged):
            PackReader(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_what_is_no_pack(tmp_path: Path) -> None:
    """R06, X04: empty and missing files, links, pipes and other data are refused by name."""
    path = tmp_path / "a.pack"
    other = tmp_path / "other.pack"
    written(other)
    makers = [
        path.touch,
        lambda: path.write_bytes(b"\x80\x05."),
        lambda: path.write_bytes(other.read_bytes()[64:]),
        lambda: path.symlink_to(other),
        lambda: os.mkfifo(path),
        lambda: None,
    ]
    for make in makers:
        make()
        with pytest.raises(RunDamaged, match=re.escape(str(path))):
            PackReader(path)
        path.unlink(missing_ok=True)


def test_a_newer_pack_is_refused(tmp_path: Path) -> None:
    """R08: a pack of a newer format is refused by name."""
    path = tmp_path / "a.pack"
    written(path)
    path.write_bytes(b"FFP2" + path.read_bytes()[4:])
    with pytest.raises(RunTooNew) as caught:
        PackReader(path)
    assert (caught.value.path, caught.value.found, caught.value.known) == (path, 2, 1)


def test_a_descriptor_is_closed_with_its_reader(tmp_path: Path) -> None:
    """X04: a file that was opened and checked is read as it was opened, whatever is at its name
    now, and closed in the end (or at once, when it is no pack)."""
    path = tmp_path / "a.pack"
    places = written(path)
    descriptor = open_private(path, trust=False)
    path.unlink()
    with PackReader(path, descriptor=descriptor) as reader:
        assert plain(reader.read(places[0])) == FRAMES[0]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    path.write_bytes(b"nonsense")
    descriptor = open_private(path, trust=False)
    with pytest.raises(RunDamaged):
        PackReader(path, descriptor=descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_pack_is_new_and_private(tmp_path: Path) -> None:
    """X02, X04: the file is made by its writer, 0600 whatever the umask, never through a link."""
    path = tmp_path / "a.pack"
    before = os.umask(0)
    try:
        written(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o7777 == 0o600
    (tmp_path / "link.pack").symlink_to(tmp_path / "elsewhere")
    for name in ("a.pack", "link.pack"):
        with pytest.raises(FileExistsError):
            PackWriter(tmp_path / name, HEADER)
    assert not (tmp_path / "elsewhere").exists()


def test_the_store_does_not_unpickle() -> None:
    """X01: the store cannot run what a file holds: it does not even import pickle."""
    script = (
        "import sys, fanfold.store.directory, fanfold.store.lease, fanfold.store.pack\n"
        "sys.exit('pickle' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
