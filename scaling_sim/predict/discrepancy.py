"""How far the truth may lie from a law: a smooth function of compute and shape, learned with the law from its runs.

No law is quite true, and the posterior of its parameters does not know. Here the log loss of a run is

    ln L = ln f_θ(N, tokens, …) + δ(ln C, ln(tokens/N)) + ε,

with δ a Gaussian process of amplitude q (Kennedy & O'Hagan 2001) and ε Student-t errors whose scale grows like C^(−γ/2)
towards small runs. Where a law is wrong, δ follows the runs, so that θ need not bend to fit both ends; beyond the runs
δ goes on as it went and then becomes unknown. By the chain rule the evidence of (q, γ) is the log score of a rolling
back-test that predicts each run from those before it; it is combined with a prior that public sweeps gave
(docs/explanation/extrapolation.md). `scaling_sim.predict.backtest` checks the result with cuts in compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ConvergenceError, DesignError, LawError
from scaling_sim.inference.design import prepare
from scaling_sim.inference.point import posterior_mode
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws.registry import get_law
from scaling_sim.predict.linearised import NU, Linearised, Problem, linearised
from scaling_sim.predict.smooth import Scheme, Smooth

if TYPE_CHECKING:
    from scaling_sim.laws.base import Law
    from scaling_sim.laws.observations import Observations
    from scaling_sim.runs.table import RunTable

Array = NDArray[np.float64]

AMPLITUDES = np.array([0.0005, 0.003, 0.007, 0.0125, 0.02, 0.035, 0.06, 0.1])
"""Grid of q, in ln loss. Beyond .1 the runs of another regime, not the law, ask for more: see `regime`."""
GROWTHS = np.array([0.0, 0.06, 0.12, 0.2])
"""Grid of γ."""
NUM_DRAWS = 2000
SCHEME = Scheme()


@dataclass(frozen=True)
class Discrepancy:
    """Joint draws of a law's parameters and of the discrepancy from it, given runs.

    It serves as a fit wherever a fit of published constants does: ``law_name`` and ``draws``.

    Attributes
    ----------
    law : Law
    draws : natural parameter → (n,), of the law that the discrepancy accompanies
    largest : compute of the largest run, FLOP
    roles : names of the roles that the rows had in the fit; a run without one is taken to be of the last
    amplitude : (n,) q of each draw
    growth : (n,) γ of each draw
    scale : (n, n_roles) t scale of errors at the largest run
    weights : (n, Σ n_knots) draws of q·b
    smooth : one process for each role
    scheme : the constants that it was learned with
    knows_sizes : whether N of every run was known; if not, δ is a function of C alone
    """

    law: Law
    draws: Mapping[str, Array]
    largest: float
    roles: tuple[str, ...]
    amplitude: Array
    growth: Array
    scale: Array
    weights: Array
    smooth: tuple[Smooth, ...]
    scheme: Scheme
    knows_sizes: bool

    @property
    def law_name(self) -> str:
        """Name of the law."""
        return self.law.name

    def shift(self, C: Any, N: Any, role: str | None = None, seed: int = 0) -> Array:
        """(n, k) draws of δ, in ln loss, for C (k,) FLOP and N (k,) parameters, each beside its draw of the law's."""
        place, x = self._place(role), self._where(C, N)
        first = sum(len(s.knots) for s in self.smooth[:place])
        smooth = self.smooth[place]
        known = self.weights[:, first : first + len(smooth.knots)] @ smooth.basis(x).T
        rest = smooth.rest(x, len(self.amplitude), np.random.default_rng(seed))
        return np.asarray(known + self.amplitude[:, None] * rest)

    def scatter(self, C: Any, role: str | None = None, seed: int = 0) -> Array:
        """(n, k) draws of the error of one run at C (k,) FLOP, in ln loss: seeds and what only that run has."""
        x, rng = np.log(np.atleast_1d(np.asarray(C, dtype=np.float64)) / self.largest), np.random.default_rng([seed, 1])
        size = self.scale[:, self._place(role), None] * np.exp(-0.5 * self.growth[:, None] * np.minimum(x, 0.0))
        return np.asarray(size * rng.standard_t(NU, size=size.shape))

    def log_loss(
        self,
        columns: Mapping[str, Any],
        C: Any,
        N: Any = None,
        role: str | None = None,
        *,
        scatter: bool = True,
        seed: int = 0,
    ) -> Array:
        """(n, k) draws of the log loss of runs with these columns (k,), C in FLOP and N; N may stand in the columns."""
        parameters = {name: values[:, None] for name, values in self.draws.items()}
        with np.errstate(all="ignore"):
            found = self.law.log_response(parameters, columns) + self.shift(
                C, columns["N"] if N is None else N, role, seed
            )
        return np.asarray(found + self.scatter(C, role, seed) if scatter else found)

    def to_json(self) -> dict[str, Any]:
        """Amplitude of δ, growth of the errors, and their scale at the largest run by role."""
        low, middle, high = np.quantile(self.amplitude, (0.05, 0.5, 0.95)).tolist()
        return {
            "amplitude_log_loss": {"median": middle, "interval90": [low, high]},
            "error_growth": float(np.mean(self.growth)),
            "error_scale_log_loss": dict(zip(self.roles, np.median(self.scale, axis=0).tolist(), strict=True)),
        }

    def _place(self, role: str | None) -> int:
        return self.roles.index(role) if role in self.roles else len(self.roles) - 1

    def _where(self, C: Any, N: Any) -> Array:
        C, N = np.broadcast_arrays(np.atleast_1d(np.asarray(C, dtype=np.float64)), np.asarray(N, dtype=np.float64))
        return self.scheme.where(C, N if self.knows_sizes else np.full(C.shape, np.nan))


def learn(
    runs: RunTable, law: str | Law, *, num_draws: int = NUM_DRAWS, seed: int = 0, scheme: Scheme = SCHEME
) -> Discrepancy:
    """Law and discrepancy from runs.

    Raises
    ------
    DesignError
        The runs cannot identify the law, or their compute is unknown.
    LawError
        The law does not predict losses.
    """
    problem, start = pose(runs, law, scheme)
    return mixture(problem, grid(problem, start), num_draws, seed)


def pose(runs: RunTable, law: str | Law, scheme: Scheme = SCHEME) -> tuple[Problem, Array]:
    """The rows that the law reads with their places, and the mode of the law's coordinates without discrepancy."""
    form = get_law(law)
    if form.response != "loss":
        raise LawError(f"{form.name!r} does not predict a loss, so there is no discrepancy of losses from it")
    data = prepare(runs, form)
    C, N = runs.C[data.row], runs.N[data.row]
    if not np.all(np.isfinite(C) & (C > 0)):
        raise DesignError("a discrepancy is a function of compute, and the compute of some rows is unknown")
    target = LogPosterior(form, data)
    mode, _ = posterior_mode(target)
    known = bool(np.all(np.isfinite(N) & (N > 0)))
    place = scheme.where(C, N if known else np.full(C.shape, np.nan))
    roles, role = np.unique(data.role, return_inverse=True)
    return Problem(
        target=target,
        where=place,
        x=np.log(C / C.max()),
        largest=float(C.max()),
        knows_sizes=known,
        role=role.astype(np.int64),
        roles=tuple(str(r) for r in roles),
        weight=_row_weights(target, mode.u),
        smooth=tuple(Smooth.over(place[role == r]) for r in range(len(roles))),
        scheme=scheme,
    ), mode.u[: target.num_law]


def grid(problem: Problem, u: Array) -> list[Linearised]:
    """One fit for each pair of hyperparameters, each started from its neighbour."""
    basis, found = problem.basis(), []
    first: Linearised | Array = u
    for amplitude in AMPLITUDES:
        start = first
        for growth in GROWTHS:
            fitted = linearised(problem, basis, float(amplitude), float(growth), start)
            found.append(fitted)
            start = fitted
            first = fitted if growth == GROWTHS[0] else first
    return found


def mixture(problem: Problem, fitted_grid: list[Linearised], num: int = NUM_DRAWS, seed: int = 0) -> Discrepancy:
    """Draws from the mixture of the grid's Gaussians, weighted by evidence and prior."""
    rng = np.random.default_rng(seed)
    used, v, each = _draw(fitted_grid, _shares(problem.scheme, fitted_grid), num, rng)
    amplitude, growth = (np.array([getattr(f, name) for f in used])[each] for name in ("amplitude", "growth"))
    p = problem.target.num_law
    scale = np.stack([f.scale for f in used])[each] * _uncertain_scale(problem, num, rng)
    with np.errstate(all="ignore"):
        natural = problem.target.law.to_parameters(v[:, :p], problem.target.centre)
    return Discrepancy(
        law=problem.target.law,
        draws={name: np.asarray(value) for name, value in natural.items()},
        largest=problem.largest,
        roles=problem.roles,
        amplitude=amplitude,
        growth=growth,
        scale=scale,
        weights=amplitude[:, None] * v[:, p:],
        smooth=problem.smooth,
        scheme=problem.scheme,
        knows_sizes=problem.knows_sizes,
    )


def _shares(scheme: Scheme, fitted_grid: list[Linearised]) -> Array:
    """Posterior probability of each point of the grid."""
    log_weight = np.array([f.evidence + scheme.log_prior(f.amplitude, f.growth) for f in fitted_grid])
    if not np.isfinite(log_weight).any():
        raise ConvergenceError("no amplitude of the discrepancy gave a finite evidence; check the columns' units")
    weight = np.exp(log_weight - log_weight.max())
    return np.asarray(weight / weight.sum())


def _draw(
    fitted_grid: list[Linearised], shares: Array, num: int, rng: np.random.Generator
) -> tuple[list[Linearised], Array, NDArray[np.int64]]:
    """The Gaussians that were drawn from, the draws of (u, b) in random order, and the place of each one's Gaussian."""
    counts = rng.multinomial(num, shares)
    used = [(fitted, count) for fitted, count in zip(fitted_grid, counts.tolist(), strict=True) if count]
    joint = [
        rng.multivariate_normal(fitted.mean, fitted.covariance, size=count, method="eigh") for fitted, count in used
    ]
    order = rng.permutation(num)  # so that any part of the draws is a fair one
    each = np.repeat(np.arange(len(used)), [count for _, count in used])
    return [fitted for fitted, _ in used], np.concatenate(joint)[order], each[order]


def _uncertain_scale(problem: Problem, num: int, rng: np.random.Generator) -> Array:
    """(num, n_roles) factors of the scales: one from n rows is known to 1/√(2n)."""
    size = np.bincount(problem.role, problem.weight, len(problem.roles))
    freedom = np.maximum(size - problem.target.num_law / len(size), 3.0)
    return np.asarray(np.sqrt(freedom / rng.chisquare(freedom, size=(num, len(size)))))


def forecast_rows(model: Discrepancy, held: Observations, C: Array, N: Array) -> Array:
    """(n_draws, k) draws of the log loss of the held-out rows, each by its role."""
    draws = np.empty((len(model.amplitude), len(C)))
    for role in np.unique(held.role):
        rows = np.flatnonzero(held.role == role)
        columns = {name: column[rows] for name, column in held.columns.items()}
        draws[:, rows] = model.log_loss(columns, C[rows], N[rows], str(role))
    return draws


def _row_weights(target: LogPosterior, u: Array) -> Array:
    """(n,) 1 for independent rows; m_eff/m for the m rows of one learning curve, whose errors go together.

    m_eff = 1ᵀR⁻¹1, with R the correlation that the mode of the posterior gives them.
    """
    data = target.data
    weight = np.ones(len(data))
    curve = np.flatnonzero(data.role == "curve")
    if not len(curve):
        return weight
    natural = target.likelihood.draw_noise(
        target.log_prediction(u[None, : target.num_law]), u[None, target.num_law :], np.random.default_rng(0)
    )
    sigma, tau, ell = (float(natural[_noise_name(natural, key)][0]) for key in ("sigma", "tau", "ell"))
    for run in np.unique(data.run[curve]):
        rows = curve[data.run[curve] == run]
        weight[rows] = _effective(np.log(data.columns["S"][rows]), sigma, tau, ell) / len(rows)
    return weight


def _noise_name(natural: Mapping[str, Array], key: str) -> str:
    return f"{key}_curve" if f"{key}_curve" in natural else key


def _effective(log_S: Array, sigma: float, tau: float, ell: float) -> float:
    distance = np.abs(log_S[:, None] - log_S[None])
    covariance = tau**2 * np.exp(-distance / ell) + sigma**2 * np.eye(len(log_S))
    correlation = covariance / (sigma**2 + tau**2)
    return float(np.clip(np.linalg.solve(correlation, np.ones(len(log_S))).sum(), 1.0, len(log_S)))


_CACHE: dict[tuple[Any, ...], Discrepancy | str] = {}


def discrepancy_of(fit: Any) -> Discrepancy | str:
    """Return the discrepancy of a posterior's law on its runs, learned once per data set and law; in words why not."""
    runs = getattr(fit, "runs", None)
    if runs is None:
        return "no discrepancy: there are no runs behind these constants"
    form = get_law(getattr(fit, "law", None) or fit.law_name)
    key = (runs.data_hash, type(form), repr(form.options()))  # the class: a user may register a name again
    if key not in _CACHE:
        if len(_CACHE) >= 64:
            _CACHE.clear()
        try:
            _CACHE[key] = learn(runs, form)
        except (DesignError, LawError, ConvergenceError) as error:
            _CACHE[key] = f"no discrepancy: {error}"
    return _CACHE[key]
