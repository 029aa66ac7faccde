"""What measured runs paid for a loss: steps, tokens and compute of every size (Kaplan et al. 2020, Figs 2, 12 and 19).

`efficiency` says what a law expects; this is what was measured, and beside it the same at minimal cost (5.4, 5.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from scaling_sim.errors import DataError, LawError
from scaling_sim.laws.batch_sweeps import fewest_steps, read_curves, usable
from scaling_sim.laws.kaplan import critical_batch
from scaling_sim.predict.efficiency import positive
from scaling_sim.predict.source import Array, Fit

if TYPE_CHECKING:
    import pandas as pd

    from scaling_sim.runs.table import RunTable

LEVELS = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Reached:
    """Where the curves of each size and batch pass some losses.

    Attributes
    ----------
    loss : (j,) nats per token
    N, B : (k,) parameters; tokens per step, rising N, then B
    paid : ``S`` (steps), ``tokens`` and ``C`` (6·N·tokens, FLOP) → (k, j); NaN where the loss is not passed
    least : ``S_min``, ``E_min`` (tokens) and ``C_min`` → (3, k, j), 5, 50 and 95 % over the draws of B_crit(L); empty
        without a fit that knows B_crit
    """

    loss: Array
    N: Array
    B: Array
    paid: Mapping[str, Array]
    least: Mapping[str, Array]

    def __repr__(self) -> str:
        return f"Reached({len(self.loss)} losses, {len(self.N)} sizes and batches)"

    def _repr_html_(self) -> str:
        return str(self.to_dataframe().to_html(index=False, float_format=lambda x: f"{x:.4g}"))

    def to_dataframe(self) -> pd.DataFrame:
        """One row per size, batch and loss that is passed."""
        import pandas as pd

        k, j = np.nonzero(np.isfinite(self.paid["S"]))
        columns = {"N_parameters": self.N[k], "B_tokens": self.B[k], "loss_nats": self.loss[j]}
        columns |= {name: values[k, j] for name, values in self.paid.items()}
        for name, values in self.least.items():
            columns |= {name: values[1, k, j], f"{name}_lo90": values[0, k, j], f"{name}_hi90": values[2, k, j]}
        return pd.DataFrame(columns)


def reached(runs: RunTable, loss: ArrayLike, fit: Fit | None = None) -> Reached:
    """Return what the curves of ``runs`` paid until they passed these losses.

    Parameters
    ----------
    runs : RunTable
        Curves at constant learning rate. Seeds of one size, batch and learning rate are averaged; of several learning
        rates, the one that passes a loss first counts, and losses that the best one passed before it is read are NaN.
    loss : number or 1-D array
        Nats per token.
    fit : Posterior or ConstantSet
        With ``alpha_B`` and ``B_star``: adds what the same losses would cost far above and far below B_crit.

    Raises
    ------
    DataError
        There is no curve.
    LawError
        The fit does not know B_crit.
    """
    if fit is not None and "B_star" not in fit.draws:
        raise LawError(f"minimal costs need B_crit(L), which {fit.law_name!r} does not have; fit 'kaplan'")
    losses = positive("loss", loss)
    groups = [several for N in np.unique(runs.N[usable(runs)]).tolist() for several in read_curves(runs, N).values()]
    if not groups:
        raise DataError("there are no learning curves at constant rate with known batches and steps")
    N, B = (np.array([getattr(several[0], name) for several in groups]) for name in ("N", "B"))
    S = np.stack([fewest_steps(several, np.log(losses))[0] for several in groups])
    tokens = S * B[:, None]
    paid = {"S": S, "tokens": tokens, "C": 6 * N[:, None] * tokens}
    return Reached(losses, N, B, paid, {} if fit is None else _least(paid, losses, B, fit))


def _least(paid: Mapping[str, Array], loss: Array, B: Array, fit: Fit) -> dict[str, Array]:
    columns = {name: np.asarray(values, dtype=np.float64)[:, None] for name, values in fit.draws.items()}
    ratio = np.quantile(critical_batch(loss, columns), LEVELS, axis=0)[:, None, :] / B[:, None]
    rising = {"E_min": paid["tokens"] / (1 + 1 / ratio), "C_min": paid["C"] / (1 + 1 / ratio)}
    return {"S_min": (paid["S"] / (1 + ratio))[::-1], **rising}
