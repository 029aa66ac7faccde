"""Scaling laws: formulas of the loss, their parameters, priors and limits; one file per law."""

from scaling_sim.laws.base import Coordinate as Coordinate
from scaling_sim.laws.base import Law as Law
from scaling_sim.laws.base import Normal as Normal
from scaling_sim.laws.base import Parameters as Parameters
from scaling_sim.laws.registry import get_law as get_law
from scaling_sim.laws.registry import law_names as law_names
from scaling_sim.laws.registry import register_law as register_law
from scaling_sim.laws.user_modules import import_laws as import_laws
