# Oracle: the whole loss called with all weights, and torch.autograd on it; both share no code with the part.
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from gengap.core.errors import BadInput
from gengap.measures.part import ChunkedPart, part
from gengap.measures.protocols import Chunked, LossFunction, Plain, Reread, SamplePiece, pieces, sample_pieces
from gengap.problem.from_model import loss_function

N = 17
RNG = torch.Generator().manual_seed(0)
X, Y = torch.randn(N, 4, dtype=torch.float64, generator=RNG), torch.randint(3, (N,), generator=RNG)
MOVING = ("2.weight", "0.bias")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def at_hand(kind):
    model = network()
    params = {n: p.detach() for n, p in model.named_parameters()}

    def plain(p):
        return F.cross_entropy(functional_call(model, dict(p), (X,)), Y)

    loss = Plain(plain) if kind == "plain" else loss_function(model, "cross_entropy", (X, Y), batch_size=5)
    held = {n: p for n, p in params.items() if n not in MOVING}
    return part(loss, held, tuple(params)), {n: params[n] for n in MOVING}, plain, params


@pytest.mark.parametrize("kind", ["plain", "chunked"])
def test_value_and_gradient_are_those_of_the_whole(kind):
    held, moving, plain, params = at_hand(kind)
    assert isinstance(held, LossFunction)
    assert isinstance(held, Chunked) == (kind == "chunked")
    moved = {n: p + 0.3 for n, p in moving.items()}
    own = {n: p.clone().requires_grad_() for n, p in moved.items()}
    exact = plain({**params, **own})
    gradient = torch.autograd.grad(exact, list(own.values()))
    value, found = held.value_and_grad(moved)
    assert value == pytest.approx(exact.item(), rel=1e-13)
    assert [held.value(moved), held.score(moved).loss, held(moved).item()] == pytest.approx(
        [exact.item()] * 3, rel=1e-13
    )
    assert list(found) == list(MOVING)
    assert all(torch.allclose(found[n], g, rtol=1e-12, atol=1e-15) for n, g in zip(MOVING, gradient, strict=True))
    assert not any(p.requires_grad or p.grad is not None for p in moved.values())


def test_a_plain_function_sees_its_weights_in_the_users_order():
    names, seen = ("c", "a", "b"), []
    params = {n: torch.ones(1) for n in names}
    held = part(Plain(lambda p: (seen.append(tuple(p)), sum(p.values()).sum())[1]), {"a": params["a"]}, names)
    held.value({"b": params["b"], "c": params["c"]})
    held.value_and_grad({"c": params["c"], "b": params["b"]})
    assert seen == [names, names]


def test_says_what_the_whole_says():
    held, moving, _, _ = at_hand("chunked")
    assert held.describe() == held.loss.describe()
    assert held.score(moving).accuracy == held.loss.score(held.whole(moving)).accuracy
    assert (held.chunk_size, held.with_chunk(3).chunk_size) == (5, 3)
    assert isinstance(held.with_chunk(3), ChunkedPart)
    assert held.with_chunk(3).value(moving) == pytest.approx(held.value(moving), rel=1e-13)
    assert isinstance(held, Reread)
    assert held.changed_sample() is None
    assert at_hand("plain")[0].changed_sample() is None


def test_pieces_take_the_weights_that_move():
    held, moving, plain, params = at_hand("chunked")
    found = list(sample_pieces(held, moving, "a test"))
    assert [piece.size for piece in found] == [5, 5, 5, 2]
    total, start = 0.0, 0
    for piece in found:
        assert isinstance(piece, SamplePiece)
        outputs = piece.outputs(moving)
        whole = functional_call(network(), params, (X[start : start + piece.size],))
        assert torch.allclose(outputs, whole, rtol=1e-13)
        assert torch.allclose(piece.network(moving, piece.inputs[:2]), whole[:2], rtol=1e-13)
        assert piece.losses(outputs).mean().item() == pytest.approx(piece.mean(outputs).item(), rel=1e-13)
        assert piece(moving).item() == pytest.approx(piece.mean(outputs).item(), rel=1e-13)
        few = piece.head(2)
        assert (few.size, len(few.targets)) == (2, 2)
        assert torch.equal(few.outputs(moving), piece.network(moving, piece.inputs[:2]))
        total += piece(moving).item() * piece.size / N
        start += piece.size
    assert total == pytest.approx(plain(params).item(), rel=1e-13)


def test_a_plain_function_is_one_piece_and_has_no_samples():
    held, moving, plain, params = at_hand("plain")
    (whole,) = pieces(held, moving)
    assert (whole.size, whole(moving).item()) == (1, pytest.approx(plain(params).item(), rel=1e-14))
    with pytest.raises(BadInput, match="the trace needs the network and the samples behind the loss"):
        next(sample_pieces(held, moving, "the trace"))


@pytest.mark.parametrize("kind", ["plain", "chunked"])
def test_weights_that_do_not_count_are_refused(kind):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(4, 3).double(), nn.Parameter(torch.ones(2, dtype=torch.float64))

        def forward(self, x):
            return self.used(x)

    model = Idle()
    params = {n: p.detach() for n, p in model.named_parameters()}
    loss = loss_function(model, "cross_entropy", (X, Y)) if kind == "chunked" else Plain(lambda p: p["used.bias"].sum())
    held = part(loss, {n: p for n, p in params.items() if n != "idle"}, tuple(params))
    with pytest.raises(BadInput, match="does not depend on params in a way torch can differentiate"):
        held.value_and_grad({"idle": params["idle"]})
