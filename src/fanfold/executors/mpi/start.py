"""Starts a crew by the first launcher that works, and remembers which it was.

To try a launcher is to start the ranks: they must know one another, and reach the driver. What
worked is remembered in the user's cache, for this interpreter, this mpi4py and these launchers; it
is only ever chosen among those that are found here now.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from fanfold.executors.base import StartupFailed
from fanfold.executors.mpi.crew import Crew, LauncherFailed
from fanfold.executors.mpi.launchers import CHOICE, Launcher, launchers
from fanfold.extras import missing

__all__ = ["start_crew", "working_launcher"]


def start_crew(size: int, **options: Any) -> Crew:
    """``size`` ranks, started by whatever works here; ``options`` are those of `Crew`.

    Raises `UsageError` where mpi4py is not installed, and `StartupFailed`, with what each launcher
    said, where none works.
    """
    known, key = _known_launchers()
    remembered = _recall(key)
    failures = []
    for launcher in sorted(known, key=lambda one: one.name != remembered):
        try:
            crew = Crew(launcher, size, **options)
        except LauncherFailed as failure:
            failures.append(f"{launcher.name}: {failure}")
            continue
        if launcher.name != remembered:
            _remember(key, launcher.name)
        return crew
    raise StartupFailed(_why(failures))


def working_launcher() -> str:
    """The launcher that works here, by its name, as two ranks of it have just shown.

    Raises as `start_crew` does.
    """
    crew = start_crew(2, connect="first", eager=True)
    crew.end()
    return crew.launcher.name


def _known_launchers() -> tuple[list[Launcher], str]:
    """The launchers that are here, and the key of what is remembered of them."""
    try:
        version = importlib.metadata.version("mpi4py")
    except importlib.metadata.PackageNotFoundError:
        raise missing("mpi4py", "mpi", "MPI") from None
    known = launchers()
    names = [launcher.name for launcher in known]
    content = json.dumps([sys.executable, version, names])
    return known, hashlib.sha256(content.encode()).hexdigest()[:16]


def _why(failures: list[str]) -> str:
    remedy = (
        f'install one that needs no setting (pip install "fanfold[mpi]"), or name the right one '
        f'in {CHOICE}, for example {CHOICE}="srun --mpi=pmix"'
    )
    if not failures:
        return f"there is no MPI launcher here, neither mpiexec nor mpirun: {remedy}"
    return "\n  ".join(["no MPI launcher works here:", *failures, f"What to do: {remedy}"])


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(root) / "fanfold" / "launchers.json"


def _recall(key: str) -> str | None:
    with suppress(OSError, ValueError, AttributeError):
        name = json.loads(_cache().read_text()).get(key)
        return name if isinstance(name, str) else None
    return None


def _remember(key: str, name: str) -> None:
    """Whole or not at all; a cache that cannot be written is no reason to fail."""
    path = _cache()
    with suppress(OSError, ValueError, TypeError):
        known: dict[str, str] = {}
        with suppress(FileNotFoundError, ValueError):
            known = dict(json.loads(path.read_text()))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps({**known, key: name}, indent=1))
        draft.replace(path)
