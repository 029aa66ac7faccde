"""Robustness: do exponents survive another tokenizer? Byte-pair encoding with 4096 tokens beside bytes, same text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from scaling_sim.errors import DataError
from scaling_sim.inference.approximate import ApproximateFit, approximate_fit
from scaling_sim.model.count import num_parameters
from scaling_sim.report.figures.canvas import ReportFigure, legend_below, line, points, sheet
from scaling_sim.report.figures.ticks import log_axes
from scaling_sim.report.table import number
from scaling_sim.runs.record import RunRecord
from scaling_sim.runs.table import RunTable, table_from_records
from scaling_sim.study.reproduce.kaplan.drawing import Shades
from scaling_sim.study.reproduce.kaplan.equal_size import grouped
from scaling_sim.study.reproduce.kaplan.finding import Finding, Row
from scaling_sim.study.reproduce.kaplan.rows import family_records

if TYPE_CHECKING:
    from scaling_sim.study.reproduce.kaplan.data import Data

Array = NDArray[np.float64]

DRAWS = 1000
BYTES, PAIRS = "english", "english-bpe"
WORDS = {BYTES: "bytes", PAIRS: "byte pairs, 4096"}
PAPER = {"alpha_N": 0.077, "alpha_S": 0.76}
"""Kaplan et al. 2020, Table 3 (byte pairs, 50257 tokens)."""


@dataclass(frozen=True)
class Tokenized:
    """Curves of the shared sizes under one tokenizer.

    Attributes
    ----------
    corpus : key
    table : losses in nats per **byte**, tokens as processed
    bytes_per_token : float
    fit : `kaplan-ns` of these curves; exponents do not depend on the unit of the loss
    noise : (n_draws,) what the scatter between seeds does to α_N besides: three curves cannot tell it from the law
    """

    corpus: str
    table: RunTable
    bytes_per_token: float
    fit: ApproximateFit
    noise: Array

    def draws(self, name: str) -> Array:
        """Draws of an exponent."""
        return self.fit.draws[name] + (self.noise if name == "alpha_N" else 0.0)


def tokenizer(data: Data) -> Finding:
    """Exponents under byte-pair encoding beside those of bytes."""
    both = compared(data)

    def draw() -> ReportFigure:
        titles = ["Same bytes read", "Same bytes read, at the end"]
        figure, (left, right) = sheet("tokenizer", "Bytes and byte pairs", titles, height=4.4)
        shades = Shades(both[0].table.N)
        for one, dashes, hollow in zip(both, ("-", "--"), (False, True), strict=True):
            _curves(left, one, dashes, shades)
            _ends(right, both, one, hollow)
        figure.reading = "Loss per byte of text, so that tokenizers can be compared; colours are N (light: small)."
        return figure

    return Finding("BPE", "Byte pairs beside bytes", tuple(_rows(both)), draw, _remark(both))


def compared(data: Data) -> tuple[Tokenized, Tokenized]:
    """The sizes that were trained on both."""
    pairs = data.records("curve", corpus=PAIRS, schedule="constant")
    plain = family_records(data)
    shared = {num_parameters(r.config.shape) for r in pairs} & {num_parameters(r.config.shape) for r in plain}
    if len(shared) < 2:
        raise DataError("fewer than two sizes were trained both on bytes and on byte pairs")
    tokens = {facts.key: facts.tokens for facts in data.experiment.corpora.values()}
    ratio = tokens[BYTES] / tokens[PAIRS]

    def one(records: Sequence[RunRecord], corpus: str, factor: float) -> Tokenized:
        kept = [record for record in records if num_parameters(record.config.shape) in shared]
        table = per_byte(table_from_records(kept, source=data.source), factor)
        fit = approximate_fit(table, "kaplan-ns", num_draws=DRAWS, seed=data.seed)
        x = np.log([num_parameters(record.config.shape) for record in kept])
        spread = scatter / np.sqrt(np.sum((x - x.mean()) ** 2))
        noise = spread * np.random.default_rng([data.seed, len(corpus)]).standard_normal(DRAWS)
        return Tokenized(corpus, table, factor, fit, noise)

    scatter = grouped(plain).scatter
    return one(plain, BYTES, 1.0), one(pairs, PAIRS, ratio)


def per_byte(table: RunTable, bytes_per_token: float) -> RunTable:
    """The table with losses in nats per byte."""
    return replace(table, loss=table.loss / bytes_per_token, data_hash="")


def _curves(ax: Axes, one: Tokenized, dashes: str, shades: Shades) -> None:
    t = one.table
    first = True
    for N in np.unique(t.N):
        run = t.run[t.N == N][0]
        rows = np.flatnonzero(t.run == run)
        rows = rows[np.argsort(t.tokens[rows])]
        text = f"{WORDS[one.corpus]}, N = {number(float(N), 2)}"
        line(
            ax, t.tokens[rows] * one.bytes_per_token, t.loss[rows], series=text, colour=shades(float(N)), dashes=dashes,
            width=1.2, label=WORDS[one.corpus] if first else None,
        )  # fmt: skip
        first = False
    ax.set_xlabel("bytes processed")
    ax.set_ylabel("loss, nats per byte")
    log_axes(ax)
    legend_below(ax, 2)


def _ends(ax: Axes, both: tuple[Tokenized, Tokenized], one: Tokenized, hollow: bool) -> None:
    common = min(float(t.table.tokens.max()) * t.bytes_per_token for t in both)
    N, loss = at_bytes(one, common)
    points(ax, N, loss, series=WORDS[one.corpus], colour="#1b2430", hollow=hollow, label=WORDS[one.corpus])
    line(ax, N, loss, series=WORDS[one.corpus], colour="#1b2430", width=0.8, alpha=0.5, keep=False)
    ax.set_xlabel("non-embedding parameters N")
    ax.set_ylabel(f"loss after {number(common, 2)} bytes, nats per byte")
    log_axes(ax)
    legend_below(ax, 2)


def at_bytes(one: Tokenized, count: float) -> tuple[Array, Array]:
    """N and the mean loss of its curves after ``count`` bytes, interpolated in logs."""
    t, found = one.table, []
    for N in np.unique(t.N):
        losses = []
        for run in np.unique(t.run[t.N == N]):
            rows = np.flatnonzero(t.run == run)
            rows = rows[np.argsort(t.tokens[rows])]
            x = np.log(t.tokens[rows] * one.bytes_per_token)
            losses.append(np.interp(np.log(count), x, np.log(t.loss[rows])))
        found.append((N, np.exp(np.mean(losses))))
    sizes, values = zip(*found, strict=True)
    return np.array(sizes), np.array(values)


def _rows(both: tuple[Tokenized, Tokenized]) -> Iterator[Row]:
    for name, symbol in (("alpha_N", "α_N"), ("alpha_S", "α_S")):
        for one in both:
            n, sizes = one.table.num_runs, len(np.unique(one.table.N))
            text = f"{symbol} of L(N, S), {WORDS[one.corpus]}"
            failed = "" if one.fit.converged else f"; importance sampling failed ({one.fit.ess:.0f} effective draws)"
            yield Row.of(
                text, PAPER[name], one.draws(name), n, "", f"posterior and seeds, the same {sizes} sizes{failed}"
            )
        first, second = (one.draws(name) for one in both)
        yield Row.of(f"{symbol}, byte pairs less bytes", 0.0, second - first, sum(o.table.num_runs for o in both), "",
                     "difference of the two posteriors; the paper: a tokenizer is a factor on L")  # fmt: skip
    common = min(float(t.table.tokens.max()) * t.bytes_per_token for t in both)
    ends = [at_bytes(one, common) for one in both]
    gap = 100 * (ends[1][1] / ends[0][1] - 1)
    yield Row("loss per byte, byte pairs over bytes, largest shared size", None, float(gap[-1]), None, 2, "%",
              f"after {number(common, 2)} bytes; no interval: one run each")  # fmt: skip


def _remark(both: tuple[Tokenized, Tokenized]) -> str:
    said = []
    for name, symbol in (("alpha_N", "α_N"), ("alpha_S", "α_S")):
        low, high = np.quantile(both[1].draws(name) - both[0].draws(name), [0.05, 0.95])
        same = "the same within its interval" if low <= 0 <= high else "different"
        said.append(f"{symbol} is {same} ({low:+.3f} to {high:+.3f})")
    return (
        f"{both[1].bytes_per_token:.2f} bytes per token. Under byte pairs {' and '.join(said)}. Losses are per byte; "
        "with byte pairs a window of 128 tokens holds more text, a batch more bytes, and the embeddings of 4096 tokens "
        "add to what N leaves out. Three sizes only: a check of robustness, not a measurement."
    )
