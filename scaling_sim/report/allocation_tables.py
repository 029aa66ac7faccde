"""Tables about allocations beyond their numbers: shapes that can be built, and definitions of N and C."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaling_sim.errors import ConfigError, LawError
from scaling_sim.predict.quantity import Quantity
from scaling_sim.report.table import Range, Table

if TYPE_CHECKING:
    from scaling_sim.report.data import ReportData


def shape_table(data: ReportData) -> Table | None:
    """The nearest buildable shape of every budget, and what it costs in loss."""
    from scaling_sim.predict import buildable

    rows, families = [], []
    for several in data.allocations:
        for plan in several:
            try:
                found = buildable(plan)
            except (ConfigError, LawError):
                continue
            shape = found.shape
            sizes = (shape.n_layer, shape.d_model, shape.n_head, found.N)
            families.append(found.family)
            rows.append((str(plan.header["law"]), float(plan.compute[0]), *sizes, found.penalty.median,
                         Range.of(found.regret)))  # fmt: skip
    if not rows:
        return None
    columns = ("law", "compute, FLOP", "layers", "width", "heads", "N, parameters", "penalty of rounding, nats",
               "loss above each draw's best, nats")  # fmt: skip
    kind = families[0]
    note = (
        f"Whole heads of {kind.d_head}, width over layers near {kind.aspect:.3g}, N counted as {kind.count}. The last "
        "column also holds what is not known of the best size."
    )
    return Table("shapes", "The nearest model that can be built", columns, tuple(rows), note)


def definitions_table(data: ReportData) -> Table | None:
    """Exponent and best size by every definition of N and C, at the largest budget."""
    for plans in data.allocations:
        found = plans.definitions
        if isinstance(found, str):
            continue
        rows = tuple(
            (row.words, Range.of(row.exponent), float(row.cost[-1]), row.unit,
             Range.of(Quantity("N", row.N[:, -1])), Range.of(Quantity("tokens", row.tokens[:, -1])))
            for row in found.rows.values()
        )  # fmt: skip
        columns = ("what N and C count", "exponent of N*", "cost", "", "N* so counted", "tokens")
        note = (
            "The same runs, refitted by E + A/N^α + B/tokens^β under each definition; the cost is what the first row's "
            f"best model costs by that count. {found.verdict} {'; '.join(found.notes)}"
        )
        return Table("definitions", "The best size by other definitions", columns, rows, note.strip())
    return None
