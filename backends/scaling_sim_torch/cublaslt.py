"""cuBLASLt by ctypes: products that PyTorch does not offer, and the fastest algorithm by trial.

PyTorch takes the first algorithm that cuBLASLt proposes. For wide results (queries with keys and values, the
feed-forward half, logits) that is up to 14 % slower than the best of its eight proposals on an H200, and it offers no
product that writes GELU of its result beside the result. All matrices are row-major here.
"""

from __future__ import annotations

import ctypes
import statistics
from ctypes import Structure, byref, c_float, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p, sizeof
from functools import cache
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from scaling_sim_torch.compiling import note, noted

PROPOSALS = 8
ROUNDS, LAUNCHES = 4, 4
"""Of a trial: every algorithm is timed in each round."""
WORKSPACE = 64 * 2**20
BFLOAT16, FLOAT32, SUMS_IN_FLOAT32 = 14, 0, 68
"""Codes of cudaDataType and cublasComputeType."""
TRANSPOSE_FIRST, EPILOGUE, AUXILIARY, AUXILIARY_ROW = 3, 7, 11, 12
"""Attributes of a product's description."""
GELU_BESIDE_INPUT = 32 | 128
"""An epilogue: the result is GELU (tanh form), its input goes to the auxiliary matrix."""
MOST_WORKSPACE, ALIGNMENTS = 1, (5, 6, 7, 8)
"""Attributes of a preference: bytes, and bytes that the addresses of both factors, addend and result divide by."""


class Refused(RuntimeError):
    """A call of cuBLASLt that failed."""


class _Proposal(Structure):
    _fields_ = (
        ("algorithm", c_uint64 * 8), ("workspace", c_size_t), ("state", c_int), ("waves", c_float),
        ("reserved", c_int * 4),
    )  # fmt: skip


@cache
def library() -> ctypes.CDLL | None:
    """The library that PyTorch has loaded; None where there is none."""
    if torch.version.cuda is None or not torch.cuda.is_available():
        return None
    try:
        return ctypes.CDLL(f"libcublasLt.so.{torch.version.cuda.split('.')[0]}")
    except OSError:
        return None


def product(a_RK: Tensor, b: Tensor, *, transposed: bool, beside: bool = False) -> tuple[Tensor, Tensor | None] | None:
    """a·bᵀ with ``transposed`` (b is (N, K)), else a·b (b is (K, N)); None where cuBLASLt does not serve.

    Parameters
    ----------
    a_RK, b : contiguous bfloat16 tensors on one card
    beside : bool
        Result is GELU of the product, and the product is returned beside it.

    Returns
    -------
    (R, N) result and the product itself, if asked for.
    """
    if library() is None:
        return None
    out_RN = a_RK.new_empty(len(a_RK), b.shape[0 if transposed else 1])
    input_RN = torch.empty_like(out_RN) if beside else None
    tensors = (b, a_RK, out_RN, out_RN)
    alignments = tuple(min(256, tensor.data_ptr() & -tensor.data_ptr()) for tensor in tensors)
    with torch.cuda.device(a_RK.device):
        problem = _problem(a_RK.device.index, *a_RK.shape, out_RN.shape[1], transposed, beside, alignments)
        if problem is None:
            return None
        try:
            with _LOCK:
                problem.run(a_RK, b, out_RN, input_RN)
        except Refused:
            return None
    return out_RN, input_RN


class _Problem:
    """Products of one size: what cuBLASLt proposes, and which of it is the fastest.

    It counts by columns, where a row-major (R, N) result is the (N, R) product of b and a.
    """

    def __init__(
        self, device: int, rows: int, inner: int, columns: int, transposed: bool, beside: bool,
        alignments: tuple[int, ...],
    ) -> None:  # fmt: skip
        self.handle, self.columns = _handle(device), columns
        self.description = _made("MatmulDescCreate", c_int(SUMS_IN_FLOAT32), c_int(FLOAT32))
        self._describe(TRANSPOSE_FIRST, c_int32(transposed))
        if beside:
            self._describe(EPILOGUE, c_int32(GELU_BESIDE_INPUT))
            self._describe(AUXILIARY, c_uint64(256))  # any address: proposals depend on its alignment alone
            self._describe(AUXILIARY_ROW, c_int64(columns))
        first = (inner, columns) if transposed else (columns, inner)
        self.layouts = [_layout(*first), _layout(inner, rows), _layout(columns, rows)]
        self.proposals = self._ask(alignments)
        card = torch.cuda.get_device_name(device)
        sizes = (rows, inner, columns, transposed, beside, *alignments, len(self.proposals))
        self.name = f"cuBLASLt {_function('GetVersion')()} on {card}: {sizes}"
        self.tried = False
        self.chosen = 0 if len(self.proposals) == 1 else noted(self.name, below=len(self.proposals))

    def _describe(self, attribute: int, value: Any) -> None:
        _call("MatmulDescSetAttribute", self.description, c_int(attribute), byref(value), c_size_t(sizeof(value)))

    def _ask(self, alignments: tuple[int, ...]) -> list[_Proposal]:
        preference, found, count = _made("MatmulPreferenceCreate"), (_Proposal * PROPOSALS)(), c_int()
        values: list[tuple[int, Any]] = [(MOST_WORKSPACE, c_uint64(WORKSPACE))]
        values += [(name, c_int32(value)) for name, value in zip(ALIGNMENTS, alignments, strict=True)]
        for name, value in values:
            _call("MatmulPreferenceSetAttribute", preference, c_int(name), byref(value), c_size_t(sizeof(value)))
        first, second, result = self.layouts
        asked = (first, second, result, result, preference, c_int(PROPOSALS), byref(found), byref(count))
        status = _function("MatmulAlgoGetHeuristic")(self.handle, self.description, *asked)
        _call("MatmulPreferenceDestroy", preference)
        return [one for one in found[: count.value] if one.state == 0] if status == 0 else []

    def run(self, a: Tensor, b: Tensor, out: Tensor, beside: Tensor | None) -> None:
        """The product by the fastest algorithm, as known from another process; else the first call that may wait for
        the card tries them all."""
        if beside is not None:
            self._describe(AUXILIARY, c_uint64(beside.data_ptr()))
        if self.chosen is None and not torch.cuda.is_current_stream_capturing():
            self._choose(a, b, out)
        try:
            self._launch(self.chosen or 0, a, b, out)
        except Refused:
            if self.tried or torch.cuda.is_current_stream_capturing():
                raise
            self._choose(a, b, out)  # what another process noted does not serve here
            self._launch(self.chosen or 0, a, b, out)

    def _choose(self, a: Tensor, b: Tensor, out: Tensor) -> None:
        self.chosen, self.tried = self._fastest(a, b, out), True
        note(self.name, self.chosen)

    def _launch(self, index: int, a: Tensor, b: Tensor, out: Tensor) -> None:
        proposal, (first, second, result) = self.proposals[index], self.layouts
        workspace = torch.empty(proposal.workspace, dtype=torch.uint8, device=a.device)
        place = c_void_p(out.data_ptr())
        _call(
            "Matmul", self.handle, self.description, byref(c_float(1)), c_void_p(b.data_ptr()), first,
            c_void_p(a.data_ptr()), second, byref(c_float(0)), place, result, place, result, byref(proposal.algorithm),
            c_void_p(workspace.data_ptr()), c_size_t(proposal.workspace),
            c_void_p(torch.cuda.current_stream().cuda_stream),
        )  # fmt: skip

    def _fastest(self, a: Tensor, b: Tensor, out: Tensor) -> int:
        rounds = [[self._seconds(index, a, b, out) for index in range(len(self.proposals))] for _ in range(ROUNDS + 1)]
        medians = [statistics.median(times) for times in zip(*rounds[1:], strict=True)]
        return medians.index(min(medians))

    def _seconds(self, index: int, a: Tensor, b: Tensor, out: Tensor) -> float:
        """Of some launches; infinite where an algorithm was proposed and refuses."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        try:
            for _ in range(LAUNCHES):
                self._launch(index, a, b, out)
        except Refused:
            return float("inf")
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))


_LOCK = Lock()
"""A description is told where its auxiliary matrix lies just before the launch."""


@cache
def _problem(*key: Any) -> _Problem | None:
    """None, once and for all, where cuBLASLt refuses or proposes nothing."""
    try:
        problem = _Problem(*key)
    except Refused:
        return None
    return problem if problem.proposals else None


@cache
def _handle(device: int) -> c_void_p:
    return _made("Create")


def _layout(rows: int, columns: int) -> c_void_p:
    """Of a dense matrix by columns."""
    return _made("MatrixLayoutCreate", c_int(BFLOAT16), c_uint64(rows), c_uint64(columns), c_int64(rows))


def _made(name: str, *arguments: Any) -> c_void_p:
    made = c_void_p()
    _call(name, byref(made), *arguments)
    return made


def _call(name: str, *arguments: Any) -> None:
    status = _function(name)(*arguments)
    if status:
        raise Refused(f"cublasLt{name} failed with status {status}")


def _function(name: str) -> Any:
    try:
        return getattr(library(), f"cublasLt{name}")
    except AttributeError as error:
        raise Refused(str(error)) from error
