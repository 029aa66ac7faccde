"""What a budget is best spent on: N, D, B, S and the loss reached, from every posterior draw.

``compute`` is what is *paid*: 6·N·B·S = C for every draw. C_min, what the same loss would cost at a batch far below the
critical one, is reported beside it; at the critical batch C = 2·C_min (Kaplan et al. 2020, 5.5).
"""

from __future__ import annotations

from typing import Any, Literal
from warnings import warn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_sim.errors import ConfigError, DataWarning, LawError
from scaling_sim.laws.constants import FRONTIER_LAW
from scaling_sim.predict.allocation import UNITS as UNITS
from scaling_sim.predict.allocation import Allocation as Allocation
from scaling_sim.predict.backtest import Backtest, backtest_of
from scaling_sim.predict.budget import budget_flops, idle_settings, sustained
from scaling_sim.predict.constraints import BYTES_PER_PARAMETER, Limits
from scaling_sim.predict.deadline import Clock
from scaling_sim.predict.discrepancy import Discrepancy, discrepancy_of
from scaling_sim.predict.frontier import Batch
from scaling_sim.predict.plans import ChinchillaPlan, Draws, KaplanPlan, Plan, Policy, PowerPlan, RepeatedPlan
from scaling_sim.predict.plans import chinchilla_size as chinchilla_size
from scaling_sim.predict.reach import Reach
from scaling_sim.predict.size_backtest import SizeBacktest, size_backtest
from scaling_sim.predict.source import Array, Fit, columns_of, compute_range, head

Method = Literal["law", "isoflop", "envelope"]
PLANS: dict[str, type[Plan]] = {
    "kaplan": KaplanPlan,
    "kaplan-floor": KaplanPlan,
    FRONTIER_LAW: PowerPlan,
    "chinchilla": ChinchillaPlan,
    "data-constrained": RepeatedPlan,
}


def allocate(
    fit: Fit,
    compute: ArrayLike | None = None,
    *,
    pf_days: ArrayLike | None = None,
    gpu_hours: ArrayLike | None = None,
    money: ArrayLike | None = None,
    hours: float | None = None,
    num_gpus: float | None = None,
    flops_per_second: float | None = None,
    utilisation: float = 1.0,
    price_per_gpu_hour: float | None = None,
    step_seconds: float | None = None,
    batch: Batch = "critical",
    method: Method = "law",
    max_N: float | None = None,
    unique_tokens: float | None = None,
    gpu_memory: float | None = None,
    bytes_per_parameter: float = BYTES_PER_PARAMETER,
    backtest: Backtest | Literal["auto"] | None = "auto",
    seed: int = 0,
) -> Allocation:
    """Return the compute-optimal N, D, B, S and loss for a budget, with draws.

    Parameters
    ----------
    fit : Posterior or ConstantSet
        Of law ``kaplan``, ``kaplan-floor`` (Kaplan et al. 2020, Appendix B), ``chinchilla`` or ``data-constrained``
        (Hoffmann et al. 2022, approach 3; Muennighoff et al. 2023), or a published frontier such as ``kaplan-table6``.
    compute, pf_days, gpu_hours, money
        One budget or an array of them: see `scaling_sim.predict.budget.budget_flops`.
    hours, num_gpus
        A deadline. With ``flops_per_second`` it is a budget by itself; beside another budget, the smaller one counts.
    flops_per_second, utilisation
        FLOP/s that one GPU sustains, or its peak and the share of it.
    step_seconds : float
        Least time of one step, whatever its batch: with ``hours`` it bounds S, and the batch follows from C and S by
        (5.4), for laws that know batches (`scaling_sim.predict.deadline`).
    batch : "critical" or float
        Train at B_crit of the loss reached, or at this many tokens per step. Laws without a batch ignore it and warn.
    method : "law", "isoflop" or "envelope"
        Where N* comes from: the law's optimum, or the runs themselves, by isoFLOP minima or the lower envelope
        (approaches 3, 2 and 1 of Hoffmann et al.; `compare_methods` has all three). The loss is the law's at that N.
    max_N : float
        The largest model that can be served, in the fit's N.
    unique_tokens : float
        Fresh tokens that exist. ``data-constrained`` repeats them, ``kaplan`` until early stopping at L(N, D) (1.5),
        ``chinchilla`` never.
    gpu_memory, bytes_per_parameter
        Bytes of one GPU: N ≤ num_gpus·gpu_memory/bytes_per_parameter. The 16 bytes of mixed-precision AdamW are spread
        over all GPUs (one if ``num_gpus`` is not given); activations are not counted.
    backtest : Backtest, "auto" or None
        None: the law alone. Otherwise the loss carries the discrepancy that the runs show from their law, and N* is
        back-tested if a budget exceeds all runs: from this back-test, or ("auto") from one that is made once.
    seed : int
        Of the draws of the discrepancy, and of the pairing of draws where ``method`` is not the law.

    Raises
    ------
    LawError
        If the law has no single-epoch compute frontier; the message says why.
    ConfigError
        A budget, a limit or the batch makes no sense.
    """
    speed = sustained(flops_per_second, utilisation)
    clock = Clock(hours, num_gpus, speed, step_seconds)
    money_terms = {"flops_per_second": flops_per_second, "utilisation": utilisation}
    paid = budget_flops(
        compute,
        pf_days=pf_days,
        gpu_hours=gpu_hours,
        money=money,
        deadline_flops=clock.capacity if hours is not None else None,
        price_per_gpu_hour=price_per_gpu_hour,
        **money_terms,  # type: ignore[arg-type]
    )
    given = {"compute": compute, "pf_days": pf_days, "gpu_hours": gpu_hours, "money": money}
    idle = idle_settings(
        spends=next((name for name, value in given.items() if value is not None), ""),
        price_per_gpu_hour=price_per_gpu_hour,
        hours=hours,
        num_gpus=num_gpus,
        step_seconds=step_seconds,
        gpu_memory=gpu_memory,
        counts_bytes=bytes_per_parameter != BYTES_PER_PARAMETER,
        **money_terms,  # type: ignore[arg-type]
    )
    if idle:
        warn(f"ignored: {idle}", DataWarning, stacklevel=2)
    budgets = np.atleast_1d(paid)
    if budgets.ndim != 1:
        raise ConfigError(f"budgets must be a number or one-dimensional, got shape {paid.shape}")
    batch = _checked_batch(batch)
    limits = Limits.of(max_N, unique_tokens, gpu_memory, bytes_per_parameter, num_gpus)
    plan = plan_of(fit, budgets, _policy(fit, batch, clock, len(budgets)), limits)
    draws = plan.best() if method == "law" else _by_method(fit, plan, method, seed)
    has_batch = "B" in draws
    if not has_batch and (batch != "critical" or step_seconds is not None):
        what = f"batch={batch:g}" if batch != "critical" else "step_seconds"
        warn(f"{what} is ignored: {fit.law_name!r} does not know batches", DataWarning, stacklevel=2)
    span = compute_range(fit)
    tested: Backtest | str | None = backtest
    if backtest == "auto":
        beyond = span is not None and bool(np.any(budgets > span[1]))
        tested = backtest_of(fit) if beyond or span is None else None
    sizes, size_note = _size_tested(fit, tested)
    made = tested if isinstance(tested, Backtest) else None
    model = None if backtest is None else discrepancy_of(fit)
    unlearned = (model,) if isinstance(model, str) else ()
    caveat = () if made is None else (f"loss: {made.caveat()}",)
    return Allocation(
        compute=budgets,
        draws={**_with_discrepancy(draws, None if isinstance(model, str) else model, seed), **clock.quantities(draws)},
        batch=("deadline" if plan.policy.kind == "steps" else batch) if has_batch else None,
        scalar=paid.ndim == 0,
        header=head(fit),
        beyond_backtest=_beyond(span, budgets, sizes),
        notes=(size_note, *unlearned, *caveat, *plan.notes(), *limits.notes, *_unspent(draws, budgets)),
        backtest_coverage90=None if made is None else made.coverage(),
        size_backtest=sizes,
        method=method,
        limits=limits.to_json(),
        plan=plan,
        fit=fit,
    )


def plan_of(fit: Fit, C: Array, policy: Policy | None = None, limits: Limits | None = None) -> Plan:
    """How a fit's law spends (k,) FLOP.

    Raises
    ------
    LawError
        The law has no single-epoch compute frontier.
    """
    if fit.law_name in PLANS:
        return PLANS[fit.law_name](columns_of(fit), C, policy or Policy(), limits or Limits())
    reasons = {
        "kaplan-nd": "its D is the size of a data set that early-stopped runs repeat, so C = 6·N·D does not hold",
        "kaplan-ns": "its steps are S_min at a batch above B_crit; without B_crit(L) they have no price. Fit 'kaplan'",
        "power-c": "it says what loss a budget reaches, not with which N",
    }
    reason = reasons.get(fit.law_name.removesuffix("-floor"), "its form does not relate N, tokens and compute")
    raise LawError(
        f"no allocation from {fit.law_name!r}: {reason}. Laws that have one: kaplan, kaplan-floor, chinchilla"
    )


def _policy(fit: Fit, batch: Batch, clock: Clock, num_budgets: int) -> Policy:
    knows_batches = PLANS.get(fit.law_name) in (KaplanPlan, PowerPlan)
    if clock.max_steps is not None and knows_batches:
        if batch != "critical":
            raise ConfigError(f"hours and step_seconds set the batch; leave batch={batch:g} or step_seconds out")
        return Policy("steps", np.full(num_budgets, clock.max_steps))
    return Policy() if batch == "critical" else Policy("fixed", float(batch))


def _by_method(fit: Fit, plan: Plan, method: str, seed: int) -> Draws:
    """N* read off the runs, each draw paired at random with one of the law, which says all else."""
    from scaling_sim.predict.methods import compare_methods

    if method not in ("isoflop", "envelope"):
        raise ConfigError(f"method must be law, isoflop or envelope, got {method!r}")
    if plan.policy.kind != "critical":
        raise ConfigError(f"method={method!r} reads runs at the critical batch; leave batch= and step_seconds= out")
    found = compare_methods(fit, plan.C, seed=seed)
    if method not in found.estimates:
        raise LawError(f"no allocation by method={method!r}: {found.refused[method]}")
    order = np.argsort(np.argsort(plan.C))  # compare_methods sorts its budgets and drops repeated ones
    place = np.searchsorted(found.compute, plan.C) if len(found.compute) != len(plan.C) else order
    log_N = found.estimates[method].log_N[:, place]
    rows = np.random.default_rng(seed).integers(len(log_N), size=len(next(iter(fit.draws.values()))))
    return plan.at(np.minimum(np.exp(log_N[rows]), plan.limits.max_N))


def _unspent(draws: Draws, budgets: Array) -> tuple[str, ...]:
    """A note where limits leave some of a budget unspent."""
    share = np.median(draws["C"], axis=0) / budgets
    if np.all(share > 1 - 1e-9):
        return ()
    least = float(share.min())
    return (f"within the limits no more than {least:.2g} of the budget can be spent with a gain; C says what is paid",)


def _with_discrepancy(draws: dict[str, Array], model: Discrepancy | None, seed: int) -> dict[str, Array]:
    """Draws with the loss that a forecast of the median plan gives, and that of the law alone beside it.

    The loss is as flat about the best size as the floor of a valley, so that the median plan stands for all.
    """
    law_alone = draws["loss"]
    if model is None:
        return {**draws, "loss": law_alone, "law_alone_loss": law_alone}
    middle: dict[str, Array] = {name: np.median(values, axis=0) for name, values in draws.items()}
    middle.setdefault("tokens", middle["D"])
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

    def solve(below: Any, C: Array, B: float | None) -> Array:
        return plan_of(below, C, Policy("fixed", B) if B else Policy()).best()["N"]

    found = size_backtest(fit, tested, solve)
    return (None, f"N* not back-tested: {found}") if isinstance(found, str) else (found, found.note())


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
