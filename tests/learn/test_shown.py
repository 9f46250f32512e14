"""What is written into the pages is clean, and written twice it is the same."""

import getpass
import platform

import pytest
from tests.learn.shown import clean, same, written

HERE, ME = platform.node(), getpass.getuser()
TABLE = "1[4].pretend      Demo             {:17}00:00:00 F workq\n"


@pytest.mark.parametrize(
    ("printed", "page"),
    [
        (f"  ran on    {HERE}, from ...\n", "  ran on    laptop, from ...\n"),
        (f"raised by rank 1 of 3 (process 7 on {HERE})\n",
         "raised by rank 1 of 3 (process 7 on laptop)\n"),
        (f"job 3[].pretend\n  element 1: done, on {HERE}, 5 of 5 done\n",
         "job 3[].pretend\n  element 1: done, on n1, 5 of 5 done\n"),
        (TABLE.format(ME), TABLE.format("ada")),
        ("fanfold: 13/20 done in 10s (1.3/s), about 5s left\nfanfold: 20 done in 11s\n",
         "fanfold: 20 done in 11s\n"),
        (f"one {HERE} and {ME} in a sentence\n", f"one {HERE} and {ME} in a sentence\n"),
    ],
)  # fmt: skip
def test_what_is_of_this_machine_alone_is_not_shown(printed, page):
    """The machine and its user have the names of the course, where a name of theirs may stand, and
    a column stays as wide as it was; that it was slow is not told."""
    assert clean(printed) == page
    assert written(page, printed) == page


@pytest.mark.parametrize(
    ("page", "printed"),
    [
        ("Hello from parent 11 12: answer\n", "Hello from parent 998 999: answer\n"),
        ("(process 25270 on laptop)\n", f"(process 7 on {HERE})\n"),
        ("Submitted batch job 7\n", "Submitted batch job 12\n"),
        ("  points inside: (1000, 769) (1000, 801)\n", "  points inside: (1000, 1) (1000, 2)\n"),
        ("from 2026-11-21 11:35:26 UTC\n", "from 2031-01-02 03:04:05 UTC\n"),
        ("used 0.2, at most 0.2 (element 1)\n", "used 0.2, at most 0.2 (element 2)\n"),
    ],
)
def test_chance_stays_as_it_is_shown(page, printed):
    """Process ids, dates and the like tell nothing: a page that has some keeps them."""
    assert same(page, printed)
    assert written(page, printed) == page


@pytest.mark.parametrize(
    ("page", "printed"),
    [
        ("serial 0.62 s\n", "serial 0.71 s\n"),
        ("  walltime  320ms, none asked for\n", "  walltime  2.38s, none asked for\n"),
        ("  walltime  2.30s of 1h00m00s (<1 %)\n", "  walltime  61.2s of 1h00m00s (2 %)\n"),
        ("without a lock: 61 of 500\n", "without a lock: 59 of 500\n"),
        (
            "--memory 256MB\n#PBS -l select=1:ncpus=1:mem=256mb\n",
            "--memory 192MB\n#PBS -l select=1:ncpus=1:mem=192mb\n",
        ),
        ("  [1] done, on n1, 1s, 4.3 MB\n", "  [1] done, on n1, 1s\n"),
    ],
)
def test_figures_are_written(page, printed):
    """What is measured is a figure of this machine; a page need not have the same one."""
    assert same(page, printed)
    assert written(page, printed) == printed


def test_what_is_left_out_by_hand_stays():
    """``...`` stays where it is, line by line, and where it may be many lines altogether."""
    page = "...[].local\nfanfold: 10 done in 1.62s\n"
    assert written(page, "7[].local\nfanfold: 10 done in 1.05s\n") == page.replace("1.62", "1.05")
    page = "Traceback\n  ...\nValueError: 3\nin 4 s\n"
    assert written(page, "Traceback\n  one\n  two\nValueError: 3\nin 5 s\n") == page


def test_what_is_wrong_is_not_the_same():
    """A page that shows something else is written as it should be, indentation and all."""
    assert not same("done: 3\n", "done: 4\n")
    assert written("done: 3\n", "  done: 4\n") == "  done: 4\n"
    assert not same("job 1[]: done\n", "job 1[].pretend: done\n")


def test_written_twice_is_the_same():
    """What was written is shown again as it is, whoever prints it next and where."""
    page = TABLE.format("ada") + "  ran on    n1, from 2026-11-21 11:35:26 UTC\n"
    printed = TABLE.format(ME) + f"  ran on    {HERE}, from 2031-01-02 03:04:05 UTC\n"
    once = written(page, printed)
    assert once == page
    assert written(once, printed) == once
