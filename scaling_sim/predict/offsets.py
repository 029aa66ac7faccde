"""Losses on other texts: each held-out distribution against the training one's (Kaplan et al. 2020, Fig. 8).

Kaplan et al. find that the loss on another text depends on the in-distribution loss alone, not on size or phase of
training. So ln L' = a + b·ln L, from the runs that carry both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import DataError
from scaling_sim.predict.quantity import Quantity
from scaling_sim.predict.source import Array

if TYPE_CHECKING:
    import pandas as pd

    from scaling_sim.runs.table import RunTable

PREFIX = "loss_"
MIN_RUNS = 4
"""Runs from which a slope, an offset and their scatter are known at all."""
NUM_DRAWS = 2000


@dataclass(frozen=True)
class Offset:
    """ln L' = ln L̄' + b·(ln L − ln L̄) of one text, L̄ the middle of the runs.

    Attributes
    ----------
    split : str
    slope : Quantity
        b: 1 where the offset does not change with the loss.
    level : Quantity
        ln(L'/L) at the middle of the runs, the offset in log loss.
    centre : float
        ln L̄.
    between, within : float
        Scatter of ln L' around the line: between runs, and of single measurements within a run.
    num_runs : int
    """

    split: str
    slope: Quantity
    level: Quantity
    centre: float
    between: float
    within: float
    num_runs: int
    span: tuple[float, float]
    """Least and largest in-distribution loss of the runs, nats."""

    def loss(self, loss: Array, seed: int = 0) -> Array:
        """(n,) draws of the loss on this text of runs whose own losses (n,) are given; scatter included."""
        rng = np.random.default_rng([seed, 4])
        log_loss = np.log(np.asarray(loss, dtype=np.float64))
        rows = rng.integers(len(self.slope.draws), size=len(log_loss))
        line = self.centre + self.level.draws[rows] + self.slope.draws[rows] * (log_loss - self.centre)
        freedom = max(self.num_runs - 2, 1)
        size = np.hypot(self.between, self.within) * np.sqrt(freedom / rng.chisquare(freedom, len(rows)))
        return np.asarray(np.exp(line + size * rng.standard_normal(len(rows))))

    def to_json(self) -> dict[str, Any]:
        """Slope and offset in log loss with intervals, scatter, and what they rest on."""
        return {
            "slope": self.slope.to_json(),
            "offset_log_loss": self.level.to_json(),
            "at_loss_nats": float(np.exp(self.centre)),
            "scatter_log_loss": {"between_runs": self.between, "within_run": self.within},
            "num_runs": self.num_runs,
            "loss_range_nats": list(self.span),
        }


@dataclass(frozen=True)
class Offsets:
    """Every other text of a run table; ``skipped`` says why some are left out."""

    splits: Mapping[str, Offset]
    skipped: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Offsets by text, and why others are left out."""
        return {"splits": {name: one.to_json() for name, one in self.splits.items()}, "skipped": dict(self.skipped)}

    def to_dataframe(self) -> pd.DataFrame:
        """One row per text."""
        import pandas as pd

        rows = [
            (name, o.num_runs, o.slope.median, *o.slope.interval(), o.level.median, *o.level.interval(), o.between)
            for name, o in self.splits.items()
        ]
        columns = ["split", "num_runs", "slope", "slope_lo90", "slope_hi90", "offset_log_loss", "offset_lo90"]
        return pd.DataFrame(rows, columns=[*columns, "offset_hi90", "scatter_between_runs"])

    def _repr_html_(self) -> str:
        return str(self.to_dataframe().to_html(index=False, float_format=lambda x: f"{x:.4g}"))


def offsets(runs: RunTable, *, seed: int = 0) -> Offsets:
    """Learn the losses on other texts from runs that carry several: the columns ``loss_<split>``.

    Rows of one run go together: generalised least squares with one error shared by each run, the ratio of the two
    scatters by the analysis of variance, and Student-t draws with (runs − 2) degrees of freedom.

    Raises
    ------
    DataError
        There is no such column.
    """
    names = split_columns(runs)
    if not names:
        raise DataError("no run carries a second loss: add columns loss_<split>, such as loss_books, in nats per token")
    found: dict[str, Offset] = {}
    skipped: dict[str, str] = {}
    for name in names:
        other = np.asarray(runs.extra[name], dtype=np.float64)
        use = np.isfinite(other) & (other > 0) & np.isfinite(runs.loss)
        if np.array_equal(other[use], runs.loss[use]):
            continue  # the split that was fitted
        split = name.removeprefix(PREFIX)
        if len(np.unique(runs.run[use])) < MIN_RUNS:
            skipped[split] = f"fewer than {MIN_RUNS} runs carry it"
        elif np.ptp(np.log(runs.loss[use])) < 1e-3:
            skipped[split] = "all runs have the same loss, which tells no slope"
        else:
            found[split] = _learn(split, runs.run[use], runs.loss[use], other[use], seed)
    return Offsets(found, skipped)


def split_columns(runs: RunTable) -> tuple[str, ...]:
    """Numeric extra columns ``loss_<split>``, in order."""
    own = {"loss_error"}
    return tuple(
        name
        for name, values in runs.extra.items()
        if name.startswith(PREFIX) and name not in own and not name.endswith("_error") and values.dtype.kind == "f"
    )


def _learn(split: str, run: NDArray[np.str_], loss: Array, other: Array, seed: int) -> Offset:
    x, y = np.log(loss), np.log(other)
    _, group = np.unique(run, return_inverse=True)
    num = int(group.max()) + 1
    centre = float(np.median(x))
    design = np.stack([np.ones_like(x), x - centre], axis=1)
    between, within = _scatters(design, y - x, group, num)
    mean, covariance = _least_squares(design, y - x, group, between, within)
    rng = np.random.default_rng([seed, 5])
    freedom = max(num - 2, 1)
    heavy = np.sqrt(freedom / rng.chisquare(freedom, NUM_DRAWS))[:, None]
    draws = mean + heavy * rng.multivariate_normal(np.zeros(2), covariance, NUM_DRAWS, method="eigh")
    return Offset(
        split,
        Quantity("slope", 1.0 + draws[:, 1], "log_log"),
        Quantity("offset", draws[:, 0], "log_loss"),
        centre,
        float(np.sqrt(between)),
        float(np.sqrt(within)),
        num,
        (float(loss.min()), float(loss.max())),
    )


def _scatters(design: Array, y: Array, group: NDArray[np.int64], num: int) -> tuple[float, float]:
    """Variances between and within runs, by the analysis of variance (Swamy & Arora 1972)."""
    size = np.bincount(group, minlength=num)
    if size.max() == 1:
        residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        return float(residual @ residual / (len(y) - 2)), 0.0
    mean_y = np.bincount(group, y, num) / size
    mean_x = np.stack([np.bincount(group, column, num) / size for column in design.T], axis=1)
    inside_x, inside_y = (design - mean_x[group])[:, 1], y - mean_y[group]
    slope = inside_x @ inside_y / max(float(inside_x @ inside_x), 1e-300)
    rest = inside_y - slope * inside_x
    within = float(rest @ rest / max(len(y) - num - 1, 1))
    away = mean_y - mean_x @ np.linalg.lstsq(mean_x, mean_y, rcond=None)[0]
    between = float(away @ away / max(num - 2, 1)) - within * float(np.mean(1 / size))
    return max(between, 1e-12), max(within, 1e-12)


def _least_squares(
    design: Array, y: Array, group: NDArray[np.int64], between: float, within: float
) -> tuple[Array, Array]:
    """Coefficients and their covariance under cov = within·I + between·(same run)."""
    hessian, right = np.zeros((2, 2)), np.zeros(2)
    for k in range(int(group.max()) + 1):
        rows = group == k
        X, z, n = design[rows], y[rows], int(rows.sum())
        if within > 0:
            total = X.sum(axis=0)
            shrink = between / (within + n * between)
            hessian += (X.T @ X - shrink * np.outer(total, total)) / within
            right += (X.T @ z - shrink * total * z.sum()) / within
        else:
            hessian += X.T @ X / between
            right += X.T @ z / between
    covariance = np.linalg.inv(hessian)
    return np.asarray(covariance @ right), np.asarray(covariance)
