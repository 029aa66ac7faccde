"""The loss of a run that has not been made, with the discrepancy that the user's own runs show from their law."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scaling_sim.config import checked_seed
from scaling_sim.errors import ConfigError, LawError
from scaling_sim.laws.constants import FRONTIER_LAW
from scaling_sim.laws.registry import get_law
from scaling_sim.predict.backtest import Backtest, backtest_of
from scaling_sim.predict.discrepancy import Discrepancy, discrepancy_of
from scaling_sim.predict.offsets import offsets, split_columns
from scaling_sim.predict.overfit import THRESHOLD, converged_loss, data_needed, overfitting, stopping_step
from scaling_sim.predict.quantity import Loss, Quantity
from scaling_sim.predict.reach import Reach
from scaling_sim.predict.run import Run
from scaling_sim.predict.source import Array, Fit, columns_of, compute_range, head
from scaling_sim.predict.unlikely import warn_of_the_impossible

if TYPE_CHECKING:
    import pandas as pd

CURVE_POINTS = 64
UNKNOWN_COMPUTE = "compute unknown without N and tokens: the law and the scatter of single runs, no discrepancy"
_ROLES = {"early-stopped": "stopped", "curve": "curve", "final": "final"}
"""Role of the rows that inform a form."""


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
class Forecast(Loss):
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
    untested : str or None
        Why there is none.
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
    untested: str | None = None

    @property
    def beyond_backtest(self) -> bool:
        """True if the run lies beyond 1.5 times the decades that the back-test reached, or below the runs' compute."""
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
            reach |= {"backtested_decades": None, "backtested_decades_reason": self.untested}
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
    overfit: float | None = None,
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
    overfit : float, optional
        Relative overfitting δL that ``data_needed`` allows; default: `scaling_sim.predict.overfit.THRESHOLD`, 2 %.
    seed : int
        Of the draws of discrepancy and scatter.

    The compute of a run sets its discrepancy, whatever the law reads; where it does not follow from what was given, the
    forecast is the law with the scatter of single runs, says so, and warns if what the law reads lies outside the runs.

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
    if overfit is not None and not (np.isfinite(overfit) and overfit > 0):
        raise ConfigError(f"overfit, the relative overfitting allowed, must be above 0, got {overfit}")
    if not (backtest is None or backtest == "auto" or isinstance(backtest, Backtest)):
        raise ConfigError(f'backtest must be a Backtest, "auto" or None, got {backtest!r}')
    seed = checked_seed(seed)
    given = {"N": N, "D": D, "tokens": tokens, "B": B, "S": S}
    run = Run.of(**given)
    if fit.law_name == FRONTIER_LAW or fit.law_name == "critical-batch":
        raise LawError(f"{fit.law_name!r} does not say what loss a given run reaches; use 'kaplan' or 'chinchilla'")
    p = columns_of(fit)
    law_loss, form, notes = _law_loss(fit, p, run)
    model, unlearned = _model(fit, run, backtest)
    tested, reach, why = _tested(fit, run, backtest)
    if model is not None:
        loss = _model_loss(model, run, form, seed)
    else:
        loss = law_loss if backtest is None else law_loss * np.exp(_scatter(fit, _ROLES[form], seed))
    curve = _curve(fit if model is None else model, run, model, seed) if form == "curve" else None
    excess, stop = _early_stopping(fit, p, run)
    others, unknown = _other_losses(fit, loss, seed)
    ignored = _ignored(fit, given, model)
    needed = _data_needed(p, run, THRESHOLD if overfit is None else overfit)
    no_need = () if overfit is None or needed is not None else (_why_no_need(fit, run),)
    warn_of_the_impossible(fit, run, loss)
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
        needed,
        others,
        (*notes, *no_need, *ignored, *unknown, *unlearned, *why),
        None if tested is None else tested.coverage(),
        None if tested is not None else _untested(fit, run, reach, why),
    )


def _law_loss(fit: Fit, p: Mapping[str, Array], run: Run) -> tuple[Array, str, tuple[str, ...]]:
    """(n_draws,) loss by the law, the form used, and notes."""
    law = getattr(fit, "law", None) or get_law(fit.law_name)

    def loss(*names: str) -> Array:
        return np.asarray(law.loss(p, run.columns(names, fit.law_name)), dtype=np.float64)[:, 0]

    if law.form != "joint":
        return loss(*law.columns), law.form, ()
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
    if getattr(fit, "runs", None) is not None and not np.isfinite(run.C):
        return None, (UNKNOWN_COMPUTE,)
    found = discrepancy_of(fit)
    return (None, (found,)) if isinstance(found, str) else (found, ())


def _model_loss(model: Discrepancy, run: Run, form: str, seed: int) -> Array:
    """(n_draws,) loss that the run will be measured to have."""
    law_loss = _law_loss(model, columns_of(model), run)[0]
    role = _ROLES[form]
    away = model.shift(run.C, run.N, role, seed) + model.scatter(run.C, role, seed)
    return np.asarray(law_loss * np.exp(away[:, 0]))


def _scatter(fit: Fit, role: str, seed: int) -> Array | float:
    """(n_draws,) error of one run in ln loss, by the posterior's own Student-t noise; 0 of what has none."""
    noise: Mapping[str, Array] = getattr(fit, "noise", {})

    def named(name: str, default: float) -> Array:
        return np.asarray(noise.get(f"{name}_{role}", noise.get(name, default)), dtype=np.float64)

    size = np.hypot(named("sigma", 0.0), named("tau", 0.0) if role == "curve" else 0.0)
    freedom = np.minimum(named("nu", np.inf), 1e6)
    return np.asarray(size * np.random.default_rng([seed, 1]).standard_t(freedom, np.broadcast(size, freedom).shape))


def _tested(
    fit: Fit, run: Run, backtest: Backtest | Literal["auto"] | None
) -> tuple[Backtest | None, Reach, tuple[str, ...]]:
    """The back-test of such forecasts, the reach of the prediction, and notes."""
    span = compute_range(fit)
    found: Backtest | str | None = backtest
    if backtest == "auto":
        found = backtest_of(fit) if span is not None and np.isfinite(run.C) and span[1] < run.C else None
    if isinstance(found, Backtest):
        least = 0.0 if span is None else span[0]
        return found, Reach(found.largest, found.reach_decades, least), (found.caveat(),)
    return None, Reach.of(span, None), () if found is None else (found,)


def _untested(fit: Fit, run: Run, reach: Reach, why: tuple[str, ...]) -> str:
    """Why no back-test stands behind the forecast."""
    if getattr(fit, "runs", None) is None:
        return "there are no runs behind these constants to back-test"
    if not np.isfinite(run.C):
        return "the compute of the run, or of those behind the fit, is unknown"
    if reach.below(run.C):
        decades = np.log10(reach.least / run.C)
        return f"the run lies {decades:.1f} decades below the least compute of the runs: back-tests look upwards only"
    if reach.largest >= run.C:
        return "not needed: the run lies within the compute of the runs behind the fit"
    return why[-1] if why else "no back-test was asked for"


def _ignored(fit: Fit, given: dict[str, float | None], model: Discrepancy | None) -> tuple[str, ...]:
    """Note the inputs without which the forecast would have been the same: law, and compute where δ depends on it."""
    first = {name: column[:1] for name, column in columns_of(fit).items()}
    told = {name: value for name, value in given.items() if value is not None}
    run = Run.of(**told)
    loss, form, _ = _law_loss(fit, first, run)
    spare = []
    for name in told:
        if (name == "D" and "D_c" in first) or (name == "tokens" and {"B", "S"} <= set(told)):
            continue  # D says when to stop; tokens = B·S was checked
        try:
            without = Run.of(**{k: v for k, v in told.items() if k != name})
            other = _law_loss(fit, first, without)
        except ConfigError:
            continue
        if model is not None and without.C != run.C:
            continue
        if other[1] == form and other[0][0] == loss[0]:
            spare.append(name)
    return (f"ignored: {', '.join(spare)}, which {form} losses by {fit.law_name!r} do not depend on",) if spare else ()


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


def _why_no_need(fit: Fit, run: Run) -> str:
    """Why the data that keep overfitting small cannot be said although they were asked for."""
    if run.N is None:
        return "overfit is ignored: the data needed depend on N, which was not given"
    return (
        f"overfit is ignored: {fit.law_name!r} does not know L(N, D) (1.5) of repeated data, against which overfitting "
        "is defined (4.3); 'kaplan' and 'kaplan-nd' do"
    )


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
