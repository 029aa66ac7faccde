from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import msgspec
import pytest

from scaling_sim import datasets
from scaling_sim.data import CorpusConfig, load_corpus
from scaling_sim.data.synthetic import SyntheticConfig
from scaling_sim.datasets import DEFAULT, Experiment
from scaling_sim.engine.cohort import Recipe
from scaling_sim.model.shape import Shape
from scaling_sim.runs.record import RunConfig, RunRecord
from scaling_sim.study.kaplan.corpora import TRAIN, Corpora, text_folder
from scaling_sim.study.kaplan.scales import H200
from tests.datasets.retraining import FEWEST_STEPS, affordable, departures, draw, retrain, seed_deviation

pytestmark = pytest.mark.numba

TEXT = CorpusConfig(
    source="synthetic",
    synthetic=SyntheticConfig(octaves=4),
    synthetic_tokens=60_000,
    validation_fraction=0.2,
    test_fraction=0.2,
)


def changed(record: RunRecord, factor: float) -> RunRecord:
    """The record with another loss on the test split."""
    curve = tuple(
        msgspec.structs.replace(point, losses={**point.losses, "test": factor * point.losses["test"]})
        for point in record.curve
    )
    return msgspec.structs.replace(record, curve=curve)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path]:
    """Four seeds of one run, trained here, and where their corpus is kept."""
    cache = tmp_path_factory.mktemp("corpora")
    corpus = load_corpus(TEXT, cache)
    shape = Shape(n_layer=1, d_model=8, n_head=1, n_ctx=16, vocab_size=corpus.vocab_size)
    records = []
    for seed in range(4):
        recipe = Recipe(peak_lr=0.01, batch_tokens=128, steps=FEWEST_STEPS, warmup_steps=5, seed=seed)
        config = RunConfig(
            shape=shape, recipe=recipe, corpus=corpus.hash, unique_tokens=20_000, eval_points=4, eval_sequences=64
        )
        planned = RunRecord(run_id=config.run_id, config=config)
        records.append(retrain(planned, TEXT, cache))
    facts = {"key": "synthetic", "name": corpus.name, "tokens": 20_000, "vocab_size": corpus.vocab_size}
    return Experiment(records, {"corpora": {corpus.hash: facts}}, "tiny"), cache


def test_the_same_run_ends_the_same_and_a_wrong_one_is_noticed(tiny: tuple[Experiment, Path]) -> None:
    experiment, cache = tiny
    deviation, freedom = seed_deviation(experiment.records)
    assert freedom == 3
    assert 1e-4 < deviation < 0.1
    (run,) = draw(affordable(experiment, "synthetic"), date(2026, 11, 22), 1)
    assert abs(departures(experiment, [run], TEXT, cache)[0]) < 0.01  # the same machine
    wrong = changed(run, 1 + 4 * deviation)
    assert abs(departures(experiment, [wrong], TEXT, cache)[0]) > 3


def test_every_run_has_its_day(tiny: tuple[Experiment, Path]) -> None:
    runs = affordable(tiny[0], "synthetic")
    days = [draw(runs, date(2026, 1, 1) + timedelta(days=day), 2) for day in range(40)]
    assert {run.run_id for day in days for run in day} == {run.run_id for run in runs}
    assert all(day[0] != day[1] for day in days)
    assert draw(runs, date(2026, 1, 1), 2) == days[0]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("key", ["synthetic", "english"])
def test_shipped_runs_end_the_same_here(key: str, tmp_path: Path) -> None:
    """Three runs of the day, N ≤ 1e5, at most 4e12 FLOPs each, within three standard deviations between seeds.

    Their seeds are those of the shipped runs, so that they see the same windows and only arithmetic differs: a right
    answer lies well inside, and a wrong learning rate, batch or corpus far outside.
    """
    if DEFAULT not in datasets.names():
        pytest.skip(f"this checkout ships no {DEFAULT}")
    if key == "english" and not (text_folder(None) / TRAIN).is_dir():
        pytest.skip(f"the English text is not in {text_folder(None)}; benchmarks/corpora builds it")
    experiment = datasets.load()
    if key not in {facts.key for facts in experiment.corpora.values()}:
        pytest.skip(f"{DEFAULT} has no runs on the corpus {key}")
    runs = draw(affordable(experiment, key), date.today())
    assert runs, "no run is small enough to be trained again"
    corpora = Corpora(H200, text_folder(None), tmp_path / "corpora")
    corpus = corpora.get(key)
    assert corpus is not None, corpora.refused
    if key == "english" and corpus.hash != runs[0].config.corpus:
        pytest.skip("another version of the English text than the shipped runs were trained on")
    assert corpus.hash == runs[0].config.corpus
    found = departures(experiment, runs, corpora._config(key), corpora.cache)
    assert max(map(abs, found)) < 3, dict(zip((run.run_id for run in runs), found, strict=True))
