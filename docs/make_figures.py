"""Draw the figures of README and docs.

python docs/make_figures.py study     # from a finished study of this machine
python docs/make_figures.py kaplan    # from the shipped runs of the paper's experiment
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import scaling_sim as ss

FOLDER = Path(__file__).parent / "figures"
KAPLAN = ("compute-trend", "overfitting", "exponents")


def main(source: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    if source == "kaplan":
        _kaplan()
        return
    data = ss.load_study(source).report_data()
    for build in (ss.plot.figure_power_laws, ss.plot.figure_two_variables):
        figure = build(data)
        (FOLDER / f"laptop_{figure.name}.svg").write_text(ss.plot.to_svg(figure), encoding="utf-8")


def _kaplan() -> None:
    from scaling_sim.study.reproduce.kaplan import reproduce_kaplan

    with tempfile.TemporaryDirectory() as folder:
        reproduce_kaplan(folder, only=KAPLAN, say=print)
        for name in KAPLAN:
            shutil.copy(Path(folder) / f"{name}.svg", FOLDER / f"kaplan_{name}.svg")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "study")
