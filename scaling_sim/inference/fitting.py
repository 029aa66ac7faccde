"""From runs to a posterior in one call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.config import checked_seed
from scaling_sim.errors import ConvergenceWarning
from scaling_sim.inference.design import check_noise, left_out, prepare
from scaling_sim.inference.diagnostics import identifiability, not_identified, parameter_diagnostics
from scaling_sim.inference.point import huber_minimum, natural_point, posterior_mode
from scaling_sim.inference.posterior import Posterior, versions
from scaling_sim.inference.priors import log_prior
from scaling_sim.inference.sampler import Progress, Sample, sample
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws.base import Law
from scaling_sim.laws.registry import get_law
from scaling_sim.runs.table import read_runs

Array = NDArray[np.float64]

MAX_DRAWS = 4000
MAX_TRACE = 500


def fit(
    runs: Any,
    law: str | Law = "chinchilla",
    *,
    seed: int = 0,
    columns: Mapping[str, Any] | str | None = None,
    min_ess: int = 1000,
    max_steps: int = 30_000,
    processes: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Posterior:
    """The posterior of a law given runs.

    Parameters
    ----------
    runs : RunTable, or anything that `read_runs` takes (a path, a DataFrame, a study's folder)
    law : str or Law
        A name (`law_names`), or an instance: ``get_law("kaplan", shared=False)``.
    seed : int
        Same seed and data: same numbers, whatever ``processes`` is.
    columns : mapping or str
        Our column names to theirs, as in `read_runs`.
    min_ess : int
        Effective draws that every coordinate must have.
    max_steps : int
        Per ensemble; where it is reached first, ``converged`` is False and a ConvergenceWarning says why.
    processes : int
        Spread the ensembles over this many spawned processes.
    progress : function of `Progress`
        Called after each block of steps; an exception raised in it cancels the fit.

    Raises
    ------
    ConfigError
        The seed is negative or no integer.
    DesignError
        The runs cannot identify the law, or follow it exactly.
    """
    seed = checked_seed(seed)
    table, form = read_runs(runs, columns), get_law(law)
    target = LogPosterior(form, prepare(table, form))
    robust, _, agreed = huber_minimum(target)
    check_noise(form, target.data, target.likelihood.log_response - target.log_prediction(robust[None])[0])
    mode, mode_agreed = posterior_mode(target)
    drawn = sample(
        target, mode, seed=seed, min_ess=min_ess, max_steps=max_steps, processes=processes, progress=progress
    )
    if not drawn.diagnostics.converged:
        warnings.warn(f"{form.name}: {drawn.diagnostics.verdict}", ConvergenceWarning, stacklevel=2)
    notes = () if agreed and mode_agreed else ("the two best starts of the point estimate ended in different minima",)
    points = {
        "point": natural_point(target, mode.u[: target.num_law]),
        "huber_point": natural_point(target, robust),
    }
    return _posterior(target, drawn, points, table, seed, notes)


def _posterior(
    target: LogPosterior,
    drawn: Sample,
    points: dict[str, dict[str, float]],
    table: Any,
    seed: int,
    notes: tuple[str, ...],
) -> Posterior:
    """Thinned draws, in natural parameters, with everything that later steps need."""
    data, form = target.data, target.law
    ensembles, steps, walkers, size = drawn.chain.shape
    every = max(1, -(-ensembles * steps * walkers // MAX_DRAWS))  # steps between kept ones: draws stay far apart
    u = drawn.chain[:, every - 1 :: every].reshape(-1, size)
    noise = target.likelihood.draw_noise(
        target.log_prediction(u[:, : target.num_law]), u[:, target.num_law :], np.random.default_rng(seed)
    )
    some = (slice(None), slice(None, None, max(1, steps // 200)))
    few = drawn.chain[some].reshape(-1, size)
    likelihood = drawn.log_posterior[some].reshape(-1) - log_prior(few, target.coordinates)
    ratios = identifiability(few, target.coordinates, form, target.centre, likelihood)
    weak = not_identified(ratios)
    with np.errstate(all="ignore"):
        natural = target.natural(u)
    draws = {name: np.asarray(value) for name, value in natural.items()}
    if weak:
        why = "posterior sd / prior sd > .7, or bounded from one side only"
        told = [name if name in draws else f"{name} (of the errors)" for name in weak]
        notes += (f"not identified by these runs ({why}): {', '.join(told)}",)
    known = [name for name in (*form.exponents, "E") if name in draws and name not in weak]
    notes += _huber_notes({name: draws[name] for name in known}, points["huber_point"])
    return Posterior(
        law=form,
        draws=draws,
        noise=noise,
        u=u,
        **points,
        diagnostics=drawn.diagnostics,
        parameter_diagnostics=parameter_diagnostics(drawn.chain, target.natural),
        identifiability=ratios,
        runs=table,
        data=data,
        n_used=len(data),
        dropped=left_out(table, data),
        roles={str(role): int(np.sum(data.role == role)) for role in np.unique(data.role)},
        seed=seed,
        centre=target.centre,
        coordinates=target.coordinates,
        chain=drawn.chain[:, :: -(-steps // MAX_TRACE), 0],
        notes=(*table.notes, *data.notes, *form.remarks(draws), *notes),
        versions=versions(),
    )


def _huber_notes(draws: Mapping[str, Array], huber_point: Mapping[str, float]) -> tuple[str, ...]:
    """A note if the log-Huber minimum lies outside the 90 % interval of these parameters: the noise model decides then.

    Amplitudes do not belong here: they move with the exponents.
    """
    outside = []
    for name, values in draws.items():
        low, high = np.quantile(values, (0.05, 0.95)).tolist()
        if np.isfinite(huber_point[name]) and not low <= huber_point[name] <= high:
            outside.append(f"{name} {huber_point[name]:.3g} (not {low:.3g} to {high:.3g})")
    if not outside:
        return ()
    return (
        f"Huber's point estimate lies outside the 90 % interval of {', '.join(outside)}: how errors are weighted "
        "decides, as where points of one curve count as runs, outliers weigh, or the law does not hold",
    )
