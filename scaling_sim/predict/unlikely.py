"""Warnings about runs that no law fitted so far can speak of."""

from __future__ import annotations

import dataclasses
from warnings import warn

import numpy as np

from scaling_sim.errors import ExtrapolationWarning
from scaling_sim.laws.registry import get_law
from scaling_sim.predict.run import Run
from scaling_sim.predict.source import Array, Fit, compute_range

IMPOSSIBLE_LOSS = 16.0
"""Nats per token: e¹⁶ is a vocabulary of 9 million, and guessing evenly among it costs as much."""
FAR_DECADES = 4.0
"""Decades of compute from the runs at which a forecast warns."""


def warn_of_the_impossible(fit: Fit, run: Run, loss: Array) -> None:
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
    runs = getattr(fit, "runs", None)
    if runs is not None and not np.isfinite(run.C):
        _warn_of_other_columns(fit, run)
    if span is None or runs is None or not np.isfinite(run.C):
        return
    above, below = np.log10(run.C / span[1]), np.log10(span[0] / run.C)
    if max(above, below) > FAR_DECADES:
        side, decades = ("above the largest", above) if above > below else ("below the least", below)
        warn(
            f"the run of {run.C:.3g} FLOP lies {decades:.1f} decades {side} compute of the runs behind this fit",
            ExtrapolationWarning,
            stacklevel=3,
        )


def _warn_of_other_columns(fit: Fit, run: Run) -> None:
    """Warn of a run of unknown compute that lies outside the runs in what the law reads."""
    law = getattr(fit, "law", None) or get_law(fit.law_name)
    for name, value in dataclasses.asdict(run).items():
        column = np.asarray(getattr(fit.runs, name))  # type: ignore[attr-defined]
        known = column[np.isfinite(column)]
        if name not in law.columns or value is None or not known.size or known.min() <= value <= known.max():
            continue
        warn(
            f"{name} = {value:.3g} lies outside the {known.min():.3g} to {known.max():.3g} of the runs, and without "
            "its compute the interval does not widen with the distance; give N and tokens",
            ExtrapolationWarning,
            stacklevel=4,
        )
