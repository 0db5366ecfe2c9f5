"""Workers that train apart and meet now and then: all of them in one process, or one of them in each."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from gengap.core.errors import BadInput
from gengap.optim.mixing import MixingRule
from gengap.optim.wrapping import Base, Closure, Params, Wrapper, assign, borrowed, evaluate


class Workers(Wrapper):
    """Several workers in one process, each with its own weights and its own optimizer.

    After each step the parameters hold what the method stands for: the mean of the workers (post-local SGD) or the
    centre (elastic averaging). The workers' weights are in the state; they begin at the parameters as they are at the
    first step, and do not follow changes that others make later. Buffers, such as the running statistics of batch norm,
    are shared by all workers.

    A step costs one call of the closure for each worker. The state has K times the weights and K times the state of the
    base, and the centre; a step holds K gradients.

    Args:
        params: weights or groups. The learning rate of a group is that of all workers.
        base: makes the optimizer of a worker, for example `partial(SGD, lr=0.1, momentum=0.9)`; called once for each.
        rule: `PostLocal(period, start)` or `Elastic(alpha, beta, period)`.
        count: number of workers, K.

    Raises:
        BadInput: there is no worker, or `base` does not fit `params`.

    Source:
        Lin et al. 2020, arXiv:1808.07217; Zhang, Choromanska & LeCun 2015, arXiv:1412.6651.
    """

    def __init__(self, params: Params, base: Base, *, rule: MixingRule, count: int) -> None:
        if count < 1:
            raise BadInput(f"count is {count}; give 1 or more workers")
        if not callable(base):
            raise BadInput(
                "base is one optimizer, and every worker needs its own; give partial(torch.optim.SGD, lr=0.1)"
            )
        super().__init__(params, [base] * count, method=f"Workers({count}, {rule})", options={})
        self.rule, self.count = rule, count

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closures: Sequence[Closure], shares: Sequence[float] | None = None
    ) -> Tensor:
        """Let every worker take one step, and let them meet where it is time.

        Args:
            closures: one for each worker: zeroes the gradients, computes the mean loss of the worker's own batch at the
                weights that are in the parameters then, calls backward and returns the loss.
            shares: part of the whole batch that each worker has, where these differ; they add up to 1. Synchronous steps use
                them; later the workers count alike.

        Returns:
            The mean over samples of the losses before the step, detached.

        Raises:
            BadInput: there are more or fewer closures than workers.
        """
        if len(closures) != self.count:
            raise BadInput(f"got {len(closures)} closures for {self.count} workers; give one for each, in a list")
        params, replicas = self.params, self._replicas()
        parts = [1 / self.count] * self.count if shares is None else list(shares)
        with borrowed(params):
            losses, gradients = [], []
            for weights, closure in zip(replicas, closures, strict=True):
                assign(params, weights)
                losses.append(evaluate(closure))
                gradients.append(taken_gradients(params))
            done = self._count()
            if self.rule.is_synchronous(done):
                gradients = [mean_gradients(gradients, parts) for _ in replicas]
            for weights, gradient, base in zip(replicas, gradients, self.bases, strict=True):
                assign(params, weights)
                for p, g in zip(params, gradient, strict=True):
                    p.grad = g
                base.step()
                assign(weights, params)
        self._meet(done)
        return torch.stack([loss * part for loss, part in zip(losses, parts, strict=True)]).sum()

    def _replicas(self) -> list[list[Tensor]]:
        """Return the weights of every worker; at the first step, make them."""
        for p in self.params:
            memory = self.state[p]
            if "centre" not in memory:
                names = ["centre", *(f"weights{k}" for k in range(self.count))]
                memory.update({name: p.detach().clone() for name in names})
        return [[self.state[p][f"weights{k}"] for p in self.params] for k in range(self.count)]

    def _meet(self, done: int) -> None:
        """Apply the rule where it is time, and show the result in the parameters."""
        due = self.rule.is_due(done)
        for p in self.params:
            memory = self.state[p]
            own = [memory[f"weights{k}"] for k in range(self.count)]
            mean = own[0] + (torch.stack(own) - own[0]).mean(0)  # equal workers have exactly their mean
            if due:
                for weights in own:
                    weights.copy_(self.rule.worker(weights, memory["centre"], mean))
                memory["centre"] = self.rule.centre(memory["centre"], mean).clone()
            p.copy_(self.rule.result(memory["centre"], mean))


class Worker(Wrapper):
    """One worker of several, each in a process of its own.

    The same method as `Workers`, to rounding, with one difference: the parameters hold this worker's weights, and
    `result()` gives what the method stands for. The processes must begin with equal weights, make steps together, and
    agree on which parameters have gradients. Save the state of every process.

    A step costs one call of the closure and, where the workers meet, one mean over workers of all weights; synchronous
    steps take the mean of all gradients. Nothing is sent in other steps.

    Args:
        params: weights or groups.
        base: makes this worker's optimizer, or is it.
        rule: `PostLocal(period, start)` or `Elastic(alpha, beta, period)`.
        mean: returns the mean of a tensor over the workers; may write into what it is given. With torch.distributed:
            `all_reduce` divided by the number of ranks.

    Raises:
        BadInput: `base` does not fit `params`.

    Source:
        As `Workers`.
    """

    def __init__(
        self, params: Params, base: Base | Optimizer, *, rule: MixingRule, mean: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__(params, [base], method=f"Worker({rule})", options={})
        self.rule, self.mean = rule, mean

    @torch.no_grad()
    def step(self, closure: Closure) -> Tensor:  # type: ignore[override]
        """Take one step, and meet the others where it is time.

        Args:
            closure: zeroes the gradients, computes the mean loss of this worker's own batch, calls backward and returns
                the loss.

        Returns:
            This worker's loss before the step, detached.
        """
        for p in self.params:
            if "centre" not in self.state[p]:
                self.state[p]["centre"] = p.detach().clone()
        loss, done = evaluate(closure), self._count()
        if self.rule.is_synchronous(done):
            for p in self.params:
                p.grad = None if p.grad is None else self.mean(p.grad)
        self.bases[0].step()
        if self.rule.is_due(done):
            for p in self.params:
                memory, mean = self.state[p], self.mean(p.detach().clone())
                p.copy_(self.rule.worker(p, memory["centre"], mean))
                memory["centre"] = self.rule.centre(memory["centre"], mean).clone()
        return loss

    @torch.no_grad()
    def result(self) -> list[Tensor]:
        """Return the weights to evaluate, in the order of the parameters; all processes must call it together."""
        centres = [self.state[p].get("centre", p.detach()) for p in self.params]
        means = [self.mean(p.detach().clone()) for p in self.params]
        return [self.rule.result(c, m).clone() for c, m in zip(centres, means, strict=True)]


def taken_gradients(params: Sequence[Tensor]) -> list[Tensor | None]:
    """Take the gradients away, so that the next backward pass makes new ones."""
    taken = [p.grad for p in params]
    for p in params:
        p.grad = None
    return taken


def mean_gradients(gradients: Sequence[Sequence[Tensor | None]], parts: Sequence[float]) -> list[Tensor | None]:
    """Return the weighted mean over workers, in new tensors; one without a gradient counts as zero, all without as None."""
    found = [
        [g * part for g, part in zip(of_one, parts, strict=True) if g is not None]
        for of_one in zip(*gradients, strict=True)
    ]
    return [torch.stack(some).sum(0) if some else None for some in found]
