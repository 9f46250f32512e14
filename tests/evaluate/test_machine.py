"""Machine code: where there is some, what it covers, and that it is never writable."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.evaluate.conftest import in_numpy, same

import fanfold as ff
from fanfold.expressions import machine
from fanfold.expressions.assembler import NotPossibleError, Recipe, assemble

needs_avx = pytest.mark.skipif(
    not machine.supported(), reason="machine code is for x86-64 Linux with AVX"
)


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes each run of machine code."""
    ran: list[str] = []
    run = machine.Loop.run

    def noting(self: Any, *arguments: Any) -> int:
        ran.append("run")
        return run(self, *arguments)

    monkeypatch.setattr(machine.Loop, "run", noting)
    return ran


COVERED = [
    "a**2 + b**2 + 2*a*b",
    "where((a > b) & ~(a == 1) | (b < 0), a, b / 3)",
    "sqrt(abs(a)) - -b * reciprocal(b)",
    "sum(a)",
    "sum(a * b, axis=0)",
    "mean((a - b)**2, axis=1)",
]
NOT_COVERED = ["sin(a)", "a % b", "a > b", "(a > b) * a", "a**3", "max(a)", "a + 1j", "a + big"]


@needs_avx
@pytest.mark.parametrize("text", COVERED)
def test_arithmetic_of_floats_is_machine_code(loops: list[str], text: str) -> None:
    """Sums, products, quotients, roots, comparisons and choices of float32 and float64."""
    for dtype in "df":
        ff.evaluate(text, {"a": np.ones((100, 100), dtype), "b": np.ones((100, 100), dtype)})
        assert loops
        loops.clear()


@pytest.mark.parametrize("text", NOT_COVERED)
def test_the_rest_is_left_to_numpy(loops: list[str], text: str) -> None:
    """Other functions and other dtypes go tile by tile; small arrays do, too."""
    a = np.ones(9000, np.float32)
    ff.evaluate(text, {"a": a, "b": a, "big": np.ones(1)})
    ff.evaluate("a + a", {"a": np.ones(9000, int)})
    ff.evaluate("a + a", {"a": np.ones(9)})
    ff.evaluate("a + a", {"a": np.ones(9000)[::2]})
    ff.evaluate("a + a", {"a": np.ones(9000, ">f8")})
    assert loops == []


@needs_avx
def test_more_operands_than_registers(loops: list[str], random: Callable[..., Any]) -> None:
    """An expression that needs more registers than there are is left to NumPy, and right."""
    arrays = {name: random(5000) for name in "abcdefgh"}
    few = " * ".join("abcde")
    same(ff.evaluate(few, arrays), in_numpy(few, **arrays))
    assert loops
    loops.clear()
    many = " * ".join("abcdefgh")
    same(ff.evaluate(many, arrays), in_numpy(many, **arrays))
    deep = "+".join(f"(a * {n}.5)" for n in range(30))
    same(ff.evaluate(deep, arrays), in_numpy(deep, **arrays))
    assert loops == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what the processor has")
def test_the_processor_is_asked() -> None:
    """The processor and the system have AVX where the kernel says so, too."""
    told = " avx " in Path("/proc/cpuinfo").read_text()
    assert machine.supported() == (told and platform.machine() == "x86_64")


def test_code_that_cannot_be_is_not_made() -> None:
    """The assembler refuses what it has no instruction or register for."""
    with pytest.raises(NotPossibleError):
        assemble(Recipe(((0, False),), (), (("sin", (0,), 1),), 1, True))
    with pytest.raises(NotPossibleError):
        assemble(Recipe(tuple((n, False) for n in range(9)), (), (), 0, True))


@needs_avx
def test_memory_is_not_writable_and_executable() -> None:
    """The pages with machine code can be run, and not be written any more."""
    code, constants = assemble(Recipe(((0, False),), (), (("+", (0, 0), 1),), 1, True))
    loop = machine.Loop(Recipe(((0, False),), (), (), 1, True), code, constants)
    address = ctypes.addressof(ctypes.c_char.from_buffer(loop._memory))
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, _, end = line.split()[0].partition("-")
        if int(begin, 16) <= address < int(end, 16):
            assert line.split()[1] == "r-xp"


FORBIDDEN = """
import ctypes, numpy as np
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None).prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0):
    raise SystemExit("this kernel has no MDWE")
import fanfold as ff
from fanfold.expressions import machine
a = np.arange(9000.0)
assert not machine.supported()
assert (ff.evaluate("a * a + 3.25") == a * a + 3.25).all()
print("by NumPy")
"""


@needs_avx
def test_a_system_that_forbids_executable_memory() -> None:
    """Where memory must not be made executable (SELinux, or MDWE, as here), NumPy computes, with
    the same result."""
    done = subprocess.run([sys.executable, "-c", FORBIDDEN], capture_output=True, text=True)
    if "no MDWE" in done.stderr:
        pytest.skip("memory cannot be denied execution here: Linux before 6.3")
    assert done.stdout == "by NumPy\n", done.stderr


@needs_avx
def test_numbers_of_all_kinds_come_out_as_from_numpy(loops: list[str]) -> None:
    """Subnormal numbers, zeros of both signs, infinities and NaN: the bits of every result are
    NumPy's, whatever comes together with what."""
    for dtype in "df":
        info = np.finfo(dtype)
        odd = [0.0, -0.0, 1.0, -3.0, np.inf, -np.inf, np.nan, info.tiny, -info.tiny, info.max]
        odd += [info.smallest_subnormal, -info.smallest_subnormal, 1 + info.eps, info.tiny / 3]
        a, b = (x.ravel() for x in np.meshgrid(*[np.resize(np.array(odd, dtype), 140)] * 2))
        with np.errstate(all="ignore"):
            for text in ("a + b", "a - b", "a * b", "a / b", "sqrt(a)", "abs(a)", "-a", "a**2 * b"):
                same(ff.evaluate(text), in_numpy(text, a=a, b=b))
            for text in ("a < b", "a <= b", "a == b", "a != b", "a >= b", "a > b"):
                same(
                    ff.evaluate(f"where({text}, a, b)"), in_numpy(f"where({text}, a, b)", a=a, b=b)
                )
    assert loops
