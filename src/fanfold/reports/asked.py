"""What was asked for, without secrets.

Environments are never shown. Values are hidden when their name looks like that of a secret, in
options, in ``NAME=value``, in ``--name value``, and in the address of a server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fanfold.history import History
from fanfold.reports.document import Facts, Item, Paragraph, Section
from fanfold.reports.words import one_line, plural

__all__ = ["asked"]

MOST_ROWS = 60
DEEPEST = 6
HIDDEN = "(hidden)"

_WORDS = r"(?:token|key|pass(?:word|wd|phrase)?|secret|credential|auth|cookie)s?"
_NAME = re.compile(rf"(?:^|[^a-z])(?:[a-z0-9]*pass[a-z0-9]*|{_WORDS})(?:$|[^a-z])", re.IGNORECASE)
_ASSIGNED = re.compile(r"(?<![\w.-])([\w.-]+)(\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|\S+)")
_ADDRESS = re.compile(r"(?<=://)[^/\s@]+@")
_ENVIRONMENT = re.compile(r"env|environ|environment", re.IGNORECASE)


def asked(history: History) -> Section:
    """What `run.json` holds, a row a value."""
    rows = [
        ("run", one_line(history.name)),
        ("folder", one_line(history.path, 400)),
        ("target", _hidden(history.target)),
    ]
    values = [row for row in _flat(history.asked, "", 0) if row not in rows]
    items: list[Item] = [Facts((*rows, *values[:MOST_ROWS]))]
    if len(values) > MOST_ROWS:
        items.append(Paragraph(f"{plural(len(values) - MOST_ROWS, 'more value')} not shown."))
    return Section("What was asked", tuple(items))


def is_secret(name: str) -> bool:
    """Whether a name looks like that of a secret.

    >>> [is_secret(name) for name in ("HF_TOKEN", "--api-key", "dbPassword", "keywords", "seed")]
    [True, True, True, False, False]
    """
    return _NAME.search(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name[-200:])) is not None


def _flat(value: Any, name: str, depth: int) -> Iterator[tuple[str, str]]:
    if is_secret(name.rpartition(".")[2]) and value not in (None, "", [], {}):
        yield one_line(name, 60), HIDDEN
    elif isinstance(value, Mapping) and value and depth < DEEPEST:
        for key, inner in value.items():
            if not _ENVIRONMENT.fullmatch(str(key)):
                yield from _flat(inner, f"{name}.{key}" if name else str(key), depth + 1)
    elif value is not None:
        yield one_line(name, 60), _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return _hidden(value)
    if isinstance(value, Sequence):
        return one_line(" ".join(_words(value)), 300)
    return _hidden(str(value)) if not isinstance(value, Mapping) else f"{len(value)} values"


def _words(values: Sequence[Any]) -> Iterator[str]:
    """The values of a list; one that follows the name of a secret is hidden."""
    after_name = False
    for value in values[:100]:
        yield HIDDEN if after_name else _shown(value)
        after_name = isinstance(value, str) and "=" not in value and is_secret(value)


def _hidden(text: str) -> str:
    """The text in one line, with the secrets in it hidden.

    >>> _hidden("train.py API_KEY=abc https://me:pw@host/x")
    'train.py API_KEY=(hidden) https://(hidden)@host/x'
    """
    text = _ADDRESS.sub(f"{HIDDEN}@", text[:2000])

    def hide(match: re.Match[str]) -> str:
        return f"{match[1]}{match[2]}{HIDDEN}" if is_secret(match[1]) else match[0]

    return one_line(_ASSIGNED.sub(hide, text), 300)
