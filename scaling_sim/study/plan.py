"""Which runs a study makes on this machine, how much they cost, and what was dropped to stay within its time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from scaling_sim.config import Config, config_hash, writable_folder
from scaling_sim.data import Corpus, load_corpus
from scaling_sim.errors import ConfigError
from scaling_sim.model.shape import Shape
from scaling_sim.study.config import StudyConfig, read_study

FIT_SECONDS = 75.0
"""Set aside for fits, predictions and the report."""


class Choices(Config, frozen=True):
    """What was decided on this machine; written beside the runs, so that a resumed study goes on with the same runs."""

    study: str
    """Hash of the configuration."""
    num_shapes: int
    """Sizes kept, smallest first."""
    multiples: dict[str, float] = {}
    """Size → best multiple of the learning-rate rule."""
    flags: tuple[str, ...] = ()
    """What the report must say about these choices."""


@dataclass(frozen=True)
class StudyPlan:
    """A study before it is run: what ``--dry-run`` prints."""

    config: StudyConfig
    corpus_name: str
    corpus_tokens: int
    rows: tuple[dict[str, Any], ...]
    """One per cohort: shape, N, members, batch, steps, tokens, FLOPs, seconds."""
    seconds: float
    flags: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers with units in the names."""
        return {
            "study": self.config.name,
            "corpus": self.corpus_name,
            "corpus_tokens": self.corpus_tokens,
            "num_runs": sum(row["members"] for row in self.rows),
            "compute_flops": sum(row["compute_flops"] for row in self.rows),
            "expected_seconds": self.seconds,
            "budget_seconds": 60 * self.config.minutes,
            "cohorts": list(self.rows),
            "flags": list(self.flags),
        }

    def describe(self) -> str:
        """The same for reading."""
        facts = self.to_json()
        head = f"{'shape':>8s} {'N':>8s} {'runs':>5s} {'batch':>7s} {'steps':>7s} {'FLOP':>9s} {'core-s':>7s}"
        lines = [
            f"{row['shape']:>8s} {row['N']:8d} {row['members']:5d} {row['batch_tokens']:7d} {row['steps']:7d}"
            f" {row['compute_flops']:9.2e} {row['seconds']:7.1f}"
            for row in self.rows
        ]
        total = (
            f"{facts['num_runs']} runs, {facts['compute_flops']:.3g} FLOP, about {self.seconds:.0f} s"
            f" (budget {facts['budget_seconds']:.0f} s), corpus {self.corpus_name}: {self.corpus_tokens:,} tokens"
        )
        return "\n".join([head, *lines, "", total, *self.flags])


def open_study(preset: str | Path, out: str | Path, seed: int) -> tuple[StudyConfig, Path, Corpus]:
    """Configuration, folder and corpus of a study; the folder is claimed for this configuration.

    Raises
    ------
    ConfigError
        The folder cannot be written or holds another study.
    """
    config: StudyConfig = msgspec.structs.replace(read_study(preset), seed=seed)
    folder = writable_folder(out)
    claim = folder / "study.json"
    if claim.exists() and _hash_in(claim) != config_hash(config):
        raise ConfigError(f"{folder} holds another study (or another seed); choose another --out or remove the folder")
    if not claim.exists():
        claim.write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2))
    corpus = load_corpus(config.corpus, folder / "corpus")
    _check_context(config, corpus)
    return config, folder, corpus


def _hash_in(claim: Path) -> str:
    try:
        return config_hash(msgspec.json.decode(claim.read_bytes(), type=StudyConfig))
    except msgspec.DecodeError:
        return "unreadable"


def _check_context(config: StudyConfig, corpus: Corpus) -> None:
    for shape in config.shapes:
        if shape.vocab_size < corpus.vocab_size:
            raise ConfigError(f"vocab_size is {shape.vocab_size}, but the corpus has {corpus.vocab_size} token ids")
        for name, tokens in corpus.splits.items():
            if len(tokens) <= shape.n_ctx:
                raise ConfigError(
                    f"the context ({shape.n_ctx} tokens) is longer than the {name} split ({len(tokens)} tokens);"
                    " give a larger corpus or a smaller n_ctx"
                )


def shape_name(shape: Shape) -> str:
    """``(layers, width)``."""
    return f"({shape.n_layer},{shape.d_model})"
