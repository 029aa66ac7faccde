"""Verbs of whole studies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from scaling_sim.cli.app import Import, Json, StudySeed, app
from scaling_sim.cli.output import command_line, exit_unless, resumable, say, show
from scaling_sim.errors import ConfigError, DataError


@app.command()
def study(
    preset: Annotated[
        str, typer.Argument(help="`laptop`, a TOML file, or `kaplan-h200`: every run of the paper on one GPU.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the study; the same command again resumes.")] = Path("study"),
    imports: Import = None,
    seed: StudySeed = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print runs, FLOPs and expected time; train nothing.")
    ] = False,
    budget: Annotated[
        float | None,
        typer.Option(help="`kaplan-h200`: minutes in all; drops systems from the end.", show_default="25"),
    ] = None,
    sitting: Annotated[
        float | None, typer.Option(help="`kaplan-h200`: minutes after which this call ends, to be resumed.")
    ] = None,
    systems: Annotated[str | None, typer.Option(help="`kaplan-h200`: only these systems, comma separated.")] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="`kaplan-h200`: folder of the English text.", show_default=".corpus/english")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sweep, fit, predict, report.

    Example: scaling-sim study laptop --out study
    """
    from scaling_sim.study import plan_study, run_study
    from scaling_sim.study.presets import EXPERIMENTS
    from scaling_sim.training.ranks import follow, leading

    if follow():  # torchrun: another process leads
        return
    given = {"budget": budget, "sitting": sitting, "systems": systems, "corpus": corpus}
    if preset in EXPERIMENTS:
        _experiment(preset, out, given, seed, dry_run, as_json)
        return
    if unwanted := [f"--{name}" for name, value in given.items() if value is not None]:
        raise ConfigError(f"{preset} takes no {', '.join(unwanted)}: that is for {', '.join(EXPERIMENTS)}")
    if dry_run:
        with leading():
            planned = plan_study(preset, out, seed=seed)
        show(planned.to_json(), as_json, planned.describe)
        return
    with resumable(), leading():
        finished = run_study(preset, out, seed=seed, say=say, command=command_line())
    show(finished.to_json(), as_json, finished.describe)
    if not finished.fits:
        say("error: no law could be fitted to these runs; the notes above say why")
        raise typer.Exit(DataError.exit_code)
    exit_unless(finished.converged)


def _experiment(name: str, out: Path, given: Mapping[str, Any], seed: int | None, dry_run: bool, as_json: bool) -> None:
    """One of the experiments that are no presets: runs and a data file, no fits."""
    from scaling_sim.study.kaplan.outcome import Options
    from scaling_sim.study.kaplan.run import CONFIGS, plan_experiment, run_experiment

    if seed is not None:
        raise ConfigError(f"{name} takes no --seed: its runs are those of one published experiment")
    chosen = {key: value for key, value in given.items() if value is not None}
    if "systems" in chosen:
        chosen["systems"] = tuple(part.strip() for part in chosen["systems"].split(",") if part.strip())
    with resumable():
        act = plan_experiment if dry_run else run_experiment
        outcome = act(CONFIGS[name], out, Options(**chosen), say=say)
    show(outcome.to_json(), as_json, outcome.describe)


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
    from scaling_sim.training.ranks import follow, leading

    if follow():  # torchrun: another process leads
        return
    with resumable(), leading():
        summary = run_sweep_of_study(preset, out, seed=seed, say=say)
    show(summary, as_json, lambda: "\n".join(f"{key}: {value}" for key, value in summary.items()))
