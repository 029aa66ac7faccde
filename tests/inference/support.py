"""Tables of runs drawn from known laws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scaling_sim.laws import get_law, kaplan
from scaling_sim.runs.table import RunTable

KAPLAN = {
    "alpha_N": 0.09, "N_c": 3e9, "alpha_D": 0.11, "D_c": 2e12, "alpha_S": 0.6, "S_c": 400.0,
    "alpha_B": 0.3, "B_star": 4e4,
}  # fmt: skip


def table(**columns: Any) -> RunTable:
    """A table with these columns; the others are unknown or derived from one epoch."""
    n = len(columns["loss"])
    unknown, no = np.full(n, np.nan), np.zeros(n, dtype=bool)
    filled: dict[str, Any] = {
        "run": np.array([f"r{i}" for i in range(n)]), "B": unknown, "S": unknown, "loss_error": unknown,
        "warmup": unknown,
        "decayed": no, "stopped": no, "curve": no, "simulated": True, "source": "simulated",
    }  # fmt: skip
    filled |= columns
    filled.setdefault("D", filled.get("tokens", unknown))
    filled.setdefault("tokens", filled["D"])
    filled.setdefault("N", unknown)
    filled.setdefault("C", 6 * filled["N"] * filled["tokens"])
    return RunTable(**filled)


def chinchilla(alpha: float, beta: float, noise: float = 0.005, size: int = 60, seed: int = 0) -> RunTable:
    """A sweep over N and tokens; both terms are about a third of E at its centre."""
    rng = np.random.default_rng(seed)
    N, tokens = (
        np.exp(rng.uniform(np.log(1e7), np.log(1e10), size)),
        np.exp(rng.uniform(np.log(1e9), np.log(1e12), size)),
    )
    p = {"E": 1.8, "A": 0.6 * 3e8**alpha, "alpha": alpha, "B": 0.6 * 3e10**beta, "beta": beta}
    loss = get_law("chinchilla").loss(p, {"N": N, "tokens": tokens}) * np.exp(noise * rng.standard_t(5, size))
    return table(N=N, tokens=tokens, loss=loss)


def joint(seed: int = 0, noise: bool = True, points: int = 16, p: dict[str, float] = KAPLAN) -> RunTable:
    """Six curves, a batch sweep at two sizes (four batches, ×4 apart) and 15 early-stopped runs, errors correlated."""
    rng = np.random.default_rng(seed)
    sizes = (768.0, 3e3, 8e3, 2.5e4, 5e4, 1e5)
    plan = [(f"c{N:g}", N, 4096.0, 8000.0) for N in sizes]
    plan += [
        (f"b{N:g}-{B}", N, float(B), 4000 * (4096 / B) ** 0.5) for N in sizes[1:4:2] for B in (512, 2048, 8192, 32768)
    ]
    rows: list[tuple[str, float, float, float, float, float, bool]] = []
    for name, N, B, end in plan:
        S = np.geomspace(end / 200, end, points)
        rows += [(name, N, B * end, B, s, x, False) for s, x in zip(S, _curve(N, B, S, p, rng, noise), strict=True)]
    for N in sizes[::2]:
        for D in np.geomspace(1e5, 1e7, 5):
            loss = float(kaplan.loss_nd(N, D, p)) * (np.exp(0.006 * rng.standard_t(5)) if noise else 1.0)
            rows.append((f"d{N:g}-{D:g}", N, D, 4096.0, 5 * D / 4096, loss, True))
    run, N_, D_, B_, S_, loss_, stopped = (np.array(column) for column in zip(*rows, strict=True))
    return table(run=run, N=N_, D=D_, tokens=B_ * S_, B=B_, S=S_, loss=loss_, stopped=stopped, curve=~stopped)


def _curve(N: float, B: float, S: np.ndarray, p: dict[str, float], rng: np.random.Generator, noise: bool) -> np.ndarray:
    loss = kaplan.solve_loss(N, B, S, p)
    if not noise:
        return loss
    x = np.log(S)
    covariance = 0.006**2 * np.exp(-np.abs(x[:, None] - x)) + 0.002**2 * np.eye(len(S))
    return loss * np.exp(np.linalg.cholesky(covariance) @ rng.standard_normal(len(S)))


def epoch(shared_data: Path, rows: int = 245) -> RunTable:
    """Besiroglu et al.'s digitised runs; with 240 rows the five highest losses are left away, as they did."""
    import pandas as pd

    frame = pd.read_csv(shared_data / "epoch" / "svg_extracted_data.csv").sort_values("loss").iloc[:rows]
    N, C = frame["Model Size"].to_numpy(), frame["Training FLOP"].to_numpy()
    return table(N=N, tokens=C / (6 * N), C=C, loss=frame["loss"].to_numpy(), simulated=False, source="epoch")
