"""What the registry sees of CuPy. CuPy itself is imported when it is asked for, not before."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from scaling_sim.engine.checks import check_start, why_not_optimizer
from scaling_sim.engine.cohort import Cohort, Precision
from scaling_sim.engine.protocol import Tokens
from scaling_sim.engine.throughput import Measured
from scaling_sim_cupy.layout import Layout
from scaling_sim_cupy.limits import why_out_of_range, why_precision, why_too_large

if TYPE_CHECKING:
    from scaling_sim_cupy.trainer import CupyTrainer


class CupyBackend:
    """CUDA through CuPy: fused kernels, the member of a cohort is an axis of the grid.

    Parameters
    ----------
    tensor_cores : bool
        False computes float32 without them: slow, the reference of the kernels themselves.
    """

    name = "cupy"

    def __init__(self, tensor_cores: bool = True) -> None:
        self.tensor_cores = tensor_cores

    def devices(self) -> list[str]:
        """Every CUDA device; empty without CuPy or without one."""
        if self.why_unavailable() is not None:
            return []
        return [f"cuda:{index}" for index in range(_num_devices())]

    def why_unavailable(self) -> str | None:
        """None if CuPy can be imported and sees a CUDA device."""
        try:
            import cupy
        except ModuleNotFoundError as error:
            if error.name not in ("cupy", None):
                return _why_broken(error)
            return f"CuPy cannot be imported ({error}); install it with: pip install 'scaling-sim[cupy]'"
        except ImportError as error:
            return _why_broken(error)
        try:
            num_devices = cupy.cuda.runtime.getDeviceCount()
        except RuntimeError as error:
            return f"CuPy finds no CUDA device ({error}); it needs an NVIDIA card and its driver"
        return None if num_devices else "CuPy finds no CUDA device; it needs an NVIDIA card and its driver"

    def why_unsupported(self, cohort: Cohort, device: str, precision: Precision) -> str | None:
        """None for a tiny model in float32 or bfloat16 on a CUDA device whose memory holds the cohort."""
        reason = (
            self.why_unavailable() or why_precision(precision) or _why_no_device(device) or why_not_optimizer(cohort)
        )
        if reason is not None:
            return reason
        return why_out_of_range(self._layout(cohort, precision)) or why_too_large(
            cohort, self._layout(cohort, precision), _total_bytes(device_index(device)), device
        )

    def start(
        self, cohort: Cohort, splits: Mapping[str, Tokens], device: str = "cuda:0", precision: Precision = "float32"
    ) -> CupyTrainer:
        """A trainer with the cohort's initial weights; see `Backend.start`."""
        check_start(self, cohort, splits, device, precision)
        from scaling_sim_cupy.trainer import CupyTrainer

        return CupyTrainer(cohort, splits, device_index(device), self._layout(cohort, precision))

    def _layout(self, cohort: Cohort, precision: Precision) -> Layout:
        exact = 0 if precision == "bfloat16" else 1 if self.tensor_cores else 2
        return Layout(cohort.shape, exact)

    def measured(self) -> tuple[Measured, ...]:
        """Speeds by shape, members and precision; see `scaling_sim.engine.throughput`."""
        from scaling_sim_cupy.measured import MEASURED

        return MEASURED

    def describe(self) -> dict[str, str]:
        """Versions and card, for the record of a run."""
        import cupy

        card = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
        return {"cupy": cupy.__version__, "cuda": str(cupy.cuda.runtime.runtimeGetVersion()), "card": card}


BACKEND = CupyBackend()


def device_index(device: str) -> int:
    """N of ``cuda:N``; 0 for ``cuda``.

    Raises
    ------
    ValueError
        The name is no CUDA device's.
    """
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if match is None:
        raise ValueError(f"this backend computes on 'cuda:N' only, got device {device!r}")
    return int(match.group(1) or 0)


def _why_no_device(device: str) -> str | None:
    try:
        index = device_index(device)
    except ValueError as error:
        return str(error)
    available = _num_devices()
    if index >= available:
        return f"there are {available} CUDA devices, cuda:0 to cuda:{available - 1}, got {device!r}"
    return None


def _why_broken(error: ImportError) -> str:
    return (
        f"CuPy is installed but cannot be loaded ({' '.join(str(error).split())}); "
        "pip install 'scaling-sim[cupy]' is for CUDA 13, 'scaling-sim[cupy-cuda12]' for CUDA 12"
    )


def _num_devices() -> int:
    import cupy

    return int(cupy.cuda.runtime.getDeviceCount())


def _total_bytes(index: int) -> int:
    import cupy

    return int(cupy.cuda.Device(index).mem_info[1])
