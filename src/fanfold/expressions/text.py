"""From text to a graph: Python's own parser, and a list of what is allowed. Nothing is ever run."""

from __future__ import annotations

import ast
import difflib
import functools
from typing import Any

from fanfold.errors import UsageError
from fanfold.expressions.graph import Graph, Node
from fanfold.expressions.operations import ALIASES, FUNCTIONS, REDUCTIONS

__all__ = ["ALLOWED", "checked_axis", "parse"]

_BINARY: dict[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
}
_COMPARISONS: dict[type[ast.AST], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.GtE: ">=",
    ast.Gt: ">",
}
_UNARY: dict[type[ast.AST], str] = {ast.USub: "neg", ast.UAdd: "pos", ast.Invert: "~"}

ALLOWED = (
    "an expression has numbers, variables, + - * / // % ** & | ^ ~ << >>, comparisons, where(), "
    "NumPy's functions of single elements such as sqrt() and sin(), and the reductions "
    f"{', '.join(REDUCTIONS)}"
)

_INSTEAD: dict[type[ast.AST], str] = {
    ast.Attribute: "it looks into an object: give what is there as a variable, and write sin(a) "
    "for np.sin(a)",
    ast.BoolOp: "`and` and `or` do not work on arrays: write (a > 0) & (b > 0)",
    ast.Not: "`not` does not work on arrays: write ~(a > 0)",
    ast.IfExp: "`if` does not work on arrays: write where(a > 0, a, 0)",
    ast.MatMult: "@ does not work element by element: use numpy.matmul",
    ast.Subscript: "square brackets are not read: give a part of an array as a variable",
    ast.Lambda: "it makes a function: pass the function itself, ff.evaluate(lambda a: a + 1)",
    ast.NamedExpr: "it assigns: an expression only computes",
    ast.In: "`in` does not work on arrays: compare with == and |",
    ast.NotIn: "`not in` does not work on arrays: compare with != and &",
    ast.Is: "`is` does not work on arrays: use ==",
    ast.IsNot: "`is not` does not work on arrays: use !=",
}


@functools.lru_cache(maxsize=256)
def parse(text: str) -> Graph:
    """The graph of an expression. Raises `UsageError` for everything that is not on the list.

    >>> parse("a**2 + b").names()
    ['a', 'b']
    >>> parse("__import__('os').system('true')")
    Traceback (most recent call last):
    fanfold.errors.UsageError: in "__import__('os').system('true')": ...
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
        reader = _Reader(text)
        reader.graph.root = reader.read(tree.body)
    except SyntaxError as error:
        raise UsageError(f"{text!r} is not an expression: {error.msg}") from None
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{text!r} is not an expression: {error}") from None
    except (RecursionError, MemoryError):
        raise UsageError(
            f"the expression {text[:40]!r}... is nested too deeply: compute parts of it first"
        ) from None
    return reader.graph


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.graph = Graph()

    def read(self, tree: ast.expr) -> int:
        """The position of the node for this part of the text."""
        match tree:
            case ast.Constant(value=bool() | int() | float() | complex()):
                return self.graph.add(Node("value", detail=tree.value))
            case ast.Name():
                return self.graph.add(Node("variable", detail=tree.id))
            case ast.BinOp():
                return self._apply(_BINARY, tree.op, tree, tree.left, tree.right)
            case ast.UnaryOp():
                return self._apply(_UNARY, tree.op, tree, tree.operand)
            case ast.Compare(ops=[op], comparators=[right]):
                return self._apply(_COMPARISONS, op, tree, tree.left, right)
            case ast.Compare():
                raise self._refusal(tree, "write a chain as (0 < a) & (a < 1)")
            case ast.Call(func=ast.Name(id=name)):
                return self._call(ALIASES.get(name, name), tree)
            case ast.Call(func=ast.Attribute() as func):
                raise self._refusal(tree, _INSTEAD[type(func)])
        raise self._refusal(tree, _INSTEAD.get(type(tree)))

    def _apply(
        self, symbols: dict[type[ast.AST], str], op: ast.AST, tree: ast.expr, *operands: ast.expr
    ) -> int:
        if type(op) not in symbols:
            raise self._refusal(tree, _INSTEAD.get(type(op)))
        return self.graph.add(Node(symbols[type(op)], tuple(map(self.read, operands))))

    def _call(self, name: str, tree: ast.Call) -> int:
        if any(isinstance(argument, ast.Starred) for argument in tree.args):
            raise self._refusal(tree, None)
        if name in REDUCTIONS:
            return self._reduction(name, tree)
        if name not in FUNCTIONS:
            close = difflib.get_close_matches(name, [*FUNCTIONS, *REDUCTIONS], n=1)
            raise self._refusal(tree, f"did you mean {close[0]}()?" if close else None)
        takes = arity(name)
        if tree.keywords or len(tree.args) != takes:
            raise self._refusal(tree, f"{name}() takes {takes} argument{'s' * (takes > 1)}")
        return self.graph.add(Node(name, tuple(map(self.read, tree.args))))

    def _reduction(self, name: str, tree: ast.Call) -> int:
        """``sum(x)``, ``sum(x, 0)``, ``sum(x, axis=(0, 1), keepdims=True)``."""
        options = dict(zip(("axis", "keepdims"), tree.args[1:], strict=False))
        options |= {keyword.arg: keyword.value for keyword in tree.keywords if keyword.arg}
        given = len(tree.args) - 1 + len(tree.keywords)
        if not tree.args or given != len(options) or not options.keys() <= {"axis", "keepdims"}:
            raise self._refusal(tree, f"write {name}(x), {name}(x, axis=0) or add keepdims=True")
        try:
            read = {key: ast.literal_eval(value) for key, value in options.items()}
            detail = (checked_axis(read.get("axis")), bool(read.get("keepdims", False)))
        except (ValueError, TypeError):
            raise self._refusal(
                tree, "axis is a whole number, several of them in brackets, or None"
            ) from None
        return self.graph.add(Node(name, (self.read(tree.args[0]),), detail))

    def _refusal(self, tree: ast.expr, instead: str | None) -> UsageError:
        part = ast.get_source_segment(self.text.strip(), tree) or self.text
        shown = f"{part!r} is not allowed" + (f": {instead}" if instead else "")
        return UsageError(f"in {self.text!r}: {shown}. {ALLOWED[0].upper()}{ALLOWED[1:]}")


def arity(name: str) -> int:
    """How many arguments a function takes."""
    ufunc = FUNCTIONS[name].compute
    return 3 if name == "where" else getattr(ufunc, "nin", 1)


def checked_axis(axis: Any) -> tuple[int, ...] | None:
    """The axes of a reduction as a tuple; `TypeError` for what cannot be one."""
    if axis is None:
        return None
    axes = axis if isinstance(axis, tuple) else (axis,)
    if any(isinstance(one, bool) or not isinstance(one, int) for one in axes):
        raise TypeError("no axis")
    return axes
