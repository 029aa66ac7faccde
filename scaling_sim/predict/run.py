"""What is asked of a forecast: one run, in the words of the documentation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ConfigError


@dataclass(frozen=True)
class Run:
    """A run to be predicted; None where it was not said and does not follow.

    N parameters; D unique tokens; tokens = B·S processed; B tokens per step; S steps.
    """

    N: float | None
    D: float | None
    tokens: float | None
    B: float | None
    S: float | None

    @classmethod
    def of(cls, **given: float | None) -> Run:
        """Complete what was given: tokens = B·S; D alone or tokens alone mean one pass.

        Raises
        ------
        ConfigError
            If a number is not one positive, finite number, tokens, B and S contradict each other, or D exceeds tokens.
        """
        for name, value in given.items():
            if value is not None and np.ndim(value) != 0:
                raise ConfigError(f"{name} must be one number, got {value!r}; call once for each run")
            if value is not None and not (np.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be positive and finite, got {value}")
        N, D, tokens, B, S = (given.get(name) for name in ("N", "D", "tokens", "B", "S"))
        if B is not None and S is not None:
            if tokens is not None and abs(tokens / (B * S) - 1) > 1e-3:
                raise ConfigError(f"tokens must be B·S = {B * S:g}, got {tokens:g}; give two of the three")
            tokens = B * S
        elif tokens is not None and B is not None:
            S = tokens / B
        elif tokens is not None and S is not None:
            B = tokens / S
        elif tokens is None and D is not None and (B is not None or S is not None):
            tokens = D  # one pass
            B, S = (B, D / B) if B is not None else (D / S, S)  # type: ignore[operator]
        if D is not None and tokens is not None and tokens * (1 + 1e-6) < D:
            raise ConfigError(
                f"unique tokens D must not exceed the tokens processed, got D = {D:g} and tokens = {tokens:g}; "
                "for one pass over part of the data leave D out"
            )
        return cls(N, D, tokens, B, S)

    @property
    def C(self) -> float:
        """Compute paid, 6·N·tokens FLOP (one pass if only D is known); NaN if unknown."""
        tokens = self.tokens if self.tokens is not None else self.D
        return float("nan") if self.N is None or tokens is None else 6 * self.N * tokens

    @property
    def repeats(self) -> bool:
        """Whether tokens exceed the unique ones."""
        return self.D is not None and self.tokens is not None and self.tokens > self.D * (1 + 1e-9)

    def columns(self, names: tuple[str, ...], law: str) -> dict[str, NDArray[np.float64]]:
        """(1,) arrays of the columns that a law reads."""
        known = {
            "N": self.N,
            "D": self.D if self.D is not None else self.tokens,
            "tokens": self.tokens if self.tokens is not None else self.D,
            "B": self.B,
            "S": self.S,
            "C": self.C if np.isfinite(self.C) else None,
        }
        missing = [name for name in names if known.get(name) is None]
        if missing:
            needs = ", ".join("N and tokens" if name == "C" else name for name in names)
            raise ConfigError(f"a forecast by {law!r} needs {needs}; {', '.join(missing)} is missing")
        return {name: np.array([known[name]], dtype=np.float64) for name in names}

    def to_json(self) -> dict[str, Any]:
        """What is known, with units in the keys."""
        units = {"N": "parameters", "D": "tokens", "B": "tokens", "S": "steps"}
        known = {
            f"{k}_{units[k]}" if k in units else k: v for k, v in dataclasses.asdict(self).items() if v is not None
        }
        return known | ({"C_flop": self.C} if np.isfinite(self.C) else {})
