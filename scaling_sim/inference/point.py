"""Point estimates: log-Huber from many starts, and the mode of the posterior from which the sampler starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ConfigError, ConvergenceError
from scaling_sim.inference.design import left_out, prepare
from scaling_sim.inference.doubts import doubts
from scaling_sim.inference.optimum import Mode, huber, levenberg_marquardt, maximise
from scaling_sim.inference.priors import draw_prior
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws.base import Law
from scaling_sim.laws.registry import get_law
from scaling_sim.runs.table import read_runs

Array = NDArray[np.float64]

NUM_STARTS = 256
NUM_POLISHED = 8
AGREEMENT = 0.01
"""In nats of log posterior: the two best starts must agree this well."""


@dataclass(frozen=True)
class PointFit:
    """A point estimate without uncertainty.

    Attributes
    ----------
    parameters : natural parameters by name
    objective : value of what was minimised
    agreed : whether the two best starts ended in one minimum
    residuals : (n_used,) log response less log prediction
    dropped : reason → names of the rows left out, by the reader or by the law
    notes : of the reader, of the design, and `doubts` that the estimate itself raises
    """

    law: Law
    parameters: Mapping[str, float]
    objective: float
    objective_name: str
    agreed: bool
    residuals: Array
    n_used: int
    dropped: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()
    data_hash: str = ""
    simulated: bool = False

    @property
    def n_dropped(self) -> int:
        """Rows left out, for all reasons."""
        return sum(len(names) for names in self.dropped.values())

    def to_json(self) -> dict[str, Any]:
        """One object: the parameters by name, the objective, and what was left out."""
        return {
            "law": self.law.name,
            "options": self.law.options(),
            "parameters": dict(self.parameters),
            "objective": self.objective,
            "objective_name": self.objective_name,
            "agreed": self.agreed,
            "n_used": self.n_used,
            "n_dropped": self.n_dropped,
            "dropped": {reason: list(names) for reason, names in self.dropped.items()},
            "notes": list(self.notes),
            "data_hash": self.data_hash,
            "simulated": self.simulated,
        }


def point_fit(
    runs: Any,
    law: str | Law = "chinchilla",
    objective: Literal["huber", "posterior"] = "huber",
    delta: float = 1e-3,
    *,
    columns: Mapping[str, Any] | str | None = None,
) -> PointFit:
    """The law that minimises an objective on these runs.

    Parameters
    ----------
    runs : RunTable, or anything that `read_runs` takes
    law : str or Law
    objective : {"huber", "posterior"}
        "huber": Σ Huber_δ(log response − log prediction), the *sum* (Hoffmann et al. 2022, approach 3; the mean makes
        gradients so small that optimisers stop early, Besiroglu et al. 2024). "posterior": minus the log posterior of
        `fit`.
    delta : float
        Threshold of the Huber loss.

    Raises
    ------
    ConfigError
        An unknown law or objective, or a threshold that is not positive.
    DesignError
        The runs cannot identify the law.
    ConvergenceError
        No start led to a finite objective.
    """
    if not delta > 0:
        raise ConfigError(f"delta, the threshold of the Huber loss, must be positive, got {delta}")
    table, form = read_runs(runs, columns), get_law(law)
    target = LogPosterior(form, prepare(table, form))
    if objective == "huber":
        u, value, agreed = huber_minimum(target, delta)
    elif objective == "posterior":
        mode, agreed = posterior_mode(target)
        u, value = mode.u[: target.num_law], -mode.value
    else:
        raise ConfigError(f'objective must be "huber" or "posterior", got {objective!r}')
    parameters = natural_point(target, u)
    residuals = target.likelihood.log_response - target.log_prediction(u[None])[0]
    return PointFit(
        law=form,
        parameters=parameters,
        objective=value,
        objective_name=f"log-Huber sum, delta {delta:g}" if objective == "huber" else "minus log posterior",
        agreed=agreed,
        residuals=residuals,
        n_used=len(target.data),
        dropped=left_out(table, target.data),
        notes=(*table.notes, *target.data.notes, *doubts(form, target.data, parameters, residuals)),
        data_hash=table.data_hash,
        simulated=table.simulated,
    )


def natural_point(target: LogPosterior, u: Array) -> dict[str, float]:
    """Natural parameters of one point of the law's coordinates (num_law,)."""
    with np.errstate(all="ignore"):
        return {name: float(value[0]) for name, value in target.law.to_parameters(u[None], target.centre).items()}


def huber_minimum(target: LogPosterior, delta: float = 1e-3) -> tuple[Array, float, bool]:
    """Coordinates of the law (num_law,), the objective there, and whether the two best starts agree (to 1e-4 of it)."""

    def residuals(u: Array) -> Array:
        with np.errstate(all="ignore"):
            return target.likelihood.log_response - target.log_prediction(u)

    def density(u: Array) -> Array:
        total = -huber(residuals(u), delta).sum(axis=1) / scale
        return np.where(np.isfinite(total), total, -np.inf)

    found, values = levenberg_marquardt(residuals, _starts(target, residuals), 0.03, 30)
    for threshold in (10 * delta, delta):  # from nearly squares to nearly absolute values: outliers catch no start
        found, values = levenberg_marquardt(residuals, found[np.argsort(values)[:4]], threshold, 20)
    order = np.argsort(values)
    if not np.isfinite(values[order[0]]):
        raise ConvergenceError("no start gave a finite loss; check the columns' units, or fit a simpler law")
    scale = float(values[order[0]])  # BFGS stops on an absolute gradient, so the objective is made 1
    if scale < 1e-20:  # nothing is left to polish, or to agree on, without noise
        return found[order[0]], scale, True
    best, second = (maximise(density, found[k]) for k in order[:2])
    agreed = abs(best.value - second.value) < 1e-4
    best = max(best, second, key=lambda mode: mode.value)
    value = float(huber(residuals(best.u[None]), delta).sum())
    return best.u, value, agreed


def posterior_mode(target: LogPosterior) -> tuple[Mode, bool]:
    """Mode of the posterior over all coordinates, and whether two starts agree on it within 0.01 nats."""

    def residuals(u: Array) -> Array:
        with np.errstate(all="ignore"):
            return target.likelihood.log_response - target.log_prediction(u)

    found, values = levenberg_marquardt(residuals, _starts(target, residuals), 0.03, 30)
    order = np.argsort(values)
    if not np.isfinite(values[order[0]]):
        raise ConvergenceError("no start gave a finite loss; check the columns' units, or fit a simpler law")
    modes: list[Mode] = []
    for k in order[:4]:
        noise = target.likelihood.initial_noise(target.log_prediction(found[k][None])[0])
        modes.append(maximise(target, np.concatenate([found[k], noise])))
        best = sorted((mode.value for mode in modes), reverse=True)
        if len(best) > 1 and best[0] - best[1] < AGREEMENT:
            break
    return max(modes, key=lambda mode: mode.value), len(best) > 1 and best[0] - best[1] < AGREEMENT


def _starts(target: LogPosterior, residuals: Any) -> Array:
    """The best of draws from the prior, (NUM_POLISHED, num_law), by the median absolute residual."""
    draws = draw_prior(target.law_coordinates, NUM_STARTS, np.random.default_rng(0))
    size = np.median(np.abs(residuals(draws)), axis=1)
    return draws[np.argsort(np.where(np.isfinite(size), size, np.inf))[:NUM_POLISHED]]
