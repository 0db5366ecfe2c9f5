"""One run of a training function under observation, in this process."""

import sys
import warnings
from contextlib import redirect_stdout
from typing import Any

from gengap.core.errors import BadInput, GengapError
from gengap.core.seeds import stream
from gengap.diagnosis.hooks import watching
from gengap.diagnosis.loop import Loop
from gengap.diagnosis.trace import Sizes, Trace
from gengap.diagnosis.watch import Enough, Watch
from gengap.diagnosis.watched_data import WatchedData, seed_everything
from gengap.problem.random_state import kept

PATIENCE = 3  # times the backward passes that a run should take, after which it is stopped


class LoopFailed(BadInput):
    """The function raised an error."""


def watched_data(loop: Loop, samples: int, seed: int) -> WatchedData:
    """Make the data of a loop and take a part of it."""
    return WatchedData(attempt(loop.data, "the function that makes the data"), samples, seed=seed)


def follow(
    loop: Loop, data: WatchedData, sizes: Sizes, *, seed: int, rank: int = 0, keep_passes: bool = False
) -> Trace:
    """Run a training function once.

    Global random states are put back. The model is made from the same random numbers on every rank and in every run; what the
    function draws itself differs between ranks, as it does where nobody seeds.

    Args:
        loop: whose function.
        data: that it trains on.
        sizes: that it is called with.
        seed: of model and function.
        rank: of this process.
        keep_passes: keep the gradient of every single pass.

    Returns:
        What it did.

    Raises:
        LoopFailed: it raised an error, or made no update.
    """
    expected = sizes.epochs * (len(data) // sizes.batch_size + 2)
    data.begin_run()
    with kept(), warnings.catch_warnings(), redirect_stdout(sys.stderr):  # results alone go to standard output
        warnings.simplefilter("ignore")
        seed_everything(stream(seed, "model"))
        model = attempt(loop.model, "the function that makes the model")
        watch = Watch(model, data, sizes, limit=PATIENCE * expected, keep_passes=keep_passes, seed=seed)
        seed_everything(stream(seed, "loop", rank))
        with watching(watch):
            attempt(lambda: until_enough(loop, model, data, sizes), call_of(loop, sizes))
    trace = watch.end()
    if not trace.updates:
        raise LoopFailed(f"{call_of(loop, sizes)} made no step of an optimizer; it must train the model it is given")
    return trace


def until_enough(loop: Loop, model: Any, data: WatchedData, sizes: Sizes) -> None:
    """Call the function; being stopped is a good end."""
    try:
        loop.call(model, data, sizes)
    except Enough:
        return


def attempt(function: Any, what: str) -> Any:
    """Call something of the user's.

    Args:
        function: without arguments.
        what: to call it in the message.

    Returns:
        What it returns.

    Raises:
        GengapError: it raised one.
        LoopFailed: it raised another error.
    """
    try:
        return function()
    except GengapError:
        raise
    except Exception as error:
        raise LoopFailed(f"{what} raised {type(error).__name__}: {error}; it must run to its end") from error


def call_of(loop: Loop, sizes: Sizes) -> str:
    """Write the call down."""
    return f"{loop.name}(batch_size={sizes.batch_size}, accumulate={sizes.accumulate}, epochs={sizes.epochs})"
