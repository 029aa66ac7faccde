from __future__ import annotations

import lzma
import math
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scaling_sim import datasets, read_runs
from scaling_sim.config import config_hash
from scaling_sim.datasets import Experiment
from scaling_sim.engine.cohort import Recipe
from scaling_sim.errors import ConfigError, DataError
from scaling_sim.model.shape import Shape
from scaling_sim.runs import archive
from scaling_sim.runs.codec import encode_record
from scaling_sim.runs.record import CurvePoint, RunConfig, RunRecord
from scaling_sim.runs.table import table_from_records

ENGLISH, SYNTHETIC = config_hash("english"), config_hash("synthetic")
FACTS = {
    "corpora": {
        ENGLISH: {"key": "english", "name": "manuals", "tokens": 10**8, "vocab_size": 256, "splits": {"test": 10**6}},
        SYNTHETIC: {"key": "synthetic", "name": "language", "tokens": 10**7, "vocab_size": 64, "entropy": 1.25},
    },
    "date": "2026-11-22",
    "device": "a card",
}


def make(*purposes: Any, corpus: str = ENGLISH, points: int = 3, d_model: int = 8, **changes: Any) -> RunRecord:
    """A finished run; keywords go to the record, its configuration or its recipe."""
    record = {name: changes.pop(name) for name in list(changes) if name in RunRecord.__struct_fields__}
    run = {name: changes.pop(name) for name in list(changes) if name in RunConfig.__struct_fields__}
    recipe = Recipe(**{"peak_lr": 0.01, "batch_tokens": 1024, "steps": 10 * points, "warmup_steps": 2, **changes})
    shape = Shape(n_layer=1, d_model=d_model, n_head=1, n_ctx=128)
    config = RunConfig(**{"shape": shape, "recipe": recipe, "corpus": corpus, "unique_tokens": 10**6, **run})
    splits = ("validation", "test", "novels", "dictionary", "c-code", "python-code")
    curve = tuple(
        CurvePoint(
            step=10 * i,
            tokens=10240 * i,
            lr=0.01,
            train=math.pi / i,
            losses={split: math.e / i + 0.1 * j for j, split in enumerate(splits)},
            errors={split: 0.01 / (i + j + 3) for j, split in enumerate(splits)},
            last_position={split: math.e / (i + 0.3) + 0.1 * j for j, split in enumerate(splits)},
            noise_scale=1000.0 * math.sqrt(i),
            positions=tuple(math.e / i + 1 / (k + 1.7) for k in range(8)),
        )
        for i in range(1, points + 1)
    )
    fields = {"run_id": config.run_id, "config": config, "status": "done", "curve": curve, "purposes": purposes}
    return RunRecord(**{**fields, **record})


@pytest.fixture
def experiment() -> Experiment:
    records = [
        make("curve", seed=0),
        make("curve", "seed", seed=1),
        make("curve", d_model=16),
        make("data", early_stop=True, dropout=0.1, status="stopped", best=1),
        make("data", early_stop=True, dropout=0.1, seed=5, status="stopped", best=1),
        make("data", early_stop=True, status="stopped", best=1),
        make("context", seed=3),
        make("curve", corpus=SYNTHETIC),
    ]
    return Experiment(records, FACTS, "small")


def test_runs_have_any_of_the_purposes_and_all_of_the_conditions(experiment: Experiment) -> None:
    assert len(experiment) == len(experiment.records) == 8
    assert len(experiment.select()) == 7  # English only
    assert len(experiment.select(corpus=None)) == 8
    assert len(experiment.select("curve")) == 3
    assert len(experiment.select("curve", "data", "data")) == 6
    assert len(experiment.select("curve", "data", dropout=0.0)) == 4
    assert [run.config.shape.d_model for run in experiment.select("curve", d_model=16)] == [16]
    assert len(experiment.select("curve", d_model=(8, 16), seed=range(2))) == 3
    assert len(experiment.select(early_stop=True, status="stopped", dropout=0.1)) == 2
    assert len(experiment.select("batch")) == 0
    (synthetic,) = experiment.select("curve", corpus="synthetic")
    assert experiment.corpora[synthetic.config.corpus].entropy == 1.25


def test_unknown_names_are_refused_with_those_that_exist(experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match="no purpose is called 'curves'; there are: batch, context, curve"):
        experiment.select("curves")
    with pytest.raises(ConfigError, match="no corpus is called 'french'; there are: english, synthetic"):
        experiment.select(corpus="french")
    with pytest.raises(ConfigError, match=r"no field is called 'width'.*d_model"):
        experiment.select(width=8)
    with pytest.raises(DataError, match=r"small has no run with batch, corpus='english', dropout=0\.5"):
        experiment.table("batch", dropout=0.5)


def test_a_table_holds_the_selected_runs(experiment: Experiment) -> None:
    table = experiment.table("curve", split="novels")
    records = experiment.select("curve")
    assert table.data_hash == table_from_records(records, "novels").data_hash
    assert table.source == "small"
    assert table.num_runs == 3


def test_an_experiment_can_be_sent_to_another_process(experiment: Experiment) -> None:
    again = pickle.loads(pickle.dumps(experiment))
    assert again.records == experiment.records
    assert again.facts == experiment.facts


def test_a_file_gives_back_the_runs_to_six_digits_and_then_itself(experiment: Experiment, tmp_path: Path) -> None:
    first, second = tmp_path / "small.jsonl.xz", tmp_path / "again.jsonl.xz"
    bad = make("lr", status="diverged", peak_lr=9.0)
    bad = msgspec.structs.replace(bad, curve=(msgspec.structs.replace(bad.curve[0], train=math.nan),))
    datasets.write(first, [*experiment.records, bad], experiment.facts)
    back = datasets.read(first)
    assert back.facts == experiment.facts
    assert [run.run_id for run in back.records] == sorted(run.run_id for run in [*experiment.records, bad])
    by_id = {run.run_id: run for run in back.records}
    assert math.isnan(by_id.pop(bad.run_id).curve[0].train)
    for run in experiment.records:
        read = by_id[run.run_id]
        assert msgspec.structs.replace(read, curve=()) == msgspec.structs.replace(run, curve=())
        for point, whole in zip(read.curve, run.curve, strict=True):
            assert point.losses == pytest.approx(whole.losses, rel=5e-6)
            assert point.positions == pytest.approx(whole.positions, rel=5e-6)
            assert (point.step, point.tokens, point.lr) == (whole.step, whole.tokens, whole.lr)
            assert point != whole
    datasets.write(second, back.records, back.facts)
    assert second.read_bytes() == first.read_bytes()


def test_a_law_s_runs_are_read_from_a_file_and_the_others_named(experiment: Experiment, tmp_path: Path) -> None:
    path = tmp_path / "small.jsonl.xz"
    datasets.write(path, experiment.records, FACTS)
    table = read_runs(path)
    fitted = [*experiment.select("curve"), *experiment.select("data", dropout=0.1)]
    assert set(table.run.tolist()) == {run.run_id for run in fitted}
    left_out = {reason: names for reason, names in table.dropped.items() if "twice the warm-up" not in reason}
    assert left_out == {
        "of another corpus: synthetic": tuple(r.run_id for r in experiment.select(corpus="synthetic")),
        "made to compare something else: context": tuple(r.run_id for r in experiment.select("context")),
        "early-stopped with another dropout rate than most: 0": tuple(
            r.run_id for r in experiment.select("data", dropout=0.0)
        ),
    }


def test_shipped_experiments_are_found_by_name_and_read_late(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "SHIPPED", tmp_path)
    datasets.load.cache_clear()
    with pytest.raises(ConfigError, match="'small'; this installation holds none"):
        datasets.load("small")
    with pytest.raises(DataError, match="cannot tell what small holds"):
        read_runs("small")
    (tmp_path / "small.jsonl.xz").write_bytes(b"")
    late = datasets.load("small")  # nothing is read, or the empty file would be refused
    datasets.write(tmp_path / "small.jsonl.xz", experiment.records, FACTS)
    assert datasets.names() == ("small",)
    assert len(late) == 8
    assert datasets.load("small") is late
    assert repr(late).startswith("Experiment(small: 8 runs; 4 curve, 3 data")
    assert read_runs("small").data_hash == read_runs(tmp_path / "small.jsonl.xz").data_hash
    with pytest.raises(ConfigError, match="'large'; there are: small;"):
        datasets.load("large")
    datasets.load.cache_clear()


def _packed(path: Path, *lines: bytes) -> Path:
    path.write_bytes(lzma.compress(b"\n".join(lines)))
    return path


def test_broken_files_say_what_is_wrong(tmp_path: Path) -> None:
    path, facts, line = tmp_path / "broken.jsonl.xz", msgspec.json.encode(FACTS), encode_record(make("curve"))
    with pytest.raises(DataError, match=r"cannot read .*broken.jsonl.xz: No such file"):
        datasets.read(path)
    path.write_bytes(b"not compressed")
    with pytest.raises(DataError, match="damaged or not compressed with xz"):
        datasets.read(path)
    path.write_bytes(_packed(path, facts, line).read_bytes()[:-20])
    with pytest.raises(DataError, match="damaged or not compressed with xz"):
        datasets.read(path)
    for lines, message in {
        (b"",): "line 1 does not hold facts",
        (line,): "its facts must hold corpora by hash",
        (facts, line, line[:-9]): "line 3 does not hold a run record",
        (facts, line.replace(b'"steps"', b'"stepz"')): "line 2 does not hold a run record.*stepz",
        (facts, line, line): "1 run ids stand there more than once: [0-9a-f]{16}$",
        (facts, line.replace(b'"peak_lr":0.01', b'"peak_lr":0.02')): "1 run ids are not the hash of their config",
        (msgspec.json.encode({"corpora": {}}), line): "corpus that its facts do not name",
    }.items():
        with pytest.raises(DataError, match=message):
            datasets.read(_packed(path, *lines))


def test_what_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    path, run = tmp_path / "new.jsonl.xz", make("curve")
    with pytest.raises(DataError, match="more than once"):
        datasets.write(path, [run, run], FACTS)
    with pytest.raises(DataError, match="are not the hash"):
        datasets.write(path, [msgspec.structs.replace(run, run_id="0" * 16)], FACTS)
    with pytest.raises(DataError, match=r"must end in \.jsonl\.xz, got new\.jsonl"):
        datasets.write(tmp_path / "new.jsonl", [run], FACTS)
    with pytest.raises(DataError, match="facts must hold corpora"):
        Experiment([run], {"date": "today"})
    assert list(tmp_path.iterdir()) == []


def test_six_hundred_runs_are_read_within_half_a_second(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl.xz"
    datasets.write(path, [make("curve", seed=seed, points=24) for seed in range(600)], FACTS)

    def seconds() -> float:
        began = time.process_time()
        assert len(datasets.read(path)) == 600
        return time.process_time() - began

    assert min(seconds() for _ in range(3)) < 0.5


def test_importing_reads_nothing_and_loads_no_heavy_library() -> None:
    code = (
        "import sys, lzma; lzma.decompress = None; from scaling_sim import datasets; datasets.names();"
        "print([m for m in sys.modules if m.split('.')[0] in "
        "{'scipy', 'pandas', 'numba', 'torch', 'matplotlib', 'pyarrow', 'emcee'}])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
