"""Blocks: the statistics are NumPy's, whatever the dtype, the layout and the place."""

from __future__ import annotations

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.blocks.conftest import numbers, same_bits, ulps_of_sum

import fanfold as ff
from fanfold.blocks.source import SPAN, TILE

DTYPES = [
    "?",
    "i1",
    "u1",
    "i2",
    ">i4",
    "i8",
    "u8",
    "f2",
    "f4",
    ">f4",
    "f8",
    ">f8",
    "c8",
    "c16",
    "g",
]
EXACT = ("min", "max", "argmin", "argmax")
LONG = 3 * 2**16 + 12_345  # elements: several tiles, and one that is not whole


def saved(folder: Path, array: np.ndarray[Any, Any]) -> Path:
    path = folder / "array.npy"
    np.save(path, array)
    return path


def of_dtype(dtype: str, count: int = LONG) -> np.ndarray[Any, Any]:
    kind = np.dtype(dtype)
    if kind.kind in "biu":
        return np.random.default_rng(1).integers(0, 2**63, count).astype(kind)
    values = numbers(count) / 1000
    return (values + 1j * values[::-1]).astype(kind) if kind.kind == "c" else values.astype(kind)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype: str, tmp_path: Path) -> None:
    """Of each dtype, byte-swapped ones too, the results have NumPy's dtype. Extremes and sums of
    integers, which wrap, are equal; other sums are within the promise of the long sum."""
    array = of_dtype(dtype)
    blocks = ff.Blocks(saved(tmp_path, array))
    wide = array.astype(np.result_type(array.dtype, np.float64))
    for name in EXACT:
        assert getattr(blocks, name)() == getattr(array, name)()
    with np.errstate(over="ignore"):
        numpy_sum = array.sum()
    assert blocks.sum().dtype == numpy_sum.dtype
    if array.dtype.kind in "biu":
        assert blocks.sum() == numpy_sum
    for name in ("mean", "var", "std"):
        found = getattr(blocks, name)()
        assert found.dtype == getattr(array, name)().dtype
        close = 4 * float(np.finfo(found.dtype).eps)
        bound = ulps_of_sum(wide) / wide.size
        assert found == pytest.approx(getattr(wide, name)(), rel=close, abs=bound)


def test_sums_are_within_the_bound(tmp_path: Path) -> None:
    """The sum of floats differs from the exact one by at most the bound that is documented, and
    the variance of numbers far from zero keeps its digits."""
    array = numbers(LONG)
    assert abs(ff.Blocks(saved(tmp_path, array)).sum() - math.fsum(array)) <= ulps_of_sum(array)
    array = 1e9 + np.tile([4.0, 7.0, 13.0, 16.0], LONG // 4)
    assert ff.Blocks(saved(tmp_path, array)).var() == pytest.approx(22.5, rel=1e-12)


@given(
    array=hnp.arrays(
        hnp.floating_dtypes(sizes=(32, 64), endianness="="),
        hnp.array_shapes(max_dims=3, min_side=1, max_side=7),
        elements=st.floats(width=32, allow_subnormal=False),
    )
)
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_nan_and_infinity(array: np.ndarray[Any, Any], tmp_path: Path) -> None:
    """NaN and infinities come through as in NumPy: the first NaN is the extreme, and its place."""
    blocks = ff.Blocks(saved(tmp_path, array), on="serial")
    with np.errstate(all="ignore"):
        assert np.array_equal(blocks.min(), array.min(), equal_nan=True)
        assert np.array_equal(blocks.max(), array.max(), equal_nan=True)
        assert (blocks.argmin(), blocks.argmax()) == (array.argmin(), array.argmax())
        assert np.isnan(blocks.mean()) == np.isnan(array.astype("f8").mean())


def test_the_first_of_equals_is_found_across_blocks(tmp_path: Path) -> None:
    """argmin and argmax give the first of equal extremes, and the first NaN, wherever they lie."""
    array = np.zeros(5 * 2**16)
    array[[70_000, 200_000]] = 1
    assert ff.Blocks(saved(tmp_path, array), memory="16MB").argmax() == 70_000
    assert ff.Blocks(saved(tmp_path, array), memory="16MB").argmin() == 0
    array[[150_000, 300_000]] = np.nan
    assert ff.Blocks(saved(tmp_path, array), memory="16MB").argmin() == 150_000


@pytest.mark.parametrize("dtype", ["f8", "i8", "c16"])
def test_many_tiles_at_once_have_the_same_bits(dtype: str, tmp_path: Path) -> None:
    """What is mapped is added up in large parts, and what is read, as the file is open for writing,
    tile by tile; small blocks are a few tiles each. The bits are the same."""
    path = saved(tmp_path, of_dtype(dtype, SPAN + 3 * TILE + 99))
    mapped = [getattr(ff.Blocks(path), name)() for name in ("sum", "min")]
    with open(path, "r+b"):
        read = [getattr(ff.Blocks(path), name)() for name in ("sum", "min")]
    small = [getattr(ff.Blocks(path, memory="32MB"), name)() for name in ("sum", "min")]
    assert same_bits(mapped, read)
    assert same_bits(mapped, small)


def test_fortran_order(tmp_path: Path) -> None:
    """A file in Fortran's order has the same answers, and places are those of the array."""
    array = np.asfortranarray(np.round(numbers(200_000).reshape(400, 500), 1))
    array[[3, 390], [400, 2]] = array.min() - 1
    blocks = ff.Blocks(saved(tmp_path, array))
    assert (blocks.min(), blocks.argmin(), blocks.argmax()) == (
        array.min(),
        array.argmin(),
        array.argmax(),
    )
    assert blocks.reduce(lambda b: b[:, 7].sum(), np.add) == pytest.approx(array[:, 7].sum())


# Places -------------------------------------------------------------------------------------------


def all_bits(blocks: ff.Blocks) -> bytes:
    names = ("sum", "mean", "var", "std", "min", "max", "argmin", "quantile")
    results = [getattr(blocks, name)(*[0.3] * (name == "quantile")) for name in names]
    counts, edges = blocks.histogram(20)
    fit = blocks.linear_fit(blocks)
    return b"".join(np.asarray(part).tobytes() for part in (*results, counts, edges, fit))


def test_bits_do_not_depend_on_the_place(tmp_path: Path) -> None:
    """Serial, threads and processes, with 1, 2 and 5 workers, an executor of the standard library,
    and another budget: every bit of every statistic of a file is the same."""
    path = saved(tmp_path, numbers(11 * 2**16 + 77))
    expected = all_bits(ff.Blocks(path, on="serial"))
    for on, workers, memory in (
        ("threads", 1, "256MB"),
        ("threads", 2, "32MB"),
        ("threads", 5, "64MB"),
    ):
        found = all_bits(ff.Blocks(path, on=on, workers=workers, memory=memory))
        assert found == expected, (on, workers, memory)
    with ThreadPoolExecutor(3) as pool:
        assert all_bits(ff.Blocks(path, on=pool, workers=3)) == expected
    with ff.executor("processes", 2) as pool:
        assert all_bits(ff.Blocks(path, on=pool)) == expected


def test_bits_do_not_depend_on_how_bytes_are_reached(tmp_path: Path) -> None:
    """A file that somebody has open for writing is read and not mapped, with the same bits; so is
    a file whose elements are not aligned."""
    array = numbers(4 * 2**16 + 77)
    path = saved(tmp_path, array)
    expected = all_bits(ff.Blocks(path))
    with open(path, "r+b"):
        assert all_bits(ff.Blocks(path)) == expected
    raw = tmp_path / "array.bin"
    raw.write_bytes(b"odd" + array.tobytes())
    assert all_bits(ff.Blocks(raw, dtype="f8", offset=3)) == expected


def test_a_durable_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With run= a statistic is a durable run of that name, with the same bits; when it is asked
    for again nothing is read again, and for a changed file it says so."""
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path, numbers(LONG))
    blocks = ff.Blocks(path, run="long", on="threads", memory="32MB")
    assert same_bits(blocks.mean(), ff.Blocks(path).mean())
    assert ff.Run.open("long-mean").status().state == "done"
    assert same_bits(blocks.mean(), ff.Blocks(path).mean())
    for q in (0.5, 0.9):
        assert same_bits(blocks.quantile(q), ff.Blocks(path).quantile(q))
    for bins in (3, [0.0, 1.0]):
        assert same_bits(blocks.histogram(bins)[0], ff.Blocks(path).histogram(bins)[0])
    np.save(path, np.zeros(LONG))
    with pytest.raises(ff.RunChanged):
        ff.Blocks(path, run="long", on="threads", memory="32MB").mean()


# The others ---------------------------------------------------------------------------------------


def test_histogram_counts_as_numpy_does(tmp_path: Path) -> None:
    """By a number of bins, by edges and by a range, the counts and the edges are NumPy's."""
    array = numbers(LONG)
    blocks = ff.Blocks(saved(tmp_path, array))
    for arguments in ((10,), ([-5, 0, 1, 100],), (7, (-3, 3)), (1000, (0, 1e4))):
        found, expected = blocks.histogram(*arguments), np.histogram(array, *arguments)
        assert all(map(same_bits, found, expected)), arguments


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i4", "i8", "u8", "f2", "f4", "f8"])
def test_exact_quantiles(dtype: str, tmp_path: Path) -> None:
    """The quantiles of real numbers of any dtype are those of numpy.quantile."""
    array = of_dtype(dtype)
    q = [0, 0.01, 0.5, 0.99, 1]
    found = ff.Blocks(saved(tmp_path, array)).quantile(q)
    sorted_ = np.sort(array).astype("f8")
    np.testing.assert_allclose(found, np.quantile(sorted_, q), rtol=1e-15)


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_approximate_quantiles_keep_their_bound(passes: int, tmp_path: Path) -> None:
    """After fewer passes the true quantile lies within the error that is told, and that shrinks
    as documented."""
    array = numbers(LONG)
    q = [0.001, 0.25, 0.5, 0.9]
    found = ff.Blocks(saved(tmp_path, array)).quantile(q, passes=passes)
    for estimate, exact in zip(found, np.quantile(array, q), strict=True):
        assert abs(estimate.value - exact) <= estimate.error
        assert estimate.error <= abs(exact) * {1: 0.0626, 2: 5e-7, 3: 7.3e-12}[passes]


def test_quantiles_at_infinity(tmp_path: Path) -> None:
    """Infinities among the elements are elements; an estimate next to one has no finite error."""
    array = np.array([-np.inf, 1.0, 2.0, np.inf])
    blocks = ff.Blocks(saved(tmp_path, array))
    assert blocks.quantile([0, 1 / 3, 1]).tolist() == [-np.inf, 1.0, np.inf]
    for estimate in blocks.quantile([0, 1], passes=1):
        assert not estimate.error < np.inf


def test_quantiles_with_nan(tmp_path: Path) -> None:
    """One NaN makes every quantile NaN, as in NumPy."""
    array = np.array([1.0, np.nan, 3.0])
    assert np.isnan(ff.Blocks(saved(tmp_path, array)).quantile([0, 0.5])).all()


def test_linear_fit(tmp_path: Path) -> None:
    """The line of least squares, its correlation and the error of its slope are SciPy's."""
    from scipy.stats import linregress

    x = numbers(LONG, 1)
    y = 3 * x + 5 + numbers(LONG, 2)
    (tmp_path / "y.bin").write_bytes(y.astype(">f4").tobytes())
    fit = ff.Blocks(saved(tmp_path, x)).linear_fit(ff.Blocks(tmp_path / "y.bin", dtype=">f4"))
    expected = linregress(x, y.astype("f4"))
    assert fit[:4] == pytest.approx(
        (expected.slope, expected.intercept, expected.rvalue, expected.stderr), rel=1e-9
    )
    assert fit.points == LONG


def test_reduce_of_the_users_own(tmp_path: Path) -> None:
    """map gets arrays of whole rows, combine joins neighbours in order, finalize gets the last."""
    array = np.arange(600_000.0).reshape(6000, 100)
    blocks = ff.Blocks(saved(tmp_path, array), memory="16MB")
    assert blocks.plan("reduce").blocks > 3
    rows = blocks.reduce(lambda block: [block[:, 0]], lambda a, b: a + b, np.concatenate)
    assert np.array_equal(rows, array[:, 0])


# Nothing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4)])
def test_nothing_at_all(shape: tuple[int, ...], tmp_path: Path) -> None:
    """Of no elements NumPy's answers: a sum of zero, a mean of NaN with its warning, and its error
    for what there is none of."""
    array = np.zeros(shape, "f4")
    blocks = ff.Blocks(saved(tmp_path, array))
    assert (blocks.sum(), blocks.sum().dtype) == (0, np.dtype("f4"))
    for name in ("mean", "var", "std"):
        with pytest.warns(RuntimeWarning), np.errstate(all="ignore"):
            assert np.isnan(getattr(blocks, name)())
    for name in EXACT:
        with pytest.raises(ValueError, match=r"empty|zero-size"):
            getattr(blocks, name)()
    assert blocks.histogram(4)[0].tolist() == [0] * 4
    assert np.isnan(blocks.linear_fit(blocks).slope)
    assert blocks.reduce(np.size, np.add) == 0
    assert np.load(blocks.map(np.sqrt, tmp_path / "out.npy")._source.path).shape == shape


def test_degrees_of_freedom(tmp_path: Path) -> None:
    """ddof is NumPy's; where nothing is left to divide by, so are the warning and the answer."""
    array = np.array([1.0, 2.0, 4.0])
    blocks = ff.Blocks(saved(tmp_path, array))
    assert blocks.var(ddof=1) == array.var(ddof=1)
    assert blocks.std(1) == array.std(ddof=1)
    for ddof in (3, 5):
        with pytest.warns(RuntimeWarning, match="Degrees of freedom"):
            assert blocks.var(ddof=ddof) == math.inf


def test_one_number(tmp_path: Path) -> None:
    """An array of no axes is one element."""
    blocks = ff.Blocks(saved(tmp_path, np.array(2.5)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (blocks.shape, blocks.mean(), blocks.var(), blocks.argmax()) == ((), 2.5, 0, 0)
    assert blocks.reduce(float, max) == 2.5
