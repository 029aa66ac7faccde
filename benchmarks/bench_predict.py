"""Predictions from many draws: allocation of a hundred budgets from ten thousand draws, beside SciPy's minimiser.

    python benchmarks/bench_predict.py --json

prints one object per row: CPU seconds of one thread, the least of ``--rounds`` rounds, and how many times longer the
baseline takes. The baseline minimises the same loss over ln N by SciPy's bounded Brent (``xatol`` 1e-6), one budget of
one draw at a time; it is timed on ``baseline_solves`` of them, and scaled to all.
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

KAPLAN, UNIQUE = "kaplan-table5", {"unique_tokens": 1e11}
DEADLINE = {"hours": 1e3, "step_seconds": 1.0}
CASES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("kaplan, critical batch", KAPLAN, {}),
    ("kaplan, batch of 5e5 tokens", KAPLAN, {"batch": 5e5}),
    ("kaplan, N at most 1e10", KAPLAN, {"max_N": 1e10}),
    ("kaplan, 3.6e6 steps before a deadline", KAPLAN, DEADLINE),
    ("kaplan, 1e11 unique tokens", KAPLAN, UNIQUE),
    ("kaplan, 1e9 unique tokens, batch of 5e5", KAPLAN, {"unique_tokens": 1e9, "batch": 5e5}),
    ("kaplan, deadline, 1e11 unique tokens", KAPLAN, {**DEADLINE, **UNIQUE}),
    ("chinchilla", "besiroglu", {}),
    ("data-constrained, 1e11 unique tokens", "muennighoff", UNIQUE),
)


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


def loss_of(law: str, p: dict[str, float], C: float, options: dict[str, Any], log_N: float) -> float:
    """Loss of one size when C FLOP are paid: the formulas, one number at a time."""
    import numpy as np

    from scaling_sim.laws.kaplan import loss_nd, solve_loss
    from scaling_sim.laws.registry import get_law

    N, U = float(np.exp(log_N)), options.get("unique_tokens", np.inf)
    tokens = C / (6 * N)
    if law != "kaplan":
        columns = {"N": N, "tokens": tokens, "D": min(tokens, U)}
        return float(get_law(law).loss(p, columns))
    if "hours" in options:
        S = options["hours"] * 3600 / options["step_seconds"]
        B = tokens / S
    elif "batch" in options:
        B, S = options["batch"], tokens / options["batch"]
    else:  # at the critical batch half of C is C_min: a tiny batch at half the compute
        B, S = 1e-30, tokens / 2e-30
    reached = float(solve_loss(N, B, S, p))
    return max(reached, float(loss_nd(N, U, p))) if tokens > U else reached


def baseline(fit: Draws, options: dict[str, Any]) -> float:
    """CPU seconds of one minimisation by SciPy."""
    import numpy as np
    from scipy.optimize import minimize_scalar

    high = np.log(options["max_N"]) if "max_N" in options else 35.0

    def work() -> None:
        for i, C in enumerate(np.geomspace(1e17, 1e26, SOLVES)):
            p = {name: float(values[i]) for name, values in fit.draws.items()}
            minimize_scalar(
                lambda u: loss_of(fit.law_name, p, C, options, u),  # noqa: B023
                bounds=(5.0, high),
                method="bounded",
                options={"xatol": 1e-6},
            )

    return cpu_seconds(work, 1) / SOLVES


def rows(rounds: int) -> Iterator[Row]:
    """One row per case."""
    import numpy as np

    from scaling_sim.predict.allocate import allocate

    budgets = np.geomspace(1e17, 1e26, BUDGETS)
    for name, constants, options in CASES:
        fit = Draws(constants)
        seconds = cpu_seconds(lambda: allocate(fit, budgets, **options), rounds)  # noqa: B023
        slow = baseline(fit, options) * DRAWS * BUDGETS
        yield {
            "case": name,
            "draws": DRAWS,
            "budgets": BUDGETS,
            "cpu_seconds": round(seconds, 4),
            "baseline": "scipy.optimize.minimize_scalar",
            "baseline_cpu_seconds": round(slow, 1),
            "baseline_solves": SOLVES,
            "times_faster": round(slow / seconds),
        }


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
