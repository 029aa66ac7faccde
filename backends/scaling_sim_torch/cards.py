"""What is wrong with the GPUs of this machine, in one sentence each."""

from __future__ import annotations

BFLOAT16_SINCE = 8
"""Compute capability (major) of the first cards with bfloat16 tensor cores."""


def note_on_cards() -> str | None:
    """None if every GPU works and they are alike; else why there is none, or what differs."""
    import torch

    if not torch.cuda.is_available():
        return f"no GPU: {_why_no_cuda()}"
    cards = [(torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i)) for i in range(num_cards())]
    said = []
    if len({name for name, _ in cards}) > 1:
        names = ", ".join(f"cuda:{i} {name}" for i, (name, _) in enumerate(cards))
        said.append(
            f"the cards differ ({names}): a sweep uses each at its own speed, one model on several (torchrun) is as "
            "slow as the slowest; choose with CUDA_VISIBLE_DEVICES"
        )
    old = [f"cuda:{i}" for i, (_, capability) in enumerate(cards) if capability[0] < BFLOAT16_SINCE]
    if old:
        alone = "they train in float32" if len(old) == len(cards) else "left out where the others train in it"
        said.append(f"no bfloat16 on {', '.join(old)} (older than Ampere): {alone}")
    return "; ".join(said) or None


def why_no_bfloat16(device: str) -> str | None:
    """None if ``device`` multiplies bfloat16 matrices in hardware, or is the CPU."""
    import torch

    if device == "cpu" or torch.cuda.get_device_capability(device)[0] >= BFLOAT16_SINCE:
        return None
    return f"{device} is older than Ampere and has no bfloat16 tensor cores; take precision float32"


def num_cards() -> int:
    """CUDA devices that PyTorch can use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _why_no_cuda() -> str:
    """What PyTorch says when it is made to look for a card."""
    import torch

    if torch.version.cuda is None:
        return "this PyTorch was built without CUDA; install a CUDA build (pytorch.org, get started)"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        cure = " (update the driver, or install a PyTorch for an older CUDA)" if "too old" in reason else ""
        return f"{reason}{cure}"
    return f"this PyTorch (CUDA {torch.version.cuda}) sees no card; is one hidden by CUDA_VISIBLE_DEVICES?"
