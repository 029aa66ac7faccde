"""Finished studies and saved fits, opened again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scaling_sim.errors import ConfigError
from scaling_sim.study.pipeline import run_study
from scaling_sim.study.result import Study


def load_study(folder: str | Path) -> Study:
    """A study that was run before: everything is read, whatever is missing is made.

    Raises
    ------
    ConfigError
        The folder holds no study.
    """
    import msgspec

    from scaling_sim.study.config import StudyConfig

    claim = Path(folder) / "study.json"
    if not claim.is_file():
        raise ConfigError(f"{folder} holds no study (no study.json); run: scaling-sim study laptop --out {folder}")
    config = msgspec.json.decode(claim.read_bytes(), type=StudyConfig)
    return run_study(config, folder, seed=config.seed)


def report_on(source: str | Path, out: str | Path, *, command: str = "") -> Path:
    """Write the report of a study's folder or of a saved fit to ``out``; returns its path."""
    from scaling_sim.report import write_report

    if Path(source).is_dir():
        return write_report(load_study(source).report_data(), out)
    return write_report(_fit_report(Path(source), command), out)


def _fit_report(path: Path, command: str) -> Any:
    """Report of one fit: its runs, parameters, diagnostics, and what it predicts."""
    from scaling_sim.inference import load_fit
    from scaling_sim.report import ReportData, environment
    from scaling_sim.study.predictions import Predictions

    fit = load_fit(path)
    made: Predictions = predictions_of(fit)
    return ReportData(
        title=f"{fit.law_name} fitted to {Path(fit.runs.source).name or 'runs'}",
        fits={fit.law_name: fit},
        allocations=made.allocations,
        crossover=made.crossover,
        crossover_refusal=made.crossover_refusal,
        backtest=made.backtest,
        environment=environment(),
        seed=fit.seed,
        command=command,
    )


def predictions_of(fit: Any) -> Any:
    """Predictions of a single fit, for budgets of 1, 10 and 100 times the largest run's."""
    from scaling_sim.laws.constants import PF_DAY
    from scaling_sim.study.predictions import predict

    largest = float(fit.runs.C.max())
    return predict({fit.law_name: fit}, (), [largest * factor / PF_DAY for factor in (1, 10, 100)])
