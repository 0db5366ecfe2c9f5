"""The laboratory and toolkit for large-batch training.

Public names are resolved on first use, so that what only prints or plans does not load torch.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gengap.comparison import Comparison, compare, comparison_study
    from gengap.core.errors import BadInput, GengapError, Interrupted, MissingData, OutOfSpace
    from gengap.core.estimate import Estimate
    from gengap.core.recipe import Recipe
    from gengap.measures.distance import Distance, distance, distance_ratio
    from gengap.measures.landscape import Path, interpolate
    from gengap.measures.sharpness import Sharpness, sharpness
    from gengap.problem.load import load
    from gengap.problem.problem import Problem
    from gengap.store.store import Store
    from gengap.studies.study import InterpolationSpec, SharpnessSpec, Study, read_study
    from gengap.training.run import Run
    from gengap.training.solo import train

PUBLIC = {
    "BadInput": "gengap.core.errors",
    "Comparison": "gengap.comparison",
    "Distance": "gengap.measures.distance",
    "Estimate": "gengap.core.estimate",
    "GengapError": "gengap.core.errors",
    "Interrupted": "gengap.core.errors",
    "InterpolationSpec": "gengap.studies.study",
    "MissingData": "gengap.core.errors",
    "OutOfSpace": "gengap.core.errors",
    "Path": "gengap.measures.landscape",
    "Problem": "gengap.problem.problem",
    "Recipe": "gengap.core.recipe",
    "Run": "gengap.training.run",
    "Sharpness": "gengap.measures.sharpness",
    "SharpnessSpec": "gengap.studies.study",
    "Store": "gengap.store.store",
    "Study": "gengap.studies.study",
    "compare": "gengap.comparison",
    "comparison_study": "gengap.comparison",
    "distance": "gengap.measures.distance",
    "distance_ratio": "gengap.measures.distance",
    "interpolate": "gengap.measures.landscape",
    "load": "gengap.problem.load",
    "read_study": "gengap.studies.study",
    "sharpness": "gengap.measures.sharpness",
    "train": "gengap.training.solo",
}

__all__ = [  # noqa: RUF022 - in the order of PUBLIC, spelt out for type checkers
    "BadInput",
    "Comparison",
    "Distance",
    "Estimate",
    "GengapError",
    "Interrupted",
    "InterpolationSpec",
    "MissingData",
    "OutOfSpace",
    "Path",
    "Problem",
    "Recipe",
    "Run",
    "Sharpness",
    "SharpnessSpec",
    "Store",
    "Study",
    "compare",
    "comparison_study",
    "distance",
    "distance_ratio",
    "interpolate",
    "load",
    "read_study",
    "sharpness",
    "train",
]

try:
    __version__ = version("gengap")
except PackageNotFoundError:
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'gengap' has no attribute {name!r}")
    found = getattr(import_module(PUBLIC[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
