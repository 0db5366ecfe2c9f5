"""`gengap.train`: one run, start to finish, on one device or on one for each of several processes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.events import Listener, Message, silent
from gengap.core.recipe import Recipe
from gengap.problem.problem import Problem
from gengap.training.checkpoint import Identity, load, save
from gengap.training.interrupt import stop_on_interrupt
from gengap.training.loop import Training
from gengap.training.ranks import ALONE, Ranks
from gengap.training.run import Run
from gengap.training.sharded import Policy, check_shardable, views_allowed, whole
from gengap.training.sharing import check_sharing
from gengap.training.snapshots import Probe, Snapshot, as_probe
from gengap.training.start import Start, as_start, fingerprint, memory_of
from gengap.training.state import pack, unpack

CHECKPOINT_SECONDS = 30.0


def train(  # noqa: PLR0913 - what a run depends on, and who is told of it
    problem: Problem,
    recipe: Recipe,
    *,
    device: str | torch.device = "cpu",
    evaluations: int = 20,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = CHECKPOINT_SECONDS,
    checkpoint_end: bool = True,
    probe: Probe | Callable[[Snapshot], object] | None = None,
    listen: Listener = silent,
    memory_limit: str | int | None = None,
    ranks: Ranks = ALONE,
    start: Start | None = None,
    noise_scale: bool = False,
    noise_overhead: float = 0.03,
    shard: bool | Policy = False,
) -> Run:
    """Train a problem by a recipe.

    The same recipe on the same device with the same number of threads gives the same bits. Batches are drawn without
    replacement in an order that depends only on (seed, epoch), so the batch size does not change it. torch's global
    random generator is left as it was.

    Args:
        problem: what is learnt.
        recipe: how; a batch size such as "10%" is turned into a number.
        device: "cpu", "cuda", "cuda:1", ...
        evaluations: how often, at most, train and test loss are measured on the way, evenly spread; the start and the
            end always are. Each costs a forward pass over both splits.
        checkpoint: a file for the state of the run, written every `checkpoint_every` seconds, on Ctrl-C and at the end.
            If it is there already, the run goes on from it, to the same bits as if it had never stopped.
        checkpoint_every: seconds between checkpoints; 0: after every 32 updates.
        checkpoint_end: whether one is written at the end of a run that came to its end, too; without, a short run writes none.
        probe: called with the weights on the way, at updates evenly spaced in the logarithm of time or as a `Probe` says;
            `SnapshotFolder` keeps them on disk. The run has the same bits as without. A run that goes on from a checkpoint
            does not show again what it showed before the checkpoint.
        listen: told of the progress.
        memory_limit: with micro_batch="auto", bytes that an update may take beside weights and data, as a number or as "4 GiB";
            None: 80 % of the free memory of a GPU, half of that of the machine.
        ranks: the processes that share each batch, from `find_ranks`; all call this together, with the same problem and recipe.
            The listener and the probe of rank 0 alone are called, and it alone reads and writes the checkpoint.
        start: what to begin with in place of fresh weights: a run, a snapshot, or weights and buffers by name. The optimizer
            begins with an empty memory, or with that of a snapshot whose probe asked for it (`Probe(memory=True)`).
        noise_scale: read the gradient noise scale at some updates, from the gradients of processes or pieces before they are
            added up, else from both halves of a batch; `run.noise_scale` has a reading for every point of the history but the
            first. The run has the same bits as without.
        noise_overhead: share of the training time that this may take, in (0, 1]; 1 reads at every update. A short run needs
            more than the default for a number: at least 8 updates must be read.
        shard: spread weights, gradients and the optimizer's memory over the ranks, each holding a part of every tensor; blocks
            are put together when they are used. A function of a module chooses the blocks; True: the modules in Sequential and
            ModuleList. Results and checkpoints are whole, and a checkpoint can be taken up without.

    Returns:
        The run, the same on all ranks. A loss that is not finite is an outcome ("diverged at step k"), and so is Ctrl-C
        ("interrupted"): look at `run.outcome`.

    Raises:
        BadInput: the batch is larger than the training set, the loss of the untrained network is not finite, the device
            is not there, the checkpoint belongs to another run, the probe asks for updates that are not made, there is nothing to
            read the noise scale from, or the recipe needs whole weights where these are sharded.
        OutOfSpace: a checkpoint does not fit the disk; the one before it is still there.
        LostRank: another process is gone; the checkpoint lets the run go on with any number of them.
    """
    if evaluations < 1:
        raise BadInput(f"evaluations is {evaluations}; measure at least once, at the end")
    place = find_device(device)
    resolved = recipe.resolved(len(problem.samples("train")))
    check_sharing(problem, resolved, ranks)
    devices, shown = [place] if place.type == "cuda" else [], as_probe(probe)
    if shard:
        memory = memory_of(start) is not None or (shown is not None and shown.memory)
        check_shardable(resolved, ranks, noise_scale=noise_scale, memory=memory)
    if ranks.rank:
        listen, shown = silent, replace(shown, call=unseen) if shown else None
    with torch.random.fork_rng(devices=devices), stop_on_interrupt(alone=ranks.size == 1) as stop:
        training = Training(
            problem,
            resolved,
            place,
            evaluations=evaluations,
            listen=listen,
            probe=shown,
            ranks=ranks,
            memory_limit=memory_limit,
            start=as_start(start),
            memory=memory_of(start),
            noise=noise_overhead if noise_scale else None,
            shard=shard,
        )
        keeper = None
        if checkpoint is not None:
            keeper = Keeper(training, Path(checkpoint), checkpoint_every, given=start is not None, ahead=checkpoint_end)
        if keeper:
            keeper.resume(listen)
        training.begin()
        with explained(), ranks.reached(), views_allowed(training.model):
            training.run(stop, keeper.save_when_due if keeper else lambda: None)
        if keeper and (checkpoint_end or training.interrupted):
            keeper.save()
        return training.result()


def unseen(snapshot: Snapshot) -> None:
    """Take the place of a probe on ranks that show nothing."""


@contextmanager
def explained() -> Iterator[None]:
    """Say in a sentence what torch says of the two faults of data that only show while training.

    Yields:
        Nothing.

    Raises:
        BadInput: a label has no output, or batch norm met a batch of one sample.
        IndexError: another one.
        ValueError: another one.
    """
    try:
        yield
    except IndexError as error:
        if "Target" not in str(error):
            raise
        raise BadInput(
            f"a label has no output of the network ({error}); give it more outputs or mend the labels"
        ) from error
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise BadInput(
            "a batch has one sample, which batch norm cannot normalise; set drop_last=True, or choose a batch_size "
            "(or micro_batch) that does not leave one sample over"
        ) from error


def find_device(device: str | torch.device) -> torch.device:
    """Check that a device is there.

    Args:
        device: its name.

    Returns:
        The device.

    Raises:
        BadInput: torch does not know the name, or the machine has no such device.
    """
    try:
        place = torch.device(device)
        torch.zeros(1, device=place).item()  # "meta" holds no numbers
    except (RuntimeError, AssertionError) as error:
        why = str(error).partition("\n")[0]
        raise BadInput(
            f"device {str(device)!r} cannot be used ({why}); choose 'cpu' or one this machine has"
        ) from error
    return place


def make_folder(folder: Path) -> None:
    """Make a folder before anything long begins, so that a wrong path costs no training.

    Args:
        folder: which.

    Raises:
        BadInput: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror}; choose a folder that you may write to") from error


class Keeper:
    """Keeps the checkpoint of one training.

    Args:
        training: whose state is kept.
        path: the file.
        every: seconds between two saves.
        given: whether the weights it begins with were given, and so tell it from other runs of its recipe.
        ahead: whether the folder is made before anything long begins, and not when it is needed.
    """

    def __init__(
        self, training: Training, path: Path, every: float, *, given: bool = False, ahead: bool = True
    ) -> None:
        self.training, self.path, self.every, self.ahead = training, path, every, ahead
        begun = f" from {fingerprint(whole(training.initial.items()))}" if given else ""
        self.identity = Identity(f"{training.recipe.key}{begun}", training.problem.fingerprint)
        self.last = time.monotonic()

    def resume(self, listen: Listener) -> None:
        """Take up the state in the file, where there is one; else see to it that there is a folder to write it to."""
        found = self.training.ranks.first(self._read)
        if found is None:
            return
        unpack(self.training, *found)
        if self.training.outcome is None:
            listen(Message(f"resumed from {self.path} at step {self.training.step:,}"))

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        if self.path.exists():
            return load(self.path, self.identity)
        if self.ahead:
            make_folder(self.path.parent)
        return None

    def save_when_due(self) -> None:
        """Save if the last save is long ago by the clock of rank 0."""
        ranks = self.training.ranks
        due = ranks.rank == 0 and time.monotonic() - self.last >= self.every
        if any(ranks.largest([due])):
            self.save()

    def save(self) -> None:
        """Save now."""
        state = pack(self.training)
        self.training.ranks.first(lambda: save(self.path, self.identity, *state))
        self.last = time.monotonic()
