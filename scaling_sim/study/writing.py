"""The files of a finished study: predictions.json, tables as CSV, the report."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from scaling_sim.config import json_text
from scaling_sim.study.result import Study, study_fingerprint


def write_study(study: Study, say: Callable[[str], None]) -> None:
    """Write everything that is missing or out of date."""
    from scaling_sim.report import write_report

    mark, fingerprint = study.folder / "report.key", study_fingerprint(study)
    if mark.exists() and mark.read_text() == fingerprint and study.report_path.exists():
        return
    _write(study.folder / "predictions.json", json_text(study.to_json(), indent=2) + "\n")
    write_tables(study)
    say("writing the report")
    write_report(study.report_data(), study.report_path)
    _write(mark, fingerprint)


def write_tables(study: Study) -> None:
    """CSV files under ``tables/``: runs, what was left out, parameters of each fit, allocations, the crossover."""
    import pandas as pd

    folder = study.folder / "tables"
    folder.mkdir(exist_ok=True)
    study.runs.to_dataframe().to_csv(folder / "runs.csv", index=False)
    left_out = [(reason, name) for reason, names in study.runs.dropped.items() for name in names]
    pd.DataFrame(left_out, columns=["reason", "run"]).to_csv(folder / "left_out.csv", index=False)
    for law, fit in study.fits.items():
        fit.summary().to_csv(folder / f"parameters_{law}.csv")
    for allocation in study.predictions.allocations:
        name = f"allocation_{allocation.header['law']}.csv"
        allocation.to_dataframe().to_csv(folder / name, index=False)
    if study.predictions.crossover is not None:
        study.predictions.crossover.to_dataframe().to_csv(folder / "crossover.csv", index=False)


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
