"""Tables that compare: laws with one another, ways to find the best size, runs with the rest."""

from __future__ import annotations

from typing import Any

import numpy as np

from scaling_sim.report.data import ReportData
from scaling_sim.report.table import Cell, Range, Table, number

MOST_OUTLIERS = 20
WORTH_A_LOOK = 0.1
"""Outlier probability from which a run is listed."""


def comparison_table(data: ReportData) -> Table | None:
    """Laws by leave-one-out and by back-test."""
    found = data.comparison
    if found is None:
        return None
    frame = found.to_dataframe()
    heads = {
        "elpd": "leave-one-out log density, nats",
        "difference": "behind the best",
        "difference_se": "standard error",
        "max_pareto_k": "largest Pareto k",
        "num_unreliable": "unreliable runs",
        "loo_weight": "weight, interpolation",
        "backtest_weight": "weight, back-test",
        "backtest_error": "mean error beyond the cuts",
        "not_identified": "not identified",
    }
    shown = [name for name in heads if name in frame.columns]
    rows = tuple((str(law), *(_cell(row[name], name) for name in shown)) for law, row in frame.iterrows())
    return Table("comparison", "Which law?", ("law", *(heads[name] for name in shown)), rows, found.verdict)


def methods_table(data: ReportData) -> Table | None:
    """N* and its exponent by each method."""
    found = data.methods
    if found is None:
        return None
    names = {"law": "law", "isoflop": "isoFLOP minima", "envelope": "envelope"}
    rows: list[tuple[Cell, ...]] = []
    for name, estimate in found.estimates.items():
        sizes = [Range.of(estimate.N(i)) for i in range(len(found.compute))]
        rows.append((names[name], estimate.basis, Range.of(estimate.exponent), *sizes))
    for name, why in found.refused.items():
        rows.append((names[name], f"cannot be made: {why}", None, *[None] * len(found.compute)))
    budgets = tuple(f"N* at {number(float(C))} FLOP" for C in found.compute)
    note = "; ".join([found.verdict, *found.notes])
    return Table("methods", "The best size, three ways", ("method", "from", "exponent", *budgets), tuple(rows), note)


def outlier_table(data: ReportData) -> Table | None:
    """The runs most likely to be outliers, of all fits."""
    rows: list[tuple[Cell, ...]] = []
    for law, fit in data.fits.items():
        probability, names = fit.outlier_probability()
        order = np.argsort(-probability, kind="stable")
        places = [int(i) for i in order[:MOST_OUTLIERS] if probability[i] >= WORTH_A_LOOK]
        residual = np.log(fit.data.response) - np.median(fit.log_prediction(), axis=0)
        units = fit.likelihood.units()
        for i in places:
            worst = units[i][np.argmax(np.abs(residual[units[i]]))]
            off = f"{np.expm1(residual[worst]):+.1%}".replace("-", "−")
            rows.append((law, str(names[i]), f"{probability[i]:.3f}", off, len(units[i])))
    if not rows:
        return None
    columns = ("law", "run", "outlier probability", "largest residual, of the loss", "rows")
    note = (
        "Probability that a run's own errors are on a scale above three times that of the rest, given the law and "
        f"all runs; those from {WORTH_A_LOOK:g} on, {MOST_OUTLIERS} per law at most. Such runs count for little in the "
        "fit; they are marked in the residuals. Many on one side of the data mean a wrong form rather than bad runs."
    )
    return Table("outliers", "Runs that may be outliers", columns, tuple(rows), note)


def _cell(value: Any, name: str) -> Cell:
    if isinstance(value, str):
        return value
    if name == "num_unreliable":
        return int(value)
    if name in ("backtest_error",):
        return f"{float(value):.2%}"
    return f"{float(value):.2f}" if "weight" in name or "pareto" in name else float(f"{float(value):.1f}")
