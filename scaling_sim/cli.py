"""The command line: one verb per thing that the Python API does, results on stdout, progress on stderr.

Exit codes: 0 fine, 1 unexpected, 2 usage, 3 a posterior did not converge, 4 bad data, 130 interrupted (resumable).
"""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling_sim import __version__
from scaling_sim.config import json_text
from scaling_sim.errors import ConfigError, DataError, ScalingSimError

if TYPE_CHECKING:
    from scaling_sim.inference.posterior import Posterior
    from scaling_sim.laws.base import Law
    from scaling_sim.laws.constants import ConstantSet
    from scaling_sim.runs.table import RunTable

app = typer.Typer(
    name="scaling-sim",
    help="Train families of small transformers, fit scaling laws, predict what a larger budget buys.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Seed = Annotated[int, typer.Option(help="Of every random choice: same seed, same numbers.")]
StudySeed = Annotated[int | None, typer.Option(help="Replaces the study's own seed.", show_default=False)]
NoSeed = Annotated[int, typer.Option(help="Taken by every verb; nothing here is random.", hidden=True)]
Columns = Annotated[
    str | None,
    typer.Option(help='Ours=theirs, comma separated; arithmetic is fine: "N=params,D=bs*steps*2048,loss=final_loss".'),
]
Where = Annotated[
    list[str] | None, typer.Option(help='A condition that rows must meet, repeated: "train_data=c4", "loss<3.5".')
]
Duplicates = Annotated[
    str, typer.Option(help="Rows of equal run id and step: `refuse` them, keep the `first` or `last`.")
]
FitFile = Annotated[Path | None, typer.Argument(help="A fit written by `scaling-sim fit --out`.", show_default=False)]
Constants = Annotated[str | None, typer.Option(help="A published set of constants in place of a fit.")]


# ------------------------------------------------------------------------------------------------ the main job


@app.command()
def study(
    preset: Annotated[str, typer.Argument(help="`laptop`, or a TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder of the study; the same command again resumes.")] = Path("study"),
    seed: StudySeed = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print runs, FLOPs and expected time; train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Sweep, fit, predict, report.

    Example: scaling-sim study laptop --out study
    """
    from scaling_sim.study import plan_study, run_study

    if dry_run:
        planned = plan_study(preset, out, seed=seed)
        _show(planned.to_json(), as_json, planned.describe)
        return
    with _resumable():
        finished = run_study(preset, out, seed=seed, say=_say, command=_command())
    _show(finished.to_json(), as_json, finished.describe)
    if not finished.fits:
        _say("error: no law could be fitted to these runs; the notes above say why")
        raise typer.Exit(DataError.exit_code)
    _exit_unless(finished.converged)


@app.command()
def sweep(
    preset: Annotated[str, typer.Argument(help="`laptop`, or a TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder of the study; the same command again resumes.")] = Path("study"),
    seed: StudySeed = None,
    as_json: Json = False,
) -> None:
    """Train only: the sweep of a study without fits and report.

    Example: scaling-sim sweep study.toml --out study
    """
    from scaling_sim.study import run_sweep_of_study

    with _resumable():
        summary = run_sweep_of_study(preset, out, seed=seed, say=_say)
    _show(summary, as_json, lambda: "\n".join(f"{key}: {value}" for key, value in summary.items()))


# ------------------------------------------------------------------------------------------------ runs and fits


@app.command()
def runs(
    source: Annotated[
        Path, typer.Argument(metavar="RUNS", help="Study folder, CSV, Parquet or JSONL; - for CSV on stdin.")
    ],
    columns: Columns = None,
    where: Where = None,
    duplicates: Duplicates = "refuse",
    export: Annotated[Path | None, typer.Option(help="Write the validated table: .csv or .parquet.")] = None,
    seed: NoSeed = 0,
    as_json: Json = False,
) -> None:
    """List, validate and export runs.

    Example: scaling-sim runs study --export runs.csv
    """
    table = _read(source, columns, where, duplicates)
    if export is not None:
        _export(table, export)
    facts = {
        "n_rows": len(table),
        "n_runs": len(set(table.run.tolist())),
        "n_dropped": sum(len(rows) for rows in table.dropped.values()),
        "dropped": {reason: list(rows) for reason, rows in table.dropped.items()},
        "notes": list(table.notes),
        "data_hash": table.data_hash,
        "simulated": table.simulated,
    }
    _show(facts, as_json, lambda: f"{table.to_dataframe().to_string(max_rows=40)}\n\n{_lines(facts)}")


@app.command()
def fit(
    source: Annotated[
        Path, typer.Argument(metavar="RUNS", help="Study folder, CSV, Parquet or JSONL; - for CSV on stdin.")
    ],
    law: Annotated[str, typer.Option(help="See `scaling-sim laws`.")] = "chinchilla",
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of the law, repeated: source=sweep, shared=false.")
    ] = None,
    columns: Columns = None,
    where: Where = None,
    duplicates: Duplicates = "refuse",
    point: Annotated[
        bool, typer.Option("--point", help="The log-Huber minimum only: a fraction of a second, no uncertainty.")
    ] = False,
    delta: Annotated[
        float | None, typer.Option(help="Threshold of the Huber loss, with --point.  [default: 1e-3]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Save the posterior (NetCDF, opens in ArviZ).")] = None,
    min_ess: Annotated[int, typer.Option(help="Effective draws per parameter to reach.")] = 1000,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fit a law to runs and sample its posterior, or with --point find its log-Huber minimum.

    Example: scaling-sim fit runs.csv --law chinchilla --columns "N=params,D=tokens,loss=final_loss" --out fit.nc
    """
    import scaling_sim as ss

    if point and out is not None:
        raise ConfigError("--out saves draws and --point makes none; leave one of them out")
    if delta is not None and not point:
        raise ConfigError("--delta is the threshold of the point estimate; it goes with --point")
    with _interruptible("interrupted; nothing was saved"):
        form = ss.get_law(law, **_law_options(option or []))
        table = _read(source, columns, where, duplicates)
        if point:
            _fit_point(table, form, 1e-3 if delta is None else delta, as_json)
            return
        posterior = _fit_posterior(table, form, seed, min_ess)
        if out is not None:
            posterior.save(out)
    _show(posterior.to_json(), as_json, lambda: _describe_fit(posterior))
    _exit_unless(posterior.converged)


@app.command()
def laws(seed: NoSeed = 0, as_json: Json = False) -> None:
    """List the laws: parameters, options and the columns that each needs.

    Example: scaling-sim laws
    """
    import scaling_sim as ss

    table = {
        name: {
            "parameters": list(law.parameters),
            "columns": list(law.columns),
            "options": _options_of(law),
            "formula": _first_line(law),
        }
        for name, law in ((name, ss.get_law(name)) for name in ss.law_names())
    }
    _show(table, as_json, lambda: "\n".join(f"{name:18s} {facts['formula']}" for name, facts in table.items()))


@app.command()
def compare(
    source: Annotated[list[Path], typer.Argument(metavar="FIT...", help="Saved fits, or one table of runs and --law.")],
    law: Annotated[list[str] | None, typer.Option(help="With runs: once for each law to fit and compare.")] = None,
    columns: Columns = None,
    methods: Annotated[
        bool, typer.Option("--methods", help="Law, isoFLOP minima and envelope: do they agree on the best size?")
    ] = False,
    compute: Annotated[
        list[float] | None, typer.Option("-C", "--compute", help="With --methods: a budget in FLOP, repeated.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare laws on the same runs (leave-one-out and back-test), or ways to find the best size.

    Example: scaling-sim compare runs.csv --law chinchilla --law power-n; scaling-sim compare fit.nc --methods
    """
    import scaling_sim as ss

    if compute and not methods:
        raise ConfigError("--compute goes with --methods: laws are compared without a budget")
    if law:
        if len(source) != 1:
            raise ConfigError(f"--law goes with one table of runs, got {len(source)} files")
        table = _read(source[0], columns)
        fits = [ss.fit(table, law=name, seed=seed) for name in law]
    else:
        fits = [_load(path) for path in source]
    answers = [ss.compare_methods(fit, compute or None, seed=seed) for fit in fits] if methods else [ss.compare(fits)]
    facts = [answer.to_json() for answer in answers]
    _show(
        facts[0] if len(facts) == 1 else {fit.law_name: fact for fit, fact in zip(fits, facts, strict=True)},
        as_json,
        lambda: "\n\n".join(map(str, answers)),
    )
    _exit_unless(all(fit.converged for fit in fits))


@app.command()
def simulate(
    law: Annotated[str | None, typer.Option(help="Law of the truth; `chinchilla` if nothing else is given.")] = None,
    parameter: Annotated[list[str] | None, typer.Option("--parameter", "-p", help="NAME=VALUE, repeated.")] = None,
    constants: Constants = None,
    fit_file: Annotated[Path | None, typer.Option("--fit", help="A saved fit as the truth.")] = None,
    draw: Annotated[str, typer.Option(help="Of --fit: `point`, `random` or the number of a draw.")] = "point",
    noise: Annotated[float | None, typer.Option(help="Scale of the noise on log loss; that of --fit, or .005.")] = None,
    tau: Annotated[
        float | None, typer.Option(help="Scale of the errors shared along a curve; that of --noise.")
    ] = None,
    ell: Annotated[float | None, typer.Option(help="E-folds of steps over which these decay; 1.")] = None,
    nu: Annotated[float | None, typer.Option(help="Degrees of freedom of the noise, inf is normal; 5.")] = None,
    curves: Annotated[bool, typer.Option("--curves", help="Learning curves, whatever the law.")] = False,
    seeds: Annotated[int, typer.Option(help="Runs of each cell, or of each repeated curve; 0: as usual.")] = 0,
    diverged: Annotated[float, typer.Option(help="Share of runs that diverge: left out and named.")] = 0.0,
    out: Annotated[Path | None, typer.Option(help="CSV to write; stdout without it.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Draw a complete sweep from a known law or a saved fit: for calibration, teaching, design.

    Example: scaling-sim simulate --law chinchilla -p alpha=0.5 -p beta=0.25 --out simulated.csv
    """
    import scaling_sim as ss
    from scaling_sim.predict.noise import Noise
    from scaling_sim.predict.simulate import design_of

    truth = _truth(law, parameter or [], constants, fit_file)
    chosen = _given({"sigma": noise, "tau": tau, "ell": ell, "nu": nu})
    given = None if fit_file and not chosen else Noise(**chosen)
    plan = design_of(truth, curves=curves, seeds=seeds)
    which = draw if draw in ("point", "random") else int(_number("--draw", draw))
    table = ss.simulate(truth, plan, noise=given, diverged=diverged, draw=which, seed=seed)
    if out is not None or not as_json:
        table.to_csv(sys.stdout if out is None else out)
    if as_json:
        rows = [] if out else table.to_dataframe().to_dict(orient="records")
        print(json_text({"n_rows": len(table), "simulated": True, "seed": seed, "out": out, "rows": rows}))
    _say(f"{len(table)} simulated rows{f' in {out}' if out else ''}")


# ------------------------------------------------------------------------------------------------ predictions


@app.command()
def forecast(
    fit_file: FitFile = None,
    constants: Constants = None,
    n: Annotated[float | None, typer.Option("-N", "--N", help="Parameters.")] = None,
    d: Annotated[float | None, typer.Option("-D", "--D", help="Unique training tokens.")] = None,
    tokens: Annotated[float | None, typer.Option(help="Tokens processed.")] = None,
    batch: Annotated[float | None, typer.Option("-B", "--batch", help="Tokens per step.")] = None,
    steps: Annotated[float | None, typer.Option("-S", "--steps", help="Parameter updates.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Loss of a run that has not been made.

    Example: scaling-sim forecast fit.nc -N 1e9 -D 2e10
    """
    import scaling_sim as ss

    if n is None:
        raise ConfigError("forecast needs the model's size: -N 1e9")
    asked = {"D": d, "tokens": tokens, "B": batch, "S": steps}
    prediction = ss.forecast(_fit_or_constants(fit_file, constants), N=n, seed=seed, **_given(asked))
    _predicted(prediction, as_json)


@app.command()
def allocate(
    fit_file: FitFile = None,
    constants: Constants = None,
    compute: Annotated[float | None, typer.Option("-C", "--compute", help="Budget in FLOP.")] = None,
    pf_days: Annotated[float | None, typer.Option(help="Budget in PF-days.")] = None,
    gpu_hours: Annotated[float | None, typer.Option(help="Budget in GPU-hours; needs --flops-per-second.")] = None,
    flops_per_second: Annotated[float | None, typer.Option(help="Sustained FLOP/s of one GPU.")] = None,
    utilisation: Annotated[float | None, typer.Option(help="Share of --flops-per-second sustained, 0 to 1.")] = None,
    money: Annotated[float | None, typer.Option(help="Budget in money; needs --price-per-gpu-hour.")] = None,
    price_per_gpu_hour: Annotated[float | None, typer.Option(help="In the unit of --money.")] = None,
    batch: Annotated[str, typer.Option(help="`critical`, or tokens per step.")] = "critical",
    seed: NoSeed = 0,
    as_json: Json = False,
) -> None:
    """Compute-optimal N, D, B, S and loss for a budget.

    Example: scaling-sim allocate fit.nc --compute 5.76e23
    """
    import scaling_sim as ss

    budget = {
        "compute": compute,
        "pf_days": pf_days,
        "gpu_hours": gpu_hours,
        "flops_per_second": flops_per_second,
        "utilisation": utilisation,
        "money": money,
        "price_per_gpu_hour": price_per_gpu_hour,
    }
    size = batch if batch == "critical" else _number("--batch", batch)
    _predicted(ss.allocate(_fit_or_constants(fit_file, constants), batch=size, **_given(budget)), as_json)


@app.command()
def crossover(
    fit_file: FitFile = None,
    constants: Constants = None,
    method: Annotated[str | None, typer.Option(help="`appendix-b` (the default of fits) or `frontier`.")] = None,
    threshold: Annotated[float, typer.Option(help="Relative overfitting that tension means, by (4.3).")] = 0.02,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Where the compute law and the data law contradict each other (Kaplan et al. 2020, section 6.3).

    Example: scaling-sim crossover --constants kaplan-table6
    """
    import scaling_sim as ss

    fitted = _fit_or_constants(fit_file, constants)
    _predicted(ss.crossover(fitted, method, threshold=threshold, seed=seed), as_json)


@app.command()
def design(
    fit_file: FitFile = None,
    compute: Annotated[
        float | None, typer.Option("-C", "--compute", help="The target: N* at this budget, FLOP.")
    ] = None,
    budget: Annotated[float | None, typer.Option(help="FLOP to spend on the next runs.")] = None,
    seed: NoSeed = 0,
    as_json: Json = False,
) -> None:
    """Which runs to make next so that N* at a budget becomes surer.

    Example: scaling-sim design fit.nc --compute 1e22 --budget 1e20
    """
    import scaling_sim as ss

    if compute is None or budget is None:
        raise ConfigError("design needs the target --compute and the --budget of the next runs, both in FLOP")
    _predicted(ss.design(_fit_or_constants(fit_file, None), compute=compute, budget=budget), as_json)


# ------------------------------------------------------------------------------------------------ report, backends


@app.command()
def report(
    source: Annotated[Path, typer.Argument(help="Study folder or a saved fit.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    seed: NoSeed = 0,
    as_json: Json = False,
) -> None:
    """One self-contained HTML file about a study or a single fit.

    Example: scaling-sim report fit.nc --out report.html
    """
    from scaling_sim.study import report_on

    written = report_on(source, out, command=_command())
    _show({"report": str(written)}, as_json, lambda: str(written))


@app.command()
def reproduce(
    name: Annotated[
        str, typer.Argument(help="`kaplan-arithmetic`: the paper's printed values beside its constants' own.")
    ],
    seed: NoSeed = 0,
    as_json: Json = False,
) -> None:
    """A published result: its values beside ours.

    Example: scaling-sim reproduce kaplan-arithmetic
    """
    from scaling_sim.study.reproduce import reproduce as run

    table = run(name)
    _show({"name": name, "rows": table.to_dict(orient="records")}, as_json, lambda: table.to_string(index=False))


@app.command()
def backends(seed: NoSeed = 0, as_json: Json = False) -> None:
    """What can train here, and why the rest cannot.

    Example: scaling-sim backends
    """
    import scaling_sim as ss

    found = ss.backends()
    facts = {
        info.name: {"available": info.available, "devices": list(info.devices), "reason": info.reason} for info in found
    }
    lines = [
        f"{info.name:8s} {', '.join(info.devices) if info.available else f'not here: {info.reason}'}" for info in found
    ]
    _show(facts, as_json, lambda: "\n".join(lines))


# ------------------------------------------------------------------------------------------------ shared by the verbs


@contextmanager
def _interruptible(message: str) -> Iterator[None]:
    """Say on Ctrl-C what became of the work, and exit with 130."""
    try:
        yield
    except KeyboardInterrupt:
        _say(message)
        raise typer.Exit(130) from None


def _resumable() -> AbstractContextManager[None]:
    return _interruptible("interrupted; the same command again resumes")


def _read(source: Path, columns: str | None, where: list[str] | None = None, duplicates: str = "refuse") -> Any:
    from scaling_sim.runs import read_runs

    return read_runs(str(source), columns=columns, where=where or (), duplicates=duplicates)  # type: ignore[arg-type]


def _fit_point(table: RunTable, law: Law, delta: float, as_json: bool) -> None:
    import time

    import scaling_sim as ss

    began = time.perf_counter()
    found = ss.point_fit(table, law, delta=delta)
    facts = {**found.to_json(), "seconds": time.perf_counter() - began}
    _show(facts, as_json, lambda: _lines({**facts, "dropped": _counts(found.dropped)}))
    if not found.agreed:
        _say("warning: the two best starts ended in different minima; do not rely on these numbers")
        raise typer.Exit(3)


def _fit_posterior(table: RunTable, law: Law, seed: int, min_ess: int) -> Posterior:
    import scaling_sim as ss
    from scaling_sim.study.fit_display import FitDisplay

    # Below a thousand rows a second process costs more to start than it saves; the numbers are the same either way.
    processes = min(4, os.cpu_count() or 1) if len(table) >= 1000 else 1
    with FitDisplay(law.name) as display:
        posterior: Posterior = ss.fit(
            table, law, seed=seed, min_ess=min_ess, processes=processes, progress=display.update
        )
    return posterior


def _law_options(pairs: list[str]) -> dict[str, Any]:
    """``shared=false`` and the like, with true, false and numbers read as such."""
    split = [pair.partition("=") for pair in pairs]
    wrong = [name for name, equals, value in split if not (name.strip() and equals and value.strip())]
    if wrong:
        raise ConfigError(f"--option must read NAME=VALUE, such as source=sweep or shared=false; got {wrong[0]!r}")
    return {name.strip().replace("-", "_"): _literal(value.strip()) for name, _, value in split}


def _literal(text: str) -> Any:
    try:
        return {"true": True, "false": False}.get(text.lower(), text) if text[:1].isalpha() else float(text)
    except ValueError:
        return text


def _options_of(law: Law) -> dict[str, Any]:
    """Keyword arguments of a law with their defaults."""
    from inspect import signature

    return {name: p.default for name, p in signature(type(law)).parameters.items() if p.default is not p.empty}


def _counts(dropped: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    return {reason: len(names) for reason, names in dropped.items()}


def _export(table: Any, path: Path) -> None:
    writers = {".csv": table.to_csv, ".parquet": table.to_parquet}
    if path.suffix not in writers:
        raise ConfigError(f"--export writes {' or '.join(writers)}, got {path.name!r}")
    writers[path.suffix](path)
    _say(f"{len(table)} rows in {path}")


def _fit_or_constants(fit_file: Path | None, constants: str | None) -> Posterior | ConstantSet:
    import scaling_sim as ss

    if (fit_file is None) == (constants is None):
        raise ConfigError("give a saved fit (FIT.nc) or --constants NAME, one of the two")
    chosen: Posterior | ConstantSet = ss.constants(constants) if constants else _load(fit_file)
    return chosen


def _load(path: Path | None) -> Posterior:
    import scaling_sim as ss

    if path is None or not path.is_file():
        raise DataError(f"there is no file {path}; write one with: scaling-sim fit RUNS --out {path}")
    fit: Posterior = ss.load_fit(path)
    return fit


def _truth(law: str | None, pairs: list[str], constants: str | None, fit_file: Path | None) -> Any:
    """What `simulate` draws from; exactly one of a law with parameters, published constants and a saved fit."""
    import scaling_sim as ss

    if sum((law is not None or bool(pairs), constants is not None, fit_file is not None)) > 1:
        raise ConfigError("the truth is --law with -p, or --constants NAME, or --fit FIT.nc: give one of the three")
    if fit_file is not None:
        return _load(fit_file)
    return ss.constants(constants) if constants else {"law": law or "chinchilla", **_parameters(pairs)}


def _parameters(pairs: list[str]) -> dict[str, float]:
    split = [pair.partition("=") for pair in pairs]
    return {name.strip(): _number(f"-p {name}", value) for name, _, value in split}


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{option} must be a number, got {text!r}") from None


def _given(options: Mapping[str, float | None]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _predicted(prediction: Any, as_json: bool) -> None:
    facts = prediction.to_json()
    _show(facts, as_json, lambda: _lines(facts))
    _exit_unless(facts.get("converged", True) is not False)


def _show(facts: Mapping[str, Any], as_json: bool, text: Callable[[], str]) -> None:
    print(json_text(facts) if as_json else text())


def _lines(facts: Mapping[str, Any], indent: str = "") -> str:
    return "\n".join(_line(key, value, indent) for key, value in facts.items())


def _line(key: str, value: Any, indent: str) -> str:
    if isinstance(value, Mapping) and "median" in value and "interval90" in value:
        low, high = value["interval90"]
        return f"{indent}{key:28s} {_short(value['median']):>11s}   90 %: {_short(low)} to {_short(high)}"
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return "\n".join([f"{indent}{key}:", *(_lines(item, indent + "  ") + "\n" for item in value)])
    if isinstance(value, list):
        return f"{indent}{key:28s} {'; '.join(map(str, value)) or 'none'}"
    if isinstance(value, Mapping):
        return f"{indent}{key}:\n{_lines(value, indent + '  ')}" if value else f"{indent}{key:28s} none"
    return f"{indent}{key:28s} {_short(value)}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _describe_fit(posterior: Posterior) -> str:
    counts = f"{posterior.n_used} rows used, {posterior.n_dropped} left out"
    reasons = "".join(f"\n  {count} {reason}" for reason, count in _counts(posterior.dropped).items())
    notes = "".join(f"\nnote: {note}" for note in posterior.notes)
    table = posterior.summary().to_string(float_format=lambda value: f"{value:.4g}")
    return f"{posterior.law_name}: {counts}{reasons}\n\n{table}\n\n{posterior.diagnostics.verdict}{notes}"


def _first_line(law: Any) -> str:
    return (type(law).__doc__ or "").strip().splitlines()[0]


def _exit_unless(converged: bool) -> None:
    if not converged:
        _say("warning: the posterior did not converge; do not rely on these numbers")
        raise typer.Exit(3)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _command() -> str:
    return shlex.join(["scaling-sim", *sys.argv[1:]])


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {message}")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: turns errors into one line on stderr and an exit code."""
    warnings.showwarning = _warn
    try:
        app()
    except ScalingSimError as error:
        _say(f"error: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
