"""Integrated autocorrelation times of ensembles of walkers, of what is sampled and of its tails."""

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
    rho = np.zeros((steps, chain.shape[3]))
    for ensemble in chain:  # one at a time: a transform of everything would hold it all in memory once more
        covariance = _autocovariance(ensemble - ensemble.mean(axis=0))
        rho += (covariance / np.maximum(covariance[0], 1e-300)).mean(axis=1)
    return _windowed(rho / len(chain))


def tail_time(chain: Array, share: float) -> Array:
    """τ in steps of each coordinate's tails, (n_coordinates,): the longer one of x ≤ q and x > q′.

    q and q′ leave ``share`` of all draws outside. The tails are visited seldom, most walkers not at all for long, so
    that their mean is that of all and their autocovariances are pooled.

    Parameters
    ----------
    chain : (n_ensembles, n_steps, n_walkers, n_coordinates) array
    """
    low, high = np.quantile(chain, [share, 1.0 - share], axis=(0, 1, 2), method="nearest")
    return np.maximum(_pooled_time(chain <= low), _pooled_time(chain > high))


def _pooled_time(inside: NDArray[np.bool_]) -> Array:
    mean = inside.mean(axis=(0, 1, 2))
    covariance = sum(_autocovariance(ensemble - mean).sum(axis=1) for ensemble in inside)
    return _windowed(np.asarray(covariance / np.maximum(covariance[0], 1e-300)))


def _autocovariance(centred: Array) -> Array:
    """Σ_i x_i x_{i+t} over steps i, for every lag t: (n_steps, n_walkers, n_coordinates)."""
    steps = len(centred)
    length = 1 << (2 * steps - 1).bit_length()
    power = np.abs(np.fft.rfft(centred, n=length, axis=0)) ** 2
    return np.asarray(np.fft.irfft(power, n=length, axis=0)[:steps])


def _windowed(rho: Array) -> Array:
    """τ of autocorrelations (n_steps, n_coordinates), at least 1."""
    tau = 2.0 * np.cumsum(rho, axis=0) - 1.0
    enough = np.arange(len(rho))[:, None] >= WINDOW * tau
    window = np.where(enough.any(axis=0), enough.argmax(axis=0), len(rho) - 1)
    return np.asarray(np.maximum(tau[window, np.arange(tau.shape[1])], 1.0))
