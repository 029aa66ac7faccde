"""What a plan must not exceed: a size for serving, the tokens that exist, the memory of the GPUs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling_sim.errors import ConfigError

BYTES_PER_PARAMETER = 16.0
"""Mixed-precision AdamW: weights and gradients of 2 bytes, a 4-byte master copy and two 4-byte moments (Rajbhandari et
al. 2020, arXiv 1910.02054, section 3.1). float32 throughout is 16, too."""


@dataclass(frozen=True)
class Limits:
    """Bounds of an allocation; ∞ where there is none.

    Attributes
    ----------
    max_N : parameters, by the definition of the fit
    unique_tokens : fresh tokens that exist
    notes : what was assumed on the way, for people
    """

    max_N: float = np.inf
    unique_tokens: float = np.inf
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        max_N: float | None = None,
        unique_tokens: float | None = None,
        gpu_memory: float | None = None,
        bytes_per_parameter: float = BYTES_PER_PARAMETER,
        num_gpus: float | None = None,
    ) -> Limits:
        """Bounds from what a user says; the memory of ``num_gpus`` (one if unknown) GPUs bounds N, too.

        Raises
        ------
        ConfigError
            A bound is not positive.
        """
        given = {"max_N": max_N, "unique_tokens": unique_tokens, "gpu_memory": gpu_memory}
        for name, value in (*given.items(), ("bytes_per_parameter", bytes_per_parameter)):
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above 0, got {value}")
        size = np.inf if max_N is None else float(max_N)
        notes: tuple[str, ...] = ()
        if gpu_memory is not None:
            gpus = 1.0 if num_gpus is None else num_gpus
            size = min(size, gpus * gpu_memory / bytes_per_parameter)
            notes = (memory_note(gpus, gpu_memory, bytes_per_parameter),)
        return cls(size, np.inf if unique_tokens is None else float(unique_tokens), notes)

    @property
    def some(self) -> bool:
        """Whether there is any bound."""
        return bool(np.isfinite(self.max_N) or np.isfinite(self.unique_tokens))

    def to_json(self) -> dict[str, float]:
        """The bounds there are, with units in the keys."""
        both = {"max_N_parameters": self.max_N, "unique_tokens": self.unique_tokens}
        return {name: value for name, value in both.items() if np.isfinite(value)}


def memory_note(num_gpus: float, gpu_memory: float, bytes_per_parameter: float) -> str:
    """What a bound by memory assumes."""
    return (
        f"memory: N ≤ {num_gpus:g} GPUs × {gpu_memory:.3g} bytes / {bytes_per_parameter:g} bytes per parameter; "
        "weights, gradients and optimiser state spread evenly over the GPUs; activations are not counted, and "
        "parameters only as far as the fit's N counts them"
    )
