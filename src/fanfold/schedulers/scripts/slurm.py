"""Slurm as its scripts are written: the table of directives, and how cores are asked for."""

from __future__ import annotations

import math
import re
from collections import deque
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
    quote_slurm,
    read_dependency,
    text,
)
from fanfold.units import format_walltime

__all__ = ["SLURM", "options", "read_size"]

_SHORT = {
    "A": "account", "B": "extra-node-info", "C": "constraint", "D": "chdir", "F": "nodefile",
    "G": "gpus", "H": "hold", "J": "job-name", "L": "licenses", "M": "clusters", "N": "nodes",
    "O": "overcommit", "Q": "quiet", "S": "core-spec", "W": "wait", "a": "array", "b": "begin",
    "c": "cpus-per-task", "d": "dependency", "e": "error", "i": "input", "k": "no-kill",
    "m": "distribution", "n": "ntasks", "o": "output", "p": "partition", "q": "qos",
    "s": "oversubscribe", "t": "time", "v": "verbose", "w": "nodelist", "x": "exclude",
}  # fmt: skip
_WITH_VALUE = (
    "account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters comment "
    "constraint container core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task "
    "deadline delay-boot dependency distribution error exclude export export-file "
    "extra-node-info gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task "
    "gres gres-flags hint input job-name kill-on-invalid-dep licenses mail-type mail-user "
    "mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nodefile nodelist nodes "
    "ntasks ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output "
    "partition power prefer priority profile qos reservation signal sockets-per-node switches "
    "thread-spec threads-per-core time time-min tmp tres-per-task uid wait-all-nodes wckey "
    "wrap "
)
_FLAGS = (
    "contiguous exclusive get-user-env hold ignore-pbs nice no-kill no-requeue overcommit "
    "oversubscribe parsable propagate quiet reboot requeue spread-job test-only use-min-nodes "
    "verbose wait "
)
_TIME = re.compile(r"(?:([0-9]+)-)?([0-9]+)(?::([0-9]+))?(?::([0-9]+))?")
_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+)(?::([0-9]+))?)?")
_SIZE = re.compile(r"([0-9]+)([kmgt]?)b?", re.IGNORECASE)
_LARGEST_INDEX = 4_000_000  # Slurm itself allows no more
_EVENTS = {"BEGIN": "b", "END": "e", "FAIL": "a", "ARRAY_TASKS": "j", "ALL": "abe", "NONE": "n"}
_FIELD = re.compile(r"%([0-9]*)(.)")


def options(words: list[str], line: int) -> list[Option]:
    """The options among the words of a directive, by their long names."""
    found: list[Option] = []
    rest = deque(words)
    while rest:
        name, equals, value = _named(rest.popleft())
        known = name in _WITH_VALUE.split()
        unknown = name not in _FLAGS.split() and rest and not rest[0].startswith("-")
        if not equals and not value and rest and (known or unknown):
            value = rest.popleft()
        found.extend(Option(key, part, line) for key, part in _parts(f"--{name}", value))
    return found


def _named(word: str) -> tuple[str, str, str]:
    """The long name of an option, ``=`` if there was one, and the value that came with it."""
    if re.match(r"-[A-Za-z]", word) and word[1] in _SHORT:
        return _SHORT[word[1]], "", word[2:]
    name, equals, value = word.removeprefix("--").partition("=")
    names = [known for known in (_WITH_VALUE + _FLAGS).split() if known.startswith(name)]
    if word in ("hetjob", "packjob"):
        raise UsageError("PBS asks for unequal chunks in one -l select: write it by hand")
    if not word.startswith("--") or not name:
        raise UsageError(f"{word!r} is no option of sbatch, and sbatch refuses it")
    return name if name in names or len(names) != 1 else names[0], equals, value


def _parts(key: str, value: str) -> Iterator[tuple[str, str]]:
    """An option in the parts that have twins of their own, or none."""
    if key == "--export":
        words = [word for word in value.split(",") if word]
        for word in words:
            if word in ("ALL", "NONE", "NIL"):
                yield f"--export {word}", ""
        named = [word for word in words if word not in ("ALL", "NONE", "NIL")]
        if named or not words:
            yield key, ",".join(named)
    elif key == "--mail-type":
        known = [word for word in value.split(",") if word.upper() in _EVENTS]
        if known:
            yield key, ",".join(known)
        yield from ((f"--mail-type {word}", "") for word in value.split(",") if word not in known)
    elif key in ("--exclusive", "--gres"):
        for part in value.split(","):
            plain = part == "" if key == "--exclusive" else part.startswith("gpu")
            yield (key, part) if plain else (f"{key} {part}", "")
    elif key == "--nice":
        yield key, value or "100"
    else:
        yield key, value


def _read_time(value: str) -> int:
    match = _TIME.fullmatch(value)
    if match is None or value in ("0", "-1"):
        if value.upper() in ("0", "-1", "UNLIMITED", "INFINITE"):
            raise UsageError("PBS has no endless walltime: write the largest that the queue allows")
        raise UsageError("Slurm refuses it: write minutes, HH:MM:SS or D-HH:MM:SS")
    day, *clock = match.groups()
    parts = [int(part) for part in clock if part is not None]
    if day is not None:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    return int(day or 0) * 86400 + hours * 3600 + minutes * 60 + seconds


def _read_array(value: str) -> tuple[int, int, int, int]:
    """First, last, step, and how many at once (0: as many as there are)."""
    indices, percent, limit = value.strip("[]").partition("%")
    if not re.fullmatch(r"[0-9]*", limit) or (percent and not limit):
        raise UsageError("Slurm drops what stands behind the %: write 1-10:2%3")
    ranges = [_indices(part.strip()) for part in indices.split(",")]
    merged = ranges[0] if len(ranges) == 1 else _merged(ranges)
    return merged.start, merged.stop - 1, merged.step, int(limit or 0)


def _indices(part: str) -> range:
    match = _RANGE.fullmatch(part)
    if match is None:
        raise UsageError("Slurm refuses it: write 1-10, 1-10:2, 1,4,7 or 1-10%3")
    first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
    if last < first or match[3] == "0" or last > _LARGEST_INDEX:
        raise UsageError(f"Slurm refuses it: {part} does not count up to {_LARGEST_INDEX} at most")
    return range(first, last + 1, step)


def _merged(ranges: list[range]) -> range:
    if sum(map(len, ranges)) > _LARGEST_INDEX:
        raise UsageError(f"it names more than {_LARGEST_INDEX} indices")
    indices = sorted(set().union(*ranges))
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    found = range(indices[0], indices[-1] + 1, step)
    if list(found) != indices:
        raise UsageError(
            "PBS takes no list of indices: submit one script for each range, "
            "or look the index up in a list that the script reads"
        )
    return found


def _write_array(array: tuple[int, int, int, int]) -> str:
    first, last, step, limit = array
    stepped = str(first) if first == last else f"{first}-{last}" + (f":{step}" if step > 1 else "")
    return stepped + (f"%{limit}" if limit else "")


def _read_events(value: str) -> str:
    letters = "".join(_EVENTS[word.upper()] for word in value.split(","))
    return "n" if "n" in letters else "".join(letter for letter in "abej" if letter in letters)


def _write_events(letters: str) -> str:
    words = {letter: word for word, letter in _EVENTS.items() if len(letter) == 1}
    return ",".join(words[letter] for letter in "bajen" if letter in letters)


def _read_variables(value: str) -> tuple[str, ...]:
    return tuple(text(value).split(","))


def _write_variables(variables: tuple[str, ...]) -> str:
    for variable in variables:
        if "," in variable:
            name = variable.partition("=")[0]
            raise UsageError(f"Slurm passes no value with a comma: set {name} in the script itself")
    return ",".join(variables)


def _write_path(path: str) -> str:
    if "\\" in path:
        raise UsageError("Slurm reads no % in a path with a backslash: choose another path")
    escaped = path.replace("%", "%%")
    job = "%A" if "^array_index^" in path else "%j"  # %j is another number in each element
    return escaped.replace("^array_index^", "%a").replace("^id^", job)


def _read_nice(value: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,9}", value):
        raise UsageError("Slurm refuses it: write a whole number")
    return max(-1024, min(1023, -int(value)))


def _write_nice(priority: int) -> str:
    if priority > 0:
        raise UsageError("only an administrator may raise the priority of a job on Slurm")
    return str(-priority)


ROWS = (
    Directive("name", ("--job-name",), text, str),
    Directive("walltime", ("--time",), _read_time, format_walltime),
    Directive("array", ("--array",), _read_array, _write_array),
    Directive("account", ("--account",), text, str),
    Directive("queue", ("--partition",), text, str),
    Directive("mail", ("--mail-user",), text, str),
    Directive("mail_events", ("--mail-type",), _read_events, _write_events),
    Directive("output", ("--output",), text, _write_path),
    Directive("error", ("--error",), text, _write_path),
    Directive("everything", ("--export ALL",), flag, nothing),
    Directive("nothing", ("--export NONE", "--export NIL"), flag, nothing),
    Directive("variables", ("--export",), _read_variables, _write_variables),
    Directive("depend", ("--dependency",), read_dependency, str),
    Directive("block", ("--wait",), flag, nothing),
    Directive("rerun", ("--requeue",), flag, nothing),
    Directive("no_rerun", ("--no-requeue",), flag, nothing),
    Directive("priority", ("--nice",), _read_nice, _write_nice),
    Directive("begin", ("--begin",), text, str),
    Directive("hold", ("--hold",), flag, nothing),
)

HINTS = {
    "--exclusive": "PBS keeps others out with -l place=excl, not some of them",
    "--mail-type": "PBS mails when a job begins, ends or is aborted",
    "--gres": "name the resource of your site in -l select=...",
    "--qos": "PBS chooses by queue",
    "--chdir": "write cd {value} in the script",
    "--constraint": "name the resource of your site in -l select=...",
    "--nodelist": "name the node with -l select=1:host=...",
    "--exclude": "PBS chooses nodes by what they have",
    "--open-mode": "PBS replaces an output file that is there",
    "--licenses": "name the resource of your site with -l",
    "--reservation": "submit to the queue of the reservation with -q",
    "--signal": "PBS sends TERM only, some seconds before KILL",
    "--tmp": "name the resource of your site in -l select=...",
    "--wrap": "write the command in the script",
    "--input": "redirect it in the script",
    "--propagate": "set limits in the script with ulimit",
    "--kill-on-invalid-dep": "PBS always takes such a job away",
    "--comment": "leave it as a comment",
}

# The layout ---------------------------------------------------------------------------------------

_LAYOUT = (
    "nodes ntasks ntasks-per-node cpus-per-task mem mem-per-cpu gres gpus gpus-per-node "
    "gpus-per-task exclusive"
)


def read_size(value: str) -> int:
    """The bytes of a Slurm size: a bare number is megabytes."""
    match = _SIZE.fullmatch(value)
    if match is None:
        raise UsageError(f"{value!r} is no size to Slurm: write 4G or 500M, without fractions")
    if int(match[1]) == 0:
        raise UsageError("0 is all the memory of a node: PBS wants a number, such as mem=4gb")
    return int(match[1]) << 10 * " kmgt".index((match[2] or "m").lower())


def write_size(size: int) -> str:
    """A number of bytes in the largest unit that holds it whole; bytes are rounded up to 1K."""
    kilobytes = math.ceil(size / 1024)
    power = next(power for power in (3, 2, 1, 0) if kilobytes % 1024**power == 0)
    return f"{kilobytes // 1024**power}{'KMGT'[power]}"


def read_layout(asked: Mapping[str, Option]) -> tuple[Layout, list[Note]]:
    """What the options about nodes, tasks, cores, memory and GPUs ask for."""
    values = {key.removeprefix("--"): option.value for key, option in asked.items()}
    chunks, tasks, place = _pieces(values)
    threads = count(values.get("cpus-per-task", "1"))
    ncpus = tasks * threads
    if "mem" in values:
        memory: int | None = read_size(values["mem"])
    elif "mem-per-cpu" in values:
        memory = read_size(values["mem-per-cpu"]) * ncpus
    else:
        memory = None
    layout = Layout(
        chunks=chunks,
        ncpus=ncpus,
        mpiprocs=tasks,
        ompthreads=threads if tasks > 1 else None,
        memory=memory,
        gpus=_gpus(values, chunks, tasks),
        place=place,
        exclusive="exclusive" in values,
        sized=set(values) != {"exclusive"},
    )
    line = next(iter(asked.values())).line
    return layout, [Note(line, said, lost=False) for said in _layout_notes(values, layout)]


def _pieces(values: Mapping[str, str]) -> tuple[int, int, str]:
    """How many chunks, tasks in each, and how they are placed."""
    if "nodes" in values and not values["nodes"].isdigit():
        raise UsageError("PBS wants one number of nodes, such as --nodes=2")
    total = count(values["ntasks"]) if "ntasks" in values else None
    each = count(values["ntasks-per-node"]) if "ntasks-per-node" in values else None
    in_one_piece = {"mem", "gres", "gpus-per-node", "gpus"} & set(values)
    if "nodes" in values or each:
        nodes = (
            count(values["nodes"]) if "nodes" in values else math.ceil((total or 1) / (each or 1))
        )
        tasks = each or math.ceil((total or 1) / nodes)
        return nodes, tasks, "scatter" if nodes > 1 else "free"
    if total and total > 1 and not in_one_piece:
        return total, 1, "free"
    return 1, total or 1, "free"


def _gpus(values: Mapping[str, str], chunks: int, tasks: int) -> int | None:
    """GPUs of a chunk."""
    for key, share in (("gres", 1), ("gpus-per-node", 1), ("gpus-per-task", tasks), ("gpus", 0)):
        if key not in values:
            continue
        *kind, number = (re.sub("^gpu:?", "", values[key]) or "1").split(":")
        if kind or not number.isdigit():
            raise UsageError("the kind of a GPU is your site's: name its resource in -l select=...")
        if share:
            return int(number) * share or None
        if int(number) % chunks:
            raise UsageError(f"{number} GPUs do not divide into {chunks} equal chunks")
        return int(number) // chunks or None
    return None


def _layout_notes(values: Mapping[str, str], layout: Layout) -> Iterator[str]:
    total = int(values.get("ntasks", "0"))
    if total and total != layout.chunks * layout.mpiprocs:
        given = layout.chunks * layout.mpiprocs
        yield f"{total} tasks do not divide into equal chunks: it asks for {given}"
    if layout.chunks == 1 and total > 1 and not {"nodes", "ntasks-per-node"} & set(values):
        yield f"Slurm may spread {total} tasks over nodes; PBS gets them in one chunk, on one node"


def write_layout(setting: Setting) -> tuple[list[str], list[Note]]:
    """The directive that asks for a layout: several options on one line."""
    layout: Layout = setting.value
    notes = []
    if layout.sized:
        options = _free(layout) if _is_free(layout) else _by_node(layout)
        notes = [Note(setting.line, said, lost=False) for said in _written_notes(layout)]
    else:
        options = []
    if layout.exclusive:
        options.append("--exclusive")
    return [" ".join(options)] if options else [], notes


def _is_free(layout: Layout) -> bool:
    """Whether chunks are tasks that Slurm may put where it likes, as PBS may."""
    return layout.chunks > 1 and layout.place == "free" and layout.mpiprocs == 1


def _free(layout: Layout) -> list[str]:
    options = [f"--ntasks={layout.chunks}", f"--cpus-per-task={layout.ncpus}"]
    if layout.memory:
        options.append(f"--mem-per-cpu={write_size(math.ceil(layout.memory / layout.ncpus))}")
    if layout.gpus:
        options.append(f"--gpus-per-task={layout.gpus}")
    return options


def _by_node(layout: Layout) -> list[str]:
    packed = layout.chunks if layout.place == "pack" else 1
    options = [
        f"--nodes={layout.chunks // packed}",
        f"--ntasks-per-node={layout.mpiprocs * packed}",
        f"--cpus-per-task={math.ceil(layout.ncpus / layout.mpiprocs)}",
    ]
    if layout.memory:
        options.append(f"--mem={write_size(layout.memory * packed)}")
    if layout.gpus:
        options.append(f"--gres=gpu:{layout.gpus * packed}")
    return options


def _written_notes(layout: Layout) -> Iterator[str]:
    if layout.ncpus % layout.mpiprocs:
        yield (
            f"{layout.ncpus} cores do not divide among {layout.mpiprocs} processes: "
            "each has the next whole number"
        )
    if layout.chunks > 1 and layout.place == "free" and layout.mpiprocs > 1:
        yield "PBS may put several chunks on one node; Slurm puts each on a node of its own"


# What takes more than one option ------------------------------------------------------------------


def arrive(settings: Settings) -> list[Note]:
    """Settle what was read: patterns in paths, output and errors that share a file."""
    notes: list[Note] = []
    if "no_rerun" in settings:
        settings["rerun"] = settings.pop("no_rerun")._replace(value=False)
    for field in ("output", "error"):
        if field in settings:
            pattern, line, option = settings[field]
            path = _FIELD.sub(lambda match: _field(match, settings), pattern)
            if "\\" in pattern:
                path = pattern.replace("\\", "")
            settings[field] = Setting(path, line, option)
            if re.search(r"%[0-9]+a", pattern):
                notes.append(Note(line, f"{option}: PBS does not pad an index with zeros", True))
    if "error" not in settings or settings["error"].value == _value(settings, "output"):
        settings.pop("error", None)
        settings["join"] = Setting("oe", 0)
    return notes


def _value(settings: Settings, field: str) -> object:
    return settings[field].value if field in settings else None


def _field(match: re.Match[str], settings: Settings) -> str:
    """What a pattern such as ``%a`` is in a path of PBS; ``^id^`` where PBS has nothing."""
    letter = match[2]
    if letter == "%":
        return "%"
    if letter == "a":
        return "^array_index^"
    if letter == "x" and "name" in settings:
        return str(settings["name"].value)
    return "^id^"


def depart(settings: Settings) -> list[Note]:
    """Settle what is to be written: one option for the environment, files for the output."""
    notes = [Note(line, said, lost=False) for line, said in _differences(settings)]
    settings.pop("join", None)  # Slurm writes both to one file unless there is an --error
    settings.pop("keep", None)  # and to its place, while the job runs
    if "rerun" in settings and not settings["rerun"].value:
        settings["no_rerun"] = settings.pop("rerun")._replace(value=True)
    if "block" in settings and not settings["block"].value:
        del settings["block"]
    if {"everything", "variables"} <= set(settings):
        del settings["everything"]
        names = ("ALL", *settings["variables"].value)
        settings["variables"] = settings["variables"]._replace(value=names)
    pattern = "^id^_^array_index^" if "array" in settings else "^id^"
    for field, suffix in (("output", ".out"), ("error", ".err")):
        if field in settings and settings[field].value.endswith("/"):
            path = settings[field].value + pattern + suffix
            settings[field] = settings[field]._replace(value=path)
    return notes


def _differences(settings: Settings) -> Iterator[tuple[int, str]]:
    if "walltime" in settings and settings["walltime"].value % 60:
        yield settings["walltime"].line, "Slurm counts whole minutes, and rounds a walltime up"
    if "mail_events" in settings and "a" in settings["mail_events"].value:
        line = settings["mail_events"].line
        yield line, "FAIL also mails when a job ends with a status other than 0; -m a does not"
    if "mail" in settings and "mail_events" not in settings:
        line = settings["mail"].line
        yield line, "without -m PBS mails when it aborts a job; Slurm mails for --mail-type only"


SLURM = Dialect(
    name="Slurm",
    prefix="#SBATCH",
    escapes=True,
    options=options,
    rows=ROWS,
    layout=frozenset(f"--{name}" for name in _LAYOUT.split()),
    read_layout=read_layout,
    write_layout=write_layout,
    arrive=arrive,
    depart=depart,
    hints=HINTS,
    quote=quote_slurm,
)
