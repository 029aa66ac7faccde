"""What the next runs are to make surer: the best size at a budget, the loss of a run, the crossover.

A target is asked twice: of a fit, whose draws say how sure it is, and of a `Discrepancy`, whose draws also know how far
the law may be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scaling_sim.errors import ConfigError
from scaling_sim.predict.allocate import allocate
from scaling_sim.predict.crossover import crossover
from scaling_sim.predict.forecast import forecast
from scaling_sim.predict.quantity import Quantity
from scaling_sim.predict.run import Run
from scaling_sim.predict.source import Array, Fit

TargetKind = Literal["size", "loss", "crossover"]
_CURVATURE_SHARE = 0.01


@dataclass(frozen=True)
class Target:
    """A quantity to be predicted: build one with `best_size`, `loss_of` or `crossing`.

    Attributes
    ----------
    kind : "size", "loss" or "crossover"
    name : how tables call it
    compute : FLOP, of "size"
    run : of "loss"
    """

    kind: TargetKind
    name: str
    compute: float | None = None
    run: Run | None = None

    def quantity(self, fit: Fit) -> Quantity:
        """Draws by the law alone."""
        if self.kind == "size":
            return allocate(fit, self.compute, backtest=None).N
        if self.kind == "crossover":
            return crossover(fit, backtest=None).C
        assert self.run is not None
        return forecast(fit, **_asked(self.run), backtest=None).law_loss


def best_size(compute: float) -> Target:
    """The compute-optimal N at ``compute`` FLOP."""
    if not (np.isfinite(compute) and compute > 0):
        raise ConfigError(f"compute must be positive and finite, got {compute}")
    return Target("size", f"N at {compute:g} FLOP", compute=float(compute))


def loss_of(
    N: float, tokens: float | None = None, *, D: float | None = None, B: float | None = None, S: float | None = None
) -> Target:
    """The loss of one run, described as for `forecast`."""
    run = Run.of(N=N, tokens=tokens, D=D, B=B, S=S)
    known = {"tokens": run.tokens, "D": run.D if tokens is None else None, "B": run.B}
    return Target(
        "loss",
        f"loss of N = {N:g}, " + ", ".join(f"{name} = {value:g}" for name, value in known.items() if value is not None),
        run=run,
    )


def crossing() -> Target:
    """C* of a ``kaplan`` fit (Kaplan et al. 2020, section 6.3)."""
    return Target("crossover", "C* of the crossover")


def curvature(model: Fit, compute: float) -> tuple[Array, Array]:
    """(n,) ln N* at ``compute`` and the second derivative of ln L in ln N there, from the width of the 1 % valley."""
    plan = allocate(model, compute, backtest=None)
    low, high = plan.valley(_CURVATURE_SHARE)
    half = 0.5 * np.log(high.draws / low.draws)
    return np.log(plan.N.draws), 2 * np.log1p(_CURVATURE_SHARE) / half**2


def _asked(run: Run) -> dict[str, Any]:
    """Arguments of `forecast` that ask for this run: B and S imply its tokens."""
    given = {"N": run.N, "D": run.D, "tokens": run.tokens, "B": run.B, "S": run.S}
    return given if run.B is None or run.S is None else {**given, "tokens": None}
