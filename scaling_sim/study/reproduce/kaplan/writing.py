"""The files of a reproduction: figures, table.json, table.csv, index.html."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling_sim.config import json_text
from scaling_sim.errors import DataError

if TYPE_CHECKING:
    from scaling_sim.report.table import Table
    from scaling_sim.study.reproduce.kaplan.data import Data
    from scaling_sim.study.reproduce.kaplan.finding import Finding

Findings = Mapping[str, "Finding"]
PNG_DPI = 160.0
TITLE = "Scaling Laws for Neural Language Models, measured again"


def write_figure(finding: Finding, name: str, folder: Path) -> None:
    """Draw a finding as ``name.svg`` and ``name.png``.

    Raises
    ------
    NothingToShow
        What it draws does not exist.
    """
    from scaling_sim.report.figures import to_png, to_svg
    from scaling_sim.report.figures.canvas import style

    assert finding.draw is not None
    with style():
        figure = finding.draw()
        (folder / f"{name}.svg").write_text(to_svg(figure), encoding="utf-8")
        (folder / f"{name}.png").write_bytes(to_png(figure, PNG_DPI))


def write_index(folder: Path, findings: Findings, verdicts: Mapping[str, str], data: Data) -> None:
    """Write the tables and the page that shows everything."""
    (folder / "table.json").write_text(json_text(table_json(findings, verdicts, data), indent=1) + "\n", "utf-8")
    (folder / "table.csv").write_text(table(findings).to_csv(), encoding="utf-8")
    (folder / "index.html").write_text(page(folder, findings, verdicts, data), encoding="utf-8")


def table_json(findings: Findings, verdicts: Mapping[str, str], data: Data) -> dict[str, Any]:
    """Facts about the runs, the fits' verdicts, and every system with its rows."""
    return {
        "simulated": data.simulated,
        "facts": _facts(data),
        "fits": dict(verdicts),
        "systems": {name: finding.to_json() for name, finding in findings.items()},
    }


def table(findings: Findings) -> Table:
    """All rows of all systems: the paper's values beside ours."""
    from scaling_sim.report.table import Table

    columns = ("figure", "quantity", "unit", "paper", "ours", "90 % interval", "runs", "remark")
    return Table("table", "The paper's values beside ours", columns, tuple(_cells(findings)))


def _cells(findings: Findings) -> Iterator[tuple[Any, ...]]:
    from scaling_sim.report.table import Range

    for finding in findings.values():
        for row in finding.rows:
            between = None if row.interval90 is None else Range(*row.interval90)
            yield (finding.figure, row.quantity, row.unit, row.paper, row.ours, between, row.n_runs, row.remark)


def as_text(findings: Findings) -> str:
    """The rows of all systems for a terminal, and the systems that are missing."""
    from scaling_sim.report.table import interval, number

    lines = []
    for finding in findings.values():
        lines.append(f"{finding.figure}: {finding.title}")
        if finding.missing:
            lines.append(f"  not computed: {finding.missing}")
        for row in finding.rows:
            paper = "" if row.paper is None else f"   paper {number(row.paper)}"
            between = "" if row.interval90 is None else f" ({interval(*row.interval90)})"
            lines.append(f"  {row.quantity}: {number(row.ours)}{between}{f' {row.unit}' if row.unit else ''}{paper}")
    return "\n".join(lines)


def page(folder: Path, findings: Findings, verdicts: Mapping[str, str], data: Data) -> str:
    """The page as HTML text; it shows the figures that lie in the folder."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from scaling_sim.report.html import maths

    environment = Environment(
        loader=PackageLoader("scaling_sim.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["maths"] = maths
    drawn = {name for name, finding in findings.items() if not finding.missing and (folder / f"{name}.svg").exists()}
    return environment.get_template("reproduction.html.j2").render(
        title=TITLE,
        findings=findings,
        drawn=drawn,
        tables={name: table({name: finding}) for name, finding in findings.items()},
        verdicts=verdicts,
        simulated=data.simulated,
        facts=_facts(data),
    )


def _facts(data: Data) -> dict[str, Any]:
    """What was run: number of runs, and what the experiment says of itself in one line each."""
    said = {key: value for key, value in data.experiment.facts.items() if isinstance(value, str | int | float)}
    return {"runs": len(data.experiment.records), "seed": data.seed, **said, **_recurrent_facts(data)}


def _recurrent_facts(data: Data) -> dict[str, Any]:
    """The same of the shipped recurrent runs, where the experiment is on their text."""
    from scaling_sim.study.reproduce.kaplan.recurrent import recurrent_runs

    try:
        runs = recurrent_runs(data)
    except DataError:
        return {}
    said = {f"recurrent_{key}": runs.facts[key] for key in ("commit", "date", "device") if key in runs.facts}
    return {"recurrent_runs": len(runs.runs), **said}
