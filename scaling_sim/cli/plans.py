"""Verbs that plan: allocation, definitions, crossover, the next runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling_sim.cli.app import Columns, Constants, FitFile, Import, Json, NoSeed, Seed, Where, app
from scaling_sim.cli.inputs import as_number, fit_or_constants, load_posterior, name_values, read_table, told
from scaling_sim.cli.output import (
    as_lines,
    checked_figure,
    exit_unless,
    resumable,
    say,
    short,
    show,
    show_prediction,
    write_figure,
)
from scaling_sim.errors import ConfigError, DataError

if TYPE_CHECKING:
    from scaling_sim.inference.posterior import Posterior


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
    imports: Import = None,
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
    size = batch if batch == "critical" else as_number("--batch", batch)
    source = fit_or_constants(fit_file, constants)
    plan = ss.allocate(source, batch=size, method=method, seed=seed, **told(asked))
    facts = plan.to_json()
    if "N_within_1_percent_parameters" in facts:
        facts["buildable"] = ss.buildable(plan, **_shape_options(shape or [])).to_json()
    elif shape:
        raise ConfigError("--shape needs a law that says what other sizes cost, of which this one knows only the best")
    show(facts, as_json, lambda: as_lines(without_definitions(facts)))
    exit_unless(facts.get("converged", True) is not False)


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
    figure: Annotated[Path | None, typer.Option(help="Draw exponents and best sizes: .svg or .png.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """The best size and its exponent under every definition of N and C that the runs allow.

    Example: scaling-sim definitions runs.csv --columns "N=params,loss=loss" --count N_non_embedding=N_no_embed
    """
    import scaling_sim as ss

    checked_figure(figure)
    table = read_table(source, columns, where)
    found = ss.compare_definitions(table, compute or None, columns=name_values("--count", count or []), seed=seed)
    if figure is not None:
        write_figure(ss.plot.figure_definitions(found), figure)
    show(found.to_json(), as_json, lambda: str(found))


@app.command()
def convert(fit_file: FitFile = None, imports: Import = None, seed: NoSeed = 0, as_json: Json = False) -> None:
    """C_min and S_min of the runs behind a fit (Kaplan et al. 2020, eqs 5.4, 5.5), for figures.

    Example: scaling-sim convert fit.nc --json
    """
    import scaling_sim as ss

    found = ss.convert(fit_or_constants(fit_file, None))
    show(found.to_json(), as_json, lambda: found.to_dataframe().to_string(float_format=short))
    exit_unless(found.header["converged"] is not False)


@app.command()
def crossover(
    fit_file: FitFile = None,
    constants: Constants = None,
    method: Annotated[str | None, typer.Option(help="`appendix-b` (the default of fits) or `frontier`.")] = None,
    threshold: Annotated[float, typer.Option(help="Relative overfitting that tension means, by (4.3).")] = 0.02,
    imports: Import = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Where the compute law and the data law contradict each other (Kaplan et al. 2020, section 6.3).

    Example: scaling-sim crossover --constants kaplan-table6
    """
    import scaling_sim as ss

    fitted = fit_or_constants(fit_file, constants)
    show_prediction(ss.crossover(fitted, method, threshold=threshold, seed=seed), as_json)


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
    tokens_per_parameter: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help="Two numbers, the least and the most of the next runs, such as 5 and 200.", metavar="LEAST MOST"
        ),
    ] = None,
    max_runs: Annotated[int, typer.Option(help="Most runs, copies included.")] = 24,
    misfit: Annotated[bool, typer.Option(help="Reckon with a law that is wrong by as much as its runs show.")] = True,
    export: Annotated[
        Path | None, typer.Option(help="Write the runs: .csv (for `execute`), .slurm, or .toml (for `sweep`).")
    ] = None,
    command: Annotated[
        str | None, typer.Option(help="For .slurm: your training command, 'python train.py --params {N}'.")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw which runs, where: .svg or .png.")] = None,
    imports: Import = None,
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
    checked_figure(figure)
    run = told({"N": n, "D": d, "tokens": tokens, "B": batch, "S": steps})
    limits = ss.Constraints(size, largest_run, run_batch, tokens_per_parameter, max_tokens)
    fit_read = load_posterior(fit_file)
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
            say(f"runs in {path}")
    if figure is not None:
        _draw_design(plan, fit_read, figure)
    facts = plan.to_json()
    show(facts, as_json, lambda: _design_text(plan, facts))
    exit_unless(facts["converged"] is not False)


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

    with resumable():
        made = make(
            read_plan(plan),
            command,
            LogFormat.of(pattern, json_keys),
            out,
            workers=workers,
            timeout_seconds=timeout_seconds,
            say=say,
        )
    facts = made.to_json()
    show(facts, as_json, lambda: as_lines(facts))
    say(made.summary())
    if not made.num_done:
        raise DataError(f"no run of the plan is done; the logs are in {out}, and the same command tries again")


def without_definitions(facts: dict[str, Any]) -> dict[str, Any]:
    """The same with a pointer in place of the long table."""
    if "definitions" not in facts:
        return facts
    where = "N* by other counts of N and C: add --json, or see `scaling-sim definitions RUNS`"
    return facts | {"definitions": where}


def _design_text(plan: Any, facts: dict[str, Any]) -> str:
    table = plan.to_dataframe().dropna(axis="columns", how="all").set_index("kind")
    return f"{as_lines({k: v for k, v in facts.items() if k != 'runs'})}\n\n{table.to_string(float_format=short)}"


def _draw_design(plan: Any, fit: Posterior, path: Path) -> None:
    from scaling_sim.report import ReportData
    from scaling_sim.report.figures import figure_design

    write_figure(figure_design(ReportData(title="", runs=fit.runs, design=plan)), path)


def _design_target(compute: float | None, run: dict[str, Any], crossover: bool) -> Any:
    from scaling_sim.predict.targets import best_size, crossing, loss_of

    if sum((compute is not None, bool(run), crossover)) != 1:
        raise ConfigError("design needs one target: --compute C; -N with --tokens, -D or -B and -S; or --crossover")
    if compute is not None:
        return best_size(compute)
    if run and "N" not in run:
        raise ConfigError("the run whose loss is the target needs its size: -N 1e9")
    return loss_of(**run) if run else crossing()


def _shape_options(texts: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = dict(name_values("--shape", texts))
    kinds = {"d_head": int, "n_ctx": int, "vocab_size": int, "aspect": float}
    return {
        name: kinds[name](as_number(f"--shape {name}", value)) if name in kinds else value
        for name, value in found.items()
    }
