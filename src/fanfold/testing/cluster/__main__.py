"""Run a command on a pretend cluster: ``python -m fanfold.testing.cluster pbs COMMAND...``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

from fanfold.errors import UsageError
from fanfold.testing.cluster import Cluster

_USAGE = "usage: python -m fanfold.testing.cluster pbs|slurm COMMAND [ARGUMENT...]"


def main(words: Sequence[str]) -> int:
    """The exit status of the command; 2 when it was called wrongly."""
    if len(words) < 2:
        sys.stderr.write(f"{_USAGE}\n")
        return 2
    dialect = cast(Literal["pbs", "slurm"], words[0])
    with tempfile.TemporaryDirectory() as folder:
        try:
            cluster = Cluster(Path(folder, "cluster"), dialect)
        except UsageError as error:
            sys.stderr.write(f"{error}\n{_USAGE}\n")
            return 2
        with cluster:
            return subprocess.run(words[1:], env=cluster.environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
