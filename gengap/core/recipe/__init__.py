"""Recipes: how something is learnt."""

from gengap.core.recipe.budget import Budget, Converged
from gengap.core.recipe.recipe import OptimizerName, Recipe, batch_samples, digest, share
from gengap.core.recipe.record import Record
from gengap.core.recipe.schedules import Constant, Cosine, Schedule, Smith2020, Step, Warmup

__all__ = [
    "Budget",
    "Constant",
    "Converged",
    "Cosine",
    "OptimizerName",
    "Recipe",
    "Record",
    "Schedule",
    "Smith2020",
    "Step",
    "Warmup",
    "batch_samples",
    "digest",
    "share",
]
