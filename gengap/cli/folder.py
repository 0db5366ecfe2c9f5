"""The folder that --out names: nothing is mixed into it by accident, and what is finished stays there after Ctrl-C."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from gengap.cli.output import Reporter
from gengap.cli.processes import current_ranks
from gengap.core.errors import BadInput, Interrupted
from gengap.core.events import Listener, Message

RESULTS = Path("results")


def default_folder(command: str, name: str) -> Path:
    """Name the folder of a command after what it is about."""
    return RESULTS / f"{command}-{name}".replace(" on ", "-").replace("/", "-").replace(":", "-")


def check_folder(folder: Path, *, resume: bool) -> None:
    """Refuse to mix new results into a folder by accident.

    Args:
        folder: where results would go.
        resume: whether that is wanted.

    Raises:
        BadInput: the folder holds results already.
    """
    from gengap.store.store import LEDGER

    if (folder / LEDGER).exists() and not resume and current_ranks().rank == 0:
        raise BadInput(
            f"{folder} holds results already; go on with them by --resume, or choose another folder by --out"
        )


def store_there(folder: Path) -> AbstractContextManager[Any]:
    """Open the store of a folder; None where it has none, and none is made."""
    from gengap.store.store import LEDGER, Store

    return Store(folder, create=False) if (folder / LEDGER).exists() else nullcontext()


def go_on(why: str, folder: Path, what: str = "runs") -> str:
    """Say what Ctrl-C left, and how to go on."""
    return f"{why or 'interrupted'}; finished {what} are kept in {folder}, go on with --resume"


@contextmanager
def keeping(folder: Path, what: str = "runs") -> Iterator[None]:
    """Say after Ctrl-C in a block what it left.

    Args:
        folder: where it is.
        what: is kept there.

    Yields:
        Nothing.

    Raises:
        Interrupted: Ctrl-C.
    """
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as error:
        raise Interrupted(go_on(str(error), folder, what)) from error


def reported(make: Callable[[Listener], Any], folder: Path, *, quiet: bool, what: str = "runs") -> tuple[Any, Path]:
    """Do the work of a command, show how far it is, and write the report.

    Args:
        make: does the work, told whom to tell of it; what it gives has a method `report`.
        folder: for the report.
        quiet: no progress.
        what: is kept in the folder on the way.

    Returns:
        What was made, and the path of its page.

    Raises:
        Interrupted: Ctrl-C.
    """
    with keeping(folder, what), Reporter(quiet) as reporter:
        found = make(reporter)
        reporter(Message(f"writing the report to {folder}"))
        return found, found.report(folder)
