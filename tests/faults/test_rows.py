"""Every row of the fault matrix has a test that injects it, or a reason why it has none.

The rows are the ways in which a local pool can be hurt, L01 to L62, a durable run, R01 to R27, and
one on a scheduler, S01 to S30, and attacks, X01 to X17, numbered once and for all; the docstring of
a test begins with the rows it holds. `docs/reference/faults.md` tells users the same.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
ROWS = [
    *(f"L{number:02}" for number in range(1, 63)),
    *(f"R{number:02}" for number in range(1, 28)),
    *(f"S{number:02}" for number in range(1, 31)),
    *(f"X{number:02}" for number in range(1, 18)),
]
NOT_TESTED = {
    "R09": "There is no database, so none of its journals can be left behind: see R07.",
    "R10": "There is no database, so none can be opened in a way that NFS does not bear.",
    "R25": "There is no command yet that removes runs.",
    "X03": "No keys are kept: what is unpickled must be the user's own, where nobody else can "
    "write (X01, X02), and checksums tell damage (R06).",
    "X06": "fanfold opens no sockets that have names: processes talk through inherited ones.",
    "X07": "fanfold does not listen on any network.",
}


def rows_tested() -> dict[str, list[str]]:
    """The tests of each row, by the beginnings of their docstrings."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                rows = re.match(r"((?:[LRSX]\d\d(?:, )?)+): ", ast.get_docstring(node) or "")
                for row in rows[1].split(", ") if rows else ():
                    found.setdefault(row, []).append(f"{path.name}::{node.name}")
    return found


def test_every_row_is_tested():
    """Each row is in the docstring of a test or in the table of those that are not tested."""
    assert sorted({*rows_tested(), *NOT_TESTED}) == sorted(ROWS)


def test_no_row_is_tested_and_not():
    """The table names no row that has a test, and gives a reason for each."""
    assert not NOT_TESTED.keys() & rows_tested().keys()
    assert all(NOT_TESTED.values())
