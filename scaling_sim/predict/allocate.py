"""What a budget is best spent on: N, D, B, S and the loss reached, from every posterior draw.

``compute`` is what is *paid*: 6·N·B·S = C for every draw. C_min, what the same loss would cost at a batch far below the
critical one, is reported beside it; at the critical batch C = 2·C_min (Kaplan et al. 2020, 5.5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal
from warnings import warn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_sim.errors import ConfigError, DataWarning, LawError
from scaling_sim.laws.constants import FRONTIER_LAW, PF_DAY
from scaling_sim.predict.backtest import Backtest, backtest_of
from scaling_sim.predict.budget import budget_flops
from scaling_sim.predict.discrepancy import Discrepancy, discrepancy_of
from scaling_sim.predict.frontier import Batch, FrontierPoint, KaplanFrontier, PowerFrontier
from scaling_sim.predict.quantity import Quantity, quantile
from scaling_sim.predict.reach import Reach
from scaling_sim.predict.size_backtest import SizeBacktest, size_backtest
from scaling_sim.predict.source import Array, Fit, columns_of, compute_range, head
from scaling_sim.predict.valley import chinchilla_valley, kaplan_valley

if TYPE_CHECKING:
    import pandas as pd

UNITS = {
    "N": "parameters",
    "D": "tokens",
    "B": "tokens",
    "S": "steps",
    "loss": "nats",
    "law_alone_loss": "nats",
    "C": "flop",
    "C_min": "flop",
    "S_min": "steps",
    "B_crit": "tokens",
}
"""Unit of each quantity of an allocation; JSON keys are ``name_unit``."""

Valley = Callable[[float], tuple[Array, Array]]


@dataclass(frozen=True)
class Allocation:
    """The best use of one or several budgets.

    Attributes
    ----------
    compute : (k,) array
        Budgets, FLOP paid.
    draws : dict of (n_draws, k) arrays
        N, D (tokens processed, all fresh: B·S), loss (with the discrepancy of a forecast beyond the runs),
        law_alone_loss, C, and where the law knows batches B, S, C_min, S_min, B_crit.
    batch : "critical" or float
        The batch policy: B = B_crit(loss), or a number of tokens.
    beyond_backtest : (k,) bool array
        The budget lies beyond 1.5 times the decades that the back-test of N* reached; without one, true of every
        budget above the largest run's.
    backtest_coverage90 : float or None
        Share of held-out rows inside the 90 % intervals of the back-test behind ``loss``; None without one.
    size_backtest : SizeBacktest or None
        N* against the bracketed minima beyond each cut.
    """

    compute: Array
    draws: dict[str, Array]
    batch: Batch | None
    scalar: bool
    header: dict[str, Any]
    beyond_backtest: NDArray[np.bool_]
    notes: tuple[str, ...] = ()
    backtest_coverage90: float | None = None
    size_backtest: SizeBacktest | None = None
    _valley: Valley | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.compute)

    def __iter__(self) -> Iterator[Allocation]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Allocation:
        """Return the allocation of one of the budgets."""
        i = range(len(self))[i]
        valley = self._valley
        one = None if valley is None else lambda share: _column(valley(share), i)
        draws = {name: values[:, i : i + 1] for name, values in self.draws.items()}
        return replace(
            self,
            compute=self.compute[i : i + 1],
            draws=draws,
            scalar=True,
            beyond_backtest=self.beyond_backtest[i : i + 1],
            _valley=one,
        )

    def quantity(self, name: str) -> Quantity:
        """Draws of one quantity of a single budget, with ``.median`` and ``.interval(0.9)``."""
        if name not in self.draws:
            raise LawError(f"an allocation by {self.header['law']!r} gives {', '.join(self.draws)}, not {name!r}")
        if len(self) != 1:
            raise ConfigError(
                f"this allocation holds {len(self)} budgets; take one with allocation[i], or use .quantiles"
            )
        return Quantity(name, self.draws[name][:, 0], UNITS[name])

    @property
    def N(self) -> Quantity:
        """Parameters."""
        return self.quantity("N")

    @property
    def D(self) -> Quantity:
        """Training tokens, all fresh: B·S."""
        return self.quantity("D")

    @property
    def B(self) -> Quantity:
        """Batch in tokens."""
        return self.quantity("B")

    @property
    def S(self) -> Quantity:
        """Steps."""
        return self.quantity("S")

    @property
    def loss(self) -> Quantity:
        """Loss, nats per token, with the discrepancy that a forecast of this run would carry."""
        return self.quantity("loss")

    @property
    def C(self) -> Quantity:
        """Compute paid, FLOP."""
        return self.quantity("C")

    @property
    def C_min(self) -> Quantity:
        """Compute that the same loss would cost at B ≪ B_crit, FLOP."""
        return self.quantity("C_min")

    def quantiles(self, name: str, levels: ArrayLike = (0.05, 0.5, 0.95)) -> Array:
        """Quantiles over draws for every budget, (n_levels, k): a line and its band."""
        columns = self.draws[name].T
        return np.array([[quantile(column, float(level)) for column in columns] for level in np.atleast_1d(levels)])

    def valley(self, tolerance: float = 0.01) -> tuple[Quantity, Quantity]:
        """Least and largest N whose loss at the same compute is within ``tolerance`` (relative) of the best."""
        if self._valley is None:
            raise LawError(f"the fitted power laws of {self.header['source']} do not say what another N would reach")
        if tolerance <= 0:
            raise ConfigError(f"tolerance must be above 0, got {tolerance}")
        if len(self) != 1:
            raise ConfigError(f"this allocation holds {len(self)} budgets; take one with allocation[i]")
        low, high = self._valley(tolerance)
        return Quantity("N_low", low[:, 0], "parameters"), Quantity("N_high", high[:, 0], "parameters")

    def to_json(self) -> dict[str, Any]:
        """One object per budget: ``{"N_parameters": {"median", "interval90"}, …}``; several under ``"budgets"``."""
        tested = None if self.size_backtest is None else self.size_backtest.reach_decades
        opening = {
            **self.header,
            "batch": self.batch,
            "backtest_coverage90": self.backtest_coverage90,
            "N_backtested_decades": tested,
            "notes": list(self.notes),
        }
        if self.scalar:
            return {**opening, **self._budget_json()}
        return {**opening, "budgets": [one._budget_json() for one in self]}

    def _budget_json(self) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "compute_flop": float(self.compute[0]),
            "compute_pf_days": float(self.compute[0] / PF_DAY),
        }
        answer |= {f"{name}_{UNITS[name]}": self.quantity(name).to_json() for name in self.draws}
        if self._valley is not None:
            low, high = self.valley()
            answer["N_within_1_percent_parameters"] = {"low": low.to_json(), "high": high.to_json()}
        return {**answer, "beyond_backtest": bool(self.beyond_backtest[0])}

    def to_dataframe(self) -> pd.DataFrame:
        """One row per budget and quantity: median, 50 % and 90 % interval."""
        import pandas as pd

        levels = (0.5, 0.25, 0.75, 0.05, 0.95)
        rows = []
        for name in self.draws:
            table = self.quantiles(name, levels)
            rows += [
                (float(c), name, UNITS[name], *(float(x) for x in table[:, i]), bool(self.beyond_backtest[i]))
                for i, c in enumerate(self.compute)
            ]
        labels = ["compute_flop", "quantity", "unit", "median", "lo50", "hi50", "lo90", "hi90", "beyond_backtest"]
        return pd.DataFrame(rows, columns=labels)

    def _repr_html_(self) -> str:
        return str(self.to_dataframe().to_html(index=False, float_format=lambda x: f"{x:.4g}"))


def allocate(
    fit: Fit,
    compute: ArrayLike | None = None,
    *,
    pf_days: ArrayLike | None = None,
    gpu_hours: ArrayLike | None = None,
    money: ArrayLike | None = None,
    flops_per_second: float | None = None,
    utilisation: float = 1.0,
    price_per_gpu_hour: float | None = None,
    batch: Batch = "critical",
    backtest: Backtest | Literal["auto"] | None = "auto",
    seed: int = 0,
) -> Allocation:
    """Return the compute-optimal N, D, B, S and loss for a budget, with draws.

    Parameters
    ----------
    fit : Posterior or ConstantSet
        Of law ``kaplan``, ``kaplan-floor`` (Kaplan et al. 2020, Appendix B), ``chinchilla`` or ``data-constrained``
        (Hoffmann et al. 2022, approach 3; every token fresh), or a published frontier such as ``kaplan-table6``.
    compute, pf_days, gpu_hours, money
        One budget or an array of them: see `scaling_sim.predict.budget.budget_flops`.
    batch : "critical" or float
        Train at B_crit of the loss reached, or at this many tokens per step. Laws without a batch ignore it and warn.
    backtest : Backtest, "auto" or None
        None: the law alone. Otherwise the loss carries the discrepancy that the runs show from their law, and N* is
        back-tested if a budget exceeds all runs: from this back-test, or ("auto") from one that is made once.
    seed : int
        Of the draws of the discrepancy.

    Raises
    ------
    LawError
        If the law has no single-epoch compute frontier; the message says why.
    """
    paid = budget_flops(
        compute,
        pf_days=pf_days,
        gpu_hours=gpu_hours,
        money=money,
        flops_per_second=flops_per_second,
        utilisation=utilisation,
        price_per_gpu_hour=price_per_gpu_hour,
    )
    budgets = np.atleast_1d(paid)
    if budgets.ndim != 1:
        raise ConfigError(f"budgets must be a number or one-dimensional, got shape {paid.shape}")
    batch = _checked_batch(batch)
    draws, valley, notes = _solver(fit)(fit, budgets, batch)
    has_batch = "B" in draws
    if not has_batch and batch != "critical":
        warn(f"batch={batch:g} is ignored: {fit.law_name!r} does not know batches", DataWarning, stacklevel=2)
    span = compute_range(fit)
    tested: Backtest | str | None = backtest
    if backtest == "auto":
        beyond = span is not None and bool(np.any(budgets > span[1]))
        tested = backtest_of(fit) if beyond or span is None else None
    sizes, size_note = _size_tested(fit, tested)
    made = tested if isinstance(tested, Backtest) else None
    model = None if backtest is None else discrepancy_of(fit)
    unlearned = (model,) if isinstance(model, str) else ()
    return Allocation(
        budgets,
        _with_discrepancy(draws, None if isinstance(model, str) else model, seed),
        batch if has_batch else None,
        paid.ndim == 0,
        head(fit),
        _beyond(span, budgets, sizes),
        (size_note, *unlearned, *(() if made is None else (f"loss: {made.caveat()}",)), *notes),
        None if made is None else made.coverage(),
        sizes,
        valley,
    )


def _with_discrepancy(draws: dict[str, Array], model: Discrepancy | None, seed: int) -> dict[str, Array]:
    """Draws with the loss that a forecast of the median plan gives, and that of the law alone beside it.

    The loss is as flat about the best size as the floor of a valley, so that the median plan stands for all.
    """
    law_alone = draws["loss"]
    if model is None:
        return {**draws, "loss": law_alone, "law_alone_loss": law_alone}
    middle: dict[str, Array] = {name: np.median(values, axis=0) for name, values in draws.items()}
    middle["tokens"] = middle["D"]
    role, names = ("curve", ("N", "B", "S")) if "B" in middle else ("final", model.law.columns)
    columns = {name: middle[name] for name in names}
    loss = np.exp(model.log_loss(columns, middle["C"], middle["N"], role, seed=seed))
    return {**draws, "loss": loss[np.arange(len(law_alone)) % len(loss)], "law_alone_loss": law_alone}


def _size_tested(fit: Fit, tested: Backtest | str | None) -> tuple[SizeBacktest | None, str]:
    """The back-test of N* and a note that says what it showed, or why there is none."""
    if tested is None:
        return None, "N* not back-tested: not needed within the compute of the runs, or not asked for"
    if getattr(fit, "runs", None) is None:
        return None, "N* not back-tested: there are no runs behind these constants"
    found = size_backtest(fit, tested, lambda below, C, B: _solver(below)(below, C, B or "critical")[0]["N"])
    return (None, f"N* not back-tested: {found}") if isinstance(found, str) else (found, found.note())


def _solver(fit: Fit) -> Callable[[Fit, Array, Batch], tuple[dict[str, Array], Valley | None, tuple[str, ...]]]:
    if fit.law_name in ("kaplan", "kaplan-floor"):
        return _allocate_kaplan
    if fit.law_name == FRONTIER_LAW:
        return _allocate_power
    if fit.law_name in ("chinchilla", "data-constrained"):
        return _allocate_chinchilla
    reasons = {
        "kaplan-nd": "its D is the size of a data set that early-stopped runs repeat, so C = 6·N·D does not hold",
        "kaplan-ns": "its steps are S_min at a batch above B_crit; without B_crit(L) they have no price. Fit 'kaplan'",
        "power-c": "it says what loss a budget reaches, not with which N",
    }
    reason = reasons.get(fit.law_name.removesuffix("-floor"), "its form does not relate N, tokens and compute")
    raise LawError(
        f"no allocation from {fit.law_name!r}: {reason}. Laws that have one: kaplan, kaplan-floor, chinchilla"
    )


def _allocate_kaplan(fit: Fit, C: Array, batch: Batch) -> tuple[dict[str, Array], Valley | None, tuple[str, ...]]:
    frontier = KaplanFrontier.of(fit)
    point = frontier.solve(C, batch)

    def valley(share: float) -> tuple[Array, Array]:
        loss = point.loss * (1 + share)
        critical = frontier.critical_batch(loss)
        batch_sum = 2 * critical if batch == "critical" else float(batch) + critical
        f = frontier
        return kaplan_valley(f.N_c, f.alpha_N, f.S_c, f.alpha_S, f.E, batch_sum=batch_sum, C=C, loss=loss)

    return _paid(point, C, batch), valley, ()


def _allocate_power(fit: Fit, C: Array, batch: Batch) -> tuple[dict[str, Array], Valley | None, tuple[str, ...]]:
    point = PowerFrontier(columns_of(fit), PF_DAY).solve(C, batch)
    note = "S follows from the budget: the printed N_e, B_e and S_e multiply to 0.975 PF-days at 1 PF-day"
    return _paid(point, C, batch), None, (note,)


def _paid(point: FrontierPoint, C: Array, batch: Batch) -> dict[str, Array]:
    """Every quantity of a frontier point, with S from the budget, so that 6·N·B·S = C holds to rounding."""
    full = np.zeros_like(point.N)
    B = point.B_crit if batch == "critical" else full + float(batch)
    D = C / (6 * point.N)
    return {
        "N": point.N,
        "D": D,
        "B": B,
        "S": D / B,
        "loss": point.loss,
        "C": C + full,
        "C_min": point.C_min,
        "S_min": point.S_min,
        "B_crit": point.B_crit,
    }


def _allocate_chinchilla(fit: Fit, C: Array, batch: Batch) -> tuple[dict[str, Array], Valley | None, tuple[str, ...]]:
    p = columns_of(fit)
    N = chinchilla_size(C, p)
    D = C / (6 * N)
    reducible = p["A"] * N ** -p["alpha"] + p["B"] * D ** -p["beta"]
    loss = p["E"] + reducible

    def valley(share: float) -> tuple[Array, Array]:
        reach = loss * (1 + share) - p["E"]
        return chinchilla_valley(p["A"], p["alpha"], p["B"], p["beta"], C=C, reducible=reach)

    fresh = ("every token is fresh: repeated data are not modelled here",) if fit.law_name == "data-constrained" else ()
    return {"N": N, "D": D, "loss": loss, "C": C + np.zeros_like(N)}, valley, fresh


def chinchilla_size(C: ArrayLike, p: dict[str, Any]) -> Any:
    """Return N_opt = G·(C/6)^(β/(α+β)) with G = (αA/(βB))^(1/(α+β)) (Hoffmann et al. 2022, eq. 4)."""
    total = p["alpha"] + p["beta"]
    log_G = (np.log(p["alpha"] * p["A"]) - np.log(p["beta"] * p["B"])) / total
    return np.exp(log_G + p["beta"] / total * np.log(np.asarray(C) / 6))


def _checked_batch(batch: Batch) -> Batch:
    if isinstance(batch, str):
        if batch != "critical":
            raise ConfigError(f"batch must be 'critical' or a number of tokens, got {batch!r}")
        return batch
    if not (np.isfinite(batch) and batch > 0):
        raise ConfigError(f"batch must be a positive number of tokens, got {batch}")
    return float(batch)


def _beyond(span: tuple[float, float] | None, budgets: Array, sizes: SizeBacktest | None) -> NDArray[np.bool_]:
    reach = Reach(span[1] if span else float("nan"), 0.0 if sizes is None else sizes.reach_decades)
    return np.array([reach.beyond(float(C)) for C in budgets], dtype=bool)


def _column(pair: tuple[Array, Array], i: int) -> tuple[Array, Array]:
    low, high = pair
    return low[:, i : i + 1], high[:, i : i + 1]
