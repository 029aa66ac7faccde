"""From what is installed to the backends, devices and workers that train a sweep."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from scaling_sim.engine.cohort import Cohort, Precision
from scaling_sim.engine.protocol import Backend
from scaling_sim.engine.registry import get_backend
from scaling_sim.engine.throughput import fastest
from scaling_sim.errors import BackendUnavailable, ScalingSimError
from scaling_sim.training.cohort_size import Kind, cohort_of, kind_of, largest_cohort, saturating
from scaling_sim.training.job import Job
from scaling_sim.training.planner import CohortPlan

AUTOMATIC = (("cupy", "cuda"), ("torch", "cuda"), ("numba", "cpu"), ("numpy", "cpu"))
"""Backends and kinds of device that ``auto`` tries; in this order where their speeds are not known."""
PRECISIONS: dict[str, tuple[Precision, ...]] = {"cuda": ("bfloat16", "float32"), "cpu": ("float32",)}
"""What ``precision="auto"`` tries: on a GPU bfloat16 products with float32 weights, moments and sums."""
Wish = Precision | Literal["auto"]


@dataclass(frozen=True)
class Place:
    """Who trains the runs of one kind.

    Attributes
    ----------
    backend : Backend
    max_members : int
        Largest cohort that makes sense and fits.
    reason : str
        Why this backend; empty if there was no choice.
    """

    backend: Backend
    max_members: int
    reason: str = ""


@dataclass(frozen=True)
class Placement:
    """Who computes: the devices (best first), the precision, the backend of each kind of run, and why."""

    devices: tuple[str, ...]
    precision: Precision
    reason: str
    places: Mapping[Kind, Place] = field(repr=False)

    @property
    def device(self) -> str:
        """The best device."""
        return self.devices[0]

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    @property
    def backends(self) -> tuple[Backend, ...]:
        """Every backend that takes part, the one of most kinds first."""
        found = {place.backend.name: place.backend for place in self.places.values()}
        count = [place.backend.name for place in self.places.values()].count
        return tuple(sorted(found.values(), key=lambda backend: -count(backend.name)))

    @property
    def names(self) -> str:
        """Backends in words."""
        return " and ".join(backend.name for backend in self.backends)

    def backend(self, job: Job) -> Backend:
        """Who trains ``job``."""
        return self.places[kind_of(job)].backend

    def origin(self, job: Job) -> str:
        """Backend and precision in one word."""
        return f"{self.backend(job).name}-{self.precision}"

    def max_members(self, job: Job) -> int:
        """Largest cohort of runs like ``job``."""
        return self.places[kind_of(job)].max_members


def choose_backend(
    plans: Sequence[CohortPlan], backend: str = "auto", device: str | None = None, precision: Wish = "auto"
) -> Placement:
    """Where ``plans`` (of one run each) are trained: of the backends that can, the fastest for each kind of run.

    A GPU comes before the CPU. Which backend is the fastest is read from what was measured of them
    (`scaling_sim.engine.throughput`); the choice depends on shape and batch alone, so a resumed sweep makes it again.

    Raises
    ------
    BackendUnavailable
        Saying for each candidate what stands in its way.
    """
    refused: list[str] = []
    for kind, names in _candidates(backend).items():
        if device is not None and not device.startswith(kind):
            refused += [f"{name}: runs on {kind}, not on {device}" for name in names]
            continue
        found = [one for name in names if (one := _find(name, backend != "auto", refused)) is not None]
        for exact in (precision,) if precision != "auto" else PRECISIONS[_kind_of_device(kind, device, found)]:
            why: list[str] = []
            placement = _place(plans, found, kind, device, exact, why)
            if placement is not None:
                return _explained(placement, plans, backend, refused + why)
            refused += [reason for reason in why if reason not in refused]
    raise BackendUnavailable("no backend can train these runs. " + "; ".join(refused))


def _candidates(backend: str) -> dict[str, list[str]]:
    """Kind of device → names of backends."""
    kinds: dict[str, list[str]] = {}
    for name, kind in AUTOMATIC if backend == "auto" else ((backend, ""),):
        kinds.setdefault(kind, []).append(name)
    return kinds


def _find(name: str, strict: bool, refused: list[str]) -> Backend | None:
    try:
        return get_backend(name)
    except ScalingSimError as error:
        if strict:
            raise
        refused.append(f"{name}: {error}")
        return None


def _kind_of_device(kind: str, device: str | None, found: Sequence[Backend]) -> str:
    """``cuda`` or ``cpu``, also where a named backend has both: its best device counts."""
    names = [device] if device is not None else [name for backend in found for name in backend.devices()]
    return kind or ("cuda" if any(name.startswith("cuda") for name in names[:1]) else "cpu")


def _place(
    plans: Sequence[CohortPlan],
    found: Sequence[Backend],
    kind: str,
    device: str | None,
    precision: Precision,
    why: list[str],
) -> Placement | None:
    """A backend for every kind of run and the devices that serve all of them; None, and ``why``, if there are none."""
    groups: dict[Kind, list[Job]] = {}
    for plan in plans:
        for job in plan.jobs:
            groups.setdefault(kind_of(job), []).append(job)
    chosen: dict[Kind, tuple[Backend, str]] = {}
    common: list[str] | None = None
    for key, jobs in groups.items():
        able = {one.name: _devices(one, kind, device, jobs, precision, why) for one in found}
        candidates = [one for one in found if able[one.name]]
        if not candidates:
            return None
        many = min(len(jobs), saturating(key))
        chosen[key] = fastest(candidates, cohort_of(jobs[0], many), precision)
        places = able[chosen[key][0].name]
        common = places if common is None else [name for name in common if name in places]
    devices = tuple(name for name in common or () if name[:4] == (common or [""])[0][:4])
    if not devices:  # never a GPU and the CPU together
        why.append("no device serves all of these runs")
        return None
    places_of = {
        key: Place(backend, largest_cohort(groups[key], backend, devices, precision), reason)
        for key, (backend, reason) in chosen.items()
    }
    return Placement(devices, precision, "", places_of)


def _devices(
    backend: Backend, kind: str, device: str | None, jobs: Iterable[Job], precision: Precision, why: list[str]
) -> list[str]:
    """Devices of one kind that can train every one of ``jobs``; what stands in the way goes to ``why``."""
    known = [device] if device is not None else [name for name in backend.devices() if name.startswith(kind)]
    able = []
    cohorts = {cohort_of(job, 1, dropout=job.config.recipe.dropout > 0) for job in jobs}
    for name in known:
        reasons = (backend.why_unsupported(cohort, name, precision) for cohort in cohorts)
        first = next((reason for reason in reasons if reason), None)
        if first is None:
            able.append(name)
        elif f"{backend.name}: {first}" not in why:
            why.append(f"{backend.name}: {first}")
    if not known:
        why.append(f"{backend.name}: no {kind or 'usable'} device here")
    return able


def _explained(placement: Placement, plans: Sequence[CohortPlan], asked: str, refused: Sequence[str]) -> Placement:
    """The placement with its reason in words."""
    parts = []
    for backend in placement.backends:
        kinds = {key: place.reason for key, place in placement.places.items() if place.backend is backend}
        chosen = len(placement.backends) > 1 or any(kinds.values())
        named = (f"{s.n_layer}×{s.d_model}{f' ({why})' if why else ''}" for (s, _), why in kinds.items())
        shapes = dict.fromkeys(named)
        plan = next(plan for plan in plans if kind_of(plan.jobs[0]) in kinds)
        parts.append(backend.name + (f" for {', '.join(shapes)}" if chosen else "") + _path(backend, plan, placement))
    how = "asked for" if asked != "auto" else "the fastest that works here"
    skipped = f" ({'; '.join(refused)})" if refused else ""
    where = f" on {', '.join(placement.devices)} in {placement.precision}: {how}{skipped}"
    return Placement(placement.devices, placement.precision, "; ".join(parts) + where, placement.places)


def _path(backend: Backend, plan: CohortPlan, placement: Placement) -> str:
    """What the backend will do with its first cohort, where it tells (``explain(cohort, device, precision)``)."""
    tell: Callable[[Cohort, str, Precision], str] | None = getattr(backend, "explain", None)
    if tell is None:
        return ""
    cohort = cohort_of(plan.jobs[0], placement.max_members(plan.jobs[0]))
    return f" ({plan.label}: {tell(cohort, placement.device, placement.precision)})"


def worker_environment(placement: Placement, num_workers: int) -> dict[str, str]:
    """Variables for a worker process: threads for its share of the cores, and what the backends ask for."""
    threads = 1 if placement.on_gpu else max(1, num_cores() // max(1, num_workers))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    found = dict.fromkeys(names, str(threads))
    for backend in placement.backends:
        ask: Callable[[int], Mapping[str, str]] | None = getattr(backend, "worker_environment", None)
        found |= ask(threads) if ask else {}
    return found


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
