"""What this processor and its BLAS are, and the environment that lets a worker process make the most of them."""

from __future__ import annotations

import os

_SKYLAKE_FEATURES = ("avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl")


def has_avx512() -> bool:
    """Whether the processor has what OpenBLAS's SkylakeX kernels use."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return all(features.get(name, False) for name in _SKYLAKE_FEATURES)


def worker_environment(threads: int = 1) -> dict[str, str]:
    """Variables for the environment of a spawned worker that trains on ``threads`` cores; none are set here.

    OpenBLAS reads them when it is loaded. Some of its releases take a Zen 4 or 5 for a Haswell and run at half speed;
    ``OPENBLAS_CORETYPE`` corrects that, only where the processor has AVX-512, and never over the user's own setting.
    """
    from scaling_sim_numba.blas import blas_core

    variables = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": str(threads)}
    if "OPENBLAS_CORETYPE" not in os.environ and blas_core() in ("Haswell", "Zen") and has_avx512():
        variables["OPENBLAS_CORETYPE"] = "SkylakeX"
    return variables


def describe(threads: int) -> dict[str, str]:
    """For the record of a run: what computes, and with how many threads."""
    import llvmlite.binding as llvm
    import numba
    import scipy

    from scaling_sim_numba.blas import blas_core

    return {
        "backend": "numba",
        "numba": numba.__version__,
        "scipy": scipy.__version__,
        "cpu": llvm.get_host_cpu_name(),
        "avx512": "yes" if has_avx512() else "no",
        "blas_core": blas_core(),
        "threads": str(threads),
    }
