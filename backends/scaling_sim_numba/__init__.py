"""The CPU backend: fused Numba kernels and matrix products of our own, the default where there is no GPU.

`BACKEND` is what the registry loads. Importing this package is cheap: Numba is loaded when the backend is
asked whether it is available, or when a trainer starts.
"""

from scaling_sim_numba.backend import BACKEND as BACKEND
from scaling_sim_numba.backend import NumbaBackend as NumbaBackend
