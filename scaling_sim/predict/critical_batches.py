"""B_crit(L), S_min(L) and E_min(L) from batch sweeps, with a posterior (Kaplan et al. 2020, section 5.1, Figs 10, 18).

At one size and one loss, steps and tokens needed at each batch lie on the hyperbola (S/S_min − 1)(E/E_min − 1) = 1
(5.1), or ln S = ln S_min(L) + ln(1 + B_crit(L)/B), with B_crit = B*/L^(1/α_B) (5.3). S_min of every size and loss is
free. Errors of ln S are those of ln L over the slope of the curve; along one curve they go together, with correlation
exp(−|Δ ln L|/ℓ). S counts steps at full rate: those made, less a share ω of the warm-up, 0 to 1 with equal prior
probability. S_min and the error's scale are integrated out exactly; B_crit at the middle, α_B, ℓ and ω on a grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_sim.config import checked_seed
from scaling_sim.errors import DesignError
from scaling_sim.laws.batch_sweeps import BatchSweep, batch_sweeps
from scaling_sim.laws.kaplan import critical_batch
from scaling_sim.predict.quantity import Quantity

if TYPE_CHECKING:
    import pandas as pd

    from scaling_sim.runs.table import RunTable

Array = NDArray[np.float64]

LEVELS = 8
"""Losses at which each sweep is read; more say little more, as neighbours along a curve go together."""
NUM_DRAWS = 1000
PRIOR_ALPHA_B = (np.log(0.3), 0.75)
"""Mean and sd of ln α_B, as of the law `critical-batch`; ln B_crit at the middle is flat within the factor below."""
BATCH_RANGE = np.log(1e3)
"""B_crit at the middle is sought between the smallest batch over, and the largest times, this factor."""
GRID = (31, 25)
LENGTHS = (0.05, 0.3, 1.0, 5.0)
"""Correlation lengths ℓ tried, as shares of the range of ln L."""
WARMUP_SHARES = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)
"""Shares ω of the warm-up that are tried."""
NUGGET = 0.05
"""Share of the error's variance that neighbouring points do not have in common."""
GAP = 0.1
"""Relative gap between the losses of two sizes over which their laws are compared."""
KEPT = 12.0
"""Nats of log posterior below its maximum that the second, finer grid spans."""


@dataclass(frozen=True)
class Contours:
    """The hyperbolas of one size.

    Attributes
    ----------
    sweep : what they were fitted to
    S_min, E_min : (n, j) draws of the least steps (at full rate) and tokens at each of the sweep's losses
    warmup_share : (n,) ω, of all sizes together
    alpha_B, B_star : (n,) draws of the size's *own* B_crit(L), fitted to this sweep alone
    """

    sweep: BatchSweep
    S_min: Array
    E_min: Array
    warmup_share: Array
    alpha_B: Array
    B_star: Array

    def B_crit(self, loss: ArrayLike) -> Array:
        """(n, k) draws of the size's own critical batch at losses (k,), in tokens."""
        return critical_batch(np.atleast_1d(loss), {"alpha_B": self.alpha_B[:, None], "B_star": self.B_star[:, None]})


@dataclass(frozen=True)
class CriticalBatches:
    """What batch sweeps say of B_crit(L); a prediction takes it as a fit of the law `critical-batch`.

    Attributes
    ----------
    draws : ``alpha_B`` and ``B_star`` (tokens), (n,) each: one law for all sizes
    contours : the hyperbolas of each size, by rising N
    error : (n,) standard deviation of an error of ln L along a curve, misfit of (5.1) included
    """

    draws: Mapping[str, Array]
    contours: tuple[Contours, ...]
    error: Array
    runs: RunTable
    law_name: str = "critical-batch"

    def B_crit(self, loss: ArrayLike) -> Array:
        """(n, k) draws of the critical batch at losses (k,), in tokens."""
        return critical_batch(np.atleast_1d(loss), {name: values[:, None] for name, values in self.draws.items()})

    @property
    def at_edge(self) -> float:
        """Share of batches and losses whose best learning rate is the lowest or the highest tried there."""
        several = [one.sweep.edge[np.isfinite(one.sweep.steps)] for one in self.contours]
        return float(np.mean(np.concatenate(several)))

    @property
    def shared_loss(self) -> float | None:
        """The middle, in logarithms, of the losses that the smallest and the largest size both pass; None if none.

        Where their ranges lie less than `GAP` apart, the middle between them, to which each law is extended.
        """
        first, last = self.contours[0].sweep.loss, self.contours[-1].sweep.loss
        low, high = max(first.min(), last.min()), min(first.max(), last.max())
        return float(np.sqrt(low * high)) if len(self.contours) > 1 and low <= high * (1 + GAP) else None

    def ratio(self) -> Quantity | None:
        """B_crit of the largest size over that of the smallest at `shared_loss`: 1 where it depends on the loss only.

        Each size by its own fit; None with a single size, or where sizes share no loss.
        """
        loss = self.shared_loss
        if loss is None:
            return None
        first, last = self.contours[0], self.contours[-1]
        return Quantity("B_crit ratio", (last.B_crit(loss) / first.B_crit(loss))[:, 0])

    def to_dataframe(self) -> pd.DataFrame:
        """One row per size and loss: medians and 90 % intervals of S_min, E_min and the size's own B_crit."""
        import pandas as pd

        return pd.DataFrame([row for one in self.contours for row in _rows(one)])

    def to_json(self) -> dict[str, Any]:
        """α_B, B*, the ratio between sizes, and a row per size and loss."""
        ratio = self.ratio()
        return {
            "law": self.law_name,
            "simulated": self.runs.simulated,
            "alpha_B": Quantity("alpha_B", self.draws["alpha_B"]).to_json(),
            "B_star_tokens": Quantity("B_star", self.draws["B_star"]).to_json(),
            "share_at_edge_of_learning_rates": self.at_edge,
            "ratio_of_sizes": None if ratio is None else {"loss_nats": self.shared_loss, **ratio.to_json()},
            "rows": self.to_dataframe().to_dict(orient="records"),
        }

    def __repr__(self) -> str:
        low, middle, high = np.quantile(self.draws["alpha_B"], (0.05, 0.5, 0.95))
        sizes = ", ".join(f"{one.sweep.N:.4g}" for one in self.contours)
        return f"CriticalBatches(N = {sizes}: alpha_B {middle:.3f}, 90 % {low:.3f} to {high:.3f})"

    def _repr_html_(self) -> str:
        return str(self.to_dataframe().to_html(index=False, float_format=lambda x: f"{x:.4g}"))


def critical_batches(
    runs: RunTable, *, levels: int = LEVELS, num_draws: int = NUM_DRAWS, seed: int = 0
) -> CriticalBatches:
    """Return B_crit(L) and the hyperbolas behind it, from curves of one size at three batches or more.

    Parameters
    ----------
    runs : RunTable
        Curves at constant learning rate; of several learning rates at one batch, the best at each loss counts.
    levels : int
        Losses at which each sweep is read.
    num_draws, seed : int

    Raises
    ------
    DesignError
        No size was trained at three batches that pass one loss.

    Notes
    -----
    The best of several noisy runs is a little better than the best rate; where every batch has as many rates, that
    moves S_min and leaves B_crit.
    """
    rng = np.random.default_rng(checked_seed(seed))
    sweeps = batch_sweeps(runs, levels)
    if not sweeps:
        raise DesignError(
            "the critical batch needs curves of one size at three batches or more that pass the same losses"
        )
    shared = _Posterior(sweeps).draw(num_draws, rng)
    contours = []
    start = 0
    for sweep in sweeps:
        own = shared if len(sweeps) == 1 else _Posterior([sweep]).draw(num_draws, rng)
        S_min = shared.S_min[:, start : start + len(sweep.loss)]
        start += len(sweep.loss)
        batch = critical_batch(sweep.loss, {"alpha_B": shared.alpha_B[:, None], "B_star": shared.B_star[:, None]})
        contours.append(Contours(sweep, S_min, S_min * batch, shared.warmup_share, own.alpha_B, own.B_star))
    return CriticalBatches({"alpha_B": shared.alpha_B, "B_star": shared.B_star}, tuple(contours), shared.error, runs)


@dataclass(frozen=True)
class _Draws:
    """Draws of `_Posterior`: S_min (n, levels of all sweeps in order), the others (n,)."""

    alpha_B: Array
    B_star: Array
    S_min: Array
    error: Array
    warmup_share: Array


class _Posterior:
    """Posterior of B_crit(L) for some sweeps together; see the module's first lines.

    With z(θ) = ln S − ln(1 + B_crit(L; θ)/B) and M = ln S_min of each level, z = X·M + error: X assigns points to
    levels. M and the scale σ² (prior 1/σ²) are integrated out: p(θ, ℓ, ω | z) ∝ |K|^-½ |XᵀK⁻¹X|^-½ (zᵀPz)^(-(n−m)/2).
    """

    def __init__(self, sweeps: Sequence[BatchSweep]) -> None:
        points = [_points(sweep, place) for place, sweep in enumerate(sweeps)]
        self.log_B, self.log_loss, S, warmup, self.slope, curve, level = (
            np.concatenate([p[k] for p in points]) for k in range(7)
        )
        self.log_S = np.log(S - np.array(WARMUP_SHARES)[:, None] * warmup)
        _, curve = np.unique(curve, return_inverse=True)
        _, level = np.unique(level, return_inverse=True)
        self.X = np.eye(level.max() + 1)[level]
        self.middle = float(self.log_loss.mean())
        apart = np.abs(self.log_loss[:, None] - self.log_loss) / max(float(np.ptp(self.log_loss)), 1e-9)
        same = curve[:, None] == curve
        self.solved = [self._solve(np.where(same, np.exp(-apart / length), 0.0)) for length in LENGTHS]
        self.freedom = len(self.log_B) - self.X.shape[1]

    def _solve(self, correlation: Array) -> tuple[Array, Array, Array, float]:
        """Of one ℓ: P, the map from z to M̂, the root of M's covariance, and the log of both determinants' factor."""
        K = (1 - NUGGET) * correlation + NUGGET * np.eye(len(correlation))
        K *= self.slope[:, None] * self.slope
        inverse = np.linalg.inv(K)
        normal = self.X.T @ inverse @ self.X
        to_M = np.asarray(np.linalg.solve(normal, self.X.T @ inverse))
        P = inverse @ (np.eye(len(K)) - self.X @ to_M)
        log_factor = -0.5 * (np.linalg.slogdet(K)[1] + np.linalg.slogdet(normal)[1])
        return P, to_M, np.asarray(np.linalg.cholesky(np.linalg.inv(normal))), float(log_factor)

    def _z(self, log_batch: Array, log_alpha: Array, share: Any) -> Array:
        """(g, n) ln S less ln(1 + B_crit/B), for (g,) values of ln B_crit at the middle, of ln α_B and places of ω."""
        fall = np.exp(-log_alpha)[:, None] * (self.log_loss - self.middle)
        return np.asarray(self.log_S[share] - np.logaddexp(0.0, log_batch[:, None] - fall - self.log_B))

    def _log_posterior(self, log_batch: Array, log_alpha: Array) -> Array:
        """(g, n_shares·n_lengths)."""
        prior = -0.5 * ((log_alpha - PRIOR_ALPHA_B[0]) / PRIOR_ALPHA_B[1]) ** 2
        first = self._z(log_batch, log_alpha, 0)
        columns = []
        for share in range(len(WARMUP_SHARES)):
            z = first + (self.log_S[share] - self.log_S[0])
            for P, _, _, log_factor in self.solved:
                columns.append(prior + log_factor - 0.5 * self.freedom * np.log(np.sum((z @ P) * z, axis=1)))
        return np.stack(columns, axis=1)

    def draw(self, num: int, rng: np.random.Generator) -> _Draws:
        """Draws from the grid's cells, uniform within each; the grid is laid twice, the second time where mass is."""
        axes = [
            np.linspace(self.log_B.min() - BATCH_RANGE, self.log_B.max() + BATCH_RANGE, GRID[0]),
            PRIOR_ALPHA_B[0] + PRIOR_ALPHA_B[1] * np.linspace(-3.5, 3.5, GRID[1]),
        ]
        for _ in range(3):
            grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
            log_p = self._log_posterior(*grid.T)
            near = grid[log_p.max(axis=1) > log_p.max() - KEPT]
            step = [axis[1] - axis[0] for axis in axes]
            used = step
            axes = [np.linspace(near[:, k].min() - step[k], near[:, k].max() + step[k], GRID[k]) for k in range(2)]
        p = np.exp(log_p - log_p.max())
        cell = rng.choice(p.size, size=num, p=(p / p.sum()).ravel())
        place, share, length = np.unravel_index(cell, (len(grid), len(WARMUP_SHARES), len(LENGTHS)))
        theta = grid[place] + (rng.random((num, 2)) - 0.5) * used
        return self._given(theta, share, length, rng)

    def _given(
        self, theta: Array, share: NDArray[np.intp], length: NDArray[np.intp], rng: np.random.Generator
    ) -> _Draws:
        z = self._z(theta[:, 0], theta[:, 1], share)
        log_S_min, variance = np.empty((len(theta), self.X.shape[1])), np.empty(len(theta))
        for k in np.unique(length):
            rows = np.flatnonzero(length == k)
            P, to_M, root, _ = self.solved[k]
            variance[rows] = np.sum((z[rows] @ P) * z[rows], axis=1) / rng.chisquare(self.freedom, len(rows))
            noise = rng.standard_normal((len(rows), len(root))) @ root.T
            log_S_min[rows] = z[rows] @ to_M.T + noise * np.sqrt(variance[rows])[:, None]
        alpha = np.exp(theta[:, 1])
        B_star = np.exp(theta[:, 0] + self.middle / alpha)
        return _Draws(alpha, B_star, np.exp(log_S_min), np.sqrt(variance), np.array(WARMUP_SHARES)[share])


def _points(sweep: BatchSweep, place: int) -> tuple[Array, ...]:
    """(n,) arrays of a sweep's points: ln B, ln L, S, warm-up, |d ln S/d ln L|, number of the curve, of the level."""
    log_S, log_loss = np.log(sweep.steps), np.log(sweep.loss)
    with np.errstate(invalid="ignore"):
        slope = np.abs(np.nanmedian(np.gradient(log_S, log_loss, axis=1), axis=0))
    slope = np.where(np.isfinite(slope) & (slope > 0), slope, np.nanmedian(slope))
    b, j = np.nonzero(np.isfinite(log_S))
    places = b + 1000.0 * place, j + 1000.0 * place
    columns = np.log(sweep.B)[b], log_loss[j], sweep.steps[b, j], sweep.warmup[b], slope[j], *places
    return tuple(np.asarray(column, dtype=np.float64) for column in columns)


def _rows(one: Contours) -> list[dict[str, float]]:
    rows = []
    B_crit = one.B_crit(one.sweep.loss)
    for j, loss in enumerate(one.sweep.loss.tolist()):
        row = {"N_parameters": one.sweep.N, "loss_nats": loss}
        for name, draws in (("S_min_steps", one.S_min), ("E_min_tokens", one.E_min), ("B_crit_tokens", B_crit)):
            quantity = Quantity(name, draws[:, j])
            low, high = quantity.interval(0.9)
            row |= {name: quantity.median, f"{name}_lo90": low, f"{name}_hi90": high}
        rows.append(row)
    return rows
