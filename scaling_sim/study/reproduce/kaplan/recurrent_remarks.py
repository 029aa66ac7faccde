"""What figures 7 and 17 say in words: whether the paper's findings were seen, and what the numbers rest on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from scaling_sim.datasets.recurrent import Kind, RecurrentRun, RecurrentRuns
from scaling_sim.report.table import number
from scaling_sim.study.reproduce.kaplan.finding import Row
from scaling_sim.study.reproduce.kaplan.paired import NAMES, Noise, by_model, log_loss, longest, shortest

PLATEAU = 2.4
"""Nats per byte: above it a model uses little more than the last byte, which alone leaves 2.6 to 2.9."""


def lstm_verdict(sizes: Sequence[Row], long: Sequence[Row]) -> str:
    """What of the paper's two findings was seen: more loss at equal N, and a plateau along the context."""
    layers = [row.ours for row in sizes if "equal N" in row.quantity]
    seen = "Reproduced" if min(layers) > 0 else "Not reproduced" if max(layers) < 0 else "Reproduced in part"
    parts = [
        f"{seen}: at equal N the loss of LSTMs differs from that of transformers by {min(layers):+.1f} to "
        f"{max(layers):+.1f} %, by layers; in the paper it is higher."
    ]
    falls = [row.ours for row in long if row.quantity.startswith("change of loss")]
    late = [row.ours for row in long if row.quantity.startswith("LSTM over") and " 1 to" not in row.quantity]
    if falls and late:
        plateau = falls[1] < min(2 * falls[0], 0)
        reached = all(value > 0 for value in late)
        seen = ("Reproduced" if reached else "Reproduced in part") if plateau else "Not reproduced"
        parts.append(
            f"{seen}: LSTMs stop to gain late in long contexts, where their loss changes by {falls[0]:+.1f} % and that "
            f"of transformers by {falls[1]:+.1f} %. In the last half the loss of LSTMs "
            f"differs from theirs by {' and '.join(f'{value:+.1f}' for value in late)} %, by rising N. A hundred "
            "tokens of the paper are some 400 bytes."
        )
    return " ".join(parts)


def slow_start(runs: RecurrentRuns, long: Sequence[Row]) -> str:
    """When the models of the longest context left the plateau, and what that means."""
    shown = longest(runs) or shortest(runs.select("lstm", "transformer"))
    left = {
        kind: [next((point.step for point in run.curve if point.losses["test"] < PLATEAU), run.steps) for run in some]
        for kind in ("lstm", "transformer")
        if (some := [run for run in shown if run.kind == kind])
    }
    told = " and ".join(f"{NAMES[kind]}s after {max(steps):,}" for kind, steps in left.items())
    parts = [
        f"A likely reason is the short training: of {shown[0].steps:,} updates with contexts of {shown[0].n_ctx}, all "
        f"{told} were below {PLATEAU} nats, for which a model must use more of the context than the last byte. "
        "Transformers start late, when attention forms, and then learn fast."
    ]
    behind = [row.ours for row in long if row.quantity.startswith(f"{NAMES['transformer']}s of")]
    if behind and behind[0] > 0:
        parts.append(
            f"Those of long contexts, whose rates were chosen on that plateau, are still {behind[0]:.1f} % above those "
            "of short ones at the same positions: they learned, but what they gain late is a lower bound."
        )
    return " ".join(parts)


def reuse_verdict(rows: Sequence[Row]) -> str:
    """What of the paper's two findings was seen: slightly better per parameter, slightly worse per FLOP."""
    by_N = [row.ours for row in rows if row.quantity.startswith("the same at equal N")]
    cost = [row.ours for row in rows if row.quantity.endswith("FLOPs per token")]
    better = sum(value < 0 for value in by_N)
    seen = "Reproduced" if better == len(by_N) else "Reproduced in part" if better else "Not reproduced"
    told = ", ".join(f"{value:+.1f}" for value in by_N)
    worse = "as in the paper" if min(cost) > 0 else "but not always"
    return (
        f"{seen}: at equal N transformers that reuse their weights differ from standard ones by {told} % of the loss "
        f"by rising N, mean over uses (the paper: slightly better); at equal FLOPs per token they are worse {worse}, "
        f"by {min(cost):+.1f} to {max(cost):+.1f} % (the paper: slightly). Likely reasons are two "
        "layers, few next to the paper's, and the short training: many uses start slowly, those of small models most."
    )


def basis(runs: RecurrentRuns, *kinds: Kind) -> str:
    """What the numbers rest on."""
    first = runs.runs[0]
    tokens, tried = number(first.steps * first.batch_tokens, 2), len(first.sweep)
    sentences = [
        f"Runs of {tokens} bytes, outside the library's backends; each learning rate is the best of {tried} after "
        f"{first.sweep_steps} updates."
    ]
    sentences += [_tuned(runs.select(kind), f"{NAMES[kind]}s") for kind in kinds]
    noise = Noise.between_seeds(shortest(runs.runs), log_loss)
    sentences.append(
        f"Intervals are noise between seeds, {100 * noise.deviation:.1f} % of the loss of a run, from {noise.freedom} "
        f"pairs of all kinds, each with a sweep of its own{_where(shortest(runs.runs))}."
        if noise.freedom
        else "One seed each, so that there is no interval."
    )
    if runs.dropped:
        sentences.append(f"{len(runs.dropped)} planned runs were not made.")
    return " ".join(filter(None, sentences))


def _where(some: Sequence[RecurrentRun]) -> str:
    """The one size that was repeated, if it was one: others may scatter differently."""
    sizes = [group[0].N for group in by_model(some) if len(group) > 1]
    return f", all at N near {number(min(sizes), 1)}" if max(sizes) < 1.25 * min(sizes) else ""


def _tuned(some: Sequence[RecurrentRun], words: str) -> str:
    """Whether better rates were tried on both sides of the best, and how much of the choice is chance."""
    if not some:
        return ""
    inside = sum(not run.rate_at_edge for run in some)
    said = f"{words[0].upper() + words[1:]}: {inside} of {len(some)} chose a rate between others that were tried"
    stuck = sum(min((loss for _, loss in run.sweep if loss), default=0.0) > PLATEAU for run in some)
    if stuck:
        said += (
            f", and for {stuck} even the best trial was still on the plateau, whose end is chance (two seeds at one "
            f"rate end up to {_sweeps_apart(some):.2f} nats apart), so that the choice is noisy"
        )
    return said + "."


def _sweeps_apart(some: Sequence[RecurrentRun]) -> float:
    """Largest difference between the sweeps of two seeds of one model at one rate, nats."""
    found = [0.0]
    for group in by_model(some):
        for left, right in combinations(group, 2):
            found += [abs(a - b) for (_, a), (_, b) in zip(left.sweep, right.sweep, strict=False) if a and b]
    return max(found)
