"""22 of 22: no exercise is left out, and no block of a page is there for show only.

How many were executed, and why others were skipped, is told at the end of a test run.
"""

import ast

import pytest
from tests.learn.exercises import LEARN, blocks, excused, exercises

PAGES = sorted(LEARN.glob("*.md"))


def test_every_exercise_has_its_row():
    """The table has E1 to E22, each once; its page and its example are there."""
    found = exercises()
    assert sorted(int(each.name[1:]) for each in found) == list(range(1, 23))
    assert [each.name for each in found if not each.page.exists()] == []
    assert [each.name for each in found if not each.example.exists()] == []


def test_every_exercise_is_executed():
    """22 of 22: each page runs its example, and names it in a link."""
    found = exercises()
    assert sum(bool(each.sessions()) for each in found) == 22
    assert [each.name for each in found if each.example.name not in each.page.read_text()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_runs_or_says_why_not(page):
    """A block is a doctest, a session, a part of an example of the page, or tells why it is none.

    Why not stands in the line before the block: ``<!-- not run: it needs a cluster -->``.
    """
    here = [each for each in exercises() if each.page == page]
    sources = [source for each in here for source in each.sources()]
    for language, text in blocks(page):
        runs = (
            language == "console"  # by tests/test_examples.py
            or (language == "python" and text.startswith(">>> "))
            or any(text in each.sessions() for each in here)
            or any(text in source for source in sources)
            or text in excused(page)
        )
        assert runs, text


def test_an_example_can_be_read_whole(exercise):
    """An example is short, begins with what it shows, and is guarded by ``__main__``."""
    source = exercise.example.read_text()
    assert len(source.splitlines()) <= 100
    assert ast.get_docstring(ast.parse(source))
    assert 'if __name__ == "__main__":' in source
