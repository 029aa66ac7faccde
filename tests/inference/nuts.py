"""Posteriors of three small problems by NUTS (NumPyro): a second implementation, written from the formulas alone.

``python -m tests.inference.nuts PROBLEM IN.json OUT.json`` reads columns, samples, and writes mean, sd and ESS of every
coordinate. Nothing of scaling_sim is imported. It runs as a process of its own: JAX's threads and 64-bit switch stay
out of the suite.

Coordinates: L is the loss at the geometric mean of the columns; ``log_loss`` = log L − mean log loss of the data.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CHAINS, WARMUP, DRAWS = 4, 1500, 30_000


def chinchilla(x: dict[str, Any], np: Any, sample: Any) -> Any:
    """log[E + A/N^α + B/tokens^β] (Hoffmann et al. 2022)."""
    N, T = (np.log(x[name]) - np.mean(np.log(x[name])) for name in ("N", "tokens"))
    level, size, data = sample("log_loss", 0.0, 0.5), sample("log_A_E", -1.0, 2.0), sample("log_B_E", -1.0, 2.0)
    alpha, beta = np.exp(sample("log_alpha", np.log(0.3), 0.75)), np.exp(sample("log_beta", np.log(0.3), 0.75))
    shape = 1 + np.exp(size - alpha * N) + np.exp(data - beta * T)
    return level + np.mean(np.log(x["loss"])) + np.log(shape / (1 + np.exp(size) + np.exp(data)))


def kaplan_nd(x: dict[str, Any], np: Any, sample: Any) -> Any:
    """α_D log[(N_c/N)^(α_N/α_D) + D_c/D] (Kaplan et al. 2020, eq. 1.5); at the centre N_c and D_c follow from u."""
    N, D = (np.log(x[name]) - np.mean(np.log(x[name])) for name in ("N", "D"))
    level, excess = sample("log_loss", 0.0, 0.5), np.exp(sample("log_overfit", np.log(0.1), 1.5))
    alpha_N, alpha_D = np.exp(sample("log_alpha_N", np.log(0.1), 1.0)), np.exp(sample("log_alpha_D", np.log(0.1), 1.0))
    limit = level + np.mean(np.log(x["loss"])) - excess  # log (N_c/N)^α_N at the centre
    first = (limit - alpha_N * N) / alpha_D
    second = limit / alpha_D + np.log(np.expm1(excess / alpha_D)) - D
    return alpha_D * np.logaddexp(first, second)


def kaplan_ns(x: dict[str, Any], np: Any, sample: Any) -> Any:
    """log[(N_c/N)^α_N + (S_c/S)^α_S] (Kaplan et al. 2020, eq. 1.6)."""
    N, S = (np.log(x[name]) - np.mean(np.log(x[name])) for name in ("N", "S"))
    level, ratio = sample("log_loss", 0.0, 0.5), sample("log_S_N", -1.0, 2.0)
    alpha_N, alpha_S = np.exp(sample("log_alpha_N", np.log(0.1), 1.0)), np.exp(sample("log_alpha_S", np.log(0.6), 0.75))
    terms = np.exp(-alpha_N * N) + np.exp(ratio - alpha_S * S)
    return level + np.mean(np.log(x["loss"])) + np.log(terms / (1 + np.exp(ratio)))


def independent(residuals: Any, x: dict[str, Any], np: Any, sample: Any) -> list[Any]:
    """Log likelihood for ν = 3, 5, 30: t_ν errors whose median size is exp(log_scale)."""
    import numpyro.distributions as dist
    from scipy.stats import t

    scale = np.exp(sample("log_scale", np.log(0.01), 2.0))
    return [np.sum(dist.StudentT(nu, 0, scale / t.ppf(0.75, nu)).log_prob(residuals)) for nu in (3, 5, 30)]


def curves(residuals: Any, x: dict[str, Any], np: Any, sample: Any) -> list[Any]:
    """Log likelihood for ν = 3, 5, 30: one multivariate t_ν per curve, Σ = σ²I + τ² exp(−|Δ ln S|/ℓ), as a matrix."""
    import numpyro.distributions as dist

    variance = np.exp(2 * sample("log_scale", np.log(0.01), 2.0))
    share = 1 / (1 + np.exp(-sample("logit_independent", -1.0, 1.5)))
    length = np.exp(sample("log_ell", 0.0, 0.75))
    total = [0.0, 0.0, 0.0]
    for name in sorted(set(x["run"])):
        rows = np.array([k for k, run in enumerate(x["run"]) if run == name])
        s = np.log(x["S"])[rows]
        kernel = np.exp(-np.abs(s[:, None] - s) / length)
        root = np.linalg.cholesky(variance * (share * np.eye(len(s)) + (1 - share) * kernel))
        for k, nu in enumerate((3.0, 5.0, 30.0)):
            total[k] += dist.MultivariateStudentT(nu, np.zeros(len(s)), root).log_prob(residuals[rows])
    return total


PROBLEMS = {
    "chinchilla": (chinchilla, independent),
    "kaplan-nd": (kaplan_nd, independent),
    "kaplan-ns": (kaplan_ns, curves),
}


def main(problem: str, source: str, out: str) -> None:
    """Sample and write the summary."""
    import jax
    import jax.numpy as np
    import numpyro
    from numpyro.diagnostics import summary
    from numpyro.infer import MCMC, NUTS

    numpyro.enable_x64()
    law, errors = PROBLEMS[problem]
    columns = json.loads(Path(source).read_text())
    x = {name: values if name == "run" else np.array(values) for name, values in columns.items()}

    def model() -> None:
        def sample(name: str, mean: float, sd: float) -> Any:
            return numpyro.sample(name, numpyro.distributions.Normal(mean, sd))

        residuals = np.log(x["loss"]) - law(x, np, sample)
        numpyro.factor("likelihood", jax.nn.logsumexp(np.stack(errors(residuals, x, np, sample))))

    kernel = NUTS(model, target_accept_prob=0.9)
    mcmc = MCMC(kernel, num_warmup=WARMUP, num_samples=DRAWS, num_chains=CHAINS, chain_method="sequential",
                progress_bar=False)  # fmt: skip
    mcmc.run(jax.random.PRNGKey(0), extra_fields=("diverging",))
    found = summary(mcmc.get_samples(group_by_chain=True))
    fields = {"mean": "mean", "sd": "std", "ess": "n_eff", "r_hat": "r_hat"}
    result = {name: {key: float(row[field]) for key, field in fields.items()} for name, row in found.items()}
    divergences = int(mcmc.get_extra_fields()["diverging"].sum())
    Path(out).write_text(json.dumps({"coordinates": result, "divergences": divergences}))


if __name__ == "__main__":
    main(*sys.argv[1:])
