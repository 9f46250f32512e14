"""What may stand in the text of an expression, and what is said about the rest."""

from __future__ import annotations

import os

import numpy as np
import pytest

import fanfold as ff
from fanfold.errors import UsageError
from fanfold.expressions.text import parse

REFUSED = {
    "__import__('os').system('touch harm')": "not allowed",
    "a.__class__": "it looks into an object",
    "np.sin(a)": r"write sin\(a\) for np.sin",
    "(lambda: 1)()": "not allowed",
    "lambda x: x": "pass the function itself",
    "[x for x in a]": "not allowed",
    "{x: 1 for x in a}": "not allowed",
    "(b := a)": "it assigns",
    "a if a else 1": "where",
    "a and a": "&",
    "not a": "~",
    "0 < a < 1": r"\(0 < a\) & \(a < 1\)",
    "a @ a": "matmul",
    "a[0]": "part of an array as a variable",
    "'text'": "not allowed",
    "f'{a}'": "not allowed",
    "None": "not allowed",
    "...": "not allowed",
    "a, a": "not allowed",
    "open('file')": "not allowed",
    "eval('1')": "not allowed",
    "sum(*a)": "not allowed",
    "sum(a, axes=0)": "axis=0",
    "sum(a, axis=a)": "axis is a whole number",
    "sum(a, axis=True)": "axis is a whole number",
    "sum(axis=0)": "axis=0",
    "sqrt(a, a)": "takes 1 argument",
    "sqrt(a, out=a)": "takes 1 argument",
    "sqr(a)": r"did you mean sqrt\(\)",
    "a in a": "not allowed",
    "a is a": "use ==",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_on_the_list_is_refused(text: str) -> None:
    """Nothing but arithmetic: the message names the part, a way out, and what is allowed."""
    a = np.ones(3)
    with pytest.raises(UsageError, match=REFUSED[text]) as caught:
        ff.evaluate(text, {"a": a})
    assert "An expression has numbers, variables" in str(caught.value)
    assert not os.path.exists("harm")


@pytest.mark.parametrize("text", ["a +", "", "a b", "a\0", "import os", "a = 1", "1a", "é é"])
def test_what_is_no_expression_of_python_is_refused(text: str) -> None:
    """A slip of the pen is an error of ours, with Python's reason."""
    with pytest.raises(UsageError, match="is not an expression"):
        parse(text)


@pytest.mark.parametrize("text", ["(" * 900 + "a" + ")" * 900, "-" * 3000 + "a", "+a" * 9000])
def test_no_text_crashes_the_parser(text: str) -> None:
    """Text that is nested too deeply is refused, or read."""
    with pytest.raises(UsageError, match=r"nested|is not an expression"):
        parse(text)


@pytest.mark.parametrize("text", ["9**9**9**9", "1 << 10**12", "7**7000000"])
def test_no_constant_takes_forever(text: str) -> None:
    """Whole numbers that no dtype holds are not computed."""
    with pytest.raises(UsageError, match="a whole number that no dtype holds"):
        ff.evaluate(text, {})


def test_a_text_is_read_once() -> None:
    """Reading is remembered: an expression in a loop costs its arithmetic."""
    assert parse("a + b * 3") is parse("a + b * 3")


def test_common_parts_are_computed_once() -> None:
    """A part that stands in two places is one node of the graph."""
    graph = parse("sin(a + b) * (a + b) + sin(a + b)")
    assert [node.operation for node in graph.nodes].count("sin") == 1
    assert [node.operation for node in graph.nodes].count("+") == 2


def test_variables_are_those_of_the_caller() -> None:
    """Local variables come before global ones, and a mapping replaces both."""
    local = np.arange(3)
    assert ff.evaluate("local + NUMBER").tolist() == [40, 41, 42]
    assert ff.evaluate("local + NUMBER", {"local": local, "NUMBER": 1}).tolist() == [1, 2, 3]
    assert [ff.evaluate("local * n").tolist() for n in (1, 2)] == [[0, 1, 2], [0, 2, 4]]
    with pytest.raises(UsageError, match="no variable 'NUMBER'"):
        ff.evaluate("local + NUMBER", {"local": local})


NUMBER = 40


def test_a_variable_may_be_named_like_a_function() -> None:
    """A name followed by brackets is a function, and any other a variable."""
    assert ff.evaluate("sum(sum) * sum", {"sum": np.array([1.0, 2.0])}).tolist() == [3.0, 6.0]


def test_an_unknown_variable_is_named_with_a_guess() -> None:
    """The message has the name that is missing, and one that is near it."""
    pressure = np.ones(3)
    with pytest.raises(UsageError, match="no variable 'presure' here: did you mean 'pressure'"):
        ff.evaluate("presure * 2", {"pressure": pressure})
    with pytest.raises(UsageError, match="no variable 'zz' here"):
        ff.evaluate("zz * 2", {"a": 1})


@pytest.mark.parametrize("expression", [3, None, b"a", np.ones(3)])
def test_an_expression_is_text_or_a_function(expression: object) -> None:
    """Anything else is refused by its type."""
    with pytest.raises(UsageError, match="an expression is text or a function"):
        ff.evaluate(expression, {})  # type: ignore[arg-type]


def test_places_and_workers_are_checked() -> None:
    """on= and workers= say what would be right."""
    with pytest.raises(UsageError, match='on="cpu" or on="cuda"'):
        ff.evaluate("1", {}, on="gpu")
    for workers in (0, -1, 1.5, True, "2"):
        with pytest.raises(UsageError, match="a whole number of threads"):
            ff.evaluate("1", {}, workers=workers)  # type: ignore[arg-type]
