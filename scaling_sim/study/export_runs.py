"""Planned runs for other people's machinery: a table, a Slurm array script, or sweep files of our own."""

from __future__ import annotations

import csv
import io
import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling_sim.config import to_record
from scaling_sim.errors import ConfigError, StoreError
from scaling_sim.model.count import num_parameters
from scaling_sim.model.shape import Shape
from scaling_sim.predict.design import PlannedRun
from scaling_sim.runs.sources import escape
from scaling_sim.study.commands import Command
from scaling_sim.study.config import StudyConfig

PLAN_COLUMNS = ("run", "kind", "N", "tokens", "D", "B", "S", "seed", "cost_flop")
ASPECT = 64.0
"""d_model/n_layer that shapes are built near: loss hardly depends on it from 20 to 200 (Kaplan et al. 2020, fig. 5)."""
HEAD = 64
DECAY = 0.25
"""Length of a decay branch as a share of the steps before it, `CurveStage.decay_fraction`."""
WARMUP = 0.02
MIN_WARMUP = 10


def export_runs(
    runs: Sequence[PlannedRun],
    path: str | Path,
    *,
    command: str | None = None,
    out: str = "next-runs",
    n_ctx: int = 64,
    vocab_size: int = 256,
    batch_tokens: int | None = None,
) -> list[Path]:
    """Write planned runs; the suffix of ``path`` says how: ``.csv``, ``.slurm`` (or ``.sh``), ``.toml``.

    Parameters
    ----------
    runs : of `Design.runs`
    command : template of `Command` for each task of the Slurm array
    out : folder in which the Slurm tasks leave their logs, where `execute` without a command reads them
    n_ctx, vocab_size : of the shapes in sweep files
    batch_tokens : tokens per step of sweep files where the runs leave it open

    Returns
    -------
    list of Path
        What was written. Sweep files are one per size and batch (``NAME-N.toml``, or ``NAME-N-batch-B.toml`` for a size
        of several), since these differ in their steps.
    """
    path = Path(path)
    if not runs:
        raise ConfigError("there are no runs to export; give the design a larger budget")
    if path.suffix == ".csv":
        return [_save(path, plan_csv(runs))]
    if path.suffix in (".slurm", ".sh"):
        if command is None:
            raise ConfigError("a Slurm script needs the training command: command='python train.py --params {N}'")
        return [_save(path, slurm_script(runs, command, out))]
    if path.suffix == ".toml":
        made = sweep_files(runs, n_ctx, vocab_size, batch_tokens)
        return [_save(path.with_name(f"{path.stem}-{name}.toml"), text) for name, text in made.items()]
    raise ConfigError(f"plans are exported to .csv, .slurm (or .sh) or .toml, got {path.name!r}")


def plan_csv(runs: Sequence[PlannedRun]) -> str:
    """A table that `scaling_sim.study.external.read_plan` reads, harmless for spreadsheets."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(PLAN_COLUMNS)
    for run in runs:
        values = run.values()
        writer.writerow([_cell(values[name]) for name in PLAN_COLUMNS])
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return escape(value) if isinstance(value, str) else repr(float(value)) if isinstance(value, float) else str(value)


def slurm_script(runs: Sequence[PlannedRun], command: str, out: str = "next-runs") -> str:
    """A job array with one task per run; every word of every command is quoted for the shell.

    A task keeps the log and the exit code of its run where `execute` without a command finds them.
    """
    template = Command(command)
    _one_line(command, out)
    folder = shlex.quote(out)
    lines = [
        "#!/bin/bash",
        "#SBATCH --job-name=scaling-sim",
        f"#SBATCH --array=0-{len(runs) - 1}",
        "# Runs chosen by: scaling-sim design. Add --partition, --gres, --time here, or on the command line of sbatch.",
        "set -u",
        f"OUT={folder}",
        'run_one() { mkdir -p "$OUT/$1"; rm -f "$OUT/$1/exit"; : > "$OUT/$1/started"; local own="$OUT/$1"; shift',
        '  "$@" > "$own/log.txt" 2>&1; local code=$?; echo "$code" > "$own/exit"; return "$code"; }',
        'case "${SLURM_ARRAY_TASK_ID:?start this with sbatch}" in',
    ]
    for number, run in enumerate(runs):
        values = {**run.values(), "folder": f"{out}/{run.run}", "log": f"{out}/{run.run}/log.txt"}
        lines.append(f"  {number}) run_one {shlex.quote(run.run)} {template.quoted(values)} ;;")
    return "\n".join([*lines, '  *) echo "no such task" >&2; exit 2 ;;', "esac", ""])


def _one_line(*texts: str) -> None:
    """A line break inside a word would end a comment or directive of the script."""
    for text in texts:
        if any(ord(letter) < 32 for letter in text):
            raise ConfigError(f"commands and folders of a Slurm script must not hold control characters, got {text!r}")


def sweep_files(
    runs: Sequence[PlannedRun], n_ctx: int = 64, vocab_size: int = 256, batch_tokens: int | None = None
) -> dict[str, str]:
    """A study file for `scaling-sim sweep` per size and batch: N of the nearest shape, and the batch → TOML.

    A finished run becomes a decay branch of its size's learning curve, which costs less than runs of their own; an
    early-stopped run joins the stage ``data``. Tokens are rounded to whole steps. Copies of a run repeat
    the curve, not its branches.

    Raises
    ------
    ConfigError
        The batch is not known, or a run is shorter than its warm-up.
    """
    groups: dict[tuple[Shape, int], list[PlannedRun]] = {}
    for run in runs:
        shape = nearest_shape(run.candidate.N, n_ctx, vocab_size)
        groups.setdefault((shape, _batch(run, batch_tokens, n_ctx)), []).append(run)
    several = Counter(num_parameters(shape) for shape, _ in groups)
    files = {}
    for (shape, batch), mine in groups.items():
        N = num_parameters(shape)
        name = f"{N}-batch-{batch}" if several[N] > 1 else str(N)
        tree = _study(shape, mine, batch, f"next-{name}")
        to_record(tree, StudyConfig, origin="the exported sweep")
        files[N, batch] = name, _toml(tree)
    return dict(files[key] for key in sorted(files))


def _batch(run: PlannedRun, otherwise: int | None, n_ctx: int) -> int:
    """Tokens per step of a run, whole windows."""
    B = run.candidate.B if run.candidate.B is not None else otherwise
    if B is None:
        raise ConfigError("a sweep file needs the tokens per step: give the design a batch, or batch_tokens=")
    return n_ctx * max(1, round(B / n_ctx))


def nearest_shape(N: float, n_ctx: int, vocab_size: int) -> Shape:
    """The shape with N = 12·n_layer·d_model² nearest to ``N`` among those with an aspect ratio about `ASPECT`."""
    best = (math.inf, 1, 8)
    for n_layer in range(1, 201):
        width = math.sqrt(N / (12 * n_layer))
        step = HEAD if width >= 4 * HEAD else 8 if width >= 32 else 2
        d_model = max(step, step * round(width / step))
        miss = abs(math.log(12 * n_layer * d_model**2 / N))
        best = min(best, (miss + 0.02 * abs(math.log(d_model / n_layer / ASPECT)), n_layer, d_model))
    _, n_layer, d_model = best
    n_head = max(h for h in range(1, max(d_model // HEAD, 1) + 1) if d_model % h == 0)
    return Shape(n_layer=n_layer, d_model=d_model, n_head=n_head, n_ctx=n_ctx, vocab_size=vocab_size)


def _study(shape: Shape, runs: Sequence[PlannedRun], batch: int, name: str) -> dict[str, Any]:
    curves = _curves([run for run in runs if run.candidate.kind != "stopped"], batch)
    stopped = [run.candidate for run in runs if run.candidate.kind == "stopped"]
    tree: dict[str, Any] = {
        "name": name,
        "shapes": [{name: getattr(shape, name) for name in ("n_layer", "d_model", "n_head", "n_ctx", "vocab_size")}],
        "curves": {"batch_tokens": batch, **curves},
    }
    if stopped:
        longest = max(c.cost / (6 * c.N * batch) for c in stopped)
        tree["data"] = {
            "sizes": [0],
            "unique_tokens": sorted({round(c.D or 0) for c in stopped}),
            "batch_tokens": batch,
            "max_steps": math.ceil(2 * longest),
        }
    return tree


def _curves(runs: Sequence[PlannedRun], batch: int) -> dict[str, Any]:
    """Steps of the learning curve, the branches that end as the planned runs do, and extra seeds.

    Without such runs the curve ends within its warm-up, so that no fit reads it.
    """
    if not runs:
        return {"steps": 1, "warmup_steps": MIN_WARMUP}
    steps = {run: max(1, round((run.candidate.tokens or 0) / batch)) for run in runs}
    branches = sorted({max(1, round(s / (1 + DECAY))) for run, s in steps.items() if run.candidate.kind == "final"})
    longest = max([s for run, s in steps.items() if run.candidate.kind == "curve"] + branches)
    warmup = max(MIN_WARMUP, round(WARMUP * longest))
    if min(steps.values()) <= 2 * warmup:
        raise ConfigError(
            f"a run of {min(steps.values())} steps ends within twice its warm-up ({2 * warmup} steps); "
            "give a smaller batch_tokens"
        )
    extra = max(run.seed for run in runs)
    seeds = {"seeds": extra, "seed_sizes": [0]} if extra else {}
    return {"steps": longest, "warmup_steps": warmup, "branch_steps": branches, "decay_fraction": DECAY, **seeds}


def _toml(tree: Mapping[str, Any]) -> str:
    """TOML of a study: plain keys first, then tables; strings escaped as JSON does, which TOML reads."""
    import json

    plain = [f"{name} = {json.dumps(value)}" for name, value in tree.items() if not _is_table(value)]
    for name, value in tree.items():
        for table in [value] if isinstance(value, Mapping) else value if _is_table(value) else []:
            plain += ["", f"[{name}]" if isinstance(value, Mapping) else f"[[{name}]]"]
            plain += [f"{key} = {json.dumps(cell)}" for key, cell in table.items()]
    return "\n".join([*plain, ""])


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _save(path: Path, text: str) -> Path:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}; choose another file") from error
    return path
