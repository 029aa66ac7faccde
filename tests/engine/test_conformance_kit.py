"""The kit must be able to fail: trainers with one deliberate fault each, and the check that finds it."""

import math

import msgspec
import numpy as np
import pytest

from scaling_sim.engine.conformance import Conformance
from scaling_sim.engine.reference import ReferenceBackend, ReferenceTrainer
from scaling_sim.engine.reference_model import Dropout


class NoClipping(ReferenceTrainer):
    def _clip_factor(self, norm):
        return 1.0


class ClipsTheCohort(ReferenceTrainer):
    """Clips by a norm that grows with the number of members."""

    def _clip_factor(self, norm):
        return super()._clip_factor(norm * math.sqrt(len(self.members)))


class NoBiasCorrection(ReferenceTrainer):
    def _adamw(self, row, grads, clip_factor, update, lr):
        super()._adamw(row, grads, clip_factor, 10**6, lr)


class CountsFromZero(ReferenceTrainer):
    """Bias correction by the updates done before: off by one from the second update on."""

    def _adamw(self, row, grads, clip_factor, update, lr):
        super()._adamw(row, grads, clip_factor, max(update - 1, 1), lr)


class CountsItsOwnCalls(ReferenceTrainer):
    """Keeps a counter of its own, which a resumed run does not know."""

    done = 0

    def advance(self, first_step, starts, lr):
        losses = super().advance(self.done, starts, lr)
        self.done += len(starts)
        return losses


class UnscaledDropout(Dropout):
    def factor(self, site, x_BTD):
        return super().factor(site, x_BTD) * (1 - self.rate)


class DroppedDropoutScale(ReferenceTrainer):
    def _dropout(self, member, update):
        return UnscaledDropout(member.seed, update, member.dropout)


class SharedDropoutSeed(ReferenceTrainer):
    """All members draw the masks of the first one."""

    def _dropout(self, member, update):
        return Dropout(self.members[0].seed, update, member.dropout)


class ShortDropoutSeed(ReferenceTrainer):
    """Forgets the upper 32 bits of the seed."""

    def _dropout(self, member, update):
        return Dropout(member.seed % 2**32, update, member.dropout)


class NoDropout(ReferenceTrainer):
    def _dropout(self, member, update):
        return None


class DecaysNothing(ReferenceTrainer):
    def _adamw(self, row, grads, clip_factor, update, lr):
        before = self.cohort
        self.cohort = _without_decay(before)
        super()._adamw(row, grads, clip_factor, update, lr)
        self.cohort = before


class DecaysEverything(ReferenceTrainer):
    def _adamw(self, row, grads, clip_factor, update, lr):
        for name in ("token_embedding", "ln_f_gain"):
            self.params[name][row] *= 1 - lr * self.cohort.weight_decay
        super()._adamw(row, grads, clip_factor, update, lr)


class OneLearningRate(ReferenceTrainer):
    def advance(self, first_step, starts, lr):
        return super().advance(first_step, starts, np.broadcast_to(lr[:, :1], lr.shape))


class ShiftedTargets(ReferenceTrainer):
    def _windows(self, split, starts_B):
        tokens_BT, targets_BT = super()._windows(split, starts_B)
        return tokens_BT, np.roll(targets_BT, 1, axis=1)


class UpdatesTheDiverged(ReferenceTrainer):
    """Goes on with NaN gradients."""

    def _update(self, row, update, starts_B, lr):
        loss, grads = self._gradients(row, starts_B, None)
        self._adamw(row, grads, 1.0, update, lr)
        return loss


class StopsEverybody(ReferenceTrainer):
    """One diverged member ends the cohort."""

    def _update(self, row, update, starts_B, lr):
        loss = super()._update(row, update, starts_B, lr)
        self.diverged[:] |= self.diverged.any()
        return loss


class ForgetsDivergence(ReferenceTrainer):
    def load_state(self, state):
        super().load_state(state)
        self.diverged[:] = False


class SharesMemory(ReferenceTrainer):
    def state(self):
        return super().state() | {f"params.{name}": value for name, value in self.params.items()}


class LosesMoments(ReferenceTrainer):
    def load_state(self, state):
        super().load_state(state)
        for value in self.moments["adam_v"].values():
            value[:] = 0


class RetiresTheWrongOne(ReferenceTrainer):
    def retire(self, ids):
        rows = len(ids)
        super().retire([self.members[-1].id for _ in range(rows)])


class EvaluatesTrain(ReferenceTrainer):
    def evaluate(self, split, starts):
        return super().evaluate("train", starts)


class WrongError(ReferenceTrainer):
    """Standard deviation instead of the standard error."""

    def evaluate(self, split, starts):
        mean, error = super().evaluate(split, starts)
        return mean, error * math.sqrt(starts.shape[-1] * starts.shape[-2])


class NoisyMeasurement(ReferenceTrainer):
    """Measures the gradient noise on an optimiser step that it does not take back."""

    def gradient_noise(self, starts):
        self.params["ln_f_bias"] += 1e-6
        return super().gradient_noise(starts)


class MeanOfNorms(ReferenceTrainer):
    def gradient_noise(self, starts):
        small, _ = super().gradient_noise(starts)
        return small, small.mean(axis=1)


class Wraps(ReferenceTrainer):
    """Lets a negative start wrap around."""

    def advance(self, first_step, starts, lr):
        return super().advance(first_step, np.abs(starts), lr)


class DoubleMaster(ReferenceTrainer):
    def state(self):
        return {name: value.astype(float) if value.dtype == "f4" else value for name, value in super().state().items()}


def _without_decay(cohort):
    return msgspec.structs.replace(cohort, weight_decay=0.0)


FAULTS = {
    NoClipping: "test_curve_clipped",
    ClipsTheCohort: "test_curve_clipped",
    NoBiasCorrection: "test_curve",
    CountsFromZero: "test_curve",
    CountsItsOwnCalls: "test_resume",
    DroppedDropoutScale: "test_update_with_dropout",
    SharedDropoutSeed: "test_update_with_dropout",
    ShortDropoutSeed: "test_update_with_dropout",
    NoDropout: "test_curve_with_dropout",
    DecaysNothing: "test_curve_with_weight_decay",
    DecaysEverything: "test_curve_with_weight_decay",
    OneLearningRate: "test_curve",
    ShiftedTargets: "test_curve",
    UpdatesTheDiverged: "test_broken_weights_leave_the_others_untouched",
    StopsEverybody: "test_exploded_learning_rate_leaves_the_others_untouched",
    ForgetsDivergence: "test_mark_survives_the_state",
    SharesMemory: "test_state_is_the_callers",
    LosesMoments: "test_resume",
    RetiresTheWrongOne: "test_retire",
    EvaluatesTrain: "test_evaluate",
    WrongError: "test_evaluate",
    NoisyMeasurement: "test_gradient_noise",
    MeanOfNorms: "test_gradient_noise",
    Wraps: "test_windows_outside_the_split",
    DoubleMaster: "test_initial_state",
}


def kit_for(trainer_class):
    class Backend(ReferenceBackend):
        def start(self, cohort, splits, device="cpu", precision="float32"):
            checked = super().start(cohort, splits, device, precision)
            return trainer_class(cohort, splits, checked.dtype)

    class Kit(Conformance):
        backend = Backend()

    return Kit()


@pytest.mark.parametrize(("fault", "check"), FAULTS.items(), ids=lambda value: getattr(value, "__name__", value))
def test_kit_finds_the_fault(fault, check):
    with pytest.raises(AssertionError):
        getattr(kit_for(fault), check)()


@pytest.mark.parametrize("check", sorted(set(FAULTS.values())))
def test_kit_passes_without_a_fault(check):
    getattr(kit_for(ReferenceTrainer), check)()


def test_kit_skips_what_a_backend_does_not_support():
    kit = kit_for(ReferenceTrainer)
    type(kit).precision = "bfloat16"
    with pytest.raises(pytest.skip.Exception, match="bfloat16"):
        kit.test_curve()
