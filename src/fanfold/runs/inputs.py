"""The inputs of a run, on disk: one generation for each list of inputs that was asked for.

A generation after the first says which of its tasks are tasks of the one before, wherever they
stood there: their results are kept.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fanfold.errors import RunDamaged, RunError
from fanfold.runs.asked import Asked
from fanfold.runs.sealed import seal, unseal
from fanfold.store.directory import RunDirectory
from fanfold.store.pack import PackReader, PackWriter
from fanfold.transport.pickling import dumps

__all__ = [
    "Generation",
    "check_generation",
    "generation_of",
    "read_generation",
    "read_inputs",
    "write_inputs",
]

_MANY = 10_000  # inputs in a frame
_LARGE = 4 << 20  # bytes in a frame, roughly


class Generation(NamedTuple):
    """A list of inputs: how many, what the tasks were before, and the files among them.

    ``kept`` are stretches ``(index, index in the generation before, count)``; None where there is
    none before. ``stamps`` tell the files that inputs name, as `identity.stamps` gives them.
    ``columns`` name the parts of an input, and ``style`` says how it becomes arguments.
    """

    number: int
    total: int
    style: str
    columns: tuple[str, ...]
    stamps: dict[int, str]
    kept: list[tuple[int, int, int]] | None


def write_inputs(
    directory: RunDirectory, run: str, generation: Generation, items: Sequence[Any]
) -> None:
    """Keep a generation; its description comes last, and makes it count."""
    path = directory.inputs(generation.number)
    path.unlink(missing_ok=True)  # of a driver that died here
    with PackWriter(path, {"run": run, "inputs": generation.number}) as pack:
        first, size = 0, _MANY
        while first < len(items):
            part = items[first : first + (len(items) if isinstance(items, range) else size)]
            payload = dumps(part)
            if len(payload) > _LARGE and len(part) > 1:
                size = max(1, len(part) * _LARGE // (2 * len(payload)))
                continue
            pack.append(first, len(part), 1, payload)
            first += len(part)
        pack.sync()
    described = {"run": run, **generation._asdict()}
    described["stamps"] = {str(index): stamp for index, stamp in generation.stamps.items()}
    directory.write_text(_name(generation.number), json.dumps(seal(described)))


def _name(number: int) -> str:
    return f"inputs-{number}.json"


def read_generation(directory: RunDirectory) -> Generation:
    """The newest generation."""
    number = 1
    while (directory.path / _name(number + 1)).exists():
        number += 1
    return generation_of(directory, number)


def check_generation(directory: RunDirectory, generation: Generation) -> None:
    """Raises `RunError` when another process has given the run other inputs meanwhile."""
    if read_generation(directory).number != generation.number:
        raise RunError(
            f"another process has given the run in {directory.path} other inputs meanwhile: run "
            "the command again"
        )


def generation_of(directory: RunDirectory, number: int) -> Generation:
    """A generation by its number. Raises `RunDamaged`."""
    path = directory.path / _name(number)
    told = unseal(directory.read_json(_name(number)), path)
    try:
        if (told["run"], told["number"]) != (Asked.read(directory).id, number):
            raise RunDamaged(f"{path} is of another run, or of other inputs: files are mixed up")
        kept = told["kept"]
        return Generation(
            number,
            told["total"],
            told["style"],
            tuple(told["columns"]),
            {int(index): stamp for index, stamp in told["stamps"].items()},
            None if kept is None else [tuple(stretch) for stretch in kept],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunDamaged(f"{path} does not say what it should: {error!r}") from error


def read_inputs(
    directory: RunDirectory,
    generation: Generation,
    *,
    trust: bool,
    only: Sequence[range] | None = None,
) -> Sequence[Any]:
    """The inputs themselves; with ``only`` those at these indices, and None in the other places.

    Raises `RunUntrusted` where somebody else could have written them.
    """
    directory.check_private(trust)
    path = directory.inputs(generation.number)
    wanted = [range(generation.total)] if only is None else only
    items: list[Any] = [None] * generation.total
    left = sum(map(len, wanted))
    with PackReader(path, run=Asked.read(directory).id) as pack:
        if pack.header.get("inputs") != generation.number:
            raise RunDamaged(f"{path} holds other inputs: files of the run have been mixed up")
        for frame in pack.frames(partial(_meet, wanted)):
            part = _loaded(frame.payload, path)
            if isinstance(part, range) and len(part) == generation.total:
                return part
            items[frame.first : frame.first + len(part)] = part
            left -= _common(wanted, frame.first, len(part))
    if left or len(items) != generation.total:
        raise RunDamaged(f"{path} does not hold all of the {generation.total} inputs")
    return items


def _common(wanted: Sequence[range], first: int, count: int) -> int:
    """How many of the tasks ``first`` ... ``first + count - 1`` are wanted."""
    stop = first + count
    return sum(max(0, min(part.stop, stop) - max(part.start, first)) for part in wanted)


def _meet(wanted: Sequence[range], first: int, count: int) -> bool:
    return _common(wanted, first, count) > 0


def _loaded(payload: memoryview, path: Path) -> Any:
    try:
        return pickle.loads(payload)
    except Exception as error:
        raise RunError(
            f"the inputs in {path} cannot be loaded here: {type(error).__name__}: {error}"
        ) from error
