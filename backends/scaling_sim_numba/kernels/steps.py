"""The entry point: whole steps of one member, by one thread or by a team that splits the batch into chunks.

The bits do not depend on the size of the team. Chunks are cut from the batch alike; gradient buffer j of 8 sums chunks
j, j + 8, … in order; buffers are added in order; norms are summed over fixed blocks of parameters. A lone thread does
the same sums with two buffers instead of eight.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# (Numba infers the types of kernels.)

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from scaling_sim_numba.kernels.adamw import adamw, sum_buffers
from scaling_sim_numba.kernels.barrier import wait
from scaling_sim_numba.kernels.compiler import cached_kernel, kernel, source_fingerprint
from scaling_sim_numba.kernels.model import chunk_loss
from scaling_sim_numba.kernels.views import vector

NUM_BUFFERS = 8

TRAIN, NOISE, EVALUATE = 0, 1, 2
"""What a step does with its batch: update the weights; add up gradients; only the loss of every position."""


class Optimiser(NamedTuple):
    """AdamW and clipping, equal for all members of a cohort."""

    beta1: float
    beta2: float
    weight_decay: float
    clip_norm: float


@kernel
def read_window(data, token_bytes, start, inputs, targets):
    """Copy one window of little-endian tokens; targets are one token behind the inputs."""
    for t in range(inputs.size + 1):
        first = (start + t) * token_bytes
        token = np.int32(data[first])
        for byte in range(1, token_bytes):
            token |= np.int32(data[first + byte]) << np.int32(8 * byte)
        if t < inputs.size:
            inputs[t] = token
        if t > 0:
            targets[t - 1] = token


@kernel
def batch_part(
    sizes, at, to, params, buffers, arena, tokens, data, token_bytes, starts_B, drop, step, gradient, worker, team,
    row_losses, chunk_losses,
):  # fmt: skip
    """Losses of the chunks that fall to ``worker``, and their gradients into its buffers (added up if it is alone)."""
    T, B = sizes.context, starts_B.size
    weight = 1.0 / (B * T)
    num_chunks = chunk_losses.size
    for j in range(worker, min(NUM_BUFFERS, num_chunks), team):
        grads = buffers[j if team > 1 else min(j, 1)]
        if gradient:
            grads[:] = params.dtype.type(0.0)
        for c in range(j, num_chunks, NUM_BUFFERS):
            first = c * sizes.chunk
            count = min(sizes.chunk, B - first)
            inputs, targets = tokens[: count * T], tokens[count * T : 2 * count * T]
            for s in range(count):
                window = slice(s * T, (s + 1) * T)
                read_window(data, token_bytes, starts_B[first + s], inputs[window], targets[window])
            losses = row_losses[first * T : (first + count) * T]
            chunk_loss(
                sizes, at, to, params, grads, arena, inputs, targets, losses, weight, drop, step, first * T, gradient
            )
            total = 0.0
            for r in range(losses.size):
                total += np.float64(losses[r])
            chunk_losses[c] = total
        if gradient and team == 1 and j > 0:
            first_buffer = buffers[0]
            for i in range(grads.size):
                first_buffer[i] += grads[i]


@kernel
def update_part(blocks, params, moment1, moment2, grads, squares, lr, optimiser, step, worker, team):
    """Clip and update the blocks that fall to ``worker``; false, and nothing changed, if the norm is not finite."""
    norm = np.sqrt(squares.sum())
    if not np.isfinite(norm):
        return False
    clip = optimiser.clip_norm / norm if norm > optimiser.clip_norm else 1.0
    for b in range(worker, blocks.shape[0], team):
        start, size, decayed = blocks[b]
        decay = optimiser.weight_decay if decayed else 0.0
        adamw(params, moment1, moment2, grads, start, size, clip, lr, decay, optimiser.beta1, optimiser.beta2, step)
    return True


def _build(fingerprint: str) -> Any:
    """The entry point. Its closure holds the hash of the sources, and with it the key of the compiler cache does."""

    @cached_kernel
    def member_steps(
        mode, first_step, sizes, at, to, blocks, data, token_bytes, starts_KB, lr_K, optimiser, drop,
        params, moment1, moment2, diverged, buffers, total, arena, tokens, row_losses, chunk_losses, squares,
        barrier, worker, team, values_K,
    ):  # fmt: skip
        """Run the K batches of ``starts_KB``; every thread of the team makes this call with its own ``worker``.

        ``values_K`` receives the mean loss of each batch (`TRAIN`, `EVALUATE`) or |g|² (`NOISE`: ``total`` gains g).
        Three barriers a step: gradients ready, sums and norms ready, weights updated.
        """
        _ = fingerprint
        stopped = diverged[0]
        count = min(NUM_BUFFERS, chunk_losses.size) if team > 1 else 1
        for k in range(starts_KB.shape[0]):
            step = first_step + k + 1
            if stopped:
                values_K[k] = np.nan
                continue
            batch_part(
                sizes, at, to, params, buffers, arena, tokens, data, token_bytes, starts_KB[k], drop, step,
                mode != EVALUATE, worker, team, row_losses, chunk_losses,
            )  # fmt: skip
            wait(barrier, team)
            loss = chunk_losses.sum() / (starts_KB.shape[1] * sizes.context)
            if mode != EVALUATE:
                for b in range(worker, blocks.shape[0], team):
                    squares[b] = sum_buffers(buffers, count, blocks[b, 0], blocks[b, 1])
                wait(barrier, team)
            if mode == TRAIN:
                ok = np.isfinite(loss) and update_part(
                    blocks, params, moment1, moment2, buffers[0], squares, lr_K[k], optimiser, step, worker, team
                )
                stopped = not ok
                values_K[k] = loss if ok else np.nan
            elif mode == NOISE:
                values_K[k] = squares.sum()
                for b in range(worker, blocks.shape[0], team):
                    summed = vector(total, blocks[b, 0], blocks[b, 1])
                    grads = vector(buffers[0], blocks[b, 0], blocks[b, 1])
                    for i in range(summed.size):
                        summed[i] += grads[i]
            else:
                values_K[k] = loss
            wait(barrier, team)
        diverged[0] = stopped

    return member_steps


member_steps = _build(source_fingerprint())
