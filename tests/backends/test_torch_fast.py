"""The fast paths of the PyTorch backend: plans, chunks of logits, replays, and both models against exact ones."""

import contextlib
import gc
import os
import subprocess
import sys
import warnings
from functools import partial

import numpy as np
import pytest

from scaling_sim.engine.cohort import Cohort, Member
from scaling_sim.engine.conformance_cases import CASES, PLAIN
from scaling_sim.engine.reference import BACKEND as REFERENCE
from scaling_sim.errors import BackendWarning
from scaling_sim.model.shape import Shape
from scaling_sim_torch import BACKEND, TorchBackend
from scaling_sim_torch.layout import offsets, parameter_at
from scaling_sim_torch.memory import fit, fused_bytes, least_bytes, stacked_bytes
from scaling_sim_torch.plan import Plan, make_plan
from scaling_sim_torch.ptxas import split_descriptors

pytestmark = pytest.mark.torch

BILLION = Shape(n_layer=24, d_model=2048, n_head=16, n_ctx=1024, vocab_size=50304)
SMALL = Shape(n_layer=2, d_model=32, n_head=2, n_ctx=128, vocab_size=256)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def cohort_of(shape, batch=32, dropout=0.0, members=1):
    return Cohort(
        shape=shape,
        batch_sequences=batch,
        members=tuple(Member(id=i, seed=i, dropout=dropout) for i in range(members)),
    )


# The stacked path ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_stacked_curves_evaluations_and_noise_follow_the_reference(torch, case, micro_batches):
    from scaling_sim_torch.fast import FastTrainer

    members = case.cohort.members
    if case.cohort.batch_sequences % micro_batches or (micro_batches > 1 and any(m.dropout for m in members)):
        pytest.skip("the batch cannot be cut so")
    plan = Plan("stacked", "test", micro_batches=micro_batches, checkpointed=micro_batches > 1)
    trainer = FastTrainer(case.cohort, case.splits(), "cpu", "bfloat16", plan)
    reference = REFERENCE.start(case.cohort, case.splits(), precision="float64")
    batches = case.batches(6)
    np.testing.assert_allclose(trainer.advance(0, *batches), reference.advance(0, *batches), atol=0.003)
    for got, expected in zip(
        trainer.evaluate("test", case.starts(2)), reference.evaluate("test", case.starts(2)), strict=True
    ):
        np.testing.assert_allclose(got, expected, atol=0.003)
    starts = case.starts(len(members), 2)
    for got, expected in zip(trainer.gradient_noise(starts), reference.gradient_noise(starts), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0.02)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's own, while it compiles
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("tried_from", [1, 10**6], ids=["operators", "plain products"])
def test_compiled_blocks_keep_what_enters_gelu_and_not_what_leaves_it(torch, tried_from, monkeypatch):
    from scaling_sim_torch import products
    from scaling_sim_torch.stacked import StackedModel, _block

    torch.manual_seed(0)
    monkeypatch.setattr(products, "TRIED_FROM", tried_from)
    model = StackedModel(SMALL, 1, torch.device("cpu"), compiled=False)
    master = 0.05 * torch.randn(1, offsets(SMALL)[1])
    windows, rows = torch.randint(256, (1, 2, 129)), 256
    results = []
    for compiled in (False, True):
        torch.compiler.reset()
        compile_ = partial(torch.compile, backend="aot_eager_decomp_partition", dynamic=False)
        model.block, kept = compile_(_block) if compiled else _block, []
        losses, grad = torch.empty(1, rows), torch.empty_like(master)
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x.shape) or x, lambda x: x):
            model.gradient(master, master.bfloat16(), windows, losses, grad)
        widths = [shape[-1] for shape in kept if shape[-2:-1] == (rows,)]
        results.append((grad, widths.count(SMALL.d_ff)))
    (plain, plain_wide), (grad, wide) = results
    assert torch.linalg.vector_norm(grad - plain) < 0.02 * torch.linalg.vector_norm(plain)
    assert wide == SMALL.n_layer <= plain_wide
    assert (wide < plain_wide) == (tried_from > 1)  # operators keep no more where nothing is compiled, either


def test_every_place_has_its_parameter():
    at, total = offsets(SMALL)
    names = [parameter_at(SMALL, place) for place in range(total)]
    assert {name: names.index(name) for name in at} == at
    assert all(names.count(name) > 0 for name in at)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_gradient_in_pieces_is_the_whole_one(torch, checkpointed):
    from scaling_sim_torch.gradient import add, flat, squared_norms
    from scaling_sim_torch.stacked import StackedModel

    torch.manual_seed(0)
    model = StackedModel(SMALL, 1, torch.device("cpu"), compiled=False, checkpointed=checkpointed)
    master = 0.05 * torch.randn(1, offsets(SMALL)[1])
    windows, losses, again = torch.randint(256, (1, 2, 129)), torch.empty(1, 256), torch.empty(1, 256)
    grad = torch.full_like(master, torch.nan)
    model.gradient(master, master.bfloat16(), windows, losses, grad)
    pieces = model.pieces(master, master.bfloat16(), windows, again)
    ends = sorted((first, first + piece.numel()) for first, piece in pieces)
    assert [first for first, _ in ends] == [0, *(end for _, end in ends[:-1])], "each number once"
    assert ends[-1][1] == master.numel()
    torch.testing.assert_close(flat(pieces, master), grad, rtol=0, atol=0)
    torch.testing.assert_close(squared_norms(pieces), squared_norms(grad))
    add(grad, pieces)
    torch.testing.assert_close(grad, 2 * flat(pieces, master), rtol=0, atol=0)
    torch.testing.assert_close(again, losses, rtol=0, atol=0)
    assert {piece.dtype for _, piece in pieces} == {torch.float32, torch.bfloat16}


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_updates_by_pieces_are_the_updates(torch, dropout, monkeypatch):
    """Also once memory has run out and the gradient is a sum over micro-batches."""
    from scaling_sim_torch import memory
    from scaling_sim_torch.fast import FastTrainer
    from scaling_sim_torch.stacked import StackedModel

    cohort, rng = cohort_of(SMALL, batch=4, dropout=dropout), np.random.default_rng(0)
    splits = {"train": rng.integers(0, 256, 3000).astype(np.uint8)}
    starts, lr, found, noise, used = rng.integers(0, 2000, (5, 1, 4)), np.full((5, 1), 1e-3), [], [], []
    exact = StackedModel.pieces

    def pieces(self, *arguments):
        used.append(self)
        if len(used) > 5 and not dropout:
            raise torch.OutOfMemoryError("no room")
        return exact(self, *arguments)

    monkeypatch.setattr(StackedModel, "pieces", pieces)
    for first in (SMALL.d_model + 1, SMALL.d_model):
        monkeypatch.setattr(memory, "PIECES_FROM", first)
        trainer = FastTrainer(cohort, splits, "cpu", "bfloat16", Plan("stacked", "test"))
        found.append(trainer.advance(0, starts[:3], lr[:3]))
        noise.append(trainer.gradient_noise(starts[:2].transpose(1, 0, 2)))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found.append(trainer.advance(3, starts[3:], lr[3:]))
    assert len(used) == (7 if dropout else 6)
    np.testing.assert_allclose(np.ravel(noise[1][0]), np.ravel(noise[0][0]), rtol=1e-5)
    np.testing.assert_allclose(noise[1][1], noise[0][1], rtol=1e-5)
    assert len([one for one in said if issubclass(one.category, BackendWarning)]) == (0 if dropout else 1)
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_allclose(found[1], found[3], atol=1e-3)


@pytest.mark.parametrize("num_members", [1, 3])
def test_chunked_head_equals_autograd(torch, num_members, monkeypatch):
    from torch.nn import functional

    from scaling_sim_torch import cross_entropy

    monkeypatch.setattr(cross_entropy, "MAX_LOGITS", 4 * 97 * 7 * num_members)  # seven rows of float32
    torch.manual_seed(0)
    y, table = torch.randn(num_members, 40, 8).requires_grad_(), torch.randn(num_members, 97, 8).requires_grad_()
    targets = torch.randint(97, (num_members, 40))
    losses, grad_table = torch.empty(num_members, 40), torch.ones(num_members, 97, 8)
    grad_y = cross_entropy.head_gradient(y.detach(), table.detach(), targets, losses, grad_table, 0.5)
    logits = torch.bmm(y, table.transpose(1, 2))
    expected = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    expected_y, expected_table = torch.autograd.grad(0.5 * expected.sum(), (y, table))
    torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(grad_y, expected_y)
    torch.testing.assert_close(grad_table, 1 + expected_table)


@pytest.mark.parametrize("num_members", [1, 16, 64])
@pytest.mark.parametrize("vocab_size", [256, 50304])
def test_never_more_than_256_mib_of_logits(torch, num_members, vocab_size):
    from scaling_sim_torch.cross_entropy import chunk_rows

    rows = chunk_rows(num_members, 65536, vocab_size)
    assert 0 < num_members * rows * vocab_size * 2 <= 256 * 2**20


# Plans -----------------------------------------------------------------------------------------------------------


def test_without_triton_plain_operations_train(monkeypatch):
    monkeypatch.setitem(sys.modules, "scaling_sim_torch.kernels", None)
    chosen = make_plan(cohort_of(BILLION), "cuda:0", "bfloat16")
    assert chosen.path == "eager"
    assert "Triton cannot be imported" in chosen.reason


def test_exact_precisions_and_deterministic_runs_are_eager():
    assert make_plan(cohort_of(SMALL), "cuda:0", "float32").path == "eager"
    assert make_plan(cohort_of(SMALL), "cuda:0", "bfloat16", deterministic=True).path == "eager"
    assert make_plan(cohort_of(SMALL), "cpu", "bfloat16").path == "eager"


@pytest.mark.parametrize(
    ("shape", "dropout", "reason"),
    [
        (BILLION, 0.0, "d_model 2048"),
        (SMALL, 0.1, "dropout"),
        (Shape(n_layer=1, d_model=32, n_head=1, n_ctx=256), 0.0, "n_ctx 256"),
        (Shape(n_layer=0, d_model=32, n_head=1, n_ctx=64), 0.0, "no layers"),
    ],
)
def test_what_the_kernels_do_not_cover_is_stacked_and_says_why(shape, dropout, reason, with_triton):
    plan = make_plan(cohort_of(shape, dropout=dropout), "cuda:0", "bfloat16")
    assert plan.path == "stacked"
    assert reason in str(plan)


def test_memory_decides_on_micro_batches_then_on_checkpoints():
    cohort = cohort_of(BILLION)
    whole = stacked_bytes(BILLION, 1, 32, whole=True)
    assert whole < stacked_bytes(BILLION, 1, 32), "a gradient in pieces"
    assert fit(cohort, whole) == (1, False)
    assert fit(cohort, whole - 1) == (2, False)
    least = stacked_bytes(BILLION, 1, 1)
    micro, checkpointed = fit(cohort, least - 1)
    assert checkpointed
    assert stacked_bytes(BILLION, 1, 32 // micro, checkpointed=True) < least


def test_a_work_space_that_does_not_fit_is_stacked(with_triton):
    cohort = cohort_of(SMALL, batch=64, members=64)
    assert make_plan(cohort, "cuda:0", "bfloat16", free=fused_bytes(cohort)).path == "fused"
    smaller = make_plan(cohort, "cuda:0", "bfloat16", free=fused_bytes(cohort) - 1)
    assert smaller.path == "stacked"
    assert "does not fit" in str(smaller)
    assert least_bytes(cohort, "bfloat16") < fused_bytes(cohort)


def test_the_backend_explains_its_path():
    assert TorchBackend(deterministic=True).explain(cohort_of(SMALL), "cpu", "bfloat16").startswith("eager: ")


def test_heads_wider_than_the_measured_ones_have_no_limit_of_registers(torch):
    from scaling_sim_torch.tiling import Tiling

    narrow, wide = (Tiling.of(Shape(n_layer=1, d_model=64, n_head=heads, n_ctx=128)).attention for heads in (2, 1))
    assert narrow.registers == 128
    assert wide.registers == 0
    assert "maxnreg" not in wide.options


def test_kernels_that_do_not_compile_are_not_used(torch, monkeypatch):
    from scaling_sim_torch import selfcheck

    def fails(*_):
        raise RuntimeError("ptxas fatal:\n register allocation failed")

    monkeypatch.setattr(selfcheck, "kernel_error", fails)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    with pytest.warns(BackendWarning, match=r"cannot be compiled \(ptxas fatal: register.*compiled path"):
        assert not BACKEND._kernels_are_right(cohort_of(SMALL), "cuda:0")


def test_every_width_has_tiles_no_wider_than_it_needs(torch):
    from scaling_sim_torch.tiling import MAX_WIDTH, Tiling, padded

    for d_model in range(1, MAX_WIDTH + 1):
        tiling = Tiling.of(Shape(n_layer=1, d_model=d_model, n_head=1, n_ctx=8, vocab_size=20, d_ff=d_model + 3))
        hidden = (tiling.mlp, tiling.mlp_gradients, tiling.mlp_back)
        assert max(launch.block for launch in hidden) <= padded(d_model + 3)
        assert tiling.head.block == tiling.embedding.block == padded(20)
        assert tiling.weights.block == padded(d_model)


# Several ranks ---------------------------------------------------------------------------------------------------

RANK = """
import sys
import numpy as np
import torch.distributed as dist
from scaling_sim.engine.conformance_cases import DROPOUT, PLAIN
from scaling_sim_torch import BACKEND
from scaling_sim_torch.fast import FastTrainer
from scaling_sim_torch.layout import offsets, parameter_at
from scaling_sim_torch.plan import Plan

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
assert "several ranks" in BACKEND.why_unsupported(DROPOUT.cohort, "cpu", "float32")
eager = BACKEND.start(PLAIN.cohort, PLAIN.splits(), precision="float64")
stacked = FastTrainer(PLAIN.cohort, PLAIN.splits(), "cpu", "bfloat16", Plan("stacked", "test"))
found = {name: one.advance(0, *PLAIN.batches(5)) for name, one in (("eager", eager), ("stacked", stacked))}
noise = eager.gradient_noise(PLAIN.starts(3, 2))
np.savez(f"{folder}/{rank}.npz", small=noise[0], big=noise[1], qkv=eager.state()["params.qkv"], **found)
dist.destroy_process_group()
"""


def test_two_ranks_give_the_curve_of_one(torch, tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", RANK]
    ranks = [subprocess.Popen([*command, str(rank), str(tmp_path)], env=worker_environment()) for rank in (0, 1)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    first, second = (np.load(tmp_path / f"{rank}.npz") for rank in (0, 1))
    for name in first.files:
        np.testing.assert_array_equal(first[name], second[name], err_msg=f"{name} must agree between ranks")
    alone = BACKEND.start(PLAIN.cohort, PLAIN.splits(), precision="float64")
    np.testing.assert_allclose(first["eager"], alone.advance(0, *PLAIN.batches(5)), rtol=1e-12)
    np.testing.assert_allclose(first["stacked"], first["eager"], atol=0.003)
    small, big = alone.gradient_noise(PLAIN.starts(3, 2))
    np.testing.assert_allclose(first["small"], small, rtol=1e-10)
    np.testing.assert_allclose(first["big"], big, rtol=1e-10)
    np.testing.assert_allclose(first["qkv"], alone.state()["params.qkv"], rtol=1e-9, atol=1e-12)


def worker_environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


# The repair of ptxas ---------------------------------------------------------------------------------------------

PTX = """
bfe.u32 	%r377, %r348, 4, 14;
cvt.u64.u32 	%rd44, %r377;
or.b64 	%rd11, %rd44, -9223371899415822336;
add.s64 	%rd12, %rd44, -9223371899415822334;
cvt.u64.u32 	%rd50, %r9;
add.s64 	%rd51, %rd50, -64;
add.s64 	%rd52, %rd44, 8;
"""


def test_descriptors_are_composed_from_halves_and_pointers_left_alone():
    lines = split_descriptors(PTX).strip().splitlines()
    high = (-9223371899415822334 % 2**64) >> 32
    assert f"add.u32 lo, %r377, {-9223371899415822334 % 2**32}; mov.b32 hi, {high};" in lines[3]
    assert "or.b32 lo, %r377" in lines[2]
    assert lines[4:6] == PTX.strip().splitlines()[4:6], "a negative offset of an index must keep its carry"


# On the card -----------------------------------------------------------------------------------------------------

SHAPES = [
    SMALL,
    Shape(n_layer=1, d_model=16, n_head=1, n_ctx=128, vocab_size=256),
    Shape(n_layer=3, d_model=10, n_head=1, n_ctx=64, vocab_size=256),
    Shape(n_layer=2, d_model=40, n_head=5, n_ctx=50, vocab_size=300, d_ff=72),
    Shape(n_layer=2, d_model=64, n_head=2, n_ctx=128, vocab_size=5003),
    Shape(n_layer=1, d_model=128, n_head=4, n_ctx=100, vocab_size=256),
    Shape(n_layer=1, d_model=128, n_head=1, n_ctx=128, vocab_size=256),
    Shape(n_layer=1, d_model=64, n_head=1, n_ctx=128, vocab_size=256),
]


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_agree_with_plain_operations(torch, shape):
    from scaling_sim_torch.selfcheck import kernel_error

    assert kernel_error(shape, torch.device("cuda:0")) < 0.02


@pytest.mark.gpu
@pytest.mark.parametrize(("n_layer", "d_model", "n_head"), [(1, 16, 1), (2, 32, 2), (1, 64, 2), (1, 128, 4)])
@pytest.mark.parametrize("num_members", [1, 64])
def test_kernels_agree_where_a_program_has_several_tiles(torch, n_layer, d_model, n_head, num_members):
    from scaling_sim_torch.selfcheck import kernel_error

    shape = Shape(n_layer=n_layer, d_model=d_model, n_head=n_head, n_ctx=128, vocab_size=256)
    assert kernel_error(shape, torch.device("cuda:0"), num_members, 64) < 0.02


@pytest.mark.gpu
def test_replayed_updates_equal_single_ones(torch):
    cohort, rng = cohort_of(SMALL, batch=8, members=3), np.random.default_rng(0)
    splits = {"train": (np.cumsum(rng.integers(0, 3, 5000)) % 256).astype(np.uint8)}
    starts, lr = rng.integers(0, 4000, (21, 3, 8)), np.full((21, 3), 1e-3)
    together = BACKEND.start(cohort, splits, "cuda:0", "bfloat16")
    apart = BACKEND.start(cohort, splits, "cuda:0", "bfloat16")
    losses = together.advance(0, starts, lr)
    single = [apart.advance(step, starts[step : step + 1], lr[step : step + 1]) for step in range(21)]
    np.testing.assert_array_equal(losses, np.concatenate(single))
    together.retire([1])
    after = together.advance(21, starts[:9, [0, 2]], lr[:9, :2])
    expected = apart.advance(21, starts[:9], lr[:9])[:, [0, 2]]
    np.testing.assert_allclose(after, expected, atol=1e-3)


@pytest.mark.gpu
def test_garbage_is_not_collected_while_capturing(torch):
    """Graphs in cycles would be destroyed then, which ends a capture."""
    from scaling_sim_torch.capture import Replays

    def captured():
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            torch.ones(3, device="cuda")
        return graph

    total, graphs = torch.zeros((), device="cuda"), [captured() for _ in range(20)]

    def update():
        cycle = [graphs.pop()]
        cycle.append(cycle)
        del cycle
        assert len([[] for _ in range(1000)]) == 1000  # so many objects make a collection due
        total.add_(1)

    replays, thresholds = Replays(update, torch.device("cuda:0")), gc.get_threshold()
    gc.set_threshold(1)
    try:
        replays.run(20)
    finally:
        gc.set_threshold(*thresholds)
    assert float(total) == 20


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [SMALL, Shape(n_layer=1, d_model=512, n_head=8, n_ctx=64, vocab_size=256)], ids=str)
def test_any_card_trains_as_the_first_one(torch, shape):
    """Kernels, graphs and streams belong to the current card, which a caller need not set."""
    if torch.cuda.device_count() < 2:
        pytest.skip("one card")
    cohort, rng = cohort_of(shape, batch=8), np.random.default_rng(0)
    splits = {"train": (np.cumsum(rng.integers(0, 3, 5000)) % 256).astype(np.uint8)}
    starts, lr, found = rng.integers(0, 4000, (12, 1, 8)), np.full((12, 1), 1e-3), []
    for device in ("cuda:0", f"cuda:{torch.cuda.device_count() - 1}"):
        trainer = BACKEND.start(cohort, splits, device, "bfloat16")
        losses = trainer.advance(0, starts, lr)
        noise = trainer.gradient_noise(starts[:2].transpose(1, 0, 2))[0]
        found.append((losses, trainer.evaluate("train", starts[:2].transpose(1, 0, 2))[0], noise))
    for got, expected in zip(*found, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0.05, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize(("n_layer", "d_model", "n_head"), [(1, 16, 1), (2, 32, 2), (2, 64, 2), (4, 128, 4)])
def test_final_losses_of_paired_runs(torch, n_layer, d_model, n_head):
    """The fidelity bar of the design: mean difference ≤ 5e-4 nats or below two standard errors, over eight seeds."""
    shape = Shape(n_layer=n_layer, d_model=d_model, n_head=n_head, n_ctx=64, vocab_size=256)
    cohort, rng = cohort_of(shape, batch=16, members=8), np.random.default_rng(0)
    noise = rng.random(200_000) < 0.2
    tokens = np.where(noise, rng.integers(0, 256, 200_000), np.cumsum(rng.integers(0, 3, 200_000)) % 256)
    splits = {"train": tokens[:150_000].astype(np.uint8), "test": tokens[150_000:].astype(np.uint8)}
    starts = rng.integers(0, 149_000, (400, 8, 16))
    lr = np.repeat(3e-3 * np.minimum(1, np.arange(1, 401) / 40)[:, None], 8, axis=1)
    final = []
    for precision in ("bfloat16", "float32"):
        trainer = BACKEND.start(cohort, splits, "cuda:0", precision)
        trainer.advance(0, starts, lr)
        final.append(trainer.evaluate("test", np.arange(0, 48_000, 64).reshape(-1, 15))[0].mean(axis=1))
    difference = final[0] - final[1]
    standard_error = difference.std(ddof=1) / np.sqrt(len(difference))
    assert abs(difference.mean()) < max(5e-4, 2 * standard_error), difference
