from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from scaling_sim import datasets
from scaling_sim.cli.app import app
from scaling_sim.errors import ConfigError
from scaling_sim.runs import RunStore
from scaling_sim.study.kaplan import TINY, run
from scaling_sim.study.kaplan.config import ContextRuns
from scaling_sim.study.kaplan.corpora import Corpora
from scaling_sim.study.kaplan.outcome import Options
from scaling_sim.study.kaplan.run import CONFIGS, plan_experiment, run_experiment
from scaling_sim.study.kaplan.sittings import Sitting, Stage, read_sittings, summary
from scaling_sim.study.kaplan.systems import SYSTEMS
from scaling_sim.study.presets import EXPERIMENTS
from tests.study.conftest import words

SMALL = ("lr", "context")
"""Systems that take a second or two."""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as benchmarks/corpora makes it."""
    folder = tmp_path_factory.mktemp("english")
    for name, first, count in (("train", 0, 60), ("held_out/novels", 1000, 3), ("held_out/c-code", 2000, 3)):
        (folder / name).mkdir(parents=True)
        for number in range(first, first + count):
            (folder / name / f"{number}.txt").write_text(words(number))
    return folder


def options(text: Path, **changes: object) -> Options:
    fields = {"corpus": text, "backend": "numpy", "workers": 0, "systems": SMALL, **changes}
    return Options(**fields)  # type: ignore[arg-type]


def losses(folder: Path) -> dict[str, list[float]]:
    with RunStore(folder / "runs.sqlite") as store:
        return {record.run_id: [point.losses["test"] for point in record.curve] for record in store.records()}


@pytest.fixture(scope="module")
def finished(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert run_experiment(TINY, folder, options(text)).complete
    return folder


def test_a_sitting_leaves_a_data_file_and_its_times(finished: Path) -> None:
    experiment = datasets.read(finished / "kaplan-tiny.jsonl.xz")
    assert len(experiment) == 7
    assert len(experiment.select("context", n_ctx=8)) == 1
    assert {facts.key for facts in experiment.corpora.values()} == {"english"}
    assert set(experiment.records[0].curve[-1].losses) == {"validation", "test", "novels", "c-code"}
    (sitting,) = experiment.facts["sittings"]
    assert {"corpus", "lr", "context"} <= set(sitting["seconds"])
    assert sitting["runs"] == 7
    assert not any(record.simulated for record in experiment.records)


def test_a_second_sitting_finds_nothing_to_do(finished: Path, text: Path) -> None:
    before = losses(finished)
    outcome = run_experiment(TINY, finished, options(text))
    assert outcome.complete
    assert losses(finished) == before
    assert len(outcome.sittings) == 2
    assert outcome.sittings[-1]["runs"] == 0


def test_learning_rates_come_from_the_trials(finished: Path) -> None:
    experiment = datasets.read(finished / "kaplan-tiny.jsonl.xz")
    (run,) = experiment.select("context")
    from scaling_sim.study.kaplan import rates_of

    rates = rates_of(experiment.select("lr"))
    assert run.config.recipe.peak_lr == pytest.approx(rates(TINY.context.shapes[0]), rel=1e-3)


def test_learning_rates_are_kept(finished: Path) -> None:
    """They decide the identity of other runs, so that nothing may change them later."""
    from scaling_sim.study.kaplan import Rates

    kept = msgspec.json.decode((finished / "rates.json").read_bytes(), type=Rates)
    facts = datasets.read(finished / "kaplan-tiny.jsonl.xz").facts
    assert {int(N): value for N, value in facts["rate_multiples"].items()} == pytest.approx(dict(kept.multiples), 1e-3)


def test_wide_models_that_would_not_end_are_left_to_another_sitting(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = msgspec.structs.replace(TINY.shapes[0], d_model=160)
    config = msgspec.structs.replace(TINY, context=ContextRuns((wide,), n_ctx=8), max_tokens=10**7)
    monkeypatch.setattr(run, "has_gpu", lambda: True)
    monkeypatch.setattr(run, "cohort_seconds", lambda *_: 1e6)
    monkeypatch.setattr(run, "CompileAhead", lambda *_, **__: nullcontext())
    outcome = run_experiment(config, tmp_path, options(text))
    assert not outcome.complete
    counts = {row["system"]: row["statuses"] for row in outcome.systems}
    assert counts == {"lr": {"done": 6}, "context": {"planned": 1}}


class Clock:
    """Time left: enough for some looks, then none."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def __get__(self, *_: object) -> float:
        self.looks -= 1
        return 1000.0 if self.looks > 0 else 0.0


def test_a_sitting_that_runs_out_of_time_is_taken_up_again(
    finished: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Sitting, "left", Clock(5))
        first = run_experiment(TINY, tmp_path, options(text))
    assert not first.complete
    assert any("time is over" in flag for flag in first.flags)
    assert 0 < len(datasets.read(tmp_path / "kaplan-tiny.jsonl.xz")) < 7
    assert run_experiment(TINY, tmp_path, options(text)).complete
    assert losses(tmp_path) == losses(finished)


def test_a_budget_drops_systems_from_the_end_and_names_them(text: Path, tmp_path: Path) -> None:
    expected = plan_experiment(TINY, tmp_path, options(text, systems=())).to_json()["expected_seconds"]
    outcome = plan_experiment(TINY, tmp_path, options(text, systems=(), budget=0.6 * expected / 60))
    names = [system.name for system in SYSTEMS]
    dropped = list(outcome.dropped)
    assert dropped
    assert dropped == list(reversed(names[-len(dropped) :]))
    assert [row["system"] for row in outcome.systems] == names[: -len(dropped)]
    assert "no room" in outcome.describe()


def test_a_forecast_trains_nothing(text: Path, tmp_path: Path) -> None:
    outcome = plan_experiment(TINY, tmp_path, options(text, systems=()))
    assert len(outcome.estimates) == len(SYSTEMS)
    assert losses(tmp_path) == {}
    assert "tables" in outcome.source
    assert outcome.to_json()["expected_seconds"] > 0


def test_a_missing_text_says_how_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="benchmarks/corpora"):
        run_experiment(TINY, tmp_path, Options(corpus=tmp_path / "nowhere"))


def test_another_experiment_is_not_mixed_in(finished: Path, text: Path) -> None:
    with pytest.raises(ConfigError, match="another experiment"):
        run_experiment(msgspec.structs.replace(TINY, seed=1), finished, options(text))


def test_another_text_is_not_mixed_in(text: Path, tmp_path: Path) -> None:
    plan_experiment(TINY, tmp_path / "out", options(text))
    other = tmp_path / "text" / "train"
    other.mkdir(parents=True)
    for number in range(60):
        (other / f"{number}.txt").write_text(words(5000 + number))
    with pytest.raises(ConfigError, match="another text"):
        plan_experiment(TINY, tmp_path / "out", options(tmp_path / "text"))


def test_a_corpus_that_cannot_be_built_drops_its_systems(
    finished: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import scaling_sim.data.tokenizer as tokenizer

    def missing() -> None:
        raise ConfigError("tokenizers are not installed")

    monkeypatch.setattr(tokenizer, "_library", missing)
    outcome = run_experiment(TINY, tmp_path, options(text, systems=("bpe",)))
    assert "not installed" in outcome.dropped["bpe"]
    assert outcome.complete


def test_corpora_built_ahead_are_those_that_are_asked_for(text: Path, tmp_path: Path) -> None:
    corpora = Corpora(TINY, text, tmp_path / "cache")
    with corpora.built_ahead(["synthetic"]):
        assert corpora._ahead is not None
        assert corpora._ahead.wait() == 0
        assert len(list((tmp_path / "cache").glob("synthetic-*"))) == 1
        built = corpora.get("synthetic")
    assert built is not None
    others = Corpora(TINY, text, tmp_path / "cache")
    with others.built_ahead(["synthetic"]):  # nothing to do, and nothing in the way
        pass
    assert others.text("synthetic").hash == built.hash
    assert len(list((tmp_path / "cache").glob("synthetic-*"))) == 1


def test_a_corpus_that_cannot_be_built_ahead_is_refused_when_asked_for(text: Path, tmp_path: Path) -> None:
    config = msgspec.structs.replace(TINY, bpe_vocabulary=10)
    corpora = Corpora(config, text, tmp_path / "cache")
    with corpora.built_ahead(["english-bpe"]):
        assert corpora.get("english-bpe") is None
    assert "258" in corpora.refused["english-bpe"]


def test_unknown_systems_and_times_are_refused() -> None:
    with pytest.raises(ConfigError, match="family"):
        Options(systems=("figures",))
    with pytest.raises(ConfigError, match="budget"):
        Options(budget=0.0)


def test_a_torn_line_of_sittings_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "sittings.jsonl").write_bytes(msgspec.json.encode(Stage("a", "lr", 1.5, runs=2)) + b'\n{"sitt')
    (stage,) = read_sittings(tmp_path)
    assert summary([stage, stage])[0] == {"began": "a", "seconds": {"lr": 3.0}, "runs": 4, "flops": 0.0}


# Command line ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


def test_the_verb_plans_an_experiment(runner: CliRunner, text: Path, tmp_path: Path) -> None:
    command = ["study", "kaplan-tiny", "--out", str(tmp_path), "--corpus", str(text), "--systems", "batch"]
    result = runner.invoke(app, [*command, "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert [row["system"] for row in facts["systems"]] == ["lr", "batch"]
    assert facts["complete"] is False


def test_options_of_experiments_are_refused_elsewhere(runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(app, ["study", "laptop", "--out", str(tmp_path), "--budget", "3"])
    assert isinstance(result.exception, ConfigError)
    assert "--budget" in str(result.exception)
    assert "kaplan-h200" in str(result.exception)
    result = runner.invoke(app, ["study", "laptopp", "--out", str(tmp_path)])
    assert "kaplan-h200" in str(result.exception)
    result = runner.invoke(app, ["study", "kaplan-tiny", "--out", str(tmp_path), "--seed", "3"])
    assert "--seed" in str(result.exception)


def test_names_are_those_that_messages_list() -> None:
    assert tuple(CONFIGS) == EXPERIMENTS


@pytest.mark.slow
@pytest.mark.numba
@pytest.mark.tokenizers
def test_the_whole_experiment_end_to_end(text: Path, tmp_path: Path) -> None:
    outcome = run_experiment(TINY, tmp_path, options(text, backend="numba", workers=None, systems=()))
    assert outcome.complete, outcome.describe()
    assert not outcome.dropped
    experiment = datasets.read(tmp_path / "kaplan-tiny.jsonl.xz")
    assert {facts.key for facts in experiment.corpora.values()} == {"english", "english-bpe", "synthetic"}
    assert {purpose for record in experiment.records for purpose in record.purposes} == {
        "curve", "final", "data", "batch", "seed", "lr", "shape", "context", "schedule", "fresh",
    }  # fmt: skip
    assert len(experiment) == sum(row["runs"] for row in outcome.systems) - 2  # runs that two systems share
