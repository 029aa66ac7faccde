"""What every backend refuses, in one place: a wrong window or state must be an error, never a silent wrong number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.engine.cohort import Cohort, Precision
from scaling_sim.engine.moments import moment_shapes
from scaling_sim.engine.protocol import Backend, Tokens
from scaling_sim.errors import BackendUnavailable, ConfigError, DataError


def check_start(
    backend: Backend, cohort: Cohort, splits: Mapping[str, Tokens], device: str, precision: Precision
) -> None:
    """Refuse what `Backend.start` cannot serve.

    Raises
    ------
    BackendUnavailable
        The backend does not work here, or not with this cohort, device or precision.
    DataError
        ``train`` is missing, or a split is too short, of the wrong type or holds ids outside the vocabulary.
    """
    reason = backend.why_unavailable() or backend.why_unsupported(cohort, device, precision)
    if reason is not None:
        raise BackendUnavailable(f"backend {backend.name!r}: {reason}")
    if "train" not in splits:
        raise DataError(f"splits must contain 'train', got {sorted(splits)}")
    for name, tokens in splits.items():
        _check_split(name, tokens, cohort)


def _check_split(name: str, tokens: Tokens, cohort: Cohort) -> None:
    if tokens.ndim != 1 or tokens.dtype not in (np.uint8, np.uint16, np.uint32):
        raise DataError(
            f"split {name!r} must be a 1-D uint8, uint16 or uint32 array, got {tokens.ndim}-D {tokens.dtype}"
        )
    if tokens.size <= cohort.shape.n_ctx:
        raise DataError(f"split {name!r} must be longer than n_ctx ({cohort.shape.n_ctx} tokens), got {tokens.size}")
    largest = int(tokens.max())
    if largest >= cohort.shape.vocab_size:
        raise DataError(
            f"token ids of split {name!r} must be below vocab_size ({cohort.shape.vocab_size}), got {largest}"
        )


def check_split_name(name: str, known: Sequence[str]) -> None:
    """Refuse a split that the trainer was not given."""
    if name not in known:
        raise ConfigError(f"unknown split {name!r}; this trainer holds {', '.join(sorted(known))}")


def check_windows(starts: NDArray[np.int64], num_tokens: int, n_ctx: int) -> None:
    """Refuse windows that leave their split: 0 ≤ start ≤ num_tokens − n_ctx − 1.

    Raises
    ------
    DataError
        Naming the offending start; otherwise a negative one would silently wrap around.
    """
    if starts.dtype.kind not in "iu":
        raise DataError(f"window starts must be integers, got {starts.dtype}")
    last = num_tokens - n_ctx - 1
    if starts.size and (int(starts.min()) < 0 or int(starts.max()) > last):
        bad = int(starts.min()) if int(starts.min()) < 0 else int(starts.max())
        raise DataError(f"window starts must lie in 0..{last} ({num_tokens} tokens, n_ctx {n_ctx}), got {bad}")


def check_batches(starts: NDArray[np.int64], lr: NDArray[np.float64], num_live: int, cohort: Cohort) -> None:
    """Refuse arguments of `Trainer.advance` of the wrong shape."""
    expected = (len(starts), num_live, cohort.batch_sequences)
    if starts.shape != expected:
        raise DataError(f"starts must be (steps, live members, batch_sequences) = {expected}, got {starts.shape}")
    if lr.shape != expected[:2]:
        raise DataError(f"lr must be (steps, live members) = {expected[:2]}, got {lr.shape}")


def check_member_axis(starts: NDArray[np.int64], num_live: int) -> NDArray[np.int64]:
    """Evaluation windows as (M, n, B): shared (n, B) windows are repeated for every live member (a view)."""
    if starts.ndim == 2:
        return np.broadcast_to(starts, (num_live, *starts.shape))
    if starts.ndim != 3 or starts.shape[0] != num_live:
        raise DataError(f"starts must be (n, B) or (live members = {num_live}, n, B), got {starts.shape}")
    return starts


def kept_rows(live: Sequence[int], retired: Sequence[int]) -> list[int]:
    """Rows of the M axis that stay when ``retired`` leave.

    Raises
    ------
    ConfigError
        An id is not alive (retired before, or never in the cohort).
    """
    unknown = sorted(set(retired) - set(live))
    if unknown:
        raise ConfigError(f"cannot retire {unknown}: live members are {list(live)}")
    return [row for row, member in enumerate(live) if member not in set(retired)]


def state_ids(cohort: Cohort, state: Mapping[str, NDArray[Any]]) -> tuple[int, ...]:
    """Ids of the members in ``state``, after checking that it fits ``cohort``.

    Raises
    ------
    DataError
        A key is missing, a shape differs, or the ids are not some of the cohort's in its order.
    """
    expected = state_shapes(cohort)
    missing = sorted(set(expected) - set(state))
    if missing:
        raise DataError(f"the state lacks {', '.join(missing)}")
    ids = tuple(int(member) for member in np.asarray(state["ids"]).ravel())
    known = [member.id for member in cohort.members]
    if list(ids) != [member for member in known if member in ids]:
        raise DataError(f"ids of the state must be some of the cohort's, in its order {known}, got {list(ids)}")
    for name, shape in expected.items():
        if state[name].shape != (len(ids), *shape):
            raise DataError(f"{name} of the state must have shape {(len(ids), *shape)}, got {state[name].shape}")
    return ids


def state_shapes(cohort: Cohort) -> dict[str, tuple[int, ...]]:
    """Every key of a trainer's state with the shape of one member's entry."""
    kinds = {"params": cohort.shape.parameter_shapes(), **moment_shapes(cohort)}
    expected = {f"{kind}.{name}": shape for kind, shapes in kinds.items() for name, shape in shapes.items()}
    return expected | {"ids": (), "diverged": ()}


def why_not_optimizer(cohort: Cohort) -> str | None:
    """None for AdamW; what to say where a backend has no other optimiser."""
    if cohort.optimizer == "adamw":
        return None
    return f"it has adamw only, got optimizer {cohort.optimizer!r}; backend 'torch' has it"
