"""The notebook of the laptop part runs in a kernel, and shows what it is stored with."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
from tests.learn.exercises import ROOT
from tests.learn.shown import same

import fanfold as ff

NOTEBOOK = ROOT / "examples" / "learn" / "laptop.ipynb"
EXECUTE = ROOT / "tests" / "learn" / "execute.py"

pytestmark = pytest.mark.skipif(
    not (find_spec("nbclient") and find_spec("ipykernel")),
    reason="nbclient and ipykernel are not installed here",
)


@pytest.fixture(scope="module")
def executed(tmp_path_factory, request):
    """The code cells of a copy that was run from the top; --write-pages stores it."""
    copy = tmp_path_factory.mktemp("notebook") / NOTEBOOK.name
    shutil.copy(NOTEBOOK, copy)
    (copy.parent / "flights").symlink_to(NOTEBOOK.parent / "flights")
    ended = subprocess.run(
        [sys.executable, EXECUTE, copy], capture_output=True, text=True, timeout=250
    )
    assert ended.returncode == 0, ended.stderr
    if request.config.getoption("--write-pages", False):
        store(json.loads(copy.read_text()))
    return code_cells(copy)


def store(notebook):
    """Without the bars: they have ended, and are no part of what a reader sees."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            outputs = [one for one in cell["outputs"] if one["output_type"] != "display_data"]
            cell["outputs"] = outputs
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def code_cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def text_of(cell):
    """What a cell shows as text, but for bars, which come and go."""
    shown = [one for one in cell["outputs"] if one["output_type"] != "display_data"]
    texts = (one.get("text") or one.get("data", {}).get("text/plain", "") for one in shown)
    return "".join("".join(text) for text in texts)


def test_cells_show_what_is_stored(executed):
    """Each cell shows what it was stored with, but for what is measured."""
    for stored, now in zip(code_cells(NOTEBOOK), executed, strict=True):
        found = text_of(now)
        assert same(text_of(stored), found), f"{''.join(now['source'])}\n{found}"


def test_a_study_draws_itself(executed):
    """A scaling study is a page of its own in a notebook, with its curve."""
    pages = [
        "".join(output["data"]["text/html"])
        for cell in executed
        for output in cell["outputs"]
        if "<iframe" in "".join(output.get("data", {}).get("text/html", ""))
    ]
    assert len(pages) == 1
    assert "svg" in pages[0]


def test_a_run_shows_its_report(tmp_path, monkeypatch):
    """The last line of a cell may be a run: it shows its report, in a frame that can do nothing."""
    monkeypatch.chdir(tmp_path)
    run = ff.run(abs, [-1, -2], name="<b>", on="serial", progress=False).wait()
    shown = run._repr_html_()
    assert shown.startswith('<iframe srcdoc="')
    assert " sandbox " in shown
    assert "&amp;lt;b&amp;gt;: done" in shown


def test_progress_is_drawn_in_place(executed):
    """A map that lasts has a bar in the cell, and no lines that pile up below it."""
    [cell] = [cell for cell in executed if "progress=True" in "".join(cell["source"])]
    [bar] = [one for one in cell["outputs"] if one["output_type"] == "display_data"]
    assert "".join(bar["data"]["text/html"]).startswith("<progress max=")
    assert "".join(bar["data"]["text/plain"]).startswith("fanfold: ")
    assert [output for output in cell["outputs"] if output["output_type"] == "stream"] == []
