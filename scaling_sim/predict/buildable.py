"""The nearest model that can be built: integer layers, a width of whole heads, and what that costs in loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from scaling_sim.errors import ConfigError
from scaling_sim.laws.constants import ConstantSet
from scaling_sim.model.count import num_parameters
from scaling_sim.model.shape import Shape
from scaling_sim.predict.allocation import Allocation
from scaling_sim.predict.quantity import Quantity

NEAR = 0.03
"""Of |ln N/N*|: shapes this near count as equally near, since the valley is flat; the nearest aspect is taken."""
SPREAD = 1.5
"""Aspects between wanted/1.5 and wanted·1.5 count as equal: Kaplan et al. 2020 (fig. 5) found under 1.5 % of the loss
between aspects of 10 and 300."""

MOST_HEADS = 2000
"""Widths below this many heads are all tried, wider ones in steps of .05 %."""


@dataclass(frozen=True)
class Family:
    """What shapes have in common.

    Parameters
    ----------
    d_head : width of a head; d_model is a multiple of it
    aspect : wanted d_model/n_layer, kept within a factor of 1.5
    n_ctx, vocab_size : context and vocabulary, which matter where embeddings are counted
    count : how the fit counts N: one of `scaling_sim.model.count.PARAMETER_CONVENTIONS`
    """

    d_head: int = 64
    aspect: float = 100.0
    n_ctx: int = 2048
    vocab_size: int = 50257
    count: str = "non-embedding"

    def __post_init__(self) -> None:
        for name in ("d_head", "aspect", "n_ctx", "vocab_size"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} of a shape must be above 0, got {getattr(self, name)}")

    @classmethod
    def of(cls, fit: Any, **given: Any) -> Family:
        """The family of a published set or of the runs behind a fit, with what the user says on top."""
        known: dict[str, Any] = {"count": fit.count} if isinstance(fit, ConstantSet) else {}
        extra = getattr(getattr(fit, "runs", None), "extra", None) or {}
        known |= {name: round(middle) for name in ("n_ctx", "vocab_size") if (middle := _middle(extra, name)) > 0}
        try:
            return cls(**{**known, **_proportions(extra), **given})
        except TypeError:
            names = ", ".join(cls.__dataclass_fields__)
            raise ConfigError(f"a shape is described by {names}, got {', '.join(given)}") from None

    def near(self, N: float) -> Iterator[Shape]:
        """Shapes of about N parameters, of each width that keeps the aspect; beyond `MOST_HEADS`, of some."""
        narrowest = 1
        while self._count(self._layers(2 * narrowest)[1], 2 * narrowest * self.d_head) < N:
            narrowest *= 2  # even the deepest model of twice this width is too small
        step = max(1, narrowest // MOST_HEADS)
        for heads in itertools.count(narrowest, step):
            d, (first, last) = heads * self.d_head, self._layers(heads)
            if first <= last:
                per_layer = self._count(2, d) - self._count(1, d)
                wanted = 1 + (N - self._count(1, d)) / per_layer
                for layers in {int(np.clip(round_(wanted), first, last)) for round_ in (np.floor, np.ceil)}:
                    yield self._shape(layers, d)
                if self._count(first, d) > N:
                    return

    def _layers(self, heads: int) -> tuple[int, int]:
        """Fewest and most layers at a width; more of the fewest where the width has none."""
        d = heads * self.d_head
        return max(1, int(np.ceil(d / (self.aspect * SPREAD)))), int(np.floor(d / (self.aspect / SPREAD)))

    def _shape(self, n_layer: int, d_model: int) -> Shape:
        return Shape(n_layer, d_model, d_model // self.d_head, self.n_ctx, self.vocab_size)

    def _count(self, n_layer: int, d_model: int) -> int:
        return num_parameters(self._shape(n_layer, d_model), self.count)


def _middle(extra: Mapping[str, Any], name: str, rows: Any = slice(None)) -> float:
    """Median of a column of the runs where it is known; NaN where it is not, or holds no numbers."""
    if name not in extra:
        return float("nan")
    try:
        column = np.asarray(extra[name], dtype=np.float64)[rows]
    except ValueError:
        return float("nan")
    known = column[np.isfinite(column) & (column > 0)]
    return float(np.median(known)) if len(known) else float("nan")


def _proportions(extra: Mapping[str, Any]) -> dict[str, Any]:
    """d_head and aspect of the widest runs, as far as their columns say."""
    if np.isnan(_middle(extra, "d_model")):
        return {}
    width = np.asarray(extra["d_model"], dtype=np.float64)
    widest = width == np.nanmax(width)
    d = _middle(extra, "d_model", widest)
    layers, heads = _middle(extra, "n_layer", widest), _middle(extra, "n_head", widest)
    found = {"aspect": d / layers, "d_head": max(round(d / heads), 1) if heads > 0 else np.nan}
    return {name: value for name, value in found.items() if not np.isnan(value)}


@dataclass(frozen=True)
class Buildable:
    """A shape near the best size.

    Attributes
    ----------
    shape : Shape
    N : parameters of it, as the fit counts them
    wanted : median of N*
    penalty : loss of this shape less that of the median N*: what rounding costs
    regret : loss of this shape less that of each draw's own N*: what not knowing N* costs, too
    """

    shape: Shape
    N: float
    wanted: float
    penalty: Quantity
    regret: Quantity
    family: Family

    def to_json(self) -> dict[str, Any]:
        """Sizes of the shape, its N and what it costs in loss."""
        sizes = {name: getattr(self.shape, name) for name in ("n_layer", "d_model", "n_head", "d_ff")}
        return {
            **sizes,
            "N_parameters": self.N,
            "N_wanted_parameters": self.wanted,
            "penalty_nats": self.penalty.to_json(),
            "regret_nats": self.regret.to_json(),
            "assumed": asdict(self.family),
        }


def buildable(allocation: Allocation, **family: Any) -> Buildable:
    """Return the buildable shape nearest to the median N* of a single budget, and its penalty in loss.

    Parameters
    ----------
    allocation : Allocation
        Of one budget; its bound on size holds for the shape, too.
    d_head, aspect, n_ctx, vocab_size, count
        See `Family`; by default those of the fit's runs (of the largest of them for d_head and aspect) where these say,
        and the count of published constants.

    Raises
    ------
    ConfigError
        No shape of this family is small enough.
    """
    kind = Family.of(allocation.fit, **family)
    wanted = allocation.N.median
    most = allocation.limits.get("max_N_parameters", np.inf)
    sized = [(float(num_parameters(shape, kind.count)), shape) for shape in kind.near(wanted)]
    allowed = [pair for pair in sized if pair[0] <= most * (1 + 1e-9)]
    if not allowed:
        least = min(pair[0] for pair in sized)
        raise ConfigError(
            f"the smallest shape with heads of {kind.d_head} and an aspect of {kind.aspect:g} has {least:.3g} "
            f"parameters, at most {most:.3g} are allowed; make d_head smaller"
        )
    away = [abs(float(np.log(N / wanted))) for N, _ in allowed]
    near = [pair for pair, distance in zip(allowed, away, strict=True) if distance <= max(NEAR, min(away))]
    N, shape = min(near, key=lambda pair: abs(np.log(pair[1].d_model / pair[1].n_layer / kind.aspect)))
    regret = allocation.penalty(N)
    rounding = regret.draws - allocation.penalty(wanted).draws
    return Buildable(shape, N, wanted, Quantity("penalty", rounding, "nats"), regret, kind)
