"""Choice of the next runs out of 200: CPU seconds of the whole call, misfit included.

    python benchmarks/bench_design.py --json

prints one object per law. Times are CPU seconds of one thread, the least of ``--rounds``; the target is 10 s.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "backends")]


def row(law: str, compute: float, budget: float, rounds: int) -> dict[str, Any]:
    """Times of one law; its fit is that of law and misfit on a simulated sweep."""
    import scaling_sim as ss
    from scaling_sim.predict.candidates import default_candidates
    from scaling_sim.predict.discrepancy import learn

    runs = ss.simulate({"law": law}, noise=0.005, seed=0)
    model = learn(runs, law)
    fit: Any = SimpleNamespace(law=model.law, law_name=law, draws=model.draws, runs=runs, noise={})
    pool = default_candidates(fit, budget)
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        plan = ss.design(fit, compute=compute, budget=budget, candidates=pool)
        seconds.append(time.process_time() - began)
    return {
        "law": law,
        "candidates": len(pool),
        "runs_bought": len(plan.purchases),
        "sd_before": plan.sd_before,
        "sd_after": plan.sd_after,
        "cpu_seconds": min(seconds),
        "target_seconds": 10.0,
    }


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for law, compute, budget in (("chinchilla", 1e24, 1e22), ("kaplan", 1e22, 1e20)):
        found = row(law, compute, budget, options.rounds)
        print(json.dumps(found) if options.json else found)


if __name__ == "__main__":
    main()
