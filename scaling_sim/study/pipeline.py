"""The main job: sweep, fit, predict, report. Every stage keeps its result, and the same call again resumes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from scaling_sim.data import Corpus
from scaling_sim.errors import DataError
from scaling_sim.runs import RunRecord, RunStore, table_from_records
from scaling_sim.study.config import StudyConfig
from scaling_sim.study.display import SweepDisplay, duration
from scaling_sim.study.fits import fit_laws
from scaling_sim.study.jobs import study_jobs, trial_jobs
from scaling_sim.study.plan import Choices, choose, first_sizes, open_study, read_choices, write_choices
from scaling_sim.study.predictions import predict
from scaling_sim.study.rates import best_multiples
from scaling_sim.study.result import Study
from scaling_sim.study.writing import write_study
from scaling_sim.training import Job, run_sweep, small_model_learning_rate

if TYPE_CHECKING:
    from scaling_sim.model.shape import Shape

STORE = "runs.sqlite"
Say = Callable[[str], None]


def run_study(
    preset: str | Path | StudyConfig,
    out: str | Path = "study",
    *,
    seed: int | None = None,
    say: Say | None = None,
    command: str = "",
) -> Study:
    """Train a family, fit its laws, predict, and write a report into ``out``; the same call again resumes.

    Parameters
    ----------
    preset : str, path or StudyConfig
        Name of a preset, or a TOML file, or what it says.
    out : path
        Folder of the study: runs.sqlite, fits, tables, predictions.json, report.html.
    seed : int, optional
        Of every random choice; the configuration's own if it is not given.
    say : callable, optional
        Receives lines of progress.
    command : str
        Shown in the report as the way to reproduce it.

    Raises
    ------
    ConfigError, DataError, BackendUnavailable
        As the stages say; what was trained until then is kept.
    KeyboardInterrupt
        After the state was saved.
    """
    began, say = time.monotonic(), say or _silent
    config, folder, corpus = open_study(preset, out, seed)
    command = command or f"scaling-sim study {preset if isinstance(preset, str | Path) else config.name} --out {out}"
    say(f"corpus {corpus.name} {corpus.hash}: {len(corpus.splits['train']):,} training tokens")
    with RunStore(folder / STORE) as store:
        kept, choices, jobs = _sweep(config, folder, corpus, store, say)
        records = records_of(store, jobs)
    study = assemble(kept, folder, corpus, records, choices, command, say)
    write_study(study, say)
    say(f"done in {duration(time.monotonic() - began)}")
    return study


def assemble(
    config: StudyConfig,
    folder: Path,
    corpus: Corpus,
    records: tuple[RunRecord, ...],
    choices: Choices,
    command: str,
    say: Say | None,
) -> Study:
    """A study from its finished runs; without ``say`` fits are only read, never made."""
    table = table_from_records(records, source=f"study {config.name}")
    fits, refusals = fit_laws(table, config.laws, folder / "fits", seed=config.seed, say=say)
    failed = [record.run_id for record in records if record.status == "failed"]
    flags = (f"{len(failed)} runs failed: {', '.join(failed)}. The same command again tries them once more.",)
    return Study(
        config=config,
        folder=folder,
        corpus=corpus,
        records=records,
        runs=table,
        fits=fits,
        predictions=predict(fits, config.target_pf_days),
        flags=(*choices.flags, *refusals, *(flags if failed else ())),
        planned=len(records),
        command=command,
    )


def run_sweep_of_study(
    preset: str | Path, out: str | Path = "study", *, seed: int | None = None, say: Say | None = None
) -> dict[str, Any]:
    """Train only; returns counts of runs by status."""
    config, folder, corpus = open_study(preset, out, seed)
    with RunStore(folder / STORE) as store:
        _, choices, jobs = _sweep(config, folder, corpus, store, say or _silent)
        statuses = [record.status for record in records_of(store, jobs)]
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    return {"store": str(folder / STORE), "runs": counts, "flags": list(choices.flags)}


def _sweep(
    config: StudyConfig, folder: Path, corpus: Corpus, store: RunStore, say: Say
) -> tuple[StudyConfig, Choices, list[Job]]:
    """Everything that is trained; returns the study as far as this machine goes, and its runs."""
    choices = read_choices(folder)
    if choices is None:
        choices, machine = choose(config, folder, corpus)
        place = machine.placement
        say(
            f"{place.names} on {place.device} in {place.precision}, {max(1, machine.num_workers)} at a time; "
            f"about {duration(choices.expected_seconds)} of training"
        )
        say(f"why: {place.reason}")
        write_choices(folder, choices)
    for flag in choices.flags:
        say(f"note: {flag}")
    kept = first_sizes(config, choices.num_shapes)
    trials = trial_jobs(kept, corpus.hash, len(corpus.splits["train"]), small_model_learning_rate)
    _train(trials, kept, folder, corpus, store, say)
    choices, jobs = planned_jobs(kept, choices, corpus, store)
    _train(jobs, kept, folder, corpus, store, say)
    return kept, choices, jobs


def planned_jobs(config: StudyConfig, choices: Choices, corpus: Corpus, store: RunStore) -> tuple[Choices, list[Job]]:
    """Every run of a study whose learning-rate trials are over, and the choices that they led to."""
    num_tokens = len(corpus.splits["train"])
    trials = trial_jobs(config, corpus.hash, num_tokens, small_model_learning_rate)
    multiples, flags = best_multiples(config, records_of(store, trials), trials)
    if trials:
        choices = msgspec.structs.replace(choices, multiples=multiples, flags=(*choices.flags, *flags))
    return choices, [*trials, *study_jobs(config, corpus.hash, num_tokens, _rate(config, multiples))]


def _train(jobs: list[Job], config: StudyConfig, folder: Path, corpus: Corpus, store: RunStore, say: Say) -> None:
    if not jobs:
        return
    with SweepDisplay(say) as display:
        summary = run_sweep(
            jobs,
            corpus,
            store,
            backend=config.backend,
            device=config.device,
            precision=config.precision,
            workers=config.workers,
            checkpoints=folder / "checkpoints",
            progress=display.update,
        )
    say(
        f"{summary.done} runs trained, {summary.skipped} were there, {summary.diverged} diverged, "
        f"{summary.failed} failed; {summary.seconds:.0f} s"
    )
    for message in summary.messages:
        say(f"note: {message}")


def _rate(config: StudyConfig, multiples: dict[str, float]) -> Callable[[Shape], float]:
    """Learning rate of a shape: the rule times the best multiple of the nearest size that was tried."""
    tried = sorted(int(size) for size in multiples)

    def rate(shape: Shape) -> float:
        rule = small_model_learning_rate(shape)
        if not tried:
            return rule
        size = config.shapes.index(shape)
        return rule * multiples[str(min(tried, key=lambda other: abs(other - size)))]

    return rate


def records_of(store: RunStore, jobs: list[Job]) -> tuple[RunRecord, ...]:
    """The records of these jobs, in their order; other runs in the store belong to nobody here."""
    found = {record.run_id: record for record in store.records()}
    missing = [job.run_id for job in jobs if job.run_id not in found]
    if missing:
        raise DataError(f"the store lacks {len(missing)} planned runs, {missing[0]} first; run the study again")
    return tuple(found[job.run_id] for job in jobs)


def _silent(line: str) -> None:
    """Say nothing."""
