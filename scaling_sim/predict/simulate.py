"""Complete sweeps drawn from a known truth: for calibration, teaching and the design of experiments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.config import config_hash
from scaling_sim.errors import ConfigError, LawError
from scaling_sim.laws import get_law, kaplan
from scaling_sim.laws.base import Law, Parameters
from scaling_sim.laws.constants import constants
from scaling_sim.laws.optimum import OptimumLaw
from scaling_sim.predict.layout import Design, Layout, Sweep, default_design
from scaling_sim.predict.noise import Noise, noise_by_role
from scaling_sim.predict.tuning import tuned_log_loss
from scaling_sim.runs.table import RunTable

Array = NDArray[np.float64]

DIVERGED = "diverged"
_DEFAULTS = {
    "chinchilla": "besiroglu",
    "data-constrained": "muennighoff",
    "kaplan": "kaplan-table5",
    "kaplan-nd": "kaplan-table2",
    "kaplan-ns": "kaplan-table3",
    "power-n": "kaplan-power-n",
    "power-d": "kaplan-power-d",
    "power-c": "kaplan-power-c",
    "learning-rate": "step-law-learning-rate",
    "batch-size": "step-law-batch-size",
}
"""Published set of each law, its form with an entropy floor included (whose E must then be given)."""


def simulate(
    truth: Any,
    design: Design | None = None,
    *,
    law: str | Law | None = None,
    noise: float | Noise | Mapping[str, Noise] | None = None,
    diverged: float = 0.0,
    draw: str | int = "point",
    seed: int = 0,
) -> RunTable:
    """A sweep whose truth is known, as a table with ``simulated=True``.

    Parameters
    ----------
    truth : Posterior, ConstantSet or mapping
        A mapping gives natural parameters and the law under ``"law"`` (or by the argument). Parameters left out are
        published ones; a published amplitude is moved so that a changed exponent leaves the loss at the centre of the
        design as it was.
    design : Grid, Sweep or Tuning
        Which runs; a default that identifies the law. A `Sweep` gives any law of N and tokens learning curves.
    noise : float, Noise or mapping of role to Noise
        Roles are ``final``, ``stopped`` and ``curve``. A float is sigma (and tau). Default: the posterior's own
        medians, or `Noise`'s defaults.
    diverged : float
        Share of runs that diverge: left out of the table, named in ``dropped``.
    draw : "point", "random" or int
        Which draw of a posterior is the truth.
    seed : int
        Same seed, law and parameters: same numbers. Different truths have independent errors under one seed.

    Returns
    -------
    RunTable
        Extra columns: ``purpose``, ``seed`` and ``expected_loss`` (nats per token, without noise); of a `Tuning`
        also ``lr``.
    """
    if seed < 0:
        raise ConfigError(f"seed must not be negative, got {seed}")
    if not 0 <= diverged < 1:
        raise ConfigError(f"diverged, a share of runs, must lie in [0, 1), got {diverged}")
    form, given = _truth(truth, law, draw, seed)
    if form.response != "loss" and not isinstance(form, OptimumLaw):
        raise LawError(f"{form.name} gives no loss; simulate kaplan, which contains it")
    design = default_design(form) if design is None else design
    layout = design.layout()
    parameters = _complete(form, given, layout)
    rng = _generator(seed, form, parameters)
    log_loss = _expected(form, parameters, layout)
    columns = _columns(layout, form, parameters, log_loss)
    errors = _errors(layout, noise_by_role(truth, noise), rng)
    table = _table(columns, layout, log_loss, errors, f"simulated from {form.name}")
    return _drop_diverged(table, diverged, rng)


def design_of(truth: Any, *, curves: bool = False, seeds: int = 0) -> Design:
    """The default design of a truth; with learning curves whatever its law, with ``seeds`` runs of each cell if > 0."""
    form = _truth(truth, None, "point", 0)[0]
    design = default_design(form)
    if curves and not isinstance(design, Sweep):
        if isinstance(form, OptimumLaw):
            raise LawError(f"{form.name} says nothing about learning curves; simulate chinchilla or kaplan")
        design = Sweep(batch_N=(), data_N=())
    if seeds < 0:
        raise ConfigError(f"seeds, runs of each cell, must not be negative, got {seeds}")
    return replace(design, seeds=seeds) if seeds else design


def _truth(truth: Any, law: str | Law | None, draw: str | int, seed: int) -> tuple[Law, dict[str, float]]:
    """The law, and natural parameters as far as they are given."""
    if isinstance(truth, Mapping):
        values = dict(truth)
        name = values.pop("law", None) if law is None else law
        if name is None:
            raise ConfigError(
                'a truth given by its parameters needs its law: simulate({"law": "chinchilla", "alpha": 0.5})'
            )
        return _law_of(name, values), {key: float(value) for key, value in values.items()}
    draws: Mapping[str, Array] = truth.draws
    if truth.law_name == "kaplan-frontier":
        raise LawError("a frontier says nothing about single runs; simulate a set such as kaplan-table5")
    form = getattr(truth, "law", None) or _law_of(truth.law_name, draws)
    point = getattr(truth, "point", None)
    if draw == "point" and point is not None:
        return form, {name: float(point[name]) for name in form.parameters}
    which = _which_draw(draw, len(next(iter(draws.values()))), np.random.default_rng(seed))
    return form, {name: float(draws[name][which]) for name in form.parameters}


def _law_of(name: str | Law, parameters: Mapping[str, Any]) -> Law:
    """The law of this name, with pairs of its own where the parameters have them."""
    return get_law(name, shared=False) if "alpha_N_curve" in parameters and isinstance(name, str) else get_law(name)


def _generator(seed: int, law: Law, parameters: Parameters) -> np.random.Generator:
    """A generator of this seed and truth: one seed must not give the same errors to every truth."""
    values = {name: float(value) for name, value in parameters.items()}
    key = int(config_hash(law.name, values, length=32), 16)
    return np.random.default_rng(np.random.SeedSequence([seed, key]))


def _which_draw(draw: str | int, count: int, rng: np.random.Generator) -> int:
    if draw == "random":
        return int(rng.integers(count))
    if draw == "point":
        return 0
    if isinstance(draw, int) and -count <= draw < count:
        return draw
    raise ConfigError(f"draw must be 'point', 'random' or a number below {count}, got {draw!r}")


def _complete(law: Law, given: Mapping[str, float], layout: Layout) -> dict[str, float]:
    """All natural parameters of ``law``; see `simulate` for those left out."""
    unknown = sorted(set(given) - set(law.parameters))
    if unknown:
        raise ConfigError(f"{law.name} has no parameter {', '.join(unknown)}; it has {', '.join(law.parameters)}")
    known = _DEFAULTS.get(law.name.removesuffix("-floor"))
    published = {} if known is None else dict(constants(known).values)
    missing = [name for name in law.parameters if name not in given and name not in published]
    if missing:
        raise ConfigError(f"the truth of {law.name} needs {', '.join(missing)} as well")
    if all(name in given for name in law.parameters):
        return dict(given)
    start = {name: published.get(name, given.get(name, np.nan)) for name in law.parameters}
    centre = _centre(law, start, layout)
    u = law.from_parameters(start, centre)
    for place, coordinate in enumerate(law.coordinates(centre)):
        exponent = coordinate.name.removeprefix("log_")
        if exponent in law.exponents and exponent in given:
            u[:, place] = given[exponent] if exponent == coordinate.name else np.log(given[exponent])
    moved = {name: float(values[0]) for name, values in law.to_parameters(u, centre).items()}
    return {**moved, **given}


def _centre(law: Law, parameters: Parameters, layout: Layout) -> dict[str, float]:
    log_loss = _expected(law, parameters, layout)
    columns = _columns(layout, law, parameters, log_loss)
    table = _table(columns, layout, log_loss, np.zeros(len(log_loss)), "")
    return law.centre(law.observe(table))


def _expected(law: Law, parameters: Parameters, layout: Layout) -> Array:
    """Log loss (n,) of every row without noise; NaN where the law does not know enough."""
    columns: dict[str, Array] = {name: layout.numbers(name) for name in ("N", "D", "tokens", "B", "S", "lr")}
    if isinstance(law, OptimumLaw):
        return tuned_log_loss(law, parameters, columns)
    columns["C"] = 6 * columns["N"] * columns["tokens"]
    rows = {name: columns[name] for name in law.columns}
    if isinstance(law, _joint()):
        rows["stopped"] = layout.flags("stopped").astype(np.float64)
        usable = np.ones(len(layout.rows), dtype=np.bool_)
    else:
        usable = np.all([np.isfinite(column) for column in rows.values()], axis=0)
    log_loss = np.full(len(layout.rows), np.nan)
    chosen = {name: column[usable] for name, column in rows.items()}
    log_loss[usable] = law.log_loss({name: float(value) for name, value in parameters.items()}, chosen)
    return log_loss


def _joint() -> type[Law]:
    from scaling_sim.laws.kaplan_joint import KaplanJoint

    return KaplanJoint


def _columns(layout: Layout, law: Law, parameters: Parameters, log_loss: Array) -> dict[str, Array]:
    """All numeric columns, early-stopped rows of the joint system with the steps of (5.7)."""
    columns = {name: layout.numbers(name) for name in ("N", "D", "tokens", "B", "S", "warmup")}
    waiting = layout.flags("stopped") & np.isnan(columns["tokens"])
    if waiting.any() and isinstance(law, _joint()):
        N, D, B = (columns[name][waiting] for name in ("N", "D", "B"))
        S = stopping_steps(N, D, B, parameters)
        columns["S"][waiting], columns["tokens"][waiting] = S, B * S
    return columns


def stopping_steps(N: Array, D: Array, B: Array, p: Parameters) -> Array:
    """Steps until early stopping ends a run on D unique tokens, at least two epochs (Kaplan et al. 2020, eq. 5.7).

    S_stop = S_c/[L(N, D) − L(N, ∞)]^(1/α_S) updates far above the critical batch, (1 + B_crit/B) times as many at B.
    """
    loss = kaplan.loss_nd(N, D, p)
    limit = kaplan.loss_nd(N, np.full(np.shape(D), 1e300), p)
    with np.errstate(divide="ignore"):
        ideal = p["S_c"] / (loss - limit) ** (1 / p["alpha_S"])
    return np.asarray(np.maximum(ideal * (1 + kaplan.critical_batch(loss, p) / B), 2 * D / B))


def _errors(layout: Layout, noise: Mapping[str, Noise], rng: np.random.Generator) -> Array:
    """Errors of the log loss (n,), drawn run by run."""
    run, log_S = layout.texts("run"), np.log(layout.numbers("S"))
    curve, stopped = layout.flags("curve"), layout.flags("stopped")
    errors = np.empty(len(run))
    for name in dict.fromkeys(run.tolist()):
        rows = np.flatnonzero(run == name)
        role = "curve" if curve[rows[0]] else "stopped" if stopped[rows[0]] else "final"
        errors[rows] = noise[role].draw(log_S[rows], role == "curve", rng)
    return errors


def _table(columns: Mapping[str, Array], layout: Layout, log_loss: Array, errors: Array, source: str) -> RunTable:
    nothing, lr = np.full(len(log_loss), np.nan), layout.numbers("lr")
    fields: dict[str, Any] = {**columns, **{name: layout.flags(name) for name in ("decayed", "stopped", "curve")}}
    table = RunTable(
        **fields,
        run=layout.texts("run"),
        C=6 * columns["N"] * columns["tokens"],
        loss=np.exp(log_loss + errors),
        loss_error=nothing,
        source=source,
        simulated=True,
        notes=("simulated: these runs were never trained",),
        extra={
            "purpose": layout.texts("purpose"),
            "seed": layout.numbers("seed"),
            "expected_loss": np.exp(log_loss),
            **({"lr": lr} if np.isfinite(lr).any() else {}),
        },
    )
    return table.select(np.isfinite(log_loss), "the law says nothing about them")


def _drop_diverged(table: RunTable, share: float, rng: np.random.Generator) -> RunTable:
    names = np.array(list(dict.fromkeys(table.run.tolist())))
    lost = names[rng.random(len(names)) < share]
    return table.select(~np.isin(table.run, lost), DIVERGED)
