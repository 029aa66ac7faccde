"""The laws of a study, fitted once: a saved fit of the same runs is used again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scaling_sim.errors import DataError, ScalingSimError, StoreError

if TYPE_CHECKING:
    from scaling_sim.inference.posterior import Posterior
    from scaling_sim.runs import RunTable


def fit_laws(
    runs: RunTable, laws: Sequence[str], folder: Path, *, seed: int, say: Callable[[str], None] | None
) -> tuple[dict[str, Posterior], tuple[str, ...]]:
    """Posterior of every law that the runs can identify, and why the others cannot be had.

    Without ``say`` saved fits are read and nothing is fitted or written.
    """
    fits: dict[str, Posterior] = {}
    refusals = []
    for law in laws:
        path = folder / f"{law}.nc"
        try:
            rows = usable(runs, law)
            found = _known(path, rows, seed) or (None if say is None else _fitted(rows, law, path, seed, say))
        except DataError as error:
            refusals.append(f"{law} was not fitted: {error}")
            (say or print_nothing)(f"note: {refusals[-1]}")
            continue
        if found is None:
            refusals.append(f"{law} has not been fitted to these runs yet; run the study again")
        else:
            fits[law] = found
    return fits, tuple(refusals)


def print_nothing(line: str) -> None:
    """Say nothing."""


def _known(path: Path, runs: RunTable, seed: int) -> Posterior | None:
    if not path.exists():
        return None
    from scaling_sim.inference import load_fit

    try:
        posterior: Posterior = load_fit(path)
    except (ScalingSimError, OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error}); remove it and run the study again") from error
    return posterior if posterior.runs.data_hash == runs.data_hash and posterior.seed == seed else None


def _fitted(runs: RunTable, law: str, path: Path, seed: int, say: Callable[[str], None]) -> Posterior:
    from scaling_sim.inference import fit

    say(f"fitting {law}")
    posterior: Posterior = fit(runs, law, seed=seed, processes=min(4, os.cpu_count() or 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    posterior.save(path)
    say(f"{law}: {posterior.diagnostics.verdict}")
    return posterior


def usable(runs: RunTable, law: str) -> RunTable:
    """The rows that a law may read: final losses and points of curves are never mixed in one fit."""
    if law in ("chinchilla", "data-constrained"):
        return runs.select(runs.decayed, f"learning rate not decayed: {law} takes final losses")
    return runs


def converged(fits: Mapping[str, Posterior]) -> bool:
    """Whether there is a fit and every one met the convergence rule."""
    return bool(fits) and all(posterior.converged for posterior in fits.values())
