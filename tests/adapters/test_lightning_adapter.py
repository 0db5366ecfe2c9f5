# Oracles: a NoiseScaleMonitor in a plain loop over the same batches; a network that sees one ghost batch after the other;
# learning rates worked out by hand. Against the real package, where it is installed.
import pytest
import torch
import torch.nn.functional as F
from adapter_networks import BATCH, EPOCHS, LR, PASSES, flat, loader, network, plain_loop, rows, samples
from torch import nn

pytest.importorskip("lightning", reason='install it with: pip install "gengap[lightning]"')
import lightning
from lightning.pytorch.plugins import MixedPrecision

from gengap.adapters.lightning import GhostBatchNormCallback, LrScalingCallback, NoiseScaleCallback
from gengap.core.errors import BadInput
from gengap.nets.norms import GhostBatchNorm1d

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of loaders without workers, and more


class Module(lightning.LightningModule):
    def __init__(self, net=None, late=False, optimizers=1):
        super().__init__()
        self.late, self.number, self.used = late, optimizers, []
        self.net = None if late else net or network()

    def configure_model(self):
        self.net = self.net or network(norm=True)

    def training_step(self, batch, index):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=LR)
        steps = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": steps, "interval": "epoch"}}


class Steady(Module):
    def configure_optimizers(self):
        optimizers = [torch.optim.SGD(self.parameters(), lr=LR) for _ in range(self.number)]
        return optimizers if self.number > 1 else optimizers[0]


class Manual(Steady):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, index):
        loss = super().training_step(batch, index)
        self.manual_backward(loss / PASSES)
        if (index + 1) % PASSES == 0:
            self.optimizers().step()
            self.optimizers().zero_grad()


class Used(lightning.pytorch.callbacks.Callback):
    """Notes the learning rate of every update."""

    def on_train_start(self, trainer, module):
        self.lrs = []
        trainer.optimizers[0].register_step_post_hook(lambda o, *_: None)
        trainer.optimizers[0].register_step_pre_hook(lambda o, *_: self.lrs.append(o.param_groups[0]["lr"]))


def fitted(module, callbacks, ckpt_path=None, batches=None, **given):
    settings = {"max_epochs": EPOCHS, "accumulate_grad_batches": PASSES, "devices": 1} | given
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = lightning.Trainer(accelerator="cpu", callbacks=callbacks, **quiet | settings)
    trainer.fit(module, batches or loader(), ckpt_path=ckpt_path)
    return trainer


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_the_noise_scale_is_that_of_a_plain_loop(clip):
    module, noise = Steady(), NoiseScaleCallback(every=5, max_overhead=1.0)
    trainer = fitted(module, [noise], gradient_clip_val=clip)
    expected, weights = plain_loop(clip=clip)
    assert len(expected) == 6 * EPOCHS - 3
    for ours, theirs in zip(rows(noise.monitor), expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-8)
    assert flat(module) == pytest.approx(weights, rel=1e-10)
    without = Steady()
    fitted(without, [], gradient_clip_val=clip)
    assert flat(module) == flat(without)  # bit for bit
    logged = trainer.logged_metrics
    assert logged["noise_scale/observations"] == 20 - 3  # at the last multiple of 5
    assert logged["noise_scale/trace_covariance"] > 0


def test_manual_optimization():
    noise = NoiseScaleCallback(max_overhead=1.0)
    fitted(Manual(), [noise], accumulate_grad_batches=1, batches=loader(60))
    for ours, theirs in zip(rows(noise.monitor), plain_loop(own=[list(loader(60))])[0], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-8)


def test_a_resumed_fit_goes_on_with_the_history(tmp_path):
    module, noise = Steady(), NoiseScaleCallback(max_overhead=1.0)
    fitted(module, [noise], max_epochs=2).save_checkpoint(tmp_path / "it.ckpt")
    again = NoiseScaleCallback(max_overhead=1.0)
    fitted(Steady(), [again], ckpt_path=tmp_path / "it.ckpt")
    for ours, theirs in zip(rows(again.monitor), plain_loop()[0], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-8)


@pytest.mark.parametrize(
    ("module", "given", "said"),
    [
        (Steady, {"accumulate_grad_batches": 1}, "one backward pass in one"),
        (lambda: two_optimizers(), {"accumulate_grad_batches": 1}, "2 optimizers"),
    ],
)
def test_where_there_is_no_noise_scale(module, given, said):
    with pytest.raises(BadInput, match=said):
        fitted(module(), [NoiseScaleCallback()], **given)


def two_optimizers():
    module = Manual()
    module.number = 2
    return module


def test_half_precision():
    noise = NoiseScaleCallback(max_overhead=1.0)
    fitted(Steady(network().float()), [noise], precision="bf16-mixed", batches=loader(dtype=torch.float32))
    reading = noise.monitor.reading()
    assert (reading.observations, reading.dropped) == (6 * EPOCHS - 3, 0)
    with pytest.raises(BadInput, match="precision is 16-mixed"):
        fitted(Steady(network().float()), [noise], plugins=[MixedPrecision("16-mixed", "cpu")])


@pytest.mark.parametrize("late", [False, True])
def test_ghost_batches_are_passes_that_are_accumulated(late):
    """One pass of 8 in ghosts of 4 has the gradient of two passes of 4, and the running statistics."""
    module = Steady(network(norm=True), late=late)
    fitted(module, [GhostBatchNormCallback(4)], max_epochs=1, batches=loader(24, 8), accumulate_grad_batches=1)
    twin = network(norm=True)
    optimizer = torch.optim.SGD(twin.parameters(), lr=LR)
    for x, y in zip(*(t.split(8) for t in samples(24)), strict=True):
        for part, targets in zip(x.split(4), y.split(4), strict=True):
            (F.cross_entropy(twin(part), targets) / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert type(module.net[1]) is GhostBatchNorm1d
    assert flat(module) == pytest.approx(flat(twin), rel=1e-10)
    assert module.net[1].running_var.tolist() == pytest.approx(twin[1].running_var.tolist(), rel=1e-10)


def test_ghost_batch_norm_is_refused_where_it_cannot_be():
    with pytest.raises(BadInput, match="no batch norm to convert"):
        fitted(Steady(), [GhostBatchNormCallback(4)])
    module = Steady(nn.Sequential(nn.Linear(5, 3), nn.SyncBatchNorm(3)).double())
    with pytest.raises(BadInput, match="has a SyncBatchNorm"):
        fitted(module, [GhostBatchNormCallback(4)])
    with pytest.raises(BadInput, match="sync_batchnorm=True shares statistics"):  # the trainer converts after setup
        GhostBatchNormCallback(4).on_fit_start(None, module)
    with pytest.raises(BadInput, match="ghost_size is 0"):
        GhostBatchNormCallback(0)


def test_learning_rates_follow_the_batch_and_the_schedule(capsys):
    used, scaling = Used(), LrScalingCallback(reference_batch=3, warmup_updates=4)
    fitted(Module(), [scaling, used], max_epochs=2)
    assert f"lr 0.05 becomes 0.2: linear rule, batch {BATCH * PASSES} for 3; warm-up" in capsys.readouterr().out
    warm = [0.05, 0.0875, 0.125, 0.1625]
    assert used.lrs == pytest.approx([*warm, 0.2, 0.2, *[0.1] * 6], rel=1e-12)


def test_a_resumed_fit_is_not_scaled_twice(tmp_path):
    fitted(Module(), [LrScalingCallback("sqrt", reference_batch=3)], max_epochs=1).save_checkpoint(tmp_path / "it.ckpt")
    for passes, factor in ((PASSES, 2.0), (2 * PASSES, 8**0.5)):
        used, scaling = Used(), LrScalingCallback("sqrt", reference_batch=3)
        fitted(Module(), [scaling, used], tmp_path / "it.ckpt", max_epochs=2, accumulate_grad_batches=passes)
        assert scaling.change.new == pytest.approx([LR * factor])
        assert used.lrs == pytest.approx([LR * factor / 2] * (18 // passes), rel=1e-12)


def test_a_loader_that_does_not_say_its_batch():
    class Batches:
        def __iter__(self):
            return iter(loader())

    with pytest.raises(BadInput, match="does not say its batch size; give batch_size="):
        fitted(Module(), [LrScalingCallback(reference_batch=4)], batches=Batches())
    scaling = LrScalingCallback(reference_batch=4, batch_size=BATCH)
    fitted(Module(), [scaling], batches=Batches(), max_epochs=1)
    assert scaling.change.factor == PASSES
