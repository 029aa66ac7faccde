"""What a checkpoint folder offers to a sweep that starts or restarts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable
from pathlib import Path

from scaling_sim.training.checkpoint import discard, sound_checkpoints, sweep_orphans
from scaling_sim.training.job import Job
from scaling_sim.training.loop import Start, branch_folder


class Resume:
    """The checkpoints of one folder that were made by the same backend in the same precision.

    Parameters
    ----------
    folder : Path or None
        None offers nothing.
    origin : str or callable
        Backend and precision, or those of a given run; states of another origin are left alone, so that no run mixes
        two arithmetics.
    """

    def __init__(self, folder: Path | None, origin: str | Callable[[Job], str]) -> None:
        self.folder, self._origin = folder, origin

    def origin(self, job: Job) -> str:
        """Backend and precision that train ``job``."""
        return self._origin if isinstance(self._origin, str) else self._origin(job)

    def starts(self, jobs: Iterable[Job], active: Collection[str] = ()) -> dict[str, tuple[int, Start | None]]:
        """Run id → (updates made, where its state is), the newest sound state of each; see `plan_cohorts`.

        Without a folder a decay branch gets (0, None): it repeats its parent's steps. Folders of ``active`` cohorts, in
        which a worker writes, are left alone.
        """
        jobs = list(jobs)
        if self.folder is None:
            return {job.run_id: (0, None) for job in jobs if job.config.parent}
        wanted = {job.run_id: self.origin(job) for job in jobs}
        found: dict[str, tuple[int, Start | None]] = {}
        sweep_orphans(self.folder)
        for cohort in sorted(self.folder.glob("cohort-*")):
            if cohort.name in active:
                continue
            sweep_orphans(cohort)
            for path, manifest in sound_checkpoints(cohort):
                fitting = [run_id for run_id in manifest.run_ids if wanted.get(run_id) == manifest.origin]
                for run_id in fitting:
                    if run_id not in found or found[run_id][0] < manifest.step:
                        found[run_id] = (manifest.step, Start(str(path), run_id))
                if fitting:
                    break
        return found

    def branch(self, job: Job) -> Start | None:
        """The state of its parent from which a decay branch starts, None if it is not there."""
        parent = job.config.parent
        if self.folder is None or parent is None:
            return None
        for path, manifest in sound_checkpoints(branch_folder(self.folder, parent), step=job.config.branch_step):
            if manifest.origin == self.origin(job):
                return Start(str(path), parent)
        return None

    def forget(self, cohort: str) -> None:
        """Remove the checkpoints of a cohort that is over."""
        if self.folder is not None:
            discard(self.folder / cohort)

    def clean(self, finished: Container[str]) -> None:
        """Remove cohorts whose runs have all finished."""
        for cohort in self.folder.glob("cohort-*") if self.folder is not None else ():
            run_ids = next((manifest.run_ids for _, manifest in sound_checkpoints(cohort)), ())
            if all(run_id in finished for run_id in run_ids):
                discard(cohort)
