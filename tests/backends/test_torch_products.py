"""The operators of wide products: gradients, the plain operations where cuBLASLt does not serve, and cuBLASLt's own."""

import numpy as np
import pytest

from scaling_sim.engine.cohort import Cohort, Member
from scaling_sim.model.shape import Shape

pytestmark = pytest.mark.torch

on_card = pytest.mark.gpu


@pytest.fixture
def nothing_known(monkeypatch, tmp_path):
    """No algorithm has been chosen, in this process or another."""
    from scaling_sim_torch import cublaslt
    from scaling_sim_torch.compiling import SETTING

    monkeypatch.setenv(SETTING, str(tmp_path))
    cublaslt._problem.cache_clear()
    yield
    cublaslt._problem.cache_clear()


WIDE = Shape(n_layer=2, d_model=512, n_head=8, n_ctx=128, vocab_size=1000)

NARROW = Shape(n_layer=2, d_model=32, n_head=2, n_ctx=32, vocab_size=300)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def factors(torch):
    """x (R, D), up (F, D) and down (D, F) in float64."""
    torch.manual_seed(0)
    return tuple(torch.randn(*size, dtype=torch.float64, requires_grad=True) for size in ((6, 8), (32, 8), (8, 32)))


def test_the_operators_are_the_plain_operations(torch, factors):
    from scaling_sim_torch.products import feed_forward, gelu, product

    x, up, down = factors
    out, beside = feed_forward(x, up, down)
    torch.testing.assert_close(beside, x @ up.T)
    torch.testing.assert_close(out, gelu(x @ up.T) @ down.T)
    torch.testing.assert_close(product(x, up, True), x @ up.T)
    torch.testing.assert_close(product(x, down, False), x @ down)


@pytest.mark.parametrize("transposed", [True, False])
def test_gradients_of_a_product(torch, factors, transposed):
    from scaling_sim_torch.products import product

    b = factors[1 if transposed else 2]
    assert torch.autograd.gradcheck(lambda x, b: product(x, b, transposed), (factors[0], b))


def test_gradients_of_the_feed_forward_half(torch, factors):
    from scaling_sim_torch.products import feed_forward

    assert torch.autograd.gradcheck(lambda *given: feed_forward(*given)[0], factors)


def test_the_operators_are_registered_as_compilers_expect(torch, factors):
    from scaling_sim_torch.products import feed_forward, product

    torch.library.opcheck(feed_forward, factors)
    torch.library.opcheck(product, (*factors[:2], True))


def test_products_are_tried_of_one_wide_model_only(torch):
    from scaling_sim_torch.products import TRIED_FROM, is_tried

    assert is_tried(torch.empty(1, 3, TRIED_FROM))
    assert not is_tried(torch.empty(2, 3, TRIED_FROM))
    assert not is_tried(torch.empty(1, 3, TRIED_FROM - 1))


def test_there_is_no_library_without_a_card(torch):
    from scaling_sim_torch import cublaslt

    if torch.cuda.is_available():
        pytest.skip("a card is there")
    assert cublaslt.library() is None
    half = torch.ones(2, 2, dtype=torch.bfloat16)
    assert cublaslt.product(half, half, transposed=True) is None


def curve(precision, plan=None, updates=8, shape=WIDE, device="cpu"):
    from scaling_sim_torch import BACKEND
    from scaling_sim_torch.fast import FastTrainer

    cohort = Cohort(shape=shape, batch_sequences=8, members=(Member(id=0, seed=0),))
    rng = np.random.default_rng(0)
    tokens = {"train": (np.cumsum(rng.integers(0, 3, 50_000)) % shape.vocab_size).astype(np.uint16)}
    starts, lr = rng.integers(0, 40_000, (updates, 1, 8)), np.full((updates, 1), 3e-4)
    start = BACKEND.start if plan is None else FastTrainer
    trainer = start(cohort, tokens, device, precision, *([] if plan is None else [plan]))
    return trainer.advance(0, starts, lr), trainer.evaluate("train", starts[0][:, None])[0]


@pytest.mark.parametrize("options", [{}, {"checkpointed": True, "micro_batches": 2}], ids=str)
def test_a_model_trains_alike_with_operators_and_plain_products(torch, options, monkeypatch):
    from scaling_sim_torch import products
    from scaling_sim_torch.plan import Plan

    found = []
    for first in (1, 10**6):
        monkeypatch.setattr(products, "TRIED_FROM", first)
        found.append(curve("bfloat16", Plan("stacked", "test", **options), shape=NARROW))
    for got, expected in zip(*found, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-3)


@on_card
@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("sizes", [(4096, 512, 2048), (300, 768, 1000), (8, 8, 16)], ids=str)
def test_cublaslt_equals_plain_products(torch, sizes, transposed, beside):
    from scaling_sim_torch import cublaslt
    from scaling_sim_torch.products import gelu

    torch.manual_seed(0)
    R, K, N = sizes
    a = torch.randn(R, K, device="cuda").bfloat16()
    b = (torch.randn(N, K) / K**0.5).to("cuda", torch.bfloat16)
    expected = a.float() @ b.float().T
    done = cublaslt.product(a, b if transposed else b.T.contiguous(), transposed=transposed, beside=beside)
    assert done is not None, "cuBLASLt does not serve"
    result, kept = done
    torch.testing.assert_close(result.float(), gelu(expected) if beside else expected, atol=0.02, rtol=0.01)
    assert (kept is not None) == beside
    if kept is not None:
        torch.testing.assert_close(kept.float(), expected, atol=0.02, rtol=0.01)


@on_card
def test_all_proposals_of_cublaslt_are_tried_once(torch, monkeypatch, nothing_known):
    """And another process takes the same."""
    from scaling_sim_torch import cublaslt

    tried = []
    fastest = cublaslt._Problem._fastest
    monkeypatch.setattr(cublaslt._Problem, "_fastest", lambda self, *given: tried.append(self) or fastest(self, *given))
    a, b = (torch.randn(2048, 768, device="cuda").bfloat16() for _ in range(2))
    first, again = (cublaslt.product(a, b, transposed=True)[0] for _ in range(2))
    cublaslt._problem.cache_clear()
    elsewhere = cublaslt.product(a, b, transposed=True)[0]
    assert torch.equal(first, again)
    assert torch.equal(first, elsewhere)
    assert len(tried) == 1
    assert 0 <= tried[0].chosen < len(tried[0].proposals) <= cublaslt.PROPOSALS


@on_card
def test_a_product_that_is_first_met_while_capturing_takes_the_first_proposal(torch, nothing_known):
    from scaling_sim_torch import cublaslt

    a, b = (torch.randn(1024, 512, device="cuda").bfloat16() for _ in range(2))
    expected, graph = a @ b.T, torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        result, _ = cublaslt.product(a, b, transposed=True)
    graph.replay()
    torch.testing.assert_close(result, expected, atol=0.1, rtol=0.02)


@on_card
@pytest.mark.parametrize("fault", ["no library", "no proposals", "refused"])
def test_plain_products_serve_where_cublaslt_does_not(torch, fault, monkeypatch, nothing_known):
    from scaling_sim_torch import cublaslt
    from scaling_sim_torch.products import feed_forward, gelu, product

    def refuse(*_):
        raise cublaslt.Refused("test")

    if fault == "no library":
        monkeypatch.setattr(cublaslt, "library", lambda: None)
    elif fault == "no proposals":
        monkeypatch.setattr(cublaslt._Problem, "_ask", lambda self, alignments: [])
    else:
        monkeypatch.setattr(cublaslt._Problem, "_launch", refuse)
    x, up, down = (torch.randn(*size, device="cuda").bfloat16() for size in ((64, 512), (2048, 512), (512, 2048)))
    assert cublaslt.product(x, up, transposed=True) is None
    assert torch.equal(product(x, up, True), x @ up.T)
    assert torch.equal(feed_forward(x, up, down)[0], gelu(x @ up.T) @ down.T)


@on_card
@pytest.mark.parametrize("options", [None, {"checkpointed": True, "micro_batches": 2}], ids=str)
def test_a_wide_model_trains_on_a_card_as_in_float32(torch, options):
    from scaling_sim_torch.plan import Plan

    plan = None if options is None else Plan("stacked", "test", compiled=True, **options)
    for got, expected in zip(curve("bfloat16", plan, device="cuda:0"), curve("float32", device="cuda:0"), strict=True):
        np.testing.assert_allclose(got, expected, atol=0.01)
