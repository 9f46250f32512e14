"""What the figures were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("loky", "joblib", "mpire", "distributed", "ray", "numpy", "numexpr", "cloudpickle")


def machine() -> dict[str, Any]:
    """The machine as a JSON object; nothing in it names the machine or its owner."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu_model(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "fanfold": fanfold_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def load() -> float:
    """How many tasks wanted a core over the last minute; a quiet machine says about 0."""
    return round(os.getloadavg()[0], 2)


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def fanfold_version() -> str:
    """The version, with the commit where there is a checkout."""
    import fanfold

    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return f"{fanfold.__version__} ({commit})" if commit else fanfold.__version__
