"""Verbs that predict runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from scaling_sim.cli.app import Columns, Constants, Duplicates, FitFile, Import, Json, Seed, Where, app
from scaling_sim.cli.inputs import fit_or_constants, load_posterior, one_from_stdin, read_table, told
from scaling_sim.cli.output import as_lines, checked_figure, exit_unless, show, show_prediction, write_figure
from scaling_sim.errors import ConfigError, LawError


@app.command()
def forecast(
    fit_file: FitFile = None,
    constants: Constants = None,
    n: Annotated[float | None, typer.Option("-N", "--N", help="Parameters.")] = None,
    d: Annotated[float | None, typer.Option("-D", "--D", help="Unique training tokens.")] = None,
    tokens: Annotated[float | None, typer.Option(help="Tokens processed.")] = None,
    batch: Annotated[float | None, typer.Option("-B", "--batch", help="Tokens per step.")] = None,
    steps: Annotated[float | None, typer.Option("-S", "--steps", help="Parameter updates.")] = None,
    overfit: Annotated[
        float | None, typer.Option(help="Relative overfitting that `data_needed` allows.  [default: 0.02]")
    ] = None,
    reaches: Annotated[float | None, typer.Option(help="A loss: with which steps, tokens, FLOP is it reached?")] = None,
    observe: Annotated[
        Path | None, typer.Option(help="CSV of the running run (step or tokens, loss): update, and is it on track?")
    ] = None,
    target: Annotated[float | None, typer.Option(help="With --observe: a loss that the run should reach.")] = None,
    warmup: Annotated[float | None, typer.Option(help="With --observe: the run's warm-up in steps.")] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw the run of --observe with its forecast, or the sizes of --known: .svg or .png."),
    ] = None,
    known: Annotated[
        bool, typer.Option("--known", help="Known sizes, by published constants or one fit: over- or undertrained?")
    ] = False,
    imports: Import = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Loss of a run that has not been made, or that is running.

    Example: scaling-sim forecast fit.nc -N 1e9 -D 2e10; scaling-sim forecast fit.nc -N 1e9 -B 5e5 -S 1e5 --observe
    log.csv --target 2.6
    """
    import scaling_sim as ss

    checked_figure(figure)
    one_from_stdin(fit_file, observe)
    if figure is not None and observe is None and not known:
        raise ConfigError("--figure draws a running run or known sizes; it goes with --observe or --known")
    if known:
        spare = told(
            {"-N": n, "-D": d, "--tokens": tokens, "-B": batch, "-S": steps, "--overfit": overfit, "--reaches": reaches}
            | {"--observe": observe, "--target": target, "--warmup": warmup}
        )
        if spare:
            raise ConfigError(f"--known has sizes of its own; leave out {', '.join(spare)}")
        one = None if fit_file is None and constants is None else [fit_or_constants(fit_file, constants)]
        _known(one, figure, as_json)
        return
    fit = fit_or_constants(fit_file, constants)
    if n is None and (observe is not None or reaches is not None):
        raise ConfigError("--observe and --reaches need the model's size: -N 1e9")
    asked = {"D": d, "tokens": tokens, "B": batch, "S": steps}
    watched = {"target": target, "warmup": warmup}
    if overfit is not None and observe is not None:
        raise ConfigError("--observe watches one pass over fresh data, which cannot overfit; leave out --overfit")
    if observe is not None:
        if reaches is not None:
            raise ConfigError("--reaches asks about a run that has not begun; with --observe give --target")
        found = _observed(fit, observe, n, seed, **asked, **watched)
        if figure is not None:
            write_figure(ss.plot.figure_observed(found), figure)
        show_prediction(found, as_json)
        return
    if told(watched):
        raise ConfigError("--target and --warmup go with --observe; --reaches asks when a loss is reached")
    when = None if reaches is None else ss.efficiency(fit, reaches, n, B=batch, seed=seed)
    if when is not None and overfit is None and not set(told(asked)) - {"B"}:
        show_prediction(when, as_json)
        return
    facts = ss.forecast(fit, N=n, overfit=overfit, seed=seed, **told(asked)).to_json()
    facts |= {} if when is None else {"reaches": _own(when.to_json(), facts)}
    show(facts, as_json, lambda: as_lines(facts))
    exit_unless(facts["converged"] is not False)


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
    imports: Import = None,
    figure: Annotated[Path | None, typer.Option(help="Draw the multiplier: .svg or .png.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare two recipes: how much compute is one worth in units of the other, and is it better?

    Example: scaling-sim recipes old.nc new.nc -C 1e21; scaling-sim recipes old.csv new.csv --law chinchilla --loss 2.5
    """
    import scaling_sim as ss

    checked_figure(figure)
    one_from_stdin(base, recipe)
    pair = [
        load_posterior(path) if law is None else ss.fit(read_table(path, columns), law=law, seed=seed)
        for path in (base, recipe)
    ]
    answer = ss.compare_recipes(*pair, compute=compute or None, loss=loss or None, N=n, seed=seed)
    if figure is not None:
        write_figure(ss.plot.figure_recipes(answer), figure)
    facts = answer.to_json()
    show(facts, as_json, lambda: str(answer))
    exit_unless(facts["converged"] is not False)


@app.command()
def offsets(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUNS", help="Study folder, CSV, Parquet or JSONL, - for CSV on stdin; or a saved fit."),
    ],
    columns: Columns = None,
    where: Where = None,
    duplicates: Duplicates = "refuse",
    figure: Annotated[Path | None, typer.Option(help="Draw losses and offsets: .svg or .png.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Losses on other texts against the loss on the training text, from columns loss_<text> (Kaplan et al., Fig. 8).

    Example: scaling-sim offsets runs.csv --columns "N=params,D=tokens,loss=loss_web" --figure offsets.svg
    """
    import scaling_sim as ss

    checked_figure(figure)
    runs = load_posterior(source).runs if source.suffix == ".nc" else read_table(source, columns, where, duplicates)
    found = ss.offsets(runs, seed=seed)
    if figure is not None:
        from scaling_sim.report import ReportData

        write_figure(ss.plot.figure_offsets(ReportData(title="", runs=runs)), figure)
    facts = found.to_json()
    show(facts, as_json, lambda: as_lines(facts))


def _known(fits: list[Any] | None, figure: Path | None, as_json: bool) -> None:
    import scaling_sim as ss

    table = ss.known_sizes(fits)
    if not table.rows:
        raise LawError("; ".join(table.skipped.values()))
    if figure is not None:
        write_figure(ss.plot.figure_known(table), figure)
    show(table.to_json(), as_json, lambda: str(table))
    exit_unless(table.converged is not False)


def _observed(fit: Any, curve: Path, n: float | None, seed: int, **asked: float | None) -> Any:
    import scaling_sim as ss

    if asked.pop("D") is not None:
        raise ConfigError("--observe watches one pass over fresh data; leave out -D")
    return ss.observe(fit, curve, n, seed=seed, **told(asked))


def _own(facts: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """What these facts say beyond the opening that both share."""
    return {key: value for key, value in facts.items() if key not in others or key == "notes"}
