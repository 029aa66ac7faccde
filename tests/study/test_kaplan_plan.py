from __future__ import annotations

import math

import msgspec
import pytest

from scaling_sim.model.count import num_parameters
from scaling_sim.runs import RunRecord
from scaling_sim.runs.record import CurvePoint, RunConfig
from scaling_sim.study.kaplan.config import ExperimentConfig
from scaling_sim.study.kaplan.estimate import AHEAD, COMPILE_SECONDS, Calibrated, cohorts, estimate
from scaling_sim.study.kaplan.paths import path_of
from scaling_sim.study.kaplan.plan import LARGE_RUN, Planned, by_backend, compute, plan, portions
from scaling_sim.study.kaplan.rates import MOST_RATE, Rates, rates_of, rule
from scaling_sim.study.kaplan.scales import FAMILY, H200, TINY, size
from scaling_sim.study.kaplan.systems import SYSTEMS, Setting, Text, rate_trials
from scaling_sim.training import Job
from scaling_sim.training.job import check_branch, check_job
from scaling_sim_cupy.layout import Layout
from scaling_sim_cupy.limits import why_out_of_range

TEXTS = {
    "english": Text("e" * 16, 96_000_000, 256),
    "english-bpe": Text("b" * 16, 26_000_000, 4096),
    "synthetic": Text("s" * 16, 32_600_000, 233),
}


@pytest.fixture(scope="module")
def whole() -> list[Planned]:
    return plan(H200, TEXTS)


def jobs_of(planned: list[Planned]) -> list[Job]:
    return [job for one in planned for job in one.new]


def test_every_run_can_be_made_from_its_corpus(whole: list[Planned]) -> None:
    parents = {job.run_id: job.config for job in jobs_of(whole)}
    for one in whole:
        text = TEXTS[one.system.corpus]
        for job in one.jobs:
            check_job(job, text.hash, text.num_tokens, text.vocab_size)
            check_branch(job, parents)


def test_the_experiment_keeps_to_what_was_agreed(whole: list[Planned]) -> None:
    rows, jobs = estimate(whole), jobs_of(whole)
    training = sum(row.compute_flops for row in rows)
    assert sum(row.evaluation_share * row.compute_flops for row in rows) < 0.1 * training
    assert sum(compute(job) > LARGE_RUN for job in jobs) <= 6
    assert sum(row.seconds for row in rows) < 25 * 60
    compiled = {job.config.shape for job in jobs if path_of(job.config.shape) == "stacked"}
    assert len(compiled) <= 12
    assert len(jobs) > 300
    sizes = [num_parameters(shape) for shape in FAMILY]
    assert (sizes[0], sizes[-1]) == (768, 12 * 8 * 512**2)
    assert sizes == sorted(sizes)


def test_single_epoch_runs_repeat_nothing(whole: list[Planned]) -> None:
    for job in jobs_of(whole):
        if not job.config.early_stop:
            assert job.config.tokens <= job.config.unique_tokens


def test_equal_runs_are_trained_once(whole: list[Planned]) -> None:
    ids = [job.run_id for job in jobs_of(whole)]
    assert len(ids) == len(set(ids)) < sum(len(one.jobs) for one in whole)


def test_batches_straddle_the_family_and_end_within_the_epoch(whole: list[Planned]) -> None:
    batch = next(one for one in whole if one.system.name == "batch")
    sizes = {job.config.recipe.batch_tokens for job in batch.jobs}
    assert min(sizes) < H200.batch_tokens < max(sizes)
    by_cell = {(j.config.shape, j.config.recipe.batch_tokens): 0 for j in batch.jobs}
    assert len(by_cell) == 2 * 5
    assert len(batch.jobs) == 3 * len(by_cell)


def test_shapes_of_one_group_have_about_equal_sizes() -> None:
    for group in H200.shape.groups[:2]:
        sizes = [num_parameters(shape) for shape in group.shapes]
        assert max(sizes) / min(sizes) < 1.2


def test_placement_of_the_estimate_is_that_of_the_kernels(whole: list[Planned]) -> None:
    for shape in {job.config.shape for job in jobs_of(whole)}:
        assert (why_out_of_range(Layout(shape, 0)) is None) == (path_of(shape) == "cupy"), shape


def test_runs_with_dropout_have_kernels_for_it(whole: list[Planned]) -> None:
    dropped = [job.config for job in jobs_of(whole) if job.config.recipe.dropout]
    assert len(dropped) > 40
    assert {path_of(config.shape) for config in dropped} == {"cupy"}


def test_a_portion_has_one_backend_and_wide_models_go_one_by_one(whole: list[Planned]) -> None:
    for one in whole:
        parts = portions(one.jobs)
        assert sorted(job.run_id for part in parts for job in part) == sorted(job.run_id for job in one.jobs)
        paths = [{path_of(job.config.shape) for job in part} for part in parts]
        assert all(len(found) == 1 for found in paths)
        wide = [part for part, found in zip(parts, paths, strict=True) if found == {"stacked"}]
        assert all(len({job.config.parent or job.run_id for job in part}) == 1 for part in wide)
        costs = [sum(map(compute, part)) for part in wide]
        assert costs == sorted(costs, reverse=True)
        assert parts[: len(wide)] == wide


def test_kernels_are_compiled_ahead_once_for_wide_models(whole: list[Planned]) -> None:
    found = by_backend(jobs_of(whole))
    assert set(found) == {"cupy", "torch"}
    wide = [job.config.shape for job in found["torch"] if path_of(job.config.shape) == "stacked"]
    assert len(wide) == len(set(wide)) > 3
    assert {path_of(job.config.shape) for job in found["cupy"]} == {"cupy"}


def test_finished_runs_cost_nothing(whole: list[Planned]) -> None:
    rows = estimate(whole, finished=[job.run_id for job in jobs_of(whole)])
    assert sum(row.new_runs for row in rows) == 0
    assert sum(row.seconds for row in rows) == 0


def test_a_slower_card_takes_longer() -> None:
    planned = plan(TINY, TEXTS, names=("family",))
    fast, slow = estimate(planned), estimate(planned, Calibrated({"cupy": 0.5}))
    assert slow[1].seconds > fast[1].seconds
    kernels = slow[0].kernels + slow[1].kernels
    assert sum(row.compile_seconds for row in slow) == pytest.approx(COMPILE_SECONDS["cupy"] / AHEAD["cupy"] * kernels)
    assert cohorts([])[:1] == []


def test_systems_without_their_text_are_left_out() -> None:
    planned = plan(H200, {"english": TEXTS["english"]})
    assert [one.system.name for one in planned] == [s.name for s in SYSTEMS if s.corpus == "english"]


def test_data_that_no_run_would_overfit_are_left_out() -> None:
    data = next(one for one in plan(H200, TEXTS) if one.system.name == "data")
    for job in data.jobs:
        if job.config.early_stop:
            assert job.config.tokens >= 0.999 * H200.data.least_passes * job.config.unique_tokens - 8192


# Learning rates -------------------------------------------------------------------------------------------------------


def trial(config: RunConfig, loss: float) -> RunRecord:
    point = CurvePoint(step=1, tokens=1, lr=1.0, train=loss, losses={"validation": loss, "test": loss}, errors={})
    return RunRecord(run_id=config.run_id, config=config, status="done", curve=(point,))


def trials_with_minimum(factor: float, config: ExperimentConfig = H200) -> list[RunRecord]:
    """A parabola in ln(rate) with its minimum at ``factor`` times the rule."""
    jobs = rate_trials(Setting(config, TEXTS["english"], Rates()))
    return [
        trial(job.config, 2 + 0.1 * math.log(job.config.recipe.peak_lr / (factor * rule(job.config.shape))) ** 2)
        for job in jobs
    ]


def test_the_minimum_between_two_trials_is_found() -> None:
    rates = rates_of(trials_with_minimum(1.4))
    assert not rates.flags
    for shape in (FAMILY[0], FAMILY[5], FAMILY[-1]):  # outside and between the sizes tried
        assert rates(shape) == pytest.approx(1.4 * rule(shape), rel=2e-3)


def test_multiples_are_interpolated_in_logarithms() -> None:
    rates = Rates({1000: 1.0, 100_000: 4.0})
    assert rates(size(1, 8, 1)) == pytest.approx(rule(size(1, 8, 1)))
    middle = size(1, 29, 1)  # N = 10092
    assert rates(middle) == pytest.approx(2 * rule(middle), rel=0.01)


def test_a_minimum_on_the_edge_is_flagged() -> None:
    rates = rates_of(trials_with_minimum(10.0))
    assert len(rates.flags) == len(H200.trials.shapes)
    assert "edge" in rates.flags[0]


def test_diverged_trials_lose() -> None:
    records = [
        msgspec.structs.replace(record, status="diverged")
        if record.config.recipe.peak_lr > 1.5 * rule(record.config.shape)
        else record
        for record in trials_with_minimum(1.4)
    ]
    shape = H200.trials.shapes[0]
    assert rates_of(records)(shape) == pytest.approx(rule(shape), rel=1e-3)


def test_the_rule_goes_on_above_a_million() -> None:
    assert rule(FAMILY[-1]) < 6e-4 < rule(FAMILY[-3])
    assert rule(size(1, 2, 1)) == MOST_RATE > rule(size(0, 32, 2))
