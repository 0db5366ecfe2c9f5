# Oracles: the closed form of a quadratic and of a bilinear function on a curve; a loop that writes every weight by hand.
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

import gengap
from gengap.core.errors import BadInput
from gengap.measures.landscape.paths import interpolate

A = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
B = torch.tensor([-1.0, 1.0, 4.0], dtype=torch.float64)
H = torch.tensor([[4.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 2.0]], dtype=torch.float64)


def quadratic(w):
    return 0.5 * w @ H @ w


def form(x, y):
    return float(x @ H @ y)


def test_a_quadratic_on_the_line():
    path = interpolate(quadratic, a=A, b=B)
    exact = [0.5 * ((1 - t) ** 2 * form(A, A) + 2 * t * (1 - t) * form(A, B) + t**2 * form(B, B)) for t in path.alphas]
    assert path.losses[0] == pytest.approx(exact, rel=1e-12)


def test_a_quadratic_on_the_sine_curve():
    path = interpolate(quadratic, a=A, b=B, curve="sine")
    assert path.curve == "sine"
    assert path.alphas[0] == -1
    assert path.alphas[-1] == 2
    turns = [(math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)) for t in path.alphas]
    exact = [0.5 * (c * c * form(A, A) + 2 * c * s * form(A, B) + s * s * form(B, B)) for c, s in turns]
    assert path.losses[0] == pytest.approx(exact, rel=1e-12)
    assert "sine path" in str(path)


def test_a_bilinear_function_on_both_curves():
    a = {"u": torch.tensor(2.0, dtype=torch.float64), "v": torch.tensor(3.0, dtype=torch.float64)}
    b = {"u": torch.tensor(-1.0, dtype=torch.float64), "v": torch.tensor(5.0, dtype=torch.float64)}
    line = interpolate(lambda p: p["u"] * p["v"], a=a, b=b, alphas=[0.25, 3])
    assert line.losses[0] == pytest.approx([(2 - 0.75) * (3 + 0.5), (2 - 9) * (3 + 6)], rel=1e-14)
    sine = interpolate(lambda p: p["u"] * p["v"], a=a, b=b, alphas=[0.5], curve="sine")
    assert sine.losses[0][0] == pytest.approx(0.5 * (2 - 1) * (3 + 5), rel=1e-14)


def test_the_sine_curve_has_the_bits_of_its_ends():
    a = {"w": torch.tensor([0.1, 1e30, math.inf])}
    b = {"w": torch.tensor([0.3, 1.0, 7.0])}
    seen = []
    interpolate(
        lambda p: (seen.append(p["w"].clone()), p["w"][0] * 0)[1], a=a, b=b, alphas=[1, 0], curve="sine", check=False
    )
    assert torch.equal(seen[0], b["w"])
    assert torch.equal(seen[1], a["w"])


def test_buffers_follow_the_sine_curve():
    class Offset:
        def __init__(self):
            self.buffers = {"m": torch.zeros((), dtype=torch.float64)}

        def __call__(self, params):
            return params["w"] + self.buffers["m"]

        value = value_and_grad = __call__

        def score(self, params):
            return type("S", (), {"loss": float(self(params)), "accuracy": None})()

        def describe(self):
            return {}

        def with_buffers(self, buffers):
            self.buffers = {name: b.clone() for name, b in buffers.items()}
            return self

    w = {"w": torch.zeros((), dtype=torch.float64)}
    ends = [{"m": torch.tensor(float(m), dtype=torch.float64)} for m in (3, 4)]
    path = interpolate(Offset(), a=w, b=w, alphas=[1 / 3], curve="sine", a_buffers=ends[0], b_buffers=ends[1])
    assert path.losses[0][0] == pytest.approx(3 * math.cos(math.pi / 6) + 4 * math.sin(math.pi / 6), rel=1e-12)


def test_only_named_weights_move():
    a = {"first.weight": torch.tensor([1.0]), "last.weight": torch.tensor([10.0])}
    b = {"first.weight": torch.tensor([3.0]), "last.weight": torch.tensor([30.0])}
    path = interpolate(lambda p: sum(p.values()).sum(), a=a, b=b, alphas=[0, 0.5, 1], only="first.*")
    assert path.losses == ((11.0, 12.0, 13.0),)


@settings(max_examples=25, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=1, max_size=3),
    curve=st.sampled_from(["linear", "sine"]),
    alpha=st.floats(-2, 3),
)
def test_any_shapes_equal_the_loop(shapes, curve, alpha):
    rng = torch.Generator().manual_seed(len(shapes))
    a, b = (
        {f"w{i}": torch.randn(s, dtype=torch.float64, generator=rng) for i, s in enumerate(shapes)} for _ in range(2)
    )
    weights = (
        (1 - alpha, alpha) if curve == "linear" else (math.cos(math.pi * alpha / 2), math.sin(math.pi * alpha / 2))
    )
    exact = 0.0
    for name, p in a.items():
        for x, y in zip(p.flatten().tolist(), b[name].flatten().tolist(), strict=True):
            exact += (weights[0] * x + weights[1] * y) ** 2
    path = interpolate(lambda p: sum(w.square().sum() for w in p.values()), a=a, b=b, alphas=[alpha], curve=curve)
    assert path.losses[0][0] == pytest.approx(exact, rel=1e-10)


def test_a_random_loss_is_refused_and_leaves_the_generator_alone():
    state = torch.get_rng_state()
    with pytest.raises(BadInput, match="the loss draws random numbers"):
        interpolate(lambda w: w.sum() + torch.rand(()), a=A, b=B)
    interpolate(lambda w: w.sum() + torch.rand(()), a=A, b=B, check=False)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_unknown_curve_is_refused():
    with pytest.raises(BadInput, match="curve is 'cosine'; choose one of linear, sine"):
        interpolate(quadratic, a=A, b=B, curve="cosine")


def test_the_record_keeps_its_keys_and_tells_the_cost():
    found = interpolate(quadratic, a=A, b=B).to_dict()
    known = {"alphas", "losses", "accuracies", "descriptions", "curve", "forward_samples", "seconds", "dtype", "bound"}
    assert known <= set(found)
    assert found["memory_limit"] == 4 * 2**30
    assert found["resumed"] == 0
    assert found["summaries"][0]["barrier"] == 0


def test_two_losses_on_tensors_have_columns_of_their_own():
    data = [(torch.randn(6, 2, generator=torch.Generator().manual_seed(i)), torch.arange(6) % 2) for i in (0, 1)]
    model = torch.nn.Linear(2, 2)
    losses = [gengap.loss_function(model, "cross_entropy", pair) for pair in data]
    params = {name: p.detach() for name, p in model.named_parameters()}
    found = interpolate(losses, a=params, b={name: p + 1 for name, p in params.items()}, alphas=[0.0, 1.0])
    title, heading, *rows, first, second = str(found).splitlines()
    assert heading.split() == ["alpha", "tensors", "tensors", "(2)"]
    assert [row.split() for row in rows] == [
        [f"{alpha:g}", *(f"{values[i]:.4g}" for values in found.losses)] for i, alpha in enumerate((0.0, 1.0))
    ]
    assert (first.split(":")[0], second.split(":")[0]) == ("tensors", "tensors (2)")
    assert title == "loss in nats along the linear path"
