"""Commands that all processes of torchrun do together; rank 0 alone says something."""

import functools
import os
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import typer

from gengap.cli.output import INTERRUPTED, say, sentences
from gengap.core.errors import GengapError

F = TypeVar("F", bound=Callable[..., Any])
JOINED: ContextVar[Any] = ContextVar("JOINED")  # Ranks of the command at work; a command's arguments are its options


def together(command: F) -> F:
    """Let a command join the other processes first, where torchrun started several; errors are one sentence of one of them."""
    alone = sentences(command)

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if int(os.environ.get("WORLD_SIZE") or 1) == 1:
            return alone(*args, **kwargs)
        return sentences(joined)(command, *args, **kwargs)

    return wrapped  # type: ignore[return-value]


def joined(command: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Do a command as one of several processes."""
    from gengap.training.ranks import find_ranks

    with find_ranks(kwargs["device"]) as ranks:
        token = JOINED.set(ranks)
        try:
            return command(*args, **{**kwargs, "device": str(ranks.device)})
        except GengapError as error:
            if ranks.speaks():
                say(f"gengap: {error}")
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            if ranks.speaks():
                say("gengap: interrupted; what was finished is kept")
            raise typer.Exit(INTERRUPTED) from error
        finally:
            JOINED.reset(token)


def current_ranks() -> Any:
    """Give the `Ranks` of the command at work."""
    from gengap.training.ranks import ALONE

    return JOINED.get(ALONE)
