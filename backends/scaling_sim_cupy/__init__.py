"""Backend ``cupy``: hand-written passes for cohorts of tiny models on CUDA. Importing it does not import CuPy."""

from scaling_sim_cupy.backend import BACKEND as BACKEND
from scaling_sim_cupy.backend import CupyBackend as CupyBackend
