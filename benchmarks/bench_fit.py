"""Fits beside their peers: SciPy's L-BFGS grid of Hoffmann et al. for the point, NumPyro's NUTS for the posterior.

    python benchmarks/bench_fit.py --quick --json

prints one object per row. Times are CPU seconds (user and system) of one thread, the least of ``--rounds`` rounds, in
which ours and the peer alternate. Data: Epoch's 240 digitised runs where ../shared/data holds them, else as many
simulated ones. ``--quick`` takes every 45th start of the grid and leaves the joint fit of 200 curves out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "backends")]
EPOCH = HERE.parents[1] / "shared" / "data" / "epoch" / "svg_extracted_data.csv"
COLUMNS = "N=Model Size,C=Training FLOP,loss=loss"

Row = dict[str, Any]


def points() -> Any:
    """240 runs."""
    import scaling_sim as ss
    from scaling_sim.predict.layout import Grid, log_spaced

    if EPOCH.is_file():
        return ss.read_runs(EPOCH, COLUMNS, where="loss<3.44", name="Epoch 240")
    design = Grid(N=log_spaced(5e7, 1.6e10, 16), tokens=log_spaced(1e9, 3e11, 15))
    return ss.simulate({"law": "chinchilla"}, design, seed=0)


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, and the result."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def peer(script: str, source: Path, argument: int) -> Row:
    """What a peer, in its own process, says of itself."""
    out = source.with_suffix(".out.json")
    command = [sys.executable, str(HERE / "peers" / script), str(source), str(out), str(argument)]
    subprocess.run(command, check=True)
    found: Row = json.loads(out.read_text())
    return found


def point_row(runs: Any, source: Path, rounds: int, starts: int) -> Row:
    """The log-Huber minimum, δ = 1e-3."""
    import scaling_sim as ss

    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(cpu_seconds(lambda: ss.point_fit(runs)))
        theirs.append(peer("scipy_grid.py", source, starts))
    seconds, best = min(s for s, _ in ours), min(theirs, key=lambda found: found["seconds"])
    return {
        "row": "point",
        "peer": f"scipy L-BFGS-B from {best['starts']} starts",
        "ours_seconds": seconds,
        "peer_seconds": best["seconds"],
        "ratio": best["seconds"] / seconds,
        "ours_objective": ours[0][1].objective,
        "peer_objective": best["objective"],
    }


def posterior_row(runs: Any, source: Path, rounds: int, draws: int) -> Row:
    """Effective draws of the worst coordinate per CPU second, and the time until our rule of convergence holds."""
    import scaling_sim as ss

    with warnings.catch_warnings(action="ignore"):
        ss.fit(runs, max_steps=30)  # imports
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(cpu_seconds(lambda: ss.fit(runs)))
        theirs.append(peer("numpyro_nuts.py", source, draws))
    (seconds, fit), best = min(ours, key=lambda pair: pair[0]), max(theirs, key=lambda r: r["ess"] / r["seconds"])
    return {
        "row": "posterior",
        "peer": f"numpyro NUTS, 4 chains of {draws}",
        "ours_seconds": seconds,
        "ours_ess": fit.diagnostics.min_ess,
        "ours_ess_per_second": fit.diagnostics.min_ess / seconds,
        "peer_ess_per_second": best["ess"] / best["seconds"],
        "peer_ess_per_second_with_compilation": best["ess"] / (best["seconds"] + best["seconds_in_all"]),
        "ratio": fit.diagnostics.min_ess / seconds / (best["ess"] / best["seconds"]),
        "converged": fit.converged,
        "alpha": [float(fit.draws["alpha"].mean()), best["alpha"]],
        "beta": [float(fit.draws["beta"].mean()), best["beta"]],
    }


def command_row(runs: Any, folder: Path, rounds: int, *options: str) -> Row:
    """A whole command, from the start of Python."""
    runs.to_csv(folder / "runs.csv")
    command = [sys.executable, "-m", "scaling_sim.cli", "fit", str(folder / "runs.csv"), "--json", *options]
    seconds = []
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=HERE.parent)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"row": f"command: fit {' '.join(options)}".strip(), "ours_seconds": min(seconds), "points": len(runs)}


def linear_row(rounds: int) -> Row:
    """Microseconds per point of the log posterior, 32 draws at once, as the number of points grows."""
    import numpy as np

    import scaling_sim as ss
    from scaling_sim.inference.design import prepare
    from scaling_sim.inference.target import LogPosterior
    from scaling_sim.predict.layout import Grid, log_spaced

    cost: dict[str, float] = {}
    law = ss.get_law("chinchilla")
    for per_size in (15, 150, 1500):
        design = Grid(N=log_spaced(5e7, 1.6e10, 16), tokens=log_spaced(1e9, 3e11, per_size))
        target = LogPosterior(law, prepare(ss.simulate({"law": "chinchilla"}, design, seed=0), law))
        u = 0.01 * np.random.default_rng(0).standard_normal((32, len(target.coordinates)))
        best = min(cpu_seconds(lambda: [target(u) for _ in range(20)])[0] for _ in range(3 * rounds))  # noqa: B023
        cost[str(16 * per_size)] = 1e6 * best / 20 / 32 / (16 * per_size)
    return {"row": "linear", "microseconds_per_point_and_draw": cost}


def joint_row() -> Row:
    """The joint Kaplan system on 200 simulated curves of 16 points and 30 early-stopped runs, in one process."""
    import scaling_sim as ss
    from scaling_sim.predict.layout import Sweep, log_spaced

    design = Sweep(
        N=log_spaced(1e5, 1e9, 24), batch_N=log_spaced(1e6, 1e8, 40), seed_N=log_spaced(1e6, 1e8, 8), seeds=3
    )
    runs = ss.simulate(ss.constants("kaplan-table5"), design, seed=0)
    seconds, fit = cpu_seconds(lambda: ss.fit(runs, "kaplan"))
    facts = {"points": len(runs), "curves": len(set(runs.run[runs.curve].tolist())), "ours_seconds": seconds}
    return {"row": "joint", **facts, "converged": fit.converged, "ours_ess": fit.diagnostics.min_ess}


def rows(quick: bool, rounds: int) -> Iterator[Row]:
    """The rows of the table, one after another."""
    runs = points()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "columns.json"
        source.write_text(json.dumps({name: getattr(runs, name).tolist() for name in ("N", "tokens", "loss")}))
        yield point_row(runs, source, rounds, 100 if quick else 4500) | {"data": runs.source}
        yield posterior_row(runs, source, rounds, 1000 if quick else 4000) | {"data": runs.source}
        yield command_row(runs, Path(folder), rounds, "--point")
        yield command_row(runs, Path(folder), rounds)
    yield linear_row(rounds)
    if not quick:
        yield joint_row()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few starts, one round, no joint fit")
    parser.add_argument("--rounds", type=int, default=None, help="of which the least time counts (3; quick: 1)")
    parser.add_argument("--json", action="store_true", help="one object per row")
    arguments = parser.parse_args()
    for row in rows(arguments.quick, arguments.rounds or (1 if arguments.quick else 3)):
        print(json.dumps(row) if arguments.json else "  ".join(f"{k}={v}" for k, v in row.items()), flush=True)


if __name__ == "__main__":
    main()
