# Oracles: the whole batch; memory that torch's own dispatcher is seen to allocate, counted by hand for a network without
# anything but one product.
import pytest
import torch
from torch import nn
from training_problems import assert_same_run, normed, points, problem, recipe, smooth

import gengap
from gengap.core.events import Message
from gengap.training import micro_batch
from gengap.training.ranks import Ranks

AUTO = {"batch_size": 20, "micro_batch": "auto"}


def wide():
    return nn.Sequential(nn.Linear(3, 200), nn.Tanh(), nn.Linear(200, 2))


def assert_close(found, expected):
    for name, value in expected.params.items():
        torch.testing.assert_close(found.params[name], value, rtol=1e-12, atol=1e-14)


def test_a_tight_limit_gives_the_whole_batch_in_pieces():
    said = []
    whole = gengap.train(problem(wide), recipe(batch_size=20, momentum=0.9))
    pieces = gengap.train(
        problem(wide), recipe(**AUTO, momentum=0.9), memory_limit="96 KiB", listen=lambda event: said.append(event)
    )
    assert 1 <= pieces.cost.micro_batch < 20
    assert_close(pieces, whole)
    texts = [event.text for event in said if isinstance(event, Message)]
    assert texts == [f"micro_batch auto: {pieces.cost.micro_batch} samples go through the network at once"]


def test_with_room_the_batch_stays_whole_to_the_bit():
    whole = gengap.train(problem(wide), recipe(batch_size=20))
    auto = gengap.train(problem(wide), recipe(**AUTO))
    assert auto.cost.micro_batch is None
    assert_same_run(auto, whole)


def test_more_memory_is_never_a_smaller_piece():
    found = []
    for kib in (72, 96, 128, 256):
        how = {"memory_limit": kib * 1024, "evaluations": 1}
        found.append(gengap.train(problem(wide), recipe(**AUTO, budget={"steps": 1}), **how).cost.micro_batch or 20)
    assert found == sorted(found)
    assert found[0] < found[-1]


def test_a_sample_takes_what_its_tensors_take():
    """Linear 3 to 200, tanh, linear to 2, float64: the hidden signal and its tanh are kept, and the gradient of one is made."""
    made = micro_batch.bytes_per_sample(gradient_of(wide), samples(), 1)
    assert 2 * 200 * 8 <= made <= 4 * 200 * 8


def test_nothing_is_left_behind():
    gradient = gradient_of(normed_with_ghosts)
    before = {name: value.clone() for name, value in gradient.model.state_dict().items()}
    state = torch.get_rng_state()
    micro_batch.passed(gradient, samples(), 8)
    assert all(torch.equal(value, before[name]) for name, value in gradient.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in gradient.model.parameters())


def samples():
    return problem().samples("train").to(torch.device("cpu"), torch.float64)


def normed_with_ghosts():
    from gengap.nets.norm_conversion import convert_ghost_batch_norm

    return convert_ghost_batch_norm(normed(), 4)


def gradient_of(net):
    from gengap.problem.losses import LOSSES
    from gengap.training.gradient import Gradient
    from gengap.training.objective import make_objective

    model, how = net().double().train(), recipe(**AUTO)
    return Gradient(model, make_objective(model, LOSSES["cross_entropy"], how), how, Ranks())


def test_pieces_are_whole_ghost_batches():
    how = {**AUTO, "ghost_batch": 4, "momentum": 0.9}
    whole = gengap.train(problem(normed), recipe(**{**how, "micro_batch": None}))
    pieces = gengap.train(problem(normed), recipe(**how), memory_limit=5000)
    assert pieces.cost.micro_batch in {4, 8, 12, 16}
    assert_close(pieces, whole)
    for name, value in whole.buffers.items():
        torch.testing.assert_close(pieces.buffers[name], value, rtol=1e-12, atol=1e-14)


def test_plain_batch_norm_is_refused():
    with pytest.raises(
        gengap.BadInput, match=r"micro_batch is 'auto' and the network has batch norm, .* set ghost_batch"
    ):
        gengap.train(problem(normed), recipe(**AUTO))


def test_a_limit_below_one_sample_is_refused():
    with pytest.raises(gengap.BadInput, match=r"memory_limit is 1 KiB, but one piece of 1 takes .*; raise it"):
        gengap.train(problem(wide), recipe(**AUTO), memory_limit=1024)


def test_a_resumed_run_keeps_its_pieces(tmp_path):
    limits = {"memory_limit": "96 KiB"}
    straight = gengap.train(problem(wide), recipe(**AUTO), **limits)
    file = tmp_path / "c"
    from test_resume import press_at
    from training_problems import Counted

    first = gengap.train(problem(wide, loss=press_at(3)), recipe(**AUTO), checkpoint=file, evaluations=1, **limits)
    assert first.outcome.kind == "interrupted"
    resumed = gengap.train(problem(wide, loss=Counted()), recipe(**AUTO), checkpoint=file, evaluations=1)
    assert resumed.cost.micro_batch == straight.cost.micro_batch
    for name, value in straight.params.items():
        assert torch.equal(resumed.params[name], value)


@pytest.mark.parametrize("net", [smooth, wide])
def test_pieces_are_clipped_together(net):
    how = {"batch_size": 20, "clip_norm": 0.05}
    whole = gengap.train(problem(net), recipe(**how))
    assert_close(gengap.train(problem(net), recipe(**how, micro_batch=3)), whole)
    assert (
        max(
            float((whole.params[name] - value).abs().max())
            for name, value in gengap.train(problem(net), recipe(batch_size=20)).params.items()
        )
        > 1e-3
    )  # it was cut


def test_out_of_memory_halves_the_piece(monkeypatch):
    asked = []

    def passed(gradient, train, count):
        asked.append(count)
        if count > 5:
            raise torch.OutOfMemoryError
        return []

    monkeypatch.setattr(micro_batch, "passed", passed)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert micro_batch.tried(gradient_of(wide), points(), 24, 1) == 3
    assert asked == [24, 12, 6, 3]
    with pytest.raises(torch.OutOfMemoryError):
        micro_batch.tried(gradient_of(wide), points(), 24, 8)
