"""Train sweeps: schedules, cohorts, checkpoints, and the driver that resumes what was interrupted."""

from scaling_sim.training.ahead import CompileAhead as CompileAhead
from scaling_sim.training.calibrate import Machine as Machine
from scaling_sim.training.calibrate import measure_machine as measure_machine
from scaling_sim.training.estimate import Estimate as Estimate
from scaling_sim.training.estimate import Speed as Speed
from scaling_sim.training.estimate import estimate_seconds as estimate_seconds
from scaling_sim.training.evaluation import affordable_sequences as affordable_sequences
from scaling_sim.training.evaluation import evaluation_share as evaluation_share
from scaling_sim.training.evaluation import evaluation_steps as evaluation_steps
from scaling_sim.training.job import Job as Job
from scaling_sim.training.job import merge_jobs as merge_jobs
from scaling_sim.training.placement import Placement as Placement
from scaling_sim.training.placement import choose_backend as choose_backend
from scaling_sim.training.planner import CohortPlan as CohortPlan
from scaling_sim.training.planner import plan_cohorts as plan_cohorts
from scaling_sim.training.progress import CohortLine as CohortLine
from scaling_sim.training.progress import Progress as Progress
from scaling_sim.training.progress import SweepSummary as SweepSummary
from scaling_sim.training.recipes import RECIPES as RECIPES
from scaling_sim.training.recipes import recipe as recipe
from scaling_sim.training.schedule import kaplan_learning_rate as kaplan_learning_rate
from scaling_sim.training.schedule import learning_rate as learning_rate
from scaling_sim.training.schedule import learning_rates as learning_rates
from scaling_sim.training.schedule import small_model_learning_rate as small_model_learning_rate
from scaling_sim.training.sweep import run_sweep as run_sweep
