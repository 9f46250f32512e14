"""``fanfold mpi``: a Python script as an MPI program."""

from __future__ import annotations

import os

import click

from fanfold.cli.options import whole_number
from fanfold.errors import FanfoldError, RemoteTraceback, UsageError

__all__ = ["mpi_command"]


@click.command("mpi", context_settings={"allow_interspersed_args": False})
@click.option("-n", "--ranks", metavar="N", callback=whole_number(1), help="How many. [all cores]")
@click.option("--label", is_flag=True, help="Put its rank in front of each line that is printed.")
@click.argument("script")
@click.argument("arguments", nargs=-1, metavar="[ARGUMENT]...", type=click.UNPROCESSED)
def mpi_command(ranks: int | None, label: bool, script: str, arguments: tuple[str, ...]) -> int:
    """Run a Python script on several MPI ranks.

    They are started by whatever launcher works here, or the one that the environment variable
    FANFOLD_MPIEXEC names, such as "srun --mpi=pmix". When one rank raises, all are ended, and its
    traceback is shown.

    Exit status: 0, that of the first rank that leaves with another, 1 if a rank raises or dies.
    """
    from fanfold.executors.mpi.launchers import default_ranks
    from fanfold.mpi_programs import Left, run_script
    from fanfold.resources import cores

    if not os.path.isfile(script):
        raise UsageError(f"there is no file {script}: check its name and folder")
    try:
        count = ranks if ranks is not None else default_ranks() or int(cores())
        run_script([script, *arguments], count, label)
    except Left as left:
        click.echo(f"fanfold: rank {left.rank} left with status {left.status}", err=True)
        return left.status
    except (FanfoldError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if not isinstance(error.__cause__, RemoteTraceback):
            raise
        click.echo(error.__cause__.text, err=True, nl=False)
        click.echo(error.__notes__[-1], err=True)
        return 1
    return 0
