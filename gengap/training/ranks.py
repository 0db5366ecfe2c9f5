"""Processes that share every batch, as `torchrun` starts them; alone, there is one.

Nothing else of the package knows process groups, but for batch norm whose statistics span them.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import groupby
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from gengap.core.errors import BadInput, GengapError, LostRank

T = TypeVar("T")
TIMEOUT = 600.0  # seconds
POLL = 0.05  # seconds between looks for a word of rank 0
PATIENCE = 1.0  # seconds in which those that are still there notice that somebody is not
BROKEN = ("gloo", "nccl", "connection")  # one of these is in what torch says of a line that does not answer
BUCKET = 25 * 2**20  # bytes of one message: long enough to use the line, short enough to begin early


class Ranks:
    """Which of how many processes this is, and what they say to each other.

    Everything but `share` has to be called by all of them, in the same order; alone it costs nothing.

    Args:
        rank: from 0.
        size: how many there are.
        device: where this process computes.
        store: a `torch.distributed.Store` on which the processes leave notes, or None.

    Raises:
        LostRank: in every method that speaks to others: one of them is gone.
    """

    def __init__(self, rank: int = 0, size: int = 1, *, device: str | torch.device = "cpu", store: Any = None) -> None:
        self.rank, self.size, self.device, self._store = rank, size, torch.device(device), store
        self._words = 0

    def share(self, samples: int, unit: int = 1) -> tuple[int, int]:
        """Give the part of a batch that is this process's.

        Args:
            samples: in the batch.
            unit: samples that stay together, for example a ghost batch.

        Returns:
            Start and stop; equal where there are fewer units than processes and this one gets none.
        """
        units = -(-samples // unit)
        ends = [min(samples, unit * (units * rank // self.size)) for rank in (self.rank, self.rank + 1)]
        return ends[0], ends[1]

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Sum tensors over the processes, in place and in few messages."""
        if self.size == 1:
            return
        sent = [(bucket, flat := joined(bucket), self.begin_to_add(flat)) for bucket in buckets(tensors)]
        for bucket, flat, wait in sent:
            wait()
            for tensor, total in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def average(self, tensor: Tensor) -> None:
        """Replace a tensor by its mean over the processes, in place."""
        self.add([tensor])
        tensor.div_(self.size)

    def begin_to_add(self, flat: Tensor) -> Callable[[], None]:
        """Begin to sum one contiguous tensor over the processes, in place; what is returned waits for the end."""
        with self._together():
            work = dist.all_reduce(flat, async_op=True)

        def wait() -> None:
            with self._together():
                work.wait()

        return wait

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Give the tensors of all processes, which have one shape, in the order of ranks."""
        if self.size == 1:
            return [tensor]
        each = [torch.empty_like(tensor) for _ in range(self.size)]
        with self._together():
            dist.all_gather(each, tensor.contiguous())
        return each

    def largest(self, numbers: Sequence[float]) -> list[float]:
        """Give the largest that any process has of each number."""
        if self.size == 1:
            return list(numbers)
        most = torch.tensor(numbers, dtype=torch.float64)
        with self._together():
            dist.all_reduce(most, op=dist.ReduceOp.MAX)
        return [float(number) for number in most]

    def first(self, work: Callable[[], T]) -> T:
        """Let rank 0 do something short, and tell all what came of it, be it an error of the user's side.

        Args:
            work: called on rank 0 only.

        Returns:
            What it returned, on every rank.

        Raises:
            GengapError: it raised one; all raise it.
        """
        if self.size == 1:
            return work()
        told: list[Any] = [None, None]
        if self.rank == 0:
            try:
                told[0] = work()
            except GengapError as error:
                told[1] = error
        with self._together():
            dist.broadcast_object_list(told, src=0)
        if told[1] is not None:
            raise told[1]
        found: T = told[0]
        return found

    def announce(self, word: str | None) -> None:
        """Say what is to be done next, on rank 0; nobody waits for anybody."""
        if self._store is not None and self.rank == 0:
            self._store.set(f"word/{self._words}", json.dumps(word))
            self._words += 1

    def next_word(self) -> str | None:
        """Wait for what rank 0 announces next, however long it takes; None: nothing more."""
        assert self._store is not None
        key = f"word/{self._words}"
        self._words += 1
        with self._together():
            while not self._store.check([key]):
                time.sleep(POLL)
            word: str | None = json.loads(self._store.get(key))
        return word

    def speaks(self) -> bool:
        """Tell whether this process is the one to say why all of them end: rank 0 where it is there, else one other."""
        if self._store is None:
            return self.rank == 0
        try:
            end = time.monotonic() + (2 * PATIENCE if self.rank else 0.0)
            while time.monotonic() < end and not self._store.check(["speaker"]):
                time.sleep(POLL)
            return bool(self._store.add("speaker", 1) == 1)
        except RuntimeError:  # the board is gone with the machine that held it
            return True

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Turn what torch says of a broken connection into a sentence.

        Yields:
            Nothing.

        Raises:
            LostRank: another process is gone, or did not answer in time.
        """
        try:
            yield
        except RuntimeError as error:
            why = plain(str(error))
            raise LostRank(
                f"{lost(self._missing())} of {self.size} ({why}); what was finished is kept, start again with --resume, "
                f"on any number of processes"
            ) from error

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Do the same for messages that torch sends by itself in the block, whose other errors are left as they are.

        Yields:
            Nothing.

        Raises:
            RuntimeError: another error.
        """
        try:
            yield
        except RuntimeError as error:
            if not any(word in str(error).lower() for word in BROKEN):
                raise
            with self._together():
                raise

    def _missing(self) -> list[int]:
        """Find the processes that do not notice that something is wrong: [] where nobody can tell."""
        try:
            if self._store is None:
                return []
            self._store.set(f"here/{self.rank}", "")
            time.sleep(PATIENCE)
            return [rank for rank in range(self.size) if not self._store.check([f"here/{rank}"])]
        except RuntimeError:
            return []


ALONE = Ranks()


@contextmanager
def find_ranks(device: str | torch.device = "cpu", *, timeout: float = TIMEOUT) -> Iterator[Ranks]:
    """Join the processes that `torchrun` started; without it, be alone.

    Uses gloo on CPUs and nccl on GPUs. "cuda" becomes the GPU of the process's local rank. Where the program has called
    `torch.distributed.init_process_group` itself, its processes are used and left as they are.

    Args:
        device: "cpu", or "cuda" for one GPU each.
        timeout: seconds after which a process that does not answer is given up.

    Yields:
        The ranks, with the device of this one.

    Raises:
        BadInput: a GPU was named, there are fewer than processes on this machine, or torchrun's variables are not whole.
        LostRank: the others cannot be reached.
    """
    size = dist.get_world_size() if initialised() else int(os.environ.get("WORLD_SIZE") or 1)
    if size == 1:
        yield Ranks(device=device)
        return
    place = own_device(torch.device(device))
    if initialised():
        yield Ranks(dist.get_rank(), size, device=place)
        return
    ranks = join(place, timeout)
    try:
        yield ranks
    finally:
        ranks.announce(None)
        dist.destroy_process_group()


def initialised() -> bool:
    """Tell whether the program has a process group already."""
    return dist.is_available() and dist.is_initialized()


def join(place: torch.device, timeout: float) -> Ranks:
    """Meet the other processes at the address in the environment.

    Args:
        place: the device of this process.
        timeout: seconds.

    Returns:
        The ranks.

    Raises:
        BadInput: a variable of torchrun is missing.
        LostRank: not all came in time.
    """
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise BadInput(f"WORLD_SIZE is set but {missing[0]} is not; start with torchrun, or unset WORLD_SIZE")
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    wait = timedelta(seconds=timeout)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    try:
        store, rank, size = next(rendezvous("env://", timeout=wait))
        board = PrefixStore("gengap", store)
        backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=wait)
    except RuntimeError as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise LostRank(
            f"the other processes were not met at {where} ({plain(str(error))}); start all of them together"
        ) from error
    return Ranks(rank, size, device=place, store=board)


def own_device(device: torch.device) -> torch.device:
    """Give each process of a machine a GPU of its own.

    Args:
        device: as asked.

    Returns:
        The device of this process.

    Raises:
        BadInput: there are not enough GPUs, or one was named.
    """
    if device.type != "cuda":
        return device
    local, there = int(os.environ.get("LOCAL_RANK") or 0), torch.cuda.device_count()
    if device.index is not None:
        raise BadInput(f"device is {str(device)!r}, but every process needs a GPU of its own; give 'cuda'")
    if local >= there:
        raise BadInput(
            f"process {local} of this machine has no GPU of its own, there are {there}; start at most {there}"
        )
    return torch.device("cuda", local)


def lost(missing: Sequence[int]) -> str:
    """Say who is gone."""
    if not missing:
        return "lost the connection to a rank"
    if len(missing) == 1:
        return f"lost the connection to rank {missing[0]}"
    return f"lost the connection to at least one of the ranks {', '.join(map(str, missing))}"


def plain(text: str) -> str:
    """Give what torch says of a connection without its place in torch's code and its advice."""
    line = text.partition("\n")[0]
    if line.startswith("["):
        line = line.partition("] ")[2]
    return line.partition(" This is typically")[0].rstrip(".")


def buckets(tensors: Sequence[Tensor], most: int = BUCKET) -> list[list[Tensor]]:
    """Put neighbours of one dtype together, up to so many bytes; a larger tensor stands alone."""
    found: list[list[Tensor]] = []
    for _, alike in groupby(tensors, key=lambda tensor: (tensor.dtype, tensor.device)):
        held = most
        for tensor in alike:
            if held + tensor.nbytes > most:
                found.append([])
                held = 0
            found[-1].append(tensor)
            held += tensor.nbytes
    return found


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """Copy tensors into one."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
