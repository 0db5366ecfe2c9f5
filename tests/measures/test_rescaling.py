# Oracles: weights rescaled by hand and put through the module itself; dense Hessians of torch.func, whose blocks scale by known
# powers of alpha; lists of the layers of small networks, made by eye.
import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, jacrev

import gengap
from gengap.core.errors import BadInput
from gengap.core.estimate import mean
from gengap.measures.rescaling import judged, rescaling_check, usual_measures
from gengap.measures.rescalings import find_rescalings


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3))


def normed():
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))


def convolutions():
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.LeakyReLU(0.1)),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


class Functional(nn.Module):
    """Written without Sequential: its shape is asked for, and one signal is used twice."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 3, 3), nn.Linear(27, 5)
        self.three, self.four = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = F.max_pool2d(torch.relu(self.one(x)), 2).contiguous()
        x = F.relu(self.two(x.view(x.size(0), -1)))
        x = x + F.relu(self.three(x))
        return self.four(x)


class Branching(nn.Module):
    """Its course depends on the numbers, so that it cannot be traced; the Sequential inside can be read."""

    def __init__(self):
        super().__init__()
        self.body, self.head = mlp(), nn.Linear(3, 3)

    def forward(self, x):
        x = self.body(x)
        return self.head(x) if x.sum() > -1e9 else x


def tied():
    net = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3))
    net[2].weight = net[0].weight
    return net


FOUND = {
    "mlp": (mlp, [("pair", "1", "4")]),
    "batch norm": (normed, [("normalised", "0", "1")]),
    "convolutions": (convolutions, [("pair", "0.0", "1.0"), ("normalised", "1.0", "1.1")]),
    "functional": (Functional, [("pair", "one", "two")]),
    "branching": (Branching, [("pair", "body.1", "body.4")]),
    "tied": (tied, []),
    "tanh": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), []),
    "relu6": (lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU6(), nn.Linear(5, 3)), []),
    "three layers": (
        lambda: nn.Sequential(nn.Linear(6, 5), nn.PReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)),
        [("pair", "0", "2"), ("pair", "2", "4")],
    ),
    "layer norm": (lambda: nn.Sequential(nn.Linear(6, 5, bias=False), nn.LayerNorm(5)), [("normalised", "0", "1")]),
    "one layer": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), []),
}


@pytest.mark.parametrize("case", FOUND)
def test_finds_the_rescalings(case):
    make, expected = FOUND[case]
    found = find_rescalings(make())
    assert [(one.kind, one.first, one.second) for one in found] == expected


def problem(make, shape=(6,), n=24):
    rng = torch.Generator().manual_seed(0)
    data = torch.randn(n, *shape, generator=rng), torch.randint(3, (n,), generator=rng)
    return gengap.Problem(model=make, loss="cross_entropy", train=data, test=data, name="small")


def weights(p, seed=1):
    """Weights with biases that are not small, and running statistics that are not 0 and 1."""
    rng = torch.Generator().manual_seed(seed)
    model = p.model(0)
    params = {n: 0.5 * torch.randn(w.shape, generator=rng) + 0.2 for n, w in model.named_parameters()}
    buffers = {
        n: 0.3 + torch.rand(b.shape, generator=rng) if b.is_floating_point() else b for n, b in model.named_buffers()
    }
    return params, buffers


MOVED = {"loss": lambda loss, params: loss.value(params), "first": lambda _, params: next(iter(params.values())).norm()}


@pytest.mark.parametrize("alpha", [4.0, 0.125, 3.0])
@pytest.mark.parametrize(
    ("make", "shape"), [(mlp, (6,)), (convolutions, (1, 10, 10)), (Functional, (1, 8, 8)), (Branching, (6,))]
)
def test_every_pair_by_hand(make, shape, alpha):
    p = problem(make, shape)
    params, _ = weights(p)
    for one in (r for r in find_rescalings(p.model(0)) if r.kind == "pair"):
        found = rescaling_check(p, params, measures=MOVED, rescaling=one, alpha=alpha)
        by_hand = {n: w.clone() for n, w in params.items()}
        by_hand[f"{one.first}.weight"] *= alpha
        by_hand[f"{one.first}.bias"] *= alpha
        by_hand[f"{one.second}.weight"] /= alpha
        net, x = p.model(0).eval(), p.train[0]
        before, after = (functional_call(net, w, (x,)) for w in (params, by_hand))
        assert found.output_change == pytest.approx(float((before - after).abs().max()), abs=1e-6)
        assert found.output_scale == pytest.approx(float(before.abs().max()), rel=1e-6)
        if alpha != 3:
            assert found.output_change == 0
            assert found["loss"].before == found["loss"].after
        assert found["loss"].verdict == "invariant"
        assert one.applied(params, alpha).keys() == by_hand.keys()
        for name, w in one.applied(params, alpha).items():
            torch.testing.assert_close(w, by_hand[name])


@pytest.mark.parametrize("mode", ["running", "batch"])
def test_batch_norm_takes_the_factor_out(mode):
    p = problem(normed)
    params, buffers = weights(p)
    loss = p.loss_function("train", batch_norm=mode, buffers=buffers)
    kept = {n: b.clone() for n, b in loss.buffers.items()}
    found = rescaling_check(p, params, loss=loss, measures=MOVED, alpha=4.0)
    assert (found.rescaling.kind, found["loss"].verdict, found["first"].verdict) == ("normalised", "invariant", "moves")
    assert 0 < found.output_change < 1e-4 * found.output_scale  # eps is not scaled
    assert found["first"].ratio == pytest.approx(4)
    assert all(torch.equal(loss.buffers[n], b) for n, b in kept.items())
    net, x = p.model(0).train(mode == "batch"), p.train[0]
    moved = {n: 4 * w if n.startswith("0.") else w for n, w in params.items()}
    scaled = {
        **buffers,
        "1.running_mean": 4 * buffers["1.running_mean"],
        "1.running_var": 16 * buffers["1.running_var"],
    }
    before, after = (functional_call(net, {**w, **b}, (x,)) for w, b in ((params, buffers), (moved, scaled)))
    assert found.output_change == pytest.approx(float((before - after).detach().abs().max()), rel=0.05)


def test_buffers_are_put_back_when_a_measure_fails():
    p = problem(normed)
    params, buffers = weights(p)
    loss = p.loss_function("train", buffers=buffers)
    calls = []

    def second_time_fails(loss, params):
        calls.append(loss.buffers["1.running_var"].clone())
        return 1 / (2 - len(calls))

    with pytest.raises(ZeroDivisionError):
        rescaling_check(p, params, loss=loss, measures={"it": second_time_fails})
    torch.testing.assert_close(calls[1], 16 * buffers["1.running_var"])
    assert torch.equal(loss.buffers["1.running_var"], buffers["1.running_var"])


def test_the_usual_measures_of_a_network():
    p = problem(mlp)
    params, _ = weights(p)
    start = {n: torch.zeros_like(w) for n, w in params.items()}
    heard = []
    found = rescaling_check(p, params, measures=usual_measures(start), listen=heard.append)
    names = ["loss", "accuracy", "adaptive sharpness", "adaptive average sharpness"]
    assert [row.name for row in found.rows if row.verdict == "invariant"] == names
    assert {row.verdict for row in found.rows if row.name not in {*names, "noise scale"}} == {"moves"}
    assert found.output_change == 0
    # the block of a layer scales by alpha^-2, or by alpha^2
    net, (x, y) = p.model(0).eval().double(), p.train

    def value(w):
        return F.cross_entropy(functional_call(net, w, (x.double(),)), y)

    H = jacrev(jacrev(value))({n: w.double() for n, w in params.items()})
    traces = {n: float(H[n][n].reshape(w.numel(), -1).trace()) for n, w in params.items()}
    powers = {"1.weight": -2, "1.bias": -2, "4.weight": 2, "4.bias": 0}
    assert found["trace"].before == pytest.approx(sum(traces.values()), rel=0.05)
    assert found["trace"].after == pytest.approx(sum(t * 4.0 ** powers[n] for n, t in traces.items()), rel=0.05)
    lengths = [
        sum(float(w.square().sum()) * f**2 for w, f in zip(params.values(), factors, strict=True)) ** 0.5
        for factors in ((1, 1, 1, 1), (4, 4, 0.25, 1))
    ]
    for name in ("norm of the weights", "distance from the start"):
        assert (found[name].before, found[name].after) == pytest.approx(lengths, rel=1e-6)
    assert len(heard) == 2 * len(found.rows)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["rescaling"]["powers"] == {"1.weight": 1, "1.bias": 1, "4.weight": -1}
    assert "1 multiplied, 4 divided (alpha = 4); the function is the same bit for bit" in str(found)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((10.0, 0.0), (10.005, 0.0), "invariant"),
        ((10.0, 0.0), (10.2, 0.0), "moves"),
        ((10.0, 0.15), (10.2, 0.15), "invariant"),
        ((10.0, 2.0), (12.0, 2.0), "not resolvable"),
        ((10.0, 2.0), (10.005, 2.0), "invariant"),
        ((10.0, 2.0), (20.0, 2.0), "moves"),
        ((0.0, 0.0), (0.0, 0.0), "invariant"),
        ((0.0, 0.0), (1e-9, 0.0), "moves"),
        ((math.nan, 0.0), (1.0, 0.0), "no number"),
        ((1.0, 0.0), (math.inf, 0.0), "no number"),
        ((10.0, math.inf), (11.0, 0.0), "not resolvable"),
    ],
)
def test_verdicts(before, after, verdict):
    assert judged("it", before, after).verdict == verdict


def test_what_a_measure_may_return():
    p = problem(mlp)
    params, _ = weights(p)
    samples = [1.0, 2.0, 3.0]
    results = {
        "number": 3,
        "tensor": torch.tensor(2.5),
        "pair": (7.0, -0.5),
        "estimate": mean(samples),
        "nothing": None,
    }
    found = rescaling_check(p, params, measures={n: (lambda _, __, r=r: r) for n, r in results.items()})
    assert [row.before for row in found.rows[:4]] == [3.0, 2.5, 7.0, 2.0]
    assert found["pair"].bound == pytest.approx(0.5 * math.sqrt(2) + 0.007)
    half = mean(samples).interval[1] - 2
    assert found["estimate"].bound == pytest.approx(half * math.sqrt(2) + 0.002)
    assert found["nothing"].verdict == "no number"
    with pytest.raises(BadInput, match="the measure 'bad' returned a str; return a number"):
        rescaling_check(p, params, measures={"bad": lambda *_: "high"})


def test_refuses_with_a_sentence():
    p = problem(mlp)
    params, _ = weights(p)
    loss = p.loss_function("train")
    flat = problem(FOUND["tanh"][0])
    for arguments, options, sentence in [
        ((flat, weights(flat)[0]), {}, "the network cannot be rescaled: it has no two linear"),
        ((p, params), {"alpha": 1.0}, "alpha is 1.0; give a positive factor other than 1"),
        ((p, params), {"alpha": -2.0}, "alpha is -2.0"),
        ((p, params), {"measures": {}}, "measures is empty"),
        ((p, {"w": params["1.weight"]}), {}, "params lacks 1.weight, which is to be rescaled"),
        ((p.model(0), params), {}, "loss is missing"),
        ((p, params), {"loss": lambda w: 0}, "loss is a plain function"),
        ((42, params), {"loss": loss}, "model is a int"),
    ]:
        with pytest.raises(BadInput, match=sentence):
            rescaling_check(*arguments, **options)
    assert rescaling_check(p.model(0), params, loss=loss, measures=MOVED).output_change == 0


def test_a_function_that_changes_is_refused():
    class Sneaky(nn.Module):
        """Cannot be traced, and looks into its Sequential from outside."""

        def __init__(self):
            super().__init__()
            self.body = mlp()

        def forward(self, x):
            out = self.body(x)
            return out + self.body[1].weight.sum() if out.sum() > -1e9 else out

    p = problem(Sneaky)
    with pytest.raises(BadInput, match=r"changed an output by .* the weights are used in another way too"):
        rescaling_check(p, weights(p)[0], measures=MOVED)
