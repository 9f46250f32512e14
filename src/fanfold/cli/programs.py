"""From the text of ``--command`` to the program that runs."""

from __future__ import annotations

from fanfold.cli.inputs import Inputs
from fanfold.errors import UsageError
from fanfold.programs import Command

__all__ = ["load_program"]


def load_program(line: str, inputs: Inputs) -> Command:
    """The program as a function; `UsageError` where its placeholders do not take the inputs."""
    program = Command(line)
    if inputs.style == "one":
        program.check_inputs(1, ())
    else:
        for names in dict.fromkeys(tuple(item) for item in inputs.items):
            program.check_inputs(0, names)
    if not isinstance(inputs.items, range):
        _check_arguments(program, inputs)
    return program


def _check_arguments(program: Command, inputs: Inputs) -> None:
    """Refuse inputs of which no arguments can be made, before any work."""
    for index, item in enumerate(inputs.items):
        try:
            if inputs.style == "one":
                program.argv(item)
            else:
                program.argv(**item)
        except UsageError as error:
            raise UsageError(f"task {index}, input {inputs.shown(index)}: {error}") from error
