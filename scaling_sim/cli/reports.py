"""Verbs that show: reports, published results, what is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling_sim.cli.app import Import, Json, NoSeed, app
from scaling_sim.cli.output import command_line, show


@app.command()
def report(
    source: Annotated[Path, typer.Argument(help="Study folder or a saved fit.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    imports: Import = None,
    seed: NoSeed = 0,
    as_json: Json = False,
) -> None:
    """One self-contained HTML file about a study or a single fit.

    Example: scaling-sim report fit.nc --out report.html
    """
    from scaling_sim.study import report_on

    written = report_on(source, out, command=command_line())
    show({"report": str(written)}, as_json, lambda: str(written))


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
    show({"name": name, "rows": table.to_dict(orient="records")}, as_json, lambda: table.to_string(index=False))


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
