# Oracles: a NoiseScaleMonitor in a plain loop over the same batches; a network that sees one ghost batch after the other;
# learning rates worked out by hand. Against the real package, where it is installed.
import pytest
import torch
import torch.nn.functional as F
from adapter_networks import BATCH, EPOCHS, LR, PASSES, SAMPLES, flat, network, plain_loop, rows, samples
from torch import nn

pytest.importorskip("transformers", reason='install it with: pip install "gengap[transformers]"')
from transformers import Trainer, TrainerCallback, TrainingArguments

from gengap.adapters.transformers import GhostBatchNormCallback, LrScalingCallback, NoiseScaleCallback
from gengap.core.errors import BadInput
from gengap.nets.norms import GhostBatchNorm1d

pytestmark = pytest.mark.filterwarnings("ignore")


class Model(nn.Module):
    """Means over the passes, each over its samples."""

    def __init__(self, norm=False):
        super().__init__()
        self.net = network(norm)

    def forward(self, x, labels):
        return {"loss": F.cross_entropy(self.net(x), labels)}


class ByItems(Model):
    """Means over all samples of an update, as the library's own models make them."""

    def forward(self, x, labels, num_items_in_batch=None, **kwargs):
        return {"loss": F.cross_entropy(self.net(x), labels, reduction="sum") / num_items_in_batch}


class InOrder(Trainer):
    def _get_train_sampler(self, *args):
        return None

    def create_optimizer(self, *args):
        self.optimizer = self.optimizer or torch.optim.SGD(self.model.parameters(), lr=self.args.learning_rate)
        return self.optimizer


class Used(TrainerCallback):
    """Notes the learning rate of every update."""

    def __init__(self):
        self.lrs = []

    def on_train_begin(self, args, state, control, *, optimizer, **kwargs):
        inner = optimizer.optimizer
        inner.register_step_pre_hook(lambda o, *_: self.lrs.append(o.param_groups[0]["lr"]))


def trainer_of(model, folder, callbacks=(), number=SAMPLES, **given):
    x, y = samples(number)
    settings = {
        "per_device_train_batch_size": BATCH,
        "gradient_accumulation_steps": PASSES,
        "num_train_epochs": EPOCHS,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "logging_steps": 1000,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    rows = [{"x": one, "labels": label} for one, label in zip(x, y, strict=True)]
    arguments = TrainingArguments(output_dir=str(folder), **settings | given)
    return InOrder(model, arguments, train_dataset=rows, callbacks=list(callbacks))


def shares(sizes):
    return [size / sum(sizes) for size in sizes]


@pytest.mark.parametrize(
    ("kind", "weights_of"), [(Model, lambda sizes: [1 / len(sizes)] * len(sizes)), (ByItems, shares)]
)
@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_the_noise_scale_is_that_of_a_plain_loop(kind, weights_of, clip, tmp_path):
    trainer = trainer_of(kind(), tmp_path, max_grad_norm=clip)
    noise = NoiseScaleCallback(trainer, every=5, max_overhead=1.0)
    trainer.add_callback(noise)
    trainer.train()
    expected, weights = plain_loop(clip=clip, weights_of=weights_of)
    assert len(expected) == 6 * EPOCHS - 3
    for ours, theirs in zip(rows(noise.monitor), expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-8)
    assert flat(trainer.model) == pytest.approx(weights, rel=1e-10)
    without = trainer_of(kind(), tmp_path, max_grad_norm=clip)
    without.train()
    assert flat(trainer.model) == flat(without.model)  # bit for bit
    logged = [entry for entry in trainer.state.log_history if "noise_scale/observations" in entry]
    assert [entry["step"] for entry in logged] == [5, 10, 15, 20]
    assert logged[-1]["noise_scale/observations"] == 20 - 3
    assert trainer.training_step.__func__ is Trainer.training_step


def test_one_pass_in_one_process_has_no_noise_scale(tmp_path):
    trainer = trainer_of(Model(), tmp_path, gradient_accumulation_steps=1)
    trainer.add_callback(NoiseScaleCallback(trainer))
    with pytest.raises(BadInput, match="one backward pass in one process"):
        trainer.train()


def test_ghost_batches_are_passes_that_are_accumulated(tmp_path):
    """One pass of 8 in ghosts of 4 has the gradient of two passes of 4, and the running statistics."""
    given = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "num_train_epochs": 1}
    trainer = trainer_of(Model(norm=True), tmp_path, [GhostBatchNormCallback(4)], number=24, **given)
    trainer.train()
    twin = network(norm=True)
    optimizer = torch.optim.SGD(twin.parameters(), lr=LR)
    for x, y in zip(*(t.split(8) for t in samples(24)), strict=True):
        for part, targets in zip(x.split(4), y.split(4), strict=True):
            (F.cross_entropy(twin(part), targets) / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert type(trainer.model.net[1]) is GhostBatchNorm1d
    assert flat(trainer.model) == pytest.approx(flat(twin), rel=1e-10)
    assert trainer.model.net[1].running_var.tolist() == pytest.approx(twin[1].running_var.tolist(), rel=1e-10)


def test_ghost_batch_norm_is_refused_where_it_cannot_be(tmp_path):
    with pytest.raises(BadInput, match="no batch norm to convert"):
        trainer_of(Model(), tmp_path, [GhostBatchNormCallback(4)]).train()


def test_learning_rates_follow_the_batch_and_the_schedule(capsys, tmp_path):
    used, scaling = Used(), LrScalingCallback(reference_batch=3, warmup_updates=4)
    trainer = trainer_of(Model(), tmp_path, [scaling, used], lr_scheduler_type="linear", max_steps=8, logging_steps=1)
    trainer.train()
    assert f"lr 0.05 becomes 0.2: linear rule, batch {BATCH * PASSES} for 3; warm-up" in capsys.readouterr().out
    falling = [0.2 * (1 - t / 8) for t in range(8)]
    warm = [0.25 + 0.75 * min(t / 4, 1) for t in range(8)]
    assert used.lrs == pytest.approx([a * b for a, b in zip(falling, warm, strict=True)], rel=1e-12)
    logged = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert logged == pytest.approx(falling, rel=1e-12)


@pytest.mark.parametrize(("passes", "factor"), [(PASSES, 2.0), (2 * PASSES, 8**0.5)])
def test_a_resumed_training_is_not_scaled_twice(passes, factor, tmp_path):
    first = LrScalingCallback("sqrt", reference_batch=3)
    trainer_of(Model(), tmp_path, [first], max_steps=6, save_strategy="steps", save_steps=6).train()
    used, scaling = Used(), LrScalingCallback("sqrt", reference_batch=3)
    trainer = trainer_of(Model(), tmp_path, [scaling, used], max_steps=9, gradient_accumulation_steps=passes)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert scaling.change.new == pytest.approx([LR * factor])
    assert used.lrs == pytest.approx([LR * factor] * 3, rel=1e-12)


def test_the_batch_can_be_told(tmp_path):
    scaling = LrScalingCallback(reference_batch=8, batch=16)
    trainer_of(Model(), tmp_path, [scaling], max_steps=1).train()
    assert scaling.change.factor == 2
