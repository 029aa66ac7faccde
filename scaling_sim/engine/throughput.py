"""Which backend is faster for a cohort, from what was measured of each: the table of a backend and how it is read.

A backend may offer ``measured() -> Sequence[Measured]``: rows of one benchmark run on one card. Rates between the rows
are interpolated, so rows of two backends that are to be compared should be of the same cohorts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from scaling_sim.engine.cohort import Cohort, Precision
from scaling_sim.engine.protocol import Backend
from scaling_sim.model.count import flops_per_token
from scaling_sim.model.shape import Shape


@dataclass(frozen=True)
class Measured:
    """One row: how fast a backend trains ``members`` models of one shape together.

    Attributes
    ----------
    shape : Shape
    members, batch_sequences : int
        M, and sequences per member and update.
    precision : str
    tokens_per_second : float
        Of all members together, whole updates, evaluations not included.
    """

    shape: Shape
    members: int
    batch_sequences: int
    precision: Precision
    tokens_per_second: float


def read_measured(path: Path) -> tuple[Measured, ...]:
    """Rows of a JSON file: a list of flat objects, the fields of `Measured` with those of its shape."""
    found: list[dict[str, Any]] = msgspec.json.decode(path.read_bytes())
    return tuple(
        Measured(
            shape=Shape(**{name: row[name] for name in ("n_layer", "d_model", "n_head", "n_ctx", "vocab_size")}),
            members=row["members"],
            batch_sequences=row["batch_sequences"],
            precision=row["precision"],
            tokens_per_second=float(row["tokens_per_second"]),
        )
        for row in found
    )


def expected_rate(backend: Backend, cohort: Cohort, precision: Precision) -> float | None:
    """Tokens per second that ``backend`` is expected to reach with ``cohort``; None where nothing was measured.

    ln(FLOP/s) is interpolated between the rows of this precision with weights 1/distance⁴ (Shepard 1968) in
    (ln FLOPs per token, ln tokens per update, ln d_model).
    """
    tell: Callable[[], Sequence[Measured]] | None = getattr(backend, "measured", None)
    rows = [row for row in tell() if row.precision == precision] if tell else []
    if not rows:
        return None
    here = _place(cohort.shape, len(cohort.members), cohort.batch_sequences)
    distances = [math.dist(here, _place(row.shape, row.members, row.batch_sequences)) for row in rows]
    logs = [math.log(row.tokens_per_second) + math.log(flops_per_token(row.shape, "exact")) for row in rows]
    weights = [1 / max(distance, 1e-6) ** 4 for distance in distances]
    mean = sum(weight * log for weight, log in zip(weights, logs, strict=True)) / sum(weights)
    return math.exp(mean) / flops_per_token(cohort.shape, "exact")


def _place(shape: Shape, members: int, batch_sequences: int) -> tuple[float, float, float]:
    tokens = members * batch_sequences * shape.n_ctx
    return math.log(flops_per_token(shape, "exact")), math.log(tokens), math.log(shape.d_model)


def fastest(backends: Sequence[Backend], cohort: Cohort, precision: Precision) -> tuple[Backend, str]:
    """The backend with the highest expected rate and why; the first one unless all of them were measured."""
    rates = [expected_rate(backend, cohort, precision) for backend in backends]
    known = [rate for rate in rates if rate is not None]
    if len(backends) == 1 or len(known) < len(backends):
        return backends[0], "" if len(backends) == 1 else "the first that supports it"
    best = max(range(len(backends)), key=known.__getitem__)
    others = ", ".join(
        f"{known[best] / known[i]:.2g}× {backend.name}" for i, backend in enumerate(backends) if i != best
    )
    return backends[best], f"expected {others}"
