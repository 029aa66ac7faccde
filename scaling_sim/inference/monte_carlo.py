"""Monte Carlo error of what is printed: medians."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from scaling_sim.inference.autocorrelation import integrated_time

Array = NDArray[np.float64]


def median_errors(chain: Array, natural: Callable[[Array], Mapping[str, Array]]) -> dict[str, float]:
    """Monte Carlo standard error of the median of each natural parameter; NaN where it is not finite.

    Half the width of the central 68 % of the median's sampling distribution, from the effective draws of x ≤ median
    (Vehtari et al. 2021, section 4.4). It exists whatever the tails are; that of the mean need not.

    Parameters
    ----------
    chain : (n_ensembles, n_steps, n_walkers, n_coordinates) array, burn-in removed
    natural : function
        Natural parameters, each (n,), of draws (n, n_coordinates).
    """
    from scipy.special import betaincinv

    with np.errstate(all="ignore"):
        found = natural(chain.reshape(-1, chain.shape[-1]))
    values = np.stack(list(found.values()), axis=-1)
    below = (values <= np.median(values, axis=0)).astype(np.float64)
    tau = integrated_time(below.reshape(*chain.shape[:3], -1))
    errors = {}
    for name, draws, own in zip(found, values.T, tau.tolist(), strict=True):
        half = 0.5 * len(draws) / own + 1
        low, high = betaincinv(half, half, [0.1586553, 0.8413447]).tolist()
        with np.errstate(all="ignore"):
            width = float(np.diff(np.quantile(draws, [low, high]))[0])
        errors[name] = 0.5 * width if np.isfinite(width) else float("nan")
    return errors
