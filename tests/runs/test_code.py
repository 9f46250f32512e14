"""Has the code changed? Every edit that can change a result is told, and no other."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fanfold
from fanfold.runs.code import Change, compare, fingerprint

PI = '''
"""Pi."""
import functools
from dataclasses import dataclass, field

import helpers
from helpers import darts as throw

SCALE = 4
LIMITS = {"low": 0, "tags": {"a", "b", "c"}}


def inside(x):
    """Is it inside?"""
    return x < LIMITS["low"]


class Base:
    start = 1

    def begin(self):
        return self.start


class Model(Base):
    """A model."""

    rates = [0.1, 0.2]

    def __init__(self, power=2):
        self.power = power

    def fit(self, x):
        return helpers.twice(x) ** self.power  # the fit

    @property
    def half(self):
        return self.power / 2


@dataclass
class Setting:
    rate: float = 0.5
    names: list = field(default_factory=list)


def timed(function):
    @functools.wraps(function)
    def wrapper(*arguments):
        return function(*arguments)

    return wrapper


@timed
def count_inside(n, start=0):
    """Count."""
    total = start
    for x in throw(n):  # every dart
        total += inside(x)
    return SCALE * total + Model().fit(n) + Setting().rate + helpers.deep.FACTOR


def scaled(factor):
    def by(x):
        return factor * x
    return by


double = scaled(2)


class Adder:
    def __init__(self, amount):
        self.amount = amount

    def __call__(self, x):
        return x + self.amount

    def add(self, x):
        return x + self.amount

    @classmethod
    def zero(cls, x):
        return cls(0)(x)


add_three = Adder(3)
quick = functools.lru_cache(maxsize=10)(inside)
below = functools.partial(pow, 2, mod=5)
half = lambda x: x / 2
early = functools.partial(inside, x=1)
TABLE = {"i": inside, "h": half}


def by_name(name, x):
    return TABLE[name](x)


def unused():
    return SCALE
'''

HELPERS = """
import deep
RANGE = 10
unused = 1


def darts(n):
    return range(min(n, RANGE))


def twice(x):
    return 2 * x + again(x, 3)


def again(x, left):
    return again(x, left - 1) if left else twice_more(x)


def twice_more(x):
    return x if x else twice(x)
"""

DEEP = """
FACTOR = 7
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with modules; ``load`` imports them anew, as the next process would."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    names = {"pi", "helpers", "deep", "late", "ready"}
    for name, text in {"pi": PI, "helpers": HELPERS, "deep": DEEP}.items():
        (tmp_path / f"{name}.py").write_text(text)

    def forget():
        for name in names & set(sys.modules):
            del sys.modules[name]
        importlib.invalidate_caches()

    def load(name="pi"):
        forget()
        return importlib.import_module(name)

    load.folder = tmp_path
    yield load
    forget()


def edit(folder, file, old, new):
    path = folder / f"{file}.py"
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
    path.write_text(text.replace(old, new))


def changes(old, new):
    return sorted(str(change) for change in compare(old, new))


def marked(old, new):
    """The parts that have changed (~), are new (+) or gone (-)."""
    marks = {"changed": "~", "added": "+", "removed": "-"}
    return {marks[change.what] + change.part for change in compare(old, new)}


# What a fingerprint says


def test_parts_read_well(project):
    """The parts are what the function reaches, each by its name."""
    parts = fingerprint(project().count_inside)
    assert set(parts) == {
        "function pi.count_inside",
        "default pi.count_inside.start",
        "helper pi.timed.<locals>.wrapper",
        "helper pi.inside",
        "helper pi.Base",
        "helper pi.Model",
        "helper pi.Setting",
        "helper helpers.darts",
        "helper helpers.twice",
        "helper helpers.again",
        "helper helpers.twice_more",
        "constant helpers.RANGE",
        "constant deep.FACTOR",
        "constant pi.LIMITS",
        "constant pi.SCALE",
        "python",
    }
    assert parts["python"] == "{}.{}".format(*sys.version_info)


EDITS = [
    ("pi", "total = start", "total = start + 1", ["~function pi.count_inside"]),
    ("pi", "@timed\n", "", ["-helper pi.timed.<locals>.wrapper", "~function pi.count_inside"]),
    ("pi", "start=0", "start=1", ["~default pi.count_inside.start", "~function pi.count_inside"]),
    ("pi", "x < LIMITS", "x <= LIMITS", ["~helper pi.inside"]),
    ("helpers", "min(n, RANGE)", "max(n, RANGE)", ["~helper helpers.darts"]),
    ("helpers", "2 * x", "3 * x", ["~helper helpers.twice"]),
    ("helpers", "x if x else", "x + 1 if x else", ["~helper helpers.twice_more"]),
    ("helpers", "RANGE = 10", "RANGE = 10.0", ["~constant helpers.RANGE"]),
    ("deep", "FACTOR = 7", "FACTOR = 8", ["~constant deep.FACTOR"]),
    ("pi", "SCALE = 4", "SCALE = 5", ["~constant pi.SCALE"]),
    ("pi", '{"a", "b", "c"}', '{"a", "b"}', ["~constant pi.LIMITS"]),
    ("pi", "** self.power", "* self.power", ["~helper pi.Model"]),
    ("pi", "self.power / 2", "self.power / 3", ["~helper pi.Model"]),
    ("pi", "power=2", "power=3", ["~helper pi.Model"]),
    ("pi", "rates = [0.1, 0.2]", "rates = [0.1, 0.3]", ["~helper pi.Model"]),
    ("pi", "    @property\n", "", ["~helper pi.Model"]),
    ("pi", "Model(Base)", "Model", ["-helper pi.Base", "~helper pi.Model"]),
    ("pi", "start = 1", "start = 2", ["~helper pi.Base"]),
    ("pi", "rate: float = 0.5", "rate: float = 0.6", ["~helper pi.Setting"]),
    ("pi", "rate: float = 0.5", "rate: 'ClassVar' = 0.5", ["~helper pi.Setting"]),
    (
        "pi",
        "return function(*arguments)",
        "return -function(*arguments)",
        ["~helper pi.timed.<locals>.wrapper"],
    ),
    (
        "pi",
        "darts as throw",
        "again as throw",
        ["-constant helpers.RANGE", "-helper helpers.darts", "~function pi.count_inside"],
    ),
]


@pytest.mark.parametrize(
    ("file", "old", "new", "told"), EDITS, ids=[f"{row[1]} -> {row[2]}".strip() for row in EDITS]
)
def test_an_edit_is_told_by_the_part(project, file, old, new, told):
    """R11: whatever the function reaches: an edit names the part that has changed, and no other."""
    before = fingerprint(project().count_inside)
    edit(project.folder, file, old, new)
    assert marked(before, fingerprint(project().count_inside)) == set(told)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("pi", "  # every dart", ""),
        ("pi", "# every dart", "# each dart"),
        ("pi", '    """Count."""\n', ""),
        ("pi", '"""Is it inside?"""', '"""Whether."""'),
        ("pi", '    """A model."""\n', ""),
        ("pi", "total = start\n", "total=(\n        start)\n\n\n"),
        ("pi", "def inside(x):", "def inside(x: float) -> bool:"),
        ("pi", "total = start", "total: int = start"),
        ("pi", "def fit(self, x):", "def fit(self, x: 'int') -> int:"),
        ("pi", '"""Pi."""', '"""Pi.\n\nBy darts.\n"""\n'),
        ("pi", "def unused():", "def no_longer_used():"),
        ("pi", "def unused():\n    return SCALE", ""),
        ("pi", "\nclass Base:", "\n\n\n# further down\nclass Base:"),
        ("pi", '{"low": 0, "tags": {"a", "b", "c"}}', "{'tags': set('cba'), 'low': 0}"),
        ("helpers", "unused = 1", "unused = 2"),
        ("pi", "\nSCALE = 4", "\nSCALE = 2 + 2"),
    ],
)
def test_what_cannot_change_a_result_is_not_told(project, file, old, new):
    """Comments, layout, docstrings, annotations, other functions, the spelling of a constant."""
    before = fingerprint(project().count_inside)
    edit(project.folder, file, old, new)
    after = fingerprint(project().count_inside)
    assert changes(before, after) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("double", "scaled(2)", "scaled(3)", ["~closure pi.scaled.<locals>.by.factor"]),
        ("double", "factor * x", "factor + x", ["~function pi.scaled.<locals>.by"]),
        ("add_three", "Adder(3)", "Adder(4)", ["~object pi.Adder"]),
        ("add_three", "amount = amount", "amount = 1", ["~function pi.Adder", "~object pi.Adder"]),
        ("quick", "x < LIMITS", "x > LIMITS", ["~function pi.inside"]),
        ("half", "x / 2", "x / 3", ["~function pi.<lambda>"]),
        ("early", "x=1)", "x=2)", ["~argument pi.inside.x"]),
        ("early", "x < LIMITS", "x > LIMITS", ["~function pi.inside"]),
        ("below", "mod=5", "mod=7", ["~argument pow.mod"]),
        ("by_name", "x < LIMITS", "x > LIMITS", ["~helper pi.inside"]),
        ("by_name", '"h": half', '"h": inside', ["~constant pi.TABLE", "-helper pi.<lambda>"]),
        ("Setting", "rate: float = 0.5", "rate: float = 1.5", ["~function pi.Setting"]),
    ],
)
def test_functions_of_every_kind(project, name, old, new, told):
    """R11: closures, objects, caches, partial functions, lambdas, tables of functions, classes."""
    before = fingerprint(getattr(project(), name))
    edit(project.folder, "pi", old, new)
    assert marked(before, fingerprint(getattr(project(), name))) == set(told)


def test_methods(project):
    """A method counts with the object it belongs to; a class method with its class."""
    pi = project()
    one, two = fingerprint(pi.Adder(1).add), fingerprint(pi.Adder(2).add)
    assert changes(one, two) == ["its object pi.Adder has changed"]
    assert "function pi.Adder.add" in one
    assert "helper pi.Adder" in one
    before = fingerprint(pi.Adder.zero)
    edit(project.folder, "pi", "amount = amount", "amount = 1")
    assert changes(before, fingerprint(project().Adder.zero)) == ["its helper pi.Adder has changed"]


KINDS = """
import abc, collections, contextlib, dataclasses, enum, functools, re, typing
from os.path import join
from pathlib import Path

Point = collections.namedtuple("Point", "x y", defaults=[1])

class Typed(typing.NamedTuple):
    a: int
    b: str = "x"

class Colour(enum.Enum):
    RED = 1
    BLUE = enum.auto()

class Flag(enum.IntFlag):
    A = 1
    B = 2

def names():
    return ["a"]

@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    a: int
    b: list = dataclasses.field(default_factory=names)

    def total(self):
        return self.a + len(self.b)

class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...

    @functools.cached_property
    def side(self):
        return self.area() ** 0.5

class Square(Shape):
    def __init__(self, side):
        super().__init__()
        self.length = side

    def area(self):
        return self.length**2

    @functools.lru_cache
    def slow(self):
        return [x for x in range(self.length) if x in {1, 2, 3}]

    @staticmethod
    def unit():
        return Square(1)

class Area(typing.Protocol):
    def area(self) -> float: ...

@contextlib.contextmanager
def opened(path):
    yield path

async def later(xs):
    return [await x async for x in xs]

WORD = re.compile("a+")
HERE = Path("a")

def f(x: int = 0, *args, key=None, **kw) -> "str":
    match x:
        case {"a": [1, *rest], **more}:
            y = f"{x!r:>{10}} {'a'} {x=}"
        case _:
            y = None
    with opened(join("a", "b")):
        z = (q := 3)
    call = lambda a, /, b=1, *, c: a
    return Point(1), Typed(1), Colour.RED, Flag.A, Data(1), Square(2), Area, later, WORD, HERE, Path
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"x y"', '"y x"', {"~helper late.Point"}),
        ("defaults=[1]", "defaults=[2]", {"~helper late.Point"}),
        ('b: str = "x"', 'b: str = "y"', {"~helper late.Typed"}),
        ("RED = 1", "RED = 3", {"~helper late.Colour"}),
        ("B = 2", "B = 4", {"~helper late.Flag"}),
        ('return ["a"]', 'return ["b"]', {"~helper late.names"}),
        ("self.a + len", "self.a - len", {"~helper late.Data"}),
        ("frozen=True, ", "", {"~helper late.Data"}),
        ("** 0.5", "** 0.25", {"~helper late.Shape"}),
        ("{1, 2, 3}", "{1, 2, 4}", {"~helper late.Square"}),
        ("yield path", "yield [path]", {"~helper late.opened"}),
        ("await x async", "x async", {"~helper late.later"}),
        ('"a+"', '"a*"', {"~constant late.WORD"}),
        ('Path("a")', 'Path("b")', {"~constant late.HERE"}),
        ("join\n", "split as join\n", {"~function late.f"}),
        ("functools.lru_cache\n", "functools.wraps(print)\n", {"~helper late.Square"}),
    ],
)
def test_helpers_of_every_kind(project, old, new, told):
    """R11: named tuples, enumerations, dataclasses, abstract classes, context managers."""
    (project.folder / "late.py").write_text(KINDS)
    before = fingerprint(project("late").f)
    edit(project.folder, "late", old, new)
    assert marked(before, fingerprint(project("late").f)) == told


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_python_may_change(project, version):
    """R13: under another Python the same code has not changed."""
    find = Path(__file__).parents[2] / "tools" / "find-python"
    found = subprocess.run([find, version], capture_output=True, text=True, timeout=60)
    if found.returncode != 0:
        pytest.skip(f"there is no Python {version} on this machine")
    (project.folder / "late.py").write_text(KINDS)
    source = Path(fanfold.__file__).parents[1]
    other = run(ONE, project.folder, python=found.stdout.strip(), PYTHONPATH=str(source))
    assert other["python"] == version
    assert changes(fingerprint(project("late").f), other) == []


ONE = """
import json, sys
sys.path[:0] = sys.argv[1:]
import late
from fanfold.runs.code import fingerprint
print(json.dumps(fingerprint(late.f)))
"""


def test_names_that_stand_for_other_code(project):
    """Two helpers that change places are a change, though both are as they were."""
    source = "from helpers import {} as one, {} as two\ndef f(x):\n    return one(x) - two(x)\n"
    path = project.folder / "late.py"
    path.write_text(source.format("darts", "twice"))
    before = fingerprint(project("late").f)
    path.write_text(source.format("twice", "darts"))
    assert changes(before, fingerprint(project("late").f)) == ["the function late.f has changed"]


def test_modules_that_change_places(project):
    """So are two modules whose names change places."""
    (project.folder / "ready.py").write_text("def twice(x):\n    return x\n")
    source = "import {} as one, {} as two\ndef f(x):\n    return one.twice(x) - two.twice(x)\n"
    path = project.folder / "late.py"
    path.write_text(source.format("helpers", "ready"))
    before = fingerprint(project("late").f)
    path.write_text(source.format("ready", "helpers"))
    assert changes(before, fingerprint(project("late").f)) == ["the function late.f has changed"]


# Imports and packages


@pytest.mark.parametrize("loaded", [True, False])
def test_modules_imported_by_the_function(project, loaded):
    """What a function imports while it runs counts as a whole, whether it is loaded yet or not."""
    path = project.folder / "late.py"
    path.write_text("def f(x):\n    import helpers\n    return helpers.twice(x)\n")
    late = project("late")
    if loaded:
        importlib.import_module("helpers")
    before = fingerprint(late.f)
    assert set(before) == {"function late.f", "module helpers", "module deep", "python"}
    assert ("helpers" in sys.modules) == loaded
    edit(project.folder, "helpers", "def darts", "# a comment\ndef darts")
    assert changes(before, fingerprint(project("late").f)) == []
    edit(project.folder, "deep", "FACTOR = 7", "FACTOR = 8")
    assert changes(before, fingerprint(project("late").f)) == ["its module deep has changed"]
    (project.folder / "deep.py").unlink()
    assert changes(before, fingerprint(project("late").f)) == ["its module deep has changed"]


def test_members_of_packages(project):
    """Packages of the user's own are followed to the file, by absolute and by relative imports."""
    package = project.folder / "ready"
    package.mkdir()
    (package / "__init__.py").write_text("from .tools import one\n")
    (package / "tools.py").write_text("from . import more\ndef one(x): return more.two(x)\n")
    (package / "more.py").write_text("def two(x): return 2 * x\n")
    (project.folder / "late.py").write_text(
        "import ready\n"
        "def f(x): return ready.tools.more.two(x)\n"
        "def g(x):\n    from ready.more import two\n    return two(x)\n"
        "def h(x): return getattr(ready, 'one')(x)\n"
    )
    try:
        late = project("late")
        assert set(fingerprint(late.f)) == {"function late.f", "helper ready.more.two", "python"}
        assert set(fingerprint(late.g)) == {
            "function late.g", "module ready", "module ready.more", "module ready.tools", "python",
        }  # fmt: skip
        assert set(fingerprint(late.h)) == {
            "function late.h", "module ready", "module ready.more", "module ready.tools", "python",
        }  # fmt: skip
    finally:
        for name in ("ready.tools", "ready.more"):
            sys.modules.pop(name, None)


def installed(folder, version):
    """A package as pip installs it: a module, and a dist-info with another name."""
    site = folder / "site-packages"
    info = site / "some_things-0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (site / "things.py").write_text("def do(x): return x\n\ndef wrap(f): return lambda x: f(x)\n")
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: some-things\nVersion: {version}\n"
    )
    (info / "RECORD").write_text("things.py,,\nsome_things-0.dist-info/METADATA,,\n")
    return site


VERSIONS = """
import json, sys
sys.path[:0] = sys.argv[1:]
import late
from fanfold.runs.code import fingerprint
print(json.dumps([fingerprint(late.f), fingerprint(late.g), fingerprint(late.h, ["some-things"])]))
"""


def run(script, *arguments, python=sys.executable, **environment):
    done = subprocess.run(
        [python, "-B", "-c", script, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_versions_of_packages(tmp_path):
    """R11, R13: an installed package that the code names counts by its version, and no further."""
    (tmp_path / "late.py").write_text(
        "import things\n"
        "def f(x): return things.do(x)\n"
        "def g(x):\n    from things import do\n    return do(x)\n"
        "def inner(x): return x\n"
        "h = things.wrap(inner)\n"
    )
    before = run(VERSIONS, tmp_path, installed(tmp_path, "2.0.1"))
    after = run(VERSIONS, tmp_path, installed(tmp_path, "2.1.0"))
    assert [changes(*pair) for pair in zip(before[:2], after, strict=False)] == [
        ["things is 2.1.0 now, and was 2.0.1"]
    ] * 2
    assert set(before[2]) >= {"helper late.inner", "package things", "package some-things"}


def test_arguments_of_decorators(tmp_path):
    """What a decorator is given counts, though only the library knows what it does with it."""
    site = installed(tmp_path, "1")
    (site / "things.py").write_text("def do(n): return lambda f: f\n")
    source = "import things\n@things.do(n={})\ndef f(x): return x\ng = h = f\n"
    (tmp_path / "late.py").write_text(source.format(1))
    before = run(VERSIONS, tmp_path, site)[0]
    (tmp_path / "late.py").write_text(source.format(2))
    assert marked(before, run(VERSIONS, tmp_path, site)[0]) == {"~function late.f"}


def test_a_package_that_is_not_installed():
    """A package that is asked for counts, installed or not; fanfold counts by its version."""
    parts = fingerprint(fingerprint, ["no-such-package", "numpy"])
    assert parts["package no-such-package"] == "not installed"
    assert parts["package numpy"][0].isdigit()
    assert "package fanfold" in parts
    assert not any(part.startswith("helper") for part in parts)


def test_the_standard_library_does_not_count():
    """What comes with Python is told by Python's version, which is reported and never a change."""
    parts = fingerprint(json.dumps)
    assert set(parts) == {"function json.dumps", "python"}
    assert compare({**parts, "python": "3.11"}, {**parts, "python": "3.13"}) == []


# The same in every process


STABLE = """
import json, sys
sys.path[:0] = sys.argv[1:]
import pi
from fanfold.runs.code import fingerprint
names = ("count_inside", "double", "add_three", "quick", "below", "half", "by_name", "Model")
print(json.dumps({name: fingerprint(getattr(pi, name)) for name in names}))
"""


def test_fingerprints_are_the_same_in_every_process(project):
    """PYTHONHASHSEED changes no part."""
    found = [run(STABLE, project.folder, PYTHONHASHSEED=str(seed)) for seed in range(10)]
    assert all(other == found[0] for other in found)


PROGRAM = """
import json, pathlib, sys
import cloudpickle
{}
if __name__ == "__main__":
    from fanfold.runs.code import fingerprint
    functions = count_inside, double, add_three, Adder(3).add, half, by_name, early
    pathlib.Path(sys.argv[1]).write_bytes(cloudpickle.dumps(functions))
    print(json.dumps([fingerprint(function) for function in functions]))
"""

RESTORED = """
import json, pathlib, pickle, sys
sys.path[:0] = sys.argv[2:]
from fanfold.runs.code import fingerprint
functions = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
print(json.dumps([fingerprint(function) for function in functions]))
"""


def test_a_restored_function_is_the_same(project):
    """A program's function that was stored has not changed, nor when the program has since."""
    program = project.folder / "program.py"
    program.write_text(PROGRAM.format(PI))
    stored = project.folder / "stored"
    arguments = [sys.executable, "-B", str(program), str(stored)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    before = json.loads(done.stdout)
    assert "function program.count_inside" in before[0]
    restored = run(RESTORED, stored, project.folder)
    assert [changes(*pair) for pair in zip(before, restored, strict=True)] == [[]] * 7
    program.write_text("'''Something else.'''\n\n\n" + PROGRAM.format(PI).replace("x / 2", "x / 3"))
    restored = run(RESTORED, stored, project.folder)
    assert [changes(*pair) for pair in zip(before, restored, strict=True)] == [[]] * 7


def test_a_module_is_the_same_as_a_program(project):
    """A function has the same fingerprint whether its file is imported or run as a program."""
    (project.folder / "program.py").write_text(PROGRAM.format(PI))
    arguments = [sys.executable, "-B", "program.py", "stored"]
    done = subprocess.run(
        arguments, cwd=project.folder, capture_output=True, text=True, timeout=60, check=True
    )
    imported = STABLE.replace("pi", "program").replace('"count_inside", ', '"count_inside",)#')
    assert run(imported, project.folder)["count_inside"] == json.loads(done.stdout)[0]


def test_other_pythons_are_compared_by_source():
    """A mark of another Python tells nothing; without a source that is said, and not a change."""
    same = {"function pi.f": "a3/cpython-311:77"}, {"function pi.f": "a3/cpython-313:12"}
    assert compare(*same) == []
    (change,) = compare({"function f": "cpython-311:77"}, {"function f": "cpython-313:12"})
    assert str(change).startswith("the function f cannot be compared")
    assert compare({"function f": "a3/cpython-311:77"}, {"function f": "cpython-311:77"}) == []
    assert len(compare({"function f": "a3/p:77"}, {"function f": "b4/p:77"})) == 1
    (change,) = compare({"function f": "cpython-311:77"}, {"function f": "cpython-311:12"})
    assert str(change) == "the function f has changed"


# What must not fail


def test_a_function_without_a_source():
    """What was made with exec counts by what it is compiled to."""

    def made(text):
        names: dict = {"__name__": "made"}
        exec(text, names)
        return names["f"]

    one = fingerprint(made("def f(x): return x + N\nN = 1"))
    assert set(one) == {"function made.f", "constant made.N", "python"}
    assert changes(one, fingerprint(made("\n\ndef f(x):\n  # layout\n  return x+N\nN = 1"))) == []
    assert changes(one, fingerprint(made("def f(x): return x - N\nN = 1"))) == [
        "the function made.f has changed"
    ]
    assert changes(one, fingerprint(made("def f(x): return x + N\nN = 2"))) == [
        "its constant made.N has changed"
    ]


def test_a_source_that_has_vanished(project):
    """Without its file a function counts by what it is compiled to, and is the same."""
    pi = project()
    before = fingerprint(pi.count_inside)
    for path in project.folder.glob("*.py"):
        path.unlink()
    after = fingerprint(pi.count_inside)
    assert "/" in before["function pi.count_inside"]
    assert "/" not in after["function pi.count_inside"]
    assert changes(before, after) == []


def test_a_source_that_was_edited_after_it_was_loaded(project):
    """The code that is loaded counts, not the file: it is where the results come from."""
    pi = project()
    before = fingerprint(pi.count_inside)
    edit(project.folder, "pi", "x < LIMITS", "x > LIMITS")
    assert changes(before, fingerprint(pi.count_inside)) == []
    assert changes(before, fingerprint(project().count_inside)) == [
        "its helper pi.inside has changed"
    ]


class Proxy:
    """Answers nothing without what it stands for, as the proxies of web frameworks do."""

    def __getattr__(self, name):
        raise RuntimeError("working outside of context")

    @property
    def __class__(self):
        raise RuntimeError("working outside of context")


def test_odd_things_do_not_fail(project):
    """Missing globals, cycles, empty cells, locks, open files, proxies: it does not fail."""
    (project.folder / "late.py").write_text(
        "import threading, random, sys, logging\n"
        "from helpers import *\n"
        "lock, log, out = threading.Lock(), logging.getLogger('late'), sys.stdout\n"
        "loop = []\nloop.append(loop)\n"
        "def f(x):\n"
        "    return missing(x), lock, log, out, loop, f(x), g(x), proxy, stream, rng, f.note\n"
        "def g(x): return f(x)\n"
        "stream = (x for x in 'ab')\n"
        "rng = random.Random()\n"
        "def outer():\n"
        "    def inner(): return later\n"
        "    if sys: return inner\n"
        "    later = 1\n"
        "empty = outer()\n"
        "f.__wrapped__ = f\n"
    )
    late = project("late")
    late.proxy = Proxy()
    first = fingerprint(late.f)
    assert {"function late.f", "helper late.g", "constant late.lock"} <= set(first)
    late = project("late")
    late.proxy = Proxy()
    assert changes(first, fingerprint(late.f)) == []
    assert set(fingerprint(late.empty)) == {"function late.outer.<locals>.inner", "python"}


def test_values_without_a_stable_form_count_by_type(project):
    """A lock is a lock; a value around it counts by all else that it holds."""
    source = "import threading\nheld = {}\ndef f(x): return held\n"
    path = project.folder / "late.py"

    def told(held):
        path.write_text(source.format(held))
        return fingerprint(project("late").f)

    before = told("{'lock': threading.Lock(), 'n': 1}")
    assert changes(before, told("{'n': 1, 'lock': threading.Lock()}")) == []
    assert changes(before, told("{'lock': threading.Lock(), 'n': 2}")) != []
    assert changes(before, told("{'lock': None, 'n': 1}")) != []


def test_functions_of_one_name_are_told_apart():
    """Two functions from one factory have one name: both count."""

    def scaled(factor):
        return lambda x: factor * x

    def both(one, two):
        return lambda x: one(x) + two(x)

    parts = fingerprint(both(scaled(2), scaled(3)))
    assert sum(part.startswith("closure") for part in parts) == 2
    assert changes(parts, fingerprint(both(scaled(2), scaled(4)))) != []


def test_every_kind_of_callable():
    """Built-in functions, ufuncs, types, methods of library objects: all have a fingerprint."""
    np = pytest.importorskip("numpy")
    for function in (
        len,
        np.sin,
        int,
        str.upper,
        "a".join,
        [].append,
        np.linalg.norm,
        np.vectorize(abs),
    ):
        parts = fingerprint(function)
        assert any(part.startswith("function ") for part in parts), parts
    assert "package numpy" in fingerprint(np.sin)
    assert changes(fingerprint("a".join), fingerprint("b".join)) == [
        "the function str.join has changed"
    ]


def test_a_fingerprint_survives_json(project):
    """Parts are text: what is read back from JSON is the same."""
    parts = fingerprint(project().count_inside)
    assert json.loads(json.dumps(parts)) == parts


def test_changes_read_well():
    """A change is a sentence for people."""
    rows = {
        Change("function pi.f", "changed", "a", "b"): "the function pi.f has changed",
        Change("helper pi.darts", "added", "", "b"): "its helper pi.darts is new",
        Change("constant pi.N", "removed", "a", ""): "its constant pi.N is no longer used",
        Change("package numpy", "changed", "2.0.1", "2.1.0"): "numpy is 2.1.0 now, and was 2.0.1",
        Change("package numpy", "added", "", "2.1.0"): "numpy is used now",
        Change("package numpy", "removed", "2.1.0", ""): "numpy is no longer used",
    }
    assert {change: str(change) for change in rows} == rows
