"""The first thing that a reader sees: the few numbers that a study was made for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from scaling_sim.report.data import ReportData
from scaling_sim.report.table import interval, number, pf_days

MOST_LAWS = 2
"""Laws whose best model for the largest budget is a finding."""

FAR_FLOPS = 1e30
"""A crossing beyond this compute is no number worth printing: some ten thousand times the largest runs ever made."""


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
    if result.C.median > FAR_FLOPS:
        words = "the laws do not contradict one another at any compute worth naming"
        return [Finding(f"C* > {number(FAR_FLOPS)} FLOP", f"from {number(result.C.interval(0.9)[0])}", words)]
    words = (
        f"FLOP at which the laws contradict one another; {result.probability_none:.1%} of the draws have no crossing"
    )
    return [Finding(f"C* = {number(result.C.median)}", interval(*result.C.interval(0.9)), words)]
