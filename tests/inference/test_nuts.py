"""Against NUTS: two samplers and two implementations of each density give one posterior."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from scaling_sim.inference.design import prepare
from scaling_sim.inference.point import posterior_mode
from scaling_sim.inference.sampler import sample
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws import get_law
from scaling_sim.predict.layout import Grid, Sweep, log_spaced
from scaling_sim.predict.noise import Noise
from scaling_sim.predict.simulate import simulate
from scaling_sim.runs.table import RunTable
from tests.inference.support import chinchilla

ROOT = Path(__file__).parents[2]
MIN_ESS = 20_000


def problem(law: str) -> RunTable:
    """60 points of Chinchilla; 5 correlated curves of 8 points; 12 early-stopped points for 5 coordinates."""
    if law == "chinchilla":
        return chinchilla(0.34, 0.28, size=60, seed=7)
    if law == "kaplan-ns":
        curves = Sweep(N=log_spaced(1e5, 1e8, 5), points=8, batch_N=(), data_N=(), seed_N=())
        return simulate({"law": law}, curves, noise=Noise(0.002, 5.0, 0.006, 1.0), seed=7)
    few = Grid(N=log_spaced(1e6, 1e9, 2), tokens=log_spaced(2e7, 2e10, 6), stopped=True)
    return simulate({"law": law}, few, noise=Noise(0.005, 5.0), seed=7)


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.skipif(find_spec("numpyro") is None, reason="NumPyro is absent: pip install -e '.[reference]'")
@pytest.mark.parametrize("law", ["chinchilla", "kaplan-ns", "kaplan-nd"])
def test_nuts_finds_the_same_posterior(law: str, tmp_path: Path) -> None:
    """|Δmean|/sd < .05 and |Δ log sd| < .05 with ESS ≥ 20,000 on both sides.

    Monte Carlo errors are then √(2/20,000) = .010 and, for normal tails, .0071: five and seven of them, so that a false
    alarm has a probability below 1e-5.
    """
    form = get_law(law)
    target = LogPosterior(form, prepare(problem(law), form))
    found = sample(target, posterior_mode(target)[0], seed=0, min_ess=MIN_ESS)
    theirs = nuts(law, target, tmp_path)
    ours = found.chain.reshape(-1, found.chain.shape[-1])
    assert found.diagnostics.converged
    assert set(theirs) == {c.name for c in target.coordinates}
    for k, coordinate in enumerate(target.coordinates):
        name, other = coordinate.name, theirs[coordinate.name]
        assert other["ess"] >= MIN_ESS, name
        assert other["r_hat"] < 1.01, name
        assert abs(ours[:, k].mean() - other["mean"]) < 0.05 * other["sd"], name
        assert abs(np.log(ours[:, k].std() / other["sd"])) < 0.05, name


def nuts(law: str, target: LogPosterior, folder: Path) -> dict[str, dict[str, float]]:
    """Summary by coordinate from a process of its own."""
    data = target.data
    columns = {name: values.tolist() for name, values in data.columns.items()}
    columns |= {"loss": data.response.tolist(), "run": data.run.tolist()}
    (folder / "in.json").write_text(json.dumps(columns))
    command = [sys.executable, "-m", "tests.inference.nuts", law, str(folder / "in.json"), str(folder / "out.json")]
    subprocess.run(command, check=True, cwd=ROOT)
    result: dict[str, dict[str, float]] = json.loads((folder / "out.json").read_text())["coordinates"]
    return result
