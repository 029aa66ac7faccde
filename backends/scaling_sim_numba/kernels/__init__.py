"""The mathematics of one training step as Numba kernels; one file per part of the model.

Legend of shape suffixes: R rows (sequence · T + position) of a chunk, T context, d width, f feed-forward width, h head,
k head width, V vocabulary, Q rows of one query block, J keys that a query block may see (its end). Arrays without a
suffix are flat buffers, read through `scaling_sim_numba.kernels.views`.

Every kernel is generic in the real type: float32 for training, float64 for gradient checks. Sizes are run-time
arguments, so one compilation serves all shapes.
"""
