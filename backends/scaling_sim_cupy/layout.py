"""Where everything lies: sizes that the kernels are compiled with, and where a parameter stands in packed arrays.

Three orders of one member's numbers exist on the device:

* flat: canonical names one after another (`Shape.parameter_shapes`), unpadded; weights, moments and gradient;
* packed operands: each matrix as the tensor cores read it, in 16×16 blocks of eight neighbouring elements per lane,
  once for products with it and once for products with its transpose; the head's matrix likewise;
* packed results: gradients as the tensor cores leave them, in 16×16 blocks of two tiles of four elements per lane.

All widths are rounded up to 16 (that of each attention head for itself); what is added stays zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from scaling_sim.model.shape import Shape
from scaling_sim_cupy.parameters import parameter_offsets, split_parameters

Positions = NDArray[np.int32]

MATRICES = ("qkv", "attn_out", "mlp_up", "mlp_down")
SUMS = ("ln1_gain", "ln1_bias", "ln2_gain", "ln2_bias")

REGISTER_FILE = 65536
"""Registers of a multiprocessor."""

WIDEST_SHARED = {False: 32, True: 16}
"""Widest model of which two CTAs share a multiprocessor, in bfloat16 and float32 (True): wider ones need more than 128
registers per thread, and run faster alone than spilling (measured; benchmarks/reports/cupy_h200_2026-11.md)."""

SHARED_PER_MULTIPROCESSOR, SHARED_RESERVED = 233472, 1024
"""Bytes of shared memory of a multiprocessor (9.0), and of what each CTA takes besides its own."""

SHARED_BESIDE_CACHE = 132 * 1024 - SHARED_RESERVED
"""Bytes of shared memory of the one CTA on a multiprocessor that still leave 124 KiB to its first-level cache (9.0)."""


def ceil16(size: int) -> int:
    """The next multiple of 16."""
    return -(-size // 16) * 16


def operand_position(k: Positions, n: Positions, num_k: int) -> Positions:
    """Place of element (k, n) of an operand b with ``num_k`` rows; both sizes are multiples of 16.

    A lane 4·g + t holds the pairs (2t.., g) and (2t+8.., g) of both tiles of a block; see ``precision.cu``.
    """
    block = n // 16 * (num_k // 16) + k // 16
    lane = 4 * (n % 8) + k % 8 // 2
    return block * 256 + lane * 8 + n % 16 // 8 * 4 + k % 16 // 8 * 2 + k % 2


def result_position(row: Positions, column: Positions, num_columns: int) -> Positions:
    """Place of element (row, column) of a result with ``num_columns`` columns, a multiple of 16."""
    block = row // 16 * (num_columns // 16) + column // 16
    lane = 4 * (row % 8) + column % 8 // 2
    return block * 256 + column % 16 // 8 * 128 + lane * 4 + row % 16 // 8 * 2 + column % 2


@dataclass(frozen=True)
class Layout:
    """Sizes and offsets of one shape in one precision.

    Attributes
    ----------
    shape : Shape
    exact : int
        Value of ``EXACT`` in ``precision.cu``: 0 bfloat16 operands, 1 float32 by split tf32, 2 float32 without tensor
        cores.
    """

    shape: Shape
    exact: int = 1

    @cached_property
    def widths(self) -> Mapping[str, int]:
        """Padded sizes: D model, C head, U all heads, F feed-forward, V vocabulary, T positions."""
        shape, head = self.shape, ceil16(self.shape.d_head)
        return {
            "D": ceil16(shape.d_model),
            "C": head,
            "U": shape.n_head * head,
            "F": ceil16(shape.d_ff),
            "V": ceil16(shape.vocab_size),
            "T": ceil16(shape.n_ctx),
        }

    @property
    def num_threads(self) -> int:
        """Of a CTA: a warp per 16 positions."""
        return 2 * self.widths["T"]

    @cached_property
    def matrix_sizes(self) -> Mapping[str, tuple[int, int]]:
        """Padded (out, in) of a layer's matrices."""
        d, u, f = (self.widths[name] for name in "DUF")
        return dict(zip(MATRICES, ((3 * u, d), (d, u), (f, d), (d, f)), strict=True))

    @cached_property
    def _packed(self) -> Mapping[str, int]:
        """Offsets of packed operands: within a layer, of a layer, and of the head."""
        sizes = [out * into for out, into in self.matrix_sizes.values()] * 2
        names = [name + side for side in ("", "_T") for name in ("QKV", "OUT", "UP", "DOWN")]
        *begins, layer = accumulate(sizes, initial=0)
        head, layers = self.widths["V"] * self.widths["D"], self.shape.n_layer * layer
        return dict(zip(names, begins, strict=True)) | {
            "LAYER": layer, "HEAD": layers, "HEAD_T": layers + head, "SIZE": layers + 2 * head,
        }  # fmt: skip

    @cached_property
    def _results(self) -> Mapping[str, int]:
        """Offsets of packed results: a layer's matrices, the head, positions, and sums (gains and biases)."""
        *begins, layer = accumulate((out * into for out, into in self.matrix_sizes.values()), initial=0)
        d, layers = self.widths["D"], self.shape.n_layer * layer
        parts = (self.widths["V"] * d, self.widths["T"] * d, (4 * self.shape.n_layer + 2) * d)
        names = ("HEAD", "POSITION", "VECTORS", "SIZE")
        return (
            dict(zip(("QKV", "OUT", "UP", "DOWN"), begins, strict=True))
            | {"LAYER": layer}
            | dict(zip(names, accumulate(parts, initial=layers), strict=True))
        )

    @property
    def num_parameters(self) -> int:
        """Of one member, unpadded."""
        return parameter_offsets(self.shape)["end"]

    @property
    def packed_size(self) -> int:
        """Packed operands of one member."""
        return self._packed["SIZE"]

    @property
    def results_size(self) -> int:
        """Packed results of one CTA."""
        return self._results["SIZE"]

    @property
    def operand_bytes(self) -> int:
        """Of one operand."""
        return 4 if self.exact else 2

    @property
    def _kept_per_lane(self) -> int:
        """Bytes that one lane keeps of one layer: input, middle, queries to values, mixed, norms."""
        d, u = self.widths["D"], self.widths["U"]
        return 16 * (2 * d // 8 + self.shape.n_head) + 8 * self.operand_bytes * (4 * u // 16)

    @property
    def kept_bytes(self) -> int:
        """Device memory of one CTA: what its backward pass needs, and the residual stream at one place."""
        parked = 16 * self.widths["D"] // 8
        return (self.shape.n_layer * self._kept_per_lane + parked) * self.num_threads

    @cached_property
    def chunks(self) -> tuple[int, int]:
        """Columns of the feed-forward part and of the vocabulary whose gradients wait in shared memory at a time.

        Larger ones mean fewer barriers; they are taken where shared memory leaves the first-level cache its size.
        """
        large, small = (
            (_widest(self.widths["F"], f), _widest(self.widths["V"], v)) for f, v in ((128, 256), (64, 128))
        )
        wide = self.widths["D"] > WIDEST_SHARED[bool(self.exact)]
        return large if wide and self._shared_bytes(large) <= SHARED_BESIDE_CACHE else small

    @property
    def shared_bytes(self) -> int:
        """Shared memory of one CTA; ``Shared`` in ``block.cu``."""
        return self._shared_bytes(self.chunks)

    def _shared_bytes(self, chunks: tuple[int, int]) -> int:
        d, u, t = (self.widths[name] for name in "DUT")
        warps, (chunk_f, chunk_v) = t // 16, chunks
        work = max(3 * u + 8, 2 * (chunk_f + 8), chunk_v + 8)
        sums = warps * (4 * self.shape.n_layer + 2) * d
        floats = sums + 2 * self.shape.n_head * t + t
        return ceil16(8 * warps + 4 * floats) + self.operand_bytes * t * (2 * (max(d, u) + 8) + work)

    @property
    def resident(self) -> int:
        """CTAs that share a multiprocessor: as many as its shared memory and registers hold."""
        wide = self.widths["D"] > WIDEST_SHARED[bool(self.exact)]
        by_registers = REGISTER_FILE // (self.num_threads * (256 if wide else 128))
        by_memory = SHARED_PER_MULTIPROCESSOR // (self.shared_bytes + SHARED_RESERVED)
        return max(1, min(by_registers, by_memory))

    def macros(self) -> dict[str, int]:
        """What the sources are compiled with, besides the type of tokens, dropout and residency."""
        shape = self.shape
        sizes = {
            "N_LAYER": shape.n_layer, "D_MODEL": shape.d_model, "N_HEAD": shape.n_head, "N_CTX": shape.n_ctx,
            "N_VOCAB": shape.vocab_size, "D_FF": shape.d_ff, "EXACT": self.exact,
            "SHARED_BYTES": self.shared_bytes, "KEPT_BYTES": self.kept_bytes, "F_CHUNK": self.chunks[0],
            "V_CHUNK": self.chunks[1],
        }  # fmt: skip
        at = parameter_offsets(shape)
        places = {
            "TOKEN": "token_embedding", "POSITION": "position_embedding", "LAYERS": "ln1_gain",
            "LN1_GAIN": "ln1_gain", "LN1_BIAS": "ln1_bias", "LN2_GAIN": "ln2_gain", "LN2_BIAS": "ln2_bias",
            "LNF_GAIN": "ln_f_gain", "LNF_BIAS": "ln_f_bias", "SIZE": "end",
        }  # fmt: skip
        return (
            sizes
            | {f"PARAM_{name}": at[parameter] for name, parameter in places.items()}
            | {f"PACK_{name}": value for name, value in self._packed.items()}
            | {f"GRAD_{name}": value for name, value in self._results.items()}
        )

    def result_positions(self) -> Positions:
        """(P,) where the gradient of each flat parameter stands in packed results."""
        flat, at = np.empty(self.num_parameters, np.int32), self._results
        pieces = self._by_name(flat)
        for name, place in zip(MATRICES, ("QKV", "OUT", "UP", "DOWN"), strict=True):
            rows, columns = self._padded(name)
            for layer in range(self.shape.n_layer):
                pieces[name][layer] = layer * at["LAYER"] + at[place] + self._result(name, rows, columns)
        d = self.widths["D"]
        for name, place in (("token_embedding", "HEAD"), ("position_embedding", "POSITION")):
            rows, columns = _indices(pieces[name].shape)
            pieces[name][...] = at[place] + result_position(rows, columns, d)
        for number, name in enumerate(SUMS):
            layers, columns = _indices(pieces[name].shape)
            pieces[name][...] = at["VECTORS"] + (4 * layers + number) * d + columns
        for number, name in enumerate(("ln_f_gain", "ln_f_bias"), start=4 * self.shape.n_layer):
            pieces[name][...] = at["VECTORS"] + number * d + np.arange(self.shape.d_model)
        return flat

    def operand_positions(self) -> tuple[Positions, Positions]:
        """(P,) where each flat parameter stands as an operand of x·Wᵀ and of grad·W; −1 for those that are none."""
        forward, backward = (np.full(self.num_parameters, -1, np.int32) for _ in range(2))
        onward, back, at = self._by_name(forward), self._by_name(backward), self._packed
        for name, place in zip(MATRICES, ("QKV", "OUT", "UP", "DOWN"), strict=True):
            rows, columns = self._padded(name)
            out, into = self.matrix_sizes[name]
            for layer in range(self.shape.n_layer):
                begin = layer * at["LAYER"]
                onward[name][layer] = begin + at[place] + operand_position(columns, rows, into)
                back[name][layer] = begin + at[f"{place}_T"] + operand_position(rows, columns, out)
        token, column = _indices(onward["token_embedding"].shape)
        onward["token_embedding"][...] = at["HEAD"] + operand_position(column, token, self.widths["D"])
        back["token_embedding"][...] = at["HEAD_T"] + operand_position(token, column, self.widths["V"])
        return forward, backward

    def _result(self, name: str, rows: Positions, columns: Positions) -> Positions:
        return result_position(rows, columns, self.matrix_sizes[name][1])

    def _by_name(self, flat: Positions) -> dict[str, Positions]:
        return {name: piece[0] for name, piece in split_parameters(flat[None], self.shape).items()}

    def _padded(self, name: str) -> tuple[Positions, Positions]:
        """Padded row and column of every element of a layer's matrix."""
        rows, columns = _indices(self.shape.parameter_shapes()[name][1:])
        if name == "qkv":
            rows = self._padded_heads(rows % self.shape.d_model) + rows // self.shape.d_model * self.widths["U"]
        if name == "attn_out":
            columns = self._padded_heads(columns)
        return rows, columns

    def _padded_heads(self, column: Positions) -> Positions:
        head = self.shape.d_head
        return column // head * self.widths["C"] + column % head


def _indices(shape: tuple[int, ...]) -> tuple[Positions, Positions]:
    """Row and column of every element of a matrix."""
    rows, columns = np.ix_(*(np.arange(size, dtype=np.int32) for size in shape))
    return rows, columns


def _widest(width: int, limit: int) -> int:
    """The largest multiple of 16 up to ``limit`` that divides ``width``."""
    return next(chunk for chunk in range(limit, 0, -16) if width % chunk == 0)
