"""What a study predicts from its fits: allocations, the crossover, forecasts of the next larger runs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling_sim.errors import ConfigError, DataError, LawError
from scaling_sim.laws.constants import PF_DAY

if TYPE_CHECKING:
    from scaling_sim.inference.posterior import Posterior
    from scaling_sim.predict import Allocation, Crossover, Design, Forecast

NEXT = 2.5
"""How much larger the next run is, in N and in tokens."""
IDENTIFYING_SHARE = 0.5
"""A batch sweep identifies B_crit only if some batch exceeds this share of it."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of a study; what could not be predicted stands in ``refusals`` with its reason."""

    allocations: tuple[Allocation, ...] = ()
    crossover: Crossover | None = None
    crossover_refusal: str = ""
    forecasts: tuple[Forecast, ...] = ()
    backtest: Any = None
    design: Design | None = None
    """Runs, for as much compute as those made, that would make the last budget's N* surer."""
    notes: tuple[str, ...] = ()
    """What a reader must know before using these numbers."""
    not_identified: tuple[str, ...] = ()
    """Parameters that the design cannot identify, whatever the posterior says."""
    refusals: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """One object: every prediction by law and budget."""
        return {
            "allocations": [one.to_json() for one in self.allocations],
            "crossover": None if self.crossover is None else self.crossover.to_json(),
            "crossover_refusal": self.crossover_refusal,
            "forecasts": [one.to_json() for one in self.forecasts],
            "backtest": None if self.backtest is None else self.backtest.to_json(),
            "design": None if self.design is None else self.design.to_json(),
            "not_identified": list(self.not_identified),
            "notes": list(self.notes),
            "refusals": dict(self.refusals),
        }


def predict(fits: Mapping[str, Posterior], pf_days: Sequence[float]) -> Predictions:
    """Every prediction that the fits allow; allocations for budgets of ``pf_days``."""
    budgets = [days * PF_DAY for days in pf_days]
    allocations, refusals = _allocations(fits, budgets)
    tested = _backtest(fits, refusals)
    found, refusal = _crossover(fits)
    return Predictions(
        allocations=allocations,
        crossover=found,
        crossover_refusal=refusal,
        forecasts=_forecasts(fits),
        backtest=tested,
        design=_design(allocations, fits, refusals),
        notes=_batch_reach(fits, allocations),
        not_identified=_not_identified(fits),
        refusals=refusals,
    )


def _allocations(fits: Mapping[str, Posterior], budgets: list[float]) -> tuple[tuple[Allocation, ...], dict[str, str]]:
    from scaling_sim.predict import allocate

    allocations, refusals = [], {}
    for law, fit in fits.items():
        try:
            allocations.append(allocate(fit, budgets))
        except LawError as error:
            refusals[f"allocation by {law}"] = str(error)
    return tuple(allocations), refusals


def _crossover(fits: Mapping[str, Posterior]) -> tuple[Crossover | None, str]:
    from scaling_sim.predict import crossover

    joint = _joint(fits)
    if joint is None:
        return None, "it needs a joint kaplan fit, which these runs did not allow"
    try:
        return crossover(joint), ""
    except (DataError, LawError) as error:
        return None, str(error)


def _backtest(fits: Mapping[str, Posterior], refusals: dict[str, str]) -> Any:
    from scaling_sim.predict.backtest import Backtest, backtest_of

    for law, fit in fits.items():
        tested = backtest_of(fit)
        if isinstance(tested, Backtest):
            return tested
        refusals[f"back-test of {law}"] = tested
    return None


def _design(
    allocations: Sequence[Allocation], fits: Mapping[str, Posterior], refusals: dict[str, str]
) -> Design | None:
    """The next runs for N* of the last budget, by the first law that allocates it."""
    from scaling_sim.predict import design

    if not allocations:
        return None
    fit, runs = fits[allocations[0].header["law"]], fits[allocations[0].header["law"]].runs
    spent = sum(float(np.nanmax(runs.C[runs.run == name])) for name in dict.fromkeys(runs.run.tolist()))
    try:
        return design(fit, compute=float(allocations[0].compute[-1]), budget=spent)
    except (ConfigError, DataError, LawError) as error:
        refusals["design"] = str(error)
        return None


def _not_identified(fits: Mapping[str, Posterior]) -> tuple[str, ...]:
    """B*, S_c and S_min, if no batch exceeds half the critical one at the median loss of the learning curves."""
    joint = _joint(fits)
    if joint is None:
        return ()
    from scaling_sim.laws.kaplan import critical_batch

    curve = joint.runs.curve
    critical = critical_batch(np.median(joint.runs.loss[curve]), joint.draws)
    largest = float(np.nanmax(joint.runs.B[curve]))
    return () if largest > IDENTIFYING_SHARE * float(np.median(critical)) else ("B_star", "S_c", "S_min")


def _batch_reach(fits: Mapping[str, Posterior], allocations: Sequence[Allocation]) -> tuple[str, ...]:
    """Where allocations take B_crit at losses that no batch sweep covers."""
    joint = _joint(fits)
    if joint is None:
        return ()
    runs = joint.runs
    usual = np.median(runs.B[runs.curve])
    swept = runs.curve & (usual != runs.B)
    if not swept.any():
        return ("Only one batch was trained: B_crit, and every B, S and C_min that rests on it, is prior.",)
    low, largest = float(runs.loss[swept].min()), float(runs.B[swept].max())
    plans = [plan for plan in allocations if plan.header["law"] == joint.law_name and "B" in plan.draws]
    lowest = min((float(np.median(plan.draws["loss"], axis=0).min()) for plan in plans), default=low)
    if lowest >= low:
        return ()
    return (
        f"B_crit was measured at losses down to {low:.2f} nats and batches up to {largest:,.0f} tokens; the batches of "
        f"the compute-optimal models (losses down to {lowest:.2f}) are an extrapolation of it.",
    )


def _joint(fits: Mapping[str, Posterior]) -> Posterior | None:
    return next((fits[law] for law in ("kaplan", "kaplan-floor") if law in fits), None)


def _forecasts(fits: Mapping[str, Posterior]) -> tuple[Forecast, ...]:
    """Loss of the next larger run, `NEXT` times the largest N on `NEXT` times its tokens, by each law."""
    from scaling_sim.predict import forecast

    found = []
    for fit in fits.values():
        runs, rows = fit.runs, fit.data.row
        N, tokens = NEXT * float(runs.N[rows].max()), NEXT * float(runs.tokens[rows].max())
        asked: dict[str, Any] = {"tokens": tokens}
        if _joint({fit.law_name: fit}) is not None:
            batch = float(np.nanmedian(runs.B[rows]))
            asked = {"B": batch, "S": tokens / batch}
        with contextlib.suppress(LawError, ConfigError):  # a law that does not predict losses has no forecast
            found.append(forecast(fit, N=N, **asked))
    return tuple(found)
