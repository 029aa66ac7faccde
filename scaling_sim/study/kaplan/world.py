"""The law from which a rehearsal makes its losses: Kaplan's forms over a floor, with constants made up for bytes.

Nothing here was measured. Excess above the floor E, in nats per token (N parameters, S steps of B tokens, D unique)::

    converged     (N_c/N)^αN                                        Kaplan et al. 2020, (1.1)
    at step S     (N_c/N)^αN + (S_c/S_min)^αS                       (1.6), S_min = S/(1 + B_crit(L)/B) by (5.4)
    B_crit        B*/L^(1/αB)                                       (1.4)
    limited by D  [(N_c/N)^(αN/αD) + D_c/D]^αD                      (1.5)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling_sim.model.count import num_parameters
from scaling_sim.model.shape import Shape

Losses = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """Constants of one corpus; ``scale`` multiplies every excess."""

    floor: float = 0.6
    scale: float = 1.0
    alpha_N: float = 0.155
    N_c: float = 1.6e4
    alpha_S: float = 0.7
    S_c: float = 123.0
    alpha_B: float = 0.3
    B_star: float = 8e4
    alpha_D: float = 0.25
    D_c: float = 4.1e5
    position_share: float = 0.5
    """L_t/L varies by so much from a very early to a very late position."""
    position_exponent: float = 0.6

    def converged(self, shape: Shape) -> float:
        """Excess at infinite data and steps, with the penalties of shapes and of having no layers."""
        N = num_parameters(shape)
        if N == 0:
            return self.scale * (1.8 + 3.0 / shape.d_model)
        return self.scale * shape_penalty(shape) * math.exp(self.alpha_N * math.log(self.N_c / N))

    def critical_batch(self, loss: Losses) -> Losses:
        """B_crit(L) in tokens."""
        return self.B_star / np.maximum(loss, 1e-9) ** (1 / self.alpha_B)

    def curve(self, shape: Shape, steps: Losses, batch_tokens: int) -> Losses:
        """Loss after ``steps`` updates at constant rate, (n,); B_crit depends on the loss, hence the iteration."""
        converged = self.converged(shape)
        loss = np.full(len(steps), self.floor + converged)
        for _ in range(40):
            least = steps / (1 + self.critical_batch(loss) / batch_tokens)
            new = self.floor + converged + self.scale * (self.S_c / least) ** self.alpha_S
            loss = np.minimum(0.5 * (loss + new), math.log(shape.vocab_size))
        return loss

    def limited(self, shape: Shape, unique_tokens: float, dropout: float) -> float:
        """What D adds to the converged loss; dropout makes up for a third of the data."""
        converged = self.converged(shape) / self.scale
        D_c = self.D_c * (1.0 if dropout else 1.5)
        both = math.pow(math.pow(converged, 1 / self.alpha_D) + D_c / unique_tokens, self.alpha_D)
        return self.scale * (both - converged)

    def stop_step(self, shape: Shape, unique_tokens: float, dropout: float) -> float:
        """Steps after which the held-out loss rises, 1.5 times the bound (5.7)."""
        return 1.5 * self.S_c * math.pow(self.limited(shape, unique_tokens, dropout) / self.scale, -1 / self.alpha_S)

    def by_position(self, loss: float, n_ctx: int) -> Losses:
        """Loss of every position of a model whose mean over 128 positions is ``loss``, (n_ctx,): a + b·t^-c."""
        falling = np.arange(1, 129, dtype=np.float64) ** -self.position_exponent
        relative = 1 + self.position_share * (falling - falling.mean())
        losses: Losses = loss * relative[np.minimum(np.arange(n_ctx), 127)]
        return losses


def shape_penalty(shape: Shape) -> float:
    """Factor on the excess for unusual shapes: flat bowls in width/depth, d_ff/d_model and the width of heads."""
    aspect, ratio = shape.d_model / shape.n_layer, shape.d_ff / shape.d_model
    bowls = 0.002 * math.log(aspect / 16) ** 2 + 0.004 * math.log(ratio / 3) ** 2
    return 1 + bowls + 0.001 * math.log(shape.d_head / 16) ** 2 + (0.03 if shape.n_layer == 1 else 0.0)
