"""The command ``fanfold``: each family of commands is a file; parse, call, render."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from fanfold import __version__
from fanfold.cli.advise import advise_command
from fanfold.cli.cores import cores_command
from fanfold.cli.demo import demo_command
from fanfold.cli.doctor import doctor_command
from fanfold.cli.jobs import COMMANDS as JOB_COMMANDS
from fanfold.cli.mpi import mpi_command
from fanfold.cli.run import run_command
from fanfold.cli.runs import COMMANDS
from fanfold.cli.scale import scale_command
from fanfold.cli.scripts import translate_command
from fanfold.cli.submit import submit_command
from fanfold.errors import FanfoldError, RunChanged, UsageError
from fanfold.executors.work.standard import fill_standard_descriptors

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(__version__, prog_name="fanfold", message="%(prog)s %(version)s")
@click.pass_context
def fanfold(context: click.Context) -> int:
    """Run a Python function over many inputs on every core you can reach."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
    return 2


for command in (
    run_command,
    mpi_command,
    *COMMANDS,
    *JOB_COMMANDS,
    submit_command,
    translate_command,
    scale_command,
    advise_command,
    cores_command,
    demo_command,
    doctor_command,
):
    fanfold.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default the one of this process; returns the exit status."""
    _fill_standard_streams()
    try:
        return int(fanfold.main(arguments, prog_name="fanfold", standalone_mode=False) or 0)
    except click.NoSuchOption as error:
        return _end(2, error.format_message() + _about_dashes(error.ctx))
    except click.ClickException as error:
        return _end(2, error.format_message())
    except (UsageError, RunChanged) as error:
        return _end(2, error)
    except (FanfoldError, OSError) as error:
        return _end(1, error)
    except (click.Abort, KeyboardInterrupt):
        return _end(130, "interrupted")


def _about_dashes(context: click.Context | None) -> str:
    """Where a command takes as many words as one likes, what looked like an option may be one."""
    many = any(one.nargs == -1 for one in (context.command.params if context is not None else ()))
    return " Put -- before inputs that begin with a dash." if many else ""


def _fill_standard_streams() -> None:
    """Lead those that are closed to the null device: what is told is told in vain, and no more."""
    fill_standard_descriptors()
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _end(status: int, message: object) -> int:
    click.echo(f"fanfold: {message}", err=True)
    return status
