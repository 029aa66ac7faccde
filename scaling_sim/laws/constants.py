"""Published constants of scaling laws, by name, each set with its source.

The papers disagree with themselves (Kaplan et al. 2020 print three values of N_c and two of D_c, B* and C_c), so a set
is kept whole and never mixed with another. Where a set must take numbers from two places of one paper, its source says
so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ConfigError

PF_DAY = 8.64e19
"""FLOP in one petaFLOP/s-day: 1e15 · 86400."""

FRONTIER_LAW = "kaplan-frontier"
"""Law name of sets that print fitted compute-efficient power laws, not the parameters of L(N, S) and B_crit(L)."""


@dataclass(frozen=True)
class ConstantSet:
    """One published set of constants; predictions take it in place of a posterior.

    Attributes
    ----------
    name, source : str
        Name of the set; paper with table or equation.
    law_name : str
        Law whose natural parameters these are, or ``"kaplan-frontier"``: L = (C_c_min/C)^alpha_C_min, N = N_e·C^p_N,
        B = B_e·C^p_B, S_min = S_e·C^p_S, D = D_e·C^p_D with C = C_min **in PF-days**, and L(D) = (D_c/D)^alpha_D.
    values : mapping
        The constants: parameters, tokens, steps, FLOP and nats per token, but PF-days in ``kaplan-frontier``.
    compute_range : (float, float) or None
        Least and largest compute of the runs behind the set, FLOP; None if it was not published.
    count : str
        How the paper counts N: one of `scaling_sim.model.count.PARAMETER_CONVENTIONS`.
    """

    name: str
    source: str
    law_name: str
    values: Mapping[str, float]
    compute_range: tuple[float, float] | None = None
    count: str = "non-embedding"

    @property
    def draws(self) -> dict[str, NDArray[np.float64]]:
        """The constants as one draw each: (1,) arrays."""
        return {name: np.array([value], dtype=np.float64) for name, value in self.values.items()}

    @property
    def converged(self) -> None:
        """None: nothing was sampled, so nothing could fail to converge."""
        return

    def variant(self, name: str, source: str, **changes: float) -> ConstantSet:
        """Return the set with some constants replaced, under another name and with its own source."""
        unknown = sorted(set(changes) - set(self.values))
        if unknown:
            raise ConfigError(f"{self.name} has no constant {', '.join(unknown)}; it has {', '.join(self.values)}")
        values = MappingProxyType({**self.values, **changes})
        return replace(self, name=name, source=source, values=values)


def constants(name: str) -> ConstantSet:
    """Return the published set called ``name``.

    Raises
    ------
    ConfigError
        If there is no such set; the message lists the names.
    """
    try:
        return CONSTANTS[name]
    except KeyError:
        raise ConfigError(f"no constant set is called {name!r}; valid names: {', '.join(CONSTANTS)}") from None


_KAPLAN = "Kaplan et al. 2020 (arXiv 2001.08361)"
_HOFFMANN = "Hoffmann et al. 2022 (arXiv 2203.15556), approach 3"
_KAPLAN_RANGE = (1e-9 * PF_DAY, 1e1 * PF_DAY)  # the compute axis of Kaplan's Fig. 1

_L_N = {"alpha_N": 0.076, "N_c": 8.8e13}  # (1.1)
_L_D = {"alpha_D": 0.095, "D_c": 5.4e13}  # (1.2)
_CURVE = {"alpha_S": 0.76, "S_c": 2.1e3}  # (1.6)
_BATCH = {"alpha_B": 0.21, "B_star": 2.1e8}  # (1.4), Table 5
_TABLE_6 = {
    "N_e": 1.3e9,
    "p_N": 0.73,
    "B_e": 2.0e6,
    "p_B": 0.24,
    "S_e": 5.4e3,
    "p_S": 0.03,
    "D_e": 2e10,
    "p_D": 0.27,
}
_L_C_MIN = {"alpha_C_min": 0.050, "C_c_min": 3.1e8}  # (1.3), Table 5; PF-days
_OVERFIT_FIT = {"alpha_N": 0.076, "N_c": 6.4e13, "alpha_D": 0.103, "D_c": 1.8e13}
_CURVE_FIT = {"alpha_N": 0.077, "N_c": 6.5e13, **_CURVE}
_OVERFIT = {"overfit_coefficient": 5e3, "overfit_exponent": 0.74}  # (4.4): D ≥ 5e3·N^0.74


def _set(
    name: str,
    source: str,
    law_name: str,
    values: Mapping[str, float],
    compute_range: tuple[float, float] | None = None,
    count: str = "non-embedding",
) -> ConstantSet:
    return ConstantSet(name, source, law_name, MappingProxyType(dict(values)), compute_range, count)


def _kaplan_sets() -> list[ConstantSet]:
    table5 = {**_L_N, **_L_D, **_CURVE, **_BATCH}
    frontier = {**_TABLE_6, **_L_C_MIN, **_L_D, **_OVERFIT}
    figures = {
        **{name: _TABLE_6[name] for name in ("N_e", "p_N", "S_e", "p_S")},
        "B_e": PF_DAY / (6 * _TABLE_6["N_e"] * _TABLE_6["S_e"]),
        "p_B": 1 - _TABLE_6["p_N"] - _TABLE_6["p_S"],
        "D_e": 2 * PF_DAY / (6 * _TABLE_6["N_e"]),
        "p_D": 1 - _TABLE_6["p_N"],
        "alpha_C_min": 0.050,
        "C_c_min": 2.3e8,
        **_L_D,
        **_OVERFIT,
    }
    appendix_b = {**table5, "alpha_N_curve": 0.077, "N_c_curve": 6.5e13}
    laws: list[tuple[str, str, str, Mapping[str, float]]] = [
        ("kaplan-table5", "Table 5", "kaplan", table5),
        ("kaplan-text", "text of sections 1.2 and 5.1, where B* is 2e8", "kaplan", {**table5, "B_star": 2e8}),
        ("kaplan-table2", "Table 2: L(N, D), equation 1.5", "kaplan-nd", _OVERFIT_FIT),
        ("kaplan-table3", "Table 3: L(N, S_min), equation 1.6", "kaplan-ns", _CURVE_FIT),
        (
            "kaplan-appendix-b",
            "Appendix B from L(N, S_min) of Table 3 and B_crit(L) of Table 5; L(D) of Table 5",
            "kaplan",
            appendix_b,
        ),
        ("kaplan-table6", "Table 6 with L(C_min) and L(D) of Table 5; equation 4.4", FRONTIER_LAW, frontier),
        (
            "kaplan-eq6.7",
            "equation 6.7 for D(C_min), else Table 6 with L(C_min) and L(D) of Table 5; equation 4.4",
            FRONTIER_LAW,
            {**frontier, "D_e": 4e10, "p_D": 0.26},
        ),
        (
            "kaplan-figures",
            "legends of Figs. 1, 13, 14; D = 2·C_min/(6·N) and B = C_min/(6·N·S_min) follow; equation 4.4",
            FRONTIER_LAW,
            figures,
        ),
        ("kaplan-power-n", "Table 5: L(N), equation 1.1", "power-n", _L_N),
        ("kaplan-power-d", "Table 5: L(D), equation 1.2", "power-d", _L_D),
        (
            "kaplan-power-c",
            "Table 5: L(C) at fixed batch, equation 3.3",
            "power-c",
            {"alpha_C": 0.057, "C_c": 1.6e7 * PF_DAY},
        ),
        (
            "kaplan-power-c-min",
            "Table 5: L(C_min), equation 1.3; C is C_min",
            "power-c",
            {"alpha_C": 0.050, "C_c": 3.1e8 * PF_DAY},
        ),
        ("kaplan-critical-batch", "Table 5: B_crit(L), equation 1.4", "critical-batch", _BATCH),
    ]
    return [_set(name, f"{_KAPLAN}, {where}", law, values, _KAPLAN_RANGE) for name, where, law, values in laws]


def _chinchilla_sets() -> list[ConstantSet]:
    unrounded = {
        "E": math.exp(0.5267228),
        "A": math.exp(6.0073404),
        "alpha": 0.33917084,
        "B": math.exp(6.0179186),
        "beta": 0.2849083,
    }
    rounded = {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28}
    besiroglu = {"E": 1.8172, "A": 482.01, "alpha": 0.3478, "B": 2085.43, "beta": 0.3658}
    muennighoff = {
        "E": math.exp(0.6254804),
        "A": math.exp(6.255414),
        "alpha": 0.3526596,
        "B": math.exp(7.3049974),
        "beta": 0.3526596,
        "R_D": 15.387756,
        "R_N": 5.309743,
    }
    sets: list[tuple[str, str, str, Mapping[str, float]]] = [
        ("hoffmann", f"{_HOFFMANN}, unrounded log-values from its TeX source", "chinchilla", unrounded),
        ("hoffmann-rounded", f"{_HOFFMANN}, as printed; rounding moves N* by a fifth", "chinchilla", rounded),
        ("besiroglu", "Besiroglu et al. 2024 (arXiv 2404.10102), refit of approach 3", "chinchilla", besiroglu),
        ("muennighoff", "Muennighoff et al. 2023 (arXiv 2305.16264), C4 fit", "data-constrained", muennighoff),
    ]
    return [_set(*one, count="total") for one in sets]


def _tuning_sets() -> list[ConstantSet]:
    step_law = "Li et al. 2025, Step Law (arXiv 2503.04715)"
    lr = {"lr_scale": 1.79, "exponent_N": -0.713, "exponent_tokens": 0.307}
    batch = {"B_scale": 0.58, "exponent_N": 0.0, "exponent_tokens": 0.571}
    return [
        _set("step-law-learning-rate", f"{step_law}, best learning rate", "learning-rate", lr),
        _set("step-law-batch-size", f"{step_law}, best batch in tokens; no dependence on N", "batch-size", batch),
    ]


CONSTANTS: Mapping[str, ConstantSet] = MappingProxyType(
    {s.name: s for s in (*_kaplan_sets(), *_chinchilla_sets(), *_tuning_sets())}
)
"""Every published set by name."""
