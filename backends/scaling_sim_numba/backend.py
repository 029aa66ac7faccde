"""The CPU backend's door: what is available, what is supported, and how a trainer starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scaling_sim.engine.checks import check_start, why_not_optimizer
from scaling_sim.engine.cohort import Cohort, Member, Precision
from scaling_sim.engine.protocol import Tokens
from scaling_sim.model.shape import Shape

if TYPE_CHECKING:
    from scaling_sim_numba.trainer import NumbaTrainer


@dataclass
class NumbaBackend:
    """Numba kernels on the processor's cores; see `scaling_sim.engine.protocol` for the contract.

    Parameters
    ----------
    num_threads : int
        Threads of a trainer; 0 means ``NUMBA_NUM_THREADS``, by default one per core that this process may use. Members
        are spread over threads, and left-over threads share a member's batch. Results do not depend on it.
    """

    num_threads: int = 0
    name: str = "numba"

    def devices(self) -> list[str]:
        """``["cpu"]``, or nothing where Numba is missing."""
        return [] if self.why_unavailable() else ["cpu"]

    def why_unavailable(self) -> str | None:
        """None, or what is missing or broken."""
        try:
            import numba  # noqa: F401
        except Exception as error:  # a broken installation raises anything at all
            return f"numba is needed, and importing it failed ({error}); pip install numba"
        return None

    def why_unsupported(self, cohort: Cohort, device: str, precision: Precision) -> str | None:
        """None, or what stands in the way."""
        if device != "cpu":
            return f"the numba backend computes on 'cpu' only, not on {device!r}"
        if precision not in ("float32", "float64"):
            return f"the numba backend computes in float32 or float64, not in {precision}"
        return why_not_optimizer(cohort)

    def start(
        self, cohort: Cohort, splits: Mapping[str, Tokens], device: str = "cpu", precision: Precision = "float32"
    ) -> NumbaTrainer:
        """A trainer with initial weights. The first one on a machine compiles for half a minute; then the cache serves.

        Raises
        ------
        BackendUnavailable, DataError
            See `scaling_sim.engine.checks.check_start`.
        """
        check_start(self, cohort, splits, device, precision)
        from scaling_sim_numba.trainer import NumbaTrainer

        return NumbaTrainer(cohort, splits, precision, self.threads())

    def prepare(self, precision: Precision = "float32") -> None:
        """Compile now, so that workers spawned afterwards find the machine code in the cache."""
        shape = Shape(n_layer=1, d_model=1, n_head=1, n_ctx=1, vocab_size=2)
        cohort = Cohort(shape=shape, batch_sequences=1, members=(Member(id=0, seed=0),))
        NumbaBackend(num_threads=1).start(cohort, {"train": np.zeros(2, np.uint8)}, precision=precision)

    def threads(self) -> int:
        """Threads that a trainer will use."""
        import numba

        return self.num_threads or int(numba.config.NUMBA_NUM_THREADS)

    def worker_environment(self, threads: int = 1) -> dict[str, str]:
        """Environment variables for a worker process that the caller spawns; see `scaling_sim_numba.cpu`."""
        from scaling_sim_numba.cpu import worker_environment

        return worker_environment(threads)

    def describe(self) -> dict[str, str]:
        """Version, processor, vectors and threads, for the record of a run."""
        from scaling_sim_numba.cpu import describe

        return describe(self.threads())


BACKEND = NumbaBackend()
