"""The benchmark of LSTMs and weight-shared transformers: what its models are, and that it runs on a CPU."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from scaling_sim.data.batches import Batches, evaluation_starts
from scaling_sim.data.corpus import Corpus
from scaling_sim.datasets.recurrent import RecurrentRuns, load_recurrent, write_recurrent
from scaling_sim.engine.cohort import Cohort, Member
from scaling_sim.engine.reference_model import position_losses
from scaling_sim.engine.registry import get_backend
from scaling_sim.errors import ConfigError, DataError
from scaling_sim.model.count import flops_per_token, num_parameters
from scaling_sim.model.init import initial_parameters
from scaling_sim.model.shape import Shape
from scaling_sim.runs.record import position_edges
from scaling_sim.study.kaplan.corpora import Corpora
from scaling_sim.study.kaplan.scales import H200

torch = pytest.importorskip("torch", reason="the benchmark is plain PyTorch")
pytestmark = pytest.mark.torch

from benchmarks.recurrent.models import Spec  # noqa: E402
from benchmarks.recurrent.plan import Settings, full_plan, smoke_plan  # noqa: E402
from benchmarks.recurrent.side_by_side import Job, SideBySide  # noqa: E402
from benchmarks.recurrent.train_recurrent import chosen_corpus  # noqa: E402
from benchmarks.recurrent.training import train  # noqa: E402
from benchmarks.recurrent.trial import Text, Trial  # noqa: E402

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "recurrent" / "train_recurrent.py"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A whole call on the CPU."""
    out = tmp_path_factory.mktemp("recurrent") / "smoke.json"
    command = [sys.executable, str(SCRIPT), "--smoke", "--device", "cpu", "--seconds", "500", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return load_recurrent(out)


def test_smoke_holds_every_run_of_its_plan(smoke):
    assert smoke.dropped == ()
    assert [(run.kind, run.layers, run.reuse, run.d_model) for run in smoke.runs] == [
        (spec.kind, spec.layers, spec.reuse, spec.d) for spec in smoke_plan()
    ]
    assert smoke.facts["corpus"]["key"] == "stdlib"
    assert {run.kind for run in smoke.select("lstm", "recurrent")} == {"lstm", "recurrent"}


def test_smoke_runs_learn_and_say_where(smoke):
    for run in smoke.runs:
        first, last = run.curve[0], run.curve[-1]
        assert last.losses["test"] < first.losses["test"] < np.log(256) + 0.3
        assert last.step == run.steps
        assert run.peak_lr == min(run.sweep, key=lambda pair: pair[1])[0]
        assert first.step == run.sweep_steps
        chosen = min(loss for _, loss in run.sweep)
        assert first.losses["validation"] == pytest.approx(chosen, abs=1e-5)
        widths = np.diff(position_edges(run.n_ctx))
        assert np.average(last.positions, weights=widths) == pytest.approx(run.loss, abs=1e-4)
        assert np.mean(run.position_losses) == pytest.approx(run.loss, abs=1e-4)
        assert 0 < run.standard_error < 0.2


def test_dry_run_trains_nothing(tmp_path):
    command = [sys.executable, str(SCRIPT), "--dry-run", "--out", str(tmp_path / "none.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{len(full_plan())} runs" in done.stdout
    assert not (tmp_path / "none.json").exists()


@pytest.mark.parametrize("spec", full_plan()[:22], ids=lambda spec: spec.name)
def test_N_leaves_out_embeddings_biases_and_norms(spec):
    model = spec.build(256)
    left_out = ("tokens", "positions", "norm", "bias")
    counted = sum(p.numel() for name, p in model.named_parameters() if not any(word in name for word in left_out))
    assert counted == spec.N


@pytest.mark.parametrize("reuse", [1, 2, 4])
def test_flops_of_reuse_are_those_of_so_many_layers(reuse):
    shared = Spec("recurrent", 2, reuse, 48, 3, 128)
    deep = Shape(n_layer=2 * reuse, d_model=48, n_head=3, n_ctx=128)
    assert shared.N * reuse == num_parameters(deep)
    assert shared.flops_per_token == flops_per_token(deep)
    assert shared.exact_flops_per_token(256) == flops_per_token(deep, "exact")


def weights_of(model, parameters):
    """Copy the library's initial weights, stacked by layer, into the benchmark's transformer."""
    named = {"tokens": "token_embedding", "positions": "position_embedding", "norm.weight": "ln_f_gain"}
    named |= {
        "norm.bias": "ln_f_bias",
        "norm1.weight": "ln1_gain",
        "norm1.bias": "ln1_bias",
        "norm2.weight": "ln2_gain",
    }
    named |= {"norm2.bias": "ln2_bias", "qkv": "qkv", "out": "attn_out", "up": "mlp_up", "down": "mlp_down"}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            layer = int(name.split(".")[1]) if name.startswith("blocks.") else None
            key = name.split(".", 2)[-1] if layer is not None else name
            value = parameters[named.get(key) or named[key.removesuffix(".weight")]]
            weight.copy_(torch.from_numpy(value if layer is None else value[layer]))


@pytest.mark.parametrize("reuse", [1, 3])
def test_transformer_is_the_library_s_gone_through_so_often(reuse):
    shape = Shape(n_layer=2, d_model=16, n_head=2, n_ctx=12, vocab_size=64)
    parameters = initial_parameters(shape, 5)
    tokens = np.random.default_rng(0).integers(0, 64, (3, 13))
    model = Spec("recurrent", 2, reuse, 16, 2, 12).build(64).double()
    weights_of(model, parameters)
    logits = model(torch.from_numpy(tokens[:, :-1]))
    targets = torch.from_numpy(tokens[:, 1:])
    ours = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    layered = {"ln1_gain", "ln1_bias", "qkv", "attn_out", "ln2_gain", "ln2_bias", "mlp_up", "mlp_down"}
    unrolled = {k: np.concatenate([v] * reuse) if k in layered else v for k, v in parameters.items()}
    deep = Shape(n_layer=2 * reuse, d_model=16, n_head=2, n_ctx=12, vocab_size=64)
    expected = position_losses(unrolled, deep, tokens[:, :-1], tokens[:, 1:])
    np.testing.assert_allclose(ours.detach().numpy().reshape(3, 12), expected, atol=1e-10)


def test_lstm_does_not_look_ahead():
    model = Spec("lstm", 2, 1, 8, 0, 10).build(64)
    tokens = torch.arange(10)[None]
    changed = tokens.clone()
    changed[0, 6] = 50
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_plan_keeps_to_its_sizes():
    for run in full_plan():
        assert min(abs(np.log(run.N / size)) for size in (5.3e4, 2.1e5, 8.8e5, 3.5e6)) < 0.1
    assert len({spec.name for spec in full_plan()}) == len(full_plan())
    assert all(stop <= Settings().steps for stop in Settings().stops)


def test_english_text_is_the_study_s(tmp_path):
    rng = np.random.default_rng(2)
    words = np.array(["one", "two", "three", "and", "more", "words"])
    for place in ("train", "held_out/novels"):
        (tmp_path / "text" / place).mkdir(parents=True)
        for i in range(600):
            (tmp_path / "text" / place / f"{i}.txt").write_text(" ".join(rng.choice(words, 60)) + f" {i}\n")
    (tmp_path / "text" / "manifest.json").write_text("{}")
    asked = Namespace(corpus=str(tmp_path / "text"), key="english")
    corpus = chosen_corpus(asked, tmp_path / "cache")
    expected = Corpora(H200, tmp_path / "text", tmp_path / "study").get("english")
    assert corpus.hash == expected.hash
    assert corpus.held_out == ("novels",)
    built = chosen_corpus(Namespace(corpus=str(expected.folder), key="english"), tmp_path / "cache")
    assert built.hash == corpus.hash
    with pytest.raises(ConfigError, match="English text is looked for"):
        chosen_corpus(Namespace(corpus=str(tmp_path / "nowhere"), key="english"), tmp_path / "cache")


def tiny_text(settings):
    """A few kilobytes that are easy to learn."""
    rng = np.random.default_rng(1)
    tokens = np.repeat(rng.integers(97, 105, 6000), 2).astype(np.uint8)
    splits = {"train": tokens[:8000], "validation": tokens[8000:10000], "test": tokens[10000:]}
    return Text(Corpus("tiny", "0" * 16, 256, splits), settings, torch.device("cpu"), [16])


def outcome_of(work):
    """The result of a generator that is gone through."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("spec", [Spec("lstm", 1, 1, 8, 0, 16), Spec("recurrent", 1, 2, 8, 1, 16)], ids=str)
def test_the_best_trial_of_a_sweep_is_continued_as_if_it_were_alone(spec):
    settings = Settings(steps=24, batch_tokens=64, warmup=2, multiples=(0.1, 30.0, 1.0), test_tokens=512)
    text = tiny_text(settings)
    run = outcome_of(train(spec, text, settings))
    losses = dict(run.sweep)
    assert run.peak_lr == min(losses, key=losses.get) != run.sweep[0][0]
    alone = Trial(spec, text, settings)
    alone.set_rates(settings.rates(run.peak_lr))
    alone.advance(settings.steps)
    assert run.loss == pytest.approx(float(alone.evaluate().means["test"]), abs=1e-6)
    assert run.curve[0].losses["test"] > run.loss


def test_a_graph_that_does_other_updates_is_refused():
    settings = Settings(steps=10, batch_tokens=64, warmup=2, test_tokens=512)
    trial = Trial(Spec("lstm", 1, 1, 8, 0, 16), tiny_text(settings), settings)
    assert trial._checked(Namespace(replay=trial._update)) is not None

    def always_the_first_batch():
        trial.step.zero_()
        trial._update()

    assert trial._checked(Namespace(replay=always_the_first_batch)) is None


def test_updates_are_the_library_s():
    """Adam, clipping, warm-up, decay, batches: as in a trainer of the NumPy backend."""
    settings = Settings(steps=10, batch_tokens=64, warmup=2, test_tokens=512)
    text = tiny_text(settings)
    spec = Spec("transformer", 2, 1, 16, 2, 16, seed=3)
    shape = Shape(n_layer=2, d_model=16, n_head=2, n_ctx=16)
    trial = Trial(spec, text, settings)
    weights_of(trial.model, initial_parameters(shape, 3, np.float32))
    rates = settings.rates(0.02)
    trial.set_rates(rates)
    trial.advance(settings.steps)
    cohort = Cohort(shape=shape, batch_sequences=4, members=(Member(id=0, seed=3),))
    trainer = get_backend("numpy").start(cohort, text.corpus.splits, "cpu", "float64")
    starts = Batches(8000, 16, 4, 3).starts(0, settings.steps)
    trainer.advance(0, starts[:, None], rates[:, None])
    windows = evaluation_starts(len(text.corpus.splits["test"]), 16, 32).reshape(1, -1)
    mean, _ = trainer.evaluate("test", windows)
    np.testing.assert_allclose(trial.evaluate().positions_T.numpy(), mean[0], atol=2e-4)


def fake(name, parts, alone=1.0):
    """A job of so many parts that is always ready."""

    def work():
        for _ in range(parts):
            yield 1, lambda: True
        return name.upper()

    return Job(name, alone, parts, work)


def test_side_by_side_keeps_the_order_of_results():
    outcome = SideBySide(2, gain=2.0, seconds=60).run([fake("a", 9), fake("b", 2), fake("c", 1)])
    assert outcome.results == ("A", "B", "C")
    assert outcome.dropped == ()


def test_side_by_side_drops_by_name_what_does_not_fit():
    outcome = SideBySide(1, gain=1.0, seconds=60).run([fake("a", 3), fake("long", 3, alone=100.0), fake("c", 3)])
    assert outcome.results == ("A", "C")
    assert outcome.dropped == ("long: no time left",)


def test_side_by_side_cuts_what_runs_when_the_time_is_up():
    outcome = SideBySide(1, gain=1.0, seconds=0.05).run([fake("endless", 10**9, alone=0.01), fake("b", 1, alone=0.01)])
    assert outcome.results == ()
    assert outcome.dropped == ("endless: cut when the time was up", "b: no time left")


def test_side_by_side_names_what_was_refused():
    def broken():
        yield 1, lambda: True
        raise ZeroDivisionError("as expected")

    jobs = [Job("broken", 1.0, 2, broken), fake("b", 1)]
    outcome = SideBySide(2, gain=1.0, seconds=60).run(jobs, refused=(ZeroDivisionError,))
    assert outcome.results == ("B",)
    assert outcome.dropped == ("broken: as expected",)


def test_loader_says_what_is_wrong(tmp_path):
    with pytest.raises(DataError, match="no recurrent runs at"):
        load_recurrent(tmp_path / "absent.json")
    (tmp_path / "other.json").write_text('{"facts": {}, "runs": 3}')
    with pytest.raises(DataError, match=r"Expected `array`.*at `\$.runs`"):
        load_recurrent(tmp_path / "other.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        load_recurrent(tmp_path / "broken.json")


def test_a_file_reads_back_equal(tmp_path, smoke):
    write_recurrent(tmp_path / "again.json", smoke)
    assert load_recurrent(tmp_path / "again.json") == smoke
    assert isinstance(smoke, RecurrentRuns)
