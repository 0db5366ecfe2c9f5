"""Make packs in several processes of this machine, one torch thread each."""

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import Any, Self

from gengap.core.errors import BadInput, GengapError
from gengap.core.events import Listener, Message, silent
from gengap.sweeps.engines.books import Books, Checkpoint, Errand, paths
from gengap.sweeps.engines.parcel import Parcel, light, name_of, parcels_of
from gengap.sweeps.engines.pool_worker import Order, Ready, receive, send, serve
from gengap.sweeps.work import Keep, Made, Pack
from gengap.training.interrupt import stop_on_interrupt

SPAWN = multiprocessing.get_context("spawn")  # a fork of a process with torch threads may hang
POLL_SECONDS = 0.2  # between looks for Ctrl-C
GRACE_SECONDS = 5.0  # for runs at work to write their state after Ctrl-C
DEATH_SECONDS = 1.0  # between the end of a process's pipe and its own


class Worker:
    """A worker process, as the driver sees it.

    Attributes:
        errand: the pack it works on, or None.
        ready: whether it waits for a pack.
        begun: whether it has ever been ready.
        holds: names of the problems that it has.
    """

    def __init__(self) -> None:
        self.errand: Errand | None = None
        self.ready = self.begun = False
        self.holds: set[str] = set()
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=serve, args=(theirs,), name="gengap-worker")
        resource_tracker.ensure_running()  # or it would unblock the signal when it is started with the process
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the worker knows what to do with it
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            theirs.close()

    def give(self, errand: Errand, parcel: Parcel, checkpoint: Checkpoint | None) -> None:
        """Send a pack, with its problem where the worker has not had it."""
        pack, name = errand.pack, name_of(errand.pack)
        self.errand, self.ready = errand, False
        order = Order(light(pack), name, None if name in self.holds else parcel, paths(pack.tasks, checkpoint))
        self.holds.add(name)
        try:
            send(self.pipe, order)
        except OSError:
            return  # it has just died, which is heard next

    def hear(self) -> Any:
        """Take what it sent; None: it is dead."""
        try:
            return receive(self.pipe)
        except (EOFError, OSError):
            return None

    def ask_to_stop(self) -> None:
        """Let the run at work write its state and end."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid or 0, signal.SIGINT)

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.process.close()

    def buried(self) -> str:
        """Say how a process ended that is dead, or about to be."""
        self.process.join(DEATH_SECONDS)
        code = self.process.exitcode or 0
        self.end()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


class Pool:
    """Worker processes of this machine, each with one torch thread.

    Workers begin with a call of `run` and end with it; in a `with` block they stay for the next one. They end when this
    process does, however it ends.

    Args:
        workers: how many; None: as many as there are cores for this process.
        retries: how often runs are made again whose worker was lost.
        checkpoint: names the file where a run keeps its state while it is at work; None: no state is kept.

    Raises:
        BadInput: `workers` is below 1.
    """

    name = "pool"

    def __init__(self, *, workers: int | None = None, retries: int = 1, checkpoint: Checkpoint | None = None) -> None:
        self.workers = cores() if workers is None else workers
        if self.workers < 1:
            raise BadInput(f"workers is {workers}; give at least 1")
        self.retries, self.checkpoint = retries, checkpoint
        self._crew: list[Worker] = []
        self._stay = False
        self._most = self.workers

    def __enter__(self) -> Self:
        self._stay = True
        return self

    def __exit__(self, *_: object) -> None:
        self._stay = False
        self.close()

    def close(self) -> None:
        """End the workers."""
        while self._crew:
            self._crew.pop().end()

    def run(self, packs: Sequence[Pack], keep: Keep, listen: Listener = silent) -> None:
        """Make all runs; hand each to `keep`, in this process, as it comes in.

        A worker that dies, killed or out of memory, loses the runs of its pack that had not come out: they are made again
        in fresh workers, one by one, and those that cost `retries` more workers are "failed" with the reason.

        Args:
            packs: the runs to make.
            keep: called once for each run.
            listen: told of the progress.

        Raises:
            Interrupted: Ctrl-C; runs that were finished have been kept, and those at work have their state if it is kept.
            BadInput: a problem cannot be sent to a process, or no worker can start.
        """
        parcels = parcels_of(packs, pickle.dumps)
        books = Books(packs, keep, listen, retries=self.retries)
        self._most = self.workers
        for worker in self._crew:
            worker.holds.clear()  # a problem may have been mended since the last call
        try:
            with stop_on_interrupt() as stop:
                while (books.open or books.at_work) and not stop.made:
                    self._give_out(books, parcels)
                    self._listen(books)
                if books.open:
                    self._let_finish(books)
        except BaseException:
            self.close()
            raise
        if stop.made or not self._stay:
            self.close()
        if books.open:
            raise books.interrupted()

    def _give_out(self, books: Books, parcels: dict[str, Parcel]) -> None:
        """Start workers that are missing, and give those that wait a pack."""
        wanted = min(self._most, len(books.waiting) + len(books.at_work))
        while len(self._crew) < wanted:
            self._crew.append(Worker())
        for worker in self._crew:
            if worker.ready and books.waiting:
                errand = books.begin()
                worker.give(errand, parcels[name_of(errand.pack)], self.checkpoint)

    def _listen(self, books: Books) -> None:
        """Take what workers sent, one thing of each."""
        by_pipe = {worker.pipe: worker for worker in self._crew}
        for pipe in wait(list(by_pipe), POLL_SECONDS):
            self._hear(by_pipe[pipe], books)  # type: ignore[index] # `wait` gives back what it was given

    def _hear(self, worker: Worker, books: Books) -> None:
        """Take one thing that a worker sent."""
        said, errand = worker.hear(), worker.errand
        if said is None:
            self._bury(worker, books)
        elif isinstance(said, GengapError):
            raise said
        elif isinstance(said, Ready):
            worker.ready = worker.begun = True
            worker.errand = None
            if errand:
                books.end(errand)
        elif errand and isinstance(said, Made):
            books.take(errand, said)
        elif errand:
            books.hear(errand, said)

    def _bury(self, worker: Worker, books: Books) -> None:
        """Go on without a worker that died."""
        self._crew.remove(worker)
        how = worker.buried()
        if worker.errand:
            books.lost(worker.errand, f"a worker process was lost ({how})")
        elif not worker.begun:
            self._most -= 1
            if not self._most:
                raise BadInput(
                    f"no worker process could start (the last one {how}); a script must call this under "
                    f"if __name__ == '__main__', or choose the engine 'solo'"
                )
            books.listen(Message(f"a worker process could not start ({how}); going on without it", warning=True))

    def _let_finish(self, books: Books) -> None:
        """Take what workers still send while they stop."""
        end = time.monotonic() + GRACE_SECONDS
        for worker in self._crew:
            worker.ask_to_stop()
        while (busy := {worker.pipe: worker for worker in self._crew if worker.errand}) and time.monotonic() < end:
            for pipe in wait(list(busy), POLL_SECONDS):
                worker = busy[pipe]  # type: ignore[index] # `wait` gives back what it was given
                said = worker.hear()
                if isinstance(said, Made) and worker.errand:
                    books.take(worker.errand, said)
                elif said is None or isinstance(said, Ready | GengapError):
                    worker.errand = None


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
