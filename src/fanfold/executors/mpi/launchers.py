"""The programs that may start MPI ranks here: Slurm's srun, and the mpiexec of an MPI library.

Which of them works is not guessed from versions: ranks are started, and either they know one
another or the next launcher is tried (see `fanfold.executors.mpi.start`). What is known is only
what each must be told. MPICH's mpiexec needs nothing; Open MPI's refuses root, more ranks than
cores, and to bind ranks to cores that are not there, unless variables of its environment say that
all this is meant; srun needs the name of the protocol that the MPI library speaks.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from typing import NamedTuple

__all__ = ["CHOICE", "Launcher", "default_ranks", "environment", "launchers", "without_ranks"]

#: The variable by which a user chooses the launcher: ``FANFOLD_MPIEXEC="srun --mpi=pmix"``.
CHOICE = "FANFOLD_MPIEXEC"

_NAMES = ("mpiexec", "mpirun")
_PROTOCOLS = ("pmi2", "pmix")

# By these a process knows that it is a rank: it must not take itself for one of another crew.
_OF_A_RANK = re.compile(
    r"PMI_|PMIX_|HYDI_|MPI_LOCAL|PRTE_LAUNCHED|"
    r"OMPI_(COMM_WORLD|UNIVERSE|APP|ARGV|COMMAND|FILE|FIRST|NUM|VERSION|MCA_(orte|ess|pmix))"
)

_OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",  # in a container everybody is
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",  # Open MPI 4
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",  # Open MPI 5
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}
_SLURM = {
    "SLURM_OVERLAP": "1",  # the driver itself may be a step of the allocation
    "SLURM_EXPORT_ENV": "ALL",
}


class Launcher(NamedTuple):
    """A command that starts ranks; ``words`` is how it begins, and its name."""

    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """As it would be typed."""
        return shlex.join(self.words)

    def command(self, ranks: int) -> list[str]:
        """The command that starts ``ranks`` ranks of what is appended to it."""
        if os.path.basename(self.words[0]) != "srun":
            return [*self.words, "-n", str(ranks)]
        return [*self.words, *_srun_options(ranks, os.environ)]


def _srun_options(ranks: int, environ: Mapping[str, str]) -> Iterator[str]:
    nodes = environ.get("SLURM_JOB_NUM_NODES", "")
    yield f"--ntasks={ranks}"
    if nodes.isdigit():
        yield f"--nodes={min(ranks, int(nodes))}"
    if cpus := environ.get("SLURM_CPUS_PER_TASK"):  # srun does not inherit it since 22.05
        yield f"--cpus-per-task={cpus}"
    yield "--overcommit"  # one rank more than tasks were asked for: the one that bridges
    yield "--kill-on-bad-exit=1"
    yield "--input=0"


def launchers() -> list[Launcher]:
    """Those to be tried here, the likeliest first; the user's choice alone where there is one."""
    chosen = shlex.split(os.environ.get(CHOICE, ""))
    if chosen:
        return [Launcher(tuple(chosen))]
    found: dict[tuple[str, ...], Launcher] = {}
    for launcher in (*_of_slurm(), *_of_libraries()):  # one under several names counts once
        program, *options = launcher.words
        found.setdefault((os.path.realpath(program), *options), launcher)
    return list(found.values())


def _of_slurm() -> Iterator[Launcher]:
    """srun, within an allocation: as the site has set it up, then by each protocol it knows."""
    if "SLURM_JOB_ID" not in os.environ or (srun := shutil.which("srun")) is None:
        return
    try:
        listed = subprocess.run(
            [srun, "--mpi=list"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    yield Launcher(("srun",))
    known = set(re.findall(r"\w+", listed.stdout + listed.stderr))
    for protocol in _PROTOCOLS:
        if protocol in known:
            yield Launcher(("srun", f"--mpi={protocol}"))


def _of_libraries() -> Iterator[Launcher]:
    """mpiexec beside the interpreter, where wheels put it, then on PATH."""
    beside = (
        os.path.dirname(sys.executable),
        sysconfig.get_path("scripts"),
        sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")),
    )
    for folder in beside:
        path = os.path.join(folder, "mpiexec")
        if os.access(path, os.X_OK):
            yield Launcher((path,))
    for name in _NAMES:
        if on_path := shutil.which(name):
            yield Launcher((on_path,))


def environment() -> dict[str, str]:
    """The environment of a launcher: ours, and what each kind must be told; the user's own
    settings come first."""
    return {**_OPEN_MPI, **_SLURM, **without_ranks(os.environ)}


def without_ranks(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without what tells a process that it is a rank.

    >>> without_ranks({"PMI_RANK": "3", "HOME": "/shared"})
    {'HOME': '/shared'}
    """
    return {name: value for name, value in environ.items() if not _OF_A_RANK.match(name)}


def default_ranks() -> int | None:
    """As many as the tasks of the Slurm or PBS job we are in; None outside of one."""
    tasks = os.environ.get("SLURM_NTASKS", "")
    if tasks.isdigit():
        return int(tasks)
    try:
        with open(os.environ["PBS_NODEFILE"], encoding="utf-8") as file:
            return len(file.read().split()) or None
    except (KeyError, OSError):
        return None
