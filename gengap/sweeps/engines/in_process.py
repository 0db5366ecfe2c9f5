"""Make packs one after the other in this process."""

from collections.abc import Sequence
from functools import partial

from gengap.core.events import Listener, silent
from gengap.sweeps.engines.books import Books, Checkpoint, paths
from gengap.sweeps.work import Keep, Pack, make
from gengap.training.interrupt import StopRequest, stop_on_interrupt


class InProcess:
    """No other process: nothing has to travel, and every torch thread of this one is used.

    Args:
        checkpoint: names the file where a run keeps its state while it is at work; None: no state is kept.
    """

    name = "in-process"

    def __init__(self, *, checkpoint: Checkpoint | None = None) -> None:
        self.checkpoint = checkpoint

    def run(self, packs: Sequence[Pack], keep: Keep, listen: Listener = silent) -> None:
        """Make all runs; hand each to `keep` as it comes out.

        Args:
            packs: the runs to make.
            keep: called once for each run.
            listen: told of the progress.

        Raises:
            Interrupted: Ctrl-C; runs that were finished have been kept.
        """
        books = Books(packs, keep, listen, retries=0)
        with stop_on_interrupt() as stop:
            while books.waiting:
                self._make(books, stop)

    def _make(self, books: Books, stop: StopRequest) -> None:
        """Make the runs of the next pack."""
        errand = books.begin()
        problem, files = books.problem_of(errand.pack), paths(errand.pack.tasks, self.checkpoint)
        for made in make(errand.pack, problem, listen=partial(books.hear, errand), checkpoints=files):
            books.take(errand, made)
            if stop.made and books.open:
                raise books.interrupted()
        books.end(errand)
