"""The reference against numbers that can be known without it: finite differences, closed forms, invariances."""

import math

import numpy as np
import pytest

from scaling_sim.engine.cohort import Cohort, Member
from scaling_sim.engine.reference import BACKEND, squared_norm, standard_error
from scaling_sim.engine.reference_model import Dropout, loss_and_gradients, position_losses
from scaling_sim.model.shape import DECAYED, Shape

SHAPE = Shape(n_layer=2, d_model=4, n_head=2, n_ctx=5, vocab_size=7, d_ff=6)
TOKENS = np.random.default_rng(0).integers(0, 7, 300).astype(np.uint8)


def random_params(seed=0, shape=SHAPE):
    generator = np.random.default_rng(seed)
    shapes = shape.parameter_shapes().items()
    return {name: 0.4 * generator.standard_normal(size) + name.endswith("gain") for name, size in shapes}


def random_batch(seed=1, shape=SHAPE, num_sequences=3):
    windows = np.random.default_rng(seed).integers(0, shape.vocab_size, (num_sequences, shape.n_ctx + 1))
    return windows[:, :-1], windows[:, 1:]


def trainer(precision="float64", **settings):
    cohort = Cohort(shape=SHAPE, batch_sequences=3, members=(Member(id=4, seed=1),), **settings)
    return BACKEND.start(cohort, {"train": TOKENS}, precision=precision)


def starts(*leading, seed=2):
    return np.random.default_rng(seed).integers(0, len(TOKENS) - SHAPE.n_ctx, (*leading, 3))


@pytest.mark.parametrize("name", SHAPE.parameter_shapes())
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_every_gradient_entry_matches_finite_differences(name, rate):
    params, batch, step = random_params(), random_batch(), 1e-5
    dropout = Dropout(seed=9, update=4, rate=rate)
    gradient = loss_and_gradients(params, SHAPE, *batch, dropout)[1][name]
    numeric = np.empty_like(gradient)
    for index in np.ndindex(gradient.shape):
        losses = []
        for sign in (1, -1):
            shifted = params[name].copy()
            shifted[index] += sign * step
            losses.append(loss_and_gradients({**params, name: shifted}, SHAPE, *batch, dropout)[0])
        numeric[index] = (losses[0] - losses[1]) / (2 * step)
    assert np.abs(gradient).max() > 1e-4
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-10)


def test_loss_is_the_mean_of_the_position_losses():
    params, batch = random_params(), random_batch()
    losses_BT = position_losses(params, SHAPE, *batch)
    assert losses_BT.shape == (3, SHAPE.n_ctx)
    assert loss_and_gradients(params, SHAPE, *batch)[0] == pytest.approx(losses_BT.mean(), rel=1e-14)


def test_uniform_model_has_loss_log_v():
    params = {**random_params(), "ln_f_gain": np.zeros(4), "ln_f_bias": np.zeros(4)}
    np.testing.assert_allclose(position_losses(params, SHAPE, *random_batch()), math.log(7), rtol=1e-14)


def test_the_future_is_not_seen():
    params, (tokens_BT, targets_BT) = random_params(), random_batch()
    changed_BT = tokens_BT.copy()
    changed_BT[:, 3] = (changed_BT[:, 3] + 1) % 7
    before, after = (position_losses(params, SHAPE, one, targets_BT) for one in (tokens_BT, changed_BT))
    assert np.array_equal(before[:, :3], after[:, :3])
    assert not np.isclose(before[:, 3:], after[:, 3:]).any()


def test_order_of_heads_is_a_convention():
    """Permuting heads in qkv rows and attn_out columns leaves the model unchanged; mixing their slices would not."""
    params, batch, order = random_params(), random_batch(), [2, 3, 0, 1]
    qkv = params["qkv"].reshape(2, 3, 4, 4)[:, :, order].reshape(2, 12, 4)
    permuted = {**params, "qkv": qkv, "attn_out": params["attn_out"][:, :, order]}
    losses = [position_losses(one, SHAPE, *batch) for one in (params, permuted)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-13)


def test_dropout_is_unbiased():
    """Kept elements are scaled up so that the mean stays 1."""
    factor = Dropout(seed=3, update=1, rate=0.25).factor(0, np.ones((10, 20, 50)))
    assert set(np.unique(factor)) == {0.0, 1 / 0.75}
    assert abs(factor.mean() - 1) < 5 * math.sqrt(0.25 / 0.75 / factor.size)  # false alarm 6e-7


def test_first_update_moves_every_weight_by_the_learning_rate():
    """Bias correction makes the first step lr·g/(|g| + ε·…): lr in size, against the gradient's sign."""
    one = trainer(clip_norm=math.inf)
    before, lr = one.state(), 1e-3
    one.advance(0, starts(1, 1), np.full((1, 1), lr))
    after = one.state()
    for name in SHAPE.parameter_shapes():
        change, gradient = after[f"params.{name}"] - before[f"params.{name}"], after[f"adam_m.{name}"] / 0.1
        np.testing.assert_allclose(change, -lr * gradient / (np.abs(gradient) + 1e-8), rtol=1e-7, atol=1e-16)


def test_weight_decay_acts_on_matrices_only():
    plain, decayed = trainer(), trainer(weight_decay=0.5)
    before = plain.state()
    for one in (plain, decayed):
        one.advance(0, starts(1, 1), np.full((1, 1), 0.01))
    for name in SHAPE.parameter_shapes():
        difference = decayed.state()[f"params.{name}"] - plain.state()[f"params.{name}"]
        expected = -0.01 * 0.5 * before[f"params.{name}"] if name in DECAYED else 0.0
        np.testing.assert_allclose(difference, np.broadcast_to(expected, difference.shape), rtol=1e-9, atol=1e-16)


def test_clipped_gradient_has_the_clip_norm():
    clipped, free = trainer(clip_norm=0.01), trainer(clip_norm=math.inf)
    for one in (clipped, free):
        one.advance(0, starts(1, 1), np.full((1, 1), 0.0))
    moments = [
        {name: one.state()[f"adam_m.{name}"] / 0.1 for name in SHAPE.parameter_shapes()} for one in (clipped, free)
    ]
    assert math.sqrt(squared_norm(moments[0])) == pytest.approx(0.01, rel=1e-12)
    assert math.sqrt(squared_norm(moments[1])) > 0.01


def test_zero_learning_rate_keeps_the_weights():
    one = trainer()
    before = one.state()
    one.advance(0, starts(3, 1), np.zeros((3, 1)))
    after = one.state()
    assert all(np.array_equal(before[name], after[name]) for name in before if name.startswith("params."))


def test_training_learns_what_can_be_learned():
    """A periodic text has entropy zero: sixty large steps reach a tenth of log V."""
    cohort = Cohort(shape=SHAPE, batch_sequences=3, members=(Member(id=0, seed=0),))
    one = BACKEND.start(cohort, {"train": (np.arange(300) % 7).astype(np.uint8)})
    losses = one.advance(0, starts(60, 1), np.full((60, 1), 0.05))
    assert losses[0, 0] == pytest.approx(math.log(7), abs=0.05)
    assert losses[-1, 0] < 0.1 * math.log(7)


def test_float32_state_is_float32_throughout():
    one = trainer("float32")
    one.advance(0, starts(2, 1), np.full((2, 1), 0.01))
    one.gradient_noise(starts(1, 2))
    types = {value.dtype for name, value in one.state().items() if "." in name}
    assert types == {np.dtype(np.float32)}


def test_standard_error():
    values = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 5.0, 5.0, 5.0]])
    np.testing.assert_allclose(standard_error(values), [math.sqrt(5 / 3) / 2, 0.0], rtol=1e-15)
    assert np.isnan(standard_error(values[:, :1])).all()


def test_gradient_noise_of_equal_batches():
    """The same small batch twice: its squared norm is that of the mean."""
    one = trainer()
    small, mean = one.gradient_noise(np.repeat(starts(1, 1), 2, axis=1))
    np.testing.assert_allclose(small, np.broadcast_to(mean[:, None], small.shape), rtol=1e-13)
