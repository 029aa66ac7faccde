"""Has the sampler converged, and do the data identify the parameters?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scaling_sim.inference.autocorrelation import integrated_time, tail_time
from scaling_sim.inference.monte_carlo import median_errors
from scaling_sim.inference.priors import draw_prior, log_prior
from scaling_sim.laws.base import Centre, Coordinate, Law

Array = NDArray[np.float64]

MAX_R_HAT = 1.01
MIN_LENGTH = 50.0
"""Steps of each ensemble after the burn-in, in autocorrelation times."""
NOT_IDENTIFIED = 0.7
"""Ratio of posterior to prior standard deviation above which a parameter is not identified by the data."""
NARROW = 0.3
"""Ratio below which a parameter counts as learned whatever shapes the tails of its posterior."""
TAIL = 0.05
"""Share of the draws in a tail: of those whose effective draws are counted (Vehtari et al. 2021, section 4.3), too."""
NUM_PRIOR = 20_000
"""Draws of the prior from which sds of natural parameters come."""
AMPLITUDES: Mapping[str, tuple[str, ...]] = {
    "log_overfit": ("D_c",), "log_S_N": ("S_c",), "log_batch": ("S_c", "B_star")
}  # fmt: skip
"""Parameters behind coordinates of another name: their own prior is so wide that any posterior looks narrow in it."""
ERRORS: Mapping[str, str] = {"log_scale": "sigma", "logit_independent": "sigma", "log_ell": "ell"}
LOG_RANGE = (-745.0, 710.0)
"""Logarithms of the smallest and largest float: what lies beyond counts as this in diagnostics."""


@dataclass(frozen=True)
class Diagnostics:
    """Convergence of a posterior: necessary signs, not sufficient ones. Mappings are by coordinate.

    Attributes
    ----------
    converged : R-hat < 1.01 over at least 4 independent ensembles, length > 50 τ and ESS ≥ the minimum in every
        coordinate; R-hat and the ESS of both tails (the same minimum) also in every natural parameter
    verdict : the same in words, with the reason if it did not
    r_hat : split R-hat over ensembles (walkers of one ensemble are not independent chains), rank-normalised: the larger
        one of the draws' and of their distances from the median, which sees scales that differ (Vehtari et al. 2021)
    ess : effective draws, ensembles × walkers × steps / τ
    tau : integrated autocorrelation time, steps
    mcse : Monte Carlo standard error of the mean
    num_steps : per ensemble, after the burn-in
    tail_ess : effective draws behind the 5 % quantile or the 95 % one, whichever has fewer; by coordinate and natural
        parameter. Tails that no walker has visited are not seen
    """

    converged: bool
    verdict: str
    r_hat: Mapping[str, float]
    ess: Mapping[str, float]
    tau: Mapping[str, float]
    mcse: Mapping[str, float]
    num_ensembles: int
    num_walkers: int
    num_steps: int
    acceptance: float
    tail_ess: Mapping[str, float] = field(default_factory=dict)

    @property
    def min_ess(self) -> float:
        """Smallest effective number of draws of any coordinate."""
        return min(self.ess.values())

    @property
    def min_tail_ess(self) -> float | None:
        """Smallest effective number of draws behind a tail of a coordinate or natural parameter; None in older fits."""
        return min(self.tail_ess.values(), default=None)

    @property
    def max_r_hat(self) -> float:
        """Largest R-hat of any coordinate."""
        return max(self.r_hat.values())

    @property
    def max_tau(self) -> float:
        """Longest autocorrelation time of any coordinate, steps."""
        return max(self.tau.values())


Natural = Callable[[Array], Mapping[str, Array]]
"""Natural parameters, each (n_draws,), of draws (n_draws, n_coordinates)."""


def diagnose(
    chain: Array,
    coordinates: Sequence[Coordinate],
    *,
    min_ess: float,
    acceptance: float,
    natural: Natural | None = None,
) -> Diagnostics:
    """Diagnostics of ``chain`` (n_ensembles, n_steps, n_walkers, n_coordinates), burn-in removed."""
    names = [coordinate.name for coordinate in coordinates]
    ensembles, steps, walkers, _ = chain.shape
    tau = integrated_time(chain)
    ess = _by_name(names, ensembles * walkers * steps / tau)
    mcse = chain.std(axis=(0, 1, 2)) / np.sqrt(list(ess.values()))
    judged, thin = _with_parameters(names, chain[:, :: _spacing(tau)], natural)
    r_hat = _by_name(judged, ensemble_r_hat(thin))
    tails = _by_name(judged, np.prod(thin.shape[:3]) / tail_time(thin, TAIL))
    failures = _failures(_by_name(names, tau), ess, r_hat, tails, ensembles, steps, min_ess)
    numbers = (
        f"R-hat {max(r_hat.values()):.4f}, length {steps / tau.max():.0f} τ (τ {tau.max():.0f}), "
        f"ESS {min(ess.values()):.0f}, of tails {min(tails.values()):.0f}"
    )
    return Diagnostics(
        converged=not failures,
        verdict=f"not converged: {'; '.join(failures)}" if failures else f"converged: {numbers}",
        r_hat={name: r_hat[name] for name in names},
        ess=ess,
        tau=_by_name(names, tau),
        mcse=_by_name(names, mcse),
        num_ensembles=ensembles,
        num_walkers=walkers,
        num_steps=steps,
        acceptance=acceptance,
        tail_ess=tails,
    )


def parameter_diagnostics(chain: Array, natural: Natural) -> dict[str, dict[str, float]]:
    """``r_hat``, ``ess`` and ``mcse`` (of the median) of each natural parameter, from the whole chain.

    A positive parameter's R-hat and ESS are those of its logarithm, as it is sampled: where the data leave it free it
    may leave the range of floats (N_c = 0 or ∞), and its median then has no standard error (NaN).
    """
    names, values = _natural(chain, natural)
    tau = integrated_time(_in_range(values))
    ess = np.prod(chain.shape[:3]) / tau
    r_hat = ensemble_r_hat(_in_range(values)[:, :: _spacing(tau)])
    rows = zip(names, r_hat.tolist(), ess.tolist(), median_errors(values).tolist(), strict=True)
    return {name: {"r_hat": r, "ess": e, "mcse": m} for name, r, e, m in rows}


def _natural(chain: Array, natural: Natural) -> tuple[list[str], Array]:
    """Names of the natural parameters, and their values (n_ensembles, n_steps, n_walkers, n_parameters)."""
    with np.errstate(all="ignore"):
        found = natural(chain.reshape(-1, chain.shape[-1]))
    return list(found), np.stack(list(found.values()), axis=-1).reshape(*chain.shape[:3], -1)


def _in_range(values: Array) -> Array:
    """Logarithms of parameters without negative draws, others as they are; all finite."""
    with np.errstate(all="ignore"):
        logs = np.nan_to_num(np.log(values), nan=0.0, posinf=LOG_RANGE[1], neginf=LOG_RANGE[0])
    return np.where((values < 0).any(axis=(0, 1, 2)), np.nan_to_num(values), logs)


def _with_parameters(names: list[str], chain: Array, natural: Natural | None) -> tuple[list[str], Array]:
    """Coordinates, and behind them the natural parameters."""
    if natural is None:
        return names, chain
    more, values = _natural(chain, natural)
    return [*names, *more], np.concatenate([chain, _in_range(values)], axis=-1)


def _spacing(tau: Array) -> int:
    """Steps between draws that say something new."""
    return max(1, int(tau.max() / 2))


def ensemble_r_hat(chain: Array) -> Array:
    """R-hat (n_coordinates,) with ensembles as chains; draws of an ensemble in order of steps. 1 for a constant."""
    from arviz_stats.base import array_stats

    flat = chain.reshape(len(chain), -1, chain.shape[3])
    found = np.ones(flat.shape[2])
    for k in np.flatnonzero(np.ptp(flat, axis=(0, 1))):
        found[k] = float(array_stats.rhat(flat[:, :, k], chain_axis=0, draw_axis=1))
    return found


def identifiability(
    u: Array, coordinates: Sequence[Coordinate], law: Law, centre: Centre, log_likelihood: Array | None = None
) -> dict[str, float]:
    """Posterior over prior standard deviation of every parameter of the law and of its errors, by natural name.

    Positive parameters are judged by their logarithms, in which the priors are stated: one that tends to 0 covers less
    and less of its own scale, whatever is known of it. Where a sampling coordinate stands behind a parameter, the worse
    of the two ratios counts.

    Where the data bound a parameter of the law from one side only (E → 0 fits as well as any E), the posterior ends on
    the other side because the prior does, and its sd alone would pass for knowledge. So the ratio is that of the worse
    of the two tails, if the posterior is not narrow anyway: see `_tail_ratio`.

    Parameters
    ----------
    u : (n_draws, n_coordinates) posterior draws, the law's coordinates first
    log_likelihood : (n_draws,) of these draws; without it only sds are compared
    """
    own = len(law.coordinates(centre))
    judged = {c.name: (u[:, k], c.prior.sd) for k, c in enumerate(coordinates)}
    ratio = {name: float(values.std()) / sd for name, (values, sd) in judged.items()}
    natural = _natural_values(u[:, :own], coordinates[:own], law, centre)
    by_name = {name: float(values.std()) / sd for name, (values, sd) in natural.items()}
    if log_likelihood is not None:
        prior = log_prior(u, coordinates)
        of_law = {c.name: judged[c.name] for c in coordinates[:own]}
        for ratios, every in ((ratio, of_law), (by_name, natural)):
            for name, (values, _) in every.items():
                if ratios[name] > NARROW:
                    ratios[name] = max(ratios[name], _tail_ratio(values, prior, log_likelihood))
    for k, c in enumerate(coordinates):
        for name in _behind(c.name, natural) if k < own else _errors_behind(c.name):
            by_name[name] = max(by_name.get(name, 0.0), ratio[c.name])
    return by_name


def _natural_values(
    u: Array, coordinates: Sequence[Coordinate], law: Law, centre: Centre
) -> dict[str, tuple[Array, float]]:
    """Draws of each natural parameter and its prior sd, both of the logarithm where the prior is positive."""
    both = np.concatenate([draw_prior(coordinates, NUM_PRIOR, np.random.default_rng(0)), u])
    with np.errstate(all="ignore"):
        natural = law.to_parameters(both, centre)
    found = {}
    for name, values in natural.items():
        scaled = _in_range(values.reshape(1, -1, 1, 1)).ravel()
        found[name] = scaled[NUM_PRIOR:], float(scaled[:NUM_PRIOR].std())
    return found


def _behind(coordinate: str, parameters: Collection[str]) -> tuple[str, ...]:
    """Those of the law's parameters that are not known unless this coordinate is."""
    name = coordinate.removeprefix("log_")
    return (name,) if name in parameters else tuple(p for p in AMPLITUDES.get(coordinate, ()) if p in parameters)


def _errors_behind(coordinate: str) -> tuple[str, ...]:
    """Parameters of the errors, with the role's suffix, that are not known unless this coordinate is."""
    first = next((first for first in ERRORS if coordinate.startswith(first)), coordinate)
    return (ERRORS.get(first, first) + coordinate.removeprefix(first),)


def _tail_ratio(values: Array, prior: Array, likelihood: Array) -> float:
    """√ of the prior's share in the fall of the log posterior towards the tail (outer 5 %) that owes more to it.

    For a Normal prior and likelihood this is posterior sd / prior sd in both tails; 1 where the likelihood does not
    fall at all.
    """
    tails = (values <= np.quantile(values, TAIL), values >= np.quantile(values, 1 - TAIL))
    falls = [(float(prior.mean() - prior[t].mean()), float(likelihood.mean() - likelihood[t].mean())) for t in tails]
    shares = [by_prior / max(by_prior + max(by_data, 0.0), 1e-9) for by_prior, by_data in falls if by_prior > 0]
    return float(np.sqrt(max(shares, default=0.0)))


def not_identified(ratios: Mapping[str, float]) -> tuple[str, ...]:
    """Names whose posterior is hardly narrower than the prior."""
    return tuple(name for name, ratio in ratios.items() if not ratio <= NOT_IDENTIFIED)


def _failures(
    tau: Mapping[str, float],
    ess: Mapping[str, float],
    r_hat: Mapping[str, float],
    tails: Mapping[str, float],
    ensembles: int,
    steps: int,
    min_ess: float,
) -> list[str]:
    """Which parts of the rule fail, with what to do."""
    failures = []
    if ensembles < 4:
        failures.append(f"R-hat needs at least 4 independent ensembles, got {ensembles}")
    apart, slowest = (max(values, key=values.__getitem__) for values in (r_hat, tau))
    fewest, thinnest = (min(values, key=values.__getitem__) for values in (ess, tails))
    if not r_hat[apart] < MAX_R_HAT:
        failures.append(f"R-hat of {apart} is {r_hat[apart]:.4f}, it must be below {MAX_R_HAT}")
    if not steps > MIN_LENGTH * tau[slowest]:
        worst = f"{slowest} has τ = {tau[slowest]:.0f}"
        failures.append(f"{steps} steps, more than {MIN_LENGTH:.0f} τ needed and {worst}: raise max_steps")
    if not ess[fewest] >= min_ess:
        failures.append(f"ESS of {fewest} is {ess[fewest]:.0f}, at least {min_ess:.0f} needed")
    if not tails[thinnest] >= min_ess:
        failures.append(f"ESS of the tails of {thinnest} is {tails[thinnest]:.0f}, at least {min_ess:.0f} needed")
    return failures


def _by_name(names: Sequence[str], values: Array) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))
