"""Which path trains a cohort, and why: decided before anything is allocated, and said."""

from __future__ import annotations

from dataclasses import dataclass, replace

from scaling_sim.engine.cohort import Cohort, Precision
from scaling_sim.model.count import num_parameters
from scaling_sim_torch.memory import SHARE_OF_FREE, fit, fused_bytes, unshared_bytes

CAPTURE_BELOW = 3e8
"""Parameters of all members together up to which whole updates are captured; beyond, launches are hidden anyway."""


@dataclass(frozen=True)
class Plan:
    """How a cohort is trained.

    Attributes
    ----------
    path : str
        ``eager`` (plain operations), ``fused`` (hand-written kernels), ``stacked`` (compiled blocks; several ranks
        share the batches) or ``sharded`` (FSDP2: several ranks share the model as well).
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
    without = _why_no_kernels()
    if without is not None:
        return Plan("eager", without)
    if _num_ranks() > 1:
        return _plan_of_ranks(cohort, _num_ranks(), free)
    why_not = _why_not_fused(cohort)
    if why_not is None and free is not None and fused_bytes(cohort) > free:
        why_not = f"the kernels' work space of {fused_bytes(cohort) / 2**30:.1f} GiB does not fit"
    if why_not is None:
        return Plan("fused", "small enough for whole-layer kernels", capture=True)
    return stacked_plan(cohort, why_not, free)


def _plan_of_ranks(cohort: Cohort, ranks: int, free: float | None) -> Plan:
    """DDP where the model fits on every card, FSDP2 where it does not."""
    shared = f"{ranks} ranks share its batches"
    needed = unshared_bytes(cohort)
    if free is None or needed <= free or why_not_sharded(cohort) is not None:
        return replace(stacked_plan(cohort, shared, free, ranks), capture=False)
    reason = f"{shared} and its weights (FSDP2): whole it needs {needed / 2**30:.1f} GiB of {free / 2**30:.1f} free"
    micro, checkpointed = fit(cohort, SHARE_OF_FREE * free, ranks, sharded=True)
    return Plan("sharded", reason, compiled=True, checkpointed=checkpointed, micro_batches=micro)


def why_not_sharded(cohort: Cohort) -> str | None:
    """None if FSDP2 can train it, else why not."""
    if len(cohort.members) > 1:
        return "only single models are sharded"
    return None if cohort.optimizer == "adamw" else f"{cohort.optimizer} is not sharded, adamw is"


def stacked_plan(cohort: Cohort, reason: str, free: float | None, ranks: int = 1) -> Plan:
    """The compiled path, cut and checkpointed so that it fits into ``free`` bytes."""
    dropout = any(member.dropout for member in cohort.members)
    # The rows of a dropout mask are numbered within the whole batch.
    micro, checkpointed = (1, False) if free is None or dropout else fit(cohort, free, ranks)
    total = num_parameters(cohort.shape, "total") * len(cohort.members)
    return Plan(
        "stacked", reason, capture=total < CAPTURE_BELOW, compiled=not dropout, checkpointed=checkpointed,
        micro_batches=micro,
    )  # fmt: skip


def _why_not_fused(cohort: Cohort) -> str | None:
    from scaling_sim_torch.fused import why_not_fused

    if any(member.dropout for member in cohort.members):
        return "dropout"
    return why_not_fused(cohort.shape) or _why_not_safe()


def _num_ranks() -> int:
    from scaling_sim_torch.distributed import num_ranks

    return num_ranks()


def _why_no_kernels() -> str | None:
    """None where Triton is: the loss in chunks, AdamW and compiled blocks need it as well."""
    try:
        import scaling_sim_torch.kernels  # noqa: F401
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    return None


def _why_not_safe() -> str | None:
    from scaling_sim_torch.kernels import SAFE

    return None if SAFE else "this Triton offers no way round a fault of ptxas (scaling_sim_torch.ptxas)"
