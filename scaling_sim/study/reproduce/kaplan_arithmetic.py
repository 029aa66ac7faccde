"""What Kaplan et al. 2020 print beside what their own constants give: several disagree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from scaling_sim.laws.constants import PF_DAY, constants
from scaling_sim.predict import crossover
from scaling_sim.predict.appendix_b import (
    compute_exponent,
    compute_penalty,
    compute_ratio,
    compute_scale,
    optimal_loss,
    optimal_size,
    optimal_steps,
    size_ratio,
    step_penalty,
    step_ratio,
)

if TYPE_CHECKING:
    import pandas as pd


class Row(NamedTuple):
    """One printed value and its arithmetic."""

    quantity: str
    printed: float
    ours: float
    constants: str
    remark: str = ""


def kaplan_arithmetic() -> pd.DataFrame:
    """Appendix B, Table 6 and section 6.3 recomputed from the printed constants."""
    import pandas as pd

    return pd.DataFrame([*_appendix_b(), *_table_6(), *_crossovers()])


def _appendix_b() -> Iterator[Row]:
    p = dict(constants("kaplan-table5").values)
    a_N, a_S, a_B = p["alpha_N"], p["alpha_S"], p["alpha_B"]
    exponent = compute_exponent(a_N, a_S, a_B)
    source = "kaplan-table5"
    yield Row("αC^min (B.7)", 0.052, exponent, source)
    yield Row("αC^min (6.4)", 0.054, exponent, source, "no printed constants give 0.054")
    yield Row("αC^min / αN (6.5)", 0.71, exponent / a_N, source, "0.71 is 0.054/0.076")
    yield Row("C_c^min, PF-days (B.8)", 3.1e8, float(compute_scale(p)) / PF_DAY, source, "the figures print 2.3e8")
    yield Row("N at 1 PF-day", 1.3e9, float(optimal_size(PF_DAY, p)), source, "theory is 2.2 times smaller")
    yield Row("S_min at 1 PF-day", 5.4e3, float(optimal_steps(PF_DAY, p)), source, "theory is 2.4 times larger")
    yield Row("L at 1 PF-day, nats", 2.658, float(optimal_loss(PF_DAY, p)), source)
    yield Row("N ratio, f = 10 % to 2 % (B.12)", 2.7, float(size_ratio(0.10, 0.02, a_N)), source)
    yield Row("S ratio, f = 10 % to 2 % (B.13)", 0.13, float(step_ratio(0.10, 0.02, a_S)), source)
    yield Row(
        "C ratio, f = 10 % to 2 % (B.14)",
        0.35,
        float(compute_ratio(0.10, 0.02, a_N, a_S)),
        source,
        "0.354 with Table 3",
    )
    yield Row("C/C_eff at N = 2.2·N_eff (B.16)", 1.2, float(compute_penalty(2.2, a_N, a_S)), source)
    yield Row("S/S_eff at N = 2.2·N_eff (B.17)", 0.55, float(step_penalty(2.2, a_N, a_S)), source)


def _table_6() -> Iterator[Row]:
    p = constants("kaplan-table6").values
    yield Row("6·N_e·B_e·S_e, PF-days", 1.0, 6 * p["N_e"] * p["B_e"] * p["S_e"] / PF_DAY, "kaplan-table6")
    yield Row("D_e, tokens", 2e10, 2 * PF_DAY / (6 * p["N_e"]), "kaplan-table6", "2·C/(6·N_e); (6.7) prints 4e10")
    yield Row("p_N + p_B + p_S", 1.0, p["p_N"] + p["p_B"] + p["p_S"], "kaplan-table6")
    yield Row("compute for 1 % loss", 1.22, 1.01 ** (1 / p["alpha_C_min"]), "kaplan-table6")


def _crossovers() -> Iterator[Row]:
    printed = {"C_pf_days": 1e4, "N_parameters": 1e12, "D_tokens": 1e12, "loss_nats": 1.7}
    remarks = {
        "kaplan-table6": "C*, N*, L* as printed; D* is not",
        "kaplan-eq6.7": "4e10 tokens at one PF-day with the exponent .26; Table 6 has 2e10 and .27",
        "kaplan-appendix-b": "Appendix B from Tables 3 and 5",
    }
    for name, remark in remarks.items():
        quantities = crossover(constants(name)).quantities
        for key, value in printed.items():
            yield Row(f"crossover {key} (6.8)", value, quantities[key].median, name, remark)
