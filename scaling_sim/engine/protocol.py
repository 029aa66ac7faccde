"""What a backend must do. The contract stands here and nowhere else.

The core decides everything that must be equal everywhere: initial weights (`scaling_sim.model.init`), the token windows
of every batch (`scaling_sim.data.batches`), the learning rate of every step, the dropout masks, when to evaluate and
when a member ends. A backend only turns them into numbers, as fast as its hardware can.

Letters: M live members in the order in which the cohort lists them, K steps, B sequences per batch, T = n_ctx,
n repetitions.

Rules
-----
* A member's numbers do not depend on the other members of its cohort.
* Window ``s`` of a split is ``tokens[s : s + T + 1]``: inputs are its first T tokens, targets its last T.
* Loss is the mean cross-entropy of the next token over all B·T positions, in nats.
* Update ``k`` (1-based count of updates, equal to ``first_step + 1`` for the first one of a call): gradient of the mean
  loss; clip the member's global norm to ``clip_norm``; AdamW with ``beta1``, ``beta2``, ε = 1e-8, bias correction by
  k, decay lr·weight_decay on `scaling_sim.model.shape.DECAYED` only. A cohort may ask for Adafactor instead
  (`scaling_sim.engine.moments.adafactor`); a backend without it says so in `Backend.why_unsupported`.
* Dropout mask of update k: word ``column % 4`` of Philox4x32-10 with key = member seed (low, high 32 bits) and counter
  (k, site, row, column // 4); site 0 is the embedding, 1 + 2l the attention output and 2 + 2l the feed-forward output
  of layer l; row = b·T + t within the batch; an element is kept where the word ≥ round(rate · 2³²), then divided by
  1 − rate.
* A member whose loss or gradient norm is not finite is marked diverged: its loss is reported as NaN from that step on,
  its weights are left as they were, the others are untouched.
* Arguments may be strided or read-only (a memory map); they are neither changed nor kept. Returned arrays are the
  caller's.
* Windows that leave their split, unknown splits and ids, wrong shapes and states that do not fit raise a
  `ScalingSimError` before anything is computed; `scaling_sim.engine.checks` has the checks and their wording.
* A trainer is used by one thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from scaling_sim.engine.cohort import Cohort, Precision

Tokens = NDArray[np.unsignedinteger[Any]]
State = dict[str, NDArray[Any]]


@runtime_checkable
class Trainer(Protocol):
    """Weights and optimiser state of one cohort, placed on one device.

    Where several processes train it together, it also has ``agree(number) -> int`` (rank 0's number on every rank) and
    ``leads`` (whether this process writes files); all of them make the same calls, and `state` is collective.
    """

    def advance(self, first_step: int, starts: NDArray[np.int64], lr: NDArray[np.float64]) -> NDArray[np.float64]:
        """Losses of K whole updates, (K, M) nats, each measured before its update.

        Parameters
        ----------
        first_step : int
            Updates done before this call.
        starts : (K, M, B) int64 array
            Window starts in the ``train`` split.
        lr : (K, M) float array
            Learning rate of each update.
        """
        ...

    def retire(self, ids: Sequence[int]) -> None:
        """Remove members (finished, stopped early, diverged); the rest keep their order."""
        ...

    def live(self) -> tuple[int, ...]:
        """Ids of the members still here, in the order of every M axis."""
        ...

    def evaluate(self, split: str, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean loss per position (M, T) and standard error over sequences of the mean loss (M,), nats; no dropout.

        The standard error of a single sequence is NaN.

        ``starts`` is (n, B), the same windows for all members, or (M, n, B).
        """
        ...

    def gradient_noise(self, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Squared norms ``|g_i|²`` (M, n) of each small batch's gradient and ``|mean_i g_i|²`` (M,).

        Unclipped, no dropout. ``starts`` is (M, n, B_small) in the ``train`` split. Leaves the state untouched.
        """
        ...

    def state(self) -> State:
        """Everything needed to go on bit for bit, as NumPy arrays that the caller owns.

        Keys: ``params.NAME`` of shape ``(M, *shape)`` in the trainer's master dtype for every NAME of
        `Shape.parameter_shapes`; ``KIND.NAME`` for the moments of its optimiser
        (`scaling_sim.engine.moments.moment_shapes`: ``adam_m``, ``adam_v``); ``ids`` (M,) int64; ``diverged`` (M,)
        bool.
        """
        ...

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from ``state``: its ``ids`` (a subset of the cohort's) become the live members."""
        ...


@runtime_checkable
class Backend(Protocol):
    """One way to compute. ``name`` is what users type."""

    name: str

    def devices(self) -> list[str]:
        """Devices that it can use here, best first ("cuda:0", "cpu"); empty if unavailable."""
        ...

    def why_unavailable(self) -> str | None:
        """None if it works here, else one sentence: what is missing and how to get it."""
        ...

    def why_unsupported(self, cohort: Cohort, device: str, precision: Precision) -> str | None:
        """None if it can train ``cohort`` so, else one sentence that says what stands in the way."""
        ...

    def start(
        self, cohort: Cohort, splits: Mapping[str, Tokens], device: str = "cpu", precision: Precision = "float32"
    ) -> Trainer:
        """A trainer with the cohort's initial weights; every split is placed on the device once.

        ``splits`` maps names to 1-D arrays of token ids (uint8, uint16 or uint32); ``train`` must be among them.
        """
        ...
