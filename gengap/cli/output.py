"""What a command says: results on standard output, everything else on standard error."""

import functools
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress as Bars, TextColumn, TimeRemainingColumn

from gengap.core.errors import GengapError
from gengap.core.events import Event, Message, Progress

LINE_SECONDS = 5.0  # between two lines of progress in a log
DONE_WITH_FAILURES, INTERRUPTED = 1, 130

F = TypeVar("F", bound=Callable[..., Any])


def sentences(command: F) -> F:
    """Print an error of the user's side as one sentence, and end with its exit code instead of a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except GengapError as error:
            say(f"gengap: {error}")
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            say("gengap: interrupted; what was finished is kept")
            raise typer.Exit(INTERRUPTED) from error

    return wrapped  # type: ignore[return-value]


def say(text: str) -> None:
    """Write a line to standard error."""
    print(text, file=sys.stderr, flush=True)


def print_json(document: Any) -> None:
    """Write one JSON document to standard output."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def present(found: Any, page: Path, show: Callable[[Mapping[str, Any], Console], None], *, json: bool) -> None:
    """Print what was found as JSON or for people, and say where the report is."""
    if json:
        print_json(found.to_dict())
    else:
        show(found.document, Console())
    say(f"report: {page}")


def command_line() -> str:
    """Give the command as it was typed."""
    return shlex.join(["gengap", *sys.argv[1:]])


class Reporter:
    """Shows what goes on: a bar on a terminal, plain lines elsewhere; nothing before two seconds have passed."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True)
        self.quiet = quiet
        self.began = self.last = time.monotonic()
        self.what = ""
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"))
        self.bars = Bars(
            *columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=self.console, transient=True
        )
        self.task = (
            None if quiet or not self.console.is_terminal else self.bars.add_task("", total=None, amount="", note="")
        )

    def __enter__(self) -> "Reporter":
        if self.task is not None:
            self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.task is not None:
            self.bars.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if self.quiet:
            return
        if isinstance(event, Message):
            self.console.print(
                ("warning: " if event.warning else "") + event.text, markup=False, highlight=False, soft_wrap=True
            )
        elif self.task is not None:
            self._bar(event)
        else:
            self._line(event)

    def _bar(self, event: Progress) -> None:
        if self.task is None:
            return
        if event.what != self.what:
            self.bars.reset(self.task)
            self.what = event.what
        self.bars.update(
            self.task,
            description=event.what,
            completed=event.done,
            total=event.total,
            amount=amount(event),
            note=event.note,
        )

    def _line(self, event: Progress) -> None:
        now = time.monotonic()
        if now - self.last >= LINE_SECONDS:
            note = f", {event.note}" if event.note else ""
            say(f"[{now - self.began:6.1f} s] {event.what}: {amount(event)}{note}")
            self.last = now


def amount(event: Progress) -> str:
    """Write how much is done."""
    done = f"{event.done:,.1f}".removesuffix(".0")
    return f"{done} {event.unit}" if event.total is None else f"{done} of {event.total:,.0f} {event.unit}"
