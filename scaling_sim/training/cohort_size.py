"""How many runs one trainer should advance together."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from scaling_sim.engine.cohort import Cohort, Member, Precision
from scaling_sim.engine.protocol import Backend
from scaling_sim.model.shape import Shape
from scaling_sim.training.job import Job
from scaling_sim.training.memory import why_no_room
from scaling_sim.training.planner import CohortPlan

SATURATED = 2**25
"""Numbers in one layer's activations (tokens per update times d_model, of all members) from which a larger cohort is
not worth its memory. Measured on an H200: (1, 16) gains 5 times from 1 to 64 members of 8192 tokens (2^17 to 2^23),
(4, 128) 1.6 times from 2^20 to 2^26; beyond that, fewer cohorts only save their starts."""
MOST_MEMBERS = {"cuda": 512, "cpu": 1}
"""A GPU gains from many members, a CPU trains one model per core."""

Kind = tuple[Shape, int]
"""Shape and tokens per update: runs of one kind are trained by one backend, whichever cohort they are in."""


def kind_of(job: Job) -> Kind:
    """Shape and tokens per update."""
    return job.config.shape, job.config.recipe.batch_tokens


def cohort_of(job: Job, num_members: int, *, dropout: bool = False) -> Cohort:
    """A cohort of so many runs like ``job``."""
    cohort = CohortPlan((job,), 0, {}).task().cohort()
    members = tuple(Member(id=i, seed=0, dropout=0.1 if dropout else 0.0) for i in range(num_members))
    changed: Cohort = msgspec.structs.replace(cohort, members=members)
    return changed


def saturating(kind: Kind) -> int:
    """Members that fill a GPU."""
    shape, batch_tokens = kind
    return max(1, min(MOST_MEMBERS["cuda"], -(-SATURATED // (batch_tokens * shape.d_model))))


def largest_cohort(jobs: Sequence[Job], backend: Backend, devices: Sequence[str], precision: Precision) -> int:
    """Largest cohort: fills the device, leaves every device its share of the runs, and fits into memory."""
    if not devices[0].startswith("cuda"):
        return MOST_MEMBERS["cpu"]
    num = min(saturating(kind_of(jobs[0])), -(-len(jobs) // len(devices)))
    dropout = any(job.config.recipe.dropout for job in jobs)
    while num > 1:
        cohort = cohort_of(jobs[0], num, dropout=dropout)
        room = why_no_room(cohort, backend, devices, precision)
        if room is None and backend.why_unsupported(cohort, devices[0], precision) is None:
            return num
        num = -(-num // 2)
    return 1
