"""Several processes at one store: each job is done by one of them."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from gengap.core.events import Listener, Message
from gengap.store.store import Store

POLL_SECONDS = 0.5


def share_out(
    parts: Sequence[Sequence[str]], store: Store, work: Callable[[list[str]], None], *, listen: Listener
) -> None:
    """Do every job that no other process is doing; wait for the others and make sure that theirs were done.

    Args:
        parts: names of the jobs, such as keys of runs; those of one part are claimed at once and done in one call.
        store: where they are claimed.
        work: does the jobs that it is given; those that are done already it passes over.
        listen: told that others are at work.
    """
    waiting, told = [list(part) for part in parts], False
    while waiting:
        busy = []
        for part in waiting:
            with claimed(store, part) as granted:
                if granted:
                    work(granted)
            if left := [name for name in part if name not in granted]:
                busy.append(left)
        count = sum(map(len, busy))
        if busy and not told:
            listen(Message(f"{count} of the runs are being made by another process; waiting for them"))
            told = True
        if count == sum(map(len, waiting)):
            time.sleep(POLL_SECONDS)
        waiting = busy


@contextmanager
def claimed(store: Store, names: Sequence[str]) -> Iterator[list[str]]:
    """Claim several jobs until the block ends.

    Args:
        store: where.
        names: of the jobs.

    Yields:
        Those that no other process has claimed.
    """
    with ExitStack() as stack:
        yield [name for name in names if stack.enter_context(store.claim(name))]
