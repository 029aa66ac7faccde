"""The first thing that a reader sees: the few numbers that a study was made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scaling_sim.report.data import ReportData
from scaling_sim.report.table import interval, number, pf_days

MOST_LAWS = 2
"""Laws whose best model for the largest budget is a finding."""

FAR_FLOPS = 1e30
"""A crossing beyond this compute is no number worth printing: some ten thousand times the largest runs ever made."""


POOR_FIT = 0.02
"""A law that misses the losses by more than this share does not fit them, however well its sampler converged."""


@dataclass(frozen=True)
class Finding:
    """One number: its value, its 90 % interval, and what it is."""

    value: str
    between: str
    words: str


def findings(data: ReportData) -> list[Finding]:
    """Exponents, the largest budgets' best models, and the crossing point, as far as they exist."""
    return [*_exponents(data), *_budgets(data), *_crossing(data)]


def _exponents(data: ReportData) -> list[Finding]:
    found = []
    size = data.fit_with("alpha_N") or data.fit_with("alpha_N_curve")
    if size is not None:
        found.append(_finding("α_N", size.draws["alpha_N"], "loss falls with size as N to the power −α_N"))
    unique = data.fit_with("alpha_D")
    if unique is not None:
        found.append(_finding("α_D", unique.draws["alpha_D"], "loss falls with data as D to the power −α_D"))
    joint = data.fit_with("alpha_N", "alpha_S", "alpha_B")
    if joint is not None and "E" not in joint.draws:
        p = joint.draws
        share = 1 / p["alpha_N"] / (1 / p["alpha_N"] + 1 / p["alpha_S"] + 1 / p["alpha_B"])
        words = "best size grows as compute to the power p, by the kaplan fit (Kaplan et al.: 0.73)"
        found.append(_finding("p", share, words))
    final = data.fit_with("alpha", "beta")
    if final is not None:
        p = final.draws
        share = p["beta"] / (p["alpha"] + p["beta"])
        found.append(_finding("α", p["alpha"], "size exponent of chinchilla"))
        found.append(_finding("β", p["beta"], "data exponent of chinchilla"))
        found.append(_finding("p", share, "best size grows as compute to the power p, by the chinchilla fit"))
    return found


def _finding(symbol: str, draws: ArrayLike, words: str) -> Finding:
    low, middle, high = np.quantile(np.asarray(draws, dtype=float), [0.05, 0.5, 0.95])
    return Finding(f"{symbol} = {middle:.3f}", f"{low:.3f} to {high:.3f}", words)


def _budgets(data: ReportData) -> list[Finding]:
    found = []
    for several in data.allocations[:MOST_LAWS]:
        plan = several[len(several) - 1]
        size, compute = plan.quantity("N"), float(plan.compute[0])
        days = f", {number(pf_days(compute), 2)} PF-days" if compute > 1e17 else ""
        tokens = number(plan.quantity("D").median, 2)
        words = f"best size for {number(compute)} FLOP{days}, on {tokens} tokens, by {plan.header['law']}"
        found.append(Finding(f"N = {number(size.median)}", interval(*size.interval(0.9)), words))
    return found


def _crossing(data: ReportData) -> list[Finding]:
    result = data.crossover
    if result is None:
        return []
    if result.probability_none > 0.5:
        words = "have no compute at which the laws contradict one another"
        return [Finding("no C*", f"{result.probability_none:.1%} of the draws", words)]
    reason = result.not_determined
    if not reason and result.C.median > FAR_FLOPS:
        reason = f"its median lies above {number(FAR_FLOPS)} FLOP"
    if reason:
        return [Finding("C*", "not determined by these runs", f"where the laws would contradict one another: {reason}")]
    words = (
        f"FLOP at which the laws contradict one another; {result.probability_none:.1%} of the draws have no crossing"
    )
    return [Finding(f"C* = {number(result.C.median)}", interval(*result.C.interval(0.9)), words)]


@dataclass(frozen=True)
class Misfit:
    """Whether the laws fit the data: one sentence per fact, and whether any of them is a reason to doubt."""

    sentences: tuple[str, ...]
    doubtful: bool


def misfit(data: ReportData) -> Misfit:
    """Residual scale of each fit and the drift of the back-test, in per cent of the loss."""
    sentences, worst = [], 0.0
    for law, fit in data.fits.items():
        scales = _residual_scales(fit.noise)
        if scales:
            worst = max(worst, *scales.values())
            found = ", ".join(f"{share:.1%}{f' ({role} rows)' if role else ''}" for role, share in scales.items())
            sentences.append(f"{law}: {fit.law.response} differs from the law by {found} (residual scale).")
    if data.backtest is not None:
        drift = float(np.expm1(data.backtest.drift * np.log(10)))
        worst = max(worst, abs(drift))
        sentences.append(
            f"Beyond the runs that it was fitted to, the loss drifts away from {data.backtest.law_name} alone by "
            f"{drift:+.1%} per decade of compute."
        )
    return Misfit(tuple(sentences), worst > POOR_FIT)


def _residual_scales(noise: Mapping[str, Any]) -> dict[str, float]:
    """Role of the rows ("" if there is one) → median of √(σ² + τ²), relative: independent and curve-wide error."""
    found = {}
    for name, values in noise.items():
        if name.startswith("sigma"):
            role = name.removeprefix("sigma").removeprefix("_")
            wide = np.asarray(noise.get(name.replace("sigma", "tau", 1), 0.0), dtype=float)
            found[role] = float(np.median(np.hypot(np.asarray(values, dtype=float), wide)))
    return found
