"""The conformance kit: subclass `Conformance` in a test module and every rule of the contract is checked.

>>> class TestMine(Conformance):  # doctest: +SKIP
...     backend = "mine"
...     device = "cuda:0"

Truth is the float64 NumPy reference, which is itself checked against finite differences.
"""

from __future__ import annotations

import numpy as np

from scaling_sim.engine.conformance_cases import (
    ADAFACTOR,
    CLIPPED,
    DECAYED,
    DROPOUT,
    NARROW_FF,
    NO_LAYERS,
    ODD_SIZES,
    PLAIN,
    Case,
    reference_losses,
    reference_trainer,
)
from scaling_sim.engine.conformance_harness import (
    FAILED_ROW,
    NUM_STEPS,
    Harness,
    arrays_of,
    check_close,
    check_equal,
    check_raises,
    member_row,
    with_members,
)
from scaling_sim.engine.reference_model import Dropout, loss_and_gradients
from scaling_sim.model.init import initial_parameters


class Conformance(Harness):
    """What every backend must do; the settings of a subclass stand on `Harness`."""

    # The reference itself.

    def test_reference_gradients_match_finite_differences(self) -> None:
        """Directional derivative of the loss for every parameter, float64, with dropout."""
        generator = np.random.default_rng(0)
        shape, dropout = DROPOUT.cohort.shape, Dropout(seed=5, update=3, rate=0.2)
        windows = generator.integers(0, shape.vocab_size, (2, shape.n_ctx + 1))
        batch = (windows[:, :-1], windows[:, 1:], dropout)
        params = {name: value[0] for name, value in arrays_of(DROPOUT.random_state(np.float64), "params").items()}
        _, grads = loss_and_gradients(params, shape, *batch)
        for name, value in params.items():
            step = 1e-5 * generator.standard_normal(value.shape)
            up, _ = loss_and_gradients({**params, name: value + step}, shape, *batch)
            down, _ = loss_and_gradients({**params, name: value - step}, shape, *batch)
            expected = float((grads[name] * step).sum())
            check_close(f"change of the loss along {name}", (up - down) / 2, expected, 1e-5 * abs(expected) + 1e-14)

    # The same start, the same batches: the same numbers.

    def test_initial_state(self) -> None:
        """Keys, shapes and dtypes of the state; weights are the core's initial weights, moments zero."""
        trainer = self._start(DROPOUT)
        state = self._checked_state(trainer, DROPOUT.cohort)
        for row, member in enumerate(DROPOUT.cohort.members):
            for name, value in initial_parameters(DROPOUT.cohort.shape, member.seed, self._master).items():
                check_equal(f"initial {name} of member {member.id}", state[f"params.{name}"][row], value)
        for kind in ("adam_m", "adam_v"):
            assert not any(value.any() for value in arrays_of(state, kind).values()), f"{kind} must start at zero"
        assert trainer.live() == tuple(state["ids"]) == tuple(member.id for member in DROPOUT.cohort.members)
        assert not state["diverged"].any()

    def test_update(self) -> None:
        """Gradient, clipping and moments of one update away from the initial weights."""
        for first_step in (0, 6):
            self._check_update(PLAIN, first_step)

    def test_update_with_dropout(self) -> None:
        """Dropout masks and scale, through the gradient of one late update."""
        self._check_update(DROPOUT, first_step=1000)

    def test_update_of_other_shapes(self) -> None:
        """Several heads, d_ff ≠ 4·d_model, sizes that fill no vector register, no layers at all."""
        for case in (NARROW_FF, ODD_SIZES, NO_LAYERS):
            self._check_update(case, first_step=2)

    def test_curve(self) -> None:
        """Loss curve over 50 steps, a learning rate for every step and member."""
        self._check_curve(PLAIN)

    def test_curve_with_dropout(self) -> None:
        """Another rate for every member."""
        self._check_curve(DROPOUT)

    def test_curve_clipped(self) -> None:
        """Every gradient is clipped, each member by its own norm."""
        self._check_curve(CLIPPED)

    def test_curve_with_weight_decay(self) -> None:
        """Decay on matrices only."""
        self._check_curve(DECAYED)

    def test_curve_with_adafactor(self) -> None:
        """Factored second moments, clipped updates and decay."""
        self._check_curve(ADAFACTOR)

    def test_curve_without_layers(self) -> None:
        """N = 0: embedding and head alone."""
        self._check_curve(NO_LAYERS)

    def test_curve_of_other_shapes(self) -> None:
        """Three heads and 16-bit tokens; odd sizes, one sequence and 32-bit tokens."""
        self._check_curve(NARROW_FF)
        self._check_curve(ODD_SIZES)

    # Members are independent of each other.

    def test_alone_and_in_a_cohort(self) -> None:
        """A member's losses do not depend on its cohort."""
        starts, lr = DROPOUT.batches(NUM_STEPS)
        together = self._start(DROPOUT).advance(0, starts, lr)
        for row, member in enumerate(DROPOUT.cohort.members):
            cohort = with_members(DROPOUT.cohort, row)
            alone = self._start(Case("alone", cohort)).advance(0, starts[:, [row]], lr[:, [row]])
            self._check_near(f"member {member.id} alone", alone[:, 0], together[:, row], self.cohort_tolerance)

    def test_retire(self) -> None:
        """The rest keep their order and go on as if nothing had happened."""
        (starts, lr), kept = DROPOUT.batches(12), [0, 2]
        undisturbed = self._start(DROPOUT).advance(0, starts, lr)
        trainer = self._start(DROPOUT)
        trainer.advance(0, starts[:4], lr[:4])
        trainer.retire([DROPOUT.cohort.members[1].id])
        assert trainer.live() == tuple(DROPOUT.cohort.members[row].id for row in kept)
        losses = trainer.advance(4, starts[4:, kept], lr[4:, kept])
        self._check_near("losses after retire", losses, undisturbed[4:, kept], self.cohort_tolerance)
        self._checked_state(trainer, with_members(DROPOUT.cohort, *kept))
        mean, error = trainer.evaluate("test", DROPOUT.starts(2))
        assert mean.shape == (2, DROPOUT.cohort.shape.n_ctx)
        assert error.shape == (2,)

    def test_retire_of_an_unknown_member(self) -> None:
        """An id that is not alive is an error."""
        trainer = self._start(PLAIN)
        trainer.retire([PLAIN.cohort.members[0].id])
        check_raises("retiring a member twice", trainer.retire, [PLAIN.cohort.members[0].id])

    def test_broken_weights_leave_the_others_untouched(self) -> None:
        """NaN weights: marked, NaN loss, weights as they were; the others bit for bit as without it."""
        state = self._start(PLAIN).state()
        state["params.ln_f_gain"][FAILED_ROW] = np.nan
        broken, healthy = self._start(PLAIN), self._start(PLAIN)
        broken.load_state(state)
        starts, lr = PLAIN.batches(6)
        losses, expected = broken.advance(0, starts, lr), healthy.advance(0, starts, lr)
        self._check_failure(losses, expected, broken.state(), healthy.state(), first_nan=0)
        state["diverged"][FAILED_ROW] = True
        check_equal(
            "weights of the diverged member", member_row(broken.state(), FAILED_ROW), member_row(state, FAILED_ROW)
        )

    def test_exploded_learning_rate_leaves_the_others_untouched(self) -> None:
        """A huge step: the next loss is not finite, and later calls keep the mark."""
        starts, lr = PLAIN.batches(8)
        huge = lr.copy()
        huge[2, FAILED_ROW] = np.finfo(self._master).max / 4
        broken, healthy = self._start(PLAIN), self._start(PLAIN)
        first, expected = broken.advance(0, starts[:5], huge[:5]), healthy.advance(0, starts, lr)
        marked = broken.state()
        losses = np.concatenate([first, broken.advance(5, starts[5:], lr[5:])])
        self._check_failure(losses, expected, broken.state(), healthy.state(), first_nan=3)
        check_equal(
            "weights of the diverged member", member_row(broken.state(), FAILED_ROW), member_row(marked, FAILED_ROW)
        )

    def test_mark_survives_the_state(self) -> None:
        """A member that diverged once stays so when a run is resumed, whatever its weights."""
        starts, lr = PLAIN.batches(4)
        state = self._start(PLAIN).state()
        state["diverged"][FAILED_ROW] = True
        resumed, healthy = self._resumed(PLAIN, state), self._start(PLAIN)
        losses, expected = resumed.advance(0, starts, lr), healthy.advance(0, starts, lr)
        self._check_failure(losses, expected, resumed.state(), healthy.state(), first_nan=0)
        check_equal(
            "weights of the marked member", member_row(resumed.state(), FAILED_ROW), member_row(state, FAILED_ROW)
        )

    # The state is everything.

    def test_resume(self) -> None:
        """Stopped and resumed through the state: bit for bit the run that went on."""
        starts, lr = DROPOUT.batches(8)
        straight, stopped = self._start(DROPOUT), self._start(DROPOUT)
        expected = straight.advance(0, starts, lr)
        first = stopped.advance(0, starts[:3], lr[:3])
        resumed = self._resumed(DROPOUT, stopped.state())
        losses = np.concatenate([first, resumed.advance(3, starts[3:], lr[3:])])
        self._check_repeated("losses of a resumed run", losses, expected)
        self._check_repeated("state of a resumed run", resumed.state(), straight.state())

    def test_same_call_twice(self) -> None:
        """The same call on the same state gives the same bits, also when the steps are spread over several calls."""
        starts, lr = DROPOUT.batches(6)
        once, again, stepwise = (self._start(DROPOUT) for _ in range(3))
        losses = once.advance(0, starts, lr)
        self._check_repeated("losses", again.advance(0, starts, lr), losses)
        single = [stepwise.advance(k, starts[k : k + 1], lr[k : k + 1]) for k in range(len(starts))]
        self._check_repeated("losses step by step", np.concatenate(single), losses)
        self._check_repeated("state", again.state(), once.state())
        self._check_repeated("state step by step", stepwise.state(), once.state())

    def test_state_of_another_backend(self) -> None:
        """A run begun by the reference goes on here: states are portable."""
        starts, lr = DROPOUT.batches(NUM_STEPS)
        reference = reference_trainer(DROPOUT)
        reference.advance(0, starts[:20], lr[:20])
        losses = self._resumed(DROPOUT, reference.state()).advance(20, starts[20:], lr[20:])
        expected = reference_losses(DROPOUT, NUM_STEPS)[20:]
        self._check_near("losses after the reference's state", losses, expected, self.curve_tolerance)

    def test_state_of_some_members(self) -> None:
        """``load_state`` of a subset makes its members the live ones."""
        rows = [0, 2]
        state = {name: value[rows] for name, value in self._start(DROPOUT).state().items()}
        trainer = self._resumed(DROPOUT, state)
        assert trainer.live() == tuple(state["ids"])
        starts, lr = DROPOUT.batches(4)
        losses = trainer.advance(0, starts[:, rows], lr[:, rows])
        self._check_near(
            "losses of a subset", losses, reference_losses(DROPOUT, NUM_STEPS)[:4, rows], self.curve_tolerance
        )

    def test_state_is_the_callers(self) -> None:
        """Neither a returned nor a loaded state shares memory with the trainer."""
        starts, lr = PLAIN.batches(4)
        trainer = self._start(PLAIN)
        snapshot = trainer.state()
        kept = {name: value.copy() for name, value in snapshot.items()}
        trainer.advance(0, starts, lr)
        check_equal("a state taken earlier", snapshot, kept)
        after = trainer.state()
        for value in trainer.state().values():
            value[...] = 0
        check_equal("the trainer's state", trainer.state(), after)
        loaded = self._resumed(PLAIN, snapshot)
        for value in snapshot.values():
            value[...] = 0
        check_equal("the loaded state", loaded.state(), kept)

    def test_state_that_does_not_fit(self) -> None:
        """A missing key, a wrong shape and an unknown id are errors."""
        trainer = self._start(PLAIN)
        state = trainer.state()
        lacking = {name: value for name, value in state.items() if name != "adam_v.qkv"}
        check_raises("a missing key", trainer.load_state, lacking)
        check_raises("a wrong shape", trainer.load_state, state | {"params.qkv": state["params.qkv"][:, :1]})
        check_raises("an unknown id", trainer.load_state, state | {"ids": state["ids"] + 1})

    # Measuring leaves no trace.

    def test_evaluate(self) -> None:
        """Loss per position and standard error over sequences, windows shared or each member's own, without dropout."""
        num_members = len(DROPOUT.cohort.members)
        for starts in (DROPOUT.starts(5), DROPOUT.starts(num_members, 3)):
            (reference, trainer), before = self._at_random_weights(DROPOUT)
            mean, error = trainer.evaluate("test", starts)
            expected_mean, expected_error = reference.evaluate("test", starts)
            self._check_near("mean loss per position", mean, expected_mean, self.curve_tolerance)
            self._check_near("standard error", error, expected_error, self.curve_tolerance)
            check_equal("the state after evaluate", trainer.state(), before)
            _, error = trainer.evaluate("test", starts[..., :1, :1])
            assert np.isnan(error).all(), f"the standard error of one sequence must be NaN, got {error}"

    def test_gradient_noise(self) -> None:
        """Squared norms of small batches' gradients and of their mean, unclipped and without dropout."""
        (reference, trainer), before = self._at_random_weights(DROPOUT)
        starts = DROPOUT.starts(len(DROPOUT.cohort.members), 4)[..., :2]
        for name, got, expected in zip(
            ("|g_i|²", "|mean g|²"), trainer.gradient_noise(starts), reference.gradient_noise(starts), strict=True
        ):
            scale = float(expected.max())
            self._check_near(name, got / scale, expected / scale, self.gradient_tolerance)
        check_equal("the state after gradient_noise", trainer.state(), before)

    def test_measuring_does_not_disturb_training(self) -> None:
        """A run that is evaluated on its way is the run that is not."""
        starts, lr = DROPOUT.batches(4)
        trainer = self._start(DROPOUT)
        first = trainer.advance(0, starts[:2], lr[:2])
        trainer.evaluate("test", DROPOUT.starts(2))
        trainer.gradient_noise(DROPOUT.starts(len(DROPOUT.cohort.members), 2))
        losses = np.concatenate([first, trainer.advance(2, starts[2:], lr[2:])])
        self._check_repeated("losses", losses, self._start(DROPOUT).advance(0, starts, lr))

    # Arguments.

    def test_inputs_are_left_alone(self) -> None:
        """Arguments are neither changed nor kept; read-only and strided ones work."""
        (starts, lr), splits = PLAIN.batches(5), PLAIN.splits()
        before = {name: tokens.copy() for name, tokens in splits.items()}
        strided = np.repeat(np.asfortranarray(starts), 2, axis=2)[..., ::2]
        fortran = np.asfortranarray(lr)
        for array in (strided, fortran):
            array.flags.writeable = False
        trainer = self._supported(PLAIN.cohort).start(PLAIN.cohort, splits, self.device, self.precision)
        losses = trainer.advance(0, strided, fortran)
        check_equal("losses of strided arguments", losses, self._start(PLAIN).advance(0, starts, lr))
        check_equal("splits", splits, before)

    def test_windows_outside_the_split(self) -> None:
        """A window that leaves its split is an error, not a wrong number."""
        trainer = self._start(PLAIN)
        starts, lr = PLAIN.batches(1)
        for bad in (-1, starts.flat[0] + 1):  # the first start is the last admissible one
            wrong = starts.copy()
            wrong[0, 0, 1] = bad
            check_raises(f"advance from {bad}", trainer.advance, 0, wrong, lr)
            check_raises(f"evaluate from {bad}", trainer.evaluate, "test", wrong[0])
            check_raises(f"gradient_noise from {bad}", trainer.gradient_noise, wrong.swapaxes(0, 1))

    def test_wrong_arguments(self) -> None:
        """Unknown split, missing ``train``, ids beyond the vocabulary, a learning rate too few."""
        backend, trainer, splits = self._supported(PLAIN.cohort), self._start(PLAIN), PLAIN.splits()
        starts, lr = PLAIN.batches(2)
        check_raises("a learning rate too few", trainer.advance, 0, starts, lr[:, 1:])
        check_raises("an unknown split", trainer.evaluate, "nowhere", PLAIN.starts(2))
        options = (self.device, self.precision)
        check_raises("no train split", backend.start, PLAIN.cohort, {"test": splits["test"]}, *options)
        foreign = np.full_like(splits["train"], PLAIN.cohort.shape.vocab_size)
        check_raises("an id beyond the vocabulary", backend.start, PLAIN.cohort, {"train": foreign}, *options)

    def test_unsupported_device(self) -> None:
        """What cannot be done is said before it is tried."""
        backend = self._supported(PLAIN.cohort)
        reason = backend.why_unsupported(PLAIN.cohort, "abacus:0", self.precision)
        assert isinstance(reason, str)
        assert "abacus:0" in reason, f"the reason must name the device, got {reason!r}"
        check_raises("start", backend.start, PLAIN.cohort, PLAIN.splits(), "abacus:0", self.precision)
