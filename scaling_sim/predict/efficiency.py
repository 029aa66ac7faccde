"""When a run reaches a loss: steps, tokens and compute, against model size (Kaplan et al. 2020, Figs. 2 and 19)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_sim.config import checked_seed
from scaling_sim.errors import ConfigError, LawError
from scaling_sim.laws.kaplan import critical_batch
from scaling_sim.laws.kaplan_joint import curve_parameters
from scaling_sim.laws.kaplan_ns import main_batch
from scaling_sim.laws.registry import get_law
from scaling_sim.predict.discrepancy import Discrepancy, discrepancy_of
from scaling_sim.predict.quantity import Quantity
from scaling_sim.predict.source import Array, Fit, columns_of, head

if TYPE_CHECKING:
    import pandas as pd

    from scaling_sim.laws.base import Law

UNITS = {"S_min": "steps", "E_min": "tokens", "S": "steps", "tokens": "tokens", "D": "tokens", "C": "flop"}
MEANING = {
    **dict.fromkeys(("joint", "curve"), "a run at constant learning rate on fresh data, when it passes the loss"),
    "early-stopped": "an early-stopped run: the unique tokens that it needs",
    "final": "finished runs of that many tokens, not a moment of a longer one",
}
"""What the numbers are of, by the form of the law."""
LOG_TOKENS = (0.0, 110.0)
"""Between which tokens are sought where a law is not solved in closed form."""
PLACES = 48
"""Places along a run at which law and discrepancy are drawn, and as many again where most draws pass the loss."""


@dataclass(frozen=True)
class Efficiency:
    """What each size needs to reach each loss.

    Attributes
    ----------
    loss : (j,) nats per token
    N : (k,) parameters
    draws : name → (n, j, k); +∞ where the size never reaches the loss
        ``S_min`` and ``E_min``, the least steps and tokens (at B ≫ and ≪ B_crit, 5.1), where the law knows batches;
        ``S``, ``tokens`` and ``C``, what a run at the batch asked for pays. ``D`` for early-stopped runs.
    """

    loss: Array
    N: Array
    draws: Mapping[str, Array]
    batch: float | str | None
    meaning: str
    header: dict[str, Any]
    notes: tuple[str, ...] = ()

    def quantity(self, name: str, loss: int = 0, size: int = 0) -> Quantity:
        """Draws of one quantity at the loss and the size of these places."""
        if name not in self.draws:
            raise LawError(f"{self.header['law']!r} gives {', '.join(self.draws)} at a loss, not {name!r}")
        return Quantity(name, self.draws[name][:, loss, size], UNITS[name])

    def quantiles(self, name: str, levels: tuple[float, ...] = (0.05, 0.5, 0.95)) -> Array:
        """(n_levels, j, k) quantiles over draws, right where draws are infinite."""
        return np.asarray(np.quantile(self.draws[name], levels, axis=0, method="inverted_cdf"))

    def to_json(self) -> dict[str, Any]:
        """One object per loss and size; the object itself if there is one of each."""
        opening = {**self.header, "batch": self.batch, "meaning": self.meaning, "notes": list(self.notes)}
        cells = [self._cell(i, k) for i in range(len(self.loss)) for k in range(len(self.N))]
        return {**opening, **cells[0]} if len(cells) == 1 else {**opening, "cells": cells}

    def _cell(self, i: int, k: int) -> dict[str, Any]:
        keys = {name: name if name == UNITS[name] else f"{name}_{UNITS[name]}" for name in self.draws}
        named = {key: self.quantity(name, i, k).to_json() for name, key in keys.items()}
        never = float(np.mean(np.isinf(next(iter(self.draws.values()))[:, i, k])))
        where = {"target_loss_nats": float(self.loss[i]), "N_parameters": float(self.N[k])}
        return {**where, **named, "probability_never": never}

    def to_dataframe(self) -> pd.DataFrame:
        """One row per loss, size and quantity: median and 90 % interval."""
        import pandas as pd

        rows = []
        for i, loss in enumerate(self.loss.tolist()):
            for k, N in enumerate(self.N.tolist()):
                found = [self.quantity(name, i, k) for name in self.draws]
                rows += [(loss, N, q.name, q.unit, q.median, *q.interval(0.9)) for q in found]
        return pd.DataFrame(rows, columns=["loss_nats", "N_parameters", "quantity", "unit", "median", "lo90", "hi90"])

    def _repr_html_(self) -> str:
        return str(self.to_dataframe().to_html(index=False, float_format=lambda x: f"{x:.4g}"))


def efficiency(
    fit: Fit,
    loss: ArrayLike,
    N: ArrayLike,
    *,
    B: float | None = None,
    discrepancy: bool = True,
    seed: int = 0,
) -> Efficiency:
    """Return the steps, tokens and compute with which models of these sizes reach these losses.

    Parameters
    ----------
    fit : Posterior or ConstantSet
        Of any law that predicts losses from N and steps or tokens.
    loss, N : numbers or 1-D arrays
        Targets in nats per token; sizes in parameters.
    B : float
        Batch in tokens. Laws that know B_crit take B_crit(loss) without it; ``kaplan-ns`` the batch that it was fitted
        to.
    discrepancy : bool
        Let the expected loss differ from the law as the fit's own runs do; False for the law alone.
    seed : int
        Of the draws of the discrepancy.

    Notes
    -----
    Expected losses: the scatter of single runs is left out. With a discrepancy, draws that do not reach the loss within
    21 decades of compute of the first that does count as never. Kaplan's law (1.6): S_min = S_c·[L − L(N, ∞)]^(−1/αS),
    E_min = B_crit(L)·S_min, S = S_min·(1 + B_crit(L)/B) (5.4).
    """
    seed = checked_seed(seed)
    losses, sizes = positive("loss", loss), positive("N", N)
    law = get_law(getattr(fit, "law", None) or fit.law_name)
    solve = _solver(law)
    found = discrepancy_of(fit) if discrepancy else "the law alone: no discrepancy"
    model = found if isinstance(found, Discrepancy) else None
    notes = () if model is not None else (str(found),)
    if B is None and law.form == "curve" and getattr(fit, "runs", None) is not None:
        batch = main_batch(fit.runs)  # type: ignore[attr-defined]
        B = batch if np.isfinite(batch) else None
    p = columns_of(fit if model is None else model)
    if model is not None and law.form == "curve" and B is None:
        notes = ("compute unknown without a batch: the law alone, no discrepancy",)
    cells = [[_cell(solve, law, p, target, size, B, model, seed) for size in sizes] for target in losses]
    draws = {
        name: np.stack([np.stack([cell[name] for cell in row], axis=-1) for row in cells], axis=1)
        for name in cells[0][0]
    }
    batch_used = B if B is not None or law.form != "joint" else "critical"
    return Efficiency(losses, sizes, draws, batch_used, MEANING[law.form], head(fit), notes)


Solve = Callable[["Law", Mapping[str, Array], Array, float, float | None], dict[str, Array]]


def _cell(
    solve: Solve,
    law: Law,
    p: Mapping[str, Array],
    loss: float,
    N: float,
    B: float | None,
    model: Discrepancy | None,
    seed: int,
) -> dict[str, Array]:
    """Each quantity (n,) with which N parameters first reach ``loss``: where law × exp(δ) along the run falls to it.

    A law falls with compute, so it reaches loss·exp(−δ(C)) at C just where the compute that it asks for that loss is C.
    """
    num = len(next(iter(p.values())))
    alone = solve(law, p, np.full((num, 1), loss), N, B)
    if model is None or "C" not in alone:
        return {name: values[:, 0] for name, values in alone.items()}

    def needed(shift: Array) -> dict[str, Array]:
        return solve(law, p, loss * np.exp(-shift), N, B)

    def enough(log_C: Array, shift: Array) -> NDArray[np.bool_]:
        return np.asarray(np.log(needed(shift)["C"]) <= log_C)

    swing = 4 * float(np.quantile(model.amplitude, 0.95))
    log_C = _places(needed(np.full((num, 1), -swing))["C"], needed(np.full((num, 1), swing))["C"])
    if log_C is None:  # beyond any discrepancy
        return {name: values[:, 0] for name, values in alone.items()}
    for refine in (True, False):  # δ is interpolated between places: the second time they stand where it matters
        shift = model.shift(np.exp(log_C), N, _role(law), seed)
        reached = enough(log_C, shift)
        found, never = needed(_first(log_C, shift, reached, enough)), ~reached.any(axis=1)
        if refine and not never.all():
            passed = np.log(found["C"][~never, 0])
            log_C = np.unique(np.concatenate([log_C, np.quantile(passed, np.linspace(0.0, 1.0, PLACES))]))
    return {name: np.where(never, np.inf, values[:, 0]) for name, values in found.items()}


def _places(soonest: Array, latest: Array) -> Array | None:
    """(PLACES,) ln C from the least compute of any draw to the largest, within PLACES e-folds; None without any."""
    if not np.isfinite(soonest).any():
        return None
    low = float(np.log(soonest.min()))
    high = min(float(np.log(latest.max())), low + PLACES)
    return np.linspace(low, max(high, low + 1.0), PLACES)


def _first(
    log_C: Array, shift: Array, reached: NDArray[np.bool_], enough: Callable[[Array, Array], NDArray[np.bool_]]
) -> Array:
    """(n, 1) discrepancy where the target is first reached: bisection from the last place that is not to the first."""
    rows, right = np.arange(len(shift)), np.argmax(reached, axis=1)
    left = np.maximum(right - 1, 0)

    def between(share: Array) -> tuple[Array, Array]:
        return tuple((1 - share) * x[0] + share * x[1] for x in ends)

    ends = (
        (log_C[left][:, None], log_C[right][:, None]),
        (shift[rows, left][:, None], shift[rows, right][:, None]),
    )
    before, after = np.zeros((len(rows), 1)), np.ones((len(rows), 1))
    for _ in range(30):
        middle = 0.5 * (before + after)
        there = enough(*between(middle))
        before, after = np.where(there, before, middle), np.where(there, middle, after)
    return between(after)[1]


def _solver(law: Law) -> Solve:
    if law.form == "joint":
        return _joint
    if law.form == "curve":
        return _curves
    if "N" in law.columns and law.response == "loss" and {"N"} < set(law.columns) <= {"N", "D", "tokens"}:
        return _final
    raise LawError(f"{law.name!r} does not say what a given size needs to reach a loss; use kaplan or chinchilla")


def _role(law: Law) -> str:
    if law.form in ("joint", "curve"):
        return "curve"
    return "stopped" if "tokens" not in law.columns else "final"


def _least_steps(p: Mapping[str, Array], loss: Array, N: float) -> Array:
    """S_min = S_c·[L − L(N, ∞)]^(−1/αS) (1.6); ∞ where the model never gets there."""
    curve = curve_parameters(p)
    gap = loss - p.get("E", 0.0) - (curve["N_c"] / N) ** curve["alpha_N"]
    with np.errstate(divide="ignore"):
        return np.asarray(p["S_c"] * np.maximum(gap, 0.0) ** (-1 / p["alpha_S"]))


def _joint(law: Law, p: Mapping[str, Array], loss: Array, N: float, B: float | None) -> dict[str, Array]:
    S_min, B_crit = _least_steps(p, loss, N), critical_batch(loss, p)
    batch = B_crit if B is None else np.full_like(B_crit, B)
    with np.errstate(invalid="ignore"):
        S = S_min * (1 + B_crit / batch)
        found = {"S_min": S_min, "E_min": S_min * B_crit, "S": S, "tokens": batch * S, "C": 6 * N * batch * S}
    return {name: np.where(np.isinf(S_min), np.inf, values) for name, values in found.items()}


def _curves(law: Law, p: Mapping[str, Array], loss: Array, N: float, B: float | None) -> dict[str, Array]:
    S = _least_steps(p, loss, N)
    return {"S": S} if B is None else {"S": S, "tokens": B * S, "C": 6 * N * B * S}


def _final(law: Law, p: Mapping[str, Array], loss: Array, N: float, B: float | None) -> dict[str, Array]:
    """Tokens by bisection: the loss falls in them."""
    low, high = np.full(loss.shape, LOG_TOKENS[0]), np.full(loss.shape, LOG_TOKENS[1])
    with np.errstate(all="ignore"):
        for _ in range(60):
            middle = 0.5 * (low + high)
            above = law.loss(p, {"N": np.full(1, N), "tokens": np.exp(middle), "D": np.exp(middle)}) > loss
            low, high = np.where(above, middle, low), np.where(above, high, middle)
    tokens = np.where(high < LOG_TOKENS[1] - 1e-6, np.exp(0.5 * (low + high)), np.inf)
    return {"D" if "tokens" not in law.columns else "tokens": tokens, "C": 6 * N * tokens}


def positive(name: str, value: ArrayLike) -> Array:
    """(k,) array of what must be positive numbers."""
    found = np.atleast_1d(np.asarray(value, dtype=np.float64))
    if found.ndim != 1 or not np.all(np.isfinite(found) & (found > 0)):
        raise ConfigError(f"{name} must be a positive number or a one-dimensional array of them, got {found.tolist()}")
    return found
