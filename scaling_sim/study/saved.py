"""Finished studies and saved fits, opened again: nothing is trained, fitted or written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scaling_sim.data import load_corpus
from scaling_sim.errors import ConfigError
from scaling_sim.runs import RunStore
from scaling_sim.study.comparisons import best_size_methods
from scaling_sim.study.pipeline import STORE, assemble, planned_jobs, records_of
from scaling_sim.study.plan import first_sizes, read_choices, read_claim
from scaling_sim.study.predictions import predict
from scaling_sim.study.result import Study

if TYPE_CHECKING:
    from scaling_sim.inference.posterior import Posterior
    from scaling_sim.report import ReportData


def load_study(folder: str | Path) -> Study:
    """A study that was run before, as far as it went.

    Raises
    ------
    ConfigError
        The folder holds no study, or one whose training has not begun.
    """
    folder = Path(folder)
    config, choices = read_claim(folder), read_choices(folder)
    if choices is None:
        raise ConfigError(f"the study in {folder} has not been trained yet; run it first")
    corpus = load_corpus(config.corpus, folder / "corpus")
    kept = first_sizes(config, choices.num_shapes)
    with RunStore(folder / STORE, create=False) as store:
        choices, jobs = planned_jobs(kept, choices, corpus, store)
        records = records_of(store, jobs)
    command = f"scaling-sim study {config.name} --out {folder} --seed {config.seed}"
    return assemble(kept, folder, corpus, records, choices, command, None)


def report_on(source: str | Path | Posterior, out: str | Path, *, command: str = "") -> Path:
    """Write the report of a study's folder, or of a fit, saved or at hand, to ``out``; returns its path."""
    from scaling_sim.inference import load_fit
    from scaling_sim.report import write_report

    if isinstance(source, str | Path) and Path(source).is_dir():
        return write_report(load_study(source).report_data(), out)
    fit = load_fit(source) if isinstance(source, str | Path) else source
    return write_report(_fit_report(fit, command), out)


def _fit_report(fit: Posterior, command: str) -> ReportData:
    """Report of one fit: runs, parameters, diagnostics, and what it says of 1, 10 and 100 times the largest budget."""
    from scaling_sim.laws.constants import PF_DAY
    from scaling_sim.report import ReportData, environment

    largest = float(fit.runs.C.max()) / PF_DAY
    made = predict({fit.law_name: fit}, [largest * factor for factor in (1, 10, 100)])
    return ReportData(
        title=f"{fit.law_name} fitted to {Path(fit.runs.source).name or 'runs'}",
        fits={fit.law_name: fit},
        allocations=made.allocations,
        crossover=made.crossover,
        crossover_refusal=made.crossover_refusal,
        forecasts=made.forecasts,
        backtest=made.backtest,
        design=made.design,
        methods=best_size_methods({fit.law_name: fit}),
        environment=environment(),
        seed=fit.seed,
        command=command,
    )
