"""Predictions from many draws: allocation of a hundred budgets from ten thousand draws, beside SciPy's minimiser.

    python benchmarks/bench_predict.py --json

prints one object per row: CPU seconds of one thread, the least of ``--rounds`` rounds. The baseline minimises the
implicit loss (1.6) with (5.4) over ln N by SciPy's bounded Brent, one budget of one draw at a time; it is timed on
``baseline_solves`` of them, and scaled to all.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "backends")]

DRAWS, BUDGETS, SOLVES = 10_000, 100, 200
Row = dict[str, Any]

CASES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("kaplan, critical batch", "kaplan-table5", {}),
    ("kaplan, batch of 5e5 tokens", "kaplan-table5", {"batch": 5e5}),
    ("chinchilla", "besiroglu", {}),
    ("kaplan, N at most 1e10", "kaplan-table5", {"max_N": 1e10}),
    ("kaplan, deadline", "kaplan-table5", {"compute": None, "hours": 1e3, "num_gpus": 1e3, "step_seconds": 1.0,
                                          "flops_per_second": 4e14}),
    ("data-constrained, 1e11 unique tokens", "muennighoff", {"unique_tokens": 1e11}),
    ("kaplan, 1e11 unique tokens", "kaplan-table5", {"unique_tokens": 1e11}),
)  # fmt: skip


class Draws:
    """Log-normal draws about a published set, in place of a posterior."""

    converged = True

    def __init__(self, name: str) -> None:
        import numpy as np

        from scaling_sim.laws.constants import constants

        found, rng = constants(name), np.random.default_rng(0)
        self.law_name = found.law_name
        self.draws = {k: v * np.exp(0.02 * rng.standard_normal(DRAWS)) for k, v in found.values.items()}


def cpu_seconds(work: Callable[[], Any], rounds: int) -> float:
    """The least CPU seconds of a few rounds."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def baseline(fit: Draws) -> float:
    """CPU seconds of one minimisation by SciPy."""
    import numpy as np
    from scipy.optimize import minimize_scalar

    from scaling_sim.laws.kaplan import solve_loss

    def work() -> None:
        for i in range(SOLVES):
            p = {name: float(values[i]) for name, values in fit.draws.items()}
            C, B = 1e17 * 10 ** (9 * i / SOLVES), 5e5
            minimize_scalar(
                lambda u: float(solve_loss(np.exp(u), B, C / (6 * np.exp(u) * B), p)),  # noqa: B023
                bounds=(5.0, 35.0),
                method="bounded",
                options={"xatol": 1e-6},
            )

    return cpu_seconds(work, 1) / SOLVES


def rows(rounds: int) -> Iterator[Row]:
    """One row per case."""
    import numpy as np

    from scaling_sim.predict.allocate import allocate

    budgets = np.geomspace(1e17, 1e26, BUDGETS)
    per_solve = baseline(Draws("kaplan-table5"))
    for name, constants, options in CASES:
        fit = Draws(constants)
        asked = {"compute": budgets, **options}
        seconds = cpu_seconds(lambda: allocate(fit, **asked), rounds)  # noqa: B023
        solves = DRAWS * (BUDGETS if asked["compute"] is not None else 1)
        row: Row = {"case": name, "draws": DRAWS, "budgets": solves // DRAWS, "cpu_seconds": round(seconds, 4)}
        if options == {"batch": 5e5}:  # what the baseline solves
            row |= {"baseline_cpu_seconds": round(per_solve * solves, 1), "baseline_solves": SOLVES}
        yield row


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one object per row")
    arguments = parser.parse_args()
    for row in rows(arguments.rounds):
        print(json.dumps(row) if arguments.json else "  ".join(f"{k}={v}" for k, v in row.items()), flush=True)


if __name__ == "__main__":
    main()
