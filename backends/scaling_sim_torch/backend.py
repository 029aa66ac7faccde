"""What the registry sees of PyTorch. Torch itself is imported when it is asked for, not before."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from scaling_sim.engine.checks import check_start
from scaling_sim.engine.cohort import Cohort, Precision
from scaling_sim.engine.protocol import Tokens
from scaling_sim.engine.throughput import Measured
from scaling_sim.errors import BackendWarning
from scaling_sim_torch.cards import note_on_cards, num_cards, why_no_bfloat16
from scaling_sim_torch.memory import least_bytes
from scaling_sim_torch.plan import make_plan, stacked_plan

if TYPE_CHECKING:
    from scaling_sim_torch.distributed import Ranks
    from scaling_sim_torch.trainer import TorchTrainer

PRECISIONS = ("float64", "float32", "bfloat16")


class TorchBackend:
    """PyTorch, all members of a cohort stacked in one set of tensors.

    Parameters
    ----------
    deterministic : bool
        Use only attention kernels without atomics, so that on one card and version the same call gives the same bits.
        The CPU always does.
    """

    def __init__(self, deterministic: bool = False) -> None:
        self.name = "torch"
        self.deterministic = deterministic

    def devices(self) -> list[str]:
        """Every CUDA device, then the CPU; empty without torch."""
        if self.why_unavailable() is not None:
            return []
        return [f"cuda:{index}" for index in range(num_cards())] + ["cpu"]

    def why_unavailable(self) -> str | None:
        """None if torch can be imported."""
        try:
            import torch  # noqa: F401
        except ImportError as error:
            return f"PyTorch cannot be imported ({error}); install it with: pip install 'scaling-sim[torch]'"
        return None

    def why_unsupported(self, cohort: Cohort, device: str, precision: Precision) -> str | None:
        """None for float64, float32 and bfloat16 (float32 master weights) on the CPU and on CUDA."""
        reason = self.why_unavailable()
        if reason is not None:
            return reason
        if precision not in PRECISIONS:
            return f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}"
        reason = _why_no_device(device) or _why_not_shared(cohort)
        return reason or (why_no_bfloat16(device) if precision == "bfloat16" else None)

    def note(self) -> str | None:
        """Why there is no GPU, or how the cards differ."""
        return note_on_cards()

    def start(
        self, cohort: Cohort, splits: Mapping[str, Tokens], device: str = "cpu", precision: Precision = "float32"
    ) -> TorchTrainer:
        """A trainer with the cohort's initial weights; see `Backend.start`."""
        check_start(self, cohort, splits, device, precision)
        free = self.free_bytes(device)
        if free is not None:
            import torch

            from scaling_sim_torch.distributed import least

            free = least(free, torch.device(device))
        plan = make_plan(cohort, device, precision, deterministic=self.deterministic, free=free)
        if plan.path == "eager":
            from scaling_sim_torch.trainer import TorchTrainer

            return TorchTrainer(cohort, splits, device, precision, deterministic=self.deterministic)
        from scaling_sim_torch.compiling import prepare_compilers

        prepare_compilers()
        if plan.path == "sharded":
            from scaling_sim_torch.sharded_trainer import ShardedTrainer

            return ShardedTrainer(cohort, splits, device, precision, plan)
        from scaling_sim_torch.fast import FastTrainer

        if plan.path == "fused" and not self._kernels_are_right(cohort, device):
            plan = stacked_plan(cohort, "the hand-written kernels failed their check", free)
        return FastTrainer(cohort, splits, device, precision, plan)

    def _kernels_are_right(self, cohort: Cohort, device: str) -> bool:
        """Whether the kernels compile and agree with plain operations on a small batch; a warning if not."""
        import torch

        from scaling_sim_torch.selfcheck import TOLERANCE, kernel_error

        try:
            with torch.cuda.device(device):
                error = kernel_error(cohort.shape, torch.device(device))
        except torch.OutOfMemoryError:
            fault = "there is no memory to check the fused kernels"
        except torch.AcceleratorError:  # the device is of no more use to this process
            raise
        except Exception as failure:  # whatever a compiler may raise: the other path needs none of these kernels
            fault = f"the fused kernels cannot be compiled ({' '.join(str(failure).split())[:200]})"
        else:
            if error <= TOLERANCE:
                return True
            fault = f"gradients or losses of the fused kernels are off by {error:.2g} (allowed {TOLERANCE})"
        warnings.warn(
            f"{fault} for {cohort.shape} on {device}; training on the compiled path instead",
            BackendWarning,
            stacklevel=3,
        )
        return False

    def explain(self, cohort: Cohort, device: str, precision: Precision) -> str:
        """The path that `start` would take, and why."""
        plan = make_plan(cohort, device, precision, deterministic=self.deterministic, free=self.free_bytes(device))
        return f"{plan}{'' if cohort.optimizer == 'adamw' else f', {cohort.optimizer}'}"

    def ranks(self) -> Ranks:
        """Joins the processes that torchrun started; see `scaling_sim.training.ranks`."""
        from scaling_sim_torch.distributed import Ranks

        return Ranks()

    def measured(self) -> tuple[Measured, ...]:
        """Speeds by shape, members and precision; see `scaling_sim.engine.throughput`."""
        from scaling_sim_torch.measured import MEASURED

        return MEASURED

    def memory_bytes(self, cohort: Cohort, precision: Precision) -> float:
        """Least memory of each card that ``cohort`` needs; more makes it faster."""
        from scaling_sim_torch.distributed import num_ranks

        return least_bytes(cohort, precision, num_ranks())

    def free_bytes(self, device: str) -> float | None:
        """Free memory of a GPU, with what PyTorch holds in reserve; None on the CPU."""
        if device == "cpu":
            return None
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return float(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


BACKEND = TorchBackend()


def _why_not_shared(cohort: Cohort) -> str | None:
    from scaling_sim_torch.distributed import num_ranks

    if num_ranks() > 1 and any(member.dropout for member in cohort.members):
        return "several ranks share its batches, and dropout masks are numbered within a whole one; train it on one"
    return None


def _why_no_device(device: str) -> str | None:
    if device == "cpu":
        return None
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if match is None:
        return f"devices are 'cpu' and 'cuda:N', got {device!r}"
    available = num_cards()
    if available == 0:
        return f"no CUDA device ({device!r} was asked for): {note_on_cards()}; or use 'cpu'"
    if int(match.group(1) or 0) >= available:
        return f"there are {available} CUDA devices, cuda:0 to cuda:{available - 1}, got {device!r}"
    return None
