"""The trainer of one cohort on the processor: the contract in terms of flat vectors; the work is the crew's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.engine.checks import (
    check_batches,
    check_member_axis,
    check_split_name,
    check_windows,
    kept_rows,
    state_ids,
)
from scaling_sim.engine.cohort import Cohort, Precision
from scaling_sim.engine.protocol import State, Tokens
from scaling_sim.engine.reference import standard_error
from scaling_sim.model.init import initial_parameters
from scaling_sim_numba.crew import Crew, Models, Split, Work
from scaling_sim_numba.kernels.steps import EVALUATE, NOISE, TRAIN
from scaling_sim_numba.layout import offsets_of


class NumbaTrainer:
    """A `scaling_sim.engine.protocol.Trainer`; see there for the contract.

    To be used by one thread; its own threads live as long as it does. Weights and moments are rows of flat vectors
    (M, n), so that reduction, clipping and update are plain loops.
    """

    def __init__(self, cohort: Cohort, splits: Mapping[str, Tokens], precision: Precision, num_threads: int) -> None:
        self._cohort = cohort
        self._real = np.dtype(precision).type
        self._splits = {name: Split(tokens) for name, tokens in splits.items()}
        self._total = offsets_of(cohort.shape).total
        members = list(cohort.members)
        self._models = Models.zeros(members, self._total, self._real)
        for row, member in enumerate(members):
            parameters = initial_parameters(cohort.shape, member.seed, dtype=self._real)
            self._models.params[row] = np.concatenate([value.ravel() for value in parameters.values()])
        self._crew = Crew(cohort, self._real, num_threads)
        self._crew.compile(self._models, self._splits["train"])

    def live(self) -> tuple[int, ...]:
        """Ids of the members still here, in the order of every M axis."""
        return tuple(member.id for member in self._models.members)

    def advance(self, first_step: int, starts: NDArray[np.int64], lr: NDArray[np.float64]) -> NDArray[np.float64]:
        """Losses (K, M) of K updates; see `Trainer.advance`."""
        check_batches(starts, lr, len(self.live()), self._cohort)
        work = Work(
            TRAIN,
            self._splits["train"],
            self._windows("train", np.swapaxes(starts, 0, 1)),
            first_step=int(first_step),
            lr_MK=np.array(lr.T, np.float64, order="C"),
        )
        return np.ascontiguousarray(self._crew.run(work, self._models).T)

    def retire(self, ids: Sequence[int]) -> None:
        """Remove members and free their memory; see `Trainer.retire`."""
        self._models = self._models.rows(kept_rows(self.live(), ids))

    def evaluate(self, split: str, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean loss per position (M, T) and its standard error over sequences (M,); see `Trainer.evaluate`."""
        check_split_name(split, list(self._splits))
        members, context = len(self.live()), self._cohort.shape.n_ctx
        windows = check_member_axis(starts, members).reshape(members, 1, -1)
        rows_MR = np.zeros((members, windows.shape[2] * context), self._real)
        work = Work(EVALUATE, self._splits[split], self._windows(split, windows), rows_MR=rows_MR)
        self._crew.run(work, self._models)
        mean, error = np.empty((members, context)), np.empty(members)
        for row in range(members):
            losses_ST = rows_MR[row].reshape(-1, context).astype(np.float64)
            mean[row] = losses_ST.mean(axis=0)
            error[row] = standard_error(losses_ST.mean(axis=1))
        return mean, error

    def gradient_noise(self, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """|g_i|² (M, n) and |mean g|² (M,); see `Trainer.gradient_noise`."""
        starts_MnB = self._windows("train", check_member_axis(starts, len(self.live())))
        totals = np.zeros_like(self._models.params)
        squares_Mn = self._crew.run(Work(NOISE, self._splits["train"], starts_MnB, totals_Mn=totals), self._models)
        mean = np.array([np.square(total, dtype=np.float64).sum() for total in totals])
        return squares_Mn, mean / starts_MnB.shape[1] ** 2

    def state(self) -> State:
        """Copies of weights, moments, ids and marks; see `Trainer.state`."""
        state: State = {"ids": np.array(self.live(), np.int64), "diverged": self._models.diverged.copy()}
        for kind, vectors in self._kinds().items():
            for name, (place, size) in self._places().items():
                state[f"{kind}.{name}"] = vectors[:, place].reshape(len(vectors), *size).copy()
        return state

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from ``state``; see `Trainer.load_state`."""
        ids = state_ids(self._cohort, state)
        members = [member for member in self._cohort.members if member.id in ids]
        self._models = Models.zeros(members, self._total, self._real)
        self._models.diverged[:] = state["diverged"]
        for kind, vectors in self._kinds().items():
            for name, (place, _) in self._places().items():
                vectors[:, place] = state[f"{kind}.{name}"].reshape(len(ids), place.stop - place.start)

    def _kinds(self) -> dict[str, NDArray[Any]]:
        return {"params": self._models.params, "adam_m": self._models.adam_m, "adam_v": self._models.adam_v}

    def _places(self) -> dict[str, tuple[slice, tuple[int, ...]]]:
        """Where each parameter lies in a flat vector, and its shape."""
        sizes = self._cohort.shape.parameter_shapes()
        ends = list(offsets_of(self._cohort.shape))
        return {
            name: (slice(first, last), size)
            for (name, size), first, last in zip(sizes.items(), ends[:-1], ends[1:], strict=True)
        }

    def _windows(self, split: str, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """A checked copy of window starts: compiled code reads tokens without bounds checks."""
        check_windows(starts, self._splits[split].num_tokens, self._cohort.shape.n_ctx)
        return np.array(starts, np.int64, order="C")
