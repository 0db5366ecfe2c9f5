"""What the training methods share: an optimizer that drives another one and looks like a single optimizer from outside."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gengap.core.errors import BadInput

Closure = Callable[[], Tensor]
Group = dict[str, Any]
Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[Group]
Base = Callable[[list[Group]], Optimizer]


class Wrapper(Optimizer):
    """An optimizer that prepares gradients and weights, and leaves the update to optimizers inside it.

    The groups of `param_groups` are the groups of the optimizers inside, so a learning rate set here, by hand or by a
    scheduler of `torch.optim.lr_scheduler`, is the learning rate there. The numbers of the method are in the groups as
    well, under names that no optimizer of torch uses ("sam_rho"). `state_dict()` is one flat dictionary with everything:
    the entries of optimizer i inside are called "base{i}.NAME".

    Args:
        params: tensors, (name, tensor) pairs or groups, as for any optimizer of torch.
        bases: what makes each optimizer inside from a list of groups, for example `partial(SGD, lr=0.1)`; or an
            optimizer that holds the same tensors already.
        method: name of the method, with what must be equal for a state to fit.
        options: the numbers of the method, in every group that does not set its own.

    Raises:
        BadInput: there are no parameters, or a base is not a plain optimizer of the same tensors.
    """

    needs_closure = True
    closure_for_base = False  # whether `step` hands a closure on

    def __init__(
        self, params: Params, bases: Sequence[Base | Optimizer], *, method: str, options: dict[str, float]
    ) -> None:
        first = build_base(bases[0], as_groups(params), takes_closure=self.closure_for_base)
        own = {"method": method, **options}
        super().__init__(first.param_groups, {**first.defaults, **own})
        others = [build_base(b, as_groups(first.param_groups), takes_closure=self.closure_for_base) for b in bases[1:]]
        self.bases = [first, *others]
        self._share_groups()

    @property
    def params(self) -> list[Tensor]:
        """All weights, in the order of the groups."""
        return [p for group in self.param_groups for p in group["params"]]

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step needs: the groups, and tensors and numbers for every parameter."""
        packed = super().state_dict()
        state = {index: dict(memory) for index, memory in packed["state"].items()}
        for i, base in enumerate(self.bases):
            for index, memory in base.state_dict()["state"].items():
                state.setdefault(index, {}).update({f"base{i}.{name}": value for name, value in memory.items()})
        return {**packed, "state": state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict()`, to the same bits.

        Args:
            state_dict: of the same method around the same kind of optimizer; read back from JSON it may hold lists in
                place of tuples.

        Raises:
            BadInput: it is the state of another method.
        """
        found, method = state_dict["param_groups"][0].get("method"), self.defaults["method"]
        if found != method:
            raise BadInput(f"the state is of {found or 'a plain optimizer'}; give the state_dict of a {method}")
        own, inside = split(state_dict["state"], len(self.bases))
        super().load_state_dict({**state_dict, "state": own})
        for base, state in zip(self.bases, inside, strict=True):
            base.load_state_dict({"state": state, "param_groups": state_dict["param_groups"]})
        self._share_groups()

    def _share_groups(self) -> None:
        """Let there be one list of groups."""
        self.param_groups = self.bases[0].param_groups
        for base in self.bases:
            base.param_groups = self.param_groups

    def _count(self) -> int:
        """Return the number of steps before this one, and add one."""
        # Not in the groups: a scheduler or a user may replace what is there.
        memory = self.state[self.params[0]]
        done: int = memory.get("steps", 0)
        memory["steps"] = done + 1
        return done


def as_groups(params: Params) -> list[Group]:
    """Bring parameters to the form of groups, each with a list of its tensors.

    Args:
        params: as for any optimizer of torch; groups are copied, their tensors are not.

    Returns:
        The groups.

    Raises:
        BadInput: there are no parameters.
    """
    given: list[Any] = list(params)
    groups = [dict(group) for group in given] if given and isinstance(given[0], dict) else [{"params": given}]
    for group in groups:
        group["params"] = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
    if not any(group["params"] for group in groups):
        raise BadInput("params is empty; give the parameters of the model")
    return groups


def build_base(base: Base | Optimizer, groups: list[Group], *, takes_closure: bool) -> Optimizer:
    """Make the optimizer inside, and check it.

    Args:
        base: the optimizer, or what makes it.
        groups: for it.
        takes_closure: whether its `step` will be given a closure.

    Returns:
        The optimizer.

    Raises:
        BadInput: it is no optimizer, holds other tensors, is a method itself, or needs a closure and gets none.
    """
    wanted = [id(p[1] if isinstance(p, tuple) else p) for group in groups for p in group["params"]]
    made = base if isinstance(base, Optimizer) else base(groups)
    name = type(made).__name__
    if not isinstance(made, Optimizer) or isinstance(made, Wrapper):
        raise BadInput(f"base is a {name}; give a plain optimizer such as partial(torch.optim.SGD, lr=0.1)")
    held = [id(p) for group in made.param_groups for p in group["params"]]
    if held != wanted:
        raise BadInput(
            f"base holds {len(held)} tensors, not the same {len(wanted)} in the same order; make both of one list"
        )
    if not takes_closure and wants_closure(made):
        raise BadInput(
            f"base is a {name}, which evaluates the loss itself; give an optimizer that steps by gradients alone"
        )
    return made


def wants_closure(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer evaluates the loss itself, as L-BFGS does."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def split(state: dict[int, dict[str, Any]], count: int) -> tuple[dict[int, dict[str, Any]], list[dict[int, Any]]]:
    """Take a flat state apart: what is the method's own, and what belongs to each of `count` optimizers inside."""
    own: dict[int, dict[str, Any]] = {}
    inside: list[dict[int, Any]] = [{} for _ in range(count)]
    for index, memory in state.items():
        for name, value in memory.items():
            prefix, dot, rest = name.partition(".")
            if dot:
                inside[int(prefix.removeprefix("base"))].setdefault(index, {})[rest] = value
            else:
                own.setdefault(index, {})[name] = value
    return own, inside


def plain_optimizers(optimizer: Optimizer) -> list[Optimizer]:
    """Give the optimizers that move weights: those inside a method, or the optimizer itself."""
    return optimizer.bases if isinstance(optimizer, Wrapper) else [optimizer]


def evaluate(closure: Closure) -> Tensor:
    """Call a closure with gradients on.

    Args:
        closure: zeroes the gradients, computes the loss, calls backward, returns the loss.

    Returns:
        The loss, detached.

    Raises:
        BadInput: the closure does not return a tensor.
    """
    with torch.enable_grad():
        loss = closure()
    if not isinstance(loss, Tensor):
        raise BadInput(f"the closure returned {loss!r}; let it call backward on the loss and return that tensor")
    return loss.detach()


@contextmanager
def borrowed(params: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Let weights be changed for a while, and put them back bit for bit, also after an error.

    Args:
        params: the weights.

    Yields:
        Copies of them as they are now.
    """
    kept = [p.detach().clone() for p in params]
    try:
        yield kept
    finally:
        assign(params, kept)


@torch.no_grad()
def assign(params: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Write values into weights."""
    for p, value in zip(params, values, strict=True):
        p.copy_(value)
