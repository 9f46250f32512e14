"""PBS as its scripts are written: the table of directives, and how cores are asked for."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from fanfold.errors import UsageError
from fanfold.schedulers.scripts.dialect import (
    Dialect,
    Directive,
    Layout,
    Note,
    Option,
    Setting,
    Settings,
)
from fanfold.schedulers.scripts.directives import (
    count,
    flag,
    nothing,
    quote_pbs,
    read_dependency,
    text,
)
from fanfold.units import format_walltime

__all__ = ["PBS", "options", "read_size"]

_WITH_VALUE = "aAcCeJjklmMNopPqrRSuvW"
_FLAGS = "fhIVXz"
_WALLTIME = re.compile(r"(?:(?:([0-9]+):)?([0-9]+):)?([0-9]+(?:\.[0-9]*)?)")
_ARRAY = re.compile(r"([0-9]+)-([0-9]+)(?::([0-9]+))?(?:%([0-9]+))?")
_SIZE = re.compile(r"([0-9]+)(?:([kmgtp])?b?)", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,230}")
_BEGIN = re.compile(
    r"(?:(?:([0-9]{4}))?([0-9]{2})([0-9]{2}))?([0-9]{2})([0-9]{2})(?:\.([0-9]{2}))?"
)
_BEGIN_ISO = re.compile(
    r"(?:(?:([0-9]{4})-|)([0-9]{2})[-/]([0-9]{2})[T-])?([0-9]{2}):([0-9]{2})(?::([0-9]{2}))?"
)
_VARIABLE = re.compile(r"((?:'[^']*'|\"[^\"]*\"|\\.|[^,\\'\"])*)(?:,|$)")


def options(words: list[str], line: int) -> list[Option]:
    """The options among the words of a directive; those of ``-l`` and ``-W`` one by one."""
    found: list[Option] = []
    rest = iter(words)
    for word in rest:
        key, value = word[:2], word[2:]
        if len(word) < 2 or word[0] != "-" or word[1] not in _WITH_VALUE + _FLAGS:
            raise UsageError(f"{word!r} is no option of qsub, and qsub refuses it")
        if key[1] in _FLAGS:
            found.extend(Option(f"-{letter}", "", line) for letter in word[1:])
            continue
        value = value or next(rest, "")
        if key in ("-l", "-W"):
            found.extend(Option(f"{key} {name}", part, line) for name, part in _parts(value))
        else:
            found.append(Option(key, value, line))
    return found


def _parts(value: str) -> Iterator[tuple[str, str]]:
    """``a=1,b=2`` in parts; what has no ``=`` belongs to the one before it."""
    for part in re.split(r",(?=[^,=]+=)", value):
        name, _, rest = part.partition("=")
        yield name.strip(), rest.strip()


def _read_walltime(value: str) -> int:
    match = _WALLTIME.fullmatch(value)
    if match is None:
        raise UsageError("PBS refuses it: write seconds, or HH:MM:SS such as 01:30:00")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    total = math.ceil(hours * 3600 + minutes * 60 + seconds)
    if total == 0:
        raise UsageError("it is no time at all: write HH:MM:SS such as 01:30:00")
    return total


def _read_array(value: str) -> tuple[int, int, int, int]:
    """First, last, step, and how many at once (0: as many as there are)."""
    match = _ARRAY.fullmatch(value)
    if match is None:
        raise UsageError("PBS refuses it: write X-Y, X-Y:STEP or X-Y:STEP%MAX; there are no lists")
    first, last, step, limit = (int(part or 0) for part in match.groups())
    step = 1 if match[3] is None else step
    if first == last and step:
        raise UsageError(f"PBS refuses it: an array of {first} alone is {first}-{first + 1}:2")
    if last < first or step == 0:
        raise UsageError("PBS refuses it: the first index comes first, and a step is at least 1")
    return first, last, step, limit


def _write_array(array: tuple[int, int, int, int]) -> str:
    first, last, step, limit = array
    if first == last:
        last, step = first + 1, 2
    stepped = f"{first}-{last}" + (f":{step}" if step > 1 else "")
    return stepped + (f"%{limit}" if limit else "")


def _read_events(value: str) -> str:
    letters = "".join(letter for letter in "abej" if letter in value)
    if value == "n":
        return value
    if set(value) - set("abej") or letters in ("", "j"):
        raise UsageError("PBS refuses it: write n, or some of a, b and e, with j for array jobs")
    return letters


def _read_join(value: str) -> str:
    if value not in ("oe", "eo", "n"):
        raise UsageError("PBS refuses it: write oe, eo or n")
    return value


def _read_keep(value: str) -> str:
    if "d" not in value and value != "n":
        raise UsageError("Slurm keeps no output in the home folder: name the file with --output")
    return value


def _read_yes(value: str) -> bool:
    if value.lower() not in ("y", "n", "true", "false"):
        raise UsageError("PBS refuses it: write y or n (-W block=true or false)")
    return value.lower() in ("y", "true")


def _read_priority(value: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,4}", value) or abs(int(value)) > 1024:
        raise UsageError("PBS refuses it: write a whole number from -1024 to 1023")
    return int(value)


def _read_begin(value: str) -> str:
    match = _BEGIN.fullmatch(value)
    if match is None:
        raise UsageError("only hhmm, MMDDhhmm and CCYYMMDDhhmm, with .SS or without, have a twin")
    year, month, day, hour, minute, second = match.groups()
    date = f"{year}-{month}-{day}T" if year else f"{month}/{day}-" if month else ""
    return f"{date}{hour}:{minute}" + (f":{second}" if second else "")


def _write_begin(value: str) -> str:
    match = _BEGIN_ISO.fullmatch(value)
    if match is None:
        raise UsageError("PBS wants a date and time such as 2027-12-25T10:30")
    *parts, second = match.groups()
    return "".join(part or "" for part in parts) + (f".{second}" if second else "")


def _read_variables(value: str) -> tuple[str, ...]:
    parts = [match[1] for match in _VARIABLE.finditer(value) if match[0]]
    if sum(map(len, parts)) + value.count(",") < len(value):
        raise UsageError("a quote is not closed, and qsub refuses it")
    return tuple(re.sub(r"'([^']*)'|\"([^\"]*)\"|\\(.)", r"\1\2\3", part) for part in parts)


def _write_variables(variables: tuple[str, ...]) -> str:
    return ",".join(map(_write_variable, variables))


def _write_variable(variable: str) -> str:
    name, equals, value = variable.partition("=")
    if "\\" in value or ("'" in value and '"' in value):
        raise UsageError(f"qsub spoils backslashes and quotes: set {name} in the script itself")
    quote = '"' if "'" in value else "'"
    return f"{name}={quote}{value}{quote}" if re.search(r"[,'\"]", value) else name + equals + value


def _write_path(path: str) -> str:
    if not path.isascii():
        raise UsageError("qsub refuses paths with characters outside ASCII")
    if ":" in path.split("/")[0]:
        raise UsageError("qsub takes what stands before a : for a host")
    return path


def _write_yes(value: bool) -> str:
    return "y" if value else "n"


ROWS = (
    Directive("name", ("-N",), text, str),
    Directive("walltime", ("-l walltime",), _read_walltime, format_walltime),
    Directive("array", ("-J",), _read_array, _write_array),
    Directive("account", ("-P", "-A"), text, str),
    Directive("queue", ("-q",), text, str),
    Directive("mail", ("-M",), text, str),
    Directive("mail_events", ("-m",), _read_events, str),
    Directive("output", ("-o",), text, _write_path),
    Directive("error", ("-e",), text, _write_path),
    Directive("join", ("-j",), _read_join, str),
    Directive("keep", ("-k",), _read_keep, str),
    Directive("everything", ("-V",), flag, nothing),
    Directive("variables", ("-v",), _read_variables, _write_variables),
    Directive("depend", ("-W depend",), read_dependency, str),
    Directive("block", ("-W block",), _read_yes, lambda value: str(value).lower()),
    Directive("rerun", ("-r",), _read_yes, _write_yes),
    Directive("priority", ("-p",), _read_priority, str),
    Directive("begin", ("-a",), _read_begin, _write_begin),
    Directive("hold", ("-h",), flag, nothing),
)

HINTS = {
    "-W umask": "put the line umask and its value before your first command",
    "-W sandbox": 'make a directory in the script: cd "$(mktemp -d)"',
    "-W stagein": "copy the files in the script",
    "-W stageout": "copy the files in the script",
    "-S": "Slurm obeys the #! line of the script",
    "-R": "remove the files in the script",
    "-C": "it changes what a directive looks like, and nothing was read as it says",
    "-I": "use salloc, or srun --pty",
    "-l cput": "Slurm limits walltime only",
    "-l pmem": "ask for memory with -l select=...:mem=...",
    "-l vmem": "ask for memory with -l select=...:mem=...",
}

# The layout ---------------------------------------------------------------------------------------


def read_size(value: str) -> int:
    """The bytes of a PBS size: a bare number is bytes, kb is 1024 of them."""
    match = _SIZE.fullmatch(value)
    if match is None or int(match[1]) == 0:
        raise UsageError(f"{value!r} is no size to PBS: write 4gb or 500mb, without fractions")
    return int(match[1]) << 10 * " kmgtp".index((match[2] or " ").lower())


def write_size(size: int) -> str:
    """A number of bytes in the largest unit that holds it whole."""
    power = next(power for power in (4, 3, 2, 1, 0) if size % 1024**power == 0)
    return f"{size // 1024**power}{('b', 'kb', 'mb', 'gb', 'tb')[power]}"


def read_layout(asked: Mapping[str, Option]) -> tuple[Layout, list[Note]]:
    """What ``-l select`` and ``-l place`` ask for, or the older ``-l nodes`` and ``-l mem``."""
    place, exclusive = _place(asked["-l place"].value) if "-l place" in asked else ("free", False)
    if "-l select" in asked:
        option = asked["-l select"]
        old = sorted(set(asked) - {"-l select", "-l place"})
        if old:
            raise UsageError(f"qsub refuses {old[0]} beside -l select: put it into the select")
        chunks, wants = _chunk(option.value)
    elif "-l nodes" in asked:
        option = asked["-l nodes"]
        chunks, wants = _nodes(option.value)
        place = "scatter" if chunks > 1 else place
    else:
        option, chunks, wants = next(iter(asked.values())), 1, {}
    for key in ("-l ncpus", "-l mem", "-l ngpus", "-l mpiprocs", "-l ompthreads"):
        if key in asked:
            wants[key.removeprefix("-l ")] = asked[key].value
    memory = read_size(wants["mem"]) if "mem" in wants else None
    if memory is not None and "-l mem" in asked:  # the older spelling counts the job as a whole
        memory = math.ceil(memory / chunks)
    layout = Layout(
        chunks=chunks,
        ncpus=count(wants.get("ncpus", "1")),
        mpiprocs=count(wants.get("mpiprocs", "1")),
        ompthreads=count(wants["ompthreads"]) if "ompthreads" in wants else None,
        memory=memory,
        gpus=count(wants["ngpus"]) if wants.get("ngpus", "0") != "0" else None,
        place=place,
        exclusive=exclusive,
        sized=set(asked) != {"-l place"},
    )
    notes = [Note(option.line, said, lost=False) for said in _thread_notes(layout)]
    if "-l mem" in asked and chunks > 1:
        said = f"-l mem is for the whole job, --mem for each of {chunks} nodes: it is divided"
        notes.append(Note(asked["-l mem"].line, said, lost=False))
    return layout, notes


def _place(value: str) -> tuple[str, bool]:
    parts = value.split(":")
    arrangement = next((part for part in parts if part in ("free", "pack", "scatter")), "free")
    others = set(parts) - {"free", "pack", "scatter", "shared", "excl", "exclhost"}
    if others:
        raise UsageError(f"Slurm has no place={sorted(others)[0]}")
    return arrangement, bool({"excl", "exclhost"} & set(parts))


def _chunk(value: str) -> tuple[int, dict[str, str]]:
    if "+" in value:
        raise UsageError("unequal chunks are a heterogeneous job on Slurm: write it by hand")
    first, *parts = value.split(":")
    if not first.isdigit():
        first, parts = "1", [first, *parts]
    wants = dict(part.partition("=")[::2] for part in parts)
    strange = sorted(set(wants) - {"ncpus", "mem", "mpiprocs", "ngpus", "ompthreads"})
    if strange:
        raise UsageError(f"{strange[0]} is your site's own: look for a --constraint or a --gres")
    return count(first), wants


def _nodes(value: str) -> tuple[int, dict[str, str]]:
    match = re.fullmatch(r"([0-9]+)(?::ppn=([0-9]+))?(?::gpus=([0-9]+))?", value)
    if match is None:
        raise UsageError("only nodes=N:ppn=M has a twin: node names and properties are your site's")
    wants = {"ncpus": match[2] or "1", "mpiprocs": match[2] or "1"}
    if match[3]:
        wants["ngpus"] = match[3]
    return count(match[1]), wants


def _thread_notes(layout: Layout) -> Iterator[str]:
    threads = layout.ompthreads or layout.ncpus
    if threads > 1 or layout.mpiprocs > 1:
        yield (
            f"PBS sets OMP_NUM_THREADS={threads}, Slurm sets nothing: "
            "add export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK"
        )


def write_layout(setting: Setting) -> tuple[list[str], list[Note]]:
    """The directives that ask for a layout."""
    layout: Layout = setting.value
    lines = []
    if layout.sized:
        wants = {
            "ncpus": layout.ncpus,
            "mpiprocs": layout.mpiprocs if layout.mpiprocs > 1 else None,
            "ompthreads": layout.ompthreads,
            "ngpus": layout.gpus,
            "mem": write_size(layout.memory) if layout.memory else None,
        }
        parts = [f"{name}={value}" for name, value in wants.items() if value is not None]
        lines.append("-l select=" + ":".join([str(layout.chunks), *parts]))
    place = [layout.place] if layout.place != "free" else []
    place += ["excl"] if layout.exclusive else []
    if place:
        lines.append("-l place=" + ":".join(place))
    return lines, []


# What takes more than one option ------------------------------------------------------------------


def arrive(settings: Settings) -> list[Note]:
    """Settle what was read: hosts in paths, queues on other servers, ``-j`` that hides ``-e``."""
    notes = []
    for field, mark, shown in (("output", ":", "-o"), ("error", ":", "-e")):
        if field in settings and mark in settings[field].value.split("/")[0]:
            value, line, _ = settings[field]
            host, _, path = value.partition(mark)
            settings[field] = settings[field]._replace(value=path)
            notes.append(Note(line, f"{shown} on host {host}: Slurm writes where it runs", True))
    if "queue" in settings and "@" in settings["queue"].value:
        value, line, _ = settings["queue"]
        settings["queue"] = settings["queue"]._replace(value=value.partition("@")[0])
        notes.append(Note(line, f"server of -q {value}: Slurm has --clusters for that", True))
    _settle_join(settings)
    return notes


def _settle_join(settings: Settings) -> None:
    """From now on, joined means: in the file of the output."""
    how = settings["join"].value if "join" in settings else "n"
    if how == "n":
        settings.pop("join", None)
        return
    errors = settings.pop("error", None)
    if how == "eo":
        settings["join"] = settings["join"]._replace(value="oe")
        settings.pop("output", None)
        if errors:
            settings["output"] = errors


def depart(settings: Settings) -> list[Note]:
    """Settle what is to be written: names and paths that qsub refuses, reruns of arrays."""
    unnamed = [
        field
        for field in ("output", "error")
        if field in settings and "^id^" in settings[field].value
    ]
    notes = [_without_id(settings, field) for field in unnamed]
    if "name" in settings and not _NAME.fullmatch(settings["name"].value):
        old, line, _ = settings["name"]
        name = re.sub(r"[^A-Za-z0-9_.+-]", "_", old)[:230]
        settings["name"] = settings["name"]._replace(value=name)
        notes.append(Note(line, f"qsub refuses the name {old!r}: it is {name!r} here", lost=False))
    if "array" in settings and "rerun" in settings and not settings["rerun"].value:
        line = settings.pop("rerun").line
        notes.append(Note(line, "--no-requeue: qsub refuses -r n for arrays", lost=True))
    settings.pop("nothing", None)  # to pass no environment is what PBS does
    return notes


def _without_id(settings: Settings, field: str) -> Note:
    """Leave the name of a file to PBS, in its folder: no path of PBS can hold the id of a job."""
    path, line, option = settings[field]
    folder, slash, _ = path.rpartition("/")
    if slash and "^id^" not in folder:
        settings[field] = Setting(folder + slash, line, option)
        named = f"{folder}/ID.{'OU' if field == 'output' else 'ER'}"
    else:
        del settings[field]
        named = f"NAME.{field[0]}ID in the folder of qsub"
    said = f"{option}: no path of PBS holds an id; it calls the file {named}"
    return Note(line, said, lost=True)


PBS = Dialect(
    name="PBS",
    prefix="#PBS",
    escapes=False,
    options=options,
    rows=ROWS,
    layout=frozenset(
        f"-l {name}"
        for name in ("select", "place", "nodes", "ncpus", "mem", "ngpus", "mpiprocs", "ompthreads")
    ),
    read_layout=read_layout,
    write_layout=write_layout,
    arrive=arrive,
    depart=depart,
    hints=HINTS,
    quote=quote_pbs,
)
