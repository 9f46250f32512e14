"""Durations, sizes and ranges: read what people write, write what can be read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold.errors import UsageError
from fanfold.units import (
    format_duration,
    format_size,
    format_walltime,
    parse_duration,
    parse_indices,
    parse_size,
    parse_walltime,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        (".5s", 0.5),
        ("60s", 60),
        ("60 S", 60),
        ("90m", 5400),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("2d", 172_800),
        ("250ms", 0.25),
        ("1:30", 90),
        ("1:30:00", 5400),
        ("100:00:01.5", 360_001.5),
        ("0", 0),
    ],
)
def test_duration_spellings(text, seconds):
    """Seconds, units and clock times are read; case and spaces do not matter."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "-5", "-5s", "5x", "s", "1h30", "1:2:3:4", "1:75", "nan", "inf", "1e3", "٣"]
)
def test_what_is_no_duration(text):
    """Anything else, negative durations included, is refused with the right spellings."""
    with pytest.raises(UsageError, match=r"is not a duration: write seconds \(90\)"):
        parse_duration(text)


@given(st.floats(min_value=1e-4, max_value=1e7))
def test_a_shown_duration_reads_back(seconds):
    """Reading a shown duration gives it back: to three digits, or to the second above a minute."""
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=6e-3)


@given(st.integers(min_value=60, max_value=10**9))
def test_whole_seconds_survive(seconds):
    """Above a minute no second is lost."""
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (1, "1 B"),
        (2**20 - 1, "1.0 MB"),
        (4 * 2**30, "4.0 GB"),
        (5 * 2**40, "5.0 TB"),
        (5000 * 2**40, "5000.0 TB"),
    ],
)
def test_sizes_are_powers_of_1024(size, text):
    """A GB is 2**30 bytes, and a size never rounds up to 1024 of its unit."""
    assert format_size(size) == text


@given(
    first=st.integers(0, 10**6), length=st.integers(0, 300), step=st.one_of(st.none(), st.just(3))
)
def test_one_part_is_a_range(first, length, step):
    """``first-last:step`` is the range that includes both ends, whatever its length."""
    last = first + length
    text = f"{first}-{last}" + (f":{step}" if step else "")
    assert parse_indices(text) == range(first, last + 1, step or 1)


@given(st.lists(st.integers(0, 10**6), min_size=2, unique=True))
def test_a_list_keeps_its_order(indices):
    """Indices come in the order they are written."""
    assert parse_indices(",".join(map(str, indices))) == indices


def test_a_long_range_costs_nothing():
    """A range is not written out: a million million indices are one object."""
    assert len(parse_indices("1-1000000000000")) == 10**12


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not a range"),
        ("a-b", "is not a range"),
        ("1-", "is not a range"),
        ("-3", "is not a range"),
        ("1:3", "is not a range"),
        ("1,,2", "is not a range"),
        ("1-5%2", "is not a range"),
        ("10-1", "runs backwards: write 1-10"),
        ("1-9:0", "write a step of at least 1"),
        ("1-5,3", "names an index twice"),
    ],
)
def test_what_is_no_range(text, sentence):
    """A range that cannot be meant is refused, with the right spelling."""
    with pytest.raises(UsageError, match=sentence):
        parse_indices(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90m", 5400),
        ("1h30m", 5400),
        ("1:30:00", 5400),
        ("1:30", 90),
        ("100:00:00", 360_000),
        ("2-12", 216_000),
        ("2-12:30", 217_800),
        ("0-00:00:30", 30),
        ("2d", 172_800),
        ("1.5s", 2),
    ],
)
def test_walltime_spellings(text, seconds):
    """Durations, clock times, and Slurm's days before a dash; parts of a second count as one."""
    assert parse_walltime(text) == seconds


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("90", "is 90 seconds to PBS and 90 minutes to Slurm: write 90s or 90m"),
        ("0s", "no time at all"),
        ("", "is not a walltime: write 1h30m"),
        ("-1", "is not a walltime"),
        ("UNLIMITED", "is not a walltime"),
        ("1-2-3", "is not a walltime"),
    ],
)
def test_what_is_no_walltime(text, sentence):
    """What the schedulers take differently, or not at all, is refused with right spellings."""
    with pytest.raises(UsageError, match=sentence):
        parse_walltime(text)


@given(st.integers(1, 10**8))
def test_a_written_walltime_reads_back(seconds):
    """Whole seconds survive, however many hours there are."""
    assert parse_walltime(format_walltime(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4 << 30),
        ("4gb", 4 << 30),
        ("4 G", 4 << 30),
        ("4096mb", 4 << 30),
        ("4GiB", 4 << 30),
        ("1.5g", 3 << 29),
        ("512b", 512),
        ("2TB", 2 << 40),
    ],
)
def test_size_spellings(text, size):
    """Powers of 1024, in either case, with blanks or without."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("4", "is 4 bytes to PBS and 4 megabytes to Slurm: write 4MB or 4GB"),
        ("0GB", "is not a size: write 4GB"),
        ("", "is not a size"),
        ("-4GB", "is not a size"),
        ("4 lots", "is not a size"),
    ],
)
def test_what_is_no_size(text, sentence):
    """What the schedulers take differently, or not at all, is refused with right spellings."""
    with pytest.raises(UsageError, match=sentence):
        parse_size(text)
