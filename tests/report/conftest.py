"""A whole study in a second: runs simulated from known laws, and posteriors drawn around them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scaling_sim.config import config_hash
from scaling_sim.engine.cohort import Recipe
from scaling_sim.inference.diagnostics import Diagnostics
from scaling_sim.inference.likelihood import Likelihood
from scaling_sim.inference.posterior import Posterior
from scaling_sim.laws import kaplan
from scaling_sim.laws.registry import get_law
from scaling_sim.model.shape import Shape
from scaling_sim.predict.allocate import allocate
from scaling_sim.predict.backtest import backtest
from scaling_sim.predict.crossover import crossover
from scaling_sim.predict.design import design
from scaling_sim.predict.forecast import forecast
from scaling_sim.predict.methods import compare_methods
from scaling_sim.predict.targets import best_size
from scaling_sim.report.data import ReportData, environment
from scaling_sim.runs.record import CurvePoint, RunConfig, RunRecord
from scaling_sim.runs.table import RunTable, table_from_records

TRUTH = {
    "alpha_N": 0.13,
    "N_c": 1.0e6,
    "alpha_D": 0.125,
    "D_c": 2.5e7,
    "alpha_S": 0.62,
    "S_c": 180.0,
    "alpha_B": 0.22,
    "B_star": 4.5e4,
}
CHINCHILLA = {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28}
SHAPES = ((1, 8), (2, 8), (2, 16), (3, 24), (3, 32), (4, 48))


DIAGNOSTICS = Diagnostics(
    converged=True,
    verdict="converged: R-hat 1.0030, length 71 τ (τ 56), ESS 1420",
    r_hat={},
    ess={},
    tau={},
    mcse={},
    num_ensembles=4,
    num_walkers=48,
    num_steps=4000,
    acceptance=0.31,
)


def drawn_posterior(name: str, truth: dict[str, float], runs: RunTable, sd: float = 0.002, **changes: Any) -> Posterior:
    """A posterior whose draws were scattered around the truth instead of sampled: a fit takes a minute, this none."""
    law, rng, size = get_law(name), np.random.default_rng(3), 1200
    seen = law.observe(runs)
    centre = law.centre(seen)
    likelihood = Likelihood(seen)
    start = law.from_parameters({k: np.array([v]) for k, v in truth.items()}, centre)
    prediction = law.log_response({k: np.array([[v]]) for k, v in truth.items()}, seen.columns)
    here = np.concatenate([start[0], likelihood.initial_noise(prediction[0])])
    noise, own = likelihood.coordinates(), start.shape[1]
    mixing = np.tril(rng.normal(size=(len(here),) * 2), -1) * 0.5 + np.eye(len(here))
    u = here + sd * (rng.normal(size=(size, len(here))) @ mixing.T) * np.linspace(1, 4, len(here))
    draws = law.to_parameters(u[:, :own], centre)
    expected = law.log_response({k: v[:, None] for k, v in draws.items()}, seen.columns)
    fields: dict[str, Any] = {
        "law": law,
        "draws": draws,
        "noise": likelihood.draw_noise(expected, u[:, own:], rng),
        "u": u,
        "point": truth,
        "diagnostics": replace(DIAGNOSTICS, r_hat={c.name: 1.003 for c in (*law.coordinates(centre), *noise)}),
        "parameter_diagnostics": {
            k: {"r_hat": 1.003, "ess": 1420.0, "mcse": float(np.std(v) / 38)} for k, v in draws.items()
        },
        "identifiability": dict.fromkeys(law.exponents, 0.05),
        "runs": runs,
        "data": seen,
        "n_used": len(seen),
        "dropped": dict(seen.dropped),
        "roles": {str(r): int(np.sum(seen.role == r)) for r in dict.fromkeys(seen.role.tolist())},
        "seed": 0,
        "centre": centre,
        "coordinates": (*law.coordinates(centre), *noise),
        "chain": u.reshape(4, 300, -1),
    }
    return Posterior(**{**fields, **changes})


def simulated_records(simulated: bool = True) -> tuple[RunRecord, ...]:
    """The laptop study's plan: curves, data-limited runs, a batch sweep, seeds, and one failure."""
    rng = np.random.default_rng(1)
    found: list[RunRecord] = []
    for i, shape in enumerate(SHAPES):
        steps = (14000, 12000, 9000, 6000, 4500, 3000)[i]
        found.append(_record(rng, shape, 2048, steps, ("curve",), simulated=simulated))
    for shape in SHAPES[1:3]:
        found += [
            _record(rng, shape, b, min(30000, 40_000_000 // b), ("batch",), simulated=simulated)
            for b in (256, 1024, 4096, 16384)
        ]
        found += [_record(rng, shape, 2048, 6000, ("seed",), seed=s, simulated=simulated) for s in (1, 2)]
    for shape in SHAPES[2:5]:
        for unique in (20_000, 60_000, 180_000, 540_000, 1_600_000):
            found.append(_record(rng, shape, 2048, 6000, ("data",), unique=unique, simulated=simulated))
    broken = _record(rng, SHAPES[0], 2048, 500, ("lr",), lr=0.1, simulated=simulated)
    found.append(replace_record(broken, status="diverged", message="the loss became NaN at step 412"))
    return tuple(found)


def replace_record(record: RunRecord, **changes: Any) -> RunRecord:
    import msgspec

    return msgspec.structs.replace(record, **changes)


def _record(
    rng: np.random.Generator,
    shape: tuple[int, int],
    batch: int,
    steps: int,
    purposes: tuple[Any, ...],
    unique: int | None = None,
    seed: int = 0,
    lr: float = 0.005,
    simulated: bool = True,
) -> RunRecord:
    layers, width = shape
    N = 12 * layers * width**2
    recipe = Recipe(peak_lr=lr, batch_tokens=batch, steps=steps, warmup_steps=50, seed=seed)
    config = RunConfig(
        shape=Shape(n_layer=layers, d_model=width, n_head=2, n_ctx=64),
        recipe=recipe,
        corpus="0123456789abcdef",
        unique_tokens=unique or 40_000_000,
        early_stop=unique is not None,
    )
    marks = np.unique(np.geomspace(40, steps, 24).astype(int))
    loss = kaplan.solve_loss(float(N), float(batch), marks.astype(float), TRUTH)
    if unique is not None:
        target = float(kaplan.loss_nd(float(N), float(unique), TRUTH))
        limit = float(kaplan.loss_nd(float(N), np.inf, TRUTH))
        over = (target / limit - 1) * (marks * batch / (4 * unique)) ** 0.5
        loss = loss * (1 + over * 0.5)
        best = int(np.clip(np.argmin(loss), 1, len(marks) - 2))
        loss = loss * (target / loss[best])
    else:
        best = -1
    loss = loss * np.exp(rng.normal(0, 0.004) + rng.normal(0, 0.003, len(marks)))
    if unique is not None:
        best = int(np.clip(np.argmin(loss), 1, len(marks) - 2))
    scale = kaplan.critical_batch(loss, TRUTH) * np.exp(rng.normal(0.1, 0.25, len(marks)))
    curve = tuple(
        CurvePoint(
            step=int(s),
            tokens=int(s) * batch,
            lr=lr,
            train=float(value * 0.995),
            losses={"test": float(value), "validation": float(value * 1.002), "licences": float(value * 1.1)},
            errors={"test": 0.004, "validation": 0.004, "licences": 0.006},
            noise_scale=float(b) if "curve" in purposes and k % 2 == 0 else None,
        )
        for k, (s, value, b) in enumerate(zip(marks, loss, scale, strict=True))
    )
    return RunRecord(
        run_id=config_hash("run", config),
        config=config,
        purposes=purposes,
        status="stopped" if unique is not None else "done",
        curve=curve,
        best=best,
        backend="numba",
        device="cpu",
        seconds=1.7e-9 * 6 * N * steps * batch,
        flops=26.0 * N * steps * batch,
        simulated=simulated,
    )


def chinchilla_table(rows: int = 120) -> RunTable:
    rng = np.random.default_rng(2)
    N = np.exp(rng.uniform(np.log(5e7), np.log(1.5e10), rows))
    tokens = N * np.exp(rng.normal(np.log(20), 1.0, rows))
    law = get_law("chinchilla")
    loss = np.exp(law.log_loss(CHINCHILLA, {"N": N, "tokens": tokens}) + rng.normal(0, 0.004, rows))
    nothing, no = np.full(rows, np.nan), np.zeros(rows, dtype=bool)
    return RunTable(
        run=np.array([f"run {i}" for i in range(rows)]),
        N=N,
        D=tokens,
        tokens=tokens,
        C=6 * N * tokens,
        B=nothing,
        S=nothing,
        loss=loss,
        loss_error=nothing,
        warmup=nothing,
        decayed=~no,
        stopped=no,
        curve=no,
        source="runs.csv",
        notes=("tokens = C/(6N)",),
    )


def full_study(simulated: bool = True) -> ReportData:
    records = simulated_records(simulated)
    runs = table_from_records(records)
    fit = drawn_posterior("kaplan", TRUTH, runs)
    budgets = np.array([1e15, 1e18, 1e21])
    return ReportData(
        title="Scaling study: laptop",
        runs=runs,
        records=records,
        fits={"kaplan": fit},
        allocations=(allocate(fit, compute=budgets),),
        crossover=crossover(fit, backtest=None),
        backtest=backtest(drawn_posterior("chinchilla", CHINCHILLA, chinchilla_table())),
        methods=compare_methods(fit),
        design=design(fit, best_size(1e18), budget=1e15, misfit=False, max_runs=6),
        forecasts=(forecast(fit, N=300_000, D=1e8, B=4096, S=30_000),),
        corpus={
            "name": "stdlib",
            "hash": "0123456789abcdef",
            "vocab_size": 256,
            "train tokens": 11_204_321,
            "test tokens": 622_113,
            "held-out distributions": "licences, numpy-headers, pydoc-data",
        },
        environment=environment(),
        seed=0,
        command="scaling-sim study laptop --out study --seed 0",
        flags=(
            "The best learning rate of N = 768 lies on the edge of its sweep (0.02): the optimum may lie beyond it.",
        ),
        planned=len(records) + 2,
        simulated=False,
    )


def csv_study() -> ReportData:
    runs = chinchilla_table()
    fit = drawn_posterior("chinchilla", CHINCHILLA, runs, sd=0.0008)
    return ReportData(
        title="Fit of runs.csv",
        fits={"chinchilla": fit},
        allocations=(allocate(fit, compute=5.76e23),),
        environment=environment(),
        seed=0,
        command="scaling-sim fit runs.csv --law chinchilla",
    )


@pytest.fixture(scope="session")
def study() -> ReportData:
    """Everything a report can show."""
    return full_study()


@pytest.fixture(scope="session")
def fit_only() -> ReportData:
    """A single fit of somebody's CSV: no records, no batches."""
    return csv_study()


@pytest.fixture
def changed() -> Any:
    """`dataclasses.replace`, for variants of the studies above."""
    return replace
