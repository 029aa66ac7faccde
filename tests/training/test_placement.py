from typing import Any

import pytest

from scaling_sim.engine.reference import ReferenceBackend
from scaling_sim.errors import BackendUnavailable, ConfigError
from scaling_sim.training.placement import choose_backend, default_workers, worker_environment
from scaling_sim.training.planner import plan_cohorts
from scaling_sim.training.sweep import start_executor
from tests.training.runs import make_corpus, make_job


def test_a_named_backend_is_taken_or_refused_with_its_reason() -> None:
    plans = plan_cohorts([make_job()])
    assert choose_backend(plans, "numpy").device == "cpu"
    with pytest.raises(BackendUnavailable, match="bfloat16"):
        choose_backend(plans, "numpy", precision="bfloat16")
    with pytest.raises(ConfigError, match="numpy"):
        choose_backend(plans, "nunpy")


def test_automatic_choice_says_what_it_took_and_why_not_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaling_sim.training.placement.AUTOMATIC", (("absent", "cuda"), ("numpy", "cpu")))
    placement = choose_backend(plan_cohorts([make_job()]))
    assert placement.backend.name == "numpy"
    assert "absent" in placement.reason


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    placement = choose_backend(plan_cohorts([make_job()]), "numpy")
    monkeypatch.setattr("scaling_sim.training.placement.num_cores", lambda: 8)
    assert worker_environment(placement, 8)["OPENBLAS_NUM_THREADS"] == "1"
    assert worker_environment(placement, 2)["OMP_NUM_THREADS"] == "4"


class _TwoCards(ReferenceBackend):
    """The reference, claiming two GPUs and the CPU."""

    def devices(self) -> list[str]:
        return ["cuda:0", "cuda:1", "cpu"]

    def why_unsupported(self, cohort: Any, device: str, precision: Any) -> str | None:
        return None


def test_every_gpu_gets_a_worker_and_the_cpu_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr("scaling_sim.training.placement.get_backend", lambda name: _TwoCards())
    placement = choose_backend(plan_cohorts([make_job()]), "numpy")
    assert placement.devices == ("cuda:0", "cuda:1")
    assert default_workers(None, placement) == 2
    assert placement.max_members > 1
    made: list[Any] = []
    monkeypatch.setattr("scaling_sim.training.sweep.LocalProcesses", lambda setups, environment: made.extend(setups))
    start_executor(placement, make_corpus().splits, 2, tmp_path)
    assert [setup.device for setup in made] == ["cuda:0", "cuda:1"]
    only = choose_backend(plan_cohorts([make_job()]), "numpy", "cuda:1")
    assert only.devices == ("cuda:1",)
    assert default_workers(None, only) == 0
