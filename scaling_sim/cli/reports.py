"""Verbs that show: reports, published results, what is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling_sim.cli.app import Import, Json, NoSeed, Seed, app
from scaling_sim.cli.inputs import load_posterior
from scaling_sim.cli.output import command_line, say, show
from scaling_sim.errors import ConfigError


@app.command()
def report(
    source: Annotated[Path, typer.Argument(help="Study folder or a saved fit; - for a fit on stdin.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    imports: Import = None,
    seed: NoSeed = 0,
    as_json: Json = False,
) -> None:
    """One self-contained HTML file about a study or a single fit.

    Example: scaling-sim report fit.nc --out report.html
    """
    from scaling_sim.study import report_on

    written = report_on(load_posterior(source) if str(source) == "-" else source, out, command=command_line())
    show({"report": str(written)}, as_json, lambda: str(written))


@app.command()
def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            help="`kaplan`: every figure and table of the paper from our runs; "
            "`kaplan-arithmetic`: its printed values beside its constants' own."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the figures and tables of `kaplan`.")] = None,
    data: Annotated[Path | None, typer.Option(help="Runs of `kaplan`, as shipped; default: those shipped.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A figure (F10) or system of `kaplan`; repeatable.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """A published result: its values beside ours.

    Example: scaling-sim reproduce kaplan --out figures
    """
    from scaling_sim.study.reproduce import reproduce as run

    if name == "kaplan":
        _reproduce_kaplan(out, data, only or [], seed, as_json)
        return
    given = {"--out": out, "--data": data, "--only": only}
    if unwanted := [option for option, value in given.items() if value]:
        raise ConfigError(f"{name} takes no {', '.join(unwanted)}: that is for `reproduce kaplan`")
    table = run(name)
    show({"name": name, "rows": table.to_dict(orient="records")}, as_json, lambda: table.to_string(index=False))


def _reproduce_kaplan(out: Path | None, data: Path | None, only: list[str], seed: int, as_json: bool) -> None:
    from scaling_sim.study.reproduce.kaplan import reproduce_kaplan
    from scaling_sim.study.reproduce.kaplan.writing import as_text

    if out is None:
        raise ConfigError("reproduce kaplan writes figures: give --out FOLDER")
    findings = reproduce_kaplan(out, data, only=only, seed=seed, say=say)
    systems = {key: finding.to_json() for key, finding in findings.items()}
    show({"name": "kaplan", "out": str(out), "systems": systems}, as_json, lambda: as_text(findings))


@app.command()
def backends(seed: NoSeed = 0, as_json: Json = False) -> None:
    """What can train here, and why the rest cannot.

    Example: scaling-sim backends
    """
    import scaling_sim as ss

    found = ss.backends()
    facts = {
        info.name: {
            "available": info.available,
            "devices": list(info.devices),
            "reason": info.reason,
            "note": info.note,
        }
        for info in found
    }
    lines = [
        f"{info.name:8s} {', '.join(info.devices) if info.available else f'not here: {info.reason}'}"
        f"{f' ({info.note})' if info.note else ''}"
        for info in found
    ]
    show(facts, as_json, lambda: "\n".join(lines))
