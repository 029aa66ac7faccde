"""A finished study: its runs, fits, predictions and report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from scaling_sim.data import Corpus
from scaling_sim.runs import RunRecord, RunTable
from scaling_sim.study.comparisons import best_size_methods, comparison_of
from scaling_sim.study.config import StudyConfig
from scaling_sim.study.fits import converged
from scaling_sim.study.predictions import Predictions

if TYPE_CHECKING:
    from scaling_sim.inference.posterior import Posterior
    from scaling_sim.report import ReportData


@dataclass(frozen=True, repr=False)
class Study:
    """Everything that a study made.

    Attributes
    ----------
    records, runs : the runs as stored, and the rows that fits read
    fits : law name → Posterior
    predictions : Predictions
    flags : what a reader must know before believing it
    planned : number of runs planned
    command : how to reproduce it
    """

    config: StudyConfig
    folder: Path
    corpus: Corpus
    records: tuple[RunRecord, ...]
    runs: RunTable
    fits: dict[str, Posterior]
    predictions: Predictions
    flags: tuple[str, ...]
    planned: int
    command: str

    def __repr__(self) -> str:
        return f"Study {self.config.name}: {self.describe()}"

    @property
    def report_path(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"

    @property
    def converged(self) -> bool:
        """Whether every fit met the convergence rule."""
        return converged(self.fits)

    def to_json(self) -> dict[str, Any]:
        """Counts, fits and predictions; units in the key names."""
        return {
            "study": self.config.name,
            "converged": self.converged,
            "runs_planned": self.planned,
            "runs": self.status_counts(),
            "corpus": self.corpus.hash,
            "seed": self.config.seed,
            "simulated": self.runs.simulated,
            "fits": {law: fit.to_json() for law, fit in self.fits.items()},
            **self.predictions.to_json(),
            "flags": list(self.flags),
            "report": str(self.report_path),
        }

    def status_counts(self) -> dict[str, int]:
        """Number of runs by status."""
        statuses = [record.status for record in self.records]
        return {status: statuses.count(status) for status in sorted(set(statuses))}

    def describe(self) -> str:
        """A few lines for the terminal; the last one is the report's path."""
        counts = ", ".join(f"{number} {status}" for status, number in self.status_counts().items())
        lines = [f"{self.planned} runs: {counts}"]
        lines += [f"{law}: {fit.diagnostics.verdict}" for law, fit in self.fits.items()]
        lines += [f"note: {flag}" for flag in self.flags]
        return "\n".join([*lines, str(self.report_path)])

    def report_data(self) -> ReportData:
        """What the report shows."""
        from scaling_sim.report import ReportData, environment

        made = self.predictions
        weak = dict.fromkeys(self.fits, made.not_identified) if made.not_identified else {}
        return ReportData(
            title=f"Scaling study “{self.config.name}”",
            runs=self.runs,
            records=self.records,
            fits=self.fits,
            allocations=made.allocations,
            crossover=made.crossover,
            crossover_refusal=made.crossover_refusal,
            forecasts=made.forecasts,
            backtest=made.backtest,
            design=made.design,
            comparison=comparison_of(self.fits),
            methods=best_size_methods(self.fits),
            corpus=corpus_facts(self.corpus),
            environment=environment(),
            seed=self.config.seed,
            command=self.command,
            flags=(*self.flags, *made.notes),
            not_identified=weak,
            planned=self.planned,
        )


def corpus_facts(corpus: Corpus) -> dict[str, Any]:
    """What the text was, for the report."""
    sizes = {f"{name}, tokens": len(tokens) for name, tokens in corpus.splits.items()}
    facts = {"name": corpus.name, "hash": corpus.hash, "vocabulary": corpus.vocab_size, **sizes}
    return {**facts, **({"notes": "; ".join(corpus.notes)} if corpus.notes else {})}


def study_fingerprint(study: Study) -> str:
    """Hash of what the report shows, so that an unchanged one is not drawn again."""
    from scaling_sim import __version__
    from scaling_sim.config import config_hash

    tree = {key: value for key, value in study.to_json().items() if key != "report"}
    return config_hash(msgspec.to_builtins(tree, enc_hook=str), study.runs.data_hash, __version__)
