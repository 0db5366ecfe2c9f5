"""Engines by name."""

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gengap.core.errors import BadInput

if TYPE_CHECKING:  # `gengap --help` names engines and loads no torch
    from gengap.sweeps.work import Engine

ENGINES = {
    "in-process": "in_process:InProcess",
    "pool": "pool:Pool",
    "ray": "ray:RayCluster",
    "slurm": "slurm:Slurm",
}


def make_engine(name: str, *, workers: int | None = None, **options: Any) -> "Engine":
    """Make an engine by its name.

    Args:
        name: "in-process", "pool", "ray" or "slurm".
        workers: how many runs are made at once; None: as many as there is room for. Not for "in-process".
        options: of the engine, as its class takes them.

    Returns:
        The engine.

    Raises:
        BadInput: there is no such engine, it lacks a package, or it has no such option.
    """
    if name not in ENGINES:
        raise BadInput(f"no engine called {name!r}; choose {', '.join(ENGINES)}")
    if workers is not None:
        options["workers"] = workers
    module, _, kind = ENGINES[name].partition(":")
    made = getattr(import_module(f"gengap.sweeps.engines.{module}"), kind)
    known = inspect.signature(made).parameters
    unknown = [option for option in options if option not in known]
    if unknown:
        raise BadInput(f"the engine {name!r} has no option {unknown[0]!r}; it has {', '.join(known)}")
    lacking = [option for option, one in known.items() if one.default is one.empty and option not in options]
    if lacking:
        raise BadInput(f"the engine {name!r} needs the option {lacking[0]!r}")
    return made(**options)  # type: ignore[no-any-return]
