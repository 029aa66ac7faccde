import pytest

from scaling_sim.engine.reference import ReferenceBackend
from scaling_sim.engine.registry import get_backend
from scaling_sim.errors import ConfigError
from scaling_sim.model.shape import Shape
from scaling_sim.training.memory import check_memory, cohort_bytes
from scaling_sim.training.planner import plan_cohorts
from tests.training.runs import SHAPE, make_job


def test_memory_is_estimated_and_refused_before_anything_is_allocated() -> None:
    small = plan_cohorts([make_job()])[0].task().cohort()
    check_memory(small, get_backend("numpy"), ["cpu"], "float32")
    huge = Shape(n_layer=100, d_model=20_000, n_head=100, n_ctx=SHAPE.n_ctx)
    (plan,) = plan_cohorts([make_job(shape=huge)])
    assert cohort_bytes(plan.task().cohort()) > 100 * 12 * 20_000**2 * 16
    with pytest.raises(ConfigError, match="GiB are free"):
        check_memory(plan.task().cohort(), get_backend("numpy"), ["cpu"], "float32")


class _Card(ReferenceBackend):
    """A GPU of one gigabyte."""

    def free_bytes(self, device: str) -> float:
        return 2.0**30


def test_a_model_beyond_one_card_is_told_how_several_share_it() -> None:
    large = Shape(n_layer=8, d_model=1024, n_head=8, n_ctx=SHAPE.n_ctx)
    (plan,) = plan_cohorts([make_job(shape=large)])
    with pytest.raises(ConfigError, match=r"1\.0 GiB are free on cuda:0.*torchrun"):
        check_memory(plan.task().cohort(), _Card(), ["cuda:0"], "bfloat16")
    check_memory(plan_cohorts([make_job()])[0].task().cohort(), _Card(), ["cuda:0"], "bfloat16")


class _Cards(_Card):
    """Two GPUs, another process holds most of the second."""

    def free_bytes(self, device: str) -> float:
        return 2.0**30 if device == "cuda:0" else 2.0**10


def test_the_fullest_card_decides() -> None:
    cohort = plan_cohorts([make_job()])[0].task().cohort()
    check_memory(cohort, _Cards(), ["cuda:0"], "bfloat16")
    with pytest.raises(ConfigError, match="free on cuda:1"):
        check_memory(cohort, _Cards(), ["cuda:0", "cuda:1"], "bfloat16")
