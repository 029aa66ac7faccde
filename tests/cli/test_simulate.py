"""The verb `simulate`: every truth and every kind of error that it draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from scaling_sim.cli import app
from scaling_sim.errors import ConfigError
from scaling_sim.runs.table import RunTable, read_runs
from tests.inference.support import chinchilla


def simulate(*arguments: str) -> None:
    outcome = CliRunner().invoke(app, ["simulate", *arguments])
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output


def drawn(path: Path, *arguments: str) -> RunTable:
    simulate(*arguments, "--out", str(path))
    return read_runs(path)


def test_curves_seeds_and_diverged_runs(tmp_path: Path) -> None:
    whole = drawn(tmp_path / "a.csv", "--constants", "besiroglu", "--curves", "--seeds", "4", "--noise", "0")
    assert whole.curve.all()
    assert whole.num_runs == 11
    np.testing.assert_allclose(whole.loss, np.asarray(whole.extra["expected_loss"], dtype=float))
    some = drawn(tmp_path / "b.csv", "--constants", "besiroglu", "--curves", "--seeds", "4", "--diverged", "0.5")
    assert 0 < some.num_runs < 11
    assert len(some.dropped["diverged"]) == len(whole) - len(some)


def test_errors_shared_along_a_curve(tmp_path: Path) -> None:
    table = drawn(
        tmp_path / "a.csv", "--law", "kaplan-ns", "--noise", "0", "--tau", "0.02", "--ell", "100", "--nu", "inf"
    )
    errors = np.log(table.loss / np.asarray(table.extra["expected_loss"], dtype=float))
    spread = np.mean([np.std(errors[table.run == run]) for run in np.unique(table.run)])
    assert spread < 0.3 * np.std(errors)


def test_a_saved_fit_is_a_truth(tmp_path: Path) -> None:
    from scaling_sim.inference import fit

    found = fit(chinchilla(0.34, 0.28, size=40), "chinchilla", min_ess=100)
    found.save(tmp_path / "fit.nc")
    name = str(tmp_path / "fit.nc")
    point, third, again = (
        drawn(tmp_path / "x.csv", "--fit", name, "--draw", draw, "--noise", "0") for draw in ("point", "3", "3")
    )
    expected = found.law.loss(found.point, {"N": point.N, "tokens": point.tokens})
    np.testing.assert_allclose(point.loss, expected, rtol=1e-12)
    assert third.data_hash == again.data_hash != point.data_hash
    fitted = drawn(tmp_path / "y.csv", "--fit", name)
    errors = np.log(fitted.loss / np.asarray(fitted.extra["expected_loss"], dtype=float))
    assert 0.3 < np.std(errors) / np.median(found.noise["sigma"]) < 6


def test_one_truth_at_a_time() -> None:
    with pytest.raises(ConfigError, match="give one of the three"):
        simulate("--law", "chinchilla", "--constants", "besiroglu")
    with pytest.raises(ConfigError, match="--draw must be a number"):
        simulate("--draw", "some")
