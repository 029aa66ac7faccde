"""Works round a fault of ptxas 12.8 (in Triton 3.6) that ruins tensor-core operands in shared memory on Hopper.

A wgmma descriptor is a 32-bit address widened to 64 bits plus a 64-bit constant. Where one address serves two products
far apart, ptxas 12.8 emits the second sum from a uniform register that nothing has written (in the machine
code: ``UIADD3 UR4, UP0, UR12, 0x20`` with no other mention of UR12), and the product is garbage or faults, depending
on what ran before. Composing the descriptor from two 32-bit halves means the same and is compiled correctly; it is also
two instructions shorter. Triton's own checks do not see it: the interpreter and ``DISABLE_PTXAS_OPT=1`` are right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

OURS = "scaling_sim_torch"
"""Only kernels whose line information names this package are rewritten."""


def split_descriptors(ptx: str) -> str:
    """The same program with wgmma descriptors composed from halves."""
    addresses = set(re.findall(r"bfe\.u32\s+(%r\d+), %r\d+, 4, 14;", ptx))
    widened = {
        wide: narrow for wide, narrow in re.findall(r"cvt\.u64\.u32\s+(%rd\d+), (%r\d+);", ptx) if narrow in addresses
    }

    def halves(match: re.Match[str]) -> str:
        operation, result, base, text = match.groups()
        constant = int(text) % 2**64
        if base not in widened or constant % 2**32 >= 2**31:  # an address of 14 bits must not carry
            return match[0]
        low = {"add.s64": "add.u32", "or.b64": "or.b32"}[operation]
        return (
            f"{{ .reg .b32 lo, hi; {low} lo, {widened[base]}, {constant % 2**32}; "
            f"mov.b32 hi, {constant >> 32}; mov.b64 {result}, {{lo, hi}}; }}"
        )

    return re.sub(r"(add\.s64|or\.b64)\s+(%rd\d+), (%rd\d+), (-?\d+);", halves, ptx)


def install() -> bool:
    """Rewrite the PTX of our kernels from now on; False if this Triton offers no way."""
    from triton import knobs

    runtime = knobs.runtime
    if not hasattr(runtime, "add_stages_inspection_hook"):
        return False
    earlier = runtime.add_stages_inspection_hook
    if getattr(earlier, "ours", False):
        return True

    def hook(*arguments: Any) -> Any:
        answer = earlier(*arguments) if earlier is not None else None
        if len(arguments) < 2:  # later versions ask for what a cache key needs
            return answer if answer is not None else ("scaling_sim_torch", "split_descriptors")
        stages = arguments[1]
        if "ptx" in stages:
            stages["ptx"] = _rewritten(stages["ptx"])
        return answer

    hook.ours = True  # type: ignore[attr-defined]
    runtime.add_stages_inspection_hook = hook
    return True


def _rewritten(make_ptx: Callable[..., str]) -> Callable[..., str]:
    def stage(source: Any, metadata: Any) -> str:
        ptx = make_ptx(source, metadata)
        return split_descriptors(ptx) if OURS in ptx else ptx

    return stage
