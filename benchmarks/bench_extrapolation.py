"""Do forecasts of larger runs keep their promises? Held-out splits of public sweeps, ours beside the i.i.d. posterior.

    python benchmarks/bench_extrapolation.py DATA [--cache DIR] [--json] [--baseline emcee|laplace] [--simulated NUM]

DATA is a folder with the public sweeps (epoch, takano, gadre, gemstone, step_law, misfitting; see SWEEPS for what is
read). Each sweep is cut at C_max/k, k = 3, 10, 30; `chinchilla` is fitted to the runs below and asked for those beyond.
The baseline is the posterior of the same law with independent Student-t errors (`scaling_sim.fit`), parameters and
errors drawn. The scheme's constants (`Scheme`) are chosen with the family of the scored sweep left out; its form, the
kernel, ν = 5 and the ends of the grid of amplitudes are not.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pickle
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import scaling_sim as ss
from scaling_sim.predict.backtest import crps
from scaling_sim.predict.discrepancy import SCHEME, grid, mixture, pose
from scaling_sim.predict.smooth import Scheme
from scaling_sim.runs.table import RunTable, read_runs

Array = NDArray[np.float64]

CUTS = (3, 10, 30)
MIN_RUNS = 8
LENGTHS, EXPONENT_SDS = ((7.0, 3.5), (10.0, 5.0), (14.0, 7.0)), (0.2, 0.3, 0.5)
AMPLITUDES, GROWTHS = ((0.015, 0.7), (0.03, 0.7), (0.045, 0.7)), ((0.0, 0.01), (0.03, 0.05), (0.05, 0.1))
CANDIDATES = [Scheme(a, b, c, d) for a in LENGTHS for b in AMPLITUDES for c in GROWTHS for d in EXPONENT_SDS]
GADRE_LOSSES = {
    "c4": "loss_c4_val",
    "openlm": "loss_val_tok_mult_openlm",
    "refinedweb": "loss_val_tok_mult_paloma_falcon_refinedweb_00000001_tar",
    "redpajama": "loss_val_tok_mult_paloma_redpajama_00000001_tar",
    "ptb": "loss_val_tok_mult_paloma_ptb_00000001_tar",
}


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One table of runs; sweeps of one cluster share models or recipes, those of one family their authors."""

    name: str
    family: str
    cluster: str
    runs: RunTable


@dataclasses.dataclass(frozen=True)
class Score:
    """What a forecast of held-out rows was worth."""

    crps: float
    interval_score: float
    covered90: Array
    covered50: Array
    block_covered: bool
    width90: Array


Baseline = dict[tuple[str, int], Score]
Scores = dict[tuple[str, int], list[Score]]
"""By sweep and k: one score, or one for each candidate."""


def sweeps(data: Path) -> Iterator[Sweep]:
    """The public sweeps, each read as a user would."""

    def table(frame: pd.DataFrame, **columns: str) -> RunTable:
        return read_runs(frame, {"run": None, "C": None, "D": None, **columns})

    def sweep(name: str, family: str, frame: pd.DataFrame, cluster: str = "", **columns: str) -> Sweep:
        return Sweep(name, family, cluster or family, table(frame, **columns))

    epoch = pd.read_csv(data / "epoch/svg_extracted_data.csv")
    epoch["tokens"] = epoch["Training FLOP"] / 6 / epoch["Model Size"]
    yield sweep("epoch", "hoffmann", epoch, N="Model Size", tokens="tokens", loss="loss")
    yield sweep("takano", "hoffmann", pd.read_csv(data / "takano/df.csv"), N="N", tokens="D", loss="loss")
    gadre = pd.read_csv(data / "gadre/runs.csv")
    for corpus, runs in gadre.groupby("train_data"):
        for short, column in GADRE_LOSSES.items():
            yield sweep(f"gadre {corpus} {short}", "gadre", runs, f"gadre {corpus}", N="N", tokens="D", loss=column)
    gemstone = pd.read_json(data / "gemstone/wandb_df_for_fitting_hot_100b+.jsonl", lines=True)
    wide = gemstone["width"] / gemstone["depth"] >= 36
    parts = {"all": gemstone, "wide": gemstone[wide], "deep": gemstone[~wide]}
    for short, runs in (parts | {"100b": gemstone[gemstone["tokens"] < 1.05e11]}).items():
        columns = {"N": "params_active_precise", "tokens": "tokens", "loss": "final_loss"}
        yield sweep(f"gemstone {short}", "gemstone", runs, **columns)
    cells = pd.read_csv(data / "step_law/dense_lr_bs_loss.csv").groupby(["N", "D"])["smooth loss"]
    yield sweep("step law best", "step law", cells.min().reset_index(), N="N", tokens="D", loss="smooth loss")
    yield sweep("step law q25", "step law", cells.quantile(0.25).reset_index(), N="N", tokens="D", loss="smooth loss")
    yield from _misfitting(data, sweep)


def _misfitting(data: Path, sweep: Any) -> Iterator[Sweep]:
    table = pd.read_csv(data / "misfitting/scaling_results.csv", low_memory=False)
    names = ["loss", "N", "N_no_emb", "D", "current_steps", "total_steps"]
    table[names] = table[names].apply(pd.to_numeric, errors="coerce")
    table = table[table[names].notna().all(axis=1)]
    final = table[table["current_steps"] >= 0.999 * table["total_steps"]]
    late = table[table["current_steps"] > 0.05 * table["total_steps"]]
    yield sweep("misfitting final", "misfitting", final, N="N", tokens="D", loss="loss")
    for short, rows, size in (
        ("best", final, "N"),
        ("best, no embeddings", final, "N_no_emb"),
        ("envelope", late, "N"),
    ):
        best = rows.groupby([size, "D"])["loss"].min().reset_index()
        yield sweep(f"misfitting {short}", "misfitting", best, N=size, tokens="D", loss="loss")


def simulated(num: int, data: Path) -> Iterator[Sweep]:
    """Losses from the law itself on the designs of public sweeps: errors .2, .5 or 1 %, ν = 5."""
    rng, designs = np.random.default_rng(5), [s for s in sweeps(data) if len(s.runs) <= 800]
    for i in range(num):
        runs = designs[rng.integers(len(designs))].runs
        alpha, beta = np.exp(rng.normal(np.log(0.33), 0.25, 2))
        E, terms = rng.uniform(1.4, 2.0), np.exp(rng.normal(-1.2, 0.4, 2))
        size, tokens = (
            np.exp(-p * np.log(x / np.exp(np.log(x).mean()))) for p, x in ((alpha, runs.N), (beta, runs.tokens))
        )
        error = rng.choice([0.002, 0.005, 0.01]) * rng.standard_t(5, len(runs))
        loss = E * (1 + terms[0] * size + terms[1] * tokens) * np.exp(error)
        frame = pd.DataFrame({"N": runs.N, "tokens": runs.tokens, "loss": loss})
        yield Sweep(f"simulated {i}", "simulated", f"simulated {i}", read_runs(frame))


def score(draws: Array, observed: Array) -> Score:
    """Scores of draws (n, k) of the log loss; the block is the mean over rows, its forecast from draws' means."""
    low, q25, q75, high = np.quantile(draws, (0.05, 0.25, 0.75, 0.95), axis=0)
    block_low, block_high = np.quantile(draws.mean(axis=1), (0.05, 0.95))
    missed = np.maximum(low - observed, 0) + np.maximum(observed - high, 0)
    return Score(
        float(crps(draws, observed).mean()),
        float(np.mean(high - low + 20 * missed)),
        (low <= observed) & (observed <= high),
        (q25 <= observed) & (observed <= q75),
        bool(block_low <= observed.mean() <= block_high),
        np.expm1(high - low),
    )


def split(sweep: Sweep, k: int) -> tuple[RunTable, dict[str, Array], Array] | None:
    """Runs to fit, and columns and log losses of those held out; None where too few runs lie below the cut."""
    runs, below = sweep.runs, sweep.runs.C.max() / k >= sweep.runs.C
    if below.sum() < MIN_RUNS:
        return None
    columns = {"N": runs.N[~below], "tokens": runs.tokens[~below]}
    return runs.select(below, "held out"), columns, np.log(runs.loss[~below])


def scheme_scores(job: tuple[Sweep, int]) -> list[Score] | None:
    """The score of every candidate on one split; fits are shared where only the prior differs."""
    warnings.simplefilter("ignore")
    parts = split(*job)
    if parts is None:
        return None
    train, columns, observed = parts
    C, found = 6 * columns["N"] * columns["tokens"], []
    fitted: dict[Any, Any] = {}
    for scheme in CANDIDATES:
        key = (scheme.lengths, scheme.exponent_sd)
        if key not in fitted:
            problem, start = pose(train, "chinchilla", scheme)
            fitted[key] = problem, grid(problem, start)
        problem, points = fitted[key]
        model = mixture(dataclasses.replace(problem, scheme=scheme), points)
        found.append(score(model.log_loss(columns, C), observed))
    return found


def baseline(job: tuple[Sweep, int, str]) -> Score | None:
    """The i.i.d. Student-t posterior of the law: by emcee, or by its Laplace approximation where time is short."""
    warnings.simplefilter("ignore")
    sweep, k, method = job
    parts = split(sweep, k)
    if parts is None:
        return None
    train, columns, observed = parts
    rng = np.random.default_rng(0)
    if method == "laplace":
        scheme = Scheme(growth=(0.0, 1e-6), amplitude=(1e-9, 1e-3), exponent_sd=0.75)
        problem, start = pose(train, "chinchilla", scheme)
        from scaling_sim.predict.linearised import linearised

        alone = [linearised(problem, problem.basis(), 1e-9, 0.0, start)]
        draws = mixture(problem, alone).log_loss(columns, 6 * columns["N"] * columns["tokens"])
        return score(draws, observed)
    fit = ss.fit(train, law="chinchilla", seed=0, processes=1, max_steps=4000)  # a few are not identified
    parameters = {name: values[:, None] for name, values in fit.draws.items()}
    law = fit.law.log_response(parameters, columns)
    error = fit.noise["sigma"][:, None] * rng.standard_t(np.broadcast_to(fit.noise["nu"][:, None], law.shape))
    return score(law + error, observed)


def choose(scores: Scores, base: Baseline, family: dict[str, str], out: str) -> int:
    """The candidate of least CRPS (mean logarithm, families equal), one family left out."""
    total = np.zeros(len(CANDIDATES))
    for name in sorted({family[key[0]] for key in scores} - {out}):
        keys = [key for key in scores if family[key[0]] == name]
        total += np.mean([[np.log(s.crps / base[key].crps) for s in scores[key]] for key in keys], axis=0)
    return int(np.argmin(total))


def resampled(values: Array, group: Array) -> list[float]:
    """90 % interval of exp(mean) with whole groups drawn with replacement."""
    names = np.unique(group)
    rng, drawn = np.random.default_rng(0), []
    for _ in range(4000):
        counts = dict(zip(*np.unique(rng.choice(names, len(names)), return_counts=True), strict=True))
        weight = np.array([counts.get(name, 0) for name in group], dtype=float)
        drawn.append(float(weight @ values / weight.sum()))
    return np.exp(np.quantile(drawn, (0.05, 0.95))).tolist()


def summary(rows: Baseline, base: Baseline, clusters: dict[str, str], family: dict[str, str]) -> dict[str, Any]:
    """Ratios to the baseline (splits equal; families equal), 90 % intervals over clusters or families, coverages."""
    keys = list(rows)
    log_crps = np.array([np.log(rows[key].crps / base[key].crps) for key in keys])
    log_interval = np.array([np.log(rows[key].interval_score / base[key].interval_score) for key in keys])
    cluster, kin = (np.array([names[key[0]] for key in keys]) for names in (clusters, family))
    families = np.unique(kin)
    by_family = {
        name: np.array([values[kin == f].mean() for f in families])
        for name, values in (("crps", log_crps), ("interval_score", log_interval))
    }
    at10 = [key for key in keys if key[1] == 10]
    pooled = {name: np.concatenate([getattr(rows[key], name) for key in keys]) for name in ("covered90", "covered50")}
    width = {key: rows[key].width90 for key in at10}
    return {
        "num_splits": len(keys),
        "num_rows": len(pooled["covered90"]),
        "num_clusters": len(np.unique(cluster)),
        "crps_ratio": float(np.exp(log_crps.mean())),
        "crps_ratio_interval90_clusters": resampled(log_crps, cluster),
        "interval_score_ratio": float(np.exp(log_interval.mean())),
        "interval_score_ratio_interval90_clusters": resampled(log_interval, cluster),
        "num_families": len(families),
        "crps_ratio_families_equal": float(np.exp(by_family["crps"].mean())),
        "crps_ratio_interval90_families": resampled(by_family["crps"], families),
        "interval_score_ratio_families_equal": float(np.exp(by_family["interval_score"].mean())),
        "interval_score_ratio_interval90_families": resampled(by_family["interval_score"], families),
        "coverage90_rows": float(pooled["covered90"].mean()),
        "coverage90_splits": float(np.mean([rows[key].covered90.mean() for key in keys])),
        "coverage50_rows": float(pooled["covered50"].mean()),
        "coverage50_splits": float(np.mean([rows[key].covered50.mean() for key in keys])),
        "block_mean_coverage90": float(np.mean([rows[key].block_covered for key in keys])),
        "median_width90_at_10_rows": float(np.median(np.concatenate(list(width.values())))) if at10 else None,
        "median_width90_at_10_splits": float(np.median([np.median(w) for w in width.values()])) if at10 else None,
        "coverage90_rows_iid": float(np.mean(np.concatenate([base[key].covered90 for key in keys]))),
        "block_mean_coverage90_iid": float(np.mean([base[key].block_covered for key in keys])),
    }


def _made(cache: Path | None, name: str, make: Any, jobs: list[Any], keys: list[Any]) -> dict[Any, Any]:
    """``make`` of each job in processes, kept in the cache folder."""
    path = None if cache is None else cache / f"{name}.pickle"
    found: dict[Any, Any] = pickle.loads(path.read_bytes()) if path is not None and path.exists() else {}
    todo = [(key, job) for key, job in zip(keys, jobs, strict=True) if key not in found]
    with ProcessPoolExecutor(max(1, (os.cpu_count() or 2))) as pool:
        for (key, _), result in zip(todo, pool.map(make, [job for _, job in todo]), strict=True):
            found[key] = result
            if len(found) % 10 == 0:
                print(f"{name}: {len(found)} of {len(keys)}", file=sys.stderr, flush=True)
            if path is not None:
                path.write_bytes(pickle.dumps(found))
    return {key: found[key] for key in keys if found[key] is not None}


def run(data: Path, cache: Path | None, method: str, num_simulated: int) -> dict[str, Any]:
    """All splits of all sweeps, and of simulated ones."""
    real, fake = list(sweeps(data)), list(simulated(num_simulated, data))
    jobs = [(s, k) for s in (*real, *fake) for k in CUTS]
    keys = [(s.name, k) for s, k in jobs]
    scores = _made(cache, "scheme", scheme_scores, jobs, keys)
    base = _made(cache, method, baseline, [(*job, method) for job in jobs], keys)
    family, clusters = {s.name: s.family for s in (*real, *fake)}, {s.name: s.cluster for s in (*real, *fake)}
    of_real = {key: value for key, value in scores.items() if family[key[0]] != "simulated"}
    names = sorted({family[key[0]] for key in of_real})
    chosen = {name: choose(of_real, base, family, name) for name in names}
    rows = {key: value[chosen[family[key[0]]]] for key, value in of_real.items()}
    everywhere = choose(of_real, base, family, "")
    shipped = {key: value[CANDIDATES.index(SCHEME)] for key, value in of_real.items()}
    others = [key for key in scores if family[key[0]] == "simulated"]
    simulated_rows = {key: scores[key][CANDIDATES.index(SCHEME)] for key in others}
    return {
        "baseline": method,
        "chosen_without_family": {name: dataclasses.asdict(CANDIDATES[i]) for name, i in chosen.items()},
        "chosen_with_all": dataclasses.asdict(CANDIDATES[everywhere]),
        "shipped": dataclasses.asdict(SCHEME),
        "shipped_constants": summary(shipped, base, clusters, family),
        "all": summary(rows, base, clusters, family),
        "families": {
            n: summary({k: v for k, v in rows.items() if family[k[0]] == n}, base, clusters, family) for n in names
        },
        "simulated": summary(simulated_rows, base, clusters, family) if simulated_rows else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--baseline", choices=("emcee", "laplace"), default="emcee")
    parser.add_argument("--simulated", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.cache is not None:
        asked.cache.mkdir(parents=True, exist_ok=True)
    found = run(asked.data, asked.cache, asked.baseline, asked.simulated)
    if asked.json:
        print(json.dumps(found))
        return
    columns = {"all": found["all"], **found["families"], "shipped": found["shipped_constants"]}
    table = pd.DataFrame({**columns, "simulated": found["simulated"]})
    print(table.to_string(float_format=lambda x: f"{x:.3g}"))
    print(f"constants without each family: {found['chosen_without_family']}\nwith all: {found['chosen_with_all']}")


if __name__ == "__main__":
    main()
