"""From ``file.py:function`` or ``package.module:function`` to the function."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from fanfold.cli.inputs import Inputs
from fanfold.errors import UsageError

__all__ = ["check_arguments", "load_target"]


def load_target(target: str) -> Callable[..., Any]:
    """The function that TARGET names; `UsageError` says why there is none.

    A file becomes a module under its own name, and its folder comes first on ``sys.path``, as
    when Python runs it: its siblings can be imported, here and in the workers.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        file = target.rstrip(":")
        like = f"{file}:FUNCTION" if file.endswith(".py") else "file.py:function"
        raise UsageError(f"{target!r} names no function: write {like}")
    is_file = place.endswith(".py") or os.sep in place
    module = _from_file(place) if is_file else _from_name(place)
    function: Callable[..., Any] = _attribute(module, name, place)
    if not callable(function):
        raise UsageError(
            f"{target} is of type {type(function).__name__}, which cannot be called: "
            "name a function"
        )
    return function


def _from_file(path: str) -> ModuleType:
    if not os.path.isfile(path):
        raise UsageError(f"there is no file {path}{_similar_file(path)}")
    folder, file = os.path.split(os.path.abspath(path))
    name = os.path.splitext(file)[0]
    if name in sys.stdlib_module_names or name in sys.modules:
        raise UsageError(
            f"{path} has the name of a module that is already in use, {name}: rename the file"
        )
    spec = importlib.util.spec_from_file_location(name, os.path.join(folder, file))
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is no Python file: its name must end in .py")
    loader = spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, folder)
    sys.modules[name] = module
    with _refusing(path):
        loader.exec_module(module)
    return module


def _from_name(name: str) -> ModuleType:
    sys.path.insert(0, os.getcwd())
    with _refusing(name):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the module is there, and imports another that is not
            raise UsageError(
                f"there is no module {error.name}: it is looked for in the current folder and "
                "where Python is installed; to name a file write file.py:function"
            ) from error


@contextmanager
def _refusing(place: str) -> Iterator[None]:
    """Whatever the import of a module raises becomes a `UsageError` that shows the line."""
    try:
        yield
    except (KeyboardInterrupt, UsageError):
        raise
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if isinstance(error, SyntaxError):
            reason = f"{type(error).__name__}: {error.msg}"
        elif isinstance(error, SystemExit):
            reason += " (put what it does as a program under if __name__ == '__main__':)"
        raise UsageError(f"cannot load {place}: {reason}{_guilty_line(error)}") from error


def _guilty_line(error: BaseException) -> str:
    """Where a module stopped loading: file, line number and the line; nothing when not known."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        lines = traceback.format_exception_only(error)[1:-1]
        return f"\n  {_short_path(error.filename)}, line {error.lineno}\n{''.join(lines).rstrip()}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and not frame.filename.startswith("<frozen")
    ]
    if not frames:
        return ""
    return (
        f"\n  {_short_path(frames[-1].filename)}, line {frames[-1].lineno}\n    {frames[-1].line}"
    )


def _short_path(path: str | None) -> str:
    here = os.path.join(os.getcwd(), "")
    return (path or "?").removeprefix(here)


def _similar_file(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        names = [entry for entry in os.listdir(folder or ".") if entry.endswith(".py")]
    except OSError:
        return ": check the folder"
    close = [
        os.path.join(folder, match)
        for match in difflib.get_close_matches(name, names, n=2, cutoff=0.75)
    ]
    return f": is it {' or '.join(close)}?" if close else ": check its name and folder"


def _attribute(module: ModuleType, name: str, place: str) -> Any:
    if hasattr(module, name):
        return getattr(module, name)
    own = [
        found
        for found, value in vars(module).items()
        if callable(value) and not found.startswith("_")
    ]
    close = difflib.get_close_matches(name, own, n=2)
    remedy = f"is it {' or '.join(close)}?" if close else f"it has {', '.join(own) or 'none'}"
    raise UsageError(f"{place} has no function {name}: {remedy}")


def check_arguments(function: Callable[..., Any], target: str, inputs: Inputs) -> None:
    """Refuse inputs that the function cannot be called with, before any work."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C do not tell
        return
    for arguments in _kinds_of_arguments(inputs):
        try:
            if inputs.style == "one":
                signature.bind(*arguments)
            else:
                signature.bind(**dict.fromkeys(arguments))
        except TypeError as error:
            given = "one INPUT" if inputs.style == "one" else ", ".join(arguments)
            raise UsageError(
                f"{target} takes {signature}, which does not fit {given}: {error}"
            ) from error


def _kinds_of_arguments(inputs: Inputs) -> Iterable[tuple[str, ...]]:
    if inputs.style == "one":
        return [inputs.columns]
    return dict.fromkeys(tuple(item) for item in inputs.items)
