from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from scaling_sim.laws import get_law, law_names
from scaling_sim.laws.base import Array, Centre, Coordinate, Law, Normal, Parameters, stack
from scaling_sim.testing import CheckFailed, check_law


class Good(Law):
    """L = (N_0/N)^a, written as a user would."""

    name = "good"
    parameters: tuple[str, ...] = ("alpha", "N_0")
    columns: tuple[str, ...] = ("N",)

    def coordinates(self, centre: Centre) -> tuple[Coordinate, ...]:
        return (Coordinate("log_loss", Normal(0.0, 0.5)), Coordinate("log_alpha", Normal(-2.0, 0.5)))

    def to_parameters(self, u: Array, centre: Centre) -> dict[str, Array]:
        alpha = np.exp(u[:, 1])
        return {"alpha": alpha, "N_0": np.exp(centre["log_N"] + (u[:, 0] + centre["log_loss"]) / alpha)}

    def from_parameters(self, parameters: Parameters, centre: Centre) -> Array:
        log_loss = parameters["alpha"] * (np.log(parameters["N_0"]) - centre["log_N"])
        return stack(log_loss - centre["log_loss"], np.log(parameters["alpha"]))

    def loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        return np.asarray((parameters["N_0"] / columns["N"]) ** parameters["alpha"])


class RepeatedName(Good):
    parameters = ("alpha", "alpha")


class MissingParameter(Good):
    parameters = ("alpha", "N_0", "E")


class UnknownColumn(Good):
    columns = ("N", "width")


class NegativeSpread(Good):
    def coordinates(self, centre: Centre) -> tuple[Coordinate, ...]:
        return (Coordinate("log_loss", Normal(0.0, -0.5)), Coordinate("log_alpha", Normal(-2.0, 0.5)))


class OneValueForAllDraws(Good):
    def loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        return super().loss({name: np.mean(value) for name, value in parameters.items()}, columns)


class DependsOnTheMean(Good):
    def log_loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        mixed = 0.01 * np.log(np.mean(columns["N"]) / columns["N"])
        return np.asarray(super().log_loss(parameters, columns) + mixed)


class Negative(Good):
    def loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        return super().loss(parameters, columns) - 3.0


class NoRoundTrip(Good):
    def from_parameters(self, parameters: Parameters, centre: Centre) -> Array:
        return super().from_parameters(parameters, centre) * [1.0, 1.001]


class DependsOnTheOrder(Good):
    def loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        return super().loss(parameters, columns) * (1 + 1e-3 * np.arange(len(columns["N"])))


class DependsOnOtherDraws(Good):
    def loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        return super().loss(parameters, columns) * np.max(parameters["alpha"])


class Rises(Good):
    def loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        return np.asarray((columns["N"] / parameters["N_0"]) ** parameters["alpha"])


class TurnsUp(Good):
    """Falls around the data, rises far beyond: only the limit shows it."""

    def loss(self, parameters: Parameters, columns: Mapping[str, Any]) -> Array:
        return super().loss(parameters, columns) + columns["N"] / 1e30


class RawUnits(Good):
    """The prior is on log N_0 itself, so that it means something else if N is counted in millions."""

    def to_parameters(self, u: Array, centre: Centre) -> dict[str, Array]:
        return {"alpha": np.exp(u[:, 1]), "N_0": np.exp(20.0 + u[:, 0])}

    def from_parameters(self, parameters: Parameters, centre: Centre) -> Array:
        return stack(np.log(parameters["N_0"]) - 20.0, np.log(parameters["alpha"]))


KINDS = [*law_names(), get_law("kaplan", shared=False), Good, Good()]


@pytest.mark.parametrize("law", KINDS, ids=[*law_names(), "kaplan-two-pairs", "class", "instance"])
def test_our_laws_and_a_good_users_law_pass(law: Any) -> None:
    assert check_law(law) == (
        "names",
        "priors",
        "shapes",
        "finite",
        "round-trip",
        "permutation",
        "rows",
        "broadcast",
        "monotone",
        "limits",
        "units",
    )


@pytest.mark.parametrize(
    ("law", "check", "message"),
    [
        (RepeatedName, "names", "distinct parameters"),
        (MissingParameter, "names", "must give alpha, N_0, E; it gives alpha, N_0"),
        (NegativeSpread, "priors", "positive sd: log_loss"),
        (OneValueForAllDraws, "shapes", r"must give \(\d+, \d+\), got \(\d+,\)"),
        (Negative, "finite", "not positive finite numbers"),
        (NoRoundTrip, "round-trip", "log_alpha comes back"),
        (DependsOnTheOrder, "permutation", "must not depend on the other rows"),
        (DependsOnTheMean, "rows", "must be the same without the other rows"),
        (DependsOnOtherDraws, "broadcast", "must not depend on the other draws"),
        (Rises, "monotone", "must not rise with N"),
        (TurnsUp, "limits", "with N → ∞"),
        (RawUnits, "units", "N times 1e-09 must change nothing"),
    ],
)
def test_a_broken_law_is_caught_by_the_check_that_names_its_fault(law: type[Law], check: str, message: str) -> None:
    with pytest.raises(CheckFailed, match=message) as caught:
        check_law(law)
    assert caught.value.check == check


def test_a_column_that_no_run_has_is_named() -> None:
    with pytest.raises((CheckFailed, AttributeError), match="width"):
        check_law(UnknownColumn)


def test_what_is_meant_can_be_said() -> None:
    assert "monotone" in check_law(Rises, decreasing=(), skip=("units",))
    assert "units" not in check_law(RawUnits, skip=("units",))
    with pytest.raises(ValueError, match="skip must name checks"):
        check_law(Good, skip=("unit",))
