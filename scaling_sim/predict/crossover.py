"""Where Kaplan's laws contradict each other (Kaplan et al. 2020, section 6.3): L(D(C_min)) meets L(C_min).

Compute-efficient training in one pass uses D(C_min) = 2·B_crit·S_min tokens, and no model trained on D tokens beats
L(D), the N → ∞ limit of (1.5). The efficient loss L(C_min) falls faster; where the two meet, a law must have broken. C*
has no prediction interval here: its spread is that of the parameters alone, far outside the runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scaling_sim.errors import ConfigError, DataError, LawError
from scaling_sim.laws.constants import FRONTIER_LAW, PF_DAY
from scaling_sim.predict.backtest import Backtest, backtest_of
from scaling_sim.predict.envelope import envelope_draws
from scaling_sim.predict.overfit import THRESHOLD
from scaling_sim.predict.powerlaws import PowerLaws
from scaling_sim.predict.quantity import Quantity
from scaling_sim.predict.reach import Reach, efficient_range
from scaling_sim.predict.sensitivity import Sensitivity, elasticities, sensitivities, shares_by_law, variance_shares
from scaling_sim.predict.source import Array, Fit, head
from scaling_sim.predict.tension import Tension, own_tension, printed_tension

if TYPE_CHECKING:
    import pandas as pd

Method = Literal["appendix-b", "frontier"]
Draws = Mapping[str, Array]
MOST_DECADES = 3
"""A crossing whose 90 % range is wider than this is not determined by the runs."""
MEANING = (
    "C is C_min, the compute at batches far below the critical one; an allocation's C is compute paid, twice C_min at "
    "the critical batch. Quantities are over all draws, parameter uncertainty only."
)


@dataclass(frozen=True)
class Crossover:
    """Draws of the crossing point. A draw without one has C, N, D = +∞ and the loss of infinite compute.

    Attributes
    ----------
    C, N, D, loss : Quantity
        C_min in FLOP, parameters, tokens, nats per token, over all draws.
    method : str
        ``appendix-b`` (frontier from the joint parameters) or ``frontier`` (fitted power laws).
    tension : Tension
        Where the data that keep overfitting below the threshold exceed D(C_min), by the fit's own (4.3); of published
        frontiers, which do not print it, by the rule below.
    printed_tension : Tension
        The same by the paper's 5e3·N^0.74 (4.4).
    reach : Reach
        How far this extrapolates, and how far a back-test reached.
    parameters : dict of (n,) arrays
        The draws behind it.
    untested : str or None
        Why no back-test stands behind it.
    """

    C: Quantity
    N: Quantity
    D: Quantity
    loss: Quantity
    method: str
    tension: Tension
    printed_tension: Tension
    reach: Reach
    parameters: dict[str, Array]
    header: dict[str, Any]
    untested: str | None = None

    @property
    def probability_none(self) -> float:
        """Share of draws in which the laws never contradict each other."""
        return float(np.mean(np.isinf(self.C.draws)))

    @property
    def quantities(self) -> dict[str, Quantity]:
        """C in PF-days and FLOP, N, D and loss over all draws, by JSON key."""
        pf_days = Quantity("C", self.C.draws / PF_DAY, "pf_days")
        return {f"{q.name}_{q.unit}": q for q in (pf_days, self.C, self.N, self.D, self.loss)}

    @property
    def not_determined(self) -> str:
        """In words why the runs do not determine C*; empty if they do, as far as the parameters go."""
        low, high = self.C.interval(0.9)
        if not high <= low * 10**MOST_DECADES:
            return f"its 90 % range, {low:.2g} to {high:.2g} FLOP, spans more than {MOST_DECADES} decades"
        if self.beyond_backtest and np.isfinite(self.reach.largest):
            reached = self.reach.backtested
            tested = "no back-test was made" if reached is None else f"a back-test reached {reached:.1f}"
            return f"it lies {self.decades_beyond_runs.median:.1f} decades beyond the runs, and {tested}"
        return ""

    def conditional(self) -> dict[str, Quantity]:
        """Return the same quantities over the draws that do cross; empty if none does."""
        crosses = np.isfinite(self.C.draws)
        if not crosses.any():
            return {}
        return {key: Quantity(q.name, q.draws[crosses], q.unit) for key, q in self.quantities.items()}

    @property
    def decades_beyond_runs(self) -> Quantity:
        """How many decades of C_min lie between the largest run and C*; NaN if the runs are unknown."""
        return self.reach.decades(self.C)

    @property
    def beyond_backtest(self) -> bool:
        """True if the median C* lies beyond 1.5 times the decades that the back-test reached."""
        return self.reach.beyond(self.C.median)

    def elasticities(self) -> dict[str, Array]:
        """∂ ln C*/∂ ln θ draw by draw, (n,) for each parameter θ that matters; NaN in draws without a crossing."""
        return elasticities(self.parameters)

    def sensitivity(self) -> pd.DataFrame:
        """One row per parameter: the fields of `scaling_sim.predict.sensitivity.Sensitivity`."""
        import pandas as pd

        return pd.DataFrame([{"parameter": name, **asdict(found)} for name, found in self._sensitivities()])

    def variance_by_law(self) -> dict[str, float]:
        """Share of each law, exponent and scale together, in the variance of ln C* to first order; they add up to 1."""
        return shares_by_law(variance_shares(self.parameters))

    def _sensitivities(self) -> Iterator[tuple[str, Sensitivity]]:
        return sensitivities(self.parameters, self.C.draws)

    def to_json(self) -> dict[str, Any]:
        """Quantities over all draws, those given a crossing beside them, and how far all this extrapolates."""
        return {
            **self.header,
            "method": self.method,
            "meaning": MEANING,
            **_with_C_min({key: q.to_json() for key, q in self.quantities.items()}),
            "probability_none": self.probability_none,
            "given_a_crossing": _with_C_min({key: q.to_json() for key, q in self.conditional().items()}),
            "tension": self.tension.to_json(),
            "printed_tension": self.printed_tension.to_json(),
            **self._sensitivity_json(),
            **self.reach.to_json(self.C),
            "backtested_decades_reason": self.untested,
            "beyond_backtest": self.beyond_backtest,
            "not_determined": self.not_determined or None,
        }

    def _sensitivity_json(self) -> dict[str, Any]:
        """Elasticities, and of more than one draw the spread that each parameter causes."""
        rows = {name: asdict(found) for name, found in self._sensitivities()}
        if self.C.draws.size == 1:  # published constants: nothing varies
            return {"sensitivity": {name: {"elasticity": _finite(row["elasticity"])} for name, row in rows.items()}}
        finite = {name: {key: _finite(x) for key, x in row.items()} for name, row in rows.items()}
        return {"sensitivity": finite, "variance_by_law": self.variance_by_law()}

    def to_dataframe(self) -> pd.DataFrame:
        """One row per quantity, over all draws and over those that cross."""
        import pandas as pd

        rows = [
            (key, over, q.median, *q.interval(0.5), *q.interval(0.9))
            for over, table in (("all draws", self.quantities), ("given a crossing", self.conditional()))
            for key, q in table.items()
        ]
        return pd.DataFrame(rows, columns=["quantity", "over", "median", "lo50", "hi50", "lo90", "hi90"])

    def _repr_html_(self) -> str:
        table = self.to_dataframe().to_html(index=False, float_format=lambda x: f"{x:.4g}")
        return f"<p>No crossing in {self.probability_none:.1%} of the draws.</p>{table}"


def crossover(
    fit: Fit,
    method: Method | None = None,
    *,
    threshold: float = THRESHOLD,
    backtest: Backtest | Literal["auto"] | None = "auto",
    seed: int = 0,
) -> Crossover:
    """Return where L(C_min) and L(D(C_min)) cross, for every draw.

    Parameters
    ----------
    fit : Posterior or ConstantSet
        Of law ``kaplan`` or ``kaplan-floor``, or a published frontier (``kaplan-table6``, ``kaplan-eq6.7``, …).
    method : "appendix-b" or "frontier", optional
        Frontier from the joint draws (default for laws), or power laws L(C_min) and N(C_min) fitted to the lower
        envelope of the runs, bootstrapped over runs (the only one for published frontiers).
    threshold : float
        Relative overfitting δL that defines the tension point by (4.3); that of (4.4) is 2 %.
    backtest : Backtest, "auto" or None
        How far the user's own runs could check extrapolation: this one, or ("auto") one that is made once, or none.
    seed : int
        Of the bootstrap.

    Raises
    ------
    LawError
        If the law knows one pass over the data only and so cannot contradict itself.
    DataError
        If L(D(C)) is not below L(C_min) inside the runs: the two curves come from different recipes.
    """
    chosen = _method(fit, method)
    if not 0 < threshold < 1:
        raise ConfigError(f"threshold is a share of the loss and must lie between 0 and 1, got {threshold}")
    span = efficient_range(fit)
    draws: Draws = {name: np.asarray(values, dtype=np.float64) for name, values in fit.draws.items()}
    if chosen == "frontier" and fit.law_name != FRONTIER_LAW:
        draws = envelope_draws(fit, np.random.default_rng(seed))
    lines = PowerLaws.of(draws)
    _require_one_recipe(lines, span)
    log_C = lines.log_crossing()
    tested, untested = _tested(fit, backtest)
    with np.errstate(over="ignore"):
        by_paper = printed_tension(lines)
        return Crossover(
            C=Quantity("C", np.exp(log_C), "flop"),
            N=Quantity("N", _exp_line(lines.N, log_C), "parameters"),
            D=Quantity("D", _exp_line(lines.D, log_C), "tokens"),
            loss=Quantity("loss", lines.floor + _exp_line(lines.loss, log_C), "nats"),
            method=chosen,
            tension=own_tension(lines, draws, threshold) or by_paper,
            printed_tension=by_paper,
            reach=Reach.of(span, tested),
            parameters=dict(draws),
            header=head(fit),
            untested=untested,
        )


def _tested(fit: Fit, backtest: Backtest | Literal["auto"] | None) -> tuple[Backtest | None, str | None]:
    """The back-test of the runs, or why there is none."""
    if not (backtest is None or backtest == "auto" or isinstance(backtest, Backtest)):
        raise ConfigError(f'backtest must be a Backtest, "auto" or None, got {backtest!r}')
    found = backtest_of(fit) if backtest == "auto" else backtest
    if isinstance(found, Backtest):
        return found, None
    return None, found or "no back-test was asked for"


def _method(fit: Fit, method: Method | None) -> Method:
    if method not in (None, "appendix-b", "frontier"):
        raise ConfigError(f"method must be 'appendix-b' or 'frontier', got {method!r}")
    if fit.law_name == FRONTIER_LAW:
        if method == "appendix-b":
            raise LawError(
                f"{fit.law_name!r} prints fitted power laws, not the parameters of Appendix B: method='frontier'"
            )
        return "frontier"
    if fit.law_name not in ("kaplan", "kaplan-floor"):
        raise LawError(
            f"no crossover from {fit.law_name!r}: {_why_none(fit.law_name)}. It needs a joint 'kaplan' fit, whose L(D) "
            "and L(C_min) come from different runs and can contradict each other"
        )
    return method or "appendix-b"


def _why_none(law_name: str) -> str:
    reasons = {
        "kaplan-nd": "it knows early-stopped runs only, not what a compute-efficient run reaches",
        "kaplan-ns": "it knows learning curves only, not the limit L(D) that data set",
        "critical-batch": "it is not a law of the loss in N or D",
    }
    return reasons.get(law_name, "its loss at (N, D) and at C is one formula, which cannot disagree with itself")


def _require_one_recipe(lines: PowerLaws, span: tuple[float, float] | None) -> None:
    """Refuse if, inside the runs, half of the draws say that L(D(C)) is not below L(C_min)."""
    for C in span or ():
        margin = float(np.median(lines.margin(np.log(C))))
        if margin <= 0:
            raise DataError(
                f"recipes differ: inside the runs, at C_min = {C:.3g} FLOP, L(D(C)) must lie below L(C_min), but is "
                f"{np.expm1(-margin):.1%} above it (median). Train both by one recipe, but for repetition and dropout"
            )


def _exp_line(line: Callable[[Any], Any], log_C: Array) -> Array:
    return np.asarray(np.exp(line(log_C)), dtype=np.float64)


def _with_C_min(answer: dict[str, Any]) -> dict[str, Any]:
    """The same C under the key that says what it is, beside the old one."""
    return answer | {f"C_min_{key.removeprefix('C_')}": value for key, value in answer.items() if key.startswith("C_")}


def _finite(x: float) -> float | None:
    return x if np.isfinite(x) else None
