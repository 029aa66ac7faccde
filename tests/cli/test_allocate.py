"""Allocation and definitions from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scaling_sim.cli.plans import without_definitions
from scaling_sim.cli.wording import in_options
from tests.cli.test_cli import as_json, run

DEADLINE = ["--hours", "240", "--num-gpus", "250", "--flops-per-second", "1e15", "--utilisation", "0.4"]


def test_a_deadline_sets_batch_and_time() -> None:
    facts = as_json("allocate", "--constants", "kaplan-appendix-b", *DEADLINE, "--step-seconds", "10")
    assert facts["batch"] == "deadline"
    assert facts["time_seconds"]["median"] == pytest.approx(240 * 3600)
    assert facts["S_steps"]["median"] == pytest.approx(240 * 360)
    product = 6 * np.prod([facts[name]["median"] for name in ("N_parameters", "B_tokens", "S_steps")])
    assert product == pytest.approx(250 * 4e14 * 240 * 3600)


def test_limits_and_shape() -> None:
    asked = ("--max-n", "7e9", "--unique-tokens", "1e12", "--shape", "d_head=128", "--shape", "aspect=80")
    facts = as_json("allocate", "--constants", "muennighoff", "-C", "1e24", *asked)
    assert facts["limits"] == {"max_N_parameters": 7e9, "unique_tokens": 1e12}
    assert facts["N_parameters"]["median"] == 7e9
    assert facts["epochs"]["median"] > 1
    shape = facts["buildable"]
    assert shape["N_parameters"] <= 7e9
    assert shape["d_model"] == 128 * shape["n_head"]
    assert shape["assumed"]["aspect"] == 80
    assert "penalty_nats" in run("allocate", "--constants", "besiroglu", "-C", "1e24").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--hours", "1"), "--hours alone is a budget only with --num-gpus and --flops-per-second"),
        ((), "exactly one of --compute, --pf-days, --gpu-hours, --money must be given, got none; without one, --hours"),
        (("-C", "1e20", "--method", "isoflop", "--batch", "1e6"), "leave --batch and --step-seconds out"),
        (("--gpu-hours", "8"), "a budget in --gpu-hours needs --flops-per-second, which depends on your machine"),
        (("-C", "1e20", "--max-n", "-1"), "--max-n must be above 0"),
        (("-C", "1e20", "--shape", "d_head"), "--shape must read NAME=VALUE"),
        (("-C", "1e20", "--shape", "width=3"), "a shape is described by d_head, aspect"),
    ],
)
def test_usage(arguments: tuple[str, ...], message: str) -> None:
    assert message in run("allocate", "--constants", "besiroglu", *arguments, expect=2).stderr


def test_only_options_of_the_verb_are_named_and_words_stay_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["scaling-sim", "allocate"])
    assert in_options(
        "method='isoflop' reads a batch; max_N=3, not sweep.gpu_hours or 'num_gpus'; width= is unknown"
    ) == ("--method 'isoflop' reads a batch; --max-n 3, not sweep.gpu_hours or 'num_gpus'; width= is unknown")
    monkeypatch.setattr("sys.argv", ["scaling-sim", "design"])
    assert in_options("batch_tokens= and gpu_hours=") == "--run-batch and gpu_hours="


def test_the_long_table_of_definitions_is_pointed_to() -> None:
    short = without_definitions({"law": "chinchilla", "definitions": {"rows": [1, 2]}})
    assert "`scaling-sim definitions RUNS`" in short.pop("definitions")
    assert without_definitions(short) == short == {"law": "chinchilla"}


def test_definitions_of_a_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["N,tokens,loss,all"]
    for n in np.geomspace(1e6, 1e9, 7):
        total = n + 4e4 * np.cbrt(n)
        for tokens in np.geomspace(1e8, 1e11, 6):
            loss = (1.8 + 480 * total**-0.35 + 2000 * tokens**-0.36) * np.exp(0.002 * rng.standard_normal())
            lines.append(f"{n},{tokens},{loss},{total}")
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines))
    drawn = tmp_path / "definitions.svg"
    facts = as_json("definitions", str(path), "--count", "N_total=all", "-C", "1e19", "--figure", str(drawn))
    assert "</svg>" in drawn.read_text()
    own, total = (facts["definitions"][name]["exponent"]["median"] for name in ("own", "total"))
    assert own > total + 0.02
    assert facts["pearce_song_mapping"]["omega"] == pytest.approx(4e4, rel=0.01)
    assert "The exponent of N* goes from" in run("definitions", str(path), "--count", "N_total=all").stdout
    assert "need the models' shapes" in run("definitions", str(path), expect=4).stderr
