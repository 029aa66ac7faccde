"""What larger runs would be if the law were true: its own posterior carried beyond the runs, without a discrepancy.

A back-test sets its forecasts beside this one. Parameters and errors are drawn together from the posterior that
`scaling_sim.fit` samples, here by importance sampling about its mode, so that a cut costs tenths of a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_sim.inference.approximate import resampled
from scaling_sim.inference.design import prepare
from scaling_sim.inference.point import natural_point, posterior_mode
from scaling_sim.inference.target import LogPosterior

if TYPE_CHECKING:
    from scaling_sim.laws.base import Law
    from scaling_sim.laws.observations import Observations
    from scaling_sim.runs.table import RunTable

Array = NDArray[np.float64]


def law_alone(
    runs: RunTable, law: Law, held: Observations, num_draws: int, seed: int = 0
) -> tuple[dict[str, float], Array]:
    """Natural parameters at the mode given ``runs``, and (num_draws, k) draws of the log responses of ``held``.

    A row gets the Student-t error of its role, and its own measured error; one of a learning curve gets both of a
    curve's errors.
    """
    target, rng = LogPosterior(law, prepare(runs, law)), np.random.default_rng(seed)
    mode, _ = posterior_mode(target)
    u, _ = resampled(target, mode, num_draws, rng)
    log_prediction = target.log_prediction(u[:, : target.num_law])
    noise = target.likelihood.draw_noise(log_prediction, u[:, target.num_law :], rng)
    with np.errstate(all="ignore"):
        parameters = law.formula_parameters(u[:, : target.num_law], target.centre)
        expected = law.log_response({name: value[:, None] for name, value in parameters.items()}, held.columns)
    scale, nu = (np.stack(each, axis=1) for each in zip(*(_errors(noise, str(r)) for r in held.role), strict=True))
    measured = np.nan_to_num(held.error / held.response)
    draws = expected + np.hypot(scale, measured) * rng.standard_t(nu)
    return natural_point(target, mode.u[: target.num_law]), draws


def _errors(noise: Mapping[str, Array], role: str) -> tuple[Array, Array]:
    """Scale and ν, (n,) each, of the errors of a row of this role; of the last role if no such row was fitted."""
    suffix = f"_{role}" if f"sigma_{role}" in noise else list(noise)[-1].removeprefix("nu")
    sigma = noise[f"sigma{suffix}"]
    return np.hypot(sigma, noise.get(f"tau{suffix}", np.zeros(len(sigma)))), noise[f"nu{suffix}"]
