"""A planned run watched live: its forecast given its own curve so far, and whether it is on track."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scaling_sim.errors import ConfigError, DataError, LawError
from scaling_sim.laws.kaplan_ns import main_batch
from scaling_sim.laws.registry import get_law
from scaling_sim.predict.backtest import Backtest
from scaling_sim.predict.conditioning import RunErrors, condition, surprise
from scaling_sim.predict.discrepancy import Discrepancy, discrepancy_of
from scaling_sim.predict.forecast import CURVE_POINTS, Curve, Forecast, forecast
from scaling_sim.predict.progress import Progress, read_progress
from scaling_sim.predict.quantity import Loss, Quantity
from scaling_sim.predict.run import Run
from scaling_sim.predict.source import Array, Fit, columns_of, head

if TYPE_CHECKING:
    import pandas as pd

    from scaling_sim.laws.base import Law

LAWS = ("kaplan", "kaplan-floor", "kaplan-ns", "kaplan-ns-floor")
OFF_TRACK, DOUBTFUL = 0.01, 0.05
"""p-values below which a run is called off track, and doubtful; look twice as often, be wrong twice as often."""


@dataclass(frozen=True)
class Observed(Loss):
    """A running run beside its forecast.

    Attributes
    ----------
    loss : Quantity
        Final loss that the run will be measured to have, given its curve so far; nats per token. A run that is doubtful
        or off track is taken to keep its level; the error of others fades as the fit's errors do.
    before : Forecast
        The same before any of its curve was seen.
    curve : Curve
        The run's own expected curve, given what was seen; without the scatter of single measurements.
    expected : Curve
        Curves that runs of this size were expected to have, at the points used; with scatter.
    progress : Progress
        What was seen, and which of it was used.
    p_value : float
        Probability that a run like those of the fit looks at least this odd, in shape or in level (three p-values of
        `surprise`, the least of them times three). NaN if the run diverged.
    verdict : str
        ``on track``, ``doubtful``, ``off track``, or ``ahead`` (better than runs of the fit would be).
    probability_of_target : float or None
        That the expected curve falls to ``target`` before the run ends.
    reached : Quantity or None
        Step at which it does; +∞ where it does not.
    """

    loss: Quantity
    before: Forecast
    curve: Curve
    expected: Curve
    progress: Progress
    p_value: float
    deviation: Quantity
    verdict: str
    target: float | None
    probability_of_target: float | None
    reached: Quantity | None
    header: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def on_track(self) -> bool:
        """Whether the run is not called off track."""
        return self.verdict != "off track"

    @property
    def run(self) -> Run:
        """The planned run."""
        return self.before.run

    def to_json(self) -> dict[str, Any]:
        """Verdict, updated and earlier loss, and the target's probability."""
        last = float(self.progress.steps[self.progress.used][-1]) if self.progress.used.any() else None
        return {
            **self.header,
            "run": self.run.to_json(),
            "verdict": self.verdict,
            "p_value": None if np.isnan(self.p_value) else self.p_value,
            "last_observed_steps": last,
            "num_points_used": int(self.progress.used.sum()),
            "deviation_log_loss": self.deviation.to_json(),
            "loss_nats": self.loss.to_json(),
            "loss_before_nats": self.before.loss.to_json(),
            "target_loss_nats": self.target,
            "probability_of_target": self.probability_of_target,
            "target_reached_steps": None if self.reached is None else self.reached.to_json(),
            "beyond_backtest": self.before.beyond_backtest,
            "notes": list(self.notes),
        }

    def to_dataframe(self) -> pd.DataFrame:
        """One row per step of the updated curve: median, 50 and 90 % intervals."""
        import pandas as pd

        table = self.curve.quantiles((0.5, 0.25, 0.75, 0.05, 0.95))
        columns = dict(zip(("median_nats", "lo50", "hi50", "lo90", "hi90"), table, strict=True))
        return pd.DataFrame({"step": self.curve.steps, **columns})

    def __str__(self) -> str:
        low, high = self.interval(0.9)
        was = self.before.loss.interval(0.9)
        p = "diverged" if np.isnan(self.p_value) else f"p = {self.p_value:.2g}"
        target = (
            ""
            if self.target is None
            else f"\nreaches {self.target:g} nats with probability {self.probability_of_target:.3g}"
        )
        return (
            f"{self.verdict} ({p}); final loss {self.median:.4g} (90 %: {low:.4g} to {high:.4g}), "
            f"before {self.before.median:.4g} ({was[0]:.4g} to {was[1]:.4g}){target}"
        )

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(str(self))}</p>"


def observe(
    fit: Fit,
    curve: Any,
    N: float,
    *,
    B: float | None = None,
    S: float | None = None,
    tokens: float | None = None,
    target: float | None = None,
    warmup: float | None = None,
    backtest: Backtest | Literal["auto"] | None = "auto",
    seed: int = 0,
) -> Observed:
    """Update the forecast of a running run on its own curve, and judge whether the run is on track.

    Parameters
    ----------
    fit : Posterior
        Of a law of learning curves: ``kaplan``, ``kaplan-ns``, with or without a floor.
    curve : path, DataFrame, mapping or Progress
        See `read_progress`: losses in nats of the same evaluation as those of the fit, at constant learning rate.
    N : float
        Parameters, counted as the runs were.
    B, S, tokens : float
        Two of batch in tokens, steps and tokens of the whole planned run; ``kaplan-ns`` takes its own batch for B.
    target : float
        Loss in nats per token that the run should reach.
    warmup : float
        Warm-up of this run in steps: points before twice as many are not used, nor those before the fit's first step.
    backtest : "auto", Backtest or None
        As of `forecast`; None leaves the law's discrepancy out.

    Raises
    ------
    LawError
        The law has no learning curves, or there are no runs behind the fit and so no errors to compare with.
    DataError
        The curve has no usable point.
    """
    law = _law(fit)
    if target is not None and not (np.isfinite(target) and target > 0):
        raise ConfigError(f"target must be a positive loss in nats per token, got {target}")
    run = _planned(fit, law, N=N, B=B, S=S, tokens=tokens)
    first, why = _first_step(fit, law, warmup)
    progress = read_progress(curve, run.B).since(first, why)
    assert run.S is not None
    if progress.steps[-1] > run.S * (1 + 1e-9):
        raise DataError(f"the curve goes on to step {progress.steps[-1]:g}, but the run was planned for S = {run.S:g}")
    if not progress.used.any() and progress.diverged_at is None:
        raise DataError(f"no point of the curve can be used yet: {'; '.join(progress.notes) or 'it is empty'}")
    before = forecast(fit, run.N, B=run.B, S=run.S, backtest=backtest, seed=seed)
    found = None if backtest is None else discrepancy_of(fit)
    model = found if isinstance(found, Discrepancy) else None
    if not progress.used.any():
        return _diverged(fit, before, progress, target)
    return _updated(fit, law, model, before, progress, target, seed)


def _updated(
    fit: Fit, law: Law, model: Discrepancy | None, before: Forecast, progress: Progress, target: float | None, seed: int
) -> Observed:
    run = before.run
    assert run.S is not None
    seen_S = progress.steps[progress.used]
    y, error = np.log(progress.loss[progress.used]), progress.error[progress.used] / progress.loss[progress.used]
    grid = np.geomspace(seen_S[0], run.S, CURVE_POINTS)
    steps = np.unique(np.concatenate([seen_S, grid[grid > seen_S[0] * (1 + 1e-9)]]))
    seen = np.searchsorted(steps, seen_S)
    mean = _mean(fit, law, model, run, steps, seed)
    errors = _errors(fit, model, run, len(mean), seed)
    measured = np.nan_to_num(error, nan=0.0)
    found = condition(mean, np.log(steps), seen, y, measured, errors, seed)
    far, worse, better = surprise(y, found.replicated)
    p_value = min(1.0, 3.0 * min(far, worse, better))  # Bonferroni
    if _verdict(p_value, worse) in ("doubtful", "off track"):
        held = condition(mean, np.log(steps), seen, y, measured, errors.lasting(), seed)
        found = replace(held, replicated=found.replicated)
    tokens = None if run.B is None else run.B * steps
    curve = Curve(steps, tokens, np.exp(found.path))
    diverged = progress.diverged_at
    final = np.exp(found.path[:, -1] + found.point) if diverged is None else np.full(len(mean), np.inf)
    reached = None if target is None or diverged is not None else curve.reaches(target)
    away = Quantity("deviation", y[-1] - mean[:, seen[-1]], "log_loss")
    return Observed(
        Quantity("loss", final, "nats"),
        before,
        curve,
        Curve(seen_S, None if run.B is None else run.B * seen_S, np.exp(found.replicated)),
        progress,
        p_value if diverged is None else float("nan"),
        away,
        "off track" if diverged is not None else _verdict(p_value, worse),
        target,
        None if target is None else (0.0 if reached is None else float(np.isfinite(reached.draws).mean())),
        reached,
        head(fit),
        (*_notes(before, progress), *_divergence(diverged), *_lasting(p_value, worse)),
    )


def _notes(before: Forecast, progress: Progress) -> tuple[str, ...]:
    """What the forecast says, but for inputs that its law does not read: the discrepancy does."""
    return (*(note for note in before.notes if not note.startswith("ignored")), *progress.notes)


def _lasting(p_value: float, worse: float) -> tuple[str, ...]:
    """What the updated loss of a run that is unlike all others rests on."""
    if _verdict(p_value, worse) not in ("doubtful", "off track"):
        return ()
    return (
        "errors of the fit's runs fade along a run; nothing says that this one's does, so the updated loss and the "
        "target's probability take it to last: expect better if the cause is found",
    )


def _verdict(p_value: float, worse: float) -> str:
    if worse > 0.5:
        return "ahead" if p_value < OFF_TRACK else "on track"
    return "off track" if p_value < OFF_TRACK else "doubtful" if p_value < DOUBTFUL else "on track"


def _diverged(fit: Fit, before: Forecast, progress: Progress, target: float | None) -> Observed:
    """A run without a usable point whose loss is no number any more."""
    lost, nothing = Quantity("loss", np.full(1, np.inf), "nats"), Curve(np.ones(1), None, np.full((1, 1), np.inf))
    return Observed(
        lost,
        before,
        nothing,
        nothing,
        progress,
        float("nan"),
        Quantity("deviation", np.full(1, np.inf), "log_loss"),
        "off track",
        target,
        None if target is None else 0.0,
        None,
        head(fit),
        (*_notes(before, progress), *_divergence(progress.diverged_at)),
    )


def _divergence(at: float | None) -> tuple[str, ...]:
    return () if at is None else (f"the run diverged: its loss is no number from step {at:g} on",)


def _law(fit: Fit) -> Law:
    if fit.law_name not in LAWS:
        raise LawError(
            f"{fit.law_name!r} predicts finished runs: the loss in the middle of a run is not that of a shorter one. "
            f"Fit a law of learning curves to watch a run: {', '.join(LAWS)}"
        )
    if getattr(fit, "runs", None) is None:
        raise LawError("published constants come without runs, so nothing says how far a run may stray; fit some runs")
    return get_law(getattr(fit, "law", None) or fit.law_name)


def _planned(fit: Fit, law: Law, **given: float | None) -> Run:
    if given["B"] is None and "B" not in law.columns and None in (given["S"], given["tokens"]):
        batch = main_batch(fit.runs)  # type: ignore[attr-defined]
        given["B"] = batch if np.isfinite(batch) else None
    run = Run.of(**given)
    if run.S is None or run.B is None:
        raise ConfigError("observing needs the planned run: two of B (tokens per step), S (steps) and tokens")
    return run


def _first_step(fit: Fit, law: Law, warmup: float | None) -> tuple[float, str]:
    """First step of a usable point, and why."""
    data = law.observe(fit.runs)  # type: ignore[attr-defined]
    fitted = float(data.columns["S"][data.role == "curve"].min())
    if warmup is not None and 2 * warmup > fitted:
        return 2 * warmup, "twice the warm-up has not passed"
    return fitted, "the fit has no points so early in training"


def _mean(fit: Fit, law: Law, model: Discrepancy | None, run: Run, steps: Array, seed: int) -> Array:
    """(n, k) joint draws of the expected log loss at ``steps``."""
    assert run.N is not None
    assert run.B is not None
    columns = {"N": np.full(1, run.N), "B": np.full(1, run.B), "S": steps}
    columns = {name: columns[name] for name in columns if name in law.columns}
    with np.errstate(all="ignore"):
        mean = np.log(np.asarray(law.loss(columns_of(fit if model is None else model), columns), dtype=np.float64))
    away = 0.0 if model is None else model.shift(6 * run.N * run.B * steps, run.N, "curve", seed)
    return np.asarray(mean + away)


def _errors(fit: Fit, model: Discrepancy | None, run: Run, num: int, seed: int) -> RunErrors:
    """``num`` draws of the errors of one curve: how they are shared out by the fit, their scale by the discrepancy."""
    noise: Mapping[str, Array] = fit.noise  # type: ignore[attr-defined]
    named = {name: noise.get(f"{name}_curve", noise.get(name)) for name in ("sigma", "tau", "ell", "nu")}
    if any(values is None for values in named.values()):
        raise LawError("the fit has no errors of learning curves (sigma, tau, ell, nu)")
    values = {name: np.asarray(value, dtype=np.float64) for name, value in named.items()}
    rows = np.random.default_rng([seed, 3]).integers(len(values["sigma"]), size=num)
    sigma, tau, ell, nu = (values[name][rows] for name in ("sigma", "tau", "ell", "nu"))
    scale = np.hypot(sigma, tau)
    share = (sigma / scale) ** 2
    if model is not None:
        scale = model.scale[:, model.roles.index("curve")] * np.exp(
            -0.5 * model.growth * min(float(np.log(run.C / model.largest)), 0.0)
        )
    return RunErrors(scale, share, ell, nu)
