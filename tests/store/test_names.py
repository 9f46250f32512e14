"""Names of folders, from any text."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold.store.directory import RunDirectory, safe_name

CORPUS = [
    "", " ", ".", "..", "../../etc/passwd", "/", "/absolute", "a/b", "a\\b", "C:\\x", "a\0b",
    "a\nb", "a\tb", "\x1b[31m", "-rf", "--help", ".hidden", "~", "~root", "$HOME", "$(id)", "`id`",
    "a;b", "a|b", "a&b", "a>b", "*", "?", "[a]", "'", '"', "%s", "{}",
    "gr\u00f6\u00dfer", "gro\u0308\u00dfer",
    "数", "😀", "\u202e", "\ud800", "CON", "con", "con.txt", "NUL", "com1", "LPT9.x", "a.", "a ",
    "A", "a", "x" * 80, "x" * 81, "x" * 300, "ü" * 300, "٣",
]  # fmt: skip

SAFE = ["pi.count_inside", "pi-1", "A", "a", "x" * 80, "1", "console", "com10", "_._", "con-1"]


def is_good(name: str) -> bool:
    return (
        re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}", name) is not None
        and not name.endswith(".")
        and name.split(".")[0].lower() not in ("con", "nul", "aux", "prn", "com1", "lpt9")
    )


@pytest.mark.parametrize("name", SAFE)
def test_safe_names_stay(name: str) -> None:
    """A name that can be a folder's everywhere stays as it is."""
    assert safe_name(name) == name


@given(st.text() | st.sampled_from(CORPUS))
def test_every_text_has_a_name(text: str) -> None:
    """R19: any text at all has a name that is safe on every file system and in every command line,
    and stands for itself."""
    name = safe_name(text)
    assert is_good(name)
    assert safe_name(name) == name


texts = st.text() | st.sampled_from(CORPUS) | st.text("aA-._/ \n", max_size=4)


@given(texts, texts)
def test_different_texts_have_different_names(one: str, other: str) -> None:
    """R19: two texts have one name only when one of them is the name of the other."""
    names = {safe_name(one), safe_name(other)}
    assert len(names) == 2 or one == other or names & {one, other}


def test_the_corpus_makes_as_many_folders(tmp_path: Path) -> None:
    """R19: what is hostile in a name ends as a folder of its own, in the folder it belongs to."""
    parent = tmp_path / "runs"
    for text in CORPUS:
        assert RunDirectory.create(parent, safe_name(text)).path.parent == parent
    assert len(list(parent.iterdir())) == len(set(CORPUS))
    assert os.listdir(tmp_path) == ["runs"]


def test_what_can_be_read_stays_readable() -> None:
    """A name keeps what it can of the text, and tells the rest apart by a digest."""
    assert safe_name("my run: 1").startswith("my_run__1-")
    assert safe_name("../x").startswith("_._x-")
    assert safe_name("my run: 1") != safe_name("my run; 1")
