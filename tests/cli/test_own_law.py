"""Laws of one's own on the command line: imported by module or file, named where a saved fit needs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MODULE = '''
import numpy as np
import scaling_sim as ss
from scaling_sim.laws import Coordinate, Normal
from scaling_sim.laws.base import stack


@ss.register_law
class InTokens(ss.Law):
    """L(tokens) = L_1 (tokens / 1e9)^-alpha."""

    name = "in-tokens"
    parameters = ("alpha", "L_1")
    columns = ("tokens",)

    def coordinates(self, centre):
        return Coordinate("log_loss", Normal(0.0, 0.5)), Coordinate("log_alpha", Normal(np.log(0.1), 1.0))

    def to_parameters(self, u, centre):
        alpha = np.exp(u[:, 1])
        log_L_1 = u[:, 0] + centre["log_loss"] + alpha * (centre["log_tokens"] - np.log(1e9))
        return {"alpha": alpha, "L_1": np.exp(log_L_1)}

    def from_parameters(self, p, centre):
        at_centre = np.log(p["L_1"]) - p["alpha"] * (centre["log_tokens"] - np.log(1e9))
        return stack(at_centre - centre["log_loss"], np.log(p["alpha"]))

    def log_loss(self, p, columns):
        return np.log(p["L_1"]) - p["alpha"] * np.log(np.asarray(columns["tokens"]) / 1e9)
'''
ALPHA, L_1 = 0.07, 3.0


@pytest.fixture
def runs(table: Callable[..., str]) -> str:
    rng, tokens = np.random.default_rng(0), np.geomspace(1e8, 1e11, 24)
    loss = L_1 * (tokens / 1e9) ** -ALPHA * np.exp(0.003 * rng.standard_normal(24))
    return table("N,tokens,loss", zip(np.geomspace(1e7, 1e9, 24), tokens, loss, strict=True))


@pytest.fixture
def law(tmp_path: Path) -> Path:
    path = tmp_path / "laws_of_ours.py"
    path.write_text(MODULE, encoding="utf-8")
    return path


def test_a_law_in_a_file_is_fitted_and_its_fit_says_what_it_needs(
    runs: str, law: Path, cli: Any, facts: Any, tmp_path: Path
) -> None:
    saved, way = str(tmp_path / "fit.nc"), ("--import", str(law))
    found = facts("fit", runs, "--law", "in-tokens", *way, "--out", saved)
    low, high = found["alpha"]["interval90"]
    assert low < ALPHA < high
    assert high - low < 0.01

    refused = cli("forecast", saved, "-N", "1e9", "--tokens", "1e12", expect=2).stderr
    assert "'in-tokens', a law that is not known here" in refused
    assert f"--import {law}" in refused

    forecast = facts("forecast", saved, "-N", "1e9", "--tokens", "1e12", *way)
    assert forecast["loss_nats"]["median"] == pytest.approx(L_1 * 1e3**-ALPHA, rel=0.02)


def test_a_module_of_the_current_folder_is_found(runs: str, law: Path, facts: Any) -> None:
    way = {"cwd": law.parent}
    assert facts("laws", "--import", law.stem, **way)["in-tokens"]["columns"] == ["tokens"]
    compared = facts("compare", runs, "--law", "in-tokens", "--law", "power-d", "--import", law.stem, **way)
    assert set(compared["loo"]["laws"]) == {"in-tokens", "power-d"}
    assert compared["loo"]["laws"]["in-tokens"]["difference"] == pytest.approx(0, abs=1.0)  # the same formula


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("empty_laws.py", "x = 1", "registers no law"),
        ("broken_laws.py", "raise RuntimeError('out of cheese')", "RuntimeError: out of cheese"),
        ("numpy.py", MODULE, "rename the file"),
        ("no.dots.py", MODULE, "rename the file"),
    ],
)
def test_what_cannot_be_imported(name: str, text: str, reason: str, runs: str, cli: Any, tmp_path: Path) -> None:
    folder = tmp_path / "laws"
    folder.mkdir()
    (folder / name).write_text(text, encoding="utf-8")
    assert reason in cli("fit", runs, "--law", "in-tokens", "--import", str(folder / name), expect=2).stderr


def test_names_that_are_not_there(runs: str, cli: Any) -> None:
    assert "there is no file" in cli("fit", runs, "--law", "x", "--import", "nowhere.py", expect=2).stderr
    assert "ModuleNotFoundError" in cli("fit", runs, "--law", "x", "--import", "nowhere_at_all", expect=2).stderr
