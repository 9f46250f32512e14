"""How qstat prints jobs: two tables, text, and JSON that not every reader accepts."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fanfold.testing.cluster.site import Site

__all__ = ["Row", "as_json", "as_text", "head", "long_table", "short_table", "visible"]

# What a C program takes for a number, and qstat prints without quotes.
_NUMBER = re.compile(
    r"\s*[+-]?(?:(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?"
    r"|inf(?:inity)?|nan(?:\([A-Za-z0-9_]*\))?)",
    re.IGNORECASE,
)
_WIDTH = 79
_TAB = 8

_SHORT_HEAD = (
    "Job id            Name             User              Time Use S Queue\n"
    "----------------  ---------------- ----------------  -------- - -----\n"
)
_LONG_HEAD = (
    "\n{server}: \n"
    "                                                            Req'd  Req'd   Elap\n"
    "Job ID          Username Queue    Jobname    SessID NDS TSK Memory Time  S Time\n"
    "--------------- -------- -------- ---------- ------ --- --- ------ ----- - -----\n"
)

Pairs = tuple[tuple[str, Any], ...]


class Row(NamedTuple):
    """A job or an element with everything that qstat says of it, in its order."""

    id: str
    attributes: Mapping[str, str | int | Pairs]  # pairs, for a name may come twice

    def text(self, name: str, default: str = "") -> str:
        """An attribute, or a part of one (``Resource_List.mem``), as it is printed."""
        first, _, part = name.partition(".")
        value = self.attributes.get(first, default)
        return str(dict(value).get(part, default) if isinstance(value, tuple) else value)

    @property
    def user(self) -> str:
        return self.text("Job_Owner").partition("@")[0]


def short_table(rows: Iterable[Row], *, head: bool = True) -> str:
    """What qstat prints without options."""
    lines = "".join(map(_short, rows))
    return (_SHORT_HEAD if head and lines else "") + lines


def _short(row: Row) -> str:
    name, queue, state = row.text("Job_Name"), row.text("queue"), row.text("job_state")
    used = row.text("resources_used.cput", "0")
    return (
        f"{_cut(row.id, 16):16s}  {_cut(name, 16):16s} {_cut(row.user, 16):16s}  {used:>8s} "
        f"{state} {queue:16s}\n"
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) < width else text[: width - 1] + "*"


def long_table(rows: Iterable[Row], server: str, *, why: bool = False) -> str:
    """What qstat prints for ``-a`` and ``-u``; with ``why`` (``-s``) comments, too."""
    lines = []
    for row in rows:
        lines.append(_long(row))
        if why:
            lines.append(f"   {row.text('comment', ' -- ')}\n")
    return _LONG_HEAD.format(server=server) + "".join(lines) if lines else ""


def _long(row: Row) -> str:
    session, elapsed = row.text("session_id", " -- "), "  -- "
    if "session_id" in row.attributes:
        elapsed = row.text("resources_used.walltime")[:5]
    names = (
        f"{_cut(row.id, 16):15s} {_cut(row.user, 9):8s} {_cut(row.text('queue'), 9):8s} "
        f"{_cut(row.text('Job_Name'), 11):10s}"
    )
    chunks, cores = row.text("Resource_List.nodect"), row.text("Resource_List.ncpus")
    memory = row.text("Resource_List.mem", "  -- ")
    limit = row.text("Resource_List.walltime", "  -- ")[:5]
    sizes = f"{session:>6s} {chunks:>3s} {cores:>3s} {memory:>6s} {limit:>5s}"
    return f"{names} {sizes} {row.text('job_state')} {elapsed:5s}\n"


def as_text(rows: Iterable[Row], *, fold: bool = True) -> str:
    """What ``qstat -f`` prints; without ``fold`` (``-w``) an attribute is one line."""
    return "".join(
        f"Job Id: {row.id}\n" + "".join(_attribute(*item, fold) for item in _flat(row)) + "\n"
        for row in rows
    )


def _flat(row: Row) -> Iterable[tuple[str, str]]:
    for name, value in row.attributes.items():
        if name == "Variable_List" and isinstance(value, tuple):
            yield name, ",".join(f"{key}={_escaped(part)}" for key, part in value)
        elif isinstance(value, tuple):
            yield from ((f"{name}.{key}", str(part)) for key, part in value)
        else:
            yield name, str(value)


def _escaped(value: str) -> str:
    return re.sub(r"([,'\"])", r"\\\1", value)


def _attribute(name: str, value: str, fold: bool) -> str:
    line = f"    {name} = "
    if not fold:
        return line + visible(value) + "\n"
    lines, room = [line], _WIDTH - len(line)
    for piece in re.findall(r"[^,]*,|[^,]+", visible(value)):
        if len(piece) > room and not lines[-1].endswith(" = "):
            lines.append("")
            room = _WIDTH - _TAB
        while len(piece) > room:
            lines[-1] += piece[:room]
            piece = piece[room:]
            lines.append("")
            room = _WIDTH - _TAB
        lines[-1] += piece
        room -= len(piece)
    return "\n\t".join(lines) + "\n"


def visible(text: str) -> str:
    """Bytes that are no printable ASCII as this server spoils them: ``^`` and the byte plus 64."""
    spoiled = bytearray()
    for byte in text.encode("utf-8", "surrogateescape"):
        if 32 <= byte < 127 or byte in b"\t\n":
            spoiled.append(byte)
        else:
            spoiled += bytes([ord("^"), (byte + 64) % 256])
    return spoiled.decode("utf-8", "surrogateescape")


def head(site: Site) -> dict[str, str | int]:
    """What every JSON begins with."""
    return {"timestamp": int(time.time()), "pbs_version": "23.06.06", "pbs_server": site.host}


def as_json(begin: Mapping[str, str | int], rows: Sequence[Row], how: str) -> str:
    """What ``-F json`` prints: as 23.06.06 spoils it, or as ``"later"`` versions print it."""
    jobs = [(row.id, tuple(row.attributes.items())) for row in rows]
    document = (*begin.items(), *((("Jobs", tuple(jobs)),) if jobs else ()))
    if how == "later":
        return _later(document, 0) + "\n"
    return _spoiled(document, 0) + ("\n" if jobs else "")


def _spoiled(pairs: Pairs, depth: int) -> str:
    indent = "    " * depth
    parts = []
    rest = list(reversed(pairs))
    while rest:
        name, value = rest.pop()
        if value == "" and rest:  # an empty variable swallows the next
            value = ",{}={}".format(*rest.pop())
        if isinstance(value, tuple):
            shown = _spoiled(value, depth + 1)
        else:
            shown = f'"{value}"' if name == "pbs_version" else _bare(str(value))
        parts.append(f'{indent}    "{name}":{shown}')
    return "{\n" + ",\n".join(parts) + f"\n{indent}}}"


def _bare(value: str) -> str:
    """A value in quotes, unless C reads it as a number; backslashes are not escaped."""
    if _NUMBER.fullmatch(value):
        return value
    for plain, escaped in (('"', '\\"'), ("\n", "\\n"), ("\t", "\\t")):
        value = value.replace(plain, escaped)
    return f'"{visible(value)}"'


def _later(pairs: Pairs, depth: int, numbers: bool = False) -> str:
    indent = "\t" * depth
    parts = []
    for name, value in pairs:
        if isinstance(value, tuple):
            shown = _later(value, depth + 1, numbers=name == "Variable_List")
        elif numbers or name == "array_indices_remaining":
            shown = _number(str(value))
        else:
            shown = json.dumps(value, ensure_ascii=False)
        parts.append(f'{indent}\t"{name}":\t{shown}')
    return "{\n" + ",\n".join(parts) + f"\n{indent}}}"


def _number(value: str) -> str:
    """A number where it looks like one, with the digits that a C double keeps."""
    if not re.fullmatch(r"-?[0-9]+(?:\.[0-9]+)?", value):
        return json.dumps(value, ensure_ascii=False)
    number = float(value)
    return f"{number:.0f}" if number.is_integer() and abs(number) < 1e15 else f"{number:.17g}"
