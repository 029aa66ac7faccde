"""Hypothesis strategies for laws' parameters, tables of runs and whole sweeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scaling_sim.errors import ScalingSimError
from scaling_sim.laws import get_law
from scaling_sim.laws.base import Array, Centre, Law
from scaling_sim.predict.layout import Grid, Sweep
from scaling_sim.predict.noise import Noise
from scaling_sim.predict.simulate import simulate
from scaling_sim.runs.table import RunTable
from scaling_sim.testing.tables import representative_table

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def _hypothesis() -> Any:
    try:
        from hypothesis import strategies
    except ImportError as error:
        raise ScalingSimError(
            "scaling_sim.testing's strategies need Hypothesis: pip install 'scaling-sim[test]'"
        ) from error
    return strategies


def law_coordinates(
    law: str | Law, centre: Centre | None = None, *, num_draws: int = 1, width: float = 2.0
) -> SearchStrategy[Array]:
    """Coordinates (num_draws, n_coordinates) within ``width`` prior standard deviations of their means."""
    st = _hypothesis()
    form = get_law(law)
    priors = [c.prior for c in form.coordinates(representative_centre(form) if centre is None else centre)]
    row = st.tuples(*[st.floats(p.mean - width * p.sd, p.mean + width * p.sd) for p in priors])
    strategy: SearchStrategy[Array] = st.lists(row, min_size=num_draws, max_size=num_draws).map(np.array)
    return strategy


def law_parameters(
    law: str | Law, centre: Centre | None = None, *, width: float = 2.0
) -> SearchStrategy[dict[str, float]]:
    """Natural parameters of ``law`` by name, within ``width`` prior standard deviations; all finite."""
    form = get_law(law)
    where = representative_centre(form) if centre is None else centre

    def natural(u: Array) -> dict[str, float]:
        return {name: float(values[0]) for name, values in form.to_parameters(u, where).items()}

    strategy = law_coordinates(form, where, width=width).map(natural)
    return strategy.filter(lambda parameters: all(np.isfinite(list(parameters.values()))))


def representative_centre(law: Law) -> dict[str, float]:
    """Centre of `representative_table` for ``law``."""
    return law.centre(law.observe(representative_table()))


def run_tables(min_rows: int = 1, max_rows: int = 40, *, repeats: bool = False) -> SearchStrategy[RunTable]:
    """Valid tables of finished runs: N in 1e3..1e12, tokens in N/10..1e15, losses in .1..15 nats per token.

    Parameters
    ----------
    repeats : bool
        Whether D may be smaller than tokens (up to 100 epochs).
    """
    st = _hypothesis()
    row = st.tuples(
        st.floats(3, 12), st.floats(0, 1), st.floats(0.1, 15.0), st.floats(0, 2 if repeats else 0), st.booleans()
    )
    strategy: SearchStrategy[RunTable] = st.lists(row, min_size=min_rows, max_size=max_rows).map(_table)
    return strategy


def _table(rows: list[tuple[float, float, float, float, bool]]) -> RunTable:
    log_N, place, loss, log_epochs, decayed = (np.array(column) for column in zip(*rows))
    N, tokens = 10.0**log_N, 10.0 ** (log_N + 1 + place * (15 - log_N - 1))
    unknown = np.full(len(rows), np.nan)
    return RunTable(
        run=np.array([f"run-{i:03d}" for i in range(len(rows))], dtype=np.str_),
        N=N,
        D=tokens / 10.0**log_epochs,
        tokens=tokens,
        C=6 * N * tokens,
        B=unknown,
        S=unknown,
        loss=loss,
        loss_error=unknown,
        warmup=unknown,
        decayed=decayed.astype(np.bool_),
        stopped=np.zeros(len(rows), dtype=np.bool_),
        curve=np.zeros(len(rows), dtype=np.bool_),
        simulated=True,
        source="hypothesis",
    )


def sweeps(
    law: str | Law = "chinchilla",
    design: Grid | Sweep | None = None,
    *,
    max_noise: float = 0.02,
    max_diverged: float = 0.0,
    width: float = 1.0,
) -> SearchStrategy[tuple[dict[str, float], RunTable]]:
    """Pairs of natural parameters and a sweep simulated from them, see `scaling_sim.predict.simulate`."""
    st = _hypothesis()
    form = get_law(law)

    def draw(values: tuple[dict[str, float], float, float, float, int]) -> tuple[dict[str, float], RunTable]:
        parameters, sigma, nu, diverged, seed = values
        table = simulate(parameters, design, law=form, noise=Noise(sigma, nu), diverged=diverged, seed=seed)
        return parameters, table

    strategy: SearchStrategy[tuple[dict[str, float], RunTable]] = st.tuples(
        law_parameters(form, width=width),
        st.floats(0, max_noise),
        st.sampled_from([3.0, 5.0, 30.0, float("inf")]),
        st.floats(0, max_diverged),
        st.integers(0, 2**32 - 1),
    ).map(draw)
    return strategy
