"""What a corpus is made from."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from scaling_sim.config import Config
from scaling_sim.data.document import SPLITS
from scaling_sim.data.heldout import ENVIRONMENT
from scaling_sim.data.synthetic import SyntheticConfig
from scaling_sim.errors import ConfigError


class CorpusConfig(Config, frozen=True):
    """What a corpus is made from.

    Parameters
    ----------
    source : str
        ``stdlib``: the Python standard library; ``files``: the files of ``paths``; ``synthetic``: a language of known
        entropy.
    paths : tuple of str
        Files, folders or globs of text (any bytes), jsonl or parquet.
    text_field : str
        Field of a jsonl or parquet record that holds its text.
    piece_bytes : int
        Text files longer than this are cut at line ends into documents of about this length.
    tokenizer : str
        ``bytes`` (256 ids), or ``bpe`` learned from the training documents (extra ``tokenizers``).
    vocab_size : int
        Of the BPE; 0 means 256 for bytes and 1024 for BPE.
    shuffle_bytes : int
        Within its split, text is shuffled in pieces of about this length, so that a small training subset is a sample
        of many documents; at least a few contexts long, since a context may reach over the end of a piece.
    validation_fraction, test_fraction : float
        Shares of the documents.
    held_out : dict of str to tuple of str
        Further distributions to evaluate on: name and paths.
    environment_held_out : bool
        Add those that every installation has: Python's help topics, NumPy's C headers, licence texts.
    synthetic : SyntheticConfig
        The language.
    synthetic_tokens : int
        Tokens of it, about; all splits together.
    synthetic_seed : int
        Of the text, not of the language.
    """

    source: Literal["stdlib", "files", "synthetic"] = "stdlib"
    paths: tuple[str, ...] = ()
    text_field: str = "text"
    piece_bytes: int = 65536
    shuffle_bytes: int = 2048
    tokenizer: Literal["bytes", "bpe"] = "bytes"
    vocab_size: int = 0
    validation_fraction: float = 0.05
    test_fraction: float = 0.05
    held_out: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    environment_held_out: bool = True
    synthetic: SyntheticConfig = SyntheticConfig()
    synthetic_tokens: int = 2**24
    synthetic_seed: int = 0

    def __post_init__(self) -> None:
        _check_fractions(self.validation_fraction, self.test_fraction)
        for name in ("piece_bytes", "shuffle_bytes", "synthetic_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.paths and self.source != "files":
            raise ConfigError(f'paths belong to source = "files", but source is {self.source!r}')
        if self.tokenizer == "bytes" and self.vocab_size not in (0, 256):
            raise ConfigError(f"the byte tokenizer has 256 ids, got vocab_size = {self.vocab_size}; leave it out")
        if self.source == "synthetic" and (self.tokenizer != "bytes" or self.held_out):
            raise ConfigError("a synthetic language has its own tokens: it takes neither a tokenizer nor held_out")
        for name in self.held_out:
            _check_name(name)


def _check_fractions(validation: float, test: float) -> None:
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise ConfigError(
            f"validation_fraction and test_fraction must be positive with a sum below 1, got {validation} and {test}"
        )


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise ConfigError(f"a held-out name is up to 64 letters, digits, - and _, got {name!r}")
    if name in SPLITS or name in ENVIRONMENT:
        raise ConfigError(
            f"the held-out name {name!r} is taken; choose one that is not {', '.join([*SPLITS, *ENVIRONMENT])}"
        )
