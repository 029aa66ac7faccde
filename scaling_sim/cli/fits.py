"""Verbs of runs and fits."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling_sim.cli.app import Columns, Constants, Duplicates, Import, Json, NoSeed, Seed, Where, app
from scaling_sim.cli.inputs import (
    as_number,
    law_options,
    laws_of,
    load_posterior,
    one_from_stdin,
    options_of,
    read_table,
    told,
)
from scaling_sim.cli.output import as_lines, count_rows, exit_unless, interruptible, say, show, write_piped
from scaling_sim.config import json_text
from scaling_sim.errors import ConfigError

if TYPE_CHECKING:
    from scaling_sim.inference.posterior import Posterior
    from scaling_sim.laws.base import Law
    from scaling_sim.runs.table import RunTable


@app.command()
def runs(
    source: Annotated[
        Path, typer.Argument(metavar="RUNS", help="Study folder, CSV, Parquet or JSONL; - for CSV on stdin.")
    ],
    columns: Columns = None,
    where: Where = None,
    duplicates: Duplicates = "refuse",
    export: Annotated[Path | None, typer.Option(help="Write the validated table: .csv or .parquet.")] = None,
    seed: NoSeed = 0,
    as_json: Json = False,
) -> None:
    """List, validate and export runs.

    Example: scaling-sim runs study --export runs.csv
    """
    table = read_table(source, columns, where, duplicates)
    if export is not None:
        _export(table, export)
    facts = {
        "n_rows": len(table),
        "n_runs": len(set(table.run.tolist())),
        "n_dropped": sum(len(rows) for rows in table.dropped.values()),
        "dropped": {reason: list(rows) for reason, rows in table.dropped.items()},
        "notes": list(table.notes),
        "data_hash": table.data_hash,
        "simulated": table.simulated,
    }
    show(facts, as_json, lambda: f"{table.to_dataframe().to_string(max_rows=40)}\n\n{as_lines(facts)}")


@app.command()
def fit(
    source: Annotated[
        Path, typer.Argument(metavar="RUNS", help="Study folder, CSV, Parquet or JSONL; - for CSV on stdin.")
    ],
    law: Annotated[str, typer.Option(help="See `scaling-sim laws`.")] = "chinchilla",
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of the law, repeated: source=sweep, shared=false.")
    ] = None,
    columns: Columns = None,
    where: Where = None,
    duplicates: Duplicates = "refuse",
    point: Annotated[
        bool, typer.Option("--point", help="The log-Huber minimum only: a fraction of a second, no uncertainty.")
    ] = False,
    delta: Annotated[
        float | None, typer.Option(help="Threshold of the Huber loss, with --point.  [default: 1e-3]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Save the posterior (NetCDF, opens in ArviZ); - for a pipe to another verb.")
    ] = None,
    min_ess: Annotated[int, typer.Option(min=1, help="Effective draws per parameter to reach.")] = 1000,
    max_steps: Annotated[int, typer.Option(min=1, help="Steps per ensemble after which to stop unconverged.")] = 30_000,
    imports: Import = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fit a law to runs and sample its posterior, or with --point find its log-Huber minimum.

    Example: scaling-sim fit runs.csv --law chinchilla --columns "N=params,D=tokens,loss=final_loss" --out fit.nc
    """
    import scaling_sim as ss

    if point and out is not None:
        raise ConfigError("--out saves draws and --point makes none; leave one of them out")
    if delta is not None and not point:
        raise ConfigError("--delta is the threshold of the point estimate; it goes with --point")
    piped = str(out) == "-"
    if piped and (as_json or sys.stdout.isatty()):
        raise ConfigError("--out - writes a binary file to stdout: send it into another verb, without --json")
    with interruptible("interrupted; nothing was saved"):
        form = ss.get_law(law, **law_options(option or []))
        table = read_table(source, columns, where, duplicates)
        if point:
            _fit_point(table, form, 1e-3 if delta is None else delta, as_json)
            return
        posterior = _fit_posterior(table, form, seed, min_ess, max_steps)
        if piped:
            write_piped(posterior)
        elif out is not None:
            posterior.save(out)
    if not piped:
        show(posterior.to_json(), as_json, lambda: _describe_fit(posterior))
    exit_unless(posterior.converged)


@app.command()
def laws(imports: Import = None, seed: NoSeed = 0, as_json: Json = False) -> None:
    """List the laws: parameters, options and the columns that each needs.

    Example: scaling-sim laws
    """
    import scaling_sim as ss

    table = {
        name: {
            "parameters": list(law.parameters),
            "columns": list(law.columns),
            "options": options_of(law),
            "formula": _first_line(law),
        }
        for name, law in ((name, ss.get_law(name)) for name in ss.law_names())
    }
    show(table, as_json, lambda: "\n".join(f"{name:18s} {facts['formula']}" for name, facts in table.items()))


@app.command()
def compare(
    source: Annotated[list[Path], typer.Argument(metavar="FIT...", help="Saved fits, or one table of runs and --law.")],
    law: Annotated[list[str] | None, typer.Option(help="With runs: once for each law to fit and compare.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE for those of the laws that have this option, repeated: source=sweep."),
    ] = None,
    columns: Columns = None,
    where: Where = None,
    duplicates: Duplicates = "refuse",
    methods: Annotated[
        bool, typer.Option("--methods", help="Law, isoFLOP minima and envelope: do they agree on the best size?")
    ] = False,
    compute: Annotated[
        list[float] | None, typer.Option("-C", "--compute", help="With --methods: a budget in FLOP, repeated.")
    ] = None,
    imports: Import = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare laws on the same runs (leave-one-out and back-test), or ways to find the best size.

    Example: scaling-sim compare runs.csv --law chinchilla --law power-n; scaling-sim compare fit.nc --methods
    """
    import scaling_sim as ss

    if compute and not methods:
        raise ConfigError("--compute goes with --methods: laws are compared without a budget")
    if law:
        if len(source) != 1:
            raise ConfigError(f"--law goes with one table of runs, got {len(source)} files")
        forms = laws_of(law, law_options(option or []))
        table = read_table(source[0], columns, where, duplicates)
        fits = [ss.fit(table, law=form, seed=seed) for form in forms]
    else:
        if option or columns or where or duplicates != "refuse":
            raise ConfigError("--option, --columns, --where and --duplicates read a table of runs; they go with --law")
        one_from_stdin(*source)
        fits = [load_posterior(path) for path in source]
    answers = [ss.compare_methods(fit, compute or None, seed=seed) for fit in fits] if methods else [ss.compare(fits)]
    facts = [answer.to_json() for answer in answers]
    show(
        facts[0] if len(facts) == 1 else {fit.law_name: fact for fit, fact in zip(fits, facts, strict=True)},
        as_json,
        lambda: "\n\n".join(map(str, answers)),
    )
    exit_unless(all(fit.converged for fit in fits))


@app.command()
def simulate(
    law: Annotated[str | None, typer.Option(help="Law of the truth; `chinchilla` if nothing else is given.")] = None,
    parameter: Annotated[list[str] | None, typer.Option("--parameter", "-p", help="NAME=VALUE, repeated.")] = None,
    constants: Constants = None,
    fit_file: Annotated[Path | None, typer.Option("--fit", help="A saved fit as the truth.")] = None,
    draw: Annotated[str, typer.Option(help="Of --fit: `point`, `random` or the number of a draw.")] = "point",
    noise: Annotated[float | None, typer.Option(help="Scale of the noise on log loss; that of --fit, or .005.")] = None,
    tau: Annotated[
        float | None, typer.Option(help="Scale of the errors shared along a curve; that of --noise.")
    ] = None,
    ell: Annotated[float | None, typer.Option(help="E-folds of steps over which these decay; 1.")] = None,
    nu: Annotated[float | None, typer.Option(help="Degrees of freedom of the noise, inf is normal; 5.")] = None,
    curves: Annotated[bool, typer.Option("--curves", help="Learning curves, whatever the law.")] = False,
    seeds: Annotated[int, typer.Option(help="Runs of each cell, or of each repeated curve; 0: as usual.")] = 0,
    diverged: Annotated[float, typer.Option(help="Share of runs that diverge: left out and named.")] = 0.0,
    out: Annotated[Path | None, typer.Option(help="CSV to write; stdout without it.")] = None,
    imports: Import = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Draw a complete sweep from a known law or a saved fit: for calibration, teaching, design.

    Example: scaling-sim simulate --law chinchilla -p alpha=0.5 -p beta=0.25 --out simulated.csv
    """
    import scaling_sim as ss
    from scaling_sim.predict.noise import Noise
    from scaling_sim.predict.simulate import design_of

    truth = _truth(law, parameter or [], constants, fit_file)
    chosen = told({"sigma": noise, "tau": tau, "ell": ell, "nu": nu})
    given = None if fit_file and not chosen else Noise(**chosen)
    plan = design_of(truth, curves=curves, seeds=seeds)
    which = draw if draw in ("point", "random") else int(as_number("--draw", draw))
    table = ss.simulate(truth, plan, noise=given, diverged=diverged, draw=which, seed=seed)
    if out is not None or not as_json:
        table.to_csv(sys.stdout if out is None else out)
    if as_json:
        rows = [] if out else table.to_dataframe().to_dict(orient="records")
        print(json_text({"n_rows": len(table), "simulated": True, "seed": seed, "out": out, "rows": rows}))
    say(f"{len(table)} simulated rows{f' in {out}' if out else ''}")


def _fit_point(table: RunTable, law: Law, delta: float, as_json: bool) -> None:
    import time

    import scaling_sim as ss
    from scaling_sim.inference.posterior import rows_behind

    began = time.perf_counter()
    found = ss.point_fit(table, law, delta=delta)
    seconds = time.perf_counter() - began
    facts = {**found.to_json(), "n_rows": rows_behind(table, found.dropped), "seconds": seconds}
    show(facts, as_json, lambda: as_lines({**facts, "dropped": count_rows(found.dropped)}))
    if not found.agreed:
        say("warning: the two best starts ended in different minima; do not rely on these numbers")
        raise typer.Exit(3)


def _fit_posterior(table: RunTable, law: Law, seed: int, min_ess: int, max_steps: int) -> Posterior:
    import scaling_sim as ss
    from scaling_sim.study.fit_display import FitDisplay

    # Below a thousand rows a second process costs more to start than it saves; the numbers are the same either way.
    processes = min(4, os.cpu_count() or 1) if len(table) >= 1000 else 1
    with FitDisplay(law.name) as display:
        posterior: Posterior = ss.fit(
            table,
            law,
            seed=seed,
            min_ess=min_ess,
            max_steps=max_steps,
            processes=processes,
            progress=display.update,
        )
    return posterior


def _export(table: Any, path: Path) -> None:
    writers = {".csv": table.to_csv, ".parquet": table.to_parquet}
    if path.suffix not in writers:
        raise ConfigError(f"--export writes {' or '.join(writers)}, got {path.name!r}")
    writers[path.suffix](path)
    say(f"{len(table)} rows in {path}")


def _truth(law: str | None, pairs: list[str], constants: str | None, fit_file: Path | None) -> Any:
    """What `simulate` draws from; exactly one of a law with parameters, published constants and a saved fit."""
    import scaling_sim as ss

    if sum((law is not None or bool(pairs), constants is not None, fit_file is not None)) > 1:
        raise ConfigError("the truth is --law with -p, or --constants NAME, or --fit FIT.nc: give one of the three")
    if fit_file is not None:
        return load_posterior(fit_file)
    return ss.constants(constants) if constants else {"law": law or "chinchilla", **_parameters(pairs)}


def _parameters(pairs: list[str]) -> dict[str, float]:
    split = [pair.partition("=") for pair in pairs]
    return {name.strip(): as_number(f"-p {name}", value) for name, _, value in split}


def _describe_fit(posterior: Posterior) -> str:
    counts = (
        f"{posterior.used} used, {posterior.n_dropped} {'rows ' if posterior.n_rows > posterior.n_used else ''}left out"
    )
    reasons = "".join(f"\n  {count} {reason}" for reason, count in count_rows(posterior.dropped).items())
    notes = "".join(f"\nnote: {note}" for note in posterior.notes)
    table = posterior.summary().to_string(float_format=lambda value: f"{value:.4g}")
    unit = "; losses taken as nats per token" if posterior.law.response == "loss" else ""
    return f"{posterior.law_name}: {counts}{unit}{reasons}\n\n{table}\n\n{posterior.diagnostics.verdict}{notes}"


def _first_line(law: Any) -> str:
    return (type(law).__doc__ or "").strip().splitlines()[0]
