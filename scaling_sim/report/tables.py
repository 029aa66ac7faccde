"""The tables of a report; each builder returns a `Table`, or None where its data do not exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.inference.diagnostics import NOT_IDENTIFIED
from scaling_sim.report.data import ReportData
from scaling_sim.report.table import Cell, Range, Table

if TYPE_CHECKING:
    from scaling_sim.inference import Posterior
    from scaling_sim.predict import Allocation, Forecast

Array = NDArray[np.float64]

WHY_DIFFERENT = (
    "Exponents of tiny models on bytes are not expected to equal the paper's. Our tokens are single bytes, about four "
    "times shorter than its word pieces, so much of the loss is spelling that is learned first; our models are so "
    "small that attention over the context and the embeddings, which N and 6N leave out, dominate; and the text "
    "differs. N_c, D_c, S_c and B* depend on the tokenizer and mean nothing across studies."
)


def parameter_table(data: ReportData, law: str) -> Table:
    """Median, 50 and 90 % intervals, ESS, MCSE, R-hat and how much the data narrowed the prior, per parameter."""
    fit, weak = data.fits[law], data.weak_parameters(law)
    frame = fit.summary().rename_axis("parameter").reset_index()
    rows = [_parameter_row(row, str(row["parameter"]) in weak) for row in frame.to_dict("records")]
    columns = (
        "parameter",
        "median",
        "50 % interval",
        "90 % interval",
        "ESS",
        "MCSE",
        "R-hat",
        "posterior sd / prior sd",
        "",
    )
    note = (
        f"A parameter whose posterior sd exceeds {NOT_IDENTIFIED} of its prior sd counts as not identified; where "
        "the data bound it from one side only, the ratio is that of the tail that the prior makes. ESS: "
        "effective sample size. MCSE: Monte Carlo error of the median."
    )
    return Table(f"parameters-{law}", f"Parameters of {law}", columns, tuple(rows), note)


def _parameter_row(row: Mapping[Any, Any], weak: bool) -> tuple[Cell, ...]:
    return (
        str(row["parameter"]),
        _number(row.get("median")),
        Range(float(row["lo50"]), float(row["hi50"])),
        Range(float(row["lo90"]), float(row["hi90"])),
        None if (ess := _number(row.get("ess"))) is None else round(ess),
        _number(row.get("mcse")),
        None if (r_hat := _number(row.get("r_hat"))) is None else f"{r_hat:.4f}",
        _number(row.get("sd_ratio")),
        "not identified" if weak else "",
    )


def prior_table(fit: Posterior) -> Table:
    """The prior of every sampling coordinate."""
    rows = tuple((c.name, c.meaning, float(c.prior.mean), float(c.prior.sd)) for c in fit.coordinates)
    note = "Normal priors on dimensionless coordinates centred on the data, so that a change of units changes nothing."
    return Table(
        f"priors-{fit.law_name}", f"Priors of {fit.law_name}", ("coordinate", "meaning", "mean", "sd"), rows, note
    )


PUBLISHED: tuple[tuple[str, str, tuple[str, ...], float, str], ...] = (
    ("α_N", "loss against size", ("alpha_N",), 0.076, "Kaplan et al. 2020, Table 5"),
    ("α_D", "loss against data", ("alpha_D",), 0.095, "Kaplan et al. 2020, Table 5"),
    ("α_S", "loss against steps", ("alpha_S",), 0.76, "Kaplan et al. 2020, Table 3"),
    ("α_B", "critical batch against loss", ("alpha_B",), 0.21, "Kaplan et al. 2020, Table 5"),
    ("α_N/α_D", "data that a size needs", ("alpha_N", "alpha_D"), 0.74, "Kaplan et al. 2020, eq 4.4"),
    ("α", "Chinchilla, size term", ("alpha",), 0.3478, "Besiroglu et al. 2024"),
    ("β", "Chinchilla, data term", ("beta",), 0.3658, "Besiroglu et al. 2024"),
)


def exponent_table(data: ReportData) -> Table | None:
    """Our exponents beside the published ones, with the law that each was read from."""
    rows = list(_fitted_exponents(data)) + list(_frontier_exponents(data))
    if not rows:
        return None
    columns = ("exponent", "what it is", "fit", "ours, 90 % interval", "published", "source")
    ours = any(len(fit.runs.N) and np.nanmax(fit.runs.N) < 1e6 for fit in data.fits.values())
    return Table(
        "exponents", "Exponents, ours and published", columns, tuple(rows), WHY_DIFFERENT if ours else "", maths=True
    )


def _fitted_exponents(data: ReportData) -> Iterator[tuple[Cell, ...]]:
    for symbol, words, names, value, source in PUBLISHED:
        for law, fit in data.fits.items():
            if all(name in fit.draws for name in names) and not ("alpha_N" in fit.draws and names == ("alpha",)):
                values = fit.draws[names[0]] if len(names) == 1 else fit.draws[names[0]] / fit.draws[names[1]]
                yield symbol, words, law, _range(values), value, source


def _frontier_exponents(data: ReportData) -> Iterator[tuple[Cell, ...]]:
    """Exponents of L, N, B and S against C_min by Appendix B, for joint fits; of N for Chinchilla's form."""
    for law, fit in data.fits.items():
        p = fit.draws
        if all(name in p for name in ("alpha_N", "alpha_S", "alpha_B")) and "E" not in p:
            inverse = {x: 1 / p[f"alpha_{x}"] for x in "SBN"}
            alpha_C = 1 / (inverse["S"] + inverse["B"] + inverse["N"])
            yield "α_C^min", "loss against compute", law, _range(alpha_C), 0.050, "Kaplan et al. 2020, Table 5"
            words = {"N": "best size", "B": "critical batch", "S": "best steps"}
            for letter, value in (("N", 0.73), ("B", 0.24), ("S", 0.03)):
                text = f"{words[letter]} against compute"
                yield f"p_{letter}", text, law, _range(alpha_C * inverse[letter]), value, "Kaplan et al. 2020, Table 6"
        if "alpha" in p and "beta" in p:
            share = p["beta"] / (p["alpha"] + p["beta"])
            yield "β/(α+β)", "best size against compute", law, _range(share), 0.513, "Besiroglu et al. 2024"


def allocation_table(data: ReportData) -> Table | None:
    """One row per budget: best size, tokens, batch, steps and the loss reached."""
    plans = [one for several in data.allocations for one in several]
    if not plans:
        return None
    names = [name for name in ("N", "D", "B", "S", "loss") if any(name in plan.draws for plan in plans)]
    words = {"N": "N, parameters", "D": "tokens", "B": "batch, tokens", "S": "steps", "loss": "loss, nats"}
    columns = ("law", "compute, FLOP", *(words[name] for name in names), "beyond back-test")
    rows = tuple(_allocation_row(plan, names) for plan in plans)
    said = "".join(f" {p.header.get('law', '')}: {'; '.join(p.notes)}." for p in data.allocations if p.notes)
    note = (
        "Medians with 90 % intervals of the parameters' posterior; beyond the runs the loss also carries what the "
        f"back-test found, as forecasts do. All tokens are fresh; compute is what is paid, 6·N·tokens.{said}"
    )
    return Table("allocation", "Compute-optimal models", columns, rows, note)


def _allocation_row(plan: Allocation, names: list[str]) -> tuple[Cell, ...]:
    compute = float(plan.compute[0])
    found = [Range.of(plan.quantity(name)) if name in plan.draws else None for name in names]
    return (str(plan.header.get("law", "")), compute, *found, bool(plan.beyond_backtest[0]))


def forecast_table(data: ReportData) -> Table | None:
    """One row per forecast: the run that was asked about and the loss expected of it."""
    if not data.forecasts:
        return None
    rows = tuple(_forecast_row(forecast) for forecast in data.forecasts)
    columns = ("law", "formula", "N, parameters", "compute, FLOP", "loss, nats", "by the law alone", "beyond back-test")
    said = "; ".join(dict.fromkeys(note for forecast in data.forecasts for note in forecast.notes))
    note = "Losses that one run will be measured to have, with 90 % intervals: parameters, discrepancy and scatter." + (
        f" {said}." if said else ""
    )
    return Table("forecasts", "Forecasts", columns, rows, note)


def _forecast_row(forecast: Forecast) -> tuple[Cell, ...]:
    run, law = forecast.run, str(forecast.header.get("law", ""))
    size, compute = _number(run.N), _number(run.C)
    losses = Range.of(forecast.loss), Range.of(forecast.law_loss)
    return (law, forecast.form, size, compute, *losses, bool(forecast.beyond_backtest))


def fact_table(name: str, heading: str, facts: Mapping[str, Any]) -> Table | None:
    """Names and values."""
    rows = tuple((str(key).replace("_", " "), _cell(value)) for key, value in facts.items())
    return Table(name, heading, ("fact", "value"), rows) if rows else None


def _range(values: Any) -> Range:
    low, middle, high = np.quantile(np.asarray(values, dtype=float), [0.05, 0.5, 0.95])
    return Range(float(low), float(high), float(middle))


def _number(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def _cell(value: Any) -> Cell:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {entry}" for key, entry in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
