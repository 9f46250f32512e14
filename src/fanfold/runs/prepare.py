"""From a function and inputs to a run on disk: a new one, or the one that is there."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fanfold.errors import (
    NotSerializable,
    RunBusy,
    RunChanged,
    RunDamaged,
    RunError,
    UsageError,
)
from fanfold.runs.asked import Asked, git_commit, target_of, user_path
from fanfold.runs.cluster import settle
from fanfold.runs.code import compare, fingerprint
from fanfold.runs.driver import Work
from fanfold.runs.identity import FilePolicy, digest, match, same_inputs, stamps
from fanfold.runs.inputs import (
    Generation,
    check_generation,
    generation_of,
    read_generation,
    read_inputs,
    write_inputs,
)
from fanfold.runs.sealed import checksum
from fanfold.runs.state import journals
from fanfold.seeds import new_entropy
from fanfold.store.directory import RunDirectory, next_name, run_directories, safe_name
from fanfold.store.files import create, open_file, sync_folder, writing
from fanfold.store.lease import Lease, holder
from fanfold.transport.pickling import dumps

__all__ = ["Request", "Resume", "existing", "load", "new_name", "prepare"]

Resume = Literal["ask", "anyway", "fresh"]

_UNFINISHED = ".new-"
_DAY = 86_400.0  # seconds: no run takes as long to be made


class Request(NamedTuple):
    """What is asked for; see `fanfold.runs.begin.run` for the meaning of the parts.

    ``key`` tells the same command again where there is no name, and ``stem`` begins the name then.
    ``costs`` are what the tasks cost, where that is given.
    """

    function: Callable[..., Any]
    inputs: Sequence[Any]
    parent: Path
    options: dict[str, Any]
    name: str | None = None
    target: str = ""
    key: str = ""
    stem: str = ""
    style: str = "one"
    columns: tuple[str, ...] = ("input",)
    seed: int | None = None
    resume: Resume = "ask"
    files: FilePolicy = "stat"
    packages: tuple[str, ...] = ()
    command: list[str] | None = None
    trust: bool = False
    costs: Sequence[float] | None = None


def prepare(request: Request, *, steal: bool = False) -> tuple[Work, list[str]]:
    """The work, and sentences about what has changed since it was begun.

    Raises `RunChanged` when the function has changed and ``resume`` is "ask", and `RunBusy`.
    """
    while True:
        path = existing(request)
        if path is not None and request.resume == "fresh":
            return _create_afresh(request, path)
        if path is not None:
            return _go_on(request, RunDirectory.open(path), steal)
        with suppress(FileExistsError):  # another was faster: now it is there
            return _create(request), []


def _create_afresh(request: Request, path: Path) -> tuple[Work, list[str]]:
    directory = RunDirectory.open(path)
    name = request.name or Asked.read(directory).name
    last = holder(directory, 0)
    if last is not None and last.alive is not False:
        raise RunBusy(path, last.host, last.pid, last.at)
    settle(directory)
    aside = _move_aside(path)
    return _create(request._replace(name=name)), [f"the run before is kept as {aside}"]


def _go_on(request: Request, directory: RunDirectory, steal: bool) -> tuple[Work, list[str]]:
    asked = Asked.read(directory)
    code = fingerprint(request.function, request.packages)
    changes = compare(_last_code(directory, asked), code)
    notes = [str(change) for change in changes]
    if request.seed not in (None, asked.entropy):
        raise RunChanged(asked.name, [f"the seed is {request.seed} now, and was {asked.entropy}"])
    if changes and request.resume == "ask":
        raise RunChanged(asked.name, notes)
    generation, more, lease = _inputs_now(directory, asked, request, steal)
    work = Work(
        directory, asked, generation, request.function, request.inputs, code, request.options,
        request.costs, lease,
    )  # fmt: skip
    return work, notes + more


def existing(request: Request) -> Path | None:
    """The folder of the run that is meant, where there is one."""
    if request.name is not None:
        path = request.parent / safe_name(request.name)
        return path if (path / "run.json").exists() else None
    for path in reversed(run_directories(request.parent)) if request.key else ():
        with suppress(RunError):  # another run, as far as can be known
            if Asked.read(RunDirectory.open(path)).key == request.key:
                return path
    return None


def new_name(request: Request) -> str:
    """What a new run is called."""
    stem = safe_name(request.stem or _stem(target_of(request.function)))
    return request.name or next_name(request.parent, stem)


def _create(request: Request) -> Work:
    name = new_name(request)
    path = request.parent / safe_name(name)
    _check_free(path)
    _remove_unfinished(request.parent)
    asked = Asked(
        id=os.urandom(8).hex(),
        name=name,
        target=request.target or target_of(request.function),
        key=request.key,
        entropy=new_entropy() if request.seed is None else request.seed,
        options=request.options,
        code=fingerprint(request.function, request.packages),
        files=request.files,
        packages=list(request.packages),
        path=user_path(),
        command=request.command,
        fanfold=sys.modules[__package__.partition(".")[0]].__version__,
        git=git_commit(os.getcwd()),
    )
    generation = Generation(
        1, len(request.inputs), request.style, request.columns,
        stamps(request.inputs, request.files), None,
    )  # fmt: skip
    directory = _write(request, path, asked, generation)
    return Work(
        directory, asked, generation, request.function, request.inputs, asked.code,
        request.options, request.costs,
    )  # fmt: skip


def _write(request: Request, path: Path, asked: Asked, generation: Generation) -> RunDirectory:
    """Make the folder of a run elsewhere, and give it its name when it is whole: then it exists.

    Of two that make the same run one does; the other gets a FileExistsError.
    """
    beside = path.parent / f"{_UNFINISHED}{os.urandom(8).hex()}"
    try:
        directory = RunDirectory.create(beside, path.name)
        write_inputs(directory, asked.id, generation, request.inputs)
        try:
            function = dumps(request.function)
            create(directory.function, function)
            asked.function = checksum(function)
        except NotSerializable:  # then only who has the function can go on
            if "cluster" in request.options:
                raise
        asked.write(directory)
        with writing(path):
            os.rename(directory.path, path)
            sync_folder(path.parent)
    except OSError:
        _check_free(path)
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return RunDirectory(path.resolve())


def _stem(target: str) -> str:
    """What a run of a function is called.

    >>> _stem("fits.main.<locals>.<lambda>")
    'fits.main.lambda'
    """
    return target.replace("<locals>.", "").replace("<lambda>", "lambda")


def _check_free(path: Path) -> None:
    """A folder that is no run stays as it is; FileExistsError when it is one meanwhile."""
    if (path / "run.json").exists():
        raise FileExistsError(path)
    if os.path.lexists(path):
        raise UsageError(
            f"{path} is there already, and is no run: choose another name, or another folder with "
            "--dir"
        )


def _remove_unfinished(parent: Path) -> None:
    """What drivers left that died while they made a run, a day ago or longer."""
    for path in parent.glob(f"{_UNFINISHED}*"):
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > _DAY:
                shutil.rmtree(path)


def _move_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.before-{number}")).exists():
        number += 1
    path.rename(aside)
    return aside


def _last_code(directory: RunDirectory, asked: Asked) -> dict[str, str]:
    """The fingerprint of the function that was run last."""
    code = asked.code
    for header, _ in journals(directory, []):
        code = header.told["code"]
        generation_of(directory, header.told["inputs"])  # a new one must not take its place
    return code


def _inputs_now(
    directory: RunDirectory, asked: Asked, request: Request, steal: bool
) -> tuple[Generation, list[str], Lease | None]:
    """The generation of the inputs as they are given now, what has changed in them, and the lease
    that a new one needs: no two may write it."""
    last = read_generation(directory)
    before = read_inputs(directory, last, trust=request.trust)
    now = stamps(request.inputs, request.files)
    if now == last.stamps and same_inputs(before, request.inputs):
        return last, [], None
    matched = match(
        [digest(item, stamp=last.stamps.get(index)) for index, item in enumerate(before)],
        [digest(item, stamp=now.get(index)) for index, item in enumerate(request.inputs)],
    )
    kept = _stretches(matched.kept)
    if kept == [(0, 0, last.total)] and last.total == len(request.inputs):
        return last, [], None  # the same, in other words
    generation = Generation(
        last.number + 1, len(request.inputs), request.style, request.columns, now, kept
    )
    lease = Lease.take(directory, 0, steal=steal)
    try:
        settle(directory, steal=steal)
        check_generation(directory, last)
        write_inputs(directory, asked.id, generation, request.inputs)
    except BaseException:
        lease.release()
        raise
    as_before = sum(count for _, _, count in kept)
    counts = [f"{matched.added} are new", f"{matched.removed} are gone"]
    if matched.changed_files:
        counts.append(f"{matched.changed_files} name files that have changed")
    notes = [f"the inputs have changed: {', '.join(counts)}, {as_before} are as before"]
    return generation, notes, lease


def _load_function(directory: RunDirectory, asked: Asked) -> Any:
    with os.fdopen(open_file(directory.function), "rb") as file:
        data = file.read()
    if checksum(data) != asked.function:
        raise RunDamaged(
            f"{directory.function} is damaged: it does not match its checksum. Only who has the "
            f"function can go on: with the same command, or fanfold.run with name={asked.name!r}"
        )
    try:
        return pickle.loads(data)
    except Exception as error:
        raise RunError(
            f"the function of {asked.name} cannot be loaded here ({type(error).__name__}: {error}):"
            " go on with the command that made the run, or fanfold.run with its name"
        ) from error


def _stretches(kept: Sequence[int]) -> list[tuple[int, int, int]]:
    """(index, index before, count) of consecutive tasks that stayed together; -1 is none."""
    found: list[tuple[int, int, int]] = []
    for index, before in enumerate(kept):
        if before < 0:
            continue
        if found:
            first, old, count = found[-1]
            if index == first + count and before == old + count:
                found[-1] = first, old, count + 1
                continue
        found.append((index, before, 1))
    return found


def load(
    directory: RunDirectory,
    *,
    trust: bool,
    only: Sequence[range] | None = None,
    code: dict[str, str] | None = None,
) -> Work:
    """A run from its folder alone; with ``only`` the inputs of these tasks.

    Raises `RunChanged` when the function is not the one that was run last, or not that of ``code``,
    and `RunUntrusted` where others could have written it.
    """
    directory.check_private(trust)
    asked = Asked.read(directory)
    sys.path += [folder for folder in asked.path if folder not in sys.path]
    if not asked.function:
        raise UsageError(
            f"the function of {asked.name} could not be kept, so only who has it can go on: call "
            f"fanfold.run with it and name={asked.name!r}"
        )
    function = _load_function(directory, asked)
    generation = read_generation(directory)
    inputs = read_inputs(directory, generation, trust=trust, only=only)
    now = fingerprint(function, asked.packages)
    changes = compare(_last_code(directory, asked) if code is None else code, now)
    if changes:
        raise RunChanged(asked.name, [str(change) for change in changes])
    return Work(directory, asked, generation, function, inputs, now, dict(asked.options))
