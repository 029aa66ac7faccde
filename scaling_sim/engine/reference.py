"""Backend ``numpy``: the contract written out plainly. It is the truth of the conformance kit, not meant to be fast.

Every operation loops over members; the mathematics of one member stands in `scaling_sim.engine.reference_model`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.engine.checks import (
    check_batches,
    check_member_axis,
    check_split_name,
    check_start,
    check_windows,
    kept_rows,
    state_ids,
)
from scaling_sim.engine.cohort import Cohort, Member, Precision
from scaling_sim.engine.moments import MATRICES, adafactor, moment_shapes
from scaling_sim.engine.protocol import State, Tokens
from scaling_sim.engine.reference_model import Array, Dropout, loss_and_gradients, position_losses
from scaling_sim.model.init import initial_parameters
from scaling_sim.model.shape import DECAYED

ADAM_EPSILON = 1e-8


class ReferenceTrainer:
    """A `Trainer` in NumPy; see the protocol for the contract."""

    def __init__(self, cohort: Cohort, splits: Mapping[str, Tokens], dtype: type[np.floating[Any]]) -> None:
        self.cohort = cohort
        self.splits = dict(splits)
        self.dtype = dtype
        self.members = list(cohort.members)
        initial = [initial_parameters(cohort.shape, member.seed, dtype) for member in self.members]
        self.params = {name: np.stack([one[name] for one in initial]) for name in cohort.shape.parameter_shapes()}
        self.moments = {
            kind: {name: np.zeros((len(self.members), *shape), dtype) for name, shape in shapes.items()}
            for kind, shapes in moment_shapes(cohort).items()
        }
        self.diverged = np.zeros(len(self.members), bool)

    def live(self) -> tuple[int, ...]:
        """Ids of the live members, in the order of every M axis."""
        return tuple(member.id for member in self.members)

    def advance(self, first_step: int, starts: NDArray[np.int64], lr: NDArray[np.float64]) -> NDArray[np.float64]:
        """Losses (K, M) of K updates; see `Trainer.advance`."""
        check_batches(starts, lr, len(self.members), self.cohort)
        check_windows(starts, len(self.splits["train"]), self.cohort.shape.n_ctx)
        losses = np.full(lr.shape, np.nan)
        for step in range(len(starts)):
            for row in range(len(self.members)):
                losses[step, row] = self._update(row, first_step + step + 1, starts[step, row], float(lr[step, row]))
        return losses

    def retire(self, ids: Sequence[int]) -> None:
        """Remove members; see `Trainer.retire`."""
        rows = kept_rows(self.live(), ids)
        self.members = [self.members[row] for row in rows]
        for arrays in self._kinds().values():
            arrays.update({name: value[rows] for name, value in arrays.items()})
        self.diverged = self.diverged[rows]

    def evaluate(self, split: str, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean loss per position (M, T) and its standard error over sequences (M,); see `Trainer.evaluate`."""
        check_split_name(split, list(self.splits))
        check_windows(starts, len(self.splits[split]), self.cohort.shape.n_ctx)
        starts_MnB = check_member_axis(starts, len(self.members))
        mean = np.empty((len(self.members), self.cohort.shape.n_ctx))
        error = np.empty(len(self.members))
        for row in range(len(self.members)):
            batches = [self._position_losses(row, split, starts_B) for starts_B in starts_MnB[row]]
            losses_ST = np.concatenate(batches)  # S: all sequences
            mean[row] = losses_ST.mean(axis=0)
            error[row] = standard_error(losses_ST.mean(axis=1))
        return mean, error

    def gradient_noise(self, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """|g_i|² (M, n) and |mean g|² (M,); see `Trainer.gradient_noise`."""
        check_windows(starts, len(self.splits["train"]), self.cohort.shape.n_ctx)
        starts_MnB = check_member_axis(starts, len(self.members))
        small = np.empty(starts_MnB.shape[:2])
        mean = np.empty(len(self.members))
        for row in range(len(self.members)):
            gradients = [self._gradients(row, starts_B, None)[1] for starts_B in starts_MnB[row]]
            small[row] = [squared_norm(one) for one in gradients]
            mean[row] = squared_norm({name: np.mean([one[name] for one in gradients], axis=0) for name in self.params})
        return small, mean

    def state(self) -> State:
        """Copies of weights, moments, ids and marks; see `Trainer.state`."""
        state: State = {"ids": np.array(self.live(), np.int64), "diverged": self.diverged.copy()}
        for kind, arrays in self._kinds().items():
            state.update({f"{kind}.{name}": value.copy() for name, value in arrays.items()})
        return state

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from ``state``; see `Trainer.load_state`."""
        ids = state_ids(self.cohort, state)
        self.members = [member for member in self.cohort.members if member.id in ids]
        for kind, arrays in self._kinds().items():
            arrays.update({name: state[f"{kind}.{name}"].astype(self.dtype) for name in arrays})
        self.diverged = np.array(state["diverged"], bool)

    def _kinds(self) -> dict[str, dict[str, Array]]:
        return {"params": self.params, **self.moments}

    def _update(self, row: int, update: int, starts_B: NDArray[np.int64], lr: float) -> float:
        """Loss before update number ``update`` (1-based) of one member; NaN, and no update, once it has diverged."""
        if self.diverged[row]:
            return math.nan
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            loss, grads = self._gradients(row, starts_B, self._dropout(self.members[row], update))
            norm = math.sqrt(squared_norm(grads))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self.diverged[row] = True
                return math.nan
            step = self._adamw if self.cohort.optimizer == "adamw" else self._adafactor
            step(row, grads, self._clip_factor(norm), update, lr)
        return loss

    def _dropout(self, member: Member, update: int) -> Dropout:
        return Dropout(member.seed, update, member.dropout)

    def _clip_factor(self, norm: float) -> float:
        """min(1, clip_norm / norm)."""
        return self.cohort.clip_norm / norm if norm > self.cohort.clip_norm else 1.0

    def _adamw(self, row: int, grads: Mapping[str, Array], clip_factor: float, update: int, lr: float) -> None:
        """One AdamW update in place (Loshchilov and Hutter 2019, algorithm 2), decay on matrices only."""
        beta1, beta2 = self.cohort.beta1, self.cohort.beta2
        correction1, correction2 = 1 - beta1**update, 1 - beta2**update
        for name, grad in grads.items():
            p, m, v = (self._kinds()[kind][name][row] for kind in ("params", "adam_m", "adam_v"))
            clipped = grad * clip_factor
            m[:] = beta1 * m + (1 - beta1) * clipped
            v[:] = beta2 * v + (1 - beta2) * clipped**2
            decay = self.cohort.weight_decay if name in DECAYED else 0.0
            p[:] = p - lr * decay * p - lr * (m / correction1) / (np.sqrt(v / correction2) + ADAM_EPSILON)

    def _adafactor(self, row: int, grads: Mapping[str, Array], clip_factor: float, update: int, lr: float) -> None:
        """One Adafactor update in place, matrix by matrix; decay as for AdamW."""
        for name, grad in grads.items():
            decay = self.cohort.weight_decay if name in DECAYED else 0.0
            kept = {k.removeprefix("adafactor_"): of[name][row] for k, of in self.moments.items() if name in of}
            layered = grad.ndim > (2 if name in MATRICES else 1)
            for layer in range(len(grad)) if layered else [...]:
                part = {kind: moment[layer] for kind, moment in kept.items()}
                adafactor(self.params[name][row][layer], grad[layer] * clip_factor, part, update, lr, decay)

    def _gradients(
        self, row: int, starts_B: NDArray[np.int64], dropout: Dropout | None
    ) -> tuple[float, dict[str, Array]]:
        tokens_BT, targets_BT = self._windows("train", starts_B)
        return loss_and_gradients(self._member_params(row), self.cohort.shape, tokens_BT, targets_BT, dropout)

    def _position_losses(self, row: int, split: str, starts_B: NDArray[np.int64]) -> Array:
        """(B, T) nats in float64."""
        tokens_BT, targets_BT = self._windows(split, starts_B)
        with np.errstate(over="ignore", invalid="ignore"):
            losses_BT = position_losses(self._member_params(row), self.cohort.shape, tokens_BT, targets_BT)
        return losses_BT.astype(np.float64)

    def _member_params(self, row: int) -> dict[str, Array]:
        return {name: value[row] for name, value in self.params.items()}

    def _windows(self, split: str, starts_B: NDArray[np.int64]) -> tuple[Array, Array]:
        """Inputs and targets, each (B, T): tokens[s : s + T] and tokens[s + 1 : s + T + 1]."""
        positions_BT = starts_B[:, None] + np.arange(self.cohort.shape.n_ctx)
        tokens = self.splits[split]
        return tokens[positions_BT].astype(np.int64), tokens[positions_BT + 1].astype(np.int64)


class ReferenceBackend:
    """NumPy on the CPU, one member after another."""

    name = "numpy"

    def devices(self) -> list[str]:
        """Only the CPU."""
        return ["cpu"]

    def why_unavailable(self) -> str | None:
        """Never: NumPy is always here."""
        return None

    def why_unsupported(self, cohort: Cohort, device: str, precision: Precision) -> str | None:
        """None on the CPU in float64 or float32."""
        if device != "cpu":
            return f"the reference runs on 'cpu' only, got device {device!r}"
        if precision not in ("float64", "float32"):
            return f"the reference computes in float64 or float32, got precision {precision!r}"
        return None

    def start(
        self, cohort: Cohort, splits: Mapping[str, Tokens], device: str = "cpu", precision: Precision = "float32"
    ) -> ReferenceTrainer:
        """A trainer with the cohort's initial weights."""
        check_start(self, cohort, splits, device, precision)
        return ReferenceTrainer(cohort, splits, np.float64 if precision == "float64" else np.float32)


BACKEND = ReferenceBackend()


def squared_norm(arrays: Mapping[str, Array]) -> float:
    """Sum of squares of all entries, accumulated in float64."""
    return float(sum(np.sum(np.square(value, dtype=np.float64)) for value in arrays.values()))


def standard_error(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard error of the mean of independent ``values`` along the last axis; NaN for fewer than two."""
    number = values.shape[-1]
    if number < 2:
        return np.full(values.shape[:-1], np.nan)
    error: NDArray[np.float64] = values.std(axis=-1, ddof=1) / math.sqrt(number)
    return error
