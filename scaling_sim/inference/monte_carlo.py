"""Monte Carlo error of what is printed: medians."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scaling_sim.inference.autocorrelation import integrated_time

Array = NDArray[np.float64]


def median_errors(values: Array) -> Array:
    """Monte Carlo standard error of the median of each quantity, (n_quantities,); NaN where it is not finite.

    Half the width of the central 68 % of the median's sampling distribution, from the effective draws of x ≤ median
    (Vehtari et al. 2021, section 4.4). It exists whatever the tails are; that of the mean need not.

    Parameters
    ----------
    values : (n_ensembles, n_steps, n_walkers, n_quantities) array
        In the units that are reported, burn-in removed.
    """
    from scipy.special import betaincinv

    flat = values.reshape(-1, values.shape[-1])
    below = (values <= np.median(flat, axis=0)).astype(np.float64)
    half = 0.5 * len(flat) / integrated_time(below) + 1
    ends = betaincinv(half, half, np.array([[0.1586553], [0.8413447]]))
    with np.errstate(all="ignore"):
        widths = [np.diff(np.quantile(draws, at)).item() for draws, at in zip(flat.T, ends.T, strict=True)]
    return np.where(np.isfinite(widths), 0.5 * np.array(widths), np.nan)
