"""Whose a module is: the user's own, installed, or Python's; and which version is installed."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

__all__ = ["Owner", "content_of", "file_of", "full_name", "label_of", "owner_of", "version_of"]

Owner = Literal["user", "package", "python"]

_FANFOLD = __name__.partition(".")[0]
_PYTHON = os.path.join(os.path.dirname(os.__file__), "")
_INSTALLED = {"site-packages", "dist-packages"}


@functools.lru_cache(maxsize=4096)
def owner_of(name: str, file: str | None = None) -> Owner:
    """Whose a module is, by its name and where it is from.

    What is installed lies in ``site-packages``; a package that is installed from its working tree
    (``pip install --editable``) is the user's own.

    >>> owner_of("json"), owner_of("pi", "/home/me/pi.py")
    ('python', 'user')
    """
    if name in ("", "__main__"):  # made with exec, in a notebook, or a program: who runs it owns it
        return "user"
    top = name.partition(".")[0]
    file = file or file_of(name)
    if top == _FANFOLD:
        return "package"
    if file is None:
        return "python" if top in sys.stdlib_module_names else "user"
    if not _INSTALLED.isdisjoint(Path(file).parts):
        return "package"
    return "python" if file.startswith(_PYTHON) else "user"


def label_of(names: Mapping[str, Any]) -> str:
    """The name of the module that has these globals; a program's is that of its file.

    >>> label_of({"__name__": "__main__", "__file__": "/home/me/pi.py"})
    'pi'
    """
    name = names.get("__name__") or ""
    file = names.get("__file__")
    if name != "__main__" or not file:
        return str(name)
    stem = os.path.splitext(os.path.basename(file))[0]
    package = names.get("__package__")  # of what is run with python -m
    return f"{package}.{stem}" if package else stem


def file_of(name: str) -> str | None:
    """The file of a module, which need not be imported yet; None where there is none."""
    module = sys.modules.get(name)
    if module is not None:
        return _file(module)
    spec = _find(name)
    if spec is None:
        return None
    if spec.has_location:
        return spec.origin
    return next(iter(spec.submodule_search_locations or ()), None)


def content_of(name: str) -> bytes | None:
    """The bytes of a module's file; None where there is none that can be read."""
    file = file_of(name)
    try:
        return None if file is None else Path(file).read_bytes()
    except OSError:
        return None


def _file(module: ModuleType) -> str | None:
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return file
    return next(iter(getattr(module, "__path__", ())), None)  # of a package without __init__.py


def _find(name: str) -> ModuleSpec | None:
    """What ``import`` would find, without importing the packages around it."""
    parent = name.rpartition(".")[0]
    path = None
    if parent:
        around = _find(parent)
        path = around.submodule_search_locations if around is not None else None
        if path is None:
            return None
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path)
        except Exception:  # noqa: BLE001, S112 - any package may have put a finder there
            continue
        if spec is not None:
            return spec
    return None


def full_name(name: str, level: int, names: Mapping[str, Any]) -> str:
    """The full name of what ``from ..name import`` means in the module with these globals.

    >>> full_name("tools", 1, {"__package__": "model.parts"})
    'model.parts.tools'
    """
    if not level:
        return name
    package = str(names.get("__package__") or "")
    base = package.rsplit(".", level - 1)[0] if level > 1 else package
    return ".".join(filter(None, (base, name)))


@functools.lru_cache(maxsize=256)
def version_of(package: str) -> str:
    """The version of an installed package, by its own name or that of its module.

    >>> version_of("no-such-package")
    'not installed'
    """
    from importlib import metadata  # late: most functions name no package, and it is large

    try:
        return metadata.version(package)
    except (metadata.PackageNotFoundError, ValueError):
        pass
    owners = sorted(set(metadata.packages_distributions().get(package, ())))
    return ", ".join(metadata.version(owner) for owner in owners) or "not installed"
