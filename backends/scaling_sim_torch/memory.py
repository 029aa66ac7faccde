"""How many bytes each path takes, and how finely batches must be cut: estimated before anything is allocated."""

from __future__ import annotations

from scaling_sim.engine.cohort import Cohort, Optimizer, Precision
from scaling_sim.model.count import memory_estimate, num_parameters
from scaling_sim.model.shape import Shape

BUFFERS = 2 * 256 * 2**20
"""One chunk of logits and its gradient."""
TABLES = 2**27
"""Window starts, learning rates, sums of layer norms' gradients."""

SHARE_OF_FREE = 0.85
"""Of the free memory that the estimate of a sharded model may take: once one rank has run out, the ranks cannot go on
with smaller micro-batches, since the others wait for it."""

PIECES_FROM = 512
"""d_model from which the gradient of one model stays in the pieces that products give (`stacked`): the launches of
AdamW, one for each, are hidden by then."""


def fused_bytes(cohort: Cohort) -> float:
    """Bytes of the fused path: weights, moments, gradient and its parts, what each layer keeps per position, and an
    evaluation's work space beside it.

    Measured for 64 members of (4, 128), 512 Ki tokens: 7.6 GiB without evaluations, estimated 8.4 with them.
    """
    shape, num_members = cohort.shape, len(cohort.members)
    total = num_parameters(shape, "total") * num_members
    # Two float32 streams, log-sum-exps; in bfloat16 both layer norms' results, queries, keys, values, the attention's
    # result. Then the last stream, normed too.
    kept = (20 * shape.d_model + 4 * shape.n_head) * shape.n_layer + 6 * shape.d_model
    working = 8 * shape.d_model + 2 * shape.d_ff + 16
    evaluation = 12 * shape.d_model + 12
    rows = num_members * cohort.batch_sequences * shape.n_ctx
    fixed = _bytes_per_parameter(cohort.optimizer) * total + 4 * max(total, 2**24) + TABLES
    return float(fixed + rows * (kept + working + evaluation))


def _bytes_per_parameter(optimizer: Optimizer) -> int:
    """Weight, gradient and two moments in float32, the weight once more in bfloat16; Adafactor's moments are small."""
    return 4 * 4 + 2 if optimizer == "adamw" else 2 * 4 + 2


def least_bytes(cohort: Cohort, precision: Precision, ranks: int = 1) -> float:
    """Bytes on each card without which a cohort cannot be trained, however finely its batches are cut."""
    shape, num_members, batch = cohort.shape, len(cohort.members), cohort.batch_sequences
    if precision != "bfloat16":
        item = 8 if precision == "float64" else 4
        return float(memory_estimate(shape, batch, num_members, item, item).total)
    whole = unshared_bytes(cohort)
    if ranks == 1 or num_members > 1 or cohort.optimizer != "adamw":
        return whole
    return min(whole, sharded_bytes(shape, ranks, 1, checkpointed=True) / SHARE_OF_FREE)


def unshared_bytes(cohort: Cohort) -> float:
    """Least bytes of the stacked path on a card that holds all weights."""
    dropout = any(member.dropout for member in cohort.members)  # its masks are numbered within a whole batch
    sequences = cohort.batch_sequences if dropout else 1
    return stacked_bytes(cohort.shape, len(cohort.members), sequences, checkpointed=True, optimizer=cohort.optimizer)


def stacked_bytes(
    shape: Shape, num_members: int, sequences: int, *, checkpointed: bool = False, optimizer: Optimizer = "adamw",
    whole: bool = False,
) -> float:  # fmt: skip
    """Estimated bytes of a stacked cohort: weights, moments and gradients, activations of one micro-batch, one chunk.

    With ``whole``, a batch of one rank is one micro-batch: the gradient may stay in pieces then, bfloat16 but for
    the embeddings', which take the place of activations.
    """
    total = num_parameters(shape, "total") * num_members
    fixed = _bytes_per_parameter(optimizer) * total + BUFFERS
    activations = _activation_bytes(shape, num_members * sequences, checkpointed)
    if whole and by_pieces(shape, num_members, optimizer):
        matrices = total - _num_embeddings(shape)
        return fixed - 4 * matrices + max(activations, 2.0 * matrices)
    return fixed + activations


def _num_embeddings(shape: Shape) -> int:
    return (shape.vocab_size + shape.n_ctx) * shape.d_model


def by_pieces(shape: Shape, num_members: int, optimizer: Optimizer) -> bool:
    """Whether the gradient of a whole batch stays in pieces."""
    return num_members == 1 and optimizer == "adamw" and shape.d_model >= PIECES_FROM


def sharded_bytes(shape: Shape, ranks: int, sequences: int, *, checkpointed: bool = False) -> float:
    """Estimated bytes on each of ``ranks`` cards that share one model.

    A share of weights, gradients and moments (float32); embeddings whole with their gradient, once more each on their
    way from and to the other ranks, and a bfloat16 copy; the matrices of two blocks and the gradients of one, whole in
    bfloat16. Measured on two cards at (24, 1024), 48 Ki tokens on each: 36.5 GiB, estimated 35.5.
    """
    total = num_parameters(shape, "total")
    embeddings = _num_embeddings(shape)
    block = (4 * shape.d_model + 2 * shape.d_ff) * shape.d_model
    fixed = 16 * total / ranks + 20 * embeddings + 3 * 2 * block + BUFFERS
    return fixed + _activation_bytes(shape, sequences, checkpointed)


def _activation_bytes(shape: Shape, sequences: int, checkpointed: bool) -> float:
    """What the forward pass keeps for the backward pass.

    Per layer and token: the two streams; both layer norms' results, queries, keys, values and the attention's result
    (bfloat16, d each); the feed-forward's input to GELU (d_ff); log-sum-exps. With ``checkpointed`` the block's two
    inputs.
    """
    d, item = shape.d_model, 2 if shape.d_model > 256 else 4
    kept = 2 * item * d if checkpointed else (2 * item + 2 * 7) * d + 2 * shape.d_ff + 8 * shape.n_head
    working = 2 * (8 * d + 3 * shape.d_ff)
    return float(sequences * shape.n_ctx * (kept * shape.n_layer + working))


def fit(cohort: Cohort, free: float, ranks: int = 1, *, sharded: bool = False) -> tuple[int, bool]:
    """Micro-batches and whether to checkpoint, so that the estimate stays below ``free``: whole batches first."""
    shape, num_members, batch = cohort.shape, len(cohort.members), cohort.batch_sequences
    batch //= ranks if batch % ranks == 0 else 1
    sizes = [size for size in range(1, batch + 1) if batch % size == 0]
    for checkpointed in (False, True):
        for micro in sizes:
            if sharded:
                needed = sharded_bytes(shape, ranks, batch // micro, checkpointed=checkpointed)
            else:
                options = {"checkpointed": checkpointed, "whole": micro == ranks == 1}
                needed = stacked_bytes(shape, num_members, batch // micro, optimizer=cohort.optimizer, **options)
            if needed <= free:
                return micro, checkpointed
    return batch, True
