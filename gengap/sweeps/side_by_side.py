"""How fast runs go when several processes of this machine are at work at once."""

import pickle
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch

from gengap.core.errors import GengapError
from gengap.sweeps.engines.parcel import Parcel, light, parcel_of
from gengap.sweeps.engines.pool import SPAWN
from gengap.sweeps.work import Pack, make

PATIENCE = 120.0  # seconds to wait for a process that starts or works
REPETITIONS = 3


@dataclass(frozen=True, slots=True)
class SideBySide:
    """What several processes did at once.

    Attributes:
        start: seconds until all of them were ready.
        per_update: seconds of one update of one run, by pack; the mean over the processes.
    """

    start: float
    per_update: tuple[float, ...]


def side_by_side(packs: Sequence[Pack], workers: int) -> SideBySide | None:
    """Let several processes, one torch thread each, make the same packs at the same time.

    Args:
        packs: short ones, of one problem; one after the other.
        workers: processes.

    Returns:
        What was measured; None where processes cannot be had: the problem cannot be sent, or starting one would run the
        user's script again.
    """
    if not can_spawn():
        return None
    try:
        parcel = parcel_of(packs[0], pickle.dumps)
    except GengapError:
        return None
    barrier, clock = SPAWN.Barrier(workers), time.perf_counter()
    ends = [SPAWN.Pipe() for _ in range(workers)]
    sent = [light(pack) for pack in packs]
    crew = [SPAWN.Process(target=work, args=(theirs, barrier, parcel, sent), daemon=True) for _, theirs in ends]
    try:
        for process in crew:
            process.start()
        for _, theirs in ends:
            theirs.close()
        pipes = [ours for ours, _ in ends]
        if not all(heard(pipe) for pipe in pipes):
            return None
        start = time.perf_counter() - clock
        rows = [[heard(pipe) for pipe in pipes] for _ in packs]
    finally:
        for process in crew:
            process.kill()
            process.join()
    if not all(seconds for row in rows for seconds in row):
        return None
    return SideBySide(start, tuple(sum(map(float, row)) / workers for row in rows))


def heard(pipe: "Connection[object, float]") -> float:
    """Take a number that a process sent; 0 where it is dead or says nothing."""
    with suppress(EOFError, OSError):
        return pipe.recv() if pipe.poll(PATIENCE) else 0.0
    return 0.0


def work(pipe: "Connection[float, object]", barrier: Barrier, parcel: Parcel, packs: Sequence[Pack]) -> None:
    """Make packs when all processes are ready, and send the seconds of an update; what goes wrong ends it without a word."""
    with suppress(Exception, KeyboardInterrupt):
        torch.set_num_threads(1)
        problem = parcel.opened()
        pipe.send(1.0)
        for pack in packs:
            found = []
            for _ in range(1 + REPETITIONS):
                barrier.wait(PATIENCE)
                costs = [made.row.cost for made in make(pack, problem)]
                found.append(sum(cost["seconds"] for cost in costs) / sum(cost["steps"] for cost in costs))
            pipe.send(min(found[1:]))  # the first warms up


def can_spawn() -> bool:
    """Tell whether processes can be started that do not run the user's script again, which a guard keeps them from."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script is None:
        return True
    with suppress(OSError, UnicodeDecodeError):
        return "__name__" in Path(script).read_text(encoding="utf-8")
    return False
