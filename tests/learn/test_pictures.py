"""The pictures of the pages are cut from the report of a run."""

from xml.etree import ElementTree

import pytest
from tests.learn.exercises import ROOT

import fanfold as ff


@pytest.fixture
def pictures(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.syspath_prepend(ROOT / "examples" / "learn")
    import learn_pictures

    return learn_pictures


@pytest.mark.parametrize(("section", "bars"), [("Timeline", 3), ("Memory", 1)])
def test_a_picture_needs_nothing_but_itself(pictures, tmp_path, monkeypatch, section, bars):
    """A section's chart is a picture of its own: whole, with its title and its bars."""
    monkeypatch.chdir(tmp_path)
    run = ff.run(pictures.grow, range(1, 13), workers=1)
    run.results()
    page = (tmp_path / run.report(html="report.html")).read_text(encoding="utf-8")
    drawn = ElementTree.fromstring(pictures.cut(page, section))
    kinds = [each.get("class", "").split() for each in drawn.iter()]
    assert sum("bar" in kind for kind in kinds) >= bars
    assert any(each.text for each in drawn.iter() if each.tag.endswith("text"))


def test_no_picture_is_left_over(pictures):
    """Each picture that is drawn for the course is shown on a page of it."""
    shown = "".join(page.read_text() for page in (ROOT / "docs" / "learn").glob("*.md"))
    assert [path.name for path in pictures.PICTURES.glob("learn-*") if path.name not in shown] == []
