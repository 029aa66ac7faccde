"""A barrier between the threads of one team, inside compiled code: about 0.1 µs, where a fork and join costs 10 µs."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# (Numba infers the types of kernels.)

from __future__ import annotations

import ctypes
import sys
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from scaling_sim_numba.kernels.compiler import kernel

_SPINS = 2000
"""Polls before a waiting thread offers its core to others; a team may have more threads than there are free cores."""

_YIELD = "scaling_sim_yield"


def _yield_address() -> int:
    library: Any
    if sys.platform == "win32":
        library = ctypes.WinDLL("kernel32").SwitchToThread
    else:
        library = ctypes.CDLL(None).sched_yield
    return int(ctypes.cast(library, ctypes.c_void_p).value or 0)


llvm.add_symbol(_YIELD, _yield_address())


@intrinsic
def _atomic_add(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Add to an int64 element, sequentially consistent; returns the old value."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [arguments[1]]), arguments[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), generate


@intrinsic
def _atomic_load(typingctx: Any, array: Any, index: Any) -> Any:
    """Read an int64 element, sequentially consistent."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(builder.gep(data, [arguments[1]]), "seq_cst", 8)

    return types.int64(array, types.intp), generate


@intrinsic
def _yield_core(typingctx: Any) -> Any:
    """Let another thread have the core."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        routine_type = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, routine_type, _YIELD), [])
        return context.get_dummy_value()

    return types.void(), generate


@kernel
def wait(barrier, team):
    """Return when all ``team`` threads have called. ``barrier`` is (2,) int64, zero at first: arrivals, generation."""
    if team == 1:
        return
    generation = _atomic_load(barrier, 1)
    if _atomic_add(barrier, 0, 1) == team - 1:
        _atomic_add(barrier, 0, -team)
        _atomic_add(barrier, 1, 1)
        return
    spins = 0
    while _atomic_load(barrier, 1) == generation:
        spins += 1
        if spins > _SPINS:
            _yield_core()
