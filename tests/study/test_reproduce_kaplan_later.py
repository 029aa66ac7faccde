"""Shapes, other texts and later accounts of the exponents: on runs whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np
import pytest

from scaling_sim import datasets
from scaling_sim.datasets import Experiment
from scaling_sim.engine.cohort import Recipe
from scaling_sim.errors import DataError
from scaling_sim.laws.kaplan import loss_nd
from scaling_sim.model.count import num_parameters
from scaling_sim.model.shape import Shape
from scaling_sim.predict.surface import surface_minima
from scaling_sim.report.figures.canvas import style
from scaling_sim.runs.record import CurvePoint, RunConfig, RunRecord
from scaling_sim.study.reproduce.kaplan import SYSTEMS, Data, Finding
from scaling_sim.study.reproduce.kaplan.approaches import approaches
from scaling_sim.study.reproduce.kaplan.conjecture import conjecture
from scaling_sim.study.reproduce.kaplan.depth import depth
from scaling_sim.study.reproduce.kaplan.embeddings import embeddings
from scaling_sim.study.reproduce.kaplan.equal_size import shapes_of
from scaling_sim.study.reproduce.kaplan.exponents import exponents
from scaling_sim.study.reproduce.kaplan.protocols import COUNTS, constant_rate
from scaling_sim.study.reproduce.kaplan.shape import all_series, shape
from scaling_sim.study.reproduce.kaplan.tokenizer import tokenizer
from scaling_sim.study.reproduce.kaplan.transfer import transfer

Loss = Callable[[Shape, np.ndarray[Any, Any]], np.ndarray[Any, Any]]

BATCH = 8192
OURS = (
    "shape",
    "embeddings",
    "lstm",
    "transfer",
    "reuse",
    "depth",
    "conjecture",
    "approaches",
    "exponents",
    "tokenizer",
)
SIZES = [(1, 8), (1, 16), (2, 16), (2, 24), (2, 32), (2, 48), (2, 64), (4, 64), (4, 96), (4, 128), (4, 192), (6, 256)]
NOISE = 0.003
E, A, ALPHA, B, BETA = 0.6, 12.0, 0.25, 400.0, 0.42


def chinchilla(made: Shape, tokens: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A law of all parameters."""
    return np.asarray(E + A / num_parameters(made, "total") ** ALPHA + B / tokens**BETA)


def a_shape(n_layer: int, d_model: int, n_head: int = 1, d_ff: int = 0, vocab_size: int = 256) -> Shape:
    return Shape(n_layer, d_model, n_head, 128, vocab_size, d_ff)


def a_run(
    made: Shape,
    steps: Iterable[int],
    loss: Loss,
    rng: np.random.Generator,
    *,
    purposes: tuple[Any, ...] = ("curve",),
    corpus: str = "english",
    texts: dict[str, Callable[[Any, Any], Any]] | None = None,
    **options: Any,
) -> RunRecord:
    """A run with noise, most of it shared by its points."""
    at = np.unique(np.asarray(list(steps), dtype=int))
    noise = NOISE * rng.standard_normal() + 0.2 * NOISE * rng.standard_normal(len(at))
    values = loss(made, at * float(BATCH)) * np.exp(noise)
    recipe_fields = {key: options[key] for key in options if key in Recipe.__struct_fields__}
    other = {key: value for key, value in options.items() if key not in recipe_fields}
    recipe = Recipe(
        **{"peak_lr": 1e-3, "batch_tokens": BATCH, "steps": int(at[-1]), "warmup_steps": 1, **recipe_fields}
    )
    D = other.pop("unique_tokens", int(at[-1]) * BATCH)
    config = RunConfig(made, recipe, corpus=corpus, unique_tokens=D, **other)
    curve = tuple(
        CurvePoint(
            step=int(s),
            tokens=int(s) * BATCH,
            lr=1e-3,
            train=float(x),
            losses={"test": float(x)} | {name: float(f(x, s * BATCH)) for name, f in (texts or {}).items()},
            errors={},
        )
        for s, x in zip(at, values, strict=True)
    )
    status = "stopped" if config.early_stop else "done"
    return RunRecord(run_id=config.run_id, config=config, purposes=purposes, status=status, curve=curve, simulated=True)


def data_of(records: Iterable[RunRecord], entropy: float | None = None) -> Data:
    corpora = {
        key: {"key": key, "name": key, "tokens": tokens, "vocab_size": 256, "entropy": known, "splits": {}}
        for key, tokens, known in (
            ("english", 10**8, None),
            ("english-bpe", 25 * 10**6, None),
            ("synthetic", 10**7, entropy),
        )
    }
    facts = {"corpora": corpora, "date": "", "device": "none", "commit": "", "sittings": []}
    return Data(Experiment({r.run_id: r for r in records}.values(), facts, "known"))


def value(finding: Finding, *words: str) -> Any:
    """The only row whose quantity has all these words."""
    found = [row for row in finding.rows if all(word in row.quantity for word in words)]
    assert len(found) == 1, [row.quantity for row in finding.rows]
    return found[0]


def inside(row: Any, truth: float) -> bool:
    assert row.interval90 is not None, row
    return bool(row.interval90[0] <= truth <= row.interval90[1])


def steps(most: int = 12_000, count: int = 20) -> list[int]:
    return np.unique(np.geomspace(100, most, count).astype(int)).tolist()


@pytest.mark.parametrize("name", OURS)
def test_without_runs_a_system_says_what_is_missing(name: str) -> None:
    system = next(system for system in SYSTEMS if system.name == name)
    finding = system.compute(data_of([]))
    assert finding.missing
    assert not finding.rows
    assert finding.draw is None


def drawn(finding: Finding) -> int:
    """Numbers in the figure."""
    assert finding.draw is not None
    with style():
        return len(finding.draw().rows)


# -- shapes ----------------------------------------------------------------------------------------------------------

PENALTY = 0.004
RATIOS = {2: (4, 64), 8: (4, 36, 288), 16: (4, 26, 416)}


def penalised(made: Shape, tokens: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """L(N) times a bowl in d_ff/d_model."""
    N = max(num_parameters(made), 1)
    bowl = 1 + PENALTY * np.log(made.d_ff / made.d_model / 4) ** 2
    return np.asarray(3.0 * (N / 1e5) ** -0.08 * bowl + 0.0 * tokens)


def shape_runs(loss: Loss, seeds: int = 3) -> Data:
    rng = np.random.default_rng(3)
    shapes = [
        *(a_shape(L, d) for L in (0, 1, 2, 3, 6) for d in (16, 32, 64)),
        *(a_shape(*s) for s in ((2, 64, 1), (2, 64, 4), (2, 64, 16), (3, 52), (5, 40), (8, 32), (4, 44))),
        a_shape(4, 56, 1, 112), a_shape(4, 36, 1, 288), a_shape(4, 26, 1, 416),
    ]  # fmt: skip
    return data_of(
        a_run(s, [400, 4000], loss, rng, purposes=("shape",), seed=seed, schedule="decay", decay_steps=800)
        for s in shapes
        for seed in range(seeds)
    )


def test_a_penalty_of_shape_lies_in_its_interval() -> None:
    data = shape_runs(penalised)
    series = [s for s in all_series(shapes_of(data)) if s.panel == "d_ff"]
    assert len(series) == 1
    one = series[0]
    found = {round(float(r)): one.interval(k) for k, r in enumerate(one.ratio)}
    truth = {r: 100 * PENALTY * np.log(r / 4) ** 2 for r in (2, 8, 16)}
    assert all(found[r][0] <= truth[r] <= found[r][1] for r in truth), (found, truth)
    finding = shape(data)
    assert inside(value(finding, "d_ff/d_model = 8"), truth[8])
    assert drawn(finding) > 10


def test_equal_shapes_show_no_penalty_and_a_large_one_is_seen() -> None:
    def deep(made: Shape, tokens: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return penalised(made, tokens) * (1.05 if made.n_layer == 8 else 1.0)

    flat = next(s for s in all_series(shapes_of(shape_runs(penalised))) if s.panel == "heads")
    assert all(flat.interval(k)[0] <= 0 <= flat.interval(k)[1] for k in range(len(flat.ratio)))
    bent = next(s for s in all_series(shapes_of(shape_runs(deep))) if s.panel == "aspect")
    at = int(np.argmin(np.abs(bent.ratio - 4)))
    assert bent.interval(at)[0] > 2


def test_depth_has_no_slope_where_it_makes_no_difference() -> None:
    finding = depth(shape_runs(penalised))
    row = value(finding, "loss on test per doubling of depth")
    assert inside(row, 0.0)
    assert drawn(finding) >= 5


def test_embeddings_left_out_collapse_what_follows_N() -> None:
    finding = embeddings(shape_runs(penalised))
    without, counted = (value(finding, "spread of", words) for words in ("left out", "counted"))
    assert without.ours < 0.5 * counted.ours
    assert without.interval90[1] < counted.ours
    assert drawn(finding) > 10


# -- other texts -----------------------------------------------------------------------------------------------------

TEXTS = {"novels": lambda x, t: 1.2 * x**0.9, "c-code": lambda x, t: 1.5 * x * (t / 1e8) ** 0.02}


def transfer_runs() -> Data:
    rng = np.random.default_rng(5)

    def law(made: Shape, tokens: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.asarray((num_parameters(made) / 1e9) ** -0.1 + 60 / tokens**0.4)

    return data_of(
        a_run(a_shape(*s), steps(), law, rng, texts={k: _noisy(f, rng) for k, f in TEXTS.items()}) for s in SIZES[:10]
    )


def _noisy(f: Callable[[Any, Any], Any], rng: np.random.Generator) -> Callable[[Any, Any], Any]:
    shift = np.exp(0.002 * rng.standard_normal())
    return lambda x, t: shift * f(x, t)


def test_the_slope_of_an_offset_lies_in_its_interval() -> None:
    finding = transfer(transfer_runs())
    assert inside(value(finding, "novels", "slope of ln L' on ln L"), 0.9)
    growth = value(finding, "novels", "growth of the offset")
    assert growth.interval90[0] > 0  # the loss falls with N, and L'/L is its power -0.1
    assert inside(value(finding, "c-code", "growth of the offset"), 0.0)
    assert drawn(finding) > 20


def test_a_text_that_depends_on_the_phase_of_training_is_told_from_one_that_does_not() -> None:
    finding = transfer(transfer_runs())
    assert inside(value(finding, "novels", "ten times the tokens"), 0.0)
    told = value(finding, "c-code", "ten times the tokens")
    assert inside(told, 100 * (10**0.02 - 1))
    assert told.interval90[0] > 0


# -- exponents -------------------------------------------------------------------------------------------------------


def frontier_runs(curves: bool = True) -> Data:
    rng = np.random.default_rng(5)
    records = [a_run(a_shape(*s), steps(), chinchilla, rng) for s in SIZES] if curves else []
    records += [
        a_run(a_shape(*s), [length], chinchilla, rng, purposes=("final",), schedule="decay", decay_steps=length // 4)
        for s in SIZES
        for length in (375, 750, 1500, 3000, 6000, 12_000)
    ]
    return data_of(records)


def exponent_outside_embeddings(log_C: np.ndarray[Any, Any]) -> float:
    """Slope of the best non-embedding N on 6·N·tokens, by brute force over a family like that of the runs."""
    width = np.geomspace(4, 512, 4000)
    depth = np.interp(np.log(width), np.log([8, 16, 24, 64, 96, 256]), [1, 1.5, 2, 3, 4, 6])
    N, total = 12 * depth * width**2, 12 * depth * width**2 + 384 * width
    best = [N[np.argmin(A / total**ALPHA + B / (C / (6 * N)) ** BETA)] for C in np.exp(log_C)]
    return float(np.polyfit(log_C, np.log(best), 1)[0])


def test_counting_moves_the_exponent_by_as_much_as_it_should() -> None:
    data, truth = frontier_runs(), BETA / (ALPHA + BETA)
    protocol = constant_rate(data)
    outside = exponent_outside_embeddings(surface_minima(protocol.counted(COUNTS["non-embedding"])).log_C)
    finding = exponents(data)
    assert value(finding, "a, constant rate, total").ours == pytest.approx(truth, abs=0.02)
    assert value(finding, "a, constant rate, non-embedding").ours == pytest.approx(outside, abs=0.03)
    change = value(finding, "change of a by counting all parameters")
    assert change.interval90[1] < 0
    assert change.ours == pytest.approx(truth - outside, abs=0.03)
    assert value(finding, "law of all parameters shows outside embeddings").ours > truth + 0.05
    assert "schedule" in finding.remark  # the cosine protocols were not run
    assert drawn(finding) >= 8


def test_three_approaches_find_the_truth_by_either_kind_of_run() -> None:
    truth = BETA / (ALPHA + BETA)
    by_branches = approaches(frontier_runs(curves=False))
    assert inside(value(by_branches, "a in", "parametric", "all parameters"), truth)
    assert inside(value(by_branches, "β of", "all parameters"), BETA)
    for data in (frontier_runs(), data_of(r for r in frontier_runs().experiment.records if "curve" in r.purposes)):
        finding = approaches(data)
        assert value(finding, "a in", "parametric", "all parameters").ours == pytest.approx(truth, abs=0.03)
        assert value(finding, "a in", "isoFLOP", "all parameters").ours == pytest.approx(truth, abs=0.04)
        assert drawn(finding) > 10


# -- a language of known entropy --------------------------------------------------------------------------------------

H = 1.5


LIMIT = {"alpha_N": 0.08, "N_c": 1.5e6, "alpha_D": 0.1, "D_c": 1e8}


def language_runs(floor: float) -> Data:
    """Pure power laws above a floor: the frontier falls as C^-0.12, the limit of the data that it uses as C^-0.04."""
    rng = np.random.default_rng(17)

    def curve(made: Shape, tokens: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.asarray(floor + 9.0 * num_parameters(made) ** -0.2 + 90 * tokens**-0.3)

    records = [a_run(a_shape(*s), steps(4000), curve, rng, corpus="synthetic") for s in SIZES[:9]]
    for D in (200_000, 800_000, 3_200_000, 12_800_000):
        for s in SIZES[2:8]:
            best = floor + float(loss_nd(num_parameters(a_shape(*s)), D, LIMIT))
            run = a_run(
                a_shape(*s), [500, 2000, 4000], lambda made, t, best=best: best * (1 + 0.1 * (t != 2000 * BATCH)), rng,
                purposes=("data",), corpus="synthetic", unique_tokens=D, early_stop=True,
            )  # fmt: skip
            records.append(msgspec.structs.replace(run, best=1))
    return data_of(records, entropy=H)


def test_pure_power_laws_do_not_bend_and_those_with_a_floor_do() -> None:
    pure, bent = conjecture(language_runs(0.0)), conjecture(language_runs(H))
    assert value(pure, "bends").ours == 0
    assert value(bent, "bends").ours > H
    assert inside(value(bent, "floor E by kaplan-ns-floor"), H)
    assert drawn(bent) > 20


def test_the_crossing_of_pure_power_laws_is_where_they_say() -> None:
    finding = conjecture(language_runs(0.0))
    C = np.geomspace(1e10, 1e20, 4000)
    N = (1.8 / 27 * (C / 6) ** 0.3) ** 2
    loss, limit = 9 * N**-0.2 + 90 * (C / (6 * N)) ** -0.3, (LIMIT["D_c"] * 6 * N / C) ** LIMIT["alpha_D"]
    star = value(finding, "L* where")
    assert star.ours == pytest.approx(float(loss[np.argmax(limit > loss)]), rel=0.1)
    assert star.interval90[1] / star.interval90[0] < 2


# -- another tokenizer -----------------------------------------------------------------------------------------------


def test_a_tokenizer_that_scales_the_loss_changes_no_exponent() -> None:
    rng = np.random.default_rng(23)

    def law(made: Shape, tokens: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.asarray((num_parameters(made) / 1e9) ** -0.08 + (1e5 / tokens) ** 0.7)

    shapes = SIZES[4], SIZES[6], SIZES[9]
    plain = [a_run(a_shape(*s), steps(), law, rng, seed=seed) for s in SIZES for seed in range(3)]
    pairs = [
        a_run(a_shape(*s, vocab_size=4096), steps(3000), lambda m, t: 2.5 * law(m, t), rng, corpus="english-bpe")
        for s in shapes
    ]
    finding = tokenizer(data_of(plain + pairs))
    for symbol in ("α_N", "α_S"):
        assert inside(value(finding, f"{symbol}, byte pairs less bytes"), 0.0)
    gap = value(finding, "loss per byte")
    assert gap.ours == pytest.approx(100 * (2.5 / 4 - 1), abs=3)
    assert "4.00 bytes per token" in finding.remark
    assert drawn(finding) > 10


# -- the shipped runs ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> Data:
    if datasets.DEFAULT not in datasets.names():
        pytest.skip("this installation holds no runs of its own")
    found = Data(datasets.load())
    found.give("kaplan", DataError("no system here needs the joint fit"))
    return found


def test_shipped_counting_moves_the_exponent_and_matching_schedules_does_not(shipped: Data) -> None:
    finding = exponents(shipped)
    for words in ("counting the head", "counting all parameters"):
        assert value(finding, "change of a by", words).interval90[1] < -0.05
    assert inside(value(finding, "change of a by warm-up"), 0.0)
    assert inside(value(finding, "a, constant rate, same sizes, non-embedding"), 0.78)


def test_shipped_approaches_agree_with_each_other(shipped: Data) -> None:
    finding = approaches(shipped)
    found = [value(finding, "a in", words, "all parameters") for words in ("envelope", "isoFLOP", "parametric")]
    assert max(row.interval90[0] for row in found) < min(row.interval90[1] for row in found)
    assert value(finding, "a in", "parametric", "non-embedding").interval90[0] > found[2].interval90[1]


def test_shipped_losses_on_code_fall_in_parallel_and_those_on_prose_do_not(shipped: Data) -> None:
    finding = transfer(shipped)
    share = "α_N over that on the training distribution"
    assert inside(value(finding, "python-code", share), 1.0)
    assert inside(value(finding, "c-code", share), 1.0)
    assert all(value(finding, name, share).interval90[1] < 0.7 for name in ("novels", "dictionary"))


def test_shipped_shapes_differ_little_but_at_the_extremes(shipped: Data) -> None:
    rows = [row for row in shape(shipped).rows if "d_model/n_layer = 4" in row.quantity]
    assert len(rows) == 2
    assert all(inside(row, 0.0) for row in rows)
    assert all(inside(row, 0.0) for row in depth(shipped).rows if "loss on test" in row.quantity)
    assert value(embeddings(shipped), "0-layer").ours > 20


def test_shipped_crossing_lies_at_the_entropy_and_the_bend_above_it(shipped: Data) -> None:
    finding = conjecture(shipped)
    entropy = value(finding, "known entropy").ours
    assert inside(value(finding, "L*/H"), 1.0)
    assert all(abs(value(finding, "L(D(C)) over H", words).ours - 1) < 0.05 for words in ("least", "largest"))
    assert finding.remark.startswith("Neither confirmed nor refuted")  # L(D) lies at H: a crossing there is foregone
    assert entropy < value(finding, "bends").ours < 1.1 * entropy
    assert inside(value(finding, "floor E by kaplan-ns-floor"), entropy)
