"""What a reproduced system found: a figure, the paper's values beside ours, and what to make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from scaling_sim.errors import DataError, ScalingSimError

if TYPE_CHECKING:
    from scaling_sim.predict.quantity import Quantity
    from scaling_sim.report.figures import ReportFigure


@dataclass(frozen=True)
class Row:
    """One number of the paper beside ours.

    Attributes
    ----------
    quantity : what it is, with its symbol
    paper : as printed (Kaplan et al. 2020); None where the paper has none
    ours : median; NaN if it could not be measured
    interval90 : equal-tailed 90 % interval; None where none was computed, which ``remark`` explains
    n_runs : runs behind ours
    """

    quantity: str
    paper: float | None
    ours: float
    interval90: tuple[float, float] | None
    n_runs: int
    unit: str = ""
    remark: str = ""

    @classmethod
    def of(
        cls,
        quantity: str,
        paper: float | None,
        draws: ArrayLike | Quantity,
        n_runs: int,
        unit: str = "",
        remark: str = "",
    ) -> Row:
        """A row from posterior draws (n,), which may be infinite, or from a predicted quantity."""
        from scaling_sim.predict.quantity import Quantity

        if not isinstance(draws, Quantity):
            draws = Quantity(quantity, np.asarray(draws, dtype=np.float64).ravel(), unit)
        return cls(quantity, paper, draws.median, draws.interval(0.9), n_runs, unit, remark)

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        interval = None if self.interval90 is None else list(self.interval90)
        named = {"quantity": self.quantity, "paper": self.paper, "ours": self.ours, "interval90": interval}
        return {**named, "n_runs": self.n_runs, "unit": self.unit, "remark": self.remark}


def gathered(makers: Mapping[str, Callable[[], Iterable[Row]]]) -> tuple[tuple[Row, ...], dict[str, str]]:
    """Rows of all parts of a system that can be made, and part → why it cannot.

    Raises
    ------
    DataError
        None can.
    """
    rows: list[Row] = []
    missing: dict[str, str] = {}
    for name, make in makers.items():
        try:
            rows += make()
        except ScalingSimError as error:
            missing[name] = str(error)
    if len(missing) == len(makers):
        raise DataError("; ".join(dict.fromkeys(missing.values())))
    return tuple(rows), missing


@dataclass(frozen=True)
class Finding:
    """A system of the paper as our runs show it.

    Attributes
    ----------
    figure : the paper's name of it: "F10", "F4 right", "T5"
    title : one line
    rows : numbers beside the paper's
    draw : makes the figure (`scaling_sim.report.figures.canvas`); None where there is only a table
    remark : one to five plain sentences: what reproduced, what did not, the likely reason
    missing : why the whole system could not be computed; "" if it was
    """

    figure: str
    title: str
    rows: tuple[Row, ...] = ()
    draw: Callable[[], ReportFigure] | None = field(default=None, compare=False)
    remark: str = ""
    missing: str = ""

    def to_json(self) -> dict[str, Any]:
        """Everything but the drawing."""
        rows = [row.to_json() for row in self.rows]
        named = {"figure": self.figure, "title": self.title, "rows": rows}
        return {**named, "remark": self.remark, "missing": self.missing}
