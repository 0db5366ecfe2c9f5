# Oracles: a NoiseScaleMonitor in a plain loop over the same batches; a network built of ghost layers; learning rates worked
# out by hand. Against the real package, where it is installed.
import pytest
import torch
import torch.nn.functional as F
from adapter_networks import BATCH, EPOCHS, LR, PASSES, flat, loader, network, plain_loop, rows, samples

pytest.importorskip("accelerate", reason='install it with: pip install "gengap[accelerate]"')
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.tracking import GeneralTracker

from gengap.adapters.accelerate import NoiseScaleLogger, prepare_large_batch
from gengap.adapters.lr_scaling import LrScaling
from gengap.core.errors import BadInput
from gengap.nets.norms import GhostBatchNorm1d

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def fresh_state():
    """Accelerators share their state; another number of passes needs a new one."""
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


class Tracker(GeneralTracker):
    name, requires_logging_directory, tracker = "list", False, None

    def __init__(self):
        super().__init__()
        self.entries = []

    def log(self, values, step=None, **kwargs):
        self.entries.append((step, values))


def accelerator_of(passes=PASSES, **given):
    return Accelerator(cpu=True, gradient_accumulation_steps=passes, **given)


@pytest.mark.parametrize("clip", [0.0, 0.01])
@pytest.mark.parametrize("resume", [False, True])
def test_the_noise_scale_is_that_of_a_plain_loop(clip, resume):
    tracker = Tracker()
    accelerator = accelerator_of(log_with=tracker)
    accelerator.init_trackers("test")
    model = network()
    model, optimizer, batches = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=LR), loader())
    noise = NoiseScaleLogger(accelerator, model, every=5, max_overhead=1.0)
    for epoch in range(EPOCHS):
        if resume and epoch == 2:
            state = noise.state_dict()
            noise = NoiseScaleLogger(accelerator, model, every=5, max_overhead=1.0)
            noise.load_state_dict(state)
        for x, y in batches:
            with accelerator.accumulate(model):
                accelerator.backward(F.cross_entropy(model(x), y))
                noise.after_backward(x)
                if clip and accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
    expected, weights = plain_loop(clip=clip)
    for ours, theirs in zip(rows(noise.monitor), expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-8)
    assert flat(model) == pytest.approx(weights, rel=1e-10)
    assert [step for step, _ in tracker.entries] == [5, 10, 15, 20]
    assert tracker.entries[-1][1]["noise_scale/observations"] == 20 - 3


def test_one_pass_in_one_process_has_no_noise_scale():
    with pytest.raises(BadInput, match="one backward pass in one process"):
        NoiseScaleLogger(accelerator_of(1), network())


@pytest.mark.parametrize("prepared", [False, True])
def test_a_large_batch_is_prepared(prepared, capsys):
    accelerator, model = accelerator_of(), network(norm=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    given = model, optimizer, scheduler
    if prepared:
        given = accelerator.prepare(*given)
    scaling = LrScaling("linear", reference_batch=6, warmup_updates=2, warmup_start=0.5)
    change = prepare_large_batch(accelerator, *given, batch_size=BATCH, scaling=scaling, ghost_size=2)
    if not prepared:
        given = accelerator.prepare(*given)
    assert change.new == (2 * LR,)
    assert str(change) in capsys.readouterr().out
    assert "lr 0.05 becomes 0.1: linear rule, batch 12 for 6" in str(change)
    assert type(model[1]) is GhostBatchNorm1d
    model, optimizer_, scheduler_ = given
    x, y = samples(4 * BATCH * PASSES)
    used = []
    optimizer.register_step_pre_hook(lambda o, *_: used.append(o.param_groups[0]["lr"]))
    for a, b in zip(x.split(BATCH), y.split(BATCH), strict=True):
        with accelerator.accumulate(model):
            accelerator.backward(F.cross_entropy(model(a), b))
            optimizer_.step()
            scheduler_.step()
            optimizer_.zero_grad()
    assert used == pytest.approx([0.05, 0.075, 0.05, 0.05], rel=1e-12)


def test_a_ghost_batch_is_a_pass():
    """One pass of 8 in ghosts of 4 has the gradient of two passes of 4."""
    accelerator, model, twin = accelerator_of(1), network(norm=True), network(norm=True)
    assert (
        prepare_large_batch(accelerator, model, torch.optim.SGD(model.parameters()), batch_size=8, ghost_size=4) is None
    )
    x, y = samples(8)
    F.cross_entropy(model(x), y).backward()
    for part, targets in zip(x.split(4), y.split(4), strict=True):
        (F.cross_entropy(twin(part), targets) / 2).backward()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def test_a_reloaded_run_is_not_scaled_twice(tmp_path):
    for factor in (4.0, 4.0):
        accelerator, model = accelerator_of(), network()
        model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=LR))
        if list(tmp_path.iterdir()):
            accelerator.load_state(tmp_path)
        prepare_large_batch(accelerator, model, optimizer, batch_size=BATCH, scaling=LrScaling("linear", 3))
        assert optimizer.param_groups[0]["lr"] == pytest.approx(LR * factor)
        accelerator.save_state(tmp_path)
