"""The same function in several gloo processes on this machine."""

import multiprocessing
import os
import pickle
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from gengap.core.errors import BadInput
from gengap.diagnosis.loop import Loop
from gengap.diagnosis.run import follow, watched_data
from gengap.diagnosis.trace import Sizes, Trace

TIMEOUT = 300.0  # seconds that all runs together may take


@dataclass(frozen=True, slots=True)
class Job:
    """One loop to run, at one size."""

    loop: Loop
    sizes: Sizes
    samples: int
    seed: int


class NotPossible(Exception):  # noqa: N818
    """The function cannot be run in several processes; the text says why."""


def follow_together(jobs: Sequence[Job], processes: int) -> list[list[Trace]]:
    """Run loops one after another, each in all processes at once.

    Args:
        jobs: what to run.
        processes: how many.

    Returns:
        For each job the trace of each rank.

    Raises:
        NotPossible: other processes cannot import the functions, or the function raised an error there.
    """
    check_importable(jobs)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(processes)]
        workers = [
            context.Process(target=work, args=(rank, processes, folder, list(jobs), sender), daemon=True)
            for rank, (_, sender) in enumerate(pipes)
        ]
        try:
            for worker in workers:
                worker.start()
            for _, sender in pipes:
                sender.close()
            answers = [answer(receiver) for receiver, _ in pipes]
        finally:
            for worker in workers:
                worker.terminate()
                worker.join()
    wrong = [text for text in answers if isinstance(text, str)]
    if wrong:
        raise NotPossible(min(wrong, key=lambda text: "onnection" in text))  # that of the rank that was left comes last
    return [[traces[i] for traces in answers] for i in range(len(jobs))]


def check_importable(jobs: Sequence[Job]) -> None:
    """Check that other processes can find the functions.

    Args:
        jobs: with the functions.

    Raises:
        NotPossible: they are in no module, or are made inside a function.
        BadInput: this is already such a process: the program starts the doctor while it is imported.
    """
    if multiprocessing.parent_process() is not None and multiprocessing.current_process().daemon:
        raise BadInput(
            'the program calls the doctor while it is imported; put the call under if __name__ == "__main__":'
        )
    try:
        text = pickle.dumps(list(jobs))
    except Exception as error:
        raise NotPossible(
            f"other processes cannot import the functions ({error}); write them with def in a module"
        ) from error
    if b"__main__" in text and not hasattr(sys.modules["__main__"], "__file__"):
        raise NotPossible("other processes cannot import functions that were typed in; write them into a file")


def answer(receiver: Connection) -> Any:
    """Wait for what a rank says: its traces, or a sentence."""
    try:
        return receiver.recv() if receiver.poll(TIMEOUT) else f"it took more than {TIMEOUT:.0f} s in several processes"
    except EOFError:
        return (
            "a process ended without a word, its error is on standard error; a script must call the doctor under "
            'if __name__ == "__main__":'
        )


def work(rank: int, processes: int, folder: str, jobs: list[Job], sender: Connection) -> None:
    """Be one rank."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if Path("/sys/class/net/lo").exists() else "")
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo",
            init_method=Path(folder, "ranks").as_uri(),
            rank=rank,
            world_size=processes,
            timeout=timedelta(seconds=TIMEOUT),
        )
        sender.send([run(job, rank) for job in jobs])
    except Exception as error:  # whatever it is, the first process says it
        sender.send(f"in {processes} processes {error}")
        return
    dist.barrier()  # nobody leaves while another is still talking


def run(job: Job, rank: int) -> Trace:
    """Run one loop on one rank."""
    return follow(job.loop, watched_data(job.loop, job.samples, job.seed), job.sizes, seed=job.seed, rank=rank)
