"""The head and its loss without the logits of a whole batch: chunks of rows, each turned into its gradient in place.

At most `MAX_LOGITS` bytes of logits exist at a time. Matrix products are bfloat16 with float32 sums; softmax, loss and
the sum of the embedding's gradient over chunks are float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from scaling_sim_torch.products import is_tried, product

MAX_LOGITS = 256 * 2**20


def chunk_rows(num_members: int, num_rows: int, vocab_size: int, item: int = 2) -> int:
    """Rows per member of a chunk: as many as `MAX_LOGITS` holds, a multiple of 128 where it can be."""
    room = MAX_LOGITS // (num_members * vocab_size * item)
    return max(1, min(num_rows, room // 128 * 128 if room >= 128 else room))


def head_losses(y_MRD: Tensor, embedding_MVD: Tensor, targets_MR: Tensor) -> Tensor:
    """Loss of every row, (M, R) float32; no gradient."""
    losses_MR = torch.empty(targets_MR.shape, dtype=torch.float32, device=y_MRD.device)
    for first, rows in _chunks(y_MRD, embedding_MVD):
        _rows(_logits(y_MRD[:, rows], embedding_MVD), targets_MR, losses_MR, first, None)
    return losses_MR


def head_gradient(
    y_MRD: Tensor, embedding_MVD: Tensor, targets_MR: Tensor, losses_MR: Tensor, grad_MVD: Tensor, scale: float
) -> Tensor:
    """Gradient of the sum of losses · scale with respect to ``y_MRD``.

    Parameters
    ----------
    y_MRD, embedding_MVD : tensors of one type
    targets_MR : int64 tensor
    losses_MR : float32 tensor
        Receives the losses.
    grad_MVD : float32 tensor
        The embedding's gradient is added to it.
    """
    grad_y_MRD = torch.empty_like(y_MRD)
    for first, rows in _chunks(y_MRD, embedding_MVD):
        logits_MrV = _logits(y_MRD[:, rows], embedding_MVD)
        _rows(logits_MrV, targets_MR, losses_MR, first, scale)
        grad_y_MRD[:, rows] = _product(logits_MrV, embedding_MVD)
        _accumulate(grad_MVD, logits_MrV.transpose(1, 2), y_MRD[:, rows])
    return grad_y_MRD


def _chunks(y_MRD: Tensor, embedding_MVD: Tensor) -> list[tuple[int, slice]]:
    num_members, num_rows, _ = y_MRD.shape
    size = chunk_rows(num_members, num_rows, embedding_MVD.shape[1], y_MRD.element_size())
    return [(first, slice(first, min(first + size, num_rows))) for first in range(0, num_rows, size)]


def _logits(y_MrD: Tensor, embedding_MVD: Tensor) -> Tensor:
    if is_tried(embedding_MVD):
        logits_rV: Tensor = product(y_MrD[0], embedding_MVD[0], True)
        return logits_rV[None]
    return _product(y_MrD, embedding_MVD.transpose(1, 2))


def _product(a_Mij: Tensor, b_Mjk: Tensor) -> Tensor:
    """Batched product; a plain one for a single member, which libraries do better."""
    return torch.mm(a_Mij[0], b_Mjk[0])[None] if len(a_Mij) == 1 else torch.bmm(a_Mij, b_Mjk)


def _accumulate(total_Mik: Tensor, a_Mij: Tensor, b_Mjk: Tensor) -> None:
    """``total`` += a·b in float32."""
    if a_Mij.dtype == torch.float32 or a_Mij.device.type != "cuda":
        total_Mik += torch.bmm(a_Mij.to(total_Mik.dtype), b_Mjk.to(total_Mik.dtype))
    elif len(a_Mij) == 1:
        torch.addmm(total_Mik[0], a_Mij[0], b_Mjk[0], out_dtype=torch.float32, out=total_Mik[0])
    else:
        torch.baddbmm(total_Mik, a_Mij, b_Mjk, out_dtype=torch.float32, out=total_Mik)


def _rows(logits_MrV: Tensor, targets_MR: Tensor, losses_MR: Tensor, first: int, scale: float | None) -> None:
    """Write the losses of a chunk; with ``scale`` turn its logits into their gradient."""
    num_members, num_rows, vocab_size = logits_MrV.shape
    if logits_MrV.device.type == "cuda":
        from scaling_sim_torch.kernels.cross_entropy import cross_entropy

        cross_entropy[(num_rows, num_members)](
            logits_MrV, targets_MR, losses_MR, num_rows, first, targets_MR.shape[1], vocab_size, scale or 0.0,
            BLOCK=min(8192, 1 << (vocab_size - 1).bit_length()), GRADIENT=scale is not None, num_warps=8,
        )  # fmt: skip
        return
    targets_Mr, wide_MrV = targets_MR[:, first : first + num_rows], logits_MrV.float()
    losses_MR[:, first : first + num_rows] = functional.cross_entropy(
        wide_MrV.flatten(0, 1), targets_Mr.flatten(), reduction="none"
    ).view_as(targets_Mr)
    if scale is not None:
        ones_Mr1 = torch.ones_like(targets_Mr[..., None], dtype=torch.float32)
        share_MrV = wide_MrV.softmax(dim=-1).scatter_add_(2, targets_Mr[..., None], -ones_Mr1)
        logits_MrV.copy_(share_MrV * scale)
