"""What only the PyTorch backend has: masks in int64 tensors, tokens in signed types, lazy import, no host waits."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from scaling_sim.engine.cohort import Cohort, Member
from scaling_sim.engine.conformance_cases import DROPOUT, PLAIN
from scaling_sim.engine.philox import dropout_mask, philox4x32
from scaling_sim.engine.reference import BACKEND as REFERENCE
from scaling_sim.engine.registry import backends, get_backend
from scaling_sim.errors import BackendUnavailable
from scaling_sim.model.shape import Shape
from scaling_sim_torch import BACKEND, TorchBackend

pytestmark = pytest.mark.torch

SEEDS = (0, 7, 2**32 - 1, 2**63 + 12345)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_philox_words_equal_numpys(torch, device):
    from scaling_sim_torch.dropout import philox4x32 as torch_philox4x32

    counters = np.random.default_rng(0).integers(0, 2**32, (1000, 4), dtype=np.uint64)
    counters[0], counters[1] = 0, 2**32 - 1
    words = torch.from_numpy(counters.astype(np.int64)).to(device).unbind(1)
    key = 0xFFFFFFFF, 0x9E3779B9
    result = torch_philox4x32(words, tuple(torch.tensor(word, device=device) for word in key))
    assert np.array_equal(result.cpu().numpy(), philox4x32(counters, key))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_masks_of_a_cohort_equal_numpys(torch, device):
    from scaling_sim_torch.dropout import Dropout, DropoutKeys

    rates = (0.1, 0.0, 0.5, 0.999)
    members = [Member(id=i, seed=seed, dropout=rate) for i, (seed, rate) in enumerate(zip(SEEDS, rates, strict=True))]
    keys = DropoutKeys.of(members, torch.device(device), torch.float32)
    dropout = Dropout(keys, torch.tensor(12345, device=device))
    for site, columns in ((0, 8), (5, 7), (2, 1)):
        masks = dropout.mask(site, rows=33, columns=columns).cpu().numpy()
        expected = [dropout_mask(one.seed, 12345, site, 33, columns, one.dropout) for one in members]
        assert np.array_equal(masks, expected)


@pytest.mark.parametrize(("token_type", "vocab_size"), [("uint16", 60000), ("uint32", 70000)])
def test_token_ids_beyond_the_signed_range(torch, tmp_path, token_type, vocab_size):
    path = tmp_path / "tokens.bin"
    np.random.default_rng(0).integers(vocab_size // 2, vocab_size, 200).astype(token_type).tofile(path)
    tokens = np.memmap(path, dtype=token_type, mode="r")
    shape = Shape(n_layer=0, d_model=4, n_head=1, n_ctx=5, vocab_size=vocab_size)
    cohort = Cohort(shape=shape, batch_sequences=2, members=(Member(id=0, seed=0), Member(id=1, seed=1)))
    starts = np.random.default_rng(1).integers(0, 190, (4, 2))
    results = [
        backend.start(cohort, {"train": tokens}, precision="float64").evaluate("train", starts)
        for backend in (BACKEND, REFERENCE)
    ]
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_retired_members_leave_the_memory(torch):
    trainer = BACKEND.start(DROPOUT.cohort, DROPOUT.splits())
    trainer.retire([member.id for member in DROPOUT.cohort.members if member.dropout])
    assert {len(value) for value in trainer.flat.values()} == {1}
    assert trainer.dropout_keys is None, "the member that is left drops nothing"


def test_all_members_may_retire(torch):
    trainer = BACKEND.start(PLAIN.cohort, PLAIN.splits())
    trainer.retire(trainer.live())
    assert trainer.live() == ()
    assert trainer.state()["params.qkv"].shape[0] == 0


def test_torch_global_state_is_left_alone(torch):
    def settings():
        return torch.is_grad_enabled(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()

    before, random_state = settings(), torch.get_rng_state()
    trainer = TorchBackend(deterministic=True).start(DROPOUT.cohort, DROPOUT.splits(), precision="bfloat16")
    trainer.advance(0, *DROPOUT.batches(2))
    trainer.evaluate("test", DROPOUT.starts(2))
    assert settings() == before
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_an_update_never_waits_for_the_host(torch):
    from scaling_sim_torch.optimizer import Schedule

    trainer = BACKEND.start(DROPOUT.cohort, DROPOUT.splits(), device="cuda:0")
    starts, lr = DROPOUT.batches(3)
    schedule = Schedule.of(trainer.cohort, 0, lr, trainer.device, trainer.dtype)
    starts_KMB = torch.from_numpy(starts).to(trainer.device)
    trainer._update(0, starts_KMB[0], schedule)  # kernels are loaded on the first use
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in (1, 2):
            trainer._update(step, starts_KMB[step], schedule)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.01)])
def test_more_sequences_than_a_grid_axis(torch, precision, tolerance):
    shape = Shape(n_layer=1, d_model=16, n_head=2, n_ctx=8, vocab_size=17)
    cohort = Cohort(shape=shape, batch_sequences=35000, members=(Member(id=0, seed=0), Member(id=1, seed=1)))
    starts, lr = np.random.default_rng(0).integers(0, 600, (3, 2, 35000)), np.full((3, 2), 0.01)
    places = (("cuda:0", precision), ("cpu", "float32"))
    losses = [BACKEND.start(cohort, PLAIN.splits(), *place).advance(0, starts, lr) for place in places]
    np.testing.assert_allclose(*losses, atol=tolerance)


def test_package_is_listed_without_importing_torch():
    code = "import sys, scaling_sim_torch; scaling_sim_torch.BACKEND.name; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_missing_torch_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "scaling-sim[torch]" in BACKEND.why_unavailable()
    assert BACKEND.devices() == []
    with pytest.raises(BackendUnavailable, match=r"scaling-sim\[torch\]"):
        get_backend("torch")


def test_no_cuda_is_said(torch, monkeypatch):
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(is_available=lambda: False))
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "no CUDA device" in BACKEND.why_unsupported(PLAIN.cohort, "cuda", "float32")
    assert "without CUDA" in BACKEND.note()
    assert BACKEND.devices() == ["cpu"]
    assert BACKEND.why_unavailable() is None


def test_cuda_devices_are_counted(torch, monkeypatch):
    monkeypatch.setattr(torch, "cuda", cards(("NVIDIA H200", (9, 0)), ("NVIDIA H200", (9, 0))))
    assert BACKEND.devices() == ["cuda:0", "cuda:1", "cpu"]
    assert BACKEND.note() is None
    assert BACKEND.why_unsupported(PLAIN.cohort, "cuda:1", "bfloat16") is None
    assert "cuda:0 to cuda:1, got 'cuda:2'" in BACKEND.why_unsupported(PLAIN.cohort, "cuda:2", "float32")


def cards(*known):
    """What torch.cuda says where these cards (name, compute capability) are."""
    return SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: len(known),
        get_device_name=lambda i: known[i][0],
        get_device_capability=lambda i: known[int(str(i).removeprefix("cuda:"))][1],
    )


def test_cards_that_differ_and_old_ones_are_named(torch, monkeypatch):
    monkeypatch.setattr(torch, "cuda", cards(("NVIDIA H200", (9, 0)), ("Tesla T4", (7, 5))))
    (found,) = (info for info in backends() if info.name == "torch")
    assert found.available
    assert "the cards differ (cuda:0 NVIDIA H200, cuda:1 Tesla T4)" in found.note
    assert "no bfloat16 on cuda:1 (older than Ampere): left out where the others train in it" in found.note
    assert "older than Ampere" in BACKEND.why_unsupported(PLAIN.cohort, "cuda:1", "bfloat16")
    assert BACKEND.why_unsupported(PLAIN.cohort, "cuda:1", "float32") is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("The NVIDIA driver on your system is too old (found version 11040).", "update the driver"),
        ("Found no NVIDIA driver on your system.", "Found no NVIDIA driver"),
        (None, "hidden by CUDA_VISIBLE_DEVICES"),
    ],
)
def test_why_a_cuda_build_sees_no_card(torch, monkeypatch, answer, said):
    def init():
        if answer is not None:
            raise RuntimeError(answer)

    monkeypatch.setattr(torch, "cuda", SimpleNamespace(is_available=lambda: False, init=init))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert said in BACKEND.note()
    assert BACKEND.note().startswith("no GPU: ")
    assert BACKEND.why_unavailable() is None, "the CPU still serves"


def test_unknown_precision_lists_the_known_ones():
    assert "float64, float32, bfloat16, got 'float16'" in BACKEND.why_unsupported(PLAIN.cohort, "cpu", "float16")


@pytest.mark.parametrize("autocast", [False, True])
def test_losses_by_chunks_of_rows_are_the_losses(torch, autocast, monkeypatch):
    """And no more logits than allowed are ever computed at a time."""
    from torch.nn import functional

    from scaling_sim_torch import cross_entropy
    from scaling_sim_torch.model import position_losses

    shape = Shape(n_layer=2, d_model=12, n_head=3, n_ctx=7, vocab_size=31)
    torch.manual_seed(0)
    windows = torch.randint(31, (2, 3, 8))
    flat = 0.3 * torch.randn(2, sum(int(np.prod(size)) for size in shape.parameter_shapes().values()))
    flat, found, most = flat.float() if autocast else flat.double(), [], []
    exact = functional.cross_entropy

    def counted(logits, *arguments, **options):
        most.append(logits.numel() * logits.element_size())
        return exact(logits, *arguments, **options)

    monkeypatch.setattr(functional, "cross_entropy", counted)
    for room in (2**30, 2 * 4 * 31 * flat.element_size()):  # four rows of two members
        monkeypatch.setattr(cross_entropy, "MAX_LOGITS", room)
        leaf = flat.clone().requires_grad_()
        most.clear()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast, cache_enabled=False):
            losses = position_losses(leaf, shape, windows[..., :-1], windows[..., 1:])
        (grad,) = torch.autograd.grad(losses.mean(), leaf)
        assert max(most) <= room
        found.append((losses.detach(), grad, len(most)))
    assert found[1][2] == 2 * 6, "six chunks, computed again in the backward pass"
    torch.testing.assert_close(found[1][0], found[0][0])
    torch.testing.assert_close(
        found[1][1], found[0][1], rtol=1e-2 if autocast else 1e-9, atol=1e-4 if autocast else 1e-12
    )
