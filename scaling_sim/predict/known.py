"""Known sizes as examples: what published constants say of a causal decoder of that size, and of its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling_sim.errors import ConfigError, LawError
from scaling_sim.laws.constants import CONSTANTS, FRONTIER_LAW
from scaling_sim.laws.kaplan import solve_loss
from scaling_sim.laws.kaplan_joint import curve_parameters
from scaling_sim.laws.registry import get_law
from scaling_sim.predict.allocate import allocate
from scaling_sim.predict.quantity import Quantity
from scaling_sim.predict.source import Array, Fit, columns_of, converged, source_of

if TYPE_CHECKING:
    import pandas as pd

NOT_COMPARABLE = (
    "BERT-large has 3.4e8 parameters and T5-11B 1.1e10, but their losses are not comparable with these: one is the "
    "loss of masked words given both sides, the other that of dropped spans given the rest, by an encoder and decoder"
)


@dataclass(frozen=True)
class KnownSize:
    """A size and its training tokens; ``like`` names a causal decoder that was trained so."""

    N: float
    tokens: float
    like: str = ""

    @property
    def C(self) -> float:
        """Compute 6·N·tokens, FLOP."""
        return 6 * self.N * self.tokens


KNOWN_SIZES = (
    KnownSize(3.4e8, 3e11),
    KnownSize(1.1e9, 3e11),
    KnownSize(1.1e10, 3e11),
    KnownSize(1.75e11, 3e11, "GPT-3"),
    KnownSize(70e9, 1.4e12, "Chinchilla"),
)
"""Parameters as their papers count them, embeddings included; a percent of N where the model is large."""


@dataclass(frozen=True)
class KnownRow:
    """What one source says of one size.

    Attributes
    ----------
    loss : Quantity or None
        Loss of this size on these tokens, nats per token; None where the source speaks of the frontier alone.
    best_loss : Quantity
        Loss of the compute-optimal model for the same compute.
    size_ratio : Quantity
        N over the compute-optimal N: above 1 the model is too large for its compute, that is undertrained.
    excess : Quantity or None
        loss/best_loss − 1.
    converged : bool or None
        Whether its posterior did; None for published constants.
    """

    size: KnownSize
    source: str
    law: str
    loss: Quantity | None
    best_loss: Quantity
    best_N: Quantity
    size_ratio: Quantity
    excess: Quantity | None
    converged: bool | None = None

    @property
    def training(self) -> str:
        """``undertrained`` (too large for its compute), ``overtrained`` (too small), or ``about optimal``."""
        low, high = self.size_ratio.interval(0.9)
        if low > 1.25:
            return "undertrained"
        return "overtrained" if high < 0.8 else "about optimal"

    def to_json(self) -> dict[str, Any]:
        """Numbers of one source and size."""
        known = {"loss_nats": self.loss, "loss_excess_relative": self.excess}
        return {
            "N_parameters": self.size.N,
            "tokens": self.size.tokens,
            "C_flop": self.size.C,
            "like": self.size.like,
            "source": self.source,
            "law": self.law,
            "converged": self.converged,
            **{key: None if q is None else q.to_json() for key, q in known.items()},
            "optimal_loss_nats": self.best_loss.to_json(),
            "optimal_N_parameters": self.best_N.to_json(),
            "N_over_optimal": self.size_ratio.to_json(),
            "training": self.training,
        }


@dataclass(frozen=True)
class KnownSizes:
    """The table of sizes and sources; ``skipped`` says which sources cannot answer, and why."""

    rows: tuple[KnownRow, ...]
    skipped: dict[str, str]
    notes: tuple[str, ...]

    @property
    def converged(self) -> bool | None:
        """Whether every posterior did; None if all rows are of published constants."""
        states = [row.converged for row in self.rows if row.converged is not None]
        return all(states) if states else None

    def to_json(self) -> dict[str, Any]:
        """All rows."""
        return {
            "converged": self.converged,
            "rows": [row.to_json() for row in self.rows],
            "skipped": self.skipped,
            "notes": list(self.notes),
        }

    def to_dataframe(self) -> pd.DataFrame:
        """One row per size and source; medians."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "N_parameters": row.size.N,
                    "tokens": row.size.tokens,
                    "like": row.size.like,
                    "source": row.source,
                    "loss_nats": None if row.loss is None else row.loss.median,
                    "optimal_loss_nats": row.best_loss.median,
                    "loss_excess_percent": None if row.excess is None else 100 * row.excess.median,
                    "optimal_N_parameters": row.best_N.median,
                    "N_over_optimal": row.size_ratio.median,
                    "training": row.training,
                }
                for row in self.rows
            ]
        )

    def __str__(self) -> str:
        table = self.to_dataframe().to_string(index=False, float_format=lambda x: f"{x:.4g}", na_rep="")
        return "\n".join([table, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        from html import escape

        heads = {
            "N_parameters": "N",
            "loss_nats": "loss",
            "optimal_loss_nats": "best loss",
            "loss_excess_percent": "excess, %",
            "optimal_N_parameters": "best N",
            "N_over_optimal": "N/best N",
        }
        frame = self.to_dataframe().rename(columns=heads)
        table = frame.to_html(index=False, float_format=lambda x: f"{x:.3g}" if x > 100 else f"{x:.4g}", na_rep="")
        return table + "".join(f"<p>{escape(note)}.</p>" for note in self.notes)


def known_sizes(sources: Sequence[str | Fit] | None = None, sizes: Sequence[KnownSize] = KNOWN_SIZES) -> KnownSizes:
    """What each source says of causal decoders of known sizes: loss, and over- or undertraining.

    Parameters
    ----------
    sources : sequence of names of constant sets, Posteriors or ConstantSets
        Default: every published set that knows a compute frontier.
    sizes : sequence of KnownSize

    Notes
    -----
    One pass over fresh data. Kaplan's joint sets: L(N, S_min) (1.6) trained at the critical batch of its loss, where
    tokens = 2·B_crit·S_min. N* is that of `allocate` for the compute 6·N·tokens paid.
    """
    chosen: list[str | Fit] = list(CONSTANTS) if sources is None else list(sources)
    rows: list[KnownRow] = []
    skipped: dict[str, str] = {}
    for one in chosen:
        fit, name = _named(one)
        try:
            rows += [_row(fit, name, size) for size in sizes]
        except LawError as error:
            skipped[name] = str(error)
    rows.sort(key=lambda row: [s.N for s in sizes].index(row.size.N))
    counted = "N is as their papers count it; Kaplan's constants mean N without embeddings"
    tokens = "losses of different sources are on different texts and tokenizers: compare them within a source"
    return KnownSizes(tuple(rows), skipped, (counted, tokens, NOT_COMPARABLE))


def _named(source: str | Fit) -> tuple[Fit, str]:
    if isinstance(source, str):
        if source not in CONSTANTS:
            raise ConfigError(f"no constant set is called {source!r}; valid names: {', '.join(CONSTANTS)}")
        return CONSTANTS[source], source
    return source, str(getattr(source, "name", "") or f"{source.law_name}, {source_of(source)}")


def _row(fit: Fit, name: str, size: KnownSize) -> KnownRow:
    best = allocate(fit, size.C, backtest=None)
    best_N, best_loss = best.quantity("N"), Quantity("optimal_loss", best.draws["law_alone_loss"][:, 0], "nats")
    loss = None if fit.law_name == FRONTIER_LAW else Quantity("loss", _loss(fit, size), "nats")
    excess = None if loss is None else Quantity("excess", loss.draws / best_loss.draws - 1, "relative")
    ratio = Quantity("N_over_optimal", size.N / best_N.draws, "relative")
    return KnownRow(size, name, fit.law_name, loss, best_loss, best_N, ratio, excess, converged(fit))


def _loss(fit: Fit, size: KnownSize) -> Array:
    """(n,) loss by the law alone of this size on these tokens, all fresh."""
    p = columns_of(fit)
    law = getattr(fit, "law", None) or get_law(fit.law_name)
    if law.form == "joint":
        return critical_loss(np.array([size.N]), np.array([size.tokens]), p)[:, 0]
    columns = {"N": np.array([size.N]), "tokens": np.array([size.tokens]), "D": np.array([size.tokens])}
    return np.asarray(law.loss(p, columns), dtype=np.float64)[:, 0]


def critical_loss(N: Array, tokens: Array, p: dict[str, Array]) -> Array:
    """(n, k) loss of N parameters after ``tokens`` at the critical batch of that loss: tokens = 2·B_crit(L)·S_min.

    At B = B_crit, (1.6) with (5.4) reads L = E + (N_c/N)^αN + [2·S_c·B_crit(L)/tokens]^αS: the limit B → 0 of the same
    equation for half as many tokens.
    """
    tiny = 1e-6
    return np.asarray(solve_loss(N, tiny, 0.5 * tokens / tiny, curve_parameters(p)), dtype=np.float64)
