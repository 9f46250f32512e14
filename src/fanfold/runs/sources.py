"""What code says: its definition in the source, and the names that it uses.

A definition counts only when it compiles to the code that is loaded: a file may have been edited
since it was imported.
"""

from __future__ import annotations

import ast
import dis
import linecache
from collections.abc import Iterator
from hashlib import blake2b
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from fanfold.runs.canonical import Canonical, code_form

__all__ = ["Import", "Sources", "definition_form", "module_form", "names_used"]

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
_SILENT = {"annotation", "returns", "type_comment", "type_params", "kind", "ctx"}
_LOADS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD"}


class Import(NamedTuple):
    """An import statement: ``from ..name import members``, with as many dots as ``level``."""

    name: str
    level: int
    members: tuple[str, ...]


# Definitions ------------------------------------------------------------------------------------


class Sources:
    """The source files of a program, each read once."""

    def __init__(self) -> None:
        self._files: dict[str, _File | None] = {}

    def function(self, function: FunctionType) -> _Function | None:
        """The definition of a function; None where it is not certain."""
        code = function.__code__
        file = self._file(code.co_filename, function.__globals__)
        return None if file is None else file.definition(code)

    def cls(
        self, cls: type, methods: list[FunctionType], names: dict[str, Any]
    ) -> ast.ClassDef | None:
        """The definition of a class with these methods, in the module with these globals."""
        nodes = [self.function(method) for method in methods]
        path = methods[0].__code__.co_filename if methods else names.get("__file__")
        file = self._file(path, names) if path else None
        if file is None or None in nodes:
            return None
        around = [name for name in cls.__qualname__.split(".") if name != "<locals>"]
        found = [
            node for node in _classes(file.tree, around) if set(nodes).issubset(ast.walk(node))
        ]
        return found[0] if len(found) == 1 else None

    def _file(self, path: str, names: dict[str, Any]) -> _File | None:
        if path not in self._files:
            linecache.checkcache(path)
            try:
                self._files[path] = _File("".join(linecache.getlines(path, names)))
            except _UNPARSABLE:
                self._files[path] = None
        return self._files[path]


class _File:
    """A file of source: the functions defined in it, and what they compile to."""

    def __init__(self, text: str) -> None:
        self.tree = ast.parse(text)
        self._nodes: dict[tuple[str, int], list[_Function]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, _Function):
                name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
                self._nodes.setdefault((name, _first_line(node)), []).append(node)
        self._codes: dict[tuple[str, int], list[CodeType]] = {}
        for code in _codes(compile(self.tree, "", "exec", dont_inherit=True)):
            self._codes.setdefault((code.co_name, code.co_firstlineno), []).append(code)

    def definition(self, code: CodeType) -> _Function | None:
        place = code.co_name, code.co_firstlineno
        nodes, codes = self._nodes.get(place, ()), self._codes.get(place, ())
        if len(nodes) != 1 or len(codes) != 1 or code_form(codes[0]) != code_form(code):
            return None
        return nodes[0]


def _first_line(node: _Function) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _classes(node: ast.AST, names: list[str]) -> Iterator[ast.ClassDef]:
    """The definitions of a class that is called ``names[-1]`` inside ``names[:-1]``."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _Scope):
            if not isinstance(child, ast.expr):
                yield from _classes(child, names)
        elif child.name == names[0]:
            if len(names) > 1:
                yield from _classes(child, names[1:])
            elif isinstance(child, ast.ClassDef):
                yield child


# Forms ------------------------------------------------------------------------------------------


def definition_form(node: ast.AST) -> bytes:
    """The form of a definition, whatever its layout, comments, docstrings and annotations.

    >>> one, two = ast.parse("def f(x): return x+1"), ast.parse("def f(x: int):\\n return x + 1")
    >>> definition_form(one) == definition_form(two)
    True
    """
    out: list[bytes] = []
    _write(node, out)
    return blake2b(b"".join(out), digest_size=16).digest()


def module_form(content: bytes) -> tuple[bytes, list[Import]]:
    """The form of a module's file, and its imports; by its bytes where it is not Python."""
    try:
        tree = ast.parse(content)
    except _UNPARSABLE:
        return blake2b(content, digest_size=16).digest(), []
    return definition_form(tree), list(_imports(tree))


def _imports(tree: ast.Module) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, 0, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            members = tuple(alias.name for alias in node.names)
            yield Import(node.module or "", node.level, members)


def _write(value: Any, out: list[bytes], inside: type | None = None) -> None:
    """Write a node, a list of nodes or a name, so that no two read alike."""
    if isinstance(value, list):
        out.append(b"[")
        for member in value:
            _write(member, out, inside)
        out.append(b"]")
    elif isinstance(value, ast.Constant):
        form = Canonical().of(value.value)
        out.append(b"=%d " % len(form) + form)
    elif isinstance(value, ast.AnnAssign) and inside is not ast.ClassDef and value.value:
        _write(ast.Assign([value.target], value.value), out)
    elif isinstance(value, ast.AST):
        if isinstance(value, ast.JoinedStr):  # Python 3.12 began with empty pieces in it
            value.values = [piece for piece in value.values if not _is_empty(piece)]
        _write_node(value, out, inside)
    else:
        out.append(repr(value).encode("utf-8", "surrogatepass"))


def _write_node(node: ast.AST, out: list[bytes], inside: type | None) -> None:
    out.append(b"<" + type(node).__name__.encode())
    declares = isinstance(node, ast.AnnAssign) and inside is ast.ClassDef  # such as a dataclass
    for name, value in ast.iter_fields(node):
        if value is None or value == [] or (name in _SILENT and not declares):
            continue
        if name == "body" and isinstance(value, list) and _is_docstring(node, value[0]):
            value = value[1:]
        out.append(b" %s:" % name.encode())
        _write(value, out, type(node) if name == "body" else None)
    out.append(b">")


def _is_empty(piece: ast.expr) -> bool:
    return isinstance(piece, ast.Constant) and piece.value == ""


def _is_docstring(node: ast.AST, first: ast.AST) -> bool:
    return (
        isinstance(node, (_Scope, ast.Module))
        and isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )


# Names ------------------------------------------------------------------------------------------


def names_used(code: CodeType) -> Iterator[tuple[str, ...] | Import]:
    """The global names that code uses, each with the attributes taken of it, and its imports.

    >>> code = compile("def f(x): return helpers.tools.g(x) + N", "", "exec").co_consts[0]
    >>> list(names_used(code))
    [('helpers', 'tools', 'g'), ('N',)]
    """
    chain: tuple[str, ...] = ()
    constants: list[Any] = [None, None]  # the last two that were loaded
    for step in dis.get_instructions(code):
        if step.opname in _ATTRIBUTES and chain:
            chain = (*chain, step.argval)
            continue
        if step.opname == "EXTENDED_ARG":
            continue
        if chain:
            yield chain
        chain = (step.argval,) if step.opname in _LOADS else ()
        if step.opname == "IMPORT_NAME":
            level, members = constants
            yield Import(step.argval, level or 0, tuple(members or ()))
        if step.opname == "LOAD_CONST":
            constants = [constants[1], step.argval]
    if chain:
        yield chain
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_used(constant)
