"""Several processes at one store: each job is done by one of them."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from gengap.core.events import Listener, Message
from gengap.store.store import Store

POLL_SECONDS = 0.5


def share_out(
    names: Sequence[str],
    store: Store,
    work: Callable[[list[str]], None],
    *,
    listen: Listener,
    together: int = 1,
) -> None:
    """Do every job that no other process is doing; wait for the others and make sure that theirs were done.

    Args:
        names: of the jobs, such as keys of runs.
        store: where they are claimed.
        work: does the jobs that it is given; those that are done already it passes over.
        listen: told that others are at work.
        together: jobs that are claimed at once, and done in one call of `work`.
    """
    waiting, told = list(names), False
    while waiting:
        busy = []
        for start in range(0, len(waiting), together):
            part = waiting[start : start + together]
            with claimed(store, part) as granted:
                if granted:
                    work(granted)
            busy += [name for name in part if name not in set(granted)]
        if busy and not told:
            listen(Message(f"{len(busy)} of the runs are being made by another process; waiting for them"))
            told = True
        if len(busy) == len(waiting):
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
