"""The widest products of a layer as operators: on a card by the fastest algorithm that cuBLASLt has.

Where cuBLASLt does not serve (the CPU, other types) they are the plain operations, with the same gradients.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from scaling_sim_torch import cublaslt

gelu = partial(functional.gelu, approximate="tanh")

TRIED_FROM = 512
"""d_model from which the algorithms of one model's products are tried: narrower ones are over in no time."""


def is_tried(weight_Moi: Tensor) -> bool:
    """Whether the products with this matrix are worth a trial: one member's, wide enough."""
    return len(weight_Moi) == 1 and weight_Moi.shape[-1] >= TRIED_FROM


@torch.library.custom_op("scaling_sim::product", mutates_args=())
def product(a_RK: Tensor, b: Tensor, transposed: bool) -> Tensor:
    """a·bᵀ with ``transposed`` (b is (N, K)), else a·b (b is (K, N))."""
    if _served(a_RK, b):
        done = cublaslt.product(a_RK.contiguous(), b.contiguous(), transposed=transposed)
        if done is not None:
            return done[0]
    return a_RK @ (b.t() if transposed else b)


@product.register_fake
def _(a_RK: Tensor, b: Tensor, transposed: bool) -> Tensor:
    return a_RK.new_empty(a_RK.shape[0], b.shape[0 if transposed else 1])


@torch.library.custom_op("scaling_sim::feed_forward", mutates_args=())
def feed_forward(x_RD: Tensor, up_FD: Tensor, down_DF: Tensor) -> tuple[Tensor, Tensor]:
    """GELU(x·upᵀ)·downᵀ, and the input of GELU, all that the backward pass needs besides ``x``; it has no gradient."""
    done = None
    if _served(x_RD, up_FD):
        done = cublaslt.product(x_RD.contiguous(), up_FD.contiguous(), transposed=True, beside=True)
    if done is not None and done[1] is not None:
        h_RF, u_RF = done[0], done[1]
    else:
        u_RF = x_RD @ up_FD.t()
        h_RF = gelu(u_RF)
    return h_RF @ down_DF.t(), u_RF


@feed_forward.register_fake
def _(x_RD: Tensor, up_FD: Tensor, down_DF: Tensor) -> tuple[Tensor, Tensor]:
    return x_RD.new_empty(x_RD.shape[0], down_DF.shape[0]), x_RD.new_empty(x_RD.shape[0], up_FD.shape[0])


def _served(a: Tensor, b: Tensor) -> bool:
    return a.device.type == "cuda" and a.dtype == b.dtype == torch.bfloat16


def _keep_factors(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
    a_RK, b, ctx.transposed = inputs
    ctx.save_for_backward(a_RK, b)


def _gradients_of_factors(ctx: Any, grad_RN: Tensor) -> tuple[Tensor, Tensor, None]:
    a_RK, b = ctx.saved_tensors
    grad_a_RK = grad_RN @ (b if ctx.transposed else b.t())
    return grad_a_RK, grad_RN.t() @ a_RK if ctx.transposed else a_RK.t() @ grad_RN, None


def _keep_input_of_gelu(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])


def _gradients_of_feed_forward(ctx: Any, grad_RD: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """GELU is computed again: kept, it would be a fifth of a model's memory."""
    x_RD, up_FD, down_DF, u_RF = ctx.saved_tensors
    grad_h_RF = product(grad_RD, down_DF, False)
    grad_u_RF = torch.ops.aten.gelu_backward(grad_h_RF, u_RF, approximate="tanh")
    return grad_u_RF @ up_FD, grad_u_RF.t() @ x_RD, grad_RD.t() @ gelu(u_RF)


product.register_autograd(_gradients_of_factors, setup_context=_keep_factors)
feed_forward.register_autograd(_gradients_of_feed_forward, setup_context=_keep_input_of_gelu)
