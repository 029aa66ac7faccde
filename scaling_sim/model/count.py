"""How large a model is and what it costs: every convention of counting, by name.

Two studies that disagree about an exponent often disagree about what they count (Pearce & Song 2024; Porian et al.
2024), so nothing else in this library counts parameters or FLOPs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from scaling_sim.errors import ConfigError
from scaling_sim.model.shape import Shape

BACKWARD = 3
"""Training costs three forward passes: the backward pass is two (Kaplan et al. 2020, section 2.1)."""


@dataclass(frozen=True)
class Operation:
    """One row of Kaplan et al. 2020, Table 1: parameters, and forward FLOPs per token."""

    name: str
    parameters: int
    forward_flops: int
    embedding: bool
    """Left out of the non-embedding totals of the table's last row."""


def table1(shape: Shape) -> tuple[Operation, ...]:
    """Rows of Kaplan et al. 2020, Table 1, for a tied embedding and d_attn = d_model.

    Biases, layer norms and nonlinearities are omitted, as there. Attention is counted as its causal half,
    2·n_layer·n_ctx·d_attn.
    """
    L, d, f, T, V = shape.n_layer, shape.d_model, shape.d_ff, shape.n_ctx, shape.vocab_size
    return (
        Operation("embed", (V + T) * d, 4 * d, True),
        Operation("attention qkv", L * d * 3 * d, 2 * L * d * 3 * d, False),
        Operation("attention mask", 0, 2 * L * T * d, False),
        Operation("attention project", L * d * d, 2 * L * d * d, False),
        Operation("feed-forward", L * 2 * d * f, 2 * L * 2 * d * f, False),
        Operation("de-embed", 0, 2 * d * V, True),
    )


def _non_embedding(shape: Shape) -> int:
    return sum(row.parameters for row in table1(shape) if not row.embedding)


def _stored(shape: Shape) -> int:
    return sum(math.prod(size) for size in shape.parameter_shapes().values())


def _head_flops(shape: Shape) -> int:
    return BACKWARD * 2 * shape.d_model * shape.vocab_size


def _attention_flops(shape: Shape) -> int:
    return BACKWARD * 2 * shape.n_layer * shape.n_ctx * shape.d_model


@dataclass(frozen=True)
class Convention:
    """A named way to count; ``source`` says who counts so."""

    name: str
    formula: str
    source: str
    count: Callable[[Shape], int]


def _by_name(*conventions: Convention) -> Mapping[str, Convention]:
    return MappingProxyType({convention.name: convention for convention in conventions})


PARAMETER_CONVENTIONS = _by_name(
    Convention(
        "non-embedding",
        "N = 2·d·n_layer·(2·d + d_ff); 12·n_layer·d² where d_ff = 4d",
        "Kaplan et al. 2020, eq 2.1: N everywhere in this library",
        _non_embedding,
    ),
    Convention(
        "non-embedding+head",
        "N + V·d",
        "Porian et al. 2024: all linear layers, the head included, embeddings not",
        lambda shape: _non_embedding(shape) + shape.vocab_size * shape.d_model,
    ),
    Convention(
        "matrices",
        "N + (V + n_ctx)·d",
        "Pearce & Song 2024: N_T, embeddings included, layer norms not",
        lambda shape: sum(row.parameters for row in table1(shape)),
    ),
    Convention(
        "total",
        "N + (V + n_ctx)·d + (4·n_layer + 2)·d",
        "Hoffmann et al. 2022: every number that is trained, N_total",
        _stored,
    ),
)
"""Ways to count parameters."""

FLOP_CONVENTIONS = _by_name(
    Convention(
        "6N",
        "6·N",
        "Kaplan et al. 2020, section 2.1: C = 6·N·tokens",
        lambda shape: 2 * BACKWARD * _non_embedding(shape),
    ),
    Convention(
        "6N+head",
        "6·(N + V·d)",
        "Porian et al. 2024",
        lambda shape: 2 * BACKWARD * _non_embedding(shape) + _head_flops(shape),
    ),
    Convention(
        "6N+attention",
        "6·N + 6·n_layer·n_ctx·d",
        "Kaplan et al. 2020, eq 2.2",
        lambda shape: 2 * BACKWARD * _non_embedding(shape) + _attention_flops(shape),
    ),
    Convention(
        "exact",
        "6·(N + V·d) + 6·n_layer·n_ctx·d",
        "Kaplan et al. 2020, Table 1: linear layers, head and causal attention",
        lambda shape: 2 * BACKWARD * _non_embedding(shape) + _head_flops(shape) + _attention_flops(shape),
    ),
    Convention(
        "full-attention",
        "6·(N + V·d) + 12·n_layer·n_ctx·d",
        "Hoffmann et al. 2022, appendix F: attention without use of the causal mask, as dense kernels compute it",
        lambda shape: 2 * BACKWARD * _non_embedding(shape) + _head_flops(shape) + 2 * _attention_flops(shape),
    ),
)
"""Ways to count the training FLOPs (forward and backward) of one token."""

CONVENTIONS: Mapping[str, Mapping[str, Convention]] = MappingProxyType(
    {"parameters": PARAMETER_CONVENTIONS, "flops": FLOP_CONVENTIONS}
)
"""Both families of conventions."""


def _lookup(family: str, name: str) -> Convention:
    known = CONVENTIONS[family]
    if name not in known:
        raise ConfigError(f"unknown convention of counting {family}: {name!r}; known: {', '.join(known)}")
    return known[name]


def num_parameters(shape: Shape, convention: str = "non-embedding") -> int:
    """Parameters of ``shape``, counted by one of `PARAMETER_CONVENTIONS`.

    Raises
    ------
    ConfigError
        Unknown convention; the message lists the known ones.
    """
    return _lookup("parameters", convention).count(shape)


def flops_per_token(shape: Shape, convention: str = "6N") -> float:
    """FLOPs to train on one token, forward and backward, counted by one of `FLOP_CONVENTIONS`.

    Raises
    ------
    ConfigError
        Unknown convention; the message lists the known ones.
    """
    return float(_lookup("flops", convention).count(shape))


def training_flops(shape: Shape, tokens: float, convention: str = "6N") -> float:
    """FLOPs to process ``tokens`` training tokens; C = 6·N·tokens by default."""
    return flops_per_token(shape, convention) * tokens


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training needs, by part."""

    weights: int
    gradients: int
    moments: int
    activations: int

    @property
    def total(self) -> int:
        """All parts together, bytes."""
        return self.weights + self.gradients + self.moments + self.activations


def memory_estimate(
    shape: Shape, batch_sequences: int, members: int = 1, item_bytes: int = 4, master_bytes: int = 4
) -> MemoryEstimate:
    """Bytes to train ``members`` models of ``shape`` together, with every activation kept for the backward pass.

    Per position and layer: two layer-norm outputs, q, k, v, the attention output and two residual sums (8·d), the
    feed-forward's input and output of its nonlinearity (2·d_ff), and n_head rows of attention weights. Per position
    once: embedding and final norm (3·d), logits and their gradient (2·V). An upper bound for a backend that recomputes;
    temporary buffers of a matrix library come on top.

    Parameters
    ----------
    batch_sequences : int
        B / n_ctx, sequences per batch and member.
    item_bytes : int
        Bytes per number of weights in use, gradients and activations (8, 4 or 2).
    master_bytes : int
        Bytes per number of the two Adam moments, and of a master copy of the weights where it is wider.
    """
    stored = members * _stored(shape)
    positions = members * batch_sequences * shape.n_ctx
    layer = 8 * shape.d_model + 2 * shape.d_ff + shape.n_head * shape.n_ctx
    per_position = shape.n_layer * layer + 3 * shape.d_model + 2 * shape.vocab_size
    master_copy = master_bytes if master_bytes > item_bytes else 0
    return MemoryEstimate(
        weights=stored * (item_bytes + master_copy),
        gradients=stored * item_bytes,
        moments=2 * stored * master_bytes,
        activations=positions * per_position * item_bytes,
    )
