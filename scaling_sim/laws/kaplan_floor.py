"""The joint Kaplan system with an entropy floor."""

from __future__ import annotations

from scaling_sim.laws.kaplan_joint import KaplanJoint


class KaplanFloor(KaplanJoint):
    """The joint system `kaplan` for the reducible loss L − E.

    L − E takes the place of L in (1.4), (1.5) and (1.6); B_crit diverges as L → E. E is one more parameter, through
    its ratio to L − E at the centre of the curves: a factor of 27 about .37 (90 % of the prior).
    """

    name = "kaplan-floor"
    floor = True
