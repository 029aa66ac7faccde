"""Integrated autocorrelation time of ensembles of walkers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

WINDOW = 5.0
"""Sokal's window: the sum stops at the first lag M ≥ 5 τ(M)."""


def integrated_time(chain: Array) -> Array:
    """τ in steps of each coordinate, (n_coordinates,), averaged over walkers and ensembles.

    τ = 1 + 2 Σ_t ρ(t) (Goodman & Weare 2010; Sokal's window), the same estimate as emcee's, with all transforms in one
    call.

    Parameters
    ----------
    chain : (n_ensembles, n_steps, n_walkers, n_coordinates) array
    """
    steps = chain.shape[1]
    length = 1 << (2 * steps - 1).bit_length()
    rho = np.zeros((steps, chain.shape[3]))
    for ensemble in chain:  # one at a time: a transform of everything would hold it all in memory once more
        centred = ensemble - ensemble.mean(axis=0)
        power = np.abs(np.fft.rfft(centred, n=length, axis=0)) ** 2
        correlation = np.fft.irfft(power, n=length, axis=0)[:steps]
        rho += (correlation / np.maximum(correlation[0], 1e-300)).mean(axis=1)
    tau = 2.0 * np.cumsum(rho / len(chain), axis=0) - 1.0
    enough = np.arange(steps)[:, None] >= WINDOW * tau
    window = np.where(enough.any(axis=0), enough.argmax(axis=0), steps - 1)
    return np.asarray(np.maximum(tau[window, np.arange(tau.shape[1])], 1.0))
