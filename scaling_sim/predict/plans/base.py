"""What a plan is: how one law spends given budgets, and what any other size would reach, for every draw.

A plan knows budgets C (k,) in FLOP paid, how the batch is chosen, and the limits that sizes and tokens must keep.
Draws are (n_draws, k) arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from scaling_sim.predict.constraints import Limits

Array = NDArray[np.float64]
Draws = dict[str, Array]

BLOCK = 1 << 14


@dataclass(frozen=True)
class Policy:
    """How the batch is chosen: B_crit of the loss reached; a number of tokens; or what a deadline's steps (k,) need."""

    kind: Literal["critical", "fixed", "steps"] = "critical"
    value: Any = None

    def take(self, i: int) -> Policy:
        """The policy of one of the budgets."""
        return replace(self, value=self.value[i : i + 1]) if self.kind == "steps" else self


@dataclass(frozen=True)
class Plan(ABC):
    """One law's answers; parameters ``p`` are (n_draws, 1) columns."""

    p: Mapping[str, Array]
    C: Array
    policy: Policy = field(default_factory=Policy)
    limits: Limits = field(default_factory=Limits)

    @abstractmethod
    def best(self) -> Draws:
        """Every quantity at the best size within the limits."""

    @abstractmethod
    def at(self, N: Array) -> Draws:
        """Every quantity if N parameters make the best of the budget, within the limits of tokens."""

    @abstractmethod
    def valley(self, loss: Array) -> tuple[Array, Array]:
        """Least and largest N within the limits that reach ``loss`` (n_draws, k)."""

    def notes(self) -> tuple[str, ...]:
        """What a reader must know."""
        return ()

    def take(self, i: int) -> Plan:
        """The plan of one of the budgets."""
        return replace(self, C=self.C[i : i + 1], policy=self.policy.take(i))

    def blocks(self, which: NDArray[np.bool_]) -> Iterator[tuple[tuple[NDArray[np.int64], ...], Self]]:
        """Where the mask holds, a few at a time: their places, and the plan there, flat: (m,) parameters and budgets.

        A block's arrays stay in the cache while a root is sought.
        """
        places = np.nonzero(which)
        for first in range(0, len(places[0]), BLOCK):
            at = tuple(axis[first : first + BLOCK] for axis in places)

            def taken(values: Any) -> Array:
                return np.asarray(np.broadcast_to(values, which.shape)[at], dtype=np.float64)  # noqa: B023

            p = {name: taken(values) for name, values in self.p.items()}
            value = taken(self.policy.value) if self.policy.kind == "steps" else self.policy.value
            yield at, replace(self, p=p, C=taken(self.C), policy=replace(self.policy, value=value))

    def clipped(self, low: Array, high: Array) -> tuple[Array, Array]:
        """A valley cut at the largest size allowed."""
        return np.minimum(low, self.limits.max_N), np.minimum(high, self.limits.max_N)


def with_batch(
    N: Array, tokens: Array, B: Array, S: Array, loss: Array, C: Array, C_min: Array, S_min: Array, B_crit: Array,
    limits: Limits,
) -> Draws:  # fmt: skip
    """Quantities of a law that knows batches; tokens and epochs beside D where tokens may repeat."""
    found = {"N": N, "D": tokens, "B": B, "S": S, "loss": loss, "C": C + np.zeros_like(N)}
    found |= {"C_min": C_min, "S_min": S_min, "B_crit": B_crit}
    if np.isfinite(limits.unique_tokens):
        unique = np.minimum(tokens, limits.unique_tokens)
        found |= {"D": unique, "tokens": tokens, "epochs": tokens / unique}
    return found
