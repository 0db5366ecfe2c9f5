"""Oracles: scipy's relative entropy and torch's kl_div; a linear network, where the expected penalty is sigma^2 |W|^2."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from objective_networks import FEATURES, B, Words, fresh, gradients, labels, mlp, normed, numbers
from scipy.special import expit, rel_entr, softmax
from torch import nn

from gengap.core.errors import BadInput
from gengap.objectives.label_smoothing import smooth
from gengap.objectives.stability import Stability, moved


def test_divergence_of_classes():
    a, b = numbers(7, 4, seed=1), numbers(7, 4, seed=2)
    expected = rel_entr(softmax(a.numpy(), 1), softmax(b.numpy(), 1)).sum(1).mean()
    assert moved(a, b, "kl").item() == pytest.approx(expected, rel=1e-12)
    assert moved(a, a, "kl") == 0


@pytest.mark.parametrize("shape", [(7,), (7, 1)])
def test_divergence_of_one_logit(shape):
    a, b = numbers(7, seed=1), numbers(7, seed=2)
    p, q = expit(a.numpy()), expit(b.numpy())
    expected = (rel_entr(p, q) + rel_entr(1 - p, 1 - q)).mean()
    assert moved(a.reshape(shape), b.reshape(shape), "kl").item() == pytest.approx(expected, rel=1e-12)


def test_divergence_with_a_class_axis_for_every_position():
    a, b = numbers(3, 5, 6, seed=1), numbers(3, 5, 6, seed=2)
    rows = [z.transpose(1, 2).reshape(-1, 5).numpy() for z in (a, b)]
    expected = rel_entr(softmax(rows[0], 1), softmax(rows[1], 1)).sum(1).mean()
    assert moved(a, b, "kl").item() == pytest.approx(expected, rel=1e-12)


def test_square_distance():
    a, b = numbers(7, 4, seed=1), numbers(7, 4, seed=2)
    assert moved(a, b, "l2").item() == pytest.approx(((a - b).numpy() ** 2).sum() / 7, rel=1e-12)


def test_certain_outputs_have_a_finite_divergence_and_gradient():
    a = torch.tensor([[1e4, 0.0], [0.0, -1e4]], dtype=torch.float64, requires_grad=True)
    value = moved(a, a.detach() + torch.tensor([1.0, -1.0]), "kl")
    value.backward()
    assert value.isfinite()
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("distance", ["kl", "l2"])
def test_loss_and_gradient_are_those_of_torch_with_the_same_noise(distance):
    x, y = numbers(B, FEATURES), labels()
    model, other, seen = mlp(), mlp(), []
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    found = Stability(0.3, 0.7, distance)(model, F.cross_entropy, x, y)
    found.backward()
    assert torch.equal(seen[0], x)
    clean, noisy = other(x), other(seen[1])
    if distance == "kl":
        penalty = F.kl_div(noisy.log_softmax(1), clean.log_softmax(1), log_target=True, reduction="batchmean")
    else:
        penalty = F.mse_loss(noisy, clean, reduction="sum") / B
    expected = F.cross_entropy(clean, y) + 0.7 * penalty
    expected.backward()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for name, slope in gradients(model).items():
        torch.testing.assert_close(slope, gradients(other)[name], rtol=1e-10, atol=1e-13)


def test_the_penalty_of_a_linear_network_is_its_squared_norm_times_the_variance():
    """E |W n sigma|^2 = sigma^2 |W|^2, over 20,000 samples; 5 standard errors."""
    model, n, sigma = fresh(lambda: nn.Linear(FEATURES, 4)), 20_000, 0.3
    x = torch.zeros(n, FEATURES, dtype=torch.float64)
    found = Stability(sigma, 2.0, "l2")(model, lambda outputs, _: 0 * outputs.sum(), x, labels(n)) / 2
    gram = model.weight.detach().T @ model.weight.detach()
    truth = sigma**2 * gram.trace()
    stderr = sigma**2 * math.sqrt(2 * gram.square().sum() / n)  # variance of a quadratic form of normal numbers
    assert abs(found - truth) < 5 * stderr
    assert stderr < 0.02 * truth


def test_noise_has_the_asked_deviation_and_every_input_its_own():
    model, seen = fresh(lambda: nn.Bilinear(FEATURES, FEATURES, 4)), []
    model.register_forward_pre_hook(lambda _, args: seen.append(args))
    x = torch.zeros(5000, FEATURES, dtype=torch.float64)
    Stability(0.2, 1.0)(model, F.cross_entropy, (x, x.clone()), labels(5000))
    a, b = seen[1]
    for noise in (a, b):
        assert abs(noise.std() - 0.2) < 5 * 0.2 / math.sqrt(2 * noise.numel())
    assert abs((a * b).mean()) < 5 * 0.04 / math.sqrt(a.numel())


def noise_of(objective, x, **which):
    """Give the noise that an objective adds."""
    model, seen = fresh(lambda: nn.Linear(x.shape[1], 4)), []
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    objective(model, F.cross_entropy, x, labels(len(x)), **which)
    return seen[1] - x


def test_the_noise_of_a_sample_depends_on_seed_epoch_and_sample_alone():
    x = torch.zeros(B, FEATURES, dtype=torch.float64)
    indices = torch.arange(100, 100 + B)
    whole = noise_of(Stability(1.0, 1.0, seed=3), x, indices=indices, epoch=2)
    objective = Stability(1.0, 1.0, seed=3)
    parts = [noise_of(objective, a, indices=i, epoch=2) for a, i in zip(x.split(5), indices.split(5), strict=True)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(noise_of(objective, x.flip(0), indices=indices.flip(0), epoch=2), whole.flip(0))
    assert objective.calls == 0
    for other in (
        noise_of(Stability(1.0, 1.0, seed=4), x, indices=indices, epoch=2),
        noise_of(objective, x, indices=indices, epoch=3),
        noise_of(objective, x, indices=indices + B, epoch=2),
    ):
        assert (other != whole).all()


def test_without_indices_every_call_has_other_noise_and_a_resumed_run_the_same():
    x = torch.zeros(B, FEATURES, dtype=torch.float64)
    objective = Stability(1.0, 1.0, seed=3)
    first, second = noise_of(objective, x), noise_of(objective, x)
    assert (first != second).all()
    assert objective.calls == 2
    resumed = Stability(1.0, 1.0, seed=3)
    resumed.calls = 1
    assert torch.equal(noise_of(resumed, x), second)


def test_running_statistics_follow_the_clean_inputs():
    model, other, x = normed(), normed(), numbers(B, FEATURES)
    Stability(2.0, 1.0)(model, F.cross_entropy, x, labels()).backward()
    other(x)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, dict(other.named_buffers())[name]), name


def test_integers_get_no_noise():
    model, words, shift = fresh(Words), labels(classes=10), numbers(B, 5)
    Stability(0.1, 1.0)(model, F.cross_entropy, {"words": words, "shift": shift}, labels())
    assert torch.equal(model.seen[1][0], words)
    assert (model.seen[1][1] != shift).all()
    with pytest.raises(BadInput, match="no input is a floating tensor; use the plain loss"):
        Stability(0.1, 1.0)(nn.Embedding(10, 4), F.cross_entropy, words, labels())


def test_smoothed_labels_change_the_loss_and_not_the_penalty():
    model, x, y = mlp(), numbers(B, FEATURES), labels()
    which = {"indices": torch.arange(B)}
    plain = Stability(0.3, 1.0)(model, F.cross_entropy, x, y, **which)
    smoothed = Stability(0.3, 1.0)(model, smooth(0.2).mean, x, y, **which)
    expected = F.cross_entropy(model(x), y, label_smoothing=0.2) - F.cross_entropy(model(x), y)
    torch.testing.assert_close(smoothed - plain, expected, rtol=1e-10, atol=1e-13)


def test_global_generator_and_inputs_are_left_alone():
    before, x = torch.get_rng_state(), numbers(B, FEATURES)
    kept = x.clone()
    Stability(0.3, 1.0)(mlp(), F.cross_entropy, x, labels())
    after = torch.get_rng_state()
    np.testing.assert_array_equal(after, before)
    assert torch.equal(x, kept)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"sigma": 0, "weight": 1}, "sigma is 0; give a finite number above 0"),
        ({"sigma": 1, "weight": -1}, "weight is -1"),
        ({"sigma": float("inf"), "weight": 1}, "sigma is inf"),
        ({"sigma": 1, "weight": 1, "distance": "l1"}, "distance is 'l1'; choose one of: kl, l2"),
    ],
)
def test_values_that_mean_nothing_are_refused(how, says):
    with pytest.raises(BadInput, match=says):
        Stability(**how)
