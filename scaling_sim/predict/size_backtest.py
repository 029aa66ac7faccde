"""How wrong the best size N* of this law was at larger budgets, on the user's own runs.

The point fits that a loss back-test made below its cuts are asked for N* where the runs beyond a cut bracket a minimum:
in a quarter of a decade of compute, at one batch, the least loss belongs to a size between a smaller and a larger one.
That size is known to the spacing of the sizes trained, no better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.laws.registry import get_law
from scaling_sim.predict.envelope import BINS_PER_DECADE, bracketed_envelope

if TYPE_CHECKING:
    from scaling_sim.predict.backtest import Backtest

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SizeBacktest:
    """Every pair of a cut and a bracketed minimum beyond it.

    Attributes
    ----------
    cut, C : (n,) arrays
        C_cut and C of the minimum, FLOP paid.
    predicted, observed : (n,) arrays
        N* of the law fitted below the cut, and the size of least loss.
    """

    cut: Array
    C: Array
    predicted: Array
    observed: Array

    @property
    def log_error(self) -> Array:
        """ln(observed/predicted) of each pair."""
        return np.log(self.observed / self.predicted)

    @property
    def reach_decades(self) -> float:
        """The farthest that a cut could be checked, in decades of compute."""
        return float(np.log10(self.C / self.cut).max())

    def note(self) -> str:
        """One sentence for people and JSON."""
        ratio = np.exp(self.log_error)
        minima, cuts = len(np.unique(self.C)), len(np.unique(self.cut))
        return (
            f"N* back-tested at {minima} bracketed minim{'a' if minima > 1 else 'um'}, up to {self.reach_decades:.1f} "
            f"decades beyond {cuts} cut{'s' if cuts > 1 else ''}: size found over size predicted was "
            f"{np.median(ratio):.2g} (median; {ratio.min():.2g} to {ratio.max():.2g}); the interval of N* is that of "
            "the parameters alone"
        )


def size_backtest(
    fit: Any, tested: Backtest | str, solve: Callable[[Any, Array, float | None], Array]
) -> SizeBacktest | str:
    """Compare N* of the fits below each cut with the bracketed minima beyond it; in words why that cannot be.

    Parameters
    ----------
    fit : Posterior
    tested : Backtest or str
        The loss back-test, which holds a point fit per cut; or why there is none.
    solve : callable
        ``solve(fit, C, B)`` gives N* at (k,) budgets and a batch of B tokens (None: the law has no batch), (1, k).
    """
    if isinstance(tested, str):
        return tested
    if not tested.fitted:
        return "the back-test of the loss kept no fits"
    minima = _minima(fit)
    pairs = []
    for cut, parameters in tested.fitted.items():
        draws = {name: np.array([value]) for name, value in parameters.items()}
        below = SimpleNamespace(law_name=fit.law_name, draws=draws)
        for B, C, N in minima:
            far = np.greater(C, cut)
            if far.any():
                found = np.asarray(solve(below, C[far], B), dtype=np.float64)[0]
                pairs.append((np.full(found.shape, cut), C[far], found, N[far]))
    if not pairs:
        return (
            f"beyond no cut in compute do the runs bracket a best size (within 1/{BINS_PER_DECADE} decade of compute, "
            "at one batch, between a smaller and a larger one)"
        )
    return SizeBacktest(*(np.concatenate(column) for column in zip(*pairs, strict=True)))


def _minima(fit: Any) -> list[tuple[float | None, Array, Array]]:
    """(batch, C, N) of the bracketed minima of the one-pass rows that the law reads; one entry per batch."""
    runs = fit.runs
    law = get_law(getattr(fit, "law", None) or fit.law_name)
    rows = np.unique(law.observe(runs).row)
    repeated = runs.tokens[rows] > runs.D[rows] * (1 + 1e-6)
    rows = rows[~(runs.stopped[rows] | repeated)]
    has_batch = "B_star" in fit.draws
    batches = runs.B[rows] if has_batch else np.ones(len(rows))
    found: list[tuple[float | None, Array, Array]] = []
    for B in np.unique(batches[np.isfinite(batches)]):
        use = rows[batches == B]
        C, N = (np.asarray(column[use], dtype=np.float64) for column in (runs.C, runs.N))
        best = bracketed_envelope(np.log(C), np.log(runs.loss[use]), np.log(N))
        if len(best):
            found.append((float(B) if has_batch else None, C[best], N[best]))
    return found
