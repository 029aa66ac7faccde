"""Text to token windows: sources, tokenizers, corpora and batches."""

from scaling_sim.data.batches import Batches as Batches
from scaling_sim.data.batches import evaluation_starts as evaluation_starts
from scaling_sim.data.corpus import Corpus as Corpus
from scaling_sim.data.corpus import load_corpus as load_corpus
from scaling_sim.data.corpus import open_corpus as open_corpus
from scaling_sim.data.settings import CorpusConfig as CorpusConfig
from scaling_sim.data.synthetic import SyntheticConfig as SyntheticConfig
from scaling_sim.data.synthetic import SyntheticLanguage as SyntheticLanguage
from scaling_sim.data.window_entropy import window_entropy as window_entropy
