"""Run the experiment: system by system, within a budget, over several sittings, each of which leaves a data file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from scaling_sim.config import config_hash, writable_folder
from scaling_sim.data import Corpus
from scaling_sim.errors import ConfigError
from scaling_sim.runs import RunRecord, RunStore
from scaling_sim.runs.record import Status
from scaling_sim.study.display import SweepDisplay, duration
from scaling_sim.study.kaplan.calibration import calibrate, has_gpu
from scaling_sim.study.kaplan.config import ExperimentConfig
from scaling_sim.study.kaplan.corpora import Corpora, text_folder
from scaling_sim.study.kaplan.estimate import (
    AHEAD,
    Calibrated,
    SystemEstimate,
    cohort_seconds,
    cohorts,
    estimate,
    table_rate,
)
from scaling_sim.study.kaplan.outcome import Options, Outcome, counts
from scaling_sim.study.kaplan.paths import backend_of, path_of
from scaling_sim.study.kaplan.plan import Planned, by_backend, plan, portions
from scaling_sim.study.kaplan.rates import Rates, rates_of
from scaling_sim.study.kaplan.scales import H200, TINY
from scaling_sim.study.kaplan.sittings import Sitting, commit, read_sittings, summary
from scaling_sim.study.kaplan.systems import SYSTEMS, Text
from scaling_sim.training import CompileAhead, Job, Progress, run_sweep

CONFIGS = {config.name: config for config in (H200, TINY)}
"""By the name under which ``scaling-sim study`` takes them: `scaling_sim.study.presets.EXPERIMENTS`."""
SPARE_SECONDS = 5.0
"""A sitting does not begin a portion with less time left, and stops so much before its end to write the data file."""
FINISHED: tuple[Status, ...] = ("done", "stopped", "diverged")
ENDED: tuple[Status, ...] = (*FINISHED, "failed")
STORE = "runs.sqlite"
DATA = "{name}.jsonl.xz"
"""Data file that every sitting leaves in the study's folder."""
Say = Callable[[str], None]


class OutOfTime(KeyboardInterrupt):
    """Ends a sweep as Ctrl-C does: what is finished is in the store, the rest is saved where it can be."""


def run_experiment(
    config: ExperimentConfig, out: str | Path, options: Options | None = None, *, say: Say | None = None
) -> Outcome:
    """Train what is missing until everything is there, or until the time of the sitting is over.

    Systems are trained in order of priority. Those that do not fit into the budget are dropped from the end, and named.
    The same call again goes on; a killed one loses the runs in progress only.

    Raises
    ------
    ConfigError
        The folder holds another experiment, or the English text is missing.
    KeyboardInterrupt
        On Ctrl-C, after the data file was written.
    """
    experiment = _Experiment.opened(config, out, options or Options(), say or _silent)
    return experiment.sit()


def plan_experiment(
    config: ExperimentConfig, out: str | Path, options: Options | None = None, *, say: Say | None = None
) -> Outcome:
    """What `run_experiment` would train here and how long that takes; with a GPU after about a minute of measuring."""
    return _Experiment.opened(config, out, options or Options(), say or _silent).forecast()


@dataclass
class _Experiment:
    """One experiment in its folder."""

    config: ExperimentConfig
    folder: Path
    options: Options
    say: Say
    corpora: Corpora
    sitting: Sitting
    dropped: dict[str, str] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    deferred: list[str] = field(default_factory=list)

    @classmethod
    def opened(cls, config: ExperimentConfig, out: str | Path, options: Options, say: Say) -> _Experiment:
        """With its folder claimed and the English text read."""
        folder = writable_folder(out)
        _claim(folder, config)
        corpora = Corpora(config, text_folder(options.corpus), folder / "corpus")
        used = sum(stage.seconds for stage in read_sittings(folder))
        seconds = min(60 * options.sitting, 60 * options.budget - used)
        experiment = cls(config, folder, options, say, corpora, Sitting(folder, seconds))
        if experiment._corpus("english") is None:
            raise ConfigError(corpora.refused["english"])
        return experiment

    # Before it ----------------------------------------------------------------------------------------------------

    def forecast(self) -> Outcome:
        """Runs and seconds of what is left; corpora are guessed as long as they are not built."""
        with RunStore(self.folder / STORE) as store:
            planned, finished = self._planned(store), _finished(store)
            calibrated, source = self._calibrated(planned)
            rows = estimate(planned, calibrated, finished)
            self._drop_from_the_end(rows)
            return self._outcome(store, planned, rows, source)

    def _calibrated(self, planned: Sequence[Planned]) -> tuple[Calibrated, str]:
        if not has_gpu():
            return Calibrated(), "No GPU here: speeds are those of the backends' tables, measured on an H200."
        with self.sitting.stage("calibration"):
            calibrated = calibrate(planned, self.corpora.built["english"])
        facts = ", ".join(f"{path} {factor:.2f}" for path, factor in calibrated.factors.items())
        return calibrated, f"Speeds measured here relative to the tables: {facts}."

    def _drop_from_the_end(self, rows: Sequence[SystemEstimate]) -> None:
        """Name the systems for which the budget has no room; what was trained before counts."""
        used = sum(stage.seconds for stage in read_sittings(self.folder))
        room, total = 60 * self.options.budget - used, sum(row.seconds for row in rows)
        for row in reversed(rows[1:]):
            if total <= room:
                return
            total -= row.seconds
            if row.new_runs:
                minutes = f"{self.options.budget:g} min"
                self.dropped[row.system] = f"no room within {minutes}: {row.seconds:.0f} s expected"

    # The sitting --------------------------------------------------------------------------------------------------

    def sit(self) -> Outcome:
        """Train until all is there or the time is over."""
        with RunStore(self.folder / STORE) as store:
            self._drop_from_the_end(estimate(self._planned(store), None, _finished(store)))
            for name, why in self.dropped.items():
                self.say(f"dropped: {name} ({why})")
            try:
                with self._others_ahead(), self._compile_ahead(store):
                    self._train_all(store)
            except OutOfTime:
                self.flags.append("This sitting's time is over; the same command goes on.")
                self.say(self.flags[-1])
            finally:
                planned = self._planned(store)
                data = self._export(store, planned)
            return self._outcome(store, planned, data=data)

    def _others_ahead(self) -> AbstractContextManager[None]:
        """Other corpora are built while a GPU trains on the English one: the cores are idle then."""
        wanted = [system.corpus for system in SYSTEMS if system.name not in self.dropped and self._wanted(system.name)]
        return self.corpora.built_ahead(dict.fromkeys(wanted)) if has_gpu() else nullcontext()

    @contextmanager
    def _compile_ahead(self, store: RunStore) -> Iterator[None]:
        """Kernels of all English systems, in the order in which they will be needed, while the first ones train."""
        finished = _finished(store)
        kept = [one for one in self._planned(store) if one.system.corpus == "english"]
        jobs = [job for one in kept if one.system.name not in self.dropped for job in one.new]
        todo = [job for job in jobs if job.run_id not in finished]
        splits = self.corpora.built["english"].splits
        with ExitStack() as stack:
            for backend, part in by_backend(todo).items() if has_gpu() else ():
                wanted = backend if self.options.backend == "auto" else self.options.backend
                ahead = CompileAhead(part, splits, backend=wanted, device=self.options.device, workers=AHEAD[backend])
                stack.enter_context(ahead)
            yield

    def _train_all(self, store: RunStore) -> None:
        for system in SYSTEMS:
            if system.name in self.dropped or not self._wanted(system.name):
                continue
            if (corpus := self._corpus(system.corpus)) is None:
                self.dropped[system.name] = self.corpora.refused[system.corpus]
                self.say(f"dropped: {system.name} ({self.dropped[system.name]})")
                continue
            one = next(one for one in self._planned(store) if one.system.name == system.name)
            for portion in portions(one.jobs):
                self._train(system.name, portion, corpus, store)
        if self.deferred:
            raise OutOfTime

    def _train(self, name: str, jobs: list[Job], corpus: Corpus, store: RunStore) -> None:
        if all((known := store.get(job.run_id)) and known.status in FINISHED for job in jobs):
            _join_purposes(jobs, store)
            return
        if self.sitting.left < SPARE_SECONDS:
            raise OutOfTime
        label = _label(jobs)
        if name != "lr" and self._is_too_long(jobs, store):
            self.deferred.append(label)
            self.say(f"{name}: {label} is left to another sitting, it would not end in this one")
            return
        self.say(f"{name}: {len(jobs)} runs ({label}), {duration(max(0.0, self.sitting.left))} left")
        with self.sitting.stage(name, label) as facts, SweepDisplay(self.say) as display:

            def watch(progress: Progress) -> None:
                display.update(progress)
                facts["runs"] = progress.finished
                if self.sitting.left < SPARE_SECONDS:
                    raise OutOfTime

            done = run_sweep(
                jobs,
                corpus,
                store,
                backend=self._backend(jobs[0]),
                device=self.options.device,
                workers=self.options.workers,
                checkpoints=self.folder / "checkpoints",
                progress=watch,
            )
            ended = done.done + done.diverged
            facts.update(runs=ended, flops=done.flops, placement=done.placement, complete=not done.failed)

    def _is_too_long(self, jobs: Sequence[Job], store: RunStore) -> bool:
        """Whether a wide model, on a GPU, is expected to take longer than is left: half a run is worth nothing."""
        if not has_gpu() or path_of(jobs[0].config.shape) != "stacked":
            return False
        todo = [job for job in jobs if not ((known := store.get(job.run_id)) and known.status in FINISHED)]
        return sum(cohort_seconds(plan, table_rate) for plan in cohorts(todo)) > self.sitting.left

    def _backend(self, job: Job) -> str:
        """As asked for; on a GPU that of the path, which all runs of a portion share."""
        if self.options.backend != "auto" or not has_gpu():
            return self.options.backend
        return backend_of(job.config.shape)

    # After it -----------------------------------------------------------------------------------------------------

    def _export(self, store: RunStore, planned: Sequence[Planned]) -> Path:
        """Write every finished run of the experiment into the data file."""
        from scaling_sim.datasets import write

        ours = {job.run_id for one in planned for job in one.jobs}
        records = [record for record in store.records(FINISHED) if record.run_id in ours]
        path = self.folder / DATA.format(name=self.config.name)
        with self.sitting.stage("export"):
            write(path, records, self._facts(records, self._rates(store)))
        return path

    def _facts(self, records: Sequence[RunRecord], rates: Rates) -> dict[str, Any]:
        named = {record.versions["card"] for record in records if "card" in record.versions}
        cards = sorted(named or {record.device for record in records})
        return {
            "corpora": self.corpora.facts(),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "device": ", ".join(cards),
            "commit": commit(),
            "dropped": self.dropped,
            "rate_multiples": {str(N): round(value, 4) for N, value in rates.multiples.items()},
            "flags": self.flags,
            "sittings": summary(read_sittings(self.folder)),
        }

    def _outcome(
        self,
        store: RunStore,
        planned: Sequence[Planned],
        rows: Sequence[SystemEstimate] = (),
        source: str = "",
        data: Path | None = None,
    ) -> Outcome:
        statuses = {record.run_id: record.status for record in store.records()}
        kept = [one for one in planned if one.system.name not in self.dropped]
        systems = tuple(counts(one, statuses) for one in kept)
        ended = all(statuses.get(job.run_id) in FINISHED for one in kept for job in one.jobs)
        failed = sum(system["statuses"].get("failed", 0) for system in systems)
        flags = [*self._rates(store).flags, *self.flags]
        flags += [f"{failed} runs failed; the same command tries them again."] if failed else []
        sittings = tuple(summary(read_sittings(self.folder)))
        return Outcome(
            self.config.name, systems, dict(self.dropped), tuple(flags), ended, tuple(rows), source, sittings, data
        )

    # Plans --------------------------------------------------------------------------------------------------------

    def _planned(self, store: RunStore) -> list[Planned]:
        """Systems that are wanted, at the learning rates known by now."""
        return plan(self.config, self._texts(), self._rates(store), self.options.systems)

    def _texts(self) -> dict[str, Text]:
        keys = dict.fromkeys(system.corpus for system in SYSTEMS)
        return {key: self.corpora.text(key) for key in keys if key not in self.corpora.refused}

    def _rates(self, store: RunStore) -> Rates:
        """The rule, until every trial is over; then what the trials say, which is kept: other runs depend on it."""
        path = self.folder / "rates.json"
        if path.exists():
            return msgspec.json.decode(path.read_bytes(), type=Rates)
        trials = plan(self.config, {"english": self.corpora.text("english")}, names=("lr",))[0].jobs
        records = [record for job in trials if (record := store.get(job.run_id)) and record.status in ENDED]
        if len(records) < len(trials):
            return Rates()
        rates = rates_of(records)
        path.write_bytes(msgspec.json.encode(rates))
        return rates

    def _wanted(self, name: str) -> bool:
        return name == "lr" or not self.options.systems or name in self.options.systems

    def _corpus(self, key: str) -> Corpus | None:
        if key in self.corpora.built or key in self.corpora.refused:
            return self.corpora.get(key)
        with self.sitting.stage("corpus", key):
            return self.corpora.get(key)


def _claim(folder: Path, config: ExperimentConfig) -> None:
    """Refuse a folder of another experiment, whose runs would be mixed with ours."""
    path, ours = folder / "experiment.json", msgspec.json.encode(config)
    if path.exists() and path.read_bytes() != ours:
        raise ConfigError(
            f"{folder} holds another experiment than {config.name} {config_hash(config, length=8)}; "
            "choose another --out or remove the folder"
        )
    path.write_bytes(ours)


def _finished(store: RunStore) -> set[str]:
    return {record.run_id for record in store.records(FINISHED)}


def _join_purposes(jobs: Sequence[Job], store: RunStore) -> None:
    """Tell runs that an earlier system has trained what else they are for."""
    for job in jobs:
        record = store.get(job.run_id)
        if record is not None and set(job.purposes) - set(record.purposes):
            purposes = tuple(dict.fromkeys((*record.purposes, *job.purposes)))
            store.update(msgspec.structs.replace(record, purposes=purposes))


def _label(jobs: Sequence[Job]) -> str:
    """Shapes of a portion in words."""
    shapes = list(dict.fromkeys(job.config.shape for job in jobs))
    first = f"{shapes[0].n_layer}×{shapes[0].d_model}"
    return first if len(shapes) == 1 else f"{len(shapes)} shapes"


def _silent(line: str) -> None:
    """Say nothing."""
