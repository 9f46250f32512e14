"""Programs as one loop in machine code: for plain arithmetic of floats, on x86-64 with AVX.

Tile after tile, every operation of an expression costs a pass over the cache. Here the whole
expression is done on four doubles (eight floats) at a time in registers, and only the operands and
the result touch memory. Each instruction rounds as IEEE 754 says and none is fused with another, so
the bits are NumPy's. Where anything is not as it has to be (the processor, the system's rules about
executable memory, the dtypes, the layout), there is no loop, and tiles go through NumPy.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform
import sys
from typing import Any

import numpy as np

from fanfold.expressions.assembler import (
    HAS_AVX,
    MOST_ARRAYS,
    NotPossibleError,
    Recipe,
    assemble,
    lanes,
)
from fanfold.expressions.program import Program, Step

__all__ = ["Loop", "Place", "Window", "adding", "storing"]

Array = np.ndarray[Any, Any]

_COMPARISONS = ("<", "<=", "==", "!=", ">=", ">")
_LOGIC = ("&", "|", "^", "~")

# The bits of MXCSR that tell what has happened, and NumPy's bits for the same.
_TOLD = {1: 8, 4: 1, 8: 2, 16: 4}


def storing(
    program: Program, arrays: dict[int, Array], target: Array, stream: bool = False
) -> Loop | None:
    """The loop that puts the root of the program into ``target``, or None where there is none.

    The arrays are of the shape of the target, with one axis or two. ``stream`` stores past the
    caches; every row of the target has to begin at a multiple of `VECTOR` bytes then.
    """
    if not program.steps or not _in_rows(target, target.dtype) or not target.strides[-1]:
        return None
    recipe = _recipe(program, arrays, target.dtype)
    return None if recipe is None else _loop(recipe._replace(stream=stream))


def adding(program: Program, arrays: dict[int, Array]) -> Loop | None:
    """The loop that adds the root of the program up along the last axis, or None.

    The sums of each row are doubles, as many as fit a vector; together they are its sum.
    """
    root = program.roots[0]
    if root in program.scalars:
        return None
    recipe = _recipe(program, arrays, program.dtype(root))
    return None if recipe is None else _loop(recipe._replace(adds=True))


def _recipe(program: Program, arrays: dict[int, Array], dtype: np.dtype[Any]) -> Recipe | None:
    if dtype not in (np.float32, np.float64) or not dtype.isnative or len(arrays) > MOST_ARRAYS:
        return None
    logical = {step.target for step in program.steps if step.dtype == bool}
    if program.roots[0] in logical or not supported():
        return None
    if not all(_possible(step, dtype, logical, program) for step in program.steps):
        return None
    if not arrays or not all(_in_rows(array, dtype) for array in arrays.values()):
        return None
    with np.errstate(over="ignore"):  # NumPy has told it already, when it looked at the dtypes
        constants = [(cell, dtype.type(one).tobytes()) for cell, one in program.scalars.items()]
    return Recipe(
        tuple((cell, not array.strides[-1]) for cell, array in arrays.items()),
        tuple(constants),
        tuple((step.operation, step.arguments, step.target) for step in program.steps),
        program.roots[0],
        dtype == np.float64,
    )


def _possible(step: Step, dtype: np.dtype[Any], logical: set[int], program: Program) -> bool:
    """Whether truth values are used as such, and numbers as numbers of the dtype."""
    truths = [at in logical for at in step.arguments]
    if step.operation in _LOGIC:
        return all(truths)
    if step.operation == "where":
        return truths == [True, False, False] and step.dtype == dtype
    if step.operation in _COMPARISONS:
        numbers = [program.scalars[at] for at in step.arguments if at in program.scalars]
        return not any(truths) and all(_exact(number, dtype) for number in numbers)
    return not any(truths) and step.dtype == dtype


def _exact(number: Any, dtype: np.dtype[Any]) -> bool:
    """Whether NumPy compares with this number as one of the dtype."""
    if isinstance(number, np.generic):
        return np.result_type(dtype, number.dtype) == dtype
    return isinstance(number, float) or abs(number) < 2**24


def _in_rows(array: Array, dtype: np.dtype[Any]) -> bool:
    return bool(
        array.dtype == dtype
        and array.ndim in (1, 2)
        and array.strides[-1] in (0, dtype.itemsize)
        and array.flags.aligned
    )


@functools.lru_cache(maxsize=256)
def _loop(recipe: Recipe) -> Loop | None:
    try:
        code, constants = assemble(recipe)
        return Loop(recipe, code, constants)
    except (NotPossibleError, OSError):
        return None


@functools.cache
def supported() -> bool:
    """Whether this machine runs what is written here. The processor itself is asked, for what the
    system tells of it is not true under an emulator."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or sys.maxsize < 2**32:
        return False
    try:
        memory = _executable(HAS_AVX)
    except OSError:
        return False
    return bool(ctypes.CFUNCTYPE(ctypes.c_int)(_address(memory))() == 6)


class Loop:
    """Machine code, and how it is called."""

    def __init__(self, recipe: Recipe, code: bytes, constants: list[bytes]) -> None:
        self._memory = _executable(code)  # lives as long as the loop does
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)
        self._call = kind(_address(self._memory))
        self._constants = [int.from_bytes(one, "little") for one in constants]
        self.double = recipe.double
        self.lanes = lanes(recipe)

    def run(self, places: list[Place], rows: int, columns: int) -> int:
        """Compute so many rows and columns; returns the floating-point events, as NumPy's bits.

        The places are those of the arrays, in the order of the recipe, and of the target. A loop
        that adds writes four doubles for each row.
        """
        table = (ctypes.c_uint64 * (2 + 2 * len(places) + len(self._constants)))(
            0,
            rows,
            *[address for address, _ in places],
            *[step % 2**64 for _, step in places],
            *self._constants,
        )
        self._call(ctypes.addressof(table), columns * (8 if self.double else 4))
        return sum(ours for theirs, ours in _TOLD.items() if table[0] & theirs)


Place = tuple[int, int]
"""An address, and how many bytes it is from one row to the next."""


class Window:
    """Where in memory the tiles of an array of one or two axes are."""

    def __init__(self, array: Array) -> None:
        self._address = array.ctypes.data
        self._column = array.strides[-1]
        self._row = array.strides[0] if array.ndim == 2 else 0

    def at(self, row: int, column: int) -> Place:
        return self._address + row * self._row + column * self._column, self._row


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _executable(code: bytes) -> mmap.mmap:
    """Memory with the code in it; it is never writable and executable at the same time."""
    memory = mmap.mmap(-1, mmap.PAGESIZE * -(-len(code) // mmap.PAGESIZE), mmap.MAP_PRIVATE)
    memory[: len(code)] = code
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if protect(_address(memory), len(memory), mmap.PROT_READ | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "this system does not let memory be made executable")
    return memory
