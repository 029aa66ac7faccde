"""Verbs of whole studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling_sim.cli.app import Import, Json, StudySeed, app
from scaling_sim.cli.output import command_line, exit_unless, resumable, say, show
from scaling_sim.errors import DataError


@app.command()
def study(
    preset: Annotated[str, typer.Argument(help="`laptop`, or a TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder of the study; the same command again resumes.")] = Path("study"),
    imports: Import = None,
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
    from scaling_sim.training.ranks import follow, leading

    if follow():  # torchrun: another process leads
        return
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
