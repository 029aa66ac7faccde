"""The shape of one model: its sizes, and the names and shapes of its parameters."""

from __future__ import annotations

from typing import Literal

import msgspec

from scaling_sim.config import Config
from scaling_sim.errors import ConfigError

DECAYED = ("qkv", "attn_out", "mlp_up", "mlp_down")
"""Parameters that weight decay acts on: matrices, neither embeddings nor layer norms."""


class Shape(Config, frozen=True):
    """Sizes of a decoder-only transformer (pre-LN, tanh-GELU, learned positions, tied embedding, no linear biases).

    Parameters
    ----------
    n_layer : int
        Blocks, ≥ 0; a model without layers has N = 0.
    d_model : int
        Width, a multiple of ``n_head``.
    n_head : int
        Attention heads.
    n_ctx : int
        Context length T in tokens.
    vocab_size : int
        V.
    d_ff : int
        Feed-forward width; 0 means 4·d_model.
    """

    n_layer: int
    d_model: int
    n_head: int
    n_ctx: int
    vocab_size: int = 256
    d_ff: int = 0
    kind: Literal["transformer"] = "transformer"

    def __post_init__(self) -> None:
        if self.d_ff == 0:
            msgspec.structs.force_setattr(self, "d_ff", 4 * self.d_model)
        for name in ("d_model", "n_head", "n_ctx", "vocab_size", "d_ff"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.n_layer < 0:
            raise ConfigError(f"n_layer must be at least 0, got {self.n_layer}")
        if self.d_model % self.n_head:
            raise ConfigError(f"d_model must be a multiple of n_head ({self.n_head}), got {self.d_model}")

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_head

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical parameter names and shapes, in the order of a flat parameter vector.

        Layers are stacked on the first axis. Matrices are (out, in); ``qkv`` rows are all queries, then keys, then
        values, and within each the heads one after another.
        """
        L, d, f = self.n_layer, self.d_model, self.d_ff
        return {
            "token_embedding": (self.vocab_size, d),
            "position_embedding": (self.n_ctx, d),
            "ln1_gain": (L, d),
            "ln1_bias": (L, d),
            "qkv": (L, 3 * d, d),
            "attn_out": (L, d, d),
            "ln2_gain": (L, d),
            "ln2_bias": (L, d),
            "mlp_up": (L, f, d),
            "mlp_down": (L, d, f),
            "ln_f_gain": (d,),
            "ln_f_bias": (d,),
        }
