"""What a worker process of the pool does, and what it says to the driver."""

import math
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from gengap.core.errors import GengapError, Interrupted
from gengap.core.events import Event, Listener, Message
from gengap.problem.problem import Problem
from gengap.sweeps.engines.parcel import Parcel, check_same
from gengap.sweeps.work import Pack, make
from gengap.training.interrupt import StopRequest, stop_on_interrupt

PROGRESS_SECONDS = 0.5  # between two words on how far a run is


@dataclass(frozen=True, slots=True)
class Order:
    """A pack for a worker.

    Attributes:
        pack: the runs; its problem is only named.
        name: of the problem.
        parcel: the problem, where this worker has not had it.
        checkpoints: file of each run's state while it is at work, by key.
    """

    pack: Pack
    name: str
    parcel: Parcel | None
    checkpoints: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has nothing to do: it has just begun, or is through with a pack."""


def serve(pipe: Connection) -> None:
    """Make packs, one torch thread, until the driver sends None, is gone, or asks to stop by SIGINT.

    A run is sent as `Made` when it ends, progress as it comes, an error that is wrong for all runs as itself.

    Args:
        pipe: to the driver.
    """
    threading.Thread(target=end_with_driver, daemon=True).start()
    torch.set_num_threads(1)
    problems: dict[str, Problem] = {}
    with asked_to_stop() as stop:
        while not stop.made:
            send(pipe, Ready())
            order = receive(pipe)
            if order is None:
                return
            try:
                follow(order, pipe, problems, stop)
            except Interrupted:
                return
            except GengapError as error:
                send(pipe, error)


def follow(order: Order, pipe: Connection, problems: dict[str, Problem], stop: StopRequest) -> None:
    """Make the runs of a pack and send them."""
    if order.parcel is not None:
        problems[order.name] = order.parcel.opened()
    check_same(problems[order.name], order.pack)
    listen = thinned(lambda event: send(pipe, event))
    for made in make(order.pack, problems[order.name], listen=listen, checkpoints=order.checkpoints):
        send(pipe, made)
        if stop.made:
            return


@contextmanager
def asked_to_stop() -> Iterator[StopRequest]:
    """Let SIGINT end the run at work. The terminal sends one and the driver another: the second changes nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_on_interrupt() as stop:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the driver blocked it while this process began
        yield stop


def end_with_driver() -> None:
    """End this process, in the middle of a run if need be, when the driver is no more: killed drivers leave no orphans."""
    driver = parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)


def thinned(listen: Listener) -> Listener:
    """Pass on every message, and progress once in a while."""
    last = -math.inf

    def tell(event: Event) -> None:
        nonlocal last
        now = time.monotonic()
        if isinstance(event, Message) or now - last >= PROGRESS_SECONDS:
            last = last if isinstance(event, Message) else now
            listen(event)

    return tell


def send(pipe: Connection, content: object) -> None:
    """Send anything; plain pickling copies tensors, where torch's would share their memory with this process."""
    pipe.send_bytes(pickle.dumps(content))


def receive(pipe: Connection) -> Any:
    """Wait for what the other side sends."""
    return pickle.loads(pipe.recv_bytes())
