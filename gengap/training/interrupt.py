"""Ctrl-C ends a run between two updates, never inside one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class StopRequest:
    """Whether somebody asked to stop.

    Attributes:
        made: the loop stops.
        asked: on one of several processes, which stop when all have heard of it.
    """

    made: bool = False
    asked: bool = False


@contextmanager
def stop_on_interrupt(*, alone: bool = True) -> Iterator[StopRequest]:
    """Turn the first SIGINT into a request that the loop sees; a second one interrupts as usual.

    One of several processes hears of Ctrl-C from torchrun, as SIGINT or SIGTERM and perhaps twice; it goes on until all stop.
    Outside the main thread signals do not arrive, and nothing is changed.

    Args:
        alone: whether this is the only process.

    Yields:
        The request.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    signals = (signal.SIGINT,) if alone else (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in signals}

    def note(number: int, frame: FrameType | None) -> None:
        before = previous[signal.Signals(number)]
        if request.made and alone and callable(before):
            before(number, frame)
        request.asked, request.made = True, request.made or alone

    for number in signals:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
