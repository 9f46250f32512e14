"""Programs as tasks: a command line as a function of its placeholders.

No shell reads the line. It is split into words once; what a placeholder stands for goes into its
word as it is, so an input with spaces, quotes or ``$(...)`` is one argument, and is nothing else.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from fanfold.errors import UsageError
from fanfold.executors.program import run_program
from fanfold.units import counted

__all__ = ["Command", "command"]

_PLACEHOLDER = re.compile(r"\{\{((?:[^\W\d]\w*|[0-9]+)?)\}\}|\{((?:[^\W\d]\w*|[0-9]+)?)\}")
_OF_SHELLS = re.compile(r"[0-9]?(>>?|<<?<?).*|&>.*|\|[|&]?|&&?|;")
_SCRIPTS = (".jl", ".js", ".lua", ".m", ".pl", ".py", ".r", ".rb", ".sh", ".tcl")

Folder = str | os.PathLike[str]
Template = tuple[str, ...]  # text, the name of a placeholder, text, name ... text


def command(
    line: str | Sequence[str],
    *,
    cwd: Folder | None = None,
    env: Mapping[str, str] | None = None,
    input: str | None = None,  # noqa: A002 - as subprocess calls it
    text: bool = True,
) -> Command:
    """A task that runs a program: what the program prints is the result.

    Parameters:
        line: the command line, or its words as a list. A line is split at spaces outside of
            quotes; nothing else in it has a meaning, for no shell reads it.
        cwd: the folder that the program runs in; by default the one of the task.
        env: more environment variables.
        input: what it reads from standard input; by default nothing.
        text: False gives the bytes that it prints as they are.

    ``line``, ``cwd`` and ``input`` may hold placeholders, which become the parameters of the task:
    ``{}`` (each the next one) or ``{0}``, ``{1}`` by position; ``{name}`` by name, or by position
    in the order in which they stand. ``{{name}}`` is the text ``{name}``. An input is one
    argument, whatever is in it; numbers are written as Python writes them.

    The result is text without the line ends at its end; bytes that are no UTF-8 are shown as
    ``\\xff``. What goes to standard error is passed on. An exit status other than 0, or a signal,
    raises `CommandFailed` with its last lines. What the program leaves running is ended with it,
    and all of it when the worker ends, however that happens.

    Raises `UsageError` where the line makes no sense, and when the inputs do not fit its
    placeholders.

    >>> import fanfold as ff
    >>> ff.map(ff.command("printf '%s is %s' {} {}"), ["a b", "$HOME"], [1, 0.5], on="threads")
    ['a b is 1', '$HOME is 0.5']
    >>> count = ff.command("wc -w", input="{text}")
    >>> int(count(text="three small words"))
    3
    """
    return Command(line, cwd=cwd, env=env, input=input, text=text)


class Command:
    """A command line as a function; `command` makes it, and says what the parameters mean.

    ``program`` is its first word. ``parts`` tell what its results depend on: the line with its
    options, and the program and the scripts that it names, by size and time of change when the
    command was made.
    """

    def __init__(
        self,
        line: str | Sequence[str],
        *,
        cwd: Folder | None = None,
        env: Mapping[str, str] | None = None,
        input: str | None = None,  # noqa: A002
        text: bool = True,
    ) -> None:
        words = _words(line)
        names = _Names()
        self.program = words[0]
        self._line = shlex.join(words)
        self._words = [names.template(word) for word in words]
        self._folder = None if cwd is None else names.template(os.fspath(cwd))
        self._input = None if input is None else names.template(input)
        self._positional, self._named = names.checked()
        self._environment = dict(env or {})
        self._text = text
        self.parts = self._told(words)

    def __repr__(self) -> str:
        return f"ff.command({self._line!r})"

    def __call__(self, /, *args: Any, **kwargs: Any) -> str | bytes:
        values = self._values(args, kwargs)
        argv = self._argv(values)
        folder = None if self._folder is None else _filled(self._folder, values)
        given = None if self._input is None else _filled(self._input, values)
        environment = {**os.environ, **self._environment} if self._environment else None
        out = run_program(argv, folder, environment, given)
        return out.decode("utf-8", "backslashreplace").rstrip("\r\n") if self._text else out

    def argv(self, /, *args: Any, **kwargs: Any) -> list[str]:
        """The words that the program is started with, for these inputs. Raises `UsageError`.

        >>> command("convert {0} -resize 50% {0}.png").argv("my photo.jpg")
        ['convert', 'my photo.jpg', '-resize', '50%', 'my photo.jpg.png']
        """
        return self._argv(self._values(args, kwargs))

    def check_program(self) -> None:
        """Raises `UsageError` when there is no such program here."""
        if self._find() is not None:
            return
        beside = os.path.join(os.curdir, self.program)
        if os.sep in self.program and os.path.isfile(self.program):
            raise UsageError(
                f"{self.program} cannot be run as a program: allow it with chmod +x "
                f"{shlex.quote(self.program)}, or name what runs it first (python {self.program})"
            )
        if os.sep not in self.program and os.path.isfile(beside):
            raise UsageError(
                f"there is no program {self.program} on PATH: write {beside} for the file here"
            )
        raise UsageError(f"there is no program {self.program} here: check its name and your PATH")

    def _find(self) -> str | None:
        """Where the program is; the word itself where it has placeholders."""
        if len(self._words[0]) > 1:
            return self.program
        program = self.program
        if os.sep in program:
            program = os.path.join(self._fixed_folder(), program)
        return shutil.which(program, path=self._environment.get("PATH"))

    def _fixed_folder(self) -> str:
        return self._folder[0] if self._folder is not None and len(self._folder) == 1 else ""

    def _told(self, words: Sequence[str]) -> dict[str, str]:
        options = (self._folder, sorted(self._environment.items()), self._input, self._text)
        line = blake2b(repr((words, options)).encode(), digest_size=8).hexdigest()
        parts = {"command line": line, f"program {self.program}": _stamp(self._find())}
        for word in words[1:]:
            path = os.path.join(self._fixed_folder(), word)
            ending = os.path.splitext(word)[1].lower()
            if os.path.isfile(path) and (ending in _SCRIPTS or os.access(path, os.X_OK)):
                parts[f"script {word}"] = _stamp(path)
        return parts

    # Inputs

    def _values(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, str]:
        """Name of a placeholder -> its text."""
        self.check_inputs(len(args), kwargs)
        given = dict(zip((*map(str, range(self._positional)), *self._named), args, strict=False))
        return {name: _text(name, value) for name, value in {**given, **kwargs}.items()}

    def check_inputs(self, count: int, names: Iterable[str]) -> None:
        """Raises `UsageError` when ``count`` inputs by position and ``names`` are not what the
        placeholders take."""
        names = list(names)
        for name in names:
            if name not in self._named:
                raise self._misfit(
                    f"no placeholder takes the input {name}: write {{{name}}} where it goes"
                )
        most = self._positional + len(self._named)
        if count > most:
            what = "the input" if count == 1 else f"{count} inputs"
            raise self._misfit(
                f"it has {_placeholders(most)} for {what}: write {{}} where one goes"
            )
        by_position = self._named[: max(0, count - self._positional)]
        for name in names:
            if name in by_position:
                raise self._misfit(f"{{{name}}} is given twice, by position and by name")
        self._check_filled(count, {*by_position, *names})

    def _check_filled(self, count: int, names: set[str]) -> None:
        if count < self._positional:
            again = " ({0} is the same input in several places)" if count == 1 else ""
            raise self._misfit(
                f"it takes {self._positional} inputs by position, and {count} "
                f"{'is' if count == 1 else 'are'} given{again}"
            )
        for name in self._named:
            if name not in names:
                raise self._misfit(
                    f"no input fills {{{name}}}: give one of that name, or write {{{{{name}}}}} "
                    "for the text itself"
                )

    def _misfit(self, why: str) -> UsageError:
        return UsageError(f"the command {_shortened(self._line)}: {why}")

    def _argv(self, values: Mapping[str, str]) -> list[str]:
        argv = [_filled(word, values) for word in self._words]
        for word in argv:
            if "\0" in word:
                raise UsageError(
                    f"the argument {_shortened(repr(word))} holds a null character, which no "
                    "program can be given: remove it"
                )
        return argv


# Lines and templates ------------------------------------------------------------------------------


def _words(line: str | Sequence[str]) -> list[str]:
    """The words of a command line. Raises `UsageError` for what only a shell would understand."""
    if not isinstance(line, str):
        words = list(line)
        if not words or not all(isinstance(word, str) for word in words):
            raise UsageError(f"a command is a line of text or a list of words, not {line!r}")
        return words
    try:
        words = shlex.split(line)
        as_written = shlex.split(line, posix=False)
    except ValueError as error:
        raise UsageError(f"the command {_shortened(line)}: a quote is open ({error})") from error
    if not words:
        raise UsageError("the command is empty: write a program and its arguments")
    for word in as_written:
        if _OF_SHELLS.fullmatch(word):
            raise UsageError(
                f"the command {_shortened(line)}: no shell reads it, so {word} has no meaning. "
                f"Write {shlex.quote(word)} for the text itself, or put what the shell is to do "
                "into a script"
            )
    return words


class _Names:
    """The placeholders of a command, as they are met."""

    def __init__(self) -> None:
        self._next = 0
        self._numbers: set[int] = set()
        self._names: dict[str, None] = {}

    def template(self, text: str) -> Template:
        pieces = [""]
        end = 0
        for match in _PLACEHOLDER.finditer(text):
            pieces[-1] += text[end : match.start()]
            end = match.end()
            if match[2] is None:
                pieces[-1] += f"{{{match[1]}}}"
            else:
                pieces += [self._name(match[2]), ""]
        pieces[-1] += text[end:]
        return tuple(pieces)

    def _name(self, name: str) -> str:
        if not name:
            self._next += 1
            return str(self._next - 1)
        if name.isdecimal():
            self._numbers.add(int(name))
            return str(int(name))
        self._names[name] = None
        return name

    def checked(self) -> tuple[int, tuple[str, ...]]:
        """How many placeholders go by position, and the names of the others."""
        if self._next and self._numbers:
            raise UsageError("a command has either {} or {0}, {1} ...: do not mix them")
        count = max(self._numbers, default=-1) + 1
        missing = set(range(count)) - self._numbers
        if missing:
            raise UsageError(f"a command with {{{count - 1}}} needs {{{min(missing)}}}, too")
        return self._next or count, tuple(self._names)


def _filled(template: Template, values: Mapping[str, str]) -> str:
    return "".join(values[piece] if i % 2 else piece for i, piece in enumerate(template))


def _text(name: str, value: Any) -> str:
    if value is None:
        raise UsageError(f"the input {name} is None, of which no argument can be made")
    return os.fsdecode(value) if isinstance(value, (bytes, os.PathLike)) else str(value)


def _stamp(path: str | None) -> str:
    """What tells a file from a changed one."""
    try:
        about = os.stat(path or "")
    except OSError:
        return "not here"
    return f"{about.st_size} {about.st_mtime_ns}"


def _placeholders(count: int) -> str:
    return counted(count, "placeholder") if count else "no placeholders"


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 120 else f"{text[:117]}..."
