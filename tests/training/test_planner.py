from scaling_sim.model.shape import Shape
from scaling_sim.training.loop import Start
from scaling_sim.training.planner import branch_steps, plan_cohorts
from tests.training.runs import make_branch, make_job

WIDE = Shape(n_layer=1, d_model=16, n_head=2, n_ctx=16, vocab_size=16)


def test_equal_shape_batch_and_optimiser_go_together_the_most_expensive_first() -> None:
    jobs = [make_job(seed=s) for s in range(3)] + [make_job(shape=WIDE), make_job(batch_tokens=128)]
    jobs.append(make_job(weight_decay=0.1))
    plans = plan_cohorts(jobs)
    assert sorted(len(plan.jobs) for plan in plans) == [1, 1, 1, 3]
    assert [plan.flops for plan in plans] == sorted((plan.flops for plan in plans), reverse=True)
    assert len({plan.id for plan in plans}) == 4


def test_equal_runs_are_merged_and_keep_both_purposes() -> None:
    (plan,) = plan_cohorts([make_job("curve"), make_job("seed")])
    assert plan.jobs[0].purposes == ("curve", "seed")


def test_the_longest_has_at_most_twice_the_steps_of_the_shortest() -> None:
    plans = plan_cohorts([make_job(steps=s) for s in (100, 51, 50, 49, 20)])
    lengths = [[job.config.recipe.steps for job in plan.jobs] for plan in plans]
    assert lengths == [[100, 51, 50], [49], [20]] or lengths == [[100, 51, 50], [49, 25], [20]]
    assert all(part[0] <= 2 * part[-1] for part in lengths)


def test_no_cohort_is_larger_than_allowed() -> None:
    assert [len(p.jobs) for p in plan_cohorts([make_job(seed=s) for s in range(7)], max_members=3)] == [3, 3, 1]


def test_runs_at_different_steps_are_apart_and_only_the_rest_counts() -> None:
    jobs = [make_job(seed=s) for s in range(3)]
    starts = {jobs[0].run_id: (40, Start("x", jobs[0].run_id))}
    plans = {plan.first_step: plan for plan in plan_cohorts(jobs, starts=starts)}
    assert plans[40].tokens == 20 * 64
    assert plans[0].tokens == 2 * 60 * 64
    assert plans[40].task().starts == {jobs[0].run_id: Start("x", jobs[0].run_id)}


def test_branches_begin_at_their_step_and_parents_know_them() -> None:
    parent = make_job()
    jobs = [parent, make_branch(parent, 20, 5), make_branch(parent, 40, 10)]
    assert branch_steps(jobs) == {parent.run_id: (20, 40)}
    assert sorted(plan.num_updates for plan in plan_cohorts(jobs)) == [5, 10, 60]
