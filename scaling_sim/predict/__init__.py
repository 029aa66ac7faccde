"""What a fit says about runs that have not been made: functions of posterior draws, or of published constants."""

from __future__ import annotations

from scaling_sim.predict.allocate import Allocation as Allocation
from scaling_sim.predict.allocate import allocate as allocate
from scaling_sim.predict.backtest import Backtest as Backtest
from scaling_sim.predict.backtest import backtest as backtest
from scaling_sim.predict.buildable import Buildable as Buildable
from scaling_sim.predict.buildable import buildable as buildable
from scaling_sim.predict.candidates import Candidate as Candidate
from scaling_sim.predict.candidates import Constraints as Constraints
from scaling_sim.predict.convert import Converted as Converted
from scaling_sim.predict.convert import convert as convert
from scaling_sim.predict.crossover import Crossover as Crossover
from scaling_sim.predict.crossover import crossover as crossover
from scaling_sim.predict.definitions import Definitions as Definitions
from scaling_sim.predict.definitions import compare_definitions as compare_definitions
from scaling_sim.predict.design import Design as Design
from scaling_sim.predict.design import design as design
from scaling_sim.predict.efficiency import Efficiency as Efficiency
from scaling_sim.predict.efficiency import efficiency as efficiency
from scaling_sim.predict.forecast import Forecast as Forecast
from scaling_sim.predict.forecast import forecast as forecast
from scaling_sim.predict.known import KnownSize as KnownSize
from scaling_sim.predict.known import known_sizes as known_sizes
from scaling_sim.predict.methods import Methods as Methods
from scaling_sim.predict.methods import compare_methods as compare_methods
from scaling_sim.predict.observe import Observed as Observed
from scaling_sim.predict.observe import observe as observe
from scaling_sim.predict.offsets import Offsets as Offsets
from scaling_sim.predict.offsets import offsets as offsets
from scaling_sim.predict.quantity import Quantity as Quantity
from scaling_sim.predict.recipes import Recipes as Recipes
from scaling_sim.predict.recipes import compare_recipes as compare_recipes
from scaling_sim.predict.simulate import simulate as simulate
from scaling_sim.predict.targets import Target as Target
from scaling_sim.predict.targets import best_size as best_size
from scaling_sim.predict.targets import crossing as crossing
from scaling_sim.predict.targets import loss_of as loss_of
from scaling_sim.predict.weights import Comparison as Comparison
from scaling_sim.predict.weights import compare as compare
