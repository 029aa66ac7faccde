"""Which path trains a cohort, and why: decided before anything is allocated, and said."""

from __future__ import annotations

from dataclasses import dataclass, replace

from scaling_sim.engine.cohort import Cohort, Optimizer, Precision
from scaling_sim.model.count import memory_estimate, num_parameters
from scaling_sim.model.shape import Shape

CAPTURE_BELOW = 3e8
"""Parameters of all members together up to which whole updates are captured; beyond, launches are hidden anyway."""


@dataclass(frozen=True)
class Plan:
    """How a cohort is trained.

    Attributes
    ----------
    path : str
        ``eager`` (plain operations), ``fused`` (hand-written kernels) or ``stacked`` (compiled blocks).
    reason : str
        Why, in one clause.
    capture, compiled, checkpointed : bool
        Updates replayed from CUDA graphs; blocks compiled; activations computed again in the backward pass.
    micro_batches : int
        Parts of a batch.
    """

    path: str
    reason: str
    capture: bool = False
    compiled: bool = False
    checkpointed: bool = False
    micro_batches: int = 1

    def __str__(self) -> str:
        extras = [name for name in ("compiled", "checkpointed") if getattr(self, name)]
        if self.capture:
            extras.append("captured in CUDA graphs")
        if self.micro_batches > 1:
            extras.append(f"{self.micro_batches} micro-batches")
        return f"{' '.join([self.path, *(['(' + ', '.join(extras) + ')'] if extras else [])])}: {self.reason}"


def make_plan(
    cohort: Cohort, device: str, precision: Precision, *, deterministic: bool = False, free: float | None = None
) -> Plan:
    """The fastest path that serves ``cohort`` there.

    Parameters
    ----------
    free : float, optional
        Bytes that may be used on the device; None leaves the batch whole.
    """
    if precision != "bfloat16":
        return Plan("eager", f"{precision} is the exact path; bfloat16 is the fast one")
    if deterministic:
        return Plan("eager", "deterministic=True")
    if not device.startswith("cuda"):
        return Plan("eager", "captured graphs and kernels need CUDA")
    if _num_ranks() > 1:
        return replace(stacked_plan(cohort, f"{_num_ranks()} ranks share its batches", free), capture=False)
    why_not = _why_not_fused(cohort, device)
    if why_not is None and free is not None and fused_bytes(cohort) > free:
        why_not = f"the kernels' work space of {fused_bytes(cohort) / 2**30:.1f} GiB does not fit"
    if why_not is None:
        return Plan("fused", "small enough for whole-layer kernels", capture=True)
    return stacked_plan(cohort, why_not, free)


def stacked_plan(cohort: Cohort, reason: str, free: float | None) -> Plan:
    """The compiled path, cut and checkpointed so that it fits into ``free`` bytes."""
    dropout = any(member.dropout for member in cohort.members)
    # The rows of a dropout mask are numbered within the whole batch.
    micro, checkpointed = (1, False) if free is None or dropout else fit(cohort, free)
    total = num_parameters(cohort.shape, "total") * len(cohort.members)
    return Plan(
        "stacked", reason, capture=total < CAPTURE_BELOW, compiled=not dropout, checkpointed=checkpointed,
        micro_batches=micro,
    )  # fmt: skip


def fused_bytes(cohort: Cohort) -> float:
    """Bytes of the fused path: weights, moments, gradient and its parts, and what each layer keeps per position."""
    shape, num_members = cohort.shape, len(cohort.members)
    total = num_parameters(shape, "total") * num_members
    kept = 10 * shape.d_model * shape.n_layer + 4 * shape.d_model  # two float32 streams, one bfloat16 result
    working = 22 * shape.d_model + 4 * shape.d_ff + 16
    rows = num_members * cohort.batch_sequences * shape.n_ctx
    return float(_bytes_per_parameter(cohort.optimizer) * total + 4 * max(total, 2**24) + rows * (kept + working))


def _bytes_per_parameter(optimizer: Optimizer) -> int:
    """Weight, gradient and two moments in float32, the weight once more in bfloat16; Adafactor's moments are small."""
    return 4 * 4 + 2 if optimizer == "adamw" else 2 * 4 + 2


def least_bytes(cohort: Cohort, precision: Precision) -> float:
    """Bytes without which a cohort cannot be trained, however finely its batches are cut."""
    shape, num_members, batch = cohort.shape, len(cohort.members), cohort.batch_sequences
    if precision != "bfloat16":
        item = 8 if precision == "float64" else 4
        return float(memory_estimate(shape, batch, num_members, item, item).total)
    whole = any(member.dropout for member in cohort.members)
    return stacked_bytes(shape, num_members, batch if whole else 1, checkpointed=True, optimizer=cohort.optimizer)


def stacked_bytes(
    shape: Shape, num_members: int, sequences: int, *, checkpointed: bool = False, optimizer: Optimizer = "adamw"
) -> float:
    """Estimated bytes of a stacked cohort: weights, moments and gradients, activations of one micro-batch, one chunk.

    Kept per layer and token: the two streams; both layer norms' results, queries, keys, values and the attention's
    result (bfloat16, d each); the feed-forward's activation before and after (d_ff each); log-sum-exps. With
    ``checkpointed`` the block's two inputs. Measured at (12, 768), 64 Ki tokens: 21.0 GiB, estimated 22.5.
    """
    d, tokens = shape.d_model, num_members * sequences * shape.n_ctx
    item = 2 if d > 256 else 4
    kept = 2 * item * d if checkpointed else (2 * item + 12) * d + 4 * shape.d_ff + 8 * shape.n_head
    working = 2 * (8 * d + 3 * shape.d_ff)
    fixed = _bytes_per_parameter(optimizer) * num_parameters(shape, "total") * num_members + 2 * 256 * 2**20
    return float(fixed + tokens * (kept * shape.n_layer + working))


def fit(cohort: Cohort, free: float) -> tuple[int, bool]:
    """Micro-batches and whether to checkpoint, so that the estimate stays below ``free``: whole batches first."""
    batch = cohort.batch_sequences
    sizes = [size for size in range(1, batch + 1) if batch % size == 0]

    def fits(micro: int, checkpointed: bool) -> bool:
        shape, num_members, optimizer = cohort.shape, len(cohort.members), cohort.optimizer
        return free >= stacked_bytes(shape, num_members, batch // micro, checkpointed=checkpointed, optimizer=optimizer)

    for checkpointed in (False, True):
        for micro in sizes:
            if fits(micro, checkpointed):
                return micro, checkpointed
    return batch, True


def _why_not_fused(cohort: Cohort, device: str) -> str | None:
    from scaling_sim_torch.fused import why_not_fused

    if any(member.dropout for member in cohort.members):
        return "dropout"
    return why_not_fused(cohort.shape) or _why_no_kernels(device)


def _num_ranks() -> int:
    from scaling_sim_torch.distributed import num_ranks

    return num_ranks()


def _why_no_kernels(device: str) -> str | None:
    try:
        from scaling_sim_torch.kernels import SAFE
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    import torch

    if torch.cuda.get_device_capability(device)[0] < 8:
        return "the card is older than Ampere (no bfloat16 tensor cores)"
    return None if SAFE else "this Triton offers no way round a fault of ptxas (scaling_sim_torch.ptxas)"
