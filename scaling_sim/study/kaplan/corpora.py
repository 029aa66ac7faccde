"""The experiment's corpora by key: built once into the study's folder, or the reason why one cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from scaling_sim.data import Corpus, CorpusConfig, load_corpus
from scaling_sim.data.synthetic import SyntheticLanguage
from scaling_sim.errors import ConfigError, DataError
from scaling_sim.study.kaplan.config import ExperimentConfig
from scaling_sim.study.kaplan.systems import Text

ENVIRONMENT = "SCALING_SIM_CORPUS"
"""Variable that names the folder of the English text."""
DEFAULT_FOLDER = Path(".corpus/english")
TRAIN, HELD_OUT = "train", "held_out"
"""Folders in it: text that is split into train, validation and test; and one folder for each other distribution."""
BUILD = """
import sys, msgspec
from scaling_sim.data import CorpusConfig, load_corpus
for config in msgspec.json.decode(sys.stdin.buffer.read(), type=list[CorpusConfig]):
    load_corpus(config, sys.argv[1])
"""
"""What a process runs that builds corpora ahead."""
BYTES_PER_TOKEN = 3.5
"""Of the byte-pair encoding, before it is known."""


def text_folder(given: Path | None) -> Path:
    """The folder of the English text: as given, or by the environment, or the default."""
    return given or Path(os.environ.get(ENVIRONMENT) or DEFAULT_FOLDER)


@dataclass
class Corpora:
    """Corpora of one experiment, each built when it is first asked for.

    Parameters
    ----------
    config : ExperimentConfig
    folder : Path
        Of the English text.
    cache : Path
        Where token arrays go.
    """

    config: ExperimentConfig
    folder: Path
    cache: Path
    refused: dict[str, str] = field(default_factory=dict)
    """Key → why there is none."""
    _built: dict[str, Corpus] = field(default_factory=dict, repr=False)
    _ahead: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def get(self, key: str) -> Corpus | None:
        """The corpus, or None and its reason in ``refused``."""
        if key not in self._built and key not in self.refused:
            if self._ahead is not None:
                self._ahead.wait()
            try:
                self._built[key] = corpus = load_corpus(self._config(key), self.cache)
            except (ConfigError, DataError) as error:
                self.refused[key] = str(error)
            else:
                self._remember(key, corpus)
        return self._built.get(key)

    @contextmanager
    def built_ahead(self, keys: Iterable[str]) -> Iterator[None]:
        """Build these into the cache in a process of its own meanwhile; `get` waits for it, and says what went wrong.

        A process that fails changes nothing: what it has not built is built when it is asked for.
        """
        configs = [self._config(key) for key in keys if key not in self._built]
        command = [sys.executable, "-c", BUILD, str(self.cache)]
        try:
            if configs:
                found = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
                null = subprocess.DEVNULL
                self._ahead = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=null, stderr=null, env=found)
                assert self._ahead.stdin is not None
                with self._ahead.stdin as pipe:
                    pipe.write(msgspec.json.encode(configs))
            yield
        finally:
            if self._ahead is not None:
                self._ahead.kill()
                self._ahead.wait()
                self._ahead = None

    def _remember(self, key: str, corpus: Corpus) -> None:
        """Keep its facts beside the runs, for sittings that do not come to it; another text cannot take its place."""
        known = next((text for text, facts in self.facts().items() if facts["key"] == key), corpus.hash)
        if known != corpus.hash:
            raise ConfigError(
                f"runs of this folder were trained on another text than {key} is now ({known}, not {corpus.hash}); "
                "give the text back or choose another --out"
            )
        facts = {**self.facts(), corpus.hash: self._facts(key, corpus)}
        self._file.write_bytes(msgspec.json.format(msgspec.json.encode(facts), indent=2))

    @property
    def _file(self) -> Path:
        return self.cache.with_name("corpora.json")

    def facts(self) -> dict[str, dict[str, Any]]:
        """Hash → what a reader of the runs must know of every corpus built so far, in whatever sitting."""
        return msgspec.json.decode(self._file.read_bytes()) if self._file.exists() else {}

    @property
    def built(self) -> dict[str, Corpus]:
        """Those that there are already."""
        return dict(self._built)

    def text(self, key: str) -> Text:
        """What runs need to know of it; sizes are guessed until it has been built once."""
        for text, facts in self.facts().items():
            if facts["key"] == key:
                return Text(text, facts["tokens"], facts["vocab_size"])
        if key == "synthetic":
            language = self.config.language
            share = 1 - language.validation_fraction - language.test_fraction
            vocab_size = SyntheticLanguage(language.synthetic).vocab_size
            return Text(f"unbuilt-{key}", int(share * language.synthetic_tokens), vocab_size)
        if key == "english":
            return Text(f"unbuilt-{key}", self.config.max_tokens, 256)
        tokens = int(self.text("english").num_tokens / BYTES_PER_TOKEN)
        return Text(f"unbuilt-{key}", tokens, self.config.bpe_vocabulary)

    def _facts(self, key: str, corpus: Corpus) -> dict[str, Any]:
        entropy = SyntheticLanguage(self.config.language.synthetic).entropy_rate if key == "synthetic" else None
        return {
            "key": key,
            "name": corpus.name,
            "tokens": len(corpus.splits["train"]),
            "vocab_size": corpus.vocab_size,
            "entropy": entropy,
            "splits": {name: len(tokens) for name, tokens in corpus.splits.items()},
        }

    def _config(self, key: str) -> CorpusConfig:
        make: Callable[[], CorpusConfig] = {
            "english": self._english,
            "english-bpe": lambda: self._english(tokenizer="bpe", vocab_size=self.config.bpe_vocabulary),
            "synthetic": lambda: self.config.language,
        }[key]
        return make()

    def _english(self, **tokenizer: Any) -> CorpusConfig:
        train = self.folder / TRAIN
        if not train.is_dir():
            raise ConfigError(
                f"the English text is looked for in {train}, and there is none; build it as benchmarks/corpora/ says, "
                f"or name another folder by --corpus or {ENVIRONMENT} that holds {TRAIN}/ and {HELD_OUT}/NAME/"
            )
        others = sorted(path for path in (self.folder / HELD_OUT).glob("*") if not path.name.startswith("."))
        return CorpusConfig(
            source="files",
            paths=(str(train),),
            held_out={path.stem: (str(path),) for path in others},
            environment_held_out=False,
            validation_fraction=self.config.held_out_fraction,
            test_fraction=self.config.held_out_fraction,
            **tokenizer,
        )
