"""The words of directives: splitting, quoting, and the spellings both schedulers share."""

from __future__ import annotations

import re

from fanfold.errors import UsageError

__all__ = [
    "Split",
    "count",
    "flag",
    "nothing",
    "quote_pbs",
    "quote_slurm",
    "read_dependency",
    "split_words",
    "text",
]

_PLAIN = re.compile(r"[\w@%+=:,./^\[\]()*?-]+", re.ASCII)
_BARE_SLURM = re.compile(r"[^\s\"'#]+")
_BARE_PBS = re.compile(r"[^\s\"']+")

_DEPENDENCY = re.compile(r"after(?:ok|notok|any)?(?::[\w.\[\]-]+)+")

Split = tuple[list[str], str]


def split_words(line: str, *, escapes: bool) -> Split:
    """The words of a directive, unquoted, and the comment behind them.

    With ``escapes`` they are read as sbatch does: a backslash makes the next character plain, and
    ``#`` begins a comment wherever it stands. Without, as qsub does: backslashes stay, and a
    comment is a word that begins with ``#``, which qsub takes for an error. Raises `UsageError` for
    a quote that is not closed.

    >>> split_words("-J 'two words' -c 2 # cores", escapes=True)
    (['-J', 'two words', '-c', '2'], '# cores')
    """
    words: list[str] = []
    open_word = False
    at = 0
    while at < len(line):
        if line[at].isspace():
            open_word, at = False, at + 1
            continue
        if line[at] == "#" and (escapes or not open_word):
            return words, line[at:].rstrip()
        piece, at = _piece(line, at, escapes)
        if open_word:
            words[-1] += piece
        else:
            words.append(piece)
        open_word = True
    return words, ""


def _piece(line: str, at: int, escapes: bool) -> tuple[str, int]:
    """A quoted or a bare stretch that begins at ``at``, and where it ends."""
    quote = line[at]
    if quote in "\"'":
        inside = rf"((?:\\.|[^{quote}\\])*)" if escapes else rf"([^{quote}]*)"
        match = re.compile(quote + inside + quote).match(line, at)
        if match is None:
            raise UsageError(f"a quote is not closed: {line[at:]}")
        return _unescaped(match[1]) if escapes else match[1], match.end()
    bare = (_BARE_SLURM if escapes else _BARE_PBS).match(line, at)
    end = bare.end() if bare else at + 1
    return _unescaped(line[at:end]) if escapes else line[at:end], end


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)|\\$", r"\1", text)


def quote_slurm(word: str) -> str:
    """A word as sbatch reads it back from a directive.

    >>> print(quote_slurm("plain"), quote_slurm("it's a $(name)"))
    plain "it's a $(name)"
    """
    if _PLAIN.fullmatch(word):
        return word
    return '"' + re.sub(r'(["\\])', r"\\\1", word) + '"'


def quote_pbs(word: str) -> str:
    """A word as qsub reads it back from a directive. Raises `UsageError` where it cannot.

    >>> print(quote_pbs("plain"), quote_pbs("it's a name"))
    plain "it's a name"
    """
    if _PLAIN.fullmatch(word):
        return word
    for quote in "'\"":
        if quote not in word:
            return quote + word + quote
    raise UsageError("a directive of PBS cannot hold both kinds of quotes")


def text(value: str) -> str:
    """A value that both schedulers spell alike. Raises `UsageError` when there is none."""
    if not value:
        raise UsageError("there is no value")
    return value


def count(value: str) -> int:
    """A whole number of at least 1. Raises `UsageError` for anything else."""
    if not re.fullmatch(r"[0-9]{1,9}", value, re.ASCII) or int(value) == 0:
        raise UsageError(f"{value!r} is not a whole number of at least 1")
    return int(value)


def read_dependency(value: str) -> str:
    """Dependencies that both schedulers have: after, afterok, afternotok and afterany."""
    if not all(_DEPENDENCY.fullmatch(part) for part in value.split(",")):
        raise UsageError("only after, afterok, afternotok and afterany of job ids have a twin")
    return value


def flag(value: str) -> bool:
    """An option that takes no value. Raises `UsageError` when it has one."""
    if value:
        raise UsageError("it takes no value")
    return True


def nothing(value: object) -> str:
    """The value of an option that has none."""
    return ""
