"""Matrix products of any size and orientation, from the register tiles of `scaling_sim_numba.kernels.tile`.

BLAS libraries are made for large matrices, and copy both factors into the order in which they are read. Ours are a few
hundred numbers wide: ``a`` is read where it lies, and ``b`` is copied, two vectors of columns at a time, only where
that pays. Causal attention needs only part of three kinds of product; see `causal_gemm`.

The product is a C function of its own, known by name to the code that calls it: linked into every kernel that uses it,
it would double the time of compilation.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# (Numba infers the types of kernels.)

from __future__ import annotations

import functools
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from scaling_sim_numba.kernels.compiler import cached_routine, kernel, source_fingerprint
from scaling_sim_numba.kernels.tile import (
    TILE_ROWS,
    TILE_VECTORS,
    copy_vector,
    multiply_tile,
    pointer,
    stack_memory,
    transpose_tile,
    vector_bytes,
    vector_lanes,
)
from scaling_sim_numba.kernels.views import general

DEPTH = 512
"""Terms summed at once: a panel of b, ``DEPTH`` rows of two vectors, takes at most 64 KiB of the stack."""

_BYTES = vector_bytes()
_DIRECT_ROWS = 8 * TILE_ROWS
"""Up to so many rows of c, b is read where it lies: a copy would cost more than it saves."""

_PANEL = DEPTH * TILE_VECTORS * (_BYTES // 4)
_TILE = TILE_ROWS * TILE_VECTORS * (_BYTES // 4)

FULL, LOWER_RESULT, LOWER_LEFT, UPPER_LEFT = 0, 1, 2, 3
"""Which part of a product counts; see `causal_gemm`."""

_tile_2, _tile_1 = (multiply_tile(TILE_ROWS, vectors, transposed=False) for vectors in (2, 1))
_tile_2t, _tile_1t = (multiply_tile(TILE_ROWS, vectors, transposed=True) for vectors in (2, 1))
_row_2, _row_1 = (multiply_tile(1, vectors, transposed=False) for vectors in (2, 1))
_row_2t, _row_1t = (multiply_tile(1, vectors, transposed=True) for vectors in (2, 1))


@kernel
def gemm(a, b, beta, c):
    """c ← a·b + beta·c, with ``beta`` 0 or 1.

    ``a`` (m, k) and ``b`` (k, n) may be transposed views and blocks of larger matrices, ``c`` (m, n) a block of a
    row-major matrix.
    """
    causal_gemm(general(a), general(b), beta, general(c), FULL, 0)


@kernel
def causal_gemm(a, b, beta, c, part, first):
    """`gemm` where row (query) t of a block that begins at query ``first`` sees columns (keys) up to ``first + t``.

    `LOWER_RESULT`: c is wanted there only, and what lies beyond may be left as it is. `LOWER_LEFT`: a is zero beyond,
    and looked at no further than the end of a tile. `UPPER_LEFT`: a is the transpose of such a matrix. Arrays are
    `general` ones, so that one compilation serves all.
    """
    item = c.itemsize
    a_transposed, b_transposed = a.strides[1] != item, b.strides[1] != item
    _call_product(
        pointer(a), (a.strides[1] if a_transposed else a.strides[0]) // item, a_transposed,
        pointer(b), (b.strides[1] if b_transposed else b.strides[0]) // item, b_transposed,
        beta != 0.0, pointer(c), c.strides[0] // item, c.shape[0], c.shape[1], a.shape[1], part, first,
    )  # fmt: skip


def _product_signature(real: Any) -> Any:
    size, data = types.int64, types.CPointer(real)
    return types.void(data, size, size, data, size, size, size, data, *([size] * 6))


def _symbol(real: Any) -> str:
    return f"scaling_sim_product_{real}"


@functools.cache
def provide_product(real: Any) -> None:
    """Compile the product for a Numba type, or load it: to be done before cached code that calls it is loaded."""
    llvm.add_symbol(_symbol(real), cached_routine(_build(source_fingerprint()), _product_signature(real)))


@intrinsic
def _call_product(
    typingctx: Any, a: Any, a_stride: Any, a_transposed: Any, b: Any, b_stride: Any, b_transposed: Any,
    add: Any, c: Any, c_stride: Any, rows: Any, columns: Any, depth: Any, part: Any, first: Any,
) -> Any:  # fmt: skip
    """Call the product by its name; its arguments are those of ``product`` below."""
    signature = _product_signature(a.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        provide_product(a.dtype)
        routine_type = ir.FunctionType(ir.VoidType(), [context.get_value_type(kind) for kind in signature.args])
        builder.call(cgutils.get_or_insert_function(builder.module, routine_type, _symbol(a.dtype)), arguments)
        return context.get_dummy_value()

    return signature, generate


def _build(fingerprint: str) -> Any:
    """The product. Its closure holds the hash of the sources, as that of `scaling_sim_numba.kernels.steps` does."""

    def product(
        a, a_stride, a_transposed, b, b_stride, b_transposed, add, c, c_stride, rows, columns, depth, part, first
    ):  # fmt: skip
        """By panels of b (two vectors of columns, `DEPTH` rows), and in each by tiles of rows of c."""
        _ = fingerprint
        lanes = vector_lanes(a)
        for column in range(0, columns, TILE_VECTORS * lanes):
            count = min(TILE_VECTORS * lanes, columns - column)
            width = lanes if count <= lanes else TILE_VECTORS * lanes
            for start in range(0, depth, DEPTH):
                _panel(
                    a, a_stride, a_transposed != 0, b, b_stride, b_transposed != 0, add != 0 or start > 0,
                    c, c_stride, rows, column, count, width, lanes, start, min(DEPTH, depth - start), part, first,
                )  # fmt: skip

    return product


@kernel
def _panel(
    a, a_stride, a_transposed, b, b_stride, b_transposed, add, c, c_stride,
    rows, column, count, width, lanes, start, terms, part, first,
):  # fmt: skip
    """Add or set the product with one panel of b: ``count`` columns from ``column``, ``terms`` rows from ``start``."""
    panel, edge = stack_memory(b, _PANEL), stack_memory(c, _TILE)
    source, source_first, source_stride = panel, 0, width
    if not b_transposed and count == width and rows <= _DIRECT_ROWS:
        source, source_first, source_stride = b, start * b_stride + column, b_stride
    else:
        _pack(b, b_stride, b_transposed, start, terms, column, count, panel, width, lanes)
    whole = count == width
    target, target_stride = (c, c_stride) if whole else (edge, width)
    row = max(0, column - first) // TILE_ROWS * TILE_ROWS if part == LOWER_RESULT else 0
    while row < rows:
        height = TILE_ROWS if row + TILE_ROWS <= rows else 1
        low = min(terms, max(0, row - first - start)) if part == UPPER_LEFT else 0
        high = min(terms, max(0, first + row + height - start)) if part == LOWER_LEFT else terms
        a_first = (start + low) * a_stride + row if a_transposed else row * a_stride + start + low
        _tile(
            height, width == lanes, a_transposed, a, a_first, a_stride,
            source, source_first + low * source_stride, source_stride, high - low,
            target, row * c_stride + column if whole else 0, target_stride, add and whole,
        )  # fmt: skip
        if not whole:
            _copy_edge(edge, width, c, row * c_stride + column, c_stride, height, count, add)
        row += height


@kernel
def _tile(
    height, narrow, transposed, a, a_first, a_stride, b, b_first, b_stride, terms, c, c_first, c_stride, add
):  # fmt: skip
    """The tile that fits."""
    if height > 1:
        if narrow:
            if transposed:
                _tile_1t(a, a_first, a_stride, b, b_first, b_stride, terms, c, c_first, c_stride, add)
            else:
                _tile_1(a, a_first, a_stride, b, b_first, b_stride, terms, c, c_first, c_stride, add)
        elif transposed:
            _tile_2t(a, a_first, a_stride, b, b_first, b_stride, terms, c, c_first, c_stride, add)
        else:
            _tile_2(a, a_first, a_stride, b, b_first, b_stride, terms, c, c_first, c_stride, add)
    elif narrow:
        if transposed:
            _row_1t(a, a_first, a_stride, b, b_first, b_stride, terms, c, c_first, c_stride, add)
        else:
            _row_1(a, a_first, a_stride, b, b_first, b_stride, terms, c, c_first, c_stride, add)
    elif transposed:
        _row_2t(a, a_first, a_stride, b, b_first, b_stride, terms, c, c_first, c_stride, add)
    else:
        _row_2(a, a_first, a_stride, b, b_first, b_stride, terms, c, c_first, c_stride, add)


@kernel
def _copy_edge(edge, width, c, c_first, c_stride, height, count, add):
    """Move the part of a tile that lies inside c."""
    for r in range(height):
        for i in range(count):
            place = c_first + r * c_stride + i
            c[place] = c[place] + edge[r * width + i] if add else edge[r * width + i]


@kernel
def _pack(b, b_stride, b_transposed, start, terms, column, count, panel, width, lanes):
    """Copy rows ``start ..`` and columns ``column ..`` of b into a row-major panel, filled up with zeros."""
    if not b_transposed and count == width:
        for p in range(terms):
            for i in range(0, width, lanes):
                copy_vector(b, (start + p) * b_stride + column + i, panel, p * width + i)
        return
    done = 0
    if b_transposed and count == width:
        done = terms // lanes * lanes
        for i in range(0, width, lanes):
            for p in range(0, done, lanes):
                transpose_tile(b, (column + i) * b_stride + start + p, b_stride, panel, p * width + i, width)
    p_stride, i_stride = (1, b_stride) if b_transposed else (b_stride, 1)
    for p in range(done, terms):
        for i in range(width):
            panel[p * width + i] = b[(start + p) * p_stride + (column + i) * i_stride] if i < count else 0.0
