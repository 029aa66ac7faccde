"""The command line: one verb per thing that the Python API does, results on stdout, progress on stderr.

Exit codes: 0 fine, 1 unexpected, 2 usage, 3 a posterior did not converge, 4 bad data, 130 interrupted (resumable).
"""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling_sim import __version__
from scaling_sim.config import json_text
from scaling_sim.errors import ConfigError, DataError, ScalingSimError

if TYPE_CHECKING:
    from scaling_sim.inference.posterior import Posterior
    from scaling_sim.laws.base import Law
    from scaling_sim.laws.constants import ConstantSet
    from scaling_sim.runs.table import RunTable

app = typer.Typer(
    name="scaling-sim",
    help="Train families of small transformers, fit scaling laws, predict what a larger budget buys.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Seed = Annotated[int, typer.Option(help="Of every random choice: same seed, same numbers.")]
StudySeed = Annotated[int | None, typer.Option(help="Replaces the study's own seed.", show_default=False)]
NoSeed = Annotated[int, typer.Option(help="Taken by every verb; nothing here is random.", hidden=True)]
Columns = Annotated[
    str | None,
    typer.Option(help='Ours=theirs, comma separated; arithmetic is fine: "N=params,D=bs*steps*2048,loss=final_loss".'),
]
Where = Annotated[
    list[str] | None, typer.Option(help='A condition that rows must meet, repeated: "train_data=c4", "loss<3.5".')
]
Duplicates = Annotated[
    str, typer.Option(help="Rows of equal run id and step: `refuse` them, keep the `first` or `last`.")
]
FitFile = Annotated[Path | None, typer.Argument(help="A fit written by `scaling-sim fit --out`.", show_default=False)]
Constants = Annotated[str | None, typer.Option(help="A published set of constants in place of a fit.")]


# ------------------------------------------------------------------------------------------------ the main job


@app.command()
def study(
    preset: Annotated[str, typer.Argument(help="`laptop`, or a TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder of the study; the same command again resumes.")] = Path("study"),
    seed: StudySeed = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print runs, FLOPs and expected time; train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Sweep, fit, predict, report.

    Example: scaling-sim study laptop --out study
    """
    from scaling_sim.study import plan_study, run_study

    if dry_run:
        planned = plan_study(preset, out, seed=seed)
        _show(planned.to_json(), as_json, planned.describe)
        return
    with _resumable():
        finished = run_study(preset, out, seed=seed, say=_say, command=_command())
    _show(finished.to_json(), as_json, finished.describe)
    if not finished.fits:
        _say("error: no law could be fitted to these runs; the notes above say why")
        raise typer.Exit(DataError.exit_code)
    _exit_unless(finished.converged)


@app.command()
def sweep(
    preset: Annotated[str, typer.Argument(help="`laptop`, or a TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder of the study; the same command again resumes.")] = Path("study"),
    seed: StudySeed = None,
    as_json: Json = False,
) -> None:
    """Train only: the sweep of a study without fits and report.

    Example: scaling-sim sweep study.toml --out study
    """
    from scaling_sim.study import run_sweep_of_study

    with _resumable():
        summary = run_sweep_of_study(preset, out, seed=seed, say=_say)
    _show(summary, as_json, lambda: "\n".join(f"{key}: {value}" for key, value in summary.items()))


# ------------------------------------------------------------------------------------------------ runs and fits


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
    table = _read(source, columns, where, duplicates)
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
    _show(facts, as_json, lambda: f"{table.to_dataframe().to_string(max_rows=40)}\n\n{_lines(facts)}")


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
    out: Annotated[Path | None, typer.Option(help="Save the posterior (NetCDF, opens in ArviZ).")] = None,
    min_ess: Annotated[int, typer.Option(help="Effective draws per parameter to reach.")] = 1000,
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
    with _interruptible("interrupted; nothing was saved"):
        form = ss.get_law(law, **_law_options(option or []))
        table = _read(source, columns, where, duplicates)
        if point:
            _fit_point(table, form, 1e-3 if delta is None else delta, as_json)
            return
        posterior = _fit_posterior(table, form, seed, min_ess)
        if out is not None:
            posterior.save(out)
    _show(posterior.to_json(), as_json, lambda: _describe_fit(posterior))
    _exit_unless(posterior.converged)


@app.command()
def laws(seed: NoSeed = 0, as_json: Json = False) -> None:
    """List the laws: parameters, options and the columns that each needs.

    Example: scaling-sim laws
    """
    import scaling_sim as ss

    table = {
        name: {
            "parameters": list(law.parameters),
            "columns": list(law.columns),
            "options": _options_of(law),
            "formula": _first_line(law),
        }
        for name, law in ((name, ss.get_law(name)) for name in ss.law_names())
    }
    _show(table, as_json, lambda: "\n".join(f"{name:18s} {facts['formula']}" for name, facts in table.items()))


@app.command()
def compare(
    source: Annotated[list[Path], typer.Argument(metavar="FIT...", help="Saved fits, or one table of runs and --law.")],
    law: Annotated[list[str] | None, typer.Option(help="With runs: once for each law to fit and compare.")] = None,
    columns: Columns = None,
    methods: Annotated[
        bool, typer.Option("--methods", help="Law, isoFLOP minima and envelope: do they agree on the best size?")
    ] = False,
    compute: Annotated[
        list[float] | None, typer.Option("-C", "--compute", help="With --methods: a budget in FLOP, repeated.")
    ] = None,
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
        table = _read(source[0], columns)
        fits = [ss.fit(table, law=name, seed=seed) for name in law]
    else:
        fits = [_load(path) for path in source]
    answers = [ss.compare_methods(fit, compute or None, seed=seed) for fit in fits] if methods else [ss.compare(fits)]
    facts = [answer.to_json() for answer in answers]
    _show(
        facts[0] if len(facts) == 1 else {fit.law_name: fact for fit, fact in zip(fits, facts, strict=True)},
        as_json,
        lambda: "\n\n".join(map(str, answers)),
    )
    _exit_unless(all(fit.converged for fit in fits))


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
    chosen = _given({"sigma": noise, "tau": tau, "ell": ell, "nu": nu})
    given = None if fit_file and not chosen else Noise(**chosen)
    plan = design_of(truth, curves=curves, seeds=seeds)
    which = draw if draw in ("point", "random") else int(_number("--draw", draw))
    table = ss.simulate(truth, plan, noise=given, diverged=diverged, draw=which, seed=seed)
    if out is not None or not as_json:
        table.to_csv(sys.stdout if out is None else out)
    if as_json:
        rows = [] if out else table.to_dataframe().to_dict(orient="records")
        print(json_text({"n_rows": len(table), "simulated": True, "seed": seed, "out": out, "rows": rows}))
    _say(f"{len(table)} simulated rows{f' in {out}' if out else ''}")


# ------------------------------------------------------------------------------------------------ predictions


@app.command()
def forecast(
    fit_file: FitFile = None,
    constants: Constants = None,
    n: Annotated[float | None, typer.Option("-N", "--N", help="Parameters.")] = None,
    d: Annotated[float | None, typer.Option("-D", "--D", help="Unique training tokens.")] = None,
    tokens: Annotated[float | None, typer.Option(help="Tokens processed.")] = None,
    batch: Annotated[float | None, typer.Option("-B", "--batch", help="Tokens per step.")] = None,
    steps: Annotated[float | None, typer.Option("-S", "--steps", help="Parameter updates.")] = None,
    overfit: Annotated[float, typer.Option(help="Relative overfitting that `data_needed` allows.")] = 0.02,
    reaches: Annotated[float | None, typer.Option(help="A loss: with which steps, tokens, FLOP is it reached?")] = None,
    observe: Annotated[
        Path | None, typer.Option(help="CSV of the running run (step or tokens, loss): update, and is it on track?")
    ] = None,
    target: Annotated[float | None, typer.Option(help="With --observe: a loss that the run should reach.")] = None,
    warmup: Annotated[float | None, typer.Option(help="With --observe: the run's warm-up in steps.")] = None,
    known: Annotated[
        bool, typer.Option("--known", help="Known sizes, by published constants or one fit: over- or undertrained?")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Loss of a run that has not been made, or that is running.

    Example: scaling-sim forecast fit.nc -N 1e9 -D 2e10; scaling-sim forecast fit.nc -N 1e9 -B 5e5 -S 1e5 --observe
    log.csv --target 2.6
    """
    import scaling_sim as ss

    if known:
        _known(None if fit_file is None and constants is None else [_fit_or_constants(fit_file, constants)], as_json)
        return
    if n is None:
        raise ConfigError("forecast needs the model's size: -N 1e9")
    fit, asked = _fit_or_constants(fit_file, constants), {"D": d, "tokens": tokens, "B": batch, "S": steps}
    watched = {"target": target, "warmup": warmup}
    if observe is not None:
        if reaches is not None:
            raise ConfigError("--reaches asks about a run that has not begun; with --observe give --target")
        _predicted(_observed(fit, observe, n, seed, **asked, **watched), as_json)
        return
    if _given(watched):
        raise ConfigError("--target and --warmup go with --observe; --reaches asks when a loss is reached")
    when = None if reaches is None else ss.efficiency(fit, reaches, n, B=batch, seed=seed)
    if when is not None and not set(_given(asked)) - {"B"}:
        _predicted(when, as_json)
        return
    facts = ss.forecast(fit, N=n, overfit=overfit, seed=seed, **_given(asked)).to_json()
    facts |= {} if when is None else {"reaches": _own(when.to_json(), facts)}
    _show(facts, as_json, lambda: _lines(facts))
    _exit_unless(facts["converged"] is not False)


@app.command()
def recipes(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="Fit of the base recipe, or its runs with --law.")],
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Fit of the other recipe, or its runs.")],
    law: Annotated[str | None, typer.Option(help="With runs: the law to fit to both.")] = None,
    columns: Columns = None,
    compute: Annotated[
        list[float] | None, typer.Option("-C", "--compute", help="FLOP spent with the base; repeated.")
    ] = None,
    loss: Annotated[list[float] | None, typer.Option(help="Loss that both should reach; repeated.")] = None,
    n: Annotated[float | None, typer.Option("-N", "--N", help="Runs of this size, not the optimal one.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare two recipes: how much compute is one worth in units of the other, and is it better?

    Example: scaling-sim recipes old.nc new.nc -C 1e21; scaling-sim recipes old.csv new.csv --law chinchilla --loss 2.5
    """
    import scaling_sim as ss

    pair = [_load(path) if law is None else ss.fit(_read(path, columns), law=law, seed=seed) for path in (base, recipe)]
    answer = ss.compare_recipes(*pair, compute=compute or None, loss=loss or None, N=n, seed=seed)
    facts = answer.to_json()
    _show(facts, as_json, lambda: str(answer))
    _exit_unless(facts["converged"] is not False)


@app.command()
def allocate(
    fit_file: FitFile = None,
    constants: Constants = None,
    compute: Annotated[float | None, typer.Option("-C", "--compute", help="Budget in FLOP.")] = None,
    pf_days: Annotated[float | None, typer.Option(help="Budget in PF-days.")] = None,
    gpu_hours: Annotated[float | None, typer.Option(help="Budget in GPU-hours; needs --flops-per-second.")] = None,
    money: Annotated[float | None, typer.Option(help="Budget in money; needs --price-per-gpu-hour.")] = None,
    price_per_gpu_hour: Annotated[float | None, typer.Option(help="In the unit of --money.")] = None,
    hours: Annotated[
        float | None, typer.Option(help="Deadline: a budget with --num-gpus and --flops-per-second, else a bound.")
    ] = None,
    num_gpus: Annotated[float | None, typer.Option(help="GPUs, for --hours, --gpu-memory and the time.")] = None,
    flops_per_second: Annotated[float | None, typer.Option(help="Sustained FLOP/s of one GPU.")] = None,
    utilisation: Annotated[float | None, typer.Option(help="Share of --flops-per-second sustained, 0 to 1.")] = None,
    step_seconds: Annotated[
        float | None, typer.Option(help="Least time of a step: with --hours it bounds S and sets B.")
    ] = None,
    batch: Annotated[str, typer.Option(help="`critical`, or tokens per step.")] = "critical",
    method: Annotated[str, typer.Option(help="N* by the `law`, by `isoflop` minima or the `envelope`.")] = "law",
    max_n: Annotated[float | None, typer.Option("--max-n", help="The largest model that can be served.")] = None,
    unique_tokens: Annotated[float | None, typer.Option(help="Fresh tokens that exist.")] = None,
    gpu_memory: Annotated[float | None, typer.Option(help="Bytes of one GPU; bounds N.")] = None,
    bytes_per_parameter: Annotated[
        float | None, typer.Option(help="With --gpu-memory.  [default: 16, mixed-precision AdamW]")
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of the shape to build, repeated: d_head, aspect, n_ctx, vocab_size, count."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compute-optimal N, D, B, S and loss for a budget, and the nearest shape that can be built.

    Example: scaling-sim allocate fit.nc --compute 5.76e23 --shape d_head=128
    """
    import scaling_sim as ss

    asked = {
        "compute": compute,
        "pf_days": pf_days,
        "gpu_hours": gpu_hours,
        "money": money,
        "price_per_gpu_hour": price_per_gpu_hour,
        "hours": hours,
        "num_gpus": num_gpus,
        "flops_per_second": flops_per_second,
        "utilisation": utilisation,
        "step_seconds": step_seconds,
        "max_N": max_n,
        "unique_tokens": unique_tokens,
        "gpu_memory": gpu_memory,
        "bytes_per_parameter": bytes_per_parameter,
    }
    size = batch if batch == "critical" else _number("--batch", batch)
    source = _fit_or_constants(fit_file, constants)
    plan = ss.allocate(source, batch=size, method=method, seed=seed, **_given(asked))
    facts = plan.to_json()
    if "N_within_1_percent_parameters" in facts:
        facts["buildable"] = ss.buildable(plan, **_shape_options(shape or [])).to_json()
    _show(facts, as_json, lambda: _lines({k: v for k, v in facts.items() if k != "definitions"}))
    _exit_unless(facts.get("converged", True) is not False)


@app.command()
def definitions(
    source: Annotated[
        Path, typer.Argument(metavar="RUNS", help="Study folder, CSV, Parquet or JSONL; - for CSV on stdin.")
    ],
    columns: Columns = None,
    where: Where = None,
    count: Annotated[
        list[str] | None,
        typer.Option(help="NAME=COLUMN, repeated: N_non_embedding, N_head, N_total, C_exact, seconds, or the shape's."),
    ] = None,
    compute: Annotated[
        list[float] | None,
        typer.Option("-C", "--compute", help="Budget in FLOP, repeated.  [the largest run]"),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """The best size and its exponent under every definition of N and C that the runs allow.

    Example: scaling-sim definitions runs.csv --columns "N=params,loss=loss" --count N_non_embedding=N_no_embed
    """
    import scaling_sim as ss

    table = _read(source, columns, where)
    found = ss.compare_definitions(table, compute or None, columns=_pairs("--count", count or []), seed=seed)
    _show(found.to_json(), as_json, lambda: str(found))


@app.command()
def convert(fit_file: FitFile = None, seed: NoSeed = 0, as_json: Json = False) -> None:
    """C_min and S_min of the runs behind a fit (Kaplan et al. 2020, eqs 5.4, 5.5), for figures.

    Example: scaling-sim convert fit.nc --json
    """
    import scaling_sim as ss

    found = ss.convert(_fit_or_constants(fit_file, None))
    _show(found.to_json(), as_json, lambda: found.to_dataframe().to_string(float_format=_short))


@app.command()
def crossover(
    fit_file: FitFile = None,
    constants: Constants = None,
    method: Annotated[str | None, typer.Option(help="`appendix-b` (the default of fits) or `frontier`.")] = None,
    threshold: Annotated[float, typer.Option(help="Relative overfitting that tension means, by (4.3).")] = 0.02,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Where the compute law and the data law contradict each other (Kaplan et al. 2020, section 6.3).

    Example: scaling-sim crossover --constants kaplan-table6
    """
    import scaling_sim as ss

    fitted = _fit_or_constants(fit_file, constants)
    _predicted(ss.crossover(fitted, method, threshold=threshold, seed=seed), as_json)


@app.command()
def design(
    fit_file: FitFile = None,
    budget: Annotated[float | None, typer.Option(help="FLOP to spend on the next runs.")] = None,
    compute: Annotated[
        float | None, typer.Option("-C", "--compute", help="The target: N* at this budget, FLOP.")
    ] = None,
    n: Annotated[float | None, typer.Option("-N", "--N", help="The target: the loss of a run of this size.")] = None,
    d: Annotated[float | None, typer.Option("-D", "--D", help="Unique tokens of that run.")] = None,
    tokens: Annotated[float | None, typer.Option(help="Tokens that it processes.")] = None,
    batch: Annotated[float | None, typer.Option("-B", "--batch", help="Its tokens per step.")] = None,
    steps: Annotated[float | None, typer.Option("-S", "--steps", help="Its parameter updates.")] = None,
    crossover: Annotated[bool, typer.Option("--crossover", help="The target: C* of a kaplan fit.")] = False,
    size: Annotated[list[float] | None, typer.Option(help="A model that can be built, parameters; repeated.")] = None,
    largest_run: Annotated[float | None, typer.Option(help="FLOP of the dearest single run.")] = None,
    run_batch: Annotated[float | None, typer.Option(help="Tokens per step of the next runs.")] = None,
    max_tokens: Annotated[float | None, typer.Option(help="Unique tokens that there are.")] = None,
    max_runs: Annotated[int, typer.Option(help="Most runs, copies included.")] = 24,
    misfit: Annotated[bool, typer.Option(help="Reckon with a law that is wrong by as much as its runs show.")] = True,
    export: Annotated[
        Path | None, typer.Option(help="Write the runs: .csv (for `execute`), .slurm, or .toml (for `sweep`).")
    ] = None,
    command: Annotated[
        str | None, typer.Option(help="For .slurm: your training command, 'python train.py --params {N}'.")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw which runs, where: .svg or .png.")] = None,
    seed: NoSeed = 0,
    as_json: Json = False,
) -> None:
    """Which runs to make next so that N* at a budget, the loss of a run, or C* becomes surer.

    Example: scaling-sim design fit.nc --compute 1e22 --budget 1e20 --export plan.csv
    """
    import scaling_sim as ss
    from scaling_sim.study.export_runs import export_runs

    if budget is None:
        raise ConfigError("design needs --budget, the FLOP to spend on the next runs")
    run = _given({"N": n, "D": d, "tokens": tokens, "B": batch, "S": steps})
    limits = ss.Constraints(sizes=size, largest_run=largest_run, batch=run_batch, max_tokens=max_tokens)
    fit_read = _load(fit_file)
    plan = ss.design(
        fit_read,
        _design_target(compute, run, crossover),
        budget=budget,
        constraints=limits,
        misfit=misfit,
        max_runs=max_runs,
    )
    if export is not None:
        given = None if run_batch is None else round(run_batch)
        for path in export_runs(plan.runs(), export, command=command, batch_tokens=given):
            _say(f"runs in {path}")
    if figure is not None:
        _draw_design(plan, fit_read, figure)
    _predicted(plan, as_json)


def _draw_design(plan: Any, fit: Posterior, path: Path) -> None:
    from scaling_sim.report import ReportData
    from scaling_sim.report.figures import figure_design, to_png, to_svg

    if path.suffix not in (".svg", ".png"):
        raise ConfigError(f"--figure writes .svg or .png, got {path.name!r}")
    drawn = figure_design(ReportData(title="", runs=fit.runs, design=plan))
    path.write_bytes(to_png(drawn, 150.0) if path.suffix == ".png" else to_svg(drawn).encode())
    _say(f"figure in {path}")


def _design_target(compute: float | None, run: dict[str, Any], crossover: bool) -> Any:
    from scaling_sim.predict.targets import best_size, crossing, loss_of

    if sum((compute is not None, bool(run), crossover)) != 1:
        raise ConfigError("design needs one target: --compute C; -N with --tokens, -D or -B and -S; or --crossover")
    if compute is not None:
        return best_size(compute)
    if run and "N" not in run:
        raise ConfigError("the run whose loss is the target needs its size: -N 1e9")
    return loss_of(**run) if run else crossing()


@app.command()
def execute(
    plan: Annotated[Path, typer.Argument(help="A plan written by `scaling-sim design --export plan.csv`.")],
    command: Annotated[
        str | None,
        typer.Option(help="Your training command with {N}, {tokens}, {B}, {S}, {seed}, {run}, {folder}; no shell."),
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help=r"Of a log line: 'step (?P<step>\d+) loss (?P<loss>\S+)'; one group is the loss.")
    ] = None,
    json_keys: Annotated[str | None, typer.Option(help="Of JSON lines: loss=eval.loss,step=step.")] = None,
    out: Annotated[Path, typer.Option(help="Folder; the same command again resumes.")] = Path("next-runs"),
    workers: Annotated[int, typer.Option(help="Runs at once.")] = 1,
    timeout_seconds: Annotated[float | None, typer.Option(help="After which a run is ended as failed.")] = None,
    seed: NoSeed = 0,
    as_json: Json = False,
) -> None:
    """Make planned runs with your own training command and read their losses into one table.

    Without --command the logs are read that a queue's tasks left (`design --export plan.slurm`).

    Example: scaling-sim execute plan.csv --command "python train.py --params {N}" --json-keys loss=val_loss
    """
    from scaling_sim.study.external import execute as make
    from scaling_sim.study.external import read_plan
    from scaling_sim.study.logs import LogFormat

    with _resumable():
        made = make(
            read_plan(plan),
            command,
            LogFormat.of(pattern, json_keys),
            out,
            workers=workers,
            timeout_seconds=timeout_seconds,
            say=_say,
        )
    facts = made.to_json()
    _show(facts, as_json, lambda: _lines(facts))


# ------------------------------------------------------------------------------------------------ report, backends


@app.command()
def report(
    source: Annotated[Path, typer.Argument(help="Study folder or a saved fit.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    seed: NoSeed = 0,
    as_json: Json = False,
) -> None:
    """One self-contained HTML file about a study or a single fit.

    Example: scaling-sim report fit.nc --out report.html
    """
    from scaling_sim.study import report_on

    written = report_on(source, out, command=_command())
    _show({"report": str(written)}, as_json, lambda: str(written))


@app.command()
def reproduce(
    name: Annotated[
        str, typer.Argument(help="`kaplan-arithmetic`: the paper's printed values beside its constants' own.")
    ],
    seed: NoSeed = 0,
    as_json: Json = False,
) -> None:
    """A published result: its values beside ours.

    Example: scaling-sim reproduce kaplan-arithmetic
    """
    from scaling_sim.study.reproduce import reproduce as run

    table = run(name)
    _show({"name": name, "rows": table.to_dict(orient="records")}, as_json, lambda: table.to_string(index=False))


@app.command()
def backends(seed: NoSeed = 0, as_json: Json = False) -> None:
    """What can train here, and why the rest cannot.

    Example: scaling-sim backends
    """
    import scaling_sim as ss

    found = ss.backends()
    facts = {
        info.name: {"available": info.available, "devices": list(info.devices), "reason": info.reason} for info in found
    }
    lines = [
        f"{info.name:8s} {', '.join(info.devices) if info.available else f'not here: {info.reason}'}" for info in found
    ]
    _show(facts, as_json, lambda: "\n".join(lines))


# ------------------------------------------------------------------------------------------------ shared by the verbs


@contextmanager
def _interruptible(message: str) -> Iterator[None]:
    """Say on Ctrl-C what became of the work, and exit with 130."""
    try:
        yield
    except KeyboardInterrupt:
        _say(message)
        raise typer.Exit(130) from None


def _resumable() -> AbstractContextManager[None]:
    return _interruptible("interrupted; the same command again resumes")


def _read(source: Path, columns: str | None, where: list[str] | None = None, duplicates: str = "refuse") -> Any:
    from scaling_sim.runs import read_runs

    return read_runs(str(source), columns=columns, where=where or (), duplicates=duplicates)  # type: ignore[arg-type]


def _fit_point(table: RunTable, law: Law, delta: float, as_json: bool) -> None:
    import time

    import scaling_sim as ss

    began = time.perf_counter()
    found = ss.point_fit(table, law, delta=delta)
    facts = {**found.to_json(), "seconds": time.perf_counter() - began}
    _show(facts, as_json, lambda: _lines({**facts, "dropped": _counts(found.dropped)}))
    if not found.agreed:
        _say("warning: the two best starts ended in different minima; do not rely on these numbers")
        raise typer.Exit(3)


def _fit_posterior(table: RunTable, law: Law, seed: int, min_ess: int) -> Posterior:
    import scaling_sim as ss
    from scaling_sim.study.fit_display import FitDisplay

    # Below a thousand rows a second process costs more to start than it saves; the numbers are the same either way.
    processes = min(4, os.cpu_count() or 1) if len(table) >= 1000 else 1
    with FitDisplay(law.name) as display:
        posterior: Posterior = ss.fit(
            table, law, seed=seed, min_ess=min_ess, processes=processes, progress=display.update
        )
    return posterior


def _law_options(pairs: list[str]) -> dict[str, Any]:
    """``shared=false`` and the like, with true, false and numbers read as such."""
    split = [pair.partition("=") for pair in pairs]
    wrong = [name for name, equals, value in split if not (name.strip() and equals and value.strip())]
    if wrong:
        raise ConfigError(f"--option must read NAME=VALUE, such as source=sweep or shared=false; got {wrong[0]!r}")
    return {name.strip().replace("-", "_"): _literal(value.strip()) for name, _, value in split}


def _literal(text: str) -> Any:
    try:
        return {"true": True, "false": False}.get(text.lower(), text) if text[:1].isalpha() else float(text)
    except ValueError:
        return text


def _options_of(law: Law) -> dict[str, Any]:
    """Keyword arguments of a law with their defaults."""
    from inspect import signature

    return {name: p.default for name, p in signature(type(law)).parameters.items() if p.default is not p.empty}


def _counts(dropped: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    return {reason: len(names) for reason, names in dropped.items()}


def _export(table: Any, path: Path) -> None:
    writers = {".csv": table.to_csv, ".parquet": table.to_parquet}
    if path.suffix not in writers:
        raise ConfigError(f"--export writes {' or '.join(writers)}, got {path.name!r}")
    writers[path.suffix](path)
    _say(f"{len(table)} rows in {path}")


def _fit_or_constants(fit_file: Path | None, constants: str | None) -> Posterior | ConstantSet:
    import scaling_sim as ss

    if (fit_file is None) == (constants is None):
        raise ConfigError("give a saved fit (FIT.nc) or --constants NAME, one of the two")
    chosen: Posterior | ConstantSet = ss.constants(constants) if constants else _load(fit_file)
    return chosen


def _load(path: Path | None) -> Posterior:
    import scaling_sim as ss

    if path is None or not path.is_file():
        raise DataError(f"there is no file {path}; write one with: scaling-sim fit RUNS --out {path}")
    fit: Posterior = ss.load_fit(path)
    return fit


def _known(fits: list[Any] | None, as_json: bool) -> None:
    import scaling_sim as ss

    table = ss.known_sizes(fits)
    _show(table.to_json(), as_json, lambda: str(table))


def _observed(fit: Any, curve: Path, n: float, seed: int, **asked: float | None) -> Any:
    import scaling_sim as ss

    if asked.pop("D") is not None:
        raise ConfigError("--observe watches one pass over fresh data; leave out -D")
    return ss.observe(fit, curve, n, seed=seed, **_given(asked))


def _own(facts: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """What these facts say beyond the opening that both share."""
    return {key: value for key, value in facts.items() if key not in others or key == "notes"}


def _truth(law: str | None, pairs: list[str], constants: str | None, fit_file: Path | None) -> Any:
    """What `simulate` draws from; exactly one of a law with parameters, published constants and a saved fit."""
    import scaling_sim as ss

    if sum((law is not None or bool(pairs), constants is not None, fit_file is not None)) > 1:
        raise ConfigError("the truth is --law with -p, or --constants NAME, or --fit FIT.nc: give one of the three")
    if fit_file is not None:
        return _load(fit_file)
    return ss.constants(constants) if constants else {"law": law or "chinchilla", **_parameters(pairs)}


def _parameters(pairs: list[str]) -> dict[str, float]:
    split = [pair.partition("=") for pair in pairs]
    return {name.strip(): _number(f"-p {name}", value) for name, _, value in split}


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{option} must be a number, got {text!r}") from None


def _pairs(option: str, texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{option} must read NAME=VALUE, got {text!r}")
        pairs[name.strip()] = value.strip()
    return pairs


def _shape_options(texts: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = dict(_pairs("--shape", texts))
    kinds = {"d_head": int, "n_ctx": int, "vocab_size": int, "aspect": float}
    return {
        name: kinds[name](_number(f"--shape {name}", value)) if name in kinds else value
        for name, value in found.items()
    }


def _given(options: Mapping[str, float | None]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _predicted(prediction: Any, as_json: bool) -> None:
    facts = prediction.to_json()
    _show(facts, as_json, lambda: _lines(facts))
    _exit_unless(facts.get("converged", True) is not False)


def _show(facts: Mapping[str, Any], as_json: bool, text: Callable[[], str]) -> None:
    print(json_text(facts) if as_json else text())


def _lines(facts: Mapping[str, Any], indent: str = "") -> str:
    return "\n".join(_line(key, value, indent) for key, value in facts.items())


def _line(key: str, value: Any, indent: str) -> str:
    if isinstance(value, Mapping) and "median" in value and "interval90" in value:
        low, high = value["interval90"]
        return f"{indent}{key:28s} {_short(value['median']):>11s}   90 %: {_short(low)} to {_short(high)}"
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return "\n".join([f"{indent}{key}:", *(_lines(item, indent + "  ") + "\n" for item in value)])
    if isinstance(value, list):
        return f"{indent}{key:28s} {'; '.join(map(str, value)) or 'none'}"
    if isinstance(value, Mapping):
        return f"{indent}{key}:\n{_lines(value, indent + '  ')}" if value else f"{indent}{key:28s} none"
    return f"{indent}{key:28s} {_short(value)}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _describe_fit(posterior: Posterior) -> str:
    counts = f"{posterior.n_used} rows used, {posterior.n_dropped} left out"
    reasons = "".join(f"\n  {count} {reason}" for reason, count in _counts(posterior.dropped).items())
    notes = "".join(f"\nnote: {note}" for note in posterior.notes)
    table = posterior.summary().to_string(float_format=lambda value: f"{value:.4g}")
    return f"{posterior.law_name}: {counts}{reasons}\n\n{table}\n\n{posterior.diagnostics.verdict}{notes}"


def _first_line(law: Any) -> str:
    return (type(law).__doc__ or "").strip().splitlines()[0]


def _exit_unless(converged: bool) -> None:
    if not converged:
        _say("warning: the posterior did not converge; do not rely on these numbers")
        raise typer.Exit(3)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _command() -> str:
    return shlex.join(["scaling-sim", *sys.argv[1:]])


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {message}")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: turns errors into one line on stderr and an exit code."""
    warnings.showwarning = _warn
    try:
        app()
    except ScalingSimError as error:
        _say(f"error: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
