from typing import Any

import pytest

from scaling_sim.engine.reference import ReferenceBackend
from scaling_sim.engine.throughput import Measured
from scaling_sim.errors import BackendUnavailable, ConfigError
from scaling_sim.model.shape import Shape
from scaling_sim.training.placement import choose_backend, default_workers, worker_environment
from scaling_sim.training.planner import plan_cohorts
from scaling_sim.training.sweep import start_executor
from tests.training.runs import SHAPE, make_corpus, make_job


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
    assert placement.names == "numpy"
    assert "absent" in placement.reason


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    placement = choose_backend(plan_cohorts([make_job()]), "numpy")
    monkeypatch.setattr("scaling_sim.training.placement.num_cores", lambda: 8)
    assert worker_environment(placement, 8)["OPENBLAS_NUM_THREADS"] == "1"
    assert worker_environment(placement, 2)["OMP_NUM_THREADS"] == "4"


class _Cards(ReferenceBackend):
    """The reference, claiming GPUs and the CPU."""

    widest = 10**9
    precisions: tuple[str, ...] = ("bfloat16", "float32")
    rate = 0.0
    bytes_per_member = 0.0

    def __init__(self, name: str = "numpy", **claims: Any) -> None:
        self.name = name
        self.__dict__.update(claims)

    def devices(self) -> list[str]:
        return ["cuda:0", "cuda:1", "cpu"]

    def why_unsupported(self, cohort: Any, device: str, precision: Any) -> str | None:
        if precision not in self.precisions:
            return f"no {precision}"
        return "too wide" if cohort.shape.d_model > self.widest else None

    def measured(self) -> list[Measured]:
        return [Measured(SHAPE, 1, 4, "bfloat16", self.rate)] if self.rate else []

    def memory_bytes(self, cohort: Any, precision: Any) -> float:
        return self.bytes_per_member * len(cohort.members)

    def free_bytes(self, device: str) -> float:
        return 1000.0


def installed(monkeypatch: pytest.MonkeyPatch, *cards: _Cards) -> None:
    by_name = {one.name: one for one in cards}
    monkeypatch.setattr("scaling_sim.training.placement.get_backend", lambda name: by_name[name])
    automatic = tuple((one.name, "cuda") for one in cards)
    monkeypatch.setattr("scaling_sim.training.placement.AUTOMATIC", automatic)


def test_every_gpu_gets_a_worker_and_the_cpu_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    installed(monkeypatch, _Cards())
    placement = choose_backend(plan_cohorts([make_job()]), "numpy")
    assert placement.devices == ("cuda:0", "cuda:1")
    assert default_workers(None, placement) == 2
    made: list[Any] = []
    monkeypatch.setattr("scaling_sim.training.sweep.LocalProcesses", lambda setups, environment: made.extend(setups))
    start_executor(placement, make_corpus().splits, 2, tmp_path)
    assert [setup.device for setup in made] == ["cuda:0", "cuda:1"]
    only = choose_backend(plan_cohorts([make_job()]), "numpy", "cuda:1")
    assert only.devices == ("cuda:1",)
    assert default_workers(None, only) == 0


WIDE = Shape(n_layer=1, d_model=16, n_head=2, n_ctx=16, vocab_size=16)


def test_each_kind_of_run_gets_the_faster_backend_that_can_train_it(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, _Cards("tiny", widest=8, rate=2e6), _Cards("any", rate=1e6))
    small, large = make_job(), make_job(shape=WIDE)
    placement = choose_backend(plan_cohorts([small, large], max_members=1))
    assert [placement.backend(job).name for job in (small, large)] == ["tiny", "any"]
    assert placement.origin(small) == "tiny-bfloat16"
    assert "tiny for 1×8 (expected 2× any)" in placement.reason
    assert "any for 1×16" in placement.reason
    installed(monkeypatch, _Cards("tiny", widest=8, rate=1e6), _Cards("any", rate=2e6))
    assert choose_backend(plan_cohorts([small])).backend(small).name == "any"


def test_a_gpu_trains_in_bfloat16_unless_it_cannot_or_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = plan_cohorts([make_job()])
    assert choose_backend(plans, "numpy").precision == "float32"
    installed(monkeypatch, _Cards())
    assert choose_backend(plans).precision == "bfloat16"
    assert choose_backend(plans, precision="float32").precision == "float32"
    assert choose_backend(plans, "numpy", "cpu").precision == "float32"
    installed(monkeypatch, _Cards(precisions=("float32",)))
    placement = choose_backend(plans)
    assert placement.precision == "float32"
    assert "no bfloat16" in placement.reason


def test_cohorts_fill_a_card_and_leave_every_card_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, _Cards())
    jobs = [make_job(seed=seed) for seed in range(30)]
    placement = choose_backend(plan_cohorts(jobs, max_members=1))
    assert placement.max_members(jobs[0]) == 15
    assert choose_backend(plan_cohorts(jobs, max_members=1), device="cuda:1").max_members(jobs[0]) == 30
    long = [make_job(batch_tokens=2**20, seed=seed) for seed in range(30)]
    assert choose_backend(plan_cohorts(long, max_members=1)).max_members(long[0]) == 4, "2^25 / (2^20 · 8)"
    installed(monkeypatch, _Cards(bytes_per_member=300.0))
    assert choose_backend(plan_cohorts(jobs, max_members=1)).max_members(jobs[0]) == 2, "four take 1200 of 1000 bytes"
