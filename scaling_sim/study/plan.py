"""Which runs a study makes on this machine, how much they cost, and what was dropped to stay within its time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from scaling_sim.config import Config, writable_folder
from scaling_sim.data import Corpus, load_corpus
from scaling_sim.errors import ConfigError
from scaling_sim.model.count import num_parameters
from scaling_sim.model.shape import Shape
from scaling_sim.study.config import StudyConfig, read_study
from scaling_sim.study.jobs import study_jobs, trial_jobs
from scaling_sim.training import Estimate, Job, Machine, measure_machine, small_model_learning_rate
from scaling_sim.training.job import check_branch, check_job

FIT_SECONDS = 75.0
"""Set aside for fits, predictions and the report."""
PATIENCE = 1.5
"""Sizes are dropped where a study is expected to take longer than its minutes times this: an estimate is no promise."""
AFTER_TRAINING = ("laws", "target_pf_days", "minutes", "workers")
"""Fields that change no run: a finished study may be run again with others."""
FEWEST_SIZES = 3
"""A law in N needs at least these, however slow the machine."""


class Choices(Config, frozen=True):
    """What was decided on this machine; written beside the runs, so that a resumed study goes on with the same runs."""

    num_shapes: int
    """Sizes kept, smallest first."""
    expected_seconds: float
    """Wall time of the sweep as estimated before it began."""
    multiples: dict[str, float] = msgspec.field(default_factory=dict)
    """Index of a size → best multiple of the learning-rate rule."""
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
            f" (budget {facts['budget_seconds']:.0f} s with fits and report), corpus {self.corpus_name}: "
            f"{self.corpus_tokens:,} tokens"
        )
        late = f"Expected to be late; sizes are left out only where more than {self.most_seconds:.0f} s are expected."
        over = [late] if self.seconds + FIT_SECONDS > facts["budget_seconds"] and not self.flags else []
        return "\n".join([head, *lines, "", total, *over, *self.flags])

    @property
    def most_seconds(self) -> float:
        """Expected training time above which sizes are left out."""
        return _most_seconds(self.config)


def open_study(
    preset: str | Path | StudyConfig, out: str | Path, seed: int | None = None, *, claim: bool = True
) -> tuple[StudyConfig, Path, Corpus]:
    """Configuration, folder and corpus of a study, after every check that needs no training.

    ``seed`` replaces the configuration's own where it is given. With ``claim`` the folder is marked as this study's.

    Raises
    ------
    ConfigError
        The folder cannot be written or holds another study, or a run cannot be made from this corpus.
    """
    config = preset if isinstance(preset, StudyConfig) else read_study(preset)
    if seed is not None:
        config = msgspec.structs.replace(config, seed=seed)
    folder = writable_folder(out)
    _check_claim(folder, config)
    corpus = load_corpus(config.corpus, folder / "corpus")
    _check_context(config, corpus)
    check_jobs(all_jobs(config, corpus), corpus)
    if claim:
        _write(folder / "study.json", config)
    return config, folder, corpus


def read_claim(folder: str | Path) -> StudyConfig:
    """The study that a folder holds.

    Raises
    ------
    ConfigError
        It holds none, or a file that is none.
    """
    path = Path(folder) / "study.json"
    if not path.is_file():
        raise ConfigError(f"{folder} holds no study (no study.json); run: scaling-sim study laptop --out {folder}")
    try:
        return msgspec.json.decode(path.read_bytes(), type=StudyConfig)
    except (msgspec.DecodeError, ConfigError) as error:
        raise ConfigError(f"{path} is not a study's: {error}; choose another --out or remove it") from error


def _check_claim(folder: Path, config: StudyConfig) -> None:
    """Another study's runs must not be mixed in; what only fits and predictions read may change."""
    if not (folder / "study.json").exists():
        return
    known = read_claim(folder)
    names = [field.name for field in msgspec.structs.fields(StudyConfig) if field.name not in AFTER_TRAINING]
    changed = [name for name in names if getattr(known, name) != getattr(config, name)]
    if changed:
        raise ConfigError(
            f"{folder} holds another study ({known.name!r}): {', '.join(changed)} differ; "
            "choose another --out or remove the folder"
        )


def check_jobs(jobs: list[Job], corpus: Corpus) -> None:
    """Refuse runs that this corpus cannot give, before anything is trained."""
    parents = {job.run_id: job.config for job in jobs}
    for job in jobs:
        check_job(job, corpus.hash, len(corpus.splits["train"]), corpus.vocab_size)
        check_branch(job, parents)


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


def plan_study(preset: str | Path, out: str | Path, *, seed: int | None = None) -> StudyPlan:
    """What a study would do here: its corpus is built and the machine timed for a few seconds, nothing is trained."""
    config, folder, corpus = open_study(preset, out, seed, claim=False)
    choices, machine = choose(config, folder, corpus)
    kept = first_sizes(config, choices.num_shapes)
    estimate = machine.estimate(all_jobs(kept, corpus))
    rows = tuple(_row(plan.jobs, estimate.cohort_seconds[plan.id]) for plan in estimate.plans)
    seconds = estimate.seconds + FIT_SECONDS
    return StudyPlan(config, corpus.name, len(corpus.splits["train"]), rows, seconds, choices.flags)


def choose(config: StudyConfig, folder: Path, corpus: Corpus) -> tuple[Choices, Machine]:
    """Decide which sizes this machine can train within the study's time, or read what was decided before."""
    machine = measure_machine(
        all_jobs(config, corpus),
        corpus,
        backend=config.backend,
        device=config.device,
        precision=config.precision,
        workers=config.workers,
    )
    stored = read_choices(folder)
    return (stored or _decide(config, corpus, machine)), machine


def read_choices(folder: Path) -> Choices | None:
    """What was decided when the study began; None before that."""
    path = folder / "choices.json"
    return msgspec.json.decode(path.read_bytes(), type=Choices) if path.exists() else None


def write_choices(folder: Path, choices: Choices) -> None:
    """Keep the decisions beside the runs."""
    _write(folder / "choices.json", choices)


def _write(path: Path, record: Config) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2))
    part.replace(path)


def first_sizes(config: StudyConfig, num_shapes: int) -> StudyConfig:
    """The study without its largest sizes, in every stage."""
    if num_shapes >= len(config.shapes):
        return config

    def below(sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(size for size in sizes if size < num_shapes)

    stages: dict[str, Any] = {"shapes": config.shapes[:num_shapes]}
    stages["curves"] = msgspec.structs.replace(config.curves, seed_sizes=below(config.curves.seed_sizes))
    rate = config.learning_rate
    stages["learning_rate"] = msgspec.structs.replace(rate, sizes=below(rate.sizes))
    for name in ("data", "batches"):
        stage = getattr(config, name)
        if stage is not None:
            kept = below(stage.sizes)
            stages[name] = msgspec.structs.replace(stage, sizes=kept) if kept else None
    smaller: StudyConfig = msgspec.structs.replace(config, **stages)
    return smaller


def all_jobs(config: StudyConfig, corpus: Corpus) -> list[Job]:
    """Every run of the study, learning-rate trials included, at the rule's learning rates."""
    num_tokens = len(corpus.splits["train"])
    rule = small_model_learning_rate
    return trial_jobs(config, corpus.hash, num_tokens, rule) + study_jobs(config, corpus.hash, num_tokens, rule)


def _decide(config: StudyConfig, corpus: Corpus, machine: Machine) -> Choices:
    budget = _most_seconds(config)
    kept = len(config.shapes)
    estimate = machine.estimate(all_jobs(config, corpus))
    full = estimate.seconds
    while estimate.seconds > budget and kept > min(FEWEST_SIZES, len(config.shapes)):
        kept -= 1
        estimate = machine.estimate(all_jobs(first_sizes(config, kept), corpus))
    return Choices(
        num_shapes=kept, expected_seconds=float(estimate.seconds), flags=_flags(config, kept, full, estimate, budget)
    )


def _most_seconds(config: StudyConfig) -> float:
    return PATIENCE * 60 * config.minutes - FIT_SECONDS


def _flags(config: StudyConfig, kept: int, full: float, estimate: Estimate, budget: float) -> tuple[str, ...]:
    flags = []
    if kept < len(config.shapes):
        dropped = ", ".join(f"{shape_name(s)} N = {num_parameters(s):,}" for s in config.shapes[kept:])
        flags.append(
            f"This machine is too slow for every size: training all would take {full:.0f} s, at most {budget:.0f} s "
            f"are allowed. Left out from the top: {dropped}."
        )
    if estimate.seconds > budget:
        flags.append(
            f"Even the smallest {kept} sizes are expected to take {estimate.seconds:.0f} s instead of {budget:.0f} s."
        )
    return tuple(flags)


def _row(jobs: tuple[Job, ...], seconds: float) -> dict[str, Any]:
    shape, recipe = jobs[0].config.shape, jobs[0].config.recipe
    tokens = sum(job.num_updates * job.config.recipe.batch_tokens for job in jobs)
    return {
        "shape": shape_name(shape),
        "N": num_parameters(shape),
        "members": len(jobs),
        "batch_tokens": recipe.batch_tokens,
        "steps": max(job.config.recipe.steps for job in jobs),
        "tokens": tokens,
        "compute_flops": 6.0 * num_parameters(shape) * tokens,
        "seconds": seconds,
    }


def shape_name(shape: Shape) -> str:
    """``(layers, width)``."""
    return f"({shape.n_layer},{shape.d_model})"
