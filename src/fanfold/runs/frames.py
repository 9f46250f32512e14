"""The frames that hold what the tasks of a run ended with: read, and checked as they are read."""

from __future__ import annotations

from contextlib import ExitStack

from fanfold.errors import RunDamaged
from fanfold.runs.state import State, Where
from fanfold.store.directory import RunDirectory
from fanfold.store.pack import Frame, PackReader

__all__ = ["Frames", "forget_damaged"]


class Frames:
    """Reads frames of the packs of a run. A context manager."""

    def __init__(self, directory: RunDirectory, run: str) -> None:
        self._directory = directory
        self._run = run
        self._packs: dict[tuple[int, int], PackReader | RunDamaged] = {}
        self._open = ExitStack()

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def read(self, where: Where) -> Frame:
        """A frame. Raises `RunDamaged` when it is not there as it was written."""
        key = where.element, where.attempt
        if key not in self._packs:
            self._packs[key] = self._pack(*key)
        pack = self._packs[key]
        if isinstance(pack, RunDamaged):
            raise pack
        return pack.read(where.place, expect=(where.first, where.count))

    def _pack(self, element: int, attempt: int) -> PackReader | RunDamaged:
        path = self._directory.pack(element, attempt)
        try:
            pack = self._open.enter_context(PackReader(path, run=self._run))
        except RunDamaged as damage:
            return damage
        told = pack.header.get("element"), pack.header.get("attempt")
        if told != (element, attempt):
            return RunDamaged(f"{path} is the pack e{told[0]}-a{told[1]}: files are mixed up")
        return pack


def forget_damaged(
    directory: RunDirectory, state: State, run: str
) -> tuple[list[range], list[str]]:
    """Read every frame, and count as missing what is in a damaged one: the tasks, and sentences.

    Takes as long as reading the packs does. Nothing is unpickled.
    """
    damage: dict[int, str] = {}
    with Frames(directory, run) as frames:
        for number, where in state.frames():
            try:
                frames.read(where)
            except RunDamaged as error:
                damage[number] = str(error)
    lost = state.forget(damage.keys()) if damage else []
    return lost, list(dict.fromkeys(damage.values()))
