# Oracles: central differences of gradients, written out here, tell which second derivatives of torch are right; functions whose
# backward is made wrong on purpose; the same networks with ordinary operations, which must pass.
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.parametrizations import weight_norm

import gengap
from gengap.core.errors import BadInput
from gengap.measures.curvature.operators import hessian
from gengap.measures.product_check import asymmetry
from gengap.measures.protocols import Plain, Whole
from gengap.measures.session import measuring
from gengap.measures.trees import ravel, unravel
from gengap.problem.from_model import loss_function

N, C = 24, 3


class Once(torch.autograd.Function):
    """tanh whose backward torch is told not to differentiate: it leaves the path out without a word."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return g * (1 - ctx.saved_tensors[0].tanh() ** 2)


class Detached(torch.autograd.Function):
    """tanh whose backward knows x as a number: products are symmetric, and lack the bend of tanh."""

    @staticmethod
    def forward(ctx, x):
        ctx.slope = 1 - x.tanh().detach() ** 2
        return x.tanh()

    @staticmethod
    def backward(ctx, g):
        return g * ctx.slope


class Right(torch.autograd.Function):
    """tanh with a backward that is differentiable."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx, g):
        return g * (1 - ctx.saved_tensors[0].tanh() ** 2)


class Layered(nn.Module):
    def __init__(self, bend, width=8):
        super().__init__()
        self.first, self.last, self.bend = nn.Linear(5, width), nn.Linear(width, C), bend

    def forward(self, x):
        return self.last(self.bend(self.first(x)))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix, self.out = nn.Linear(4, 12), nn.Linear(4, C)

    def forward(self, x):
        query, key, value = self.mix(x).unsqueeze(1).chunk(3, -1)
        return self.out(F.scaled_dot_product_attention(query, key, value).squeeze(1).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, C)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def classes():
    return torch.arange(N) % C


def opened(model, inputs, dtype=torch.float32, **options):
    torch.manual_seed(0)
    model = (model() if isinstance(model, type) else model).to(dtype)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    loss = loss_function(model, "cross_entropy", (inputs, classes()))
    return measuring(loss, dict(model.named_parameters()), passes="product", **options)


def off_the_difference(session):
    """Relative error of a product against a central difference of gradients."""
    v, w, step = ravel({k: torch.ones_like(p) for k, p in session.params.items()}), ravel(session.params), 1e-6
    ahead, behind = (
        ravel(session.loss.value_and_grad(unravel(w + sign * step * v, session.params))[1]) for sign in (1, -1)
    )
    exact = (ahead - behind) / (2 * step)
    return float((hessian(session)(v) - exact).norm() / exact.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bend", [Once, Detached], ids=lambda f: f.__name__)
def test_a_function_whose_backward_cannot_be_differentiated_is_refused(bend, dtype):
    with opened(Layered(bend.apply), normal(N, 5), torch.float64, check=False) as session:
        assert off_the_difference(session) > 0.05  # torch makes a wrong product, and does not say so
    says = r"second derivative of 8 samples are wrong \([\d.e+]+ % off .* pass check=False"
    with pytest.raises(BadInput, match=says), opened(Layered(bend.apply), normal(N, 5), dtype):
        pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_function_with_a_right_backward_passes(dtype):
    with opened(Layered(Right.apply), normal(N, 5), dtype) as session:
        assert session.weights == 75


def test_weight_norm_is_refused_where_torch_has_it_wrong():
    def network():
        torch.manual_seed(0)
        return nn.Sequential(weight_norm(nn.Linear(5, 8)), nn.Tanh(), nn.Linear(8, C))

    with opened(network(), normal(N, 5), torch.float64, check=False) as session:
        right = off_the_difference(session) < 1e-6
    if right:
        with opened(network(), normal(N, 5)) as session:
            assert session.weights
        return
    with pytest.raises(BadInput, match="fused weight norm"), opened(network(), normal(N, 5)):
        pass


@pytest.mark.parametrize(
    "measure",
    [
        gengap.top_eigenvalues,
        gengap.spectral_density,
        gengap.trace,
        lambda f, p: gengap.log_evidence(f, p, l2=1.0, method="lanczos"),
        gengap.steep_fraction,
        gengap.curvature_noise_scale,
        gengap.covariance_eigenvalues,
    ],
)
def test_every_measure_with_products_looks(measure):
    model = Layered(Once.apply)
    loss = loss_function(model, "cross_entropy", (normal(N, 5), classes()))
    with pytest.raises(BadInput, match="second derivative of 8 samples are wrong"):
        measure(loss, dict(model.named_parameters()))


def test_only_some_weights_are_tried_where_only_those_are_measured():
    """Behind the last layer nothing bends that torch has wrong."""
    with opened(Layered(Once.apply), normal(N, 5), only="last.*") as session:
        assert session.weights == 27
    with pytest.raises(BadInput, match="are wrong"), opened(Layered(Once.apply), normal(N, 5), only="first.*"):
        pass


LEGITIMATE = {
    "relu": (
        lambda: nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, C)),
        (N, 5),
    ),
    "max pool": (
        lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, C)),
        (N, 2, 8, 8),
    ),
    "batch norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, C)),
        (N, 2, 8, 8),
    ),
    "attention": (Attention, (N, 5, 4)),
    "lstm": (Recurrent, (N, 5, 4)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LEGITIMATE)
def test_what_is_right_passes(name, dtype):
    model, shape = LEGITIMATE[name]
    torch.manual_seed(0)
    with opened(model(), normal(*shape), dtype) as session:
        assert session.weights


def test_a_relu_that_stands_exactly_at_its_switch_passes():
    """Blank images and biases at zero: a difference of gradients has a jump there, and the derivative has none."""
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, C))
    nn.init.zeros_(model[0].bias)
    with opened(model, torch.zeros(N, 5)) as session:
        assert session.weights == 75


def test_a_row_that_an_embedding_does_not_train_passes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 4, padding_idx=0), nn.Flatten(), nn.Tanh(), nn.Linear(12, C))
    nn.init.ones_(model[0].weight)  # the row of the padding moves the loss, though it has no gradient
    tokens = torch.randint(6, (N, 3), generator=torch.Generator().manual_seed(2))
    with opened(model, tokens, torch.float64) as session:
        assert session.weights == 63


class Narrow(nn.Module):
    """A network that goes through float32 whatever it is given: differences of float64 say nothing of it."""

    def __init__(self):
        super().__init__()
        self.inner = Layered(torch.tanh)

    def forward(self, x):
        params = {name: p.float() for name, p in self.inner.named_parameters()}
        return torch.func.functional_call(self.inner, params, (x.float(),)).to(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_that_computes_in_float32_passes(dtype):
    with opened(Narrow, normal(N, 5), dtype) as session:
        assert session.weights == 75


def plain(bend, dtype):
    x, y = normal(N, 5).to(dtype), classes()
    params = {"a": normal(5, 8).to(dtype), "b": normal(8, C).to(dtype)}
    return lambda p: F.cross_entropy(bend(x @ p["a"]) @ p["b"], y), params


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_plain_functions(dtype):
    """In float32 only symmetry can be looked at: such a function may hold float32 data."""
    for bend in (torch.tanh, Right.apply, torch.relu):
        loss, params = plain(bend, dtype)
        with measuring(loss, params, passes="product") as session:
            assert session.weights == 64
    loss, params = plain(Once.apply, dtype)
    says = "of the loss are wrong .*(not symmetric|off the difference)"
    with pytest.raises(BadInput, match=says), measuring(loss, params, passes="product"):
        pass


def test_what_has_no_curvature_is_symmetric():
    tree = {"w": normal(4)}
    assert asymmetry(Whole(Plain(lambda p: p["w"].sum())), tree) == 0


def test_a_limit_without_room_for_float64_leaves_symmetry():
    model = Layered(Once.apply, width=4000)
    with pytest.raises(BadInput, match="not symmetric"), opened(model, normal(N, 5), memory_limit="3 MiB"):
        pass
