"""Oracles: torch's own LSTM and `nn.TransformerEncoder` with the same weights in float64, counts by closed forms, finite
differences of gradients, and what causality means: no output depends on a later token."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from gengap.core.errors import BadInput
from gengap.nets import language

V, T, WIDTH = 11, 5, 8


def made(maker, *args, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return maker(*args, **options)


def tokens(count=3, length=T, seed=0):
    return torch.randint(V, (count, length), generator=torch.Generator().manual_seed(seed))


def lstm(**options):
    return made(language.LstmLanguageModel, V, WIDTH, **{"dropout": 0.0, "spread": 0.5, **options}).double()


def transformer(**options):
    model = made(language.Transformer, V, T, **{"width": WIDTH, "depth": 2, "heads": 2, **options}).double()
    for p in model.parameters():  # as initialised, attention is nearly uniform and would hide its faults
        p.data.mul_(5)
    return model


MODELS = {"lstm": lstm, "tied": transformer, "untied": lambda: transformer(tied=False)}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def test_outputs_go_into_cross_entropy_and_second_axis_is_the_vocabulary(model):
    outputs, targets = model(tokens()), tokens(seed=1)
    assert outputs.shape == (3, V, T)
    exact = [-outputs[b, :, t].log_softmax(0)[targets[b, t]] for b in range(3) for t in range(T)]
    torch.testing.assert_close(F.cross_entropy(outputs, targets), torch.stack(exact).mean())


def test_no_output_depends_on_a_later_token(model):
    changed = tokens().clone()
    changed[:, 3] = (changed[:, 3] + 1) % V
    before, after = model(tokens()), model(changed)
    torch.testing.assert_close(before[..., :3], after[..., :3])
    assert (before[..., 3:] != after[..., 3:]).any(1).all()  # every later one does


def test_a_window_begins_from_nothing(model):
    """Windows of one batch do not see each other, and a window gives the same whatever was read before."""
    together = model(tokens())
    alone = torch.cat([model(row[None]) for row in tokens()])
    torch.testing.assert_close(together, alone)


def test_it_can_be_differentiated_twice(model):
    """Oracle: central differences of the gradient along a random direction."""
    params = {name: p.detach() for name, p in model.named_parameters()}
    rng = torch.Generator().manual_seed(2)
    direction = {name: torch.randn(p.shape, generator=rng, dtype=p.dtype) for name, p in params.items()}

    def loss(p):
        return F.cross_entropy(functional_call(model, p, (tokens(),)), tokens(seed=1))

    def moved(step):
        return {name: p + step * direction[name] for name, p in params.items()}

    with sdpa_kernel(SDPBackend.MATH):
        own = {name: p.clone().requires_grad_() for name, p in params.items()}
        first = torch.autograd.grad(loss(own), list(own.values()), create_graph=True)
        along = sum((g * d).sum() for g, d in zip(first, direction.values(), strict=True))
        product = torch.autograd.grad(along, list(own.values()))
        up, down = grad(loss)(moved(1e-6)), grad(loss)(moved(-1e-6))
    for name, found in zip(params, product, strict=True):
        exact = (up[name] - down[name]) / 2e-6
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5 * exact.abs().max().item() + 1e-9)


def test_many_runs_in_one_program_equal_each_alone(model):
    names = [name for name, _ in model.named_parameters()]
    runs = [{name: p.detach() * scale for name, p in model.named_parameters()} for scale in (0.5, 1.0, 1.5)]

    targets = tokens(seed=1)

    def loss(p, inputs):
        return F.cross_entropy(functional_call(model, p, (inputs,)), targets)

    batches = torch.stack([tokens(seed=seed) for seed in (3, 4, 5)])
    stacked = {name: torch.stack([run[name] for run in runs]) for name in names}
    with sdpa_kernel(SDPBackend.MATH):
        together = vmap(grad(loss))(stacked, batches)
        for k, run in enumerate(runs):
            alone = grad(loss)(run, batches[k])
            for name in names:
                torch.testing.assert_close(together[name][k], alone[name], rtol=1e-10, atol=1e-12)


# the LSTM


def test_lstm_is_torchs_with_one_bias():
    mine = made(language.Lstm, 3, WIDTH).double()
    theirs = nn.LSTM(3, WIDTH, batch_first=True, dtype=torch.float64)
    state = {"weight_ih_l0": mine.from_input.weight, "weight_hh_l0": mine.from_state.weight,
             "bias_ih_l0": mine.from_input.bias, "bias_hh_l0": torch.zeros(4 * WIDTH)}  # fmt: skip
    theirs.load_state_dict(state)
    x = torch.randn(2, T, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mine(x), theirs(x)[0])


@pytest.mark.parametrize(
    ("maker", "units", "spread", "dropout"),
    [
        (language.lstm_small, 200, 0.1, 0.0),
        (language.lstm_medium, 650, 0.05, 0.5),
        (language.lstm_large, 1500, 0.04, 0.65),
    ],
)
def test_zarembas_sizes(maker, units, spread, dropout):
    with torch.device("meta"):
        outline = maker()
    exact = 10_000 * units + 2 * (8 * units**2 + 4 * units) + (units + 1) * 10_000
    assert sum(p.numel() for p in outline.parameters()) == exact
    assert outline.dropout.p == dropout
    model = made(language.LstmLanguageModel, 500, 20, dropout=dropout, spread=spread)
    for p in model.parameters():
        assert 0.8 * spread < p.abs().max() <= spread


def test_dropout_is_on_no_recurrent_connection():
    """With everything dropped but what an LSTM carries within itself, all positions give the bias of the output."""
    model = lstm(dropout=1.0).train()
    torch.testing.assert_close(model(tokens()), model.output.bias[None, :, None].expand(3, V, T))
    calls = []
    lstm_model = lstm(dropout=0.5).train()
    lstm_model.dropout.register_forward_hook(lambda *_: calls.append(1))
    lstm_model(tokens())
    assert len(calls) == 3  # after the embedding, between the layers, before the output: not once a step


# the transformer


@pytest.mark.parametrize("tied", [True, False])
def test_transformer_weights_by_their_formula(tied):
    model = made(language.Transformer, 50, 7, width=12, depth=3, heads=4, tied=tied)
    block = 12 * 12**2 + 13 * 12  # 4 + 8 matrices of width^2; biases 3 + 1 + 4 + 1, two norms of 2
    exact = 50 * 12 + 7 * 12 + 3 * block + 2 * 12 + (0 if tied else 50 * 12)
    assert sum(p.numel() for p in model.parameters()) == exact


def test_transformer_is_torchs_encoder_under_a_causal_mask():
    mine = transformer(tied=False).eval()
    layer = nn.TransformerEncoderLayer(
        WIDTH, 2, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True, dtype=torch.float64
    )
    theirs = nn.TransformerEncoder(layer, 2, nn.LayerNorm(WIDTH, dtype=torch.float64), enable_nested_tensor=False)
    for other, block in zip(theirs.layers, mine.blocks, strict=True):
        attention = block.attention
        pairs = {"self_attn.in_proj_weight": attention.split.weight, "self_attn.in_proj_bias": attention.split.bias}
        for name, module in (("self_attn.out_proj", attention.merge), ("linear1", block.grow), ("linear2", block.shrink),
                             ("norm1", block.attention_norm), ("norm2", block.norm)):  # fmt: skip
            pairs |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
        other.load_state_dict(pairs)
    theirs.norm.load_state_dict(mine.norm.state_dict())
    x = mine.embedding(tokens()) + mine.position.weight
    mask = nn.Transformer.generate_square_subsequent_mask(T, dtype=torch.float64)
    exact = mine.output(theirs.train()(x, mask=mask, is_causal=True)).transpose(1, 2)
    torch.testing.assert_close(mine(tokens()), exact)


def test_tied_means_the_embedding_is_the_output():
    tied, untied = transformer(), transformer(tied=False)
    shared = {k: v for k, v in untied.state_dict().items() if k != "output.weight"}
    tied.load_state_dict(shared)
    untied.output.weight.data.copy_(untied.embedding.weight)
    torch.testing.assert_close(tied(tokens()), untied(tokens()))
    assert "output.weight" not in tied.state_dict()  # each weight has one name, in memory and in files


def test_branches_begin_smaller_the_deeper_the_model():
    model = made(language.Transformer, V, T, width=64, depth=8, heads=4)
    for end in model.ends():
        assert end.weight.std().item() == pytest.approx(0.02 / math.sqrt(16), rel=0.1)
    assert model.blocks[0].grow.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_shorter_windows_fit_and_longer_ones_are_refused():
    model = transformer()
    torch.testing.assert_close(model(tokens()[:, :2]), model(tokens())[..., :2])
    with pytest.raises(BadInput, match="a window of 6 tokens is longer than the 5 positions"):
        model(tokens(length=6))


@pytest.mark.parametrize("sizes", [{"width": 9}, {"depth": 0}, {"heads": 0}], ids=str)
def test_impossible_sizes(sizes):
    with pytest.raises(BadInput, match="give positive sizes and a width that the heads divide"):
        language.Transformer(V, T, **{"width": WIDTH, "depth": 1, "heads": 2, **sizes})
