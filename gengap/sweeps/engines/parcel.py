"""A problem as it travels to another process or machine."""

import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from gengap.core.errors import BadInput
from gengap.problem.problem import Problem, said
from gengap.studies.study import ProblemSpec
from gengap.sweeps.plan import make_problem, run_key, spec_of
from gengap.sweeps.work import Pack

Dumps = Callable[[Problem], bytes]


@dataclass(frozen=True, slots=True)
class Parcel:
    """A problem, or how to make it.

    Attributes:
        content: the problem, pickled, or its names.
        data_root: folder with the data where it is made from its names.
    """

    content: bytes | ProblemSpec
    data_root: str | None = None

    def opened(self) -> Problem:
        """Give the problem, where its runs are made.

        Returns:
            The problem.

        Raises:
            BadInput: it cannot be unpickled or made here.
        """
        if isinstance(self.content, ProblemSpec):
            return make_problem(self.content, self.data_root)
        try:
            return pickle.loads(self.content)  # type: ignore[no-any-return] # made by `parcel_of` in the driver
        except Exception as error:  # a user's classes may raise anything
            raise BadInput(
                f"a worker cannot unpickle the problem ({said(error)}); define its model, loss and data in a module that every "
                f"worker can import, or choose the engine 'solo'"
            ) from error


def check_same(problem: Problem, pack: Pack) -> None:
    """Refuse to make runs of another problem than the driver means.

    Args:
        problem: as a worker made it.
        pack: runs whose keys the driver has computed.

    Raises:
        BadInput: network, loss or data differ.
    """
    task = pack.tasks[0]
    if run_key(problem, task.recipe) != task.key:
        raise BadInput(
            f"{problem.name} as a worker makes it is not the problem of the sweep (network, loss or data differ); give all "
            f"workers the same data and the same versions"
        )


def parcel_of(pack: Pack, dumps: Dumps) -> Parcel:
    """Wrap up a pack's problem.

    Args:
        pack: whose problem.
        dumps: pickles it; `cloudpickle.dumps` also takes lambdas and what a script defines itself.

    Returns:
        The problem pickled, or where that is not possible what it is made from.

    Raises:
        BadInput: it can neither be pickled nor made from a name.
    """
    if isinstance(pack.problem, ProblemSpec):
        return Parcel(pack.problem, pack.data_root)
    _ = pack.problem.fingerprint  # travels along, so that a worker need not hash the data again
    try:
        return Parcel(dumps(pack.problem))
    except Exception as error:  # pickle raises what it likes, and so does a user's data set
        spec = spec_of(pack.problem)
        if spec.name is None:
            return Parcel(spec, pack.data_root)
        raise BadInput(
            f"{pack.problem.name} cannot be sent to another process ({said(error)}); make its model and loss functions or "
            f"classes of a module, not lambdas or functions inside functions, or choose the engine 'solo'"
        ) from error


def parcels_of(packs: Iterable[Pack], dumps: Dumps) -> dict[str, Parcel]:
    """Wrap up every problem once, by name."""
    found: dict[str, Parcel] = {}
    for pack in packs:
        if name_of(pack) not in found:
            found[name_of(pack)] = parcel_of(pack, dumps)
    return found


def name_of(pack: Pack) -> str:
    """Name a pack's problem so that equal problems have equal names."""
    if isinstance(pack.problem, Problem):
        return pack.problem.fingerprint
    return f"{pack.problem.model_dump_json()} in {pack.data_root}"


def light(pack: Pack) -> Pack:
    """Give a pack that names its problem and does not hold it."""
    if isinstance(pack.problem, ProblemSpec):
        return pack
    return replace(pack, problem=ProblemSpec(name=pack.problem.name))
