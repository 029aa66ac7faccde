"""Triton kernels: bfloat16 activations between kernels; sums, softmax, layer norms and logits in float32.

Conventions: ``master`` is the flat float32 parameter tensor (M, P), ``half`` its bfloat16 copy; ``P`` is the number of
parameters of a member and every ``*_at`` the offset of a parameter in it. Rows are positions, B·T of them per member.
``D``, ``T``, ``C``, ``F``, ``V`` are real sizes; the same letter with ``_PAD`` is the next power of two (at least 16)
that a tile has; what lies between is masked to zero. No kernel mixes members and none uses atomics unless it says so.
"""

from scaling_sim_torch import ptxas

SAFE = ptxas.install()
"""Whether kernels compiled here are free of the fault that `ptxas` describes."""
