"""How each law spends a budget: one file per law, all by the interface of ``base``."""

from scaling_sim.predict.plans.base import Draws as Draws
from scaling_sim.predict.plans.base import Plan as Plan
from scaling_sim.predict.plans.base import Policy as Policy
from scaling_sim.predict.plans.chinchilla import ChinchillaPlan as ChinchillaPlan
from scaling_sim.predict.plans.chinchilla import chinchilla_size as chinchilla_size
from scaling_sim.predict.plans.kaplan import KaplanPlan as KaplanPlan
from scaling_sim.predict.plans.published import PowerPlan as PowerPlan
from scaling_sim.predict.plans.repeated import RepeatedPlan as RepeatedPlan
