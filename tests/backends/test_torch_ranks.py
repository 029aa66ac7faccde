"""Several ranks: one sharded model (FSDP2), and a sweep under torchrun's variables, beside one process."""

import os
import socket
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from scaling_sim.engine.cohort import Cohort, Member
from scaling_sim.engine.conformance_cases import PLAIN
from scaling_sim.engine.conformance_harness import with_members
from scaling_sim.model.shape import Shape
from scaling_sim.runs.store import RunStore
from scaling_sim.training.ranks import follow, joined
from scaling_sim.training.sweep import run_sweep
from scaling_sim_torch import memory, plan
from tests.training.runs import make_corpus, make_job

pytestmark = pytest.mark.torch

ONE = msgspec.structs.replace(with_members(PLAIN.cohort, 0), weight_decay=0.3, clip_norm=0.5)
STEPS, CUT = 12, 5

RANK = """
import sys
from pathlib import Path
import numpy as np
import msgspec
from scaling_sim.runs.store import RunStore
from scaling_sim.training.ranks import follow, joined, leading
from scaling_sim.training.sweep import run_sweep
from scaling_sim_torch.plan import Plan
from tests.backends.test_torch_ranks import CUT, ONE, STEPS, batches, single, sweep_jobs
from tests.training.runs import make_corpus

folder = Path(sys.argv[1])
name, ranks = joined()
assert (name, ranks.size) == ("torch", 2)
assert ranks.share(b"from %d" % ranks.rank) == b"from 0"

import torch
from scaling_sim_torch.distributed import least

assert least(6e9 + 1e9 * ranks.rank, torch.device("cpu")) == 6e9, "ranks plan by the least free memory"

from scaling_sim.engine.conformance_cases import PLAIN
from scaling_sim_torch.sharded_trainer import ShardedTrainer

def start():
    return ShardedTrainer(ONE, PLAIN.splits(), "cpu", "bfloat16", Plan("sharded", "test", **cut))

starts, lr = batches()
cut = {"micro_batches": 2, "checkpointed": True}
one = start()
assert one.agree(ranks.rank + 7) == 7 and one.leads == (ranks.rank == 0)
before = one.advance(0, starts[:CUT], lr[:CUT])
state = one.state()
after = one.advance(CUT, starts[CUT:], lr[CUT:])
shard = one.shards["qkv", 0][0]
assert shard.shape[0] * 2 == state["params.qkv"].shape[2], "a rank holds half of a matrix"
mean, error = one.evaluate("test", PLAIN.starts(3))
small, big = one.gradient_noise(PLAIN.starts(1, 3))
resumed = start()
resumed.load_state(dict(np.load(folder / "one.npz")))
np.savez(folder / f"{ranks.rank}.npz", losses=np.concatenate([before, after]), mean=mean, error=error, small=small,
         big=big, resumed=resumed.advance(CUT, starts[CUT:], lr[CUT:]), **state)
broken = {**state, "params.ln_f_gain": np.full_like(state["params.ln_f_gain"], np.nan)}
resumed.load_state(broken)
assert np.isnan(resumed.advance(CUT, starts[CUT:], lr[CUT:])).all()
assert np.isfinite(resumed.state()["params.qkv"]).all() and resumed.state()["diverged"].all()
one.retire([state["ids"][0]])
assert one.live() == ()
replicated = single()
for rows in (3, 4):
    mean, error = replicated.evaluate("test", PLAIN.starts(rows))
    small, big = replicated.gradient_noise(PLAIN.starts(1, rows))
    np.savez(folder / f"measured-{rows}-{ranks.rank}.npz", mean=mean, error=error, small=small, big=big)
del one, resumed, replicated, shard

if follow():
    sys.exit(0)
with leading(), RunStore(folder / "sweep") as store:
    summary = run_sweep(sweep_jobs(), make_corpus(), store, precision="float32", checkpoints=folder / "checkpoints",
                        checkpoint_seconds=0.0)
    assert summary.done == 2 and "torch" in summary.placement, summary
"""


def batches():
    starts, lr = PLAIN.batches(STEPS)
    return starts[:, :1], lr[:, :1]


def sweep_jobs():
    return [make_job(seed=0, steps=30), make_job(seed=1, steps=20)]


def single():
    from scaling_sim_torch.fast import FastTrainer

    return FastTrainer(ONE, PLAIN.splits(), "cpu", "bfloat16", plan.Plan("stacked", "test"))


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Files of a run on two ranks, which also resumed a state of one process."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("ranks")
    trainer = single()
    starts, lr = batches()
    trainer.advance(0, starts[:CUT], lr[:CUT])
    np.savez(folder / "one.npz", **trainer.state())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **torchrun}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "error:FSDP2", "-c", RANK, str(folder)], cwd=folder,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        assert [rank.wait(timeout=240) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    return folder


def test_a_sharded_model_has_the_curve_of_a_whole_one(together):
    first, second = (np.load(together / f"{rank}.npz") for rank in (0, 1))
    for name in first.files:
        np.testing.assert_array_equal(first[name], second[name], err_msg=f"{name} must agree between ranks")
    trainer, (starts, lr) = single(), batches()
    np.testing.assert_allclose(first["losses"], trainer.advance(0, starts, lr), atol=0.003)
    mean, error = trainer.evaluate("test", PLAIN.starts(3))
    np.testing.assert_allclose(first["mean"], mean, atol=0.01)
    np.testing.assert_allclose(first["error"], error, atol=0.003)
    small, big = trainer.gradient_noise(PLAIN.starts(1, 3))
    np.testing.assert_allclose(first["small"], small, rtol=0.05)
    np.testing.assert_allclose(first["big"], big, rtol=0.05)


@pytest.mark.parametrize("rows", [3, 4])
def test_ranks_share_measurements(together, rows):
    first, second = (np.load(together / f"measured-{rows}-{rank}.npz") for rank in (0, 1))
    mean, error = single().evaluate("test", PLAIN.starts(rows))
    small, big = single().gradient_noise(PLAIN.starts(1, rows))
    for name, expected in {"mean": mean, "error": error, "small": small, "big": big}.items():
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], expected, rtol=1e-5, err_msg=name)


def test_measurements_are_made_in_batches_as_large_as_training_s():
    import torch

    from scaling_sim_torch.fast import regrouped

    starts = torch.arange(2 * 16 * 16).view(2, 16, 16)
    assert regrouped(starts, 64).shape == (4, 2, 64)
    assert regrouped(starts, 60).shape == (8, 2, 32)
    assert regrouped(starts, 4).shape == (16, 2, 16), "never smaller than they came"
    assert torch.equal(regrouped(starts, 64).transpose(0, 1).reshape(2, 256), starts.reshape(2, 256))


def test_a_checkpoint_of_two_ranks_resumes_on_one_and_back(together):
    found, (starts, lr) = np.load(together / "0.npz"), batches()
    trainer = single()
    trainer.load_state({name: found[name] for name in trainer.state()})
    np.testing.assert_allclose(trainer.advance(CUT, starts[CUT:], lr[CUT:]), found["losses"][CUT:], atol=0.003)
    np.testing.assert_allclose(found["resumed"], found["losses"][CUT:], atol=0.003)


def test_a_sweep_under_torchrun_gives_the_records_of_one_process(together, tmp_path):
    with RunStore(together / "sweep") as store, RunStore(tmp_path) as alone:
        run_sweep(sweep_jobs(), make_corpus(), alone, backend="torch", device="cpu", precision="float32", workers=0)
        for job in sweep_jobs():
            got, expected = store.get(job.run_id), alone.get(job.run_id)
            assert got.status == expected.status == "done"
            for one, other in zip(got.curve, expected.curve, strict=True):
                assert one.step == other.step
                for split, loss in other.losses.items():
                    assert one.losses[split] == pytest.approx(loss, abs=1e-5)


# Plans -----------------------------------------------------------------------------------------------------------

LARGE = Shape(n_layer=36, d_model=5120, n_head=40, n_ctx=1024, vocab_size=50304)
"""1.16e10 parameters: 195 GiB of weights, moments and gradients."""


def cohort_of(shape, **changes):
    return Cohort(shape=shape, batch_sequences=32, members=(Member(id=0, seed=0),), **changes)


@pytest.mark.parametrize("ranks", [2, 4])
def test_what_does_not_fit_on_one_card_is_sharded_and_says_why(monkeypatch, with_triton, ranks):
    monkeypatch.setattr(plan, "_num_ranks", lambda: ranks)
    free = 139 * 2**30
    chosen = plan.make_plan(cohort_of(LARGE), "cuda:0", "bfloat16", free=free)
    assert chosen.path == "sharded"
    assert f"{ranks} ranks" in str(chosen)
    assert "139.0 free" in str(chosen)
    assert (
        memory.least_bytes(cohort_of(LARGE), "bfloat16", ranks)
        < free
        < memory.least_bytes(cohort_of(LARGE), "bfloat16")
    )
    sequences = 32 // ranks // chosen.micro_batches
    assert memory.sharded_bytes(LARGE, ranks, sequences, checkpointed=chosen.checkpointed) <= free


def test_what_fits_is_replicated_and_only_its_batches_are_shared(monkeypatch, with_triton):
    monkeypatch.setattr(plan, "_num_ranks", lambda: 2)
    smaller = Shape(n_layer=24, d_model=1024, n_head=16, n_ctx=1024, vocab_size=50304)
    chosen = plan.make_plan(cohort_of(smaller), "cuda:0", "bfloat16", free=139 * 2**30)
    assert (chosen.path, chosen.capture, chosen.micro_batches) == ("stacked", False, 1)
    assert "2 ranks share its batches" in str(chosen)
    frugal = plan.make_plan(cohort_of(LARGE, optimizer="adafactor"), "cuda:0", "bfloat16", free=139 * 2**30)
    assert frugal.path == "stacked", "110 GiB with Adafactor: no need to shard"


def test_ranks_plan_by_the_least_free_memory(monkeypatch, with_triton):
    """What one rank has more of than another must not change its plan: they would wait for each other."""
    import torch

    from scaling_sim_torch import distributed

    monkeypatch.setattr(plan, "_num_ranks", lambda: 2)
    smaller = Shape(n_layer=24, d_model=1024, n_head=16, n_ctx=1024, vocab_size=50304)
    free = (6.0 * 2**30, 9.0 * 2**30)
    alone = [plan.make_plan(cohort_of(smaller), "cuda:0", "bfloat16", free=one).path for one in free]
    assert alone == ["sharded", "stacked"]
    assert distributed.least(free[1], torch.device("cpu")) == free[1], "one process has its own"


def test_without_torchrun_there_is_nobody_to_follow():
    assert joined() is None
    assert follow() is False
