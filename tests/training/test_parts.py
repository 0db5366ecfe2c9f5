"""Parts for other people's loops. Oracle: what `gengap.train` does with the same recipe, and torch's own schedulers."""

from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset
from training_problems import problem

from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe
from gengap.training.parts import SampleLR, ScheduledBatchSampler
from gengap.training.solo import train


def weight(lr=0.5):
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)


def rates(optimizer, schedule, steps):
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_cosine_is_torch_s():
    ours, theirs = weight(), weight()
    a = SampleLR(ours, training=80, batch_size=8, epochs=3, schedule="cosine")
    b = CosineAnnealingLR(theirs, 30)
    assert rates(ours, a, 30) == pytest.approx(rates(theirs, b, 30), abs=1e-12)


def test_rule_warm_up_and_smaller_batches(capsys):
    optimizer = weight(0.1)
    rule = {"name": "linear", "reference_batch": 5}
    schedule = SampleLR(
        optimizer, training=40, batch_size=10, epochs=4, lr_rule=rule, warmup={"epochs": 1, "start": "reference"}
    )
    assert capsys.readouterr().out == "lr 0.1 becomes 0.2: linear rule, batch 10 for 5\n"
    assert rates(optimizer, schedule, 5) == pytest.approx([0.1, 0.125, 0.15, 0.175, 0.2])
    schedule.step(3)
    assert schedule.samples == 53


def test_a_loop_of_the_parts_is_gengap_train_and_resumes():
    made = problem()
    n = len(made.train[1])
    growth = {"name": "step", "milestones": [1, 2], "factor": 2}
    recipe = Recipe(
        lr=0.1,
        momentum=0.9,
        batch_size=4,
        batch_schedule=growth,
        schedule="cosine",
        budget={"epochs": 3},
        dtype="float64",
    )
    expected = train(made, recipe)
    inputs, targets = made.train[0].double(), made.train[1]
    model = made.model(0, dtype=torch.float64).train()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)

    def parts():
        return SampleLR(optimizer, training=n, batch_size=4, epochs=3, schedule="cosine"), ScheduledBatchSampler(
            n, 4, batch_schedule=growth
        )

    schedule, sampler = parts()
    updates = 0
    for epoch in range(3):
        sampler.set_epoch(epoch)
        while updates < 10**6:
            loader = DataLoader(TensorDataset(inputs, targets), batch_sampler=sampler)
            stopped = False
            for x, y in loader:
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
                schedule.step(len(y))
                updates += 1
                if updates in {2, 7}:  # the process is killed, and another one goes on
                    kept = schedule.state_dict(), sampler.state_dict()
                    schedule, sampler = parts()
                    schedule.load_state_dict(kept[0])
                    sampler.load_state_dict(kept[1])
                    sampler.set_epoch(epoch)
                    optimizer.param_groups[0]["lr"] = schedule.get_last_lr()[0]
                    stopped = True
                    break
            if not stopped:
                break
    assert updates == expected.cost.steps
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.detach(), expected.params[name], rtol=1e-9, atol=1e-12)


def test_processes_share_the_batches_of_one():
    alone = ScheduledBatchSampler(23, 6, seed=4)
    parts = [ScheduledBatchSampler(23, 6, seed=4, rank=r, ranks=3) for r in range(3)]
    assert list(alone) == [list(chain(*rows)) for rows in zip(*parts, strict=True)]
    assert len(alone) == 4
    dropping = ScheduledBatchSampler(23, 6, drop_last=True)
    assert [len(rows) for rows in dropping] == [6, 6, 6]
    assert len(dropping) == 3


def test_a_batch_set_by_hand():
    sampler = ScheduledBatchSampler(20, 4)
    assert [len(rows) for rows in sampler] == [4] * 5
    sampler.grow(8)
    sampler.set_epoch(1)
    assert [len(rows) for rows in sampler] == [8, 8, 4]
    with pytest.raises(BadInput, match="only 20"):
        sampler.grow(21)
    with pytest.raises(BadInput, match="batch_schedule"):
        ScheduledBatchSampler(20, 4, batch_schedule={"name": "geometric", "growth": 2}).grow(8)
