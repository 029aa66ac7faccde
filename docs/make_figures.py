"""Draw the figures of README and docs from a finished study: python docs/make_figures.py study"""

from __future__ import annotations

import sys
from pathlib import Path

import scaling_sim as ss

FOLDER = Path(__file__).parent / "figures"


def main(folder: str) -> None:
    data = ss.load_study(folder).report_data()
    FOLDER.mkdir(exist_ok=True)
    for build in (ss.plot.figure_power_laws, ss.plot.figure_two_variables):
        figure = build(data)
        (FOLDER / f"laptop_{figure.name}.svg").write_text(ss.plot.to_svg(figure), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "study")
