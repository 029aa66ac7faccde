"""What a study predicts from its fits: allocations, the crossover, forecasts of the next larger runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scaling_sim.errors import DataError, LawError
from scaling_sim.laws.constants import PF_DAY
from scaling_sim.runs import RunRecord

if TYPE_CHECKING:
    from scaling_sim.inference.posterior import Posterior
    from scaling_sim.predict import Allocation, Crossover

IDENTIFYING_SHARE = 0.5
"""A batch sweep identifies B_crit only if some batch exceeds this share of it."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of a study; what could not be predicted stands in ``refusals`` with its reason."""

    allocations: tuple[Allocation, ...] = ()
    crossover: Crossover | None = None
    crossover_refusal: str = ""
    backtest: Any = None
    not_identified: tuple[str, ...] = ()
    """Parameters that the design cannot identify, whatever the posterior says."""
    refusals: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """One object: every prediction by law and budget."""
        return {
            "allocations": [one.to_json() for one in self.allocations],
            "crossover": None if self.crossover is None else self.crossover.to_json(),
            "crossover_refusal": self.crossover_refusal,
            "backtest": None if self.backtest is None else self.backtest.to_json(),
            "not_identified": list(self.not_identified),
            "refusals": dict(self.refusals),
        }


def predict(fits: Mapping[str, Posterior], records: Sequence[RunRecord], pf_days: Sequence[float]) -> Predictions:
    """Every prediction that the fits allow; allocations for budgets of ``pf_days``."""
    budgets = [days * PF_DAY for days in pf_days]
    allocations, refusals = _allocations(fits, budgets)
    tested = _backtest(fits, refusals)
    found, refusal = _crossover(fits)
    return Predictions(
        allocations=allocations,
        crossover=found,
        crossover_refusal=refusal,
        backtest=tested,
        not_identified=_not_identified(fits, records),
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
    from scaling_sim.predict.backtest import backtest_of

    joint = next((fits[law] for law in ("kaplan", "kaplan-floor") if law in fits), None)
    if joint is None:
        return None, "it needs a joint kaplan fit, which these runs did not allow"
    tested = backtest_of(joint)
    try:
        return crossover(joint, backtest=None if isinstance(tested, str) else tested), ""
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


def _not_identified(fits: Mapping[str, Posterior], records: Sequence[RunRecord]) -> tuple[str, ...]:
    """B*, S_c and S_min, if no batch of the sweep came near the critical one (by the gradient noise scale)."""
    batches = [record.config.recipe.batch_tokens for record in records if "curve" in record.purposes]
    scales = [point.noise_scale for record in records for point in record.curve[-1:] if point.noise_scale]
    if not batches or not scales or not any("B_star" in fit.draws for fit in fits.values()):
        return ()
    critical = sorted(scales)[len(scales) // 2]
    return () if max(batches) > IDENTIFYING_SHARE * critical else ("B_star", "S_c", "S_min")
