"""Observed points at their minimal cost: C → C_min and S → S_min (Kaplan et al. 2020, 5.4 and 5.5), for figures.

Nothing is fitted to converted points. B_crit(L) was measured over some range of losses; points outside it are marked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import LawError
from scaling_sim.laws.kaplan import critical_batch
from scaling_sim.predict.source import Array, Fit, columns_of, head

if TYPE_CHECKING:
    import pandas as pd

    from scaling_sim.runs.table import RunTable


@dataclass(frozen=True)
class Converted:
    """Rows of a run table at their minimal cost, (n_rows,) arrays; NaN where batch or steps are unknown.

    ``C_min`` and ``S_min`` are medians over draws, ``*_low`` and ``*_high`` their 90 % interval, in FLOP and steps.
    ``outside`` marks losses that no batch sweep covered.
    """

    run: NDArray[np.str_]
    N: Array
    loss: Array
    C: Array
    C_min: Array
    C_min_low: Array
    C_min_high: Array
    S_min: Array
    S_min_low: Array
    S_min_high: Array
    B_crit: Array
    outside: NDArray[np.bool_]
    measured: tuple[float, float] | None
    header: dict[str, Any]

    def to_dataframe(self) -> pd.DataFrame:
        """One row per measured loss."""
        import pandas as pd

        return pd.DataFrame(
            {
                "run": self.run,
                "N_parameters": self.N,
                "loss_nats": self.loss,
                "C_flop": self.C,
                "C_min_flop": self.C_min,
                "C_min_flop_lo90": self.C_min_low,
                "C_min_flop_hi90": self.C_min_high,
                "S_min_steps": self.S_min,
                "S_min_steps_lo90": self.S_min_low,
                "S_min_steps_hi90": self.S_min_high,
                "B_crit_tokens": self.B_crit,
                "outside_measured_B_crit": self.outside,
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Rows as a list, with the range of losses over which B_crit was measured and what fit it is from."""
        rows = self.to_dataframe().astype(object)
        return {
            **self.header,
            "measured_loss_nats": None if self.measured is None else list(self.measured),
            "num_outside": int(self.outside.sum()),
            "rows": rows.where(rows.notna(), None).to_dict(orient="records"),
        }

    def _repr_html_(self) -> str:
        return str(self.to_dataframe().to_html(index=False, float_format=lambda x: f"{x:.4g}"))


def convert(fit: Fit, runs: RunTable | None = None) -> Converted:
    """Return the rows of ``runs`` (default: those of the fit) at their minimal compute and steps.

    Parameters
    ----------
    fit : Posterior or ConstantSet
        With ``alpha_B`` and ``B_star``: law ``kaplan``, ``kaplan-floor`` or ``critical-batch``.
    """
    if "B_star" not in fit.draws:
        raise LawError(
            f"conversion needs B_crit(L), which {fit.law_name!r} does not have; fit 'kaplan' or 'critical-batch'"
        )
    table = getattr(fit, "runs", None) if runs is None else runs
    if table is None:
        raise LawError("published constants come without runs: pass runs=")
    B_crit = critical_batch(table.loss, columns_of(fit))
    levels = (0.05, 0.5, 0.95)
    C_min = np.quantile(table.C / (1 + table.B / B_crit), levels, axis=0)
    S_min = np.quantile(table.S / (1 + B_crit / table.B), levels, axis=0)
    measured = batch_sweep_range(table)
    low, high = measured or (np.inf, -np.inf)
    return Converted(
        run=table.run,
        N=table.N,
        loss=table.loss,
        C=table.C,
        C_min=C_min[1],
        C_min_low=C_min[0],
        C_min_high=C_min[2],
        S_min=S_min[1],
        S_min_low=S_min[0],
        S_min_high=S_min[2],
        B_crit=np.median(B_crit, axis=0),
        outside=(table.loss < low) | (table.loss > high),
        measured=measured,
        header=head(fit),
    )


def batch_sweep_range(runs: RunTable) -> tuple[float, float] | None:
    """Return the losses covered by sizes that were trained at two or more batches; None without a batch sweep."""
    usable = ~runs.stopped & np.isfinite(runs.B) & np.isfinite(runs.loss)
    spans = []
    sizes, batch_tokens = runs.N, runs.B
    for size in np.unique(sizes[usable]):
        rows = usable & (sizes == size)
        batches = [runs.loss[rows & (batch_tokens == b)] for b in np.unique(batch_tokens[rows])]
        if len(batches) < 2:
            continue
        # a loss is compared between batches only where at least two of them reached it
        lows, highs = np.sort([b.min() for b in batches]), np.sort([b.max() for b in batches])
        spans.append((float(lows[1]), float(highs[-2])))
    return (min(low for low, _ in spans), max(high for _, high in spans)) if spans else None
