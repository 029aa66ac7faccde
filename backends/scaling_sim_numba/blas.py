"""Matrix products inside Numba kernels, by the BLAS that SciPy brings; its core type and its number of threads."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# (Numba infers the types of kernels.)

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections.abc import Iterator
from typing import Any

import llvmlite.binding as llvm
import scipy.linalg.cython_blas as cython_blas
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic

from scaling_sim_numba.kernels.compiler import kernel

_SYMBOL = {types.float32: "scaling_sim_sgemm", types.float64: "scaling_sim_dgemm"}
_NO_TRANSPOSE, _TRANSPOSE = ord("N"), ord("T")

# Machine code from the cache refers to the routines by these names; they must be known before it is loaded.
# (A ctypes function object would put an address into the code, and Numba would refuse to cache it.)
for _name in _SYMBOL.values():
    llvm.add_symbol(_name, get_cython_function_address("scipy.linalg.cython_blas", _name.removeprefix("scaling_sim_")))


@intrinsic
def _fortran_gemm(
    typingctx: Any, ta: Any, tb: Any, m: Any, n: Any, k: Any, alpha: Any, a: Any, lda: Any, b: Any, ldb: Any, beta: Any,
    c: Any, ldc: Any,
) -> Any:  # fmt: skip
    """Call ?gemm: every argument by address, the scalars in stack slots of the caller."""
    real, size = c.dtype, types.intp
    signature = types.void(size, size, size, size, size, real, a, size, b, size, real, c, size)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointers = []
        for index, (kind, value) in enumerate(zip(signature.args, arguments, strict=True)):
            if isinstance(kind, types.Array):
                pointer = context.make_array(kind)(context, builder, value).data
            elif kind == real:
                pointer = cgutils.alloca_once_value(builder, value)
            else:
                width = ir.IntType(8 if index < 2 else 32)
                pointer = cgutils.alloca_once_value(builder, builder.trunc(value, width))
            pointers.append(builder.bitcast(pointer, cgutils.voidptr_t))
        routine_type = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t] * len(pointers))
        routine = cgutils.get_or_insert_function(builder.module, routine_type, _SYMBOL[real])
        builder.call(routine, pointers)
        return context.get_dummy_value()

    return signature, generate


@kernel
def gemm(alpha, a, b, beta, c):
    """c ← alpha·a·b + beta·c.

    ``a`` (m, k) and ``b`` (k, n) may be transposed views and blocks with any leading dimension, ``c`` (m, n) a block of
    a row-major matrix. Fortran sees our rows as columns, so the product is asked for as cᵀ = bᵀ·aᵀ.
    """
    real = c.dtype.type
    item = c.itemsize
    m, n, k = c.shape[0], c.shape[1], a.shape[1]
    if a.strides[1] == item:
        ta, lda = _NO_TRANSPOSE, max(a.strides[0] // item, k)
    else:
        ta, lda = _TRANSPOSE, max(a.strides[1] // item, m)
    if b.strides[1] == item:
        tb, ldb = _NO_TRANSPOSE, max(b.strides[0] // item, n)
    else:
        tb, ldb = _TRANSPOSE, max(b.strides[1] // item, k)
    _fortran_gemm(tb, ta, n, m, k, real(alpha), b, ldb, a, lda, real(beta), c, max(c.strides[0] // item, n))


@functools.cache
def _openblas() -> dict[str, Any]:
    """The control functions of the OpenBLAS behind SciPy, by plain name; empty if it is another BLAS."""
    try:
        library = ctypes.CDLL(cython_blas.__file__)
    except OSError:
        return {}
    found = {}
    for name in ("set_num_threads", "get_num_threads", "get_corename"):
        for symbol in (f"scipy_openblas_{name}", f"scipy_openblas_{name}64_", f"openblas_{name}"):
            if hasattr(library, symbol):
                found[name] = getattr(library, symbol)
                break
    return found


def blas_core() -> str:
    """Core type that OpenBLAS chose its kernels for ("SkylakeX", "Haswell"), or "unknown" for another BLAS."""
    function = _openblas().get("get_corename")
    if function is None:
        return "unknown"
    function.restype = ctypes.c_char_p
    return bytes(function()).decode()


def blas_threads() -> int:
    """Threads that one BLAS call may use; 0 if unknown."""
    function = _openblas().get("get_num_threads")
    return 0 if function is None else int(function())


_lock = threading.Lock()
_users = 0
_threads_before = 0


@contextlib.contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Let BLAS calls run on the calling thread alone for as long as any thread is inside; then as it was before.

    Our parallelism is over sequences and members. With another BLAS than OpenBLAS this does nothing: results are right,
    only the machine may be oversubscribed.
    """
    global _users, _threads_before
    with _lock:
        if _users == 0:
            _threads_before = blas_threads()
            _set_threads(1)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _set_threads(_threads_before)


def _set_threads(number: int) -> None:
    function = _openblas().get("set_num_threads")
    if function is not None and number > 0:
        function(ctypes.c_int(number))
