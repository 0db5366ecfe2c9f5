"""adaQN: L-BFGS for noisy gradients, with curvature from averaged iterates and from the gradients themselves."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from gengap.core.errors import BadInput
from gengap.optim.arguments import check_decay, check_not_negative, check_positive
from gengap.optim.wrapping import Closure, assign, borrowed, evaluate

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class History:
    """What adaQN remembers, and when it looks back.

    Attributes:
        every: L, updates whose iterates are averaged; after each L the new average is held against the old one.
        pairs: m_L, pairs (s, y) in the two loops.
        gradients: m_F, gradients in the Fisher matrix.
        min_curvature: a pair is kept where s·y is above this times s·s.
    """

    every: int = 20
    pairs: int = 10
    gradients: int = 100
    min_curvature: float = 1e-4

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "min_curvature" and (value < 1 or value != int(value)):
                raise BadInput(f"{name} is {value}; give a whole number, 1 or above")
        check_positive(min_curvature=self.min_curvature)


class AdaQn(Optimizer):
    r"""Step along a gradient times an inverse Hessian that is learnt on the way.

    .. math::
        w \leftarrow w - \eta H g, \qquad H^{(0)} = \mathrm{diag}\Big(\sum_{j \le k} g_j^2 + \epsilon\Big)^{-1/2},

    and H comes from :math:`H^{(0)}` by L-BFGS's two loops over the last m_L pairs. After every L updates, where
    :math:`\bar w` is the average of the L iterates and :math:`\bar w_o` the old average,

    .. math::
        s = \bar w - \bar w_o, \qquad y = \frac{1}{m} \sum_{i=1}^{m} g_i\, (g_i \cdot s),

    with the last :math:`m \le m_F` gradients, the newest included: y is the empirical Fisher matrix times s, and the matrix is
    never formed. Where the loss at :math:`\bar w` is above gamma times that at :math:`\bar w_o`, the weights go back to
    :math:`\bar w_o`, and pairs and gradients are forgotten. Else the pair is kept where s·y is above `min_curvature` times s·s,
    and only then :math:`\bar w` becomes the old average.

    The Fisher matrix is that of gradients of batches, and not of samples: where noise is most of a gradient it shrinks as
    1 / B, and fewer pairs are kept; without pairs the rule is Adagrad. So a rate is for one batch size.

    Of the paper are the rule, m_L 10, m_F 100, gamma 1.01 and 1e-4 for eps and `min_curvature`, the numbers as the published
    package stochQN names them. Ours are: L 20, which should be tuned; the two losses are those of the batch at hand, where the
    paper has samples set apart for it; a loss that is not finite counts as a rise; where the old loss is negative, the rise
    allowed is (gamma - 1) times its size; the decay term is part of gradients and losses; a rejection leaves the squares.

    A step costs one evaluation of loss and gradient, and two more after every L updates, on the same batch; batch norm moves its
    running statistics in all of them. Memory: m_F + 2 m_L + 3 vectors of P numbers, 123 copies of the weights by default, weights
    without a gradient included. Arithmetic: about 5 m_L products of P numbers a step, and 2 m_F after every L.

    Args:
        params: weights, or groups of them, which may differ in lr, eps, decay and weight_decay; all on one device, in one dtype.
        lr: :math:`\eta`; schedules may change it.
        eps: :math:`\epsilon`, added to the squares under the root.
        decay: None for the sum of squares (Adagrad); a number in [0, 1) for a running average with this coefficient (RMSprop).
        weight_decay: L2 coefficient.
        gamma: how much higher the loss may be at the new average, as a factor, >= 1.
        history: sizes of the memory.

    Attributes:
        history: as given.
        gamma: as given.

    Raises:
        BadInput: a number is out of its range, or the weights are not all of one kind.

    Source:
        Keskar & Berahas 2016, arXiv:1511.01169, algorithm 1.
    """

    needs_closure = True

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        *,
        eps: float = 1e-4,
        decay: float | None = None,
        weight_decay: float = 0.0,
        gamma: float = 1.01,
        history: History | None = None,
    ) -> None:
        check_not_negative(lr=lr, weight_decay=weight_decay)
        check_positive(eps=eps, gamma=gamma)
        if decay is not None:
            check_decay(decay=decay)
        if gamma < 1:
            raise BadInput(f"gamma is {gamma}; give 1 or above, a factor that the loss may rise by")
        super().__init__(params, {"lr": lr, "eps": eps, "decay": decay, "weight_decay": weight_decay})
        self.gamma, self.history = gamma, history or History()

    @property
    def rejections(self) -> int:
        """Times that the weights went back to an old average."""
        return int(self._memory().get("rejections", 0))

    @torch.no_grad()
    def step(self, closure: Closure) -> Tensor:  # type: ignore[override] # the loss is a tensor
        """Do one update, and look back where L are done.

        Args:
            closure: zeroes the gradients, computes the loss of one batch, goes backward and returns the loss; the same function
                in all calls of a step.

        Returns:
            The loss where the step began, without the decay term.
        """
        loss = evaluate(closure)
        memory, gradient = self._memory(), self._gradient()
        if not memory:
            memory.update(self._empty(gradient))
        memory["gradients"][memory["seen"] % self.history.gradients].copy_(gradient)
        memory["seen"] += 1
        diagonal = self._diagonal(memory["squares"], gradient)
        self._move(two_loops(gradient, diagonal, self._pairs(memory)))
        self._average(memory)
        if memory["updates"] == self.history.every:
            memory["updates"] = 0
            self._look_back(closure, memory)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state back.

        Args:
            state_dict: what `state_dict` gave.

        Raises:
            BadInput: it has a memory of other sizes.
        """
        for memory in state_dict["state"].values():
            found = tuple(len(memory.get(name, ())) for name in ("steps", "gradients"))
            if memory and found != (self.history.pairs, self.history.gradients):
                raise BadInput(
                    f"the state has room for {found[0]} pairs and {found[1]} gradients, and the optimizer for "
                    f"{self.history.pairs} and {self.history.gradients}; make it with the same history"
                )
        super().load_state_dict(state_dict)
        for memory in self.state.values():
            # In memory of its own: sums of numbers that begin at another alignment are rounded differently.
            memory.update({name: value.clone() for name, value in memory.items() if isinstance(value, Tensor)})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group while the optimizer is made; later the memory would be of other weights.

        Args:
            param_group: weights and options.

        Raises:
            BadInput: the optimizer exists already, or the weights are of another dtype or on another device.
        """
        if hasattr(self, "history"):
            raise BadInput("adaQN cannot take new weights on the way; make another optimizer")
        super().add_param_group(param_group)
        kinds = {(p.dtype, p.device) for p in self._weights()}
        if len(kinds) > 1:
            words = " and ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
            raise BadInput(
                f"adaQN keeps all weights as one vector, and they are {words}; put them on one device in one dtype"
            )

    def _weights(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _memory(self) -> dict[str, Any]:
        """Return what is kept, all of it with the first weight."""
        found: dict[str, Any] = self.state[self._weights()[0]]
        return found

    def _empty(self, like: Tensor) -> dict[str, Any]:
        """Return a memory of nothing."""
        sizes = self.history
        tables = {"steps": sizes.pairs, "changes": sizes.pairs, "gradients": sizes.gradients}
        return {
            **{name: like.new_zeros(rows, len(like)) for name, rows in tables.items()},
            **{name: torch.zeros_like(like) for name in ("squares", "average", "old_average")},
            **dict.fromkeys(("updates", "windows", "seen", "kept", "rejections"), 0),
        }

    def _parts(self, *vectors: Tensor) -> Iterator[tuple[Any, dict[str, Any], list[Tensor]]]:
        """Go through weights with a gradient, each with its group and its parts of vectors over all weights."""
        start = 0
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    yield p, group, [vector[start : start + p.numel()].view(p.shape) for vector in vectors]
                start += p.numel()

    def _gradient(self) -> Tensor:
        """Return the gradient as one vector, with that of the decay term; zero where there is none."""
        weights = self._weights()
        whole = weights[0].new_zeros(sum(p.numel() for p in weights))
        for p, group, (part,) in self._parts(whole):
            part.copy_(p.grad).add_(p, alpha=group["weight_decay"])
        return whole

    def _diagonal(self, squares: Tensor, gradient: Tensor) -> Tensor:
        """Add the squares of a gradient, and return the first inverse Hessian."""
        diagonal = torch.zeros_like(squares)
        for _, group, (square, slope, part) in self._parts(squares, gradient, diagonal):
            decay = group["decay"]
            if decay is None:
                square.addcmul_(slope, slope)
            else:
                square.mul_(decay).addcmul_(slope, slope, value=1 - decay)
            part.copy_((square + group["eps"]).rsqrt_())
        return diagonal

    def _pairs(self, memory: dict[str, Any]) -> list[Pair]:
        """List the pairs, the oldest first."""
        size, kept = self.history.pairs, memory["kept"]
        rows = [i % size for i in range(max(0, kept - size), kept)]
        return [(memory["steps"][row], memory["changes"][row]) for row in rows]

    def _move(self, direction: Tensor) -> None:
        """Go against a direction, every group at its rate."""
        for p, group, (part,) in self._parts(direction):
            p.sub_(part, alpha=group["lr"])

    def _average(self, memory: dict[str, Any]) -> None:
        """Take the weights into the average."""
        memory["updates"] += 1
        average, weights = memory["average"], torch.cat([p.reshape(-1) for p in self._weights()])
        if memory["updates"] == 1:
            average.copy_(weights)
        else:
            average.lerp_(weights, 1 / memory["updates"])  # a weight at rest keeps its bits, as it would not in a sum

    def _look_back(self, closure: Closure, memory: dict[str, Any]) -> None:
        """Hold the average against the old one: go back, or learn from the difference."""
        old, new = memory["old_average"], memory["average"]
        memory["windows"] += 1
        if memory["windows"] == 1:
            old.copy_(new)
        elif self._rose(closure, old, new):
            assign(self._weights(), self._cut(old))
            memory.update(seen=0, kept=0, rejections=memory["rejections"] + 1)
        elif self._learnt(memory, new - old):
            old.copy_(new)

    def _rose(self, closure: Closure, old: Tensor, new: Tensor) -> bool:
        """Tell whether the loss at the new average is too high, or no number."""
        with borrowed(self._weights()):
            before, after = (self._loss_at(closure, where) for where in (old, new))
        return not after <= before + (self.gamma - 1) * abs(before)

    def _loss_at(self, closure: Closure, where: Tensor) -> float:
        """Compute the loss with its decay term somewhere else."""
        assign(self._weights(), self._cut(where))
        loss = float(evaluate(closure))
        term: float = sum(0.5 * group["weight_decay"] * float(p.square().sum()) for p, group, _ in self._parts())
        return loss + term

    def _cut(self, vector: Tensor) -> Sequence[Tensor]:
        """Cut a vector into parts of the shapes of the weights."""
        weights = self._weights()
        parts = vector.split([p.numel() for p in weights])
        return [part.view(p.shape) for part, p in zip(parts, weights, strict=True)]

    def _learnt(self, memory: dict[str, Any], step: Tensor) -> bool:
        """Keep a step and the Fisher matrix times it, where the curvature along it is enough."""
        rows = memory["gradients"][: min(memory["seen"], self.history.gradients)]
        change = rows.T @ (rows @ step) / len(rows)
        if not step.dot(change) > self.history.min_curvature * step.dot(step):
            return False
        row = memory["kept"] % self.history.pairs
        memory["steps"][row].copy_(step)
        memory["changes"][row].copy_(change)
        memory["kept"] += 1
        return True


def two_loops(gradient: Tensor, diagonal: Tensor, pairs: Sequence[Pair]) -> Tensor:
    """Multiply a gradient by the inverse Hessian of L-BFGS.

    Args:
        gradient: shape (P,).
        diagonal: of the first inverse Hessian, shape (P,), above zero where the gradient is not zero.
        pairs: steps s and changes y of the gradient, each of shape (P,), with s·y above zero; the oldest first.

    Returns:
        The product, shape (P,).

    Source:
        Nocedal & Wright 2006, algorithm 7.4.
    """
    product, done = gradient.clone(), list[Pair]()
    for s, y in reversed(pairs):
        curvature = s.dot(y)
        along = s.dot(product) / curvature
        product -= along * y
        done.append((along, curvature))
    product *= diagonal
    for (s, y), (along, curvature) in zip(pairs, reversed(done), strict=True):
        product += (along - y.dot(product) / curvature) * s
    return product
