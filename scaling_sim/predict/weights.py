"""Which law to use: leave-one-out densities for interpolation, weights by back-test for extrapolation, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scaling_sim.errors import DataError
from scaling_sim.inference.comparison import LeaveOneOut, check_comparable, leave_one_out
from scaling_sim.inference.posterior import Posterior
from scaling_sim.predict.backtest_weights import BacktestWeights, backtest_weights, backtests_of

if TYPE_CHECKING:
    import pandas as pd

CLEAR = 2.0
"""Standard errors beyond which leave-one-out tells two laws apart."""


@dataclass(frozen=True)
class Comparison:
    """Laws compared on the same runs.

    Attributes
    ----------
    loo : leave-one-out densities, which judge interpolation; or why there are none
    backtest : weights by back-test, which judge extrapolation; or why there are none
    not_identified : law → parameters that the runs do not identify
    converged : law → whether its posterior converged
    """

    loo: LeaveOneOut | str
    backtest: BacktestWeights | str
    not_identified: Mapping[str, tuple[str, ...]]
    converged: Mapping[str, bool]

    @property
    def verdict(self) -> str:
        """What both say in words, whether they disagree, and which parameters are not known."""
        tested = self.backtest
        parts = [
            _loo_words(self.loo),
            f"Weights by back-test cannot be made: {tested}." if isinstance(tested, str) else tested.verdict,
        ]
        if not isinstance(self.loo, str) and not isinstance(self.backtest, str):
            parts.append(_together(self.loo, self.backtest))
        parts += [f"{law}: {', '.join(names)} not identified." for law, names in self.not_identified.items() if names]
        parts += [f"{law} did not converge." for law, fine in self.converged.items() if not fine]
        return " ".join(parts)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per law: leave-one-out columns, back-test columns, what is not identified."""
        import pandas as pd

        frame = pd.DataFrame(index=pd.Index(list(self.converged), name="law"))
        if not isinstance(self.loo, str):
            frame = self.loo.to_dataframe()
        if not isinstance(self.backtest, str):
            for name in ("weights", "log_score", "crps", "error"):
                label = "backtest_weight" if name == "weights" else f"backtest_{name}"
                frame[label] = pd.Series(dict(getattr(self.backtest, name)))
        frame["not_identified"] = pd.Series({law: ", ".join(names) for law, names in self.not_identified.items()})
        return frame

    def to_json(self) -> dict[str, Any]:
        """``loo`` and ``backtest`` by law, or the reason why there is none; the verdict."""
        return {
            "converged": all(self.converged.values()),
            "verdict": self.verdict,
            "loo": {"cannot_be_made": self.loo} if isinstance(self.loo, str) else _loo_json(self.loo),
            "backtest": {"cannot_be_made": self.backtest}
            if isinstance(self.backtest, str)
            else self.backtest.to_json(),
            "not_identified": {law: list(names) for law, names in self.not_identified.items()},
        }

    def __str__(self) -> str:
        return f"{self.to_dataframe().to_string(float_format=lambda x: f'{x:.4g}')}\n\n{self.verdict}"

    def _repr_html_(self) -> str:
        from html import escape

        table = self.to_dataframe().to_html(float_format=lambda x: f"{x:.4g}")
        return f"{table}<p>{escape(self.verdict)}</p>"


def compare(fits: Sequence[Posterior]) -> Comparison:
    """Several laws on one table of runs: PSIS-LOO, weights by back-test, identifiability, and a verdict in words.

    Laws that read different rows are judged on the units (rows, whole curves) that all of them read.

    Raises
    ------
    DataError
        Fewer than two fits, two of one law, different tables or responses, or nothing that all laws read: neither
        leave-one-out nor a back-test can be made.
    """
    check_comparable(fits)
    loo: LeaveOneOut | str
    try:
        loo = leave_one_out(fits)
    except DataError as error:
        loo = str(error)
    weights = backtest_weights(backtests_of(fits))
    if isinstance(loo, str) and isinstance(weights, str):
        raise DataError(f"{loo}; nor by back-test: {weights}")
    order = list(loo.elpd) if not isinstance(loo, str) else [fit.law_name for fit in fits]
    named = {fit.law_name: fit for fit in fits}
    return Comparison(
        loo,
        weights,
        {law: tuple(named[law].not_identified) for law in order},
        {law: named[law].converged for law in order},
    )


def _loo_words(loo: LeaveOneOut | str) -> str:
    if isinstance(loo, str):
        return f"Leave-one-out cannot be made: {loo}."
    parts = []
    for law in list(loo.elpd)[1:]:
        difference, error = loo.difference(law)
        clear = "" if difference > CLEAR * error else ", which does not tell them apart"
        parts.append(f"{law} by {difference:.1f} ± {error:.1f} nats{clear}")
    words = (
        f"Among the runs (leave-one-out over {len(loo.units)}) {loo.best} predicts best, ahead of {'; '.join(parts)}."
    )
    for law, units in loo.unreliable.items():
        listed = ", ".join(units[:5]) + (f" and {len(units) - 5} more" if len(units) > 5 else "")
        words += f" For {law} this is unreliable at {listed} (Pareto k above {loo.k_limit[law]:.2f})."
    for law, count in loo.other.items():
        if count:
            words += f" {law} also learned from {count} units that not all laws read; they are not judged."
    return words


def _together(loo: LeaveOneOut, test: BacktestWeights) -> str:
    if loo.best == test.best:
        return f"Both prefer {loo.best}."
    difference, error = loo.difference(test.best)
    if difference <= CLEAR * error:
        return (
            f"They do not contradict each other: leave-one-out leaves open what the back-test decides for {test.best}."
        )
    return (
        f"They disagree: {loo.best} interpolates better, {test.best} extrapolates better. For larger runs than these "
        f"rely on {test.best}, or on both by their back-test weights."
    )


def _loo_json(loo: LeaveOneOut) -> dict[str, Any]:
    rows = loo.to_dataframe().to_dict(orient="index")
    laws = {str(law): {str(key): value for key, value in row.items()} for law, row in rows.items()}
    unreliable = {law: list(units) for law, units in loo.unreliable.items()}
    return {
        "best": loo.best,
        "num_units": len(loo.units),
        "pareto_k_limit": dict(loo.k_limit),
        "laws": laws,
        "unreliable": unreliable,
        "units_not_judged": dict(loo.other),
    }
