"""Jobs of this machine as PBS would have them: what scripts ask for, and what they find."""

from __future__ import annotations

import os
import pwd
import re
import secrets
from collections.abc import Mapping

from fanfold.errors import UsageError
from fanfold.schedulers.base import JobState
from fanfold.schedulers.local.asked import Asked, login_environment, read_after, read_moment
from fanfold.schedulers.local.dialect import Begin, Dialect, interpreter
from fanfold.schedulers.local.job import LocalJob, Submitted
from fanfold.schedulers.scripts.lines import Script

__all__ = ["PBSJobs"]

_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,230}")
_SHELLS = ("sh", "bash", "dash", "ksh", "zsh")  # those that take -l -c and know exec "$@"
_CHUNK = ("ncpus", "mem", "mpiprocs", "ompthreads")
_SIZES = ("ncpus", "mem", "mpiprocs", "ompthreads", "select", "nodes")


def _check_prefix(value: str) -> None:
    if value != "#PBS":
        raise UsageError("no other prefix is read here: write #PBS")


def _check_interactive(value: str) -> None:
    raise UsageError("it asks for a terminal, where no script is run")


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"qsub refuses the name {name!r}: name the job with #PBS -N, of letters, digits and "
            "-_+. without blanks"
        )
    return name


def _on_this_host(path: str) -> str:
    """A path without the host that PBS would copy it to."""
    return path.partition(":")[2] if ":" in path.split("/")[0] else path


def _carried(environ: Mapping[str, str]) -> dict[str, str]:
    """What every job gets of the environment of qsub."""
    names = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL")
    return login_environment(environ) | {
        f"PBS_O_{name}": environ[name] for name in names if name in environ
    }


def _passed(asked: Asked, environ: Mapping[str, str]) -> dict[str, str]:
    """What ``-v`` passes: variables with their values, or names of some that qsub has."""
    found = {}
    for word in asked.value("-v", ()):
        name, equals, value = word.partition("=")
        if not equals and name not in environ:
            raise UsageError(f"-v {name}: there is no such variable here: write {name}=VALUE")
        found[name] = value if equals else environ[name]
    return found


def _read_umask(value: str) -> int:
    if not re.fullmatch("[0-7]{1,4}", value):
        raise UsageError("write three octal digits, such as 022")
    return int(value, 8)


def _sizes(asked: Asked) -> dict[str, str]:
    """What says how large a job is; the first chunk of several, and nothing of the site's own."""
    values = {f"-l {name}": asked.text(f"-l {name}") for name in _SIZES if f"-l {name}" in asked}
    if "-l select" in values:
        parts = values["-l select"].split("+")[0].split(":")
        chunks = parts[:1] if parts[0].isdigit() else ["1"]
        wants = [part for part in parts if part.partition("=")[0] in _CHUNK]
        values["-l select"] = ":".join([*chunks, *wants])
    if "-l nodes" in values:
        each = re.search(r":ppn=([0-9]+)", values["-l nodes"])
        nodes = re.match(r"[0-9]+(?=:|$)", values["-l nodes"])
        values["-l nodes"] = f"{nodes[0] if nodes else 1}:ppn={each[1] if each else 1}"
    return values


class PBSJobs(Dialect):
    """Jobs start in the home folder from a login shell; their output is put in place at the end."""

    def read(
        self, job: LocalJob, script: Script, asked: Asked, environ: Mapping[str, str]
    ) -> LocalJob:
        asked.read("-C", _check_prefix, None)
        asked.read("-I", _check_interactive, None)
        first, last, step, at_once = asked.value("-J", (0, 0, 0, 0))
        keep = asked.text("-k")
        return job._replace(
            name=_checked(asked.text("-N", job.name)),
            folder=login_environment(environ)["HOME"],
            indices=range(first, last + 1, step) if step else (None,),
            step=step or 1,
            at_once=at_once or None,
            walltime=asked.value("-l walltime", None),
            output=_on_this_host(asked.text("-o")),
            error=_on_this_host(asked.text("-e")),
            join=asked.value("-j", "n").replace("n", ""),
            keep="" if keep == "n" else keep,
            environment={**_carried(environ), **_passed(asked, environ)},
            umask=asked.read("-W umask", _read_umask, 0o077),
            login=asked.text("-S").partition("@")[0],
            after=asked.read("-W depend", read_after, ()),
            held="-h" in asked,
            begin=read_moment(asked.value("-a", "now")),
            queue=asked.text("-q", job.queue).partition("@")[0],
            account=asked.text("-P") or asked.text("-A"),
            layout=asked.layout(_sizes(asked)),
        )

    def id(self, submitted: Submitted, index: int | None, host: str) -> str:
        element = "" if index is None else index
        brackets = f"[{element}]" if submitted.job.is_array else ""
        return f"{submitted.number}{brackets}.{host}"

    def _own_id(self, begin: Begin) -> str:
        return self.id(begin.submitted, begin.element.index, begin.host)

    def _node_file(self, begin: Begin) -> str:
        return os.path.join(begin.folder, self._own_id(begin))

    def _scratch(self, begin: Begin) -> str:
        return os.path.join(begin.folder, f"pbs.{self._own_id(begin)}")

    def prepare(self, begin: Begin) -> None:
        layout = begin.submitted.job.layout
        os.mkdir(self._scratch(begin), 0o700)
        with open(self._node_file(begin), "w", encoding="utf-8") as file:
            file.write(f"{begin.element.node}\n" * layout.chunks * layout.mpiprocs)

    def variables(self, begin: Begin) -> dict[str, str]:
        job = begin.submitted.job
        threads = str(job.layout.ompthreads or job.layout.ncpus)
        variables = {
            "ENVIRONMENT": "BATCH",
            "NCPUS": threads,
            "OMP_NUM_THREADS": threads,
            "PBS_ENVIRONMENT": "PBS_BATCH",
            "PBS_JOBCOOKIE": secrets.token_hex(16).upper(),
            "PBS_JOBDIR": job.folder,
            "PBS_JOBID": self._own_id(begin),
            "PBS_JOBNAME": job.name,
            "PBS_NODEFILE": self._node_file(begin),
            "PBS_NODENUM": "0",
            "PBS_O_HOST": os.uname().nodename,
            "PBS_O_QUEUE": job.queue,
            "PBS_O_SYSTEM": os.uname().sysname,
            "PBS_O_WORKDIR": job.submit_folder,
            "PBS_QUEUE": job.queue,
            "PBS_TASKNUM": "1",
            "TMPDIR": self._scratch(begin),
        }
        if job.is_array:
            variables["PBS_ARRAY_ID"] = self.id(begin.submitted, None, begin.host)
            variables["PBS_ARRAY_INDEX"] = str(begin.element.index)
        return variables

    def paths(self, begin: Begin) -> tuple[str, str]:
        job = begin.submitted.job
        output = self._path(begin, job.output, "o")
        error = self._path(begin, job.error, "e")
        if job.join:
            return (output, output) if job.join == "oe" else (error, error)
        return output, error

    def _path(self, begin: Begin, pattern: str, stream: str) -> str:
        (number, job, *_), index = begin.submitted, begin.element.index
        name = f"{job.name}.{stream}{number}" + ("" if index is None else f".{index}")
        if stream in job.keep and "d" not in job.keep:
            return os.path.join(job.environment.get("HOME", job.folder), name)
        if job.is_array:
            pattern = pattern.replace("^array_index^", str(index))
        path = os.path.join(job.submit_folder, pattern or name)
        if path.endswith("/") or os.path.isdir(path):
            suffix = "OU" if stream == "o" else "ER"
            return os.path.join(path, f"{self._own_id(begin)}.{suffix}")
        return path

    def spools(self, job: LocalJob, stream: str) -> bool:
        return stream not in job.keep

    def command(self, job: LocalJob, script: str) -> list[str]:
        """A login shell becomes the script: what it reads first may define ``module``."""
        shell = job.login or _login_shell()
        login = shell if os.path.basename(shell) in _SHELLS else "/bin/sh"
        program = interpreter(job.script) or [shell]
        return [login, "-l", "-c", 'exec "$0" "$@"', *program, script]

    def farewell(self, begin: Begin, state: JobState | None, seconds: float) -> str:
        limit = begin.submitted.job.walltime
        if state != "walltime" or limit is None:
            return ""
        return f"=>> PBS: job killed: walltime {seconds:.0f} exceeded limit {limit:.0f}\n"


def _login_shell() -> str:
    """That of the user, where it is one."""
    try:
        shell = pwd.getpwuid(os.getuid()).pw_shell
    except KeyError:  # a container without names
        return "/bin/sh"
    none = os.path.basename(shell) in ("nologin", "false") or not os.path.exists(shell)
    return "/bin/sh" if none else shell
