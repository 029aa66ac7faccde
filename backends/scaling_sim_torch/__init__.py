"""Backend ``torch``: PyTorch on CUDA, and on the CPU for tests. Importing this package does not import torch."""

from scaling_sim_torch.backend import BACKEND as BACKEND
from scaling_sim_torch.backend import TorchBackend as TorchBackend
