"""LSTMs and transformers that share weights between layers, trained by ``benchmarks/recurrent`` beside a control.

They lie outside the contract of the backends, so they are not `RunRecord`: no shape of this library describes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from scaling_sim.errors import DataError

NAME = "recurrent-h200"
FOLDER = Path(__file__).resolve().parent

Kind = Literal["transformer", "lstm", "recurrent"]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what the file holds."""


class RecurrentPoint(Record, frozen=True):
    """Losses of one run after ``step`` updates, nats per token."""

    step: int
    tokens: int
    """Processed so far, B·step."""
    losses: dict[str, float]
    """Mean over fixed windows of every split: validation, test and each held-out distribution."""
    positions: tuple[float, ...]
    """Mean test loss in each bin of `scaling_sim.runs.record.position_edges`."""


class RecurrentRun(Record, frozen=True):
    """One model and how it was trained."""

    kind: Kind
    """``transformer``: the control; ``recurrent``: its layers are gone through ``reuse`` times; ``lstm``."""
    layers: int
    """With weights of their own."""
    reuse: int
    d_model: int
    n_head: int
    """0 for an LSTM."""
    n_ctx: int
    seed: int
    N: int
    """Parameters without embeddings, biases and norms: 12·layers·d² of a transformer, 8·layers·d² of an LSTM."""
    flops_per_token: float
    """6·N·reuse: the paper's 6·N, each weight counted as often as it is used."""
    flops_per_token_exact: float
    """With the head, 6·V·d, and causal attention, 6·layers·reuse·n_ctx·d."""
    peak_lr: float
    """Best of the sweep."""
    sweep: tuple[tuple[float, float | None], ...]
    """(learning rate, validation loss at constant rate after ``sweep_steps`` updates; None where it diverged)."""
    sweep_steps: int
    steps: int
    batch_tokens: int
    warmup_steps: int
    decay_steps: int
    """The learning rate falls to zero over the last so many updates."""
    curve: tuple[RecurrentPoint, ...]
    standard_error: float
    """Of the last test loss, over windows."""
    position_losses: tuple[float, ...]
    """(n_ctx,) last test loss at every position."""
    seconds: float
    """From its first update to its last; other runs share the card meanwhile."""
    captured: bool
    """Whether its updates were replayed from a CUDA graph."""

    @property
    def loss(self) -> float:
        """Test loss at the end, nats per token."""
        return self.curve[-1].losses["test"]

    @property
    def rate_at_edge(self) -> bool:
        """Whether the best learning rate is the lowest or highest one tried, so that a better one may lie beyond."""
        rates = [rate for rate, _ in self.sweep]
        return self.peak_lr in (min(rates), max(rates))


class RecurrentRuns(Record, frozen=True):
    """A whole file: facts, runs, and the names of runs for which there was no time."""

    facts: dict[str, Any]
    """corpus {key, hash, name, vocab_size, tokens}, date, device, commit, versions, seconds."""
    runs: tuple[RecurrentRun, ...]
    dropped: tuple[str, ...] = ()

    def select(self, *kinds: Kind, **fields: Any) -> tuple[RecurrentRun, ...]:
        """Runs of these kinds whose fields have these values, by N."""
        found = [
            run
            for run in self.runs
            if run.kind in kinds and all(getattr(run, name) == value for name, value in fields.items())
        ]
        return tuple(sorted(found, key=lambda run: (run.N, run.seed)))


def load_recurrent(path: str | Path | None = None) -> RecurrentRuns:
    """The runs that are shipped, or those in a file written by ``benchmarks/recurrent/train_recurrent.py``.

    Raises
    ------
    DataError
        There is no such file, or it holds something else.
    """
    path = FOLDER / f"{NAME}.json" if path is None else Path(path)
    try:
        return msgspec.json.decode(path.read_bytes(), type=RecurrentRuns)
    except OSError as error:
        raise DataError(f"no recurrent runs at {path}: {error.strerror or error}") from error
    except msgspec.ValidationError as error:
        raise DataError(f"{path} does not hold recurrent runs: {error}") from error
    except msgspec.DecodeError as error:
        raise DataError(f"{path} is not JSON: {error}") from error


def write_recurrent(path: str | Path, runs: RecurrentRuns) -> None:
    """Write ``runs`` as JSON, for `load_recurrent`."""
    text = msgspec.json.format(msgspec.json.encode(runs), indent=0)
    Path(path).write_bytes(text + b"\n")
