"""The table of the next runs."""

from __future__ import annotations

from scaling_sim.report.data import ReportData
from scaling_sim.report.table import Cell, Table, number

_HEADS = {
    "count": "runs",
    "kind": "kind",
    "N_parameters": "N",
    "tokens": "tokens",
    "D_tokens": "unique tokens",
    "B_tokens": "tokens per step",
    "S_steps": "steps",
    "cost_flop": "FLOP",
    "budget_share": "share of the budget",
    "target_sd_before": "error before",
    "target_sd_after": "error after",
}


def design_table(data: ReportData) -> Table | None:
    """One row per different run, in the order in which to make them."""
    plan = data.design
    if plan is None or not plan.purchases:
        return None
    frame = plan.to_dataframe()
    shown = [name for name in _HEADS if frame[name].notna().any()]
    rows = tuple(tuple(_cell(row[name]) for name in shown) for _, row in frame.iterrows())
    note = (
        f"error: expected error of {plan.target} ({plan.scale}, root mean square), before the row's first run and "
        "after its last. "
        f"Together {number(plan.cost)} of {number(plan.budget)} FLOP. {'; '.join(plan.notes)}"
    )
    return Table("design", "The next runs", tuple(_HEADS[name] for name in shown), rows, note.strip())


def _cell(value: object) -> Cell:
    if isinstance(value, str):
        return value
    cell = float(value)  # type: ignore[arg-type]
    return None if cell != cell else cell
