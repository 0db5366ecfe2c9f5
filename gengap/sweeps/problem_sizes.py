"""The problems of a sweep: one for each size of the training set, each made once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gengap.core.errors import BadInput
from gengap.problem.problem import Problem
from gengap.studies.study import ProblemSpec
from gengap.sweeps.plan import make_problem, spec_of
from gengap.sweeps.resizing import resized


class Problems:
    """Makes a problem for each size of the training set, with samples to choose by.

    Args:
        base: a problem, or how to make it. What has validation samples of its own keeps them.
        validation: training samples held out, a share of all below 1 or how many; 0: none.
        data_root: folder with the data; None: the environment variable GENGAP_DATA.
    """

    def __init__(
        self, base: Problem | ProblemSpec, *, validation: float = 0, data_root: str | Path | None = None
    ) -> None:
        self.validation, self.data_root = validation, data_root
        self._base, self._made = base, dict[int | None, Problem]()

    def of(self, train_size: int | None = None) -> Problem:
        """Give the problem with a training set of this size.

        Args:
            train_size: training samples, drawn from all that are not held out; None: all of them.

        Returns:
            The problem, the same object at every call.

        Raises:
            BadInput: there are not so many samples, or the problem cannot be cut so.
        """
        if train_size not in self._made:
            self._made[train_size] = self._make(train_size)
        return self._made[train_size]

    def _make(self, train_size: int | None) -> Problem:
        base = self._base
        cut: dict[str, Any] = {} if train_size is None else {"train_size": train_size}
        if isinstance(base, Problem):
            if self.validation and "validation" not in base.splits:
                cut["validation"] = self.validation
            if not cut:
                return base
            spec = spec_of(base)
            return resized(base, **cut) if spec.name else make_problem(with_options(spec, cut), self.data_root)
        if self.validation and "validation" not in base.options:
            cut["validation"] = self.validation
        return make_problem(with_options(base, cut), self.data_root)


def with_options(spec: ProblemSpec, options: Mapping[str, Any]) -> ProblemSpec:
    """Give a spec with some options more.

    Args:
        spec: of a problem that can be made again.
        options: that it does not have yet.

    Returns:
        The spec.

    Raises:
        BadInput: it has one of them already, with another value.
    """
    for name, value in options.items():
        if spec.options.get(name, value) != value:
            raise BadInput(
                f"{name} is {spec.options[name]!r} in the problem and {value!r} in the sweep; give one of them"
            )
    return ProblemSpec(**spec.model_dump() | {"options": spec.options | dict(options)})
