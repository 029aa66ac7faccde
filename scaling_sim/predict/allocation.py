"""The result of an allocation: what one or several budgets are best spent on, with draws of every quantity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_sim.errors import ConfigError, LawError
from scaling_sim.laws.constants import PF_DAY
from scaling_sim.predict.convert import batch_sweep_range
from scaling_sim.predict.plans import Plan, PowerPlan
from scaling_sim.predict.quantity import Quantity, quantile
from scaling_sim.predict.size_backtest import SizeBacktest

if TYPE_CHECKING:
    import pandas as pd

    from scaling_sim.predict.definitions import Definitions

Array = NDArray[np.float64]

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
    "tokens": "processed",
    "epochs": "",
    "time": "seconds",
    "gpus": "",
}
"""Unit of each quantity of an allocation; JSON keys are ``name_unit``, or the name of a mere number."""


@dataclass(frozen=True)
class Allocation:
    """The best use of one or several budgets.

    Attributes
    ----------
    compute : (k,) array
        Budgets, FLOP paid.
    draws : dict of (n_draws, k) arrays
        N, D (unique tokens: B·S as long as all are fresh), loss (with the discrepancy of a forecast beyond the runs),
        law_alone_loss, C, and where the law knows batches B, S, C_min, S_min, B_crit; with ``unique_tokens`` also
        tokens (processed) and epochs; with a machine time in seconds, with a deadline alone the GPUs that it needs.
    batch : "critical", "deadline" or float
        The batch policy: B = B_crit(loss), what the steps before a deadline need, or a number of tokens.
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
    batch: str | float | None
    scalar: bool
    header: dict[str, Any]
    beyond_backtest: NDArray[np.bool_]
    notes: tuple[str, ...] = ()
    backtest_coverage90: float | None = None
    size_backtest: SizeBacktest | None = None
    method: str = "law"
    limits: Mapping[str, float] = field(default_factory=dict)
    plan: Plan | None = field(default=None, repr=False, compare=False)
    """What the law says of other sizes."""
    fit: Any = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.compute)

    def __iter__(self) -> Iterator[Allocation]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Allocation:
        """Return the allocation of one of the budgets."""
        i = range(len(self))[i]
        draws = {name: values[:, i : i + 1] for name, values in self.draws.items()}
        return replace(
            self,
            compute=self.compute[i : i + 1],
            draws=draws,
            scalar=True,
            beyond_backtest=self.beyond_backtest[i : i + 1],
            plan=None if self.plan is None else self.plan.take(i),
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
        """Unique training tokens: B·S, unless data repeat."""
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
        if tolerance <= 0:
            raise ConfigError(f"tolerance must be above 0, got {tolerance}")
        plan, loss = self._single(), self.draws["law_alone_loss"]
        low, high = plan.valley(loss * (1 + tolerance))
        return Quantity("N_low", low[:, 0], "parameters"), Quantity("N_high", high[:, 0], "parameters")

    def penalty(self, N: float) -> Quantity:
        """Loss of a model of N parameters, trained with the same budget within the same limits, less the best one."""
        if not (np.isfinite(N) and N > 0):
            raise ConfigError(f"N must be positive and finite, got {N}")
        found = self._single().at(np.array([[float(N)]]))["loss"] - self.draws["law_alone_loss"]
        return Quantity("penalty", found[:, 0], "nats")

    def beyond_batch_sweep(self) -> float | None:
        """Decades between the median loss of a single budget and the nearest one at which B_crit was measured.

        0 inside; None where the runs hold no batch sweep. B_crit(L) is used as it is beyond them, without a cap.
        """
        runs = getattr(self.fit, "runs", None)
        span = None if runs is None else batch_sweep_range(runs)
        if span is None:
            return None
        loss = self.quantity("law_alone_loss").median
        return float(max(0.0, np.log10(span[0] / loss), np.log10(loss / span[1])))

    def _single(self) -> Plan:
        if self.plan is None or isinstance(self.plan, PowerPlan):
            raise LawError(f"the fitted power laws of {self.header['source']} do not say what another N would reach")
        if len(self) != 1:
            raise ConfigError(f"this allocation holds {len(self)} budgets; take one with allocation[i]")
        return self.plan

    @property
    def definitions(self) -> Definitions | str:
        """The same runs under every definition of N and C that they allow; in words why that cannot be."""
        from scaling_sim.predict.definitions import definitions_of

        runs = getattr(self.fit, "runs", None)
        return "published constants come without runs" if runs is None else definitions_of(runs, self.compute)

    def to_json(self) -> dict[str, Any]:
        """One object per budget: ``{"N_parameters": {"median", "interval90"}, …}``; several under ``"budgets"``."""
        tested = None if self.size_backtest is None else self.size_backtest.reach_decades
        opening = {
            **self.header,
            "method": self.method,
            "batch": self.batch,
            "limits": dict(self.limits),
            "backtest_coverage90": self.backtest_coverage90,
            "N_backtested_decades": tested,
            "notes": list(self.notes),
        }
        table = {} if isinstance(self.definitions, str) else {"definitions": self.definitions.to_json()}
        if self.scalar:
            return {**opening, **self._budget_json(), **table}
        return {**opening, "budgets": [one._budget_json() for one in self], **table}

    def _budget_json(self) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "compute_flop": float(self.compute[0]),
            "compute_pf_days": float(self.compute[0] / PF_DAY),
        }
        answer |= {f"{name}_{UNITS[name]}".rstrip("_"): self.quantity(name).to_json() for name in self.draws}
        if "B_crit" in self.draws and getattr(self.fit, "runs", None) is not None:
            answer["loss_decades_beyond_batch_sweep"] = self.beyond_batch_sweep()
        if self.plan is not None and not isinstance(self.plan, PowerPlan):
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
