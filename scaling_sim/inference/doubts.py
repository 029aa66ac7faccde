"""What a point estimate itself shows that the runs do not tell: a floor near 0, flat exponents, no law at all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from scaling_sim.laws.base import Law
from scaling_sim.laws.observations import Observations

Array = NDArray[np.float64]

NO_FLOOR = 0.01
"""Floor over the smallest loss below which a law's fit has none."""
FLAT = 0.01
"""Exponent below which a decade moves its term by 2 % at most: published ones of losses lie above .05."""
NO_LAW = 0.9
"""Mean absolute residual over that about the median, above which the law is no better than a constant."""
_QUESTION = "accuracies instead of losses, or columns mixed up?"


def doubts(law: Law, data: Observations, parameters: Mapping[str, float], residuals: Array) -> tuple[str, ...]:
    """Notes on a point estimate of a law of the loss; none of another response.

    Parameters
    ----------
    residuals : (n_rows,) log response less log prediction
    """
    if law.response != "loss":
        return ()
    found = []
    if "E" in parameters and parameters["E"] < NO_FLOOR * data.response.min():
        found.append(
            f"E is {parameters['E']:.2g}, under 1 % of the smallest loss ({data.response.min():.4g}): these runs show "
            "no floor, so E and what trades off with it (exponents, amplitudes) are not identified; the posterior "
            "(`fit` without --point) gives their ranges"
        )
    flat = [name for name in law.exponents if name.startswith(("alpha", "beta")) and parameters[name] < FLAT]
    if flat:
        told = ", ".join(f"{name} is {parameters[name]:.2g}" for name in flat)
        found.append(f"{told}: the loss hardly depends on that column, or rises with it; {_QUESTION}")
    log_loss = np.log(data.response)
    spread = float(np.mean(np.abs(log_loss - np.median(log_loss))))
    if np.mean(np.abs(residuals)) > NO_LAW * spread:
        found.append(f"the law describes these losses no better than a constant; {_QUESTION}")
    return tuple(found)
