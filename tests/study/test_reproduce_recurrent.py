"""Figures 7 and 17 from fabricated runs whose differences are known."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from scaling_sim.datasets import Experiment
from scaling_sim.datasets.recurrent import Kind, RecurrentPoint, RecurrentRun, RecurrentRuns, load_recurrent
from scaling_sim.report.figures.canvas import style
from scaling_sim.study.reproduce.kaplan import Data, Finding
from scaling_sim.study.reproduce.kaplan import recurrent as module
from scaling_sim.study.reproduce.kaplan.making import System
from scaling_sim.study.reproduce.kaplan.paired import Noise, excess, log_loss
from tests.study.kaplan_records import FACTS, small_experiment

ALPHA = 0.1
SIZES = (55_296, 221_184, 884_736, 3_538_944)
PLATEAU = 100
"""Position after which the fabricated LSTMs learn nothing more from the context."""


def loss_at(kind: Kind, N: float, place: np.ndarray) -> np.ndarray:
    """Transformers: 4·N^-α + place^-½; LSTMs equal them for 8 positions, then lose a little more until a plateau."""
    seen = np.minimum(place, PLATEAU) if kind == "lstm" else place
    late = 1 + 0.02 * (place > 8) if kind == "lstm" else 1.0
    return (6.0 * N**-ALPHA + seen**-0.5) * late


def made(kind: Kind, N: int, factor: float = 1.0, **fields: object) -> RecurrentRun:
    """A run whose losses are `loss_at` times ``factor``."""
    T = int(str(fields.get("n_ctx", 128)))
    position = factor * loss_at(kind, N, np.arange(1.0, T + 1))
    point = RecurrentPoint(step=2500, tokens=2500 * 8192, losses={"test": float(position.mean())}, positions=())
    known = {
        "kind": kind, "layers": 2, "reuse": 1, "d_model": int((N / 24) ** 0.5), "n_head": 2, "n_ctx": T, "seed": 0,
        "N": N, "flops_per_token": 6.0 * N, "flops_per_token_exact": 6.0 * N, "peak_lr": 0.01, "steps": 2500,
        "sweep_steps": 10, "sweep": ((0.005, 2.0), (0.01, 1.9), (0.02, 2.1)),
        "batch_tokens": 8192, "warmup_steps": 9, "decay_steps": 9,
        "curve": (point,), "standard_error": 0.01, "position_losses": tuple(position), "seconds": 1.0, "captured": True,
    }  # fmt: skip
    return RecurrentRun(**{**known, **fields})


def all_runs(noise: float = 0.0) -> RecurrentRuns:
    """Standard, weight-shared (equal to a standard one of N·√reuse) and LSTM; a second seed at one size; T = 512."""
    rng = np.random.default_rng(3)

    def jitter() -> float:
        return float(np.exp(noise * rng.standard_normal()))

    runs = [made("transformer", N, jitter()) for N in SIZES]
    runs += [made("lstm", N, jitter(), layers=layers) for N in SIZES[:3] for layers in (1, 2, 4)]
    for N in SIZES[:3]:
        for reuse in (2, 4, 8):
            better = made("transformer", N * reuse).loss / made("transformer", N).loss
            runs += [made("recurrent", N, better**0.5 * jitter(), reuse=reuse)]
    runs += [made("transformer", SIZES[1], jitter(), seed=1), made("lstm", SIZES[1], jitter(), layers=2, seed=1)]
    runs += [made(kind, N, n_ctx=512) for kind in ("lstm", "transformer") for N in SIZES[1:3]]
    facts = {"corpus": {"key": "english", "hash": "known"}}
    return RecurrentRuns(facts=facts, runs=tuple(runs), dropped=("lstm-9x9: no time left",))


def found(monkeypatch: pytest.MonkeyPatch, runs: RecurrentRuns, name: str) -> Finding:
    monkeypatch.setattr(module, "load_recurrent", lambda: runs)
    return System(name, name, f"recurrent:{name}").compute(Data(small_experiment()))


def test_lstm_rows_find_the_known_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = found(monkeypatch, all_runs(), "lstm")
    assert not finding.missing
    ours = {row.quantity: row.ours for row in finding.rows}
    early, late = (
        next(v for k, v in ours.items() if text in k) for text in ("positions 1 to 8", "positions 65 to 128")
    )
    assert early == pytest.approx(0.0, abs=0.05)
    assert late > 2.0
    for layers in ("1 layer ", "2 layers", "4 layers"):
        assert 1.5 < next(value for name, value in ours.items() if layers in name) < late
    fall = {name: value for name, value in ours.items() if name.startswith("change of loss")}
    cells, standard = (next(v for k, v in fall.items() if kind in k) for kind in ("LSTM", "transformer"))
    assert 0 > cells > -0.5 > standard
    assert all(row.n_runs > 0 for row in finding.rows)
    assert finding.remark.startswith("Reproduced: at equal N")
    assert "Reproduced: LSTMs stop to gain late" in finding.remark
    assert "1 planned runs were not made." in finding.remark


def test_long_contexts_are_compared_early_and_late_and_with_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {row.quantity: row.ours for row in found(monkeypatch, all_runs(), "lstm").rows}
    place = np.arange(257.0, 513.0)
    for N, text in zip(SIZES[1:3], ("2.2", "8.8"), strict=True):
        late = 100 * (loss_at("lstm", N, place).mean() / loss_at("transformer", N, place).mean() - 1)
        name = f"positions 257 to 512 of 512, N = {text}"
        assert next(v for k, v in ours.items() if name in k) == pytest.approx(late, rel=1e-9)
    assert [v for k, v in ours.items() if "positions over those of 128" in k] == pytest.approx([0, 0], abs=1e-9)


def test_a_choice_of_rate_on_the_plateau_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = ((0.005, 2.6), (0.01, 2.5), (0.02, 2.7))
    runs = all_runs()
    some = tuple(
        msgspec.structs.replace(run, sweep=stuck) if SIZES[1] == run.N and run.seed else run for run in runs.runs
    )
    said = found(monkeypatch, msgspec.structs.replace(runs, runs=some), "reuse").remark
    assert "Transformers: 7 of 7 chose" in said
    assert "for 1 even the best trial was still on the plateau" in said
    assert "up to 0.60 nats apart" in said


def test_the_shipped_runs_are_whole_and_say_what_the_page_says() -> None:
    runs = load_recurrent()
    assert (len(runs.runs), runs.dropped) == (33, ())
    data = Data(small_experiment())
    findings = [System(name, name, f"recurrent:{name}").compute(data) for name in ("lstm", "reuse")]
    assert all("from 7 pairs of all kinds" in finding.remark for finding in findings)
    assert all("all at N near 2×10⁵" in finding.remark for finding in findings)
    rows = {row.quantity: row for finding in findings for row in finding.rows}
    equal = [row for name, row in rows.items() if name.startswith("loss of LSTMs")]
    assert len(equal) == 3
    assert all(row.ours < 0 for row in equal)  # unlike the paper
    falls = [row.interval90 or (0.0, 0.0) for name, row in rows.items() if name.startswith("change of loss")]
    assert falls[1][1] < falls[0][0] < 0  # late in the context transformers gain more
    cost = [row.interval90 or (0.0, 0.0) for name, row in rows.items() if name.endswith("FLOPs per token")]
    assert len(cost) == 3
    assert min(low for low, _ in cost) > 0


def test_reuse_rows_find_the_known_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = found(monkeypatch, all_runs(), "reuse")
    per_size = [row for row in finding.rows if row.quantity.endswith("equal N")]
    per_flop = [row for row in finding.rows if row.quantity.endswith("equal FLOPs per token")]
    assert [len(per_size), len(per_flop)] == [3, 3]
    for row, other in zip(per_size, per_flop, strict=True):
        assert row.ours < 0 < other.ours
        # at reuse 4 and sizes that are controls the truth is known exactly
        if "4 times" in row.quantity:
            plain = [made("transformer", N).loss for N in SIZES]
            gains = [0.5 * np.log(plain[i + 1] / plain[i]) for i in range(3)]
            assert row.ours == pytest.approx(100 * np.expm1(np.mean(gains)), rel=1e-6)
            assert other.ours == pytest.approx(100 * np.expm1(-np.mean(gains)), rel=1e-6)
    # 8 uses of the largest would need a control beyond those trained: two models are left
    assert per_flop[2].n_runs < per_size[2].n_runs + 1


@pytest.mark.parametrize("name", ["lstm", "reuse"])
def test_figures_show_every_series(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    finding = found(monkeypatch, all_runs(0.003), name)
    assert finding.draw is not None
    with style():
        figure = finding.draw()
    series = {row["series"] for row in figure.rows}
    expected = {"lstm": {"transformer", "LSTM, 1 layer", "LSTM, 4 layers"}, "reuse": {"standard", "used 8 times"}}
    assert expected[name] <= series


def intervals(seeds: range) -> Iterator[tuple[float, float]]:
    """Intervals of a difference whose truth is zero, from fresh noise each."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        standard = [made("transformer", N, np.exp(0.01 * rng.standard_normal())) for N in SIZES]
        some = [made("recurrent", N, np.exp(0.01 * rng.standard_normal()), reuse=2) for N in SIZES[:3]]
        again = [made("recurrent", N, np.exp(0.01 * rng.standard_normal()), reuse=2, seed=1) for N in SIZES[:3]]
        noise = Noise.between_seeds([*some, *again], log_loss)
        contrast = excess([*some, *again], standard, lambda run: run.N)
        half = contrast.half_width(noise)
        yield contrast.of(log_loss) - half, contrast.of(log_loss) + half


def test_intervals_cover_as_often_as_they_say() -> None:
    """300 intervals at 90 %: 255 to 285 cover with probability 0.996 if the rule is right (with a normal
    in place of Student's t about 240 would)."""
    covered = sum(low <= 0 <= high for low, high in intervals(range(300)))
    assert 255 <= covered <= 285


def test_without_seeds_there_is_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = all_runs()
    once = RecurrentRuns(facts=runs.facts, runs=tuple(run for run in runs.runs if run.seed == 0))
    assert all(row.interval90 is None for row in found(monkeypatch, once, "reuse").rows)


def test_models_beyond_the_standard_sizes_do_not_count() -> None:
    standard = [made("transformer", N) for N in SIZES[:2]]
    far = [made("recurrent", SIZES[3], reuse=2)]
    assert excess(far, standard, lambda run: run.N).runs == ()


@pytest.mark.parametrize("name", ["lstm", "reuse"])
def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    only = RecurrentRuns(facts={"corpus": {"key": "english"}}, runs=tuple(all_runs().select("transformer")))
    assert "hold no" in found(monkeypatch, only, name).missing
    other = RecurrentRuns(facts={"corpus": {"key": "elsewhere"}}, runs=all_runs().runs)
    assert "elsewhere" in found(monkeypatch, other, name).missing
    monkeypatch.setattr(module, "load_recurrent", all_runs)
    empty = System(name, name, f"recurrent:{name}").compute(Data(Experiment((), FACTS)))
    assert empty.missing
