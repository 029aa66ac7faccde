"""The gradient noise scale along runs as a power law of the loss (McCandlish et al. 2018; Kaplan et al. 2020, Fig 10).

Points along one run go together, so runs are what is resampled: each draw gives every run a random weight (Bayesian
bootstrap) and fits ln B_simple by least squares, once on ln L and once on ln L and ln N.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.config import checked_seed
from scaling_sim.errors import DesignError
from scaling_sim.predict.quantity import Quantity
from scaling_sim.predict.source import Array

if TYPE_CHECKING:
    from scaling_sim.runs.table import RunTable

MIN_RUNS = 4
NUM_DRAWS = 1000


@dataclass(frozen=True)
class NoiseScales:
    """B_simple = B*/L^(1/α_B) of the runs; a prediction takes it as a fit of the law `critical-batch`.

    Attributes
    ----------
    draws : ``alpha_B`` and ``B_star`` (tokens), (n,)
    size_exponent : (n,) γ in B_simple ∝ L^(−1/α_B)·N^γ: 0 where the noise scale depends on the loss only
    N, loss, scale : (k,) the points: parameters, nats per token, tokens
    num_runs : runs behind them
    """

    draws: Mapping[str, Array]
    size_exponent: Array
    N: Array
    loss: Array
    scale: Array
    num_runs: int
    law_name: str = "critical-batch"

    def __repr__(self) -> str:
        low, middle, high = np.quantile(self.draws["alpha_B"], (0.05, 0.5, 0.95))
        return f"NoiseScales({self.num_runs} runs: alpha_B {middle:.3f}, 90 % {low:.3f} to {high:.3f})"

    def to_json(self) -> dict[str, Any]:
        """α_B, B* and γ with their 90 % intervals."""
        named = {**self.draws, "size_exponent": self.size_exponent}
        return {
            "num_runs": self.num_runs,
            **{key: Quantity(key, values).to_json() for key, values in named.items()},
        }


def noise_scales(runs: RunTable, *, num_draws: int = NUM_DRAWS, seed: int = 0) -> NoiseScales:
    """Return the power law of the gradient noise scales measured along curves at constant learning rate.

    Raises
    ------
    DesignError
        Fewer than four runs measured it.
    """
    rng = np.random.default_rng(checked_seed(seed))
    measured = np.asarray(runs.extra.get("noise_scale", np.full(len(runs), np.nan)), dtype=np.float64)
    rows = np.flatnonzero(runs.curve & (measured > 0) & np.isfinite(measured) & (runs.N > 0) & (runs.loss > 0))
    names, run = np.unique(runs.run[rows], return_inverse=True)
    if len(names) < MIN_RUNS:
        raise DesignError(f"the noise scale must be measured along {MIN_RUNS} curves or more; it is on {len(names)}")
    N, loss, scale = runs.N[rows], runs.loss[rows], measured[rows]
    logs = np.stack([np.ones(len(rows)), np.log(loss), np.log(N) - np.log(N).mean()], axis=1)
    weight = rng.exponential(size=(num_draws, len(names)))
    alone = _weighted_fits(logs[:, :2], np.log(scale), run, weight)
    both = _weighted_fits(logs, np.log(scale), run, weight)
    draws = {"alpha_B": -1.0 / alone[:, 1], "B_star": np.exp(alone[:, 0])}
    return NoiseScales(draws, both[:, 2], N, loss, scale, len(names))


def _weighted_fits(X: Array, y: Array, run: NDArray[np.intp], weight: Array) -> Array:
    """(n, p) least squares of y on X with one weight per run, (n, n_runs)."""
    num = weight.shape[1]
    squares, products = np.zeros((num, X.shape[1], X.shape[1])), np.zeros((num, X.shape[1]))
    np.add.at(squares, run, X[:, :, None] * X[:, None, :])
    np.add.at(products, run, X * y[:, None])
    normal = np.tensordot(weight, squares, axes=1)
    return np.asarray(np.linalg.solve(normal, (weight @ products)[..., None])[..., 0])
