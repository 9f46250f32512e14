"""From a function to all the code and the values that its results may depend on."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

from fanfold.runs.canonical import Canonical, UnstableError, closure_of, code_form, fold
from fanfold.runs.modules import (
    Owner,
    content_of,
    file_of,
    full_name,
    label_of,
    owner_of,
    version_of,
)
from fanfold.runs.sources import Import, Sources, definition_form, module_form, names_used

__all__ = ["Walk"]

_DEEPEST = 100  # wrappers around a function
_THIS = sys.implementation.cache_tag or "python"


class _Values(Canonical):
    """Values whose code is followed, and which may hold what has no stable form."""

    def __init__(self, walk: Walk) -> None:
        super().__init__()
        self._walk = walk

    def code(self, value: Any) -> bytes | None:
        kind = type(value)
        if issubclass(kind, ModuleType):
            return self._walk.module(value)
        if kind is FunctionType:
            return self._walk.function(value)
        if issubclass(kind, type):
            return self._walk.cls(value)
        return self._walk.foreign(value)

    def unstable(self, value: object) -> bytes:
        return fold(b"unstable", [self.form(type(value))])

    def of(self, value: object) -> bytes:
        try:
            return super().of(value)
        except UnstableError:
            return self.unstable(value)


class Walk:
    """From a function to all that it reaches, each once."""

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}
        self._main = ""  # the name of the user's program, as a module
        self._seen: dict[int, tuple[bytes, object]] = {}
        self._waiting: deque[Callable[[], None]] = deque()
        self._values = _Values(self)
        self._sources = Sources()

    def from_function(self, function: Any) -> dict[str, str]:
        """Everything that the function reaches: part -> digest or version."""
        self._begin(function)
        while self._waiting:
            self._waiting.popleft()()
        return self.parts

    # The function itself is inside its wrappers: partial, decorators, the object of a method

    def _begin(self, function: Any) -> None:
        layers: list[Any] = []
        while (inner := _inside(function)) is not None and len(layers) < _DEEPEST:
            layers.append(function)
            function = inner
        name = self._begin_inside(function)
        for layer in layers:
            if isinstance(layer, partial):
                for place, value in [*enumerate(layer.args), *layer.keywords.items()]:
                    self._held("argument", f"{name}.{place}", value)
            elif isinstance(layer, MethodType):
                self._held("object", name.rpartition(".")[0], layer.__self__)
            else:
                self._values.of(layer)

    def _begin_inside(self, function: Any) -> str:
        names = _attribute(_code_of(function), "__globals__") or {}
        if names.get("__name__") == "__main__":
            self._main = label_of(names)
        if isinstance(function, (FunctionType, type)):
            if _owner(function) == "user":
                return self._note(function, "function")
        elif _owner(type(function)) == "user":
            name = self._note(type(function), "function")
            self._held("object", name, function)
            return name
        name = self._name(function)
        self._add(f"function {name}", _short(self._values.of(function)))
        return name

    # What is met on the way: the form of its name, and a note to look at it

    def module(self, module: ModuleType) -> bytes:
        self._belongs(module.__name__)
        return fold(b"name", [module.__name__.encode()])

    def function(self, function: FunctionType) -> bytes:
        if id(function) not in self._seen:
            if _owner(function) == "user":
                self._note(function, "helper")
            else:
                self._foreign_function(function)
        return self._seen[id(function)][0]

    def cls(self, cls: type) -> bytes:
        if id(cls) not in self._seen:
            if _owner(cls) == "user":
                self._note(cls, "helper")
            else:
                self._belongs(str(cls.__module__))
                self._remember(cls)
        return self._seen[id(cls)][0]

    def foreign(self, value: Any) -> bytes | None:
        """For values of other types: named code, and wrappers of code; None for data."""
        kind = type(value)
        if issubclass(kind, random.Random) or kind.__module__.startswith("numpy.random"):
            return fold(b"random", [self.cls(kind)])  # unseeded, each process has another state
        if kind in (partial, MethodType) or _owner(kind) == "user":
            return None
        wrapped = _wrapped(value)
        if wrapped is not None:
            return fold(b"wrapped", [self.cls(kind), self._values.of(wrapped)])
        if not _is_named(value):
            return None
        self._belongs(_module_name(value))
        return fold(b"name", [self._name(value).encode()])

    def _foreign_function(self, function: FunctionType) -> None:
        """A wrapper that a library made leads to the user's code inside."""
        self._remember(function)
        if _is_generated(function):
            return
        self._belongs(_module_name(function))
        inside = [_wrapped(function), *(held for _, held in closure_of(function))]
        code = [self._values.of(held) for held in inside if callable(held)]
        if code:
            name = self._name(function).encode()
            self._seen[id(function)] = fold(b"wrapper", [name, *code]), function

    def _note(self, value: Any, kind: str) -> str:
        name = self._remember(value)
        look = self._look_at_class if isinstance(value, type) else self._look_at_function
        self._waiting.append(partial(look, value, f"{kind} {name}"))
        return name

    def _remember(self, value: object) -> str:
        name = self._name(value)
        self._seen[id(value)] = fold(b"name", [name.encode()]), value
        return name

    def _belongs(self, module: str) -> None:
        """Note what stands for a whole module: the version of its package, or its file."""
        owner = owner_of(module)
        if owner == "package":
            top = module.partition(".")[0]
            self.parts[f"package {top}"] = version_of(top)
        elif owner == "user":
            self._add_module(module)

    # Looking at one thing

    def _look_at_function(self, function: FunctionType, part: str) -> None:
        name = part.partition(" ")[2]
        uses = self._uses(function)
        held = [("default", *default) for default in _defaults(function)]
        held += [("closure", *cell) for cell in closure_of(function)]
        for kind, place, value in held:
            form = self._held(kind, f"{name}.{place}", value)
            if form is not None:
                uses.add(fold(b"held", [place.encode(), form]))
        uses.add(self._values.of(_wrapped(function)))
        node = self._sources.function(function)
        source = None if node is None else definition_form(node)
        self._add(part, _two_marks(source, code_form(function.__code__), sorted(uses)))

    def _look_at_class(self, cls: type, part: str) -> None:
        methods: dict[str, FunctionType] = {}
        uses = {self._values.of(cls.__bases__), self._values.of(type(cls))}
        data = {}
        for key, attribute in vars(cls).items():
            functions = dict(_functions_in(key, attribute))
            if not functions and _is_data(key, attribute):
                data[key] = attribute
            for place, function in functions.items():
                if _is_method(function, cls):
                    methods[place] = function
                    uses |= self._uses_of_method(place, function)
                elif _owner(_innermost(function)) != "python":
                    uses.add(self._values.of(function))
        uses.add(self._values.of(_declared(cls) or data))
        source, compiled = self._forms_of_class(cls, methods)
        kind = _THIS if methods else "data"
        self._add(part, _two_marks(source, compiled, sorted(uses), kind))

    def _uses_of_method(self, place: str, function: FunctionType) -> set[bytes]:
        values = [value for _, value in _defaults(function) + closure_of(function)]
        held = self._values.of((place, values, _wrapped(function)))
        return {held, *self._uses(function)}

    def _forms_of_class(
        self, cls: type, methods: dict[str, FunctionType]
    ) -> tuple[bytes | None, bytes]:
        module = sys.modules.get(cls.__module__)
        names = {} if module is None else vars(module)
        node = self._sources.cls(cls, list(methods.values()), names)
        codes = [
            fold(place.encode(), [code_form(function.__code__)])
            for place, function in sorted(methods.items())
        ]
        fields = self._values.of(list(vars(cls).get("__annotations__", ())))
        source = None if node is None else definition_form(node)
        return source, fold(b"class", [fields, *codes])

    def _uses(self, function: FunctionType) -> set[bytes]:
        """The code that the names in a function stand for; what is data becomes a part."""
        names = function.__globals__
        uses = set()
        for used in names_used(function.__code__):
            if isinstance(used, Import):
                self._imported(used, names)
            elif used[0] in names:
                form = self._used(used, names)
                if form is not None:
                    uses.add(fold(b"use", [".".join(used).encode(), form]))
        return uses

    def _used(self, chain: tuple[str, ...], names: Mapping[str, Any]) -> bytes | None:
        value: Any = None
        for name in chain:
            if name not in names:
                break
            label, value = label_of(names), names[name]
            if not issubclass(type(value), ModuleType) or owner_of(value.__name__) != "user":
                break
            names = vars(value)
        return self._held("constant", f"{label}.{name}", value)

    def _held(self, kind: str, name: str, value: Any) -> bytes | None:
        """The form of a value that is code; None for data, which becomes a part of its own."""
        form = self._values.code(value)
        if form is None:
            self._add(f"{kind} {name}", _short(self._values.of(value)))
        return form

    # Whole modules

    def _imported(self, found: Import, names: Mapping[str, Any]) -> None:
        """What a function imports while it runs may not be loaded yet: the files count."""
        module = full_name(found.name, found.level, names)
        self._belongs(module)
        if owner_of(module) == "user":
            for name in (f"{module}.{member}" for member in found.members):
                if file_of(name) is not None:
                    self._add_module(name)

    def _add_module(self, name: str) -> None:
        part = f"module {name}"
        if not name or part in self.parts:
            return
        self._add_module(name.rpartition(".")[0])  # is imported with it
        content = content_of(name)
        if content is None:
            self.parts[part] = "not found"
            return
        form, imports = module_form(content)
        self.parts[part] = _short(form)
        package = name if (file_of(name) or "").endswith("__init__.py") else name.rpartition(".")[0]
        for found in imports:
            look = partial(self._imported, found, {"__package__": package})
            self._waiting.append(look)

    # Names

    def _name(self, value: Any) -> str:
        if isinstance(value, FunctionType):
            label, name = label_of(value.__globals__), value.__code__.co_qualname
        else:
            label, name = _module_name(value), _attribute(value, "__qualname__")
            name = str(name or _attribute(value, "__name__") or type(value).__qualname__)
        if label == "__main__":
            label = self._main or label
        elif owner_of(label) != "user":  # where inside a library it lies is not for users to know
            label = label.partition(".")[0].removeprefix("builtins")
        return f"{label}.{name}".lstrip(".")

    def _add(self, part: str, mark: str) -> None:
        """Two functions may have one name: the second becomes number 2."""
        unique, number = part, 1
        while self.parts.get(unique, mark) != mark:
            number += 1
            unique = f"{part} ({number})"
        self.parts[unique] = mark


def _two_marks(source: bytes | None, compiled: bytes, uses: list[bytes], kind: str = _THIS) -> str:
    """By source, where there is one, and by what it is compiled to for this Python."""
    mark = f"{kind}:{_short(fold(b'code', [compiled, *uses]))}"
    if source is None:
        return mark
    return f"{_short(fold(b'source', [source, *uses]))}/{mark}"


def _short(form: bytes) -> str:
    return fold(b"part", [form]).hex()[-16:]


def _inside(function: Any) -> Any:
    """What a wrapper wraps; None where nothing is inside."""
    if isinstance(function, partial):
        return function.func
    if isinstance(function, MethodType):
        return function.__func__
    return _wrapped(function)


def _wrapped(value: object) -> Any:
    inner = _attribute(value, "__dict__")
    return inner.get("__wrapped__") if isinstance(inner, dict) else None


def _attribute(value: object, name: str) -> Any:
    """An attribute, or None: a proxy for what is not there may raise anything."""
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001 - see above
        return None


def _code_of(function: Any) -> Any:
    """The function that runs when something callable is called."""
    return function if isinstance(function, FunctionType) else type(function).__call__


def _owner(value: FunctionType | type) -> Owner:
    if not isinstance(value, FunctionType):
        return owner_of(str(value.__module__))
    if _is_generated(value):
        return "python"
    return owner_of(_module_name(value), _attribute(value, "__globals__").get("__file__"))


def _is_generated(function: FunctionType) -> bool:
    """Whether a class decorator of a library wrote the function: the class says it all."""
    code = function.__code__
    return code.co_filename.startswith(("<string>", "<attrs")) and (
        code.co_qualname.startswith("__create_fn__")  # dataclasses
        or code.co_filename.startswith("<attrs")
        or _module_name(function).startswith("namedtuple_")
    )


def _module_name(value: Any) -> str:
    if isinstance(value, FunctionType):
        return str(value.__globals__.get("__name__") or "")
    name = _attribute(value, "__module__")
    return name if isinstance(name, str) else type(value).__module__


def _is_named(value: Any) -> bool:
    """Whether the value is code that is found by its name: a function written in C, a ufunc."""
    bound = _attribute(value, "__self__")
    name = _attribute(value, "__name__")
    return callable(value) and isinstance(name, str) and isinstance(bound, ModuleType | None)


def _defaults(function: FunctionType) -> list[tuple[str, Any]]:
    values = function.__defaults__ or ()
    code = function.__code__
    names = code.co_varnames[code.co_argcount - len(values) : code.co_argcount]
    return [*zip(names, values, strict=True), *(function.__kwdefaults__ or {}).items()]


def _functions_in(key: str, attribute: Any) -> Iterator[tuple[str, FunctionType]]:
    """The function that an attribute of a class is, or those inside a property or the like."""
    if type(attribute) is FunctionType:
        yield key, attribute
    elif not issubclass(type(attribute), type):
        for name in ("__func__", "fget", "fset", "fdel", "func", "__wrapped__"):
            function = _attribute(attribute, name)
            if type(function) is FunctionType:
                yield f"{key}.{name}", function


def _innermost(function: Any) -> Any:
    """What is inside the wrappers of a library around a function."""
    inner = function
    for _ in range(_DEEPEST):
        wrapped = _wrapped(inner)
        if type(wrapped) is not FunctionType:
            break
        inner = wrapped
    return inner


def _is_method(function: FunctionType, cls: type) -> bool:
    """Whether the function is defined in the body of the class, and not put there."""
    inside = function.__code__.co_qualname.startswith(f"{cls.__qualname__}.")
    return inside and _module_name(function) == cls.__module__


def _declared(cls: type) -> list[tuple[str, Any]]:
    """The members of an enumeration, the defaults of a dataclass: as written, for every Python."""
    if issubclass(cls, Enum):
        return [(name, member.value) for name, member in cls.__members__.items()]
    fields = vars(cls).get("__dataclass_fields__", {})
    return [(name, (field.default, field.default_factory)) for name, field in fields.items()]


def _is_data(key: str, attribute: object) -> bool:
    """Whether an attribute of a class is the user's, and not what Python keeps there."""
    kept = (key.startswith("_") and key.endswith("_")) or key == "_abc_impl"
    kind = type(attribute)
    return not kept and not (_owner(kind) == "python" and hasattr(kind, "__set__"))
