"""Vector code that LLVM would not find by itself, written as its instructions: one tile of a matrix product, and the
transposition and copy of a tile. `scaling_sim_numba.kernels.product` builds matrix products of any size from them.

A tile of c has `TILE_ROWS` rows of two vectors. All of it stays in registers while the sum runs: each step loads two
vectors of b, and one number of a per row, for ``2 · TILE_ROWS`` fused multiply-adds.
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import functools
from typing import Any

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

_INDEX = ir.IntType(64)
_FLAGS = ["contract"]


def has_feature(name: str) -> bool:
    """Whether Numba compiles for processors with this feature: those of this one, or of ``NUMBA_CPU_FEATURES``."""
    chosen = numba.config.CPU_FEATURES
    return bool(llvm.get_host_cpu_features().get(name, False)) if chosen is None else f"+{name}" in chosen.split(",")


@functools.cache
def vector_bytes() -> int:
    """Bytes of the widest vectors."""
    return 64 if has_feature("avx512f") else 32 if has_feature("avx2") else 16


_IS_ARM = llvm.get_process_triple().startswith(("aarch64", "arm64"))
TILE_ROWS = 8 if vector_bytes() == 64 or _IS_ARM else 4
"""Rows of a tile: eight where there are 32 vector registers, four where there are 16."""

TILE_VECTORS = 2


class _Code:
    """Shorthand for the vector instructions of one intrinsic."""

    def __init__(self, context: Any, builder: Any, kind: Any) -> None:
        self.builder = builder
        self.bytes = kind.bitwidth // 8
        self.lanes = vector_bytes() // self.bytes
        self.vector = ir.VectorType(context.get_data_type(kind), self.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)

    def _pointer(self, data: Any, offset: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(data, [offset]), self.vector.as_pointer())

    def load(self, data: Any, offset: Any) -> Any:
        value = self.builder.load(self._pointer(data, offset))
        value.align = self.bytes
        return value

    def store(self, value: Any, data: Any, offset: Any) -> None:
        self.builder.store(value, self._pointer(data, offset)).align = self.bytes

    def shuffle(self, low: Any, high: Any, lanes: list[int]) -> Any:
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), lanes)
        return self.builder.shuffle_vector(low, high, mask)

    def broadcast(self, number: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
        return self.shuffle(first, undefined, [0] * self.lanes)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        return self.builder.fadd(self.builder.fmul(a, b, flags=_FLAGS), c, flags=_FLAGS)

    def offset(self, base: Any, row: Any, stride: Any, column: int = 0) -> Any:
        """base + row · stride + column, in numbers."""
        builder = self.builder
        return builder.add(base, builder.add(builder.mul(_constant(row), stride), _INDEX(column)))


def _constant(value: Any) -> Any:
    return _INDEX(value) if isinstance(value, int) else value


def multiply_tile(rows: int, vectors: int, transposed: bool) -> Any:
    """An intrinsic: c ← a·b, or c + a·b where ``add``, for a tile of ``rows`` rows of ``vectors`` vectors.

    A matrix is a pointer, its first element's offset and its stride between rows. ``a`` is (rows, depth), or
    (depth, rows) if ``transposed``; ``b`` is (depth, columns), ``c`` (rows, columns). Every element of c is one sum in
    the order of its terms, whatever the tile.
    """

    @intrinsic
    def tile(
        typingctx: Any, a: Any, a_first: Any, a_stride: Any, b: Any, b_first: Any, b_stride: Any, depth: Any,
        c: Any, c_first: Any, c_stride: Any, add: Any,
    ) -> Any:  # fmt: skip
        size = types.intp
        signature = types.void(a, size, size, b, size, size, size, c, size, size, types.boolean)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, a_first, a_stride, b, b_first, b_stride, depth, c, c_first, c_stride, add = arguments
            code = _Code(context, builder, signature.args[7].dtype)
            grid = [(r, v) for r in range(rows) for v in range(vectors)]
            sums = {place: cgutils.alloca_once_value(builder, code.zero) for place in grid}
            with cgutils.for_range(builder, depth) as loop:
                b_row = [
                    code.load(b, code.offset(b_first, loop.index, b_stride, v * code.lanes)) for v in range(vectors)
                ]
                for r in range(rows):
                    if transposed:
                        place = code.offset(a_first, loop.index, a_stride, r)
                    else:
                        place = builder.add(code.offset(a_first, r, a_stride), loop.index)
                    number = code.broadcast(builder.load(builder.gep(a, [place])))
                    for v in range(vectors):
                        total = sums[r, v]
                        builder.store(code.multiply_add(number, b_row[v], builder.load(total)), total)
            with builder.if_else(add) as (adds, sets):
                for branch, before in ((adds, True), (sets, False)):
                    with branch:
                        for r, v in grid:
                            place = code.offset(c_first, r, c_stride, v * code.lanes)
                            total = builder.load(sums[r, v])
                            if before:
                                total = builder.fadd(code.load(c, place), total, flags=_FLAGS)
                            code.store(total, c, place)
            return context.get_dummy_value()

        return signature, generate

    return tile


@intrinsic
def transpose_tile(typingctx: Any, x: Any, x_first: Any, x_stride: Any, y: Any, y_first: Any, y_stride: Any) -> Any:
    """y ← xᵀ for a square of as many rows as a vector has numbers, each given as in `multiply_tile`.

    Bit by bit, the numbers whose row and column differ in that bit change places with their mirror images.
    """
    signature = types.void(x, types.intp, types.intp, y, types.intp, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, x_first, x_stride, y, y_first, y_stride = arguments
        code = _Code(context, builder, signature.args[0].dtype)
        rows = [code.load(x, code.offset(x_first, r, x_stride)) for r in range(code.lanes)]
        bit = 1
        while bit < code.lanes:
            for r in [r for r in range(code.lanes) if not r & bit]:
                low, high = rows[r], rows[r + bit]
                rows[r] = code.shuffle(low, high, [c + code.lanes - bit if c & bit else c for c in range(code.lanes)])
                rows[r + bit] = code.shuffle(
                    low, high, [c + code.lanes if c & bit else c + bit for c in range(code.lanes)]
                )
            bit *= 2
        for r, row in enumerate(rows):
            code.store(row, y, code.offset(y_first, r, y_stride))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def copy_vector(typingctx: Any, x: Any, x_first: Any, y: Any, y_first: Any) -> Any:
    """Copy one vector from the memory at ``x`` to that at ``y``."""
    signature = types.void(x, types.intp, y, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, x_first, y, y_first = arguments
        code = _Code(context, builder, signature.args[0].dtype)
        code.store(code.load(x, x_first), y, y_first)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def vector_lanes(typingctx: Any, like: Any) -> Any:
    """How many numbers of the type that pointer ``like`` points to a vector holds."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _INDEX(vector_bytes() * 8 // like.dtype.bitwidth)

    return types.intp(like), generate


@intrinsic
def pointer(typingctx: Any, array: Any) -> Any:
    """The address of an array's first element."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return make_array(signature.args[0])(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic
def stack_memory(typingctx: Any, like: Any, size: Any) -> Any:
    """Room for ``size`` numbers (a constant) of the type of pointer ``like`` on the stack; not initialised."""
    if not isinstance(size, types.IntegerLiteral):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = cgutils.alloca_once(builder, context.get_data_type(like.dtype), size=size.literal_value)
        data.align = 64
        return data

    return like(like, size), generate
