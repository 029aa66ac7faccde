"""From what is installed to the backend, devices and workers that train a sweep."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scaling_sim.engine.cohort import Cohort, Precision
from scaling_sim.engine.protocol import Backend
from scaling_sim.engine.registry import get_backend
from scaling_sim.errors import BackendUnavailable, ScalingSimError
from scaling_sim.training.planner import CohortPlan

AUTOMATIC = (("cupy", "cuda"), ("torch", "cuda"), ("numba", "cpu"), ("numpy", "cpu"))
"""Backends and kinds of device that ``auto`` tries, fastest first."""
MEMBERS = {"cuda": 64, "cpu": 1}
"""Members per cohort: a GPU gains from many, a CPU trains one model per core."""


@dataclass(frozen=True)
class Placement:
    """Who computes: the backend, its devices (best first), the precision, and why."""

    backend: Backend
    devices: tuple[str, ...]
    precision: Precision
    reason: str

    @property
    def device(self) -> str:
        """The best device."""
        return self.devices[0]

    @property
    def origin(self) -> str:
        """Backend and precision in one word."""
        return f"{self.backend.name}-{self.precision}"

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    @property
    def max_members(self) -> int:
        """Largest cohort that makes sense there."""
        return MEMBERS["cuda" if self.on_gpu else "cpu"]


def choose_backend(
    plans: Sequence[CohortPlan], backend: str = "auto", device: str | None = None, precision: Precision = "float32"
) -> Placement:
    """The first backend that works here and supports every plan, or the named one.

    Raises
    ------
    BackendUnavailable
        Saying for each candidate what stands in its way.
    """
    candidates = AUTOMATIC if backend == "auto" else ((backend, ""),)
    refused = []
    for name, kind in candidates:
        if device is not None and not device.startswith(kind):
            refused.append(f"{name}: runs on {kind}, not on {device}")
            continue
        try:
            found = get_backend(name)
        except ScalingSimError as error:
            if backend != "auto":
                raise
            refused.append(f"{name}: {error}")
            continue
        places, why = _devices(found, kind, device, plans, precision)
        if places:
            skipped = f" ({'; '.join(refused)})" if refused else ""
            how = "asked for" if backend != "auto" else "the fastest that works here"
            where = ", ".join(places)
            path = _path(found, plans, places[0], precision)
            return Placement(found, places, precision, f"{name} on {where} in {precision}{path}: {how}{skipped}")
        refused.append(f"{name}: {why}")
    raise BackendUnavailable("no backend can train these runs. " + "; ".join(refused))


def _path(backend: Backend, plans: Sequence[CohortPlan], device: str, precision: Precision) -> str:
    """What the backend will do with the first cohort, where it tells (``explain(cohort, device, precision)``)."""
    tell: Callable[[Cohort, str, Precision], str] | None = getattr(backend, "explain", None)
    return f" ({plans[0].label}: {tell(plans[0].task().cohort(), device, precision)})" if tell and plans else ""


def _devices(
    backend: Backend, kind: str, device: str | None, plans: Sequence[CohortPlan], precision: Precision
) -> tuple[tuple[str, ...], str]:
    """Devices of one kind that can train every plan; if there is none, why."""
    known = [device] if device is not None else [name for name in backend.devices() if name.startswith(kind)]
    able, why = [], f"no {kind or 'usable'} device here"
    for name in known:
        reasons = (backend.why_unsupported(plan.task().cohort(), name, precision) for plan in plans)
        first = next((reason for reason in reasons if reason), None)
        if first is None:
            able.append(name)
        why = first or why
    return tuple(name for name in able if name[:4] == able[0][:4]), why  # never a GPU and the CPU together


def worker_environment(placement: Placement, num_workers: int) -> dict[str, str]:
    """Variables for a worker process: threads for its share of the cores, and what the backend asks for."""
    threads = 1 if placement.on_gpu else max(1, num_cores() // max(1, num_workers))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    ask: Callable[[int], Mapping[str, str]] | None = getattr(placement.backend, "worker_environment", None)
    return {**dict.fromkeys(names, str(threads)), **(ask(threads) if ask else {})}


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_workers(workers: int | None, placement: Placement) -> int:
    """``workers``, or one per core on the CPU, one per GPU where there are several, none for a single GPU."""
    if workers is not None:
        return workers
    if placement.on_gpu:
        return len(placement.devices) if len(placement.devices) > 1 else 0
    return num_cores()
