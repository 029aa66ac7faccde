"""What a fit says about runs that have not been made: functions of posterior draws, or of published constants."""

from __future__ import annotations

from scaling_sim.predict.allocate import Allocation as Allocation
from scaling_sim.predict.allocate import allocate as allocate
from scaling_sim.predict.backtest import Backtest as Backtest
from scaling_sim.predict.backtest import backtest as backtest
from scaling_sim.predict.candidates import Candidate as Candidate
from scaling_sim.predict.convert import Converted as Converted
from scaling_sim.predict.convert import convert as convert
from scaling_sim.predict.crossover import Crossover as Crossover
from scaling_sim.predict.crossover import crossover as crossover
from scaling_sim.predict.design import Design as Design
from scaling_sim.predict.design import design as design
from scaling_sim.predict.forecast import Forecast as Forecast
from scaling_sim.predict.forecast import forecast as forecast
from scaling_sim.predict.methods import Methods as Methods
from scaling_sim.predict.methods import compare_methods as compare_methods
from scaling_sim.predict.quantity import Quantity as Quantity
from scaling_sim.predict.simulate import simulate as simulate
from scaling_sim.predict.weights import Comparison as Comparison
from scaling_sim.predict.weights import compare as compare
