"""Where the doctor listens, and what it holds still meanwhile.

Everything random or coupled is taken out of the loop, so that its gradients can be compared to rounding error: dropout and
autocast are off, loss scaling and clipping do nothing but are noted, and batch norm normalises each sample by itself.
All of it is put back at the end.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.data import DataLoader, DistributedSampler

from gengap.diagnosis.norm_hooks import norms
from gengap.diagnosis.precision_hooks import precision
from gengap.diagnosis.watch import Watch

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
ASKED = ("get_rank", "get_world_size", "init_process_group", "all_reduce")


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Let a watch see what is done with its model until the block ends."""
    with ExitStack() as stack:
        for parts in (
            calm(),
            passes(watch),
            steps(watch),
            norms(watch),
            precision(watch),
            loaders(watch),
            processes(watch),
        ):
            for owner, name, wrap in parts:
                stack.enter_context(replaced(owner, name, wrap))
        before = register_optimizer_step_pre_hook(
            lambda optimizer, args, kwargs: watch.update(optimizer, closure=given(args, kwargs))
        )
        stack.callback(before.remove)
        stack.callback(register_optimizer_step_post_hook(lambda *_: watch.updated()).remove)
        seen = watch.model.register_forward_pre_hook(_forward_hook(watch), with_kwargs=True)
        stack.callback(seen.remove)
        yield


@contextmanager
def replaced(owner: Any, name: str, wrap: Wrap) -> Iterator[None]:
    """Wrap one function until the block ends."""
    original = getattr(owner, name)
    setattr(owner, name, wraps(original)(wrap(original)))
    try:
        yield
    finally:
        setattr(owner, name, original)


def given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether a step was given a closure; the first argument is the optimizer itself."""
    return any(value is not None for value in (*args[1:2], kwargs.get("closure")))


def _forward_hook(watch: Watch) -> Callable[..., None]:
    def hook(module: nn.Module, arguments: Any, named: Any) -> None:
        if module is watch.model:  # copies of it, as for averages of weights, take the hook with them
            watch.forward(arguments, named)

    return hook


def calm() -> Iterator[tuple[Any, str, Wrap]]:
    """Take out dropout and compilation."""
    for name in DROPOUTS:
        yield functional, name, lambda _: lambda input, *_, **__: input
    yield functional, "scaled_dot_product_attention", _attention_without_dropout
    yield torch, "compile", lambda _: lambda model=None, **__: model if model is not None else (lambda later: later)


def _attention_without_dropout(original: Callable[..., Any]) -> Callable[..., Any]:
    def attention(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> Any:
        rest = (*rest[:1], 0.0, *rest[2:]) if len(rest) > 1 else rest
        return original(query, key, value, *rest, **({**named, "dropout_p": 0.0} if "dropout_p" in named else named))

    return attention


def passes(watch: Watch) -> Iterator[tuple[Any, str, Wrap]]:
    """Listen to backward passes."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def backward(*args: Any, **kwargs: Any) -> Any:
            with watch.backward():
                return original(*args, **kwargs)

        return backward

    yield torch.autograd, "backward", wrap


def steps(watch: Watch) -> Iterator[tuple[Any, str, Wrap]]:
    """Listen to schedulers, and to what optimizers are made of."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def init(scheduler: Any, *args: Any, **kwargs: Any) -> None:
            original(scheduler, *args, **kwargs)
            watch.schedulers.append(scheduler)

        return init

    def group(original: Callable[..., Any]) -> Callable[..., Any]:
        def add(optimizer: Any, added: dict[str, Any]) -> None:
            original(optimizer, added)
            watch.own(optimizer.param_groups[-1])

        return add

    yield torch.optim.Optimizer, "add_param_group", group
    yield LRScheduler, "__init__", wrap
    yield ReduceLROnPlateau, "__init__", wrap


def loaders(watch: Watch) -> Iterator[tuple[Any, str, Wrap]]:
    """Listen to loaders, which load in this process meanwhile."""
    data = watch.data

    def here(original: Callable[..., Any]) -> Callable[..., Any]:
        def init(*args: Any, **kwargs: Any) -> None:
            asked = signature(original).bind(*args, **kwargs)
            asked.arguments |= {"num_workers": 0, "prefetch_factor": None, "persistent_workers": False, "timeout": 0}
            asked.arguments |= {"multiprocessing_context": None, "pin_memory": False}
            original(*asked.args, **asked.kwargs)

        return init

    def follow(original: Callable[..., Any]) -> Callable[..., Any]:
        def iterate(loader: Any) -> Iterator[Any]:
            dropping = loader.drop_last or getattr(loader.batch_sampler, "drop_last", False)
            epoch = data.begin_epoch(bool(dropping or getattr(loader.sampler, "drop_last", False)))
            batches = original(loader)
            while True:
                data.reading(epoch)
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                yield batch

        return iterate

    yield DataLoader, "__init__", here
    yield DataLoader, "__iter__", follow


def processes(watch: Watch) -> Iterator[tuple[Any, str, Wrap]]:
    """Note whether the function knows of other processes; the group is made and unmade for it."""

    def noted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            asker = sys._getframe(1).f_globals.get("__name__", "")
            if original in made or not asker.startswith("torch."):  # a loader of torch asks for the rank by itself
                watch.trace.distributed = True
            return original(*args, **kwargs)

        return call

    def made_already(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: None if dist.is_initialized() else original(*args, **kwargs)

    made = (DistributedDataParallel.__init__, DistributedSampler.__init__)
    for owner in (DistributedDataParallel, DistributedSampler):
        yield owner, "__init__", noted
    yield dist, "init_process_group", made_already
    yield dist, "destroy_process_group", lambda _: lambda *_, **__: None
    for name in ASKED:
        yield dist, name, noted
