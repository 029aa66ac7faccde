"""What this processor is, and the environment of worker processes that train on it."""

from __future__ import annotations


def has_avx512() -> bool:
    """Whether kernels are compiled for AVX-512, whose vectors are twice as long as those of other processors."""
    from scaling_sim_numba.kernels.tile import has_feature

    return has_feature("avx512f")


def worker_environment(threads: int = 1) -> dict[str, str]:
    """Variables for the environment of a spawned worker that trains on ``threads`` cores; none are set here.

    Nothing but our kernels is to use a worker's cores: NumPy's BLAS reads its number of threads when it is loaded.
    """
    return {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": str(threads)}


def describe(threads: int) -> dict[str, str]:
    """For the record of a run: what computes, and with how many threads."""
    import llvmlite.binding as llvm
    import numba

    from scaling_sim_numba.kernels.tile import vector_bytes

    return {
        "backend": "numba",
        "numba": numba.__version__,
        "cpu": llvm.get_host_cpu_name(),
        "avx512": "yes" if has_avx512() else "no",
        "vector_bits": str(8 * vector_bytes()),
        "threads": str(threads),
    }
