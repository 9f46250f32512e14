"""Machine code for one expression of floats: x86-64 with AVX, 256 bits at a time.

Encodings are those of the Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.
The function has the calling convention of the System V ABI: the address of a table comes in rdi,
the bytes of a row in rsi. The table is made of words of 64 bits:

    0                 MXCSR when it returns: which floating-point events there were
    1                 how many rows; 0 when it returns
    2 ...             the address of each array, and of the target
    then              how many bytes it is from one row of each to the next
    then              the constants
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

__all__ = ["HAS_AVX", "MOST_ARRAYS", "VECTOR", "NotPossibleError", "Recipe", "assemble", "lanes"]

HAS_AVX = bytes.fromhex(
    "53"  # push rbx
    "b801000000 31c9 0fa2"  # mov eax, 1; xor ecx, ecx; cpuid
    "31c0"  # xor eax, eax: the answer, so far
    "81e100000018 81f900000018"  # of ecx the bits 27 (the system uses XSAVE) and 28 (AVX): both?
    "7508"  # jne to the end
    "31c9 0f01d0 83e006"  # xor ecx, ecx; xgetbv; and eax, 6: the system keeps xmm and ymm
    "5b c3"  # pop rbx; ret
)
"""Machine code that any x86-64 runs: it returns 6 where processor and system have AVX."""

VECTOR = 32
"""Bytes that one instruction works on."""

SUMS = 4
"""Vectors that a row is added up in, by turns: an addition need not wait for the one before."""

_POINTERS = (1, 2, 8, 9, 10, 11)  # rcx, rdx, r8 to r11: what a function need not preserve
_VECTORS = 16

MOST_ARRAYS = len(_POINTERS) - 1
"""Arrays that a recipe may have, besides the target."""

# Instructions on vectors of doubles and of floats, in the table 0F of opcodes.
_ARITHMETIC = {"+": 0x58, "*": 0x59, "-": 0x5C, "/": 0x5E, "&": 0x54, "|": 0x56, "^": 0x57}
_SQRT, _COMPARE, _CONVERT = 0x51, 0xC2, 0x5A
_LOAD, _STORE, _STREAM = 0x10, 0x11, 0x2B
# Predicates that are quiet about NaN, as NumPy's comparisons are.
_PREDICATES = {"==": 0x00, "<": 0x11, "<=": 0x12, "!=": 0x04, ">=": 0x1D, ">": 0x1E}


class NotPossibleError(Exception):
    """The recipe asks for an operation or for registers that are not there."""


class Recipe(NamedTuple):
    """All that the machine code depends on. Cells are numbers that stand for vectors.

    ``arrays`` (cell, whether one number stands for a whole row); ``constants`` (cell, bits);
    ``steps`` (operation, cells, target cell). ``adds`` says what becomes of the cell ``root``:
    it is stored, or added up along each row into one vector of doubles, which is stored.
    ``stream`` stores past the caches.
    """

    arrays: tuple[tuple[int, bool], ...]
    constants: tuple[tuple[int, bytes], ...]
    steps: tuple[tuple[str, tuple[int, ...], int], ...]
    root: int
    double: bool
    adds: bool = False
    stream: bool = False


def lanes(recipe: Recipe) -> int:
    """How many elements are done at a time; rows have to be of a multiple of them."""
    vector = VECTOR // (8 if recipe.double else 4)
    return 16 if recipe.adds else vector


def assemble(recipe: Recipe) -> tuple[bytes, list[bytes]]:
    """The code, and the constants that have to stand at the end of its table.

    Raises `NotPossibleError`.
    """
    assembler = _Assembler(recipe)
    code = assembler.code()
    return code, [bits.ljust(8, b"\0") for bits in assembler.constants]


class _Assembler:
    """A cell is in a vector register while it is needed; constants always are."""

    def __init__(self, recipe: Recipe) -> None:
        if len(recipe.arrays) > MOST_ARRAYS:
            raise NotPossibleError
        self._recipe = recipe
        self._pointer = dict(zip([cell for cell, _ in recipe.arrays], _POINTERS, strict=False))
        self._target = _POINTERS[len(recipe.arrays)]
        self._free = list(range(_VECTORS - 1, -1, -1))
        self._register: dict[int, int] = {}
        self._offset = 0
        self.constants: dict[bytes, int] = {}
        self._last = {at: number for number, step in enumerate(recipe.steps) for at in step[1]}
        self._last[recipe.root] = len(recipe.steps)

    def code(self) -> bytes:
        self._pin_constants()
        sums = [self._take() for _ in range(SUMS)] if self._recipe.adds else []
        count = lanes(self._recipe) // lanes(self._recipe._replace(adds=False))
        columns = b"".join(self._body(number, sums) for number in range(count))
        columns += b"\x48\x81\xc0" + (count * VECTOR).to_bytes(4, "little")  # add rax, ...
        columns += b"\x48\x39\xf0"  # cmp rax, rsi
        columns += _jump(0x82, len(columns))  # jb: more columns
        row = b"".join(self._zero(register) for register in sums)
        row += b"\x31\xc0"  # xor eax, eax
        row += columns + b"".join((*self._store_sums(sums), *self._next_row()))
        row += b"\x48\xff\x4f\x08"  # dec qword [rdi + 8]
        row += _jump(0x85, len(row))  # jnz: more rows
        return b"".join((*self._prologue(), row, *self._epilogue()))

    # The frame around the loops -------------------------------------------------------------------

    def _prologue(self) -> Iterator[bytes]:
        yield b"\x0f\xae\x1f"  # stmxcsr [rdi]
        yield b"\x83\x27\xc0"  # and dword [rdi], ~63: nothing has happened yet
        yield b"\x0f\xae\x17"  # ldmxcsr [rdi]
        for number, pointer in enumerate(self._pointers()):
            yield _word(0x8B, pointer, 2 + number)  # mov pointer, [rdi + ...]
        first = 2 + 2 * len(self._pointers())
        for number, register in enumerate(self.constants.values()):
            offset = (8 * (first + number)).to_bytes(4, "little")
            yield self._broadcast(register, 0x80 | 7, 7) + offset

    def _next_row(self) -> Iterator[bytes]:
        count = len(self._pointers())
        for number, pointer in enumerate(self._pointers()):
            yield _word(0x03, pointer, 2 + count + number)  # add pointer, [rdi + ...]

    def _epilogue(self) -> Iterator[bytes]:
        if self._recipe.stream:
            yield b"\x0f\xae\xf8"  # sfence: what went past the caches is seen by other threads
        yield b"\x0f\xae\x1f"  # stmxcsr [rdi]
        yield b"\xc5\xf8\x77"  # vzeroupper
        yield b"\xc3"  # ret

    def _pointers(self) -> tuple[int, ...]:
        return (*self._pointer.values(), self._target)

    # The expression -------------------------------------------------------------------------------

    def _body(self, number: int, sums: list[int]) -> bytes:
        """The instructions for one vector of the columns, this many after the first."""
        self._offset = VECTOR * number
        free, register = list(self._free), dict(self._register)
        code = b"".join(self._instructions(sums[number % SUMS :] + sums[: number % SUMS]))
        self._free, self._register = free, register
        return code

    def _instructions(self, sums: list[int]) -> Iterator[bytes]:
        for number, (operation, arguments, target) in enumerate(self._recipe.steps):
            yield from self._loaded(arguments)
            sources = [self._register[cell] for cell in arguments]
            for cell in set(arguments):
                self._release(cell, number)
            self._register[target] = self._take()
            yield self._compute(operation, self._register[target], sources)
        root = self._recipe.root
        yield from self._loaded((root,))
        if sums:
            yield from self._add_up(self._register[root], sums)
        else:
            opcode = _STREAM if self._recipe.stream else _STORE
            yield self._memory(opcode, self._register[root], self._target)

    def _loaded(self, cells: tuple[int, ...]) -> Iterator[bytes]:
        for cell in cells:
            if cell in self._register:
                continue
            self._register[cell], pointer = self._take(), self._pointer[cell]
            if dict(self._recipe.arrays)[cell]:
                yield self._broadcast(self._register[cell], pointer & 7, pointer)
            else:
                yield self._memory(_LOAD, self._register[cell], pointer)

    def _compute(self, operation: str, target: int, sources: list[int]) -> bytes:
        first, last = sources[0], sources[-1]
        if operation in _ARITHMETIC:
            return self._vector(_ARITHMETIC[operation], target, first, last)
        if operation in _PREDICATES:
            return self._vector(_COMPARE, target, first, last) + bytes([_PREDICATES[operation]])
        match operation:
            case "square":
                return self._vector(_ARITHMETIC["*"], target, first, first)
            case "sqrt":
                return self._vector(_SQRT, target, 0, first)
            case "neg":
                return self._vector(_ARITHMETIC["^"], target, first, self._pinned(-0.0))
            case "absolute":
                return self._vector(_ARITHMETIC["&"], target, first, self._pinned("magnitude"))
            case "reciprocal":
                return self._vector(_ARITHMETIC["/"], target, self._pinned(1.0), first)
            case "~":
                return self._vector(_ARITHMETIC["^"], target, first, self._pinned("ones"))
            case "where":
                return self._blend(target, *sources)
        raise NotPossibleError

    def _add_up(self, register: int, sums: list[int]) -> Iterator[bytes]:
        add = _ARITHMETIC["+"]
        if self._recipe.double:
            yield self._vector(add, sums[0], sums[0], register)
            return
        half = self._take()  # eight floats are two vectors of doubles
        yield _vex(3, 1, 0, register, 0, half) + bytes((0x19, _both(register, half), 1))  # upper
        yield _convert(half) + self._doubles(add, sums[2], half)
        yield _convert(register) + self._doubles(add, sums[0], register)
        self._free.append(half)

    def _store_sums(self, sums: list[int]) -> Iterator[bytes]:
        for one, other in ((0, 2), (1, 3), (0, 1)) if sums else ():
            yield self._doubles(_ARITHMETIC["+"], sums[one], sums[other])
        if sums:
            self._offset = 0
            yield b"\x31\xc0" + self._memory(_STORE, sums[0], self._target)

    # Registers ------------------------------------------------------------------------------------

    def _take(self) -> int:
        if not self._free:
            raise NotPossibleError
        return self._free.pop()

    def _release(self, cell: int, number: int) -> None:
        constant = any(cell == one for one, _ in self._recipe.constants)
        if self._last[cell] == number and not constant:
            self._free.append(self._register[cell])

    def _pin_constants(self) -> None:
        for cell, bits in self._recipe.constants:
            self._register[cell] = self._pin(bits)
        needs: dict[str, float | str] = {"neg": -0.0, "reciprocal": 1.0}
        needs |= {"absolute": "magnitude", "~": "ones"}
        for operation in {step[0] for step in self._recipe.steps} & needs.keys():
            self._pinned(needs[operation])

    def _pinned(self, value: float | str) -> int:
        """The register with this number, or with this pattern of bits, in every place."""
        size = 8 if self._recipe.double else 4
        ones = 2 ** (8 * size) - 1
        if isinstance(value, str):
            bits = (ones >> (value == "magnitude")).to_bytes(size, "little")
        else:
            bits = (np.float64 if self._recipe.double else np.float32)(value).tobytes()
        return self._pin(bits)

    def _pin(self, bits: bytes) -> int:
        if bits not in self.constants:
            self.constants[bits] = self._take()
        return self.constants[bits]

    # Instructions ---------------------------------------------------------------------------------

    def _vector(self, opcode: int, target: int, first: int, second: int) -> bytes:
        """``target = first (opcode) second``."""
        return _vex(1, self._recipe.double, first, target, 0, second) + bytes(
            (opcode, _both(target, second))
        )

    def _doubles(self, opcode: int, target: int, second: int) -> bytes:
        """``target = target (opcode) second``, of doubles."""
        return _vex(1, 1, target, target, 0, second) + bytes((opcode, _both(target, second)))

    def _blend(self, target: int, condition: int, yes: int, no: int) -> bytes:
        opcode = 0x4B if self._recipe.double else 0x4A
        return _vex(3, 1, no, target, 0, yes) + bytes((opcode, _both(target, yes), condition << 4))

    def _memory(self, opcode: int, vector: int, pointer: int) -> bytes:
        """Load or store at ``[pointer + rax + offset]``."""
        code = bytes((opcode, 0x44 | (vector & 7) << 3, pointer & 7, self._offset))
        return _vex(1, self._recipe.double or self._recipe.adds, 0, vector, 0, pointer) + code

    def _broadcast(self, vector: int, place: int, pointer: int) -> bytes:
        """Fill the vector with the number that the pointer points at."""
        opcode = 0x19 if self._recipe.double else 0x18
        return _vex(2, 1, 0, vector, 0, pointer) + bytes((opcode, place | (vector & 7) << 3))

    def _zero(self, register: int) -> bytes:
        return self._vector(_ARITHMETIC["^"], register, register, register)


def _vex(table: int, prefix: int, source: int, target: int, index: int, base: int) -> bytes:
    """The three bytes before an opcode: 256 bits; registers give their fourth bit, inverted."""
    one = (target < 8) << 7 | (index < 8) << 6 | (base < 8) << 5 | table
    return bytes((0xC4, one, (~source & 15) << 3 | 4 | prefix))


def _both(target: int, source: int) -> int:
    """The byte after an opcode that names two registers."""
    return 0xC0 | (target & 7) << 3 | source & 7


def _convert(register: int) -> bytes:
    """The lower four floats of a vector as doubles, in its place."""
    return _vex(1, 0, 0, register, 0, register) + bytes((_CONVERT, _both(register, register)))


def _word(opcode: int, register: int, number: int) -> bytes:
    """An instruction on a general register and a word of the table."""
    return bytes((0x48 | register >> 3 << 2, opcode, 0x47 | (register & 7) << 3, 8 * number))


def _jump(condition: int, length: int) -> bytes:
    """Jump back over so many bytes of code, and over the jump itself."""
    return bytes((0x0F, condition)) + (-(length + 6)).to_bytes(4, "little", signed=True)
