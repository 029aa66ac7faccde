"""Tables of the crossover: where it lies by each method and by the paper's own constants, and what it depends on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from scaling_sim.errors import DataError, DesignError
from scaling_sim.report.data import ReportData
from scaling_sim.report.table import Cell, Range, Table

if TYPE_CHECKING:
    from scaling_sim.predict import Crossover, Quantity

CROSSING = {
    "C_pf_days": "C_min, PF-days",
    "C_flop": "C_min, FLOP",
    "N_parameters": "N, parameters",
    "D_tokens": "D, tokens",
    "loss_nats": "loss, nats per token",
}
PAPER = {
    "kaplan-table6": "Kaplan et al.: Table 6",
    "kaplan-eq6.7": "Kaplan et al.: equation 6.7",
    "kaplan-appendix-b": "Kaplan et al.: Appendix B",
}
SENSITIVITY = {
    "parameter": "parameter",
    "elasticity": "elasticity",
    "sd_log": "sd of its logarithm",
    "standardised": "standardised",
    "rank_correlation": "rank correlation",
    "variance_share": "share of variance",
}


def crossover_table(data: ReportData) -> Table | None:
    """C*, N*, D* and L* over all draws, and over those that cross."""
    result = data.crossover
    if result is None:
        return None
    given = result.conditional()
    rows = tuple(
        (CROSSING[key], Range.of(quantity), Range.of(given[key]) if key in given else None)
        for key, quantity in result.quantities.items()
    )
    note = (
        f"{result.probability_none:.1%} of the draws have no crossing; they count as infinite in the first column, and "
        "are left out of the second. Parameter uncertainty only."
    )
    return Table(
        "crossover", "The crossing point", ("quantity", "over all draws", "given a crossing"), rows, note, maths=True
    )


def crossover_methods_table(data: ReportData) -> Table | None:
    """The crossing and the tension before it by both methods, beside the paper's own constants."""
    if data.crossover is None:
        return None
    names = {"appendix-b": "this fit: Appendix B", "frontier": "these runs: envelope"}
    rows, other = [_row(names[data.crossover.method], data.crossover)], _envelope(data)
    if not isinstance(other, str):
        rows.append(_row(names["frontier"], other))
    columns = (
        "from",
        "C_min, PF-days",
        "N, parameters",
        "loss, nats per token",
        "no crossing",
        "tension by (4.3), PF-days",
        "tension by 5e3·N^0.74, PF-days",
    )
    refused = f" No envelope: {other}." if isinstance(other, str) else ""
    note = (
        "Tension: where the data that keep overfitting below "
        f"{data.crossover.tension.threshold:.0%} first exceed one pass. The paper's own constants disagree: equation "
        f"6.7 puts C* {_further('kaplan-eq6.7')} times as far out as Table 6, Appendix B "
        f"{_further('kaplan-appendix-b')} times.{refused}"
    )
    heading = "The crossing by method, beside the paper's own"
    return Table("crossover-methods", heading, columns, (*rows, *_paper_rows()), note, maths=True)


def _envelope(data: ReportData) -> Crossover | str:
    """The crossing of the fitted lower envelope, or why there is none."""
    from scaling_sim.predict import crossover

    fit = next((data.fits[law] for law in ("kaplan", "kaplan-floor") if law in data.fits), None)
    if fit is None or data.crossover is None:
        return "no joint fit"
    try:
        return crossover(fit, "frontier", threshold=data.crossover.tension.threshold, backtest=None)
    except (DataError, DesignError) as error:
        return str(error)


def _paper_rows() -> Iterator[tuple[Cell, ...]]:
    from scaling_sim.laws.constants import constants
    from scaling_sim.predict import crossover

    for name, words in PAPER.items():
        yield _row(words, crossover(constants(name)))


def _further(name: str) -> str:
    """How many times the compute of Table 6's crossing a set of the paper's constants asks for."""
    from scaling_sim.laws.constants import constants
    from scaling_sim.predict import crossover

    return f"{crossover(constants(name)).C.median / crossover(constants('kaplan-table6')).C.median:.2g}"


def _row(words: str, result: Crossover) -> tuple[Cell, ...]:
    crossing = [_middle(result.quantities[key]) for key in ("C_pf_days", "N_parameters", "loss_nats")]
    none = None if result.C.draws.size == 1 else f"{result.probability_none:.1%}"
    own = None if result.tension is result.printed_tension else _middle(result.tension.pf_days)
    return (words, *crossing, none, own, _middle(result.printed_tension.pf_days))


def _middle(quantity: Quantity) -> Cell:
    """Median with its interval; published constants have none."""
    return quantity.median if quantity.draws.size == 1 else Range.of(quantity)


def sensitivity_table(data: ReportData) -> Table | None:
    """How far each parameter moves C*, and whose uncertainty its spread is."""
    if data.crossover is None:
        return None
    frame = data.crossover.sensitivity()
    if frame.empty:
        return None
    rows = tuple(tuple(row) for row in frame[list(SENSITIVITY)].itertuples(index=False))
    shares = ", ".join(f"{law} {share:.0%}" for law, share in data.crossover.variance_by_law().items())
    note = (
        "Elasticity: change of ln C* for a change of the parameter's logarithm by one. Standardised: for one posterior "
        "sd. Rank correlation: with the parameters that move along. Share of variance: to first order; exponent and "
        f"scale of one law move together and are read as a sum{': ' + shares if shares else ''}."
    )
    return Table(
        "crossover-sensitivity", "What the crossing depends on", tuple(SENSITIVITY.values()), rows, note, maths=True
    )
