"""Hoffmann et al. 2022's fit: L-BFGS from a grid of 4500 starts on the log-Huber sum, with its analytic gradient.

``python scipy_grid.py IN.json OUT.json STARTS`` reads N, tokens and loss, runs every (4500/STARTS)-th start, and writes
CPU seconds, the best objective and its parameters. Nothing of scaling_sim is imported.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import product

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

DELTA = 1e-3


def grid() -> list[tuple[float, ...]]:
    """All starts (a, b, e, alpha, beta): appendix D.3."""
    amplitudes, floors, exponents = np.arange(0.0, 26.0, 5.0), np.arange(-1.0, 1.1, 0.5), np.arange(0.0, 2.1, 0.5)
    return list(product(amplitudes, amplitudes, floors, exponents, exponents))


def objective(u: np.ndarray, log_N: np.ndarray, log_D: np.ndarray, log_loss: np.ndarray) -> tuple[float, np.ndarray]:
    """Σ Huber(LSE(a − α ln N, b − β ln D, e) − ln L) and its gradient."""
    a, b, e, alpha, beta = u
    terms = np.stack([a - alpha * log_N, b - beta * log_D, np.full_like(log_N, e)])
    total = logsumexp(terms, axis=0)
    residual = total - log_loss
    size = np.abs(residual)
    value = np.where(size <= DELTA, 0.5 * residual**2, DELTA * (size - 0.5 * DELTA)).sum()
    pull = np.exp(terms - total) * np.clip(residual, -DELTA, DELTA)
    slopes = [pull[0].sum(), pull[1].sum(), pull[2].sum(), -(pull[0] @ log_N), -(pull[1] @ log_D)]
    return float(value), np.array(slopes)


def main() -> None:
    source, out, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with open(source, encoding="utf-8") as file:
        columns = {name: np.log(values) for name, values in json.load(file).items()}
    data = (columns["N"], columns["tokens"], columns["loss"])
    starts = grid()[:: max(1, 4500 // count)]
    began = time.process_time()
    found = [
        minimize(objective, start, args=data, jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9})
        for start in starts
    ]
    seconds = time.process_time() - began
    best = min(found, key=lambda result: result.fun)
    parameters = dict(zip(("A", "B", "E"), np.exp(best.x[:3]).tolist())) | dict(zip(("alpha", "beta"), best.x[3:]))
    result = {"seconds": seconds, "starts": len(starts), "objective": best.fun, "parameters": parameters}
    with open(out, "w", encoding="utf-8") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main()
