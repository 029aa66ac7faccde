"""What the checks of `scaling_sim.engine.conformance` stand on: the settings of a subclass, and strict comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from scaling_sim.engine.checks import state_shapes
from scaling_sim.engine.cohort import Cohort, Precision
from scaling_sim.engine.conformance_cases import Case, reference_losses, reference_trainer, reference_update
from scaling_sim.engine.protocol import Backend, State, Trainer
from scaling_sim.engine.registry import get_backend
from scaling_sim.errors import ScalingSimError

NUM_STEPS = 50
FAILED_ROW = 1
"""Row of the member that is made to diverge; the ones around it must not notice."""


class Harness:
    """Which backend is checked, where, and how closely.

    Attributes
    ----------
    backend : Backend or str
        The backend, or its name in the registry.
    device, precision : str
        Where and how it computes.
    deterministic : bool
        Whether it promises equal bits for the same call, and for a run stopped and resumed.
    curve_tolerance, cohort_tolerance : mapping of precision to float
        Largest difference of a loss (nats) over 50 steps: from the float64 reference; between a member alone and in a
        cohort.
    gradient_tolerance : mapping of precision to float
        Largest error of a gradient relative to the largest entry of its parameter, and of squared norms.
    """

    backend: ClassVar[Backend | str]
    device: ClassVar[str] = "cpu"
    precision: ClassVar[Precision] = "float32"
    deterministic: ClassVar[bool] = True
    curve_tolerance: ClassVar[Mapping[str, float]] = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 0.05}
    cohort_tolerance: ClassVar[Mapping[str, float]] = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 0.02}
    # Nine tokens through three layers of width 7 cost 0.04 to 0.07 in bfloat16, whichever products are rounded.
    gradient_tolerance: ClassVar[Mapping[str, float]] = {"float64": 1e-10, "float32": 1e-4, "bfloat16": 0.08}

    @property
    def _master(self) -> type[np.floating[Any]]:
        return np.float64 if self.precision == "float64" else np.float32

    def _supported(self, cohort: Cohort) -> Backend:
        """The backend; the test is skipped with its reason if it does not support ``cohort``."""
        backend = get_backend(self.backend) if isinstance(self.backend, str) else self.backend
        reason = backend.why_unavailable() or backend.why_unsupported(cohort, self.device, self.precision)
        if reason is not None:
            import pytest

            pytest.skip(reason)
        return backend

    def _start(self, case: Case) -> Trainer:
        return self._supported(case.cohort).start(case.cohort, case.splits(), self.device, self.precision)

    def _resumed(self, case: Case, state: State) -> Trainer:
        trainer = self._start(case)
        trainer.load_state(state)
        return trainer

    def _at_random_weights(self, case: Case) -> tuple[tuple[Trainer, Trainer], State]:
        """Reference and trainer at the same random weights, and the trainer's state."""
        reference = reference_trainer(case)
        reference.load_state(case.random_state(np.float64))
        trainer = self._resumed(case, case.random_state(self._master))
        return (reference, trainer), trainer.state()

    def _checked_state(self, trainer: Trainer, cohort: Cohort) -> State:
        state = trainer.state()
        assert set(state) == set(state_shapes(cohort)), f"keys of the state: {sorted(state)}"
        types = {"ids": np.dtype(np.int64), "diverged": np.dtype(bool)}
        for name, shape in state_shapes(cohort).items():
            assert isinstance(state[name], np.ndarray), f"{name} must be a NumPy array"
            assert state[name].shape == (len(cohort.members), *shape), f"{name} has shape {state[name].shape}"
            expected = types.get(name, np.dtype(self._master))
            assert state[name].dtype == expected, f"{name} must be {expected}, got {state[name].dtype}"
        return state

    def _check_curve(self, case: Case) -> None:
        losses = self._start(case).advance(0, *case.batches(NUM_STEPS))
        assert losses.shape == (NUM_STEPS, len(case.cohort.members))
        assert losses.dtype == np.float64
        self._check_near(f"loss curve ({case.name})", losses, reference_losses(case, NUM_STEPS), self.curve_tolerance)

    def _check_update(self, case: Case, first_step: int) -> None:
        """Moments after one update from random weights: (1 − β1)·g and (1 − β2)·g² of the clipped gradient."""
        trainer = self._resumed(case, case.random_state(self._master))
        trainer.advance(first_step, *case.batches(1))
        state, expected = trainer.state(), reference_update(case, first_step)
        tolerance = self.gradient_tolerance[self.precision]
        for name in case.cohort.shape.parameter_shapes():
            for kind, factor in (("adam_m", 1), ("adam_v", 2)):
                got, truth = state[f"{kind}.{name}"], expected[f"{kind}.{name}"]
                bound = factor * tolerance * float(np.abs(truth).max(initial=0))
                check_close(f"{kind}.{name} after update {first_step + 1} ({case.name})", got, truth, bound)

    def _check_failure(
        self, losses: NDArray[Any], expected: NDArray[Any], state: State, healthy: State, first_nan: int
    ) -> None:
        """One member is NaN from ``first_nan`` on, and nothing else differs."""
        assert np.isfinite(losses[:first_nan, FAILED_ROW]).all(), "losses before the failure must be finite"
        assert np.isnan(losses[first_nan:, FAILED_ROW]).all(), f"losses must be NaN, got {losses[:, FAILED_ROW]}"
        others = [row for row in range(losses.shape[1]) if row != FAILED_ROW]
        check_equal("losses of the others", losses[:, others], expected[:, others])
        for row in others:
            check_equal(f"state of row {row}", member_row(state, row), member_row(healthy, row))
        assert state["diverged"][FAILED_ROW], "the failed member must be marked"

    def _check_repeated(self, what: str, got: Any, expected: Any) -> None:
        """Equal bits, or within the cohort tolerance where the backend does not promise them."""
        if self.deterministic:
            check_equal(what, got, expected)
        elif isinstance(got, Mapping):
            assert set(got) == set(expected)
        else:
            self._check_near(what, got, expected, self.cohort_tolerance)

    def _check_near(self, what: str, got: Any, expected: Any, tolerance: Mapping[str, float]) -> None:
        """Within the tolerance of this precision."""
        check_close(what, got, expected, tolerance[self.precision])


def check_close(what: str, got: Any, expected: Any, bound: float) -> None:
    """No entry differs by more than ``bound``, and none is NaN."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{what}: shape must be {expected.shape}, got {got.shape}"
    error = np.abs(got.astype(np.float64) - expected)
    if not (error <= bound).all():
        where = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape)
        place = tuple(int(index) for index in where)
        raise AssertionError(
            f"{what}: differs by {error[place]:.3g} at {place}, allowed are {bound:.3g} "
            f"(got {got[place]:.9g}, expected {expected[place]:.9g})"
        )


def check_equal(what: str, got: Any, expected: Any) -> None:
    """Equal bits; mappings are compared key by key."""
    if isinstance(expected, Mapping):
        assert set(got) == set(expected), f"{what}: keys differ"
        for name, value in expected.items():
            check_equal(f"{what}: {name}", got[name], value)
        return
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{what}: shape must be {expected.shape}, got {got.shape}"
    assert got.dtype == expected.dtype, f"{what}: dtype must be {expected.dtype}, got {got.dtype}"
    if got.tobytes() != expected.tobytes():
        different = int((got != expected).sum())
        raise AssertionError(f"{what}: must be equal bit for bit; {different} of {got.size} entries differ")


def check_raises(what: str, call: Callable[..., Any], *arguments: Any) -> None:
    """The call raises an error of ours."""
    try:
        call(*arguments)
    except ScalingSimError:
        return
    except Exception as error:
        raise AssertionError(f"{what} must raise a ScalingSimError, got {type(error).__name__}: {error}") from error
    raise AssertionError(f"{what} must raise a ScalingSimError")


def member_row(state: State, row: int) -> State:
    """One member's part of a state."""
    return {name: value[row] for name, value in state.items()}


def arrays_of(state: State, kind: str) -> State:
    """Arrays of one kind (``params``, ``adam_m``, ``adam_v``) by parameter name."""
    return {name.removeprefix(f"{kind}."): value for name, value in state.items() if name.startswith(f"{kind}.")}


def with_members(cohort: Cohort, *rows: int) -> Cohort:
    """The cohort with these rows' members only."""
    return msgspec.structs.replace(cohort, members=tuple(cohort.members[row] for row in rows))
