"""The command ``fanfold``: each family of commands is a file; parse, call, render."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from fanfold import __version__
from fanfold.cli.cores import cores_command
from fanfold.cli.demo import demo_command
from fanfold.cli.run import run_command
from fanfold.cli.runs import COMMANDS
from fanfold.cli.scripts import translate_command
from fanfold.errors import FanfoldError, RunChanged, UsageError
from fanfold.executors.standard import fill_standard_descriptors

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(__version__, prog_name="fanfold", message="%(prog)s %(version)s")
@click.pass_context
def fanfold(context: click.Context) -> int:
    """Run a Python function over many inputs on every core you can reach."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
    return 2


for command in (run_command, *COMMANDS, translate_command, cores_command, demo_command):
    fanfold.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default the one of this process; returns the exit status."""
    _fill_standard_streams()
    try:
        return int(fanfold.main(arguments, prog_name="fanfold", standalone_mode=False) or 0)
    except click.NoSuchOption as error:
        return _end(2, f"{error.format_message()} Put -- before inputs that begin with a dash.")
    except click.ClickException as error:
        return _end(2, error.format_message())
    except (UsageError, RunChanged) as error:
        return _end(2, error)
    except (FanfoldError, OSError) as error:
        return _end(1, error)
    except (click.Abort, KeyboardInterrupt):
        return _end(130, "interrupted")


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
