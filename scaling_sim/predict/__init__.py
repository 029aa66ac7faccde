"""What a fit says about runs that have not been made: functions of posterior draws, or of published constants."""

from __future__ import annotations

from scaling_sim.predict.allocate import Allocation as Allocation
from scaling_sim.predict.allocate import allocate as allocate
from scaling_sim.predict.convert import Converted as Converted
from scaling_sim.predict.convert import convert as convert
from scaling_sim.predict.crossover import Crossover as Crossover
from scaling_sim.predict.crossover import crossover as crossover
from scaling_sim.predict.quantity import Quantity as Quantity
