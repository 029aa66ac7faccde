"""How much memory a cohort will need, and the refusal of what does not fit, before anything is allocated."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from scaling_sim.engine.cohort import Cohort, Precision
from scaling_sim.engine.protocol import Backend
from scaling_sim.errors import ConfigError
from scaling_sim.model.count import memory_estimate, num_parameters


def cohort_bytes(cohort: Cohort, precision: Precision = "float32") -> float:
    """Estimated bytes of one cohort: `scaling_sim.model.count.memory_estimate` and a copy for its checkpoint."""
    item = {"float64": 8, "float32": 4, "bfloat16": 2}[precision]
    master = max(4, item)
    estimate = memory_estimate(cohort.shape, cohort.batch_sequences, len(cohort.members), item, master)
    copy = 3 * master * num_parameters(cohort.shape, "total") * len(cohort.members)
    return float(estimate.total + copy)


def free_bytes() -> float | None:
    """Memory that a new process may take now; None where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return float(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        try:
            return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):
            return None


def check_memory(
    cohort: Cohort, backend: Backend, devices: Sequence[str], precision: Precision, num_workers: int = 1
) -> None:
    """Refuse a cohort that does not fit; see `why_no_room`.

    Raises
    ------
    ConfigError
        With the estimate, what is free, and what to do.
    """
    reason = why_no_room(cohort, backend, devices, precision, num_workers)
    if reason is not None:
        raise ConfigError(reason)


def why_no_room(
    cohort: Cohort, backend: Backend, devices: Sequence[str], precision: Precision, num_workers: int = 1
) -> str | None:
    """None if such cohorts of ``num_workers`` workers fit into what is free, else a sentence.

    Workers are dealt to the devices, any of which may get the cohort: the one with the least room decides. A backend
    that knows better may offer ``memory_bytes(cohort, precision)`` and ``free_bytes(device)``.
    """
    estimate: Callable[[Cohort, Precision], float] = getattr(backend, "memory_bytes", cohort_bytes)
    tell: Callable[[str], float | None] | None = getattr(backend, "free_bytes", None)
    rooms = [(free_bytes() if device == "cpu" else tell(device) if tell else None, device) for device in devices]
    known = [(room, device) for room, device in rooms if room is not None]
    per_device = max(1, -(-num_workers // len(devices)))
    needed = estimate(cohort, precision) * per_device
    if not known or needed <= min(known)[0]:
        return None
    (free, device), shape = min(known), cohort.shape
    several = "" if device == "cpu" else ", or share one model among several GPUs (torchrun; see the how-to)"
    return (
        f"{len(cohort.members)} model(s) of {shape.n_layer} layers, d_model {shape.d_model}, batch "
        f"{cohort.batch_sequences * shape.n_ctx} tokens need about {needed / 2**30:.1f} GiB in "
        f"{per_device} worker(s), {free / 2**30:.1f} GiB are free on {device}; take a smaller batch, "
        f"a smaller model or fewer workers{several}"
    )
