"""L(N) = (N_c/N)^α_N: converged models with unlimited data (Kaplan et al. 2020, eqs 1.1, 3.1)."""

from __future__ import annotations

from scaling_sim.laws.power import PowerLaw


class PowerN(PowerLaw):
    """L(N) = (N_c/N)^α_N (eq. 1.1). Reads final losses; a run that has not converged does not belong in it."""

    name = "power-n"
    parameters = ("alpha_N", "N_c")
    columns = ("N",)
    column, exponent, scale = "N", "alpha_N", "N_c"
    single_epoch = True
