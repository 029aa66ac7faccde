"""Shapes, counting and initial weights of the models that are trained."""

from scaling_sim.model.count import CONVENTIONS as CONVENTIONS
from scaling_sim.model.count import FLOP_CONVENTIONS as FLOP_CONVENTIONS
from scaling_sim.model.count import PARAMETER_CONVENTIONS as PARAMETER_CONVENTIONS
from scaling_sim.model.count import Convention as Convention
from scaling_sim.model.count import MemoryEstimate as MemoryEstimate
from scaling_sim.model.count import Operation as Operation
from scaling_sim.model.count import flops_per_token as flops_per_token
from scaling_sim.model.count import memory_estimate as memory_estimate
from scaling_sim.model.count import num_parameters as num_parameters
from scaling_sim.model.count import table1 as table1
from scaling_sim.model.count import training_flops as training_flops
from scaling_sim.model.init import initial_parameters as initial_parameters
from scaling_sim.model.shape import DECAYED as DECAYED
from scaling_sim.model.shape import Shape as Shape
