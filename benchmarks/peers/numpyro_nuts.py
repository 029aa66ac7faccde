"""The posterior of the Chinchilla law by NumPyro's NUTS: same priors and likelihood, in the same centred coordinates.

``python numpyro_nuts.py IN.json OUT.json DRAWS`` reads N, tokens and loss, samples four chains, and writes CPU seconds
of sampling (after warm-up and compilation), of everything, the smallest ESS, and means. Nothing of scaling_sim is
imported.
"""

from __future__ import annotations

import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import effective_sample_size
from scipy.stats import t

WARMUP, CHAINS = 500, 4
PRIORS = {
    "log_loss": (0.0, 0.5), "log_A_E": (-1.0, 2.0), "log_B_E": (-1.0, 2.0), "log_alpha": (np.log(0.3), 0.75),
    "log_beta": (np.log(0.3), 0.75), "log_scale": (np.log(0.01), 2.0),
}  # fmt: skip
"""Normal(mean, sd) of each coordinate, as `scaling_sim.laws.chinchilla` and the likelihood state them."""


def model(log_N: np.ndarray, log_D: np.ndarray, log_loss: np.ndarray) -> None:
    """log L = log L at the centre + log of the three terms over their sum there; t errors, ν summed over 3, 5, 30."""
    u = {name: numpyro.sample(name, dist.Normal(mean, sd)) for name, (mean, sd) in PRIORS.items()}
    size, data = jnp.exp(u["log_A_E"]), jnp.exp(u["log_B_E"])
    terms = 1 + size * jnp.exp(-jnp.exp(u["log_alpha"]) * log_N) + data * jnp.exp(-jnp.exp(u["log_beta"]) * log_D)
    residuals = log_loss - u["log_loss"] - jnp.log(terms / (1 + size + data))
    scale = jnp.exp(u["log_scale"])
    by_nu = [dist.StudentT(nu, 0.0, scale / t.ppf(0.75, nu)).log_prob(residuals).sum() for nu in (3, 5, 30)]
    numpyro.factor("likelihood", jax.nn.logsumexp(jnp.stack(by_nu)) - jnp.log(3.0))


def main() -> None:
    source, out, draws = sys.argv[1], sys.argv[2], int(sys.argv[3])
    numpyro.enable_x64()
    with open(source, encoding="utf-8") as file:
        columns = {name: np.log(values) for name, values in json.load(file).items()}
    data = [values - values.mean() for values in (columns["N"], columns["tokens"], columns["loss"])]
    began = time.process_time()
    kernel = numpyro.infer.NUTS(model)
    chains = numpyro.infer.MCMC(
        kernel, num_warmup=WARMUP, num_samples=draws, num_chains=CHAINS, chain_method="sequential", progress_bar=False
    )
    chains.warmup(jax.random.PRNGKey(0), *data)
    chains.run(chains.post_warmup_state.rng_key, *data)  # compiles the sampling loop
    warm = time.process_time()
    chains.run(chains.post_warmup_state.rng_key, *data)
    jax.block_until_ready(chains.get_samples())
    seconds = time.process_time() - warm
    samples = {name: np.asarray(values) for name, values in chains.get_samples(group_by_chain=True).items()}
    result = {
        "seconds": seconds,
        "seconds_in_all": warm - began,
        "ess": min(float(effective_sample_size(values)) for values in samples.values()),
        "alpha": float(np.exp(samples["log_alpha"]).mean()),
        "beta": float(np.exp(samples["log_beta"]).mean()),
    }
    with open(out, "w", encoding="utf-8") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main()
