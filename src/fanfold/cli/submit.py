"""``fanfold submit``: a job script, on a scheduler or on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from shlex import quote
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import click

from fanfold.cli.options import whole_number
from fanfold.cli.scripts import note_line, read_script, shown_path
from fanfold.errors import UsageError
from fanfold.schedulers.scripts.lines import parse
from fanfold.units import format_duration, format_size, format_walltime

if TYPE_CHECKING:
    from fanfold.schedulers.local import LocalElement, LocalJob, LocalQueue

__all__ = ["submit_command"]

Place = Literal["local", "slurm", "pbs"]

_NAMES = {"slurm": "Slurm", "pbs": "PBS"}
_COMMANDS = {"slurm": "sbatch", "pbs": "qsub"}
_NO_ARGUMENTS = (
    "PBS gives no arguments to a script: pass values with #PBS -v NAME=VALUE, and read them as "
    "variables"
)
_LOOK = 60.0  # seconds between looks, whatever happens
_UNDELIVERED = {
    "slurm": "such an element fails, and does not run",
    "pbs": "such an element runs, and its output lies elsewhere",
}


@click.command("submit")
@click.argument("script")
@click.argument("arguments", nargs=-1, metavar="[ARGUMENT]...")
@click.option("--on", type=click.Choice(["local", "slurm", "pbs"]), help="Where: see above.")
@click.option(
    "--workers", metavar="N", callback=whole_number(1), help="Elements at once. [what cores allow]"
)
@click.option("--anyway", is_flag=True, help="Submit it though something in it has no twin.")
def submit_command(
    script: str,
    arguments: tuple[str, ...],
    on: Place | None,
    workers: int | None,
    anyway: bool,
) -> int:
    """Submit a #PBS or #SBATCH script, to a cluster or to this machine.

    \b
      fanfold submit array.pbs                  on the scheduler that is here
      fanfold submit array.pbs --on local       here, all of it, with a line for each element
      fanfold submit array.pbs --on slurm       translated first

    Without --on it goes to the scheduler that it is written for, where its command is on the PATH;
    else to the other one; else it runs on this machine. The id of the job goes to standard output,
    everything else to standard error. ARGUMENTs are given to the script, as sbatch does.

    A script for the other scheduler is translated (fanfold translate shows how). When something in
    it has no twin nothing is submitted, unless --anyway is given.

    With --on local the elements run as processes of this machine, with the variables, the output
    files and the walltime that their scheduler would give them. Ctrl-C ends them all.

    Exit status: 0 submitted, or all done; 1 some element has failed, or the scheduler does not
    answer; 2 the script or the command was wrong, and nothing was submitted; 130 interrupted.
    """
    text = read_script(script)
    dialects = _dialects(script, text)
    place = on or _place(dialects)
    if place == "local":
        return _run_here(script, text, dialects, arguments, workers)
    if workers is not None:
        raise UsageError(
            "--workers is for --on local: write how many run at once into the script, as "
            f"{'#SBATCH --array=1-10%2' if place == 'slurm' else '#PBS -J 1-10%2'}"
        )
    if arguments and place == "pbs":
        raise UsageError(_NO_ARGUMENTS)
    if place in dialects:
        click.echo(_sent(script, place, arguments))
        return 0
    with _translated(script, text, place, anyway) as path:
        click.echo(_sent(path, place, arguments))
    return 0


def _dialects(script: str, text: str) -> list[str]:
    """The schedulers whose directives it has, that of the first directive first."""
    try:
        parsed = parse(text)
    except UsageError as error:
        raise UsageError(f"{shown_path(script)}: {error}") from error
    found = parsed.schedulers()
    if not found:
        raise UsageError(
            f"{shown_path(script)} is no job script: no line begins with #PBS or #SBATCH"
        )
    return sorted(found, key=[line.scheduler for line in parsed.lines].index)


def _place(dialects: Sequence[str]) -> Place:
    """Where a script goes by default; it is told."""
    places: list[Place] = ["slurm", "pbs"]
    places.sort(key=lambda place: place not in dialects)
    for place in places:
        if _is_here(place):
            _tell(f"on {_NAMES[place]}, for {_COMMANDS[place]} is here")
            return place
    _tell("on this machine, for neither qsub nor sbatch is here")
    return "local"


def _is_here(place: Place) -> bool:
    """Whether there is its command, and a qsub that is not Slurm's own, which knows no arrays."""
    if shutil.which(_COMMANDS[place]) is None:
        return False
    if place == "slurm" or shutil.which("sbatch") is None:
        return True
    from fanfold.schedulers.commands import ask  # late: most calls do without

    return ask(["qsub", "--version"]).code == 0


def _tell(text: str) -> None:
    click.echo(f"fanfold: {text}", err=True)


# On a scheduler -----------------------------------------------------------------------------------


@contextmanager
def _translated(script: str, text: str, place: Place, anyway: bool) -> Iterator[str]:
    """A translation, under the name of the script, for as long as it takes to submit it."""
    from fanfold.schedulers.scripts.translate import translate

    translation = translate(text, place)
    for note in translation.notes:
        click.echo(note_line(script, note), err=True)
    lost = sum(note.lost for note in translation.notes)
    if lost and not anyway:
        raise UsageError(
            f"{lost} {'thing has' if lost == 1 else 'things have'} no twin on {_NAMES[place]}, so "
            "nothing was submitted: change the script, or submit it without them with --anyway"
        )
    with tempfile.TemporaryDirectory(prefix="fanfold-submit-") as folder:
        path = os.path.join(folder, os.path.basename(script))
        with open(path, "wb") as file:
            file.write(translation.text.encode("utf-8", "surrogateescape"))
        yield path


def _sent(path: str, place: Place, arguments: Sequence[str]) -> str:
    """The id that the scheduler gives the script. Raises what `Scheduler.submitted` says."""
    from fanfold.schedulers.commands import TIMEOUT, ask
    from fanfold.schedulers.registry import scheduler

    dialect = scheduler(place)
    plain = f"./{path}" if path.startswith("-") else path  # it is no option
    answer = ask([*dialect.submission(plain), *arguments], timeout=2 * TIMEOUT, finish=True)
    job = dialect.submitted(answer)
    if answer.err.strip():
        click.echo(answer.err.rstrip(), err=True)
    return job


# On this machine ----------------------------------------------------------------------------------


def _run_here(
    script: str,
    text: str,
    dialects: Sequence[str],
    arguments: Sequence[str],
    workers: int | None,
) -> int:
    from fanfold.resources import cores
    from fanfold.schedulers.local import LocalQueue, read_job

    try:
        job = read_job(
            text,
            dialects[0],  # type: ignore[arg-type]
            file_name=os.path.basename(script),
            folder=os.getcwd(),
            environ=os.environ,
            arguments=arguments,
        )
        _check(job)
    except UsageError as error:
        raise UsageError(f"{shown_path(script)}: {error}") from error
    share = job.layout.ncpus * job.layout.chunks
    at_once = workers or max(1, cores() // share)
    with LocalQueue(at_once, first=os.getpid()) as queue:
        number = queue.submit(job)
        for line in _warnings(queue, number, dialects):
            _tell(f"{shown_path(script)}: {line}")
        click.echo(queue.id(number))
        return _Watch(queue, number).run()


def _check(job: LocalJob) -> None:
    """Refuse what would never start here, or too early."""
    if job.after:
        numbers = ", ".join(dict.fromkeys(str(number) for _, number in job.after))
        raise UsageError(
            f"it waits for job {numbers} of a cluster, which is not known here: submit it there, "
            "or take the dependency out"
        )
    if job.held:
        raise UsageError(
            "it asks to be held, and nobody would release it here: take "
            f"{'--hold' if job.dialect == 'slurm' else '-h'} out"
        )
    if job.dialect == "pbs" and job.arguments:
        raise UsageError(_NO_ARGUMENTS)


def _warnings(queue: LocalQueue, number: int, dialects: Sequence[str]) -> Iterator[str]:
    """What goes otherwise than the script may expect."""
    from fanfold.schedulers.local.asked import Asked

    job = queue.jobs[number].job
    if len(dialects) > 1:
        yield f"it has directives of both schedulers: those for {_NAMES[job.dialect]} count here"
    if job.layout.chunks > 1:
        yield f"it asks for {job.layout.chunks} nodes or chunks: all of it runs on this machine"
    if job.dialect == "pbs" and "\r\n" in job.script:
        yield "its lines end as on Windows, and PBS cannot run that: sed -i 's/\\r$//' mends it"
    if job.dialect == "pbs" and "-V" in Asked(parse(job.script), "pbs"):
        yield "-V passes nothing in OpenPBS 23.06, nor here: name what it needs with -v"
    missing = [_near(folder) for folder in queue.missing_folders(number)]
    if missing:
        others = f" (nor {len(missing) - 1} others)" if len(missing) > 1 else ""
        yield (
            f"there is no folder {missing[0]}{others} for the output, and {_NAMES[job.dialect]} "
            f"makes none: {_UNDELIVERED[job.dialect]}. Make it first: mkdir -p {quote(missing[0])}"
        )


def _near(path: str) -> str:
    """A path as it is from here."""
    here = os.path.join(os.getcwd(), "")
    return shown_path(path.removeprefix(here))


class _Watch:
    """Tells what becomes of a job of this machine, and ends it when it is interrupted."""

    def __init__(self, queue: LocalQueue, number: int) -> None:
        self._queue = queue
        self._number = number
        self._job = queue.jobs[number].job
        self._interrupts = 0

    def run(self) -> int:
        """Run the job to its end; returns the exit status."""
        from fanfold.schedulers.base import ENDED

        began = monotonic()
        with self._interruptible():
            while not self._queue.ended(self._number):
                for _, element in self._queue.step(_LOOK):
                    if element.state in ENDED and element.began is not None:
                        self._tell(element)
                if self._interrupts:
                    self._queue.cancel(self._number)
                if self._interrupts > 1:
                    self._queue.close()  # ends what does not end by itself
                    break
        states = Counter(
            element.state for element in self._queue.jobs[self._number].elements.values()
        )
        counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        for line in self._advice():
            _tell(line)
        _tell(f"{counts} in {format_duration(monotonic() - began)}")
        return 130 if self._interrupts else int(set(states) != {"done"})

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """A signal ends the job, a second one at once; afterwards they are as they were."""
        signals = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        obeyed = [one for one in signals if signal.getsignal(one) is not signal.SIG_IGN]
        before = {one: signal.signal(one, self._interrupt) for one in obeyed}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _interrupt(self, *_: Any) -> None:
        self._interrupts += 1
        self._queue.wake()

    def _tell(self, element: LocalElement) -> None:
        index = "" if element.index is None else f"[{element.index}]"
        _tell(f"{shown_path(self._job.name)}{index} {self._ending(element)}")
        for path in element.undelivered:
            if os.path.getsize(path):
                self._rescue(element, path)

    def _advice(self) -> list[str]:
        """Where it asks for far more than it used, or for too little."""
        from fanfold.history import Element  # late: most calls do without
        from fanfold.reports import usage_warnings

        job, every = self._job, self._queue.jobs[self._number].elements.values()
        return usage_warnings(
            Element(
                one.index or 0, job.name, one.index or 0, one.node, one.state, 1,
                job.layout.ncpus * job.layout.chunks, None, walltime=round(job.walltime or 0),
                seconds=one.ended - one.began, cpu_time=one.cpu_time,
            )
            for one in every
            if one.began is not None and one.ended is not None
        )  # fmt: skip

    def _ending(self, element: LocalElement) -> str:
        """How an element ended, and where to look."""
        took = format_duration((element.ended or 0.0) - (element.began or 0.0))
        used = f"CPU {format_duration(element.cpu_time or 0.0)}"
        if element.peak_memory is not None:
            used += f", {format_size(element.peak_memory)}"
        output, error = _near(element.output), _near(element.error)
        if element.reason:
            return f"did not run: {element.reason}"
        if element.state == "done":
            return f"done in {took} ({used})" + ("" if element.undelivered else f": {output}")
        if element.state == "walltime":
            limit = format_walltime(round(self._job.walltime or 0))
            return f"ended for its walltime of {limit} ({used}): see {error}"
        if element.state == "cancelled":
            return f"cancelled after {took} ({used})"
        how = f"exit status {element.exit_status}"
        if element.signal is not None:
            how = f"signal {_signal_name(element.signal)}"
        return f"failed after {took} with {how} ({used}): see {error}"

    def _rescue(self, element: LocalElement, path: str) -> None:
        """Keep output that could not be put in its place: PBS would leave it on the node."""
        stream, place = ("o", element.output) if path.endswith(".OU") else ("e", element.error)
        index = "" if element.index is None else f".{element.index}"
        name = f"{self._job.name}.{stream}{self._number}{index}"
        try:
            kept = shutil.copy(path, os.path.join(self._job.submit_folder, name))
        except OSError:
            folder = tempfile.mkdtemp(prefix=f"{self._job.name}-")
            kept = shutil.copy(path, os.path.join(folder, name))
        _tell(f"{_near(place)} cannot be written: the output is in {_near(kept)}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return str(number)
