"""What was asked of a run: ``run.json``, written once."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fanfold.errors import RunDamaged, RunTooNew
from fanfold.runs.sealed import seal, unseal
from fanfold.store.directory import RunDirectory

__all__ = ["Asked", "git_commit", "target_of", "user_path"]

FORMAT = 1
_TYPES = {
    "id": str, "name": str, "target": str, "key": str, "entropy": int, "options": dict,
    "code": dict, "packages": list, "path": list, "created": float, "function": str,
}  # fmt: skip


@dataclass(slots=True)
class Asked:
    """The target and the options of a run, and where and with what it was made.

    ``key`` tells the same command again. ``code`` is the fingerprint of the function, ``path`` the
    folders of ``sys.path`` that its modules come from, ``entropy`` what the random streams of the
    tasks are keyed with, ``function`` the checksum of the file that holds the function.
    """

    id: str
    name: str
    target: str
    key: str
    entropy: int
    options: dict[str, Any]
    code: dict[str, str]
    files: str
    packages: list[str]
    path: list[str]
    command: list[str] | None = None
    created: float = field(default_factory=time.time)
    host: str = field(default_factory=platform.node)
    folder: str = field(default_factory=os.getcwd)
    python: str = field(default_factory=platform.python_version)
    fanfold: str = ""
    function: str = ""
    git: dict[str, Any] | None = None

    def write(self, directory: RunDirectory) -> None:
        """The last file of a new run: with it, the run exists."""
        told = seal({"format": FORMAT, **asdict(self)})
        directory.write_text("run.json", json.dumps(told, indent=1) + "\n")

    @classmethod
    def read(cls, directory: RunDirectory) -> Asked:
        """Raises `RunTooNew` and `RunDamaged`."""
        told = directory.read_json("run.json")
        path = directory.path / "run.json"
        try:
            if told["format"] > FORMAT:
                raise RunTooNew(path, told["format"], FORMAT)
            told = unseal(told, path)
            for name, kind in _TYPES.items():
                if type(told[name]) is not kind:
                    raise TypeError(f"{name} is {told[name]!r}")
            return cls(**{name: told[name] for name in cls.__slots__})
        except (KeyError, TypeError) as error:
            raise RunDamaged(f"{path} does not say what it should: {error!r}") from error


def target_of(function: Callable[..., Any]) -> str:
    """The name of a function for people: ``module.function``."""
    inner = getattr(function, "func", function)
    module = getattr(inner, "__module__", None) or type(inner).__module__
    name = getattr(inner, "__qualname__", None) or type(inner).__qualname__
    return str(name) if module in ("__main__", "builtins") else f"{module}.{name}"


def user_path() -> list[str]:
    """The folders of ``sys.path`` that are neither the standard library's nor installed ones."""
    own = tuple({sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")})
    folders = (os.path.abspath(entry) for entry in sys.path)
    return [folder for folder in folders if not folder.startswith(own) and os.path.isdir(folder)]


def git_commit(folder: str) -> dict[str, Any] | None:
    """The commit of a folder and whether it has changes; None when it is in no repository."""
    above = [Path(folder), *Path(folder).parents]
    if not any((place / ".git").exists() for place in above):
        return None
    command = ["git", "-C", folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.splitlines()
    commits = [line.split()[-1] for line in lines if line.startswith("# branch.oid ")]
    changed = any(not line.startswith("#") for line in lines)
    return {"commit": commits[0] if commits else None, "changed": changed}
