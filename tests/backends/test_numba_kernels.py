"""Kernels one by one against NumPy, and the compiler cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from scaling_sim.engine.philox import philox4x32
from scaling_sim_numba.kernels.compiler import kernel
from scaling_sim_numba.kernels.model import Dropout
from scaling_sim_numba.kernels.product import DEPTH, LOWER_LEFT, LOWER_RESULT, UPPER_LEFT, causal_gemm, gemm
from scaling_sim_numba.kernels.scalar import exp, order_key, order_value, row_maximum
from scaling_sim_numba.kernels.tile import TILE_ROWS
from scaling_sim_numba.kernels.views import general
from scaling_sim_numba.philox import dropout

pytestmark = pytest.mark.numba


@kernel
def exponentials(x, y):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        y[i] = exp(x[i])


def test_exponential_is_within_two_units_of_the_last_place() -> None:
    x = np.linspace(-87, 88, 200_001).astype(np.float32)
    y = np.empty_like(x)
    exponentials(x, y)
    expected = np.exp(x.astype(np.float64))
    assert np.abs(y / expected - 1).max() < 2.5e-7


def test_exponential_of_extremes() -> None:
    x = np.array([-np.inf, -1e30, 0, np.nan, -np.nan, *[np.nan] * 16], np.float32)
    y = np.empty_like(x)
    exponentials(x, y)
    assert (y[:2] < 2e-38).all()
    assert y[2] == 1
    assert np.isnan(y[3:]).all()


def test_row_maximum_orders_like_real_numbers() -> None:
    rng = np.random.default_rng(0)
    for real in (np.float32, np.float64):
        x = rng.normal(size=(40, 37)).astype(real) * 10.0 ** rng.integers(-30, 30, (40, 1))
        x = x.astype(real)
        x[0] = -np.abs(x[0])
        x[1, 5] = np.inf
        assert [row_maximum(x, row, 37) for row in range(40)] == x.max(axis=1).tolist()
        assert row_maximum(x, 2, 7) == x[2, :7].max()
        assert [row_maximum.py_func(x, row, 37) for row in range(40)] == x.max(axis=1).tolist()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_keys_of_numbers_are_the_same_compiled_and_not(kind: type) -> None:
    """Zeros of both signs, the smallest and largest numbers, infinities and NaN among them."""

    @numba.njit
    def compiled(value):
        return order_key(value), order_value(order_key(value), value)

    limits = np.finfo(kind)
    special = [-np.inf, limits.min, -1.0, -limits.smallest_subnormal, -0.0, 0.0, limits.tiny, 1.0, limits.max, np.inf]
    x = np.array([*special, np.nan, *np.random.default_rng(0).standard_normal(50)], dtype=kind)
    keys = [order_key(value) for value in x]
    assert keys == [compiled(value)[0] for value in x]
    assert keys[:10] == sorted(keys[:10])
    back = np.array([order_value(key, x[0]) for key in keys])
    assert back.dtype == kind
    assert back.tobytes() == x.tobytes() == np.array([compiled(value)[1] for value in x], dtype=kind).tobytes()


@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize(
    "sizes",
    [(5, 7, 3), (1, 4, 6), (4, 1, 6), (4, 6, 1), (1, 1, 1), (1, 5, 1), (17, 24, 33), (64, 32, 64), (80, 40, 67)],
)
def test_gemm_of_views(beta: float, real: type, sizes: tuple[int, int, int]) -> None:
    """Transposes and blocks with a leading dimension, down to single rows and columns; b read in place and copied."""
    m, k, n = sizes
    rng = np.random.default_rng(1)
    big = [rng.normal(size=(90, 90)).astype(real) for _ in range(3)]
    for a in (big[0][2 : 2 + m, 3 : 3 + k], big[0][2 : 2 + k, 3 : 3 + m].T, np.ascontiguousarray(big[0][:m, :k])):
        for b in (big[1][1 : 1 + k, 4 : 4 + n], big[1][1 : 1 + n, 4 : 4 + k].T, np.ascontiguousarray(big[1][:n, :k]).T):
            before = big[2].copy()
            got = big[2].copy()
            gemm(a, b, beta, got[3 : 3 + m, 5 : 5 + n])
            expected = before.copy()
            expected[3 : 3 + m, 5 : 5 + n] = a @ b + beta * before[3 : 3 + m, 5 : 5 + n]
            np.testing.assert_allclose(got, expected, rtol=1e-5 if real is np.float32 else 1e-13, atol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_gemm_of_more_terms_than_a_panel_holds(beta: float) -> None:
    rng = np.random.default_rng(2)
    k = 2 * DEPTH + 37
    a, b, before = rng.normal(size=(9, k)), rng.normal(size=(k, 50)), rng.normal(size=(9, 50))
    for left, right in ((a, b), (np.ascontiguousarray(a.T).T, np.ascontiguousarray(b.T).T)):
        got = before.copy()
        gemm(left, right, beta, got)
        np.testing.assert_allclose(got, a @ b + beta * before, rtol=1e-11, atol=1e-11)


def test_gemm_multiplies_into_what_is_there_only_if_asked() -> None:
    """With β = 0 the old contents count for nothing, NaN included; a NaN in a factor is always seen."""
    a, b, c = np.ones((3, 2)), np.ones((2, 40)), np.full((3, 40), np.nan)
    gemm(a, b, 0.0, c)
    assert (c == 2).all()
    a[1, 1] = np.nan
    gemm(a, b, 0.0, c)
    assert np.isnan(c[1]).all()
    assert (c[[0, 2]] == 2).all()


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize(("first", "queries"), [(0, 64), (0, 13), (128, 40), (1280, 25)])
def test_causal_products_are_parts_of_whole_ones(real: type, first: int, queries: int) -> None:
    """Queries ``first ..`` see the keys up to their own; what must not be looked at is NaN."""
    rng = np.random.default_rng(3)
    keys, width = first + queries, 19
    x, y = rng.normal(size=(queries, width)).astype(real), rng.normal(size=(keys, width)).astype(real)
    seen = np.arange(keys) <= first + np.arange(queries)[:, None]
    p = np.where(seen, rng.normal(size=(queries, keys)), 0).astype(real)
    tile_end = first + (np.arange(queries) // TILE_ROWS + 1) * TILE_ROWS
    left = np.where(np.arange(keys) >= tile_end[:, None], np.nan, p).astype(real)
    tolerance = 1e-3 if real is np.float32 else 1e-11
    scores, out, grad = np.zeros((queries, keys), real), np.zeros((queries, width), real), np.zeros((keys, width), real)
    causal(x, y.T, scores, LOWER_RESULT, first)
    np.testing.assert_allclose(scores[seen], (x @ y.T)[seen], rtol=0, atol=tolerance)
    causal(left, y, out, LOWER_LEFT, first)
    np.testing.assert_allclose(out, p @ y, rtol=0, atol=tolerance)
    causal(left.T, x, grad, UPPER_LEFT, first)
    np.testing.assert_allclose(grad, p.T @ x, rtol=0, atol=tolerance)


@kernel
def causal(a, b, c, part, first):  # type: ignore[no-untyped-def]
    causal_gemm(general(a), general(b), 0.0, general(c), part, first)


def test_dropout_words_are_the_engine_s() -> None:
    seed, step, site, first_row, rate = (3 << 32) + 17, 5, 4, 1000, 0.3
    x = np.ones((6, 10))
    dropout(x, Dropout(rate, round(rate * 2**32), seed & 0xFFFFFFFF, seed >> 32), step, site, first_row)
    rows, groups = np.meshgrid(first_row + np.arange(6), np.arange(3), indexing="ij")
    counters = np.stack([np.full_like(rows, step), np.full_like(rows, site), rows, groups], axis=-1).astype(np.uint64)
    words = philox4x32(counters, (seed & 0xFFFFFFFF, seed >> 32)).reshape(6, 12)[:, :10]
    np.testing.assert_allclose(x, (words >= round(rate * 2**32)) / (1 - rate))


PROGRAM = """
import sys, warnings
import numpy as np
from scaling_sim.errors import BackendWarning
warnings.simplefilter("error", BackendWarning) if len(sys.argv) > 1 else None
from scaling_sim_numba.kernels.compiler import cached_kernel, compile_for
from numba import float64

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    @cached_kernel
    def double(x):
        return 2 * x
    BREAK
    compile_for(double, (float64,))
    assert double(3.0) == 6.0
print(*(f"{w.category.__name__}: {w.message}" for w in caught))
"""


def run(folder: Path, cache: str, statement: str = "pass") -> str:
    script = folder / "program.py"
    script.write_text(PROGRAM.replace("BREAK", statement))
    root = Path(__file__).resolve().parents[2]
    environment = {
        "PYTHONPATH": f"{root}:{root / 'backends'}",
        "NUMBA_CACHE_DIR": cache,
        "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_working_cache_is_silent(tmp_path: Path) -> None:
    assert run(tmp_path, str(tmp_path / "cache")) == ""
    assert list((tmp_path / "cache").rglob("*.nbc"))


def test_missing_cache_warns_and_works(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    said = run(tmp_path, str(tmp_path / "file" / "cache"))
    assert said.startswith("BackendWarning: the compiler cache cannot be used")
    assert "NUMBA_CACHE_DIR" in said


def test_cache_that_breaks_later_warns_and_works(tmp_path: Path) -> None:
    """The folder goes away, as on a full disk, between the decision to cache and the moment to write."""
    cache = tmp_path / "cache"
    statement = f"import shutil, pathlib; shutil.rmtree({str(cache)!r}); pathlib.Path({str(cache)!r}).write_text('x')"
    assert run(tmp_path, str(cache), statement).startswith("BackendWarning")


def test_truncated_cache_warns_and_works(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert run(tmp_path, str(cache)) == ""
    for path in cache.rglob("*.nbc"):
        path.write_bytes(path.read_bytes()[:100])
    assert run(tmp_path, str(cache)).startswith("BackendWarning")
