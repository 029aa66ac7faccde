"""The loss of a run that has not been made, with the discrepancy that the user's own runs show from their law."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from warnings import warn

import numpy as np

from scaling_sim.errors import ConfigError, ExtrapolationWarning, LawError
from scaling_sim.laws.constants import FRONTIER_LAW
from scaling_sim.laws.registry import get_law
from scaling_sim.predict.backtest import Backtest, backtest_of
from scaling_sim.predict.discrepancy import Discrepancy, discrepancy_of
from scaling_sim.predict.offsets import offsets, split_columns
from scaling_sim.predict.overfit import THRESHOLD, converged_loss, data_needed, overfitting, stopping_step
from scaling_sim.predict.quantity import Quantity
from scaling_sim.predict.reach import Reach
from scaling_sim.predict.run import Run
from scaling_sim.predict.source import Array, Fit, columns_of, compute_range, head

if TYPE_CHECKING:
    import pandas as pd

JOINT = ("kaplan", "kaplan-floor")
CURVE_POINTS = 64
IMPOSSIBLE_LOSS = 16.0
"""Nats per token: e¹⁶ is a vocabulary of 9 million, and guessing evenly among it costs as much."""
FAR_DECADES = 4.0
"""Decades of compute from the runs at which a forecast warns."""
_ROLES = {"early-stopped": "stopped", "curve": "curve", "final": "final"}
"""Role of the rows that inform a form."""
_FORMS = {"kaplan-nd": "early-stopped", "power-d": "early-stopped", "kaplan-ns": "curve"}


@dataclass(frozen=True)
class Curve:
    """A learning curve: (k,) steps and tokens, (n_draws, k) draws of the loss in nats per token."""

    steps: Array
    tokens: Array | None
    draws: Array

    def quantiles(self, levels: tuple[float, ...] = (0.05, 0.5, 0.95)) -> Array:
        """(n_levels, k) quantiles over draws: a line and its band."""
        return np.asarray(np.quantile(self.draws, levels, axis=0))

    def reaches(self, loss: float) -> Quantity:
        """Draws of the step at which the curve falls to ``loss``; +∞ where it does not within the run."""
        reached = self.draws <= loss
        first = np.argmax(reached, axis=1)
        log_S = np.log(self.steps)
        before, rows = np.maximum(first - 1, 0), np.arange(len(first))
        high, low = self.draws[rows, before], self.draws[rows, first]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(high > low, np.log(high / loss) / np.log(high / low), 1.0)
        at = np.exp(log_S[before] + share * (log_S[first] - log_S[before]))
        return Quantity("S", np.where(reached.any(axis=1), at, np.inf), "steps")


@dataclass(frozen=True)
class Forecast:
    """Draws of the loss that a run will be measured to have.

    Attributes
    ----------
    loss : Quantity
        Nats per token; parameters, discrepancy and the scatter of single runs included. Without runs behind the fit,
        or with ``backtest=None``: as ``law_loss``.
    law_loss : Quantity
        Expected loss by the law alone.
    form : str
        Which formula: ``early-stopped``, ``curve`` or ``final``.
    curve : Curve or None
        The whole expected learning curve, for laws that have one; without scatter.
    overfitting, stopping_step : Quantity or None
        δL (4.3) and the least step at which to stop (5.7) at B ≫ B_crit, where D is given and the law knows them.
    data_needed : Quantity or None
        Unique tokens that keep δL at the threshold (4.4), where the law knows them.
    other_losses : split → Quantity
        Losses on other texts, of fits whose runs carry them (`scaling_sim.predict.offsets`).
    backtest_coverage90 : float or None
        Share of held-out rows inside the 90 % intervals of the back-test behind this forecast; None without one.
    """

    loss: Quantity
    law_loss: Quantity
    run: Run
    form: str
    reach: Reach
    header: dict[str, Any]
    curve: Curve | None = None
    overfitting: Quantity | None = None
    stopping_step: Quantity | None = None
    data_needed: Quantity | None = None
    other_losses: Mapping[str, Quantity] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    backtest_coverage90: float | None = None

    @property
    def median(self) -> float:
        """Median loss, nats per token."""
        return self.loss.median

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """Equal-tailed interval of the loss."""
        return self.loss.interval(level)

    @property
    def draws(self) -> Array:
        """Draws of the loss, (n,)."""
        return self.loss.draws

    @property
    def beyond_backtest(self) -> bool:
        """True if the run lies beyond 1.5 times the decades that the back-test reached."""
        return self.reach.beyond(self.run.C)

    @property
    def quantities(self) -> dict[str, Quantity]:
        """Everything predicted, by JSON key."""
        extra = [q for q in (self.overfitting, self.stopping_step, self.data_needed) if q is not None]
        named = {"loss_nats": self.loss, "law_alone_loss_nats": self.law_loss}
        return named | {f"{q.name}_{q.unit}": q for q in (*extra, *self.other_losses.values())}

    def to_json(self) -> dict[str, Any]:
        """Loss with and without discrepancy, what was asked, and how far it extrapolates."""
        C = Quantity("C", np.array([self.run.C]), "flop")
        reach = self.reach.to_json(C)
        if self.backtest_coverage90 is None:
            reach |= {"backtested_decades": None, "backtested_decades_reason": self._untested_reason()}
        reach["decades_beyond_runs"] = _median(reach["decades_beyond_runs"])
        return {
            **self.header,
            "form": self.form,
            "run": self.run.to_json(),
            **{key: q.to_json() for key, q in self.quantities.items()},
            **reach,
            "beyond_backtest": self.beyond_backtest,
            "backtest_coverage90": self.backtest_coverage90,
            "notes": list(self.notes),
        }

    def _untested_reason(self) -> str:
        if self.reach.largest >= self.run.C:
            return "not needed: the run lies within the compute of the runs behind the fit"
        return self.notes[-1] if self.notes else "no back-test was asked for"

    def to_dataframe(self) -> pd.DataFrame:
        """One row per quantity: median, 50 % and 90 % interval."""
        import pandas as pd

        rows = [(key, q.median, *q.interval(0.5), *q.interval(0.9)) for key, q in self.quantities.items()]
        return pd.DataFrame(rows, columns=["quantity", "median", "lo50", "hi50", "lo90", "hi90"])

    def _repr_html_(self) -> str:
        return str(self.to_dataframe().to_html(index=False, float_format=lambda x: f"{x:.4g}"))


def forecast(
    fit: Fit,
    N: float | None = None,
    D: float | None = None,
    *,
    tokens: float | None = None,
    B: float | None = None,
    S: float | None = None,
    backtest: Backtest | Literal["auto"] | None = "auto",
    overfit: float = THRESHOLD,
    seed: int = 0,
) -> Forecast:
    """Return the expected loss of one run under any law.

    Parameters
    ----------
    fit : Posterior or ConstantSet
    N : float
        Parameters, counted as the runs were.
    D, tokens : float
        Unique tokens and tokens processed; either alone means one pass.
    B, S : float
        Batch in tokens and steps; tokens = B·S.
    backtest : Backtest, "auto" or None
        None: the law alone. Otherwise the forecast carries the discrepancy that the fit's own runs show from their law
        (`scaling_sim.predict.discrepancy`) and, if the run is larger than all of them, says what a back-test of such
        forecasts showed: this one, or ("auto") one that is made once.
    overfit : float
        Relative overfitting δL that ``data_needed`` allows.
    seed : int
        Of the draws of discrepancy and scatter.

    Notes
    -----
    Under ``kaplan``, B and S ask for the learning curve (1.6) of one pass; D without them for the early-stopped loss
    (1.5); all three with D < B·S for the larger of both.

    Raises
    ------
    ConfigError
        If the law needs something that was not given, tokens ≠ B·S, or D exceeds the tokens processed.
    LawError
        If the law does not predict losses.
    """
    if not (np.isfinite(overfit) and overfit > 0):
        raise ConfigError(f"overfit, the relative overfitting allowed, must be above 0, got {overfit}")
    given = {"N": N, "D": D, "tokens": tokens, "B": B, "S": S}
    run = Run.of(**given)
    if fit.law_name == FRONTIER_LAW or fit.law_name == "critical-batch":
        raise LawError(f"{fit.law_name!r} does not say what loss a given run reaches; use 'kaplan' or 'chinchilla'")
    p = columns_of(fit)
    law_loss, form, notes = _law_loss(fit, p, run)
    model, unlearned = _model(fit, run, backtest)
    tested, reach, why = _tested(fit, run, backtest)
    loss = law_loss if model is None else _model_loss(model, run, form, seed)
    curve = _curve(fit if model is None else model, run, model, seed) if form == "curve" else None
    excess, stop = _early_stopping(fit, p, run)
    others, unknown = _other_losses(fit, loss, seed)
    ignored = _ignored(fit, given)
    _warn_of_the_impossible(fit, run, loss)
    return Forecast(
        Quantity("loss", loss, "nats"),
        Quantity("loss", law_loss, "nats"),
        run,
        form,
        reach,
        head(fit),
        curve,
        excess,
        stop,
        _data_needed(p, run, overfit),
        others,
        (*notes, *ignored, *unknown, *unlearned, *why),
        None if tested is None else tested.coverage(),
    )


def _law_loss(fit: Fit, p: Mapping[str, Array], run: Run) -> tuple[Array, str, tuple[str, ...]]:
    """(n_draws,) loss by the law, the form used, and notes."""
    law = getattr(fit, "law", None) or get_law(fit.law_name)

    def loss(*names: str) -> Array:
        return np.asarray(law.loss(p, run.columns(names, fit.law_name)), dtype=np.float64)[:, 0]

    if fit.law_name not in JOINT:
        return loss(*law.columns), _FORMS.get(fit.law_name.removesuffix("-floor"), "final"), ()
    if run.B is None or run.S is None:
        if run.D is None:
            raise ConfigError(f"{fit.law_name!r} needs B and S (a learning curve) or D (an early-stopped run)")
        return loss("N", "D"), "early-stopped", ()
    curve = loss("N", "B", "S")
    if run.repeats:
        note = "data repeat: the larger of the early-stopped loss (1.5) and the one-pass curve (1.6)"
        return np.maximum(curve, loss("N", "D")), "curve", (note,)
    return curve, "curve", ()


def _model(
    fit: Fit, run: Run, backtest: Backtest | Literal["auto"] | None
) -> tuple[Discrepancy | None, tuple[str, ...]]:
    """Law and discrepancy to forecast with, or None and the reason."""
    if backtest is None:
        return None, ()
    if not np.isfinite(run.C):
        return None, ("compute unknown: no discrepancy",)
    found = discrepancy_of(fit)
    return (None, (found,)) if isinstance(found, str) else (found, ())


def _model_loss(model: Discrepancy, run: Run, form: str, seed: int) -> Array:
    """(n_draws,) loss that the run will be measured to have."""
    law_loss = _law_loss(model, columns_of(model), run)[0]
    role = _ROLES[form]
    away = model.shift(run.C, run.N, role, seed) + model.scatter(run.C, role, seed)
    return np.asarray(law_loss * np.exp(away[:, 0]))


def _tested(
    fit: Fit, run: Run, backtest: Backtest | Literal["auto"] | None
) -> tuple[Backtest | None, Reach, tuple[str, ...]]:
    """The back-test of such forecasts, the reach of the prediction, and notes."""
    span = compute_range(fit)
    found: Backtest | str | None = backtest
    if backtest == "auto":
        found = backtest_of(fit) if span is not None and np.isfinite(run.C) and span[1] < run.C else None
    if isinstance(found, Backtest):
        return found, Reach(found.largest, found.reach_decades), (found.caveat(),)
    return None, Reach.of(span, None), () if found is None else (found,)


def _ignored(fit: Fit, given: dict[str, float | None]) -> tuple[str, ...]:
    """Note the inputs without which the law would have said the same."""
    first = {name: column[:1] for name, column in columns_of(fit).items()}
    told = {name: value for name, value in given.items() if value is not None}
    loss, form, _ = _law_loss(fit, first, Run.of(**told))
    spare = []
    for name in told:
        if (name == "D" and "D_c" in first) or (name == "tokens" and {"B", "S"} <= set(told)):
            continue  # D says when to stop; tokens = B·S was checked
        try:
            other = _law_loss(fit, first, Run.of(**{k: v for k, v in told.items() if k != name}))
        except ConfigError:
            continue
        if other[1] == form and other[0][0] == loss[0]:
            spare.append(name)
    return (f"ignored: {', '.join(spare)}, which {form} losses by {fit.law_name!r} do not depend on",) if spare else ()


def _warn_of_the_impossible(fit: Fit, run: Run, loss: Array) -> None:
    """Warn of a loss that no text has, and of a run many decades from all that were fitted."""
    middle = float(np.median(loss))
    if middle > IMPOSSIBLE_LOSS:
        warn(
            f"the law says {middle:.3g} nats per token, but guessing among 9 million tokens costs "
            f"{IMPOSSIBLE_LOSS:g}: the run lies outside what the law describes",
            ExtrapolationWarning,
            stacklevel=3,
        )
    span = compute_range(fit)
    if span is None or getattr(fit, "runs", None) is None or not np.isfinite(run.C):
        return
    above, below = np.log10(run.C / span[1]), np.log10(span[0] / run.C)
    if max(above, below) > FAR_DECADES:
        side, decades = ("above the largest", above) if above > below else ("below the least", below)
        warn(
            f"the run of {run.C:.3g} FLOP lies {decades:.1f} decades {side} compute of the runs behind this fit",
            ExtrapolationWarning,
            stacklevel=3,
        )


def _curve(fit: Fit, run: Run, model: Discrepancy | None, seed: int) -> Curve:
    """Expected loss along the run from a thousandth of its steps on."""
    assert run.S is not None
    law = getattr(fit, "law", None) or get_law(fit.law_name)
    steps = np.geomspace(max(1.0, run.S / 1000), run.S, CURVE_POINTS)
    columns = {"N": run.columns(("N",), fit.law_name)["N"], "S": steps}
    columns |= {} if run.B is None else {"B": np.array([run.B])}
    draws = np.asarray(law.loss(columns_of(fit), columns), dtype=np.float64)
    if model is not None and run.B is not None and run.N is not None:
        draws = draws * np.exp(model.shift(6 * run.N * run.B * steps, run.N, "curve", seed))
    return Curve(steps, None if run.B is None else run.B * steps, draws)


def _early_stopping(fit: Fit, p: Mapping[str, Array], run: Run) -> tuple[Quantity | None, Quantity | None]:
    """δL (4.3) and the least stopping step (5.7) of a run on D unique tokens."""
    if "D_c" not in p or "N_c" not in p or run.N is None or run.D is None:
        return None, None
    excess = Quantity("overfitting", overfitting(run.N, run.D, p)[:, 0], "relative")
    if "S_c" not in p:
        return excess, None
    limit = converged_loss(run.N, p)
    steps = stopping_step(limit * (1 + overfitting(run.N, run.D, p)), limit, p)
    return excess, Quantity("stopping", steps[:, 0], "steps")


def _data_needed(p: Mapping[str, Array], run: Run, threshold: float) -> Quantity | None:
    """Unique tokens that keep δL at the threshold (4.4)."""
    if "D_c" not in p or "N_c" not in p or run.N is None:
        return None
    return Quantity("data_needed", data_needed(run.N, p, threshold)[:, 0], "tokens")


def _other_losses(fit: Fit, loss: Array, seed: int) -> tuple[dict[str, Quantity], tuple[str, ...]]:
    """Losses on the other texts that the runs carry, by split, and notes on those that cannot be learned."""
    runs = getattr(fit, "runs", None)
    if runs is None or not split_columns(runs):
        return {}, ()
    learned = offsets(runs, seed=seed)
    found = {name: Quantity(f"loss_{name}", one.loss(loss, seed), "nats") for name, one in learned.splits.items()}
    low = float(np.median(loss))
    beyond = [name for name, one in learned.splits.items() if low < one.span[0]]
    notes = [f"no loss on {name}: {why}" for name, why in learned.skipped.items()]
    if beyond:
        notes.append(f"losses on {', '.join(beyond)} extrapolate their offset to losses that no run reached")
    return found, tuple(notes)


def _median(entry: dict[str, Any] | None) -> float | None:
    return None if entry is None or isinstance(entry["median"], str) else float(entry["median"])
