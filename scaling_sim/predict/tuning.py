"""Loss of runs at any learning rate and batch: a bowl about the best of both, for simulated sweeps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from scaling_sim.laws.base import Parameters
from scaling_sim.laws.constants import ConstantSet, constants
from scaling_sim.laws.optimum import OptimumLaw
from scaling_sim.laws.registry import get_law

Array = NDArray[np.float64]

CURVATURE = np.array([[0.018, -0.0054], [-0.0054, 0.015]])
"""Second derivatives of log loss by log lr and log B at their best: means over the 17 cells of the public Step Law
sweep (Li et al. 2025), fitted as `learning-rate` reads them. Twice the best learning rate costs .4 % of the loss."""


def tuned_log_loss(law: OptimumLaw, parameters: Parameters, columns: Mapping[str, Array]) -> Array:
    """log L(N, tokens, lr, B) = log L(N, tokens) + ½ zᵀ H z, z = (log lr/lr_best, log B/B_best), H = `CURVATURE`.

    One best value follows ``law``, the other its published law; L(N, tokens) is Besiroglu et al.'s.

    Parameters
    ----------
    columns : N, tokens, lr and B, (n,) arrays
    """
    published = {"lr": constants("step-law-learning-rate"), "B": constants("step-law-batch-size")}
    best = {name: _log_response(found, columns) for name, found in published.items()}
    best[law.variable] = law.log_response(parameters, columns)
    z = np.stack([np.log(columns[name]) - best[name] for name in ("lr", "B")], axis=-1)
    floor = constants("besiroglu")
    return np.asarray(_log_response(floor, columns) + 0.5 * np.sum(z @ CURVATURE * z, axis=-1))


def _log_response(found: ConstantSet, columns: Mapping[str, Array]) -> Array:
    return get_law(found.law_name).log_response(found.values, columns)
