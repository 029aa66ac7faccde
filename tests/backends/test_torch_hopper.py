"""Every hand-written kernel compiles for a Hopper card, with the tiles and sizes that it would be launched with.

No card is needed, only Triton: ptxas may refuse what no other test on the CPU sees, such as a limit of registers.
"""

import warnings

import pytest

from scaling_sim.model.shape import Shape

pytestmark = [pytest.mark.torch, pytest.mark.slow]

SHAPES = [
    Shape(n_layer=1, d_model=16, n_head=1, n_ctx=128, vocab_size=256),
    Shape(n_layer=1, d_model=32, n_head=2, n_ctx=128, vocab_size=256),
    Shape(n_layer=1, d_model=64, n_head=2, n_ctx=128, vocab_size=256),
    Shape(n_layer=1, d_model=64, n_head=1, n_ctx=128, vocab_size=5003),
    Shape(n_layer=1, d_model=128, n_head=4, n_ctx=128, vocab_size=256),
    Shape(n_layer=1, d_model=128, n_head=1, n_ctx=100, vocab_size=256),
    Shape(n_layer=1, d_model=40, n_head=5, n_ctx=50, vocab_size=300, d_ff=72),
]


@pytest.fixture(scope="module")
def triton():
    pytest.importorskip("torch")
    return pytest.importorskip("triton", reason="Triton is not installed; PyTorch for CUDA brings it along")


@pytest.fixture
def launches(triton, monkeypatch):
    """What would be launched: functions with their arguments."""
    found = []

    def recorded(self, grid):
        return lambda *arguments, **named: found.append((self, arguments, named))

    monkeypatch.setattr(triton.runtime.jit.JITFunction, "__getitem__", recorded)
    return found


def compiled(triton, function, arguments, named):
    """The kernel for compute capability 9.0, specialised as a launch would be."""
    import torch
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kinds = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float64: "*fp64", torch.int64: "*i64"}
    kinds |= {torch.int32: "*i32", torch.int16: "*i16", torch.uint8: "*u8"}
    names, options = function.arg_names, {}
    given = dict(zip(names, arguments, strict=False))
    for name, value in named.items():
        (given if name in names else options)[name] = value
    constants = {param.name for param in function.params if param.is_constexpr}
    signature, fixed, attributes = {}, {}, {}
    for place, name in enumerate(names):
        value = given[name]
        if name in constants:
            signature[name], fixed[(place,)] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name], attributes[(place,)] = kinds[value.dtype], [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
    source = ASTSource(fn=function, signature=signature, constexprs=fixed, attrs=attributes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_compile(triton, launches, shape):
    import torch

    from scaling_sim_torch.fused import FusedModel

    weights, step = torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    corpus, starts = torch.zeros(4, dtype=torch.uint8), torch.zeros(1, 2, 4, dtype=torch.int64)
    for gradient in (True, False):
        model = FusedModel(shape, 2, 4, torch.device("cpu"), gradient=gradient)
        model.read(starts, step, corpus, 0xFF, weights)
        (model.gradient if gradient else model.losses)(weights, weights.bfloat16())
    names = {function.fn.__name__ for function, _, _ in launches}
    assert {"attention_forward", "attention_backward", "mlp_forward", "head_forward", "combine"} <= names
    for function, arguments, named in launches:
        assert compiled(triton, function, arguments, named).asm["cubin"]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_compiles_for_flat_gradients_and_pieces(triton, launches, decay):
    import numpy as np
    import torch

    from scaling_sim.engine.cohort import Cohort, Member
    from scaling_sim_torch.capture import Tables
    from scaling_sim_torch.flat_adamw import FlatAdamW
    from scaling_sim_torch.layout import offsets

    cohort = Cohort(shape=SHAPES[0], batch_sequences=2, members=(Member(id=0, seed=0),), weight_decay=decay)
    params = torch.zeros(1, offsets(SHAPES[0])[1])
    flat = {kind: params.clone() for kind in ("params", "adam_m", "adam_v")}
    optimizer = FlatAdamW(cohort, flat, params.bfloat16(), torch.ones(1, dtype=torch.bool))
    tables = Tables(1, 2, torch.device("cpu"))
    tables.fill(cohort, 0, torch.zeros(1, 1, 2, dtype=torch.int64), np.ones((1, 1)))
    at = offsets(SHAPES[0])[0]
    pieces = [(0, params[0, : at["qkv"]]), (at["qkv"], torch.zeros(16, dtype=torch.bfloat16))]
    for gradient in (params, pieces):
        optimizer._launch(torch.zeros(1, 4), gradient, tables, optimizer._squares(gradient))
    decays = {named["DECAY"] for function, _, named in launches if function.fn.__name__ == "update"}
    assert decays == ({0, 1, 2} if decay else {0})
    for function, arguments, named in launches:
        assert compiled(triton, function, arguments, named).asm["cubin"]
