"""A report as one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from scaling_sim.config import writable_folder
from scaling_sim.report import allocation_tables, comparison_tables, crossover_tables, design_tables, run_tables, tables
from scaling_sim.report.data import ReportData
from scaling_sim.report.summary import Finding, findings, misfit
from scaling_sim.report.table import Table, rows_csv

if TYPE_CHECKING:
    from scaling_sim.report.figures import ReportFigure

MOST_DIAGNOSED = 4
"""Fits whose chains and residuals are drawn in full; a report should stay below 6 MB."""

FigureBuilder = Callable[[ReportData], "ReportFigure"]
TableBuilder = Callable[[ReportData], Table | None]


@dataclass(frozen=True)
class FigureView:
    """A figure as the template needs it."""

    name: str
    heading: str
    reading: str
    svg: str
    csv: str
    num_rows: int


@dataclass
class Section:
    """A part of the report."""

    name: str
    heading: str
    text: str = ""
    figures: list[FigureView] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    folded: list[Table] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.figures or self.tables or self.folded or self.text)


def write_report(data: ReportData, path: str | Path) -> Path:
    """Write the report to ``path``, whole or not at all, and return the path.

    Parameters
    ----------
    data : ReportData
        What to show; missing parts are left out and listed at the end.
    path : str or Path
        The HTML file; its folder is created if needed.

    Raises
    ------
    ConfigError
        The folder cannot be created or written.
    """
    target = Path(path)
    folder = writable_folder(target.parent)
    text = render_report(data)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return target


def render_report(data: ReportData) -> str:
    """The report as HTML text: the same text for the same data."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("scaling_sim.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"svg": Markup, "csv_uri": csv_uri, "maths": maths}
    missing: list[tuple[str, str]] = []
    parts = [section for section in sections(data, missing) if section]
    found: list[Finding] = findings(data)
    page = environment.get_template("report.html.j2")
    return page.render(
        data=data, sections=parts, findings=found, missing=missing, facts=header_facts(data), misfit=misfit(data)
    )


def sections(data: ReportData, missing: list[tuple[str, str]]) -> Iterator[Section]:
    """The parts of the report in their order; figures that cannot be drawn are added to ``missing`` with the reason."""
    from scaling_sim.report import figures as plot

    draw = partial(_figures, data, missing)
    make = partial(_tables, data)
    yield Section(
        "laws",
        "The laws and the runs",
        figures=draw(
            plot.figure_power_laws,
            plot.figure_two_variables,
            plot.figure_overfitting,
            plot.figure_critical_batch,
            plot.figure_final_fit,
        ),
        tables=make(tables.exponent_table),
    )
    yield Section(
        "compute",
        "What compute buys",
        figures=draw(
            plot.figure_slices,
            plot.figure_best_size,
            plot.figure_adjusted,
            plot.figure_allocation,
            plot.figure_valley,
            plot.figure_bowls,
            plot.figure_definitions,
        ),
        tables=make(tables.allocation_table, allocation_tables.shape_table, allocation_tables.definitions_table),
    )
    yield Section(
        "forecasts",
        "Runs to come",
        figures=draw(plot.figure_forecast, plot.figure_efficiency, plot.figure_offsets, plot.figure_known),
        tables=make(tables.forecast_table),
    )
    yield Section(
        "crossover",
        "Where the laws contradict one another",
        text=""
        if data.crossover is not None
        else data.crossover_refusal and f"No crossover: {data.crossover_refusal}.",
        figures=draw(plot.figure_crossover),
        tables=make(
            crossover_tables.crossover_table,
            crossover_tables.crossover_methods_table,
            crossover_tables.sensitivity_table,
        ),
    )
    yield Section(
        "methods",
        "Do three methods agree on the best size?",
        figures=draw(plot.figure_isoflop),
        tables=make(comparison_tables.methods_table),
    )
    yield Section("comparison", "Which law?", tables=make(comparison_tables.comparison_table))
    yield Section(
        "design", "Which runs next?", figures=draw(plot.figure_design), tables=make(design_tables.design_table)
    )
    yield Section("backtest", "Does the law extrapolate?", figures=draw(plot.figure_backtest))
    yield Section(
        "parameters",
        "Parameters and priors",
        tables=[tables.parameter_table(data, law) for law in data.fits],
        folded=[tables.prior_table(fit) for fit in data.fits.values()],
    )
    yield from _diagnostics(data, missing)
    yield Section(
        "runs",
        "The runs",
        figures=draw(plot.figure_learning_curves, plot.figure_batch_sweep),
        tables=make(run_tables.excluded_table, lambda d: tables.fact_table("corpus", "The text", d.corpus)),
        folded=make(run_tables.run_table),
    )


def _diagnostics(data: ReportData, missing: list[tuple[str, str]]) -> Iterator[Section]:
    from scaling_sim.report import figures as plot

    made = _tables(data, run_tables.role_table, comparison_tables.outlier_table)
    section = Section("diagnostics", "Can the fits be believed?", tables=made)
    builders = (plot.figure_residuals, plot.figure_predictive_check, plot.figure_corner, plot.figure_traces)
    for k, law in enumerate(data.fits):
        if k < MOST_DIAGNOSED:
            section.figures += _figures(data, missing, *(_for_law(build, law) for build in builders))
        else:
            missing.append((f"diagnostics of {law}", f"only the first {MOST_DIAGNOSED} fits are drawn in full"))
    yield section


def _for_law(build: Callable[..., ReportFigure], law: str) -> FigureBuilder:
    def bound(data: ReportData) -> ReportFigure:
        return build(data, law)

    bound.__name__ = f"{build.__name__}_{law}"
    return bound


def _figures(data: ReportData, missing: list[tuple[str, str]], *builders: FigureBuilder) -> list[FigureView]:
    from scaling_sim.report.figures import NothingToShow, to_svg

    found = []
    for build in builders:
        try:
            figure = build(data)
        except NothingToShow as reason:
            missing.append((build.__name__.removeprefix("figure_").replace("_", " "), str(reason)))
            continue
        csv = rows_csv(figure.rows)
        found.append(FigureView(figure.name, figure.heading, figure.reading, to_svg(figure), csv, len(figure.rows)))
    return found


def _tables(data: ReportData, *builders: TableBuilder) -> list[Table]:
    return [table for table in (build(data) for build in builders) if table is not None]


def header_facts(data: ReportData) -> list[tuple[str, str]]:
    """Name and value of what identifies the report: data, seed, laws, versions."""
    table = data.table
    facts = []
    if table is not None:
        facts += [("data", f"{len(table)} rows of {len(set(table.run.tolist()))} runs from {_name(table.source)}")]
        facts += [("data hash", table.data_hash)]
    if data.corpus.get("hash"):
        facts += [("corpus", f"{data.corpus.get('name', '')} {data.corpus['hash']}")]
    if data.planned is not None:
        facts += [("runs planned", f"{data.planned}, of which {len(data.records)} are in this report")]
    facts += [("laws", ", ".join(data.fits) or "none fitted")]
    facts += [("seed", "not recorded" if data.seed is None else str(data.seed))]
    if data.environment:
        facts += [("versions", ", ".join(f"{name} {version}" for name, version in data.environment.items()))]
    return facts


def _name(source: str) -> str:
    """Name of a file without its folders, which are nobody's business but the owner's."""
    return re.split(r"[/\\\\]", source.rstrip("/\\"))[-1] or "this study"


_INDEX = re.compile(r"(?<![\w.])(α|p|C|S|N|L|B|D)_(min|crit|[NDSBCc])(?:\^(min))?(?![\w@])")
_POWER = re.compile(r"(?<=[NC])\^(\(.+?\)|[\d.]+\d)")


def maths(text: object) -> Markup:
    """``text`` escaped, with the indices and powers of our own formulas (α_N, C_min, N^0.7) set as such."""
    marked = _POWER.sub(r"<sup>\1</sup>", str(escape(str(text))))
    marked = _INDEX.sub(lambda m: f"{m[1]}<sub>{m[2]}</sub>" + (f"<sup>{m[3]}</sup>" if m[3] else ""), marked)
    return Markup(marked)


def csv_uri(text: str) -> str:
    """A ``data:`` address that downloads ``text``."""
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()
